"""Days and times of day as people write them: "May 26th", "the fifth of May", "next Friday", "in two weeks"; "10:30", "3 in the afternoon".

Rules: words for a day are relative to the run's day. What people read differently ("next Friday" on a Monday, 05/06/2024, "the 24th", "half
past two") names no day or time; neither does a date that does not exist. "The end of May" is its last day, the first one that is not before
the run's day; "the beginning of May" and "the middle of May" name none. Pure.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable, Mapping
from datetime import MAXYEAR, MINYEAR, date, timedelta

from agentgate.language.numerals import NUMERAL_BEGINS, ORDINAL, ORDINALS, VALUES, read_ordinal
from agentgate.values.entities import normal
from agentgate.values.times import WEEKDAYS

MONTHS = "january february march april may june july august september october november december".split()
_MONTHS = {form: number for number, name in enumerate(MONTHS, 1) for form in (name, name[:3])} | {"sept": 9}
_LONGEST_FIRST = sorted(_MONTHS, key=len, reverse=True)
_HOURS = {word: value for word, value in VALUES.items() if 1 <= value <= 12}
_FEW = {"a": 1, "an": 1} | {word: value for word, value in _HOURS.items() if value <= 10}
_OLD = {"i": "\u0130\u0131", "s": "\u017f", "k": "\u212a"}  # further characters that `re.IGNORECASE` matches with these
_LETTERS_TOLD = 3
_NEAR = {"today": 0, "tomorrow": 1, "yesterday": -1, "the day after tomorrow": 2, "the day before yesterday": -2}

_MONTH = f"(?:{'|'.join(_LONGEST_FIRST)})" + r"\.?"
_WEEKDAY = f"(?:{'|'.join(WEEKDAYS)})"
_OF_MONTH = "[0-9]{1,2}(?:st|nd|rd|th)?"
_YEAR = "(?:,? [0-9]{4})?"
_SPAN = f"(?:[0-9]{{1,3}}|{'|'.join(_FEW)}) (?:day|week)s?"
_RELATIVE = (
    f"the day after tomorrow|the day before yesterday|today|tomorrow|yesterday|in {_SPAN}|{_SPAN} (?:from (?:now|today)|ago)"
    f"|(?:this |next |last |coming )?{_WEEKDAY}|(?:{_OF_MONTH}|{ORDINAL}) of (?:this|next|last) month"
    "|(?<!\\btail )(?<!\\bback )end of (?:the month|the year|(?:this|next) (?:month|year)"
    rf"|(?:{'|'.join(_LONGEST_FIRST)})(?:,? [0-9]{{4}}(?![0-9])|(?! (?:the )?(?:[0-9]|{ORDINAL}\b))))"
)


def _by_letters(beginnings: Iterable[str], letters: int = 0) -> str:
    """One case-insensitive pattern of many that branches by their first letters, so that most words fail in a few steps."""
    after: dict[str, list[str]] = {}
    for beginning in sorted(beginnings):
        after.setdefault(beginning[0] if letters < _LETTERS_TOLD and beginning[0].isalpha() else "", []).append(beginning)
    branches = [
        (f"[{first}{first.upper()}{_OLD.get(first, '') if letters else ''}]", _by_letters([each[1:] for each in rest], letters + 1))
        if first
        else ("", "|".join(rest))
        for first, rest in after.items()
    ]
    ways = [f"{first}(?:{rest})" if first else f"(?i:{rest})" for first, rest in branches]
    if letters:
        return "|".join(ways)
    parts = [slice(at, at + _LETTERS_TOLD) for at in range(0, len(ways), _LETTERS_TOLD)]
    return "|".join(f"(?=[{''.join(first[1:-1] for first, _ in branches[part])}])(?:{'|'.join(ways[part])})" for part in parts)


# How a day, a time or a number in words begins, where it begins with a letter.
BEGINS = _by_letters(
    [
        *(rf"{month}\.? (?:the )?(?:[0-9]|{ORDINAL}\b)" for month in _LONGEST_FIRST),
        *(*WEEKDAYS, "today", "tomorrow", "yesterday", "noon", "the day ", f"in {_SPAN}"),
        *(f"{how} {_WEEKDAY}" for how in ("this", "next", "last", "coming")),
        *(f"{few} (?:day|week)" for few in _FEW),
        *(rf"{word}(?:[\s-][a-z]{{5,7}})? of " for word in (*ORDINALS, "twenty", "thirty")),
        *("end of ", "half ", "quarter ", "a quarter "),
        *NUMERAL_BEGINS,
    ]
)
_BEGUN = rf"(?={BEGINS}|[0-9]{{1,3}}(?i:st|nd|rd|th)? [^\W\d_])"  # every day in words begins so
DAY = (
    r"(?:[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}|[0-9]{1,2}(?:\.[0-9]{1,2}\.|/[0-9]{1,2}/)[0-9]{4}"
    rf"|{_BEGUN}(?i:"
    rf"(?:{_WEEKDAY},? (?:the )?)?(?:{_MONTH} (?:the )?(?:{_OF_MONTH}|{ORDINAL}\b){_YEAR}"
    rf"|(?:{_OF_MONTH}(?: of)?|(?<!\ba\s)(?<!\bone\s){ORDINAL} of) {_MONTH}{_YEAR})|{_RELATIVE}))"
)
_MINUTES = {"quarter": 15, "half": 30, "five": 5, "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
_MINUTES |= {f"{tens}{sign}five": _MINUTES[tens] + 5 for tens in ("twenty", "thirty", "forty", "fifty") for sign in " -"}
_PARTS: Mapping[str, Mapping[int, int]] = {  # part of the day -> hour as people say it -> hour
    "a": {hour: hour % 12 for hour in range(1, 13)},
    "p": {hour: hour % 12 + 12 for hour in range(1, 13)},
    "morning": {hour: hour for hour in range(12)},
    "afternoon": {12: 12} | {hour: hour + 12 for hour in range(1, 8)} | {hour: hour for hour in range(13, 20)},
    "evening": {hour: hour + 12 for hour in range(4, 12)} | {hour: hour for hour in range(16, 24)},
    "night": {hour: hour for hour in range(5)} | {hour: hour + 12 for hour in range(8, 12)} | {hour: hour for hour in range(20, 24)},
}
_HOUR = rf"(?:[0-9]{{1,2}}|(?:{'|'.join(_HOURS)})\b)"
_PAST = "(?:half|(?:a )?quarter|five|ten|twenty[ -]five|twenty)(?: minutes)? (?:past|to)"
_BY = "|".join(sorted((word for word in _MINUTES if word not in {"quarter", "half"}), key=len, reverse=True))
_AM = r"\s?[ap]\.?m\b"
_PART = rf"(?:{_AM}|\s(?:in\sthe\s(?:morning|afternoon|evening)|at\snight)\b)"
_CLOCK = r"\so['\u2019]clock"
_BEFORE = r"(?:(?<=\bat\s)|(?<=\bby\s)|(?<=\bto\s)|(?<=from\s)|(?<=until\s)|(?<=till\s)|(?<=before\s)|(?<=after\s)|(?<=between\s))"
CLOCK = (  # "take two in the morning" is no time; "half past two" matches, so that "two" is no number, but names none
    rf"(?:[nN](?i:oon)|(?=[0-9]{{1,2}}(?:[:\sAaPp])|[oOtTfFsSeEnNhHqQaA])(?i:[0-9]{{1,2}}:[0-9]{{2}}{_PART}?|{_HOUR}(?: (?:{_BY}))?{_AM}"
    rf"|{_HOUR}(?: (?:{_BY}){_PART}|{_CLOCK}{_PART}?)|{_BEFORE}{_HOUR}{_PART}"
    rf"|(?:{_PAST}|half) {_HOUR}(?:{_CLOCK})?{_PART}?|[0-9]{{1,2}} (?:past|to) {_HOUR}(?!{_AM}){_PART}))"
)

_NUMBERS = re.compile("[0-9]+")
_LETTERS = re.compile("[a-z]+")
_IN_NUMBERS = re.compile("[0-9./-]+")
_AWAY = re.compile(f"([0-9]+|{'|'.join(_FEW)}) (day|week)")
_ORDINAL = re.compile(rf"{ORDINAL}\b")
_TIME = re.compile(
    rf"(?:((?:a )?quarter|half|twenty[ -]five|[a-z]{{3,6}}|[0-9]{{1,2}})(?: minutes)? (past|to) )?([0-9]{{1,2}}|{'|'.join(_HOURS)})"
    rf"(?::([0-9]{{2}})| ({_BY}))?(?:{_CLOCK})?(?:\s?([ap])\.?m|\s(?:in\sthe|at)\s(morning|afternoon|evening|night))?"
)
_BESIDE_MONTH = frozenset({*WEEKDAYS, "the", "of", "st", "nd", "rd", "th"})


def read_day(text: str, today: date) -> str | None:
    """The day that a match of `DAY` names, as ISO 8601, where `today` is the run's day; None where it is ambiguous or does not exist."""
    if _IN_NUMBERS.fullmatch(text):
        return _numeric(text) if "-" not in text else text if normal("date", text) else None
    lower = text.lower()
    if lower in _NEAR:
        return _iso(today, _NEAR[lower])
    if " day" in lower or " week" in lower:
        return _away(lower, today)
    if lower.startswith("end of "):
        return _last(lower, today)
    if (ordinal := _ORDINAL.search(lower)) is not None:
        of_month = read_ordinal(ordinal.group())
        if of_month is None or text.startswith(("may", "mar")):  # "I may first ask"
            return None
        lower = lower.replace(ordinal.group(), str(of_month), 1)
    numbers = _NUMBERS.findall(lower)
    if lower.endswith(" month"):
        ahead = {"this": 0, "next": 1, "last": -1}[lower.split()[-2]]  # "the first of next month"
        return _day(*_month(ahead, today), int(numbers[0]))
    if not numbers:
        return _weekday(lower, today)
    month = next((word for word in _LETTERS.findall(lower) if word not in _BESIDE_MONTH), "")
    return _day(int(numbers[1]) if len(numbers) > 1 else today.year, _MONTHS.get(month, 0), int(numbers[0]))


def _iso(today: date, days: int) -> str | None:
    try:
        return (today + timedelta(days=days)).isoformat()
    except OverflowError:
        return None


def _numeric(text: str) -> str | None:
    """``2024/05/26``, ``26.05.2024``, and ``26/05/2024`` or ``05/26/2024`` where only one of them exists."""
    parts = [int(part) for part in _NUMBERS.findall(text)]
    orders = [parts] if parts[0] > 31 else [[parts[2], parts[1], parts[0]]] + ([[parts[2], parts[0], parts[1]]] if "/" in text else [])
    days = {_day(*parts) for parts in orders} - {None}
    return days.pop() if len(days) == 1 else None


def _day(year: int, month: int, of_month: int) -> str | None:
    try:
        return date(year, month, of_month).isoformat()
    except ValueError:
        return None


def _month(ahead: int, today: date) -> tuple[int, int]:
    """Year and month, this many months after a day."""
    years, month = divmod(today.month - 1 + ahead, 12)
    return today.year + years, month + 1


def _last(text: str, today: date) -> str | None:
    """The last day: ``end of the month``, ``end of next year``, ``end of May`` (the first one that is not before today)."""
    name, *numbers = re.findall("[a-z]+|[0-9]+", text.removeprefix("end of "))
    if name in _MONTHS:
        years = [int(number) for number in numbers] or [today.year, today.year + 1]
        lasts = (_last_of(year, _MONTHS[name]) for year in years)
        return next((last for last in lasts if last is not None and (numbers or last >= today.isoformat())), None)
    ahead = text.split()[-2] == "next"
    return _last_of(*((today.year + ahead, 12) if text.endswith("year") else _month(int(ahead), today)))


def _last_of(year: int, month: int) -> str | None:
    return _day(year, month, monthrange(year, month)[1]) if MINYEAR <= year <= MAXYEAR else None


def _away(text: str, today: date) -> str | None:
    """``in 3 days``, ``two weeks ago``, ``a week from today``."""
    away = _AWAY.search(text)
    if away is None:  # "six" with a long s
        return None
    days = (int(away[1]) if away[1].isdigit() else _FEW[away[1]]) * (7 if away[2] == "week" else 1)
    return _iso(today, -days if text.endswith("ago") else days)


def _weekday(text: str, today: date) -> str | None:
    """A weekday's next date; with "next" or "last" only where the nearest such day and the one in the adjacent week are the same."""
    how, _, name = text.rpartition(" ")
    if name not in WEEKDAYS:
        return None
    ahead = (WEEKDAYS.index(name) - today.weekday()) % 7
    other = WEEKDAYS.index(name) < today.weekday()  # its next date is in the next week
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
    """The time of day that a match of `CLOCK` names, as ``hh:mm``, also with an hour over 23; None where it is ambiguous."""
    low = text.lower()
    time = _TIME.fullmatch(low)
    if time is None:
        return "12:00" if low == "noon" else None
    by, side, said, minutes, in_words, half, part = time.groups()
    hour = int(said) if said.isdecimal() else _HOURS[said]
    if not (half or part) and minutes is None:  # "half past two"
        return None
    if half or part:
        hour = _PARTS[half or part].get(hour, -1)
    if hour < 0:
        return None
    minute = _MINUTES[in_words] if in_words else int(minutes or 0)
    if side == "past":
        minute = _minutes(by)
    elif side == "to":  # "ten to two" may be a range, and "a quarter to twelve a.m." is in the other half of the day
        if hour % 12 == 0 or _minutes(by) != 15:
            return None
        hour, minute = hour - 1, 45
    return f"{hour:02}:{minute:02}"


def _minutes(words: str) -> int:
    return int(words) if words.isdecimal() else _MINUTES[words.removeprefix("a ")]
