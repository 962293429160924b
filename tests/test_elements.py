"""Lists and "one call, one source": what one element takes from the rows of a tool comes from one row of one call."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.decide import decide
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.definition import load_text
from agentgate.values.refusal import Reason
from agentgate.values.request import Agent, Call, Derived, EarlierCall, Header, RunState, Surroundings, User
from agentgate.workflow.model import Workflow, elements, flat, list_of
from tests.generate import Case
from tests.generate_values import NOW
from tests.reference import evaluate
from tests.test_nested import TOOL
from tests.test_reference import engine
from tests.workflows import workflow_text

PAYMENTS = workflow_text(
    "shop.payments",
    title="Pay what is due",
    risk="high",
    intents='{pay: {asks_for: Pay what is due., words: [pay], examples: ["pay what is due"]}}',
    tools="""
  due.list:
    effect: read
    needs: any
    redeem: wrapper
    args: {batch: {type: id, from: [model], optional: true}}
    facts:
      id: {type: id, path: '[].id'}
      to: {type: id, path: '[].to'}
      amount: {type: number, path: '[].amount'}
      most: {type: number, path: '[].most'}
      paper: {type: id, path: '[].papers[]'}
  people.list:
    effect: read
    needs: any
    redeem: wrapper
    args: {}
    facts: {to: {type: id, path: '[].to'}, name: {type: text, path: '[].name'}}
  pay.all:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      payments[].id: {type: id, max_items: 9, from: [prompt, due.list.id], optional: true}
      payments[].to: {type: id, max_items: 9, from: [due.list.to, people.list.to], optional: true, nullable: true}
      payments[].amount: {type: number, max_items: 9, from: [due.list.amount], optional: true}
      payments[].tip: {type: number, max_items: 9, at_most: due.list.most, from: [model], optional: true}
      amounts: {type: number, max_items: 9, from: [due.list.amount], at_most: due.list.most, optional: true}
""",
)
ROWS = (
    {"id": "A-1", "to": "cus_A", "amount": 10, "most": 20},
    {"id": "B-2", "to": "cus_EVIL", "amount": 9000, "most": 9000},
)
DUE = EarlierCall("c1", "due.list", {}, ROWS, named=False, redeemed_at=1.0)
OTHER = replace(DUE, id="c2", rows=({"id": "C-3", "to": "cus_C", "amount": 30, "most": 30},))
PEOPLE = EarlierCall(
    "c3", "people.list", {}, ({"to": "cus_A", "name": "Ann"}, {"to": "cus_C", "name": "Cid"}), named=False, redeemed_at=1.0
)


@cache
def load(text: str = PAYMENTS) -> Workflow:
    return load_text(text, "w.yaml", {}, derive)


def case(args: dict[str, Any], *earlier: EarlierCall, prompt: str = "pay what is due", text: str = PAYMENTS) -> Case:
    workflow = load(text)
    user, intents = User("lee", tenant="acme"), {name: Derived("present") for name in workflow.intents}
    header = Header("run_1", "acme", user, Agent("bot"), workflow.id, 1, workflow.digest, 0.0, 4e9)
    run = RunState(header, (prompt,), intents, Prompt.of((prompt,), NOW.date()), earlier, "1.0")
    return Case(workflow, run, Call.of("pay.all", args, "call"), Surroundings(NOW))


def reasons(args: dict[str, Any], *earlier: EarlierCall, **more: Any) -> set[tuple[str, str]]:
    """Why a call is refused, and the same by the reference."""
    asked = case(args, *earlier, **more)
    answer = decide(asked.workflow, asked.run, asked.call, asked.around)
    assert engine(asked) == evaluate(asked.workflow, asked.run, asked.call, asked.around)
    return set() if isinstance(answer, Eligible) else {(str(f.reason), f.field) for f in answer.failures}


def pays(*payments: dict[str, Any]) -> dict[str, Any]:
    return {"payments": list(payments)}


HONEST = {"id": "A-1", "to": "cus_A", "amount": 10}
ANOTHER = {"id": "B-2", "to": "cus_EVIL", "amount": 9000}


@pytest.mark.parametrize(
    "payments",
    [
        [HONEST],
        [HONEST, ANOTHER],
        [ANOTHER, HONEST, HONEST],
        [{"id": "A-1"}, {"to": "cus_EVIL"}],
        [{"id": "A-1", "to": None, "amount": 10}, ANOTHER],
        [{"id": "A-1", "tip": 20}, {"tip": 9000}],
        [],
    ],
    ids=["one", "a row each", "the other way round", "a leaf each", "a null", "within the bound of its row", "none"],
)
def test_an_element_of_one_row_is_allowed(payments: list[dict[str, Any]]) -> None:
    assert reasons({"payments": payments}, DUE) == set()


@pytest.mark.parametrize(
    "payments",
    [
        [{"id": "A-1", "to": "cus_EVIL", "amount": 9000}],
        [HONEST, {"id": "A-1", "to": "cus_EVIL"}],
        [{"id": "A-1", "amount": 9000}],
        [{"id": "A-1"}, {"id": "B-2", "to": "cus_A"}, {"to": "cus_EVIL"}],
        [{"to": "cus_A", "amount": 9000}, {"to": "cus_EVIL", "amount": 10}],
    ],
    ids=["another's payee and amount", "the second element", "another's amount", "leaves left out shift no element", "crosswise"],
)
def test_an_element_of_two_rows_is_refused(payments: list[dict[str, Any]]) -> None:
    assert {reason for reason, _ in reasons({"payments": payments}, DUE)} == {"one_source"}


def test_the_bound_of_an_element_is_that_of_its_own_row() -> None:
    assert {reason for reason, _ in reasons(pays({"id": "A-1", "tip": 9000}), DUE)} == {"one_source"}
    assert {reason for reason, _ in reasons(pays(HONEST, {"to": "cus_A", "tip": 21}), DUE)} == {"one_source"}
    assert reasons(pays({"id": "B-2", "tip": 9000}, {"id": "A-1", "tip": 20}), DUE) == set()


def test_the_bound_of_a_plain_list_is_that_of_the_row_of_each_element() -> None:
    rows = replace(DUE, rows=({"amount": 50, "most": 20}, {"amount": 5, "most": 90}))
    assert reasons({"amounts": [5]}, rows) == set()
    assert {reason for reason, _ in reasons({"amounts": [50]}, rows)} == {"one_source"}


def test_all_elements_come_from_one_call() -> None:
    assert reasons(pays(HONEST, {"id": "C-3", "to": "cus_C"}), DUE, OTHER) != set()
    assert reasons(pays({"id": "C-3", "to": "cus_C"}), DUE, OTHER) == set()


def test_what_another_tool_or_the_prompt_explains_is_tied_to_no_row() -> None:
    assert reasons(pays({"id": "B-2", "to": "cus_A", "amount": 9000}), DUE, PEOPLE) == set()
    assert reasons(pays({"id": "A-1", "to": "cus_EVIL", "amount": 9000}), DUE, prompt="pay A-1") == set()
    assert reasons(pays({"id": "B-2", "to": "cus_C"}, HONEST), DUE, PEOPLE) == set()
    assert reasons(pays({"id": "B-2", "to": "cus_C"}, ANOTHER), DUE, PEOPLE) != set()  # one tool for the whole list


def test_any_call_takes_a_leaf_out_of_it() -> None:
    text = PAYMENTS.replace("from: [due.list.amount], optional", "from: [due.list.amount], any_call: true, optional", 1)
    assert reasons(pays({"id": "A-1", "to": "cus_A", "amount": 9000}), DUE, text=text) == set()
    assert reasons(pays({"id": "A-1", "to": "cus_EVIL", "amount": 9000}), DUE, text=text) != set()


def test_a_person_is_asked_where_the_leaf_says_so() -> None:
    asking = 'step_up:\n  - {id: look, for: pay.all, when: {amounts: {above: "1"}}, approvers: {group: leads}, timeout: 10m}\n'
    text = PAYMENTS.replace("people.list.to], optional", "people.list.to], unknown_origin: step_up, optional", 1) + asking
    for payments, held in (([{"id": "A-1", "to": "cus_EVIL"}], True), ([{"id": "A-1", "amount": 9000}], False), ([HONEST], False)):
        asked = case({"payments": payments}, DUE, text=text)
        assert engine(asked) == evaluate(asked.workflow, asked.run, asked.call, asked.around)
        assert bool(engine(asked).holds) is held


def test_the_message_names_the_leaf_and_its_element() -> None:
    asked = case(pays({"id": "A-1", "to": "cus_A", "amount": 9000}), DUE)
    answer = decide(asked.workflow, asked.run, asked.call, asked.around)
    assert isinstance(answer, Deny)
    (failure,) = answer.failures
    assert (failure.reason, failure.field) == (Reason.ONE_SOURCE, "args.payments[].amount")
    assert failure.expected == "in each element, the same row of one earlier call as the other arguments"


def test_small_lists_are_decided_as_the_reference_does() -> None:
    """Every payment of two leaves or three, alone and beside an honest one."""
    ids, payees, amounts = (None, "A-1", "B-2"), (None, "cus_A", "cus_EVIL", "cus_C"), (None, 10, 9000)
    allowed = 0
    for one in product(ids, payees, amounts):
        payment = {key: value for key, value in zip(("id", "to", "amount"), one, strict=True) if value is not None or key == "to"}
        for payments in ([payment], [HONEST, payment]):
            for earlier in ((DUE,), (DUE, PEOPLE), (OTHER, DUE)):
                allowed += reasons({"payments": payments}, *earlier) == set()
    assert 50 < allowed < 150


# --- named ---------------------------------------------------------------------------------------------------------------
def test_a_call_is_not_named_by_elements_of_two_rows() -> None:
    text = PAYMENTS.replace("path: '[].id'}", "path: '[].id', trust: named}").replace("path: '[].to'}", "path: '[].to', trust: named}")
    text = text.replace("from: [model], optional: true}}", "from: [prompt], optional: true}}")
    asking = "step_up:\n  - {id: look, for: pay.all, approvers: {group: leads}, timeout: 10m}\n"
    text = text.replace("people.list.to], optional", "people.list.to], unknown_origin: step_up, optional", 1) + asking
    named = replace(DUE, named=True)
    for payment, expected in (({"id": "A-1", "to": "cus_A"}, True), ({"id": "A-1", "to": "cus_EVIL"}, False)):
        asked = case(pays(payment), named, text=text)
        assert engine(asked) == evaluate(asked.workflow, asked.run, asked.call, asked.around)
        assert engine(asked).named is expected


# --- what cannot be held is refused when the workflow is loaded --------------------------------------------------------------
@pytest.mark.parametrize(
    ("leaf", "beside"),
    [
        ("payments[].papers[]", "payments[].id"),
        ("payments[].papers[].number", "payments[].id"),
        ("payments[].one[].x", "payments[].id"),
    ],
)
def test_an_element_and_a_list_inside_it_from_rows_of_one_tool_do_not_load(leaf: str, beside: str) -> None:
    text = PAYMENTS + f"      {leaf}: {{type: id, max_items: 9, from: [due.list.paper], optional: true}}\n"
    with pytest.raises(WorkflowError) as wrong:
        load(text)
    (problem,) = wrong.value.problems
    assert problem.field == f"tools.pay.all.args.{leaf}"
    assert problem.got == f"rows of due.list for {leaf}, and for {beside} at another depth"
    assert "any_call: true" in problem.expected


@pytest.mark.parametrize(
    "leaf",
    [
        "payments[].papers[]: {type: id, max_items: 9, from: [people.list.to], any_call: true, optional: true}",
        "payments[].papers[]: {type: id, max_items: 9, from: [due.list.paper], any_call: true, optional: true}",
        "payments[].papers[]: {type: id, max_items: 9, from: [due.list.batch], optional: true}",
        "payments[].papers[].number: {type: id, max_items: 9, from: [prompt], optional: true}",
        "others[].papers[]: {type: id, max_items: 9, from: [due.list.paper], optional: true}",
    ],
)
def test_other_inner_lists_load(leaf: str) -> None:
    assert leaf.partition(":")[0] in load(PAYMENTS + f"      {leaf}\n").tools["pay.all"].args


def test_a_selected_row_is_a_row_too() -> None:
    sized = PAYMENTS.replace(
        "facts: {to: {type: id, path: '[].to'},", "facts: {to: {type: id, path: '[].to'}, size: {type: number, path: '[].size'},"
    )
    select = "select: {of: people.list.to, called: [person], largest: people.list.size}"
    leaf = f"      payments[].by[]: {{type: id, max_items: 9, from: [prompt], optional: true, {select}}}\n"
    with pytest.raises(WorkflowError) as wrong:
        load(sized + leaf)
    assert [problem.field for problem in wrong.value.problems] == ["tools.pay.all.args.payments[].by[]"]


def test_the_only_list_of_a_tool_is_held_to_rows() -> None:
    lines = PAYMENTS.splitlines(keepends=True)
    text = "".join(line for line in lines if "amounts:" not in line and "].tip:" not in line and "].to:" not in line)
    assert reasons(pays({"id": "A-1", "amount": 10}), DUE, text=text) == set()
    assert {reason for reason, _ in reasons(pays({"id": "A-1", "amount": 9000}), DUE, text=text)} == {"one_source"}


def test_inner_lists_side_by_side_from_rows_of_one_tool_do_not_load() -> None:
    more = "".join(
        f"      others[].{inner}[].x: {{type: id, max_items: 9, from: [due.list.paper], optional: true}}\n" for inner in ("a", "b")
    )
    with pytest.raises(WorkflowError) as wrong:
        load(PAYMENTS + more)
    assert [problem.field for problem in wrong.value.problems] == ["tools.pay.all.args.others[].b[].x"]


def test_the_elements_of_an_inner_list_are_held_to_a_row_each() -> None:
    leaves = "".join(
        f"      groups[].lines[].{name}: {{type: id, max_items: 9, from: [due.list.{name}], optional: true}}\n" for name in ("id", "to")
    )
    honest, mixed = {"id": "A-1", "to": "cus_A"}, {"id": "A-1", "to": "cus_EVIL"}
    for groups, allowed in (
        ([{"lines": [honest]}, {"lines": [{"id": "B-2"}, honest]}], True),
        ([{"lines": [honest]}, {"lines": [{"id": "B-2"}, mixed]}], False),
        ([{"lines": [{"id": "A-1"}]}, {"lines": [{"to": "cus_EVIL"}]}], True),
    ):
        assert (reasons({"groups": groups}, DUE, text=PAYMENTS + leaves) == set()) is allowed


# --- elements ------------------------------------------------------------------------------------------------------------
LEAVES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "note", "tags", "since"]), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["to", "files", "filter"]), LEAVES))
def test_elements_hold_the_leaves_in_their_order(args: dict[str, Any]) -> None:
    names = ["files[].id", "files[].note"]
    found = list(elements("files[]", names, args))
    optional = replace(TOOL, args={name: replace(rule, optional=True) for name, rule in TOOL.args.items()})
    for name in names:
        whole = [value for value in flat(optional, args).get(name, []) if value is not None and not isinstance(value, dict | list)]
        mine = [each[name] for each in found if name in each and not isinstance(each[name], dict | list)]
        assert mine == whole


def test_the_list_of_a_leaf() -> None:
    assert [list_of(name) for name in ("ids", "a[].x", "a[].b.x", "a[].b[]", "a.b[].c")] == ["ids", "a[]", "a[]", "a[].b[]", "a.b[]"]


def test_rows_made_to_meet_elements_in_very_many_ways_are_refused_at_once() -> None:
    """Each row has another half of twelve leaves, and each element has a value of its own that no row has beside them."""
    names = [f"x{n}" for n in range(12)]
    facts = "".join(f"      {name}: {{type: id, path: '[].{name}'}}\n" for name in names)
    leaves = "".join(f"      payments[].{name}: {{type: id, max_items: 1000, from: [due.list.{name}], optional: true}}\n" for name in names)
    text = PAYMENTS.replace("  people.list:\n", facts + "  people.list:\n") + leaves
    rows = tuple(dict.fromkeys(chosen, "yes") for chosen in combinations(names, 6))
    start = time.process_time()
    for elements_of_one in (names, names[:5]):
        payments = [dict.fromkeys(elements_of_one, "yes"), *({**dict.fromkeys(names[:6], "yes"), "x7": "yes"} for _ in range(990))]
        asked = case({"payments": payments}, *(replace(DUE, id=f"c{n}", rows=rows) for n in range(3)), text=text)
        assert Reason.ONE_SOURCE in engine(asked).denied
    assert time.process_time() - start < 3


def test_many_elements_against_many_rows_are_decided_at_once() -> None:
    rows = tuple({"id": f"A-{n}", "to": f"cus_{n % 7}", "amount": n, "most": n} for n in range(1000))
    text = PAYMENTS.replace("max_items: 9,", "max_items: 1000,")
    calls = [replace(DUE, id=f"c{n}", rows=rows) for n in range(3)]
    good = [{"id": f"A-{n}", "to": f"cus_{n % 7}", "amount": n, "tip": n} for n in range(1000)]
    start = time.process_time()
    for payments, allowed in (
        (good, True),
        ([*good[:-1], {**good[-1], "to": "cus_1"}], False),
        ([{**good[5], "id": "A-7"}, *good[1:]], False),
    ):
        asked = case({"payments": payments}, *calls, text=text)
        assert bool(engine(asked).denied) is not allowed
    assert time.process_time() - start < 3
