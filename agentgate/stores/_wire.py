"""One connection to a server, for one event loop: requests of many callers go out together, and
replies come back in their order.

Rules: each caller waits for its own reply and until its own deadline. Replies are counted off
in the order of the requests, so that the one for a caller who gave up is dropped and never
handed to the next. What is wrong with one reply may be wrong with the connection: it is
retired: dialogues that began go on to their end, also with further requests, nobody new asks,
and it is closed after the last.
Where the connection breaks, or gets out of step, all who wait are refused; nothing is sent
again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import Any

from redis import asyncio as awaited
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._resp import Reply

_KINDS = {
    "tcp": awaited.Connection,
    "tls": awaited.SSLConnection,
    "unix": awaited.UnixDomainSocketConnection,
}


class Wire(asyncio.Protocol):
    """See the module. redis-py opens and encrypts the connection; from then on this is its
    protocol.
    """

    def __init__(self, opened: Any, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._writer: asyncio.StreamWriter = opened._writer  # noqa: SLF001 - to read and write here; kept, since it closes what it loses
        opened._reader = opened._writer = None  # noqa: SLF001 - redis-py would close the streams when its object is collected
        self._transport = self._writer.transport
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._unsent: list[bytes] = []
        self._reply = Reply()
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._dialogues = 0  # under way
        self._pid = os.getpid()
        self._transport.set_protocol(self)

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Wire:
        """Connect; the caller bounds the time.

        Raises:
            StoreUnavailable.
        """
        options = endpoint.options | {"retry": Retry(NoBackoff(), 0)}
        opened: Any = _KINDS[endpoint.kind](
            **options, socket_timeout=None, socket_connect_timeout=None
        )
        try:
            await opened.connect()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"store {endpoint.name}: {error}") from error
        return cls(opened, endpoint.name)

    def usable(self) -> bool:
        """Whether new requests may go over it: of this process and event loop, open, and not
        retired.
        """
        # a forked child may go on with its parent's loop
        own = self._pid == os.getpid() and self._loop is asyncio.get_running_loop()
        return own and not self._retired and not self._transport.is_closing()

    def ask(self, request: bytes, deadline: float) -> asyncio.Future[Any]:
        """Send a request, with those of others; its reply, or StoreUnavailable: none before
        `deadline` (of `time.monotonic`).
        """
        reply: asyncio.Future[Any] = self._loop.create_future()
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(request)
        self._waiting.append((reply, deadline))
        left = deadline - time.monotonic()
        if self._timer is None or self._loop.time() + left < self._timer.when():
            self._watch(left)
        return reply

    def retire(self) -> None:
        """Take no new dialogues, and close after the last one."""
        self._retired = True
        self.count_dialogue(0)

    def count_dialogue(self, more: int) -> None:
        """A dialogue begins (1) or has ended (-1)."""
        self._dialogues += more
        if self._retired and not self._dialogues:
            self.discard()

    def discard(self) -> None:
        """Close at once; whoever waits is refused."""
        self._retired = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._loop.is_closed():
            self._transport.abort()

    def _send(self) -> None:
        if self._transport.is_closing():
            self._refuse("the connection was closed")
        else:
            self._transport.write(b"".join(self._unsent))
        self._unsent = []

    def _watch(self, left: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(left, self._late)

    def _late(self) -> None:
        """Refuse who waited until their deadline."""
        self._timer = None
        now = time.monotonic()
        for reply, deadline in self._waiting:
            if deadline <= now and not reply.done():
                reply.set_exception(
                    StoreUnavailable(f"store {self._name}: no answer before the deadline")
                )
        ends = [deadline for reply, deadline in self._waiting if not reply.done()]
        if ends:
            self._watch(min(ends) - now)

    # --- of the transport ---------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        try:
            values = self._reply.each(data)
        except StoreUnavailable as error:
            self._refuse(str(error))
            return
        if len(values) > len(self._waiting):
            self._refuse("more replies than requests: the connection is out of step")
            return
        for value in values:
            reply, _ = self._waiting.popleft()
            if not reply.done():
                reply.set_result(value)

    def eof_received(self) -> None:
        """The server closes: nothing more will come."""
        self._refuse("the store closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._refuse(
            "the store closed the connection"
            if exc is None
            else f"the store did not answer: {exc!r}"
        )

    def _refuse(self, why: str) -> None:
        while self._waiting:
            reply, _ = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(StoreUnavailable(f"store {self._name}: {why}"))
        self.discard()
