"""The blocking store on one Redis or Valkey server; the rules are those of `agentgate.stores._exchange`."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._exchange import CHECK_SECONDS, Dialogue, Pool, check_server, greet, run_command, run_op, time_left
from agentgate.stores._op import Op

_CLASSES = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


def _no_handshake(_connection: Any) -> None:
    """Replaces redis-py's greeting: ours is sent under the exact deadline."""


class _Connection:
    """A connection of one process; redis-py opens and encrypts it."""

    __slots__ = ("_opened", "_pid", "_poll", "_socket")

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        left = time_left(deadline)
        self._opened: Any = _CLASSES[endpoint.kind](
            **endpoint.options, socket_timeout=left, socket_connect_timeout=left, redis_connect_func=_no_handshake
        )
        try:
            self._opened.connect()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        self._socket: socket.socket = self._opened._sock  # noqa: SLF001 - to read under an exact deadline
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._pid = os.getpid()

    def usable(self) -> bool:
        """See `agentgate.stores._exchange.Connection`."""
        return self._pid == os.getpid() and not self._poll.poll(0)

    def converse(self, dialogue: Dialogue, deadline: float) -> Any:
        """Carry out a dialogue. Each read and write has only the time that is left, so that a trickle of bytes wins none.

        Raises:
            StoreUnavailable: no complete answer before the deadline. The connection must be discarded.
        """
        line = self._socket
        try:
            data = next(dialogue)
            while True:
                if data:
                    line.settimeout(time_left(deadline))
                    line.sendall(data)
                line.settimeout(time_left(deadline))
                data = dialogue.send(line.recv(65536))
        except StopIteration as done:
            time_left(deadline)
            return done.value
        except OSError as error:
            raise StoreUnavailable(f"the store did not answer: {error!r}") from error

    def discard(self) -> None:
        """Close it for good."""
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

    def call(self, op: Op, deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        return self._converse(run_op(self._endpoint, op, deadline), deadline)

    def command(self, request: bytes, deadline: float) -> Any:
        """Send one plain command (see `agentgate.stores._resp.pack`); only for looking at the server itself."""
        return self._converse(run_command(self._endpoint, request), deadline)

    def check(self) -> None:
        """Refuse a server that cannot keep the promises; see `agentgate.stores._health`."""
        deadline = time.monotonic() + CHECK_SECONDS
        self._converse(check_server(self._endpoint, deadline), deadline)

    def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._pool.close()

    def _converse(self, dialogue: Dialogue, deadline: float) -> Any:
        connection: _Connection | None = self._pool.take()
        intact = False
        if connection is None:
            connection, dialogue = _Connection(self._endpoint, deadline), greet(self._endpoint, dialogue)
        try:
            answer = connection.converse(dialogue, deadline)
            intact = True
            return answer
        finally:
            self._pool.give_back(connection, intact=intact)
