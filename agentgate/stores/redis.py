"""The synchronous store on one Redis or Valkey server: one script, one round trip, one deadline.

Rules: nothing is ever sent twice (a resent burn whose reply was lost looks like a replay; after NOSCRIPT nothing ran, so that
one is loaded and sent again); a connection that failed, timed out, got an error reply or is out of step is discarded, never
reused; connecting counts against the same deadline. Host names are resolved by the system's resolver, which knows no deadline: give an
address.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._health import PROBE, judge
from agentgate.stores._op import Op
from agentgate.stores._resp import MORE, Reply, ServerError, pack
from agentgate.stores._scripts import script

CHECK_SECONDS = 2.0
_WAIT_LATE = 0.12  # seconds: a server ends a WAIT up to a tenth of a second late
_IDLE = 64  # connections kept for reuse
_CLASSES = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


def _no_handshake(_connection: Any) -> None:
    """Replaces redis-py's greeting: ours is sent under the exact deadline."""


class _Line:
    """One connection: send a request, read its one reply before the deadline."""

    __slots__ = ("_connection", "_poll", "_socket", "pid")

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        left = _left(deadline)
        connection: Any = _CLASSES[endpoint.kind](
            **endpoint.options, socket_timeout=left, socket_connect_timeout=left, redis_connect_func=_no_handshake
        )
        try:
            connection.connect()
            self._socket: socket.socket = connection._sock  # noqa: SLF001 - redis-py opens and encrypts it, `exchange` reads under a deadline
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self.pid = os.getpid()
        for command in endpoint.greeting:
            answer = self.exchange(pack(*command), deadline)
            if answer != b"OK":
                self.discard()
                raise StoreUnavailable(f"store {endpoint.name}: {command[0]} was answered {str(answer)[:200]}")

    def quiet(self) -> bool:
        """False when the idle connection was closed by the server, or holds bytes nobody asked for."""
        return not self._poll.poll(0)

    def exchange(self, request: bytes, deadline: float) -> Any:
        """Send one request and return its reply.

        Raises:
            StoreUnavailable: no complete reply before the deadline. The connection must be discarded.
        """
        line = self._socket
        try:
            line.settimeout(_left(deadline))
            line.sendall(request)
            reply = Reply()
            while True:
                line.settimeout(_left(deadline))
                chunk = line.recv(65536)
                if not chunk:
                    raise StoreUnavailable("the store closed the connection")
                value = reply.feed(chunk)
                if value is not MORE:
                    _left(deadline)
                    return value
        except OSError as error:
            raise StoreUnavailable(f"the store did not answer: {error!r}") from error

    def discard(self) -> None:
        """Close the connection for good."""
        try:
            self._socket.close()
        finally:
            self._connection.disconnect()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise StoreUnavailable("the deadline has passed")
    return left


class RedisStore:
    """A store on a single Redis or Valkey server. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint.of(url)
        self._idle: deque[_Line] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisStore({self._endpoint.name})"

    def call(self, op: Op, deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        code = script(op.script)
        request = pack("EVALSHA", code.sha, len(op.keys), *op.keys, *op.args)
        return self._use(request, code.text, deadline, self._endpoint.replicas if op.confirm else 0)

    def command(self, request: bytes, deadline: float) -> Any:
        """Send one plain command (see `agentgate.stores._resp.pack`); only for looking at the server itself."""
        return self._use(request, b"", deadline, 0)

    def check(self) -> None:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        info = self.command(pack("INFO"), deadline)
        before = time.time()
        probe = self.call(PROBE, deadline)
        judge(info, probe, before, time.time())

    def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._closed = True
        while self._idle:
            self._idle.pop().discard()

    def _use(self, request: bytes, text: bytes, deadline: float, replicas: int) -> Any:
        line = self._take(deadline)
        kept = False
        try:
            answer = line.exchange(request, deadline)
            if type(answer) is ServerError and answer.startswith("NOSCRIPT"):
                loaded = line.exchange(pack("SCRIPT", "LOAD", text), deadline)
                answer = loaded if type(loaded) is ServerError else line.exchange(request, deadline)
            if type(answer) is ServerError:
                raise StoreUnavailable(f"store {self._endpoint.name}: {answer[:200]}")
            if replicas:
                self._confirm(line, replicas, deadline)
            kept = len(self._idle) < _IDLE and not self._closed
            return answer
        finally:
            if kept:
                self._idle.append(line)
            else:
                line.discard()

    def _confirm(self, line: _Line, replicas: int, deadline: float) -> None:
        """WAIT on the same connection until all configured replicas have the write; it is applied either way."""
        patience = max(1, int((_left(deadline) - _WAIT_LATE) * 1000))
        confirmed = line.exchange(pack("WAIT", replicas, patience), deadline)
        if type(confirmed) is not int or confirmed < replicas:
            raise StoreUnavailable(f"store {self._endpoint.name}: applied, not confirmed: {confirmed} of {replicas} replicas have it")

    def _take(self, deadline: float) -> _Line:
        if self._closed:
            raise StoreUnavailable(f"store {self._endpoint.name}: closed")
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return _Line(self._endpoint, deadline)
            if line.pid == os.getpid() and line.quiet():
                return line
            line.discard()
