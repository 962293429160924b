"""Equal values of many workflows as one object, so that a hundred thousand workflows fit in
memory.

Rules: only immutable values are shared, by equality and type; what holds a mapping is compared
by the identity of that mapping, which was shared before. The table lives as long as the
loading, not as long as the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from agentgate.workflow.model import Tool, Upstream

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")

_HOLD_MAPPINGS = frozenset({MappingProxyType, Tool, Upstream})  # have no hash


class Sharing:
    """A table of the values seen so far."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Any, Any] = {}

    def __call__(self, value: T) -> T:
        """The first value equal to this one (hashable, and of elements that equal only their
        own kind).
        """
        return self._seen.setdefault(value, value)  # type: ignore[no-any-return]  # the table maps a value to an equal one of its type

    def built(self, kind: Callable[P, T], *fields: P.args, **named: P.kwargs) -> T:
        """The value with these fields, each as for a call of this table, a mapping, or a value
        that holds one and was shared before.

        It is built only for the first of equal ones: what it works out of its fields is worked
        out once.
        """
        key = (
            kind,
            tuple(map(_compared, fields)) if kind in _HOLD_MAPPINGS else fields,
            tuple(named),
            *named.values(),
        )
        if key not in self._seen:
            self._seen[key] = kind(*fields, **named)
        return self._seen[key]  # type: ignore[no-any-return]  # as above

    def mapping(self, items: dict[K, V]) -> Mapping[K, V]:
        """A read-only mapping, one object for equal ones (order counts)."""
        key = ("mapping", *items, *map(_compared, items.values()))
        return self._seen.setdefault(key, MappingProxyType(items))  # type: ignore[no-any-return]  # as above

    def memo(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returned the first time it was called for this key."""
        if (name := ("memo", key)) not in self._seen:
            self._seen[name] = make()
        return self._seen[name]  # type: ignore[no-any-return]  # as above


def _compared(value: object) -> object:
    return id(value) if type(value) in _HOLD_MAPPINGS else value
