"""What the assistant works with: two LangChain tools. Yours stand here; they know nothing of agentgate but its idempotency key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from langchain_core.tools import tool

from agentgate import NotDone
from agentgate.integrations.langchain import idempotency_key

PAID = Path(os.environ["STATE"], "paid.jsonl")  # stands where your payment API is
ORDERS = {
    "ORD-10023344": {"total": "49.90", "currency": "EUR"},
    "ORD-10023377": {"total": "180.00", "currency": "EUR"},
    "ORD-10023388": {"total": "240.00", "currency": "EUR"},
}


@tool
def orders_get(order_id: str) -> dict[str, Any]:
    """Look up an order."""
    if order_id not in ORDERS:
        raise NotDone("there is no such order")
    return {"order_id": order_id, **ORDERS[order_id]}


@tool
def payments_refund(order_id: str, amount: str, currency: str) -> str:
    """Refund an order."""
    paid = {"order_id": order_id, "amount": amount, "currency": currency, "key": idempotency_key()}
    with PAID.open("a") as books:
        books.write(json.dumps(paid) + "\n")
    return f"refunded {amount} {currency} of {order_id}"


TOOLS = [orders_get, payments_refund]
