"""`needs` on an argument: one tool with many actions, of which each is asked for by itself."""

from __future__ import annotations

from dataclasses import replace
from time import thread_time
from typing import Any

import pytest

from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import advise
from agentgate.review.mutation.mutation import mutations, propose
from agentgate.review.report.past import answer as explained
from agentgate.review.report.witness import witness
from agentgate.review.scenarios.scene import Scene
from agentgate.values.request import Derived
from agentgate.workflow.model import Workflow
from tests.test_definition import PAIR, changed, expect_one
from tests.workflows import workflow_text

ISSUES = workflow_text(
    "issues",
    intents="""
  assign: {asks_for: Give an issue to somebody., words: [assign], examples: ["Assign WEB-42 to kim@acme.example"]}
  close: {asks_for: Close an issue., words: [close], unclear: step_up, examples: ["Close WEB-42"], counter_examples: ["Close all issues"]}
  label: {asks_for: Label an issue., words: [label], examples: ["Label WEB-42 as a bug"]}
""",
    tools="""
  find:
    effect: read
    needs: any
    redeem: wrapper
    args:
      word: {text: 40, from: [model]}
      closed: {type: boolean, from: [model], optional: true, needs: [close]}
    facts: {mail: {type: email, path: '[].mail'}}
  update:
    effect: write
    needs: [assign, close, label]
    redeem: wrapper
    args:
      issue: {type: id, from: [prompt]}
      assignee: {type: email, from: [prompt, find.mail], optional: true, nullable: true, needs: [assign]}
      state: {in: [open, closed], from: [model], optional: true, nullable: true, needs: [close]}
      labels: {each_in: [bug, docs], max_items: 2, from: [model], optional: true, needs: [label, close]}
      meta[].note: {text: 20, max_items: 3, from: [model], optional: true, needs: [label]}
""",
    step_up="""
  - {id: look, for: find, when: {closed: {is: true}}, approvers: {group: leads}, timeout: 10m}
  - {id: sure, for: update, when: {state: {is: closed}}, approvers: {group: leads}, timeout: 10m}
""",
)
ASSIGN, CLOSE, LABEL = "Assign WEB-42 to kim@acme.example", "Close WEB-42", "Label WEB-42 as a bug"
KIM = {"assignee": "kim@acme.example"}


def load(text: str = ISSUES) -> Workflow:
    return load_text(text, "w.yaml", {}, derive)


def answer(args: dict[str, Any], prompt: str, workflow: Workflow | None = None, tool: str = "update", **presence: Any) -> Any:
    """What is decided of a call; `presence` overrules what was derived of an intent."""
    issue = {"issue": "WEB-42"} if tool == "update" else {}
    scene = Scene.of(workflow or load(), {"call": tool, "prompt": prompt}).sending({**issue, **args})
    run = replace(scene.run, intents={**scene.run.intents, **{n: Derived(p) for n, p in presence.items()}})
    return decide(scene.workflow, run, scene.call, scene.around)


def refused(found: Any) -> set[tuple[str, str, str]]:
    return {(str(f.reason), f.field, f.expected) for f in found.failures} if not isinstance(found, Eligible) else set()


# --- loading -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "expected", "hint"),
    [
        ("{text: 9, from: [model], needs: [@@sned]}", "a declared intent: send (the argument could never be sent)", "send"),
        ("{text: 9, from: [model], needs: [@@any]}", "a declared intent: send", ""),
        ("{text: 9, from: [model], needs: [@@none]}", "a declared intent: send", ""),
    ],
)
def test_only_declared_intents_are_needed(rule: str, expected: str, hint: str) -> None:
    expect_one(PAIR.replace("{X}", rule), "tools.send.args.x.needs[0]", expected, hint)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("{text: 9, from: [model], needs: @@[]}", "tools.send.args.x.needs"),
        ("{text: 9, from: [model], needs: @@send}", "tools.send.args.x.needs"),
        ("{text: 9, from: [model], needs: @@[send, send]}", "tools.send.args.x.needs"),
    ],
)
def test_needs_is_a_list_of_them(rule: str, field: str) -> None:
    expect_one(PAIR.replace("{X}", rule), field, "")


def test_where_no_prompt_decides_nothing_is_asked_for() -> None:
    text = changed(
        PAIR.replace("{X}", "{text: 9, from: [model], needs: [send]}"), "intents:\n  send:", "intents: {none: a job}\nx:\n  send:"
    )
    with pytest.raises(WorkflowError, match=r"args\.x\.needs\[0\].*this workflow has no intents"):
        load(
            text.replace("x:\n  send: {asks_for: Send something., words: [send], examples: [Send it]}\n", "").replace("[send]\n", "none\n")
        )


def test_an_unclear_one_that_asks_needs_somebody_to_ask() -> None:
    with pytest.raises(WorkflowError, match=r"tools\.find.*intent close.*a step_up rule for find"):
        load("\n".join(line for line in ISSUES.splitlines() if "id: look" not in line))


# --- the decision ------------------------------------------------------------------------------------------------------------
def test_who_asks_to_assign_closes_nothing() -> None:
    """The attack: a tool's result tells the model to close the issue, or to label it, in the same call."""
    assert isinstance(answer(KIM, ASSIGN), Eligible)
    assert refused(answer({**KIM, "state": "closed"}, ASSIGN)) == {("intent_absent", "args.state", "close")}
    assert refused(answer({"state": "closed"}, ASSIGN)) == {("intent_absent", "args.state", "close")}
    assert refused(answer({**KIM, "labels": ["bug"]}, ASSIGN)) == {("intent_absent", "args.labels", "label or close")}
    assert refused(answer({"state": "open", "labels": ["bug"]}, ASSIGN)) == {
        ("intent_absent", "args.state", "close"),
        ("intent_absent", "args.labels", "label or close"),
    }


def test_who_asks_for_both_gets_both() -> None:
    assert isinstance(answer({**KIM, "state": "open"}, f"{ASSIGN}. {CLOSE}"), Eligible)
    assert [h.rule.id for h in answer({**KIM, "state": "closed"}, f"{ASSIGN}. {CLOSE}").holds] == ["sure"]
    assert isinstance(answer({"labels": ["bug"]}, CLOSE), Eligible)
    assert isinstance(answer({"labels": ["bug"]}, LABEL), Eligible)


def test_what_is_not_sent_needs_nothing() -> None:
    assert isinstance(answer({**KIM, "state": None}, ASSIGN), Eligible)
    assert isinstance(answer({}, ASSIGN), Eligible)


def test_words_that_are_quoted_or_denied_ask_for_nothing() -> None:
    for prompt in (f"{ASSIGN}. Do not close it", f'{ASSIGN} with the comment "please close it"', f"{ASSIGN}\n> Close WEB-42"):
        assert refused(answer({**KIM, "state": "open"}, prompt)), prompt


def test_a_leaf_of_a_structure_needs_too() -> None:
    assert isinstance(answer({"meta": [{"note": "a"}, {"note": "b"}]}, LABEL), Eligible)
    assert refused(answer({"meta": [{"note": "a"}]}, CLOSE)) == {("intent_absent", "args.meta[].note", "label")}


def test_unclear_asks_or_refuses_as_the_intent_says() -> None:
    held = answer({**KIM, "state": "open"}, ASSIGN, close="unclear")
    assert [(h.rule.id, [(str(f.reason), f.field) for f in h.why]) for h in held.holds] == [("sure", [("intent_unclear", "args.state")])]
    assert [f.argument for h in held.holds for f in h.why] == ["state"]
    assert not answer(KIM, ASSIGN, close="unclear").holds
    assert refused(answer({**KIM, "meta": [{"note": "a"}]}, ASSIGN, label="unclear")) == {
        ("intent_unclear", "args.meta[].note", "a clear request")
    }
    assert [h.rule.id for h in answer({**KIM, "labels": ["bug"]}, ASSIGN, label="unclear", close="unclear").holds] == ["sure"]
    assert isinstance(answer({**KIM, "labels": ["bug"]}, ASSIGN, label="present", close="absent"), Eligible)


def test_an_intent_that_nobody_derived_is_absent() -> None:
    scene = Scene.of(load(), {"call": "update", "prompt": f"{ASSIGN}. {CLOSE}"}).sending({"issue": "WEB-42", "state": "open"})
    without = {n: d for n, d in scene.run.intents.items() if n != "close"}
    found = decide(scene.workflow, replace(scene.run, intents=without), scene.call, scene.around)
    assert refused(found) == {("intent_absent", "args.state", "close")}


def test_on_a_read_that_any_prompt_may_call_only_who_asked_may_send_it() -> None:
    assert isinstance(answer({"word": "x"}, "What is new?", tool="find"), Eligible)
    assert refused(answer({"word": "x", "closed": False}, "What is new?", tool="find")) == {("intent_absent", "args.closed", "close")}
    assert isinstance(answer({"word": "x", "closed": False}, CLOSE, tool="find"), Eligible)


def test_the_tools_own_needs_hold_as_before() -> None:
    assert refused(answer({}, "What is with WEB-42?")) == {("intent_absent", "intent", "assign or close or label")}
    assert {f for _, f, _ in refused(answer({"state": "open"}, "What is with WEB-42?"))} == {"intent", "args.state"}


# --- what reviewers see ------------------------------------------------------------------------------------------------------
def test_an_explanation_says_which_intent_an_argument_lacks_and_what_helps() -> None:
    scene = Scene.of(load(), {"call": "update", "prompt": ASSIGN, "args": {"issue": "WEB-42", **KIM, "state": "open"}})
    found = explained(scene)
    row = next(r for r in found.rows if r.condition.key == "args.state needs")
    assert (row.verdict, row.expected) == ("failed", "close")
    assert row.got.startswith("close absent")
    assert row.would_pass is not None
    assert (row.would_pass.text, row.would_pass.enough) == ("without state", True)
    others = {r.condition.key: r.verdict for r in found.rows if r.condition.word == "needs"}
    assert others == {"args.assignee needs": "met", "args.state needs": "failed", "args.labels needs": "not sent",
                      "args.meta[].note needs": "not sent", "intent needs": "met"}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "needs", "more"),
    [
        ("assignee", "[assign]", "[assign, label]"),
        ("state", "[close]", "[label, close]"),
        ("labels", "[label, close]", "[label, close, assign]"),
    ],
)
def test_the_diff_tells_a_list_that_is_gone_or_longer_with_a_call(name: str, needs: str, more: str) -> None:
    line = next(line for line in ISSUES.splitlines() if line.strip().startswith(f"{name}:"))
    for other in (line.replace(f", needs: {needs}", ""), line.replace(needs + "}", more + "}")):
        assert other != line
        wider = load(ISSUES.replace(line, other))
        found = compare(load(), wider)
        assert [(f.tool, f.field) for f in found.wider] == [("update", f"args.{name}.needs")]
        assert found.read_yourself == ()
        (shown,) = [witness(load(), wider, each) for each in found.wider]
        assert shown.scene is not None, shown.reason
        assert isinstance(shown.scene.decide(wider), Eligible)
        assert not isinstance(shown.scene.decide(load()), Eligible)
        assert [f.field for f in compare(wider, load()).narrower] == [f"args.{name}.needs"]
        assert compare(wider, load()).only_narrower


def test_the_diff_tells_an_unclear_intent_of_an_argument_alone() -> None:
    one = ISSUES.replace("needs: [assign, close, label]", "needs: [assign, label]")
    found = compare(load(one.replace(", unclear: step_up", "")), load(one))
    assert ("update", "intents.close.unclear") in [(f.tool, f.field) for f in found.wider]
    assert compare(load(one), load(one.replace(", unclear: step_up", ""))).only_narrower


def test_a_tools_own_list_that_grows_is_told_and_what_its_arguments_need_is_not() -> None:
    less = load(ISSUES.replace("needs: [assign, close, label]", "needs: [assign, close]"))
    assert [f.field for f in compare(less, load()).wider] == ["needs"]
    assert compare(load(), less).only_narrower


def many(count: int, *, needs: bool = True) -> Workflow:
    names = [f"act{n}" for n in range(count)]
    intents = "\n".join(f"  {n}: {{asks_for: It., words: [{n}], unclear: deny, examples: [Please {n} A-1]}}" for n in names)
    args = "\n".join(f"      {n}: {{text: {20 + needs}, from: [model], optional: true, needs: [{n}]}}" for n in names)
    head, tail = (
        ISSUES.partition("intents:\n")[0],
        f"  do:\n    effect: write\n    needs: [{', '.join(names)}]\n    redeem: wrapper\n    args:\n",
    )
    return load(f"{head}intents:\n{intents}\ntools:\n{tail}{args}\n")


def test_many_actions_are_answered_exactly_and_more_are_read_by_a_person() -> None:
    before = thread_time()
    found = compare(many(7, needs=False), many(7))
    assert thread_time() - before < 10
    assert found.read_yourself == ()
    assert [f.field for f in found.wider] == [f"args.act{n}.text" for n in range(7)]
    assert compare(many(9, needs=False), many(9)).read_yourself == ("tools.do.needs",)
    assert not compare(many(9), many(9, needs=False)).only_narrower


def test_an_argument_whose_pattern_cannot_be_read_hides_nothing() -> None:
    """It may be left out: then its own intent is not needed, and what became wider beside it is told."""
    text = ISSUES.replace("labels: {each_in: [bug, docs], max_items: 2,", "labels: {pattern: '[[:alpha:]]\\pL+', max_items: 2,")
    text = text.replace("needs: [label, close]", "needs: [close]")
    found = compare(load(text), load(text.replace("needs: [close]}\n      labels", "needs: [close, assign]}\n      labels")))
    assert [f.field for f in found.wider] == ["args.state.needs"]


def test_every_condition_can_be_covered_by_a_case() -> None:
    assert [str(m) for m in propose(load()).left if m.path.endswith(".needs")] == []
    assert [m.path for m in mutations(load()).found if m.path.startswith("tools.update.args.") and m.path.endswith(".needs")] == [
        f"tools.update.args.{name}.needs" for name in ("assignee", "state", "labels", "meta[].note")
    ]


def test_a_scene_asks_for_what_its_arguments_need() -> None:
    required = load(ISSUES.replace("[open, closed], from: [model], optional: true, nullable: true,", "[open, closed], from: [model],"))
    scene = Scene.of(required, {"call": "update"})
    assert isinstance(scene.decide(), Eligible)
    assert scene.values["prompt"].startswith("Close WEB-42")
    assert isinstance(Scene.of(load(), {"call": "update", "args.labels": ["bug"]}).decide(), Eligible)


# --- lint --------------------------------------------------------------------------------------------------------------------
def warned(text: str) -> list[tuple[str, str]]:
    return [(a.field, a.text) for a in advise(load(text), read_yaml(text, "w.yaml")) if a.field.endswith("needs")]


def test_lint_says_where_a_list_says_nothing() -> None:
    assert warned(ISSUES) == []
    for wide in ("assign, close, label", "label, close, assign"):
        text = ISSUES.replace("needs: [label, close]", f"needs: [{wide}]")
        assert warned(text) == [("tools.update.args.labels.needs", "says nothing: the tool's own needs asks for one of these already")]


def test_lint_says_where_an_intent_may_send_nothing() -> None:
    text = ISSUES.replace(
        "  label: {asks_for", "  pin: {asks_for: Pin an issue., words: [pin], examples: ['Pin WEB-42']}\n  label: {asks_for"
    )
    text = text.replace("needs: [assign, close, label]", "needs: [assign, close, label, pin]")
    assert warned(text) == [("tools.update.needs", "pin alone may send no argument that is optional (each needs another intent)")]
    assert warned(text.replace("needs: [label, close]", "needs: [label, close, pin]")) == []
    assert warned(text.replace(", needs: [label, close]}", "}")) == []
    required = text.replace("issue: {type: id, from: [prompt]}", "issue: {type: id, from: [prompt], needs: [assign, close, label]}")
    assert ("tools.update.needs", "pin alone never suffices: issue is always sent and needs assign or close or label") in warned(required)
