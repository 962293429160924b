"""Work that is done once for an object that never changes: the result is kept in its `memo`, by
the arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Remembering(Protocol):
    """What has a memo."""

    @property
    def memo(self) -> dict[Any, Any]:
        """Results, by what they are of."""


M = TypeVar("M", bound=Remembering)
T = TypeVar("T")
P = ParamSpec("P")


def once(work: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """A method, or a function of such an object."""

    @wraps(work)
    def kept(of: M, /, *args: P.args, **named: P.kwargs) -> T:
        place = (work, *args, *named.items())
        try:
            result: T = of.memo[place]
        except KeyError:
            result = of.memo[place] = work(of, *args, **named)
        return result

    return kept
