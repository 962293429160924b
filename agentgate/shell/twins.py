"""Public classes in two forms, blocking and awaited: each of their methods is written once.

A method that needs the store or the log is a function that yields steps; `blocking` and
`awaited` make the two methods of it, with its parameters and its docstring. New work names what
it is answered with where too much is under way; other methods go on with what was begun.
`taking` makes a method of one settings object take the settings themselves. The objects they
are methods of have a `_store`, an `_audit` and a `_bound`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from functools import update_wrapper
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast, overload

from agentgate.errors import Overloaded
from agentgate.shell import log
from agentgate.shell.drive import adrive, arecord, drive, record
from agentgate.shell.step import Flow, Step

P = ParamSpec("P")
Owner = TypeVar("Owner")
Value = TypeVar("Value")
Result = TypeVar("Result")
Settings = TypeVar("Settings")

Steps = Callable[Concatenate[Owner, P], Generator[Step, Any, Value]]
# the object and what its steps returned -> what the method returns
Finish = Callable[[Any, Value], Result]
Busy = Callable[[Overloaded], Any]  # what new work is answered with, or it raises
Around = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]


def busy(error: Overloaded) -> NoReturn:
    """New work that has no other answer."""
    raise error


@overload
def blocking(
    steps: Steps[Owner, P, Value], *, busy: Busy | None = None
) -> Callable[Concatenate[Owner, P], Value]: ...
@overload
def blocking(
    steps: Steps[Owner, P, Value], finish: Finish[Value, Result], *, busy: Busy | None = None
) -> Callable[Concatenate[Owner, P], Result]: ...
def blocking(
    steps: Steps[Owner, P, Any],
    finish: Finish[Any, Any] | None = None,
    *,
    busy: Busy | None = None,
) -> Callable[Concatenate[Owner, P], Any]:
    """The method that carries out these steps and returns their result, or what `finish` makes
    of it; with `busy` it is new work.

    Its attribute `in_thread` does the same for an event loop, in a thread: what waits for a
    thread has its place already.
    """

    def carried_out(self: Any, flow: Flow) -> Any:
        value = drive(self._bound.telling(flow), self._store, self._audit)
        return value if finish is None else finish(self, value)

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


@overload
def awaited(
    steps: Steps[Owner, P, Value], *, busy: Busy | None = None
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Value]]: ...
@overload
def awaited(
    steps: Steps[Owner, P, Value],
    finish: Finish[Value, Result],
    *,
    busy: Busy | None = None,
    around: Around | None = None,
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Result]]: ...
def awaited(
    steps: Steps[Owner, P, Any],
    finish: Finish[Any, Any] | None = None,
    *,
    busy: Busy | None = None,
    around: Around | None = None,
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Any]]:
    """`blocking`, awaited; `around`: what is awaited instead, given the method's coroutine."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            with self._bound.place(new=busy is not None):
                flow = self._bound.telling(steps(self, *args, **kwargs))
                del args, kwargs  # as above
                value = await adrive(flow, self._store, self._audit)
        except Overloaded as error:
            if busy is None:
                raise
            return busy(error)
        return value if finish is None else finish(self, value)

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
