"""Who waits for an issuer that hangs takes nobody's turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import ClientDisconnect

from agentgate.errors import Overloaded
from agentgate.service.line import AT_ONCE, OpenConnection, WaitingLine
from agentgate.service.served import ServedGate
from agentgate.shell.step import Outside
from tests.shop import WEEKDAY

CONNECTION = OpenConnection("", bool)


class Door:
    """A served gate and its line; `open` lets those go on who wait outside."""

    def __init__(self, gate: ServedGate) -> None:
        self.gate, self.line, self.open, self.outside = gate, WaitingLine(), threading.Event(), threading.Semaphore(0)

    def wait(self) -> None:
        self.outside.release()
        self.open.wait(30)

    async def ask(self, flow: Generator[Any, Any, str]) -> str:
        with self.line.stand("", CONNECTION) as turn:
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


async def test_addresses_take_turns_and_in_each_the_clients_that_are_claimed() -> None:
    line, order = WaitingLine(1), list[str]()

    async def ask(address: str, client: str, *, proven: bool = False) -> None:
        with line.stand(address, OpenConnection("", bool, proven=client * proven)) as turn:
            await turn(client)
            order.append(f"{address}{client}{'!' if proven else ''}")

    asked = [("a", "x")] * 5 + [("a", "y"), ("b", "x")]
    with line.stand("", CONNECTION) as first:
        await first()
        waiting = [asyncio.ensure_future(ask(*each)) for each in asked]
        waiting += [asyncio.ensure_future(ask("a", "x", proven=True)) for _ in range(2)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == ["ax!", "ax", "ax!", "bx", "ay", "ax", "ax", "ax", "ax"]


async def test_in_each_round_of_the_event_loop_no_more_begin_than_there_are_turns() -> None:
    """Junk ends without waiting for anything: a thousand of it in one round would make every call late that is under way."""
    line, rounds, now = WaitingLine(4), dict[int, int](), 0

    async def junk() -> None:
        with line.stand("", CONNECTION) as turn:
            await turn()
            rounds[now] = rounds.get(now, 0) + 1

    waiting = [asyncio.ensure_future(junk()) for _ in range(20)]
    for now in range(20):  # noqa: B007 - which round it is
        await asyncio.sleep(0)
    assert all(each.done() for each in waiting)
    assert set(rounds.values()) == {4}


async def test_who_gives_up_in_line_takes_no_turn_along() -> None:
    line = WaitingLine(1)

    async def ask() -> None:
        with line.stand("", CONNECTION) as turn:
            await turn()

    for rounds in range(4):  # cancelled while it waits, and when its turn has just come
        with line.stand("", CONNECTION) as first:
            await first()
            waiting, behind = asyncio.ensure_future(ask()), asyncio.ensure_future(ask())
            await asyncio.sleep(0)
        for _ in range(rounds):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.wait_for(behind, 1)


async def test_who_hangs_up_leaves_the_line() -> None:
    """A request that is sent and given up costs its sender nothing: a thousand a second would keep everybody else waiting."""
    line, order, names = WaitingLine(1), list[str](), ("before it stood there", "while it did", "honest", "later")
    connections = {name: OpenConnection("", bool) for name in names}

    async def ask(name: str) -> None:
        with line.stand("", connections[name]) as turn:
            await turn()
            order.append(name)

    with line.stand("", CONNECTION) as first:
        await first()
        connections["before it stood there"].is_open = False
        waiting = [asyncio.ensure_future(ask(name)) for name in names[:3]]
        await asyncio.sleep(0)
        connections["while it did"].is_open = False
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [ClientDisconnect, ClientDisconnect, type(None)]
    with line.stand("", CONNECTION) as only:  # no turn was lost, and none was made
        await only()
        later = asyncio.ensure_future(ask("later"))
        for _ in range(4):
            await asyncio.sleep(0)
        assert not later.done()
    await later
    assert order == ["honest", "later"]


async def test_whose_turn_did_not_come_waits_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.service.line.PATIENCE", 0.01)
    line = WaitingLine(1)
    with line.stand("", CONNECTION) as first, line.stand("", CONNECTION) as second:
        await first()
        with pytest.raises(Overloaded):
            await second()
        await second()  # as its refusal is answered
        assert not second.held


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
            with made.line.stand("", CONNECTION) as turn:
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
