"""Nobody is answered without a turn, and nobody keeps one while their body comes; health has turns of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgate.service.app import application
from agentgate.service.line import AT_ONCE, OpenConnection
from agentgate.service.settings import ServiceSettings
from tests.authority import Key, claims_of
from tests.served_notes import Notes, Place
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.test_service_unproven import connected


@pytest.fixture
async def app(place: Place, tmp_path: Path) -> AsyncIterator[Any]:
    made = application(ServiceSettings(**{**place.settings, "audit": tmp_path / "audit"}))
    async with made.router.lifespan_context(made):
        yield made


async def test_who_is_refused_stands_in_line_and_health_does_not(place: Place, app: Any) -> None:
    line = app.state.service.line
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    forged = [Key(name).sign(claims_of(name, name, place.issuer, life=60)) for name in ("server", "made-up")]
    asks: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/oauth2/jwks", {}),
        ("GET", "/nowhere", {}),
        ("PUT", "/oauth2/jwks", {}),
        ("POST", "/oauth2/token", {"content": "x", "headers": {"Content-Type": "text/plain"}}),
        ("POST", "/oauth2/token", {"content": "client_id=job", "headers": form}),
        ("POST", "/oauth2/token", {"content": "grant_type=x&client_id=notes", "headers": form}),
        ("POST", "/oauth2/token", {"content": "client_id=made-up", "headers": form}),
        *(("POST", "/v1/redeem", {"json": {}, "headers": {"Authorization": f"Bearer {each}"}}) for each in (*forged, "x.y.z")),
    ]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=("192.0.2.1", 1)), base_url="http://x") as http:
        with ExitStack() as turns:
            for _ in range(AT_ONCE):
                await turns.enter_context(line.stand("", OpenConnection("", bool)))()
            waiting = [asyncio.ensure_future(http.request(method, path, **more)) for method, path, more in asks]
            assert [(await http.get(path)).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
            await asyncio.sleep(0.2)
            assert not [each for each in waiting if each.done()]
            (clients,) = line._others._addresses.values()
            assert {client: len(lane) for client, lane in clients.items()} == {"": 7, "job": 1, "notes": 1, "server": 1}
        assert [(await each).status_code for each in waiting] == [200, 404, 405, 415, 400, 400, 400, 401, 401, 401]


async def test_who_has_no_turn_in_time_is_told_when_to_come_again(app: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        with ExitStack() as turns:
            for _ in range(AT_ONCE):
                await turns.enter_context(app.state.service.line.stand("", OpenConnection("", bool)))()
            began = time.monotonic()
            answer = await http.get("/oauth2/jwks")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert time.monotonic() - began < 3.9  # and not a second time for the refusal


def test_a_proven_client_keeps_no_turn_while_its_body_comes(place: Place, gate: Any) -> None:
    notes = Notes(place, gate)
    with ExitStack() as lines:
        for _ in range(AT_ONCE + 4):
            head = f"POST /v1/redeem HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {notes.server.assertion()}\r\n"
            with suppress(OSError):
                lines.enter_context(connected(gate)).sendall(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n".encode())
        time.sleep(0.5)
        assert notes.ask().status_code == 200
