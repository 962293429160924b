"""Representatives: values such that the rules on one argument treat every other value like one
of them.

The constants of the rules divide the numbers, their languages divide the texts, until no rule
distinguishes two values of a piece; one value represents each piece. A rule can then simply be
applied to the representatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise

from agentgate.diff import forms
from agentgate.diff.language import Budget, Language, Texts
from agentgate.values.characters import ALL
from agentgate.values.entities import MAX_DIGITS, NUMERIC, Key, normal
from agentgate.values.expression import (
    ANYTHING,
    Chars,
    Either,
    Expression,
    Not,
    Repeat,
    Unreadable,
    literal,
)
from agentgate.values.patterns import MAX_VALUE
from agentgate.values.value_class import Names
from agentgate.workflow.rule import Rule

Rules = Sequence[Rule]
_LIMIT = Decimal(10) ** MAX_DIGITS
_HUGE = "\U0001d54f"  # four bytes each: over a pattern's size in few characters
_MANY = 0x4E00  # thousands of letters in normal form follow


def representatives(
    kind: str,
    rules: Rules,
    conditions: Rules = (),
    budget: Budget | None = None,
) -> list[Key]:
    """Values of a type that represent all of them under these rules and conditions; readable
    ones first.

    A value that no version allows may be missing. Raises Unreadable, TooLarge: a pattern cannot
    be read exactly.
    """
    if kind == "boolean":
        return [True, False]
    if kind in NUMERIC:
        return list(_representative_numbers(kind, (*rules, *conditions)))
    if kind == "json":
        return list(_representative_structures((*rules, *conditions)))
    return _representative_texts(kind, rules, conditions, budget or Budget())


# --- numbers ----------------------------------------------------------------------------------
def _representative_numbers(
    kind: str,
    rules: Rules,
) -> Iterable[Decimal]:
    ordered = sorted(
        {point for rule in rules for operator in rule.operators for point in operator.points}
    )
    for low, high in pairwise([-_LIMIT, *ordered, _LIMIT]):
        inside = number_between(
            low, high, whole=kind == "integer", money=kind == "money", lowest=low == -_LIMIT
        )
        if inside is not None:
            yield inside
        if high != _LIMIT and normal(kind, plain_text(high)) is not None:
            yield high


def number_between(
    low: Decimal,
    high: Decimal,
    *,
    whole: bool,
    money: bool,
    lowest: bool = False,
) -> Decimal | None:
    """A number strictly between two, with as few digits as possible (money: cents where they
    fit); None when there is none.
    """
    digits: Iterable[int] = range(MAX_DIGITS + 1)
    if whole:
        digits = (0,)
    elif money:
        digits = (2, 0, 1, *range(3, MAX_DIGITS + 1))
    for places in digits:
        step = Decimal(1).scaleb(-places)
        below = (high / step).to_integral_value("ROUND_CEILING") - 1
        above = (low / step).to_integral_value("ROUND_FLOOR") + 1
        number = (below if lowest else above) * step
        if low < number < high and normal("number", plain_text(number)) is not None:
            return number
    return None


def plain_text(number: Decimal) -> str:
    """A number as the text an argument holds."""
    return format(number, "f")


def _lengths_told_apart(rules: Iterable[Rule]) -> set[int]:
    """The lengths at which the rules distinguish texts."""
    return {operator.length for rule in rules for operator in rule.operators if operator.length}


def _representative_structures(rules: Rules) -> Iterable[str]:
    """JSON values of each length that the rules distinguish, as canonical text. Raises
    Unreadable: a rule is about more than length.
    """
    for rule in rules:
        if rule.role_scopes or any(operator.length is None for operator in rule.operators):
            raise Unreadable("json")
    lengths_told_apart = _lengths_told_apart(rules)
    lengths = sorted({*lengths_told_apart, *(cap + 1 for cap in lengths_told_apart)})
    shortest = {2: "[]", 3: "[1]"}
    for length in dict.fromkeys((4, *lengths)):
        if length >= 4:
            yield f'["{"x" * (length - 4)}"]'
        elif length in shortest:
            yield shortest[length]


# --- text -------------------------------------------------------------------------------------
def _representative_texts(
    kind: str,
    rules: Rules,
    conditions: Rules,
    budget: Budget,
) -> list[Key]:
    every = (*rules, *conditions)
    constants: list[Key] = []
    for rule in every:
        for operator in rule.operators:
            constants += operator.constants
        constants += rule.role_scopes
    known: dict[str, None] = {}
    for constant in constants:
        if isinstance(constant, str) and normal(kind, constant) is not None:
            known[constant] = None
    expressions: dict[object, Expression] = {}
    groups = []
    for rule in every:
        own: dict[object, Expression] = {
            operator.language: forms.language(*operator.language)
            for operator in rule.operators
            if operator.language
        }
        own |= {
            cap: Repeat(Chars(ALL), 0, cap)
            for cap in _lengths_told_apart([rule])
            if cap <= MAX_VALUE
        }
        expressions.update(own)
        if rule in rules and not any(operator.closed for operator in rule.operators):
            groups.append(tuple(list(expressions).index(name) for name in own))
    lengths_told_apart = sorted(_lengths_told_apart(every))
    if kind == "text":
        # represents itself, so that a text that is not empty is shown where there is one
        known[""] = None
    if not groups:  # constants only
        return list(known)
    if not any(operator.language for rule in every for operator in rule.operators):
        return [*_texts_by_length(kind, lengths_told_apart, known), *known]
    pieces = _texts_by_piece(kind, list(expressions.values()), tuple(known), groups, budget)
    if kind == "text":  # patterns match no longer text; only lengths tell those apart
        sizes = {
            MAX_VALUE // 4 + 1,
            *(
                size
                for cap in lengths_told_apart
                for size in (cap, cap + 1)
                if size * 4 > MAX_VALUE
            ),
        }
        pieces += [_HUGE * size for size in sorted(sizes)]
    return [*pieces, *known]


def _texts_by_length(
    kind: str,
    lengths_told_apart: list[int],
    known: dict[str, None],
) -> list[Key]:
    """A text of each length class that is no constant; without caps, any one."""
    if lengths_told_apart:
        # more letters than constants: one is always left
        letters = ("x", "y", *map(chr, range(_MANY, _MANY + len(known))))
        lengths = [1, *[cap + 1 for cap in lengths_told_apart]]
        return [
            next(letter * length for letter in letters if letter * length not in known)
            for length in lengths
        ]
    sample = forms.SAMPLES[kind]
    if sample not in known:
        return [sample]
    expressions = [forms.form(kind), _any_text_of(tuple(known))]
    language = Language(expressions, forms.alphabet(kind))
    other = language.texts(lambda matches: matches == (True, False))
    return [] if other is None else [other]


def _any_text_of(texts: Names) -> Expression:
    if not texts:
        return Not(ANYTHING)
    return Either(tuple(literal(text) for text in texts))


def _texts_by_piece(
    kind: str,
    expressions: list[Expression],
    known: Names,
    groups: list[tuple[int, ...]],
    budget: Budget,
) -> list[Key]:
    """One text for every combination of expressions (patterns and lengths) that an allowed text
    can match.

    `known` are constants, which represent themselves; `groups` say for each version which of
    the expressions it requires.
    """
    every = Language(expressions, forms.alphabet(kind), budget).vectors(groups)
    texts: list[Key] = [*every.values()]
    if all(text not in known and normal(kind, text) is not None for text in texts):
        return texts
    # with the type's own form, and without the constants
    language = Language(
        [forms.form(kind), _any_text_of(known), *expressions], forms.alphabet(kind), budget
    )
    inside = [(0, *[index + 2 for index in group]) for group in groups]
    found: Texts = {}

    def enough(seen: Texts) -> bool:
        return every.keys() <= {vector[2:] for vector in seen if not vector[1]}

    for vector, text in language.vectors(inside, enough).items():
        if not vector[1]:
            found.setdefault(vector[2:], text)
    return list(found.values())
