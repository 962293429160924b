"""Typed spans of a text: whole entities, strict as an origin must be, and loose as a reader would see them.

Rules: a span belongs to one type, and an entity is a whole one: ``3.34`` is not in ``ORD-3.34``, nor ``bob@acme.example`` in
``bob@acme.example.evil.com``. `entities` decides what grounds a value; `embedded` decides what needs grounding, so it is wider;
`only` is the single entity of a type in a text, if nothing in it could be read as another. One left-to-right pass each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from html import unescape

from agentgate.currencies import CODE, COMMON_CODES, CURRENCIES, IN_WORDS, SIGN
from agentgate.entities import Key, normal

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
_MONTH = "(?:" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\.?"
_AMOUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?:\.[0-9]{1,6})?"
_MONEY = rf"(?:[0-9]{{1,3}}(?:[ \u00a0\u202f][0-9]{{3}})+(?:\.[0-9]{{1,6}})?|{_AMOUNT})"  # beside a currency, thousands may be spaced
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
_FILE = r"(?:txt|md|pdf|csv|tsv|json|xml|ya?ml|docx?|xlsx?|pptx?|odt|ods|png|jpe?g|gif|html?|py|js|ts|zip|log|ini|cfg|toml|sh|sql|eml|ics)"
_END = r"(?![\w@])(?![.\-:/#][\w])"  # a whole entity ends here, not inside a longer one
_DAY = "[0-9]{1,2}(?:st|nd|rd|th)?"
_YEAR = "(?:,? [0-9]{4})?"
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY = "(?:" + "|".join(_WEEKDAYS) + ")"
_FEW = {w: n for n, w in enumerate("a one two three four five six seven eight nine ten".split(), 0)} | {"a": 1, "one": 1, "an": 1}
_SPAN = f"(?:[0-9]{{1,3}}|{'|'.join(_FEW)}) (?:day|week)s?"
_NEAR = {"today": 0, "tomorrow": 1, "yesterday": -1, "the day after tomorrow": 2, "the day before yesterday": -2}
_RELATIVE = (
    f"the day after tomorrow|the day before yesterday|today|tomorrow|yesterday|in {_SPAN}|{_SPAN} (?:from (?:now|today)|ago)"
    f"|(?:this |next |last |coming )?{_WEEKDAY}"
)
_BEGINS = (  # the words in small letters with which something longer may begin
    rf"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))}|{_WEEKDAY}|{COMMON_CODES}|today|tomorrow|yesterday|the|in|this|next|"
    rf"last|coming|noon|"
    rf"{'|'.join(_FEW)})(?![a-z])"
)
_TOKEN = re.compile(
    r"(?<![\w@.\-/#])(?:"
    rf"(?!{_BEGINS})[a-z]+(?=[ ,;!?)]|\.?(?:\s|$))"  # a plain word, read at once
    rf"|(?P<url>(?:https?://|(?i:www)\.(?=[A-Za-z0-9]))[^\s<>\"'\u201c\u201d\u2018\u2019\u00ab\u00bb]{{1,2000}})"
    rf"|(?P<email>[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}@{_HOST}){_END}"
    rf"|(?P<iban>[A-Z]{{2}}[0-9]{{2}}(?:[A-Z0-9]{{10,30}}|(?: [A-Z0-9]{{4}}){{2,7}}(?: [A-Z0-9]{{1,3}})?)){_END}"
    rf"|(?P<datetime>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[ T]| at )[0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?){_END}"
    r"|(?P<date>[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}|[0-9]{1,2}(?:\.[0-9]{1,2}\.|/[0-9]{1,2}/)[0-9]{4}|(?=[A-Za-z0-9])(?i:"
    rf"(?:{_WEEKDAY},? (?:the )?)?(?:{_MONTH} (?:the )?{_DAY}{_YEAR}|{_DAY}(?: of)? {_MONTH}{_YEAR})|{_RELATIVE})){_END}"
    rf"|(?P<time>[0-9]{{1,2}}:[0-9]{{2}}(?:\s?[AaPp]\.?[Mm]\b)?|[0-9]{{1,2}}\s?[AaPp]\.?[Mm]\b|(?i:noon)){_END}"
    rf"|(?P<money>(?:{SIGN}|{CODE})\s?{_MONEY}|(?<![0-9],){_MONEY}\s?(?:{SIGN}|{CODE}|{IN_WORDS})){_END}"
    rf"|(?P<phone>\+[1-9](?:[ ()-]{{0,2}}[0-9]){{6,14}}){_END}"
    rf"|(?P<channel>\#[A-Za-z][A-Za-z0-9_-]{{0,79}}){_END}"
    rf"|(?P<user>@[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,62}}[A-Za-z0-9])?){_END}"
    rf"|(?P<path>/?(?:[\w+-][\w.+-]{{0,120}}/){{1,16}}[\w+-][\w.+-]{{0,120}}\.{_FILE}|[\w+-][\w.+-]{{0,120}}\.{_FILE}){_END}"
    rf"|(?P<domain>{_HOST}){_END}"
    rf"|(?<![0-9],)(?P<number>-?{_AMOUNT})(?![\w@/#%:])(?![.,\-][0-9A-Za-z])(?![ \u00a0\u202f][0-9]{{3}}(?![0-9]))"
    rf"|(?P<id>[A-Za-z0-9]+(?:[._:#/-]+[A-Za-z0-9]+)*)(?![\w@])"
    r"|\w[^\s]*"  # anything else is consumed whole, so that nothing starts inside it
    r")|[#@/+-]\w[^\s]*"
)
_TRAILING = ".,;:!?)]}>*"


def _amount(text: str) -> Decimal | None:
    found = normal("number", re.sub(r"[^0-9.\-]", "", text))
    return found if isinstance(found, Decimal) else None


def _day(text: str, today: date) -> str | None:
    """The day that words name on a day; None where two readings differ ("next Friday" on a Monday) or it does not exist."""
    lower = " ".join(text.lower().split())
    if normal("date", text):
        return text
    if lower in _NEAR:
        return _iso(today, _NEAR[lower])
    if re.fullmatch(r"[0-9./]+", lower):
        return _numeric(lower)
    if any(word in lower for word in (" day", " week", "day from", "week from")) and not re.search(_MONTH, lower):
        return _away(lower, today)
    month = re.search(r"[a-z]+", re.sub(rf"{_WEEKDAY},?|\bthe\b|[0-9]+(?:st|nd|rd|th)?(?: of)?", "", lower))
    numbers = re.findall(r"[0-9]+", text)
    if month is None or not numbers:
        return _weekday(lower, today)
    try:
        return date(int(numbers[1]) if len(numbers) > 1 else today.year, _MONTHS[month.group()], int(numbers[0])).isoformat()
    except (ValueError, KeyError):
        return None


def _iso(today: date, days: int) -> str | None:
    try:
        return (today + timedelta(days=days)).isoformat()
    except OverflowError:
        return None


def _numeric(text: str) -> str | None:
    """``2024/05/26``, ``26.05.2024``, and ``26/05/2024`` or ``05/26/2024`` where only one of them is a day."""
    parts = [int(part) for part in re.split(r"[./]", text)]
    orders = [parts] if parts[0] > 31 else [[parts[2], parts[1], parts[0]]] + ([[parts[2], parts[0], parts[1]]] if "/" in text else [])
    found = set()
    for year, month, day in orders:
        try:
            found.add(date(year, month, day).isoformat())
        except ValueError:
            continue
    return found.pop() if len(found) == 1 else None


def _away(text: str, today: date) -> str | None:
    """``in 3 days``, ``two weeks ago``, ``a week from today``."""
    count, unit = re.findall(rf"([0-9]+|{'|'.join(_FEW)}) (day|week)", text)[0]
    days = (int(count) if count.isdigit() else _FEW[count]) * (7 if unit == "week" else 1)
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


def _clock(text: str) -> str | None:
    if text.lower() == "noon":
        return "12:00"
    found = re.fullmatch(r"([0-9]{1,2})(?::([0-9]{2}))?\s?([AaPp])?\.?[Mm]?", text)
    if found is None:
        return None
    hour, minute = int(found[1]), int(found[2] or 0)
    if found[3]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[3].lower() == "p" else 0)
    return f"{hour:02}:{minute:02}"


@dataclass(frozen=True, slots=True)
class Entity:
    """One whole typed value in a text: its type, its comparison key, the words, and for money the currency (or empty)."""

    type: str
    key: Key
    words: str
    start: int
    currency: str = ""


_AT = re.compile(r",?\s?(?:at|from|between|@|,)?\s?|T", re.IGNORECASE)  # between a day and its time
_ON = re.compile(r",?\s(?:on\s)?(?:the\s)?", re.IGNORECASE)  # between a time and its day
_TO = re.compile(r"\s?(?:to|until|till|and|-|\u2013)\s?", re.IGNORECASE)  # between two times of one day


def entities(text: str, today: date) -> Iterator[Entity]:
    """Every whole typed entity of a text, left to right, each span under one type; linear in the text.

    A day and a time that stand together ("10:00 on May 20th", "tomorrow from 9am to 10am") are a `datetime` as well.
    """
    day: Entity | None = None  # the day to which the next time may belong
    times: list[Entity] = []  # the times to which the next day may belong
    end = 0
    for found in _entities(text, today):
        yield found
        between, end = text[end : found.start], found.start + len(found.words)
        if found.type == "date":
            if times and _ON.fullmatch(between):
                yield from (_moment(found, time, time.start, text[time.start : end]) for time in times if time.type == "time")
            day, times = found, []
        elif found.type == "time":
            if day is not None and (_TO if times else _AT).fullmatch(between):
                yield _moment(day, found, day.start, text[day.start : end])
            else:
                day = None
            times = [*times, found] if times and _TO.fullmatch(between) else [found]
        elif found.type == "datetime":
            day, times = Entity("date", str(found.key)[:10], found.words, found.start), [found]
        else:
            day, times = None, []


def _moment(day: Entity, time: Entity, start: int, words: str) -> Entity:
    return Entity("datetime", f"{day.key}T{time.key}:00", words, start)


def _entities(text: str, today: date) -> Iterator[Entity]:
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind is None:
            continue
        words, key, currency = found.group(kind), None, ""
        if kind == "url":
            words = words.rstrip(_TRAILING)
            scheme, sign, rest = words.rpartition("://") if words.startswith("http") else ("", "", words)
            head, slash, tail = rest.partition("/")
            key = normal("url", f"{scheme}{sign}{head.lower()}{slash}{tail}")
        elif kind in {"email", "domain"}:
            key = normal(kind, words.lower())
        elif kind == "iban":
            key = normal(kind, words.replace(" ", ""))
        elif kind == "date":
            key = _day(words, today)
        elif kind == "time":
            key = normal("time", _clock(words))
        elif kind == "datetime":
            key = normal(kind, words.replace(" at ", " "))
        elif kind == "money":
            currency = CURRENCIES.get(re.sub(r"[0-9.,\s]", "", words).lower(), "")
            key = _amount(words) if currency else None  # "50 US kronor" is no amount of anything
        elif kind == "number":
            key = None if _marks_an_item(text, *found.span(kind)) else _amount(words)
        elif kind == "phone":
            key = normal(kind, re.sub(r"[ ()-]", "", words))
        elif kind in {"channel", "user"}:
            key = normal(kind, words[1:])
        elif kind == "id":
            key = None if words.isalpha() or not any(map(str.isdigit, words)) else normal(kind, words)
        else:
            key = normal(kind, words)
        if key is not None:
            yield Entity(kind, key, words, found.start(), currency)


_WINDOW = 4000  # characters on either side in which the neighbour of a list's number is looked for


def _marks_an_item(text: str, start: int, end: int) -> bool:
    """Whether a number only counts the items of a list: "1. Pay it. 2. Tell Ann", or at the beginning of a line."""
    sign = text[end : end + 1]
    if end - start > 2 or not text[start:end].isdigit() or sign not in {".", ")"} or not text[end + 1 : end + 2].isspace():
        return False
    before = text[max(0, start - 40) : start].rstrip(" \t(*-")
    if not before or before[-1] == "\n":
        return True
    if before[-1] not in ".:;!?," or not text[end + 1 : end + 3].strip().istitle():
        return False
    number = int(text[start:end])
    if number > 1:
        return f" {number - 1}{sign} " in f" {text[max(0, start - _WINDOW) : start]}"
    return number == 1 and f" 2{sign} " in text[end : end + _WINDOW]


# What looks like an address, a link or an account number to a person or a mail program, however it is glued to its
# neighbours. Strict entities decide what grounds a value; this decides what needs grounding.
COMMON_ENDS = "com|net|org|info|biz|io|co|me|app|dev|ai|xyz|online|site|top|shop|link|click|page|cloud"  # linked without a scheme
_LOOSE_AS = {
    "email": r"[^\s<>()\[\]{},;:\"'@]{0,64}@[^\s<>()\[\]{},;\"'@]{1,255}",
    "url": r"(?i:[a-z][a-z0-9+.-]{0,30}:[/\\]{1,2}|\bhttps?:(?=\w)|(?<![\w:/\\])(?:/{2}|\\{2})(?=\w)|\bwww\.)[^\s<>\"']+"
    rf"|(?i:(?<![\w.@-])(?:[a-z0-9-]{{1,63}}\.){{1,8}}(?:[a-z]{{2,24}}/(?=\w)[^\s<>\"']+|(?:{COMMON_ENDS})(?![\w-]|\.\w)))",
    "iban": r"(?i:[a-z]{2}[0-9]{2}(?:[\s-]?[a-z0-9]){10,30})",
    "phone": r"(?:\+|\b00)[ ()-]{0,2}[1-9](?:[ ()./-]{0,2}[0-9]){6,14}",
}
FINDABLE = frozenset(_LOOSE_AS)
MAX_FIND = 65_536  # characters of a text in which one entity is looked for; in a longer one nothing is found
_LOOSE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _LOOSE_AS.items()))
_GROUPED = r"(?i:[a-z]{2}[\s.|/:_-]{0,2}[0-9]{2}(?:[\s.|/:_-]{1,3}[a-z0-9]{4}){3,7})"  # an account number as people print it
_HIDDEN = {kind: re.compile(f"{pattern}|{_GROUPED}" if kind == "iban" else pattern) for kind, pattern in _LOOSE_AS.items()}
_WORDS_AFTER = re.compile(r"(?:[\s-][A-Za-z]+)+$")
# No email, link, IBAN or phone number, strict or loose, is without one of these.
_HINT = re.compile(r"[@0-9]|:[/\\]|/{2}|\\{2}|[pPsS]:|[wW]{3}\.|\.[A-Za-z]{2}")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U000e0000-\U000e0fff]"
)
_LIKE = str.maketrans({**dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"), "\u3002": ".", "\u2044": "/", "\u2215": "/"})
_CODED = re.compile(r"&(?:#|[A-Za-z]{2})")


def as_read(text: str) -> str:
    """A text as it is read and followed: wide, spaced and invisible characters, and those written in HTML, as the plain ones."""
    if text.isascii() and _CODED.search(text) is None:
        return text
    plain = _UNSEEN.sub("", unicodedata.normalize("NFKC", unescape(text)).translate(_LIKE))
    return plain if plain.isascii() else "".join(str(unicodedata.decimal(c, c)) for c in plain)


def embedded(text: str, today: date) -> Iterator[Entity]:
    """Every email, link, IBAN and phone number in a free text; what is no whole entity comes with its words as key.

    The latter has an origin only where the user wrote the very same words, so it is refused wherever entities must be grounded
    (an address glued to a word, a foreign scheme, an IBAN in lower case). What only looks like one ("eve\uff20evil.example") is one.
    """
    read = as_read(text)
    for each in (text,) if read == text else (text, read):
        if _HINT.search(each) is not None:
            whole = [e for e in entities(each, today) if e.type in FINDABLE]
            yield from whole
            yield from glued(each, whole)


def glued(text: str, whole: Iterable[Entity]) -> Iterator[Entity]:
    """What `embedded` finds beside the whole entities of a text."""
    if _HINT.search(text) is None:
        return
    covered = [(e.start, e.start + len(e.words)) for e in whole if e.type in FINDABLE]
    at = position = 0
    while (found := _LOOSE.search(text, position)) is not None:
        start, end = found.start(), found.end()
        while at < len(covered) and covered[at][1] <= start:
            at += 1
        over = at < len(covered) and covered[at][0] <= start
        if found.lastgroup == "iban":
            account = _account(found.group())
            if account is None or (over and start == covered[at][0]):  # what a whole account number is followed by is not part of it
                position = covered[at][1] if account is not None else start + 1
                continue
            end = start + account
        position = end
        if not (over and end <= covered[at][1] + _slack(text, covered[at][1], end)):
            words = text[start:end]
            yield Entity(str(found.lastgroup), words, words, start)


def _account(words: str) -> int | None:
    """How much of a loose match may be an account number; None when it is only words (no IBAN has fewer than 12 digits)."""
    words = _WORDS_AFTER.sub("", words)
    return len(words) if sum(c.isdigit() for c in words) >= 12 else None


def _slack(text: str, end: int, found: int) -> int:
    """How far a loose match may run past a whole entity: over closing punctuation only."""
    return found - end if not text[end:found].strip(_TRAILING) else 0


def only(text: str, kind: str, today: date) -> Key | None:
    """The one entity of a kind of `FINDABLE` in a text, also when it is repeated; None when there is none or could be another.

    Whoever can add to a text can make it ambiguous, and gets nothing; nothing is chosen by its place or the words around it.
    """
    if len(text) > MAX_FIND:
        return None
    text = as_read(text)
    found = {e.key for e in embedded(text, today) if e.type == kind}
    if len(found) != 1:
        return None
    key = normal(kind, next(iter(found)))
    if key is None:
        return None
    rest = text
    for entity in entities(text, today):
        if entity.type == kind:  # nothing may hide behind another kind: "a@DE89..." is an account number, too
            rest = rest[: entity.start] + "\n" * len(entity.words) + rest[entity.start + len(entity.words) :]
    hidden = _HIDDEN[kind].search(rest)
    while hidden is not None and kind == "iban" and _account(hidden.group()) is None:
        hidden = _HIDDEN[kind].search(rest, hidden.start() + 1)
    return key if hidden is None else None
