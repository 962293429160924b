"""Several processes on one address, and several gates on one store and one key set: they answer as one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from uvicorn.config import Config

from agentgate.audit import read_records
from agentgate.errors import Overloaded
from agentgate.service.line import AT_ONCE, OpenConnection, WaitingLine
from agentgate.service.process import listening
from agentgate.token.signing import KeyRing
from tests.preloaded import AGENTGATE, Forked
from tests.served import Asking, Process, served, toml
from tests.served_notes import Notes, Place, error_of
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture

STARTS_SLOWLY = """
import os, sys, time
if "spawn_main" in "".join(sys.orig_argv):  # a worker, with its imports
    try:
        os.mkdir(os.environ["FIRST"])
    except FileExistsError:
        time.sleep(7)
    else:
        time.sleep(2)
        os.kill(os.getpid(), 9)
"""


def until(holds: Callable[[], object], gate: Process) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, gate.log()[-3:]
        time.sleep(0.05)


def workers(gate: Process) -> list[psutil.Process]:
    return [child for child in psutil.Process(gate.process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def events(gate: Process, name: str) -> int:
    return sum(line["event"] == name for line in gate.log())


def active(notes: Notes, token: str) -> bool:
    """Whether the tool server's gate would redeem a token."""
    form = {"token": token, **notes.server.asserted()}
    return bool(notes.gate.http.post("/oauth2/introspect", data=form).json()["active"])


def test_no_answer_of_workers_waits_for_an_acknowledgement() -> None:
    with listening(Config("app", port=0, log_config=None)) as shared:
        shared.listen()
        with socket.create_connection(shared.getsockname()), shared.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_workers_start_on_a_socket_that_was_left_and_end_with_a_supervisor_that_was_killed(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with served(place.folder, {**place.settings, "workers": 2, "listen": f"unix:{path}", "audit": str(tmp_path / "audit")}) as gate:
        until(lambda: events(gate, "serving") == 2, gate)
        left = workers(gate)
        assert len(left) == 2
        os.kill(gate.process.pid, signal.SIGKILL)
        try:
            assert psutil.wait_procs(left, timeout=20)[1] == []
            assert events(gate, "supervisor_gone") == 2
        finally:
            for each in left:
                with suppress(psutil.NoSuchProcess):
                    each.kill()


@pytest.mark.thorough("ten seconds; that workers start at all is tested with each test of them")
def test_workers_that_start_slowly_are_not_killed_for_it_and_one_that_dies_is_replaced_at_once(place: Place, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STARTS_SLOWLY)
    settings = {**place.settings, "workers": 2, "audit": str(tmp_path / "audit")}
    with served(place.folder, settings, PYTHONPATH=str(tmp_path), FIRST=str(tmp_path / "first")) as gate:
        until(lambda: events(gate, "serving") == 2, gate)
        assert len([line for line in gate.log() if "died" in line["event"]]) == 1


def test_workers_answer_as_one_reload_and_are_replaced(place: Place, tmp_path: Path) -> None:
    folder, audit = tmp_path / "workflows", tmp_path / "audit"
    shutil.copytree(place.workflows, folder)
    with served(place.folder, {**place.settings, "workers": 2, "workflows": str(folder), "audit": str(audit)}) as gate:
        until(lambda: events(gate, "serving") == 2, gate)

        def ask(number: int) -> int:
            gate.http.headers["Connection"] = "close"  # each request may meet another worker
            notes = Notes(place, gate)
            return notes.ask(f"note {number}").status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(24))) == {200}
        assert 'agentgate_requests_total{route="/oauth2/token",status="200"} 24.0' in gate.http.get("/metrics").text
        once = Notes(place, gate).form("once")
        answers = [Asking(gate).ask(once) for _ in range(6)]
        assert {error_of(each) for each in answers[1:]} == {(401, "invalid_client")}  # whoever saw it first

        os.kill(gate.process.pid, signal.SIGHUP)
        until(lambda: events(gate, "reloaded") == 2, gate)
        (folder / "approvals" / "root.yaml").write_text("broken")
        os.kill(gate.process.pid, signal.SIGHUP)
        until(lambda: events(gate, "not_reloaded") == 2, gate)
        assert ask(25) == 200
        shutil.copytree(place.workflows, folder, dirs_exist_ok=True)

        workers(gate)[0].kill()
        until(lambda: events(gate, "serving") == 3, gate)
        assert ask(26) == 200
        assert gate.end() == 0
        assert gate.stdout.read_bytes() == b""
    minted = [record["writer"] for record in read_records(audit) if record.get("decision") == "allow"]
    assert (len(minted), len(set(minted)) >= 2) == (26, True)


def test_more_requests_than_a_gate_does_at_once_stand_in_line(place: Place, tmp_path: Path) -> None:
    with served(place.folder, {**place.settings, "audit": str(tmp_path / "audit")}) as gate:
        slow = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(AT_ONCE)]  # who never sends a body takes no place
        head = "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n"
        for line in slow:
            line.sendall(head.encode())
        forms = [Notes(place, gate).form(f"{number}") for number in range(3 * AT_ONCE)]
        with ThreadPoolExecutor(len(forms)) as pool:
            answers = list(pool.map(lambda form: Asking(gate).ask(form, prove=False).status_code, forms))
        for line in slow:
            line.close()
        assert 200 in answers
        assert "overload" not in gate.stderr.read_text()  # a busy machine may be late with some; none is refused for the others' sake


async def test_who_stands_in_line_for_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.service.line.PATIENCE", 0.05)
    queue = WaitingLine()
    with ExitStack() as held:
        turns = [held.enter_context(queue.stand("", OpenConnection("", bool))) for _ in range(AT_ONCE)]
        for turn in turns:
            await turn()
            await turn()  # a request has one turn
        with queue.stand("", OpenConnection("", bool)) as late, pytest.raises(Overloaded):
            await late()
    with queue.stand("", OpenConnection("", bool)) as next_turn:
        await next_turn()


@pytest.mark.thorough("workers start on such a socket in the test of a supervisor that was killed, and one process is asyncio's own")
@pytest.mark.parametrize("count", [1, 2])
def test_a_gate_starts_again_on_the_socket_of_one_that_was_killed(place: Place, tmp_path: Path, count: int) -> None:
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    file = tmp_path / "gate.toml"
    file.write_text(toml({**place.settings, "workers": count, "listen": f"unix:{path}", "audit": str(tmp_path / "audit")}))
    process: subprocess.Popen[bytes] | Forked
    with (tmp_path / "log").open("wb") as log:
        if count > 1:
            process = subprocess.Popen([sys.executable, "-m", "agentgate", "serve", "--settings", str(file)], stderr=log)
        else:
            process = Forked(AGENTGATE, "serve", "--settings", str(file), stdout=log, stderr=log, env=os.environ, cwd=tmp_path)
    deadline, answer = time.monotonic() + 30, b""
    while not answer and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        with suppress(OSError):
            answer = posted(path)
    process.terminate()
    assert (process.wait(timeout=20), answer[:12]) == (0, b"HTTP/1.1 415"), (tmp_path / "log").read_text()


def posted(path: Path) -> bytes:
    """The answer to a request without a form, over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return line.recv(65536)


def test_a_gate_that_does_not_open_ends_all_its_workers(place: Place, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not_opened"):
        Process(place.folder, {**place.settings, "workers": 2, "root": "sha256:" + "0" * 64, "audit": str(tmp_path / "audit")})


def test_an_assertion_counts_once_also_where_instances_list_its_clients_tenants_otherwise(place: Place, tmp_path: Path) -> None:
    """In the middle of a roll-out; or one instance, that rereads its settings."""
    one, other = ({**place.settings, "audit": str(tmp_path / name)} for name in ("one", "other"))
    desk = {**place.settings["clients"]["desk"], "tenants": ["abroad", "acme"]}
    other["clients"] = {**place.settings["clients"], "desk": desk}
    with served(place.folder, one) as first, served(place.folder, other) as second:
        shown = {"Authorization": f"Bearer {Notes(place, first).host.assertion()}"}
        answers = [each.http.post("/v1/runs", json={}, headers=shown) for each in (first, second)]
        assert [error_of(answer) for answer in answers] == [(400, "invalid_request"), (401, "invalid_client")]


def test_instances_share_runs_keys_and_what_was_used(place: Place, tmp_path: Path) -> None:
    one, other = ({**place.settings, "audit": str(tmp_path / name)} for name in ("one", "other"))
    with served(place.folder, one) as first, served(place.folder, other) as second:
        assert first.http.get("/oauth2/jwks").json() == second.http.get("/oauth2/jwks").json()
        here, there = Notes(place, first), Notes(place, second)
        here.asking.ask(here.form())
        there.asking.nonce = here.asking.nonce  # the other gate takes this one's nonce
        token = there.ask("asked at one").json()["access_token"]
        asked, key = {"text": "asked at one"}, there.asking.key
        assert here.server.redeem(token, "notes.write", asked, key).status_code == 200
        assert there.server.redeem(token, "notes.write", asked, key).status_code == 401

        ring = KeyRing.existing(place.settings["keys"])
        leaked = ring.signer(time.time()).kid
        late = here.ask("by the key that leaks").json()["access_token"]
        assert active(there, late)
        ring.withdraw(leaked, time.time())
        until(lambda: not active(there, late), second)
        asked = {"text": "by the key that leaks"}
        assert there.server.redeem(late, "notes.write", asked, here.asking.key).status_code == 401
        assert there.ask("by the next key").status_code == 200
        assert leaked not in second.http.get("/oauth2/jwks").text
