"""How much a gate or a verifier does at once. What is beyond it is refused before its clock
starts: a queue of calls would make all late.

Rules: new work (a run, a call to decide on, a token from outside) is refused at once while
`at_once` flows are under way. What was begun is never refused here: a token that this process
issued is redeemed, a turn is added, an answer to a hold is taken. Results and outcomes are of
tools that ran already: they wait for their turn, `at_once` at a time, under a deadline of their
own, and new work waits for none of them. What was refused is counted, and goes on record with
the next flow, at most once a second, and when the gate is closed. So is what nobody proved, in
a record every few minutes. Of what is asked from somebody who may hang, one caller reads for
all, so that it takes few of these places.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import structlog

from agentgate.audit import AuditLog
from agentgate.errors import AuditUnavailable, ConfigError, Overloaded
from agentgate.shell.step import Record, Step, date_event
from agentgate.values.value_class import Names, Values

AT_ONCE = 32  # measured: docs/adr-0020-overload.md
MOST_AT_ONCE = 1024  # a process that does more than this at once is late with all of it
_EVERY = 1.0  # seconds between records of refusals
_log = structlog.get_logger("agentgate.shell.bound")


def checked_at_once(value: object) -> int:
    """The setting `at_once`, else ConfigError."""
    if type(value) is not int or not 1 <= value <= MOST_AT_ONCE:
        raise ConfigError(
            "at_once", value, f"how many calls are under way at once, from 1 to {MOST_AT_ONCE}"
        )
    return value


class Bound:
    """The bound of one gate or verifier, which its runs share. Safe to share between threads.

    Args:
        at_once: the most flows that are under way when new work begins.
        unproven: what its flows refuse of callers whom nobody proved.

    Attributes:
        under_way: how many flows are.
    """

    def __init__(self, at_once: int = AT_ONCE, unproven: Refusals | None = None) -> None:
        self.at_once = checked_at_once(at_once)
        self._unproven = unproven or Refusals()
        self._lock = threading.Lock()
        self.under_way = self._refused = 0
        self._since = self._told = 0.0
        self._turns = SimpleQueue[bool]()
        for _ in range(at_once):
            self._turns.put(True)
        self._loop_turns: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def place(self, *, new: bool) -> _Place:
        """A place for one flow, as a context.

        Raises:
            Overloaded: (when it is entered) it is `new`, and there is none.
        """
        return _Place(self, new=new)

    def _come(self, *, new: bool) -> None:
        with self._lock:
            if new and self.under_way >= self.at_once:
                self._since = self._since if self._refused else time.time()
                self._refused += 1
                raise Overloaded(self.under_way, self.at_once)
            self.under_way += 1

    def _go(self) -> None:
        with self._lock:
            self.under_way -= 1

    def queue(self) -> Callable[[], None] | None:
        """A place for a call that waits for a thread: what gives it back, when the call begins
        or never will. None: there is none.
        """
        with self._lock:
            if self.under_way >= self.at_once:
                return None
            self.under_way += 1
        taken = [self._go]

        def leave() -> None:
            with suppress(IndexError):  # it was given back
                taken.pop()()

        return leave

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While a person is asked, their flow takes no place: whoever thinks for minutes stops
        nobody else's call.
        """
        self._go()
        try:
            yield
        finally:
            self._come(new=False)

    def take_turn(self, deadline: float) -> bool:
        """Take a turn to record what happened. Who has none at the deadline (`time.monotonic`)
        goes on, and is late with everything.
        """
        try:
            return self._turns.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return False

    def give_turn(self) -> None:
        """Give it back."""
        self._turns.put(True)

    @asynccontextmanager
    async def aturn(self, deadline: float) -> AsyncIterator[None]:
        """A turn, as a context, awaited."""
        loop = asyncio.get_running_loop()
        if self._loop_turns is None or self._loop_turns[0] is not loop:
            self._loop_turns = loop, asyncio.Semaphore(self.at_once)
        turns = self._loop_turns[1]
        mine = False
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline - time.monotonic()):
                mine = await turns.acquire()
        try:
            yield
        finally:
            if mine:
                turns.release()

    def telling(self, flow: Generator[Step, Any, Any]) -> Generator[Step, Any, Any]:
        """The flow; before it, where some are untold, the record of what was refused."""
        if (
            self._refused
            and time.monotonic() - self._told > _EVERY
            and (record := self.untold()) is not None
        ):
            count = record.body["refused"]
            try:
                yield record
            except AuditUnavailable:
                with self._lock:
                    self._refused += count
        if (record := self._summary()) is not None:
            with suppress(AuditUnavailable):  # it is in the log
                yield record
        return (yield from flow)

    def _summary(self, *, last: bool = False) -> Record | None:
        """The record of what nobody proved, where one is due."""
        if (summary := self._unproven.summary(last=last)) is None:
            return None
        _log.warning("unproven", refused=summary["refused"], counts=summary["counts"])
        return Record(date_event("unproven", **summary), refusal=True)

    def untold(self) -> Record | None:
        """The record of what was refused and is on no record yet; it counts as told from now
        on.
        """
        with self._lock:
            refused = self._refused
            since = self._since
            self._refused = 0
            self._told = time.monotonic()
        if not refused:
            return None
        told = {"refused": refused, "at_once": self.at_once}
        _log.warning("overloaded", **told)
        body = date_event("overloaded", since=round(since, 6), **told)
        return Record(body, refusal=True)

    def tell_rest(self, audit: AuditLog) -> None:
        """Before the log is closed: record what is untold."""
        for record in (self.untold(), self._summary(last=True)):
            if record is not None:
                with suppress(AuditUnavailable):
                    audit.append(record.body, time.monotonic() + _EVERY)


class _Place:
    """What `Bound.place` returns: each call enters several, so it is no generator."""

    __slots__ = ("_bound", "_new")

    def __init__(self, bound: Bound, *, new: bool) -> None:
        self._bound = bound
        self._new = new

    def __enter__(self) -> None:
        self._bound._come(new=self._new)  # noqa: SLF001 - of this module

    def __exit__(self, *_: object) -> None:
        self._bound._go()  # noqa: SLF001 - of this module


# what nobody proved: seconds from the first refusal of a summary to the summary
UNPROVEN_SECONDS = 300.0
# refusals as they were, and rows of counts, in one
FIRST = 4
ROWS = 16
_WORDS = 80


class Refusals:
    """What nobody proved, counted, for one gate: a record or a line for each would let anybody at
    all fill the disk. What is kept, and what is told in a day, has an end, whatever callers send
    and from however many addresses. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = self._began = 0.0
        self._rows: dict[Names, int] = {}
        self._first: list[Values] = []

    def count(self, *row: str, refusal: Values) -> None:
        """Count a refusal in its row. `refusal`: what a record of it alone would say."""
        cut = tuple(ascii(each)[1:-1][:_WORDS] for each in row)
        with self._lock:
            if not self._rows:
                self._since = time.time()
                self._began = time.monotonic()
            key = cut if cut in self._rows or len(self._rows) < ROWS else ("others",)
            self._rows[key] = self._rows.get(key, 0) + 1
            if len(self._first) < FIRST:
                self._first.append(refusal)

    def summary(self, *, last: bool = False) -> Values | None:
        """What was counted, which counts as told from now on; None: nothing, or (unless it is
        the `last`) too early.
        """
        if not self._rows or not (last or time.monotonic() - self._began >= UNPROVEN_SECONDS):
            return None
        with self._lock:  # of two threads that come here one finds nothing
            rows = self._rows
            first = self._first
            self._rows = {}
            self._first = []
        if not rows:
            return None
        counts = [[*row, count] for row, count in rows.items()]
        return {
            "since": round(self._since, 6),
            "refused": sum(rows.values()),
            "counts": counts,
            "first": first,
        }


# of the `AT_ONCE` calls that a gate has under way
WAITERS = 8


class OneReader:
    """Lets one caller read at a time, and at most `most` be here, the reader among them. Safe
    to share between threads.
    """

    __slots__ = ("_lock", "_room")

    def __init__(self, most: int = WAITERS) -> None:
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(most)

    @property
    def reading(self) -> bool:
        """Whether somebody reads now."""
        return self._lock.locked()

    def read(self, work: Callable[[], object], due: Callable[[], bool], *, wait: bool) -> None:
        """Do the work, if it is due still when it is this caller's turn; who does not `wait`,
        or finds no room, does nothing.
        """
        if not self._room.acquire(blocking=False):
            return
        try:
            if not self._lock.acquire(blocking=wait):
                return
            try:
                if due():
                    work()
            finally:
                self._lock.release()
        finally:
            self._room.release()
