"""`page_size`: how many rows the model asked for chooses none of them where fewer came, and nothing else makes a page look short."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate import Agent, Allow, Gate, StepUp, User
from agentgate.decision.answer import Eligible
from agentgate.decision.origins.earlier_calls import Earlier
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.redemption.outcome import MAX_ROWS, extract
from agentgate.review.check.advice import advise
from agentgate.review.draft.argument import argument
from agentgate.review.mutation.mutation import mutations
from agentgate.review.scenarios.scene import Scene
from agentgate.values.paths import CUT, PAGE
from agentgate.values.request import EarlierCall
from agentgate.workflow.model import Workflow, counted, short, sized
from tests.workflows import workflow_text

BANK = workflow_text(
    "bank",
    risk="high",
    intents="{pay: {asks_for: Pay., words: [pay, cancel], examples: [Pay the bill]}}",
    tools="""
  history:
    effect: read
    needs: any
    redeem: wrapper
    args:
      top: {type: integer, min: "-1", max: "2000", from: [model], optional: true, page_size: true}
      offset: {type: integer, min: "0", max: "900", from: [model], optional: true}
    facts:
      subject: {type: text, path: '[].subject'}
      to: {type: iban, path: '[].to', named_by: [subject]}
      paid: {type: number, path: '[].paid'}
  latest:
    effect: read
    needs: any
    redeem: wrapper
    args: {limit: {type: integer, min: "0", max: "2000", from: [model], page_size: true}}
    facts:
      to: {type: iban, path: 'rows[].to'}
      paid: {type: number, path: 'rows[].paid'}
  pay:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args: {to: {type: iban, from: [prompt, history.to], unknown_origin: step_up}}
  again:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args:
      to: {type: iban, from: [prompt], select: {of: latest.to, called: [payment], highest: latest.paid}, unknown_origin: step_up}
""",
    step_up="""
  - {id: a, for: pay, when: {to: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: b, for: again, when: {to: {origin: unknown}}, approvers: {group: leads, count: 1}, timeout: 10m}
""",
)
GOOD, EVIL = "GB29NWBK60161331926819", "DE89370400440532013000"
RENT, GYM = {"subject": "Rent", "to": GOOD, "paid": 900}, {"subject": "Gym", "to": EVIL, "paid": 30}
ASKED = "Pay the landlord the rent, like last month"
PAID, PAYS = "paid: {type: number, path: '[].paid'}", "args: {to: {type: iban, from: [prompt, history.to],"
RULE = 'top: {type: integer, min: "-1", max: "2000", from: [model], optional: true, page_size: true}'


def load(*changes: tuple[str, str]) -> Workflow:
    text = BANK
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return load_text(text, "bank.yaml", {}, derive)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "bank.yaml").write_text(BANK)
    now = datetime(2026, 3, 4, 10, tzinfo=UTC)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", clock=lambda: now) as opened:
        yield opened


def looked(gate: Gate, result: Any, prompt: str = ASKED, tool: str = "history", **args: Any) -> Any:
    """A run in which one read was done."""
    run = gate.open_run("bank", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=prompt)
    answer = run.authorize(tool, args, tool_call_id="look")
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool=tool, args=args) as redeemed:
        redeemed.record_result(result)
    return run


def highest(gate: Gate, rows: list[Any], size: int) -> Any:
    """A run that is to pay the highest of these rows."""
    return looked(gate, {"rows": rows}, "Pay the highest payment", "latest", limit=size)


def pays(run: Any, tool: str = "pay", to: str = GOOD) -> bool:
    """Whether it is granted; a person is asked otherwise."""
    answer = run.authorize(tool, {"to": to}, tool_call_id=f"{tool} {to}")
    assert isinstance(answer, Allow | StepUp), answer
    return isinstance(answer, Allow)


# --- at a gate: what a page of this size could leave out ----------------------------------------------------------------------
def test_a_page_that_was_not_full_leaves_nothing_out(gate: Gate) -> None:
    run = looked(gate, [RENT, GYM], top=100)
    assert (pays(run), pays(run, to=EVIL)) == (True, False)


@pytest.mark.parametrize("size", [1, 2, 0, -1])
def test_a_full_page_and_a_size_that_is_none_mean_nobody(gate: Gate, size: int) -> None:
    assert not pays(looked(gate, [RENT, GYM], top=size))


def test_the_model_leaves_a_tie_out_with_the_size(gate: Gate) -> None:
    """The newest "Rent" is the stranger's: alone it would be meant; the page of one says nothing of the older one."""
    strange = {**RENT, "to": EVIL}
    assert not pays(looked(gate, [strange], top=1), to=EVIL)
    assert not pays(looked(gate, [strange, RENT], top=100), to=EVIL)


@pytest.mark.parametrize(
    "rest",
    [
        [None],
        [{}],
        [{"other": "x"}],
        [7],
        [[]],
        [[RENT]],
        ["Rent"],
        [{"subject": None, "to": None, "paid": None}],
        [{"to": {"iban": GOOD}}],
    ],
)
def test_an_element_without_a_row_fills_the_page(gate: Gate, rest: list[Any]) -> None:
    assert not pays(looked(gate, [RENT, GYM, *rest], top=3))
    assert not pays(looked(gate, [*rest, RENT, GYM], top=3))
    assert pays(looked(gate, [RENT, GYM, *rest], top=4))
    assert not pays(highest(gate, [RENT, GYM, *rest], 3), "again")


def test_a_result_that_was_cut_means_nobody_however_large_the_page(gate: Gate) -> None:
    rows = [RENT, *({**GYM, "subject": f"Gym {n}"} for n in range(MAX_ROWS))]
    assert not pays(looked(gate, rows, top=2000))
    assert not pays(looked(gate, [{**RENT, "note": "x"}, *({"subject": "y" * 4000} for _ in range(40))], top=2000))
    assert not pays(highest(gate, rows, 2000), "again")
    assert pays(looked(gate, rows[:MAX_ROWS], top=2000))


@pytest.mark.parametrize("result", [{"items": [RENT]}, {"0": RENT}, RENT, "Rent", None, 3, {}])
def test_a_result_that_is_no_list_means_nobody(gate: Gate, result: Any) -> None:
    assert not pays(looked(gate, result, top=100))


def test_an_offset_stays_a_choice_of_rows(gate: Gate) -> None:
    assert not pays(looked(gate, [RENT, GYM], top=100, offset=1))
    assert not pays(looked(gate, [RENT, GYM], offset=1))
    assert pays(looked(gate, [RENT, GYM], "Pay the rent, from the 17 on", top=100, offset=17))


def test_a_size_that_is_left_out_or_named_is_as_before(gate: Gate) -> None:
    assert pays(looked(gate, [RENT, GYM]))
    assert pays(looked(gate, [RENT, GYM], "Pay the rent, look at the last 2", top=2))


def test_the_highest_of_a_page_that_was_not_full_is_selected(gate: Gate) -> None:
    assert pays(highest(gate, [RENT, GYM], 3), "again")
    assert not pays(highest(gate, [RENT, GYM], 3), "again", to=EVIL)
    for size in (0, 1, 2):
        assert not pays(highest(gate, [RENT, GYM], size), "again")


def test_an_explanation_says_that_the_page_was_full(gate: Gate) -> None:
    def why(run: Any) -> str:
        return str(next(r for r in run.explain("pay", {"to": GOOD}).rows if r.condition.field == "args.to" and r.origins).origins[0])

    full = "single out its row by subject; that call may have left rows out: not fewer than its top"
    assert full in why(looked(gate, [RENT, GYM], top=2))
    assert "left rows out" not in why(looked(gate, [RENT, RENT, {**GYM, "subject": "Rent"}], top=9))


def test_another_gate_knows_the_count_from_the_store(tmp_path: Path) -> None:
    flows = tmp_path / "w"
    flows.mkdir()
    (flows / "bank.yaml").write_text(BANK)
    more: dict[str, Any] = {"issuer": "https://gate.example", "store": f"embedded://{tmp_path / 'store'}", "keys": tmp_path / "keys"}
    with (
        Gate.open_unsafe_unapproved(flows, audit=str(tmp_path / "a"), **more) as one,
        Gate.open_unsafe_unapproved(flows, audit=str(tmp_path / "b"), **more) as two,
    ):
        for size, told in ((3, False), (4, True)):
            run = looked(one, [RENT, None, GYM], top=size)
            other = two.resume_run("acme", run.id)
            (call,) = other._view.state.calls
            assert (call.args["top"], call.rows[-1][PAGE]) == (size, 3)
            assert pays(other) is told


# --- how it is counted ---------------------------------------------------------------------------------------------------------
ELEMENTS = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.just({}), st.just(dict(RENT)), st.just([dict(RENT)]))


@given(st.lists(ELEMENTS, max_size=8), st.one_of(st.integers(-2, 9), st.booleans(), st.sampled_from(["9", 9.0, None, [9]])))
def test_a_page_is_short_exactly_where_the_list_was(elements: list[Any], size: Any) -> None:
    rows = extract(load().tools["history"].result_paths, elements)
    assert short(rows, size) == (bool(rows) and type(size) is int and len(elements) < size)


def test_without_a_count_nothing_is_short() -> None:
    rows = extract({"to": ("[]", "to")}, [RENT])
    assert rows == ({"to": GOOD},)
    for row in ({}, {PAGE: None}, {PAGE: True}, {PAGE: "1"}, {PAGE: -1}, {PAGE: 1.0}):
        assert not short(({**RENT, **row},), 9)
    assert not short(({**RENT, PAGE: 1}, RENT), 9)  # only the last row says it
    assert not short((), 9)
    assert not short(({"total": 1, PAGE: 0},), True)
    declared = {"total": ("total",), "to": ("items", "[]", "to"), PAGE: ("items",)}
    for items in ("abc", {"a": 1}, 7, None):
        assert extract(declared, {"total": 1, "items": items}) == ({"total": 1},)
    assert extract(declared, {"total": 1, "items": []}) == ({"total": 1, PAGE: 0},)
    assert PAGE not in load((RULE, RULE.replace(", page_size: true", ""))).tools["history"].result_paths


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([("[]", "a"), ("[]", "b"), ("total",)], ()),
        ([("x", "items", "[]", "a", "[iban]")], ("x", "items")),
        ([("x", "[]", "a"), ("y", "[]", "a")], None),
        ([("x", "[]", "a"), ("x", "[]", "lines", "[]", "b")], None),
        ([("x", "[]", "lines", "[]", "b")], None),
        ([("[]", "[]")], None),
        ([("text", "[numbers]", "[]")], None),
        ([("[]", "text", "[numbers]", "[]")], None),
        ([("a",)], None),
        ([], None),
    ],
)
def test_only_one_list_that_is_in_no_other_is_counted(given: list[tuple[str, ...]], found: tuple[str, ...] | None) -> None:
    assert counted(given) == found


def test_a_verifier_that_does_not_know_the_mark_makes_no_fact_of_it() -> None:
    read = {name.replace(PAGE, "page"): path for name, path in load().tools["history"].result_paths.items()}
    assert extract(read, [RENT]) == ({"subject": "Rent", "to": GOOD, "paid": 900},)


def test_a_value_that_is_no_whole_number_is_a_choice() -> None:
    workflow = load()
    prompt = Prompt.of((ASKED,), date(2026, 3, 4))
    for size, asked in ((3, True), (2, False), ("3", False), (3.0, False), (True, False), (None, False)):
        call = EarlierCall("c", "history", {"top": size}, (dict(RENT), {**GYM, PAGE: 2}), named=False, redeemed_at=0.0)
        earlier = Earlier((call,), workflow.tools, prompt)
        assert earlier.of("history")[0].asked_by_user() is asked, size
        assert earlier.of("history")[0].asked_by_user(frozenset()) is asked, size
    cut = EarlierCall("c", "history", {"top": 9}, ({**RENT, CUT: True, PAGE: 2},), named=False, redeemed_at=0.0)
    source = workflow.tools["pay"].args["to"].sources[1]
    assert Earlier((cut,), workflow.tools, prompt).of("history")[0].origins(source)[0] is None


# --- loading, reviewing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ([(RULE, 'top: {type: number, min: "1", max: "9", from: [model], page_size: true}')], "history.args.top", "type: integer"),
        ([(RULE, "top: {text: 9, from: [model], page_size: true}")], "history.args.top", "type: integer"),
        ([(RULE, "top: {type: integer, max_items: 2, from: [model], page_size: true}")], "history.args.top", "on a list"),
        ([(RULE, "page.top: {type: integer, from: [model], page_size: true}")], "history.args.page.top", "inside a structure"),
        ([(RULE, "top: {type: integer, from: [model], page_size: true, sensitive: true}")], "history.args.top", "that is sensitive"),
        ([(RULE, RULE.replace("page_size: true", "page_size: false"))], "history.args.top", "true, or leave it out"),
        ([(RULE, RULE.replace("page_size: true", "page_size: 1"))], "history.args.top", "true, or leave it out"),
        ([("path: '[].paid'", "path: '[].lines[].paid'")], "history.args.top", "exactly one list"),
        ([("path: '[].paid'", "path: 'other[].paid'")], "history.args.top", "exactly one list"),
        ([(PAID, "no: {type: number, path: t, find: any, trust: named}")], "history.args.top", "one list"),
        ([(PAYS, PAYS.replace("{to", "{top: {type: integer, from: [model], page_size: true}, to"))], "pay.args.top", "only on a read"),
    ],
)
def test_page_size_stands_where_the_rows_can_be_counted(changes: list[tuple[str, str]], field: str, expected: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        load(*changes)
    found = [f"{p.got} {p.expected}" for p in caught.value.problems if p.field == f"tools.{field}.page_size"]
    assert [expected in text for text in found] == [True], caught.value.problems


def test_a_value_beside_the_list_and_facts_of_no_list() -> None:
    assert load(("path: '[].paid'", "path: total")).tools["history"].result_paths[PAGE] == ()
    args = "    args: {top: {type: integer, min: '1', max: '9', from: [model], page_size: true}}\n"
    tool = f"  other:\n    effect: read\n    needs: any\n    redeem: wrapper\n{args}"
    with pytest.raises(WorkflowError, match="exactly one list"):
        load(("  pay:\n    effect", tool + "    facts: {total: {type: number}}\n  pay:\n    effect"))
    with pytest.raises(WorkflowError, match="exactly one list"):
        load(("  pay:\n    effect", tool + "  pay:\n    effect"))
    found = load(("  pay:\n    effect", tool + "    facts: {id: {type: id, path: 'x.y[].id'}, all: {type: number}}\n  pay:\n    effect"))
    assert found.tools["other"].result_paths[PAGE] == ("x", "y")


def test_a_selection_needs_the_word_on_a_size_from_the_model() -> None:
    with pytest.raises(WorkflowError, match="steered by limit"):
        load(("from: [model], page_size: true", "from: [model]"))


def without_select(text: str) -> str:
    return text.replace(", select: {of: latest.to, called: [payment], highest: latest.paid}", "")


def test_the_word_is_wider_and_its_loss_narrower() -> None:
    new = load_text(without_select(BANK), "bank.yaml", {}, derive)
    old = load_text(without_select(BANK).replace("optional: true, page_size: true", "optional: true"), "bank.yaml", {}, derive)
    found = compare(old, new)
    assert [(f.tool, f.field, f.new) for f in found.wider] == [("history", "args.top.page_size", "true")]
    assert compare(new, old).only_narrower


def test_a_person_asked_by_a_named_fact_is_asked_less_where_fewer_rows_name_a_call() -> None:
    more = """\
  look:
    effect: read
    needs: any
    redeem: wrapper
    args: {to: {type: iban, from: [history.to, model]}}
    facts: {mail: {type: email, trust: named}}
  tell:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args: {to: {type: email, from: [model]}}
step_up:
  - {id: c, for: tell, when: {to: {origin: [look.mail]}}, approvers: {group: leads, count: 1}, timeout: 10m}
"""
    text = without_select(BANK).replace("step_up:\n", more)
    new, old = (load_text(t, "bank.yaml", {}, derive) for t in (text, text.replace("optional: true, page_size: true", "optional: true")))
    assert any(f.field == "step_up.c.when" for f in compare(new, old).wider)
    assert not any(f.field == "step_up.c.when" for f in compare(old, new).wider)


def test_lint_names_a_size_from_the_model_that_lacks_the_word() -> None:
    def warned(text: str) -> list[str]:
        found = advise(load_text(text, "bank.yaml", {}, derive), read_yaml(text, "bank.yaml"))
        told = [f"{a.field}: {a.text}" for a in found if a.field.startswith("tools.history.")]
        return [text for text in told if "page_size" in text or "words hold" in text]

    plain = without_select(BANK)
    (offset,) = warned(plain)
    assert "words hold offset too" in offset
    bare = plain.replace("optional: true, page_size: true", "optional: true")
    size, other = warned(bare)
    assert (other, size.partition(" how many rows")[0]) == (offset, "tools.history.args.top: the model chooses")
    assert warned(bare.replace(", named_by: [subject]", "")) == []
    assert warned(bare.replace('"2000", from: [model], optional: true', '"2000", from: [prompt], optional: true')) == [offset]


@pytest.mark.parametrize("name", ["n", "limit", "top_k", "max_results", "maxResults", "page_size", "pageSize", "per-page"])
def test_a_draft_proposes_it_by_the_name(name: str) -> None:
    assert sized(name)
    for schema in ({"type": "integer"}, {"type": "integer", "default": 10}, {"type": "integer", "minimum": 1, "maximum": 50}):
        found = argument(name, schema, {}, required=False, acting=False)
        assert "page_size: true" in found.note
        assert "page_size" not in (found.rule or {})  # a draft has no facts whose list could be counted
        assert "page_size" not in argument(name, schema, {}, required=False, acting=True).note
    assert "page_size" not in argument(name, {"type": "number"}, {}, required=True, acting=False).note


@pytest.mark.parametrize("name", ["offset", "page", "cursor", "page_token", "year", "account"])
def test_a_draft_proposes_it_for_nothing_else(name: str) -> None:
    assert not sized(name)
    assert "page_size" not in argument(name, {"type": "integer"}, {}, required=True, acting=False).note


def test_the_mutant_of_an_offset_is_noticed() -> None:
    workflow = load_text(without_select(BANK), "bank.yaml", {}, derive)
    (mutant,) = [m for m in mutations(workflow).found if m.of == ("Rule", "page_size")]
    assert mutant.path == "tools.history.args.offset.page_size"
    scenes = [Scene.of(workflow, {"call": "pay"}).set(changes) for changes in mutant.tries]
    told = [scene for scene in scenes if granted(scene, mutant.workflow)]
    assert told
    assert not any(granted(scene, workflow) for scene in told)


def granted(scene: Scene, workflow: Workflow) -> bool:
    answer = scene.decide(workflow)
    return isinstance(answer, Eligible) and not answer.holds
