"""The open connections of one process: who makes room when there are too many.

Rules: connections that say nothing, or say it slowly (Slowloris), keep nobody out. One peer has at most half of the places for connections
that did not send a whole request within `SECONDS`; beyond it, its oldest such ones are closed. Where all are taken, the peer with the
most pays: with one that waits, else with one that was answered before and proved nothing, else, if the newcomer's peer has fewer even then,
with one that has proved nothing yet. A connection on which a proof succeeded is closed last; of one client half
of the places at most are so, or a job with a credential could keep out whoever shares its address. Beyond the places there is room for
`RESERVED` that ask for the process's health; others learn there that it is full.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from agentgate.identity.connection import counted
from agentgate.service.answer import RequestRefused, problem, unavailable

HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
RESERVED = 64
SECONDS = 1.0


@dataclass(slots=True, eq=False)
class OpenConnection:
    """One of them.

    Attributes:
        peer: as whom its other end is counted.
        abort: closes it at once.
        is_open: it was not closed yet.
        waits: it has not sent a whole request, or does not take its answer.
        proven: the client whose proof succeeded in its last request; empty: none did.
        answered: it had an answer before.
        spare: it is beyond the places.
        since: monotonic seconds of when it began to wait, or ended to.
    """

    peer: str
    abort: Callable[[], object]
    is_open: bool = True
    waits: bool = True
    proven: str = ""
    answered: bool = False
    spare: bool = False
    since: float = field(default_factory=time.monotonic)


class Connections:
    """See the module.

    Args:
        most: places.
        is_proxy: whether a peer brings many callers: it may have as many as there are, and each counts for an eighth.
    """

    def __init__(self, most: int, is_proxy: Callable[[str], bool]) -> None:
        self._most, self._is_proxy = most, is_proxy
        self._peers: dict[str, dict[OpenConnection, None]] = {}  # each peer's, those first that changed longest ago
        self._spare: dict[OpenConnection, None] = {}
        self._count = 0  # without the spare ones

    def add(self, peer: str, abort: Callable[[], object]) -> OpenConnection:
        """Take a new connection in. Where there is no place, it is a spare one."""
        new = OpenConnection(counted(peer), abort)
        own = self._peers.get(new.peer, {})
        waiting = [] if self._is_proxy(peer) else [each for each in own if each.waits and not each.proven]
        for each in waiting[: max(0, len(waiting) + 1 - self._most // 2)]:
            if time.monotonic() - each.since > SECONDS:  # else its request may be here, and nobody looked yet
                self._close(each)
        if self._count >= self._most and (victim := self._victim(len(own))) is not None:
            self._close(victim)
        if self._count < self._most:
            self._peers.setdefault(new.peer, {})[new] = None
            self._count += 1
            return new
        new.spare = True
        if len(self._spare) >= RESERVED:
            self._close(next(iter(self._spare)))
        self._spare[new] = None
        return new

    def _victim(self, own: int) -> OpenConnection | None:
        """Whose place somebody has who comes from a peer with `own` connections; None: nobody's."""
        most = max(self._peers.items(), key=lambda each: len(each[1]) // (8 if self._is_proxy(each[0]) else 1))[1]
        clients = Counter(each.proven for each in most)
        clients[""] += self._most  # nobody's

        def is_first(each: OpenConnection) -> bool:
            return clients[each.proven] > self._most // 2

        chosen: tuple[Callable[[OpenConnection], bool], ...] = (
            lambda each: each.waits and is_first(each),
            lambda each: each.answered and is_first(each),
            lambda each: is_first(each) and own + 1 < len(most),
            lambda each: each.waits,
        )
        return next((each for fits in chosen for each in most if fits(each)), None)

    def change(self, connection: OpenConnection, *, waits: bool) -> None:
        """It has sent a whole request now, or the next thing is up to its other end."""
        if connection.waits != waits:
            connection.waits, connection.since = waits, time.monotonic()
            own = self._peers.get(connection.peer, {})
            if connection in own:
                del own[connection]
                own[connection] = None

    def remove(self, connection: OpenConnection) -> None:
        """It is closed."""
        connection.is_open = False
        self._spare.pop(connection, None)
        own = self._peers.get(connection.peer, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._peers[connection.peer]

    def _close(self, connection: OpenConnection) -> None:
        self.remove(connection)
        connection.abort()


def only_health(application: ASGIApp) -> ASGIApp:
    """The application for a spare connection."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in HEALTH:
            await application(scope, receive, send)
            return
        full: RequestRefused = unavailable()
        full.headers["Connection"] = "close"
        await problem(full)(scope, receive, send)

    return answer
