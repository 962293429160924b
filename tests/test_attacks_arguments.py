"""Attacks on what an argument may be: empty lists, keys without end, pages without a most, changes that nobody is told of."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate import Agent, Gate, StepUp, User
from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.definition import load_text
from agentgate.review.mutation.mutation import mutations, propose
from agentgate.review.scenarios.scene import Scene
from agentgate.values.canonical import canonical
from agentgate.values.request import Call
from agentgate.workflow.model import Workflow
from tests.effort import examples
from tests.generate import Case
from tests.test_reference import engine, reference
from tests.workflows import workflow_text

ISSUES = workflow_text(
    "issues",
    intents="""
  assign: {asks_for: Give an issue to somebody., words: [assign], examples: ["Assign WEB-42 to kim@acme.example"]}
  label: {asks_for: Label an issue., words: [label], examples: ["Label WEB-42 as a bug"]}
""",
    tools="""
  find:
    effect: read
    needs: any
    redeem: wrapper
    args: {limit: {type: integer, min: "1", max: "50", from: [model], page_size: true}}
    facts: {who: {type: user, path: '[].who'}, mail: {type: email, path: '[].mail', named_by: [who]}}
  update:
    effect: write
    needs: [assign, label]
    redeem: wrapper
    args:
      issue: {type: id, from: [prompt]}
      assignee: {type: email, from: [prompt, user], named_first: true, optional: true}
      labels[].name: {each_in: [bug, docs], max_items: 3, from: [model], optional: true, needs: [label]}
      labels[].tags[].x: {each_in: [a, b], max_items: 3, from: [model], optional: true, needs: [assign]}
      where.room: {in: [a, b], from: [model], optional: true, nullable: true}
      where.floor: {type: integer, min: "1", max: "9", from: [model], optional: true}
""",
)
ASSIGN, LABEL = "Assign WEB-42 to kim@acme.example", "Label WEB-42 as a bug"


@cache
def load(text: str = ISSUES) -> Workflow:
    return load_text(text, "w.yaml", {}, derive)


def answer(args: dict[str, Any], prompt: str = ASSIGN, workflow: Workflow | None = None) -> Any:
    scene = Scene.of(workflow or load(), {"call": "update", "prompt": prompt}).sending({"issue": "WEB-42", **args})
    return decide(scene.workflow, scene.run, scene.call, scene.around)


def refused(found: Any) -> set[tuple[str, str]]:
    return {(str(f.reason), f.field) for f in found.failures} if not isinstance(found, Eligible) else set()


# --- an empty list says "none of them", which many tools do ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "prompt", "expected"),
    [
        ({"labels": []}, ASSIGN, {"args.labels[].name"}),
        ({"labels": []}, LABEL, {"args.labels[].tags[].x"}),
        ({"labels": []}, f"{ASSIGN}. {LABEL}", set()),
        ({"labels": [{"name": "bug", "tags": []}]}, LABEL, {"args.labels[].tags[].x"}),
        ({"labels": [{"name": "bug", "tags": []}]}, f"{ASSIGN}. {LABEL}", set()),
        ({"labels": [{"name": "bug"}]}, LABEL, set()),
        ({}, ASSIGN, set()),
    ],
)
def test_an_empty_list_is_sent_so_it_needs_what_its_elements_need(args: dict[str, Any], prompt: str, expected: set[str]) -> None:
    found = answer(args, prompt)
    assert refused(found) == {("intent_absent", field) for field in expected}


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"labels": [[]]}, "labels[]"),
        ({"labels": [[], [[]]]}, "labels[]"),
        ({"labels": [{"name": []}]}, "labels[].name"),
        ({"labels": [{"tags": [[]]}]}, "labels[].tags[]"),
        ({"where": []}, "where"),
        ({"where": {"room": []}}, "where.room"),
        ({"where": [[], []]}, "where[]"),
    ],
)
def test_an_empty_list_where_no_list_may_stand_is_refused(args: dict[str, Any], field: str) -> None:
    """It named nothing, so nothing was asked of it, and the tool was given it."""
    assert f"args.{field}" in {f for _, f in refused(answer(args, f"{ASSIGN}. {LABEL}"))}


def test_a_person_who_is_asked_sees_that_a_list_is_emptied(tmp_path: Path) -> None:
    asking = "step_up:\n  - {id: look, for: update, approvers: {group: leads}, timeout: 10m, show: [issue, 'labels[].name']}\n"
    (tmp_path / "w.yaml").write_text(ISSUES + asking)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        run = gate.open_run("issues", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=f"{ASSIGN}. {LABEL}")
        emptied = run.authorize("update", {"issue": "WEB-42", "labels": []}, tool_call_id="c1")
        left = run.authorize("update", {"issue": "WEB-42"}, tool_call_id="c2")
        assert isinstance(emptied, StepUp)
        assert isinstance(left, StepUp)
        assert dict(emptied.hold.shown) == {"issue": "WEB-42", "labels[].name": []}
        assert dict(left.hold.shown) == {"issue": "WEB-42"}


CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029) if chr(code) not in "\n\t"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_text_holds_a_control_character(control: str) -> None:
    """A terminal that shows the text would obey it; line breaks and tabs are part of ordinary texts."""
    rules = {
        "typed": "{type: text, text: 99, from: [model]}",
        "bounded": "{text: 99, from: [model]}",
        "patterned": "{pattern: '(?s).*', from: [model]}",
        "globbed": "{glob: '**', from: [model]}",
        "listed": "{text: 99, max_items: 2, from: [model]}",
        "data": "{type: json, text: 99, from: [model]}",
        "said": "{from: [prompt]}",
        "told": "{from: [find.who_said]}",
    }
    more = "".join(f"      {name}: {rule[:-1]}, optional: true}}\n" for name, rule in rules.items())
    text = (ISSUES + more).replace("mail: {type: email, path", "who_said: {type: text, path: '[].said'}, mail: {type: email, path")
    lists, data = {"listed": lambda v: ["a", v]}, {"data": lambda v: {"a": v}}
    for name in rules:
        for value in (control, f"a{control}b", f"{ASSIGN}{control}"):
            sent = (lists | data).get(name, str)(value)
            assert refused(answer({name: sent}, workflow=load(text))) >= {("argument_form", f"args.{name}")}
    assert refused(answer({"data": {control: 1}}, workflow=load(text))) == {("argument_form", "args.data")}
    for name in ("typed", "bounded", "patterned"):
        assert refused(answer({name: "a\tb\nc"}, workflow=load(text))) == set()


LEAVES: st.SearchStrategy[Any] = st.sampled_from(["bug", "docs", "a", "b", 3, None, [], {}])
TAGS = st.lists(st.fixed_dictionaries({}, optional={"x": LEAVES}), max_size=2)
LABELS = st.lists(st.fixed_dictionaries({}, optional={"name": LEAVES, "tags": TAGS | LEAVES}) | LEAVES, max_size=3)
WHERE = st.fixed_dictionaries({}, optional={"room": LEAVES, "floor": LEAVES})
OWN = st.sampled_from(["kim@acme.example", "user@acme.example", "eve@evil.example", None])


@settings(max_examples=examples(300), deadline=None)
@given(
    st.fixed_dictionaries({}, optional={"assignee": OWN, "labels": LABELS | LEAVES, "where": WHERE | LEAVES}),
    st.sampled_from([ASSIGN, LABEL, f"{ASSIGN}. {LABEL}", "Assign WEB-42", "What is WEB-42?"]),
)
def test_the_reference_says_the_same_of_structures_nulls_and_needs(args: dict[str, Any], prompt: str) -> None:
    """The generators of the comparison have no structures with `needs`."""
    scene = Scene.of(load(), {"call": "update", "prompt": prompt, "who": {"user": {"id": "user@acme.example"}}})
    scene = scene.sending({"issue": "WEB-42", **args})
    case = Case(scene.workflow, scene.run, scene.call, scene.around)
    assert engine(case) == reference(case)


# --- keys without end --------------------------------------------------------------------------------------------------------
def test_a_long_key_above_many_leaves_costs_neither_memory_nor_time() -> None:
    """The path of each leaf began with the whole key: a call of 250 kB took two gigabytes."""
    many = {f"{i:x}": 1 for i in range(12_000)}
    args = {"issue": "WEB-42", "labels": [{"k" * 120_000: many}]}
    call, workflow = Call.of("update", args, "c1"), load()
    scene = Scene.of(workflow, {"call": "update", "prompt": ASSIGN})
    tracemalloc.start()
    try:
        found = decide(workflow, scene.run, call, scene.around)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not isinstance(found, Eligible)
    assert peak < 100_000_000


@pytest.mark.parametrize("long", ["x" * 64, "x" * 65, "x" * 5000, "." * 300, "[]" * 300])
def test_a_long_key_is_never_the_name_of_a_rule(long: str) -> None:
    """What is cut is quoted; only keys as long as a rule's name may be stay as they are."""
    name = "where." + "x" * 64
    workflow = load(ISSUES.replace("where.room:", f"{name}:"))
    found = answer({"where": {long: "a"}}, workflow=workflow)
    assert isinstance(found, Eligible) is (long == "x" * 64)


def test_a_refusal_of_arguments_without_a_form_is_found_in_linear_time() -> None:
    def seconds(size: int) -> float:
        args = {"k" * (8 * size): {**{f"{i:x}": 1.0 for i in range(size)}, "z": 2**60}}
        started = process_time()
        with pytest.raises(Exception, match="a larger integer"):
            canonical(args, "args")
        return process_time() - started

    assert min(seconds(8_000) for _ in range(5)) < 12 * min(seconds(2_000) for _ in range(5))


# --- a page without a most ----------------------------------------------------------------------------------------------------
def test_a_page_size_has_a_most() -> None:
    """Who may ask for a billion rows of a tool that returns fifty makes every full page look short."""
    limit = 'limit: {type: integer, min: "1", max: "50", from: [model], page_size: true}'
    with pytest.raises(WorkflowError, match=r"args\.limit\.page_size.*max"):
        load(ISSUES.replace(limit, "limit: {type: integer, from: [model], page_size: true}"))
    load(ISSUES.replace(limit, "limit: {type: integer, in: [10, 50], from: [model], page_size: true}"))


# --- changes that nobody was told of ------------------------------------------------------------------------------------------
def test_the_diff_tells_that_the_user_no_longer_goes_before_the_users_own_id() -> None:
    before, after = load(), load(ISSUES.replace(", named_first: true", ""))
    me = "user@acme.example"

    def sent(workflow: Workflow) -> Any:
        scene = Scene.of(workflow, {"call": "update", "prompt": ASSIGN, "who": {"user": {"id": me}}})
        scene = scene.sending({"issue": "WEB-42", "assignee": me})
        return decide(scene.workflow, scene.run, scene.call, scene.around)

    assert refused(sent(before)) == {("argument_origin", "args.assignee")}
    assert isinstance(sent(after), Eligible)
    assert [f.field for f in compare(before, after).wider] == ["args.assignee.named_first"]
    assert [f.field for f in compare(after, before).narrower] == ["args.assignee.named_first"]


def test_the_diff_tells_that_a_structure_may_be_null_because_a_leaf_is_gone() -> None:
    before = load()
    after = load("\n".join(line for line in ISSUES.splitlines() if "where.floor" not in line))
    assert refused(answer({"where": None}, workflow=before)) == {("argument_unknown", "args.where")}
    assert isinstance(answer({"where": None}, workflow=after), Eligible)
    assert "args.where" in [f.field for f in compare(before, after).wider]
    assert "args.where" in [f.field for f in compare(after, before).narrower]


def test_every_mutant_of_it_can_be_missed_by_a_case() -> None:
    assert [m.path for m in mutations(load()).found if m.path.endswith("named_first")] == ["tools.update.args.assignee.named_first"]
    assert [str(m) for m in propose(load()).left if m.path.endswith("named_first")] == []


# --- what the user wants instead of something else ------------------------------------------------------------------------------
@pytest.mark.parametrize("words", ["instead of", "rather than", ", instead of", "instead\nof", "rather\nthan", "Instead  of"])
def test_what_something_is_done_instead_of_is_denied(words: str) -> None:
    """The clause began behind the first word of the denial, which so denied nothing."""
    prompt = Prompt.of((f"Refund ORD-1001 {words} ORD-1002",), date(2030, 6, 4))
    assert (prompt.words("id", "ORD-1001") is not None) is ("\n" not in words)  # a line that is the rest of another is in doubt
    assert prompt.words("id", "ORD-1002") is None


@pytest.mark.parametrize(
    "text",
    [
        "Refund ORD-1001 except\nfor ORD-1002",
        "Please refund ORD-1001 and do not touch\nthe other one, ORD-1002",
        "I do not want\nORD-1002 refunded, refund ORD-1001",
        "Don't refund\nORD-1002. Refund ORD-1001.",
        "refund ORD-1001, but never\r\nORD-1002",
    ],
)
def test_a_denial_goes_on_where_its_line_wraps(text: str) -> None:
    """The clause ended with the line, so what stood in the next one was a word of the user's own."""
    assert Prompt.of((text,), date(2030, 6, 4)).words("id", "ORD-1002") is None


@pytest.mark.parametrize(
    "text",
    [
        "Don't ship it again.\nRefund ORD-1001.",
        "Don't ship it again.\nthe order is ORD-1001",
        "Do not ship it again\n\nRefund ORD-1001.",
        "Don't ship it again\nplease refund ORD-1001",
        "Don't ship it again\n1) Refund ORD-1001",
        "I don't need it any more\nrefund ORD-1001",
    ],
)
def test_a_denial_ends_with_its_line_before_a_request_of_its_own(text: str) -> None:
    assert Prompt.of((text,), date(2030, 6, 4)).words("id", "ORD-1001") is not None


def test_instead_and_rather_alone_deny_nothing() -> None:
    for text in ("Do not refund ORD-1001, instead refund ORD-1002", "Do not refund ORD-1001, rather refund ORD-1002"):
        prompt = Prompt.of((text,), date(2030, 6, 4))
        assert prompt.words("id", "ORD-1001") is None
        assert prompt.words("id", "ORD-1002") is not None


@pytest.mark.parametrize(
    "text",
    [
        "Cancel everything but ORD-1002",
        "Cancel them all but ORD-1002",
        "Cancel what anyone but ORD-1002 has",
        "Cancel my orders other than ORD-1002",
        "Cancel my orders apart from ORD-1002",
        "Cancel my orders excluding ORD-1002",
        "Cancel my orders with the exception of ORD-1002",
        "Cancel it in place of ORD-1002",
        "Cancel it as opposed to ORD-1002",
    ],
)
def test_what_is_excepted_is_denied(text: str) -> None:
    assert Prompt.of((text,), date(2030, 6, 4)).words("id", "ORD-1002") is None


@pytest.mark.parametrize(
    "text",
    [
        "Other than that, refund ORD-1002",
        "Refund ORD-1002 excluding VAT",
        "Pay it, but refund ORD-1002",
        "Pay nothing, but ORD-1002 is to be refunded",
    ],
)
def test_what_excepts_nothing_denies_nothing(text: str) -> None:
    assert Prompt.of((text,), date(2030, 6, 4)).words("id", "ORD-1002") is not None


def test_what_stands_behind_a_no_and_a_but_is_in_doubt() -> None:
    prompt = Prompt.of(("Do not refund ORD-1001 but ORD-1002",), date(2030, 6, 4))
    assert prompt.words("id", "ORD-1002") is None
    assert replace(prompt, in_doubt=True).words("id", "ORD-1002") is not None
    assert replace(prompt, in_doubt=True).words("id", "ORD-1001") is None
