"""The line before the gate: requests whose body is here wait for their turn, in order, before the clock of their call starts.

Rules: a gate decides in a fraction of a second or refuses; too many at once would all be late. So as many are under way as are answered in
time, and the others stand in line, for `PATIENCE` at most. Who is slow with a body stops nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from agentgate.errors import Overloaded

AT_ONCE = 16
PATIENCE = 2.0  # seconds in line


class WaitingLine:
    """The line of one process."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def stand(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """For one request: what it awaits when its body is here; the turn ends with the block.

        Raises:
            Overloaded: (when it is awaited) it had no turn in time.
        """
        held = False

        async def turn() -> None:
            nonlocal held
            if held:
                return
            try:
                async with asyncio.timeout(PATIENCE):
                    held = await self._turns.acquire()
            except TimeoutError:
                raise Overloaded(AT_ONCE, AT_ONCE) from None

        try:
            yield turn
        finally:
            if held:
                self._turns.release()
