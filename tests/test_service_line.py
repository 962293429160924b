"""Who waits for an issuer that hangs takes nobody's turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from agentgate.service.line import AT_ONCE, WaitingLine
from agentgate.service.served import ServedGate
from agentgate.shell.step import Outside
from tests.test_gate import WEEKDAY


class Door:
    """A served gate and its line; `open` lets those go on who wait outside."""

    def __init__(self, gate: ServedGate) -> None:
        self.gate, self.line, self.open, self.outside = gate, WaitingLine(), threading.Event(), threading.Semaphore(0)

    def wait(self) -> None:
        self.outside.release()
        self.open.wait(30)

    async def ask(self, flow: Generator[Any, Any, str]) -> str:
        with self.line.stand() as turn:
            await turn()
            return str(await self.gate.drive(flow))

    async def all_wait(self, count: int) -> None:
        for _ in range(count):
            await asyncio.to_thread(self.outside.acquire)


@asynccontextmanager
async def door(folder: Path) -> AsyncIterator[Door]:
    gate = await ServedGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY, store="memory://"
    )
    made = Door(cast("ServedGate", gate))
    try:
        yield made
    finally:
        made.open.set()
        await gate.close()


def hanging(made: Door) -> Generator[Any, Any, str]:
    yield Outside(made.wait, 30.0, own_thread=True)
    return "waited"


def at_once() -> Generator[Any, Any, str]:
    yield from ()
    return "answered"


async def test_issuers_that_hang_stop_no_request_that_does_not_ask_them(folder: Path) -> None:
    async with door(folder) as made:
        waiting = [asyncio.ensure_future(made.ask(hanging(made))) for _ in range(AT_ONCE)]
        await made.all_wait(AT_ONCE)
        assert await made.ask(at_once()) == "answered"
        assert not any(each.done() for each in waiting)
        made.open.set()
        assert await asyncio.gather(*waiting) == ["waited"] * AT_ONCE


async def test_whoever_waited_outside_stands_in_line_again(folder: Path) -> None:
    async with door(folder) as made:
        waiting = asyncio.ensure_future(made.ask(hanging(made)))
        await made.all_wait(1)
        leave = asyncio.Event()

        async def stays() -> None:
            with made.line.stand() as turn:
                await turn()
                await leave.wait()

        others = [asyncio.ensure_future(stays()) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)
        made.open.set()
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        leave.set()
        assert await waiting == "waited"
        await asyncio.gather(*others)
