"""``agentgate keys``: publish, rotate and withdraw a gate's signing keys; make a client's;
change a service account's.
"""

from __future__ import annotations

import time
from pathlib import Path

from agentgate.cli.output import say, say_json
from agentgate.gate import account_key
from agentgate.integrations.client_key import ClientKey, owned
from agentgate.token.signing import PUBLISH_AHEAD, KeyRing, SigningKey


def jwks(directory: Path) -> None:
    """Print the public key set (RFC 7517): every key that signs, will sign, or signed a token
    that may still live.
    """
    say_json(KeyRing.existing(directory).jwks(time.time()))


def rotate(directory: Path) -> None:
    """Add a signing key. It is published at once and signs only after verifiers had time to
    fetch it.
    """
    key = KeyRing.existing(directory).rotate(time.time())
    say(f"{key.kid} ({key.alg}) is published now and signs in {PUBLISH_AHEAD / 60:.0f} minutes")


def withdraw(directory: Path, kid: str) -> None:
    """Take back a key that leaked, at once. Gates and servers notice within seconds; a key set
    in a file must be written anew.
    """
    key = KeyRing.existing(directory).withdraw(kid, time.time())
    say(f"{kid} is withdrawn; {key.kid} ({key.alg}) signs from now on")
    say("what it signed counts nowhere at once with:")
    say(
        "  agentgate revoke 'tenant:*' --before now --tenant all --workflows DIR --store URL --audit DIR"
    )


def client(file: Path) -> None:
    """Print the public key set of a client of a served gate: for `keys` of its block in the
    gate's settings.
    """
    say_json(ClientKey.made("client", file).jwks())


def account(
    old: Path,
    new: Path,
    gate: str,
    tenant: str,
    name: str,
) -> None:
    """Print the statement by which a service account's old key signs for its new one: for `POST
    /oauth2/key`, within ten minutes.
    """
    key = SigningKey.from_pem(owned("account key", old))
    ClientKey.made(name, new)
    fresh = SigningKey.from_pem(owned("account key", new))
    said = account_key.statement(
        key, fresh.kid, gate=gate, tenant=tenant, account=name, now=time.time()
    )
    say(said)
