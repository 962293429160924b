"""Where a run's state is kept: one script per operation, on a server of its own or in this process.

| URL | store |
|---|---|
| ``memory://`` | this process only, for development and tests |
| ``embedded:///path`` | a Valkey server of our own on a Unix socket, durable, one machine |
| ``redis://``, ``rediss://``, ``unix://`` | an existing Redis (7.2 or later) or Valkey (8 or later) |
"""
# ruff: noqa: PLC0415 - each client is imported by who uses its store

from __future__ import annotations

from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import ops
from agentgate.stores._op import Op
from agentgate.stores._store import AsyncStore, Store

__all__ = ["AsyncStore", "Op", "Store", "async_ready_store", "open_async_store", "open_store", "ops", "ready_store"]

_SERVER = ("redis://", "rediss://", "unix://")


def _unknown(url: str) -> ConfigError:
    return ConfigError("store", url.rpartition("@")[2], "memory://, embedded:///path, redis://, rediss:// or unix://")


def open_store(url: str) -> Store:
    """Open the state store at `url`. It connects at the first call; `check` it at start-up.

    Raises:
        ConfigError: the URL is none of the known ones.
        StoreUnavailable: an embedded server does not start.
    """
    if url == "memory://":
        from agentgate.stores.memory import MemoryStore

        return MemoryStore()
    if url.startswith("embedded:///"):
        from agentgate.stores.embedded import EmbeddedStore

        return EmbeddedStore(url)
    if url.startswith(_SERVER):
        from agentgate.stores.redis import RedisStore

        return RedisStore(url)
    raise _unknown(url)


def open_async_store(url: str) -> AsyncStore:
    """`open_store` for asyncio."""
    if url == "memory://":
        from agentgate.stores.memory import AsyncMemoryStore

        return AsyncMemoryStore()
    if url.startswith("embedded:///"):
        from agentgate.stores.embedded import AsyncEmbeddedStore

        return AsyncEmbeddedStore(url)
    if url.startswith(_SERVER):
        from agentgate.stores.redis_async import AsyncRedisStore

        return AsyncRedisStore(url)
    raise _unknown(url)


def ready_store(url: str) -> Store:
    """An open store that passed its start-up check; one that fails is closed again.

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
    """`ready_store`, awaited."""
    store = open_async_store(url)
    try:
        await store.check()
    except StoreUnavailable:
        await store.close()
        raise
    return store
