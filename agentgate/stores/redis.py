"""The two stores on Redis or Valkey, blocking and awaited: the I/O of the dialogues in
`agentgate.stores._exchange`.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from redis import connection as blocking
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._exchange import (
    Dialogue,
    Pool,
    Redirected,
    Request,
    check_server,
    greet,
    run_command,
    run_op,
    time_left,
)
from agentgate.stores._health import CHECK_SECONDS, Keeps, Weakness, Where
from agentgate.stores._op import Op, said
from agentgate.stores._resp import MORE, Reply, pack
from agentgate.stores._topology import Examination, Search, Topology, locate
from agentgate.stores._wire import Wire

_key_patterns = re.compile(r"(?:%[RW]+)?~[^' )]+").findall
# seconds that a socket's deadline may be late: each change of it is a call to the kernel
_EXACT = 0.001
_BLOCKING = {
    "tcp": blocking.Connection,
    "tls": blocking.SSLConnection,
    "unix": blocking.UnixDomainSocketConnection,
}


class _Connection:
    """A connection of one process; redis-py opens and encrypts it."""

    __slots__ = ("_opened", "_pid", "_poll", "_socket")

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        left = time_left(deadline)
        self._opened: Any = _BLOCKING[endpoint.kind](
            **endpoint.options, socket_timeout=left, socket_connect_timeout=left
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
        return self._pid == os.getpid() and not self._poll.poll(0)

    def send(self, request: bytes, deadline: float) -> float:
        """Send a request; how many seconds were left."""
        self._socket.settimeout(left := time_left(deadline))
        self._socket.sendall(request)
        return left

    def converse(self, dialogue: Dialogue, deadline: float, *, is_sent: bool = False) -> Any:
        """Carry out a dialogue, or go on with one whose first request `is_sent`. Each read and
        write gets only the time that is left, so that a trickle of bytes gains none.
        """
        line = self._socket
        if is_sent and self._pid != os.getpid():
            raise StoreUnavailable("the store was asked before a fork, by the other process")
        try:
            request = b"" if is_sent else next(dialogue)
            while True:
                given = self.send(request, deadline) if request else inf
                if type(request) is Request:
                    request.meanwhile()
                reply = Reply()
                value = MORE
                while value is MORE:
                    if given - (left := time_left(deadline)) > _EXACT:
                        line.settimeout(given := left)
                    value = reply.feed(line.recv(16384))
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


class _Store:
    """What both stores know of their servers."""

    def __init__(self, url: str) -> None:
        self._topology = Topology(url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._topology.endpoint.name})"

    @property
    def heartbeat(self) -> float | None:
        """See `agentgate.stores.Store`."""
        return self._topology.heartbeat

    @property
    def keeps(self) -> Keeps:
        """See `agentgate.stores.Store`."""
        return self._topology.keeps

    @property
    def where(self) -> Where:
        """See `agentgate.stores.Store`."""
        return self._topology.where


class RedisStore(_Store):
    """A store on Redis or Valkey. Safe to share between threads."""

    def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.Store`."""
        pool = self._topology.only or self._find_pool(self._topology.seek_pool(op, deadline))
        try:
            return self._converse(pool, lambda pool: run_op(pool, op, deadline), deadline)
        except Redirected as told:
            asking = told.asking
            return self._converse(
                self._topology.follow(told),
                lambda pool: run_op(pool, op, deadline, asking=asking),
                deadline,
            )

    def send(self, op: Op[Any], deadline: float) -> Callable[[float], Any]:
        """Send one operation's script on an idle connection; `call` it where there is none, and
        the first time, when the server may lack it. See `agentgate.stores.Store`.
        """
        pool = self._topology.only
        connection = pool.take() if pool and op.script in pool.known else None
        if pool is None or connection is None:
            answer = self.call(op, deadline)
            if pool:
                pool.known.add(op.script)
            return said(answer)
        dialogue = run_op(pool, op, deadline)
        try:
            connection.send(next(dialogue), deadline)
        except (OSError, StoreUnavailable) as error:
            connection.discard()
            raise StoreUnavailable(f"the store was not asked: {error!r}") from error
        return lambda until: self._converse(pool, lambda _: dialogue, until, connection)

    def command(self, request: bytes, deadline: float, key: str = "") -> Any:
        """Send one plain command (see `agentgate.stores._resp.pack`), to look at the server
        itself: of several, the one that has `key`.
        """
        op: Op[Any] | None = Op("", list, (key,)) if key else None
        pool = self._topology.only or self._find_pool(self._topology.seek_pool(op, deadline))
        return self._converse(pool, lambda pool: run_command(pool.endpoint, request), deadline)

    def scan(self, pattern: str) -> Iterator[str]:
        """Every key of this pattern, of one tenant, for an operator: it looks at all keys of
        the server, some at a time.

        Raises:
            StoreUnavailable: the server does not answer, or this store's user may not ask.
        """
        cursor = b"0"
        while True:
            request = pack("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            cursor, keys = self.command(request, time.monotonic() + CHECK_SECONDS, pattern)
            yield from (key.decode(errors="replace") for key in keys)
            if cursor == b"0":
                return

    def key_patterns(self, deadline: float) -> dict[str, str]:
        """The key patterns of each of the server's users, as ``ACL GETUSER`` tells them; none
        where this store's own may not ask.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        try:
            names = self.command(pack("ACL", "USERS"), deadline)
            told = {
                name.decode(): str(self.command(pack("ACL", "GETUSER", name), deadline))
                for name in names
            }
        except StoreUnavailable as error:
            if "NOPERM" not in str(error):
                raise
            return {}
        # of its selectors, too
        return {name: " ".join(_key_patterns(words)) for name, words in told.items()}

    def check(self) -> tuple[Weakness, ...]:
        """Refuse servers that cannot keep the promises; see `agentgate.stores._health`."""
        topology = self._topology
        if topology.only is None:
            self._find_pool(topology.ask_guides(time.monotonic() + CHECK_SECONDS))
        examination = Examination(topology)
        for pool in topology.primaries:
            deadline = time.monotonic() + CHECK_SECONDS
            try:
                examination.add(pool, self._converse(pool, check_server, deadline))
            except StoreUnavailable as error:
                examination.lose(pool.endpoint.name, error)
        return examination.weaknesses()

    def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._topology.close()

    def _converse(
        self,
        pool: Pool,
        begin: Callable[[Pool], Dialogue],
        deadline: float,
        begun: _Connection | None = None,
    ) -> Any:
        """Carry out a dialogue; `begun`: its first request is sent already, on this one."""
        connection: _Connection | None = begun or pool.take()
        try:
            if connection is None:
                if pool.endpoint.service:  # it may be the primary no more
                    pool = self._find_pool(self._topology.ask_guides(deadline))
                connection = _Connection(pool.endpoint, deadline)
                dialogue = greet(pool, begin(pool))
            else:
                dialogue = begin(pool)
            answer = connection.converse(dialogue, deadline, is_sent=begun is not None)
        except BaseException as error:
            if connection is not None and isinstance(error, Redirected):
                pool.give_back(connection)
            else:
                self._topology.doubt(pool)
                if connection is not None:
                    connection.discard()
            raise
        pool.give_back(connection)
        return answer

    def _find_pool(self, search: Search) -> Any:
        """Ask whom a search names."""
        told: Any = None
        try:
            while True:
                guide, until = search.send(told)
                try:
                    connection = _Connection(guide, until)
                    try:
                        told = connection.converse(
                            locate(self._topology.endpoint, guide), until
                        )
                    finally:
                        connection.discard()
                except StoreUnavailable as error:
                    told = error
        except StopIteration as done:
            return done.value


class AsyncRedisStore(_Store):
    """`RedisStore`, awaited, for one event loop at a time."""

    async def call(self, op: Op[Any], deadline: float) -> Any:
        """Run one operation's script; see `agentgate.stores.AsyncStore`."""
        topology = self._topology
        pool = topology.only or await self._find_pool(topology.seek_pool(op, deadline))
        # WAIT would keep whoever comes after it on the connection
        alone = op.confirm and topology.endpoint.replicas > 0
        try:
            return await self._converse(
                pool, lambda pool: run_op(pool, op, deadline), deadline, alone=alone
            )
        except Redirected as told:
            asking = told.asking  # nobody else's command may come between ASKING and this one
            moved = topology.follow(told)
            return await self._converse(
                moved,
                lambda pool: run_op(pool, op, deadline, asking=asking),
                deadline,
                alone=alone or asking,
            )

    async def check(self) -> tuple[Weakness, ...]:
        """Refuse servers that cannot keep the promises; see `agentgate.stores._health`."""
        topology = self._topology
        if topology.only is None:
            await self._find_pool(topology.ask_guides(time.monotonic() + CHECK_SECONDS))
        examination = Examination(topology)
        for pool in topology.primaries:
            deadline = time.monotonic() + CHECK_SECONDS
            try:
                examination.add(pool, await self._converse(pool, check_server, deadline))
            except StoreUnavailable as error:
                examination.lose(pool.endpoint.name, error)
        return examination.weaknesses()

    async def close(self) -> None:
        """Close all connections, those that somebody waits on after their reply; every later
        call is refused.
        """
        self._topology.close()

    async def _converse(
        self,
        pool: Pool,
        begin: Callable[[Pool], Dialogue],
        deadline: float,
        *,
        alone: bool = False,
    ) -> Any:
        """Carry out a dialogue on the connection that all share, or `alone` on one."""
        time_left(deadline)
        wire: Wire | None = pool.take() if alone else pool.shared
        try:
            if wire is None or not wire.usable():
                wire = None
                if pool.endpoint.service:  # it may be the primary no more
                    pool = await self._find_pool(self._topology.ask_guides(deadline))
                wire = await self._opened(pool, deadline, alone=alone)
            answer = await _carry_out(begin(pool), wire, deadline)
        # whoever shares it goes on: the reply, when it comes, is nobody's
        except asyncio.CancelledError:
            if alone and wire is not None:
                wire.discard()
            raise
        except BaseException as error:
            if wire is not None and isinstance(error, Redirected):
                if alone:
                    pool.give_back(wire)
            else:
                self._topology.doubt(pool)
                if wire is not None:
                    wire.retire()
            raise
        if alone:
            pool.give_back(wire)
        time_left(deadline)
        return answer

    async def _opened(self, pool: Pool, deadline: float, *, alone: bool) -> Wire:
        """A new connection, greeted; where another one became the shared one meanwhile,
        that.
        """
        pool.check_open()
        wire = await _connected(pool.endpoint, deadline)
        try:
            await _carry_out(greet(pool), wire, deadline)
            pool.check_open()
        except BaseException:
            wire.discard()
            raise
        if alone:
            return wire
        before = pool.shared
        pool.shared = wire
        if before is not None:
            if before.usable():
                wire.discard()
                pool.shared = wire = before
            else:
                before.retire()
        return wire

    async def _find_pool(self, search: Search) -> Any:
        """See `RedisStore`."""
        told: Any = None
        try:
            while True:
                guide, until = search.send(told)
                try:
                    wire = await _connected(guide, until)
                    try:
                        told = await _carry_out(
                            locate(self._topology.endpoint, guide), wire, until
                        )
                    finally:
                        wire.discard()
                except StoreUnavailable as error:
                    told = error
        except StopIteration as done:
            return done.value


async def _connected(endpoint: Endpoint, deadline: float) -> Wire:
    try:
        async with asyncio.timeout(time_left(deadline)):
            return await Wire.open(endpoint)
    except TimeoutError as error:
        raise StoreUnavailable(
            f"store {endpoint.name}: no connection before the deadline"
        ) from error


async def _carry_out(dialogue: Dialogue, wire: Wire, deadline: float) -> Any:
    wire.count_dialogue(1)
    try:
        request = next(dialogue)
        while True:
            reply = wire.ask(request, deadline)
            if type(request) is Request:
                await asyncio.sleep(0)  # it is sent
                request.meanwhile()
            request = dialogue.send(await reply)
    except StopIteration as done:
        return done.value
    finally:
        wire.count_dialogue(-1)
