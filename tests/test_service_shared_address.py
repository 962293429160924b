"""An honest client beside an attacker of the same address that has more connections than there are places: it keeps its calls."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.effort import examples
from tests.served import NO_TLS, Process, detail, served
from tests.served_notes import Notes, Place
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.test_service_unproven import SLOW, forged, junk, posted

PLACES, LINES = 64, 640  # more than have a place, and than the 256 that are there for whoever says nothing
CALLS, AT_ONCE = examples(100, 4), 8
ROOT = Path(__file__).parents[1]
MORE = pytest.mark.thorough("each way, and each kind of junk, is tried in the other three; all of it for a moment in test_service_unproven")
RESETS = pytest.mark.thorough("who hangs up keeps nobody waiting in test_service_unproven")
ALONE = pytest.mark.alone  # an attacker who is as fast as can be would take other tests' processors
MANY = [(said, "hold") for said in ("nothing at all", "an idle connection after an answer", "chunks without end")]
MANY += [("junk of the client", "repeat"), ("a forged credential", "anew"), *(("junk of nobody", how) for how in ("repeat", "anew"))]


@pytest.fixture
def gate(place: Place, tmp_path: Path) -> Iterator[Process]:
    with served(tmp_path, {**place.settings, "connections": PLACES, "audit": str(tmp_path / "audit")}) as process:
        yield process


@contextmanager
def attacked(gate: Process, folder: Path, data: bytes, how: str, lines: int = LINES) -> Iterator[Counter[str]]:
    """Meanwhile an attacker has so many connections; how often it was answered what, when it has ended."""
    said, file = Counter[str](), folder / "request"
    file.write_bytes(data)
    command = [sys.executable, "-m", "tests.attacker", str(gate.port), str(lines), str(file), how]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1.5)
        try:
            yield said
        finally:
            said.update(json.loads(process.communicate("", timeout=30)[0]))


async def calls(place: Place, gate: Process, client: str, *, fresh: bool) -> Counter[str]:
    """How an honest client's calls end, none of which it makes again but where it has no nonce yet (RFC 9449)."""
    notes, ends, numbers = Notes(place, gate), Counter[str](), iter(range(CALLS))

    async def ask(http: httpx.AsyncClient, number: int) -> httpx.Response:
        who = notes.client.asserted() if client == "notes" else {"client_id": client}
        form = {**notes.asking.form(place.token(), detail("notes.write", "desk.notes", {"text": f"n{number}"})), **who}
        return await http.post("/oauth2/token", data=form, headers=notes.asking.proof())

    async def ask_on() -> None:
        more: dict[str, Any] = {"headers": {"Connection": "close"}} if fresh else {}
        async with httpx.AsyncClient(base_url=gate.base, timeout=10, trust_env=False, verify=NO_TLS, **more) as http:
            for number in numbers:
                try:
                    answer = await ask(http, number)
                    if "use_dpop_nonce" in answer.text:
                        notes.asking.nonce = answer.headers["DPoP-Nonce"]
                        answer = await ask(http, number)
                except httpx.HTTPError as error:
                    ends[type(error).__name__] += 1
                else:
                    ends[str(answer.status_code)] += 1

    async with asyncio.timeout(90):
        await asyncio.gather(*(ask_on() for _ in range(AT_ONCE)))
    return ends


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("half a head", "hold"),
        ("half a body", "hold"),
        ("a head, and a body that the client waits to send", "hold"),
        ("junk of the client", "anew"),
        pytest.param("a forged credential", "repeat", marks=ALONE),
        pytest.param("junk of the client", "reset", marks=[RESETS, ALONE]),
        ("a body that does not end", "hold"),
        *(pytest.param(*more, marks=[MORE, ALONE] if more[1] == "repeat" else MORE) for more in MANY),
    ],
)
async def test_a_client_keeps_its_calls(place: Place, gate: Process, tmp_path: Path, what: str, how: str) -> None:
    made = {"junk of the client": junk(gate), "junk of nobody": junk(gate, "nobody"), "a forged credential": forged(place, gate)}
    made["a body that does not end"] = posted("/oauth2/token", "x" * 200_000)[:100_000]
    client = "job" if what == "a forged credential" else "notes"
    connections = (True, False)[:: 1 if len(what) % 2 else -1][: examples(2, 1)]  # quickly one kind, by turns
    with attacked(gate, tmp_path, {**SLOW, **made}[what], how) as said:
        ends = [await calls(place, gate, client, fresh=fresh) for fresh in connections]
    refused = [(line["client"], line["reasons"]) for line in gate.log() if line.get("status") == 503 and "client" in line]
    assert [each["200"] >= 0.95 * CALLS for each in ends] == [True] * len(ends), (ends, said, refused)
    assert said["connections"] >= LINES
    assert how in {"hold", "reset"} or said["400"] + said["401"] > LINES
