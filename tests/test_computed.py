"""`computed` as an origin: one calculation that the user's own words name, over numbers that the other origins of the list admit."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgate.decision.answer import Eligible
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.language.calculation import MAX_FACTORS, MAX_NUMBERS, HeardTurn, Number, Spoken, calculation, spoken
from agentgate.language.calculation import heard as read_turn
from agentgate.language.spans import entities
from agentgate.language.turn import Turn
from agentgate.loading.definition import load_text
from agentgate.review.mutation.mutation import mutations, propose
from agentgate.review.report.past import answer as asked
from agentgate.review.report.witness import witness
from agentgate.review.scenarios.scene import Scene
from agentgate.workflow.model import Workflow
from tests.effort import examples
from tests.reference_numbers import computed as by_reference
from tests.reference_numbers import heard
from tests.test_definition import PAIR, expect_one

BILLS = """
agentgate: workflow/v1
id: bills
version: 1
title: Pay a bill
owners: [lee]
risk: high
expires: "2099-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {groups: [staff]}}
intents:
  pay: {asks_for: Pay somebody., words: [pay, send, raise], examples: [Please pay the bill]}
tools:
  bills:
    effect: read
    needs: any
    redeem: wrapper
    args: {month: {type: integer, min: "1", max: "12", from: [model], optional: true}}
    facts:
      account: {type: iban, path: '[].account'}
      title: {type: text, path: '[].title'}
      amount: {type: number, path: '[].amount'}
      mine: {type: number, path: '[].amount', named_by: [title]}
      price: {type: money, path: '[].amount', currency: currency}
      currency: {type: text, path: '[].currency'}
  read:
    effect: read
    needs: any
    redeem: wrapper
    args: {file: {type: path, from: [prompt, model]}}
    facts: {amount: {type: number, path: ., find: any, trust: named}}
  pay:
    effect: egress
    needs: [pay]
    redeem: wrapper
    args:
      amount: {type: number, from: [prompt, bills.amount, read.amount, computed], optional: true}
      returned: {type: number, from: [bills.amount, computed], optional: true}
      meant: {type: number, from: [prompt, bills.mine, computed], optional: true}
      without: {type: number, from: [prompt, bills.amount, read.amount], optional: true}
      price: {type: money, currency: currency, from: [prompt, bills.price, computed], optional: true}
      ask: {type: number, from: [prompt, bills.amount, computed], unknown_origin: step_up, optional: true}
      currency: {in: [EUR, USD], from: [model]}
      to: {type: iban, from: [bills.account], optional: true}
step_up:
  - {id: who, for: pay, when: {ask: {origin: unknown}}, approvers: {group: leads}, timeout: 10m}
"""


def load(text: str = BILLS) -> Workflow:
    return load_text(text, "w.yaml", {}, derive)


WORKFLOW = load()


def scene(value: Any, prompt: Any, amounts: tuple[Any, ...] = (), *, arg: str = "amount", **more: Any) -> Scene:
    """Pay so much; the bills that were read have these amounts."""
    facts = {"facts.bills.amount": list(amounts)} if amounts else {"earlier.bills": None}
    base = {"call": "pay", "prompt": prompt, "args.currency": "EUR", f"args.{arg}": value, "earlier.read": None, **facts}
    return Scene.of(WORKFLOW, {**base, **{key.replace("__", "."): each for key, each in more.items()}})


def pays(value: Any, prompt: Any, amounts: tuple[Any, ...] = (), **more: Any) -> bool:
    found = scene(value, prompt, amounts, **more).decide()
    assert isinstance(found, Eligible) or {(str(f.reason)) for f in found.failures} == {"argument_origin"}, found
    return isinstance(found, Eligible)


# --- the table ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompt", "amounts", "value"),
    [
        ("Pay the difference of the two bills", (150, 120), "30"),
        ("She paid me too much, it was 20.50. Send it back", (50,), "29.50"),
        ("Pay him what is left of 100", (35.5,), "64.50"),
        ("Pay the bill minus the 20 I gave her", (80,), "60"),
        ("Pay both bills together in one go", (80, 15), "95"),
        ("Pay the bill plus a tip of 5", (80,), "85"),
        ("Raise my payment by 15", (80,), "95"),
        ("Raise my payment by 15. Change that payment accordingly", (80,), "65"),
        ("Pay half of the bill", (25,), "12.5"),
        ("Pay half of the bill", ("0.05",), "0.03"),  # a half cent goes up
        ("Pay half of the bill", ("0.05",), "0.02"),  # or to the even cent
        ("Pay a third of the bill", (100,), "33.33"),
        ("Pay a third of the bill", (200,), "66.67"),
        ("We split the bill, pay my part", (80,), "40"),
        ("We split the bill among the four of us, pay my part", (80,), "20"),
        ("Pay the double of the bill: double the amount", (80,), "160"),
        ("Pay three times the usual amount", (80,), "240"),
        ("Pay 19 % of the bill", (80,), "15.20"),
        ("Pay the bill with 10% more", (80,), "88"),
        ("Pay the bill with ten percent off", (80,), "72"),
        ("Pay an additional 19.5% of it plus a fee of 5.29", (1000,), "200.29"),
        ("Pay him my share of the 60, minus what he owes me", (12,), "18"),
    ],
)
def test_one_calculation_that_the_words_name(prompt: str, amounts: tuple[Any, ...], value: str) -> None:
    assert pays(value, prompt, amounts)
    assert not pays(value, "Pay the bill 20.50 15 5.29", amounts)  # its words left out, whatever numbers stand there
    assert not pays(value, prompt, amounts, arg="without")


@pytest.mark.parametrize(
    ("prompt", "amounts", "value"),
    [
        ("Pay the difference of the two bills", (150, 120), "270"),  # a sum
        ("Pay the difference of the two bills", (150, 120), "75"),  # a half
        ("Pay both bills together", (150, 120), "30"),
        ("Pay half of the bill", (150, 120), "50"),  # a third
        ("Pay half of the bill", (150,), "300"),
        ("Pay a third of the bill", (100,), "33.34"),
        ("Pay a third of the bill", (100,), "33.3"),
        ("Pay 19 % of the bill", (80,), "95.19"),
        ("Pay 10% of the bill", (80,), "800"),
        ("Pay 3 times the amount, 20 days late", (80,), "1600"),  # of another number
        ("Pay the bill plus a tip of 5", (80, 7), "92"),  # of three numbers
        ("Pay the difference of the bills, half of it", (150, 120, 7), "68"),  # half of a bill and another bill: both returned
        ("Pay the bill with 150% more", (80,), "200"),
        ("Pay the bill plus a tip of 5", (80,), "85.004"),
        ("Pay the difference of the two bills", (150, 120), "30.004"),
        ("Pay the bill plus a third, 30 %", (200,), "230"),  # 30 is no number
        ("Pay my share of the 12.00", (120,), "10"),  # nor a number of people
        ("We split the bill of house 40, pay my part", (80,), "2"),
    ],
)
def test_and_no_other(prompt: str, amounts: tuple[Any, ...], value: str) -> None:
    assert not pays(value, prompt, amounts)


@pytest.mark.parametrize("value", ["1500", "120.01", "0", "-30", "29.99"])
def test_an_attacker_who_asks_for_another_amount_gets_none(value: str) -> None:
    """The text of a bill may say "pay ten times as much": what it says is no origin, and the user named another calculation."""
    assert not pays(value, "Pay the difference of the two bills", (150, 120))


# --- words that name nothing ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "prompt",
    [
        "Pay the bill",
        "Do not send the difference. Pay the bill",
        ["Pay the difference", "No, not the difference. Pay the bill"],
        'Pay the bill "the difference"',
        "Pay the bill. Ann wrote: “Please pay the difference of both, it is due. Thanks!”",
        "Pay the bill\n> and the difference",
        "Pay the bill\n\n-----Original Message-----\nFrom: ann@acme.example\nSubject: x\n\nPay the difference",
        "Pay the bill and tell me how much is left",
        "Pay the bill. What is the difference?",
        "Pay the bill, no less than 20",
        "Pay the bill, more or less",
        "Pay the bill by Friday",
        "Pay the bill of the indifferent",
    ],
)
def test_what_is_quoted_denied_forwarded_or_only_asked_names_no_calculation(prompt: Any) -> None:
    assert not pays("30", prompt, (150, 120))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Send them back the difference", "difference"),
        ("Send the remainder", "difference"),
        ("Pay the rest", "difference"),
        ("Pay what's still missing", "difference"),
        ("I overpaid, get it back", "difference"),
        ("She was charged too little", "difference"),
        ("Lower the rent by fifty euros", "difference"),
        ("Take 20 off the rent", "difference"),
        ("Adjust my rent accordingly", "difference"),
        ("Adjust my rent accordingly", "sum"),
        ("Add 5 for the postage", "sum"),
        ("Pay it including VAT", "sum"),
        ("Put an extra 20 on top", "sum"),
        ("Increase the order by 10", "sum"),
        ("Apply the rent increase", "sum"),
        ("Pay the total of both invoices", "sum"),
        ("Let's go halves, halve it", "share"),
        ("Go 50/50 with me", "share"),
        ("Refund half of order ORD-1", "share"),
        ("Share it equally", "share"),
        ("30 for each of us", "share"),
        ("Their share is still open, send it", "share"),
        ("Pay her twice the amount", "multiple"),
        ("Triple what she gets", "multiple"),
    ],
)
def test_how_people_say_it(words: str, kind: str) -> None:
    assert kind in {named for named, _ in spoken((Turn(words),)).named}


@pytest.mark.parametrize(
    "words",
    [
        "Double check the bill",
        "I was charged twice, pay it",
        "I paid twice the other day",
        "Pay the third bill",
        "Pay the bill of the last quarter",
        "Pay it in half an hour",
        "Pay the gym fee",
        "Pay it at half past two",
        "Pay the total in bill.txt",
        "Pay both bills",
        "Change it to 50 by 5 pm",
        "Pay it by the 5th",
        "Share the file with Ann",
        "Look up my share price",
        "I am 100% sure",
        "I am 99% sure, pay it",
        "Send Ann 20, we went to the cinema together",
        "I was together with Ann, pay the bill",
        "Pay for me plus one",
        "Sum up the mail and pay the bill",
        "Pay the bill for the remaining tasks",
        "Pay the extra stuff on the list",
        "Pay the rest home in Bath",
        "Pay it and see the rest of the mail",
        "Pay the bill on top of the pile",
        "Pay it, I am short of time",
        "Too much work for me, pay it",
        "I take Friday off, pay the bill",
        "Pay it and take it off my list",
        "Pay the discount store",
        "Pay the gym for the second half of June",
        "Pay the half marathon",
        "We split up, pay the alimony",
        "Pay it twice as fast",
        "Pay the bill, many times what he said in 20 days was wrong",
        "Pay Ann for the times that she helped",
        "Move the payment up by 2 days",
        "Adjust the date by two weeks",
        "Change the rent to 1200 by 1 June",
        "Update the rent by 12 o'clock",
        "Pay it and change the recipient accordingly",
        "Update my address by that form",
        "Pay the bill with VAT id",
        "Pay it including the shipping address",
        "Pay the bill in difference.txt",
        "Pay the bill in the-rest/half.pdf, see https://acme.example/plus/half",
        "Pay the bill of half@acme.example",
        "Pay the bill of plus-2",
    ],
)
def test_words_that_only_look_like_it(words: str) -> None:
    found = spoken((Turn(words),))
    assert not found.named
    assert not found.percentages


def test_a_calculation_that_is_named_after_it_was_denied_is_named() -> None:
    assert pays("30", ["Do not pay the difference", "All right, pay the difference"], (150, 120))
    assert pays("60", "Don't pay the difference. Pay half of it", (150, 120))
    assert not pays("30", "Don't pay the difference. Pay half of it", (150, 120))


def test_what_is_in_no_clause_of_the_user_counts_for_nothing() -> None:
    text = "Pay half of 50, plus 7, minus 9"
    spans = [("said", 0, 14), ("denied", 24, 31)]
    said, denied = read_turn(text, spans, [*entities(text, date(2026, 5, 15))])
    assert said.named == {("share", 2)}
    assert denied.named == {("difference", 1)}
    assert said.numbers == {(Decimal(50), "")}
    assert denied.numbers == {(Decimal(9), "")}
    before = Spoken(frozenset({("difference", 0), ("sum", 0)}), numbers=frozenset({(Decimal(9), "EUR"), (Decimal(9), "")}))
    after = before.after(HeardTurn(said, denied))
    assert after.named == {("share", 2), ("sum", 0)}
    assert after.numbers == {(Decimal(9), "EUR"), (Decimal(50), "")}


# --- numbers that are none -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        ("Pay the difference to the bill of 2026-05-10", "90"),
        ("Pay the bill of the 3rd of May plus postage", "103"),
        ("Pay the bill of ORD-40 plus postage", "140"),
        ("Pay the bill #40 plus postage", "140"),
        ("1. Read it. 2. Pay the bill plus postage", "102"),
        ('Pay the bill "40 41" plus postage', "140"),
        ("Pay the bill plus postage, but not 40", "140"),
        ("Pay the bill at 10:30 plus postage", "110"),
        ("Pay the bill plus postage\n> of 40", "140"),
    ],
)
def test_a_date_an_id_the_number_of_an_item_and_a_quoted_or_denied_one_are_no_numbers(prompt: str, value: str) -> None:
    assert not pays(value, prompt, (100,))


def test_free_text_counts_only_where_a_fact_finds_numbers_in_it_and_its_source_was_named() -> None:
    notice: dict[str, Any] = {"earlier__read": {"file": "notice.txt"}, "facts__read__amount": [100]}
    assert pays("1200", "Raise my payment by what notice.txt says: adjust it accordingly", (1100,), **notice)
    assert not pays("1200", "Raise my payment by what the notice says: adjust it accordingly", (1100,), **notice)
    assert not pays("1200", "Raise my payment, see notice.txt", (1100,), **notice)


def test_a_number_with_itself_and_what_is_not_above_zero_are_none() -> None:
    assert not pays("200", "Pay the bills together", (100, 100))
    assert not pays("100", "Pay the bills together", (50,))
    assert not pays("60", "Pay the difference of the bills", (50, -10))
    assert not pays("0", "Pay the difference of the bills", (50, 50))
    assert not calculation(spoken((Turn("the difference, half, 10%"),)), [Number(Decimal(0)), Number(Decimal(-5))], Decimal("2.5"))


def test_a_row_that_does_not_count_lends_no_number() -> None:
    bills: dict[str, Any] = {"facts__bills__title": ["Gym", "Spotify"], "facts__bills__mine": [100, 700], "earlier__bills": {}}
    assert pays("50", "Pay half of the gym bill", arg="meant", **bills)
    assert not pays("350", "Pay half of the gym bill", arg="meant", **bills)
    assert not pays("600", "Pay the difference to the gym bill", arg="meant", **bills)


def test_a_payment_that_a_stranger_makes_is_a_row_and_no_more() -> None:
    """It adds a number where every row counts; what is done with it the user says."""
    assert pays("4879", "Pay the difference of the bills", (120, 4999))
    assert not pays("9998", "Pay the difference of the bills", (120, 4999))
    assert not pays("4999.5", "Pay half of the bill", (120, 4999))


def test_without_prompt_in_the_list_the_users_numbers_do_not_count() -> None:
    assert pays("30", "Pay the difference of 150 to it", (150, 120), arg="returned")
    assert pays("60", "Pay half of 150 for it", (120,), arg="returned")
    assert not pays("75", "Pay half of 150 for it", (120,), arg="returned")


def test_without_an_earlier_call_the_users_own_numbers_do() -> None:
    assert pays("75", "Pay half of 150")
    assert not pays("60", "Pay half of 150")


# --- currencies -------------------------------------------------------------------------------------------------------------------
def test_amounts_of_two_currencies_never_meet() -> None:
    bill: dict[str, Any] = {"facts__bills__price": ["100.00"], "facts__bills__currency": ["EUR"], "arg": "price"}
    assert pays("60.00", "Pay the bill minus 40 EUR", **bill, earlier__bills={})
    assert pays("60.00", "Pay the bill minus 40", **bill, earlier__bills={})
    assert not pays("60.00", "Pay the bill minus 40 USD", **bill, earlier__bills={})
    assert not pays("80.00", "Pay the bill less the twenty", **bill, earlier__bills={})  # in words it is no amount of money
    assert pays("80.00", "Pay the bill less the twenty euros", **bill, earlier__bills={})
    dollars = {**bill, "facts__bills__currency": ["USD"]}
    assert not pays("60.00", "Pay the bill minus 40", **dollars, earlier__bills={})
    assert not pays("50.00", "Pay half of the bill", **dollars, earlier__bills={})
    assert pays("60.00", "Pay the difference of 100 EUR and 40", arg="price")
    assert not pays("60.00", "Pay the difference of 100 EUR and 40 USD", arg="price")
    assert not pays("60", "Pay the difference of 100 EUR and 40 USD")  # also where the argument has none


# --- which call -------------------------------------------------------------------------------------------------------------------
def test_a_number_counts_in_whatever_call_and_row_and_what_is_computed_belongs_to_none() -> None:
    """Two bills were read, the account is the second one's: the sum of both is of both. Nothing ties it to the account."""
    second: dict[str, Any] = {
        "facts__bills#2__amount": [20],
        "facts__bills#2__account": ["DE12500105170648489890"],
        "facts__bills__account": ["DE89370400440532013000"],
        "args__to": "DE12500105170648489890",
    }
    assert pays("120", "Pay the bills together", (100,), **second)
    assert pays("50", "Pay half of the bill", (100,), **second)
    found = scene("100", "Pay half of the bill", (100,), **second).decide()
    assert not isinstance(found, Eligible)
    assert {str(f.reason) for f in found.failures} == {"one_source"}  # a fact as it was returned is still tied to its row


def test_a_person_is_asked_about_what_nobody_computes() -> None:
    known, unknown = (scene(v, "Pay half of the bill", (100,), arg="ask").decide() for v in ("50", "500"))
    assert isinstance(known, Eligible)
    assert not known.holds
    assert isinstance(unknown, Eligible)
    assert [h.rule.id for h in unknown.holds] == ["who"]


def test_what_is_computed_names_no_call() -> None:
    for value, named in (("50", False), ("100", True)):
        base = {"call": "pay", "prompt": "Pay half of 100 in 'EUR'", "args.currency": "EUR", "args.amount": value}
        found = Scene.of(WORKFLOW, base).decide()
        assert isinstance(found, Eligible)
        assert found.named is named


@pytest.mark.parametrize(
    ("prompt", "value", "others"),
    [
        ("Pay the bill plus a tip of 5", "85", ("280",)),  # of two bills
        ("Pay the bill minus the 20 I gave her", "60", ("120",)),
        ("Raise my payment by 15", "95", ("280",)),
        ("Pay the bill and the postage of 4.95", "84.95", ("280",)),
        ("Raise my payment by 3.5%", "82.8", ("280",)),
    ],
)
def test_what_is_added_or_taken_off_is_what_the_user_says(prompt: str, value: str, others: tuple[str, ...]) -> None:
    """An attacker who chooses the amount does not get two bills added up where the user says how much to add."""
    assert pays(value, prompt, (80, 200))
    assert not any(pays(other, prompt, (80, 200)) for other in others)
    assert pays("280", "Pay both of the 2 bills together", (80, 200))
    assert pays("280", prompt + ". Then pay both together", (80, 200))


def test_a_result_is_not_calculated_with_again() -> None:
    """Pay the double, read what was paid, pay the double of that, and so on: one prompt would pay any amount."""
    assert pays("200", "Pay twice the amount of the bill", (100,))
    after: dict[str, Any] = {"earlier__pay": {}, "ago__pay": "2m", "ago__bills": "1m"}
    assert not pays("400", "Pay twice the amount of the bill", (200,), **after)
    assert pays("200", "Pay twice the amount of the bill", (200,), **after)  # read as it is, it may still be paid
    assert pays("400", "Pay twice the amount of the bill", (200,), **{**after, "ago__bills": "3m"})
    again = load(BILLS.replace("read.amount, computed], optional", "pay.amount, computed], optional"))
    case = {"call": "pay", "prompt": "Pay twice the bill", "args.currency": "EUR", "earlier.pay.amount": "200", "earlier.bills": None}
    assert isinstance(Scene.of(again, {**case, "args.amount": "200"}).decide(), Eligible)
    assert not isinstance(Scene.of(again, {**case, "args.amount": "400"}).decide(), Eligible)


# --- how much work -------------------------------------------------------------------------------------------------------------------
def test_of_too_many_numbers_nothing_is_computed() -> None:
    most = tuple(range(1000, 1000 + 3 * MAX_NUMBERS, 3))
    assert pays("3", "Pay the difference", most)
    assert not pays("3", "Pay the difference", (*most, 5000))
    found = scene("3", "Pay the difference", (*most, 5000))
    row = next(r for r in asked(found).rows if r.condition.argument == "amount" and r.condition.word == "from")
    assert f"of more than {MAX_NUMBERS} numbers" in str(row.origins[0])


def test_of_too_many_shares_multiples_and_percentages_nothing_is_computed() -> None:
    many = "Pay " + ", ".join(f"{n}%" for n in range(1, MAX_FACTORS + 2)) + " of it"
    assert not pays("1", many, (100,))
    assert pays("1", many.replace("17%", "some"), (100,))


def test_the_decision_stays_cheap() -> None:
    words = spoken((Turn("the difference, plus, half, split by 3, 4, 5, twice the " + ", ".join(f"{n}%" for n in range(1, 10))),))
    numbers = [Number(Decimal(n) / 7, "", own=True) for n in range(7_000_003, 7_000_003 + MAX_NUMBERS * 1001, 1001)]
    start = time.thread_time()
    for _ in range(10):
        assert calculation(words, numbers, Decimal("123456789.01")) is None
    assert (time.thread_time() - start) / 10 < 0.2


@pytest.mark.parametrize(
    "unit", ["cut ", "by 5 ", "adjust by ", "twenty ", "a third ", "tell me ", "5 % ", "what ", "add the extra ", "- ", "half of the own "]
)
def test_a_long_prompt_is_read_in_one_pass(unit: str) -> None:
    def seconds(size: int) -> float:
        start = time.thread_time()
        spoken((Turn(unit * (size // len(unit))),))
        return time.thread_time() - start

    seconds(100)
    assert seconds(65_536) < 20 * max(seconds(8_192), 0.02)


# --- properties -------------------------------------------------------------------------------------------------------------------
PHRASES = (
    *("the difference", "minus 5", "plus 3", "on top", "half", "split by 3", "twice the amount", "three times the amount", "10%", "25%"),
    *("not the difference", "20 EUR", "7 USD", "adjust it accordingly", "nothing of it", "99.99", "'10%'", "0.03"),
)
AMOUNTS = st.lists(
    st.sampled_from([Decimal(n) for n in ("0.01", "0.05", "1", "3", "5", "7.77", "10", "33.33", "100", "1000.5")]), max_size=5
)


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.sampled_from(PHRASES), max_size=4), AMOUNTS, st.data())
def test_what_is_computed_is_one_of_the_stated_calculations(phrases: list[str], amounts: list[Decimal], data: st.DataObject) -> None:
    turns = (Turn("Pay " + ", ".join(phrases)),)
    said, other = spoken(turns), heard(turns)
    assert (set(said.named), set(said.percentages), set(said.numbers), set(said.whole)) == (
        other.named,
        {Decimal(p.numerator) for p in other.percentages},
        other.amounts,
        other.whole,
    )
    numbers = {Number(*n, own=True) for n in said.numbers} | {Number(a) for a in amounts if (a, "") not in said.numbers}
    known = [n.value for n in numbers] or [Decimal(1)]
    x, z = data.draw(st.sampled_from(known)), data.draw(st.sampled_from(known))
    base = data.draw(st.sampled_from([x, x / 2, x / 3, x * 2, x * 3, x / 10, x * Decimal("1.25"), x * Decimal("0.75")]))
    wanted = data.draw(st.sampled_from([base, base + z, abs(base - z), base + Decimal("0.01")])).quantize(Decimal("0.01"))
    found = calculation(said, numbers, wanted)
    assert (found is not None) == by_reference(other, set(other.amounts), {(a, "") for a in amounts}, wanted), found
    if not said.named and not said.percentages:
        assert found is None


@settings(max_examples=examples(60, 20), deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=2, max_size=4), st.integers(1, 100), st.sampled_from(["the difference", "the sum total", "half"])
)
def test_the_order_of_rows_does_not_matter(amounts: list[int], value: int, words: str) -> None:
    answers = {pays(str(value), f"Pay {words} of the bills", order) for order in [*permutations(amounts)][:6]}
    assert len(answers) == 1


# --- loading ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{type: integer, min: '1', max: '9', from: [prompt, @@computed]}", "a type that is calculated: money, number"),
        ("{type: iban, from: [prompt, @@computed]}", "a type that is calculated: money, number"),
        ("{type: number, from: [prompt, @@computed, model]}", "one of the two"),
        ("{type: number, from: [@@computed]}", "prompt or tool.fact beside it"),
        ("{type: number, max_items: 2, from: [prompt, @@computed]}", "one value"),
    ],
)
def test_where_computed_says_nothing_it_is_refused(rule: str, expected: str) -> None:
    at = 0 if "[@@" in rule else 1
    expect_one(PAIR.replace("{X}", rule), f"tools.send.args.x.from[{at}]", expected)


def test_it_is_no_origin_of_an_address_and_of_no_step_up() -> None:
    expect_one(
        PAIR.replace("{X}", "{text: 9, from: [model], entities: [@@computed]}"), "tools.send.args.x.entities[0]", "no address is computed"
    )
    for text, words in (
        (BILLS.replace("{origin: unknown}", "{origin: [unknown, computed]}"), "a number less to compute with would ask less often"),
        (
            BILLS.replace("from: [bills.amount, computed]", "from: [prompt, bills.amount, computed], named_first: true"),
            "beside named_first",
        ),
        (BILLS.replace("bills.amount, computed], unknown", "bills.amount, compute], unknown"), "did you mean 'computed'"),
    ):
        with pytest.raises(WorkflowError, match=words):
            load(text)


# --- what reviewers see ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["amount", "returned", "price"])
def test_the_diff_tells_that_computed_is_wider_with_a_call(name: str) -> None:
    line = next(line for line in BILLS.splitlines() if line.strip().startswith(f"{name}: {{type: ") and "computed" in line)
    without = load(BILLS.replace(line, line.replace(", computed", "")))
    found = compare(without, WORKFLOW)
    assert [f.field for f in found.wider] == [f"args.{name}.from"]
    (shown,) = [witness(without, WORKFLOW, each) for each in found.wider]
    assert shown.scene is not None, shown.reason
    assert isinstance(shown.scene.decide(WORKFLOW), Eligible)
    assert not isinstance(shown.scene.decide(without), Eligible)
    assert compare(WORKFLOW, without).only_narrower


def test_an_explanation_shows_the_calculation() -> None:
    found = asked(scene("30", "Pay the difference of the two bills", (150, 120)))
    row = next(r for r in found.rows if r.condition.argument == "amount" and r.condition.word == "from")
    assert [str(o) for o in row.origins] == ["computed: 150 - 120 (the difference)"]
    other = str(asked(scene("31", "Pay the difference")))
    assert "the result of one calculation that the user names" in other


def test_what_is_sensitive_stays_masked() -> None:
    text = BILLS.replace(
        "from: [bills.amount, computed], optional: true", "from: [bills.amount, computed], optional: true, sensitive: true"
    )
    base = {"call": "pay", "prompt": "Pay half", "args.currency": "EUR", "args.returned": "512", "facts.bills.amount": [1024]}
    found = asked(Scene.of(load(text), base))
    row = next(r for r in found.rows if r.condition.argument == "returned" and r.condition.word == "from")
    assert [o.source for o in row.origins] == ["computed"]
    assert "512" not in str(row)
    assert "1024" not in str(row)


def test_every_condition_on_it_can_be_covered_by_a_case() -> None:
    left = {m.path for m in propose(WORKFLOW).left}
    assert left == {m.path for m in propose(load(BILLS.replace(", computed", ""))).left}
    assert [m.words for m in mutations(WORKFLOW).found if m.path.endswith("args.without.from")] == ["dropped", "may also be computed"]
