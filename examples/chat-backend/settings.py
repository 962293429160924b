"""What every worker is opened with: `AsyncGate.open(**GATE)`."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path(os.environ["STATE"])  # of this machine: signing keys, the audit log, the checkpoints
LOGIN = os.environ["LOGIN"]  # the identity provider
SECRET = os.environ["SECRET"]  # of the sessions' cookies, the same for every worker
USERS = {
    "issuer": LOGIN,
    "keys": f"{LOGIN}/jwks",
    "private_addresses": True,  # leave it out where that URL is public
    "audience": "chat",  # this backend's client id there
    "tenants": ["acme"],
    "user": {"tenant": "tenant", "groups": "groups"},
}
GATE = {
    "workflows": os.environ["WORKFLOWS"],
    "root": os.environ["ROOT"],  # the digest of your reviewers' root: agentgate root digest
    "issuer": os.environ["URL"],  # what tokens of this gate name as their issuer
    "store": os.environ["STORE"],  # rediss://... of all workers
    "keys": STATE / "keys",
    "audit": str(STATE / "audit"),
    "identity": {"issuers": {"login": USERS}},
}
