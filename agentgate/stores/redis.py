"""The two stores on one Redis or Valkey server, blocking and awaited: the I/O of the dialogues in `agentgate.stores._exchange`."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from typing import Any

from redis import asyncio as awaited
from redis import connection as blocking
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._exchange import Dialogue, Pool, check_server, greet, run_command, run_op, time_left
from agentgate.stores._health import CHECK_SECONDS, Keeps, Weakness
from agentgate.stores._op import Op
from agentgate.stores._resp import MORE, Reply

_BLOCKING = {"tcp": blocking.Connection, "tls": blocking.SSLConnection, "unix": blocking.UnixDomainSocketConnection}
_AWAITED = {"tcp": awaited.Connection, "tls": awaited.SSLConnection, "unix": awaited.UnixDomainSocketConnection}


class _Connection:
    """A connection of one process; redis-py opens and encrypts it."""

    __slots__ = ("_opened", "_pid", "_poll", "_socket")

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        left = time_left(deadline)
        self._opened: Any = _BLOCKING[endpoint.kind](**endpoint.options, socket_timeout=left, socket_connect_timeout=left)
        try:
            self._opened.connect()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        self._socket: socket.socket = self._opened._sock  # noqa: SLF001 - to read under an exact deadline
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._pid = os.getpid()

    def usable(self) -> bool:
        return self._pid == os.getpid() and not self._poll.poll(0)

    def converse(self, dialogue: Dialogue, deadline: float) -> Any:
        """Carry out a dialogue. Each read and write gets only the time that is left, so that a trickle of bytes gains none."""
        line = self._socket
        try:
            request = next(dialogue)
            while True:
                line.settimeout(time_left(deadline))
                line.sendall(request)
                reply, value = Reply(), MORE
                while value is MORE:
                    line.settimeout(time_left(deadline))
                    value = reply.feed(line.recv(65536))
                request = dialogue.send(value)
        except StopIteration as done:
            time_left(deadline)
            return done.value
        except OSError as error:
            raise StoreUnavailable(f"the store did not answer: {error!r}") from error

    def discard(self) -> None:
        try:
            self._socket.close()
        finally:
            self._opened.disconnect()


class RedisStore:
    """A store on a single Redis or Valkey server. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url)
        self._endpoint = self._pool.endpoint

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.name})"

    @property
    def heartbeat(self) -> float | None:
        """See `agentgate.stores.Store`."""
        return self._pool.heartbeat

    @property
    def keeps(self) -> Keeps:
        """See `agentgate.stores.Store`."""
        return self._pool.keeps

    def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        return self._converse(run_op(self._pool, op, deadline), deadline)

    def command(self, request: bytes, deadline: float) -> Any:
        """Send one plain command (see `agentgate.stores._resp.pack`); only for looking at the server itself."""
        return self._converse(run_command(self._endpoint, request), deadline)

    def check(self) -> tuple[Weakness, ...]:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        weaknesses: tuple[Weakness, ...] = self._converse(check_server(self._pool, deadline), deadline)
        return weaknesses

    def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._pool.close()

    def _converse(self, dialogue: Dialogue, deadline: float) -> Any:
        connection: _Connection | None = self._pool.take()
        if connection is None:
            connection, dialogue = _Connection(self._endpoint, deadline), greet(self._endpoint, dialogue)
        try:
            answer = connection.converse(dialogue, deadline)
        except BaseException:
            connection.discard()
            raise
        self._pool.give_back(connection)
        return answer


class _AsyncConnection:
    """A connection of one event loop; redis-py opens and encrypts it."""

    __slots__ = ("_loop", "_reader", "_writer")

    def __init__(self, opened: Any) -> None:
        self._reader: asyncio.StreamReader = opened._reader  # noqa: SLF001 - to read and write here
        self._writer: asyncio.StreamWriter = opened._writer  # noqa: SLF001 - as above
        opened._reader = opened._writer = None  # noqa: SLF001 - redis-py would close the streams when its object is collected
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, endpoint: Endpoint) -> _AsyncConnection:
        """Connect; the caller bounds the time."""
        options = endpoint.options | {"retry": Retry(NoBackoff(), 0)}
        opened: Any = _AWAITED[endpoint.kind](**options, socket_timeout=None, socket_connect_timeout=None)
        try:
            await opened.connect()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        return cls(opened)

    def usable(self) -> bool:
        reader, writer = self._reader, self._writer
        return self._loop is asyncio.get_running_loop() and not reader.at_eof() and not writer.is_closing() and reader.exception() is None

    async def converse(self, dialogue: Dialogue) -> Any:
        """Carry out a dialogue; the caller bounds the time."""
        try:
            request = next(dialogue)
            while True:
                self._writer.write(request)
                reply, value = Reply(), MORE
                while value is MORE:
                    value = reply.feed(await self._reader.read(65536))
                request = dialogue.send(value)
        except StopIteration as done:
            return done.value
        except OSError as error:
            raise StoreUnavailable(f"the store did not answer: {error!r}") from error

    def discard(self) -> None:
        if not self._loop.is_closed():
            self._writer.transport.abort()


class AsyncRedisStore:
    """`RedisStore`, awaited, for one event loop at a time."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url)
        self._endpoint = self._pool.endpoint

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.name})"

    @property
    def heartbeat(self) -> float | None:
        """See `agentgate.stores.Store`."""
        return self._pool.heartbeat

    @property
    def keeps(self) -> Keeps:
        """See `agentgate.stores.Store`."""
        return self._pool.keeps

    async def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.AsyncStore`."""
        return await self._converse(run_op(self._pool, op, deadline), deadline)

    async def check(self) -> tuple[Weakness, ...]:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        weaknesses: tuple[Weakness, ...] = await self._converse(check_server(self._pool, deadline), deadline)
        return weaknesses

    async def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._pool.close()

    async def _converse(self, dialogue: Dialogue, deadline: float) -> Any:
        try:
            async with asyncio.timeout(time_left(deadline)):
                connection: _AsyncConnection | None = self._pool.take()
                if connection is None:
                    connection, dialogue = await _AsyncConnection.open(self._endpoint), greet(self._endpoint, dialogue)
                try:
                    answer = await connection.converse(dialogue)
                except BaseException:
                    connection.discard()
                    raise
                self._pool.give_back(connection)
        except TimeoutError as error:
            raise StoreUnavailable(f"store {self._endpoint.name}: no answer before the deadline") from error
        time_left(deadline)
        return answer
