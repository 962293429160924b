"""What a served gate says of itself when a part of it is not as it should be: `readyz`, the log and the metrics, in closed codes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import tests.served
from tests.served import Process, served
from tests.served_notes import Notes, Place, a_place

# The clock of the process steps by an hour on SIGUSR1, and back on SIGUSR2.
STEPPING = """
import signal, time, time_machine
travels = time_machine.travel(time.time() + 3600, tick=True)
signal.signal(signal.SIGUSR1, lambda *_: travels.start())
signal.signal(signal.SIGUSR2, lambda *_: travels.stop())
"""


# Its disk answers no sync from SIGUSR1 to SIGUSR2, or each after 0.15 s from SIGHUP on.
SLOW = """
import os, signal, threading, time
from agentgate.audit.file import FileAudit
goes, takes = threading.Event(), [0.0]
goes.set()
def sync(file):
    goes.wait()
    time.sleep(takes[0])
    os.fdatasync(file)
FileAudit.__init__.__kwdefaults__["sync"] = sync
signal.signal(signal.SIGUSR1, lambda *_: goes.clear())
signal.signal(signal.SIGUSR2, lambda *_: goes.set())
signal.signal(signal.SIGWINCH, lambda *_: takes.__setitem__(0, 0.15 - takes[0]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with a_place(tmp_path) as made:
        yield made


def answers(gate: Process, status: int, *codes: str) -> None:
    """In time readyz has this status and these lines, and the log has told of them."""
    deadline = time.monotonic() + 20
    while True:
        answer = gate.http.get("/readyz")
        lines = answer.text.splitlines()
        if (answer.status_code, set(codes) <= set(lines)) == (status, True):
            break
        assert time.monotonic() < deadline, (answer.status_code, answer.text)
        time.sleep(0.1)
    began = {each["code"]: each for each in gate.log() if each["event"] == "condition_began"}
    for code in set(codes) - {"ok", "degraded"}:
        assert (began[code]["stops"], bool(began[code]["what"])) == (status == 503, True)


def is_well(gate: Process) -> None:
    """In time it is as it was, and the log says what ended."""
    answers(gate, 200, "ok")
    began, ended = ({each["code"] for each in gate.log() if each["event"] == event} for event in ("condition_began", "condition_ended"))
    assert began == ended


def away(path: Path) -> Callable[[], object]:
    """Take a directory away; what puts it back."""
    moved = path.rename(path.with_name(f"{path.name}-away"))
    return lambda: moved.rename(path)


def full(path: Path) -> Callable[[], object]:
    """Put a file where the directory was; what puts the directory back."""
    moved = path.rename(path.with_name(f"{path.name}-away"))
    path.touch()

    def put_back() -> None:
        path.unlink()
        moved.rename(path)

    return put_back


@pytest.mark.parametrize(("part", "code", "lose"), [("audit", "audit_gone", away), ("audit", "audit", full), ("keys", "keys", away)])
def test_a_folder_that_is_gone_stops_the_gate_until_it_is_back(place: Place, part: str, code: str, lose: Any) -> None:
    with served(place.folder, place.settings) as gate:
        put_back = lose(Path(place.settings[part]))
        answers(gate, 503, code)
        put_back()
        is_well(gate)
        assert Notes(place, gate).ask().status_code == 200


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A tmpfs."""
    path.mkdir(exist_ok=True)
    done = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=False).returncode == 0
    if not done:
        pytest.skip("this process may not mount a file system; what a full disk does to a log is tested in test_audit_room.py, too")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def conditions(gate: Process) -> set[str]:
    """That the metrics name."""
    found = re.findall(r'agentgate_condition\{code="(\w+)",stops="yes"\} 1', gate.http.get("/metrics").text)
    return set(found)


def test_a_full_disk_is_named_and_the_gate_goes_on_when_there_is_room(place: Place, tmp_path: Path) -> None:
    settings = {**place.settings, "audit": str(tmp_path / "disk" / "audit")}
    with mounted(tmp_path / "disk", "size=6m"), served(place.folder, settings) as gate:
        notes, filler = Notes(place, gate), tmp_path / "disk" / "filler"
        assert notes.ask("before").status_code == 200
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        while notes.ask("until it is noticed").status_code == 200:
            pass
        answers(gate, 503, "audit", "audit_full")
        assert conditions(gate) == {"audit", "audit_full"}
        filler.unlink()
        is_well_but_for_room(gate)
        assert notes.ask("after").status_code == 200


def is_well_but_for_room(gate: Process) -> None:
    """A disk of 6 MiB has little room, whatever is on it."""
    answers(gate, 200, "degraded", "audit_room")
    assert conditions(gate) == set()


def test_a_disk_that_can_only_be_read_is_named_and_the_gate_goes_on_afterwards(place: Place, tmp_path: Path) -> None:
    with served(place.folder, place.settings) as gate:
        audit = Path(place.settings["audit"])
        put_back = away(audit)
        with mounted(audit, "ro,size=1m,mode=0700"):
            answers(gate, 503, "audit", "audit_read_only")
            assert conditions(gate) == {"audit", "audit_read_only"}
        audit.rmdir()
        put_back()
        is_well(gate)
        assert Notes(place, gate).ask().status_code == 200


def test_a_disk_that_hangs_or_is_slow_is_named_and_nothing_is_burned_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.served, "START", SLOW + tests.served.START)
    with served(place.folder, place.settings) as gate:
        notes = Notes(place, gate)
        token = notes.ask("before").json()["access_token"]
        gate.process.send_signal(signal.SIGUSR1)
        assert notes.ask("into the hanging sync").status_code == 503
        answers(gate, 503, "audit", "audit_slow")
        assert conditions(gate) == {"audit", "audit_slow"}
        assert notes.server.redeem(token, "notes.write", {"text": "before"}, notes.asking.key).status_code == 503
        gate.process.send_signal(signal.SIGUSR2)
        is_well(gate)
        assert notes.server.redeem(token, "notes.write", {"text": "before"}, notes.asking.key).status_code == 200  # it was not burned
        gate.process.send_signal(signal.SIGWINCH)
        assert notes.ask("slowly").status_code == 200
        answers(gate, 200, "degraded", "audit_slow")
        gate.process.send_signal(signal.SIGWINCH)
        assert notes.ask("quickly").status_code == 200
        is_well(gate)


def test_a_clock_that_steps_stops_the_gate_until_it_is_right(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.served, "START", STEPPING + tests.served.START)
    with served(place.folder, place.settings) as gate:
        gate.process.send_signal(signal.SIGUSR1)
        answers(gate, 503, "clock")
        gate.process.send_signal(signal.SIGUSR2)
        is_well(gate)


def test_a_store_that_is_away_or_no_primary_stops_the_gate(place: Place) -> None:
    with served(place.folder, place.settings) as gate:
        place.store.pause()
        answers(gate, 503, "store")
        place.store.resume()
        is_well(gate)
        place.store.command("REPLICAOF", "127.0.0.1", "1")
        answers(gate, 503, "store")


@pytest.mark.parametrize(("setting", "value", "usual"), [("maxmemory", "1mb", "0"), ("min-replicas-to-write", "1", "0")])
def test_a_store_that_takes_no_writes_stops_the_gate(place: Place, setting: str, value: str, usual: str) -> None:
    """It answers whoever reads."""
    with served(place.folder, place.settings) as gate:
        place.store.command("CONFIG", "SET", setting, value)
        answers(gate, 503, "store")
        place.store.command("CONFIG", "SET", setting, usual)
        is_well(gate)
        assert Notes(place, gate).ask().status_code == 200


def test_where_acts_stop_and_reads_go_on_it_is_degraded(place: Place) -> None:
    with served(place.folder, place.settings) as gate:
        notes = Notes(place, gate)
        assert notes.ask("before").status_code == 200
        place.store.command("CONFIG", "SET", "appendfsync", "everysec")
        answers(gate, 200, "degraded", "store_may_lose")
        assert notes.ask("meanwhile").status_code == 503
        place.store.command("CONFIG", "SET", "appendfsync", "always")
        time.sleep(6)  # looked at again
        answers(gate, 200, "degraded", "store_may_lose")  # another gate could have minted and lost an act that this one knows nothing of
        assert notes.ask("since").status_code == 503
    with served(place.folder, place.settings) as gate:
        answers(gate, 200, "ok")
        assert Notes(place, gate).ask("anew").status_code == 200


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed (Debian: redis-tools)")
def test_a_dump_that_attached_is_told_as_long_as_it_counts(place: Place) -> None:
    place.store.command("CONFIG", "SET", "repl-backlog-ttl", "3")
    place.store.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with served(place.folder, place.settings) as gate:
        rdb = ["redis-cli", "-p", str(place.store.port), "--rdb", str(place.folder / "dump.rdb")]
        subprocess.run(rdb, capture_output=True, timeout=30, check=True)
        answers(gate, 200, "degraded", "replica_left")
        is_well(gate)


def test_a_lost_history_is_told(place: Place) -> None:
    with served(place.folder, place.settings) as gate:
        notes = Notes(place, gate)
        token = notes.ask("before").json()["access_token"]
        assert notes.server.redeem(token, "notes.write", {"text": "before"}, notes.asking.key).status_code == 200
        place.store.command("FLUSHALL")
        notes.ask("since")
        answers(gate, 200, "degraded", "history_lost")
        assert "acme: agentgate store reconcile" in {each["what"] for each in gate.log() if each.get("code") == "history_lost"}
