"""Numbers in words: "thirty-five", "four hundred and twenty", "two thousand", "5 thousand"; 0 to 999,999, in English.

Rules: a run of number words is read as a whole or names nothing: "twelve fifty", "several hundred", "two and a half", "five million" are
no number, and nothing is cut out of them. A lone "one" is a pronoun more often than a number, so it is one only beside a currency; an
article is one only before "hundred" and "thousand". Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

_UNITS = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {"zero": 0} | {word: value for value, word in enumerate((*_UNITS, *_TEENS), 1)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_LARGER = "hundred thousand million billion trillion dozen lakh crore grand".split()  # from the third on they are read as no number
LARGE = f"(?:{'|'.join(_LARGER)})s?"
ORDINALS = {
    word: value
    for value, word in enumerate(
        (
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth "
            "seventeenth eighteenth nineteenth twentieth"
        ).split(),
        1,
    )
} | {"thirtieth": 30}
ORDINAL = rf"(?:(?:twenty|thirty)[\s-])?(?:{'|'.join(sorted(ORDINALS, key=len, reverse=True))})"

SMALL = rf"(?:{'|'.join(sorted(_SMALL, key=len, reverse=True))})\b"
_WORD = rf"(?:{'|'.join(sorted(_SMALL, key=len, reverse=True))}|{LARGE})\b"
_AND = r"(?:(?:(?<=hundred)|(?<=thousand)|(?<=million)|(?<=billion))(?:,?\s{1,3}|-)(?:and[\s-])?|\s{1,3}|-)"
# A run is never matched in part, so that nothing is left of "twenty five-year bonds".
NUMERAL = rf"(?>(?:(?:an?|[0-9]{{1,3}})\s{{1,3}}(?={LARGE}\b))?{_WORD}(?:{_AND}{_WORD})*)"
NUMERAL_BEGINS = (*(rf"{word}\b" for word in _SMALL), "hundred\\b", "thousand\\b", *(rf"{an}\s{{1,3}}{LARGE}\b" for an in ("a", "an")))

_PARTS = re.compile(r"[\s-]+")
_NUMERAL = re.compile(f"(?i:{NUMERAL})")
_BEFORE = re.compile(rf"(?i)\b(?:(?:point|half|minus|negative)[\s-]{{1,3}}|{_WORD}\s{{1,16}})$")  # "two point five", "half a thousand"
_AFTER = re.compile(  # "two and a half", "two thirds", "twenty first", "two point five", "fifty percent", "five dollars fifty"
    rf"(?i)\s{{0,3}}%|\s{{1,16}}{_WORD}|\s{{1,3}}(?:(?:and\s(?:an?\s)?)?(?:half|quarters?|thirds?|halves)\b|point\b|per\s?cent\b|cents?\b|pence\b|past\b"
    rf"|o['\u2019]clock\b|{ORDINAL}s?\b|(?:and\s)?(?:[a-z0-9]{{1,9}}[\s-]){{1,3}}(?:cents?|pence)\b)"
)


def read_numeral(text: str, start: int, end: int) -> tuple[Decimal, str] | None:
    """The number that `NUMERAL` found in a text, and what follows it there, a currency, without spaces; None where it is no number.

    Args:
        text: the whole text; what stands around the span may say that it is only a part of a number.
        start: where the number words begin.
        end: where they, or the currency behind them, end.
    """
    found = _NUMERAL.match(text, start, end)
    if found is None or _AFTER.match(text, end) or _BEFORE.search(text[max(0, start - 28) : start]):
        return None
    beside = "".join(text[found.end() : end].split())
    words = [word for word in _PARTS.split(found.group().lower()) if word != "and"]
    value = None if words == ["one"] and not beside else _number(words)
    return None if value is None else (Decimal(value), beside)


def numeral_value(words: str) -> Decimal | None:
    """The number that number words are, whatever stands around them; None where they are none."""
    value = _number([word for word in _PARTS.split(words.lower()) if word != "and"])
    return None if value is None else Decimal(value)


def read_ordinal(words: str) -> int | None:
    """The day of a month that an ordinal in words names, 1 to 31; None for another one."""
    tens, _, last = words.lower().replace("-", " ").rpartition(" ")
    value = ORDINALS.get(last)
    if value is None or not tens:
        return value
    return value + _SMALL.get(tens.strip(), 100) if value < 10 else None


def _number(words: list[str]) -> int | None:
    if "thousand" not in words:
        return _hundreds(words)
    at = words.index("thousand")
    thousands, rest = _hundreds(words[:at]), _rest(_hundreds, words[at + 1 :])
    if thousands is None or rest is None or not 1 <= thousands < 1000 or rest >= 1000:
        return None
    return 1000 * thousands + rest


def _hundreds(words: list[str]) -> int | None:
    if "hundred" not in words:
        return _tens(words)
    at = words.index("hundred")
    hundreds, rest = _tens(words[:at]), _rest(_tens, words[at + 1 :])
    return None if hundreds is None or rest is None or hundreds % 10 == 0 else 100 * hundreds + rest


def _tens(words: list[str]) -> int | None:
    values = [1 if word in {"a", "an"} else int(word) if word.isdecimal() else _SMALL.get(word) for word in words]
    if len(values) == 1:
        return values[0]
    if len(values) == 2 and None not in values:
        tens, unit = values
        return tens + unit if tens is not None and unit is not None and words[0] in _TENS and 1 <= unit <= 9 else None
    return None


def _rest(read: Callable[[list[str]], int | None], words: list[str]) -> int | None:
    """What follows a hundred or a thousand: nothing is 0, and zero is no such thing."""
    return (read(words) or None) if words else 0
