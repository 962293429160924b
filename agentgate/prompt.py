"""The user's own words, read once: what is said, what is denied, what is only quoted, and the typed entities in it.

Rules: only the user's turns come here, never tool output. Quoted and forwarded text says nothing and names nothing; a
negated clause withdraws what it names, also from earlier turns. A span belongs to one type, and an entity is a whole one:
``3.34`` is not in ``ORD-3.34``, nor ``bob@acme.example`` in ``bob@acme.example.evil.com``. One left-to-right pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal

from agentgate.entities import Key, normal

MAX_TURN = 65_536  # characters of one turn; more is refused by the gate

Voice = Literal["said", "denied"]

# --- voices --------------------------------------------------------------------------------------------------------------
_BREAK = re.compile("\r(?!\n)|[\v\f\x1c-\x1e\x85\u2028\u2029]")  # other ways to begin a line
_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_FIELD = r"(?:sent|date|to|cc|bcc|reply-to|subject)"
_FORWARDED = re.compile(
    r"(?im)^[ \t]*(?:-{2,40}[ \t]*(?:original|forwarded) message|begin forwarded message|fwd?:|forwarded:"
    r"|on\b[^\n]{1,200}\n?[^\n]{0,80}\bwrote:[ \t\r]*$"
    rf"|\*{{0,2}}from:\*{{0,2}}[ \t].+\n[ \t]*\*{{0,2}}{_FIELD}:|\*{{0,2}}(?:sent|cc|reply-to|subject):.*\n[ \t]*\*{{0,2}}from:)"
)
_PASTED = re.compile(
    r"(?i)\b(?:summari[sz]e|translate|proofread|rewrite|explain|analy[sz]e|classify)\b[^.\n:]{0,60}"
    r"\b(?:this|following|below|text|message|email|e-mail|note)\b[^.\n:]{0,30}:"
)
_QUOTED_LINE = re.compile(r"(?m)^[ \t\xa0\u200b-\u200d\u2060\ufeff]{0,40}>.*$")
_QUOTE = re.compile(
    r"\"([^\"]+)\"|“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|`([^`\n]{1,2000})`|(?<!\w)'([^'\n]{1,2000})'(?!\w)|(?<!\w)‘([^’]{1,2000})’(?!\w)"
)
_CLAUSE = re.compile(
    r"(?<=[.!?;])\s|\n|,?(?<!\s)\s{1,8}\b(?:but|instead|rather|then|however)\b|,\s{1,8}(?=(?:and|just|only|please)\b)", re.IGNORECASE
)
_NEGATED = "do does did must should ca wo would could need is are was were has have had sha might".split()  # what stands before "n't"
_NEGATION = re.compile(
    rf"(?i)\b(?:(?:{'|'.join(_NEGATED)})n['’ʼ`´‘＇′]?t|cannot|never|not|no|no longer|neither|nor|none|nobody"
    r"|without|instead of|rather than|except|stop|cancel that|abort|forget|ignore|disregard|hold off|refrain from|avoid)\b"
)
_ALONE = frozenset({"no", "none", "nobody", "stop", "abort", "forget", "cancel that", "hold off"})  # say all they have to say


def _blank(found: re.Match[str]) -> str:
    return " " * len(found.group())


def _blank_quotation(found: re.Match[str]) -> str:
    inner = next(group for group in found.groups() if group is not None)
    return _blank(found) if len(inner.split()) > 6 or re.search(r"[!?;:]\s|\.\s", inner) else found.group()


def own_words(turn: str) -> str:
    """The turn with quoted, forwarded, fenced and pasted text blanked out (same length, so that spans stay true).

    A quotation of at most six words without sentence punctuation is a name the user gives ("open 'bill-december.txt'"),
    not a quotation of somebody, and stays.
    """
    text = _BREAK.sub("\n", turn)
    for opening in (_FORWARDED, _PASTED):
        found = opening.search(text)
        if found:
            start = found.start() if opening is _FORWARDED else found.end()
            text = text[:start] + " " * (len(text) - start)
    text = _QUOTED_LINE.sub(_blank, _FENCE.sub(_blank, text))
    return _QUOTE.sub(_blank_quotation, text)


def unquoted(words: str) -> str:
    """What `own_words` left, with the short quotations blanked out too: a name may be given in quotes, a request may not."""
    return _QUOTE.sub(_blank, words)


def clauses(turn: str) -> Iterator[tuple[Voice, int, int]]:
    """The clauses of the user's own words as (voice, start, end) spans; a clause is denied from its first negation on.

    A clause does not end right behind its negation: "do not, please, refund it", or a line that was wrapped there.
    """
    start = 0
    bounds = [*((m.start(), m.end()) for m in _CLAUSE.finditer(turn)), (len(turn), len(turn))]
    for end, following in bounds:
        negation = _NEGATION.search(turn, start, end)
        if negation is None:
            yield "said", start, end
        elif end < len(turn) and negation.group().lower() not in _ALONE and not turn[negation.end() : end].strip(" \t,"):
            continue
        else:
            yield "said", start, negation.start()
            yield "denied", negation.start(), end
        start = following


# --- entities ------------------------------------------------------------------------------------------------------------
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
    rf"(?P<url>https?://[^\s<>\"'“”‘’«»]{{1,2000}})"
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
_LOOSE = re.compile(
    r"(?P<email>[^\s<>()\[\]{},;:\"'@]{0,64}@[^\s<>()\[\]{},;\"'@]{1,255})"
    r"|(?P<url>(?i:[a-z][a-z0-9+.-]{0,30}:/{1,2}|\bwww\.)[^\s<>\"']+)"
    r"|(?P<iban>(?i:[a-z]{2}[0-9]{2}(?:[ -]?[a-z0-9]){10,30}))"
    r"|(?P<phone>(?:\+|\b00)[ ()-]{0,2}[1-9](?:[ ()./-]{0,2}[0-9]){6,14})"
)
_HINT = re.compile(r"[@0-9]|:/|[wW]{3}\.")  # no email, link, IBAN or phone number, strict or loose, is without one of these


def embedded(text: str, today: date) -> Iterator[Entity]:
    """Every email, link, IBAN and phone number in a free text; what is no whole entity comes with its words as key.

    The latter has no origin anywhere, so it is refused wherever entities must be grounded (an address glued to a word, a
    foreign scheme, an IBAN in lower case).
    """
    if _HINT.search(text) is None:
        return
    whole = {e.start: e for e in entities(text, today) if e.type in {"email", "url", "iban", "phone"}}
    covered = [(e.start, e.start + len(e.words)) for e in whole.values()]
    yield from whole.values()
    at = 0
    for found in _LOOSE.finditer(text):
        while at < len(covered) and covered[at][1] <= found.start():
            at += 1
        inside = (
            at < len(covered)
            and covered[at][0] <= found.start()
            and found.end() <= covered[at][1] + _slack(text, covered[at][1], found.end())
        )
        if not inside:
            yield Entity(str(found.lastgroup), found.group(), found.group(), found.start())


def _slack(text: str, end: int, found: int) -> int:
    """How far a loose match may run past a whole entity: over closing punctuation only."""
    return found - end if not text[end:found].strip(_TRAILING) else 0


# A value of the left type may be written in a prompt as an entity of these types.
_WRITTEN_AS: Mapping[str, tuple[str, ...]] = {
    "money": ("money", "number"),
    "number": ("number", "money"),
    "integer": ("number", "money"),
    "id": ("id", "number", "date", "domain"),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The entities a run's user has named: type -> key -> the words (money keys carry the currency beside)."""

    named: Mapping[str, Mapping[Key, Entity]]
    amounts: frozenset[tuple[Decimal, str]]

    @classmethod
    def of(cls, turns: tuple[str, ...], today: date) -> Prompt:
        """Read the turns in order; a denied entity is withdrawn, from this turn and the earlier ones.

        Args:
            turns: the user's texts, oldest first; each at most `MAX_TURN` characters.
            today: the run's day, for "tomorrow" and "May 26th".
        """
        named: dict[str, dict[Key, Entity]] = {}
        amounts: set[tuple[Decimal, str]] = set()
        for turn in turns:
            words = own_words(turn)
            spans = list(clauses(words))
            denied: list[Entity] = []
            at = 0
            for entity in entities(words, today):
                while at + 1 < len(spans) and spans[at][2] <= entity.start:
                    at += 1
                if spans[at][0] == "denied":
                    denied.append(entity)
                else:
                    named.setdefault(entity.type, {})[entity.key] = entity
                    if isinstance(entity.key, Decimal):
                        amounts.add((entity.key, entity.currency))
            for entity in denied:
                named.get(entity.type, {}).pop(entity.key, None)
                if isinstance(entity.key, Decimal):  # "not 50" also withdraws 50 EUR, and "not 50 EUR" a bare 50
                    for written in ("money", "number"):
                        named.get(written, {}).pop(entity.key, None)
                    amounts = {a for a in amounts if a[0] != entity.key or (a[1] and entity.currency and a[1] != entity.currency)}
        return cls(named, frozenset(amounts))

    def words(self, kind: str, key: Key, currency: str = "") -> str | None:
        """The words that name this value as one whole entity, or None.

        Args:
            kind: the argument's type.
            key: its comparison key.
            currency: for money, the argument's currency; an amount the user wrote with another currency does not count.
        """
        if kind == "money":
            if isinstance(key, Decimal) and ((key, "") in self.amounts or (currency and (key, currency) in self.amounts)):
                return str(key)
            return None
        for written in _WRITTEN_AS.get(kind, (kind,)):
            table = self.named.get(written)
            if table is None:
                continue
            wanted: Key | None = key
            if written == "number" and kind == "id":
                wanted = normal("number", key)
            found = table.get(wanted) if wanted is not None else None
            if found is not None:
                return found.words
        return None
