"""Equal values of many workflows as one object, so that a hundred thousand workflows fit in memory.

Rules: only immutable values are shared, by equality and type; what holds a mapping is compared by the identity of that
mapping, which was shared before. The table lives as long as the loading, not as long as the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, TypeVar

from agentgate.workflow.model import Tool, Upstream

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Sharing:
    """A table of the values seen so far."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Any, Any] = {}

    def __call__(self, value: T) -> T:
        """The first value equal to this one (hashable, and of elements that equal only their own kind)."""
        return self._seen.setdefault(value, value)  # type: ignore[no-any-return]  # the table maps a value to an equal one of its type

    def mapping(self, items: dict[K, V]) -> Mapping[K, V]:
        """A read-only mapping, one object for equal ones (order counts)."""
        return self._seen.setdefault(("mapping", tuple(items.items())), MappingProxyType(items))  # type: ignore[no-any-return]  # as above

    def upstream(self, value: Upstream) -> Upstream:
        """One object for equal upstream declarations."""
        return self._seen.setdefault(("upstream", value.line, value.broker, id(value.settings)), value)  # type: ignore[no-any-return]  # as above

    def tool(self, value: Tool) -> Tool:
        """One object for equal tools, whose mappings and upstream were shared before."""
        parts = (getattr(value, name) for name in _TOOL_FIELDS)
        key = ("tool", *(id(part) if isinstance(part, MappingProxyType | Upstream) else part for part in parts))
        return self._seen.setdefault(key, value)  # type: ignore[no-any-return]  # as above

    def tools(self, items: dict[str, Tool]) -> Mapping[str, Tool]:
        """A read-only mapping of tools that were shared before."""
        return self._seen.setdefault(("tools", *map(id, items.values())), MappingProxyType(items))  # type: ignore[no-any-return]  # as above

    def memo(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returned the first time it was called for this key."""
        if (name := ("memo", key)) not in self._seen:
            self._seen[name] = make()
        return self._seen[name]  # type: ignore[no-any-return]  # as above


_TOOL_FIELDS = tuple(f.name for f in fields(Tool) if f.init)
