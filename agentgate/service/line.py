"""Who is served when: the open connections of one process, the line before the gate, and how often a
proven client may ask.

*Connections* have places. A new one has a place where one is free. Where all are taken, only a
whole request takes one from somebody; a connection that says nothing, half a head or half a
body (Slowloris) asks for none. An attacker whose silent connections are closed comes back at
once: a process that closed one for each would do nothing else, and be late with every call.
Who has a place and is silent keeps nobody out, since a request takes it: the peer with the most
pays, with one that waits, once a request that came with it would have been looked at, else, if
the newcomer's peer has fewer even then, with one that has proved nothing yet. A connection on
which a proof succeeded is closed last; of one client half of the places at most are so, or a
job with a credential could keep out whoever shares its address.

Beyond the places there is room for `ROOM` requests that wait for one, and for `RESERVED`
connections that have asked for nothing yet; of these the oldest is closed where all the room is
taken. The process's health is told at once. Others have a place in turn; while some wait, who
proved nothing has one answer on a connection. One that waits comes no faster than it is
answered. So there is room for many, and patience for as many answers to junk.

*The line*: requests whose body is here wait for their turn before the clock of their call
starts. A gate decides in a fraction of a second or refuses; too many at once would all be late.
So as many are under way as are answered in time, and the others stand in line, for `PATIENCE`
at most. Addresses take turns, and in each of them the clients that its callers claim to be:
junk delays whoever claims the same from the same address, and nobody else. Half of the turns
are for connections on which a proof succeeded last, which nobody else can bring. In each round
of the event loop at most as many begin as there are turns: junk, which ends at once, makes no
call late that is under way. Who is slow with a body stops nobody. Nor does who waits for an
issuer's keys: that request gives its turn back, and stands in line again when they are there.
Who hangs up leaves the line: else more could stand in it than there are connections.

How often a proven client may ask is a bucket each, of this process (`Rates`).
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Self

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from agentgate.errors import Overloaded
from agentgate.identity.connection import counted
from agentgate.service.messages import problem, unavailable

HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
RESERVED = 256
ROOM = 4096
SMALL = 16 * 1024  # bytes that each of more than `RESERVED` may have sent
LOOK = 0.1  # seconds after which a request that came with its connection was looked at
PLACE_SECONDS = 10.0  # seconds for a place


def _allow_files(wanted: int) -> int:
    """Let this process have so many open files, as far as its hard limit goes; how many it may
    have of these.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard < 0 else min(wanted, hard)  # -1: there is none
    if 0 <= soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


@dataclass(slots=True, eq=False)
class OpenConnection:
    """One of them.

    Attributes:
        peer: as whom its other end is counted.
        abort: closes it at once.
        is_open: it was not closed yet.
        waits: it has not sent a whole request, or does not take its answer.
        proven: the client whose proof succeeded in its last request; empty: none did.
        asks: a whole request is here, or as much of one as is read without a place.
        placed: it has a place.
        size: bytes that it has sent.
        since: monotonic seconds of when it began to wait, or ended to.
    """

    peer: str
    abort: Callable[[], object]
    is_open: bool = True
    waits: bool = True
    proven: str = ""
    asks: asyncio.Event = field(default_factory=asyncio.Event)
    placed: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0
    since: float = field(default_factory=time.monotonic)


class Connections:
    """See the module.

    Args:
        most: places.
        is_proxy: whether a peer brings many callers: each counts for an eighth.
    """

    def __init__(self, most: int, is_proxy: Callable[[str], bool]) -> None:
        self._most = most
        self._is_proxy = is_proxy
        # each peer's, those first that changed longest ago
        self._peers: dict[str, dict[OpenConnection, None]] = {}
        self._spare: dict[OpenConnection, None] = {}  # without a place
        self._asking: dict[OpenConnection, None] = {}
        self._looks: asyncio.TimerHandle | None = None
        self._count = 0  # with a place
        beside = most + 2 * RESERVED  # the process has other files, too
        self._room = max(RESERVED, _allow_files(beside + ROOM) - beside)

    def add(self, peer: str, abort: Callable[[], object]) -> OpenConnection:
        """Take a new connection in. Where no place is free, it is a spare one: it asks for
        nothing yet, so nobody makes room for it.
        """
        new = OpenConnection(counted(peer), abort)
        if self._count < self._most:
            self._place(new)
        else:
            # of these `RESERVED` at least have asked for nothing
            if len(self._spare) + len(self._asking) >= self._room + RESERVED:
                self._close(next(iter(self._spare)))
            self._spare[new] = None
        return new

    def take_bytes(self, connection: OpenConnection, size: int) -> bool:
        """Whether there is room for so many bytes more: many wait, so what each holds is
        little.
        """
        connection.size += size
        return (
            connection.placed.is_set()
            or connection.size <= SMALL
            or len(self._spare) + len(self._asking) <= RESERVED
        )

    async def wait(self, connection: OpenConnection) -> bool:
        """Wait for its request, and then for its place. False: there was none in time, or no
        room to wait, or it is closed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(PLACE_SECONDS):
                await connection.asks.wait()
                if connection in self._spare and len(self._asking) < self._room:
                    del self._spare[connection]
                    self._asking[connection] = None
                    if self._looks is None:
                        self._look_again()
                    await connection.placed.wait()
        self._asking.pop(connection, None)
        return connection.is_open and connection.placed.is_set()

    def _look_again(self) -> None:
        """From time to time, while somebody waits: who is silent makes room."""
        self._place_first(close=True)
        self._looks = (
            asyncio.get_running_loop().call_later(LOOK, self._look_again)
            if self._asking
            else None
        )

    def ends(self, connection: OpenConnection) -> bool:
        """Whether somebody else has its place after this answer."""
        if not connection.proven or not self._asking:
            return bool(self._asking)
        own = self._peers.get(connection.peer, ())
        return sum(each.proven == connection.proven for each in own) > self._most // 2

    def _place_first(self, *, close: bool = False) -> None:
        """Give places to those who ask, in turn: what is free, or what is `close`d for them."""
        while self._asking and (close or self._count < self._most):
            first = next(iter(self._asking))
            if self._count >= self._most:
                if (victim := self._victim(first)) is None:
                    return
                self._close(victim)
            self._place(first)

    def _place(self, connection: OpenConnection) -> None:
        self._asking.pop(connection, None)
        self._peers.setdefault(connection.peer, {})[connection] = None
        self._count += 1
        connection.placed.set()

    def _victim(self, asking: OpenConnection) -> OpenConnection | None:
        """Whose place it has; None: nobody's."""
        most = max(
            self._peers.items(),
            key=lambda each: len(each[1]) // (8 if self._is_proxy(each[0]) else 1),
        )[1]
        clients = Counter(each.proven for each in most)
        old = time.monotonic() - LOOK
        yielding = [
            each for each in most if not each.proven or clients[each.proven] > self._most // 2
        ]
        chosen = [each for each in yielding if each.waits and each.since < old]
        if len(self._peers.get(asking.peer, ())) + 1 < len(most):
            chosen += yielding
        if not clients[""]:  # all have proved something
            chosen += [each for each in most if each.waits]
        return next(iter(chosen), None)

    def change(self, connection: OpenConnection, *, waits: bool) -> None:
        """It has sent a whole request now, or the next thing is up to its other end."""
        (connection.asks.clear if waits else connection.asks.set)()
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
        connection.asks.set()  # it waits no more
        self._spare.pop(connection, None)
        if connection in self._asking:
            del self._asking[connection]
            connection.placed.set()
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
            if (
                connection.placed.is_set()
                or scope["path"] in HEALTH
                or await self.wait(connection)
            ):
                await application(scope, receive, send)
                return
            full = problem(unavailable())
            full.headers["Connection"] = "close"
            await full(scope, receive, send)

        return answer


BURST = 10  # seconds' worth at once
POLL_SECONDS = 5  # between two questions after one deferred token
_KEPT = 20_000  # buckets; those asked for longest ago are forgotten, which only fills them


class Rates:
    """Token buckets by name."""

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = rate * BURST if burst is None else burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float | None = None) -> float:
        """Take one. 0: it was there; else the seconds until there is one. `now`: monotonic
        seconds.
        """
        at = time.monotonic() if now is None else now
        left, since = self._buckets.pop(name, (self._burst, at))
        left = min(self._burst, left + (at - since) * self._rate)
        taken = left >= 1
        self._buckets[name] = (left - taken, at)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate


AT_ONCE = 16
PATIENCE = 2.0  # seconds in line
Waiting = asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Turn:
    """That of one request, as a context: inside it stands in line, or has its turn."""

    _line: WaitingLine
    _address: str
    _connection: OpenConnection
    _client: str = ""
    _stood: bool = False
    held: bool = False

    def __enter__(self) -> Self:
        _mine.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    async def __call__(self, client: str | None = None) -> None:
        """Wait for it, as somebody who claims to be this client (None: as before).

        Raises:
            Overloaded: it did not come in time. ClientDisconnect: the caller hung up before it
                came.
        """
        if client is not None:
            self._client = client
        if self._stood:
            return
        self._stood = True
        try:
            await self._line.wait(self._address, self._client, self._connection)
        except TimeoutError:
            raise Overloaded(AT_ONCE, AT_ONCE) from None
        self.held = True

    def leave(self) -> None:
        """Let somebody else have it."""
        if self.held:
            self.held = self._stood = False
            self._line.give()


# of the request that a task answers
_mine: ContextVar[_Turn] = ContextVar("agentgate.service.line")


class _Lanes:
    """Those who wait, by address and by the client that they claim to be; each of both has its
    turns in rotation.
    """

    def __init__(self) -> None:
        self._addresses: OrderedDict[
            str, OrderedDict[str, deque[tuple[Waiting, OpenConnection]]]
        ] = OrderedDict()

    def add(
        self, address: str, client: str, waiting: Waiting, connection: OpenConnection
    ) -> None:
        self._addresses.setdefault(address, OrderedDict()).setdefault(client, deque()).append(
            (waiting, connection)
        )

    def pop(self) -> Waiting | None:
        """Whose turn it is; None: nobody waits."""
        while self._addresses:
            address, clients = self._addresses.popitem(last=False)
            client, lane = clients.popitem(last=False)
            waiting, connection = lane.popleft()
            if lane:
                clients[client] = lane
            if clients:
                self._addresses[address] = clients
            if waiting.done():  # it gave up
                continue
            if connection.is_open:
                return waiting
            waiting.set_exception(ClientDisconnect())
        return None


class WaitingLine:
    """The line of one process."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._ended = 0
        self._proven, self._others = self._lanes = _Lanes(), _Lanes()

    def stand(self, address: str, connection: OpenConnection) -> _Turn:
        """For one request, as a context of what it awaits when its body is here; the turn ends
        with the block.

        Args:
            address: as whom the caller is counted.
            connection: the caller's, on which a proof succeeded or none did; who hangs up has
                no turn.

        Raises:
            Overloaded: (when it is awaited) it had no turn in time.
        """
        return _Turn(self, address, connection)

    async def wait(self, address: str, client: str, connection: OpenConnection) -> None:
        """Until there is a turn. Raises TimeoutError: there was none in time.
        ClientDisconnect.
        """
        if self._free:  # then nobody waits
            self._free -= 1
            return
        waiting: Waiting = asyncio.get_running_loop().create_future()
        (self._proven if connection.proven else self._others).add(
            address, client, waiting, connection
        )
        async with asyncio.timeout(PATIENCE):
            try:
                await waiting
            except BaseException:
                # it had just come
                if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                    self.give()
                raise

    def give(self) -> None:
        """A turn ended: in the next round of the event loop somebody else has it."""
        self._ended += 1
        if self._ended == 1:
            asyncio.get_running_loop().call_soon(self._grant)

    def _grant(self) -> None:
        self._free += self._ended
        self._ended = 0
        while self._free:
            first, second = self._lanes
            waiting = first.pop() or second.pop()
            if waiting is None:
                return
            self._lanes = second, first
            waiting.set_result(None)
            self._free -= 1


@asynccontextmanager
async def aside() -> AsyncIterator[None]:
    """Whoever is answered here has no turn inside the block, and waits for one after it.

    Raises:
        Overloaded: it had none in time.
    """
    turn = _mine.get(None)
    if turn is None or not turn.held:
        yield
        return
    turn.leave()
    yield
    await turn()
