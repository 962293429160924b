"""Witnesses: a finding is shown as a call that the engine itself answers differently, or with the reason why there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentgate.decision.answer import Deny, Eligible
from agentgate.diff import compare
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text
from agentgate.loading.source import on_disk
from agentgate.review.report.comparison import changes_between
from agentgate.review.report.witness import Witness, witness
from agentgate.workflow.model import Workflow

ROOT = Path(__file__).parent.parent / "workflows"
ROLES = roles_of(ROOT)
TEXT = (ROOT / "payments" / "customer-refund.yaml").read_text()
BASE = yaml.safe_load((ROOT / "payments" / "customer-refund.test.yaml").read_text())["base"]


def load(*changes: tuple[str, str]) -> Workflow:
    text = TEXT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return load_text(text, "refund.yaml", ROLES, derive)


OLD = load()
LOOK = ("intents:    ", 'intents:\n  look: {asks_for: Look., words: [status], examples: ["What is the status of ORD-10023344?"]}   ')


def shown(new: Workflow, base: Any = BASE, old: Workflow = OLD) -> dict[str, Witness]:
    return {w.finding.field: w for w in (witness(old, new, each, base) for each in compare(old, new).wider)}


@pytest.mark.parametrize(
    ("before", "after", "field", "changed"),
    [
        ("tenants: [acme-eu, acme-uk]", "tenants: [acme-eu, acme-uk, acme-us]", "tenants", {"tenant", "who.user.tenant"}),
        ('expires: "2031-12-31"', 'expires: "2032-12-31"', "expires", {"time"}),
        ("attested_within: 10m", "attested_within: 1h", "who.agent.posture.attested_within", {"who.agent.posture.attested_ago"}),
        ("[support-l1, support-l2]", "[support-l1, sales]", "who.for_user.groups", {"who.user.groups"}),
        (", same_tenant: true", "", "who.for_user.same_tenant", {"who.user.tenant"}),
        ("max_hops: 1", "max_hops: 2", "who.via", {"who.via"}),
        ("environment: [prod]", "environment: [prod, stage]", "conditions.environment", {"environment"}),
        ('to: "20:00"', 'to: "22:00"', "conditions.hours", {"time"}),
        ("within: 15m", "within: 20m", "sequence.orders.get", {"ago.orders.get"}),
        ("definition: sha256:9ef7", "definition: sha256:9ef8", "definition", {"definition"}),
        ('max: "500.00"', 'max: "600.00"', "args.amount.max", {"args.amount", "facts.orders.get.total"}),
        ("at_most: orders.get.total, ", "", "args.amount.at_most", {"args.amount", "facts.orders.get.total", "prompt"}),
        ("from: [prompt, orders.get.total]", "from: [prompt, orders.get.total, model]", "args.amount.from", {"args.amount"}),
        ("from: [orders.get.customer_id], sensitive", "from: [model], sensitive", "args.payee.from", {"args.payee"}),
        ("{14}", "{13,14}", "args.payee.pattern", {"args.payee", "facts.orders.get.customer_id"}),
        ("in: [EUR, GBP]", "in: [EUR, GBP, USD]", "args.currency.in", {"args.currency", "facts.orders.get.currency"}),
        (r"+@acme\.example", r"+@acme\.(?:example|test)", "args.notify.pattern", {"args.notify", "prompt"}),
        ("text: 200", "text: 201", "args.reason.text", {"args.reason"}),
        ("payee:    {", "payee:    {optional: true, ", "args.payee.optional", {"args.payee"}),
        ('above: "100.00"', 'above: "200.00"', "step_up.big-refund.when", {"args.amount", "facts.orders.get.total"}),
    ],
)
def test_the_fewest_fields_of_the_base_are_changed_and_the_engine_says_so(before, after, field, changed):
    new = load((before, after))
    found = shown(new)[field]
    assert found.scene is not None, found.reason
    assert set(found.changes or {}) == changed
    was, would = found.scene.decide(OLD), found.scene.decide(new)
    assert isinstance(would, Eligible)
    assert isinstance(was, Deny) or len(was.holds) > len(would.holds)
    assert found.before.startswith("refused" if isinstance(was, Deny) else "allowed after 1 release by support-leads")
    assert found.after.startswith("allowed")
    assert not found.scene.unreached
    assert found.reason == ""


def test_a_value_from_another_call_is_shown_with_two_calls():
    new = load(("from: [orders.get.customer_id], sensitive", "from: [orders.get.customer_id], any_call: true, sensitive"))
    found = shown(new)["args.payee.any_call"]
    assert found.scene is not None
    assert found.scene.earlier == ("orders.get", "orders.get#2") or set(found.scene.earlier) == {"orders.get", "orders.get#2"}
    assert "one_source" in found.before


def test_an_intent_is_shown_in_words():
    found = shown(load(("needs: [refund]", "needs: [refund, look]"), LOOK), old=load(LOOK))["needs"]
    assert found.changes == {"prompt": (BASE["prompt"], "What is the status of ORD-10023344?")}


def test_an_unclear_request():
    found = shown(OLD, old=load(("unclear: step_up ", "unclear: deny ")))["intents.refund.unclear"]
    assert found.before.startswith("refused: intent_unclear")
    assert found.after == "allowed after 1 release by support-leads"


def test_what_no_call_shows_stands_with_its_reason():
    """A customer's id is no address, so no address can come from there: the engine does not confirm it, and nobody claims it."""
    found = shown(load(("entities: [prompt]", "entities: [prompt, orders.get.customer_id]")))["args.reason.entities"]
    assert found.scene is None
    assert found.changes is None
    assert "entity_origin" in found.reason


def test_what_is_about_no_single_call_has_neither_call_nor_reason():
    found = shown(load(("ttl: 60s", "ttl: 5m")))["token.ttl"]
    assert (found.scene, found.reason) == (None, "")


@pytest.mark.parametrize("base", [None, {"call": "no.such.tool"}, {"unknown": 1}, {"args": {"amount": "9999"}}])
def test_a_base_that_is_missing_or_no_good_is_made_up(base):
    found = shown(load(('max: "500.00"', 'max: "600.00"')), base)["args.amount.max"]
    assert found.scene is not None
    assert found.scene.values["args.amount"] == "500.01"


def test_a_tool_that_was_added():
    new = load(("tools:\n", "tools:\n  notes.list: {effect: read, needs: any, redeem: wrapper}\n"))
    found = shown(new)["tool"]
    assert found.scene is not None
    assert found.scene.values["call"] == "notes.list"
    assert "tool_unknown" in found.before


def test_a_finding_the_engine_denies_is_not_claimed():
    """A made-up finding: the engine gives the same answer under both, so there is no call for it."""
    new = load(('max: "500.00"', 'max: "600.00"'))
    made_up = replace(compare(OLD, new).wider[0], point={"args.amount": "39.99"}, rest={})
    found = witness(OLD, new, made_up, BASE)
    assert found.scene is None
    assert found.reason == "the call made for it needs no fewer releases"


@pytest.mark.parametrize(
    "name", ["ci/deploy", "identity/service-account-refresh", "orchestration/internal-dispatch", "partners/northwind-orders"]
)
def test_the_other_shipped_workflows_without_a_base(name):
    text = (ROOT / f"{name}.yaml").read_text()
    old = load_text(text, "x.yaml", ROLES, derive)
    new = replace(old, expires=old.expires.replace(year=old.expires.year + 1), tenants=(*old.tenants, "one-more"))
    found = shown(new, None, old)
    assert {field: w.scene is not None for field, w in found.items()} == {"tenants": True, "expires": True}


BANKING = (Path(__file__).parent / "benchmarks/agentdojo/banking.yaml").read_text()
LATER = ('expires: "2030-12-31"', 'expires: "2031-12-31"')


@pytest.mark.parametrize("more", [(), (LATER,)], ids=["alone", "beside a later end"])
def test_an_entity_in_a_text_is_shown_by_one_of_the_facts_own_kind_and_by_nothing_else_that_changed(more):
    changed = BANKING
    for before, after in (("entities: [prompt], ", "entities: [prompt, get_most_recent_transactions.recipient], "), *more):
        changed = changed.replace(before, after, 1)
    old, new = (load_text(text, "banking.yaml", {}, derive) for text in (BANKING, changed))
    found = shown(new, None, old)["args.subject.entities"]
    assert set(found.changes or {}) == {"args.subject"}, found.reason
    assert found.scene is not None
    assert found.scene.values["args.subject"] == found.scene.values["facts.get_most_recent_transactions.recipient"]
    assert (found.before, found.after) == ("allowed after 1 release by owners", "allowed")


def test_what_else_changed_never_shows_a_finding_in_its_place():
    """With a rule gone that holds the base itself, each other row still shows its own change."""
    asks = ('when: {amount: {above: "100.00"}}', 'when: {amount: {above: "10.00"}}')
    new = load(('max: "500.00"', 'max: "600.00"'), ("[support-l1, support-l2]", "[support-l1, support-l2, sales]"))
    found = shown(new, BASE, load(asks))
    assert {"args.amount", "who.user.groups"} <= {key for each in found.values() for key in each.changes or {}}
    assert "args.amount" in (found["args.amount.max"].changes or {})
    assert "who.user.groups" in (found["who.for_user.groups"].changes or {})


@pytest.mark.parametrize("paths", [("ci/deploy", "partners/northwind-orders"), ("identity/service-account-refresh", "ci/deploy")])
def test_two_workflows_without_a_common_tool_are_compared_by_calls_of_the_newer_one(paths: tuple[str, str]) -> None:
    old, new = (on_disk(ROOT / f"{path}.yaml") for path in paths)
    made = changes_between(old, new)
    assert made.wider[0].where.endswith(": tool")
    assert made.narrower[0].where.endswith(": tool")
    assert made.notes[0].startswith("two different workflows are compared")
