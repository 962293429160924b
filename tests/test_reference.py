"""The engine and the reference answer alike, for calls close to every line; and every check of the engine is needed for that."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from agentgate.decision.answer import Deny
from agentgate.decision.decide import CHECKS, decide
from agentgate.language.prompt import Prompt
from agentgate.values.refusal import Reason
from agentgate.values.request import Agent, Call, EarlierCall, Header, RunState, Surroundings
from agentgate.workflow.clauses.conditions import Conditions
from agentgate.workflow.clauses.who import AgentRule
from agentgate.workflow.model import Sequence, Tool
from agentgate.workflow.rule import Fact, Rule, Source
from tests.effort import examples
from tests.generate import Case, Generator
from tests.generate_values import NOW
from tests.reference import Verdict, evaluate

SEED = int(os.environ.get("AGENTGATE_SEED", "20270531"))  # another seed asks other questions, the same number of them
CASES = examples(100_000, 6_000)
KEPT = 20_000  # kept to ask the engine again with a check missing
# What only the gate, the store or a person can answer: never by `decide`.
LATER = frozenset(
    {
        Reason.STEP_UP,
        Reason.RUN_MISSING,
        Reason.RUN_EXPIRED,
        Reason.WORKFLOW_UNKNOWN,
        Reason.APPROVAL_EXPIRED,
        Reason.TWO_VERSIONS,
        Reason.RUN_ELSEWHERE,
        Reason.RUN_BUSY,
        Reason.ALREADY_REDEEMED,
        Reason.FAILED,
        Reason.OUTCOME_UNKNOWN,
        Reason.HOLD_REFUSED,
        Reason.HOLD_EXPIRED,
        Reason.REVOKED,
        Reason.INPUT,
        Reason.KEYS,
        Reason.STORE,
        Reason.AUDIT,
        Reason.OVERLOAD,
        Reason.TOO_MANY_DENIALS,
        Reason.TOO_MANY_HOLDS,
        Reason.TOO_MANY_RUNS,
    }
)


def engine(case: Case, checks: tuple[Callable[..., None], ...] = CHECKS) -> Verdict:
    """The engine's answer in the reference's words."""
    answer = decide(case.workflow, case.run, case.call, case.around, checks)
    if isinstance(answer, Deny):
        return Verdict(frozenset(answer.reasons))
    taken = frozenset((r.limit.line, r.amount, r.currency) for r in answer.reservations)
    return Verdict(frozenset(), frozenset(hold.rule.id for hold in answer.holds), answer.named, taken, answer.intent)


def reference(case: Case) -> Verdict:
    return evaluate(case.workflow, case.run, case.call, case.around)


def shown(rule: Rule) -> str:
    """Only what the rule says."""
    plain = Rule(rule.name, rule.line)
    said = {f.name: getattr(rule, f.name) for f in fields(Rule) if getattr(rule, f.name) != getattr(plain, f.name)}
    return f"{rule.name}: {said}"


def story(number: int, case: Case) -> str:
    """One disagreement, so that a person can work it out on paper."""
    workflow, run, header = case.workflow, case.run, case.run.header
    lines = [f"case {number} of seed {SEED}: {case.call.tool}({dict(case.call.args)}) at {case.around.now}"]
    lines += [f"  prompt    {run.turns}", f"  intents   { ({n: d.presence for n, d in run.intents.items()}) }"]
    lines += [f"  who       tenant {header.tenant}, {header.user}, {header.agent}", f"  around    {case.around}"]
    lines += [f"  rules     tenants {workflow.tenants}, {workflow.agent}, {workflow.for_user}, {workflow.via}, {workflow.conditions}"]
    tool = workflow.tools.get(case.call.tool)
    if tool is not None:
        lines += [f"  {tool.name} ({tool.effect}) needs {tool.needs}, {tool.sequence}"]
        lines += [f"    {shown(rule)}" for rule in tool.args.values()]
        lines += [f"    {step.id} when {[shown(rule) for rule in step.when]}" for step in tool.step_ups]
    lines += [f"  earlier   {call}" for call in run.calls]
    for other in workflow.tools.values():
        special = {n: (f.named, f.pattern) for n, f in other.facts.items() if f.named or f.pattern}
        lines += [f"  {other.name} ({other.effect}) facts named or patterned: {special}"]
    lines += [f"  engine    {engine(case)}", f"  reference {reference(case)}"]
    return "\n".join(lines)


@dataclass
class Comparison:
    """What came of asking both."""

    reached: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, Case]] = field(default_factory=list)
    kept: list[tuple[Case, Verdict]] = field(default_factory=list)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    found = Comparison()
    for number, case in enumerate(Generator(SEED).cases(CASES)):
        expected = reference(case)
        if engine(case) != expected:
            found.wrong.append((number, case))
        found.reached["denied" if expected.denied else "held" if expected.holds else "allowed"] += 1
        found.reached.update(expected.denied)
        found.reached.update(expected.reached)
        found.reached.update({"named through an earlier call": expected.through, "a text in the user's words": expected.worded})
        if len(expected.denied) == 1:
            found.reached.update(f"only {reason}" for reason in expected.denied)
        if number < KEPT:
            found.kept.append((case, expected))
    print(f"seed {SEED}: {CASES} cases, {len(found.wrong)} disagreements, {dict(found.reached.most_common())}")
    return found


def test_the_engine_and_the_reference_agree(comparison: Comparison) -> None:
    simplest = sorted(comparison.wrong, key=lambda item: len(item[1].call.args) + len(item[1].run.calls))[:5]
    assert not comparison.wrong, f"{len(comparison.wrong)} disagreements\n\n" + "\n\n".join(story(*item) for item in simplest)


def test_allowed_and_held_calls_are_common(comparison: Comparison) -> None:
    assert comparison.reached["allowed"] >= CASES // 12
    assert comparison.reached["held"] >= CASES // 12
    assert comparison.reached["confirm"] >= CASES // 100
    assert comparison.reached["what is left open"] >= CASES // 200
    assert comparison.reached["named through an earlier call"] >= CASES // 200
    assert comparison.reached["a text in the user's words"] >= CASES // 200
    assert comparison.reached["null"] >= CASES // 200
    assert comparison.reached["needs"] >= CASES // 200
    assert comparison.reached["user"] >= CASES // 500
    assert comparison.reached["me"] >= CASES // 2000
    assert comparison.reached["computed"] >= CASES // 1000
    assert comparison.reached["page"] >= CASES // 5000
    assert comparison.reached["elements"] >= examples(CASES // 1000, 10)


@pytest.mark.parametrize("reason", sorted(set(Reason) - LATER))
def test_every_reason_is_reached_and_alone(comparison: Comparison, reason: Reason) -> None:
    assert comparison.reached[reason] >= CASES // 5000
    assert comparison.reached[f"only {reason}"] >= CASES // 20_000, "never the only reason: nothing shows that it alone refuses"


def test_no_other_reason_comes_from_the_decision(comparison: Comparison) -> None:
    assert not {reason for reason in LATER if comparison.reached[reason]}


@pytest.mark.parametrize("missing", CHECKS, ids=lambda check: str(check.__name__))
def test_without_any_one_check_they_disagree(comparison: Comparison, missing: Any) -> None:
    rest = tuple(check for check in CHECKS if check is not missing)
    noticed = (case for case, expected in comparison.kept if engine(case, rest) != expected)
    first = next(noticed, None)
    assert first is not None, f"nothing notices that {missing.__name__} is gone"


def test_without_any_one_check_something_refused_is_let_through(comparison: Comparison) -> None:
    for missing in CHECKS:
        rest = tuple(check for check in CHECKS if check is not missing)
        let_through = (case for case, expected in comparison.kept if expected.denied and not engine(case, rest).denied)
        assert next(let_through, None) is not None, f"{missing.__name__} never refuses alone"


def small(args: dict[str, Rule], calls: tuple[EarlierCall, ...], asked: dict[str, Any], **more: Any) -> Case:
    """A call of one tool under nothing but these rules, after these calls."""
    facts = {"total": Fact("total", 1, "number", ("total",)), "id": Fact("id", 1, "id", ("id",))}
    tools = {
        "get": Tool("get", 1, "read", ("any",), "", (), "", "wrapper", {"top": Rule("top", 1, type="number")}, facts),
        "pay": Tool("pay", 1, "write", ("any",), "", (), "", "wrapper", args, {}, **more),
    }
    workflow = replace(
        Generator(1).workflow(), agent=AgentRule(1, in_process=True), for_user=None, via=None, conditions=Conditions(), tools=tools
    )
    header = Header("run-1", "acme", None, Agent("agent-1"), workflow.id, workflow.version, workflow.digest, 0, 0)
    run = RunState(header, ("pay",), {}, Prompt.of(("pay",), NOW.date()), calls, "1.1")
    return Case(workflow, run, Call.of("pay", asked, "call_9"), Surroundings(NOW))


def test_two_bounds_met_only_by_different_calls_are_refused() -> None:
    bounds = {
        "a": Rule("a", 1, type="number", at_most=Source("fact", "get", "total")),
        "b": Rule("b", 2, type="number", at_most=Source("arg", "get", "top")),
    }
    one = EarlierCall("call_1", "get", {"top": 1}, ({"total": 9},), named=True, redeemed_at=NOW.timestamp())
    other = EarlierCall("call_2", "get", {"top": 9}, ({"total": 1},), named=True, redeemed_at=NOW.timestamp())
    case = small(bounds, (one, other), {"a": 5, "b": 5})
    assert engine(case) == reference(case) == Verdict(frozenset({Reason.ONE_SOURCE}))
    both = replace(one, args={"top": 9})
    assert not engine(small(bounds, (both, other), {"a": 5, "b": 5})).denied


def test_two_windows_on_one_tool_are_both_kept() -> None:
    steps = (Sequence(1, "pay", "get", None), Sequence(2, "pay", "get", 300))
    rules = {"id": Rule("id", 1, type="id", sources=(Source("fact", "get", "id"),))}
    old = EarlierCall("call_1", "get", {}, ({"id": "A"},), named=True, redeemed_at=NOW.timestamp() - 301)
    new = EarlierCall("call_2", "get", {}, ({"id": "B"},), named=True, redeemed_at=NOW.timestamp() - 300)
    case = small(rules, (old, new), {"id": "A"}, sequence=steps)
    assert engine(case) == reference(case) == Verdict(frozenset({Reason.ONE_SOURCE}))
    assert not engine(small(rules, (old, new), {"id": "B"}, sequence=steps)).denied


@pytest.mark.parametrize("first", ["a", "b", "c", "d", "e", "f", "g", "h"])  # the order of a set of names differs from run to run
def test_of_two_arguments_that_only_different_rows_explain_the_second_is_reported(first: str) -> None:
    rules = {name: Rule(name, 1, type="id", sources=(Source("fact", "get", "id"),)) for name in (first, "other")}
    rows = ({"id": "A"}, {"id": "B"})
    case = small(rules, (EarlierCall("call_1", "get", {}, rows, named=True, redeemed_at=0.0),), {first: "A", "other": "B"})
    answer = decide(case.workflow, case.run, case.call, case.around)
    assert isinstance(answer, Deny)
    assert [(failure.reason, failure.field) for failure in answer.failures] == [(Reason.ONE_SOURCE, "args.other")]


def test_the_same_seed_asks_the_same_questions() -> None:
    one, other = (list(Generator(7).cases(50)) for _ in range(2))
    assert [(c.call.data, c.run.calls, c.around) for c in one] == [(c.call.data, c.run.calls, c.around) for c in other]
