"""Numbers in words: "thirty-five", "four hundred and twenty", "two thousand", "a dozen"; "34k", "1.2 million euros"; "8 percent".

Rules: a run of number words is read whole or not at all: "twelve fifty", "several hundred", "two and a half", "five million" are no
number, and no part of them is one. A lone "one" is more often a pronoun, so it is a number only beside a currency; an article is 1 only
before "hundred", "thousand" and "dozen". Words go up to 999,999. A k after digits is a thousand beside a currency, and alone a count where
it can mean nothing else ("a 5k", "seat 34K", "10k steps" name none); m and million are read beside a currency only. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from agentgate.values.entities import number

_UNITS = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VALUES = {"zero": 0} | {word: value for value, word in enumerate((*_UNITS, *_TEENS), 1)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_LARGER = "hundred thousand million billion trillion dozen lakh crore grand".split()  # no number with one from the third on is read
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

SMALL = rf"(?:{'|'.join(sorted(VALUES, key=len, reverse=True))})\b"
_WORD = rf"(?:{'|'.join(sorted(VALUES, key=len, reverse=True))}|{LARGE})\b"
_AND = r"(?:(?:(?<=hundred)|(?<=thousand)|(?<=million)|(?<=billion))(?:,?\s{1,3}|-)(?:and[\s-])?|\s{1,3}|-)"
# A run never matches in part, so that "twenty five-year bonds" names nothing.
NUMERAL = rf"(?>(?:(?:an?|[0-9]{{1,3}})\s{{1,3}}(?={LARGE}\b))?{_WORD}(?:{_AND}{_WORD})*)"
NUMERAL_BEGINS = (
    *(rf"{word}\b" for word in VALUES),
    "hundred\\b",
    "thousand\\b",
    *(rf"{an}\s{{1,3}}{LARGE}\b" for an in ("a", "an")),
)

SCALE = r"(?:[kKmM]|\s[mM]illion)"  # after the digits of an amount with a currency
_SIZES = {"k": 1000, "m": 1_000_000}

_DOZEN = ["a", "dozen"]
_PARTS = re.compile(r"[\s-]+")
_NUMERAL = re.compile(f"(?i:{NUMERAL})")
_BEFORE = re.compile(rf"(?i)\b(?:(?:point|half|minus|negative)[\s-]{{1,3}}|{_WORD}\s{{1,16}})$")  # "two point five", "half a thousand"
_AFTER = re.compile(  # "two and a half", "two thirds", "twenty first", "two point five", "fifty percent", "five dollars fifty"
    rf"(?i)\s{{0,3}}%|\s{{1,16}}{_WORD}|\s{{1,3}}(?:(?:and\s(?:an?\s)?)?(?:half|quarters?|thirds?|halves)\b|point\b|per\s?cent\b|cents?\b|pence\b|past\b"
    rf"|o['\u2019]clock\b|{ORDINAL}s?\b|(?:and\s)?(?:[a-z0-9]{{1,9}}[\s-]){{1,3}}(?:cents?|pence)\b)"
)

_HALF = re.compile(r"(?i)(?<!\ba\s)(?<!-a-)\bhalf\s$")  # "half a dozen", not "one and a half a dozen"
_PERCENT = re.compile(r"(?i)\s?(?:%|(?:per\s?cent|pct)\b)(?![\w@%]|[.\-:/#]\w)")
_WINDOW = 4000  # characters on either side that may hold the neighbour of a list's number
_DIGITS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?")
_SCALED = re.compile(r"(?<=[0-9])(?:([kKmM])(?![A-Za-z])|\s([mM])illion)")
_GOES_ON = re.compile(rf"(?i)\s{{1,3}}{_WORD}")
_LARGER_BEHIND = re.compile(rf"(?i)\s{{1,3}}{LARGE}\b")
_THOUSANDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)[kK]")
# Other meanings of "5k": a distance, a resolution, a seat, a name. Few words may follow: not "10k steps".
_NOT_THOUSANDS = re.compile(
    r"(?i)(?:[0-9],|\b(?:an?|the|this|that|these|those|each|every|my|your|his|her|its|our|their|in|point|minus|half"
    r"|r[au]n|runs|running|walk(?:s|ed|ing)?|jog(?:s|ged|ging)?|sw[ia]m(?:s|ming)?|rac(?:e|es|ed|ing)|cycl(?:e|es|ed|ing)|distance"
    r"|seat|row|room|gate|flight|platform|track|unit|flat|apartment|suite|line|bus|route|model|version|no\.?|number|order|ticket|booking)\s)$"
)
_AFTER_THOUSANDS = re.compile(
    r"(?i)[.,;:!?)\"'\u201d\u2019]*(?:\s*$|\n)|[.,;:!?)\"'\u201d\u2019]+\s|\s(?:to|for|from|into|on|onto|at|by|per|with|via|and|or|but|as"
    r"|please|now|today|tomorrow|instead|because|since|if|when|before|after|until|then|so|net|gross|each|in\stotal|(?:a|this|next)\s(?:month|year))\b"
)


def percents(text: str, start: int, end: int) -> re.Match[str] | None:
    """The sign or word after a number that makes it a percentage; None where there is none or the number is part of a larger one."""
    sign = _PERCENT.match(text, end)
    return sign if sign is None or _BEFORE.search(text[max(0, start - 28) : start]) is None else None


def digits_percent(text: str, start: int, end: int) -> re.Match[str] | None:
    """The sign of a percentage directly after digits that would be an id without it."""
    if text[start - 1 : start] == "," or _DIGITS.fullmatch(text, start, end) is None:
        return None
    return percents(text, start, end)


def marks_an_item(text: str, start: int, end: int) -> bool:
    """Whether a number only numbers an item of a list: "1. Pay it. 2. Tell Ann", or at the beginning of a line."""
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


def scaled(text: str, start: int, end: int) -> tuple[str, int] | None:
    """The words of an amount and its currency without a k, m or million, and its factor (1 without one).

    None where the number continues on either side: "$5 hundred", "two point 5 million euros".
    """
    words = text[start:end]
    scale = _SCALED.search(words)
    if scale is None:
        return (words, 1) if _LARGER_BEHIND.match(text, end) is None else None
    if _GOES_ON.match(text, end) or _BEFORE.search(text[max(0, start - 28) : start]):
        return None
    return words[: scale.start()] + words[scale.end() :], _SIZES[(scale[1] or scale[2]).lower()]


def read_thousands(text: str, start: int, end: int) -> Decimal | None:
    """The number of digits and a k without a currency; None where they may mean something other than thousands."""
    digits = _THOUSANDS.fullmatch(text, start, end)
    if digits is None or _AFTER_THOUSANDS.match(text, end) is None or _NOT_THOUSANDS.search(text[max(0, start - 20) : start]):
        return None
    return enlarged(digits[1], 1000)


def enlarged(digits: str, size: int) -> Decimal | None:
    """An amount in normal form times a factor, exactly; None where it has no normal form or becomes too large."""
    value = number(digits)
    if value is None or size == 1:
        return value
    product = value * size
    whole, sign, part = f"{product:f}".partition(".")
    return number(f"{whole}{sign}{part}".rstrip("0").rstrip(".") if sign else whole)


def read_numeral(text: str, start: int, end: int) -> tuple[Decimal, str] | None:
    """The number of a match of `NUMERAL`, and the currency or % after it, without spaces; None where it is no number.

    Args:
        text: the whole text; the span's context may make it part of a larger number.
        start: where the number words begin.
        end: where they, or the currency after them, end.
    """
    numeral = _NUMERAL.match(text, start, end)
    if numeral is None:
        return None
    beside = "".join(text[numeral.end() : end].split())
    words = _words(numeral.group())
    before = text[max(0, start - 28) : start]
    half = words == _DOZEN and _HALF.search(before) is not None
    if not beside and percents(text, start, end):
        beside = "%"
    elif _AFTER.match(text, end) or (not half and _BEFORE.search(before)):
        return None
    value = 12 // (1 + half) if words == _DOZEN else None if words == ["one"] and not beside else _number(words)
    return None if value is None else (Decimal(value), beside)


def numeral_value(words: str) -> Decimal | None:
    """The number of number words, whatever their context; None where they are none."""
    value = _number(_words(words))
    return None if value is None else Decimal(value)


def read_ordinal(words: str) -> int | None:
    """The day of a month that an ordinal in words names, 1 to 31; None for any other."""
    tens, _, last = words.lower().replace("-", " ").rpartition(" ")
    value = ORDINALS.get(last)
    if value is None or not tens:
        return value
    return value + VALUES.get(tens.strip(), 100) if value < 10 else None


def _words(text: str) -> list[str]:
    return [word for word in _PARTS.split(text.lower()) if word != "and"]


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
    values = [1 if word in {"a", "an"} else int(word) if word.isdecimal() else VALUES.get(word) for word in words]
    if len(values) == 1:
        return values[0]
    if len(values) == 2 and None not in values:
        tens, unit = values
        return tens + unit if tens is not None and unit is not None and words[0] in _TENS and 1 <= unit <= 9 else None
    return None


def _rest(read: Callable[[list[str]], int | None], words: list[str]) -> int | None:
    """The number after a hundred or a thousand: 0 without words; None for the word zero."""
    return (read(words) or None) if words else 0
