"""No model at all: a script that answers as one would, so that the example needs no network. `app.py` has the line for a real one."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

ORDER, AMOUNT = re.compile(r"ORD-\d{8}"), re.compile(r"(\d+(?:\.\d\d)?) EUR")
TOLD = {
    "refused": "They said no, so I cannot refund it.",
    "not_permitted": "I may not do that.",
    "limit_reached": "That is all that I may refund for now.",
    "needs_approval withdrawn": "I have withdrawn that refund.",
    "already_done": "That is refunded already.",
    "unavailable": "Please try again in a moment.",
}


class ScriptedModel(BaseChatModel):
    """Looks up the order that is named, refunds its total or the amount that is named, and says what came of it."""

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        """It knows its tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=answer(messages))])


def answer(messages: list[BaseMessage]) -> AIMessage:
    """The next message."""
    said = [str(each.text) for each in messages if each.type == "human"]
    newest = messages[-1]
    waits = [str(each.text) for each in messages if isinstance(each, ToolMessage) and "needs_approval of: " in str(each.text)]
    withdrawn = any(isinstance(each, ToolMessage) and str(each.text).endswith("withdrawn") for each in messages[-3:])
    if isinstance(newest, ToolMessage):
        text = str(newest.text)
        if text.startswith("agentgate: "):
            return AIMessage(TOLD.get(text.removeprefix("agentgate: ").split(" {")[0], f"That did not work ({text})."))
        if text.startswith("refunded "):
            return AIMessage(f"Done: I {text}.")
        return refund(json.loads(text), said)
    if waits:
        whom, _, until = waits[-1].partition(" of: ")[2].partition(" until: ")
        return AIMessage(f"Your refund still waits for {whom}, until {until}.")
    orders = ORDER.findall(" ".join(said))
    if not orders or not (ORDER.search(said[-1]) or AMOUNT.search(said[-1])):
        return AIMessage(TOLD["needs_approval withdrawn"] if withdrawn else "Which order shall I refund? (ORD- and eight digits)")
    return AIMessage("", tool_calls=[call("orders_get", order_id=orders[-1])])


def refund(order: dict[str, str], said: list[str]) -> AIMessage:
    """A refund of the order, of the amount that was named last."""
    amounts = AMOUNT.findall(" ".join(said))
    asked = {"order_id": order["order_id"], "amount": amounts[-1] if amounts else order["total"], "currency": order["currency"]}
    return AIMessage("", tool_calls=[call("payments_refund", **asked)])


def call(tool: str, **args: str) -> dict[str, Any]:
    """A call, under an id that no other has."""
    return {"name": tool, "args": args, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "tool_call"}
