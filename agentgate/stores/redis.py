"""The two stores on one Redis or Valkey server, blocking and awaited: the I/O of the dialogues in `agentgate.stores._exchange`."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from redis import connection as blocking
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._exchange import Dialogue, Pool, check_server, greet, run_command, run_op, time_left
from agentgate.stores._health import CHECK_SECONDS, Keeps, Weakness
from agentgate.stores._op import Op
from agentgate.stores._resp import MORE, Reply, pack
from agentgate.stores._wire import Wire

_key_patterns = re.compile(r"(?:%[RW]+)?~[^' )]+").findall
_BLOCKING = {"tcp": blocking.Connection, "tls": blocking.SSLConnection, "unix": blocking.UnixDomainSocketConnection}


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


class _OneServer:
    """What both stores know of their server."""

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


class RedisStore(_OneServer):
    """A store on a single Redis or Valkey server. Safe to share between threads."""

    def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        return self._converse(run_op(self._pool, op, deadline), deadline)

    def command(self, request: bytes, deadline: float) -> Any:
        """Send one plain command (see `agentgate.stores._resp.pack`); only for looking at the server itself."""
        return self._converse(run_command(self._endpoint, request), deadline)

    def scan(self, pattern: str) -> Iterator[str]:
        """Every key of this pattern, for an operator: it looks at all keys of the server, some at a time.

        Raises:
            StoreUnavailable: the server does not answer, or this store's user may not ask.
        """
        cursor = b"0"
        while True:
            request = pack("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            cursor, keys = self.command(request, time.monotonic() + CHECK_SECONDS)
            yield from (key.decode() for key in keys)
            if cursor == b"0":
                return

    def key_patterns(self, deadline: float) -> dict[str, str]:
        """The key patterns of each of the server's users, as ``ACL GETUSER`` tells them; none where this store's own may not ask.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        try:
            names = self.command(pack("ACL", "USERS"), deadline)
            told = {name.decode(): str(self.command(pack("ACL", "GETUSER", name), deadline)) for name in names}
        except StoreUnavailable as error:
            if "NOPERM" not in str(error):
                raise
            return {}
        return {name: " ".join(_key_patterns(words)) for name, words in told.items()}  # of its selectors, too

    def check(self) -> tuple[Weakness, ...]:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        weaknesses: tuple[Weakness, ...] = self._converse(check_server(self._pool), deadline)
        return weaknesses

    def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._pool.close()

    def _converse(self, dialogue: Dialogue, deadline: float) -> Any:
        connection: _Connection | None = self._pool.take()
        if connection is None:
            connection, dialogue = _Connection(self._endpoint, deadline), greet(self._pool, dialogue)
        try:
            answer = connection.converse(dialogue, deadline)
        except BaseException:
            connection.discard()
            raise
        self._pool.give_back(connection)
        return answer


class AsyncRedisStore(_OneServer):
    """`RedisStore`, awaited, for one event loop at a time."""

    _shared: Wire | None = None

    async def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.AsyncStore`."""
        alone = op.confirm and self._endpoint.replicas > 0  # WAIT would keep whoever comes after it on the connection
        return await self._converse(run_op(self._pool, op, deadline), deadline, alone=alone)

    async def check(self) -> tuple[Weakness, ...]:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        weaknesses: tuple[Weakness, ...] = await self._converse(check_server(self._pool), deadline)
        return weaknesses

    async def close(self) -> None:
        """Close all connections, those that somebody waits on after their reply; every later call is refused."""
        self._pool.close()
        if self._shared is not None:
            self._shared.retire()

    async def _converse(self, dialogue: Dialogue, deadline: float, *, alone: bool = False) -> Any:
        """Carry out a dialogue on the connection that all share, or `alone` on one."""
        time_left(deadline)
        wire: Wire | None = self._pool.take() if alone else self._shared
        if wire is None or not wire.usable():
            wire = await self._opened(deadline, alone=alone)
        try:
            request = next(dialogue)
            while True:
                request = dialogue.send(await wire.ask(request, deadline))
        except StopIteration as done:
            answer = done.value
        except asyncio.CancelledError:  # whoever shares it goes on: the reply, when it comes, is nobody's
            if alone:
                wire.discard()
            raise
        except BaseException:
            wire.retire()
            raise
        if alone:
            self._pool.give_back(wire)
        time_left(deadline)
        return answer

    async def _opened(self, deadline: float, *, alone: bool) -> Wire:
        """A new connection, greeted; where another one became the shared one meanwhile, that."""
        self._pool.check_open()
        try:
            async with asyncio.timeout(time_left(deadline)):
                wire = await Wire.open(self._endpoint)
        except TimeoutError as error:
            raise StoreUnavailable(f"store {self._endpoint.name}: no connection before the deadline") from error
        try:
            greeting = greet(self._pool)
            with suppress(StopIteration):
                request = next(greeting)
                while True:
                    request = greeting.send(await wire.ask(request, deadline))
            self._pool.check_open()
        except BaseException:
            wire.discard()
            raise
        if alone:
            return wire
        before, self._shared = self._shared, wire
        if before is not None and before.usable():
            wire.discard()
            self._shared = wire = before
        elif before is not None:
            before.retire()
        return wire
