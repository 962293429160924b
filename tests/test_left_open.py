"""What a call leaves open asks whom the rules say, and at least as strict a person as the workflow says; else it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentgate.decision.answer import Deny, Eligible
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.explain.explanation import explain
from agentgate.intents.lexical import derive
from agentgate.loading.blocks import written_out
from agentgate.loading.definition import load_text
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.advice import advise
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import read_tests, run_tests
from agentgate.workflow.model import Workflow
from tests.workflows import workflow_text

FILE = workflow_text(
    "shop.pay",
    intents="""
  pay:
    asks_for: Pay somebody.
    words: [pay]
    unclear: confirm
    unheard: confirm
    delegated: confirm
    examples: [Pay 20 to kim@acme.example]
""",
    tools="""
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      amount: {type: number, min: "1", max: "1000", from: [prompt]}
      to: {type: email, from: [prompt], unknown_origin: step_up}
      memo: {text: 200, from: [model], entities: [prompt], unknown_origin: confirm, optional: true}
""",
    step_up="""
  - {id: meant, for: pay, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}
  - {id: payee, for: pay, when: {to: {origin: unknown}}, approvers: {group: leads}, timeout: 10m}
  - {id: open, for: pay, when: {origin: unknown}, approvers: {user: true}, timeout: 10m}
  - {id: big, for: pay, when: {amount: {above: "100"}}, approvers: {group: leads}, timeout: 10m}
""",
)
CLEAR, UNCLEAR = "Pay 20 to kim@acme.example", "Should 20 perhaps be paid to kim@acme.example? I pay it. Pay everybody."
ARGS = {"amount": 20, "to": "kim@acme.example"}


def load(*changes: tuple[str, str], text: str = FILE) -> Workflow:
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return load_text(text, "w.yaml", {}, derive)


def decide(workflow: Workflow, prompt: str = CLEAR, **args: Any) -> tuple[str, ...]:
    """``deny``; or what is asked of whom, and by which rules."""
    answer = Scene.of(workflow, {"call": "pay", "prompt": prompt, "args": {**ARGS, **args}}).decide()
    if isinstance(answer, Deny):
        return ("deny",)
    return (answer.asks, *(hold.rule.id for hold in answer.holds))


def test_each_rule_asks_where_its_when_holds_and_nowhere_else() -> None:
    workflow = load()
    assert decide(workflow) == ("allow",)
    assert decide(workflow, UNCLEAR) == ("confirm", "meant")
    assert decide(workflow, memo="see bob@acme.example") == ("confirm", "open")
    assert decide(workflow, to="eve@acme.example") == ("step_up", "payee", "open")
    assert decide(workflow, CLEAR.replace("20", "200"), amount=200) == ("step_up", "big")
    assert decide(workflow, UNCLEAR.replace("20", "200"), amount=200) == ("step_up", "meant", "big")
    assert decide(workflow, UNCLEAR, memo="see bob@acme.example") == ("confirm", "meant", "open")
    assert decide(workflow, "Hello", **ARGS) == ("deny",)


@pytest.mark.parametrize(
    "prompt", ["Kindly settle 20 with kim@acme.example", "Do the tasks in the e-mail from kim@acme.example, 20 of them"]
)
def test_what_was_not_understood_or_handed_on_costs_the_user_a_yes(prompt: str) -> None:
    assert decide(load(), prompt) == ("confirm", "meant")
    denied = load(("unheard: confirm", "unheard: deny"), ("delegated: confirm", "delegated: deny"))
    assert decide(denied, prompt) == ("deny",)


def test_where_no_rule_says_what_it_is_about_a_group_is_asked_as_it_always_was() -> None:
    """What was signed keeps its meaning: without ``intent: unclear`` and ``origin: unknown``, every rule of the tool asks."""
    text = FILE[: FILE.index("step_up:\n  - {id: meant")].replace("confirm", "step_up")
    rules = """step_up:
  - {id: big, for: pay, when: {amount: {above: "100"}}, approvers: {group: leads}, timeout: 10m}
  - {id: payee, for: pay, when: {to: {origin: unknown}}, approvers: {group: bosses}, timeout: 10m}
"""
    before = load(text=text + rules)
    assert decide(before, UNCLEAR) == decide(before, to="eve@acme.example") == ("step_up", "big", "payee")
    about = rules + "  - {id: meant, for: pay, when: {intent: unclear}, approvers: {group: leads}, timeout: 10m}\n"
    about += "  - {id: open, for: pay, when: {origin: unknown}, approvers: {group: leads}, timeout: 10m}\n"
    after = load(text=text + about)
    assert decide(after, UNCLEAR) == ("step_up", "meant")
    assert decide(after, to="eve@acme.example") == ("step_up", "payee", "open")
    assert ("step_up.payee.when", "whenever a group is asked") in {(f.field, f.old) for f in compare(before, after).wider}


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        (
            [("{id: meant, for: pay, when: {intent: unclear}", '{id: meant, for: pay, when: {amount: {above: "5"}}')],
            "a confirm (intent pay)",
        ),
        ([("when: {to: {origin: unknown}}", 'when: {to: {pattern: ".*"}}')], "a step-up (args.to)"),
        ([("when: {to: {origin: unknown}}", 'when: {to: {origin: unknown, pattern: "a.*"}}')], "a step-up (args.to)"),
        ([("when: {to: {origin: unknown}}", "when: {to: {origin: unknown}, intent: unclear}")], "a step-up (args.to)"),
        ([("when: {origin: unknown}", "when: {memo: {origin: unknown}, origin: unknown}")], "a confirm (args.memo.entities)"),
        ([("unknown_origin: confirm", "unknown_origin: step_up")], "a step-up (args.memo, args.memo.entities)"),
        (
            [(f"{key}: confirm", f"{key}: step_up") for key in ("unclear", "unheard", "delegated")],
            "a step-up (intent pay)",
        ),
        ([("unheard: confirm", "unheard: step_up")], "step_up beside unclear: confirm"),
        ([("delegated: confirm", "delegated: step_up")], "step_up beside unclear: confirm"),
        ([("when: {intent: unclear}", "when: {intent: unknown}")], "unknown"),
        ([("when: {intent: unclear}", "when: {amount: unclear}")], "unclear"),
        ([("when: {intent: unclear}", "when: {intent: {is: x}}")], "intent"),
        ([("when: {intent: unclear}", "when: {intent: perhaps}")], "perhaps"),
        ([("needs: [pay]", "needs: any"), ("effect: write", "effect: read")], "unclear"),
        ([("unknown_origin: confirm, ", ""), ("unknown_origin: step_up", "unknown_origin: deny")], "unknown"),
    ],
)
def test_what_nobody_would_answer_does_not_load(changes: list[tuple[str, str]], got: str) -> None:
    with pytest.raises(WorkflowError) as wrong:
        load(*changes)
    assert any(got in problem.got for problem in wrong.value.problems), str(wrong.value)


def test_the_users_yes_from_defaults_is_not_enough_for_what_is_grave() -> None:
    shared = [
        ("step_up:\n  - {id: meant", "defaults: {approvers: {user: true}}\nstep_up:\n  - {id: meant"),
        (", approvers: {user: true}", ""),
    ]
    assert load(*shared).tools["pay"].step_ups == load(("{id: meant", "\n    {id: meant")).tools["pay"].step_ups
    for grave in (("risk: low", "risk: high"), ("effect: write", "effect: destructive")):
        assert load(grave).tools["pay"].step_ups[0].user, "said on the rule itself"
        with pytest.raises(WorkflowError, match="on the rule itself"):
            load(*shared, grave)
    with pytest.raises(WorkflowError, match="in defaults for all rules"):
        load((", approvers: {user: true}", ""))
    groups = [
        ("step_up:\n  - {id: meant", "defaults: {approvers: {group: leads}}\nstep_up:\n  - {id: meant"),
        (", approvers: {user: true}", ""),
    ]
    assert load(*groups, ("risk: low", "risk: high")).tools["pay"].step_ups[0].group == "leads"


def test_defaults_stand_in_each_rule_of_what_is_signed() -> None:
    said = read_yaml(FILE.replace(", approvers: {user: true}", "", 1) + "defaults: {approvers: {group: leads}}\n", "w.yaml").value
    signed = written_out(said)
    assert signed["step_up"][0]["approvers"] == {"group": "leads", "count": 1, "not": ["requester"]}
    assert signed["step_up"][2]["approvers"] == {"user": True}
    assert written_out(signed) == signed


def test_the_strictest_of_what_may_be_the_odd_one_counts() -> None:
    """Two arguments of different calls: either may be the wrong one, so the stricter answer, whichever stands first."""
    base = FILE.replace(
        "step_up:\n  - {id: meant",
        "  look:\n    effect: read\n    needs: any\n    redeem: wrapper\n    args: {q: {text: 9, from: [model]}}\n"
        "    facts: {a: {type: email}, b: {type: id}}\nstep_up:\n  - {id: meant",
        1,
    )
    to, ref = "to: {type: email, from: [look.a], unknown_origin: step_up}", "ref: {type: id, from: [look.b], unknown_origin: confirm}"
    old = "to: {type: email, from: [prompt], unknown_origin: step_up}"
    for lines in (f"{to}\n      {ref}", f"{ref}\n      {to}"):
        workflow = load((old, lines), text=base)
        facts = {"look": {"a": ARGS["to"], "b": "Z9"}, "look#2": {"a": "eve@acme.example", "b": "B2"}}
        answer = Scene.of(workflow, {"call": "pay", "prompt": CLEAR, "args": {**ARGS, "ref": "B2"}, "facts": facts}).decide()
        assert isinstance(answer, Eligible)
        assert (answer.asks, {hold.rule.id for hold in answer.holds}) == ("step_up", {"payee", "open"})
        scene = Scene.of(only(workflow, "open"), {"call": "pay", "prompt": CLEAR, "args": {**ARGS, "ref": "B2"}, "facts": facts})
        assert isinstance(scene.decide(), Deny), "the user alone does not answer for an argument that asks a group"


def only(workflow: Workflow, *rules: str) -> Workflow:
    """The workflow with no other rules, as no file could have it."""
    tools = {name: replace(t, step_ups=tuple(r for r in t.step_ups if r.id in rules)) for name, t in workflow.tools.items()}
    return replace(workflow, tools=tools)


def test_where_nobody_strict_enough_is_asked_the_call_is_refused() -> None:
    assert decide(only(load(), "open"), to="eve@acme.example") == ("deny",)
    assert decide(only(load(), "open"), memo="see bob@acme.example") == ("confirm", "open")
    assert decide(only(load(), "big"), UNCLEAR) == decide(only(load()), UNCLEAR) == ("deny",)
    assert decide(only(load(), "big"), UNCLEAR.replace("20", "200"), amount=200) == ("step_up", "big")


# --- what reviewers read ------------------------------------------------------------------------------------------------------
GROUPS = [(f"{key}: confirm", f"{key}: step_up") for key in ("unclear", "unheard", "delegated")]
ASK_LEADS = ("when: {intent: unclear}, approvers: {user: true}", "when: {intent: unclear}, approvers: {group: leads}")


@pytest.mark.parametrize(
    ("old", "new", "wider", "narrower"),
    [
        ([*GROUPS, ASK_LEADS], [], {"intents.pay.unclear", "intents.pay.delegated", "intents.pay.unheard"}, set()),
        ([ASK_LEADS], [], {"step_up.meant.approvers"}, set()),
        (
            [(f"{key}: confirm", f"{key}: deny") for key in ("unclear", "unheard", "delegated")]
            + [("  - {id: meant, for: pay, when: {intent: unclear}, approvers: {user: true}, timeout: 10m}\n", "")],
            [],
            {"intents.pay.unclear", "intents.pay.delegated", "intents.pay.unheard"},
            set(),
        ),
        (
            [("unknown_origin: step_up", "unknown_origin: deny"), ("when: {to: {origin: unknown}}", "when: {to: {pattern: x}}")],
            [],
            {"args.to.from"},
            set(),
        ),
        ([], [("when: {intent: unclear}, approvers", "approvers")], set(), {"step_up.meant.when"}),
    ],
)
def test_the_diff_knows_how_strict_each_answer_is(
    old: list[tuple[str, str]], new: list[tuple[str, str]], wider: set[str], narrower: set[str]
) -> None:
    before, after = load(*old), load(*new)
    found = compare(before, after)
    assert wider <= {f.field for f in found.wider}, [str(f) for f in found.wider]
    assert narrower <= {f.field for f in found.narrower}, [str(f) for f in found.narrower]
    assert bool(found.wider) is bool(wider)


def test_a_group_in_place_of_the_user_is_narrower_only() -> None:
    found = compare(load(), load(*GROUPS, ASK_LEADS))
    assert found.only_narrower
    assert found.narrower


def test_a_case_says_whose_yes_is_asked_for() -> None:
    tests = f"""
workflow: shop.pay
base: {{call: pay, tenant: acme, prompt: "{CLEAR}", args: {{amount: 20, to: kim@acme.example}}}}
cases:
  - {{name: unclear, set: {{prompt: "{UNCLEAR}"}}, expect: {{confirm: meant}}, asks: {{user: true, timeout: 10m}}}}
  - {{name: not a group, set: {{prompt: "{UNCLEAR}"}}, expect: {{step_up: meant}}}}
  - {{name: stranger, set: {{args.to: eve@acme.example}}, expect: {{step_up: [payee, open]}}, asks: {{open: {{user: true}}}}}}
"""
    results = run_tests(load(), read_tests(tests, "t.yaml")).results
    assert [(result.name, result.passed) for result in results] == [
        ("base", True),
        ("unclear", True),
        ("not a group", False),
        ("stranger", True),
    ]
    assert results[2].why == "expected step_up meant, got confirm meant"


def test_an_explanation_names_the_user() -> None:
    scene = Scene.of(load(), {"call": "pay", "prompt": UNCLEAR, "args": ARGS})
    found = explain(scene.workflow, scene.run, scene.call, scene.around)
    assert (found.decision, found.code) == ("confirm", "needs_approval")
    row = next(row for row in found.rows if row.condition.field == "step_up.meant")
    assert (row.verdict, row.condition.expected) == ("asks", "an unclear intent: a yes of the user")
    assert row.would_pass is not None
    assert "a yes of the user, within 600 s" in str(row.would_pass)


def test_lint_names_a_rule_that_asks_about_more_than_it_says() -> None:
    text = FILE[: FILE.index("step_up:\n  - {id: meant")].replace("confirm", "step_up")
    rules = "step_up: [{id: all, for: pay, approvers: {group: owners}, timeout: 10m},\n"
    rules += '  {id: big, for: pay, when: {amount: {above: "100"}}, approvers: {group: leads}, timeout: 10m}]\n'
    said = [each.text for each in advise(load(text=text + rules), read_yaml(text + rules, "w.yaml"))]
    assert any("big asks whenever anything is left open" in each for each in said)
    assert not any("left open" in each.text for each in advise(load(), read_yaml(FILE, "w.yaml")))


ODD = (
    ("amount: {", "reference: {type: id, from: [prompt], optional: true}\n      amount: {"),
    ("memo: {", "tags: {each_in: [a, b1], max_items: 3, from: [model], optional: true}\n      memo: {"),
    (
        "step_up:",
        "step_up:\n  - {id: odd, for: pay, approvers: {user: true}, timeout: 9m, when: {reference: {not_pattern: 'INV-[0-9]{4}'}}}",
    ),
)


def test_a_value_of_another_form_asks_whom_the_rule_says_and_nothing_else_is_forgiven() -> None:
    workflow, asked = load(*ODD), f"{CLEAR}, reference INV-1234 or INV-12, twice 2 000 000"
    assert decide(workflow, asked, reference="INV-1234") == ("allow",)
    assert decide(workflow, asked, reference="INV-12") == ("confirm", "odd")
    assert decide(workflow, asked) == ("allow",)  # it was not sent
    for refused in ({"reference": "INV-99"}, {"reference": "INV 12"}, {"reference": 12.5}, {"tags": ["c"]}, {"amount": 1001}):
        assert decide(workflow, asked, **{"reference": "INV-12", **refused}) == ("deny",), refused
    strict = load(*ODD, ("reference: {type: id,", "reference: {type: id, pattern: 'INV-[0-9]+',"))
    assert decide(strict, f"{CLEAR}, reference INX-12", reference="INX-12") == ("deny",)  # `pattern` still refuses


def test_of_a_list_each_element_of_another_form_asks_and_so_does_one_that_no_pattern_reads() -> None:
    args = "names: {text: 20000, max_items: 3, from: [model]}\n      amount: {"
    workflow = load(("amount: {", args), (ODD[2][0], ODD[2][1].replace("reference", "names").replace("INV-[0-9]{4}", "[a-z]*")))
    assert decide(workflow, names=["a", "b"]) == ("allow",)
    assert decide(workflow, names=["a", "B"]) == ("confirm", "odd")
    assert decide(workflow, names=["a" * 20_000]) == ("confirm", "odd")


def test_a_pattern_that_asks_only_adds_a_person_and_the_diff_names_what_a_wider_one_no_longer_asks_about() -> None:
    with pytest.raises(WorkflowError, match=r"tools\.pay\.args\.reference\.not_pattern.*unknown key"):
        load(ODD[0], ("reference: {", "reference: {not_pattern: 'x', "))
    with pytest.raises(WorkflowError, match=r"amount\.not_pattern: got not_pattern on a number"):
        load(('amount: {above: "100"}', "amount: {not_pattern: 'x'}"))
    old, wider = load(*ODD), load(*ODD, ("INV-[0-9]{4}", "INV-[0-9]+"))
    [finding] = compare(old, wider).wider
    assert finding.tool == "pay"
    assert compare(wider, old).wider == ()
    assert compare(old, load(*ODD, ("INV-[0-9]{4}", "INV-[0-9][0-9][0-9][0-9]"))).wider == ()
