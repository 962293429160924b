"""`user` as an origin: the id of the person the run is for, in the type's normal form, and of nobody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentgate.decision.answer import Eligible
from agentgate.decision.decide import decide
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.mutation.mutation import mutations, propose
from agentgate.review.report.past import answer as asked
from agentgate.review.report.witness import witness
from agentgate.review.scenarios.scene import Scene
from agentgate.values.request import Call, User
from agentgate.workflow.model import Workflow
from tests.test_definition import PAIR, changed, expect_one

TASKS = """
agentgate: workflow/v1
id: tasks
version: 1
title: Assign a task
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {}}
intents:
  assign: {asks_for: Assign a task., words: [assign], examples: ["Assign WEB-42 to me"]}
tools:
  people:
    effect: read
    needs: any
    redeem: wrapper
    args: {team: {in: [web], from: [model]}}
    facts: {mail: {type: email, path: '[].mail'}}
  assign:
    effect: write
    needs: [assign]
    redeem: wrapper
    args:
      task: {type: id, from: [prompt]}
      to: {type: email, from: [prompt, user], optional: true}
      owner: {type: user, from: [user], optional: true}
      first: {type: email, from: [prompt, user], named_first: true, optional: true}
      all: {type: email, max_items: 3, from: [prompt, user, people.mail], optional: true}
      each: {type: email, max_items: 3, from: [prompt, user, people.mail], any_call: true, optional: true}
      ask: {type: email, from: [user], unknown_origin: step_up, optional: true}
      note: {text: 80, from: [model], entities: [user], optional: true}
      to_whom: {type: email, from: [prompt, user], optional: true}
step_up:
  - {id: who, for: assign, when: {ask: {origin: unknown}}, approvers: {group: leads}, timeout: 10m}
  - {id: own, for: assign, when: {to_whom: {origin: [user]}}, approvers: {group: leads}, timeout: 10m}
"""
TASKS = TASKS.replace("for_user: {}", "for_user: {groups: [staff]}")
LEE, KIM = "lee@acme.example", "kim@acme.example"
ASKED = "Assign WEB-42 to me"


def load(text: str = TASKS) -> Workflow:
    return load_text(text, "w.yaml", {}, derive)


def run(args: dict[str, Any], user: User | None, prompt: str = ASKED, mails: tuple[str, ...] = ()) -> Any:
    """What is decided of this call for that user."""
    base: dict[str, Any] = {"call": "assign", "prompt": prompt}
    scene = Scene.of(load(), {**base, "facts.people.mail": list(mails)} if mails else base)
    state = replace(scene.run, header=replace(scene.run.header, user=user))
    return decide(scene.workflow, state, Call.of("assign", {"task": "WEB-42", **args}, "c1"), scene.around)


def lee(name: str = LEE, tenant: str = "acme") -> User:
    return User(name, tenant=tenant, groups=("staff",))


def refused(found: Any) -> set[tuple[str, str]]:
    return {(str(f.reason), f.field) for f in found.failures} if not isinstance(found, Eligible) else set()


# --- what matches, and what does not -------------------------------------------------------------------------------------------
def test_the_value_is_the_users_own_id() -> None:
    assert isinstance(run({"to": LEE}, lee()), Eligible)
    assert refused(run({"to": KIM}, lee())) == {("argument_origin", "args.to")}
    assert isinstance(run({"to": KIM}, lee(KIM)), Eligible)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (LEE, "lee"),  # a name is no address
        (LEE, "Lee@acme.example"),  # in no normal form: an address is small
        (LEE, "lee@acme.example.evil.com"),
        ("lee@acme.example.evil.com", LEE),
        ("lee+x@acme.example", LEE),
    ],
)
def test_whatever_else_looks_like_it_does_not(value: str, name: str) -> None:
    assert refused(run({"to": value}, lee(name))) == {("argument_origin", "args.to")}


def test_a_name_is_compared_as_its_type_says() -> None:
    assert isinstance(run({"owner": "lee"}, lee("lee")), Eligible)
    assert isinstance(run({"owner": "@lee"}, lee("lee")), Eligible)
    for other in ("Lee", "lee.x", "le"):
        assert refused(run({"owner": other}, lee("lee"))) == {("argument_origin", "args.owner")}


def test_a_user_of_another_tenant_is_nobody_here() -> None:
    """An id is unique within its tenant: lee of evil is not the lee whose tasks these are."""
    assert refused(run({"to": LEE}, lee(tenant="evil"))) == {("argument_origin", "args.to")}
    assert refused(run({"note": f"to {LEE}"}, lee(tenant="evil"))) == {("entity_origin", "args.note")}


def test_a_run_without_a_user_never_matches() -> None:
    assert ("argument_origin", "args.to") in refused(run({"to": LEE}, None))
    assert ("argument_origin", "args.owner") in refused(run({"owner": "None"}, None))


def test_a_value_is_of_one_origin_and_a_list_too() -> None:
    named = f"Assign WEB-42 to {KIM} and me"
    assert isinstance(run({"all": [LEE, LEE]}, lee()), Eligible)
    assert refused(run({"all": [LEE, KIM]}, lee(), named)) == {("argument_origin", "args.all")}
    assert isinstance(run({"each": [LEE, KIM, "ann@acme.example"]}, lee(), named, ("ann@acme.example",)), Eligible)
    assert refused(run({"each": [LEE, KIM, "eve@evil.example"]}, lee(), named)) == {("argument_origin", "args.each")}


def test_whom_the_user_names_goes_before_the_user_where_the_rule_says_so() -> None:
    assert isinstance(run({"first": LEE}, lee()), Eligible)
    named = f"Assign WEB-42 to {KIM}"
    assert refused(run({"first": LEE}, lee(), named)) == {("argument_origin", "args.first")}
    assert isinstance(run({"to": LEE}, lee(), named), Eligible)


def test_addresses_in_a_text() -> None:
    assert isinstance(run({"note": f"write to {LEE}"}, lee()), Eligible)
    assert refused(run({"note": f"write to {KIM}"}, lee())) == {("entity_origin", "args.note")}
    assert refused(run({"note": f"write to {LEE} and {KIM}"}, lee())) == {("entity_origin", "args.note")}


def test_people_are_asked_about_what_is_not_the_users_and_about_what_is() -> None:
    assert not run({"ask": LEE}, lee()).holds
    assert [h.rule.id for h in run({"ask": KIM}, lee()).holds] == ["who", "own"]  # unknown: under every rule
    assert [h.rule.id for h in run({"to_whom": LEE}, lee()).holds] == ["own"]
    assert not run({"to_whom": KIM}, lee(), f"Assign WEB-42 to {KIM}").holds


def test_the_users_id_names_no_call() -> None:
    """It is nobody's words: what `trust: named` trusts must be named by the user."""
    found = run({"to": LEE}, lee())
    assert isinstance(found, Eligible)
    assert not found.named
    assert run({}, lee()).named


# --- loading -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "field", "expected"),
    [
        ("{type: date, from: [@@user]}", "from[0]", "a type that an id of a person can be"),
        ("{type: integer, min: '1', max: '9', from: [@@user]}", "from[0]", "a type that an id of a person can be"),
        ("{type: iban, from: [look.up.name, @@user]}", "from[1]", "a type that an id of a person can be"),
        ("{type: email, from: [user], @@any_cal: true}", "any_cal", "one of"),
    ],
)
def test_what_no_id_of_a_person_is_cannot_be_the_users(rule: str, field: str, expected: str) -> None:
    text = PAIR.replace("{X}", rule.replace("look.up.name", "prompt"))
    expect_one(text, f"tools.send.args.x.{field}", expected, "any_call" if field == "any_cal" else "")


def test_a_workflow_for_nobody_has_no_user() -> None:
    text = changed(PAIR.replace("{X}", "{type: email, from: [@@user]}"), ", for_user: {same_tenant: true}", "")
    expect_one(text, "tools.send.args.x.from[0]", "nobody stands behind this agent")
    text = changed(PAIR.replace("{X}", "{text: 9, from: [model], entities: [@@user]}"), ", for_user: {same_tenant: true}", "")
    expect_one(text, "tools.send.args.x.entities[0]", "nobody stands behind this agent")


def test_trust_named_is_not_met_by_the_users_id() -> None:
    text = TASKS.replace("args: {team: {in: [web], from: [model]}}", "args: {of: {type: email, from: [user]}}")
    with pytest.raises(WorkflowError, match="trust"):
        load(text.replace("path: '[].mail'", "path: '[].mail', trust: named"))


# --- what reviewers see ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["to", "all", "each"])
def test_the_diff_tells_the_origin_with_a_call(name: str) -> None:
    line = next(line for line in TASKS.splitlines() if line.strip().startswith(f"{name}:"))
    without = load(TASKS.replace(line, line.replace("prompt, user", "prompt")))
    found = compare(without, load())
    assert [f.field for f in found.wider] == [f"args.{name}.from"]
    (shown,) = [witness(without, load(), each) for each in found.wider]
    assert shown.scene is not None, shown.reason
    assert isinstance(shown.scene.decide(load()), Eligible)
    assert not isinstance(shown.scene.decide(without), Eligible)
    assert compare(load(), without).only_narrower


def test_the_diff_tells_it_of_a_text_and_of_who_is_asked() -> None:
    text = TASKS.replace("entities: [user]", "entities: [prompt]")
    assert [f.field for f in compare(load(text), load()).wider] == ["args.note.entities"]
    asks_not = TASKS.replace("{to_whom: {origin: [user]}}", "{to_whom: {origin: [prompt]}}")
    assert "step_up.own.when" in [f.field for f in compare(load(), load(asks_not)).wider]


def test_the_users_id_is_of_no_call_so_any_call_changes_nothing() -> None:
    text = TASKS.replace("owner: {type: user, from: [user],", "owner: {type: user, from: [user], any_call: true,")
    assert text != TASKS
    found = compare(load(), load(text))
    assert (found.wider, found.narrower, found.read_yourself) == ((), (), ())


def test_an_explanation_names_the_user() -> None:
    scene = Scene.of(load(), {"call": "assign", "prompt": ASKED, "args.to": LEE, "who.user.id": LEE})
    row = next(r for r in asked(scene).rows if r.condition.argument == "to" and r.condition.word == "from")
    assert [str(o) for o in row.origins] == ["the run's own user"]
    other = asked(scene.set({"args.to": "eve@evil.example"}))
    assert "to lee@acme.example, the run's own user" in str(other)


def test_every_condition_on_it_can_be_covered_by_a_case() -> None:
    left = propose(load()).left
    assert [str(m) for m in left if ".to." in m.path or ".owner." in m.path or ".all." in m.path] == []
    assert [m.path for m in mutations(load()).found if m.path.endswith("args.owner.from")]


def test_a_scene_that_needs_the_users_id_makes_one_up() -> None:
    required = load(TASKS.replace("owner: {type: user, from: [user], optional: true}", "owner: {type: user, from: [user]}"))
    scene = Scene.of(required, {"call": "assign"})
    assert isinstance(scene.decide(), Eligible)
    assert scene.call.args["owner"] == scene.run.header.user.id  # type: ignore[union-attr]  # it has one
    stated = Scene.of(required, {"call": "assign", "who.user.id": "kim"})
    assert stated.call.args["owner"] == "kim"
