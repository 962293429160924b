"""The two shells that carry out a flow's steps: blocking and awaited. One monotonic deadline
per call.

Rules: a step that fails or is late is thrown into the flow, which refuses; a reply after the
deadline is discarded. Work outside has time of its own, which moves the deadline. Store steps
end a little before the call's deadline, which leaves time to record the refusal itself; a
refusal that comes later still has that much time. What a tool did that ran already has a
deadline of its own, which begins before it waits for its turn.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, NamedTuple, TypeVar

from agentgate.audit import AuditLog
from agentgate.errors import AgentGateError, StoreUnavailable
from agentgate.shell.bound import Bound
from agentgate.shell.readers import read_in_thread
from agentgate.shell.step import (
    Afterwards,
    Apart,
    Flow,
    Outside,
    Record,
    Room,
    Sleep,
    Step,
    TextReading,
)
from agentgate.stores import AsyncStore, Op, Store

CALL_SECONDS = 0.29  # promise 4: a refusal within 300 ms
Value = TypeVar("Value")
Aside = Callable[[], AbstractAsyncContextManager[None]]
# for the results and outcomes of tools that ran: nobody is refused by their being late
RECORD_SECONDS = 2.0
_FOR_THE_RECORD = 0.05


class _Ask(NamedTuple):
    """A store operation, when to stop waiting for its reply, and when a reply that came is too
    late.
    """

    op: Op[Any]
    until: float
    end: float

    def answer(self, reply: Any) -> Any:
        """What the reply says; StoreUnavailable: it is late, or not the operation's."""
        if time.monotonic() > self.end:
            raise StoreUnavailable(
                "the step ended after the call's deadline; its reply is discarded"
            )
        return self.op.parse(reply)


def _ask(step: Op[Any] | Afterwards, end: float) -> _Ask:
    if isinstance(step, Op):
        return _Ask(step, end - _FOR_THE_RECORD, end)
    # and then a record of it, perhaps
    late = max(end, time.monotonic() + _FOR_THE_RECORD) - _FOR_THE_RECORD / 2
    return _Ask(step.op, late, late)


def _time_for(record: Record, deadline: float) -> float:
    """When to stop waiting for a record: a refusal is recorded whatever the deadline says,
    within a time of its own.
    """
    return max(deadline, time.monotonic() + _FOR_THE_RECORD) if record.refusal else deadline


def _later(end: float, step: Outside | TextReading, began: float) -> float:
    """The deadline without what the work took of its own time."""
    return end + min(step.seconds, time.monotonic() - began)


def drive(flow: Flow, store: Store, audit: AuditLog, end: float | None = None) -> Any:
    """Run a flow to its result, blocking; `end`: its deadline (`time.monotonic`), None: that of
    a call which begins now.

    Raises:
        AgentGateError: what the flow raises.
    """
    end = time.monotonic() + CALL_SECONDS if end is None else end
    try:
        step: Step = next(flow)
        while True:
            try:
                if isinstance(step, Record):
                    if step.waits:
                        audit.append(step.body, _time_for(step, end), promised=step.promised)
                    else:
                        audit.queue(step.body, end)
                    answer = None
                elif isinstance(step, Room):
                    audit.room(end)
                    answer = None
                elif isinstance(step, Outside | TextReading):
                    began = time.monotonic()
                    answer = step.work()
                    end = _later(end, step, began)
                elif isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    answer = None
                    end = end + step.seconds
                elif isinstance(step, Apart):
                    answer = drive(step.flow, store, audit)
                else:
                    ask = _ask(step, end)
                    answer = ask.answer(store.call(ask.op, ask.until))
            except AgentGateError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as done:
        return done.value


def _end(ended: asyncio.Future[Any], answer: Any) -> None:
    if not ended.done():
        ended.set_result(answer)


async def _in_own_thread(work: Callable[[], Any]) -> Any:
    """What the work returned; None where it failed."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        answer = None
        try:
            answer = work()
        finally:
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(_end, ended, answer)

    threading.Thread(target=run, daemon=True, name="agentgate-outside").start()
    return await ended


async def adrive(
    flow: Flow,
    store: AsyncStore,
    audit: AuditLog,
    end: float | None = None,
    *,
    aside: Aside = nullcontext,
) -> Any:
    """`drive`, awaited. `aside`: what surrounds waiting for somebody outside in a thread of its
    own.
    """
    end = time.monotonic() + CALL_SECONDS if end is None else end
    try:
        step: Step = next(flow)
        while True:
            try:
                if isinstance(step, Record):
                    if step.waits:
                        await audit.aappend(
                            step.body, _time_for(step, end), promised=step.promised
                        )
                    else:
                        audit.queue(step.body, end)
                    answer = None
                elif isinstance(step, Room):
                    await audit.aroom(end)
                    answer = None
                elif isinstance(step, Outside):
                    began = time.monotonic()
                    if step.own_thread:
                        async with aside():
                            answer = await _in_own_thread(step.work)
                    else:
                        answer = await asyncio.to_thread(step.work)
                    end = _later(end, step, began)
                elif isinstance(step, TextReading):
                    began, answer = time.monotonic(), await read_in_thread(step)
                    end = _later(end, step, began)
                elif isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    answer = None
                    end = end + step.seconds
                elif isinstance(step, Apart):
                    answer = await adrive(step.flow, store, audit, aside=aside)
                else:
                    ask = _ask(step, end)
                    answer = ask.answer(await store.call(ask.op, ask.until))
            except AgentGateError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as done:
        return done.value


def record(flow: Flow, store: Store, audit: AuditLog, bound: Bound) -> Any:
    """Carry out a flow that records what a tool did: never refused for the load, at its turn,
    under its own deadline.
    """
    end = time.monotonic() + RECORD_SECONDS
    with bound.place(new=False), bound.turn(end):
        return drive(flow, store, audit, end)


async def arecord(flow: Flow, store: AsyncStore, audit: AuditLog, bound: Bound) -> Any:
    """`record`, awaited."""
    end = time.monotonic() + RECORD_SECONDS
    with bound.place(new=False):
        async with bound.aturn(end):
            return await adrive(flow, store, audit, end)


_GOING_ON: set[asyncio.Future[Any]] = set()  # the event loop itself holds no task


def going_on(work: Coroutine[Any, Any, Value]) -> asyncio.Future[Value]:
    """The work as a task that goes on, whoever waits for it or no longer does."""
    task = asyncio.ensure_future(work)
    _GOING_ON.add(task)
    task.add_done_callback(_GOING_ON.discard)
    return task


async def to_the_end(work: Coroutine[Any, Any, Value]) -> Value:
    """What the work returns or raises. Who waits for it may be cancelled, also again and again
    as anyio does: it goes on without them.
    """
    return await asyncio.shield(going_on(work))
