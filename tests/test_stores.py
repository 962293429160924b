"""Every store passes the same suite: in memory, embedded, on real Redis and real Valkey, synchronous and asynchronous."""

from __future__ import annotations

import pytest

from agentgate.stores import open_async_store, open_store
from agentgate_conformance.stores import Blocking, StoreConformance


@pytest.fixture(scope="module")
def embedded_store(tmp_path_factory):
    store = open_store(f"embedded://{tmp_path_factory.mktemp('embedded')}")
    yield store
    store.close()


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self):
        store = open_store("memory://")
        yield store
        store.close()


@pytest.mark.thorough("the same suite runs on memory and on Redis, blocking and awaited")
class TestAsyncMemory(StoreConformance):
    @pytest.fixture
    def store(self):
        store = Blocking(lambda: open_async_store("memory://"))
        yield store
        store.close()


class TestRedis(StoreConformance):
    @pytest.fixture
    def store(self, redis_server):
        store = open_store(redis_server.url)
        yield store
        store.close()


class TestAsyncRedis(StoreConformance):
    @pytest.fixture
    def store(self, redis_server):
        store = Blocking(lambda: open_async_store(redis_server.url))
        yield store
        store.close()


@pytest.mark.thorough("the same suite runs on memory and on Redis, blocking and awaited")
class TestValkey(StoreConformance):
    @pytest.fixture
    def store(self, valkey_server):
        store = open_store(valkey_server.url)
        yield store
        store.close()


@pytest.mark.thorough("the same suite runs on memory and on Redis, blocking and awaited")
class TestEmbedded(StoreConformance):
    racers, tokens = 4, 10  # every write is an fsync

    @pytest.fixture
    def store(self, embedded_store):
        return embedded_store
