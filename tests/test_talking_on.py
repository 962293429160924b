"""Talking on while a call is held: a turn that denies or changes the act withdraws the hold, any other leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate.decision.answer import Allow, StepUp
from agentgate.decision.hold import State
from agentgate.gate.run import Run
from agentgate.integrations.langchain import definition_of
from tests.langchain_shop import LEAD, ORDER, Shop, tool_server

OTHER = "ORD-10023355"
GET = ("orders.get", {"order_id": ORDER})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with tool_server() as served:
        yield Shop(tmp_path, served, total="150.00")


def held(shop: Shop, run: Run) -> StepUp:
    """A refund of 150 that waits for a lead."""
    allowed = run.authorize(*GET, tool_call_id="read")
    assert isinstance(allowed, Allow)
    with run.redeem(allowed.token, tool=GET[0], args=GET[1]) as call:
        call.record_result({"total": "150.00", "currency": "EUR"})
    decision = ask(shop, run)
    assert isinstance(decision, StepUp)
    return decision


def ask(shop: Shop, run: Run) -> Any:
    return run.authorize(*DEAR, tool_call_id="c1", definition=definition_of(shop.tool(DEAR[0])))


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("No, don't refund it", "cancelled"),
        ("Change it to 50 EUR", "cancelled"),
        ("make it 50.00 EUR please", "cancelled"),
        ("I meant 50 EUR", "cancelled"),
        ("It should be 50 EUR", "cancelled"),
        ("50 EUR is enough", "cancelled"),
        ("50", "cancelled"),
        ("Can you refund 50 EUR?", "cancelled"),
        (f"Use {OTHER}", "cancelled"),
        (f"Refund {OTHER}", "cancelled"),
        ("order 10023355", "cancelled"),
        (f"Thanks! {OTHER}", "cancelled"),
        ("also make it 50 EUR", "cancelled"),  # an amount is never one more
        ("Any news on my refund?", "pending"),
        ("Thanks!", "pending"),
        (f"Where is my parcel {OTHER}?", "pending"),
        ("I've been waiting for 20 minutes", "pending"),
        (f"Please also refund {OTHER}", "pending"),
        (f"Yes, {ORDER} is right", "pending"),
        ("150 EUR is right", "pending"),
        ("Is kim@acme.example the address that you have?", "pending"),
        ("My address is kim@acme.example", "pending"),  # of a kind that the call does not have
    ],
)
def test_a_turn_that_denies_or_changes_the_act_withdraws_it_and_any_other_does_not(shop: Shop, said: str, state: State) -> None:
    run = shop.run()
    hold = held(shop, run).hold
    run.add_turn(said)
    assert shop.gate.hold(hold.id, tenant="acme").state == state


def test_a_yes_that_was_given_before_the_change_lets_nothing_run(shop: Shop) -> None:
    run = shop.run()
    hold = held(shop, run).hold
    shop.gate.release(hold.id, tenant="acme", by=LEAD)
    run.add_turn("I meant 50 EUR")
    again = ask(shop, run)
    assert isinstance(again, StepUp)  # a person is asked anew, about what the user says now
    assert again.hold.question.words[-1] == "I meant 50 EUR"


def test_a_change_counts_in_whichever_process_it_is_said(shop: Shop) -> None:
    run = shop.run()
    hold = held(shop, run).hold
    shop.gate.resume_run("acme", run.id).add_turn("make it 50 EUR")
    assert shop.gate.hold(hold.id, tenant="acme").state == "cancelled"


def test_what_the_question_hides_may_be_what_changes(shop: Shop) -> None:
    path = shop.directory / "refund.yaml"
    path.write_text(path.read_text().replace("show: [order_id, amount, currency]", "show: [order_id]"))
    from tests.langchain_shop import ISSUER, Gate

    with Gate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://") as gate:
        shop.gate = gate
        run = shop.run()
        hold = held(shop, run).hold
        run.add_turn("It should be 50 EUR")
        assert gate.hold(hold.id, tenant="acme").state == "cancelled"
