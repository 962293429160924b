"""The asynchronous store on one Redis or Valkey server: the rules of `agentgate.stores.redis`, on redis.asyncio connections."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._health import PROBE, judge
from agentgate.stores._op import Op
from agentgate.stores._resp import MORE, Reply, ServerError, pack
from agentgate.stores._scripts import script

CHECK_SECONDS = 2.0
_WAIT_LATE = 0.12  # seconds: a server ends a WAIT up to a tenth of a second late
_IDLE = 64
_CLASSES = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


async def _no_handshake(_connection: Any) -> None:
    """Replaces redis-py's greeting: ours is sent under the exact deadline."""


class _Line:
    """One connection of one event loop."""

    __slots__ = ("_reader", "_writer", "loop")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, endpoint: Endpoint) -> _Line:
        connection: Any = _CLASSES[endpoint.kind](
            **(endpoint.options | {"retry": Retry(NoBackoff(), 0)}),
            socket_timeout=None,
            socket_connect_timeout=None,
            driver_info=None,
            redis_connect_func=_no_handshake,
        )
        try:
            await connection.connect()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        line = cls(connection._reader, connection._writer)  # noqa: SLF001 - redis-py opens and encrypts, `exchange` reads
        connection._reader = connection._writer = None  # noqa: SLF001 - the streams are ours now; redis-py would close them when collected
        for command in endpoint.greeting:
            answer = await line.exchange(pack(*command))
            if answer != b"OK":
                line.discard()
                raise StoreUnavailable(f"store {endpoint.name}: {command[0]} was answered {str(answer)[:200]}")
        return line

    def quiet(self) -> bool:
        """False when the idle connection was closed by the server."""
        return not self._reader.at_eof() and not self._writer.is_closing() and self._reader.exception() is None

    async def exchange(self, request: bytes) -> Any:
        """Send one request and return its reply; the caller bounds the time."""
        try:
            self._writer.write(request)
            reply = Reply()
            while True:
                chunk = await self._reader.read(65536)
                if not chunk:
                    raise StoreUnavailable("the store closed the connection")
                value = reply.feed(chunk)
                if value is not MORE:
                    return value
        except OSError as error:
            raise StoreUnavailable(f"the store did not answer: {error!r}") from error

    def discard(self) -> None:
        """Close the connection for good, at once."""
        if not self.loop.is_closed():
            self._writer.transport.abort()


class AsyncRedisStore:
    """A store on a single Redis or Valkey server, for one event loop at a time."""

    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint.of(url)
        self._idle: deque[_Line] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"AsyncRedisStore({self._endpoint.name})"

    async def call(self, op: Op, deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.AsyncStore`."""
        code = script(op.script)
        request = pack("EVALSHA", code.sha, len(op.keys), *op.keys, *op.args)
        return await self._bounded(request, code.text, deadline, self._endpoint.replicas if op.confirm else 0)

    async def check(self) -> None:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        info = await self._bounded(pack("INFO"), b"", deadline, 0)
        before = time.time()
        probe = await self.call(PROBE, deadline)
        judge(info, probe, before, time.time())

    async def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._closed = True
        while self._idle:
            self._idle.pop().discard()

    async def _bounded(self, request: bytes, text: bytes, deadline: float, replicas: int) -> Any:
        left = deadline - time.monotonic()
        if left <= 0:
            raise StoreUnavailable("the deadline has passed")
        try:
            async with asyncio.timeout(left):
                answer = await self._use(request, text, deadline, replicas)
        except TimeoutError as error:
            raise StoreUnavailable(f"store {self._endpoint.name}: no answer before the deadline") from error
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline has passed")
        return answer

    async def _use(self, request: bytes, text: bytes, deadline: float, replicas: int) -> Any:
        line = await self._take()
        kept = False
        try:
            answer = await line.exchange(request)
            if type(answer) is ServerError and answer.startswith("NOSCRIPT"):
                loaded = await line.exchange(pack("SCRIPT", "LOAD", text))
                answer = loaded if type(loaded) is ServerError else await line.exchange(request)
            if type(answer) is ServerError:
                raise StoreUnavailable(f"store {self._endpoint.name}: {answer[:200]}")
            if replicas:
                await self._confirm(line, replicas, deadline)
            kept = len(self._idle) < _IDLE and not self._closed
            return answer
        finally:
            if kept:
                self._idle.append(line)
            else:
                line.discard()

    async def _confirm(self, line: _Line, replicas: int, deadline: float) -> None:
        """WAIT on the same connection until all configured replicas have the write; it is applied either way."""
        patience = max(1, int((deadline - time.monotonic() - _WAIT_LATE) * 1000))
        confirmed = await line.exchange(pack("WAIT", replicas, patience))
        if type(confirmed) is not int or confirmed < replicas:
            raise StoreUnavailable(f"store {self._endpoint.name}: applied, not confirmed: {confirmed} of {replicas} replicas have it")

    async def _take(self) -> _Line:
        if self._closed:
            raise StoreUnavailable(f"store {self._endpoint.name}: closed")
        while self._idle:
            line = self._idle.pop()
            if line.loop is asyncio.get_running_loop() and line.quiet():
                return line
            line.discard()
        return await _Line.open(self._endpoint)
