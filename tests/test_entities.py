"""Normal forms: what is not in normal form is refused, and equal values have equal keys."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import product
from string import ascii_uppercase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentgate.values.entities import COUNTRY, TOKENISED, TYPES, normal, number, written


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("money", "1_000"),
        ("money", "①0"),
        ("money", "1e3"),
        ("money", "+5"),
        ("money", "05"),
        ("money", ".5"),
        ("money", "5."),
        ("money", "1,000"),
        ("money", True),
        ("money", float("nan")),
        ("money", float("inf")),
        ("money", 1234567890123456),
        ("money", None),
        ("money", [1]),
        ("integer", 1.5),
        ("email", "Bob@acme.example"),
        ("email", "bob@acme"),
        ("email", "bob@acme.example "),
        ("email", "bob@\u0430cme.example"),
        ("iban", "GB29 NWBK 6016 1331 9268 19"),
        ("iban", "gb29nwbk60161331926819"),
        ("url", "https://bob@evil.example/"),
        ("url", "https://Evil.example/"),
        ("url", "javascript:alert(1)"),
        ("url", "https://evil.example\\@acme.example/"),
        ("path", "../etc/passwd"),
        ("path", "a/./b"),
        ("path", "a//b"),
        ("path", "a\x00b"),
        ("date", "2024-5-1"),
        ("date", "2024-02-30"),
        ("time", "25:00"),
        ("text", "a\x1b[31m"),
        ("text", "a\u202eb"),
        ("text", "a\u200bb"),
        ("text", "e\u0301"),
        ("text", 5),
        ("boolean", 1),
        ("id", True),
        ("id", -1),
        ("id", "a b"),
        ("id", ""),
        ("phone", "0170 123"),
        ("channel", "##general"),
        ("channel", "@general"),
        ("channel", "#"),
        ("channel", "# general"),
        ("channel", "general#"),
        ("user", "@@kim"),
        ("user", "#kim"),
        ("user", "@"),
        ("user", "@kim@acme.example"),
        ("user", "\uff20kim"),
    ],
)
def test_a_value_out_of_normal_form_is_refused(kind: str, value: object) -> None:
    assert normal(kind, value) is None


@pytest.mark.parametrize(
    ("kind", "value", "key"),
    [
        ("money", "39.99", Decimal("39.99")),
        ("money", 39.99, Decimal("39.99")),
        ("money", 50, Decimal(50)),
        ("integer", 7.0, Decimal(7)),
        ("id", 7, "7"),
        ("email", "bob@acme.example", "bob@acme.example"),
        ("datetime", "2024-05-15 10:00", "2024-05-15T10:00:00"),
        ("path", "/a/b.txt", "/a/b.txt"),
        ("text", "häß\n", "häß\n"),
        ("boolean", False, False),
    ],
)
def test_a_value_in_normal_form_has_its_key(kind: str, value: object, key: object) -> None:
    assert normal(kind, value) == key


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**10), max_value=10**10, places=4))
def test_text_and_json_number_of_one_amount_have_one_key(amount: Decimal) -> None:
    assert number(format(amount, "f")) == amount
    assert number(float(amount)) in {amount, None}


@given(
    st.sampled_from(sorted(TYPES)),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())
    ),
)
@example(kind="json", value=[2**53])
def test_no_value_raises(kind: str, value: object) -> None:
    normal(kind, value)


def test_what_has_no_words_is_never_a_prompt_origin() -> None:
    assert {"boolean", "json"} == TYPES - TOKENISED


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"b": 1, "a": ["x"]}, '{"a":["x"],"b":1}'),
        ([1, "x"], '[1,"x"]'),
        ({}, "{}"),
        ("x", None),
        (7, None),
        ({"a": ["x\u202e"]}, None),
        ({"bell\x07": 1}, None),
    ],
)
def test_json_is_its_canonical_text_and_every_text_in_it_is_in_normal_form(value: object, key: str | None) -> None:
    assert normal("json", value) == key


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True))
def test_a_name_with_its_sign_is_the_name(name: str) -> None:
    assert normal("channel", "#" + name) == normal("channel", name) == name
    if name[-1].isalnum():
        assert normal("user", "@" + name) == normal("user", name) == name
    assert normal("channel", "@" + name) is normal("user", "#" + name) is None


def test_an_account_is_of_a_country_there_is() -> None:
    every = ["".join(two) for two in product(ascii_uppercase, repeat=2)]
    found = [two for two in every if re.fullmatch(COUNTRY, two)]
    assert len(found) == 250
    banks = "AD AE AL AT AZ BA BE BG BH BI BR BY CH CR CY CZ DE DJ DK DO EE EG ES FI FK FO FR GB GE GI GL GR GT HN HR HU IE IL IQ IS"
    banks += " IT JO KW KZ LB LC LI LT LU LV LY MC MD ME MK MN MR MT MU NI NL NO OM PK PL PS PT QA RO RS RU SA SC SD SE SI SK SM SO ST"
    banks += " SV TL TN TR UA VA VG XK YE"
    assert {*banks.split()} <= {*found}  # the register of IBANs


@pytest.mark.parametrize("tail", ["Z", "z", "+02:00", "-00:00", ".000", " UTC", "[UTC]"])
def test_a_datetime_has_no_zone_and_the_reader_is_told(tail: str) -> None:
    assert normal("datetime", "2026-06-03T10:00:00") == "2026-06-03T10:00:00"
    assert normal("datetime", "2026-06-03T10:00:00" + tail) is None
    assert normal("datetime", "2026-06-03T10:00" + tail) is None
    assert written("datetime") == "datetime in normal form (2026-06-03T10:00, without a zone)"
    assert written("date") == "date in normal form"
