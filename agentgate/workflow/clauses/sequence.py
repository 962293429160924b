"""The clause of `sequence`: what must be redeemed before a tool may be called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentgate.values.times import duration
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.clause import NOBODY, Distinct, Loosening


@value_class
class Sequence:
    """`before` may be minted only after `require` was redeemed in this run.

    Attributes:
        within: at most so many seconds ago; None: ever.
    """

    line: int
    before: str
    require: str
    within: int | None

    def allows(self, age: int | None) -> bool:
        """Whether it passes where `require` was redeemed so many seconds ago; None: never."""
        return age is not None and (self.within is None or age <= self.within)

    @property
    def expected(self) -> str:
        """What would pass, for a person."""
        window = "" if self.within is None else f", at most {self.within} s ago"
        return f"{self.require} before {self.before}{window}"

    @property
    def remedy(self) -> str:
        """What would make it pass."""
        window = "" if self.within is None else f", at most {self.within} s before"
        return f"{self.require} redeemed first{window}"

    @property
    def words(self) -> str:
        """Its value as text."""
        window = "" if self.within is None else f" within {duration(self.within)}"
        return f"after {self.require}{window}"

    @staticmethod
    def distinct(orders: list[Sequence]) -> Iterable[Distinct]:
        """The ages that these tell apart, all of which require the same tool."""
        required = orders[0].require
        for age in sorted(
            {0, *[order.within + 1 for order in orders if order.within is not None]}
        ):
            yield Distinct(
                age, {f"ago.{required}": f"{age}s"}, f"{required}: {duration(age)} ago"
            )
        yield Distinct(None, {f"earlier.{required}": None}, f"{required}: {NOBODY}")

    def loosened(self) -> Iterator[Loosening]:
        """The smallest loosenings: a second more, or without it."""
        if self.within is not None:
            longer = self.within + 1
            yield Loosening(
                f"{self.within}s -> {longer}s",
                f"{self.require} too long ago",
                {"within": longer},
                "within",
            )
        yield Loosening(
            f"{self.require} dropped",
            f"{self.before} before {self.require}",
            {},
            "require",
            ("Sequence", "require"),
        )
