"""The reference's reading of calculations: word by word, and every combination of two numbers tried, as fractions.

It knows the words that `tests.generate` speaks, and shares only the prompt's own reading (what is quoted away, where a clause is denied,
which numbers there are) with the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from typing import NamedTuple

from agentgate.language.spans import entities
from agentgate.language.turn import Turn

_WORDS = {
    ("difference",): ("difference", 0),
    ("minus",): ("difference", 0),
    ("plus",): ("sum", 0),
    ("on", "top"): ("sum", 0),
    ("half",): ("share", 2),
    ("split",): ("share", 0),
    ("twice", "the"): ("multiple", 2),
    ("times", "the"): ("multiple", 0),
}
_COUNTS = {
    word: n for n, word in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 2)
}
_AFTER = frozenset("to for from in on at by and or but as because since please minus plus".split())
Amount = tuple[Decimal, str]


class Heard(NamedTuple):
    """What the user named: calculations and their number (0: one of the user's), percentages, amounts, whole numbers from 2 to 20."""

    named: set[tuple[str, int]]
    percentages: set[Fraction]
    amounts: set[Amount]
    whole: set[int]


def heard(turns: tuple[Turn, ...]) -> Heard:
    """What these turns name, in order; a denied one is taken back."""
    found = Heard(set(), set(), set(), set())
    for turn in turns:
        said = [(voice, _clause(turn.bare[start:end])) for voice, start, end in turn.voices if voice not in {"reported", "doubted"}]
        for voice, one in said:
            if voice == "denied":
                kinds = {kind for kind, _ in one.named}
                found.named.difference_update({each for each in found.named if each[0] in kinds})
            else:
                found.named.update(one.named)
                found.percentages.update(one.percentages)
                found.amounts.update(one.amounts)
                found.whole.update(one.whole)
        for one in (one for voice, one in said if voice == "denied"):
            found.percentages.difference_update(one.percentages)
            found.amounts.difference_update(one.amounts)
            found.whole.difference_update(one.whole)
    return found


def _clause(text: str) -> Heard:
    words = _asked(re.findall(r"[a-z]+|[^a-z\s]+", text.lower()))
    named = set()
    for phrase, (what, n) in _WORDS.items():
        for at in range(len(words)):
            if tuple(words[at : at + len(phrase)]) == phrase:
                if not _as_meant(phrase, words[at + len(phrase) :]):
                    continue
                on_top = phrase == ("on", "top") and any(re.fullmatch("[0-9.]+", word) for word in words[max(0, at - 2) : at])
                beside = what in {"sum", "difference"} and (on_top or _own_follows(words[at + len(phrase) :]))
                number = _counted(words[:at]) if (what, n) == ("multiple", 0) else 1 if beside else n
                named |= {(what, number)} if number is not None else set()
    if any(word == "adjust" and "accordingly" in words[at:] for at, word in enumerate(words)):
        named |= {("difference", 0), ("sum", 0)}
    found = Heard(named, set(), set(), set())
    for each in entities(text, date(2000, 1, 1)):
        if isinstance(each.key, Decimal) and each.type == "percent":
            found.percentages.add(Fraction(each.key))
        elif isinstance(each.key, Decimal) and each.type in {"number", "money", "count"} and text[max(0, each.start - 1)] != "#":
            found.amounts.add((each.key, each.currency))
            if each.type != "money" and "." not in each.words and each.key in range(2, 21):
                found.whole.add(int(each.key))
    return found


def _counted(before: list[str]) -> int | None:
    """The count that stands right before: "three times the"."""
    word = before[-1] if before else ""
    count = _COUNTS.get(word, int(word) if re.fullmatch("[0-9]{1,2}", word) else 0)
    return count if count in range(2, 21) else None


def _as_meant(phrase: tuple[str, ...], behind: list[str]) -> bool:
    """Whether what follows makes it a calculation: a number, what is halved, or the end of the phrase."""
    following = behind[0] if behind else "."
    if phrase in {("plus",), ("minus",)}:
        return re.match("[0-9]", following) is not None
    ends = following in _AFTER or re.match(r"[,.;:!?)\]]", following) is not None
    return phrase not in {("half",), ("on", "top")} or ends or (phrase == ("half",) and behind[:2] == ["of", "it"])


def _own_follows(words: list[str]) -> bool:
    """Whether a number of the user's is part of a sum or difference: "plus 5", "minus the 20"."""
    behind = next((word for at, word in enumerate(words[:5]) if word not in {"a", "an", "the", "of"}), "")
    return re.match(r"[^\w\s]?[0-9]", behind) is not None


def _asked(words: list[str]) -> list[str]:
    """Without what the user only wants to know."""
    kept: list[str] = []
    skips = False
    for at, word in enumerate(words):
        skips = skips and word not in {"and", "then"} and re.search(r"[,!?;:]|\.(?![0-9])", word) is None
        skips = skips or words[at : at + 2] == ["tell", "me"]
        kept.append("-" if skips else word)
    return kept


def computed(said: Heard, own: set[Amount], returned: set[Amount], wanted: Decimal) -> bool:
    """Whether one named calculation over these amounts gives this value, exactly or to the cent."""
    amounts = {amount for amount in own | returned if amount[0] > 0}
    shares, multiples = _factors(said, "share", {2} | said.whole), _factors(said, "multiple", said.whole)
    if len(amounts) > 64 or len(shares) + len(multiples) + len(said.percentages) > 16:
        return False

    def parts(x: Fraction) -> Iterator[Fraction]:
        yield from (x / n for n in shares)
        yield from (x * n for n in multiples)
        for p in said.percentages:
            yield from (x * p / 100, x + x * p / 100, x - x * p / 100)

    def results() -> Iterator[Fraction]:
        for amount, _ in amounts:
            yield from parts(Fraction(amount))
        for (x, one), (z, other) in permutations(amounts, 2):
            if x == z or (one and other and one != other):
                continue
            for first in (Fraction(x), *(parts(Fraction(x)) if {(x, one), (z, other)} & own else ())):
                mixed = not (own or said.percentages) or bool({(x, one), (z, other)} & own)
                if said.named & ({("sum", 0), ("sum", 1)} if mixed else {("sum", 0)}):
                    yield first + Fraction(z)
                if said.named & ({("difference", 0), ("difference", 1)} if mixed else {("difference", 0)}):
                    yield abs(first - Fraction(z))

    return wanted > 0 and any(_is(result, Fraction(wanted)) for result in results() if result > 0)


def _factors(said: Heard, kind: str, any_of: set[int]) -> set[int]:
    fixed = {n for named, n in said.named if named == kind}
    return (fixed - {0}) | (any_of if 0 in fixed else set())


def _is(result: Fraction, wanted: Fraction) -> bool:
    """The same, or the same to the cent: a half goes up, or to the even cent."""
    if result == wanted:
        return True
    cents = wanted * 100
    if cents.denominator != 1:
        return False
    apart = result * 100 - cents
    return -Fraction(1, 2) <= apart < Fraction(1, 2) or (apart == Fraction(1, 2) and cents % 2 == 0)
