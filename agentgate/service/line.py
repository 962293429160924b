"""The line before the gate: requests whose body is here wait for their turn before the clock of
their call starts.

Rules: a gate decides in a fraction of a second or refuses; too many at once would all be late.
So as many are under way as are answered in time, and the others stand in line, for `PATIENCE`
at most. Addresses take turns, and in each of them the clients that its callers claim to be:
junk delays whoever claims the same from the same address, and nobody else. Half of the turns
are for connections on which a proof succeeded last, which nobody else can bring. In each round
of the event loop at most as many begin as there are turns: junk, which ends at once, makes no
call late that is under way. Who is slow with a body stops nobody. Nor does who waits for an
issuer's keys: that request gives its turn back, and stands in line again when they are there.
Who hangs up leaves the line: else more could stand in it than there are connections.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Self

from starlette.requests import ClientDisconnect

from agentgate.errors import Overloaded
from agentgate.service.connections import OpenConnection

AT_ONCE = 16
PATIENCE = 2.0  # seconds in line
Waiting = asyncio.Future[None]


class _Turn:
    """That of one request, as a context: inside it stands in line, or has its turn."""

    __slots__ = ("_address", "_before", "_client", "_connection", "_late", "_line", "held")

    def __init__(self, line: WaitingLine, address: str, connection: OpenConnection) -> None:
        self._line = line
        self._address = address
        self._connection = connection
        self._client = ""
        self._late = False
        self.held = False

    def __enter__(self) -> Self:
        self._before = _mine.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _mine.reset(self._before)
        self.leave()

    async def __call__(self, client: str | None = None) -> None:
        """Wait for it, as somebody who claims to be this client (None: as before).

        Raises:
            Overloaded: it did not come in time. ClientDisconnect: the caller hung up before it
                came.
        """
        self._client = self._client if client is None else client
        if self.held or self._late:
            return
        self._late = True
        try:
            await self._line.wait(self._address, self._client, self._connection)
        except TimeoutError:
            raise Overloaded(AT_ONCE, AT_ONCE) from None
        self.held = True
        self._late = False

    def leave(self) -> None:
        """Let somebody else have it."""
        if self.held:
            self.held = False
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
        self._free = self._free + self._ended
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
