"""Calls that a version observes: nothing of them changes, whatever it says, however slow it is, and whatever it raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentgate import Agent, Allow, AsyncGate, Deny, Gate, Reason, StepUp, User
from agentgate.audit import read_records
from agentgate.errors import StoreUnavailable
from agentgate.gate import observer
from agentgate.gate.observer import Observer, Unenforced
from agentgate.gate.open_run import open_run
from agentgate.gate.proving import OverHTTP
from agentgate.integrations.langchain import call_token, guard_tools
from agentgate.intents.lexical import derive
from agentgate.shell.drive import drive
from agentgate.values.refusal import RunRefused
from tests.approvals_team import ALICE, BOB, ID, Team

LEE = User("lee", tenant="acme", groups=["support"])
TOOL, ORDER = "payments.refund", "ORD-10023344"


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


@pytest.fixture
def beside(team: Team) -> Team:
    """Version 1 is enforced, version 2 observes."""
    team.approve(ALICE, BOB)
    change(team, ('"10.00", "20.00"', '"10.00"'))
    return team


@pytest.fixture
def alone(team: Team) -> Team:
    """Version 1 observes, and none was ever enforced."""
    change(team, version=1)
    return team


def change(team: Team, *edits: tuple[str, str], version: int = 2, more: str = "") -> None:
    """A version that observes, signed."""
    for old, new in (("version: 1", f"version: {version}"), ("risk: high", "risk: high\nmode: observe"), *edits):
        team.edit(old, new)
    team.file.write_text(team.file.read_text() + more)
    team.approve(ALICE, BOB)


def given(team: Team, **more: Any) -> dict[str, Any]:
    base = team.directory.parent
    return {"root": team.root, "issuer": "https://gate.example", "keys": base / "keys", "audit": str(base / "audit"), **more}


@contextmanager
def opened(team: Team, **more: Any) -> Iterator[Gate]:
    with Gate.open(team.directory, **given(team, **more)) as gate:
        yield gate


def run_of(gate: Gate, prompt: str = f"Please refund order {ORDER}") -> Any:
    return gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt)


def pay(run: Any, amount: str = "20.00", call: str = "call_1", **more: Any) -> Any:
    return run.authorize(TOOL, {"order_id": ORDER, "amount": amount, **more}, tool_call_id=call)


def records(team: Team, kind: str = "observation") -> list[dict[str, Any]]:
    return [dict(each) for each in read_records(team.directory.parent / "audit") if each["type"] == kind]


# --- beside the version in force ---------------------------------------------------------------------------------------------------
def test_every_call_is_decided_under_both_and_only_the_one_in_force_counts(beside: Team) -> None:
    with opened(beside) as gate:
        run = run_of(gate)
        assert run.header.version == 1
        assert isinstance(pay(run, "10.00"), Allow)
        assert isinstance(pay(run, "20.00", "call_2"), Allow)
        assert isinstance(pay(run, "30.00", "call_3"), Deny)
    told = [(each["tool_call_id"], each["decision"], each["would"]) for each in records(beside)]
    assert told == [("call_1", "allow", "allow"), ("call_2", "allow", "deny"), ("call_3", "deny", "deny")]
    (differs,) = [each for each in records(beside) if each["would"] != each["decision"]]
    assert (differs["observed"]["version"], differs["workflow"]["version"]) == (2, 1)
    assert [(each["reason"], each["field"]) for each in differs["reasons"]] == [("argument_value", "args.amount")]
    assert [each["decision"] for each in records(beside, "decision")] == ["allow", "allow", "deny"]


def test_a_performed_call_is_observed_too(beside: Team) -> None:
    with opened(beside) as gate:
        run = run_of(gate)
        for number, amount in enumerate(("20.00", "30.00")):
            found = run.perform(TOOL, {"order_id": ORDER, "amount": amount}, tool_call_id=f"call_{number}")
            if not isinstance(found, Deny):
                with found:
                    pass
    assert [(each["decision"], each["would"]) for each in records(beside)] == [("allow", "deny"), ("deny", "deny")]
    assert [each.get("performed") for each in records(beside, "decision")] == [True, None]


async def test_an_awaited_gate_observes_too(beside: Team) -> None:
    async with await AsyncGate.open(beside.directory, **given(beside)) as gate:
        run = await gate.open_run(ID, tenant="acme", user=LEE, agent=Agent("bot"), prompt=f"Please refund order {ORDER}")
        assert isinstance(await run.authorize(TOOL, {"order_id": ORDER, "amount": "20.00"}, tool_call_id="call_1"), Allow)
    assert [each["would"] for each in records(beside)] == ["deny"]


def test_what_it_would_ask_or_limit_asks_nobody_and_takes_nothing(team: Team) -> None:
    asks = """step_up:
  - {id: ask, for: payments.refund, when: {amount: {in: ["20.00"]}}, approvers: {group: leads}, timeout: 10m}
"""
    limits = "limits: [{count: payments.refund, max: 5, per: run}]\n"
    team.file.write_text(team.file.read_text() + asks + limits)
    team.approve(ALICE, BOB)
    change(team, ("group: leads", "group: chiefs"), ("max: 5", "max: 1"))
    with opened(team) as gate:
        run = run_of(gate)
        assert isinstance(pay(run, "10.00"), Allow)
        assert isinstance(pay(run, "20.00", "call_2"), StepUp)
        assert isinstance(pay(run, "10.00", "call_3"), Allow)  # the limit of the one in force, which nobody else used
        assert [hold.rules for hold in gate.holds("acme")] == [("ask",)]  # that of the one in force alone
        assert "leads" in gate.holds("acme")[0].question.whom
    assert [each["would"] for each in records(team)] == ["allow", "step_up", "allow"]


def test_facts_that_only_a_run_under_it_would_have_are_counted_apart(team: Team) -> None:
    team.edit(
        "  payments.refund:",
        "  orders.get: {effect: read, needs: any, redeem: wrapper, args: {id: {type: id, from: [prompt]}}}\n  payments.refund:",
    )
    team.approve(ALICE, BOB)
    facts = "from: [prompt]}}, facts: {total: {type: text}}}"
    change(team, ("from: [prompt]}}}", facts), ("from: [model]", "from: [model, orders.get.total]"))
    with opened(team) as gate:
        run = run_of(gate)
        answer = run.authorize("orders.get", {"id": ORDER}, tool_call_id="look")
        with run.redeem(answer.token, tool="orders.get", args={"id": ORDER}):
            pass
        assert isinstance(pay(run), Allow)
    assert [each.get("unknown") for each in records(team)] == [None, "facts"]


def test_a_version_that_raises_is_on_record_and_changes_nothing(beside: Team) -> None:
    calls = []

    def flaky(intents: Any, turns: Any) -> Any:
        calls.append(intents)
        return derive(intents, turns)

    with opened(beside, deriver=flaky) as gate:
        observed = gate.catalog.observed[ID]
        object.__setattr__(observed, "tools", {TOOL: None})  # a definition that no code can decide under
        assert isinstance(pay(run_of(gate)), Allow)
    (told,) = records(beside)
    assert ("would" in told, told["unknown"]) == (False, "AttributeError")


@pytest.mark.deadline
def test_a_version_that_is_slow_delays_no_call(team: Team) -> None:
    """Long text and a long pattern are the most that a definition can do; a deriver can take as long as it likes."""
    team.edit("from: [model]}\n", "from: [model]}\n      note: {text: 20000, from: [model], optional: true}\n")
    team.approve(ALICE, BOB)
    slow = "(.{0,400}[a-z0-9 ]{1,400}){1,2}x"
    change(team, ("text: 20000,", f"text: 20000, pattern: '{slow}',"), ("words: [refund, reimburse]", "words: [refund, reimburse, repay]"))
    busy = [0]

    def reading(intents: Any, turns: Any) -> Any:
        if "repay" in intents[0].words and turns[0].startswith("Please refund order ORD-1"):
            end = time.thread_time() + 0.5
            while time.thread_time() < end:  # a processor's time, which the interpreter's lock takes from others
                busy[0] += 1
        return derive(intents, turns)

    with opened(team, deriver=reading) as gate:
        run = run_of(gate)
        taken = []
        for number in range(4):
            began = time.monotonic()
            assert isinstance(pay(run, "20.00", f"call_{number}", note="a" * 20_000), Allow)
            taken.append(time.monotonic() - began)
            time.sleep(0.3)
        assert max(taken) < 0.29
    assert [each["would"] for each in records(team)] == ["deny"] * 4


def test_what_waits_has_an_end() -> None:
    class Log:
        def __init__(self) -> None:
            self.records: list[Any] = []

        def append(self, record: Any, deadline: float) -> None:
            assert deadline > 0
            self.records.append(record)

    def slow() -> dict[str, Any]:
        time.sleep(0.002)
        return {"type": "observation"}

    made = Observer()
    made.log = log = Log()  # type: ignore[assignment]
    began = time.monotonic()
    for _ in range(observer._MOST + 50):
        made.add(slow)
    assert time.monotonic() - began < 0.5
    made.close()
    assert observer._MOST <= len(log.records) < observer._MOST + 50


def test_a_log_that_takes_no_record_of_it_refuses_no_call(beside: Team) -> None:
    with opened(beside) as gate:
        run = run_of(gate)
        gate._core.observer.log = type("Gone", (), {"append": staticmethod(_gone)})()
        assert isinstance(pay(run), Allow)


def _gone(record: Any, deadline: float) -> None:
    from agentgate.errors import AuditUnavailable

    raise AuditUnavailable("no disk")


def test_without_an_observed_version_no_thread_is_started(team: Team) -> None:
    team.approve(ALICE, BOB)
    with opened(team) as gate:
        assert isinstance(pay(run_of(gate)), Allow)
        assert "agentgate-observer" not in {thread.name.rpartition("_")[0] for thread in threading.enumerate()}


def test_a_run_whose_record_names_the_observed_version_is_refused(beside: Team) -> None:
    """A writer of the state store turns enforce into observe: the number and digest in the run's record."""
    with opened(beside) as gate:
        observed = gate.catalog.observed[ID]
        forged = replace(run_of(gate).header, version=observed.version, digest=observed.digest)
        with pytest.raises(RunRefused) as refused:
            drive(gate._core.in_force.of(forged), gate._store, gate._audit)
        assert [failure.reason for failure in refused.value.failures] == [Reason.WORKFLOW_CHANGED]
        assert gate._core.enforces(gate.catalog.get(ID), forged)


def test_a_call_that_comes_when_the_gate_is_closing_is_answered(beside: Team) -> None:
    with opened(beside) as gate:
        gate._core.observer.close()
        assert isinstance(pay(run_of(gate)), Allow)


# --- alone -------------------------------------------------------------------------------------------------------------------------
def test_a_refusal_that_nobody_enforces_is_on_record_and_carries_no_token(alone: Team, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(alone) as gate:
        assert "observe_alone" in "".join(capsys.readouterr())
        run = run_of(gate)
        answer = pay(run, "999.00")
        assert isinstance(answer, Unenforced)
        assert answer.token is None
        for number in range(40):  # more than close a run that is enforced
            assert isinstance(pay(run, "999.00", f"more_{number}"), Unenforced)
        assert isinstance(pay(run, "10.00", "call_2"), Allow)
        assert "call_not_enforced" in "".join(capsys.readouterr())
    first = records(alone, "decision")[0]
    assert (first["decision"], first["would"], [each["reason"] for each in first["reasons"]]) == ("observed", "deny", ["argument_value"])
    assert not {"jti", "call_digest"} & first.keys()


def test_a_question_that_nobody_is_asked(team: Team) -> None:
    asks = "step_up:\n  - {id: ask, for: payments.refund, approvers: {group: leads}, timeout: 10m}\n"
    change(team, version=1, more=asks)
    with opened(team) as gate:
        assert isinstance(pay(run_of(gate)), Unenforced)
        assert gate.holds("acme") == ()
    assert [(each["decision"], each["would"]) for each in records(team, "decision")] == [("observed", "step_up")]


def test_a_limit_that_is_reached_is_not_enforced_and_not_exceeded(team: Team) -> None:
    change(team, version=1, more="limits: [{count: payments.refund, max: 1, per: run}]\n")
    with opened(team) as gate:
        run = run_of(gate)
        assert isinstance(pay(run), Allow)
        answer = pay(run, call="call_2")
        assert isinstance(answer, Unenforced)
        assert answer.reasons == (Reason.LIMIT,)


@pytest.mark.parametrize("kind", ["user", "agent", "run", "tool", "workflow", "tenant"])
def test_what_is_revoked_runs_no_tool(alone: Team, kind: str) -> None:
    with opened(alone) as gate:
        run = run_of(gate)
        assert isinstance(pay(run, "999.00"), Unenforced)
        subject = {"user": "lee", "agent": "bot", "run": run.id, "tool": TOOL, "workflow": f"{ID}@1", "tenant": "*"}[kind]
        gate.revoke(f"{kind}:{subject}", tenants=["acme"], by="eve", reason="a test")
        answer = pay(run, "999.00", "call_2")
        assert isinstance(answer, Deny)
        assert not isinstance(answer, Unenforced)


def test_a_store_that_cannot_say_what_is_revoked_runs_no_tool(alone: Team) -> None:
    with opened(alone) as gate:
        run = run_of(gate)
        store = run._store

        class Silent:
            """The store, but for the question what is revoked."""

            def call(self, op: Any, deadline: float) -> Any:
                if op.script == "revoked":
                    raise StoreUnavailable("no answer")
                return store.call(op, deadline)

        run._store = Silent()
        answer = pay(run, "999.00")
        assert isinstance(answer, Deny)
        assert not isinstance(answer, Unenforced)


def test_a_performed_call_that_is_refused_alone_runs_its_tool(alone: Team) -> None:
    with opened(alone) as gate:
        answer = run_of(gate).perform(TOOL, {"order_id": ORDER, "amount": "999.00"}, tool_call_id="call_1")
        assert isinstance(answer, Unenforced)
    assert [(each["decision"], each["would"]) for each in records(alone, "decision")] == [("observed", "deny")]


def test_what_nobody_signed_is_enforced(alone: Team) -> None:
    with Gate.open_unsafe_unapproved(alone.directory, issuer="https://gate.example", audit="memory://") as gate:
        assert type(pay(run_of(gate), "999.00")) is Deny


def test_over_http_what_observes_alone_is_enforced(alone: Team) -> None:
    """Whoever is answered there cannot be told to run a tool that was refused."""
    with opened(alone) as gate:
        given: dict[str, Any] = {"tenant": "acme", "user": LEE, "agent": Agent("bot"), "prompt": f"Please refund order {ORDER}"}
        state = drive(open_run(gate._core, ID, **given, ttl=60, over=OverHTTP(host="desk")), gate._store, gate._audit)
        assert type(pay(gate.resume_run("acme", state.header.id), "999.00")) is Deny
    assert [each["decision"] for each in records(alone, "decision")] == ["deny"]


def test_who_calls_and_which_tool_it_is_are_enforced(alone: Team) -> None:
    with opened(alone) as gate:
        run = run_of(gate)
        unknown = run.authorize("files.delete", {}, tool_call_id="call_1")
        other = run.authorize(TOOL, {"order_id": ORDER, "amount": "999.00"}, tool_call_id="call_2", definition="sha256:other")
        run.close()
        closed = pay(run, "999.00", "call_3")
        for answer in (unknown, closed):
            assert isinstance(answer, Deny)
            assert not isinstance(answer, Unenforced)
        assert isinstance(other, Unenforced)  # its definition pins none
        with pytest.raises(RunRefused):
            gate.open_run(ID, tenant="acme", user=User("eve", tenant="acme", groups=["guests"]), agent=Agent("bot"), prompt="x")


def test_a_refusal_that_cannot_be_recorded_runs_no_tool(alone: Team) -> None:
    with opened(alone) as gate:
        run = run_of(gate)
        gate._audit.close()
        answer = pay(run, "999.00")
        assert not isinstance(answer, Unenforced)
        assert Reason.AUDIT in answer.reasons


def test_the_raw_tool_runs_without_token_credential_or_facts(alone: Team) -> None:
    seen: list[Any] = []

    @tool("payments.refund")
    def refund(order_id: str, amount: str) -> str:
        """Refund an order."""
        try:
            token: Any = call_token()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no token
            token = error
        seen.append((order_id, amount, token))
        return "refunded"

    with opened(alone) as gate:
        run = run_of(gate)
        (guarded,) = guard_tools([refund], run=run)
        call = {"name": "payments.refund", "id": "call_1", "type": "tool_call", "args": {"order_id": ORDER, "amount": "999.00"}}
        assert guarded.invoke(call).content == "refunded"
        assert run.facts("call_1") == ()
        assert run.state.calls == ()
    ((order, amount, token),) = seen
    assert (order, amount, isinstance(token, Exception)) == (ORDER, "999.00", True)
    assert records(alone, "redemption") == records(alone, "outcome") == []


def test_once_a_version_is_enforced_nothing_runs_refused(alone: Team) -> None:
    with opened(alone) as gate:
        run = run_of(gate)
        assert isinstance(pay(run, "999.00"), Unenforced)
        alone.edit("version: 1", "version: 2")
        alone.edit("\nmode: observe", "")
        alone.approve(ALICE, BOB)
        gate.reload()
        for each in (run, run_of(gate)):
            answer = pay(each, "999.00", "call_2")
            assert isinstance(answer, Deny)
            assert not isinstance(answer, Unenforced)
