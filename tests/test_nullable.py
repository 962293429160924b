"""`nullable`: a null that counts as left out, everywhere; without the word, and anywhere else in a call, a null is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, Gate, StepUp, User
from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.decision.origins.earlier_calls import Earlier
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.explain.explanation import explain
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.report.past import stated
from agentgate.review.report.witness import witness
from agentgate.review.scenarios.scene import Scene
from agentgate.values.request import EarlierCall
from agentgate.workflow.model import Tool, Workflow, flat
from agentgate.workflow.rule import Rule
from tests.test_definition import PAIR, expect_one
from tests.test_reference import engine, reference, small
from tests.workflows import workflow_text

ISSUES = workflow_text(
    "issues",
    title="Change an issue",
    intents='{change: {asks_for: Change an issue., words: [change], examples: ["Change issue WEB-42"]}}',
    tools="""
  update:
    effect: write
    needs: [change]
    redeem: wrapper
    args:
      issue: {type: id, from: [prompt]}
      assignee: {type: email, from: [prompt], optional: true, nullable: true}
      labels: {each_in: [bug, docs], max_items: 2, from: [model], optional: true, nullable: true}
      note: {text: 40, from: [model], entities: [prompt], optional: true, nullable: true, sensitive: true}
      due: {type: date, from: [prompt], optional: true}
      files[].id: {type: id, max_items: 3, from: [prompt], optional: true, nullable: true}
      files[].kind: {each_in: [pdf], max_items: 3, from: [model], optional: true, nullable: true}
      where.room: {in: [a, b], from: [model], optional: true, nullable: true}
      where.floor: {type: integer, min: "1", max: "9", from: [model], optional: true}
""",
    step_up="[{id: who, for: update, when: {assignee: {origin: [prompt]}}, approvers: {group: leads}, timeout: 10m}]",
)
ASKED = "Change issue WEB-42"


def load(text: str = ISSUES) -> Workflow:
    return load_text(text, "w.yaml", {}, derive)


def answer(args: dict[str, Any], workflow: Workflow | None = None, prompt: str = ASKED) -> Any:
    scene = Scene.of(workflow or load(), {"call": "update", "prompt": prompt}).sending({"issue": "WEB-42", **args})
    return decide(scene.workflow, scene.run, scene.call, scene.around)


def refused(found: Any) -> set[tuple[str, str]]:
    return {(str(f.reason), f.field) for f in found.failures} if not isinstance(found, Eligible) else set()


# --- loading -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{text: 9, from: [model], @@nullable: true}", "optional: true beside it"),
        ("{text: 9, from: [model], optional: true, nullable: @@false}", "true, or leave it out"),
        ("{text: 9, from: [model], optional: true, nullable: @@1}", "true, or leave it out"),
    ],
)
def test_nullable_is_true_beside_optional_or_the_file_does_not_load(rule: str, expected: str) -> None:
    expect_one(PAIR.replace("{X}", rule), "tools.send.args.x.nullable", expected)


def test_the_elements_of_a_list_are_not_nullable() -> None:
    with pytest.raises(WorkflowError, match=r"args\.where\.room\[\]\.nullable.*nullable on the elements of a list"):
        load(ISSUES.replace("where.room: {in: [a, b],", "where.room[]: {each_in: [a, b], max_items: 2,"))


def test_what_is_summed_and_what_holds_a_currency_is_always_sent() -> None:
    """Both must be there; a null would slip past a limit, and leave money without its currency."""
    money = (
        "amount: {type: money, currency: unit, min: '1', max: '9', from: [model]%s}\n      unit: {in: [EUR], from: [model]%s}\n      issue:"
    )
    limit = "limits: [{sum: update.amount, max: '20', per: run}]\nstep_up:"
    text = ISSUES.replace("issue:", money, 1).replace("step_up:", limit)
    load(text % ("", ""))
    for found, field in (((", optional: true, nullable: true", ""), "limits"), (("", ", optional: true, nullable: true"), "currency")):
        with pytest.raises(WorkflowError, match=field):
            load(text % found)


# --- the decision ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["assignee", "labels", "note"])
def test_a_null_counts_as_left_out(name: str) -> None:
    assert answer({name: None}) == answer({})
    assert isinstance(answer({}), Eligible)
    assert not answer({name: None}).holds


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"due": None}, {("argument_form", "args.due")}),  # no such word on it: the tool may take null for "no due date any more"
        ({"issue": None}, {("argument_form", "args.issue")}),
        ({"other": None}, {("argument_unknown", "args.other")}),
        ({"labels": []}, {("argument_form", "args.labels")}),
        ({"labels": [None]}, {("argument_form", "args.labels")}),
        ({"labels": ["bug", None]}, {("argument_form", "args.labels")}),
        ({"assignee": ""}, {("argument_form", "args.assignee")}),
        ({"assignee": "null"}, {("argument_form", "args.assignee")}),
        ({"assignee": [None]}, {("argument_form", "args.assignee")}),
        ({"assignee": {}}, {("argument_form", "args.assignee")}),
        ({"files": [None]}, {("argument_unknown", "args.files[]")}),
        ({"where": None}, {("argument_unknown", "args.where")}),  # its floor is not nullable
        ({"where": {"room": None, "floor": None}}, {("argument_form", "args.where.floor")}),
        ({"where.room": None}, {("argument_unknown", "args.'where.room'")}),
    ],
)
def test_any_other_null_is_refused(args: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    found = answer(args)
    assert refused(found) == expected


def test_without_the_word_every_null_is_refused() -> None:
    plain = load(ISSUES.replace(", nullable: true", ""))
    assert isinstance(answer({}, plain), Eligible)
    for args in (
        {"assignee": None},
        {"labels": None},
        {"note": None},
        {"files": None},
        {"files": [{"id": None}]},
        {"where": {"room": None}},
    ):
        assert refused(answer(args, plain)), args


@pytest.mark.parametrize(
    ("args", "left"),
    [
        ({"files": None}, {}),
        ({"files": [{"id": None}]}, {}),
        ({"files": [{"id": "A-1", "kind": None}, {"id": None, "kind": "pdf"}]}, {"files[].id": ["A-1"], "files[].kind": ["pdf"]}),
        ({"where": {"room": None}}, {}),
        ({"where": {"room": None, "floor": 2}}, {"where.floor": 2}),
    ],
)
def test_inside_a_structure_too(args: dict[str, Any], left: dict[str, Any]) -> None:
    assert flat(load().tools["update"], args) == left
    assert isinstance(answer(args, prompt="Change issue WEB-42 and A-1"), Eligible)


def test_a_value_beside_it_still_asks_and_is_still_looked_at() -> None:
    named = "Change issue WEB-42 for kim@acme.example"
    assert [h.rule.id for h in answer({"assignee": "kim@acme.example", "note": None}, prompt=named).holds] == ["who"]
    assert refused(answer({"assignee": "eve@evil.example", "note": None}, prompt=named)) == {("argument_origin", "args.assignee")}


def test_a_call_of_nothing_but_nulls_is_not_named() -> None:
    rules = {"x": Rule("x", 1, type="id", sources=(), optional=True, nullable=True)}
    case = small(rules, (), {"x": None})
    assert engine(case) == reference(case)
    assert not engine(case).named


def test_an_earlier_null_is_no_origin_and_steers_nothing() -> None:
    rule = Rule("query", 1, text=40, optional=True, nullable=True)
    tool = Tool("find", 1, "read", ("any",), "", (), "", "wrapper", {"query": rule}, {}, referenced=frozenset({"query"}))
    scene = Scene.of(load(), {"call": "update", "prompt": ASKED})
    for given, asked in (({"query": None}, True), ({}, True), ({"query": "strangers"}, False)):
        call = EarlierCall("c1", "find", given, ({"id": "A-1"},), named=False, redeemed_at=0.0)
        earlier = Earlier((call,), {"find": tool}, scene.run.prompt)
        assert earlier.of("find")[0].asked_by_user() is asked
    null = EarlierCall("c1", "find", {"query": None}, ({"id": "A-1"},), named=False, redeemed_at=0.0)
    plain = Earlier((null,), {"find": replace(tool, args={"query": Rule("query", 1, text=40, optional=True)})}, scene.run.prompt)
    assert not plain.of("find")[0].asked_by_user()


# --- at a gate ---------------------------------------------------------------------------------------------------------------
@pytest.fixture
def gate(tmp_path: Path) -> Any:
    (tmp_path / "w.yaml").write_text(ISSUES)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as opened:
        yield opened


def open_run(gate: Gate, prompt: str = ASKED) -> Any:
    return gate.open_run("issues", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)


def test_the_token_is_for_the_arguments_as_they_were_sent(gate: Gate) -> None:
    run = open_run(gate)
    sent = {"issue": "WEB-42", "assignee": None}
    allowed = run.authorize("update", sent, tool_call_id="c1")
    assert isinstance(allowed, Allow)
    for other in ({"issue": "WEB-42"}, {**sent, "note": None}, {**sent, "assignee": ""}):
        with pytest.raises(Exception, match="arguments"), run.redeem(allowed.token, tool="update", args=other):
            raise AssertionError("other arguments than the token is for")
    with run.redeem(allowed.token, tool="update", args=sent) as call:
        assert dict(call.args) == sent
        call.record_result({})


def test_a_hold_and_a_refusal_are_recorded_with_the_null(gate: Gate) -> None:
    run = open_run(gate, "Change issue WEB-42 for kim@acme.example")
    assert isinstance(run.authorize("update", {"issue": "WEB-42", "assignee": "kim@acme.example", "note": None}, tool_call_id="c1"), StepUp)
    denied = run.authorize("update", {"issue": "WEB-43", "note": None}, tool_call_id="c2")
    assert isinstance(denied, Deny)
    log: Any = gate._audit
    record = next(r for r in log.records if r.get("tool_call_id") == "c2")
    assert record["args"] == {"issue": "WEB-43", "note": None}
    assert record["hidden"] == {}
    found = run.explain("update", {"issue": "WEB-43", "note": None})
    assert {row.verdict for row in found.rows if row.condition.argument == "note"} == {"not sent"}


# --- what reviewers see ------------------------------------------------------------------------------------------------------
def test_the_explanation_says_not_sent() -> None:
    scene = stated(load(), "update", {"issue": "WEB-42", "assignee": None}, [ASKED], {})
    found = explain(scene.workflow, scene.run, scene.call, scene.around)
    assert {row.verdict for row in found.rows if row.condition.argument == "assignee"} == {"not sent"}


@pytest.mark.parametrize("name", ["assignee", "note", "files[].kind", "where.room"])
def test_the_diff_tells_the_word_with_a_call_and_its_loss_as_narrower(name: str) -> None:
    line = next(line for line in ISSUES.splitlines() if line.strip().startswith(name + ":"))
    without = load(ISSUES.replace(line, line.replace(", nullable: true", "")))
    found = compare(without, load())
    assert [(f.tool, f.field, f.new) for f in found.wider] == [("update", f"args.{name}.nullable", "also null")]
    assert found.read_yourself == ()
    (shown,) = [witness(without, load(), each) for each in found.wider]
    assert shown.scene is not None, shown.reason
    assert isinstance(shown.scene.decide(load()), Eligible)
    assert not isinstance(shown.scene.decide(without), Eligible)
    assert [f.field for f in compare(load(), without).narrower] == [f"args.{name}.nullable"]
    assert compare(load(), without).only_narrower


def test_what_only_code_can_build_is_no_wider() -> None:
    """A null under a rule that is not optional is missing, as the engine has it."""
    tool = load().tools["update"]
    rule = replace(tool.args["issue"], nullable=True)
    odd = replace(load(), tools={"update": replace(tool, args={**tool.args, "issue": rule})})
    assert compare(load(), odd).wider == ()
    scene = Scene.of(odd, {"call": "update", "prompt": ASKED}).sending({"issue": None})
    assert refused(scene.decide()) == {("argument_missing", "args.issue")}


def test_an_argument_that_is_gone_is_narrower_whatever_stood_in_its_text() -> None:
    tool = load().tools["update"]
    gone = replace(load(), tools={"update": replace(tool, args={n: r for n, r in tool.args.items() if n != "note"})})
    assert compare(load(), gone).only_narrower
    assert [f.field for f in compare(gone, load()).wider] == ["args.note"]


def test_a_scene_sends_a_null_that_it_names() -> None:
    scene = Scene.of(load(), {"prompt": ASKED, "nulls": ["due"]})
    assert scene.call.args == {"issue": "WEB-42", "due": None}
    assert isinstance(scene.set({"nulls": ["assignee", "files"]}).decide(), Eligible)
    assert not isinstance(scene.decide(), Eligible)
