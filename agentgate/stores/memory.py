"""The store of one process: the same scripts on fakeredis, lost when the process ends.

fakeredis has no INFO, so each store draws a random lineage: a lineage ends with its store. Only
the exact URL ``memory://`` opens this.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

import fakeredis
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._health import Keeps, Weakness, Where
from agentgate.stores._op import Op
from agentgate.stores._scripts import read_source, script


class MemoryStore:
    """A state store for one process. Safe to share between threads; one script runs at a
    time.
    """

    heartbeat: float | None = 0.0
    keeps: Keeps = "yes"  # it forgets everything or nothing
    where = Where()

    def __init__(self, _url: str = "memory://") -> None:
        self._client = fakeredis.FakeStrictRedis(server=fakeredis.FakeServer(), protocol=2)
        self._lineage = f"local function lineage() return '{secrets.token_hex(20)}', true end"
        self._scripts: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return "MemoryStore()"

    def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreUnavailable("the store is busy past the deadline")
        try:
            if self._closed or time.monotonic() >= deadline:
                raise StoreUnavailable(
                    "the store is closed" if self._closed else "the deadline has passed"
                )
            text = self._scripts.get(op.script) or self._define(op.script)
            return self._client.eval(text, len(op.keys), *op.keys, *op.args)
        except RedisError as error:
            raise StoreUnavailable(f"memory store: {error}") from error
        finally:
            self._lock.release()

    def check(self) -> tuple[Weakness, ...]:
        """Nothing to refuse: role, policy and clock are those of this process."""
        return ()

    def close(self) -> None:
        """Forget everything; every later call is refused."""
        with self._lock:
            self._closed = True
            self._client.flushall()
            self._client.close()

    def _define(self, name: str) -> str:
        """What defines a script and runs it, once: fakeredis compiles what it is sent at each
        call.
        """
        text = script(name).text.decode().replace(read_source("_lineage"), self._lineage)
        self._scripts[name] = run = f"return redis.of_{name}()"
        return f"redis.of_{name} = function()\n{text}\nend\n{run}"


class AsyncMemoryStore:
    """`MemoryStore`, awaited. It runs on the event loop, since it waits only for its own
    lock.
    """

    heartbeat = MemoryStore.heartbeat
    keeps = MemoryStore.keeps
    where = MemoryStore.where

    def __init__(self, _url: str = "memory://") -> None:
        self._store = MemoryStore()

    async def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        return self._store.call(op, deadline)

    async def check(self) -> tuple[Weakness, ...]:
        """Nothing to refuse: role, policy and clock are those of this process."""
        return ()

    async def close(self) -> None:
        """Forget everything; every later call is refused."""
        self._store.close()
