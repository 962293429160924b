"""Where a run's state is kept: one script per operation, on a server of its own or in this process.

| URL | store |
|---|---|
| ``memory://`` | this process only, for development and tests |
| ``embedded:///path`` | a Valkey server of our own on a Unix socket, durable, one machine |
| ``redis://``, ``rediss://``, ``unix://`` | an existing Redis (7.2 or later) or Valkey (8 or later) |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from agentgate.errors import AgentGateError, ConfigError, StoreUnavailable
from agentgate.stores import ops
from agentgate.stores._health import CHECK_SECONDS, NOT_FOR_TOOL_SERVERS, OWN_GATE, UNTOLD, Keeps, Weakness
from agentgate.stores._op import Op

__all__ = [
    "OWN_GATE",
    "AsyncStore",
    "Keeps",
    "Op",
    "Store",
    "Weakness",
    "async_ready_store",
    "open_async_store",
    "open_store",
    "ops",
    "ready_store",
]

_log = structlog.get_logger("agentgate.stores")


class Store(Protocol):
    """A state store.

    `call` runs one operation's script atomically and returns its raw reply (bytes, ints, lists). It returns before `deadline`
    (seconds of `time.monotonic`), connecting included, and raises only `StoreUnavailable`.
    """

    @property
    def heartbeat(self) -> float | None:
        """After how many seconds a primary cut off from its replicas writes no more.

        0: no replica is asked for; None: not known (before `check`, or the server does not say).
        """

    @property
    def keeps(self) -> Keeps:
        """Whether what it acknowledged survives every crash and failover; `no` before `check`."""

    def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation."""

    def check(self) -> tuple[Weakness, ...]:
        """Once at start-up: refuse a store that cannot keep the promises (StoreUnavailable names what is wrong); what is weak about it."""

    def close(self) -> None:
        """Close connections and stop what this store started."""


class AsyncStore(Protocol):
    """`Store`, awaited."""

    @property
    def heartbeat(self) -> float | None:
        """See `Store.heartbeat`."""

    @property
    def keeps(self) -> Keeps:
        """See `Store.keeps`."""

    async def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation."""

    async def check(self) -> tuple[Weakness, ...]:
        """See `Store.check`."""

    async def close(self) -> None:
        """Close connections and stop what this store started."""


def _classes(url: str) -> tuple[Callable[[str], Store], Callable[[str], AsyncStore]]:
    """The store of a URL, blocking and awaited; its client is imported only now."""
    if url == "memory://":
        from agentgate.stores import memory  # noqa: PLC0415 - see above

        return memory.MemoryStore, memory.AsyncMemoryStore
    if url.startswith("embedded:///"):
        from agentgate.stores import embedded  # noqa: PLC0415 - see above

        return embedded.EmbeddedStore, embedded.AsyncEmbeddedStore
    if url.startswith(("redis://", "rediss://", "unix://")):
        from agentgate.stores import redis  # noqa: PLC0415 - see above

        return redis.RedisStore, redis.AsyncRedisStore
    raise ConfigError("store", url.partition(":")[0], "memory://, embedded:///absolute/path, redis://, rediss:// or unix://")


def open_store(url: str) -> Store:
    """Open the state store at `url`. It connects at the first call; `check` it at start-up.

    Raises:
        ConfigError: the URL is none of the known ones.
        StoreUnavailable: an embedded server does not start.
    """
    return _classes(url)[0](url)


def open_async_store(url: str) -> AsyncStore:
    """`open_store` for asyncio."""
    return _classes(url)[1](url)


def _tell(weaknesses: tuple[Weakness, ...], *, tool_server: bool) -> None:
    for weakness in weaknesses:
        if not tool_server or weakness.setting != UNTOLD:  # only a gate needs to know
            _log.warning("store_weakness", **weakness._asdict())


def _forbidden(url: str, *, tool_server: bool) -> tuple[Op[Any], ...]:
    """What must be refused to a tool server's user; a store in this process, or behind a socket's file mode, has no users."""
    return NOT_FOR_TOOL_SERVERS if tool_server and url.startswith(("redis://", "rediss://")) else ()


def _deadline() -> float:
    return time.monotonic() + CHECK_SECONDS


def _may(op: Op[Any]) -> ConfigError:
    return ConfigError("store", f"a user who may write {op.keys[0]}", "a tool server's own, as in docs/state.md (One user per program)")


def _denied(error: StoreUnavailable) -> None:
    if "NOPERM" not in str(error):
        raise error


def ready_store(url: str, *, tool_server: bool = False) -> Store:
    """An open store that passed its start-up check, whose weaknesses are logged; one that fails is closed again.

    `tool_server`: for one, whose user must not be able to write runs, holds or revocations.

    Raises:
        ConfigError, StoreUnavailable: see `open_store` and `Store.check`; or that user can.
    """
    store = open_store(url)
    try:
        _tell(store.check(), tool_server=tool_server)
        for op in _forbidden(url, tool_server=tool_server):
            try:
                store.call(op, _deadline())
            except StoreUnavailable as error:
                _denied(error)
            else:
                raise _may(op)
    except AgentGateError:
        store.close()
        raise
    return store


async def async_ready_store(url: str, *, tool_server: bool = False) -> AsyncStore:
    """`ready_store` for asyncio."""
    store = open_async_store(url)
    try:
        _tell(await store.check(), tool_server=tool_server)
        for op in _forbidden(url, tool_server=tool_server):
            try:
                await store.call(op, _deadline())
            except StoreUnavailable as error:
                _denied(error)
            else:
                raise _may(op)
    except AgentGateError:
        await store.close()
        raise
    return store
