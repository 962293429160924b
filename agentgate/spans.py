"""Typed spans of a text: whole entities, strict as an origin must be, and loose as a reader would see them.

Rules: a span belongs to one type, and an entity is a whole one: ``3.34`` is not in ``ORD-3.34``, nor ``bob@acme.example`` in
``bob@acme.example.evil.com``. `entities` decides what grounds a value; `embedded` decides what needs grounding, so it is wider;
`only` is the single entity of a type in a text, if nothing in it could be read as another. One left-to-right pass each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

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
_CURRENCIES = {
    "$": "USD",
    "usd": "USD",
    "dollar": "USD",
    "dollars": "USD",
    "bucks": "USD",
    "€": "EUR",
    "eur": "EUR",
    "euro": "EUR",
    "euros": "EUR",
    "£": "GBP",
    "gbp": "GBP",
    "pound": "GBP",
    "pounds": "GBP",
    "¥": "JPY",
    "jpy": "JPY",
    "yen": "JPY",
    "chf": "CHF",
    "franc": "CHF",
    "francs": "CHF",
    "cad": "CAD",
    "aud": "AUD",
    "sek": "SEK",
    "nok": "NOK",
    "dkk": "DKK",
    "pln": "PLN",
    "inr": "INR",
}
_WORD_CURRENCY = "|".join(sorted((c for c in _CURRENCIES if c.isalpha()), key=len, reverse=True))
_AMOUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?:\.[0-9]{1,6})?"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
_FILE = r"(?:txt|md|pdf|csv|tsv|json|xml|ya?ml|docx?|xlsx?|pptx?|odt|ods|png|jpe?g|gif|html?|py|js|ts|zip|log|ini|cfg|toml|sh|sql|eml|ics)"
_END = r"(?![\w@])(?![.\-:/#][\w])"  # a whole entity ends here, not inside a longer one
_DAY = "[0-9]{1,2}(?:st|nd|rd|th)?"
_YEAR = "(?:,? [0-9]{4})?"
_TOKEN = re.compile(
    r"(?<![\w@.\-/#])(?:"
    rf"(?P<url>https?://[^\s<>\"'\u201c\u201d\u2018\u2019\u00ab\u00bb]{{1,2000}})"
    rf"|(?P<email>[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}@{_HOST}){_END}"
    rf"|(?P<iban>[A-Z]{{2}}[0-9]{{2}}(?:[A-Z0-9]{{10,30}}|(?: [A-Z0-9]{{4}}){{2,7}}(?: [A-Z0-9]{{1,3}})?)){_END}"
    rf"|(?P<datetime>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[ T]| at )[0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?){_END}"
    r"|(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}|(?i:"
    rf"{_MONTH} {_DAY}{_YEAR}|{_DAY}(?: of)? {_MONTH}{_YEAR}|today|tomorrow|yesterday)){_END}"
    rf"|(?P<time>[0-9]{{1,2}}:[0-9]{{2}}(?:\s?[AaPp][Mm])?|[0-9]{{1,2}}\s?[AaPp][Mm]){_END}"
    rf"|(?P<money>[$€£¥]\s?{_AMOUNT}|{_AMOUNT}\s?(?:[€£¥$]|(?i:{_WORD_CURRENCY}))){_END}"
    rf"|(?P<phone>\+[1-9](?:[ ()-]{{0,2}}[0-9]){{6,14}}){_END}"
    rf"|(?P<channel>\#[a-z][a-z0-9_-]{{0,79}}){_END}"
    rf"|(?P<user>@[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,62}}[A-Za-z0-9])?){_END}"
    rf"|(?P<path>/?(?:[\w+-][\w.+-]{{0,120}}/){{1,16}}[\w+-][\w.+-]{{0,120}}\.{_FILE}|[\w+-][\w.+-]{{0,120}}\.{_FILE}){_END}"
    rf"|(?P<domain>{_HOST}){_END}"
    rf"|(?P<number>-?{_AMOUNT})(?![\w@/#%:])(?![.,\-][0-9A-Za-z])"
    rf"|(?P<id>[A-Za-z0-9]+(?:[._:#/-]+[A-Za-z0-9]+)*)(?![\w@])"
    r"|\w[^\s]*"  # anything else is consumed whole, so that nothing starts inside it
    r")|[#@/+-]\w[^\s]*"
)
_TRAILING = ".,;:!?)]}>*"


def _amount(text: str) -> Decimal | None:
    found = normal("number", re.sub(r"[^0-9.\-]", "", text))
    return found if isinstance(found, Decimal) else None


def _day(text: str, today: date) -> str | None:
    lower = text.lower()
    near = {"today": 0, "tomorrow": 1, "yesterday": -1}
    if lower in near:
        return (today + timedelta(days=near[lower])).isoformat()
    if normal("date", text):
        return text
    month = re.search(r"[a-z]+", re.sub(r"[0-9]+(?:st|nd|rd|th)?(?: of)?", "", lower))
    numbers = re.findall(r"[0-9]+", text)
    if month is None or not numbers:
        return None
    year = int(numbers[1]) if len(numbers) > 1 else today.year
    try:
        return date(year, _MONTHS[month.group()], int(numbers[0])).isoformat()
    except (ValueError, KeyError):
        return None


def _clock(text: str) -> str | None:
    found = re.fullmatch(r"([0-9]{1,2})(?::([0-9]{2}))?\s?([AaPp])?[Mm]?", text)
    if found is None:
        return None
    hour, minute = int(found[1]), int(found[2] or 0)
    if found[3]:
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


def entities(text: str, today: date) -> Iterator[Entity]:
    """Every whole typed entity of a text, left to right, each span under one type. Linear in the text."""
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind is None:
            continue
        words, key, currency = found.group(kind), None, ""
        if kind == "url":
            words = words.rstrip(_TRAILING)
            head, slash, tail = words.partition("://")[2].partition("/")
            key = normal("url", f"{words.partition('://')[0]}://{head.lower()}{slash}{tail}")
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
            key = _amount(words)
            currency = _CURRENCIES[re.sub(r"[0-9.,\s]", "", words).lower()]
        elif kind == "number":
            key = _amount(words)
        elif kind == "phone":
            key = normal(kind, re.sub(r"[ ()-]", "", words))
        elif kind in {"channel", "user"}:
            key = normal(kind, words[1:])
        elif kind == "id":
            key = normal(kind, words) if any(c.isdigit() for c in words) else None
        else:
            key = normal(kind, words)
        if key is not None:
            yield Entity(kind, key, words, found.start(), currency)


# What looks like an address, a link or an account number to a person or a mail program, however it is glued to its
# neighbours. Strict entities decide what grounds a value; this decides what needs grounding.
_LOOSE_AS = {
    "email": r"[^\s<>()\[\]{},;:\"'@]{0,64}@[^\s<>()\[\]{},;\"'@]{1,255}",
    "url": r"(?i:[a-z][a-z0-9+.-]{0,30}:/{1,2}|\bwww\.)[^\s<>\"']+",
    "iban": r"(?i:[a-z]{2}[0-9]{2}(?:[ -]?[a-z0-9]){10,30})",
    "phone": r"(?:\+|\b00)[ ()-]{0,2}[1-9](?:[ ()./-]{0,2}[0-9]){6,14}",
}
FINDABLE = frozenset(_LOOSE_AS)
MAX_FIND = 65_536  # characters of a text in which one entity is looked for; in a longer one nothing is found
_LOOSE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _LOOSE_AS.items()))
_HIDDEN = {kind: re.compile(pattern) for kind, pattern in _LOOSE_AS.items()}
_WORDS_AFTER = re.compile(r"(?:[ -][A-Za-z]+)+$")
_HINT = re.compile(r"[@0-9]|:/|[wW]{3}\.")  # no email, link, IBAN or phone number, strict or loose, is without one of these


def embedded(text: str, today: date) -> Iterator[Entity]:
    """Every email, link, IBAN and phone number in a free text; what is no whole entity comes with its words as key.

    The latter has no origin anywhere, so it is refused wherever entities must be grounded (an address glued to a word, a
    foreign scheme, an IBAN in lower case).
    """
    if _HINT.search(text) is None:
        return
    whole = [e for e in entities(text, today) if e.type in FINDABLE]
    yield from whole
    covered = [(e.start, e.start + len(e.words)) for e in whole]
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
