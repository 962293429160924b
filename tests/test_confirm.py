"""A confirm: the run's own user says yes to exactly one call, and nobody says it for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, AnswerRefused, Deny, Gate, StepUp, User
from agentgate.audit import read_records
from agentgate.decision.hold import check_answer, check_approver
from agentgate.errors import WorkflowError
from agentgate.identity.proven import proven_user
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.values.refusal import Reason
from agentgate.workflow.model import StepUpRule

WORKFLOW = """
agentgate: workflow/v1
id: shop.pay
version: 1
title: Pay people whom the user names
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  pay:
    asks_for: Pay somebody.
    words: [pay, transfer]
    examples: [Pay 20 to kim@acme.example]
tools:
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      amount: {type: number, min: "1", max: "1000", from: [prompt]}
      to: {type: email, from: [prompt]}
step_up:
  - {id: mine, for: pay, when: {amount: {above: "10"}}, approvers: {user: true}, timeout: 10m}
  - {id: lead, for: pay, when: {amount: {above: "100"}}, approvers: {group: leads}, timeout: 10m}
"""
LEE, BOSS = User("lee", tenant="acme", groups=["leads"]), User("boss", tenant="acme", groups=["leads"])
SMALL, LARGE = ({"amount": amount, "to": "kim@acme.example"} for amount in (20, 200))


def load(text: str) -> Any:
    return load_text(text, "w.yaml", {}, derive)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "pay.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(
        tmp_path, issuer="https://gate.example", audit=str(tmp_path / "audit"), keys=tmp_path / "keys"
    ) as opened:
        yield opened


def run_of(gate: Gate, agent: str = "bot") -> Any:
    prompt = "Pay 20 to kim@acme.example, then pay 200 to kim@acme.example"
    return gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent(agent), prompt=prompt)


def held(run: Any, args: dict[str, Any] = SMALL) -> StepUp:
    decision = run.authorize("pay", args, tool_call_id="c1")
    assert isinstance(decision, StepUp)
    return decision


def test_the_user_says_yes_to_exactly_the_call_that_was_asked_about(gate: Gate, tmp_path: Path) -> None:
    run = run_of(gate)
    asked = held(run)
    assert (asked.hold.rules, asked.confirm) == (("mine",), True)
    assert gate.release(asked.hold.id, tenant="acme", by=User("lee", tenant="acme")).state == "released"
    other = run.authorize("pay", {**SMALL, "amount": 200}, tool_call_id="c1")
    assert isinstance(other, StepUp)
    assert isinstance(run.authorize("pay", SMALL, tool_call_id="c1"), Allow)
    records = list(read_records(tmp_path / "audit"))
    (answered,) = (r for r in records if r["type"] == "hold_answer")
    assert (answered["by"], answered["by_identity"], answered["answer"]) == ("lee", "in_process", "release")
    assert [r["decision"] for r in records if r["type"] == "decision"] == ["confirm", "step_up", "allow"]


@pytest.mark.parametrize(
    "by",
    [
        User("boss", tenant="acme", groups=["leads"]),
        User("Lee", tenant="acme"),
        User("@lee", tenant="acme"),
        User("lee", tenant="other"),
        User("the user", tenant="acme", groups=["the user", "user"]),
    ],
    ids=["a lead", "a spelling of the user", "with a sign", "of another tenant", "named like the rule"],
)
def test_nobody_else_says_it_for_the_user(gate: Gate, by: User) -> None:
    run = run_of(gate)
    for release in (gate.release, gate.refuse):
        with pytest.raises(AnswerRefused) as refused:
            release(held(run).hold.id, tenant="acme", by=by)
        assert refused.value.failures[0].field in {"step_up.mine.approvers", "approver"}
    assert isinstance(run.authorize("pay", SMALL, tool_call_id="c1"), StepUp)


def test_an_agent_that_calls_itself_like_its_user_confirms_nothing(gate: Gate) -> None:
    with pytest.raises(AnswerRefused):
        gate.release(held(run_of(gate, agent="Lee")).hold.id, tenant="acme", by=LEE)


def test_a_confirm_stands_for_no_group_and_no_group_for_a_confirm(gate: Gate) -> None:
    """The user is a lead too: their yes still counts under the rule alone that asks the user."""
    run = run_of(gate)
    asked = held(run, LARGE)
    assert (asked.hold.rules, asked.confirm) == (("mine", "lead"), False)
    for by in (LEE, LEE):
        assert gate.release(asked.hold.id, tenant="acme", by=by).state == "pending"
    assert isinstance(run.authorize("pay", LARGE, tool_call_id="c1"), StepUp)
    assert gate.release(asked.hold.id, tenant="acme", by=BOSS).state == "released"
    assert isinstance(run.authorize("pay", LARGE, tool_call_id="c1"), Allow)

    other = run_of(gate)
    asked = held(other, LARGE)
    for by in (BOSS, User("mona", tenant="acme", groups=["leads"])):
        assert gate.release(asked.hold.id, tenant="acme", by=by).state == "pending"
    assert isinstance(other.authorize("pay", LARGE, tool_call_id="c1"), StepUp)


def test_the_user_may_say_no(gate: Gate) -> None:
    run = run_of(gate)
    assert gate.refuse(held(run).hold.id, tenant="acme", by=LEE).state == "refused"
    refused = run.authorize("pay", SMALL, tool_call_id="c1")
    assert isinstance(refused, Deny)
    assert refused.reasons == (Reason.HOLD_REFUSED,)


MINE = StepUpRule("mine", 1, "pay", (), "", 1, (), 600, (), user=True)
LEAD = StepUpRule("lead", 1, "pay", (), "leads", 1, ("requester",), 600, ())


def test_who_may_answer_a_hold() -> None:
    bot, lee = Agent("bot"), proven_user("lee", tenant="acme")
    assert check_approver(MINE, lee, lee, bot, "acme") is None
    assert check_approver(MINE, lee, None, bot, "acme") is not None
    assert check_answer((MINE, LEAD), lee, lee, bot, "acme") == check_answer((MINE, LEAD), BOSS, lee, bot, "acme") == ()
    assert [f.field for f in check_answer((LEAD,), lee, lee, bot, "acme")] == ["step_up.lead.approvers"]
    assert [f.field for f in check_answer((MINE, LEAD), User("x", tenant="acme"), lee, bot, "acme")] == [
        "step_up.mine.approvers",
        "step_up.lead.approvers",
    ]
    assert check_answer((), lee, lee, bot, "acme") != ()


@pytest.mark.parametrize(
    ("old", "new", "got", "expected"),
    [
        ("{user: true}", "{user: true, group: leads}", "group and user", "exactly one of group, user: true"),
        ("{user: true}", "{count: 1}", "no approvers", "exactly one of group, user: true"),
        ("{user: true}", "{user: true, count: 1}", "count beside user", "no count"),
        ("{user: true}", "{user: true, not: [requester]}", "not beside user", "no not"),
        ("{user: true}", "{user: false}", "false", "true"),
        (", for_user: {same_tenant: true}", "", "true", "nobody stands behind this agent"),
    ],
)
def test_a_rule_that_nobody_or_too_many_could_answer_does_not_load(old: str, new: str, got: str, expected: str) -> None:
    with pytest.raises(WorkflowError) as wrong:
        load(WORKFLOW.replace(old, new, 1))
    assert any(got in p.got and expected in p.expected for p in wrong.value.problems), str(wrong.value)
