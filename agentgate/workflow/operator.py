"""The base class of the operators (`agentgate.workflow.operators`), and what else they share.
Pure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, Protocol

from agentgate.values.entities import Key


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
