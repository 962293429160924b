"""Finds typed entities in a text: strictly, as an origin requires, or loosely, as a reader
might see them.

Rules: a span has one type, and an entity is a whole one: ``3.34`` is not in ``ORD-3.34``, nor
``bob@acme.example`` in ``bob@acme.example.evil.com``. `entities` decides what grounds a value;
`embedded` decides what needs grounding, so it is wider. Each is one left-to-right pass, and a
link is read once however many begin in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property, partial
from html import unescape
from typing import NamedTuple

from agentgate.language import numerals
from agentgate.language.days import BEGINS, CLOCK, DAY, read_clock, read_day
from agentgate.language.word_files import Forms
from agentgate.values.currencies import CLEAR, CODE, COMMON_CODES, CURRENCIES, IN_WORDS, SIGN
from agentgate.values.entities import COMMON_ENDS, COUNTRY, Key, normal
from agentgate.values.paths import FINDABLE, MAX_FIND
from agentgate.values.visible import UNSEEN

# characters that `re.IGNORECASE` matches with these letters
_ODD = "\u0130\u0131\u017f\u212a"


def small(text: str) -> str:
    """The text in lower case, of the same length: a lower-case pattern matches in it as it
    would in the text with `re.IGNORECASE`.
    """
    if not text.isascii():
        for odd, letter in zip(_ODD, "iisk", strict=True):
            text = text.replace(odd, letter)
    return text.lower()


_FORMS = Forms("spans")
_AMOUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?:\.[0-9]{1,6})?"
# beside a currency, thousands may be spaced
_MONEY = (
    rf"(?:[0-9]{{1,3}}(?:[ \u00a0\u202f][0-9]{{3}}){{1,4}}(?![ "
    rf"\u00a0\u202f]?[0-9])(?:\.[0-9]{{1,6}})?|{_AMOUNT})"
)
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
_FILE = r"(?:txt|md|pdf|csv|tsv|json|xml|ya?ml|docx?|xlsx?|pptx?|odt|ods|png|jpe?g|gif|html?|py|js|ts|zip|log|ini|cfg|toml|sh|sql|eml|ics)"
_END = r"(?![\w@])(?![.\-:/#][\w])"  # a whole entity ends here, not inside a longer one
_SIGNS = "".join(sign for sign in CURRENCIES if len(sign) == 1)
_SPACED = r"[ \u00a0\u202f][0-9]{3}(?![0-9])"  # three more digits of an amount
_GROUP_BEFORE = "|".join(rf"(?<=(?<![\w./#-])[0-9]{{{n}}}[ \u00a0\u202f])" for n in (1, 2, 3))
_PART_OF_GROUPS = rf"(?=[0-9]{{3}}(?![0-9]))(?:{_GROUP_BEFORE})"  # the 200 of "5 200"
# Shortcuts: words of which none is an entity or begins one, and a number with nothing behind
# that could belong to it.
_PLAIN = (
    rf"(?:(?!{BEGINS})[A-Za-z]++(?!\s[0-9](?<=(?<![A-Za-z])(?:[A-Z]{{3}}|{COMMON_CODES})..))"
    r"(?:[ ,;!?)]++|(?=[.:]?(?:[^\w.:#/@+%$-]|$))))+"
    r"|[A-Za-z]*+[^\W\d_A-Za-z\u0130\u0131\u017f\u212a][^\W\d_]*(?=[.,;!?)]*(?:\s|$))"
)
_NUMBER_ALONE = rf"(?<![0-9],)(?!{_PART_OF_GROUPS})(?P<alone>{_AMOUNT})(?=[.,;!?)](?:\s|$)|\s(?!\s|[^\W\d_]|[%{_SIGNS}]|[0-9]{{3}}(?![0-9]))|$)"
_REFERENCE = "[1-9][0-9]{0,8}"  # the number of an issue or a request: "#42", "web#42"
_TOKEN = re.compile(
    rf"(?<![\w@.\-/#])(?=[\w#@/+{_SIGNS}-])(?:"
    rf"{_PLAIN}"
    rf"|{_NUMBER_ALONE}"
    rf"|(?P<url>(?:https?://|[wW](?i:ww)\.(?=[A-Za-z0-9]))[^\s<>\"'\u201c\u201d\u2018\u2019\u00ab\u00bb]{{1,2000}})"
    rf"|(?P<email>[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}@{_HOST}){_END}"
    rf"|(?P<iban>{COUNTRY}[0-9]{{2}}(?:[A-Z0-9]{{10,30}}|(?: [A-Z0-9]{{4}}){{2,7}}(?: "
    rf"[A-Z0-9]{{1,3}})?)){_END}"
    rf"|(?P<datetime>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[ T]| at "
    rf")[0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?){_END}"
    rf"|(?=[0-9]|{BEGINS})(?:(?P<date>{DAY}){_END}|(?P<time>{CLOCK}){_END}"
    rf"|(?<![0-9],)(?P<numeral>(?i:{numerals.NUMERAL})(?:\s(?:{CODE}|{CLEAR}|{SIGN})|{numerals.PERCENT})?){_END})"
    rf"|(?P<money>(?:{SIGN}|{CODE})\s?{_MONEY}{numerals.SCALE}?"
    rf"|(?<![0-9],)(?!{_PART_OF_GROUPS})(?>{_MONEY})(?:\s?(?=[^\W\d_]|[{_SIGNS}])(?:{SIGN}|{CODE}|{IN_WORDS})"
    rf"|{numerals.SCALE}(?:\s(?:{SIGN}|{CODE}|{CLEAR})|{SIGN}))){_END}"
    rf"|(?<![0-9],)(?P<percent>{_AMOUNT}{numerals.PERCENT}){_END}(?!%)"
    rf"|(?P<phone>\+[1-9](?:[ ()-]{{0,2}}[0-9]){{6,14}}){_END}"
    rf"|\#(?P<numbered>{_REFERENCE}){_END}|\#(?P<coded>[0-9]{{1,64}}){_END}"
    rf"|(?P<channel>\#[A-Za-z][A-Za-z0-9_-]{{0,79}}){_END}"
    rf"|(?P<user>@[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,62}}[A-Za-z0-9])?){_END}"
    rf"|(?P<path>/?(?:[\w+-][\w.+-]{{0,120}}/){{1,16}}[\w+-][\w.+-]{{0,120}}\.{_FILE}|[\w+-][\w.+-]{{0,120}}\.{_FILE}){_END}"
    rf"|(?P<domain>{_HOST}){_END}"
    rf"|(?<![0-9],)(?!{_PART_OF_GROUPS})(?P<number>-?{_AMOUNT})(?![\w@/#:]|[.,\-][0-9A-Za-z])"
    rf"(?!{numerals.PERCENT}|{_SPACED}|\s{{1,3}}(?i:{numerals.LARGE})\b)"
    rf"|(?P<id>[A-Za-z0-9]+(?:[._:#/-]+[A-Za-z0-9]+)*)(?![\w@])"
    r"|\w[^\s]*"  # consume anything else whole, so that no entity starts inside it
    r")|[#@/+-]\w[^\s]*"
)
_TRAILING = ".,;:!?)]}>*"


class Entity(NamedTuple):
    """One whole typed value in a text: its type, its comparison key, its words, where they
    start, and for money the currency (or empty).
    """

    type: str
    key: Key
    words: str
    start: int
    currency: str = ""

    @property
    def end(self) -> int:
        """Where they end."""
        return self.start + len(self.words)


NO_DAY = date(2000, 1, 1)  # for readers of what depends on no day


def entities(
    text: str,
    today: date,
) -> Iterator[Entity]:
    """Every whole typed entity of a text, left to right, each span under one type; linear in
    the text.

    An adjacent day and time ("10:00 on May 20th", "tomorrow from 9am to 10am") are also a
    `datetime`.
    """
    day = None  # the day to which the next time may belong
    times: list[Entity] = []  # the times to which the next day may belong
    end = 0  # of the day or the times
    for entity in _entities(text, today):
        yield entity
        between = text[end : entity.start]
        end = entity.end
        if entity.type == "date":
            if times and _FORMS.on.fullmatch(between):
                for time in times:
                    if time.type == "time":
                        yield _moment(entity, time, text[:end])
            day = entity
            times = []
        elif entity.type == "time":
            if day and (_FORMS.to if times else _FORMS.at).fullmatch(between):
                yield _moment(day, entity, text[:end])
            else:
                day = None
            times = [*times, entity] if times and _FORMS.to.fullmatch(between) else [entity]
        elif entity.type == "datetime":
            day = Entity("date", str(entity.key)[:10], entity.words, entity.start)
            times = [entity]
        else:
            day = None
            times = []


def _moment(
    day: Entity,
    time: Entity,
    text: str,
) -> Entity:
    """A day and a time, of which the later one ends the text."""
    start = min(day.start, time.start)
    return Entity("datetime", f"{day.key}T{time.key}:00", text[start:], start)


def _entities(text: str, today: date) -> Iterator[Entity]:
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind is None:
            continue
        words = token[kind]
        start, end = token.span(kind)
        currency = ""
        key: Key | None = None
        if as_written := _WRITTEN.get(kind):
            key = normal(kind, as_written(words))
        elif kind == "date":
            key = read_day(words, today)
        elif kind == "id":
            if _FORMS.digit.search(words):
                key = normal("id", words)
            if "#" in words and (reference := _REFERRED.search(words)):  # not in "ORD-7#42"
                yield Entity(
                    "number", Decimal(reference[0]), reference[0], start + reference.start()
                )
            if (
                words[-1] in "kK"
                and (thousands := numerals.read_thousands(text, start, end)) is not None
            ):
                yield Entity("count", thousands, words, start)
        elif kind == "coded" or (
            kind in {"alone", "number"} and _FORMS.coded_number.fullmatch(words)
        ):
            # "00123" is no number, and "#0042" not the 42nd of anything
            kind = "id"
            key = normal("id", words)
        elif kind == "money":
            beside, amount = numerals.read_amount(text, start, end)
            currency = CURRENCIES.get(beside, "")
            if currency:
                key = amount  # "50 US kronor" is no amount
        elif kind == "url":
            words = words.rstrip(_TRAILING)
            key = normal(kind, _FORMS.host.sub(lambda url: url[1] + url[2].lower(), words, 1))
        elif kind == "numeral":
            key, beside = numerals.read_numeral(text, start, end) or (None, "")
            currency = CURRENCIES.get(beside, "")
            kind = "money" if currency else "percent" if beside[:1] in {"%", "p"} else "count"
            if beside and kind == "count":
                key = None
        elif kind == "percent":
            if not numerals.continues(text, start):
                key = normal("number", _FORMS.unnumeric.sub("", words))
        else:  # a number
            kind = "number"
            if not numerals.marks_an_item(text, start, end):
                key = normal("number", words.replace(",", ""))
        if key is not None:
            yield Entity(kind, key, words, start, currency)


_REFERRED = re.compile(rf"(?<=[A-Za-z]#){_REFERENCE}$")
# the value of words with one possible reading
_WRITTEN: Mapping[str, Callable[[str], object]] = {
    "email": str.lower,
    "domain": str.lower,
    "iban": lambda words: words.replace(" ", ""),
    "datetime": lambda words: words.replace(" at ", " "),
    "time": read_clock,
    "phone": partial(re.compile(r"[ ()-]").sub, ""),
    "channel": str,
    "user": str,
    "path": str,
}


# What a person or a mail program may take for an address, a link or an account number, however
# it is joined to its neighbours. Strict entities decide what grounds a value; these decide what
# needs grounding.
_NAME = r"[^\s<>()\[\]{},;:\"'@]"
_ADDRESS = r"@[^\s<>()\[\]{},;\"'@]{1,255}"
_LINK = r"[^\s<>\"']+"
# of an existing country
IBAN = rf"[a-z]{{2}}[0-9]{{2}}(?<={COUNTRY.lower()}[0-9]{{2}})(?:[\s-]?[a-z0-9]){{10,30}}"
LOOSE: Mapping[
    str, str
] = {  # for lower case; of matches that begin at one place the first counts
    "email": rf"{_NAME}{{0,64}}+{_ADDRESS}",
    "url": (
        rf"[a-z][a-z0-9+.-]{{0,30}}+:[/\\]{{1,2}}{_LINK}"
        rf"|[h/\\w](?:(?<=\bh)ttps?:(?=\w)|(?<![\w:/\\].)(?:(?<=/)/|(?<=\\)\\(?![nrt](?:\s|\Z|\\\\)))(?=\w)|(?<=\bw)ww\.){_LINK}"
        rf"|(?<![\w.@-])(?:[a-z0-9-]{{1,63}}\.){{1,8}}(?:[a-z]{{2,24}}/(?=\w){_LINK}|(?:{COMMON_ENDS})(?![\w-]|\.\w))"
    ),
    "iban": IBAN,
    "phone": r"[+0](?:(?<=\+)|(?<=\b0)0(?![0-9]{16}))[ ()-]{0,2}[1-9](?:[ ()./-]{0,2}[0-9]){6,14}",
}
_ANY = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in LOOSE.items()))
# No email, link, IBAN or phone number, strict or loose, is without one of these, in its first
# word.
_HINT = re.compile(
    r"[0-9@:/\\.+](?:(?<=[0-9])(?:(?<=[A-Za-z\u0130\u0131\u017f\u212a]{2}[0-9])[0-9]|(?<=\b0)0[ "
    r"()-]{0,2}[1-9])"
    r"|(?<=@)|(?<=:)(?:[/\\]|(?<=[pPsS\u017f]:)\w)|(?<=/)/|(?<=\\)\\|(?<=\+)[ ()-]{0,2}[1-9]"
    rf"|(?<=\.)(?:(?<=[wW]{{3}}\.)|(?i:[a-z]{{2,24}}/|(?:{COMMON_ENDS})\b)))"
)
_LIKE = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u3002\u2044\u2215", "-------.//"
)


def as_read(text: str) -> str:
    """A text as people read it and programs follow it: HTML entities decoded, invisible
    characters removed, variants made plain.
    """
    if text.isascii() and not _FORMS.coded.search(text):
        return text
    plain = UNSEEN.sub("", unicodedata.normalize("NFKC", unescape(text)).translate(_LIKE))
    return "".join(str(unicodedata.decimal(c, c)) for c in plain)


def embedded(text: str, today: date) -> Iterator[Entity]:
    """Every email, link, IBAN and phone number in a free text; one that is no whole entity has
    its words as key.

    Such a one (an address joined to a word, a foreign scheme, an IBAN in lower case) has an
    origin only where the user wrote the very same words, so it is refused wherever entities
    must be grounded. Look-alikes count ("eve\uff20evil.example"), and written-out line breaks
    are read both ways.
    """
    written_out = _FORMS.written_out.sub(
        lambda code: chr(int(code[1], 16)) if code[1] else "\n", text
    )
    for each in dict.fromkeys((text, as_read(text), as_read(written_out))):
        if _HINT.search(each):
            whole = [e for e in entities(each, today) if e.type in FINDABLE]
            yield from whole
            yield from glued(each, whole)


def glued(
    text: str,
    whole: Iterable[Entity],
) -> Iterator[Entity]:
    """The results of `embedded` beside the whole entities of a text."""
    low = small(text)
    covered = [(e.start, e.end) for e in whole if e.type in FINDABLE]
    at = position = 0
    while hint := _HINT.search(low, position):
        word = low.rfind(" ", position, hint.start())
        found = _ANY.search(low, max(position, word))
        if not found:
            return
        start, end = found.span()
        kind = found.lastgroup or ""
        while at < len(covered) and covered[at][1] <= start:
            at += 1
        over = at < len(covered) and covered[at][0] <= start
        account = end - start
        if kind == "iban":
            account = account_length(text[start:end])
        if not account:
            position = start + 1
        elif over and start == covered[at][0] and kind == "iban":
            position = covered[at][1]  # what follows a whole account number is not part of it
        else:
            position = start + account
            # more than closing punctuation behind the whole entity that it begins in
            if not over or text[covered[at][1] : position].strip(_TRAILING):
                words = text[start:position]
                yield Entity(kind, words, words, start)


def account_length(words: str) -> int:
    """The length of a loose match that may be an account number; 0 when it is only words
    (every IBAN has at least 12 digits).
    """
    if sum(map(str.isdecimal, words)) < 12:
        return 0
    return len(_FORMS.words_after.sub("", words))


# an account number as people print it
_GROUPED = r"[a-z]{2}[\s.|/:_-]{0,2}[0-9]{2}(?:[\s.|/:_-]{1,3}[a-z0-9]{4}){3,7}"
_HIDDEN = {
    kind: re.compile(pattern)
    for kind, pattern in {**LOOSE, "iban": f"{IBAN}|{_GROUPED}"}.items()
}


@dataclass
class SearchedText:
    """A text of at most `MAX_FIND` characters that is searched for its one entity of a kind:
    read once, whatever is searched for, and however many facts do.

    An attacker who adds to the text can only make it ambiguous; nothing is chosen by its
    position or the words around it.
    """

    written: str

    @cached_property
    def entities(self) -> list[Entity]:
        """Every whole entity of the text as it is written."""
        return list(entities(self.written, NO_DAY))

    @cached_property
    def _text(self) -> str:
        return as_read(self.written)

    @cached_property
    def _whole(self) -> list[Entity]:
        return list(entities(self._text, NO_DAY))

    @cached_property
    def _embedded(self) -> list[Entity]:
        return list(embedded(self._text, NO_DAY))

    def only(self, kind: str) -> Key | None:
        """The one entity of a kind of `FINDABLE`, possibly repeated; None when there is none,
        or possibly another.
        """
        if len(self.written) > MAX_FIND:
            return None
        keys = {entity.key for entity in self._embedded if entity.type == kind}
        if len(keys) != 1:
            return None
        key = normal(kind, keys.pop())
        rest = "".join(self._others(kind))
        low = small(rest)
        hidden = _HIDDEN[kind].search(low)
        while hidden and kind == "iban" and not account_length(rest[slice(*hidden.span())]):
            hidden = _HIDDEN[kind].search(low, hidden.start() + 1)
        return None if hidden else key

    def _others(self, kind: str) -> Iterator[str]:
        """The text without its entities of this kind: another kind must not hide one, for
        "a@DE89..." is an account number, too.
        """
        end = 0
        for entity in self._whole:
            if entity.type == kind:
                yield self._text[end : entity.start] + "\n" * len(entity.words)
                end = entity.end
        yield self._text[end:]
