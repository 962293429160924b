"""The payment API: pays a redeemed call's refund at the payment provider, with a credential that was fetched for this call."""

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


def pay(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call, from the arguments that were decided on. The agent never sees the credential."""
    shown = {"Authorization": f"Bearer {call.credential.reveal()}"}
    answer = httpx.post(f"{PROVIDER}/refunds", json=dict(call.args), headers=shown, trust_env=False)
    paid = answer.raise_for_status().json()
    return {"refund_id": paid["refund_id"], "status": "paid", "amount": paid["amount"], "currency": paid["currency"]}


if __name__ == "__main__":
    secret = Secret(file=Path(os.environ["STATE"], "payments.secret"))
    broker = OAuthBroker(f"{PROVIDER}/token", "payments", secret, revocation_endpoint=f"{PROVIDER}/revoke")
    args = ["order_id", "amount", "currency", "payee", "notify", "reason"]
    serve_tool(
        "payments.refund",
        "/refunds",
        args,
        run=pay,
        broker=broker,
        audience="https://payments.acme.example",
    )
