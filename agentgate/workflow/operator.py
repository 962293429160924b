"""What an operator is: the base class of `agentgate.workflow.operators`, what compiling one needs, and how one is changed least. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple, Protocol

from agentgate.values.entities import Key


class Reading(Protocol):
    """What compiling an operator needs of the file it stands in: the type of the value, and a way to report."""

    kind: str

    def report(self, key: str, got: str, expected: str, *, at_key: bool = False) -> None:
        """Note what is wrong with this operator."""

    def constants(self, key: str, values: list[Any]) -> tuple[Key, ...]:
        """Values as comparison keys; one without a normal form is reported."""


class SmallestStep(NamedTuple):
    """The smallest change of an operator that lets one more class of calls through, or asks once less.

    Attributes:
        words: what was done, for a reviewer: ``500 -> 501``, ``dropped``.
        value: the operator's value afterwards; None: the operator is gone.
        name: what a case that notices is about, behind the argument's name: ``above 500``.
        tries: values that only the changed workflow treats otherwise; None: any that the operator alone refuses.
    """

    words: str
    value: Any
    name: str
    tries: tuple[Any, ...] | None = None


class Operator(ABC):
    """One operator with the value it has in a rule.

    Attributes:
        key: its key in the file.
        field: the field of `Rule` that holds its value.
        value: that value, compiled.
        when_only: only `step_up.when` may say it.
        closed: it lists every value there is.
        bounds: it is a bound on an ordered scale, which a mutant moves; others are dropped.
        outwards: of a bound, the sign of the direction in which fewer values hold.
    """

    __slots__ = ("value",)
    key: ClassVar[str]
    field: ClassVar[str]
    when_only: ClassVar[bool] = False
    closed: ClassVar[bool] = False
    bounds: ClassVar[bool] = False
    outwards: ClassVar[int] = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def compiled(cls, raw: Any, reading: Reading) -> Any:
        """The value of the key as the rule holds it; None after reporting why there is none."""
        return raw

    @abstractmethod
    def holds(self, key: Key) -> bool:
        """Whether one value, in normal form, is as asked."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What would have held, for an operator or reviewer."""

    @property
    def words(self) -> str:
        """The value as the file says it."""
        return str(self.value)

    @property
    def constants(self) -> tuple[Key, ...]:
        """Values that it tells apart from all others by naming them."""
        return ()

    @property
    def points(self) -> tuple[Decimal, ...]:
        """Numbers at which its answer changes."""
        return tuple(key for key in self.constants if isinstance(key, Decimal))

    @property
    def length(self) -> int | None:
        """The longest text that holds, if it is about length."""
        return None

    @property
    def language(self) -> tuple[str, str] | None:
        """Two RE2 sources, if it asks for a form: whole texts that match the first and not the second (empty: no second)."""
        return None

    def near(self, kind: str) -> Iterator[Any]:
        """Values around it as a caller sends them: some that hold, and for a bound or length some just outside."""
        yield from self.constants

    def samples(self, variant: int) -> Iterator[Any]:
        """Values it suggests, as a caller sends them; `variant` counts from 0 and gives others."""
        if variant == 0:
            yield from self.constants

    def proposals(self, kind: str) -> Iterator[tuple[Any, str]]:
        """Values to propose in the place of one that does not hold, each with the words to propose it by."""
        yield from ()

    def loosened(self, kind: str) -> SmallestStep:
        """The smallest loosening."""
        return SmallestStep("dropped", None, "of another form")

    def narrowed(self, kind: str, others: Iterable[Any]) -> Iterator[SmallestStep]:
        """The smallest narrowings, each with a value that no longer holds; `others` are values in the argument's form."""
        yield from ()
