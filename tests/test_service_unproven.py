"""Callers whom nobody proved, at a real process: they lock nobody out, fill no disk, and keep no health check waiting."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

import tests.served
from agentgate.audit import read_records
from agentgate.service.process import BACKLOG
from tests.authority import Key, claims_of
from tests.effort import examples
from tests.served import JWT, NO_TLS, Party, Process, detail, served
from tests.served_notes import LOGIN, Notes, Place
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture

FORM = "Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
HEALTH = ("/healthz", "/readyz", "/metrics")
STRANGER = Key("notes")  # names the client's key, and is another
CALLS = examples(20, 8)
# An event loop that says how many connections it accepted in one round, where these were more than ever: a line each in the file ROUNDS.
COUNTED = """
import asyncio, os, socket
accepted, most = 0, 0
accept, run_once = socket.socket.accept, asyncio.BaseEventLoop._run_once
def counting(self):
    global accepted
    both = accept(self)
    accepted += 1
    return both
def round(self):
    global accepted, most
    accepted = 0
    run_once(self)
    if accepted > most:
        most = accepted
        with open(os.environ["ROUNDS"], "a") as file:
            print(most, file=file)
socket.socket.accept, asyncio.BaseEventLoop._run_once = counting, round
"""


@pytest.fixture
def gate(place: Place, tmp_path: Path) -> Iterator[Process]:
    """With the usual limits, and few places."""
    with served(tmp_path, {**place.settings, "rate": 50, "connections": 64, "audit": str(tmp_path / "audit")}) as process:
        yield process


def posted(path: str, body: str, headers: str = FORM) -> bytes:
    return f"POST {path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def junk(gate: Process, client: str = "notes") -> bytes:
    """A client's assertion by a stranger's key."""
    made = STRANGER.sign(claims_of(client, client, gate.issuer, life=60))
    form = Party(gate, client, STRANGER).asserted() | {
        "client_assertion": made,
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    }
    return posted("/oauth2/token", urlencode(form))


def forged(place: Place, gate: Process, client: str = "job") -> bytes:
    """An exchange of a credential that its issuer never signed."""
    token = Key("login").sign({**claims_of(LOGIN, "notes-service", gate.issuer), "app": "notes"})
    asked = {"client_id": client, "subject_token": token, "subject_token_type": JWT}
    asked |= {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}
    asked |= {"authorization_details": json.dumps([detail("notes.write", "desk.notes", {"text": "x"})])}
    return posted("/oauth2/token", urlencode(asked))


def connected(gate: Process, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", gate.port), timeout=10, source_address=(address, 0))


def sent(line: socket.socket, data: bytes) -> bytes:
    """The answer; empty: the connection was closed."""
    with suppress(OSError):
        line.sendall(data)
        answer = b""
        while more := line.recv(65536):
            answer += more
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if body and (length is None or len(body) >= int(length[1])):
                return answer
    return b""


@contextmanager
def flood(gate: Process, requests: list[bytes], *, lines: int = 40, address: str = "127.0.0.1") -> Iterator[list[bytes]]:
    """These requests again and again, on so many connections; the answers so far."""
    end, answers = threading.Event(), list[bytes]()

    def ask(number: int) -> None:
        line: socket.socket | None = None
        while not end.is_set():
            try:
                line = line or connected(gate, address)
                answers.append(sent(line, requests[number % len(requests)]))
            except OSError:
                answers.append(b"")
            if answers[-1] == b"" or b"close" in answers[-1]:
                if line is not None:
                    line.close()
                line = None
        if line is not None:
            line.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(lines)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        end.set()
        for thread in threads:
            thread.join()


def asked(place: Place, gate: Process, *, client: str = "notes", fresh: bool = True, calls: int = CALLS) -> list[int]:
    """The answers to an honest client; where the gate is busy it asks once more, as it is told to."""
    found = list[int]()
    with httpx.Client(base_url=gate.base, timeout=10, trust_env=False, verify=NO_TLS) as own:
        notes = Notes(place, gate)
        for number in range(calls):
            for _ in range(2):
                who = notes.client.asserted() if client == "notes" else {"client_id": client}
                form = {**notes.asking.form(place.token(), detail("notes.write", "desk.notes", {"text": f"n{number}"})), **who}
                headers = {**notes.asking.proof(), **({"Connection": "close"} if fresh else {})}
                answer = own.post("/oauth2/token", data=form, headers=headers)
                notes.asking.nonce = answer.headers.get("DPoP-Nonce", notes.asking.nonce)
                if answer.status_code not in {503, 400}:
                    break
            found.append(answer.status_code)
    return found


def healthy(gate: Process) -> None:
    for path in HEALTH:
        with httpx.Client(base_url=gate.base, timeout=10, trust_env=False, verify=NO_TLS) as fresh:
            assert fresh.get(path).status_code == 200, path


# --- nobody is locked out by others ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("client", "fresh"),
    [
        pytest.param("notes", False, id="one connection-notes"),
        pytest.param("job", True, id="new connections-job"),
        pytest.param("notes", True, id="new connections-notes", marks=pytest.mark.thorough("each of both is tested with the other")),
        pytest.param("job", False, id="one connection-job", marks=pytest.mark.thorough("as above")),
    ],
)
def test_a_client_beside_junk_that_claims_to_be_it_keeps_its_calls(place: Place, gate: Process, client: str, fresh: bool) -> None:  # noqa: FBT001
    requests = [junk(gate), forged(place, gate), junk(gate, "nobody"), posted("/oauth2/introspect", "client_id=job&token=x")]
    with flood(gate, requests) as answers:
        while len(answers) < examples(600, 150):
            time.sleep(0.01)
        codes = asked(place, gate, client=client, fresh=fresh)
        healthy(gate)
    assert codes.count(200) >= 0.95 * CALLS, codes
    assert not [answer for answer in answers if b" 429 " in answer[:20]]


def test_a_client_with_a_rate_of_its_own_is_told_so_and_nobody_else_is(place: Place, tmp_path: Path) -> None:
    """A job is known by its credential: what only claims to be it uses nothing up."""
    with served(tmp_path, {**place.settings, "rate": 1, "audit": str(tmp_path / "audit")}) as gate:
        with flood(gate, [forged(place, gate)], lines=4) as answers:
            while len(answers) < 30:
                time.sleep(0.01)
        assert {answer[9:12] for answer in answers} == {b"400"}
        notes = Notes(place, gate)
        notes.asking.ask(notes.asking.form(place.token(), "[]"))
        codes = [
            notes.asking.ask(notes.form(client_assertion=None, client_assertion_type=None, client_id="job")).status_code for _ in range(12)
        ]
        assert (codes[:9], codes[-1]) == ([200] * 9, 429)


# --- connections that say nothing, or say it slowly ---------------------------------------------------------------------------
HEAD = b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\n"
SLOW: Mapping[str, bytes] = {
    "nothing at all": b"",
    "one byte": b"P",
    "half a head": HEAD,
    "a head almost too large": HEAD + b"X: " + b"x" * 60_000,
    "half a body": posted("/oauth2/token", "x" * 100)[:-1],
    "a head, and a body that the client waits to send": HEAD + FORM[9:].encode() + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    "chunks without end": HEAD + FORM[9:].encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    "a body that nobody reads": b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
    "an idle connection after an answer": b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "many requests at once, whose answers nobody reads": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60,
}


def slow_peers() -> Iterator[Any]:
    """Each of `SLOW` by one peer and by many; quickly, by these and by that one in turn."""
    once = pytest.mark.thorough("places are counted before anything is read: what is said by one kind of peer, the next says by the other")
    for number, said in enumerate(SLOW):
        for addresses, peers in ((1, "one peer"), (120, "many peers")):
            yield pytest.param(said, addresses, id=f"{peers}-{said}", marks=[once] if (addresses == 1) is (number % 2 == 1) else [])


@pytest.mark.parametrize(("said", "addresses"), list(slow_peers()))
def test_who_is_slow_keeps_no_client_and_no_health_check_out(place: Place, gate: Process, said: str, addresses: int) -> None:
    with ExitStack() as lines:
        for number in range(120):  # of 64 places
            line = lines.enter_context(connected(gate, f"127.0.{number % addresses}.1" if addresses > 1 else "127.0.0.1"))
            sent_only(line, SLOW[said])
        healthy(gate)
        assert asked(place, gate) == [200] * CALLS
        healthy(gate)


def sent_only(line: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        line.sendall(data)


def closed(line: socket.socket, seconds: float) -> bool:
    """Whether the other end closes it within this time."""
    line.settimeout(seconds)
    with suppress(ConnectionError):
        try:
            while line.recv(65536):
                pass
        except TimeoutError:
            return False
    return True


def test_who_is_silent_is_closed_for_requests_only(gate: Process) -> None:
    with ExitStack() as lines:
        opened = [lines.enter_context(connected(gate, "127.0.0.9")) for _ in range(200)]
        for line in opened:
            line.sendall(HEAD)
        time.sleep(0.5)
        for _ in range(3):
            with connected(gate) as line:
                assert sent(line, b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[9:12] == b"200"
        ends = [closed(line, 0.01) for line in opened]
        assert sum(ends) <= 3
        assert not any(ends[64:])


def test_a_head_that_comes_byte_by_byte_has_ten_seconds(gate: Process) -> None:
    with connected(gate) as line:
        began = time.monotonic()
        while time.monotonic() - began < 20:
            try:
                line.sendall(b"G")
            except OSError:
                break
            time.sleep(0.25)
        assert 9 < time.monotonic() - began < 15


@pytest.mark.deadline
def test_health_is_answered_while_every_place_is_busy(place: Place, gate: Process) -> None:
    place.store.pause()  # who is proven waits for it, a third of a second each
    time.sleep(1.1)  # readiness looks again
    try:
        with flood(gate, [forged(place, gate, "notes")], lines=1), ExitStack() as lines:
            for number in range(150):
                line = lines.enter_context(connected(gate, f"127.0.1.{number % 250 + 1}"))
                sent_only(line, junk(gate) * 3)
            with httpx.Client(base_url=gate.base, timeout=10, trust_env=False, verify=NO_TLS) as fresh:
                assert (fresh.get("/healthz").status_code, fresh.get("/readyz").status_code, fresh.get("/metrics").status_code) == (
                    200,
                    503,
                    200,
                )
    finally:
        place.store.resume()


# --- what nobody proved fills nothing -----------------------------------------------------------------------------------------
def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.iterdir())


def _size_at_rest(folder: Path) -> int:
    """Of a log whose records of before are sealed: that takes a second, more on a busy machine."""
    size, since = _size(folder), time.monotonic()
    while time.monotonic() < since + 2.5:
        time.sleep(0.1)
        if (now := _size(folder)) != size:
            size, since = now, time.monotonic()
    return size


def test_what_nobody_proved_writes_no_record_no_key_and_few_lines(place: Place, gate: Process, tmp_path: Path) -> None:
    many = 400
    names = [junk(gate, f"made-up-{number}") for number in range(50)]
    requests = [*names, junk(gate), forged(place, gate), forged(place, gate, "nobody"), b"BREW /coffee HTTP/1.1\r\nHost: x\r\n\r\n"]
    requests += [b"\x00\r\n\r\n"] * 40
    requests += [posted("/v1/redeem", "{}", f"Host: x\r\nAuthorization: Bearer {STRANGER.sign({'sub': 'server'})}\r\n")]
    requests += [b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /made/up HTTP/1.1\r\nHost: x\r\n\r\n"]
    keys, series = place.store.command("DBSIZE"), len(gate.http.get("/metrics").text.splitlines())
    records, size = len(list(read_records(tmp_path / "audit"))), _size_at_rest(tmp_path / "audit")
    for address in ("127.0.2.1", "127.0.2.2"):
        with flood(gate, requests, lines=len(requests), address=address) as answers:
            while len(answers) < many:
                time.sleep(0.01)
    assert int(place.store.command("DBSIZE")[1:]) <= int(keys[1:])  # some end meanwhile
    assert len(list(read_records(tmp_path / "audit"))) == records
    assert _size(tmp_path / "audit") == size
    assert len(gate.http.get("/metrics").text.splitlines()) - series < 400  # of a closed set of routes and codes
    lines = len(gate.log())
    with flood(gate, requests, lines=len(requests)) as answers:
        while len(answers) < 3 * many:
            time.sleep(0.01)
    assert len(gate.log()) - lines < many
    gate.end()
    (told,) = [record for record in read_records(tmp_path / "audit") if record["type"] == "unproven"]
    assert ["run_refused", "agent.oidc.signature", "job", "127.0.2.1"] in [row[:4] for row in told["counts"]]
    assert (len(told["first"]), told["first"][0]["type"]) == (4, "run_refused")
    (line,) = [line for line in gate.log() if line["event"] == "unproven" and "first" in line]
    assert sum(row[-1] for row in line["counts"]) == line["refused"] > 100


def test_what_was_proven_and_denied_is_on_record_at_once(place: Place, gate: Process, tmp_path: Path) -> None:
    notes = Notes(place, gate)
    assert notes.ask(arguments={"text": "x" * 50}).status_code == 400
    assert [r["type"] for r in read_records(tmp_path / "audit") if r.get("reasons")] == ["decision"]


IN_NO_LINE = pytest.mark.thorough("what an exchange waits for, and the line beside it")


@pytest.mark.alone  # as fast as can be, as in test_service_shared_address
@pytest.mark.parametrize(
    "request_",
    [pytest.param(b"", id="exchange"), pytest.param(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", id="metrics", marks=IN_NO_LINE)],
)
def test_who_hangs_up_before_the_answer_keeps_nobody_waiting(place: Place, gate: Process, request_: bytes) -> None:
    end, data = threading.Event(), request_ or forged(place, gate, "notes")
    calls = examples(CALLS, 2)  # each waits behind all that came before it

    def hang_up() -> None:
        while not end.is_set():
            with suppress(OSError), connected(gate) as line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it is closed by a reset
                line.sendall(data)
                time.sleep(examples(3, 10) / 1000)

    threads = [threading.Thread(target=hang_up) for _ in range(examples(24, 8))]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2)
        healthy(gate)
        assert asked(place, gate, calls=calls).count(200) >= 0.95 * calls
    finally:
        end.set()
        for thread in threads:
            thread.join()
    events = [(line["event"], line.get("status")) for line in gate.log()]
    assert ("refused", 503) not in events
    assert ("condition_began", None) not in events


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.thorough("each worker has the settings of the one process"))])
def test_of_connections_that_come_together_none_is_dropped_and_few_are_accepted_in_one_round(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """400 came while nobody looked. The kernel drops none; and whoever has a call under way waits for few of them at once, not for 128."""
    settings = {**place.settings, "workers": workers, "audit": str(tmp_path / "audit")}
    monkeypatch.setattr(tests.served, "START", COUNTED + tests.served.START)
    (tmp_path / "sitecustomize.py").write_text(COUNTED)  # of workers, each of which is a new Python
    rounds = tmp_path / "rounds"
    counted = {"ROUNDS": str(rounds), "PYTHONPATH": str(tmp_path)} if workers > 1 else {"ROUNDS": str(rounds)}
    with served(tmp_path, settings, **counted) as gate, ExitStack() as lines, selectors.DefaultSelector() as connected_ones:
        time.sleep(1)  # the supervisor says it twice a second
        main = gate.process.pid
        everyone = [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(400):
            line = lines.enter_context(socket.socket())
            line.settimeout(0)
            line.connect_ex(("127.0.0.1", gate.port))
            connected_ones.register(line, selectors.EVENT_WRITE)
        time.sleep(0.5)
        waiting = len(connected_ones.select(0))
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        healthy(gate)
    assert waiting == 400
    assert max(map(int, rounds.read_text().split())) == BACKLOG == 2


@pytest.mark.thorough("each worker is as the one process")
def test_each_of_several_workers_answers_for_its_health_beside_who_is_slow(place: Place, tmp_path: Path) -> None:
    settings = {**place.settings, "connections": 32, "workers": 2, "audit": str(tmp_path / "audit")}
    with served(tmp_path, settings) as gate, ExitStack() as lines:
        for _ in range(200):
            sent_only(lines.enter_context(connected(gate)), HEAD)
        for _ in range(5):
            healthy(gate)
        assert asked(place, gate) == [200] * CALLS
