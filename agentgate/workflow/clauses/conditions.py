"""The clauses of `conditions`: where and when, each known to the gate itself; unknown fails."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.values.refusal import Reason
from agentgate.values.times import SHORT_WEEKDAYS, clock
from agentgate.values.value_class import value_class
from agentgate.workflow.clauses.clause import (
    OTHER,
    Checks,
    Distinct,
    ListedClause,
    Loosening,
    Scene,
    Sides,
    Situation,
    WorkflowClause,
    compiled,
)

_DAY = 24 * 60  # minutes
_WEEK = 7 * _DAY


class _Configured(ListedClause):
    """What the settings of the gate say."""

    configured = True
    quoted = False

    def shown(self, case: Situation) -> object:
        return self.found(case) or "not configured"


class Environment(_Configured, path="conditions.environment", reason=Reason.ENVIRONMENT):
    """``environment: [prod]``: where the gate, or the job that calls, is deployed."""

    @property
    def remedy(self) -> str:
        return f"a gate whose environment is {self.expected}"


class DataClass(_Configured, path="conditions.data_class", reason=Reason.DATA_CLASS):
    """``data_class: [internal]``: the class of the data that the call touches, from the
    catalogue.
    """

    another = "another data class"


class Network(_Configured, path="conditions.network", reason=Reason.NETWORK):
    """``network: [10.0.0.0/8, office]``: an address in one of the blocks, or exactly the name
    of a zone.

    The text of a block is no address.
    """

    loose = "any", ("0.0.0.0/0", "::/0")

    def allows(self, value: Any) -> bool:
        address = parsed_address(ipaddress.ip_address, value) if value else None
        for each in self.value if value else ():
            block = parsed_address(ipaddress.ip_network, each)
            if each == value if block is None else address is not None and address in block:
                return True
        return False

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        """Zone names as they are, and an address on each side of every edge of every block."""
        addresses = []
        for each in [each for side in sides for each in side.value]:
            block = parsed_address(ipaddress.ip_network, each)
            if block is None:
                addresses.append(each)
                continue
            first = int(block.network_address)
            last = int(block.broadcast_address)
            edges = [
                at
                for at in (first, first - 1, last, last + 1)
                if 0 <= at < 1 << block.max_prefixlen
            ]
            addresses += [str(type(block.network_address)(at)) for at in edges]
        known = [
            Distinct(address, {cls.scene: address}, address)
            for address in dict.fromkeys(addresses)
        ]
        return [*known, Distinct(OTHER, {cls.scene: "203.0.113.9"}, OTHER)]

    def sample(self, given: Scene) -> Scene:
        return {self.scene: self.value[0].partition("/")[0]}


def parsed_address(form: Any, text: str) -> Any:
    """An address or a block; None where the text is none."""
    try:
        return form(text)
    except ValueError:
        return None


class OpenHours(WorkflowClause, path="conditions.hours", scene="time", reason=Reason.HOURS):
    """``hours``: the days and times in which a call may be made."""

    value: Hours
    form = ""

    def __init__(self, value: Hours, line: int) -> None:
        super().__init__(value, value.line)

    def found(self, case: Situation) -> tuple[int, int]:
        local = case.around.now.astimezone(ZoneInfo(self.value.zone))
        return local.weekday(), local.hour * 60 + local.minute

    def allows(self, value: Any) -> bool:
        """Across midnight the early part belongs to the day before."""
        hours = self.value
        day, minute = value
        if hours.start <= hours.end:
            return day in hours.days and hours.start <= minute < hours.end
        early = (day - 1) % 7 in hours.days and minute < hours.end
        return early or (day in hours.days and minute >= hours.start)

    def shown(self, case: Situation) -> str:
        return f"{case.around.now.astimezone(ZoneInfo(self.value.zone)):%a %H:%M %Z}"

    @property
    def expected(self) -> str:
        return self.value.window

    @property
    def remedy(self) -> str:
        return f"a time in {self.expected}"

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        """The minutes of the week at which one of them opens or closes; nothing where their
        clocks differ.
        """
        zone = sides[0].value.zone
        if any(side.value.zone != zone for side in sides):
            return
        times = {minute for side in sides for minute in (side.value.start, side.value.end)}
        for at in sorted(
            {0, *[(day * _DAY + minute) % _WEEK for day in range(7) for minute in times]}
        ):
            text = f"{SHORT_WEEKDAYS[at // _DAY]} {clock(at % _DAY)} {zone}"
            yield Distinct(divmod(at, _DAY), {"hours": (at, zone)}, text)

    def loosened(self) -> Iterator[Loosening]:
        hours = self.value
        for stated, key, words, name, changes in (
            (
                len(hours.days) < 7,
                "days",
                "any",
                "on another day",
                {"days": frozenset(range(7))},
            ),
            (
                hours.start > 0,
                "from",
                "one minute earlier",
                "before hours",
                {"start": hours.start - 1},
            ),
            (hours.end < _DAY, "to", "one minute later", "after hours", {"end": hours.end + 1}),
            (
                hours.zone != "UTC",
                "zone",
                f"{hours.zone} -> UTC",
                f"hours are those of {hours.zone}",
                {"zone": "UTC"},
            ),
        ):
            if stated:
                of = "Hours", next(iter(changes))
                yield Loosening(words, name, {self.key: replace(hours, **changes)}, key, of)

    def sample(self, given: Scene) -> Scene:
        """The middle of the first window from the given day."""
        hours = self.value
        first = datetime.fromisoformat(given["time"]).date()
        week = [first + timedelta(days=n) for n in range(7)]
        day = next(day for day in week if day.weekday() in hours.days)
        start = datetime.combine(
            day, time(hours.start // 60, hours.start % 60), ZoneInfo(hours.zone)
        )
        middle = start + timedelta(minutes=((hours.end - hours.start) % _DAY or _DAY) // 2)
        return {self.scene: middle.isoformat(timespec="minutes")}


CONDITIONS = (Environment, DataClass, Network, OpenHours)
CONFIGURED = tuple(kind.field for kind in CONDITIONS if kind.configured)


@value_class
class Hours:
    """Days (0 = Monday) and minutes of the day [start, end) in `zone`.

    Where the end is before the start, they run across midnight, and the day is the start's.
    """

    line: int
    days: frozenset[int]
    start: int
    end: int
    zone: str

    @property
    def window(self) -> str:
        """Days and times for a reader: ``Mon-Fri 08:00-20:00 Europe/Berlin``."""
        days = sorted(self.days)
        spans = []
        while days:
            last = next((n for n, day in enumerate(days) if day != days[0] + n), len(days)) - 1
            through = f"-{SHORT_WEEKDAYS[days[last]]}" if last else ""
            spans.append(SHORT_WEEKDAYS[days[0]] + through)
            days = days[last + 1 :]
        return f"{','.join(spans)} {clock(self.start)}-{clock(self.end)} {self.zone}"


@value_class
class Conditions:
    """Where and when. An empty tuple or None: the workflow says nothing about it."""

    line: int = 0
    environment: tuple[str, ...] = ()
    hours: Hours | None = None
    data_class: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    clauses: Checks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", compiled(self, *CONDITIONS))
