"""A LangChain agent that refunds orders, and may do nothing that the workflow does not grant.

    python agent.py

Four steps of a host: open a gate, guard the tools, open a run with the user's own words, invoke the agent inside it. No key and
no network are needed: a scripted model stands where yours goes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from payment_api import ORDERS, PAYMENTS, PaymentApi
from refund_tools import refund_tools

from agentgate import Agent, Gate, User
from agentgate.integrations.langchain import guard_tools, use_run
from agentgate.testing import demo_approvals

HERE = Path(__file__).parent
WORKFLOW, TENANTS = "payments.customer-refund", ("acme-eu", "acme-uk")
OFFICE_HOURS = datetime(2026, 6, 2, 9, 30, tzinfo=UTC)  # a Tuesday, 11:30 in Berlin: the workflow is for office hours
# How the agent goes on once a person answered a hold. What it says counts for nothing: the release is in the gate's store.
GO_ON: Command[Any] = Command(resume="go on")

# One step of a scripted model: the tool to call, and its arguments made from the conversation so far.
Step = tuple[str, Callable[[Sequence[BaseMessage]], dict[str, Any]]]


class ScriptedModel(BaseChatModel):
    """Proposes the steps one after the other, then repeats what the last tool answered.

    For a real model put `init_chat_model("...")` in its place. Some providers refuse dots in tool names: there, call the
    tools `orders_get` and so on, in the workflow too.
    """

    steps: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> ScriptedModel:  # noqa: ARG002 - a script needs no schemas
        """The script knows its tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        done = sum(isinstance(message, AIMessage) for message in messages)
        if done < len(self.steps):
            name, make = self.steps[done]
            answer = AIMessage("", tool_calls=[{"name": name, "args": make(messages), "id": f"call_{done + 1}"}])
        else:
            answer = AIMessage(f"The last tool answered: {messages[-1].text}")
        return ChatResult(generations=[ChatGeneration(message=answer)])


def answer_of(messages: Sequence[BaseMessage], tool: str) -> Any:
    """The newest answer of a tool in a conversation, as the model saw it."""
    content = next(m.text for m in reversed(messages) if isinstance(m, ToolMessage) and m.name == tool)
    return json.loads(content)


def look_up(order: str) -> Step:
    """Step: look the order up."""
    return "orders.get", lambda _: {"order_id": order}


def refund(order: str, **changed: str) -> Step:
    """Step: refund the order in full to its customer, as the look-up said; `changed` arguments are the model's own."""

    def args(messages: Sequence[BaseMessage]) -> dict[str, Any]:
        found = answer_of(messages, "orders.get")
        return {"order_id": order, "amount": found["total"], "currency": found["currency"], "payee": found["customer_id"], **changed}

    return "payments.refund", args


@contextmanager
def open_gate(clock: Callable[[], datetime] | None = None, state: Path | None = None) -> Iterator[Gate]:
    """The gate over the workflow beside this file, as its reviewers approved it; an edit that nobody signed changes nothing.

    These reviewers' keys are known to everybody, so the gate warns. What of their approvals lasts only a week is made here, in a
    copy. In production that is your repository, the root's digest stands in your settings, and the store is a Redis.

    Args:
        clock: the decision clock; None: the system's.
        state: where copy, keys and audit log stay; None: they end with the gate.
    """
    with TemporaryDirectory() as temporary:
        place = state or Path(temporary)
        copied = shutil.copytree(HERE / "workflows", place / "workflows", dirs_exist_ok=True)
        root = demo_approvals.prepare(copied)
        with Gate.open(
            copied,
            root=root,
            issuer="https://gate.acme.example",
            keys=place / "keys",
            audit=str(place / "audit"),
            environment="prod",
            clock=clock,
        ) as gate:
            yield gate


def serve(gate: Gate) -> PaymentApi:
    """The API in this process. In one of its own: `Verifier.open(jwks, issuer=..., tenants=..., audience=..., store=..., audit=...)`."""
    return PaymentApi(orders=gate.verifier(ORDERS, tenants=TENANTS), payments=gate.verifier(PAYMENTS, tenants=TENANTS))


def build_agent(model: BaseChatModel, tools: Sequence[BaseTool]) -> Any:
    """An agent whose tools run only what the gate allows; the checkpointer lets a held call wait for a person."""
    return create_agent(model, guard_tools(tools), checkpointer=InMemorySaver())


def main() -> None:
    """Refund one order, and print the conversation and what was paid."""
    order = "ORD-10023344"
    prompt = f"Please refund order {order}, it arrived broken"
    # a fixed clock, so that this runs at night too; leave it out and the gate uses the system's
    with open_gate(lambda: OFFICE_HOURS) as gate, serve(gate) as api:
        agent = build_agent(ScriptedModel(steps=[look_up(order), refund(order, reason="arrived broken")]), refund_tools(api.url))
        user = User("lee", tenant="acme-eu", groups=["support-l1"])
        run = gate.open_run(WORKFLOW, tenant="acme-eu", user=user, agent=Agent("support-agent"), prompt=prompt)
        with use_run(run):
            result = agent.invoke({"messages": [("user", prompt)]}, {"configurable": {"thread_id": run.id}})
        for message in result["messages"]:
            message.pretty_print()
        for pause in result.get("__interrupt__", ()):
            print("\nWaits for a person:", pause.value)
        print("\nPaid:", api.ledger.paid)


if __name__ == "__main__":
    main()
