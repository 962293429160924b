"""The open connections of one process: who makes room when there are too many.

Rules: connections that say nothing, or say it slowly (Slowloris), keep nobody out. One peer has
at most half of the places for connections that did not send a whole request within `SECONDS`;
beyond it, its oldest such ones are closed. Where all are taken, the peer with the most pays:
with one that waits, once a request that came with it would have been looked at, else, if the
newcomer's peer has fewer even then, with one that has proved nothing yet. A connection on which
a proof succeeded is closed last; of one client half of the places at most are so, or a job with
a credential could keep out whoever shares its address.

Beyond the places there is room for `RESERVED`. They learn of the process's health at once, and
with any other request wait for a place; while some do, who proved nothing has one answer on a
connection. Whoever is closed comes back at once; whoever waits comes no faster than it is
answered, and an honest client beside it waits no longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from agentgate.errors import RequestRefused
from agentgate.identity.connection import counted
from agentgate.service.answer import problem, unavailable

HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
RESERVED = 256
SECONDS = 1.0
LOOK = 0.1  # seconds after which a request that came with its connection was looked at
PATIENCE = 2.0  # seconds for a place


@dataclass(slots=True, eq=False)
class OpenConnection:
    """One of them.

    Attributes:
        peer: as whom its other end is counted.
        abort: closes it at once.
        is_open: it was not closed yet.
        waits: it has not sent a whole request, or does not take its answer.
        proven: the client whose proof succeeded in its last request; empty: none did.
        placed: it has a place.
        since: monotonic seconds of when it began to wait, or ended to.
    """

    peer: str
    abort: Callable[[], object]
    is_open: bool = True
    waits: bool = True
    proven: str = ""
    placed: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = field(default_factory=time.monotonic)


class Connections:
    """See the module.

    Args:
        most: places.
        is_proxy: whether a peer brings many callers: it may have as many as there are, and each
            counts for an eighth.
    """

    def __init__(self, most: int, is_proxy: Callable[[str], bool]) -> None:
        self._most = most
        self._is_proxy = is_proxy
        # each peer's, those first that changed longest ago
        self._peers: dict[str, dict[OpenConnection, None]] = {}
        self._spare: dict[OpenConnection, None] = {}  # without a place
        self._asking: dict[OpenConnection, None] = {}  # without a place, and they wait for one
        self._count = 0  # with a place

    def add(self, peer: str, abort: Callable[[], object]) -> OpenConnection:
        """Take a new connection in. Where there is no place, it is a spare one."""
        new = OpenConnection(counted(peer), abort)
        own = self._peers.get(new.peer, {})
        waiting = (
            []
            if self._is_proxy(peer)
            else [each for each in own if each.waits and not each.proven]
        )
        for each in waiting[: max(0, len(waiting) + 1 - self._most // 2)]:
            # else its request may be here, and nobody looked yet
            if time.monotonic() - each.since > SECONDS:
                self._close(each)
        if not self._place(new):
            spare = self._spare
            asking = self._asking
            if len(spare) + len(asking) >= RESERVED:
                self._close(
                    next(iter(spare)) if len(spare) >= len(asking) else next(reversed(asking))
                )
            spare[new] = None
        return new

    async def wait(self, connection: OpenConnection) -> bool:
        """Wait for its place, now that its request is here. False: there was none in time, or
        it is closed.
        """
        if connection in self._spare:
            del self._spare[connection]
            self._asking[connection] = None
            end = time.monotonic() + PATIENCE
            while connection in self._asking and time.monotonic() < end:
                self._place_first()
                with suppress(TimeoutError):
                    await asyncio.wait_for(connection.placed.wait(), LOOK)
        return connection.is_open and connection.placed.is_set()

    def ends(self, connection: OpenConnection) -> bool:
        """Whether somebody else has its place after this answer."""
        own = self._peers.get(connection.peer, ())
        return bool(self._asking) and self._most // 2 < self._clients(own)[connection.proven]

    def _place_first(self) -> None:
        while self._asking and self._place(next(iter(self._asking))):
            pass

    def _place(self, connection: OpenConnection) -> bool:
        """Give it a place, if there is one or somebody makes room."""
        own = self._peers.get(connection.peer, {})
        if self._count >= self._most:
            if (victim := self._victim(len(own))) is None:
                return False
            self._close(victim)
        self._asking.pop(connection, None)
        self._peers.setdefault(connection.peer, {})[connection] = None
        self._count += 1
        connection.placed.set()
        return True

    def _clients(self, own: Iterable[OpenConnection]) -> Counter[str]:
        """How many of a peer's connections each client has; nobody's are too many."""
        clients = Counter(each.proven for each in own)
        clients[""] += self._most
        return clients

    def _victim(self, own: int) -> OpenConnection | None:
        """Whose place somebody has who comes from a peer with `own` connections; None:
        nobody's.
        """
        peers = self._peers.items()
        most = max(
            peers, key=lambda each: len(each[1]) // (8 if self._is_proxy(each[0]) else 1)
        )[1]
        clients = self._clients(most)
        old = time.monotonic() - LOOK
        yielding = [each for each in most if clients[each.proven] > self._most // 2]
        chosen = [each for each in yielding if each.waits and each.since < old]
        if own + 1 < len(most):
            chosen += yielding
        if clients[""] == self._most:  # all have proved something
            chosen += [each for each in most if each.waits]
        return next(iter(chosen), None)

    def change(self, connection: OpenConnection, *, waits: bool) -> None:
        """It has sent a whole request now, or the next thing is up to its other end."""
        if connection.waits != waits:
            connection.waits = waits
            connection.since = time.monotonic()
            own = self._peers.get(connection.peer, {})
            if connection in own:
                del own[connection]
                own[connection] = None

    def remove(self, connection: OpenConnection) -> None:
        """It is closed."""
        self._forget(connection)
        self._place_first()

    def _forget(self, connection: OpenConnection) -> None:
        connection.is_open = False
        self._spare.pop(connection, None)
        self._asking.pop(connection, None)
        own = self._peers.get(connection.peer, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._peers[connection.peer]

    def _close(self, connection: OpenConnection) -> None:
        self._forget(connection)
        connection.abort()

    def only_health(self, application: ASGIApp, connection: OpenConnection) -> ASGIApp:
        """The application for a spare connection: health at once, all else when it has a
        place.
        """

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] in HEALTH or await self.wait(connection):
                await application(scope, receive, send)
                return
            full: RequestRefused = unavailable()
            full.headers["Connection"] = "close"
            await problem(full)(scope, receive, send)

        return answer
