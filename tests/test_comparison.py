"""What a reviewer is told about a change of the payment workflow: every finding of one call with that call, answered by the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_roles, load_text
from agentgate.loading.source import on_disk
from agentgate.review.report.comparison import base_of, told

WORKFLOWS = Path(__file__).parent.parent / "workflows"
SOURCE = on_disk(WORKFLOWS / "payments/customer-refund.yaml")
ROLES = load_roles(WORKFLOWS / "roles.yaml")


def changed(*changes: tuple[str, str]):
    text = SOURCE.text
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return told(SOURCE.workflow(), load_text(text, "new.yaml", ROLES, derive), base=base_of(SOURCE))


PAYEE = "payee:    {pattern: 'cus_[A-Za-z0-9]{14}', from: [orders.get.customer_id]"

ANYBODY = PAYEE.replace("{pat", "{type: id, pat").replace("[orders", "[prompt, orders")
MONEY = {"args.amount", "facts.orders.get.total"}


@pytest.mark.parametrize(
    ("change", "where", "fields", "before"),
    [
        ((PAYEE, ANYBODY), "args.payee.from", {"prompt", "args.payee"}, "refused"),
        (('above: "100.00"', 'above: "250.00"'), "step_up.big-refund.when", MONEY, "allowed after 1 release"),
        (('to: "20:00"', 'to: "22:00"'), "conditions.hours", {"time"}, "refused"),
        (("tenants: [acme-eu, acme-uk]", "tenants: [acme-eu, acme-uk, acme-us]"), "tenants", {"tenant", "who.user.tenant"}, "refused"),
        (("[support-l1, support-l2]", "[support-l1, support-l2, interns]"), "who.for_user.groups", {"who.user.groups"}, "refused"),
        (("within: 15m}", "within: 30m}"), "sequence.orders.get", {"ago.orders.get"}, "refused"),
    ],
)  # fmt: skip
def test_a_wider_rule_is_shown_by_the_base_call_with_few_fields_changed(change, where, fields, before):
    told_of = changed(change)
    [found] = told_of.wider
    assert found.where.endswith(where)
    assert {key for key, *_ in found.call} == fields
    assert found.answers[0].startswith(before)
    assert found.answers[1] == "allowed"
    assert not any("no call shows" in line for line in told_of.read_yourself)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("ttl: 60s", "ttl: 120s"), "token.ttl"),
        (('max: "5000.00"', 'max: "9000.00"'), "limits"),
        (("timeout: 10m", "timeout: 20m"), "step_up.big-refund"),
    ],
)
def test_what_no_single_call_shows_is_told_without_one(change, where):
    [found] = changed(change).wider
    assert where in found.where
    assert (found.call, found.answers) == ((), ("", ""))


def test_what_no_call_could_be_made_up_for_is_read_by_a_person_and_not_claimed():
    """The bound on the amount is in the order's currency, so no call shows what another source of the currency permits."""
    told_of = changed(
        ("currency: {in: [EUR, GBP], from: [orders.get.currency]", "currency: {in: [EUR, GBP], from: [orders.get.currency, prompt]")
    )
    assert told_of.wider == ()
    assert [line.partition(" (")[0] for line in told_of.read_yourself] == ["payments.refund: args.currency.from"]
    assert "no call shows that it permits more" in told_of.read_yourself[0]
    assert told_of.looks


def test_a_first_version_and_one_that_is_gone():
    workflow = SOURCE.workflow()
    first = {c.where: c.new for c in told(None, workflow).wider}
    assert first["payments.refund"] == "write, for intent refund"
    assert first["orders.get"] == "read, for whatever is asked"
    assert "cus_[A-Za-z0-9]{14}" in first["payments.refund: args.payee"]
    assert first["payments.refund: args.payee"].endswith("from: orders.get.customer_id")
    assert {f"{t.name}: args.{a}" for t in workflow.tools.values() for a in t.args} <= set(first)
    gone = told(workflow, None)
    assert (gone.wider, len(gone.narrower), gone.looks) == ((), 1, False)
    with pytest.raises(ValueError, match="nothing to compare"):
        told(None, None)


def test_two_different_workflows_are_compared_with_a_note():
    text = SOURCE.text.replace("id: payments.customer-refund", "id: payments.other")
    assert "two different workflows" in told(SOURCE.workflow(), load_text(text, "n.yaml", ROLES, derive)).notes[0]


def test_a_long_value_is_shown_short_and_kept_whole_in_the_call():
    [found] = changed(("reason:   {text: 200", "reason:   {text: 400")).wider
    assert found.example == f"{'x' * 40}... (201 characters)"
    assert ("args.reason", "x" * 201) in [(key, after) for key, _, after in found.call]
