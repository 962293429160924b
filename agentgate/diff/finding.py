"""What a comparison reports: findings for a reviewer, and the cells they are made from.

A *cell* is one class of values of one field that neither version distinguishes; a *point*
gives, for each field that matters, a value of the class (`agentgate.review.report.witness`
makes a call of it). Fields that a point does not name are free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field as having
from dataclasses import replace
from enum import Enum, IntEnum
from typing import Any

from agentgate.values.value_class import Names, value_class
from agentgate.workflow.rule import WhenOpen


class Unsent(Enum):
    """How a call can hold no value for an argument; the value is how a reviewer reads it."""

    ABSENT = "(not sent)"
    NULL = "null"

    def __str__(self) -> str:
        return self.value

    __repr__ = __str__


ABSENT = Unsent.ABSENT
NULL = Unsent.NULL
REMOVED = "(removed)"  # the text of a rule or a limit that is gone
Point = Mapping[str, Any]
Texts = tuple[str, str]  # of a rule, in the old and the new version


class Status(IntEnum):
    """What one field alone decides about a call."""

    FREE = 0
    CONFIRM = 1  # somebody must be asked, at least the run's own user
    ASK = 2  # at least a group must be asked
    REFUSE = 3


ANSWERS: Mapping[WhenOpen, Status] = {
    "confirm": Status.CONFIRM,
    "step_up": Status.ASK,
    "deny": Status.REFUSE,
}
# what a class leaves open, one bit each
INTENT = 1
ORIGIN = 2
LEFT_OPEN: Mapping[str, int] = {"intent": INTENT, "origin": ORIGIN}


@value_class
class Ruling:
    """What one version decides about a class of values of one field.

    Attributes:
        status: of this field alone.
        why: names of the rules that refuse or ask.
        fires: one bit for each step-up rule of the tool; 0 where this field keeps the rule from
            firing.
        left_open: what this field leaves open, where it asks: `INTENT`, `ORIGIN` or both.
    """

    status: Status
    why: frozenset[str] = frozenset()
    fires: int = -1
    left_open: int = 0


@value_class
class Cell:
    """One class of values of a field.

    Attributes:
        old, new: what each version decides about it.
        point: a value of this class.
        shown: the value, for a reviewer.
    """

    old: Ruling
    new: Ruling
    point: Point = having(default_factory=dict)
    shown: str = ""

    @property
    def refused(self) -> bool:
        """Whether both versions refuse it."""
        return self.old.status == self.new.status == Status.REFUSE


@value_class
class Field:
    """All classes of values of one field. `said`: each rule's text in the old and the new
    version.
    """

    name: str
    cells: tuple[Cell, ...]
    said: Mapping[str, Texts] = having(default_factory=dict)

    def swapped(self) -> Field:
        """The same field with the versions exchanged."""
        cells = [
            replace(cell_of_statuses, old=cell_of_statuses.new, new=cell_of_statuses.old)
            for cell_of_statuses in self.cells
        ]
        said = {label: (new, old) for label, (old, new) in self.said.items()}
        return Field(self.name, tuple(cells), said)


def free_if(held: object) -> Status:
    """What a field decides where its condition holds; else it refuses."""
    return Status.FREE if held else Status.REFUSE


def asks(status: Status) -> bool:
    """Whether somebody has to be asked."""
    return status in {Status.CONFIRM, Status.ASK}


def ruling_by_label(
    label: str,
    status: Status,
    fires: int = -1,
    left_open: int = 0,
) -> Ruling:
    """A ruling that is due to one rule; `left_open`: what it leaves open where it asks."""
    return Ruling(
        status,
        frozenset({label}) if status else frozenset(),
        fires,
        left_open if asks(status) else 0,
    )


def cell_of_statuses(
    statuses: Iterable[Status],
    label: str,
    point: Point,
    shown: str,
    left_open: int = 0,
) -> Cell:
    """A class of values about which one rule of each version, named by `label`, decides."""
    old, new = (ruling_by_label(label, status, left_open=left_open) for status in statuses)
    return Cell(old, new, point, shown)


def field_of_cells(
    name: str,
    cells: Iterable[Cell],
    said: Mapping[str, Sequence[str]],
) -> Field:
    """A field of the first cell of each pair of rulings, without the classes that both versions
    refuse.
    """
    first: dict[object, Cell] = {}
    for each in cells:
        if not each.refused:
            first.setdefault((each.old, each.new), each)
    texts = {label: (old, new) for label, (old, new) in said.items()}
    return Field(name, tuple(first.values()), texts)


@value_class
class Finding:
    """One thing that became wider (or narrower), for one field of one tool.

    Attributes:
        tool: the tool's name; empty: every tool, or the workflow itself.
        field: which rule, as a path: ``args.payee.from``, ``conditions.hours``,
            ``step_up.big-refund``, ``token.ttl``.
        old, new: the rule's text in each version; empty where it has none.
        effect: the consequence: ``was refused, would be allowed``.
        example: a value that shows it, or empty.
        point: what a call needs, beyond any allowed call, to show it (empty: no single call
            shows it).
        rest: values of every other field that the new version allows, in case those of an
            allowed call do not fit.
        call: whether a single call can show it; limits, lifetimes and who answers need more
            than one.
        back: the consequence of the change the other way round.
        asks: whether the call would need a release.
        counts: of a limit, what it counts, over whatever window.
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
    back: str = ""
    asks: bool = False
    counts: str = ""

    def __str__(self) -> str:
        where = f"{self.tool}: {self.field}" if self.tool else self.field
        change = ""
        if self.old or self.new:
            change = f"  {self.old or '(nothing)'} -> {self.new or '(nothing)'}"
        shown = f"  e.g. {self.example}" if self.example else ""
        return f"{where}{change}{shown}  {self.effect}"


@value_class
class Diff:
    """The answer.

    Attributes:
        wider: where NEW needs fewer releases for some call, or grants more.
        narrower: where it needs more, or grants less.
        read_yourself: paths of what differs and has no exact answer.
        same_calls: paths of rules that are written differently and allow exactly the same
            calls.
        differs: for each of those paths, the value in each version (None where it has none).
        only_narrower: True only if no call needs fewer releases under NEW and nothing is left
            to read.
    """

    wider: tuple[Finding, ...]
    narrower: tuple[Finding, ...]
    read_yourself: Names
    same_calls: Names = ()
    differs: Mapping[str, tuple[Any, Any]] = having(default_factory=dict, compare=False)

    @property
    def only_narrower(self) -> bool:
        """See the class; a gate relies on it to accept one signature."""
        return not self.wider and not self.read_yourself
