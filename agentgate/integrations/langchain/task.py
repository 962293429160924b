"""The calls of one LangGraph task: those in flight, and what those returned that are done.

A graph that is resumed runs the held call's task again from its start: a `ToolNode` of one's own calls every tool once more.

Rules: the same call of the same task of the same run that finished in this process is answered with what it returned and does not run
again. Results are in memory, with the run's handle, and nowhere else. An awaited call is held only when the other calls of its task have
ended or are held, since `asyncio.gather` forgets them as soon as one interrupts. (Threads are waited for by LangGraph.)
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

MAX_KEPT = 100  # results of a run, the newest; another call runs again or answers its outcome
_TASK_ID = "__pregel_task_id"  # LangGraph's name in a node's config; the same when the task is resumed

Key = tuple[str, str, str, bytes]  # task, tool, tool_call_id, canonical arguments


class _OfRun:
    """What is known of one run's calls. Keys of `running`: one object a call, with its task."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Key, Any] = OrderedDict()
        self.running: dict[object, str] = {}
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def ended(self, call: object) -> None:
        """A call has ended, or is held."""
        self.running.pop(call, None)
        waiting, self.waiting = self.waiting, []
        for loop, future in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_done, future)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_RUNS: WeakKeyDictionary[Any, _OfRun] = WeakKeyDictionary()  # a run's handle -> its calls, for the handle's life


class TaskCall:
    """One call in a task of a graph; outside a graph nothing is kept and nothing awaited."""

    __slots__ = ("_tool_call_id", "of", "outer", "task")

    def __init__(self, of: _OfRun | None, task: str, tool_call_id: str, outer: TaskCall | None) -> None:
        self.of, self.task, self._tool_call_id, self.outer = of, task, tool_call_id, outer

    def kept(self, tool: str, data: bytes) -> tuple[bool, Any]:
        """Whether this very call is done in this task, and what it returned."""
        key = (self.task, tool, self._tool_call_id, data)
        return (True, self.of.kept[key]) if self.of is not None and key in self.of.kept else (False, None)

    def keep(self, tool: str, data: bytes, result: Any) -> None:
        """Keep what the tool returned."""
        if self.of is not None:
            self.of.kept[self.task, tool, self._tool_call_id, data] = result
            while len(self.of.kept) > MAX_KEPT:
                self.of.kept.popitem(last=False)

    async def alone(self) -> None:
        """This call is held, and with it those in whose tools it was made: return when no other call of its task is in flight."""
        held: TaskCall | None = self
        while held is not None:
            if held.of is not None:
                held.of.ended(held)
            held = held.outer
        of = self.of
        if of is None:
            return
        while self.task in list(of.running.values()):
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            of.waiting.append((loop, future))
            await future


NO_TASK = TaskCall(None, "", "", None)
_CURRENT: ContextVar[TaskCall | None] = ContextVar("agentgate_task_call", default=None)


@contextmanager
def in_task(run: Any, config: Mapping[str, Any] | None, tool_call_id: str | None) -> Iterator[TaskCall]:
    """The call of a run's tool while it is in flight.

    Args:
        run: the handle; None: there is none.
        config: the `RunnableConfig` that the tool got.
        tool_call_id: the model's id of the call.
    """
    task = ((config or {}).get("configurable") or {}).get(_TASK_ID)
    of = None if run is None or type(task) is not str or tool_call_id is None else _RUNS.setdefault(run, _OfRun())
    call = TaskCall(of, task or "", tool_call_id or "", _CURRENT.get())
    if of is not None:
        of.running[call] = call.task
    reset = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(reset)
        if of is not None:
            of.ended(call)
