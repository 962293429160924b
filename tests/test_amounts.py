"""Amounts in thousands and millions, percentages and dozens: each names its number, and what may be something else names none."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.language.prompt import MAX_TURN, Prompt
from agentgate.language.spans import entities
from agentgate.workflow.rule import Rule, Source

TODAY = date(2024, 5, 15)


def read(text: str) -> list[tuple[str, str, str]]:
    """Everything in a text that has a number as key: type, number, currency."""
    return [(e.type, str(e.key), e.currency) for e in entities(text, TODAY) if isinstance(e.key, Decimal)]


# --- thousands and millions --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "number", "currency"),
    [
        ("\u20ac52k", "52000", "EUR"),
        ("52k EUR", "52000", "EUR"),
        ("52K\u20ac", "52000", "EUR"),
        ("EUR 25.2k", "25200", "EUR"),
        ("1.2345k USD", "1234.5", "USD"),
        ("0.5m USD", "500000", "USD"),
        ("1,200k euros", "1200000", "EUR"),
        ("52k Canadian dollars", "52000", "CAD"),
        ("1.2m EUR", "1200000", "EUR"),
        ("$1.2M", "1200000", "USD"),
        ("1.2 million euros", "1200000", "EUR"),
        ("\u00a35 million", "5000000", "GBP"),
        ("5 MAD", "5", "MAD"),
        ("5MAD", "5", "MAD"),
        ("5 MXN", "5", "MXN"),
        ("5KRW", "5", "KRW"),
    ],
)
def test_thousands_and_millions_beside_a_currency_are_an_amount(text: str, number: str, currency: str) -> None:
    assert read(f"Pay {text} to Ann.") == [("money", number, currency)]


@pytest.mark.parametrize(
    "text",
    [
        "two million euros",
        "5 point 2 million euros",
        "half 2 million euros",
        "$5 million five hundred",
        "$5 hundred",
        "$5 thousand million",
        "\u20ac5 billion",
        "1.2bn EUR",
        "1,2m EUR",
        "10k won",
        "2m real",
        "5 m EUR",
        "5mm EUR",
        "2.5m",
        "2.5M",
        "2.5 million",
        "5 million people",
        "999999999999999k EUR",
    ],
)
def test_a_million_of_anything_else_or_a_part_of_one_is_no_amount(text: str) -> None:
    assert not [found for found in read(f"Pay {text} to Ann") if found[0] in {"money", "count"}]


@given(st.decimals(min_value=1, max_value=99999, places=2), st.sampled_from([("k", 1000), ("K", 1000), ("m", 10**6), (" million", 10**6)]))
def test_an_amount_is_exact(amount: Decimal, sign: tuple[str, int]) -> None:
    for text in (f"{amount}{sign[0]} EUR", f"EUR {amount}{sign[0]}", f"\u20ac{amount}{sign[0]}"):
        said = Prompt.of((f"Pay {text} to Ann",), TODAY)
        assert said.words("money", amount * sign[1], "EUR")
        assert said.words("money", amount * sign[1], "USD") is None
        assert said.words("money", amount, "EUR") is None


@pytest.mark.parametrize(
    "text",
    [
        "Raise it to 34k",
        "Set 34k.",
        "Take 34K for now",
        "Set it to 34k, please",
        "Change 30k to 34k or so",
        "34k",
        "It is worth 34k, closing soon",
    ],
)
def test_thousands_without_a_currency_are_a_count(text: str) -> None:
    said = Prompt.of((text,), TODAY)
    for kind in ("number", "integer"):
        assert said.words(kind, Decimal(34000))
    for kind, key in (("money", Decimal(34000)), ("number", Decimal(34)), ("id", "34000"), ("id", "34")):
        assert said.words(kind, key, "EUR") is None


@pytest.mark.parametrize(
    "text",
    [
        "the 10k run",
        "sign me up for a 10k",
        "I run 10k on Sunday",
        "watch it in 4k",
        "a 4k monitor",
        "10k steps",
        "k8s",
        "v1.2k",
        "4kids",
        "k4",
        "seat 34k",
        "seat 34K, please",
        "order 34k",
        "34k-40k",
        "34k/40k",
        "1,2k",
        "0,34k",
        "5 point 2k",
        "34km",
        "34k_",
        "34kB",
        "#34k",
        "not 34k",
    ],
)
def test_a_k_that_may_be_something_else_names_no_number(text: str) -> None:
    said = Prompt.of((text,), TODAY)
    for number in (4, 5200, 10, 34, 1200, 2000, 4000, 10_000, 34_000, 40_000):
        assert said.words("number", Decimal(number)) is None
        assert said.words("money", Decimal(number), "EUR") is None


def test_a_seat_is_still_an_id() -> None:
    assert Prompt.of(("Book seat 34K for Ann",), TODAY).words("id", "34K")


# --- percentages -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15%", "15"),
        ("5 % off", "5"),
        ("15 percent", "15"),
        ("15 per cent", "15"),
        ("19.5%", "19.5"),
        ("19.5 %", "19.5"),
        ("2 pct", "2"),
        ("eight percent", "8"),
        ("one per cent", "1"),
        ("twenty %", "20"),
        ("twenty-five per cent", "25"),
        ("a hundred percent", "100"),
        ("two hundred and ten percent", "210"),
    ],
)
def test_a_percentage_is_a_number_and_neither_money_nor_id(text: str, number: str) -> None:
    assert read(f"Take {text}, please") == [("percent", number, "")]
    said = Prompt.of((f"Take {text}, please",), TODAY)
    assert said.words("number", Decimal(number))
    assert said.words("integer", Decimal(number)) is None
    assert said.words("money", Decimal(number), "EUR") is None
    assert said.words("id", number) is None
    assert not said.holds("id")
    assert not said.holds("money")


@pytest.mark.parametrize(
    "text", ["10-15%", "-15%", "15%20", "15%-20%", "1,000.15%", "two point fifteen percent", "half fifteen percent", "v15%", "not 15%"]
)
def test_a_part_of_a_longer_number_is_no_percentage(text: str) -> None:
    assert Prompt.of((f"Take {text}" if text[0] != "n" else text,), TODAY).words("number", Decimal(15)) is None


@pytest.mark.parametrize("turns", [("take 15%", "no, not 15"), ("take 15%", "no, not fifteen percent"), ("take 15", "do not take 15%")])
def test_a_percentage_is_denied_however_it_is_written(turns: tuple[str, ...]) -> None:
    assert Prompt.of(turns, TODAY).words("number", Decimal(15)) is None


def test_a_percentage_is_not_the_number_that_is_computed_with_it() -> None:
    said = Prompt.of(("Raise my rent by 15%",), TODAY)
    plain = Rule("rate", 1, "number", sources=(Source("prompt"),))
    computed = Rule("rent", 1, "number", sources=(Source("prompt"), Source("computed")))
    assert said.words(plain.said_as, Decimal(15))
    assert said.words(computed.said_as, Decimal(15)) is None
    assert said.holds(plain.said_as)
    assert not said.holds(computed.said_as)
    assert Rule("rent", 1, "money", sources=(Source("computed"),)).said_as == "money"


# --- dozens ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "a dozen eggs",
        "A Dozen",
        "half a dozen eggs",
        "a dozen dollars",
        "half a dozen euros",
        "dozens of eggs",
        "the dozen",
        "a dozen dozen",
        "a dozen hundred",
        "a dozen thousand",
        "one and a half a dozen",
        "a dozen and a half",
        "a baker's dozen",
        "a few dozen eggs",
        "several dozen",
        "3 dozen",
        "two half a dozens",
    ],
)
def test_a_dozen_and_what_belongs_to_it_names_nothing(text: str) -> None:
    assert not [found for found in read(f"Buy {text}, please") if found[1] != "2"]


@pytest.mark.parametrize(
    "unit", ["5k ", "5k EUR ", "\u20ac5k", "5 million ", "15% ", "15 % ", "half a dozen ", "a dozen ", "eight percent ", "5 "]
)
def test_a_longest_turn_of_amounts_ends(unit: str) -> None:
    """Not a measurement: quadratic work on a longest turn takes minutes."""
    start = time.process_time()
    Prompt.of(((unit * MAX_TURN)[:MAX_TURN],), TODAY)
    assert time.process_time() - start < 10
