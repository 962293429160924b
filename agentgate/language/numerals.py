"""Numbers in words: "thirty-five", "four hundred and twenty", "2 thousand"; the sizes of
amounts ("52k EUR", "1.2 million euros").

Rules: a run of number words is read whole or not at all: "twelve fifty", "several hundred",
"two and a half", "five million", "a dozen" are no number, and no part of them is one. A lone
"one" is more often a pronoun, so it is a number only beside a currency; an article is 1 only
before "hundred" and "thousand". Words go up to 999,999. An m or million after digits is read
beside a currency only, a k also where words of value precede it ("worth 34k"), so that it is no
distance, seat or resolution. Pure.
"""

from __future__ import annotations

import re
from decimal import Decimal

from agentgate.language.word_files import Forms
from agentgate.values.entities import number

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VALUES = {word: value for value, word in enumerate(_UNITS.split())} | {
    word: 10 * n for n, word in enumerate(_TENS, 2)
}
# no number with one from the third on is read
LARGER = "hundred thousand million billion trillion dozen lakh crore grand".split()
_NTH = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth "
    "twenty-first twenty-second twenty-third twenty-fourth twenty-fifth twenty-sixth "
    "twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
ORDINALS = {word: day for day, word in enumerate(_NTH, 1)}  # the days of a month
NTH = [word for word in _NTH if "-" not in word]

LARGE = f"(?:{'|'.join(LARGER)})s?"
SMALL = rf"(?:{'|'.join(sorted(VALUES, key=len, reverse=True))})\b"
ORDINAL = rf"(?:(?:twenty|thirty)[\s-])?(?:{'|'.join(sorted(NTH, key=len, reverse=True))})"
SCALE = r"(?:[kKmM]|\s[mM]illion)"  # after the digits of an amount with a currency
PERCENT = r"\s?(?:%|(?i:per\s?cent|pct)\b)"
_WORD = rf"(?:{SMALL}|{LARGE}\b)"
_AND = r"(?:(?:(?<=hundred)|(?<=thousand)|(?<=million)|(?<=billion))(?:,?\s{1,3}|-)(?:and[\s-])?|\s{1,3}|-)"
# A run never matches in part, so that "twenty five-year bonds" names nothing.
NUMERAL = rf"(?>(?:(?:an? |[0-9]{{1,3}}\s{{1,3}})(?={LARGE}\b))?{_WORD}(?:{_AND}{_WORD})*)"

_FORMS = Forms("numerals", run=NUMERAL, word=_WORD, large=LARGE, ordinal=ORDINAL)
_SIZES = {"k": 1000, "m": 1_000_000}
_LONGEST = 9  # words of a number: nine hundred ninety-nine thousand nine hundred ninety-nine
_WINDOW = 4000  # characters on either side that may hold the neighbour of a list's number


def continues(text: str, start: int) -> bool:
    """Whether a number that begins here is the end of a longer one."""
    return bool(_FORMS.before.search(text[max(0, start - 28) : start]))


def marks_an_item(
    text: str,
    start: int,
    end: int,
) -> bool:
    """Whether a number only numbers an item of a list: at the beginning of a line, or beside
    its neighbour in "1. Pay it. 2. Tell Ann".
    """
    item = _FORMS.item.match(text, start, end + 3)
    if not item:
        return False
    before = text[max(0, start - 40) : start].rstrip(" \t(*-")
    if not before or before[-1] == "\n":
        return True
    number = int(item[1])
    sign = item[2]
    if before[-1] not in ".:;!?," or not item[3].istitle() or number == 0:
        return False
    if number == 1:
        return f" 2{sign} " in text[end : end + _WINDOW]
    return f" {number - 1}{sign} " in f" {text[max(0, start - _WINDOW) : start]}"


def read_amount(
    text: str,
    start: int,
    end: int,
) -> tuple[str, Decimal | None]:
    """The currency as it is written, and the amount of digits with or without a k, m or
    million; None where it is only a part of one.

    A part: "$5 hundred", "two point 5 million euros".
    """
    words = text[start:end]
    size = 1
    scale = _FORMS.scaled.search(words)
    if _FORMS.larger.match(text, end) or (
        scale and (_FORMS.after.match(text, end) or continues(text, start))
    ):
        return "", None
    if scale:
        words = words[: scale.start()] + words[scale.end() :]
        size = _SIZES[(scale[1] or scale[2]).lower()]
    currency = re.sub(r"[0-9.,\s]", "", words).lower()
    return currency, _times(re.sub(r"[^0-9.]", "", words), size)


def read_thousands(
    text: str,
    start: int,
    end: int,
) -> Decimal | None:
    """The number of digits and a k without a currency; None where they may mean something other
    than thousands.
    """
    digits = _FORMS.thousands.fullmatch(text, start, end)
    meant = _FORMS.value_before.search(
        text[max(0, start - 10) : start]
    ) and _FORMS.value_ends.match(text, end)
    if digits and meant:
        return _times(digits[1], 1000)
    return None


def _times(digits: str, size: int) -> Decimal | None:
    """An amount times a size, exactly; None where it becomes too large."""
    amount = number(digits)
    if amount is None or size == 1:
        return amount
    return number(f"{(amount * size).normalize():f}")


def read_numeral(
    text: str,
    start: int,
    end: int,
) -> tuple[Decimal, str] | None:
    """The number of a match of `NUMERAL`, and the currency or % after it, without spaces; None
    where it is no number.

    Args:
        text: the whole text; the span's context may make it part of a larger number.
        start: where the number words begin.
        end: where they, or the currency after them, end.
    """
    numeral = _FORMS.numeral.match(text, start, end)
    if not numeral or _FORMS.after.match(text, end) or continues(text, start):
        return None
    beside = "".join(text[numeral.end() : end].lower().split())
    if numeral[0].lower() == "one" and not beside:
        return None
    value = numeral_value(numeral[0])
    if value is None:
        return None
    return Decimal(value), beside


def numeral_value(words: str) -> int | None:
    """The number of number words, whatever their context; None where they are none."""
    return _value([word for word in re.split(r"[\s-]+", words.lower()) if word != "and"])


def _value(words: list[str]) -> int | None:
    """The number of words up to 999,999: thousands, then hundreds, each with the rest behind
    it, then at most a ten and a unit.
    """
    if len(words) > _LONGEST:
        return None
    for name, size in (("thousand", 1000), ("hundred", 100)):
        if name in words:
            at = words.index(name)
            many = _value(words[:at])
            behind = words[at + 1 :]
            rest = 0
            if behind:
                rest = _value(behind) or size  # as what is too large: no number
            # "twenty hundred" is no number
            if many and many < size and rest < size and (many % 10 or size == 1000):
                return size * many + rest
            return None
    values = [
        1 if word in {"a", "an"} else int(word) if word.isdecimal() else VALUES.get(word)
        for word in words
    ]
    match values:
        case [int(value)]:
            return value
        case [int(ten), int(unit)] if words[0] in _TENS and 1 <= unit <= 9:
            return ten + unit
    return None
