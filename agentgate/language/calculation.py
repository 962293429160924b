"""Calculations that the user's own words name, and whether one of them results in a value: the
origin `computed`.

Rules: a calculation is named by the user's words, unless they are quoted, or denied there or in
a later turn; forwarded text names none. ``words/calculations.toml`` lists the ways to name one,
each with its object, so that a word with other meanings names none by itself. The caller passes
the numbers that count; the user's own are read here, without dates, ids, numbers of list items
and quoted ones. Amounts of two currencies are never combined, nor a number with itself, and
operands and results are above zero. One calculation is one row of the table in
docs/workflows.md. With more numbers than `MAX_NUMBERS`, or more shares, multiples and
percentages than `MAX_FACTORS`, nothing is calculated: that bounds the work, and the results
that an agent could choose from. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext
from functools import cache
from operator import attrgetter
from typing import NamedTuple

from agentgate.language.days import MONTHS
from agentgate.language.numerals import SMALL, numeral_value
from agentgate.language.spans import NO_DAY, Entity, entities, small
from agentgate.language.turn import Turn, blank
from agentgate.language.word_files import Forms, read
from agentgate.values.value_class import once

MAX_NUMBERS = 64  # different numbers to calculate with
MAX_FACTORS = 16  # shares, multiples and percentages
_MOST = 20  # people who share, times to multiply
_HALF_CENT = Decimal("0.005")
_CENT = Decimal("0.01")

Named = tuple[str, int]  # the kind of a calculation, and the number of its share or multiple
_FORMS = Forms("calculation")


@cache
def _phrases() -> Mapping[Named, re.Pattern[str]]:
    """The ways to name each calculation, by kind and number; only a process that calculates
    waits for these patterns.
    """
    months = "|".join([f"{month}|{month[:3]}" for month in MONTHS])
    forms = Forms("calculation", read("calculations.toml"), small=SMALL, months=months)
    named = [(*name.split("_"), pattern) for name, pattern in vars(forms).items()]
    return {(kind, int(n)): pattern for kind, n, pattern in named}


_NAMES = "path url email domain id".split()
_value = attrgetter("value")


class Number(NamedTuple):
    """One number to calculate with: its currency (empty: any), and whether it is in the user's
    own words.
    """

    value: Decimal
    currency: str = ""
    own: bool = False


class Spoken(NamedTuple):
    """What the user's words name: calculations, percentages, all numbers, and small whole
    numbers.

    A calculation has the number of its share or multiple (0: the user's); a sum or difference
    has 1 where one operand is the user's own.
    """

    named: frozenset[Named] = frozenset()
    percentages: frozenset[Decimal] = frozenset()
    numbers: frozenset[tuple[Decimal, str]] = frozenset()
    whole: frozenset[int] = frozenset()

    def after(self, turn: HeardTurn) -> Spoken:
        """What is named after a further turn: a denial withdraws what earlier turns named."""
        said, denied = turn
        ended = {kind for kind, _ in denied.named}
        return Spoken(
            said.named | {each for each in self.named if each[0] not in ended},
            (self.percentages | said.percentages) - denied.percentages,
            (self.numbers | said.numbers) - denied.numbers,
            (self.whole | said.whole) - denied.whole,
        )


class HeardTurn(NamedTuple):
    """What one turn names, and what it denies. A calculation that it names after denying it is
    named.
    """

    said: Spoken
    denied: Spoken


class _Step(NamedTuple):
    """One number, or a share, a multiple or a percentage of one."""

    result: Decimal
    of: Number
    text: str
    kind: str


def spoken(turns: Iterable[Turn]) -> Spoken:
    """What these turns name, in order."""
    total = Spoken()
    for turn in turns:
        total = total.after(_of_turn(turn))
    return total


@once
def _of_turn(turn: Turn) -> HeardTurn:
    return heard(turn.bare, turn.voices, list(entities(turn.bare, NO_DAY)))


def heard(
    text: str,
    spans: Sequence[tuple[str, int, int]],
    whole: Sequence[Entity],
) -> HeardTurn:
    """What one turn names and denies.

    Args:
        text: the turn's own words, its short quotations hidden.
        spans: its clauses in order, as (voice, start, end); the voice is "said" or "denied".
        whole: its entities.
    """
    names = [  # "difference.txt" names a file
        (each.start, each.end)
        for each in whole
        if each.type in _NAMES and _FORMS.letter.search(each.words)
    ]
    low = blank(small(text), names, "_")
    meant = _FORMS.told.sub(lambda told: "\n" * len(told[0]), low)
    said, denied = (
        [(start, end) for v, start, end in spans if v == voice] for voice in ("said", "denied")
    )
    named = _named(meant, said)
    ended = _named(low, denied)
    stands = {
        each
        for each, at in named.items()
        if all(at > no for (kind, _), no in ended.items() if kind == each[0])
    }
    return HeardTurn(
        _spoken(stands, text, said, whole, low),
        _spoken(ended, text, denied, whole, low),
    )


def _named(
    low: str,
    spans: Sequence[tuple[int, int]],
) -> dict[Named, int]:
    """The calculations that these clauses name, and where each is named last."""
    found = {}
    for start, end in spans:
        clause = low[start:end]
        for (kind, n), words in _phrases().items():
            for match in words.finditer(clause):
                if (number := _number(kind, n, match[0])) is not None:
                    found[kind, number] = start + match.start()
    return found


def _number(
    kind: str,
    n: int,
    words: str,
) -> int | None:
    """The number of a calculation: 1 for a sum or difference beside the user's own number; that
    of "three times"; else that of the file.
    """
    if kind in {"sum", "difference"}:
        return int(bool(_FORMS.digit.search(words)))
    count, times, _ = words.partition(" times ")
    if not times:
        return n
    counted = numeral_value(count)
    if counted and 2 <= counted <= _MOST:
        return counted
    return None


def _spoken(
    named: Iterable[Named],
    text: str,
    spans: Sequence[tuple[int, int]],
    whole: Sequence[Entity],
    low: str,
) -> Spoken:
    """The calculations, percentages and numbers in the clauses of one voice, without the number
    of an issue ("#42").
    """
    starts = [start for start, _ in spans]
    percentages = set[Decimal]()
    numbers = set[tuple[Decimal, str]]()
    few = set[int]()
    for kind, key, words, start, currency in whole:
        at = bisect_right(starts, start) - 1
        if at < 0 or start >= spans[at][1]:
            continue
        if not isinstance(key, Decimal) or text[max(0, start - 1)] == "#":
            continue
        if kind == "percent":
            if 0 < key < 100 and not _FORMS.sure.match(low, start + len(words)):
                percentages.add(key)
        elif kind in {"number", "money", "count"}:
            numbers.add((key, currency))
            if kind != "money" and "." not in words and 2 <= key <= _MOST:
                few.add(int(key))
    return Spoken(frozenset(named), frozenset(percentages), frozenset(numbers), frozenset(few))


def names_any(said: Spoken) -> bool:
    """Whether the words name any calculation."""
    return bool(said.named or said.percentages)


def too_many(
    said: Spoken,
    numbers: Collection[Number],
) -> bool:
    """Whether there are too many operands to calculate anything."""
    return len(numbers) > MAX_NUMBERS or sum(len(each) for each in _factors(said)) > MAX_FACTORS


def _factors(said: Spoken) -> tuple[list[int], list[int], list[Decimal]]:
    """The divisors, multipliers and percentages that apply to a number."""
    shares, multiples = (
        {n for kind, n in said.named if kind == wanted} for wanted in ("share", "multiple")
    )
    if 0 in shares:
        shares |= {2, *said.whole}
    if 0 in multiples:
        multiples |= said.whole
    return sorted(shares - {0}), sorted(multiples - {0}), sorted(said.percentages)


def calculation(
    said: Spoken,
    numbers: Collection[Number],
    wanted: Decimal,
) -> str | None:
    """One calculation that the words name and that results in this value, exactly or rounded to
    two decimals, as text for a reader.

    Args:
        said: what the user's words name.
        numbers: the numbers that count, each value and currency once.
        wanted: the value.
    """
    if wanted <= 0 or not names_any(said) or too_many(said, numbers):
        return None
    with localcontext(Context(prec=64)):  # exact, except for quotients without a finite decimal
        table = sorted(n for n in numbers if n.value > 0)
        steps = [step for number in table for step in _steps(said, number)]
        for step in steps:
            if step.kind and _gives(step.result, wanted):
                return f"{step.text} ({step.kind})"
        for step in sorted(steps, key=lambda step: step.kind != ""):  # plain numbers first
            if text := _with_another(said, step, table, wanted):
                return text
    return None


def _steps(said: Spoken, number: Number) -> Iterator[_Step]:
    x = number.value
    shares, multiples, percentages = _factors(said)
    yield _Step(x, number, f"{x:f}", "")
    yield from (_Step(x / n, number, f"{x:f} / {n}", "a share") for n in shares)
    yield from (_Step(x * n, number, f"{x:f} * {n}", "a multiple") for n in multiples)
    for p in percentages:
        part = x * p / 100
        yield _Step(part, number, f"{p:f}% of {x:f}", "a percentage")
        yield _Step(x + part, number, f"{x:f} + {p:f}%", "a percentage more")
        yield _Step(x - part, number, f"{x:f} - {p:f}%", "a percentage less")


def _with_another(
    said: Spoken,
    step: _Step,
    table: list[Number],
    wanted: Decimal,
) -> str:
    """The sum or difference of a step and another number; after a share, or words with the
    user's number, one must be the user's own.
    """
    b = step.result
    also = ""
    if step.kind:
        also = f", {step.kind}"
    kinds = {kind for kind, _ in said.named}
    own_numbers = bool(said.percentages) or any(n.own for n in table)
    others = (
        ("sum", wanted - b),
        ("difference", b - wanted),
        ("difference", b + wanted),
    )
    for kind, about in others:
        if kind not in kinds:
            continue
        one_is_own = bool(step.kind) or (own_numbers and (kind, 0) not in said.named)
        first = bisect_left(table, about - _HALF_CENT, key=_value)
        for other in table[first : bisect_right(table, about + _HALF_CENT, key=_value)]:
            z = other.value
            currencies = {other.currency, step.of.currency} - {""}
            if len(currencies) > 1 or z == step.of.value:
                continue
            if one_is_own and not (other.own or step.of.own):
                continue
            if kind == "sum" and _gives(b + z, wanted):
                return f"{step.text} + {z:f} (the sum{also})"
            if kind == "difference" and _gives(abs(b - z), wanted):
                if b > z:
                    return f"{step.text} - {z:f} (the difference{also})"
                smaller = f"({step.text})" if step.kind else step.text
                return f"{z:f} - {smaller} (the difference{also})"
    return ""


def _gives(result: Decimal, wanted: Decimal) -> bool:
    """Whether the value is this result, or its rounding to two decimals, with halves up or to
    even.
    """
    if abs(result - wanted) > _HALF_CENT:
        return False
    return wanted in {
        result,
        result.quantize(_CENT, ROUND_HALF_UP),
        result.quantize(_CENT, ROUND_HALF_EVEN),
    }
