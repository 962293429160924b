"""More calls at once than a process can do: refused at once, before the clock; what a tool did is recorded, or its caller is told."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool

from agentgate import Agent, Allow, AsyncGate, Code, Deny, Gate, NotDone, Reason, StepUp, TokenRefused, Verifier
from agentgate.audit import read_records
from agentgate.errors import ConfigError, NotRecorded, Overloaded, Refusal
from agentgate.integrations.langchain import guard_tools
from agentgate.shell import drive
from tests.servers import Server, valkey_binary
from tests.shop import BOSS, LEE, ORDER, PROMPT, REFUND, WEEKDAY, opened, reasons, run_of
from tests.test_verifier import GOOD

RESULT = {"total": "150.00", "currency": "EUR", "customer": "cus_1"}
ISSUER = "https://gate.example"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(valkey_binary(), tmp_path / "server")
    yield server
    server.stop()


def full(stack: ExitStack, gate: Any) -> None:
    """As much under way as may be."""
    for _ in range(gate._bound.at_once):
        stack.enter_context(gate._bound.place(new=True))


def quick(work: Callable[[], Any]) -> Any:
    """The answer, which takes no time: of five, since this machine may be busy."""
    took = []
    for _ in range(5):
        start = time.monotonic()
        try:
            answer = work()
        except (Overloaded, TokenRefused) as error:
            answer = error
        took.append(time.monotonic() - start)
    assert min(took) < 0.1
    return answer


# --- refused early -------------------------------------------------------------------------------------------------------
async def test_of_many_tasks_as_many_as_may_be_are_decided_and_the_others_refused_at_once(folder: Path, server: Server) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer=ISSUER, audit="memory://", clock=lambda: WEEKDAY, store=server.url, at_once=4, runs_per_hour=1000
    ) as gate:
        runs = [await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT) for _ in range(60)]
        answers = await asyncio.gather(*(run.authorize("orders.get", ORDER) for run in runs))
        assert [type(answer) for answer in answers] == [Allow] * 4 + [Deny] * 56
        for answer in answers[4:]:
            assert isinstance(answer, Deny)
            assert answer.code is Code.UNAVAILABLE
            (failure,) = answer.failures
            assert str(failure) == (
                "overload: load: got 4 calls under way, expected fewer than at_once=4: try again after a moment; more processes carry more"
            )
        more = [gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT) for _ in range(20)]
        met = await asyncio.gather(*more, return_exceptions=True)
        assert [type(each) for each in met[4:]] == [Overloaded] * 16
        assert not any(isinstance(each, Overloaded) for each in met[:4])
        assert isinstance(await runs[-1].authorize("orders.get", ORDER), Allow)  # and again there is room


@pytest.mark.deadline
def test_threads_beyond_the_bound_are_refused_while_the_others_wait_for_a_hung_store(folder: Path, server: Server) -> None:
    with opened(folder, store=server.url, at_once=3) as gate:
        run = run_of(gate)
        server.pause()
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(run.authorize("orders.get", ORDER))) for _ in range(3)]
        for thread in threads:
            thread.start()
        while gate._bound.under_way < 3:
            time.sleep(0.001)
        assert reasons(quick(lambda: run.authorize("orders.get", ORDER))) == {Reason.OVERLOAD}
        for thread in threads:
            thread.join()
        server.resume()
        assert [reasons(answer) for answer in answers] == [{Reason.STORE}] * 3


@pytest.mark.deadline
def test_new_work_is_refused_and_what_was_begun_goes_on(folder: Path) -> None:
    with opened(folder, at_once=2) as gate, ExitStack() as stack:
        run = run_of(gate)
        token = run.authorize("orders.get", ORDER, tool_call_id="look").token
        big = {**REFUND, "amount": "150.00"}
        other = run.authorize("orders.get", ORDER).token
        full(stack, gate)
        assert isinstance(quick(lambda: run_of(gate)), Overloaded)
        assert isinstance(quick(lambda: gate.resume_run("acme", run.id)), Overloaded)
        assert isinstance(quick(lambda: run.explain("orders.get", ORDER)), Overloaded)
        refused = quick(lambda: gate.verifier(ISSUER, tenants=["acme"]).redeem(other.reveal(), tool="orders.get", args=ORDER))
        assert (refused.code, refused.code.http_status) == (Refusal.OVERLOAD, 503)
        with run.redeem(token, tool="orders.get", args=ORDER) as call:
            call.record_result(RESULT)
        run.add_turn("Make it 150 EUR")
        stack.close()
        held = run.authorize("payments.refund", big, tool_call_id="pay")
        assert isinstance(held, StepUp)
        full(stack, gate)
        assert gate.release(held.hold.id, tenant="acme", by=BOSS).state == "released"
        run.close()


def test_a_flow_that_ends_gives_its_place_back_however_it_ends(folder: Path) -> None:
    with opened(folder, at_once=1) as gate:
        run = run_of(gate)
        for _ in range(3):
            with pytest.raises(ConfigError):
                run.explain(tool_call_id="never")
            with pytest.raises(TokenRefused):
                run.redeem("no token", tool="orders.get", args=ORDER)
        assert isinstance(run.authorize("orders.get", ORDER), Allow)


def test_what_was_refused_is_on_record_once_a_second_and_at_the_end(folder: Path) -> None:
    with opened(folder, at_once=1, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        run = run_of(gate)
        for _ in range(3):
            with ExitStack() as stack:
                full(stack, gate)
                for _ in range(5):
                    run.authorize("orders.get", ORDER)
            run.authorize("orders.get", ORDER)
    told = [record for record in read_records(folder / "audit") if record["type"] == "overloaded"]
    assert [record["refused"] for record in told] == [5, 10]
    assert {record["at_once"] for record in told} == {1}


@pytest.mark.parametrize("value", [0, -1, None, True, 1.5, float("inf"), 10**9, "64"])
def test_no_setting_lifts_the_bound(folder: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match="at_once"):
        opened(folder, at_once=value)
    with pytest.raises(ConfigError, match="at_once"):
        Verifier.open({"keys": []}, **GOOD, store="redis://127.0.0.1:1", audit=str(folder / "audit"), at_once=value)


# --- what a tool did is recorded, or its caller is told ---------------------------------------------------------------------
async def test_many_tools_that_end_at_once_lose_no_fact_and_no_outcome(folder: Path, server: Server) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w",
        issuer=ISSUER,
        audit=str(folder / "audit"),
        keys=folder / "keys",
        clock=lambda: WEEKDAY,
        store=server.url,
        at_once=4,
        runs_per_hour=1000,
    ) as gate:
        calls = []
        for _ in range(150):
            run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
            answer = await run.authorize("orders.get", ORDER)
            assert isinstance(answer, Allow)
            calls.append((run, await run.redeem(answer.token, tool="orders.get", args=ORDER)))

        async def end(call: Any) -> None:
            async with call:
                await call.record_result(RESULT)

        await asyncio.gather(*(end(call) for _, call in calls))
        for run, _ in calls:
            (known,) = (await gate.resume_run("acme", run.id))._view.state.calls
            assert known.rows == (RESULT,)
    outcomes = [record for record in read_records(folder / "audit") if record["type"] == "outcome"]
    assert [record["outcome"] for record in outcomes] == ["done"] * 150


@pytest.mark.deadline
def test_a_store_that_is_slow_for_longer_than_a_call_may_take_still_gets_facts_and_outcome(folder: Path, server: Server) -> None:
    with opened(folder, store=server.url) as gate:
        run = run_of(gate)
        token = run.authorize("orders.get", ORDER, tool_call_id="look").token
        with run.redeem(token, tool="orders.get", args=ORDER) as call:
            server.pause()
            timer = threading.Timer(0.6, server.resume)
            timer.start()
            call.record_result(RESULT)
        timer.join()
        assert gate.resume_run("acme", run.id)._view.state.calls[0].rows == (RESULT,)


def redeemed(gate: Gate) -> Any:
    run = run_of(gate)
    answer = run.authorize("orders.get", ORDER, tool_call_id="look")
    assert isinstance(answer, Allow)
    return run.redeem(answer.token, tool="orders.get", args=ORDER)


def test_what_could_not_be_recorded_is_told_when_the_call_ends_and_stands_in_the_audit_log(folder: Path, server: Server) -> None:
    with opened(folder, store=server.url, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        call = redeemed(gate)
        after = []
        with pytest.raises(NotRecorded, match="its tool ran, and its facts and outcome could not be recorded") as told, call:  # noqa: PT012 - the end of the block raises
            server.kill()
            after.append(call.record_result(RESULT))
        assert after == [RESULT]
        assert (told.value.txn, told.value.missing) == (call.txn, ("facts", "outcome"))
        assert copy.copy(told.value).missing == ("facts", "outcome")
    last = [record for record in read_records(folder / "audit") if record["type"] == "outcome"]
    assert [(record["outcome"], record["missing"]) for record in last] == [("done", ["facts", "outcome"])]


def test_what_the_tool_raised_says_in_a_note_that_it_is_on_no_record(folder: Path, server: Server) -> None:
    with opened(folder, store=server.url) as gate:
        call = redeemed(gate)
        with pytest.raises(NotDone, match="declined") as raised, call:  # noqa: PT012 - as above
            server.kill()
            raise NotDone("declined")
        (note,) = raised.value.__notes__
        assert "its outcome could not be recorded" in note


def test_a_full_audit_log_is_told_too(folder: Path) -> None:
    with opened(folder, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        call = redeemed(gate)
        with pytest.raises(NotRecorded) as told, call:
            gate._audit.close()
        assert told.value.missing == ("audit record",)


def test_facts_that_a_wrapper_reports_by_id_are_told_at_once(folder: Path, server: Server) -> None:
    with opened(folder, store=server.url) as gate:
        run = run_of(gate)
        answer = run.authorize("orders.get", ORDER, tool_call_id="look")
        assert isinstance(answer, Allow)
        run.redeem(answer.token, tool="orders.get", args=ORDER)
        server.kill()
        with pytest.raises(NotRecorded, match="facts"):
            run.record_result("look", RESULT)


def test_who_gets_no_turn_to_record_is_late_and_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "RECORD_SECONDS", 0.2)
    with opened(folder, at_once=1, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        call = redeemed(gate)
        assert gate._bound.take_turn(time.monotonic() + 1)
        with pytest.raises(NotRecorded, match="outcome"), call:
            pass
    assert [record["missing"] for record in read_records(folder / "audit") if record["type"] == "outcome"] == [["outcome"]]


async def test_who_gets_no_turn_in_a_loop_is_late_and_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "RECORD_SECONDS", 0.2)
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer=ISSUER, audit="memory://", clock=lambda: WEEKDAY, at_once=1
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        answer = await run.authorize("orders.get", ORDER)
        assert isinstance(answer, Allow)
        call = await run.redeem(answer.token, tool="orders.get", args=ORDER)
        async with gate._bound.aturn(time.monotonic() + 1):
            with pytest.raises(NotRecorded, match="outcome"):
                await call.__aexit__(None, None, None)
        second = await run.authorize("orders.get", ORDER)
        assert isinstance(second, Allow)  # and the turn is free again
        async with await run.redeem(second.token, tool="orders.get", args=ORDER):
            pass


# --- LangChain --------------------------------------------------------------------------------------------------------------
@tool("orders.get")
def look_up(order_id: str) -> dict[str, str]:
    """Look up an order."""
    return {"order_id": order_id, **RESULT}


def asked(guarded: Any) -> Any:
    return guarded.invoke({"type": "tool_call", "name": "orders.get", "id": "look", "args": dict(ORDER)})


def test_a_guarded_tool_answers_unavailable_at_once(folder: Path) -> None:
    with opened(folder, at_once=1) as gate, ExitStack() as stack:
        (guarded,) = guard_tools([look_up], run=run_of(gate))
        full(stack, gate)
        answer = quick(lambda: asked(guarded))
        assert isinstance(answer, ToolMessage)
        assert (answer.status, answer.content) == ("error", "agentgate: unavailable")
        stack.close()
        assert asked(guarded).status == "success"


def test_a_guarded_tools_result_is_the_models_also_where_it_could_not_be_recorded(folder: Path, server: Server) -> None:
    @tool("orders.get")
    def ends_the_store(order_id: str) -> dict[str, str]:
        """Look up an order."""
        server.kill()
        return {"order_id": order_id, **RESULT}

    with opened(folder, store=server.url) as gate:
        (guarded,) = guard_tools([ends_the_store], run=run_of(gate))
        answer = asked(guarded)
        assert answer.status == "success"
        assert "150.00" in answer.content


@pytest.mark.deadline
async def test_calls_that_wait_for_a_thread_of_a_blocking_gate_are_counted(folder: Path, server: Server) -> None:
    with opened(folder, store=server.url, at_once=3) as gate:
        (guarded,) = guard_tools([look_up], run=run_of(gate))
        call = {"type": "tool_call", "name": "orders.get", "args": dict(ORDER)}
        await guarded.ainvoke({**call, "id": "warm"})
        server.pause()
        waiting = [asyncio.create_task(guarded.ainvoke({**call, "id": f"call_{number}"})) for number in range(3)]
        while gate._bound.under_way < 3:  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.001)
        start = time.monotonic()
        refused = await guarded.ainvoke({**call, "id": "more"})
        assert time.monotonic() - start < 0.2
        assert (refused.status, refused.content) == ("error", "agentgate: unavailable")
        server.resume()
        await asyncio.gather(*waiting)
        assert (await guarded.ainvoke({**call, "id": "after"})).status == "success"


async def test_as_many_calls_as_there_may_be_wait_for_the_threads_of_a_busy_loop(folder: Path) -> None:
    """However few threads there are: a call takes its place before it waits for one."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with opened(folder, at_once=3) as gate:
        (guarded,) = guard_tools([look_up], run=run_of(gate))
        call = {"type": "tool_call", "name": "orders.get", "args": dict(ORDER)}
        held = threading.Event()
        blocked = asyncio.create_task(asyncio.to_thread(held.wait))
        waiting = [asyncio.create_task(guarded.ainvoke({**call, "id": f"call_{number}"})) for number in range(8)]
        for refused in islice(asyncio.as_completed(waiting), 5):
            assert (await refused).content == "agentgate: unavailable"
        held.set()
        await blocked
        answers = await asyncio.gather(*waiting)
        assert [answer.status for answer in answers].count("success") == 3
