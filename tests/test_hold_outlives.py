"""A hold lives as long as its rule says, whatever its run's life: the run is kept for it, and takes no new call in between."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agentgate import Agent, Allow, Reason, User
from agentgate.decision.answer import StepUp
from agentgate.values.refusal import AnswerCode, AnswerRefused, RunRefused
from tests.shop import BOSS, LEE, ORDER, WEEKDAY, looked_up, reasons, refusals, run_of
from tests.test_conversation import LIFE, Opened, gates, over, refund, refunded, refused, shards, talk  # noqa: F401 - fixtures

DEAR = "Please refund 120.00 EUR for order ORD-10023344"
WHO: Any = {"tenant": "acme", "user": LEE, "agent": Agent("bot")}


def held(run: Any) -> str:
    looked_up(run)
    answer = refund(run, amount="120.00")
    assert isinstance(answer, StepUp)
    return answer.hold.id


def test_a_yes_after_the_end_counts_for_that_call_and_for_whoever_comes_back(gates: Opened) -> None:  # noqa: F811
    gate = gates()
    run = run_of(gate, DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    gates().release(hold, tenant="acme", by=BOSS)
    assert reasons(refund(run, amount="120.00")) == {Reason.RUN_EXPIRED}  # nobody came back
    found = gates().resume_run("acme", run.id)
    with pytest.raises(RunRefused, match="user"):
        found.continue_for(**WHO | {"user": User("kim", tenant="acme", groups=["support"])})
    found.continue_for(**WHO)
    assert reasons(found.authorize("orders.get", ORDER, tool_call_id="more")) == {Reason.RUN_EXPIRED}
    assert reasons(refund(found, "other", amount="120.00")) == {Reason.RUN_EXPIRED}  # it is not held anew
    refunded(found, amount="120.00")
    assert reasons(refund(found, amount="120.00")) == {Reason.ALREADY_REDEEMED}


def test_everything_is_judged_anew(gates: Opened) -> None:  # noqa: F811
    now = [WEEKDAY]
    gate = gates(clock=lambda: now[0])
    run = run_of(gate, DEAR, ttl=LIFE)
    gate.release(held(run), tenant="acme", by=BOSS)
    over(run)
    run.continue_for(**WHO)
    now[0] = datetime(2026, 3, 4, 22, tzinfo=UTC)
    assert Reason.HOURS in reasons(refund(run, amount="120.00"))
    with pytest.raises(RunRefused):
        run.continue_for(**WHO | {"user": User("lee", tenant="acme", groups=["others"])})
    gate.revoke("user:lee", tenants=["acme"], by="ops", reason="left")
    now[0] = WEEKDAY
    assert reasons(refund(run, amount="120.00")) == {Reason.REVOKED}


def test_words_after_the_end_only_take_back(gates: Opened) -> None:  # noqa: F811
    gate = gates()
    run = run_of(gate, DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    for words in ("Tell me when it is through", "No, do not refund it"):
        assert refused(lambda words=words: run.add_turn(words)) == (Reason.RUN_EXPIRED, "run")  # type: ignore[misc]
        assert gate.hold(hold, tenant="acme").state == ("cancelled" if words.startswith("No") else "pending")
    assert gate.resume_run("acme", run.id).state.turns == (DEAR, "No, do not refund it")


def test_a_conversation_finishes_its_held_call_in_another_process_without_new_words(gates: Opened) -> None:  # noqa: F811
    run = talk(gates(), DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    gates().release(hold, tenant="acme", by=BOSS)
    found = talk(gates(), "")
    assert found.is_over
    assert reasons(found.authorize("orders.get", ORDER, tool_call_id="more")) == {Reason.RUN_EXPIRED}
    refunded(found, amount="120.00")


def test_a_call_that_waits_is_finished_in_the_run_that_follows_and_opens_nothing_else(gates: Opened) -> None:  # noqa: F811
    run = talk(gates(), DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    after = talk(gates(), "What is the weather?")
    still = refund(after, "asked-again", amount="120.00")
    assert isinstance(still, StepUp)  # it still waits, for the same person
    assert still.hold.id == hold
    assert Reason.INTENT_ABSENT in reasons(refund(after, "other", amount="1.00"))
    gates().release(hold, tenant="acme", by=BOSS)
    assert Reason.INTENT_ABSENT in reasons(refund(after, "other", amount="1.00"))
    refunded(after, "by-any-id", amount="120.00")
    assert Reason.INTENT_ABSENT in reasons(refund(after, "once-more", amount="120.00"))


def test_a_host_without_state_finds_the_released_call_again_and_holds_none_anew(gates: Opened) -> None:  # noqa: F811
    hold = held(talk(gates(), DEAR))
    again = refund(talk(gates(), "Is it done?"), "another-id", amount="120.00")
    assert isinstance(again, StepUp)
    assert again.hold.id == hold
    assert len(gates().holds("acme")) == 1
    gates().release(hold, tenant="acme", by=BOSS)
    refunded(talk(gates(), "And now?"), "third-id", amount="120.00")
    anew = refund(talk(gates(), "Please refund 120.00 EUR for order ORD-10023344 once more"), "fourth", amount="120.00")
    assert isinstance(anew, StepUp)  # one yes, one act
    assert anew.hold.id != hold


@pytest.mark.parametrize("ended", ["closed", "closed before", "denied"])
def test_a_hold_of_a_closed_conversation_is_answered_by_nobody(gates: Opened, ended: str) -> None:  # noqa: F811
    gate = gates(denials_per_run=1)
    run = talk(gate, DEAR, ttl=LIFE)
    hold = held(run)
    if ended == "closed before":
        over(run)
    if ended == "denied":
        refund(run, "wrong", order_id="ORD-00000000")
    else:
        gate.close_conversation("chat-7", workflow="shop.refund", **WHO)
    with pytest.raises(AnswerRefused) as no:
        gate.release(hold, tenant="acme", by=BOSS)
    assert no.value.code is AnswerCode.STATE
    assert "cancelled" in str(no.value)
    assert refused(lambda: talk(gate, ""))[1] == "conversation"
    assert any(record["type"] == "hold_answer_refused" for record in refusals(gate))
    assert not isinstance(refund(run, amount="120.00"), Allow)
