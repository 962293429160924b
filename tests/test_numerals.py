"""Numbers in words: a whole run of number words is one number or none, and counts as no amount and no id."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.language.prompt import MAX_TURN, Prompt
from agentgate.language.spans import entities
from agentgate.values.currencies import CURRENCIES

TODAY = date(2024, 5, 15)
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
ONES = _ONES.split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def spelled(number: int, link: str, join: str) -> str:
    """A number in words, from the largest part to the smallest."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (link + ONES[number % 10] if number % 10 else "")
    name, size = ("thousand", 1000) if number >= 1000 else ("hundred", 100)
    large, rest = divmod(number, size)
    return f"{spelled(large, link, join)} {name}" + (join + spelled(rest, link, join) if rest else "")


def numbers(text: str) -> list[tuple[str, str, str]]:
    """Everything in a text that has a number as key: type, number, currency."""
    return [(e.type, str(e.key), e.currency) for e in entities(text, TODAY) if isinstance(e.key, Decimal)]


@given(st.integers(0, 999_999), st.sampled_from(["-", " "]), st.sampled_from([" ", " and "]), st.sampled_from([str, str.upper, str.title]))
def test_every_number_in_words_is_that_number(number, link, join, case):
    words = case(spelled(number, link, join))
    assert numbers(f"Take {words}.") == ([] if number == 1 else [("count", str(number), "")])
    for name, currency in (("euros", "EUR"), ("EUR", "EUR"), ("Canadian dollars", "CAD"), ("pounds", "GBP")):
        assert numbers(f"Pay {words} {name} to Ann.") == [("money", str(number), currency)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("thirty-five euros", ("money", "35", "EUR")),
        ("a hundred dollars", ("money", "100", "USD")),
        ("an hundred euro", ("money", "100", "EUR")),
        ("a thousand and five bucks", ("money", "1005", "USD")),
        ("twelve hundred euros", ("money", "1200", "EUR")),
        ("5 thousand US dollars", ("money", "5000", "USD")),
        ("one euro", ("money", "1", "EUR")),
        ("twenty\nfive yen", ("money", "25", "JPY")),
        ("two of them", ("count", "2", "")),
        ("two real friends", ("count", "2", "")),
        ("a hundred", ("count", "100", "")),
    ],
)
def test_a_number_in_words_is_money_beside_a_currency_only(text, found):
    assert numbers(f"It is {text}, please") == [found]


@pytest.mark.parametrize(
    "text",
    [
        "one of them",
        "no one",
        "the other one",
        "one day",
        "a second",
        "the second",
        "a couple",
        "half of it",
        "3 dozen eggs",
        "twelve fifty",
        "twelve fifty euros",
        "nineteen eighty-four",
        "fifty-fifty",
        "seven-eleven",
        "two hundred and four hundred euros",
        "two thousand, four hundred and twenty euros",
        "two million euros",
        "five million five hundred euros",
        "five thousand million",
        "2 million",
        "two lakh rupees",
        "several hundred euros",
        "a few thousand euros",
        "half a thousand euros",
        "two hundreds",
        "twenty hundred",
        "twelve hundred thousand euros",
        "two thousand twelve hundred euros",
        "zero thousand euros",
        "zero hundred euros",
        "two and a half euros",
        "a hundred and a half",
        "two thirds of it",
        "two point five euros",
        "zero point two five euros",
        "minus five euros",
        "fifty cents",
        "five euros and twenty cents",
        "twenty      five euros",
        "5000  hundred",
        "1.5  million",
        "five-star",
        "two-factor",
        "twenty five-year bonds",
        "twenty-first",
        "twenty first",
        "twenty/five euros",
        "\u017feven euros",
        "\u017fix hundred euros",
        "f\u0131ve euros",
        "fiveeuros",
        "five@acme.example",
        "five.txt",
    ],
)
def test_what_is_no_number_or_a_part_of_one_names_nothing(text):
    assert numbers(f"Pay {text}, please") == []


@pytest.mark.parametrize(
    ("text", "left"), [("five dollars fifty", "5"), ("1,500 thousand euros", "500000"), ("five hundred thousand euros", "5")]
)
def test_no_amount_is_cut_out_of_a_longer_one(text, left):
    assert not any(kind == "money" and number == left for kind, number, _ in numbers(f"Pay {text}"))


@given(st.lists(st.sampled_from([*ONES, *TENS[2:], "hundred", "thousand", "and", "a", "euros", ",", "-", "point", "half"]), max_size=8))
def test_an_amount_is_the_whole_run_before_its_currency(words):
    """Where money is named, no number word stands before its own."""
    text = " ".join(words)
    for entity in entities(text, TODAY):
        if entity.type == "money":
            before = text[: entity.start].split()
            assert not before or before[-1] not in {*ONES, *TENS[2:], "hundred", "thousand", "point", "half"}


def test_a_count_is_no_amount_and_no_id():
    said = Prompt.of(("Cancel three of my appointments and pay two of the bills",), TODAY)
    for number in (2, 3):
        assert said.words("integer", Decimal(number))
        assert said.words("number", Decimal(number))
        assert said.words("money", Decimal(number), "EUR") is None
        assert said.words("id", str(number)) is None
    assert not said.holds("money")
    assert not said.holds("id")


def test_an_amount_in_words_is_of_its_currency_only():
    said = Prompt.of(("Pay thirty-five euros to Ann",), TODAY)
    assert said.words("money", Decimal(35), "EUR")
    assert said.words("money", Decimal(35), "USD") is None
    assert said.words("money", Decimal(30), "EUR") is None
    assert said.words("money", Decimal(5), "EUR") is None


@pytest.mark.parametrize(
    ("turns", "kind", "number"),
    [
        (("add fifty", "no, not fifty"), "integer", 50),
        (("add fifty", "no, not 50"), "integer", 50),
        (("pay 50", "no, not fifty"), "money", 50),
        (("pay fifty euros", "do not pay 50 euros"), "money", 50),
        (("do not pay fifty euros",), "money", 50),
    ],
)
def test_a_number_is_denied_however_it_is_written(turns, kind, number):
    assert Prompt.of(turns, TODAY).words(kind, Decimal(number), "EUR") is None


@pytest.mark.parametrize("currency", ["won", "real", "rand", "pound"])
def test_a_word_that_is_no_currency_to_most_makes_no_amount(currency):
    assert currency in CURRENCIES
    assert numbers(f"two {currency} things") == [("count", "2", "")]


@pytest.mark.parametrize(
    ("text", "number"),
    [("close #42", "42"), ("merge PR #42.", "42"), ("sparrow-web#42 is done", "42"), ("(#42)", "42"), ("!42", "42"), ("acme/web!42", "42")],
)
def test_the_number_of_an_issue_is_a_number_and_an_id(text, number):
    said = Prompt.of((text,), TODAY)
    assert said.words("id", number)
    assert said.words("integer", Decimal(number))
    assert said.words("channel", number) is None


@pytest.mark.parametrize(
    "text", ["#42a", "#042", "#0", "##42", "x@#42", "#42-43", "#42/43", "#1234567890", "ORD-7#42", "#42x", "not #42", "a#42b"]
)
def test_what_is_no_number_of_an_issue_names_none(text):
    said = Prompt.of((text,), TODAY)
    assert said.words("id", "42") is None
    assert said.words("id", "2") is None
    assert said.words("integer", Decimal(42)) is None


def test_a_denied_issue_is_not_named():
    said = Prompt.of(("close #41 and #42, but not #42",), TODAY)
    assert (said.words("id", "41"), said.words("id", "42")) == ("41", None)


@pytest.mark.parametrize("unit", ["twenty ", "hundred and ", "a hundred ", "five euros ", "one ", "#4 ", "x#4 ", "twenty-", "5 thousand, "])
def test_a_longest_turn_of_number_words_ends(unit):
    """Not a measurement: quadratic work on a longest turn takes minutes."""
    start = time.process_time()
    Prompt.of(((unit * MAX_TURN)[:MAX_TURN],), TODAY)
    assert time.process_time() - start < 10
