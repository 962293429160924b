"""Who makes room when all places are taken."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentgate.identity import connection
from agentgate.service import line, process
from agentgate.service.line import HEALTH, LOOK, RESERVED, ROOM, SECONDS, SMALL, Connections, OpenConnection
from tests.served import in_thread


class Desk:
    """Eight places, and what was closed, by name."""

    def __init__(self, most: int = 8, proxy: str = "") -> None:
        self.all = Connections(most, lambda peer: peer == proxy)
        self.closed: list[str] = []

    def open(self, name: str, *, waits: bool = True, proven: bool | str = False) -> OpenConnection:
        """`name`: the peer, and which of its connections. `proven`: as this client, or as one of its own."""
        made = self.all.add(name.split("-", maxsplit=1)[0], lambda: self.closed.append(name))
        made.proven = proven if isinstance(proven, str) else name * proven
        self.all.change(made, waits=waits)
        return made


def test_a_peer_has_half_of_the_places_for_connections_that_have_not_sent_a_request() -> None:
    desk = Desk()
    old = [desk.open(f"a-{number}") for number in range(6)]
    assert desk.closed == []  # their requests may be here
    for each in old[:4]:
        each.since -= SECONDS
    desk.open("b-0")
    desk.open("a-6")
    assert desk.closed == ["a-0", "a-1", "a-2"]


def test_requests_and_proofs_are_no_part_of_that_half_and_neither_is_a_proxy() -> None:
    desk = Desk(proxy="p")
    desk.open("a-asks", waits=False)
    for number in range(6):
        desk.open(f"a-{number}", proven=True).since -= SECONDS
    assert desk.closed == []
    other = Desk(proxy="p")
    for number in range(8):
        other.open(f"p-{number}").since -= SECONDS
    assert other.closed == []


def test_addresses_of_one_subscriber_are_one_peer() -> None:
    desk = Desk()
    for number in range(6):
        desk.open(f"2001:db8::{number}-x").since -= SECONDS
    assert len(desk.closed) == 2


def test_where_all_places_are_taken_whoever_has_most_makes_room() -> None:
    for kinds, gone in (
        ([{}, {"waits": False}], "a-0"),
        ([{"waits": False}], "a-0"),
        ([{"waits": False, "proven": True}, {"proven": True}], "a-1"),
        ([{"proven": True}, {"proven": True}, {}], "a-2"),
    ):
        desk = Desk()
        for number in range(6):
            desk.open(f"a-{number}", **kinds[number % len(kinds)])
        for number in range(2):
            desk.open(f"b-{number}", waits=False)
        assert (desk.open("c-0").placed.is_set(), desk.closed) == (True, [gone]), kinds


def test_a_newcomer_pushes_no_request_of_its_own_peer_out_that_had_no_answer_yet() -> None:
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False)
    assert (desk.open("a-8").placed.is_set(), desk.closed) == (False, [])
    assert (desk.open("b-0").placed.is_set(), desk.closed) == (True, ["a-0"])


def test_who_was_answered_longest_ago_goes_first() -> None:
    desk = Desk()
    opened = [desk.open(f"a-{number}", waits=False) for number in range(8)]
    for each in (opened[5], opened[2]):
        desk.all.change(each, waits=True)
        each.since -= LOOK
    desk.open("b-0")
    desk.open("c-0")
    assert desk.closed == ["a-5", "a-2"]


def test_who_came_just_now_makes_room_for_nobody_of_its_peer() -> None:
    """Its request may be here: an attacker that is closed comes back at once, and would close whoever came in between."""
    desk = Desk()
    first, *_ = [desk.open(f"a-{number}") for number in range(8)]
    assert (desk.open("a-8").placed.is_set(), desk.closed) == (False, [])
    first.since -= LOOK
    assert (desk.open("a-9").placed.is_set(), desk.closed) == (True, ["a-0"])


async def test_one_client_keeps_half_of_the_places_from_others_of_its_address() -> None:
    """A job proves itself on more connections than there are places: whoever shares its address would find none."""
    desk = Desk()
    jobs = [desk.open(f"a-{number}", proven="job") for number in range(8)]
    for each in jobs:
        each.since -= LOOK
    for number in range(6):
        desk.open(f"a-more-{number}", waits=False)
    assert desk.closed == [f"a-{number}" for number in range(4)]
    busy = Desk()
    jobs = [busy.open(f"a-{number}", waits=False, proven="job") for number in range(8)]
    waiting = asyncio.ensure_future(busy.all.wait(busy.open("a-honest")))
    await asyncio.sleep(0)
    for each in jobs:
        if busy.all.ends(each):
            busy.all.remove(each)
    assert await waiting
    assert [each.is_open for each in jobs] == [False] + [True] * 7
    other = Desk()
    for number in range(8):
        other.open(f"a-{number}", proven=f"client-{number % 2}")
    other.open("a-more")
    other.open("a-more")
    assert other.closed == ["a-0"]


async def test_whoever_waits_for_a_place_has_the_next_that_an_answer_ends_in_turn() -> None:
    desk = Desk()
    opened = [desk.open(f"a-{number}", waits=False, proven="job" * (number < 3)) for number in range(8)]
    assert not any(map(desk.all.ends, opened))  # nobody waits
    waiting = [asyncio.ensure_future(desk.all.wait(desk.open(f"a-{number}"))) for number in range(8, 11)]
    await asyncio.sleep(0)
    assert list(map(desk.all.ends, opened)) == [False] * 3 + [True] * 5
    desk.all.remove(opened[4])
    assert await waiting[0]
    assert not any(each.done() for each in waiting[1:])
    for each in opened[5:7]:
        desk.all.remove(each)
    assert await asyncio.gather(*waiting) == [True] * 3
    assert not any(map(desk.all.ends, opened[:4]))


async def test_who_hangs_up_while_it_waits_for_a_place_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    opened = [desk.open(f"a-{number}", waits=False) for number in range(8)]
    gone, other = desk.open("a-gone", waits=False), desk.open("a-other", waits=False)
    waiting = [asyncio.ensure_future(desk.all.wait(each)) for each in (gone, other)]
    await asyncio.sleep(0)
    desk.all.remove(gone)
    assert not any(each.done() for each in waiting)
    desk.all.remove(opened[0])
    async with asyncio.timeout(5):  # and waits no longer
        assert await asyncio.gather(*waiting) == [False, True]
    monkeypatch.setattr("agentgate.service.line.PLACE_SECONDS", 0.0)
    assert not await desk.all.wait(desk.open("a-late", waits=False))


async def test_a_silent_connection_makes_room_for_whoever_waits_for_a_place() -> None:
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}")
    assert await desk.all.wait(desk.open("a-8"))
    assert desk.closed == ["a-0"]


def test_spare_connections_push_out_only_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "ROOM", 0)
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False, proven=True)
    spare = [desk.open(f"b-{number}") for number in range(2 * RESERVED + 3)]
    assert not any(each.placed.is_set() for each in spare)
    assert desk.closed == ["b-0", "b-1", "b-2"]


async def test_of_spare_connections_the_oldest_silent_one_goes_and_none_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits keeps its turn, and there is room for whoever asks for the process's health."""
    monkeypatch.setattr(line, "ROOM", 0)
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False, proven=True)
    waiting = [asyncio.ensure_future(desk.all.wait(desk.open(f"b-{number}"))) for number in range(RESERVED)]
    await asyncio.sleep(0)
    for number in range(RESERVED + 3):
        desk.open(f"c-{number}")
    assert desk.closed == ["c-0", "c-1", "c-2"]
    assert not await desk.all.wait(desk.open("d-0")), "there is no room to wait"
    assert desk.closed == ["c-0", "c-1", "c-2", "c-3"]
    assert not any(each.done() for each in waiting)
    for each in waiting:
        each.cancel()


def test_where_many_wait_each_has_sent_little() -> None:
    desk = Desk()
    first, *_ = [desk.open(f"a-{number}", waits=False, proven=True) for number in range(8)]
    spare = [desk.open(f"b-{number}") for number in range(RESERVED + 1)]
    assert desk.all.take_bytes(spare[0], SMALL)
    assert not desk.all.take_bytes(spare[0], 1)
    assert desk.all.take_bytes(first, 2 * SMALL)
    desk.all.remove(spare[1])
    assert desk.all.take_bytes(spare[0], 1)


def test_who_sends_much_and_waits_is_closed_where_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "RESERVED", 1)
    places = Connections(1, lambda _: False)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"connections": places}

    async def never(_: Any) -> PlainTextResponse:
        await asyncio.sleep(3)
        return PlainTextResponse("x")

    app = Starlette(routes=[Route("/", never)], lifespan=lifespan)
    with in_thread(app, http=process._Patient) as port, ExitStack() as sockets:
        opened = [sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(3)]
        for each in opened[:2]:
            each.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionError):
            opened[2].sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2 * SMALL)
            assert opened[2].recv(1) == b""
        opened[1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            opened[1].recv(1)


@pytest.mark.parametrize(("soft", "hard", "room"), [(900, 9000, ROOM), (900, 2000, 2000 - 1024), (900, 900, RESERVED)])
def test_as_many_wait_as_the_process_may_have_files(soft: int, hard: int, room: int) -> None:
    code = f"""
import resource
from agentgate.service.line import Connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(Connections(512, bool)._room, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [int(each) for each in told] == [room, min(hard, 1024 + ROOM), hard]


def test_a_place_that_is_left_is_free_again() -> None:
    desk = Desk(most=2)
    first, second = desk.open("a-0", waits=False), desk.open("b-0", waits=False)
    assert not desk.open("c-0").placed.is_set()
    for each in (first, first, second):
        desk.all.remove(each)
        assert not each.is_open
    assert [desk.open(f"d-{number}", waits=False).placed.is_set() for number in range(3)] == [True, True, False]


async def test_on_a_spare_connection_only_health_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def every(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("ok")(scope, receive, send)

    places = Connections(1, lambda _: False)
    places.change(places.add("a", bool), waits=False)
    monkeypatch.setattr("agentgate.service.line.PLACE_SECONDS", 0.0)
    spare = places.only_health(every, places.add("a", bool))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(spare), base_url="http://x") as http:
        assert [(await http.get(path)).status_code for path in sorted(HEALTH)] == [200] * 3
        told = await http.post("/oauth2/token")
    assert (told.status_code, told.headers["Retry-After"], told.headers["Connection"]) == (503, "2", "close")


@pytest.mark.parametrize("count", [1, 20], ids=["one answer", "one after another"])
def test_who_takes_no_answer_is_disconnected(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(process, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(process, "HEADER_SECONDS", 1)
    places = Connections(8, lambda _: False)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"connections": places}

    async def large(_: Any) -> PlainTextResponse:
        return PlainTextResponse("x" * 8_000_000)

    app = Starlette(routes=[Route("/", large)], lifespan=lifespan)
    with in_thread(app, http=process._Patient) as port, socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        deadline = time.monotonic() + 10
        while not places._peers:
            time.sleep(0.01)
        (own,) = places._peers.values()
        time.sleep(0.5)
        assert [each.waits for each in own] == [True]  # it waits for who reads nothing
        while places._peers:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_whether_a_peer_is_a_proxy_is_not_read_anew_for_each_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = ("10.20.0.0/16", "unix:33")
    assert connection.inside("10.20.3.4", connection.networks(proxies))
    monkeypatch.setattr(ipaddress, "ip_network", None)  # a flood from many addresses asks of each
    assert not connection.inside("203.0.113.9", connection.networks(proxies))
