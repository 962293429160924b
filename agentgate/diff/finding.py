"""What a comparison says: findings for a reviewer, and the cells they are made from.

A *cell* is one class of values of one field that neither version tells apart; a *point* says, for each field that matters, which
value to take (see `agentgate.review.report.witness`, which makes a call of it). Fields a point does not name are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as having
from enum import IntEnum
from typing import Any


class Absent:
    """The value of an optional argument that was left out."""

    def __repr__(self) -> str:
        return "(not sent)"


class Null:
    """The value of an argument that was sent as null."""

    def __repr__(self) -> str:
        return "null"


ABSENT, NULL = Absent(), Null()
Point = Mapping[str, Any]


class Status(IntEnum):
    """What one field alone says of a call."""

    FREE = 0
    ASK = 1  # a person must be asked, under all step-up rules of the tool
    REFUSE = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """One class of values of a field.

    Attributes:
        old, new: what each version says of it.
        why_old, why_new: names of the rules that refuse or ask.
        fires_old, fires_new: one bit for each step-up rule of the tool; 0 where this field keeps the rule from firing.
        point: values of this class.
        shown: the value, for a reviewer.
    """

    old: Status
    new: Status
    why_old: frozenset[str] = frozenset()
    why_new: frozenset[str] = frozenset()
    fires_old: int = -1
    fires_new: int = -1
    point: Point = having(default_factory=dict)
    shown: str = ""

    def swapped(self) -> Cell:
        """The same class, asked the other way round."""
        return Cell(self.new, self.old, self.why_new, self.why_old, self.fires_new, self.fires_old, self.point, self.shown)


@dataclass(frozen=True, slots=True)
class Field:
    """All classes of values of one field. `said` gives each rule's text in the old and the new version."""

    name: str
    cells: tuple[Cell, ...]
    said: Mapping[str, tuple[str, str]] = having(default_factory=dict)

    def swapped(self) -> Field:
        """The same field, asked the other way round."""
        return Field(self.name, tuple(c.swapped() for c in self.cells), {k: (b, a) for k, (a, b) in self.said.items()})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that became wider (or narrower), for one field of one tool.

    Attributes:
        tool: the tool's name; empty: every tool, or the workflow itself.
        field: which rule, as a path: ``args.payee.from``, ``conditions.hours``, ``step_up.big-refund``, ``token.ttl``.
        old, new: the rule's text in each version; empty where it has none.
        effect: what follows, in words: ``was refused, would be allowed``.
        example: the value that shows it, or empty.
        point: what a call needs, beyond any allowed call, to show it (empty: no single call shows it).
        rest: values of every other field that the new version allows, for where an allowed call's own do not serve.
        call: True when one call shows it; False for what no single call shows (limits, lifetimes, who answers).
    """

    tool: str
    field: str
    old: str
    new: str
    effect: str
    example: str = ""
    point: Point = having(default_factory=dict)
    rest: Point = having(default_factory=dict)
    call: bool = True

    def __str__(self) -> str:
        where = f"{self.tool}: {self.field}" if self.tool else self.field
        change = f"  {self.old or '(nothing)'} -> {self.new or '(nothing)'}" if self.old or self.new else ""
        shown = f"  e.g. {self.example}" if self.example else ""
        return f"{where}{change}{shown}  {self.effect}"


@dataclass(frozen=True, slots=True)
class Diff:
    """The answer.

    Attributes:
        wider: where NEW needs fewer releases for some call, or gives more.
        narrower: where it needs more, or gives less.
        read_yourself: paths of what differs and is not answered exactly.
        same_calls: paths of rules that are written differently and let exactly the same calls through.
        only_narrower: True only if no call needs fewer releases under NEW and nothing is left to read.
    """

    wider: tuple[Finding, ...]
    narrower: tuple[Finding, ...]
    read_yourself: tuple[str, ...]
    same_calls: tuple[str, ...] = ()

    @property
    def only_narrower(self) -> bool:
        """See the class; what a gate relies on to accept one signature."""
        return not self.wider and not self.read_yourself
