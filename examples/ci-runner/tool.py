"""The deploy server: a deployment for a job that shows a token for exactly this one, with a cloud session fetched for this call."""

from __future__ import annotations

import secrets
import time
from typing import Any

from agentgate.cli.demo_tool import serve_tool
from agentgate.redemption.credential import UpstreamCredential
from agentgate.redemption.upstream import Redemption
from agentgate.redemption.verifier import AsyncRedeemedCall


class Cloud:
    """Where your cloud is: sessions with an end, and what each may do."""

    def __init__(self) -> None:
        self._sessions: dict[str, frozenset[str]] = {}

    def open(self, scopes: list[str]) -> str:
        """A session for these rights; for AWS: `sts.assume_role(RoleArn=..., Policy=..., DurationSeconds=900)`."""
        key = secrets.token_urlsafe(32)
        self._sessions[key] = frozenset(scopes)
        return key

    def end(self, key: str) -> None:
        """The session ends."""
        self._sessions.pop(key, None)

    def update_service(self, key: str, service: str) -> str:
        """Start a deployment. Raises PermissionError: the session has not the right, or is over."""
        if "ecs:UpdateService" not in self._sessions.get(key, frozenset()):
            raise PermissionError("ecs:UpdateService")
        return f"dep-{service}-{secrets.token_hex(4)}"


CLOUD = Cloud()


class Sessions:
    """The broker `aws-sts` of the workflow: a session for the rights of one redeemed call, no wider and no longer."""

    takes = frozenset({"role", "region"})

    def fetch(self, call: Redemption) -> UpstreamCredential:
        """See docs/credentials.md."""
        key = CLOUD.open(call.args["scopes"])
        return UpstreamCredential({"session": key}, expires_at=time.time() + 600, end=lambda: CLOUD.end(key))


def deploy(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call. The job never sees the session."""
    if call.credential is None:
        raise PermissionError("no session")
    return {"deployment": CLOUD.update_service(call.credential.reveal(), call.args["service"])}


if __name__ == "__main__":
    args = ["service", "scopes"]
    where = {"audience": "https://deploy.acme.example", "tenants": ["acme-eu"]}
    serve_tool("cloud.assume-deploy-role", "/deployments", args, run=deploy, brokers={"aws-sts": Sessions()}, **where)
