"""Who makes room when all places are taken."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentgate.service import process
from agentgate.service.connections import HEALTH, RESERVED, SECONDS, Connections, OpenConnection, only_health
from tests.served import in_thread


class Desk:
    """Eight places, and what was closed, by name."""

    def __init__(self, most: int = 8, proxy: str = "") -> None:
        self.all = Connections(most, lambda peer: peer == proxy)
        self.closed: list[str] = []

    def open(self, name: str, *, waits: bool = True, proven: bool | str = False, answered: bool = False) -> OpenConnection:
        """`name`: the peer, and which of its connections. `proven`: as this client, or as one of its own."""
        made = self.all.add(name.split("-", maxsplit=1)[0], lambda: self.closed.append(name))
        made.proven, made.answered = proven if isinstance(proven, str) else name * proven, answered
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
        ([{"waits": False}, {"waits": False, "answered": True}], "a-1"),
        ([{"waits": False}], "a-0"),
        ([{"waits": False, "proven": True}, {"proven": True}], "a-1"),
        ([{"proven": True}, {"proven": True}, {}], "a-2"),
    ):
        desk = Desk()
        for number in range(6):
            desk.open(f"a-{number}", **kinds[number % len(kinds)])
        for number in range(2):
            desk.open(f"b-{number}", waits=False)
        assert (desk.open("c-0").spare, desk.closed) == (False, [gone]), kinds


def test_a_newcomer_pushes_no_request_of_its_own_peer_out_that_had_no_answer_yet() -> None:
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False)
    assert (desk.open("a-8").spare, desk.closed) == (True, [])
    assert (desk.open("b-0").spare, desk.closed) == (False, ["a-0"])


def test_who_was_answered_longest_ago_goes_first() -> None:
    desk = Desk()
    opened = [desk.open(f"a-{number}", waits=False) for number in range(8)]
    for each in (opened[5], opened[2]):
        desk.all.change(each, waits=True)
    desk.open("b-0")
    desk.open("c-0")
    assert desk.closed == ["a-5", "a-2"]


@pytest.mark.parametrize("waits", [True, False])
def test_one_client_keeps_half_of_the_places_from_others_of_its_address(waits: bool) -> None:  # noqa: FBT001
    """A job proves itself on more connections than there are places: whoever shares its address would be closed for each new one."""
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=waits, proven="job", answered=True)
    desk.open("a-honest", waits=waits)
    for number in range(3):
        desk.open(f"a-more-{number}", waits=False)
    assert desk.closed == [f"a-{number}" for number in range(4)]
    other = Desk()
    for number in range(8):
        other.open(f"a-{number}", waits=waits, proven=f"client-{number % 2}", answered=True)
    other.open("a-more")
    assert other.closed == ["a-0"] * waits


def test_spare_connections_push_out_only_each_other() -> None:
    desk = Desk()
    for number in range(8):
        desk.open(f"a-{number}", waits=False, proven=True)
    spare = [desk.open(f"b-{number}") for number in range(RESERVED + 3)]
    assert all(each.spare for each in spare)
    assert desk.closed == ["b-0", "b-1", "b-2"]


def test_a_place_that_is_left_is_free_again() -> None:
    desk = Desk(most=2)
    first, second = desk.open("a-0", waits=False), desk.open("b-0", waits=False)
    assert desk.open("c-0").spare
    for each in (first, first, second):
        desk.all.remove(each)
        assert not each.is_open
    assert [desk.open(f"d-{number}", waits=False).spare for number in range(3)] == [False, False, True]


async def test_on_a_spare_connection_only_health_is_answered() -> None:
    async def every(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("ok")(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(only_health(every)), base_url="http://x") as http:
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
