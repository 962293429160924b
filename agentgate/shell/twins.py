"""Public classes in two forms, blocking and awaited: each of their methods is written once.

A method that needs the store or the log is a function that yields steps; `blocking` and `awaited` make the two methods of it, with its
parameters and its docstring. `taking` makes a method of one settings object take the settings themselves. The objects they are methods of
have a `_store` and an `_audit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

from agentgate.shell.drive import adrive, drive
from agentgate.shell.step import Step

P = ParamSpec("P")
Owner = TypeVar("Owner")
Value = TypeVar("Value")
Result = TypeVar("Result")
Settings = TypeVar("Settings")

Steps = Callable[Concatenate[Owner, P], Generator[Step, Any, Value]]
Finish = Callable[[Any, Value], Result]  # the object and what its steps returned -> what the method returns


@overload
def blocking(steps: Steps[Owner, P, Value]) -> Callable[Concatenate[Owner, P], Value]: ...
@overload
def blocking(steps: Steps[Owner, P, Value], finish: Finish[Value, Result]) -> Callable[Concatenate[Owner, P], Result]: ...
def blocking(steps: Steps[Owner, P, Any], finish: Finish[Any, Any] | None = None) -> Callable[Concatenate[Owner, P], Any]:
    """The method that carries out these steps and returns their result, or what `finish` makes of it."""

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        flow = steps(self, *args, **kwargs)
        del args, kwargs  # a traceback with locals must not show a token
        value = drive(flow, self._store, self._audit)
        return value if finish is None else finish(self, value)

    return _named(method, steps)


@overload
def awaited(steps: Steps[Owner, P, Value]) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Value]]: ...
@overload
def awaited(
    steps: Steps[Owner, P, Value], finish: Finish[Value, Result]
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Result]]: ...
def awaited(
    steps: Steps[Owner, P, Any], finish: Finish[Any, Any] | None = None
) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Any]]:
    """`blocking`, awaited."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        flow = steps(self, *args, **kwargs)
        del args, kwargs  # as above
        value = await adrive(flow, self._store, self._audit)
        return value if finish is None else finish(self, value)

    return _named(method, steps)


Method = TypeVar("Method", bound=Callable[..., Any])


def _named(method: Method, steps: Callable[..., Any]) -> Method:
    update_wrapper(method, steps)
    method.__name__ = method.__qualname__ = steps.__name__.strip("_")
    return method


def taking(settings: Callable[P, Settings]) -> Callable[[Callable[[Owner, Settings], Result]], Callable[Concatenate[Owner, P], Result]]:
    """A decorator: the method takes the parameters of the class `settings`, and is called with one checked object of it."""

    def decorate(method: Callable[[Owner, Settings], Result]) -> Callable[Concatenate[Owner, P], Result]:
        def opened(owner: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            return method(owner, settings(*args, **kwargs))

        made: Any = update_wrapper(opened, method)
        own = inspect.signature(method)
        first = next(iter(own.parameters.values()))
        made.__signature__ = own.replace(parameters=[first, *inspect.signature(settings).parameters.values()])
        documented = [method, *(kind for kind in reversed(inspect.getmro(cast("type", settings))) if kind is not object)]
        made.__doc__ = "\n\n".join(inspect.getdoc(each) or "" for each in documented)
        return opened

    return decorate
