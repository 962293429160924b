"""How the package declares a value: a frozen dataclass with slots."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


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
