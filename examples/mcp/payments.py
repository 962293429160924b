"""The payments server: the official SDK over stdio. A refund runs once for its token, with a bank session fetched for this call."""

from __future__ import annotations

import secrets
import time

from tool import tool_server

from agentgate.integrations.mcp import GatedMCPServer, ProtectedTools, redeemed_call
from agentgate.redemption.credential import Redemption, UpstreamCredential
from agentgate.service.process import log_to_stderr

SESSIONS: set[str] = set()


class Bank:
    """The broker `provider` of the workflow: a session of the bank for one redeemed call. The agent never sees it."""

    takes = frozenset({"role"})

    def fetch(self, call: Redemption) -> UpstreamCredential:  # noqa: ARG002 - your broker asks for what the call needs
        """See docs/credentials.md."""
        SESSIONS.add(session := secrets.token_urlsafe(32))
        return UpstreamCredential({"session": session}, expires_at=time.time() + 600, end=lambda: SESSIONS.discard(session))


def refund(order_id: str, amount: str, currency: str, payee: str) -> dict[str, str]:
    """Refund an order to the customer on file."""
    call = redeemed_call()
    if call.credential.reveal() not in SESSIONS:
        raise PermissionError("no session of the bank")
    return {"refund": f"re_{call.txn[:12]}", "order_id": order_id, "paid": f"{amount} {currency}", "to": payee}


if __name__ == "__main__":
    where = tool_server("https://payments.acme.example/mcp", "payments-audit", brokers={"provider": Bank()})
    server = GatedMCPServer("payments", protected=ProtectedTools(where, ["payments.refund"]), log_level="CRITICAL")
    server.add_tool(refund, name="payments.refund")
    log_to_stderr()
    server.run("stdio")
