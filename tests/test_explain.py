"""Explanations: no failure of the engine is lost, every row is true, and what is proposed is what the engine accepts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.decide import decide
from agentgate.explain.evidence import MASKED, secret
from agentgate.explain.explanation import Explanation, Kept, Row, as_json, explain, explain_kept
from agentgate.explain.listing import Condition, conditions, matching
from agentgate.intents.lexical import derive
from agentgate.language.prompt import Prompt
from agentgate.loading.definition import load_text
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Agent, Call, EarlierCall, Header, RunState, Surroundings, User
from agentgate.values.visible import visible
from agentgate.workflow.model import Workflow
from agentgate.workflow.rule import Rule, Source
from tests.effort import examples
from tests.generate import Case, Generator

WORKFLOW = r"""
agentgate: workflow/v1
id: shop.refund
version: 3
title: Refund one named order
owners: [team:payments, kim]
risk: high
expires: "2099-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {groups: [support], same_tenant: true}}
intents:
  refund:
    asks_for: Give a customer money back for an order they name.
    words: [refund, reimburse]
    unclear: step_up
    examples: ["Please refund order ORD-10023344, it arrived broken"]
    counter_examples: ["Refund all orders from last week"]
conditions:
  hours: {days: [mon, tue, wed, thu, fri], from: "08:00", to: "20:00", zone: Europe/Berlin}
tools:
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}
    facts:
      total: {type: money, currency: currency}
      currency: {type: text}
      customer: {type: id}
      email: {type: email}
  payments.refund:
    effect: write
    needs: [refund]
    redeem: wrapper
    args:
      order_id: {type: id, from: [orders.get.order_id]}
      amount: {type: money, currency: currency, min: "0.01", max: "500.00", at_most: orders.get.total, from: [prompt, orders.get.total]}
      currency: {in: [EUR, GBP], from: [orders.get.currency]}
      payee: {type: id, from: [orders.get.customer], sensitive: true}
      notify: {type: email, from: [orders.get.email], optional: true}
      reason: {text: 200, from: [model], entities: [prompt], optional: true}
sequence: [{before: payments.refund, require: orders.get, within: 15m}]
limits: [{count: payments.refund, max: 2, per: run}]
step_up:
  - id: big
    for: payments.refund
    when: {amount: {above: "100.00"}}
    approvers: {group: leads, count: 1, not: [requester]}
    timeout: 10m
    show: [order_id, amount, payee]
"""
NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)  # a Wednesday
PROMPT = "Please refund 39.99 EUR for order ORD-10023344, it arrived broken"
EXAMPLE = "Please refund order ORD-10023344, it arrived broken"
REFUND = {"order_id": "ORD-10023344", "amount": "39.99", "currency": "EUR", "payee": "cus_4711"}
LOOKED_UP = {"total": "80.00", "currency": "EUR", "customer": "cus_4711", "email": "ann@acme.example"}


@pytest.fixture(scope="module")
def workflow() -> Workflow:
    return load_text(WORKFLOW, "payments/refund.yaml", {}, derive)


def looked_up(order: str = "ORD-10023344", call: str = "call_1", **facts: Any) -> EarlierCall:
    return EarlierCall(call, "orders.get", {"order_id": order}, ({**LOOKED_UP, **facts},), True, NOW.timestamp() - 60)


def explained(
    workflow: Workflow,
    args: dict[str, Any],
    *,
    tool: str = "payments.refund",
    turns: tuple[str, ...] = (PROMPT,),
    calls: tuple[EarlierCall, ...] | None = None,
    now: datetime = NOW,
    **header: Any,
) -> Explanation:
    user = User("lee", tenant="acme", groups=["support"])
    at = Header("run_1", "acme", user, Agent("bot"), workflow.id, workflow.version, workflow.digest, 0.0, 9e9)
    state = RunState(
        replace(at, **header),
        turns,
        derive(tuple(workflow.intents.values()), turns),
        Prompt.of(turns, now.date()),
        (looked_up(),) if calls is None else calls,
        "1.1",
    )
    return explain(workflow, state, Call.of(tool, args, "call_9"), Surroundings(now))


def row(found: Explanation, field: str, word: str) -> Row:
    (only,) = (r for r in found.rows if r.condition.field == field and r.condition.word == word)
    return only


def way(found: Explanation, field: str, word: str) -> str:
    row_ = row(found, field, word)
    assert row_.would_pass is not None
    return row_.would_pass.text


# --- against the engine ----------------------------------------------------------------------------------------------------
def failures_of(answer: Eligible | Deny) -> tuple[Failure, ...]:
    return answer.failures if isinstance(answer, Deny) else tuple(f for hold in answer.holds for f in hold.why)


def table_of(case: Case) -> tuple[Condition, ...]:
    return conditions(case.workflow, case.workflow.tools.get(case.call.tool))


@settings(max_examples=examples(60, 15), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_failure_of_the_engine_is_one_condition_and_none_is_lost(seed: int) -> None:
    for case in Generator(seed).cases(12, per_workflow=6):
        answer = decide(case.workflow, case.run, case.call, case.around)
        table = table_of(case)
        assert len({c.key for c in table}) == len(table)
        for failure in failures_of(answer):
            assert len(matching(failure, table)) == 1, failure
        found = explain(case.workflow, case.run, case.call, case.around)
        told = [f for r in found.rows if r.verdict == "failed" for f in r.failures]
        if isinstance(answer, Deny):
            assert found.decision == "deny"
            assert found.agent == f"agentgate: {answer.code}"
            assert sorted(map(str, told)) == sorted(map(str, answer.failures))
        else:
            assert found.decision == answer.asks
            assert told == []
            asked = {r.condition.key for r in found.rows if r.verdict == "asks"}
            assert asked >= {f"step_up.{hold.rule.id} step_up" for hold in answer.holds}
            assert bool(asked) == bool(answer.holds)


@settings(max_examples=examples(60, 15), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_proposed_is_what_the_engine_accepts(seed: int) -> None:
    for case in Generator(seed).cases(12, per_workflow=6):
        for row_ in explain(case.workflow, case.run, case.call, case.around).failed:
            proposed = row_.would_pass
            assert proposed is not None
            assert proposed.text
            if not proposed.change:
                continue
            args = {n: v for n, v in {**case.call.args, **proposed.change}.items() if v is not None or n not in proposed.change}
            changed = Call.of(case.call.tool, args, case.call.id, case.call.definition)
            answer = decide(case.workflow, case.run, changed, case.around)
            again = explain(case.workflow, case.run, changed, case.around)
            assert next(r for r in again.rows if r.condition.key == row_.condition.key).verdict in {"met", "not sent", "not reached"}
            assert proposed.enough == isinstance(answer, Eligible)


_NEUTRAL = Rule("", 0)


@settings(max_examples=examples(40, 10), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_row_that_held_still_holds_when_the_operators_that_failed_are_taken_away(seed: int) -> None:
    fields = {"is": "equals", "in": "one_of", "pattern": "pattern", "glob": "glob", "text": "text", "min": "minimum", "max": "maximum"}
    for case in Generator(seed).cases(12, per_workflow=6):
        found = explain(case.workflow, case.run, case.call, case.around)
        tool = case.workflow.tools.get(case.call.tool)
        gone = [r.condition for r in found.failed if r.condition.word in fields and r.condition.about == "argument"]
        if tool is None or not gone:
            continue
        args = dict(tool.args)
        for condition in gone:
            name = fields[condition.word]
            args[condition.argument] = replace(args[condition.argument], **{name: getattr(_NEUTRAL, name)})
        looser = replace(case.workflow, tools={**case.workflow.tools, tool.name: replace(tool, args=args)})
        held = {r.condition.key for r in found.rows if r.verdict == "met"}
        state = replace(case.run)
        failed = {r.condition.key for r in explain(looser, state, case.call, case.around).rows if r.verdict == "failed"}
        assert held & failed == set()


@settings(max_examples=examples(40, 10), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_record_and_the_run_together_say_what_the_engine_said(seed: int) -> None:
    for case in Generator(seed).cases(12, per_workflow=6):
        answer = decide(case.workflow, case.run, case.call, case.around)
        now = explain(case.workflow, case.run, case.call, case.around)
        asked = () if isinstance(answer, Deny) else tuple(hold.rule.id for hold in answer.holds)
        kept = Kept(now.decision, failures_of(answer), asked)
        later = explain_kept(case.workflow, case.run, case.call, case.around, kept)
        assert (later.decision, later.code) == (now.decision, now.code)
        for one, other in zip(now.rows, later.rows, strict=True):
            beside = isinstance(answer, Deny) and one.verdict == "asks"  # a denial does not record who else would be asked
            at_mint = now.decision == "allow" and one.verdict == "at mint"
            assert other.verdict == ("met" if at_mint else one.verdict) or beside
            assert other.origins == one.origins or beside


# --- what a reader gets --------------------------------------------------------------------------------------------------
def test_an_allowed_call_shows_each_value_with_its_origin(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "notify": "ann@acme.example", "reason": "it broke"})
    assert (found.decision, found.agent, found.failed) == ("allow", "", ())
    amount, order = row(found, "args.amount", "from").origins[0], row(found, "args.order_id", "from").origins[0]
    assert (amount.source, amount.words, amount.turn, amount.start) == ("prompt", "39.99 EUR", 1, PROMPT.index("39.99"))
    assert (order.source, order.call, order.row, order.value) == ("orders.get.order_id", "call_1", 0, "ORD-10023344")
    notify = row(found, "args.notify", "from").origins[0]
    assert (notify.source, notify.call, notify.row) == ("orders.get.email", "call_1", 1)
    assert row(found, "args.reason", "from").origins[0].source == "model"
    assert row(found, "intent", "needs").got == "refund present (word 'refund')"
    assert row(found, "limits", "limit 0").verdict == "at mint"
    assert row(found, "payments.refund", "require 0").got == "orders.get (call call_1), 60 s before"
    assert row(found, "args.amount", "at_most").rule.startswith("payments/refund.yaml:")


def test_a_bound_says_how_much_would_pass(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "amount": "99.00"})
    assert found.decision == "deny"
    assert way(found, "args.amount", "at_most") == "amount at most 80.00 (orders.get.total of call call_1)"
    assert row(found, "args.amount", "from").verdict == "failed"
    assert row(found, "args.amount", "from").origins[0].source == "unknown"
    assert way(found, "args.amount", "from").startswith("amount 39.99, as the user wrote it ('39.99 EUR')")


def test_a_forged_payee_is_told_from_the_right_one_and_both_are_masked(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "payee": "cus_evil"})
    assert way(found, "args.payee", "from") == f"payee {MASKED}, as returned by orders.get (customer, call call_1)"
    everything = str(found) + repr(as_json(found))
    assert "cus_evil" not in everything
    assert "cus_4711" not in everything
    assert "; then the whole call would" in str(found)


def test_a_sensitive_value_in_the_prompt_is_masked_in_the_words_too(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "payee": "cus_evil1"}, turns=(PROMPT + ", send it to cus_evil1",))
    (origin,) = row(found, "args.payee", "from").origins
    assert (origin.source, origin.allowed, origin.words) == ("prompt", False, MASKED)
    assert "not an allowed origin" in str(origin)
    assert "cus_evil1" not in str(found)


def test_a_value_from_elsewhere_says_where_it_stands(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "notify": "eve@evil.example"}, turns=(PROMPT + ", tell eve@evil.example",))
    (origin,) = row(found, "args.notify", "from").origins
    assert (origin.source, origin.allowed, origin.words) == ("prompt", False, "eve@evil.example")


def test_the_turn_that_says_it_is_named(workflow: Workflow) -> None:
    found = explained(workflow, REFUND, turns=("Please refund order ORD-10023344", "39.99 EUR is enough, please refund that"))
    (origin,) = row(found, "args.amount", "from").origins
    assert (origin.turn, origin.start, origin.words) == (2, 0, "39.99 EUR")


def test_hours_are_said_as_a_person_says_them(workflow: Workflow) -> None:
    found = explained(workflow, REFUND, now=NOW + timedelta(days=3))
    assert way(found, "hours", "hours") == "a time in Mon-Fri 08:00-20:00 Europe/Berlin"
    assert found.owner == "team:payments, kim"


def test_a_call_that_was_never_looked_up_says_what_comes_first(workflow: Workflow) -> None:
    found = explained(workflow, REFUND, calls=())
    assert way(found, "payments.refund", "require 0") == "orders.get redeemed first, at most 900 s before"
    assert way(found, "args.payee", "from") == "payee returned by orders.get as customer (call it first)"
    assert row(found, "payments.refund", "one source").verdict == "not reached"


def test_a_mixed_call_names_one_row_for_all(workflow: Workflow) -> None:
    other = looked_up("ORD-20000000", "call_2", customer="cus_9", total="90.00")
    found = explained(workflow, {**REFUND, "payee": "cus_9"}, calls=(looked_up(), other))
    together = row(found, "payments.refund", "one source")
    assert together.verdict == "failed"
    assert "all of call call_" in way(found, "payments.refund", "one source")
    assert "cus_" not in str(found)


def test_an_absent_intent_says_what_the_user_would_ask_for(workflow: Workflow) -> None:
    found = explained(workflow, REFUND, turns=("What is the status of order ORD-10023344, 39.99 EUR?",))
    assert way(found, "intent", "needs").startswith("the user asking for refund: Give a customer money back")
    assert row(found, "intent", "needs").verdict == "failed"


def test_an_unclear_intent_asks_a_person(workflow: Workflow) -> None:
    found = explained(workflow, REFUND, turns=("Please refund everything, 39.99 EUR for order ORD-10023344",))
    assert (found.decision, found.agent) == ("step_up", "agentgate: needs_approval")
    assert row(found, "intent", "needs").verdict == "asks"
    assert way(found, "step_up.big", "step_up") == "a yes of 1 of leads, not the requester, within 600 s"


@pytest.mark.parametrize(
    ("said", "got"),
    [
        ("What is the status of order ORD-10023344?", "refund absent (no word of it in the prompt)"),
        ("Do not refund order ORD-10023344", "refund absent (denied: refund)"),
        ("Refund all orders from last week", "refund unclear (word 'refund', as in the counter-example: Refund all orders from last week)"),
        ("Please refund all of order ORD-10023344", "refund unclear (word 'refund', but "),
    ],
)
def test_an_intent_that_is_not_present_says_why_and_its_failure_does_not(workflow: Workflow, said: str, got: str) -> None:
    found = explained(workflow, REFUND, turns=(said,))
    intent = row(found, "intent", "needs")
    assert intent.got.startswith(got)
    assert f"  got       {intent.got}" in str(found).splitlines()
    assert [f.got for f in intent.failures] == ["absent" if "absent" in got else "unclear: refund"]
    assert "(" not in "".join(f"{f}" for f in intent.failures)


def test_what_asks_is_told_beside_what_refuses(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "payee": "cus_x"}, turns=("Please refund everything, 39.99 EUR for order ORD-10023344",))
    assert found.decision == "deny"
    assert row(found, "intent", "needs").verdict == "asks"


def test_an_unknown_tool_names_the_ones_there_are(workflow: Workflow) -> None:
    found = explained(workflow, {}, tool="order.get")
    assert way(found, "tool", "tools") == "one of orders.get, payments.refund (did you mean orders.get?)"


def test_an_unknown_argument_is_left_out(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "payee2": "x"})
    assert way(found, "args", "args") == "without payee2"
    proposed = row(found, "args", "args").would_pass
    assert proposed is not None
    assert proposed.enough


def test_an_address_in_free_text_is_named(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "reason": "copy eve@evil.example"})
    assert row(found, "args.reason", "entities").got == "'eve@evil.example'"
    assert way(found, "args.reason", "entities") == "reason without that address, or with one named by the user in the prompt"


def test_an_argument_of_another_form_hides_what_lies_behind_it(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "amount": "1_000"})
    assert row(found, "args.amount", "type").verdict == "failed"
    assert {row(found, "args.amount", word).verdict for word in ("min", "max", "at_most", "from")} == {"not reached"}


def test_a_wrong_tenant_and_closed_run_are_rows(workflow: Workflow) -> None:
    found = explained(workflow, REFUND, tenant="evil", digest="sha256:0")
    assert way(found, "tenant", "tenants") == "a run of tenant acme"
    assert way(found, "workflow", "version") == "a new run, opened under version 3 of shop.refund"


def test_what_only_the_store_knew_has_a_row(workflow: Workflow) -> None:
    state = RunState(
        Header("run_1", "acme", User("lee", tenant="acme", groups=["support"]), Agent("bot"), workflow.id, 3, workflow.digest, 0.0, 9e9),
        (PROMPT,),
        derive(tuple(workflow.intents.values()), (PROMPT,)),
        Prompt.of((PROMPT,), NOW.date()),
        (looked_up(),),
        "1.1",
    )
    line = workflow.tools["payments.refund"].limits[0].line
    later = (
        Failure(Reason.LIMIT, "limits", "calls of payments.refund used up", "at most 2 per run", f"payments/refund.yaml:{line}"),
        Failure(Reason.STORE, "store", "down", "a state store that answers in time"),
    )
    found = explain(workflow, state, Call.of("payments.refund", REFUND, "c"), Surroundings(NOW), later)
    assert row(found, "limits", "limit 0").verdict == "failed"
    assert row(found, "store", "gate").got == "down"
    assert found.agent == "agentgate: unavailable"


def test_terminal_controls_are_escaped(workflow: Workflow) -> None:
    evil = "\x1b[31mred\x07\u202e"
    found = explained(workflow, {**REFUND, "reason": evil, "notify": evil})
    assert visible(evil) == "\\x1b[31mred\\x07\\u202e"
    assert str(found).replace("\n", "").isprintable()


def test_several_changes_are_asked_about_together(workflow: Workflow) -> None:
    found = explained(workflow, {**REFUND, "amount": "99.00", "payee": "cus_evil", "payee2": "x"})
    assert found.together is not None
    assert found.together.enough
    assert found.together.text.startswith("without payee2; amount ")
    assert "the whole call would pass with without payee2" in str(found)


def test_a_null_that_is_sent_is_not_left_out_of_what_is_asked_about_together() -> None:
    files = "      'files[].id': {type: id, max_items: 3, from: [prompt], optional: true}\n      reason: {text"
    workflow = load_text(WORKFLOW.replace("      reason: {text", files), "w.yaml", {}, derive)
    wrong = {**REFUND, "amount": "99.00", "payee": "cus_evil"}
    assert explained(workflow, wrong).together is not None
    assert explained(workflow, {**wrong, "files": None}).together is None


def test_what_fills_a_sensitive_argument_is_sensitive_wherever_it_is_shown() -> None:
    text = WORKFLOW.replace("args: {order_id: {type: id,", "args: {order_id: {sensitive: true, type: id,", 1)
    text = text.replace("payee: {type: id, from: [orders.get.customer], sensitive: true}", "payee: {type: id, from: [orders.get.customer]}")
    other = "other: {type: id, from: [orders.get.customer], sensitive: true, optional: true}"
    text = text.replace("notify: {type: email", f"{other}\n      notify: {{type: email", 1)
    loaded = load_text(text, "w.yaml", {}, derive)
    assert secret(loaded, Source("fact", "orders.get", "customer"))
    assert secret(loaded, Source("arg", "orders.get", "order_id"))
    assert not secret(loaded, Source("fact", "orders.get", "total"))
    found = explained(loaded, {**REFUND, "order_id": "ORD-1", "payee": "cus_x"})
    assert "cus_4711" not in str(found)
    assert way(found, "args.order_id", "from") == f"order_id {MASKED}, as given to orders.get (order_id, call call_1)"


# --- from a record ---------------------------------------------------------------------------------------------------------
def kept_of(workflow: Workflow, args: dict[str, Any], kept: Kept, **more: Any) -> Explanation:
    user = User("lee", tenant="acme")
    header = Header("run_1", "acme", user, Agent("bot"), workflow.id, workflow.version, workflow.digest, 0.0, 9e9)
    turns = (PROMPT,) if kept.alive else ()
    intents = derive(tuple(workflow.intents.values()), turns)
    calls = (looked_up(),) if kept.alive else ()
    state = RunState(header, turns, intents, Prompt.of(turns, NOW.date()), calls, "1.1")
    return explain_kept(workflow, state, Call.of("payments.refund", args, "pay", **more), Surroundings(NOW), kept)


def test_why_an_intent_was_not_present_is_read_again_while_the_run_lives_and_not_afterwards(workflow: Workflow) -> None:
    failure = Failure(Reason.INTENT_ABSENT, "intent", "absent", "refund", f"w.yaml:{workflow.tools['payments.refund'].line}")
    alive = kept_of(workflow, REFUND, Kept("deny", (failure,)))  # whatever decided then saw less than the words say here
    assert row(alive, "intent", "needs").got.startswith("absent; read again here: refund present (word 'refund'")
    assert row(alive, "intent", "needs").verdict == "failed"
    assert row(kept_of(workflow, REFUND, Kept("deny", (failure,), alive=False)), "intent", "needs").got == "absent"


def test_of_a_run_that_is_gone_only_what_was_recorded_is_shown(workflow: Workflow) -> None:
    line = workflow.tools["payments.refund"].args["payee"].line
    failure = Failure(Reason.ARGUMENT_ORIGIN, "args.payee", MASKED, "a value from orders.get.customer", f"payments/refund.yaml:{line}")
    hidden = {"payee": "hmac 1234", "reason": "hmac 5678"}
    origins = {"amount": "prompt", "payee": "unknown", "order_id": "orders.get.order_id look", "reason": "model"}
    known = {"order_id": "ORD-10023344", "amount": "39.99", "currency": "EUR"}
    found = kept_of(workflow, known, Kept("deny", (failure,), (), hidden, origins, alive=False))
    assert [r.condition.key for r in found.failed] == ["args.payee from"]
    assert found.agent == "agentgate: not_permitted"
    assert row(found, "args.amount", "from").origins[0].source == "prompt"
    assert row(found, "args.order_id", "from").origins[0].source == "orders.get.order_id look"
    assert (row(found, "args.reason", "text").got, row(found, "args.reason", "text").verdict) == ("hmac 5678", "met")
    assert row(found, "args.notify", "type").verdict == "not sent"
    assert row(found, "user.groups", "groups").got == "(not kept)"
    assert row(found, "intent", "needs").got == "(not kept)"
    assert found.together is None
    assert way(found, "args.payee", "from") == "args.payee: a value from orders.get.customer"


def test_while_the_run_lives_the_words_and_the_rows_are_shown(workflow: Workflow) -> None:
    known = {"order_id": "ORD-10023344", "amount": "39.99", "currency": "EUR"}
    found = kept_of(workflow, known, Kept("allow", hidden={"payee": "hmac 1"}, origins={"payee": "orders.get.customer call_1"}))
    assert row(found, "args.amount", "from").origins[0].words == "39.99 EUR"
    assert row(found, "args.payee", "from").origins[0].source == "orders.get.customer call_1"
    assert row(found, "limits", "limit 0").verdict == "met"
    assert {r.verdict for r in found.rows} <= {"met", "not sent"}


def test_a_recorded_step_up_shows_the_rule_that_asked(workflow: Workflow) -> None:
    line = workflow.tools["payments.refund"].step_ups[0].when[0].line
    failure = Failure(
        Reason.STEP_UP, "args.amount", "'150.00'", "a person's yes", f"payments/refund.yaml:{line}", {"condition": "step_up.big step_up"}
    )
    found = kept_of(workflow, {**REFUND, "amount": "150.00"}, Kept("step_up", (failure,), ("big",)))
    assert [r.condition.key for r in found.failed] == ["step_up.big step_up"]
    assert row(found, "step_up.big", "step_up").got == "'150.00'"
    assert found.agent == "agentgate: needs_approval"
