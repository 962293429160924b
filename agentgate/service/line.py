"""The line before the gate: requests whose body is here wait for their turn, in order, before the clock of their call starts.

Rules: a gate decides in a fraction of a second or refuses; too many at once would all be late. So as many are under way as are answered in
time, and the others stand in line, for `PATIENCE` at most. Who is slow with a body stops nobody. Nor does who waits for an issuer's keys:
that request gives its turn back, and stands in line again when they are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from agentgate.errors import Overloaded

AT_ONCE = 16
PATIENCE = 2.0  # seconds in line


class _Turn:
    """That of one request, as a context: inside it stands in line, or has its turn."""

    __slots__ = ("_before", "_turns", "held")

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns, self.held = turns, False

    def __enter__(self) -> Callable[[], Awaitable[None]]:
        self._before = _mine.set(self)
        return self.take

    def __exit__(self, *_: object) -> None:
        _mine.reset(self._before)
        self.leave()

    async def take(self) -> None:
        """Wait for it. Raises Overloaded: it did not come in time."""
        if self.held:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                self.held = await self._turns.acquire()
        except TimeoutError:
            raise Overloaded(AT_ONCE, AT_ONCE) from None

    def leave(self) -> None:
        """Let somebody else have it."""
        if self.held:
            self.held = False
            self._turns.release()


_mine: ContextVar[_Turn] = ContextVar("agentgate.service.line")  # of the request that a task answers


class WaitingLine:
    """The line of one process."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    def stand(self) -> _Turn:
        """For one request, as a context of what it awaits when its body is here; the turn ends with the block.

        Raises:
            Overloaded: (when it is awaited) it had no turn in time.
        """
        return _Turn(self._turns)


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
    await turn.take()
