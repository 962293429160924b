"""Days and times of day as people write them: "May 26th", "the fifth of May", "next Friday",
"in two weeks"; "10:30", "3 in the afternoon".

Rules: words for a day are relative to the run's day. What people read differently ("next
Friday" on a Monday, 05/06/2024, "the 24th", "half past two") names no day or time; neither does
a date that does not exist. "The end of May" is its last day, the first one that is not before
the run's day; "the beginning of May" and "the middle of May" name none. Pure.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, timedelta
from itertools import product

from agentgate.language.numerals import LARGER, NTH, ORDINAL, ORDINALS, VALUES
from agentgate.language.word_files import branched, listed
from agentgate.values.times import WEEKDAYS

MONTHS = "january february march april may june july august september october november december".split()
_MONTHS = {
    form: number for number, name in enumerate(MONTHS, 1) for form in (name, name[:3])
} | {"sept": 9}
_HOURS = dict([*VALUES.items()][1:13])
_FEW = {"a": 1, **dict([*_HOURS.items()][:10])}
_NEAR = {
    "today": 0,
    "tomorrow": 1,
    "yesterday": -1,
    "the day after tomorrow": 2,
    "the day before yesterday": -2,
}
_LARGE = [*LARGER, *(f"{large}s" for large in LARGER)]
_BEGINNINGS = listed("begins a day")
# How a day, a time or a number in words begins, where it begins with a letter.
BEGINS = (
    branched(
        {
            *_MONTHS,
            *WEEKDAYS,
            *VALUES,
            *NTH,
            *_LARGE,
            *_BEGINNINGS,
            *map(" ".join, product("this next last coming".split(), WEEKDAYS)),
            *map(" ".join, product(("a", "an"), _LARGE)),
            *map("in {}".format, _FEW),
        },
        lambda letter: f"[{letter}{letter.upper()}]",
    )
    + r"\b|[iI][nN] [0-9]"
)
_NAMED = f"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})"
_MONTH = rf"{_NAMED}\.?"
_WEEKDAY = f"(?:{'|'.join(WEEKDAYS)})"
_NTH = "[0-9]{1,2}(?:st|nd|rd|th)?"
_YEAR = "(?:,? [0-9]{4})?"
_SPAN = f"(?:[0-9]{{1,3}}|{'|'.join(_FEW)}) (?:day|week)s?"
_AWAY = f"{_SPAN} (?:from (?:now|today)|ago)"
_ON = f"(?:{_WEEKDAY},? (?:the )?)?"
_NTH_OF = rf"(?<!\ba\s)(?<!\bone\s){ORDINAL} of"  # not "a third of May"
_OF = f"(?:{_MONTH}{_YEAR}|(?:this|next|last) month)"
_LAST = (
    r"(?<!\btail )(?<!\bback )end of (?:the month|the year|(?:this|next) (?:month|year)"
    rf"|{_NAMED}(?:,? [0-9]{{4}}(?![0-9])|(?! (?:the )?(?:[0-9]|{ORDINAL}\b))))"
)
DAY = (
    r"(?:[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}|[0-9]{1,2}(?:\.[0-9]{1,2}\.|/[0-9]{1,2}/)[0-9]{4}"
    rf"|(?=[0-9]{{1,3}}(?i:st|nd|rd|th)? [A-Za-z])(?i:{_NTH} (?:of {_OF}|{_MONTH}{_YEAR})|{_AWAY})"
    rf"|(?=[A-Za-z])(?i:{_ON}(?:{_MONTH} (?:the )?(?:{_NTH}|{ORDINAL}\b){_YEAR}|{_NTH} (?:of "
    rf")?{_MONTH}{_YEAR}|{_NTH_OF} {_OF})"
    rf"|{'|'.join(sorted(_NEAR, key=len, reverse=True))}|in {_SPAN}|{_AWAY}|(?:this |next "
    rf"|last |coming )?{_WEEKDAY}|{_LAST}))"
)

_PARTS = {  # part of the day -> its hours
    "morning": range(12),
    "afternoon": range(12, 20),
    "evening": range(16, 24),
    "night": (*range(5), *range(20, 24)),
}
_HOUR = rf"(?:[0-9]{{1,2}}|(?:{'|'.join(_HOURS)})\b)"
_AM = r"\s?[ap]\.?m\b"
_PART = rf"(?:{_AM}|\s(?:in\sthe\s(?:morning|afternoon|evening)|at\snight)\b)"
_CLOCK = r"\so['\u2019]clock"
_BEFORE = (
    r"(?:(?<=\b(?:at|by|to)\s)|(?<=\b(?:from|till)\s)|(?<=\b(?:until|after)\s)|(?<=\bbefore\s))"
)
# "half past two" and "ten to two" match, so that "two" is no number, but name none; "take two
# in the morning" is no time
_AROUND = (
    r"(?:half|(?:(?:a )?quarter|five|ten|twenty(?:[ -]five)?|half)(?: minutes)? "
    rf"(?:past|to)) {_HOUR}(?:{_CLOCK})?{_PART}?"
)
CLOCK = (
    rf"(?:(?=[0-9]{{1,2}}(?:[:\sAaPp]))(?i:[0-9]{{1,2}}:[0-9]{{2}}{_PART}?|[0-9]{{1,2}} "
    rf"(?:past|to) {_HOUR}(?!{_AM}){_PART})"
    rf"|(?=[0-9]{{1,2}}[\s:AaPp]|[A-Za-z])(?i:noon|{_AROUND}|{_HOUR}(?:{_AM}|{_CLOCK}{_PART}?)|{_BEFORE}{_HOUR}{_PART}))"
)
_IN_NUMBERS = re.compile("[0-9./-]+")
_DIGITS = re.compile("[0-9]+")
_LETTERS = re.compile("[a-z]+")
_ORDINAL = re.compile(rf"{ORDINAL}\b")
_TIME = re.compile(
    rf"({_HOUR})(?::([0-9]{{2}}))?(?:{_CLOCK})?(?:\s?([ap])\.?m|\s(?:in\sthe|at)\s(morning|afternoon|evening|night))?",
    re.ASCII,
)


def read_day(text: str, today: date) -> str | None:
    """The day that a match of `DAY` names, as ISO 8601, where `today` is the run's day; None
    where it is ambiguous or does not exist.
    """
    if _IN_NUMBERS.fullmatch(text):
        return _in_numbers(text)
    low = text.lower()
    if not low.isascii():  # "yesterday" with a long s
        return None
    if low in _NEAR:
        return _ahead(today, _NEAR[low])
    if text.startswith(("may", "mar")) and _ORDINAL.search(text):  # "I may first ask"
        return None
    low = _ORDINAL.sub(_number, low)
    numbers = [int(digits) for digits in _DIGITS.findall(low)]
    words = _LETTERS.findall(low)
    if {"day", "days", "week", "weeks"} & {*words}:
        count = numbers[0] if numbers else next(_FEW[word] for word in words if word in _FEW)
        days = count * (7 if "week" in low else 1)
        return _ahead(today, -days if words[-1] == "ago" else days)
    if words[0] == "end":
        return _last(words[2:], numbers, today)
    if words[-1] == "month":  # "the first of next month"
        ahead = {"this": 0, "next": 1, "last": -1}
        return _day(*_month(ahead[words[-2]], today), numbers[0])
    if not numbers:
        return _weekday(words, today)
    month = next(_MONTHS[word] for word in words if word in _MONTHS)
    of_month, year = (*numbers, today.year)[:2]
    return _day(year, month, of_month)


def _number(ordinal: re.Match[str]) -> str:
    word = ordinal[0].replace(" ", "-")
    return str(ORDINALS.get(word, 99))


def _ahead(today: date, days: int) -> str | None:
    try:
        return (today + timedelta(days=days)).isoformat()
    except OverflowError:
        return None


def _day(
    year: int,
    month: int,
    of_month: int,
) -> str | None:
    try:
        return date(year, month, of_month).isoformat()
    except ValueError:
        return None


def _in_numbers(text: str) -> str | None:
    """``2024/05/26``, ``26.05.2024``, and ``26/05/2024`` or ``05/26/2024`` where only one of
    them exists.
    """
    first, second, third = map(int, _DIGITS.findall(text))
    if text[:4].isdigit():
        return _day(first, second, third)
    days = {_day(third, second, first)}
    if "/" in text:
        days.add(_day(third, first, second))
    days.discard(None)
    if len(days) == 1:
        return days.pop()
    return None


def _month(ahead: int, today: date) -> tuple[int, int]:
    """Year and month, this many months after a day."""
    years, month = divmod(today.month - 1 + ahead, 12)
    return today.year + years, month + 1


def _last(
    words: list[str],
    years: list[int],
    today: date,
) -> str | None:
    """The last day: of "the month", of "next year", of "may" (the first one that is not before
    today).
    """
    if words[0] in _MONTHS:
        for year in years or (today.year, today.year + 1):
            last = _last_of(year, _MONTHS[words[0]])
            if last and (years or last >= today.isoformat()):
                return last
        return None
    ahead = int(words[0] == "next")
    if words[-1] == "year":
        return _last_of(today.year + ahead, 12)
    return _last_of(*_month(ahead, today))


def _last_of(year: int, month: int) -> str | None:
    return _day(year, month, monthrange(year, month)[1])


def _weekday(words: list[str], today: date) -> str | None:
    """A weekday's next date; with "next" or "last" only where the nearest such day and the one
    in the adjacent week are the same.
    """
    how = words[0]
    index = WEEKDAYS.index(words[-1])
    ahead = (index - today.weekday()) % 7
    in_next_week = index < today.weekday()
    if how == "last":
        if in_next_week:
            return None
        return _ahead(today, ahead - 7)
    if how == "next" and not ahead:
        return _ahead(today, 7)
    known = ahead > 0
    if how in {"this", "next"}:
        known = in_next_week == (how == "next")
    if known:
        return _ahead(today, ahead)
    return None


def read_clock(text: str) -> str | None:
    """The time of day that a match of `CLOCK` names, as ``hh:mm``, also with an hour over 23;
    None where it is ambiguous.
    """
    low = text.lower()
    if low == "noon":
        return "12:00"
    time = _TIME.fullmatch(low)
    if not time:  # "half past two"
        return None
    said, minutes, half, part = time.groups()
    hour = int(said) if said.isdecimal() else _HOURS[said]
    if half:
        hour = hour % 12 + 12 * (half == "p") if 1 <= hour <= 12 else -1
    elif part:
        hours = (hour, hour and hour + 12)
        hour = next((each for each in hours if each in _PARTS[part]), -1)
    elif not minutes and hour <= 12:  # "two o'clock"
        return None
    if hour >= 0:
        return f"{hour:02}:{minutes or '00'}"
    return None
