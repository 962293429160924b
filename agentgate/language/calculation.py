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
from datetime import date
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from agentgate.language import word_files
from agentgate.language.days import MONTHS
from agentgate.language.numerals import SMALL, numeral_value
from agentgate.language.spans import Entity, entities, small
from agentgate.language.turn import Turn
from agentgate.values.once import once

MAX_NUMBERS = 64  # different numbers to calculate with
MAX_FACTORS = 16  # shares, multiples and percentages
_MOST = 20  # people who share, times to multiply
_NO_DAY = date(2000, 1, 1)  # no number depends on a day
_HALF_CENT = Decimal("0.005")
_CENT = Decimal("0.01")

_WORDS = word_files.read("calculations.toml")
DIFFERENCE = "difference"
SUM = "sum"
SHARE = "share"
MULTIPLE = "multiple"
_CLASSES = {  # of the file of words, beside its own
    "END": r"(?=\s*(?:[,.;:!?)\]\n]|\Z)|\s(?:to|for|from|in|on|at|by|and|or|but|as|because|since|please|minus|plus)\b)",
    "NO_STOCK": r"(?!\s(?:certificates?|accounts?|prices?)\b)",
    "COUNT": "(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[0-9]{1,2})",
    "NUMBER": (  # no date, time or duration
        rf"(?:[a-z]{{0,3}}[\u20ac$\u00a3]?\s?[0-9]++(?:[.,][0-9]++)*+(?!st\b|nd\b|rd\b|th\b|[-:/]|\s?[ap]m\b)|(?!one\b|zero\b){SMALL}"
        r"|(?:a )?hundred\b|(?:a "
        r")?thousand\b)(?!\s?(?:days?|weeks?|months?|years?|hours?|min(?:ute)?s?|o['\u2019]clock"
        rf"|{'|'.join(MONTHS)}|{'|'.join(month[:3] for month in MONTHS)})\b)"
    ),
}


@cache
def _phrases() -> Mapping[tuple[str, int], re.Pattern[str]]:
    """The ways to name each calculation, by kind and number; only a process that calculates
    waits for these patterns.
    """
    return word_files.patterns(_WORDS, _CLASSES)


_SURE = re.compile(
    r"\s(?:sure|certain|positive|confident|chance|battery|charged|cotton|of the time)\b"
)  # behind a percentage
_TOLD = re.compile(  # the user only asks: "tell me how much is left", "What is the difference?"
    r"\b(?:(?:tell|show|remind|inform) (?:me|us)|let (?:me|us) know)\b"
    r"(?:(?!\b(?:and|then|but|instead|however)\b)[^.,!?;:\n]|\.(?=[0-9])){0,200}+"
    r"|(?<![^.!?\n])\s{0,3}(?:and |so )?(?:what|how|which|is|was|did|does|why)\b[^.!?\n]{0,300}+\?"
)
_NAMES = frozenset({"path", "url", "email", "domain", "id"})
_value = attrgetter("value")
_DIGIT = re.compile("[0-9]")
_LETTER = re.compile(r"[^\W\d_]")


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

    named: frozenset[tuple[str, int]] = frozenset()
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
    return heard(turn.bare, turn.voices, list(entities(turn.bare, _NO_DAY)))


def heard(
    text: str, spans: Sequence[tuple[str, int, int]], whole: Sequence[Entity]
) -> HeardTurn:
    """What one turn names and denies.

    Args:
        text: the turn's own words, its short quotations hidden.
        spans: its clauses in order, as (voice, start, end); the voice is "said" or "denied".
        whole: its entities.
    """
    low = _without_names(small(text), whole)
    meant = _TOLD.sub(lambda told: "\n" * len(told.group()), low)
    said, denied = (
        [(start, end) for v, start, end in spans if v == voice] for voice in ("said", "denied")
    )
    named = _named(meant, said)
    ended = _named(low, denied)
    stands = {
        each
        for each, at in named.items()
        if not any(kind == each[0] and last >= at for (kind, _), last in ended.items())
    }
    return HeardTurn(
        _spoken(stands, _numbers(text, said, whole), low),
        _spoken(ended, _numbers(text, denied, whole), low),
    )


def _without_names(low: str, whole: Sequence[Entity]) -> str:
    """The text without its files, links, addresses and ids (same length): "difference.txt"
    names a file.
    """
    letters = list(low)
    for each in whole:
        if each.type in _NAMES and _LETTER.search(each.words):
            letters[each.start : each.start + len(each.words)] = "_" * len(each.words)
    return "".join(letters)


def _named(low: str, spans: Sequence[tuple[int, int]]) -> dict[tuple[str, int], int]:
    """The calculations that these clauses name, and where each is named last."""
    found = {}
    for start, end in spans:
        clause = low[start:end]
        for (kind, n), words in _phrases().items():
            for match in words.finditer(clause):
                if (number := _number(kind, n, match.group())) is not None:
                    found[kind, number] = start + match.start()
    return found


def _number(kind: str, n: int, words: str) -> int | None:
    """The number of a calculation: 1 for a sum or difference beside the user's own number; that
    of "three times"; else that of the file.
    """
    if kind in {SUM, DIFFERENCE}:
        return int(bool(_DIGIT.search(words)))
    count, times, _ = words.partition(" times ")
    if not times:
        return n
    counted = numeral_value(count)
    return int(counted) if counted is not None and 2 <= counted <= _MOST else None


def _numbers(
    text: str, spans: Sequence[tuple[int, int]], whole: Sequence[Entity]
) -> list[tuple[Decimal, Entity]]:
    """The numbers in these clauses, without that of an issue ("#42")."""
    starts = [start for start, _ in spans]
    found = []
    for each in whole:
        at = bisect_right(starts, each.start) - 1
        if (
            at >= 0
            and each.start < spans[at][1]
            and isinstance(each.key, Decimal)
            and text[max(0, each.start - 1)] != "#"
        ):
            found.append((each.key, each))
    return found


def _spoken(
    named: Iterable[tuple[str, int]], numbers: Sequence[tuple[Decimal, Entity]], low: str
) -> Spoken:
    """The calculations, percentages and numbers of one voice."""
    percents = [
        key
        for key, e in numbers
        if e.type == "percent"
        and 0 < key < 100
        and not _SURE.match(low, e.start + len(e.words))
    ]
    plain = [(key, e) for key, e in numbers if e.type in {"number", "money", "count"}]
    few = [
        int(key)
        for key, e in plain
        if e.type != "money" and "." not in e.words and 2 <= key <= _MOST
    ]
    return Spoken(
        frozenset(named),
        frozenset(percents),
        frozenset((key, e.currency) for key, e in plain),
        frozenset(few),
    )


def names_any(said: Spoken) -> bool:
    """Whether the words name any calculation."""
    return bool(said.named or said.percentages)


def too_many(said: Spoken, numbers: Collection[Number]) -> bool:
    """Whether there are too many operands to calculate anything."""
    return len(numbers) > MAX_NUMBERS or sum(len(each) for each in _factors(said)) > MAX_FACTORS


def _factors(said: Spoken) -> tuple[list[int], list[int], list[Decimal]]:
    """The divisors, multipliers and percentages that apply to a number."""
    shares, multiples = (
        {n for kind, n in said.named if kind == wanted} for wanted in (SHARE, MULTIPLE)
    )
    shared = (shares - {0}) | ({2, *said.whole} if 0 in shares else set())
    times = (multiples - {0}) | (said.whole if 0 in multiples else set())
    return sorted(shared), sorted(times), sorted(said.percentages)


def calculation(said: Spoken, numbers: Collection[Number], wanted: Decimal) -> str | None:
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
        alone = (
            f"{step.text} ({step.kind})"
            for step in steps
            if step.kind and _gives(step.result, wanted)
        )
        plain_first = sorted(steps, key=lambda step: step.kind != "")
        return next(
            chain(
                alone,
                (
                    text
                    for step in plain_first
                    for text in _with_another(said, step, table, wanted)
                ),
            ),
            None,
        )


def _steps(said: Spoken, number: Number) -> Iterator[_Step]:
    x, (shares, multiples, percentages) = number.value, _factors(said)
    yield _Step(x, number, f"{x:f}", "")
    yield from (_Step(x / n, number, f"{x:f} / {n}", "a share") for n in shares)
    yield from (_Step(x * n, number, f"{x:f} * {n}", "a multiple") for n in multiples)
    for p in percentages:
        part = x * p / 100
        yield _Step(part, number, f"{p:f}% of {x:f}", "a percentage")
        yield _Step(x + part, number, f"{x:f} + {p:f}%", "a percentage more")
        yield _Step(x - part, number, f"{x:f} - {p:f}%", "a percentage less")


def _with_another(
    said: Spoken, step: _Step, table: list[Number], wanted: Decimal
) -> Iterator[str]:
    """The sum or difference of a step and another number; after a share, or words with the
    user's number, one must be the user's own.
    """
    b = step.result
    also = f", {step.kind}" if step.kind else ""
    kinds = {kind for kind, _ in said.named}
    own_numbers = bool(said.percentages) or any(n.own for n in table)
    for kind, about in ((SUM, wanted - b), (DIFFERENCE, b - wanted), (DIFFERENCE, b + wanted)):
        if kind not in kinds:
            continue
        one_is_own = bool(step.kind) or (own_numbers and (kind, 0) not in said.named)
        first = bisect_left(table, about - _HALF_CENT, key=_value)
        for other in table[first : bisect_right(table, about + _HALF_CENT, key=_value)]:
            z = other.value
            apart = other.currency and step.of.currency and other.currency != step.of.currency
            if apart or z == step.of.value or (one_is_own and not (other.own or step.of.own)):
                continue
            if kind == SUM and _gives(b + z, wanted):
                yield f"{step.text} + {z:f} (the sum{also})"
            elif kind == DIFFERENCE and _gives(abs(b - z), wanted):
                larger, smaller = (
                    (step.text, f"{z:f}")
                    if b > z
                    else (f"{z:f}", step.text if not step.kind else f"({step.text})")
                )
                yield f"{larger} - {smaller} (the difference{also})"


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
