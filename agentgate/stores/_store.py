"""What a state store is: it runs one script at a time, whole or not at all, before a deadline."""

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
        """Refuse a store that cannot keep the promises (StoreUnavailable names what is wrong); done once at start-up."""

    def close(self) -> None:
        """Give up connections and what this store started."""


class AsyncStore(Protocol):
    """`Store`, awaited."""

    async def call(self, op: Op, deadline: float) -> Any:
        """Run one operation."""

    async def check(self) -> None:
        """Refuse a store that cannot keep the promises (StoreUnavailable names what is wrong); done once at start-up."""

    async def close(self) -> None:
        """Give up connections and what this store started."""
