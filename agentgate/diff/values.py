"""Representatives: values such that the rules on one argument treat every other value like one
of them.

The constants of the rules divide the numbers, their languages divide the texts, until no rule
distinguishes two values of a piece; one value represents each piece. A rule can then simply be
applied to the representatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from agentgate.diff import forms
from agentgate.diff.language import Budget, Language, Vector
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
    kind: str, rules: Rules, whens: Rules = (), budget: Budget | None = None
) -> list[Key]:
    """Values of a type that represent all of them under these rules and conditions; readable
    ones first.

    A value that no version allows may be missing. Raises Unreadable, TooLarge: a pattern cannot
    be read exactly.
    """
    if kind == "boolean":
        return [True, False]
    if kind in NUMERIC:
        return list(_numbers(kind, (*rules, *whens)))
    return (
        list(_structures((*rules, *whens)))
        if kind == "json"
        else _texts(kind, rules, whens, budget or Budget())
    )


# --- numbers ----------------------------------------------------------------------------------
def _numbers(kind: str, rules: Rules) -> Iterable[Decimal]:
    ordered = sorted(
        {point for rule in rules for operator in rule.operators for point in operator.points}
    )
    for low, high in zip([-_LIMIT, *ordered], [*ordered, _LIMIT], strict=True):
        inside = between(
            low, high, whole=kind == "integer", money=kind == "money", lowest=low == -_LIMIT
        )
        if inside is not None:
            yield inside
        if high != _LIMIT and normal(kind, plain(high)) is not None:
            yield high


def between(
    low: Decimal, high: Decimal, *, whole: bool, money: bool, lowest: bool = False
) -> Decimal | None:
    """A number strictly between two, with as few digits as possible (money: cents where they
    fit); None when there is none.
    """
    for places in (
        (0,)
        if whole
        else (2, 0, 1, *range(3, MAX_DIGITS + 1))
        if money
        else range(MAX_DIGITS + 1)
    ):
        step = Decimal(1).scaleb(-places)
        below = (high / step).to_integral_value("ROUND_CEILING") - 1
        above = (low / step).to_integral_value("ROUND_FLOOR") + 1
        number = (below if lowest else above) * step
        if low < number < high and normal("number", plain(number)) is not None:
            return number
    return None


def plain(number: Decimal) -> str:
    """A number as the text an argument holds."""
    return format(number, "f")


def _caps(rules: Iterable[Rule]) -> set[int]:
    """The lengths at which the rules distinguish texts."""
    return {operator.length for rule in rules for operator in rule.operators if operator.length}


def _structures(rules: Rules) -> Iterable[str]:
    """JSON values of each length that the rules distinguish, as canonical text. Raises
    Unreadable: a rule is about more than length.
    """
    if any(operator.length is None for r in rules for operator in r.operators) or any(
        r.role_scopes for r in rules
    ):
        raise Unreadable("json")
    caps = _caps(rules)
    lengths = sorted({*caps, *(cap + 1 for cap in caps)})
    for length in dict.fromkeys((4, *lengths)):
        if length >= len("[]"):
            yield f'["{"x" * (length - 4)}"]' if length >= 4 else "[1]" if length == 3 else "[]"


# --- text -------------------------------------------------------------------------------------
def _texts(kind: str, rules: Rules, whens: Rules, budget: Budget) -> list[Key]:
    every = (*rules, *whens)
    constants = [
        v
        for rule in every
        for v in (
            *(key for operator in rule.operators for key in operator.constants),
            *rule.role_scopes,
        )
    ]
    known = dict.fromkeys(
        str(v) for v in constants if type(v) is str and normal(kind, v) is not None
    )
    expressions: dict[object, Expression] = {}
    groups = []
    for rule in every:
        own: dict[object, Expression] = {
            operator.language: forms.language(*operator.language)
            for operator in rule.operators
            if operator.language
        }
        own |= {cap: Repeat(Chars(ALL), 0, cap) for cap in _caps([rule]) if cap <= MAX_VALUE}
        expressions.update(own)
        if rule in rules and not any(operator.closed for operator in rule.operators):
            groups.append(tuple(list(expressions).index(name) for name in own))
    caps = sorted(_caps(every))
    if kind == "text":
        # represents itself, so that a text that is not empty is shown where there is one
        known[""] = None
    if not groups:  # constants only
        return list(known)
    if not any(operator.language for rule in every for operator in rule.operators):
        return [*_plain_texts(kind, caps, known), *known]
    pieces = _pieces(kind, list(expressions.values()), tuple(known), groups, budget)
    if kind == "text":  # patterns match no longer text; only lengths tell those apart
        sizes = {
            MAX_VALUE // 4 + 1,
            *(n for cap in caps for n in (cap, cap + 1) if n * 4 > MAX_VALUE),
        }
        pieces += [_HUGE * n for n in sorted(sizes)]
    return [*pieces, *known]


def _plain_texts(
    kind: str,
    caps: list[int],
    known: dict[str, None],
) -> list[Key]:
    """A text of each length class that is no constant; without caps, any one."""
    if caps:
        # more letters than constants: one is always left
        letters = ("x", "y", *map(chr, range(_MANY, _MANY + len(known))))
        return [
            next(letter * n for letter in letters if letter * n not in known)
            for n in (1, *(cap + 1 for cap in caps))
        ]
    sample = forms.SAMPLES[kind]
    if sample not in known:
        return [sample]
    expressions = [forms.form(kind), _one_of(tuple(known))]
    language = Language(expressions, forms.alphabet(kind))
    other = language.texts(lambda v: v[0] and not v[1])
    return [] if other is None else [other]


def _one_of(texts: Names) -> Expression:
    if not texts:
        return Not(ANYTHING)
    return Either(tuple([literal(text) for text in texts]))


def _pieces(
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
    if all(text not in known and normal(kind, text) is not None for text in every.values()):
        return list(every.values())
    # with the type's own form, and without the constants
    language = Language(
        [forms.form(kind), _one_of(known), *expressions], forms.alphabet(kind), budget
    )
    inside = [(0, *(i + 2 for i in group)) for group in groups]
    found: dict[Vector, str] = {}
    for vector, text in language.vectors(
        inside, lambda seen: every.keys() <= {v[2:] for v in seen if not v[1]}
    ).items():
        if not vector[1]:
            found.setdefault(vector[2:], text)
    return list(found.values())
