"""Who makes room when all places are taken."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentgate.identity import connection
from agentgate.service import line, process
from agentgate.service.line import HEALTH, LOOK, RESERVED, ROOM, SMALL, Connections, OpenConnection
from tests.preloaded import run_code
from tests.served import in_thread


class Desk:
    """Eight places, and what was closed, by name."""

    def __init__(self, most: int = 8, proxy: str = "") -> None:
        self.all = Connections(most, lambda peer: peer == proxy)
        self.closed: list[str] = []
        self.waiting: dict[str, asyncio.Future[bool]] = {}

    def open(self, name: str, *, waits: bool = True, proven: bool | str = False) -> OpenConnection:
        """`name`: the peer, and which of its connections. `proven`: as this client, or as one of its own."""
        made = self.all.add(name.split("-", maxsplit=1)[0], lambda: self.closed.append(name))
        made.proven = proven if isinstance(proven, str) else name * proven
        self.all.change(made, waits=waits)
        return made

    async def ask(self, name: str) -> OpenConnection:
        """Open one whose whole request is here, and let it ask for a place."""
        made = self.open(name, waits=False)
        self.waiting[name] = asyncio.ensure_future(self.all.wait(made))
        await asyncio.sleep(0)
        return made


async def test_of_a_proxy_each_counts_for_an_eighth() -> None:
    for proxy, gone in (("", ["p-0"]), ("p", ["a-0"])):
        desk = Desk(proxy=proxy)
        for number in range(6):
            desk.open(f"p-{number}")
        for number in range(2):
            desk.open(f"a-{number}")
        await desk.ask("b-0")
        assert desk.closed == gone


async def test_addresses_of_one_subscriber_are_one_peer() -> None:
    desk = Desk()
    for number in range(3):
        desk.open(f"2001:db8:1::{number}-x")
    for number in range(5):
        desk.open(f"2001:db8:2:{number}::-x")
    await desk.ask("b-0")
    assert desk.closed == ["2001:db8:1::0-x"]


async def test_where_all_places_are_taken_whoever_has_most_makes_room() -> None:
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
        assert ((await desk.ask("c-0")).placed.is_set(), desk.closed) == (True, [gone]), kinds


async def test_a_newcomer_pushes_no_request_of_its_own_peer_out_that_had_no_answer_yet() -> None:
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False)
    assert not (await desk.ask("a-8")).placed.is_set()
    assert desk.closed == []
    other = Desk()
    for number in range(8):
        other.open(f"a-{number}", waits=False)
    assert (await other.ask("b-0")).placed.is_set()
    assert other.closed == ["a-0"]


async def test_who_was_answered_longest_ago_goes_first() -> None:
    desk = Desk()
    opened = [desk.open(f"a-{number}", waits=False) for number in range(8)]
    for each in (opened[5], opened[2]):
        desk.all.change(each, waits=True)
        each.since -= LOOK
    await desk.ask("b-0")
    await desk.ask("c-0")
    assert desk.closed == ["a-5", "a-2"]


async def test_who_came_just_now_makes_room_for_nobody_of_its_peer() -> None:
    """Its request may be here: an attacker that is closed comes back at once, and would close whoever came in between."""
    desk = Desk()
    opened = [desk.open(f"a-{number}") for number in range(8)]
    for each in opened:
        each.since += 60  # however busy this machine is
    assert not (await desk.ask("a-8")).placed.is_set()
    assert desk.closed == []
    opened[0].since -= 60 + LOOK
    assert await desk.waiting["a-8"]
    assert desk.closed == ["a-0"]


async def test_who_asks_for_nothing_pushes_nobody_out() -> None:
    """An attacker whose silent connections are closed comes back at once: a process that closed one for each would do nothing else."""
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}").since -= LOOK
    silent = [desk.open(f"{peer}-{number}") for number in range(8) for peer in "bc"]
    half = asyncio.ensure_future(desk.all.wait(desk.open("d-half")))
    await asyncio.sleep(0)
    assert not any(each.placed.is_set() for each in silent)
    assert (desk.closed, half.done()) == ([], False)
    assert (await desk.ask("d-whole")).placed.is_set()
    assert desk.closed == ["a-0"]
    half.cancel()


async def test_half_a_request_is_closed_where_there_is_no_room_and_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "ROOM", 0)
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False, proven=True)
    half = asyncio.ensure_future(desk.all.wait(desk.open("b-half")))
    await asyncio.sleep(0)
    for number in range(2 * RESERVED):
        desk.open(f"c-{number}")
    assert desk.closed == ["b-half"]
    async with asyncio.timeout(5):
        assert not await half


async def test_one_client_keeps_half_of_the_places_from_others_of_its_address() -> None:
    """A job proves itself on more connections than there are places: whoever shares its address would find none."""
    desk = Desk()
    jobs = [desk.open(f"a-{number}", proven="job") for number in range(8)]
    for each in jobs:
        each.since -= LOOK
    for number in range(6):
        await desk.ask(f"a-more-{number}")
    assert desk.closed == [f"a-{number}" for number in range(4)]
    busy = Desk()
    jobs = [busy.open(f"a-{number}", waits=False, proven="job") for number in range(8)]
    await busy.ask("a-honest")
    for each in jobs:
        if busy.all.ends(each):
            busy.all.remove(each)
    assert await busy.waiting["a-honest"]
    assert [each.is_open for each in jobs] == [False] + [True] * 7
    other = Desk()
    for number in range(8):
        other.open(f"a-{number}", proven=f"client-{number % 2}")
    await other.ask("a-more")
    await other.ask("a-more")
    assert other.closed == ["a-0"]


async def test_whoever_waits_for_a_place_has_the_next_that_an_answer_ends_in_turn() -> None:
    desk = Desk()
    opened = [desk.open(f"a-{number}", waits=False, proven="job" * (number < 3)) for number in range(8)]
    assert not any(map(desk.all.ends, opened))  # nobody waits
    waiting = [asyncio.ensure_future(desk.all.wait(desk.open(f"a-{number}", waits=False))) for number in range(8, 11)]
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
    assert await desk.all.wait(desk.open("a-8", waits=False))
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
    waiting = [asyncio.ensure_future(desk.all.wait(desk.open(f"b-{number}", waits=False))) for number in range(RESERVED)]
    await asyncio.sleep(0)
    for number in range(RESERVED + 3):
        desk.open(f"c-{number}")
    assert desk.closed == ["c-0", "c-1", "c-2"]
    assert not await desk.all.wait(desk.open("d-0", waits=False)), "there is no room to wait"
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


@contextmanager
def one_server(answer: Any, places: Connections | None = None) -> Iterator[int]:
    """The port of a server with these places, or 8."""
    places = places or Connections(8, lambda _: False)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"connections": places}

    app = Starlette(routes=[Route("/", answer, methods=["POST"])], lifespan=lifespan)
    with in_thread(app, http=process._Patient) as port:
        yield port


@contextmanager
def one_place(answer: Any) -> Iterator[tuple[Connections, int]]:
    """A server with one place, which a silent connection has; its port."""
    places = Connections(1, lambda _: False)
    with one_server(answer, places) as port, socket.create_connection(("127.0.0.1", port)):
        deadline = time.monotonic() + 10
        while not places._count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield places, port


async def told_size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def read(line: socket.socket, end: bytes) -> bytes:
    answer = b""
    while end not in answer:
        answer += (more := line.recv(4096))
        assert more, answer
    return answer


def test_half_a_body_takes_no_place_and_a_whole_one_does() -> None:
    with one_place(told_size) as (places, port), socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(2 * LOOK)
        assert (places._count, len(places._spare), len(places._asking)) == (1, 1, 0)
        line.sendall(b"cd")
        assert read(line, b"\r\n\r\n4").startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_to_send_its_body_is_told_to_before_it_has_a_place() -> None:
    with one_place(told_size) as (places, port), socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert read(line, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        assert (len(places._spare), len(places._asking)) == (1, 0)
        line.sendall(b"abcd")
        told = read(line, b"\r\n\r\n4")
        assert told.startswith(b"HTTP/1.1 200"), "and not a second time"


def test_a_body_that_is_larger_than_what_is_read_without_a_place_has_one() -> None:
    size = 300_000
    with one_place(told_size) as (_, port), socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        assert read(line, b"%d" % size).startswith(b"HTTP/1.1 200")


async def test_who_has_a_place_waits_for_no_whole_request() -> None:
    """A slow body on a connection that is kept has the time of any other."""
    desk, asked = Desk(most=1), list[str]()

    async def every(*_: Any) -> None:
        asked.append("asked")

    silent, spare = desk.open("a-0"), desk.open("b-0", waits=False)
    silent.since -= LOOK
    answer = desk.all.only_health(every, spare)
    for waits in (False, True):
        desk.all.change(spare, waits=waits)
        async with asyncio.timeout(5):
            await answer({"path": "/oauth2/token"}, None, None)  # type: ignore[arg-type]
    assert (len(asked), desk.closed) == (2, ["a-0"])


@pytest.mark.parametrize(("soft", "hard", "room"), [(900, 9000, ROOM), (900, 2000, 2000 - 1024), (900, 900, RESERVED)])
def test_as_many_wait_as_the_process_may_have_files(soft: int, hard: int, room: int) -> None:
    code = f"""
import resource
from agentgate.service.line import Connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(Connections(512, bool)._room, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    told = run_code(code).stdout.split()
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


def test_head_and_body_of_an_answer_are_sent_together() -> None:
    with one_server(told_size) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        for _ in range(50):
            line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert line.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"  # this waits for no answer
            line.sendall(b"abc")
            head, _, body = line.recv(1 << 16).partition(b"\r\n\r\n")
            assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"3")


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost"], ids=["nothing", "half a head"])
def test_who_is_silent_after_a_long_request_has_no_more_time_than_after_a_short_one(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(process, "HEADER_SECONDS", 0.4)
    monkeypatch.setattr(process, "ANSWER_SECONDS", 8)

    async def slow(_: Any) -> PlainTextResponse:
        await asyncio.sleep(1)  # longer than a head may take
        return PlainTextResponse("x")

    with one_server(slow) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 200")
        line.sendall(sent)
        began = time.monotonic()
        with suppress(ConnectionError):
            assert line.recv(1) == b""
        assert time.monotonic() - began < 4


def test_whether_a_peer_is_a_proxy_is_not_read_anew_for_each_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = ("10.20.0.0/16", "unix:33")
    assert connection.inside("10.20.3.4", connection.networks(proxies))
    monkeypatch.setattr(ipaddress, "ip_network", None)  # a flood from many addresses asks of each
    assert not connection.inside("203.0.113.9", connection.networks(proxies))
