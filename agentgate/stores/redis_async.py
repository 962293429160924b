"""The awaited store on one Redis or Valkey server; the rules are those of `agentgate.stores._exchange`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._exchange import CHECK_SECONDS, Dialogue, Pool, check_server, greet, run_op, time_left
from agentgate.stores._op import Op

_CLASSES = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


async def _no_handshake(_connection: Any) -> None:
    """Replaces redis-py's greeting: ours is sent under the exact deadline."""


class _Connection:
    """A connection of one event loop; redis-py opens and encrypts it."""

    __slots__ = ("_loop", "_reader", "_writer")

    def __init__(self, opened: Any) -> None:
        self._reader: asyncio.StreamReader = opened._reader  # noqa: SLF001 - to read and write here
        self._writer: asyncio.StreamWriter = opened._writer  # noqa: SLF001 - as above
        opened._reader = opened._writer = None  # noqa: SLF001 - the streams are ours now; redis-py would close them when collected
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, endpoint: Endpoint) -> _Connection:
        """Connect; the caller bounds the time."""
        options = endpoint.options | {"retry": Retry(NoBackoff(), 0), "driver_info": None, "redis_connect_func": _no_handshake}
        opened: Any = _CLASSES[endpoint.kind](**options, socket_timeout=None, socket_connect_timeout=None)
        try:
            await opened.connect()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        return cls(opened)

    def usable(self) -> bool:
        """See `agentgate.stores._exchange.Connection`."""
        reader, writer = self._reader, self._writer
        return self._loop is asyncio.get_running_loop() and not reader.at_eof() and not writer.is_closing() and reader.exception() is None

    async def converse(self, dialogue: Dialogue) -> Any:
        """Carry out a dialogue; the caller bounds the time."""
        try:
            data = next(dialogue)
            while True:
                if data:
                    self._writer.write(data)
                data = dialogue.send(await self._reader.read(65536))
        except StopIteration as done:
            return done.value
        except OSError as error:
            raise StoreUnavailable(f"the store did not answer: {error!r}") from error

    def discard(self) -> None:
        """Close it for good, at once."""
        if not self._loop.is_closed():
            self._writer.transport.abort()


class AsyncRedisStore:
    """A store on a single Redis or Valkey server, for one event loop at a time."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url)
        self._endpoint = self._pool.endpoint

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.name})"

    async def call(self, op: Op, deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.AsyncStore`."""
        return await self._bounded(run_op(self._endpoint, op, deadline), deadline)

    async def check(self) -> None:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        await self._bounded(check_server(self._endpoint, deadline), deadline)

    async def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._pool.close()

    async def _bounded(self, dialogue: Dialogue, deadline: float) -> Any:
        try:
            async with asyncio.timeout(time_left(deadline)):
                answer = await self._converse(dialogue)
        except TimeoutError as error:
            raise StoreUnavailable(f"store {self._endpoint.name}: no answer before the deadline") from error
        time_left(deadline)
        return answer

    async def _converse(self, dialogue: Dialogue) -> Any:
        connection: _Connection | None = self._pool.take()
        intact = False
        if connection is None:
            connection, dialogue = await _Connection.open(self._endpoint), greet(self._endpoint, dialogue)
        try:
            answer = await connection.converse(dialogue)
            intact = True
            return answer
        finally:
            self._pool.give_back(connection, intact=intact)
