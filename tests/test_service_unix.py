"""Behind a Unix socket: the kernel says who connected; a proxy that is named so says who is behind it, and nobody else does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from agentgate.errors import ConfigError
from agentgate.identity.connection import Connection, caller, inside, networks
from agentgate.identity.settings import IdentitySettings
from agentgate.service.app import application
from agentgate.service.process import _unix_peer
from agentgate.service.settings import ServiceSettings
from tests.preloaded import run
from tests.served import Process, detail, served, toml
from tests.served_notes import Notes, Place
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.test_service_process import certificate

OWN = os.getuid()
HEADER = "X-Client-Certificate"
PEM, THUMBPRINT = certificate("notes")


def settings(place: Place, folder: Path, *addresses: str) -> dict[str, Any]:
    """Of a gate on a Unix socket, with these proxies."""
    proxies = {"proxies": {"addresses": [*addresses], "certificate": "pem"}} if addresses else {}
    clients = {**place.settings["clients"], "notes": {"role": "agent", "certificates": [THUMBPRINT], "tenants": ["acme"]}}
    given = {**place.settings, "identity": {**place.settings["identity"], **proxies}, "clients": clients, "rate": 1}
    more = {"listen": f"unix:{folder / 'gate.sock'}", "audit": str(folder / "audit"), "certificate_header": HEADER if addresses else None}
    return {**given, **more}


def callers(gate: Process) -> list[str]:
    """As whom callers are counted whom nobody proved."""
    return [line["from"] for line in gate.log() if "from" in line]


def guess(gate: Process, address: str) -> int:
    """The answer to an assertion that somebody made up."""
    return gate.http.post("/v1/redeem", json={}, headers={"Authorization": "Bearer x.y.z", "X-Forwarded-For": address}).status_code


def exchanged(place: Place, gate: Process) -> int:
    """The answer to a client that is known by its certificate."""
    notes = Notes(place, gate)
    form = {**notes.asking.form(place.token(), detail("notes.write", "desk.notes", {"text": "x"})), "client_id": "notes"}
    return notes.asking.ask(form, {HEADER: PEM}).status_code


def test_a_proxy_is_known_by_its_user_and_each_caller_by_their_address(place: Place, tmp_path: Path) -> None:
    with served(tmp_path, settings(place, tmp_path, f"unix:{OWN}")) as gate:
        guess(gate, "203.0.113.1")
        guess(gate, "203.0.113.1, 203.0.113.3")  # the nearest counts
        assert callers(gate) == ["203.0.113.1", "203.0.113.3"]
        assert exchanged(place, gate) == 200


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.thorough("the same reader, in two processes"))])
def test_what_another_user_says_of_callers_does_not_count(place: Place, tmp_path: Path, workers: int) -> None:
    """A local process that is no proxy makes up addresses and certificates."""
    given = settings(place, tmp_path, f"unix:{OWN + 1}", "127.0.0.1")
    with served(tmp_path, {**given, "workers": workers}) as gate:
        assert exchanged(place, gate) == 401
        guess(gate, "203.0.113.1")
        assert callers(gate)[-1] == f"unix:{OWN}"


@pytest.fixture
async def gate(place: Place, tmp_path: Path) -> Any:
    app = application(ServiceSettings(**{n: v for n, v in settings(place, tmp_path).items() if v is not None}))
    async with app.router.lifespan_context(app):
        yield app


async def test_each_user_of_the_machine_is_counted_by_itself(gate: Any) -> None:
    async def guessed(peer: tuple[str, int] | None) -> int:
        through = httpx.ASGITransport(gate, client=peer)  # type: ignore[arg-type]  # as a server without addresses says it
        async with httpx.AsyncClient(transport=through, base_url="http://x") as http:
            return (await http.post("/v1/redeem", json={}, headers={"Authorization": "Bearer x.y.z"})).status_code

    peers: tuple[tuple[str, int] | None, ...] = (("unix:1001", 0), ("unix:1002", 0), None)
    with capture_logs() as lines:
        assert [await guessed(peer) for peer in peers] == [401] * 3
    assert [line["from"] for line in lines] == ["unix:1001", "unix:1002", ""]


async def test_a_connection_with_an_address_has_no_user(tmp_path: Path) -> None:
    """On TCP the kernel has none to tell, and says 4294967295."""
    found: list[tuple[str, int] | None] = []

    class Peers(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            found.append(_unix_peer(transport))
            transport.close()

    loop = asyncio.get_running_loop()
    for server, opened in (
        (await loop.create_server(Peers, "127.0.0.1", 0), asyncio.open_connection),
        (await loop.create_unix_server(Peers, str(tmp_path / "s")), asyncio.open_unix_connection),
    ):
        name = server.sockets[0].getsockname()
        reader, writer = await opened(*(name if isinstance(name, tuple) else [name]))
        await reader.read()
        writer.close()
        server.close()
    assert found == [None, (f"unix:{OWN}", 0)]


def test_only_the_kernel_says_who_is_on_a_unix_socket() -> None:
    proxies = networks(("unix:33", "10.0.0.0/8"))
    for peer, forwarded, expected in (
        ("unix:33", "192.0.2.1", "192.0.2.1"),
        ("unix:33", "192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("unix:33", "", None),
        ("unix:33", "unix:", None),
        ("unix:33", "192.0.2.1, unix:33", None),
        ("10.0.0.1", "192.0.2.1, unix:33", None),
        ("unix:34", "192.0.2.1", None),
        ("unix:3", "192.0.2.1", None),
        ("unix:", "192.0.2.1", None),
        ("", "192.0.2.1", None),
    ):
        assert caller(Connection(peer, forwarded), proxies) == expected, (peer, forwarded)
    assert [inside(peer, proxies) for peer in ("unix:33", "10.1.1.1", "unix:34", "unix:", "", None)] == [True, True, *[False] * 4]


@pytest.mark.parametrize(
    "given", ["unix:", "unix:-1", "unix:033", "unix:nginx", "unix:65534", "unix:33\n", "UNIX:33", "unix:/run/gate.sock"]
)
def test_what_names_no_user_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"proxies\.addresses"):
        IdentitySettings.of({"proxies": {"addresses": [given]}})


def checked(folder: Path, given: dict[str, Any]) -> str:
    file = folder / "gate.toml"
    file.write_text(toml(given))
    return " ".join(run("serve", "--settings", str(file), "--check").stdout.split())


def test_a_socket_whose_proxy_is_not_named_is_looked_at(place: Place, tmp_path: Path) -> None:
    said = "a Unix socket, and no unix:UID in identity.proxies.addresses"
    assert said in checked(tmp_path, settings(place, tmp_path))
    assert said in checked(tmp_path, settings(place, tmp_path, "127.0.0.1"))
    assert said not in checked(tmp_path, settings(place, tmp_path, f"unix:{OWN}"))
    assert said not in checked(tmp_path, {**settings(place, tmp_path), "listen": "127.0.0.1:0"})
