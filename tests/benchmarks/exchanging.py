"""The token exchange over HTTP: `agentgate serve` beside the least that such an endpoint does, and two workers beside one.

Rules: requests are signed before the clock runs, and asked over 64 connections that stay open; the sides take turns. A credential comes
back `CALLS` times, to the gate and to the bare endpoint alike, which verifies it each time, or keeps that it did; beside it stands what
exchanges cost whose credential nobody saw before. Whoever asks runs on the same machine, so on two cores it takes part of what a second
worker would have: the row says how many cores the workers had, and what each side took of a processor.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil  # type: ignore[import-untyped]

from tests.authority import claims_of
from tests.benchmarks.row import Measuring, Row, Scale
from tests.served import ASSERTION, EXCHANGE, JWT, detail, publish, served
from tests.served_notes import GATE, Place, a_place
from tests.servers import free_port

CONNECTIONS = 64
CALLS = 100  # that one credential, and so one run, asks for
SLOWER, TAIL, MANY = 1 / 0.6, 3.0, 1 / 1.6  # a request's time beside the bare one's, p99 beside p50, two workers' time beside one's


class Side:
    """A server, and what was measured of it in seconds: a turn's time for each request, and each answer's wait."""

    def __init__(self, port: int, place: Place, process: int, calls: int = CALLS) -> None:
        self.port, self._place, self._number, self._process, self._calls = port, place, itertools.count(), process, calls
        self.each: list[float] = []
        self.waits: list[float] = []
        self.late = 0
        self.served, self.whole = 0.0, 0.0  # seconds of processor time that its processes had, and of all of it
        self._subject = ""

    def turn(self, count: int) -> None:
        """`count` exchanges, each for a call that nobody asked for before."""
        requests = [self._request(number) for number in itertools.islice(self._number, count)]
        began = self._spent()
        took, waits, late = asyncio.run(_asked(self.port, requests))
        self.served += self._spent() - began
        self.whole += took
        self.late += late
        self.each.append(took / count)
        self.waits += waits

    def _spent(self) -> float:
        first = psutil.Process(self._process)
        return sum(sum(each.cpu_times()[:2]) for each in (first, *first.children(recursive=True)))

    @property
    def median_us(self) -> float:
        """Of all turns, for one request."""
        return median(self.each) * 1e6

    @property
    def processor_us(self) -> float:
        """Of a processor, for one request."""
        return self.served / len(self.waits) * 1e6

    def _request(self, number: int) -> bytes:
        if not number % self._calls:
            self._subject = self._place.token()
        asked = detail("notes.write", "desk.notes", {"text": f"{self.port}-{self._calls}-{number}"})
        form = {"grant_type": EXCHANGE, "subject_token": self._subject, "subject_token_type": JWT, "client_id": "notes"}
        form |= {"client_assertion_type": ASSERTION, "client_assertion": self._place.keys["notes"].sign(claims_of("notes", "notes", GATE))}
        body = urlencode({**form, "authorization_details": json.dumps([asked])}).encode()
        kind = "Host: gate\r\nContent-Type: application/x-www-form-urlencoded"
        return f"POST /oauth2/token HTTP/1.1\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _asked(port: int, requests: list[bytes]) -> tuple[float, list[float], int]:
    """Seconds until all were answered, and until each was; how many of them with 503."""
    left, waits, late = iter(requests), [], [0]

    async def line() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for request in left:
                began = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                waits.append(time.perf_counter() - began)
                if head.startswith(b"HTTP/1.1 503"):  # a busy machine was late; the row says how often
                    late[0] += 1
                elif not head.startswith(b"HTTP/1.1 200"):
                    raise ValueError(f"an exchange of the benchmark was refused: {body[:200]!r}")
        finally:
            writer.close()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as lines:
        for _ in range(CONNECTIONS):
            lines.create_task(line())
    return time.perf_counter() - began, waits, late[0]


@contextmanager
def _bare(place: Place, kept: str) -> Iterator[Side]:
    """The bare endpoint as a process; `kept`: how many verified credentials it keeps."""
    port = free_port()
    keys = [str(place.folder / f"{name}.json") for name in ("login", "notes")]
    command = [sys.executable, "-m", "tests.benchmarks.bare_service", str(port), place.store.url, *keys, GATE, kept]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield Side(port, place, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)


def exchanging(scale: Scale) -> Measuring:
    """`http_exchange`, `http_kept`, `http_first`, its tail, and `http_workers`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = stack.enter_context(a_place(folder))
        publish(folder, place.login)
        more: dict[str, Any] = {**place.settings, "metrics": False, "rate": 100_000, "runs_per_hour": 100_000, "connections": 256}
        settings = ({**more, "audit": str(folder / f"audit-{workers}"), "workers": workers} for workers in (1, 2))
        gates = [stack.enter_context(served(folder, each)) for each in settings]
        one, two = (Side(each.port, place, each.process.pid) for each in gates)
        first = Side(one.port, place, gates[0].process.pid, 1)
        bare, keeping = (stack.enter_context(_bare(place, kept)) for kept in ("0", "1000"))
        for side in (one, two, first, bare, keeping):
            side.turn(CONNECTIONS)  # caches and connections
            side.each, side.waits, side.served = [], [], 0.0
        yield from _turns((one, first, bare, keeping), scale)
        waits, processor = quantiles(one.waits, n=100), {side: side.processor_us for side in (one, first, bare, keeping)}
        two.whole = 0.0
        yield from _turns((one, two), scale)
    late = f"{one.late} of {len(one.waits)} answered 503"
    what = f"POST /oauth2/token (assertion, credential, run, decision, durable audit), 64 connections, a credential {CALLS} times; {late}"
    least, cores = "a Starlette endpoint: 2 PyJWT verifications, SET, ES256", _cores(two)

    def row(name: str, side: Side, base: Side, baseline: str, target: float | None, note: str) -> Row:  # noqa: PLR0917 - a line of the table
        processors = f"{processor[side]:.0f} us of a processor, {processor[side] / processor[base]:.2f} of the other's"
        return _row(name, (side.median_us, base.median_us), baseline, target, f"{note}; {processors}")

    return [
        row("http_exchange", one, bare, least, SLOWER, what),
        row("http_kept", one, keeping, "the same, which keeps verified credentials", None, "the same"),
        row("http_first", first, bare, least, None, "the same, each credential once: it founds a run"),
        _row("http_tail", (waits[98] * 1e6, waits[49] * 1e6), "its p50", TAIL, f"p99; {what}"),
        _row("http_workers", (two.median_us, one.median_us), "one worker", MANY, f"two workers; {cores}"),
    ]


def _turns(sides: tuple[Side, ...], scale: Scale) -> Generator[None, None, None]:
    for number in range(max(2, scale.trips // 150)):
        for side in sides if number % 2 else sides[::-1]:
            side.turn(max(CONNECTIONS, scale.trips // 4))
        yield


def _cores(two: Side) -> str:
    """What the machine allowed two workers, in words."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    allowed = f"of {cores} cores they had {two.served / two.whole:.1f} (load {load:.1f})"
    return f"{allowed}; to show 1.6 of one they need two, and a third for Redis and whoever asks"


def _row(name: str, timing: tuple[float, float], baseline: str, target: float | None, note: str) -> Row:
    measured, beside = timing
    return Row(name, measured, baseline, beside, measured / beside, "x", target, True, note)
