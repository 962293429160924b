"""The calls of one LangGraph task: those in flight, and what those returned that are done.

A graph that is resumed runs the held call's task again from its start: a `ToolNode` of one's
own calls every tool once more.

Rules: the same call of the same task of the same run that finished in this process is answered
with what it returned and does not run again. Results are in memory, with the run's handle, and
nowhere else. A call is held only when the other calls of its step have ended or are held: they
are asked about together, and `asyncio.gather` forgets the others as soon as one interrupts.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from agentgate.shell.context import set_variables
from agentgate.values.value_class import value_class

GATHER = 0.25  # seconds for the other calls of a step to begin
MAX_WAIT = 600  # seconds for those that began; then a held call is asked about without them
MAX_KEPT = 100  # results of a run, the newest; another call runs again or answers its outcome
# LangGraph's name in a node's config; the same when the task is resumed
_TASK_ID = "__pregel_task_id"
_RUNTIME = "__pregel_runtime"

Key = tuple[str, str, str, bytes]  # task, tool, tool_call_id, canonical arguments


@value_class
class Wait:
    """Step: wait until something changed, or for so many seconds."""

    change: Future[None]
    seconds: float

    def block(self) -> bool:
        """Wait in this thread. Returns False where it is one that the others need."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            wait([self.change], self.seconds)
            return True
        return False

    async def wait(self) -> bool:
        """Wait in this task."""
        await asyncio.wait([asyncio.wrap_future(self.change)], timeout=self.seconds)
        return True


class GraphStep:
    """The calls of one step of a graph, as they run this time.

    Attributes:
        lock: of everything here.
        held: the calls that wait for a person, each with what its host is told, and the context
            to interrupt it in.
        task: the one that interrupts for all.
        error: its interrupt.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.held: dict[TaskCall, tuple[dict[str, Any], Context]] = {}
        self.task = ""
        self.error: BaseException | None = None
        self._running: set[TaskCall] = set()
        self._seen: set[str] = set()
        self._change: Future[None] = Future()

    def begin(self, call: TaskCall) -> None:
        """A call is in flight."""
        with self.lock:
            self._running.add(call)
            self._seen.add(call.tool_call_id)

    def end(self, call: TaskCall) -> None:
        """A call has ended, or is held."""
        with self.lock:
            self._running.discard(call)
            changed = self._change
            self._change = Future()
            changed.set_result(None)

    @property
    def is_over(self) -> bool:
        """Whether no call is in flight or held."""
        return not self._running and not self.held

    def pause(self, until: float, siblings: frozenset[str]) -> Wait | None:
        """What a held call waits for: the calls in flight, and `until` then those of the
        model's step that did not begin yet.
        """
        with self.lock:
            left = until - time.monotonic()
            if self._running:
                left += MAX_WAIT
            elif siblings and siblings <= self._seen:
                left = 0
            return Wait(self._change, left) if left > 0 else None


class _OfRun:
    """What is known of one run's calls; `steps`: those of a graph that run now."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.kept: OrderedDict[Key, Any] = OrderedDict()
        self.steps: dict[tuple[Any, ...], GraphStep] = {}


# a run's handle -> its calls, for the handle's life
_RUNS: WeakKeyDictionary[Any, _OfRun] = WeakKeyDictionary()


# the ids of the calls that the model made together; empty: not known
SIBLINGS: ContextVar[frozenset[str]] = ContextVar("agentgate_siblings", default=frozenset())


@dataclass(slots=True, eq=False)
class TaskCall:
    """One call in a task of a graph; outside a graph nothing is kept and nothing awaited."""

    of: _OfRun | None
    task: str
    tool_call_id: str
    outer: TaskCall | None
    step: GraphStep | None = None
    siblings: frozenset[str] = field(default_factory=SIBLINGS.get)
    place: list[str] = field(default_factory=list)

    def kept(self, tool: str, data: bytes) -> tuple[bool, Any]:
        """Whether this very call is done in this task, and what it returned."""
        key = (self.task, tool, self.tool_call_id, data)
        return (True, self.of.kept[key]) if self.of and key in self.of.kept else (False, None)

    def keep(self, tool: str, data: bytes, result: Any) -> None:
        """Keep what the tool returned."""
        if self.of:
            self.of.kept[self.task, tool, self.tool_call_id, data] = result
            while len(self.of.kept) > MAX_KEPT:
                self.of.kept.popitem(last=False)

    def alone(self) -> Generator[Wait, bool, None]:
        """This call is held, and with it those in whose tools it was made: go on when no other
        call of its step is in flight.
        """
        held: TaskCall | None = self
        while held:
            if held.step:
                held.step.end(held)
            held = held.outer
        until = time.monotonic() + GATHER
        while self.step and (pause := self.step.pause(until, self.siblings)):
            if not (yield pause):
                return


NO_TASK = TaskCall(None, "", "", None)
_CURRENT: ContextVar[TaskCall | None] = ContextVar("agentgate_task_call", default=None)


@contextmanager
def in_task(
    run: Any, config: Mapping[str, Any] | None, tool_call_id: str | None
) -> Iterator[TaskCall]:
    """The call of a run's tool while it is in flight.

    Args:
        run: the handle; None: there is none.
        config: the `RunnableConfig` that the tool got.
        tool_call_id: the model's id of the call.
    """
    given = config or {}
    where = given.get("configurable") or {}
    task = where.get(_TASK_ID)
    of = (
        None
        if run is None or type(task) is not str or tool_call_id is None
        else _RUNS.setdefault(run, _OfRun())
    )
    call = TaskCall(of, task or "", tool_call_id or "", _CURRENT.get())
    if of:
        # all calls of an invoke have the same, and those of no other invoke; without it each is
        # asked about by itself
        invoke = getattr(where.get(_RUNTIME), "stream_writer", call)
        said = given.get("metadata") or {}
        key = (
            invoke,
            str(where.get("checkpoint_ns")).rpartition("|")[0],
            said.get("langgraph_step"),
        )
        call.place = [str(part).zfill(9) for part in said.get("langgraph_path", ())]
        with of.lock:
            if key not in of.steps:
                of.steps = {
                    known: step for known, step in of.steps.items() if not step.is_over
                } | {key: GraphStep()}
            call.step = of.steps[key]
            call.step.begin(call)
    try:
        with set_variables((_CURRENT, call)):
            yield call
    finally:
        if call.step:
            call.step.held.pop(call, None)
            call.step.end(call)
