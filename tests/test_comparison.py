"""What a reviewer is told about a change of the payment workflow: every finding of one call with that call, answered by the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentgate.intents.lexical import derive
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text
from agentgate.loading.source import on_disk
from agentgate.review.mutation.mutation import mutations
from agentgate.review.report.comparison import base_of, told

WORKFLOWS = Path(__file__).parent.parent / "workflows"
SOURCE = on_disk(WORKFLOWS / "payments/customer-refund.yaml")
ROLES = roles_of(WORKFLOWS)


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
    assert not any("no call shows" in row.effect for row in told_of.read_yourself)


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
    [row] = told_of.read_yourself
    assert (row.where, row.new) == ("payments.refund: args.currency.from", "orders.get.currency, prompt")
    assert "no call shows that it permits more" in row.effect
    assert told_of.looks


def test_a_first_version_and_one_that_is_gone():
    workflow = SOURCE.workflow()
    first = {c.where: c.new for c in told(None, workflow).wider}
    assert first["payments.refund"].startswith("write, for intent refund, with a credential of provider")
    assert first["tenant"] == "one of acme-eu, acme-uk"
    assert first["user.groups"] == "one of support-l1, support-l2"
    assert first["expires"] == "not after 2031-12-31"
    assert "refund, reimburse" in first["intents.refund"]
    assert "amount" in first["payments.refund: step_up.big-refund"]
    assert "calls of payments.refund: at most 1 per run" in {c.new for c in told(None, workflow).wider}
    assert {c.effect for c in told(None, workflow).wider if c.where == "intents.refund"} == {
        "asked for by: Please refund order ORD-10023344, it arrived broken; not by: What is the status of ORD-10023344?"
    }
    assert first["orders.get"].startswith("read, for whatever is asked")
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


SHIPPED = [p for p in sorted(WORKFLOWS.glob("*/*.yaml")) if not p.name.endswith(".test.yaml") and p.parent.name != "approvals"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_row_of_every_loosened_condition_is_in_the_words_of_the_engine_about_a_call_that_holds_its_example(path):
    source = on_disk(path)
    workflow, base = source.workflow(), base_of(source)
    shown = 0
    for mutant in mutations(workflow).found:
        report = told(workflow, mutant.workflow, base=base)
        for row in (r for r in (*report.wider, *report.narrower) if r.answers[1]):
            short = [answer.partition(":")[0] for answer in row.answers]
            assert row.effect == f"was {short[0]}, would be {short[1]}", mutant
            assert short[0] != short[1], mutant
            value = row.example.partition("... (")[0]
            held = (text for key, before, after in row.call for text in (after, f"{key}: {after}"))
            assert any(text.startswith(value) for text in held) or not row.call, mutant
            shown += 1
    assert shown > 5


@pytest.mark.parametrize(
    ("change", "where", "less"),
    [
        (("{count: payments.refund, max: 1, per: run}", "{count: payments.refund, max: 1, per: turn}"), "limits", None),
        (("per: tenant, every: 1d", "per: tenant, every: 1h"), "limits", None),
        (("limits:\n", "limits:\n  - {count: orders.get, max: 3, per: run}\n"), "limits", "less would be granted in all"),
        (('max: "5000.00"', 'max: "4000.00"'), "limits", "less would be granted in all"),
        (("ttl: 60s", "ttl: 30s"), "token.ttl", "a token would live less long"),
        (("timeout: 10m", "timeout: 5m"), "step_up", "a release would be good less long"),
    ],
)
def test_less_is_said_only_of_what_is_less_and_in_words_of_its_own(change, where, less):
    report = changed(change)
    rows = [row for row in report.narrower if where in row.where]
    assert [row.effect for row in rows] == ([less] if less else [])
    assert not any("(removed)" in (row.old, row.new) for row in rows)
    assert bool(report.wider) is (less is None)


def test_a_step_up_that_was_added_is_less_and_not_removed():
    text = SOURCE.text[: SOURCE.text.index("step_up:\n")] + SOURCE.text[SOURCE.text.index("token:") :]
    old = load_text(text.replace("unclear: step_up ", "unclear: deny "), "old.yaml", ROLES, derive)
    rows = {row.where: row for row in told(old, SOURCE.workflow(), base=base_of(SOURCE)).narrower}
    assert not any("(removed)" in (row.old, row.new) for row in rows.values())
    assert any(row.effect == "was allowed, would be allowed after 1 release by support-leads" for row in rows.values()), rows


def test_the_worst_is_first_and_a_title_is_one_line_at_the_end():
    report = changed(
        ("tenants: [acme-eu, acme-uk]", "tenants: [acme-eu, acme-uk, acme-us]"),
        ("title: Support", "title: Nice support"),
        ("owners: [team:payments]", "owners: [team:other]"),
        (PAYEE, ANYBODY),
        ("words: [refund, reimburse, money back]", "words: [refund, money back]"),
    )
    assert [row.where for row in report.wider] == ["payments.refund: args.payee.from", "tenants"]
    assert [line.partition(" ")[0] for line in report.idle] == ["title", "owners", "intents.refund.words"]
    assert report.looks


def test_a_word_more_is_shown_with_a_prompt_that_asks_for_it_now():
    [row] = changed(("words: [refund, reimburse, money back]", "words: [refund, reimburse, money back, compensate]")).read_yourself
    assert (row.where, row.new) == ("intents.refund.words", "refund, reimburse, money back, compensate")
    assert row.effect.startswith("now asked for by: ")
    prompt = row.effect.partition(": ")[2]
    assert derive(tuple(SOURCE.workflow().intents.values()), (prompt,))["refund"].presence != "present"


def test_a_new_tool_is_told_whole():
    more = "tools:\n  notes.list: {effect: read, needs: any, redeem: wrapper, args: {book: {in: [red, blue]}}}\n"
    [row] = changed(("tools:\n", more)).wider
    assert row.lines == (
        "notes.list: read, for whatever is asked",
        "notes.list: args.book: type: text, in: red, blue, from anywhere",
        "notes.list: limits: calls of any: at most 20 per run",
    )


def test_a_guard_that_decides_nothing_today_is_named():
    text = (WORKFLOWS / "orchestration/internal-dispatch.yaml").read_text()
    old = load_text(text, "old.yaml", ROLES, derive)
    [(tool, rule)] = [(t, r) for t in old.tools.values() for r in t.args.values() if r.role]
    roles = {**ROLES, rule.role: frozenset({*ROLES[rule.role], "jobs:other"})}  # beside which every listed scope is narrower
    old, new = (load_text(t, "w.yaml", roles, derive) for t in (text, text.replace(f", narrower_than_role: {rule.role}", "")))
    report = told(old, new)
    assert report.wider == ()
    [row] = report.alike
    assert row.where == f"tools.{tool.name}.args.{rule.name}"
    assert f"narrower_than_role: {rule.role}" in row.old
    assert "narrower_than_role" not in row.new
