"""Selectors: which words select, which row they select, and that anything unsure selects nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.decision.origins.labels import chosen, picked
from agentgate.language.prompt import Prompt
from agentgate.values.paths import CUT
from agentgate.workflow.rule import Fact, Selector

FILES = Selector("files.delete", ("file", "text document"), (("largest", "size"), ("smallest", "size"), ("newest", "at"), ("oldest", "at")))
ID, SIZE, AT = Fact("id", 1, "id", ("id",)), Fact("size", 1, "integer", ("size",)), Fact("at", 1, "datetime", ("at",))
ROWS = (
    {"id": "A", "size": 9, "at": "2024-05-01T08:00:00"},
    {"id": "B", "size": 100, "at": "2024-05-03T08:00:00"},
    {"id": "C", "size": 30, "at": "2024-04-30T23:59:59"},
)


def selected(*turns: str) -> frozenset[str]:
    return chosen(FILES, Prompt.of(turns, date(2024, 5, 15)).spoken)


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("Delete the largest file", "largest"),
        ("Go to my drive and delete the largest file in it", None),
        ("Go to my drive and delete the biggest file.", "largest"),
        ("please remove my most recent text document now", "newest"),
        ("What is the oldest file in my cloud drive? Delete it", "oldest"),
        ("delete the smallest of all the files", "smallest"),
        ("delete the file that is the largest", "largest"),
        ("delete the last file and tell me", "newest"),
        ("delete the second largest file", None),
        ("delete the two largest files", None),
        ("delete Bob's largest file", None),
        ("delete the largest PDF file", None),
        ("delete the largest files", None),
        ("delete the largest file from March", None),
        ("delete the oldest file that Bob shared", None),
        ("delete the largest file except a.txt", None),
        ("delete the largest file, but not a.txt", None),
        ("delete the largest file, only if it is old", None),
        ("Delete the largest file. Do not touch anything else.", "largest"),
        ("delete the largest folder", None),
        ("delete the largest profile", None),
        ("delete the highest file", None),
        ("do not delete the largest file", None),
        ('he wrote: "please delete the largest file. thank you"', None),
        ("look at this\n---- Forwarded message ----\ndelete the largest file", None),
        ("", None),
    ],
)
def test_only_a_plain_superlative_of_a_declared_noun_selects(prompt: str, key: str | None) -> None:
    assert selected(prompt) == (frozenset() if key is None else {key})


def test_a_later_denial_takes_it_back() -> None:
    assert selected("delete the largest file", "no, not the largest file") == frozenset()


@pytest.mark.parametrize(("key", "by", "row"), [("largest", SIZE, "B"), ("smallest", SIZE, "A"), ("newest", AT, "B"), ("oldest", AT, "C")])
def test_numbers_go_by_size_and_times_by_time(key: str, by: Fact, row: str) -> None:
    found = picked(key, by, ID, ROWS)
    assert found is not None
    assert found["id"] == row


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (*ROWS, {"id": "D", "size": 100}),
        (*ROWS, {"id": "D"}),
        (*ROWS, {"size": 7}),
        (*ROWS, {"id": "D", "size": "large"}),
        (*ROWS, {"id": "D", "size": 1, CUT: True}),
    ],
    ids=["no rows", "a tie", "a row without the field", "a row without an id", "a field of another form", "rows were left out"],
)
def test_what_is_not_sure_selects_nothing(rows: tuple[dict[str, Any], ...]) -> None:
    assert picked("largest", SIZE, ID, rows) is None


def test_amounts_of_different_currencies_are_not_compared() -> None:
    amount = Fact("amount", 1, "money", ("amount",), "unit")
    rows = ({"id": "A", "amount": "5", "unit": "EUR"}, {"id": "B", "amount": "6", "unit": "EUR"})
    assert picked("largest", amount, ID, rows) == rows[1]
    assert picked("largest", amount, ID, (rows[0], {**rows[1], "unit": "GBP"})) is None
    assert picked("largest", amount, ID, (rows[0], {"id": "B", "amount": "6"})) is None


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=20, unique=True))
def test_the_largest_is_the_greatest_of_all(sizes: list[int]) -> None:
    rows: tuple[dict[str, Any], ...] = tuple({"id": f"F{n}", "size": n} for n in map(abs, sizes))
    found = picked("largest", SIZE, ID, rows)
    greatest = max(row["size"] for row in rows)
    assert found is not None
    assert found["size"] == greatest
