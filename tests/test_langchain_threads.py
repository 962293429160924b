"""How many threads an awaited call of a guarded tool waits for, and that none is lost while it waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from agentgate import Agent, AsyncGate, Gate
from agentgate.integrations.langchain import guard_tools
from tests.shop import LEE, ORDER, PROMPT, REFUND, WEEKDAY, looked_up, opened, run_of

FOUND = {"total": "150.00", "currency": "EUR", "customer": "cus_1"}
CALL: dict[str, Any] = {"type": "tool_call", "name": "orders.get", "args": dict(ORDER)}


@tool("orders.get")
def look_up(order_id: str) -> dict[str, str]:
    """Look up an order."""
    return FOUND


@tool("orders.get")
async def look_up_awaited(order_id: str) -> dict[str, str]:
    """Look up an order."""
    return FOUND


@tool("payments.refund")
def refund(order_id: str, amount: str, currency: str, payee: str) -> str:
    """Pay money back."""
    raise AssertionError("it is held")


class Threads(ThreadPoolExecutor):
    """The threads of an event loop, and how often somebody waited for one."""

    waited = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.waited += 1
        return super().submit(*args, **kwargs)


@pytest.fixture
async def threads() -> Threads:
    made = Threads(1)
    asyncio.get_running_loop().set_default_executor(made)
    return made


@pytest.fixture
def gate(folder: Path) -> Iterator[Gate]:
    with opened(folder, at_once=2) as gate:
        yield gate


async def test_a_synchronous_tool_under_a_blocking_gate_waits_for_one(gate: Gate, threads: Threads) -> None:
    (guarded,) = guard_tools([look_up], run=run_of(gate))
    answer = await guarded.ainvoke({**CALL, "id": "look"})
    assert (answer.status, threads.waited) == ("success", 1)
    assert [r["type"] for r in gate._audit.records][-2:] == ["decision", "outcome"]  # type: ignore[attr-defined]


async def test_under_an_awaited_gate_only_the_tools_own_function_waits_for_one(folder: Path, threads: Threads) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        plain, awaited = (guard_tools([each], run=run)[0] for each in (look_up, look_up_awaited))
        assert (await awaited.ainvoke({**CALL, "id": "awaited"})).status == "success"
        assert threads.waited == 0
        assert (await plain.ainvoke({**CALL, "id": "plain"})).status == "success"
        assert threads.waited == 1


async def test_a_call_that_is_cancelled_while_it_waits_gives_its_place_back(gate: Gate, threads: Threads) -> None:
    (guarded,) = guard_tools([look_up], run=run_of(gate))
    held = threading.Event()
    blocked = asyncio.create_task(asyncio.to_thread(held.wait))
    waiting = [asyncio.create_task(guarded.ainvoke({**CALL, "id": f"look-{number}"})) for number in range(2)]
    while gate._bound.under_way < 2:  # noqa: ASYNC110 - a count has no event
        await asyncio.sleep(0.001)
    assert (await guarded.ainvoke({**CALL, "id": "more"})).content == "agentgate: unavailable"
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert gate._bound.under_way == 0
    held.set()
    await blocked
    assert (await guarded.ainvoke({**CALL, "id": "after"})).status == "success"
    assert gate._bound.under_way == 0


async def test_held_calls_keep_no_thread_from_the_others_of_their_task(gate: Gate, threads: Threads) -> None:
    run = run_of(gate)
    looked_up(run)
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(guard_tools([look_up, refund], run=run)))
    graph.add_edge(START, "tools")
    asked = [
        {"name": "payments.refund", "id": "pay", "type": "tool_call", "args": {**REFUND, "amount": "150.00"}},
        {**CALL, "id": "look"},
    ]
    said: Any = {"messages": [HumanMessage(PROMPT), {"role": "assistant", "content": "", "tool_calls": asked}]}
    out = await asyncio.wait_for(
        graph.compile(checkpointer=InMemorySaver()).ainvoke(said, {"configurable": {"thread_id": "1"}}), timeout=20
    )
    assert [each.value["tool"] for each in out["__interrupt__"]] == ["payments.refund"]
    outcomes = [(r["tool_call_id"], r["outcome"]) for r in gate._audit.records if r["type"] == "outcome"]  # type: ignore[attr-defined]
    assert ("look", "done") in outcomes
    assert threads._max_workers == 1
