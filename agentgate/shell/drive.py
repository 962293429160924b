"""The two shells that carry out a flow's steps: blocking and awaited. One monotonic deadline
per call. Public classes have both forms, and each of their methods is written once.

Rules: a step that fails or is late is thrown into the flow, which refuses; a reply after the
deadline is discarded. Work outside has time of its own, which moves the deadline. Store steps
end a little before the call's deadline, which leaves time to record the refusal itself; a
refusal that comes later still has that much time. What a tool did that ran already has a
deadline of its own, which begins before it waits for its turn.

An event loop has long texts read by `THREADS` threads of the process, the shortest first, so
that who sends long ones delays nobody but others with long ones. How many wait is bounded by
how much is under way (`agentgate.shell.bound`). A blocking caller reads by itself.

A method that needs the store or the log is a function that yields steps; `blocking` and
`awaited` make the two methods of it, with its parameters and its docstring. New work names what
it is answered with where too much is under way; other methods go on with what was begun.
`taking` makes a method of one settings object take the settings themselves. The objects they
are methods of have a `_store`, an `_audit` and a `_bound`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import update_wrapper
from itertools import count
from queue import PriorityQueue
from typing import Any, Concatenate, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

from agentgate.audit import AuditLog
from agentgate.errors import AgentGateError, Overloaded, StoreUnavailable
from agentgate.shell import log
from agentgate.shell.bound import Bound
from agentgate.shell.step import (
    Apart,
    Flow,
    Outside,
    Receive,
    Record,
    Room,
    Send,
    Sleep,
    Step,
    TextReading,
)
from agentgate.stores import AsyncStore, Op, Store
from agentgate.stores._op import said

# --- long texts are read by threads of their own ----------------------------------------------
# they share one processor with the loop: more would only make it wait longer for its turn
THREADS = 2
SHORT = 2000  # characters that are read faster than a thread is woken
Value = TypeVar("Value")


class _WaitingText(NamedTuple):
    """A text that waits for its reader: its size, its number, how it is read, and who waits for
    that.
    """

    size: int
    number: int
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]


_waiting = PriorityQueue[_WaitingText]()
_numbers = count()
_starting = threading.Lock()
_threads = list[threading.Thread]()


def _end(done: asyncio.Future[Any], answer: Any) -> None:
    if not done.done():
        done.set_result(answer)


def _read_on() -> None:
    while True:
        _, _, work, loop, done = _waiting.get()
        if not done.cancelled():
            answer = work()
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(_end, done, answer)


async def read_in_thread(step: TextReading) -> Any:
    """What the step's work returns, which raises nothing."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    with _starting:
        while len(_threads) < THREADS:
            _threads.append(
                threading.Thread(target=_read_on, daemon=True, name="agentgate-reading")
            )
            _threads[-1].start()
    _waiting.put(_WaitingText(step.size, next(_numbers), step.work, loop, done))
    return await done


def apart(
    size: int, work: Callable[[], Value], seconds: float = 0.0
) -> Generator[Step, Any, Value]:
    """The value of work that reads so many characters, and what it raises; `seconds` of it do
    not count for the call's deadline.
    """
    if size <= SHORT:
        return work()

    def attempt() -> tuple[Value | None, Exception | None]:
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001 - raised where the flow waits for it
            return None, error

    value, error = yield TextReading(size, attempt, seconds)
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]  # of the work


# --- the shells -------------------------------------------------------------------------------
CALL_SECONDS = 0.29  # promise 4: a refusal within 300 ms
Aside = Callable[[], AbstractAsyncContextManager[None]]
# for the results and outcomes of tools that ran: nobody is refused by their being late
RECORD_SECONDS = 2.0
_FOR_THE_RECORD = 0.05


def _time_after(end: float) -> float:
    """When to stop waiting for what tells of a refusal; a record of it may follow."""
    return max(end, time.monotonic() + _FOR_THE_RECORD) - _FOR_THE_RECORD / 2


def _answer(op: Op[Any], reply: Any, end: float) -> Any:
    """What a reply says; StoreUnavailable: it came after `end`, or is not the operation's."""
    if time.monotonic() > end:
        raise StoreUnavailable(
            "the step ended after the call's deadline; its reply is discarded"
        )
    return op.parse(reply)


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
            answer: Any = None
            try:
                if isinstance(step, Op):
                    answer = _answer(step, store.call(step, end - _FOR_THE_RECORD), end)
                elif isinstance(step, Record):
                    if step.waits:
                        audit.append(step.body, _time_for(step, end), promised=step.promised)
                    else:
                        audit.queue(step.body, end)
                elif isinstance(step, Room):
                    audit.room(end)
                elif isinstance(step, Send):
                    send = getattr(store, "send", None)
                    until = end - _FOR_THE_RECORD
                    answer = send(step.op, until) if send else said(store.call(step.op, until))
                elif isinstance(step, Receive):
                    answer = _answer(step.op, step.read(end - _FOR_THE_RECORD), end)
                elif isinstance(step, Outside | TextReading):
                    began = time.monotonic()
                    answer = step.work()
                    end = _later(end, step, began)
                elif isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    end += step.seconds
                elif isinstance(step, Apart):
                    answer = drive(step.flow, store, audit)
                else:
                    late = _time_after(end)
                    answer = _answer(step.op, store.call(step.op, late), late)
            except AgentGateError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as done:
        return done.value


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
            answer: Any = None
            try:
                if isinstance(step, Op):
                    reply = await store.call(step, end - _FOR_THE_RECORD)
                    answer = _answer(step, reply, end)
                elif isinstance(step, Record):
                    if step.waits:
                        await audit.aappend(
                            step.body, _time_for(step, end), promised=step.promised
                        )
                    else:
                        audit.queue(step.body, end)
                elif isinstance(step, Room):
                    await audit.aroom(end)
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
                    end += step.seconds
                elif isinstance(step, Apart):
                    answer = await adrive(step.flow, store, audit, aside=aside)
                else:  # no awaited flow only sends
                    late = _time_after(end)
                    answer = _answer(step.op, await store.call(step.op, late), late)
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
    with bound.place(new=False):
        mine = bound.take_turn(end)
        try:
            return drive(flow, store, audit, end)
        finally:
            if mine:
                bound.give_turn()


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


# --- methods in two forms ---------------------------------------------------------------------
P = ParamSpec("P")
Owner = TypeVar("Owner")
Result = TypeVar("Result")
Settings = TypeVar("Settings")

Steps = Callable[Concatenate[Owner, P], Generator[Step, Any, Value]]
Busy = Callable[[Overloaded], Any]  # what new work is answered with, or it raises
Around = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]


def busy(error: Overloaded) -> NoReturn:
    """New work that has no other answer."""
    raise error


def blocking(
    steps: Steps[Owner, P, Value], *, busy: Busy | None = None
) -> Callable[Concatenate[Owner, P], Value]:
    """The method that carries out these steps and returns their result; with `busy` it is new
    work.

    Its attribute `in_thread` does the same for an event loop, in a thread: what waits for a
    thread has its place already.
    """

    def carried_out(self: Any, flow: Flow) -> Any:
        return drive(self._bound.telling(flow), self._store, self._audit)

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            with self._bound.place(new=busy is not None):
                flow = steps(self, *args, **kwargs)
                del args, kwargs  # a traceback with locals must not show a token
                return carried_out(self, flow)
        except Overloaded as error:
            if busy is None:
                raise
            return busy(error)

    async def in_thread(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            with self._bound.place(new=busy is not None):
                flow = steps(self, *args, **kwargs)
                del args, kwargs  # as above
                return await asyncio.to_thread(carried_out, self, flow)
        except Overloaded as error:
            if busy is None:
                raise
            return busy(error)

    made = _named(method, steps)
    made.in_thread = in_thread  # type: ignore[attr-defined]  # for `in_a_thread`
    return made


async def in_a_thread(method: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a bound method of a blocking object from an event loop, in a thread."""
    placed = getattr(method, "in_thread", None)
    if placed is None:
        return await asyncio.to_thread(method, *args, **kwargs)
    return await placed(method.__self__, *args, **kwargs)


def queue_for_thread(method: Any) -> Callable[[], None] | None:
    """As `Bound.queue`, for work that begins with this bound method; None, too, where it is
    awaited, or not made by `blocking`.
    """
    return method.__self__._bound.queue() if hasattr(method, "in_thread") else None  # noqa: SLF001 - of the objects of this module


def awaited(
    steps: Steps[Owner, P, Value], *, busy: Busy | None = None, around: Around | None = None
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Value]]:
    """`blocking`, awaited; `around`: what is awaited instead, given the method's coroutine."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            with self._bound.place(new=busy is not None):
                flow = self._bound.telling(steps(self, *args, **kwargs))
                del args, kwargs  # as above
                return await adrive(flow, self._store, self._audit)
        except Overloaded as error:
            if busy is None:
                raise
            return busy(error)

    async def surrounded(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        work = method(self, *args, **kwargs)
        del args, kwargs  # as above
        return await around(work)  # type: ignore[misc]  # it is there

    return _named(method if around is None else surrounded, steps)


def recording(steps: Steps[Owner, P, Value]) -> Callable[Concatenate[Owner, P], Value]:
    """`blocking`, for what a tool did that ran already: never refused for the load, under a
    deadline of its own.
    """

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return record(steps(self, *args, **kwargs), self._store, self._audit, self._bound)

    return _named(method, steps)


def arecording(
    steps: Steps[Owner, P, Value],
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Value]]:
    """`recording`, awaited."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await arecord(
            steps(self, *args, **kwargs), self._store, self._audit, self._bound
        )

    return _named(method, steps)


Method = TypeVar("Method", bound=Callable[..., Any])


def _named(method: Method, steps: Callable[..., Any]) -> Method:
    update_wrapper(method, steps)
    method.__name__ = method.__qualname__ = steps.__name__.strip("_")
    return method


def taking(
    settings: Callable[P, Settings],
) -> Callable[[Callable[[Owner, Settings], Result]], Callable[Concatenate[Owner, P], Result]]:
    """A decorator: the method takes the parameters of the class `settings`, and is called with
    one checked object of it.
    """
    wanted = inspect.signature(settings)

    def decorate(
        method: Callable[[Owner, Settings], Result],
    ) -> Callable[Concatenate[Owner, P], Result]:
        def opened(owner: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            log.ready()
            try:
                wanted.bind(*args, **kwargs)
            # names the method that was called, not the class behind it
            except TypeError as error:
                raise TypeError(
                    f"{cast('type', owner).__name__}.{method.__name__}: {error}"
                ) from None
            return method(owner, settings(*args, **kwargs))

        made: Any = update_wrapper(opened, method)
        own = inspect.signature(method)
        first = next(iter(own.parameters.values()))
        made.__signature__ = own.replace(parameters=[first, *wanted.parameters.values()])
        documented = [
            method,
            *(
                kind
                for kind in reversed(inspect.getmro(cast("type", settings)))
                if kind is not object
            ),
        ]
        made.__doc__ = "\n\n".join(inspect.getdoc(each) or "" for each in documented)
        return opened

    return decorate
