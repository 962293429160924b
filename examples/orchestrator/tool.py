"""The queue server: puts one job on a queue, with the rights that were decided on and no others."""

from __future__ import annotations

from typing import Any

from agentgate.cli.demo_tool import serve_tool
from agentgate.redemption.verifier import AsyncRedeemedCall

QUEUES: dict[str, list[dict[str, Any]]] = {"reports": [], "imports": []}


def dispatch(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call."""
    queue = QUEUES[call.args["queue"]]
    queue.append({"job": call.args["job"], "tenant": call.claims.tenant, "scopes": call.args["scopes"]})
    return {"place": len(queue), **queue[-1]}


if __name__ == "__main__":
    args = ["queue", "job", "scopes"]
    serve_tool("jobs.dispatch", "/jobs", args, audience="https://jobs.acme.example", tenants=["acme-eu", "acme-uk"], run=dispatch)
