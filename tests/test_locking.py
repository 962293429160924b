"""One resume of a conversation at a time: others wait or are told; a holder that hangs or dies loses the lock, and mints no more."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentgate import Agent, Allow, Gate, Reason, User
from agentgate.gate import locking
from agentgate.gate.gate import AsyncGate
from agentgate.integrations.langchain import AgentGateMiddleware
from agentgate.values.refusal import Code, RunRefused
from tests.langchain_shop import LEAD, LEE, PROMPT, Script, Shop, calls, identify, say, tool_messages, tool_server, vouched
from tests.preloaded import Forked
from tests.servers import Server
from tests.shop import LEE as SHOP_LEE
from tests.shop import PROMPT as SHOP_PROMPT
from tests.shop import REFUND, WEEKDAY, looked_up, opened, reasons, run_of
from tests.test_conversation_langchain import DEAR, GET


def pay(run: Any, call: str = "pay") -> Any:
    return run.authorize("payments.refund", REFUND, tool_call_id=call)


def elsewhere(work: Any, *args: Any) -> Any:
    """What is done in no task or thread that holds a lock."""
    return Context().run(work, *args)


def talk(gate: Gate) -> Any:
    return run_of(gate, conversation="chat-7")


@pytest.fixture(params=["memory", "redis", "valkey"])
def gate(request: pytest.FixtureRequest, folder: Path) -> Iterator[Gate]:
    server = None if request.param == "memory" else request.getfixturevalue(f"{request.param}_server")
    if server is not None:
        server.command("FLUSHALL")
    more = {} if server is None else {"store": server.url, "keys": folder / "keys"}
    with opened(folder, **more) as gate:
        yield gate


def test_while_one_holds_the_lock_no_other_mints(gate: Gate) -> None:
    first, second = talk(gate), run_of(gate, "", conversation="chat-7")
    looked_up(first)
    with first.lock():
        assert reasons(elsewhere(pay, second)) == {Reason.RUN_BUSY}
        assert elsewhere(pay, second).code is Code.UNAVAILABLE
        with pytest.raises(RunRefused) as refused, second.lock(wait=0.1):
            pass
        assert [each.reason for each in refused.value.failures] == [Reason.RUN_BUSY]
        assert isinstance(pay(first), Allow)
    with second.lock():
        assert isinstance(pay(second), Allow)
    assert isinstance(pay(first), Allow)  # nobody holds it


def test_who_hung_until_another_took_the_lock_mints_nothing(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "LOCKED", 1)
    first, second = talk(gate), run_of(gate, "", conversation="chat-7")
    looked_up(first)
    with first.lock():
        time.sleep(1.05)
        assert isinstance(pay(first), Allow)  # it ended, but nobody came
        elsewhere(second.take_lock, "other", 0)
        assert reasons(pay(first)) == {Reason.RUN_BUSY}
        second.give_lock("other")
        assert reasons(pay(first)) == {Reason.RUN_BUSY}  # also when the other has gone
    assert isinstance(pay(first), Allow)


def test_a_holder_that_gives_back_late_frees_nobody_elses_lock(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    run = talk(gate)
    looked_up(run)
    monkeypatch.setattr(locking, "LOCKED", 1)
    run.take_lock("slow", 0)
    time.sleep(1.05)
    monkeypatch.setattr(locking, "LOCKED", 30)
    run.take_lock("other", 0)
    run.give_lock("slow")
    assert reasons(pay(run)) == {Reason.RUN_BUSY}
    run.take_lock("other", 0)
    run.give_lock("other")
    assert reasons(pay(run)) == {Reason.RUN_BUSY}  # taken twice
    run.give_lock("other")
    assert isinstance(pay(run), Allow)


def test_where_there_is_no_lock_each_call_is_told_why(gate: Gate) -> None:
    run = talk(gate)
    looked_up(run)
    run.close()
    with run.lock():
        assert reasons(pay(run)) == {Reason.RUN_CLOSED}


def test_a_read_needs_no_lock_and_waits_for_nobody(gate: Gate) -> None:
    first, second = talk(gate), run_of(gate, "", conversation="chat-7")
    with first.lock():
        elsewhere(looked_up, second)
        assert isinstance(pay(first), Allow)


HOLDER = """
import sys, time
from pathlib import Path
from tests.shop import opened, run_of
with opened(Path(sys.argv[1]), store=sys.argv[2], keys=Path(sys.argv[1]) / "keys") as gate:
    with run_of(gate, "", conversation="chat-7").lock():
        print("locked", flush=True)
        time.sleep(60)
"""


def test_a_process_that_is_killed_with_the_lock_stops_the_conversation_for_seconds_only(
    valkey_server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey_server.command("FLUSHALL")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    with opened(folder, store=valkey_server.url, keys=folder / "keys") as gate, (tmp_path / "out").open("w+b") as out:
        run = talk(gate)
        looked_up(run)
        code = HOLDER.replace("import sys, time", "import sys, time\nfrom agentgate.gate import locking\nlocking.LOCKED = 2")
        holder = Forked(code, str(folder), valkey_server.url, stdout=out, stderr=out, env=os.environ, cwd=Path.cwd())
        until = time.monotonic() + 20
        while b"locked" not in (tmp_path / "out").read_bytes() and time.monotonic() < until:
            time.sleep(0.02)
        began = time.monotonic()
        assert reasons(pay(run)) == {Reason.RUN_BUSY}
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with run.lock(wait=5):
            assert time.monotonic() - began < 3
            assert isinstance(pay(run), Allow)


async def test_awaited_the_lock_is_the_same(folder: Path) -> None:
    gate = await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY)
    given: Any = {"tenant": "acme", "user": SHOP_LEE, "agent": Agent("bot"), "conversation": "chat-7"}
    first = await gate.open_run("shop.refund", **given, prompt=SHOP_PROMPT)
    order: list[str] = []

    async def resume(name: str) -> None:
        run = await gate.open_run("shop.refund", **given, prompt="")
        async with run.lock():
            order.append(name)
            await asyncio.sleep(0.05)
            order.append(name)

    await asyncio.gather(*map(resume, "abc"))
    assert order[::2] == order[1::2]
    await gate.close_conversation("chat-7", workflow="shop.refund", **{k: v for k, v in given.items() if k != "conversation"})
    assert await first.take_lock("x", 0) == 0
    await gate.close()


@pytest.mark.parametrize("awaited", [False, True])
def test_of_resumes_at_the_same_time_one_runs_the_act_and_all_are_told_of_it(tmp_path: Path, *, awaited: bool) -> None:
    with tool_server() as served:
        shop = Shop(tmp_path, served, total="150.00")
        slow = shop.tool("payments.refund").func  # type: ignore[attr-defined]

        @tool("payments.refund")
        def refund(order_id: str, amount: Any, currency: str) -> str:
            """Give money back."""
            time.sleep(0.5)
            return str(slow(order_id, amount, currency))

        shop.tools = [*shop.tools[:2], _like(shop.tool("payments.refund"), refund)]
        saver, thread = InMemorySaver(), {"configurable": {"thread_id": "t1"}}

        def agent(*answers: Any) -> Any:
            gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify, conversation="thread")
            return create_agent(Script(answers=[*answers]), tools=shop.tools, middleware=[gated], checkpointer=saver, context_schema=User)

        (asked,) = agent(calls(GET), calls(DEAR)).invoke({"messages": vouched(PROMPT)}, thread, context=LEE)["__interrupt__"]
        shop.gate.release(asked.value["hold"], tenant="acme", by=LEAD)
        told: list[str] = []

        def resume() -> None:
            built = agent(say())
            out = (
                asyncio.run(built.ainvoke(Command(resume=True), thread, context=LEE))
                if awaited
                else built.invoke(Command(resume=True), thread, context=LEE)
            )
            told.append(str(tool_messages(out)[-1].content))

        threads = [threading.Thread(target=resume) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(served.paid) == 1
        assert "re_1" in told
        assert set(told) <= {"re_1", "agentgate: already_done"}
        assert len(told) == 4


def _like(given: BaseTool, other: BaseTool) -> BaseTool:
    return given.model_copy(update={"func": other.func})  # type: ignore[attr-defined]
