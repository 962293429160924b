"""Where a run's state is kept: one script per operation, on a server of its own or in this
process.

| URL | store | |---|---| | ``memory://`` | this process only, for development and tests | |
``embedded:///path`` | a Valkey server of our own on a Unix socket, durable, one machine | |
``redis://``, ``rediss://``, ``unix://`` | an existing Redis (7.2 or later) or Valkey (8 or
later) | | ``redis+sentinel://``, ``rediss+sentinel://`` | the same, whose primary Sentinels
tell | | ``redis+cluster://``, ``rediss+cluster://`` | a cluster of Redis (8.4 or later) or
Valkey (9 or later) |
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from agentgate.errors import AgentGateError, ConfigError
from agentgate.stores import ops
from agentgate.stores._health import CHECK_SECONDS, OWN_GATE, Keeps, Weakness, Where
from agentgate.stores._op import Op, history_name, server_id
from agentgate.stores._ownership import probe_user, rules_of, wrong_patterns

__all__ = [
    "OWN_GATE",
    "AsyncStore",
    "Keeps",
    "Op",
    "Store",
    "Weakness",
    "Where",
    "async_ready_store",
    "history_name",
    "open_async_store",
    "open_store",
    "ops",
    "ready_store",
    "rules_of",
    "server_id",
    "wrong_patterns",
]

_of_servers = re.compile(r"(?:(?:redis|valkey)s?(?:\+sentinel|\+cluster)?|unix)://").match


class StoreState(Protocol):
    """What a store knows of its servers."""

    @property
    def heartbeat(self) -> float | None:
        """After how many seconds a primary cut off from its replicas writes no more.

        0: no replica is asked for; None: not known (before `check`, or the server does not
        say).
        """

    @property
    def keeps(self) -> Keeps:
        """Whether what it acknowledged survives every crash and failover; `no` before
        `check`.
        """

    @property
    def where(self) -> Where:
        """Which servers it talks to, and through whom."""


class Store(StoreState, Protocol):
    """A state store.

    `call` runs one operation's script atomically and returns its raw reply (bytes, ints,
    lists). It returns before `deadline` (seconds of `time.monotonic`), connecting included, and
    raises only `StoreUnavailable`. A store over a network may have `send`, too, as
    `agentgate.stores.redis.RedisStore` has: it takes the same, and returns what reads the
    reply, once, before another deadline.
    """

    def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation."""

    def check(self) -> tuple[Weakness, ...]:
        """Once at start-up: refuse a store that cannot keep the promises (StoreUnavailable
        names what is wrong); what is weak about it.
        """

    def close(self) -> None:
        """Close connections and stop what this store started."""


class AsyncStore(StoreState, Protocol):
    """`Store`, awaited."""

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
    if _of_servers(url):
        from agentgate.stores import redis  # noqa: PLC0415 - see above

        return redis.RedisStore, redis.AsyncRedisStore
    expected = (
        "memory://, embedded:///absolute/path, redis://, rediss://, unix://, "
        "redis+sentinel:// or redis+cluster://"
    )
    raise ConfigError("store", url.partition(":")[0], expected)


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


Serving = tuple[str, Sequence[str]]  # the audience and the tenants of a tool server


def _tell(weaknesses: Iterable[Weakness], serving: Serving | None) -> None:
    for weakness in weaknesses:
        if serving is None or not weakness.of_gates:
            told = weakness._asdict()
            del told["of_gates"]
            import structlog  # noqa: PLC0415 - who only reads an audit log starts without it

            log = structlog.get_logger("agentgate.stores")
            log.warning("store_weakness", **told)


def _probes(url: str, serving: Serving | None) -> Iterator[Op[frozenset[Weakness]]]:
    """What to ask of a tool server's user; a store in this process, or behind a socket's file
    mode, has no users.
    """
    apart = url.startswith(("memory://", "embedded:///", "unix://"))
    return iter(()) if serving is None or apart else probe_user(*serving)


def _deadline() -> float:
    return time.monotonic() + CHECK_SECONDS


def ready_store(url: str, serving: Serving | None = None) -> Store:
    """An open store that passed its start-up check, whose weaknesses are logged; one that fails
    is closed again.

    `serving`: for a tool server, whose user may reach what is its own and nothing else.

    Raises:
        ConfigError, StoreUnavailable: see `open_store` and `Store.check`; or that user may do
            more, or less.
    """
    store = open_store(url)
    try:
        found = dict.fromkeys(store.check())
        for op in _probes(url, serving):
            found |= dict.fromkeys(op.parse(store.call(op, _deadline())))
    except AgentGateError:
        store.close()
        raise
    _tell(found, serving)
    return store


async def async_ready_store(url: str, serving: Serving | None = None) -> AsyncStore:
    """`ready_store` for asyncio."""
    store = open_async_store(url)
    try:
        found = dict.fromkeys(await store.check())
        for op in _probes(url, serving):
            found |= dict.fromkeys(op.parse(await store.call(op, _deadline())))
    except AgentGateError:
        await store.close()
        raise
    _tell(found, serving)
    return store
