"""Days and times of day as people write them: "2024-05-26", "26.05.2024", "May 26th", "next Friday", "in two weeks"; "10:30", "3 p.m.".

Rules: a day in words is read on a day, the run's own; what two people would read differently ("next Friday" on a Monday, 05/06/2024)
names none, and so does a day that no calendar has. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta

from agentgate.entities import normal

_MONTHS = {
    m: i
    for i, names in enumerate(
        (
            "jan january",
            "feb february",
            "mar march",
            "apr april",
            "may",
            "jun june",
            "jul july",
            "aug august",
            "sep sept september",
            "oct october",
            "nov november",
            "dec december",
        ),
        1,
    )
    for m in names.split()
}
_LONGEST_FIRST = sorted(_MONTHS, key=len, reverse=True)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FEW = {w: n for n, w in enumerate("a one two three four five six seven eight nine ten".split(), 0)} | {"a": 1, "one": 1, "an": 1}
_NEAR = {"today": 0, "tomorrow": 1, "yesterday": -1, "the day after tomorrow": 2, "the day before yesterday": -2}

_MONTH = f"(?:{'|'.join(_LONGEST_FIRST)})" + r"\.?"
_WEEKDAY = f"(?:{'|'.join(_WEEKDAYS)})"
_OF_MONTH = "[0-9]{1,2}(?:st|nd|rd|th)?"
_YEAR = "(?:,? [0-9]{4})?"
_SPAN = f"(?:[0-9]{{1,3}}|{'|'.join(_FEW)}) (?:day|week)s?"
_RELATIVE = (
    f"the day after tomorrow|the day before yesterday|today|tomorrow|yesterday|in {_SPAN}|{_SPAN} (?:from (?:now|today)|ago)"
    f"|(?:this |next |last |coming )?{_WEEKDAY}"
)


def _by_first_letter(beginnings: Iterable[str]) -> str:
    """Patterns that begin with a letter, of any case: most words are told from all of them by their first letter."""
    after: dict[str, list[str]] = {}
    for beginning in beginnings:
        after.setdefault(beginning[0], []).append(beginning[1:])
    return "|".join(f"[{first}{first.upper()}](?i:{'|'.join(rest)})" for first, rest in after.items())


# How a day, or the time "noon", begins where it begins with a letter.
BEGINS = _by_first_letter(
    [
        *(rf"{month}\.? (?:the )?[0-9]" for month in _LONGEST_FIRST),
        *(*_WEEKDAYS, "today", "tomorrow", "yesterday", "noon", "the day ", f"in {_SPAN}"),
        *(f"{how} {_WEEKDAY}" for how in ("this", "next", "last", "coming")),
        *(f"{few} (?:day|week)" for few in _FEW),
    ]
)
_BEGUN = rf"(?={BEGINS}|[0-9]{{1,3}}(?i:st|nd|rd|th)? [^\W\d_])"  # without this there is no day in words
DAY = (
    r"(?:[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}|[0-9]{1,2}(?:\.[0-9]{1,2}\.|/[0-9]{1,2}/)[0-9]{4}"
    rf"|{_BEGUN}(?i:"
    rf"(?:{_WEEKDAY},? (?:the )?)?(?:{_MONTH} (?:the )?{_OF_MONTH}{_YEAR}|{_OF_MONTH}(?: of)? {_MONTH}{_YEAR})|{_RELATIVE}))"
)
CLOCK = r"(?:[0-9]{1,2}:[0-9]{2}(?:\s?[AaPp]\.?[Mm]\b)?|[0-9]{1,2}\s?[AaPp]\.?[Mm]\b|[nN](?i:oon))"

_NUMBERS = re.compile("[0-9]+")
_LETTERS = re.compile("[a-z]+")
_IN_NUMBERS = re.compile("[0-9./-]+")
_AWAY = re.compile(f"([0-9]+|{'|'.join(_FEW)}) (day|week)")
_HOUR = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?\s?([AaPp])?\.?[Mm]?")
_BESIDE_MONTH = frozenset({*_WEEKDAYS, "the", "of", "st", "nd", "rd", "th"})


def read_day(text: str, today: date) -> str | None:
    """The day that words of the form `DAY` name on a day, as ISO 8601; None where two readings differ or it does not exist."""
    if _IN_NUMBERS.fullmatch(text):
        return _numeric(text) if "-" not in text else text if normal("date", text) else None
    lower = text.lower()
    if lower in _NEAR:
        return _iso(today, _NEAR[lower])
    if " day" in lower or " week" in lower:
        return _away(lower, today)
    numbers = _NUMBERS.findall(lower)
    if not numbers:
        return _weekday(lower, today)
    month = next((word for word in _LETTERS.findall(lower) if word not in _BESIDE_MONTH), "")
    try:
        return date(int(numbers[1]) if len(numbers) > 1 else today.year, _MONTHS[month], int(numbers[0])).isoformat()
    except (ValueError, KeyError):
        return None


def _iso(today: date, days: int) -> str | None:
    try:
        return (today + timedelta(days=days)).isoformat()
    except OverflowError:
        return None


def _numeric(text: str) -> str | None:
    """``2024/05/26``, ``26.05.2024``, and ``26/05/2024`` or ``05/26/2024`` where only one of them is a day."""
    parts = [int(part) for part in _NUMBERS.findall(text)]
    orders = [parts] if parts[0] > 31 else [[parts[2], parts[1], parts[0]]] + ([[parts[2], parts[0], parts[1]]] if "/" in text else [])
    found = set()
    for year, month, of_month in orders:
        try:
            found.add(date(year, month, of_month).isoformat())
        except ValueError:
            continue
    return found.pop() if len(found) == 1 else None


def _away(text: str, today: date) -> str | None:
    """``in 3 days``, ``two weeks ago``, ``a week from today``."""
    found = _AWAY.search(text)
    if found is None:  # an old letter in it, as in "six" with a long s
        return None
    days = (int(found[1]) if found[1].isdigit() else _FEW[found[1]]) * (7 if found[2] == "week" else 1)
    return _iso(today, -days if text.endswith("ago") else days)


def _weekday(text: str, today: date) -> str | None:
    """A weekday's coming day; with next or last only where "the coming one" and "that of the other week" are the same day."""
    how, _, name = text.rpartition(" ")
    if name not in _WEEKDAYS:
        return None
    ahead = (_WEEKDAYS.index(name) - today.weekday()) % 7
    other = _WEEKDAYS.index(name) < today.weekday()  # the coming one is in the next week
    if ahead == 0:
        return {"this": today.isoformat(), "next": _iso(today, 7), "last": _iso(today, -7)}.get(how)
    if how == "next":
        return _iso(today, ahead) if other else None
    if how == "last":
        return None if other else _iso(today, ahead - 7)
    if how == "this" and other:
        return None
    return _iso(today, ahead)


def read_clock(text: str) -> str | None:
    """The time of day that words of the form `CLOCK` name, as ``hh:mm``; hours over 23 are not looked at."""
    if text.lower() == "noon":
        return "12:00"
    found = _HOUR.fullmatch(text)
    if found is None:
        return None
    hour, minute = int(found[1]), int(found[2] or 0)
    if found[3]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[3].lower() == "p" else 0)
    return f"{hour:02}:{minute:02}"
