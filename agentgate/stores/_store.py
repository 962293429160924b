"""A state store runs one script at a time, completely or not at all, before a deadline."""

from __future__ import annotations

from typing import Any, Protocol

from agentgate.stores._op import Op


class Store(Protocol):
    """A state store.

    `call` runs one operation's script atomically and returns its raw reply (bytes, ints, lists). It returns before `deadline`
    (seconds of `time.monotonic`), connecting included, and raises only `StoreUnavailable`.
    """

    def call(self, op: Op, deadline: float) -> Any:
        """Run one operation."""

    def check(self) -> None:
        """Once at start-up: refuse a store that cannot keep the promises (StoreUnavailable names what is wrong)."""

    def close(self) -> None:
        """Close connections and stop what this store started."""


class AsyncStore(Protocol):
    """`Store`, awaited."""

    async def call(self, op: Op, deadline: float) -> Any:
        """Run one operation."""

    async def check(self) -> None:
        """Once at start-up: refuse a store that cannot keep the promises (StoreUnavailable names what is wrong)."""

    async def close(self) -> None:
        """Close connections and stop what this store started."""
