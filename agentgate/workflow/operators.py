"""The operators: what a workflow can require of one value. Each is one class, in one table.

An operator knows its key in the file and how to compile it, which values it allows, how to tell
a person, which values it tells apart (for the exact diff), and the smallest steps that loosen
or narrow it (for the mutants of a workflow). Everything else iterates `Rule.operators`; nothing
else knows an operator by its name.

All operators of a rule are ANDed; every element of a list must pass them. Those of the last
three occur in `step_up.when` alone, where passing asks a person: negation can add a person and
grant nothing. Operators compare keys (`agentgate.values.entities`), so 39.99 and "39.990" are
one amount and ``true`` is not 1. Pure.

To add one: a class in `OPERATORS`, a field of `Rule`, the key of the block, docs/workflows.md,
the reference model of the tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, Protocol

from agentgate.errors import CanonicalError
from agentgate.values.entities import NUMERIC, Key
from agentgate.values.patterns import Glob, Pattern
from agentgate.values.samples import VARIANTS, from_glob, from_pattern


class Reading(Protocol):
    """What compiling an operator needs of its rule in the file: the type of the value, and a
    way to report.
    """

    kind: str

    def report(self, key: str, got: str, expected: str, *, at_key: bool = False) -> None:
        """Report what is wrong with this operator."""

    def constants(self, key: str, values: list[Any]) -> tuple[Key, ...]:
        """Values as comparison keys; one without a normal form is reported."""


class SmallestStep(NamedTuple):
    """The smallest change of an operator that allows one more class of calls, or asks a person
    once less.

    Attributes:
        words: the change, for a reviewer: ``500 -> 501``, ``dropped``.
        value: the operator's value afterwards; None: the operator is gone.
        name: names the case that notices, behind the argument's name: ``above 500``.
    """

    words: str
    value: Any
    name: str


class Operator(ABC):
    """One operator, with its value in a rule.

    Attributes:
        key: its key in the file.
        field: the field of `Rule` that holds its value.
        value: that value, compiled.
        closed: it lists every value it allows.
        bounds: it is a bound on an ordered scale, which a mutant moves; others are dropped.
        outwards: of a bound, the sign of the direction in which fewer values pass.
    """

    __slots__ = ("value",)
    key: ClassVar[str]
    field: ClassVar[str]
    closed: ClassVar[bool] = False
    bounds: ClassVar[bool] = False
    outwards: ClassVar[int] = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == getattr(other, "value", None)

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        """The value as the rule holds it; None after reporting why there is none."""
        return raw

    @abstractmethod
    def holds(self, key: Key) -> bool:
        """Whether one value, in normal form, passes."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What would have passed, for a person."""

    @property
    def words(self) -> str:
        """The value as in the file."""
        return str(self.value)

    @property
    def constants(self) -> tuple[Key, ...]:
        """Values that it names, and so tells apart from all others."""
        return ()

    @property
    def points(self) -> tuple[Decimal, ...]:
        """Numbers at which its answer changes."""
        return tuple(key for key in self.constants if isinstance(key, Decimal))

    @property
    def length(self) -> int | None:
        """The longest text that passes, of an operator on length."""
        return None

    @property
    def language(self) -> tuple[str, str] | None:
        """Two RE2 sources, of an operator on form: whole texts that match the first and not the
        second (empty: no second).
        """
        return None

    def samples(self, variant: int) -> Iterator[Any]:
        """Values it suggests, as a caller sends them; `variant` counts from 0 and gives
        others.
        """
        if variant == 0:
            yield from self.constants

    def proposals(self, kind: str) -> Iterator[tuple[Any, str]]:
        """Values to propose in place of one that does not pass, each with the words to propose
        it by.
        """
        yield from ()

    @property
    def loosened(self) -> SmallestStep:
        """The smallest loosening."""
        return SmallestStep("dropped", None, "of another form")

    def narrowed(self, others: Iterable[Any]) -> Iterator[SmallestStep]:
        """The smallest narrowings; `others` are values in the argument's form."""
        yield from ()


def unreachable(operators: Sequence[Operator]) -> Operator | None:
    """The operator that lists constants none of which the others allow; None where some value
    can hold, as far as constants tell.
    """
    for operator in operators:
        if operator.closed and operator.constants:
            others = [other for other in operators if not other.closed]
            if not any(
                isinstance(key, bool)
                or all(
                    other.holds(key)
                    for other in others
                    if other.bounds == isinstance(key, Decimal)
                )
                for key in operator.constants
            ):
                return operator
    return None


_DOT_SEGMENTS = r"(?s:(?:.*/)?\.\.?(?:/.*)?)"  # what no glob matches


class _Constants(Operator):
    """Compared with the keys that the file lists."""

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        return reading.constants(cls.key, list(raw))

    @property
    def words(self) -> str:
        return ", ".join(map(str, self.value))

    @property
    def constants(self) -> tuple[Key, ...]:
        return tuple(self.value)

    def holds(self, key: Key) -> bool:
        for other in self.value:  # noqa: SIM110 - runs in every decision, and a generator costs as much as the comparisons
            if key == other and isinstance(key, bool) == isinstance(other, bool):
                return True
        return False

    def proposals(self, kind: str) -> Iterator[tuple[Any, str]]:
        text = f"one of {self.words}" if len(self.value) > 1 else self.words
        for value in self.value:
            yield (str(value) if isinstance(value, Decimal) else value), text

    @property
    def loosened(self) -> SmallestStep:
        return SmallestStep("dropped", None, "that is not listed")


class Is(_Constants):
    """``is: EUR``: exactly this value."""

    key = "is"
    field = "equals"
    closed = True

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        return reading.constants(cls.key, [raw]) or None

    @property
    def expected(self) -> str:
        return self.words


class In(_Constants):
    """``in: [EUR, GBP]``, on a list argument ``each_in``: one of these."""

    key = "in"
    field = "one_of"
    closed = True

    @property
    def expected(self) -> str:
        return f"one of {self.words}"

    def narrowed(self, others: Iterable[Any]) -> Iterator[SmallestStep]:
        for value in self.value if len(self.value) > 1 else ():
            yield SmallestStep(
                f"{value} dropped", tuple(v for v in self.value if v != value), f"{value}"
            )


class _Form(Operator):
    """A whole text has a form."""

    value: Pattern | Glob
    form: ClassVar[type[Pattern | Glob]]

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        _only_text(cls.key, reading)
        try:
            return cls.form.of(raw)
        except CanonicalError as error:
            reading.report(cls.key, error.got, error.expected)
            return None

    def holds(self, key: Key) -> bool:
        return isinstance(key, str) and self.value.matches(key)

    @property
    def expected(self) -> str:
        return f"all of it to match {self.value.source}"

    @property
    def words(self) -> str:
        return self.value.source


def _only_text(key: str, reading: Reading) -> None:
    if reading.kind in NUMERIC or reading.kind in {"boolean", "json"}:
        reading.report(
            key, f"{key} on a {reading.kind}", "an operator for text only on text", at_key=True
        )


class Matches(_Form):
    """``pattern: 'ORD-[0-9]{8}'``: RE2, always the whole value."""

    key = "pattern"
    field = "pattern"
    form = Pattern

    @property
    def language(self) -> tuple[str, str]:
        return self.value.source, ""

    def samples(self, variant: int) -> Iterator[Any]:
        made = from_pattern(self.value.source, variant) if variant < VARIANTS else None
        if made is not None:
            yield made


class Globs(_Form):
    """``glob: northwind/orders/*``: ``*`` stops at ``/``, ``**`` does not; no dot segments."""

    key = "glob"
    field = "glob"
    form = Glob
    value: Glob

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        never = not {".", "..", ""}.isdisjoint(raw.removeprefix("/").split("/"))
        if never or "***" in raw:
            _only_text(cls.key, reading)
            expected = (
                "no empty, '.' or '..' segment (such a value never matches)"
                if never
                else "* or **"
            )
            reading.report(cls.key, repr(raw), expected)
            return None
        return super().compiled(raw, reading)

    @property
    def language(self) -> tuple[str, str]:
        return self.value.pattern.source, _DOT_SEGMENTS

    def samples(self, variant: int) -> Iterator[Any]:
        if variant < VARIANTS:
            yield from_glob(self.value.source, variant)


class TextLength(Operator):
    """``text: 200``: free text of at most so many characters; of a `json` value, so many
    characters of canonical JSON.
    """

    key = "text"
    field = "text"
    value: int

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        if reading.kind not in {"text", "json"}:
            if reading.kind in NUMERIC or reading.kind == "boolean":
                _only_text(cls.key, reading)
            else:
                expected = "one of them (text: N is free text)"
                reading.report(
                    cls.key, f"text beside type {reading.kind}", expected, at_key=True
                )
        return raw

    def holds(self, key: Key) -> bool:
        return isinstance(key, str) and len(key) <= self.value

    @property
    def expected(self) -> str:
        return f"at most {self.value} characters"

    @property
    def length(self) -> int:
        return self.value

    @property
    def loosened(self) -> SmallestStep:
        return SmallestStep(
            f"{self.value} -> {self.value + 1}", self.value + 1, "that is too long"
        )


def step_of(bound: Decimal) -> Decimal:
    """The smallest step of a bound as it is written: 0.01 for 500.00, 1 for 20."""
    exponent = bound.as_tuple().exponent
    return (
        Decimal(1).scaleb(exponent)
        if isinstance(exponent, int) and exponent < 0
        else Decimal(1)
    )


def as_sent(kind: str, number: Decimal) -> Any:
    """A number as a caller sends it: an integer as a JSON number, everything else as text."""
    return int(number) if kind == "integer" else format(number, "f")


class _Bound(Operator):
    """A bound on a number; `side` says where a value outside is, in the words of a case."""

    bounds = True
    side: ClassVar[str]
    value: Decimal

    @property
    def expected(self) -> str:
        return f"{self.side} {self.value}"

    @property
    def points(self) -> tuple[Decimal, ...]:
        return (self.value,)

    def _moved(self, outwards: int) -> Decimal:
        """The bound by the smallest step further out (1) or in (-1)."""
        return self.value + outwards * self.outwards * step_of(self.value)

    @property
    def loosened(self) -> SmallestStep:
        moved = self._moved(1)
        return SmallestStep(f"{self.value} -> {moved}", moved, f"{self.side} {self.value}")

    def narrowed(self, others: Iterable[Any]) -> Iterator[SmallestStep]:
        moved = self._moved(-1)
        yield SmallestStep(f"{self.value} -> {moved}", moved, f"of {self.value}")


class _Range(_Bound):
    """One end of an inclusive range; a file states both ends."""

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        if reading.kind not in NUMERIC and cls.key == "min":  # reported once for both ends
            reading.report(
                "min",
                f"min and max on a {reading.kind}",
                "a range only on money, number or integer",
                at_key=True,
            )
        return raw

    def proposals(self, kind: str) -> Iterator[tuple[Any, str]]:
        yield (int(self.value) if kind == "integer" else str(self.value)), self.expected


class Min(_Range):
    """``min: "0.01"``."""

    key = "min"
    field = "minimum"
    outwards = -1
    side = "below"

    def holds(self, key: Key) -> bool:
        return isinstance(key, Decimal) and key >= self.value

    @property
    def expected(self) -> str:
        return f"at least {self.value}"


class Max(_Range):
    """``max: "500.00"``."""

    key = "max"
    field = "maximum"
    outwards = 1
    side = "above"

    def holds(self, key: Key) -> bool:
        return isinstance(key, Decimal) and key <= self.value

    @property
    def expected(self) -> str:
        return f"at most {self.value}"


class Above(_Bound):
    """``above: "100.00"``: asks a person about every larger number."""

    key = "above"
    field = "above"
    outwards = -1
    side = "above"

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        if reading.kind not in NUMERIC:
            reading.report(
                cls.key, f"above on a {reading.kind}", "money, number or integer", at_key=True
            )
        return raw

    def holds(self, key: Key) -> bool:
        return isinstance(key, Decimal) and key > self.value

    def narrowed(self, others: Iterable[Any]) -> Iterator[SmallestStep]:
        moved = self._moved(-1)
        yield SmallestStep(f"{self.value} -> {moved}", moved, f"above {self.value}")


class NotIn(_Constants):
    """``not_in: [EUR]``: asks a person about every other value."""

    key = "not_in"
    field = "not_in"

    def holds(self, key: Key) -> bool:
        return not super().holds(key)

    @property
    def expected(self) -> str:
        return f"none of {self.words}"

    def samples(self, variant: int) -> Iterator[Any]:
        yield from ()

    def narrowed(self, others: Iterable[Any]) -> Iterator[SmallestStep]:
        other = next((value for value in others if value not in self.value), None)
        if other is not None:
            yield SmallestStep(f"{other} added", (*self.value, other), f"{other}")


class NotMatches(_Form):
    """``not_pattern: 'ORD-[0-9]{8}'``: asks a person about every value of another form."""

    key = "not_pattern"
    field = "not_pattern"
    form = Pattern

    def holds(self, key: Key) -> bool:
        return not super().holds(key)

    @property
    def expected(self) -> str:
        return f"not of the form {self.words}"

    @property
    def language(self) -> tuple[str, str]:
        return "(?s:.*)", self.value.source


OPERATORS: tuple[type[Operator], ...] = (
    Is,
    In,
    Matches,
    Globs,
    TextLength,
    Min,
    Max,
    Above,
    NotIn,
    NotMatches,
)


def compiled(values: Any) -> tuple[Operator, ...]:
    """The operators that a rule states, in the order of the table, as a flat tuple."""
    return tuple(
        operator(value)
        for operator in OPERATORS
        if (value := getattr(values, operator.field)) is not None
    )


def key_of(operator: Operator, rule: Any) -> str:
    """The key of an operator in the file: on a list, `in` is spelled ``each_in``."""
    return "each_in" if operator.key == In.key and rule.max_items is not None else operator.key
