"""The identity server: issues an account's next token, for a call token that was minted for exactly this."""

from __future__ import annotations

import time
from typing import Any

from agentgate.cli.demo_key import Key
from agentgate.cli.demo_tool import serve_tool
from agentgate.redemption.verifier import AsyncRedeemedCall

KEY = Key("identity-1")


def refresh(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call: a token for the account and the audience that were decided on."""
    account, audience = call.args["account"], call.args["audience"]
    claims = {"iss": "https://identity.acme.example", "sub": account, "aud": audience, "exp": int(time.time()) + 900}
    return {"account_token": KEY.sign(claims), "audience": audience}


if __name__ == "__main__":
    args = ["account", "audience"]
    serve_tool("identity.refresh", "/tokens", args, audience="https://identity.acme.example", tenants=["acme-eu"], run=refresh)
