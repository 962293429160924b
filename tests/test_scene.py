"""Scenes: complete cases made from a few lines, decided as a real gate decides them."""

from __future__ import annotations

import time
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate import Allow, Deny, Gate, RunRefused, StepUp
from agentgate.audit import open_audit
from agentgate.decision.answer import Eligible
from agentgate.gate.call_context import Sources
from agentgate.gate.core import Allowances, Core
from agentgate.gate.holds.proof import Answerers
from agentgate.identity.connection import caller
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.loading.definition import load_text
from agentgate.redemption.credential import Redemption, UpstreamCredential
from agentgate.review.scenarios.scene import Scene, result
from agentgate.review.scenarios.testfile import load_tests, scenes
from agentgate.review.scenarios.testfile import tests_of as beside
from agentgate.review.scenarios.values import SceneError, bare, candidates, malformed
from agentgate.stores import ready_store
from agentgate.stores._op import History
from agentgate.token.dpop import DPoP
from agentgate.token.signing import KeyRing
from agentgate.values.entities import TYPES, normal
from agentgate.values.patterns import Pattern
from agentgate.values.request import Agent, Surroundings
from agentgate.values.samples import from_pattern
from agentgate.workflow.model import Workflow
from agentgate.workflow.rule import Rule
from tests.authority import lasting
from tests.effort import examples
from tests.everything import EVERYTHING, ROLES, STRUCTURES

WORKFLOWS = Path(__file__).parent.parent / "workflows"
CATALOG = Catalog.load(WORKFLOWS, derive)
REFUND = {
    "call": "payments.refund",
    "tenant": "acme-eu",
    "prompt": "Please refund order ORD-10023344, it arrived broken",
    "args": {"order_id": "ORD-10023344", "amount": "39.99", "currency": "EUR", "payee": "cus_A1b2C3d4E5f6G7"},
    "facts": {"orders.get": {"total": "39.99", "currency": "EUR", "customer_id": "cus_A1b2C3d4E5f6G7"}},
}


def workflow(name: str = "payments.customer-refund") -> Workflow:
    found = CATALOG.get(name)
    assert found is not None
    return found


def refund(**more: Any) -> Scene:
    return Scene.of(workflow(), {**REFUND, **more})


def failures(scene: Scene) -> set[tuple[str, str]]:
    answer = scene.decide()
    return {(str(f.reason), f.field) for f in answer.failures} if isinstance(answer, Deny) else set()


def rules(scene: Scene) -> list[str]:
    answer = scene.decide()
    assert isinstance(answer, Eligible), answer
    return [hold.rule.id for hold in answer.holds]


# --- filling ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [w.id for w in CATALOG])
def test_a_scene_of_nothing_but_the_call_is_allowed(name):
    for tool in workflow(name).tools:
        scene = Scene.of(workflow(name), {"call": tool})
        assert isinstance(scene.decide(), Eligible)
        assert scene.unreached == ()


def test_what_was_filled_is_shown_and_what_was_stated_is_not():
    scene = refund()
    assert scene.filled["who.agent.spiffe"] == "spiffe://acme.example/ns/prod/sa/support-agent"
    assert scene.filled["earlier.orders.get.order_id"] == "ORD-10023344"
    assert scene.filled["ago.orders.get"] == "1m"
    assert not {"call", "tenant", "prompt", "args.amount", "facts.orders.get.total"} & set(scene.filled)


def test_filling_is_deterministic():
    assert [Scene.of(w, {}).values for w in CATALOG] == [Scene.of(w, {}).values for w in CATALOG]


def test_a_scene_is_set_before_its_workflow_expires():
    text = (WORKFLOWS / "payments/customer-refund.yaml").read_text().replace('"2031-12-31"', '"2020-02-29"')
    old = load_text(text, "w.yaml", {"payments-support": frozenset({"refunds:create", "x"})}, derive)
    scene = Scene.of(old, {})
    assert isinstance(scene.decide(), Eligible)
    assert scene.now.date().isoformat() == "2020-02-24"


def test_facts_are_read_by_the_gates_own_function_and_only_declared_ones():
    scene = refund().set({"origin.payee": "orders.get.comment"})
    (row,) = scene.run.calls[0].rows
    assert result(workflow().tools["orders.get"], scene.values, "orders.get")["comment"] == scene.call.args["payee"]
    assert set(row) == {"total", "currency", "customer_id"}


# --- changes ----------------------------------------------------------------------------------------------------------------
def test_only_what_is_named_changes():
    before = refund()
    after = before.set({"environment": "staging"})
    assert {k for k in after.values if after.values[k] != before.values.get(k)} == {"environment"}
    assert failures(after) == {("environment", "environment")}


def test_a_larger_amount_asks_a_person():
    assert rules(refund().set({"args.amount": "150.00", "facts.orders.get.total": "150.00"})) == ["big-refund"]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("orders.get.customer_id", set()),
        ("orders.get.comment", {("argument_origin", "args.payee")}),
        ("prompt", {("argument_origin", "args.payee")}),
        ("model", {("argument_origin", "args.payee")}),
    ],
)
def test_an_origin_is_where_the_value_stands_and_the_engine_finds_it(place, expected):
    assert failures(refund().set({"origin.payee": place})) == expected


def test_a_value_placed_in_the_prompt_is_named_there():
    scene = refund().set({"origin.amount": "prompt"})
    assert f"{scene.call.args['amount']} EUR" in scene.run.turns[0]
    assert isinstance(scene.decide(), Eligible)


def test_the_second_call_of_a_tool_is_like_the_first_where_nothing_else_is_said():
    other = {"earlier.orders.get#2.order_id": "ORD-20000000", "facts.orders.get#2.customer_id": "cus_Z1b2C3d4E5f6G7"}
    scene = refund().set({**other, "args.payee": "cus_Z1b2C3d4E5f6G7"})
    assert [c.args["order_id"] for c in scene.run.calls] == ["ORD-10023344", "ORD-20000000"]
    assert {reason for reason, _ in failures(scene)} == {"one_source"}


def test_a_call_left_out_takes_its_results_with_it():
    scene = refund().set({"earlier.orders.get": None})
    assert scene.run.calls == ()
    assert ("sequence", "payments.refund") in failures(scene)
    assert isinstance(scene.set({"facts.orders.get.total": "39.99"}).run.calls[0].id, str)


def test_an_argument_left_out_is_not_filled_again():
    assert ("argument_missing", "args.payee") in failures(refund().set({"args.payee": None}))


def test_a_structure_is_set_whole_or_by_its_leaves():
    mail = load_text(STRUCTURES, "mail.yaml", ROLES, derive)
    scene = Scene.of(mail, {"args": {"attachments": [{"file_id": "A1"}, {"file_id": "B2"}]}, "facts": {"drive.list.id": ["A1", "B2"]}})
    assert isinstance(scene.decide(), Eligible)
    leaf = scene.set({"args.attachments[].file_id": ["A1", "C3"]})
    assert leaf.call.args["attachments"] == [{"file_id": "A1"}, {"file_id": "C3"}]
    assert failures(leaf) == {("argument_origin", "args.attachments[].file_id")}
    whole = scene.set({"args.attachments": [{"file_id": "B2", "kind": "pdf"}, {"file_id": "A1"}]})
    assert whole.call.args["attachments"] == [{"file_id": "B2", "kind": "pdf"}, {"file_id": "A1"}]
    odd = [{"file_id": "A1"}, {"file_id": "B2", "kind": "pdf"}]  # the second has what the first lacks: as it is, not put together again
    assert scene.set({"args.attachments": odd}).call.args["attachments"] == odd
    assert failures(scene.set({"args.attachments": None})) == {("argument_missing", "args.attachments[].file_id")}


def test_an_optional_argument_that_is_added_brings_no_origin_with_it():
    scene = Scene.of(load_text(EVERYTHING, "all.yaml", ROLES, derive), {"call": "bills.pay"})
    assert failures(scene.set({"args.level": "high"})) == {("argument_origin", "args.level")}
    assert failures(scene.set({"args.level": "high", "origin.level": "bills.read.level"})) == set()


def test_another_call_has_its_own_arguments():
    scene = refund().set({"call": "orders.get"})
    assert dict(scene.call.args) == {"order_id": "ORD-10023344"}
    assert isinstance(scene.decide(), Eligible)


def test_an_earlier_call_that_would_have_been_refused_is_told():
    scene = refund().set({"args.order_id": "ORD-99999999", "earlier.orders.get.order_id": "ORD-99999999"})
    assert isinstance(scene.decide(), Eligible)
    assert [str(f.reason) for f in scene.unreached] == ["argument_origin"]


def test_time_is_counted_from_the_earlier_call():
    assert failures(refund().set({"ago.orders.get": "15m"})) == set()
    assert failures(refund().set({"ago.orders.get": "901s"})) == {("sequence", "payments.refund")}


def test_used_up_limits_refuse():
    assert failures(refund().set({"spent.run.payments.refund": 1})) == {("limit", "limits")}
    assert failures(refund().set({"spent.tenant.payments.refund.amount": "4960.01"})) == set()
    assert failures(refund().set({"spent.tenant.payments.refund.amount": "4960.02"})) == {("limit", "limits")}
    assert failures(refund().set({"spent.tenant.payments.refund.amount": "4960.02", "spent_ago": "1d"})) == set()


def test_another_key_than_the_last_tokens_is_refused():
    scene = Scene.of(workflow("identity.service-account-refresh"), {})
    assert failures(scene.set({"who.agent.last_key": "key-2"})) == {("boundary", "agent.boundary.key")}
    assert failures(scene.set({"who.agent.last_key": None})) == set()


def test_who_can_be_changed_piece_by_piece():
    scene = refund()
    assert failures(scene.set({"who.user": None})) == {("user", "user")}
    assert failures(scene.set({"who.user.groups": ["sales"]})) == {("user", "user.groups")}
    assert failures(scene.set({"who.user.tenant": "acme-uk"})) == {("user", "user.tenant")}
    assert failures(scene.set({"who.agent.posture": None})) == {("posture", "agent.posture")}
    assert failures(scene.set({"who.agent.posture.attested_ago": "601s"})) == {("posture", "agent.posture.attested_at")}
    assert failures(scene.set({"who.via": ["spiffe://evil.example/a"]})) == {("hops", "agent.via")}
    assert ("agent", "agent") in failures(scene.set({"who.agent.proven": False}))


# --- strictness --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stated", "key", "hint"),
    [
        ({"tenannt": "acme-eu"}, "tenannt", "did you mean 'tenant'?"),
        ({"facts.orders.get.totl": "1"}, "facts.orders.get.totl", "did you mean 'total'?"),
        ({"facts.orders.got.total": "1"}, "facts.orders.got.total", "did you mean 'orders.get'?"),
        ({"earlier.orders.get.order": "1"}, "earlier.orders.get.order", "did you mean 'order_id'?"),
        ({"who.agent.spife": "x"}, "who.agent.spife", "did you mean 'who.agent.spiffe'?"),
        ({"spent.run.payments.refnd": 1}, "spent.run.payments.refnd", "did you mean 'run.payments.refund'?"),
        ({"time": "2026-01-07"}, "time", ""),
        ({"ago.orders.get": "soon"}, "ago.orders.get", ""),
        ({"who.user.proven": "yes"}, "who.user.proven", ""),
        ({"intents": {"refund": "present"}}, "intents", ""),
        ({"origin.payee": "prompt"}, "origin.payee", ""),
        ({"tenant": None}, "tenant", ""),
        ({"call": 3}, "call", ""),
        ({"facts": "all"}, "facts", ""),
    ],
)
def test_a_key_or_value_that_is_wrong_is_named(stated, key, hint):
    with pytest.raises(SceneError) as refused:
        Scene.of(workflow(), {**REFUND, **stated})
    assert [f.field for f in refused.value.failures] == [key]
    assert refused.value.failures[0].hint == hint


def test_an_origin_nobody_knows_is_refused():
    with pytest.raises(SceneError, match="did you mean 'prompt'"):
        refund().set({"origin.payee": "promt"})
    with pytest.raises(SceneError, match=r"origin\.pay"):
        refund().set({"origin.pay": "prompt"})


def test_arguments_without_a_canonical_form_are_refused():
    with pytest.raises(SceneError, match="args"):
        refund().set({"args.amount": 2**60})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*refund().values, "origin.payee", "origin.amount", "x", "facts", "who", "earlier.orders.get"]),
        json_values,
        max_size=4,
    )
)
def test_any_change_gives_a_decision_or_a_named_refusal(changes):
    try:
        answer = refund().set(changes).decide()
    except SceneError:
        return
    assert isinstance(answer, Eligible | Deny)


@pytest.mark.parametrize(
    "source",
    [
        "ORD-[0-9]{8}",
        "cus_[A-Za-z0-9]{14}",
        r"[a-z0-9._-]+@acme\.example",
        "[a-z][a-z0-9-]{2,40}",
        "(a|bc)+d?",
        r"(?:x|y)-\d{3}",
        "[^a-c]+",
        r"v\.?[1-9]*",
        "[[:alpha:]]{3}",
        "a{",
    ],
)
def test_a_made_up_value_matches_its_pattern(source):
    assert all(Pattern.of(source).matches(made) for i in range(12) if (made := from_pattern(source, i)) is not None)
    assert from_pattern(source) is not None


@pytest.mark.parametrize("source", [r"\pL+", "(", "[a"])
def test_a_pattern_that_cannot_be_made_up_gives_nothing(source):
    assert from_pattern(source) is None


# --- a real gate ---------------------------------------------------------------------------------------------------------------
class Here(Core):
    """A core whose gate stands where the scene says."""

    here: Surroundings

    def around(self, *_: str | Agent | None) -> Surroundings:
        return self.here


class Anywhere:
    """A broker for whatever a workflow says of its upstream: a credential of a minute that may do one thing of its role."""

    def __init__(self, workflow: Workflow) -> None:
        self.takes = frozenset(key for tool in workflow.tools.values() if tool.upstream is not None for key in tool.upstream.settings)

    def fetch(self, _: Redemption) -> UpstreamCredential:
        return UpstreamCredential({"key": "of-a-scene"}, expires_at=time.time() + 60, scopes=["refunds:create"])


def played(scene: Scene, before: Scene) -> tuple[str, Any]:
    """The scene through a real gate: the run opened, each earlier call minted, redeemed and its result recorded, then the call.

    Args:
        scene: what is played.
        before: the scene in whose surroundings the earlier calls are made.
    """
    w, ring = scene.workflow, KeyRing.ephemeral("ES256")
    core = Here(
        catalog=CATALOG,
        keys=ring,
        answerers=Answerers(ring, "https://gate.acme.example", {}, lambda: None),
        issuer="https://gate.acme.example",
        derive=derive,
        clock=lambda: core.here.now,
        sources=Sources(None, caller),
        brokers={tool.upstream.broker: Anywhere(w) for tool in w.tools.values() if tool.upstream is not None},
        budgets=Allowances(20, 5, 60),
        history=History(),
    )
    object.__setattr__(core, "here", before.around)
    header, turns = scene.run.header, scene.run.turns
    with Gate(core, ready_store("memory://"), open_audit("memory://")) as gate:
        try:
            who: list[Any] = [header.user, header.agent]
            user, agent = (lasting(one) if one is not None and one.identity == "proven" else one for one in who)
            run = gate.open_run(w.id, tenant=header.tenant, user=user, agent=agent, prompt=turns[0])
        except RunRefused as refused:
            return "deny", {(str(f.reason), f.field) for f in refused.failures}
        for turn in turns[1:]:
            run.add_turn(turn)
        for index, label in enumerate(scene.earlier):
            tool = w.tools[bare(label)]
            args = {k.removeprefix(f"earlier.{label}."): v for k, v in scene.values.items() if k.startswith(f"earlier.{label}.")}
            answer = run.authorize(tool.name, args, tool_call_id=f"e{index}", definition=tool.definition)
            if not isinstance(answer, Allow):  # as of a wrong workload: nothing of this run goes through
                assert isinstance(answer, Deny)
                return "deny", {(str(f.reason), f.field) for f in answer.failures}
            headers = answer.token.headers("POST", tool.audience)
            proof = DPoP(headers["DPoP"], method="POST", url=tool.audience) if "DPoP" in headers else None
            verifier = gate.verifier(tool.audience, tenants=[header.tenant])
            with verifier.redeem(answer.token.reveal(), tool=tool.name, args=args, proof=proof) as call:
                call.record_result(result(tool, scene.values, label))
        object.__setattr__(core, "here", scene.around)
        made = run.authorize(scene.call.tool, dict(scene.call.args), tool_call_id="call", definition=scene.call.definition)
    if isinstance(made, Allow):
        return "allow", set()
    if isinstance(made, StepUp):
        return "step_up", set(made.hold.rules)
    return "deny", {(str(f.reason), f.field) for f in made.failures}


def said(scene: Scene) -> tuple[str, Any]:
    answer = scene.decide()
    if isinstance(answer, Deny):
        return "deny", failures(scene)
    held = {hold.rule.id for hold in answer.holds}
    return ("step_up", held) if held else ("allow", set())


# What one call through a fresh gate cannot show: what was used up before, the last key, and how long ago it looked something up.
ELSEWHERE = ("spent", "ago.", "who.agent.last_key", "who.agent.boundary.key")


def shipped() -> list[Any]:
    """Every case beside the founding workflows that one call through a gate can show."""
    out = []
    for w in CATALOG:
        (_, base), *cases = scenes(w, load_tests(beside(w.file)))
        shown = [(case, scene) for case, scene in cases if not any(key.startswith(ELSEWHERE) for key in case.changes)]
        out += [pytest.param(base, scene, case, id=f"{w.id}: {case.name}") for case, scene in shown]
    return out


@pytest.mark.parametrize(("base", "scene", "case"), shipped())
def test_a_real_gate_answers_every_case_beside_the_founding_workflows_as_its_scene_does(base, scene, case):
    kind, told = said(scene)
    before = base
    if "time" in case.changes:  # what was looked up before was looked up in hours
        before = base.set({"time": (scene.now - timedelta(minutes=1)).isoformat()})
        if not isinstance(before.decide(), Eligible):
            before = base
    answer, why = played(scene, before)
    assert answer == kind == case.answer
    opened = {"tenant", "user", "agent", "posture", "boundary", "workflow_expired", "hops"}  # a run that does not open has looked at less
    assert why == told or (answer == "deny" and why and (why <= told or {reason for reason, _ in why} <= opened))


@pytest.mark.parametrize("name", [w.id for w in CATALOG])
def test_a_real_gate_allows_what_a_scene_of_each_founding_workflow_allows(name):
    for tool in workflow(name).tools:
        scene = Scene.of(workflow(name), {"call": tool})
        assert played(scene, scene) == said(scene) == ("allow", set())


@pytest.mark.parametrize("options", [{}, {"x": 1}, {"note": "hi"}])
@pytest.mark.parametrize("files", [[], [{}], [{"file_id": "A-1"}], [{"file_id": "A-1", "x": []}]])
@pytest.mark.parametrize("more", [{}, {"args.options.note": "ho"}, {"args.attachments[].kind": ["pdf"]}])
def test_what_a_scene_is_made_from_is_not_changed(options, files, more):
    """What a test file states is used for many scenes: filling one must not show in the next."""
    base = {"call": "mail.send", "args": {"to": "kim@acme.example", "options": options, "attachments": files}}
    before = deepcopy([base, more])
    scene = Scene.of(load_text(STRUCTURES, "mail.yaml", ROLES, derive), base)
    values = deepcopy(scene.values)
    scene.set(more).decide()
    assert [base, more] == before
    assert scene.values == values


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_type_has_values_in_its_form_and_near_misses(kind):
    made = list(candidates(Rule("x", 0, kind)))
    assert made
    assert all(normal(kind, value) is not None for value in made)
    assert bool(malformed(kind)) is (kind != "text")
