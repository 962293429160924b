"""A person's signed answer to a hold: what `by=` of `Gate.release`, `Gate.refuse`,
`Gate.answer` and `Gate.reveal` takes.

All are over the statement of the hold (`agentgate.decision.hold.Hold.statement`), or of several
(`agentgate.decision.batch_answer`), with a nonce that the gate gave out for it (`Gate.nonce`):
good for one answer, and for `NONCE_SECONDS`. An `OIDCToken` has the statement's digest in its
`nonce` claim, a passkey signs it as its challenge. Having one of these objects proves nothing;
the gate verifies it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from agentgate.values.canonical import parse
from agentgate.values.value_class import value_class

NONCE_SECONDS = 300
ANSWER_TYPE = "agentgate-answer+jwt"  # `typ` of a JWS answer
ANSWER_NAMESPACE = "agentgate-hold"  # of an SSH answer (SSHSIG)

Said = Literal["release", "refuse", "reveal"]


@value_class
class SSHAnswer:
    """An armoured SSH signature (SSHSIG) of a person whose key the root of approvals names, in
    the namespace ``agentgate-hold``.

    Attributes:
        nonce: the nonce in the signed statement.
        signature: the text that ``ssh-keygen -Y sign`` writes.
    """

    nonce: str
    signature: str = field(repr=False)


@value_class
class JWSAnswer:
    """A compact JWS of a key that the gate's setting `answer_keys` names for the tenant: the
    host's front end, out of the agent's reach.

    Its claims are those of the statement, with `aud` (the gate's URL), `sub` (who answers),
    `iat`, `exp`, and optionally `groups`.
    """

    token: str = field(repr=False)


@value_class
class WebAuthnAnswer:
    """An assertion of a passkey that the gate's setting `passkeys` names for the tenant, over
    `webauthn_challenge` of the statement.

    Attributes:
        nonce: the nonce in the statement.
        assertion: what ``navigator.credentials.get`` returned: the JSON text of its `toJSON()`,
            or the values that it stands for (Web Authentication Level 3, section 5.1).
    """

    nonce: str
    assertion: str | Mapping[str, Any] = field(repr=False)


def webauthn_challenge(statement: bytes) -> bytes:
    """The challenge (32 bytes: the SHA-256 of the statement) to ask a passkey with, so that its
    assertion is a person's answer.

    `statement`: of a hold (`Hold.statement`), or of several
    (`agentgate.decision.batch_answer.Together.statement`).
    """
    return hashlib.sha256(statement).digest()


def nonce_claim(statement: bytes) -> str:
    """The `nonce` to ask an OpenID provider for, so that its ID token is a person's answer: the
    gate's nonce and the statement's SHA-256.

    `statement`: as of `webauthn_challenge`.
    """
    digest = base64.urlsafe_b64encode(webauthn_challenge(statement)).decode().rstrip("=")
    return f"{parse(statement)['nonce']}.{digest}"
