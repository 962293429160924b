"""Where a run's state lives: one script per operation, on a server of its own or in this process.

| URL | store |
|---|---|
| ``memory://`` | this process only, for development and tests |
| ``embedded:///path`` | a Valkey server of our own on a Unix socket, durable, one machine |
| ``redis://``, ``rediss://``, ``unix://`` | an existing Redis (7.2 or later) or Valkey (8 or later) |
"""

from __future__ import annotations

from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import ops
from agentgate.stores._store import AsyncStore, Store

__all__ = ["AsyncStore", "Store", "async_ready_store", "open_async_store", "open_store", "ops", "ready_store"]

_NETWORKED = ("redis://", "rediss://", "unix://")
_EXPECTED = "memory://, embedded:///path, redis://, rediss:// or unix://"


def open_store(url: str) -> Store:
    """Open the state store at `url`. Connects at the first call; `check` it at start-up.

    Raises:
        ConfigError: the URL is none of the known ones.
        StoreUnavailable: an embedded server does not start.
    """
    if url == "memory://":
        from agentgate.stores.memory import MemoryStore  # noqa: PLC0415 - each client is imported by who uses its store

        return MemoryStore()
    if url.startswith("embedded:///"):
        from agentgate.stores.embedded import EmbeddedStore  # noqa: PLC0415 - as above

        return EmbeddedStore(url)
    if url.startswith(_NETWORKED):
        from agentgate.stores.redis import RedisStore  # noqa: PLC0415 - as above

        return RedisStore(url)
    raise ConfigError("store", url.rpartition("@")[2], _EXPECTED)


def open_async_store(url: str) -> AsyncStore:
    """As `open_store`, for asyncio."""
    if url == "memory://":
        from agentgate.stores.memory import AsyncMemoryStore  # noqa: PLC0415 - as above

        return AsyncMemoryStore()
    if url.startswith("embedded:///"):
        from agentgate.stores.embedded import AsyncEmbeddedStore  # noqa: PLC0415 - as above

        return AsyncEmbeddedStore(url)
    if url.startswith(_NETWORKED):
        from agentgate.stores.redis_async import AsyncRedisStore  # noqa: PLC0415 - as above

        return AsyncRedisStore(url)
    raise ConfigError("store", url.rpartition("@")[2], _EXPECTED)


def ready_store(url: str) -> Store:
    """A store that was opened and passed its start-up check; one that fails is closed again.

    Raises:
        ConfigError, StoreUnavailable: see `open_store` and `Store.check`.
    """
    store = open_store(url)
    try:
        store.check()
    except StoreUnavailable:
        store.close()
        raise
    return store


async def async_ready_store(url: str) -> AsyncStore:
    """As `ready_store`, for asyncio."""
    store = open_async_store(url)
    try:
        await store.check()
    except StoreUnavailable:
        await store.close()
        raise
    return store
