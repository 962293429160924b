"""The orders API: looks up the order of a redeemed call at the payment provider, with a credential that was fetched for this call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
from tool_server import serve_tool

from agentgate.credentials.oauth import OAuthBroker
from agentgate.credentials.static import Secret
from agentgate.redemption.verifier import AsyncRedeemedCall

PROVIDER = os.environ["PROVIDER"]


def look_up(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call."""
    shown = {"Authorization": f"Bearer {call.credential.reveal()}"}
    answer = httpx.get(f"{PROVIDER}/orders/{call.args['order_id']}", headers=shown, trust_env=False)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


if __name__ == "__main__":
    secret = Secret(file=Path(os.environ["STATE"], "orders.secret"))
    broker = OAuthBroker(f"{PROVIDER}/token", "orders", secret, revocation_endpoint=f"{PROVIDER}/revoke")
    serve_tool(
        "orders.get",
        "/orders",
        ["order_id"],
        run=look_up,
        broker=broker,
        audience="https://orders.acme.example",
    )
