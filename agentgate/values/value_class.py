"""How the package declares a value: a frozen dataclass with slots; what most fields hold; and work
that is done once for a value, the result of which is kept in its `memo`, by the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, dataclass_transform

T = TypeVar("T")
# what most fields hold that are no value of ours
Names = tuple[str, ...]
Values = Mapping[str, Any]
Json = dict[str, Any]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_class(cls: type[T]) -> type[T]:
    """The class as ``@dataclass(frozen=True, slots=True)`` makes it."""
    return dataclass(frozen=True, slots=True)(cls)


def names_of(cls: Any) -> tuple[str, ...]:
    """The names of a value class's fields."""
    return tuple([each.name for each in fields(cls)])


def set_derived(value: Any, **fields: Any) -> None:
    """Set what a value works out of its other fields (in ``__post_init__``)."""
    for name, derived in fields.items():
        object.__setattr__(value, name, derived)


class Remembering(Protocol):
    """What has a memo."""

    @property
    def memo(self) -> dict[Any, Any]:
        """Results, by what they are of."""


M = TypeVar("M", bound=Remembering)
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
