"""What lint says of each required argument of an act: a witness that a real gate lets through, an impossibility, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Gate, StepUp, User
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.check.reports import lint_path
from agentgate.review.scenarios.scene import Scene, result
from agentgate.review.scenarios.unaided import counted, stops, unaided
from agentgate.review.scenarios.values import under
from tests.workflows import workflow_text

BENCHMARKS = Path(__file__).parent / "benchmarks"
FILE = workflow_text(
    "desk.pay",
    intents="{pay: {asks_for: Pay., words: [pay], examples: [Pay it]}}",
    tools="""
  get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order: {type: id, from: [prompt]}}
    facts: {total: {type: number}, payee: {type: iban}, customer: {type: id}}
  whose:
    effect: read
    needs: any
    redeem: wrapper
    args: {customer: {type: id, from: [get.customer]}}
    facts: {mail: {type: email}}
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      order: {type: id, from: [get.order]}
      amount: {type: number, at_most: get.total, from: [prompt, get.total]}
      payee: {type: iban, from: [get.payee]}
      mail: {type: email, from: [whose.mail]}
      memo: {text: 20, from: [model], optional: true}
""",
)
EVERY = "step_up: [{id: ask, for: %s, approvers: {user: true}, timeout: 10m}]\n"


def load(*changes: tuple[str, str], more: str = "") -> Any:
    text = FILE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return load_text(text + more, "w.yaml", {}, derive)


def said(workflow: Any, *cases: Scene) -> dict[str, str]:
    return {each.argument: f"{each.verdict}: {each.why}".removesuffix(": ") for each in unaided(workflow, cases)}


def through_a_gate(gate: Gate, scene: Scene) -> Allow | Any:
    """A witness, call by call, at a real gate that redeems each and reads its result."""
    header, workflow = scene.run.header, scene.workflow
    user = User(header.user.id, tenant=header.tenant, groups=tuple(header.user.groups)) if header.user else None
    first, *later = scene.run.turns
    run = gate.open_run(workflow.id, tenant=header.tenant, user=user, agent=Agent(header.agent.id), prompt=first)
    for turn in later:
        run.add_turn(turn)
    for label in scene.earlier:
        tool, args = workflow.tools[label], under(scene.values, f"earlier.{label}.")
        answer = run.authorize(label, args, tool_call_id=label, definition=tool.definition)
        assert isinstance(answer, Allow), (scene.call.tool, label, answer)
        with run.redeem(answer.token, tool=label, args=args) as call:
            call.record_result(result(tool, scene.values, label))
    return run.authorize(scene.call.tool, scene.call.args, tool_call_id="last", definition=workflow.tools[scene.call.tool].definition)


@pytest.mark.parametrize("file", ["agentdojo/banking", "agentdojo/workspace", "unseen/tracker"])
def test_every_witness_goes_through_a_real_gate(file: str, tmp_path: Path) -> None:
    text = (BENCHMARKS / f"{file}.yaml").read_text()
    (tmp_path / "w.yaml").write_text(text)
    workflow = load_text(text, "w.yaml", {}, derive)
    found = unaided(workflow)
    witnesses = {each.tool: each.scene for each in found if each.scene is not None}
    assert sum(each.verdict == "witnessed" for each in found) >= len(found) - 1 >= 10, counted(found)
    now = next(iter(witnesses.values())).now
    with Gate.open_unsafe_unapproved(
        tmp_path, issuer="https://g.example", keys=tmp_path / "k", audit="memory://", clock=lambda: now
    ) as gate:
        for name, scene in witnesses.items():
            answer = through_a_gate(gate, scene)
            always = any(not rule.when and not rule.left_open for rule in workflow.tools[name].step_ups)
            assert isinstance(answer, StepUp if always else Allow), (name, answer)


def test_all_of_a_chain_of_reads_is_witnessed() -> None:
    assert said(load()) == dict.fromkeys(("order", "amount", "payee", "mail"), "witnessed")
    assert counted(unaided(load())) == "4 shown by a call"
    assert set(said(load(more=EVERY % "pay")).values()) == {"witnessed"}  # the author's word: every call asks


@pytest.mark.parametrize(
    ("changes", "more", "argument", "why"),
    [
        ((), EVERY % "whose", "mail", "impossible: comes only from whose.mail, and every call of whose asks the user (step_up.ask)"),
        ((), EVERY % "get", "amount", "impossible: is at most get.total, and every call of get asks the user (step_up.ask)"),
        (
            (
                ("args: {customer: {type: id, from: [get.customer]}}", "args: {}"),
                ("mail: {type: email}", "mail: {type: email, trust: named}"),
            ),
            "",
            "mail",
            "impossible: comes only from whose.mail, and whose has no argument by which the user could name it (trust: named)",
        ),
        (
            (("[get.order]", "[prompt]"),),
            "sequence: [{before: pay, require: whose}]\n" + EVERY % "whose",
            "order",
            "impossible: comes after whose (sequence), and every call of whose asks the user (step_up.ask)",
        ),
        ((("[get.order]", "[prompt]"),), EVERY % "get", "mail", "impossible: comes only from whose.mail, and whose needs customer, which"),
    ],
)
def test_what_no_prompt_can_satisfy_is_named_with_what_is_missing(changes: Any, more: str, argument: str, why: str) -> None:
    found = said(load(*changes, more=more))
    assert found[argument].startswith(why), found
    assert "witnessed" not in found.values()  # no call can be shown whole


def test_another_origin_that_can_hold_makes_it_possible() -> None:
    cycle = ("[get.payee]", "[prompt, pay.payee]")
    assert said(load(cycle)) == dict.fromkeys(("order", "amount", "payee", "mail"), "witnessed")


def test_what_is_neither_shown_nor_impossible_is_not_claimed() -> None:
    odd = ("payee: {type: iban, from: [get.payee]}", "payee: {type: id, pattern: 'a{9}7q+z', is: aaaaaaaaa7qqqz, from: [get.payee]}")
    fact = ("payee: {type: iban}", "payee: {type: id, pattern: '[0-9]+'}")
    found = said(load(odd, fact))  # the fact never has that form
    assert found["payee"].startswith("not shown: the nearest call made up is not allowed: argument_origin: args.payee")
    assert "witnessed" not in found.values()


def test_limits_count_the_calls_before_it_and_a_call_before_it_that_asks_stops_it() -> None:
    assert said(load(more="limits: [{count: any, max: 2, per: run}]\n"))["mail"].startswith("not shown: the nearest call")
    assert said(load(more="limits: [{count: any, max: 3, per: run}]\n"))["mail"] == "witnessed"
    rule = "step_up: [{id: ask, for: get, when: {order: {pattern: '.*'}}, approvers: {user: true}, timeout: 10m}]\n"
    assert set(said(load(more=rule)).values()) <= {"not shown: " + said(load(more=rule))["order"].removeprefix("not shown: ")}
    assert "step_up" in said(load(more=rule))["order"]


def test_a_case_of_the_test_file_is_a_witness(tmp_path: Path) -> None:
    pattern = (
        "order: {type: id, from: [get.order]}",
        "order: {type: id, pattern: '(?:[A-Z]+[0-9]){3}', is: QXZ1QXZ2QXZ3, from: [get.order]}",
    )
    workflow = load(pattern)
    scene = Scene.of(workflow, {"call": "pay", "args": {"order": "QXZ1QXZ2QXZ3"}})
    assert stops(scene) == ()
    assert set(said(workflow, scene).values()) == {"witnessed"}


def test_lint_names_them_at_their_place_once_and_counts_them(tmp_path: Path) -> None:
    (tmp_path / "pay.yaml").write_text(FILE + EVERY % "get")
    line = FILE[: FILE.index("payee: {type: iban, from")].count("\n") + 1
    report = lint_path(tmp_path / "pay.yaml")
    assert report.problems == ()
    assert any(
        "tools.pay.args.payee: impossible: comes only from get.payee" in str(each) and f":{line}:" in str(each) for each in report.advice
    )
