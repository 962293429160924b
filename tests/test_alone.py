"""A read to whose decision no earlier call matters: decided without reading what the others did, minted whatever they did since."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, Gate, Reason
from agentgate.decision.decide import decide
from agentgate.decision.versions import Versions
from agentgate.gate.core import stands_alone
from agentgate.gate.flow import is_alone
from agentgate.gate.run import Run
from agentgate.stores import Op, Store
from agentgate.workflow.model import Tool
from tests.generate import Generator
from tests.shop import ORDER, REFUND, WORKFLOW, opened, run_of


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW, encoding="utf-8")
    with opened(tmp_path) as gate:
        yield gate


class Counting:
    """A store that notes its scripts, and lets something happen before the next mint."""

    def __init__(self, store: Store) -> None:
        self._store, self.scripts, self.before = store, list[str](), lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def call(self, op: Op[Any], deadline: float) -> Any:
        self.scripts.append(op.script)
        if op.script == "mint":
            before, self.before = self.before, lambda: None
            before()
        return self._store.call(op, deadline)


def redeemed(run: Run, tool: str, args: dict[str, Any], call: str) -> None:
    answer = run.authorize(tool, args, tool_call_id=call)
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool=tool, args=args) as done:
        done.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1"})


def test_reads_one_after_another_take_a_mint_and_a_burn_each(gate: Gate) -> None:
    first = run_of(gate)
    store: Any = Counting(gate._store)
    run = Run(first._view, store, gate._audit)
    for number in range(3):
        redeemed(run, "orders.get", ORDER, f"look {number}")
    assert "read_run" not in store.scripts
    redeemed(run, "payments.refund", REFUND, "pay")  # refers to one of them
    assert store.scripts.count("read_run") == 1
    assert [call.id for call in gate.resume_run(run.tenant, run.id).state.calls] == ["look 0", "look 1", "look 2", "pay"]


def test_what_other_calls_did_meanwhile_makes_no_second_mint_and_is_read_by_the_call_that_needs_it(gate: Gate) -> None:
    first = run_of(gate)
    store: Any = Counting(gate._store)
    run, elsewhere = Run(first._view, store, gate._audit), gate.resume_run("acme", first.id)
    redeemed(run, "orders.get", ORDER, "look")
    store.before = lambda: redeemed(elsewhere, "orders.get", ORDER, "elsewhere")
    assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="once more"), Allow)
    assert store.scripts.count("mint") == 2
    done: Any = run.perform("orders.get", ORDER, tool_call_id="performed")
    with done:
        pass
    assert run.state.revision != gate.resume_run("acme", run.id).state.revision  # of a run that it did not read it claims nothing
    redeemed(run, "payments.refund", REFUND, "pay")
    read = gate.resume_run("acme", run.id).state
    assert [call.id for call in read.calls] == ["look", "elsewhere", "performed", "pay"]


@pytest.mark.parametrize("way", ["authorize", "perform"])
def test_a_run_that_was_closed_or_taken_back_meanwhile_is_read(gate: Gate, way: str) -> None:
    """The race: after the decision, before its mint."""
    for meanwhile, reason in ((Run.close, Reason.RUN_CLOSED), (lambda run: run.add_turn("stop, do nothing more"), None)):
        first = run_of(gate)
        store: Any = Counting(gate._store)
        run, elsewhere = Run(first._view, store, gate._audit), gate.resume_run("acme", first.id)
        redeemed(run, "orders.get", ORDER, "look")
        store.before, store.scripts = (lambda do=meanwhile, of=elsewhere: do(of)), []
        answer: Any = getattr(run, way)("orders.get", ORDER, tool_call_id="late")
        if reason is not None:
            assert reason in answer.reasons
        else:
            assert store.scripts[:3] == ["mint", "read_run", "mint"]  # decided anew, on all of its turns
            assert run.state.turns[-1] == "stop, do nothing more"


def test_a_call_that_is_made_again_is_the_same_call(gate: Gate) -> None:
    """Also where its handle did not read what became of the first."""
    run = run_of(gate)
    redeemed(run, "orders.get", ORDER, "look")
    for _ in range(3):  # a read runs again three times
        done: Any = run.perform("orders.get", ORDER, tool_call_id="look")
        with done:
            pass
    refused: Any = run.perform("orders.get", ORDER, tool_call_id="look")
    assert refused.reasons == (Reason.ALREADY_REDEEMED,)
    assert len(gate.resume_run("acme", run.id).state.calls) == 1


def tool_of(gate: Gate, name: str) -> Tool:
    workflow = gate.catalog.get("shop.refund")
    assert workflow is not None
    return workflow.tools[name]


def test_whatever_may_refer_to_another_call_does_not_stand_alone(gate: Gate) -> None:
    read = tool_of(gate, "orders.get")
    refund = tool_of(gate, "payments.refund")
    assert stands_alone(read)
    assert not stands_alone(refund)
    rule, others = read.args["order_id"], refund.args
    (big,) = refund.step_ups
    changes: list[dict[str, Any]] = [
        {"effect": "write"},
        {"sequence": refund.sequence},
        {"step_ups": (replace(big, tool="orders.get"),)},
        *({"args": {"order_id": replace(rule, sources=(*rule.sources, source))}} for source in others["order_id"].sources),
        {"args": {"order_id": replace(rule, at_most=others["amount"].at_most)}},
        {"args": {"order_id": replace(rule, entities=others["order_id"].sources)}},
    ]
    for change in changes:
        assert not stands_alone(replace(read, **change)), change


def test_no_generated_decision_of_such_a_call_changes_with_the_runs_other_calls() -> None:
    compared = 0
    for seed in range(40):
        for case in Generator(seed).cases(60):
            tool = case.workflow.tools.get(case.call.tool)
            if tool is None:
                continue
            lone = replace(tool, effect="read", sequence=(), step_ups=())
            if not stands_alone(lone) or not case.run.calls:
                continue
            workflow = replace(case.workflow, tools={**case.workflow.tools, lone.name: lone})
            answers = {repr(decide(workflow, replace(case.run, calls=calls), case.call, case.around)) for calls in (case.run.calls, ())}
            assert len(answers) == 1, (seed, answers)
            compared += 1
    assert compared > 50, compared


def test_under_two_versions_or_beside_one_that_observes_none_stands_alone(gate: Gate) -> None:
    """What the other version asks may refer to a call."""
    core, header = gate._core, run_of(gate).header
    workflow = gate.catalog.get("shop.refund")
    assert workflow is not None
    assert [name for name in ("orders.get", "payments.refund", "nothing") if is_alone(core, header, name)] == ["orders.get"]
    older = replace(header, digest="sha256:older")
    assert not is_alone(core, older, "orders.get")  # nothing is known of it
    core.catalog.others[older.digest, workflow.digest] = Versions(workflow, replace(workflow, version=2)), inf
    assert core.in_force.known(older) is not None
    assert not is_alone(core, older, "orders.get")
    object.__setattr__(core.catalog, "observed", {workflow.id: workflow})
    assert not is_alone(core, header, "orders.get")


def test_a_version_that_came_into_force_during_the_call_is_not_decided_apart(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_of(gate)
    core = gate._core
    minted: list[str] = []

    class Watching(Counting):
        def call(self, op: Op[Any], deadline: float) -> Any:
            if op.script == "mint":
                minted.append(next(part for part in op.args if isinstance(part, str) and re.fullmatch(r"[^.]+\.[^.]+\.[0-9a-f]{40}", part)))
            return super().call(op, deadline)

    store: Any = Watching(gate._store)
    run = Run(first._view, store, gate._audit)
    redeemed(run, "orders.get", ORDER, "look")
    workflow = gate.catalog.get("shop.refund")
    assert workflow is not None
    both = Versions(workflow, replace(workflow, version=2))

    def come_into_force() -> None:
        def of(_: Any, __: Any) -> Any:
            yield from ()
            return both

        monkeypatch.setattr(type(core.in_force), "of", of)
        gate.resume_run("acme", first.id).add_turn("and tell me what it was")

    minted.clear()
    store.before = come_into_force
    assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="late"), Allow)
    assert [".-." in revision for revision in minted] == [True, False]
