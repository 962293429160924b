"""The audit log: a record that was acknowledged is on the disk, and what cannot be recorded is refused in time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from agentgate.audit import FileAudit, MemoryAudit, open_audit, read_records
from agentgate.audit.entry import KEEP
from agentgate.audit.file import MAX_WAITING
from agentgate.errors import AuditDamaged, AuditUnavailable, ConfigError

HOSTILE = 'a\nb\r\x1b[31mred\u2028\u2029\x00\x7f"}\\ \U0001f4b6'
RECORDS_OF_A_CHILD = """
import os, sys, threading, time
from agentgate.audit import open_audit
log = open_audit(sys.argv[1])
def work(name):
    for number in range(1_000_000):
        log.append({"id": f"{name}-{number}"}, time.monotonic() + 5)
        os.write(1, f"{name}-{number}\\n".encode())
for name in "abcd":
    threading.Thread(target=work, args=(name,)).start()
"""


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


class Disk:
    """Syncs for real, but only while it is not stuck; counts the syncs."""

    def __init__(self, takes: float = 0.0) -> None:
        self.free, self.takes, self.syncs = threading.Event(), takes, 0
        self.free.set()

    def sync(self, descriptor: int) -> None:
        self.free.wait(30)
        time.sleep(self.takes)
        os.fsync(descriptor)
        self.syncs += 1


@pytest.fixture
def log(tmp_path):
    log = FileAudit(tmp_path / "audit")
    yield log
    log.close()


def files(directory: Path) -> list[Path]:
    return sorted((directory / "audit").iterdir())


# --- records


def test_a_record_is_one_canonical_line_with_writer_sequence_and_previous_digest(log, tmp_path):
    log.append({"event": "mint", "amount": 1}, soon())
    log.append({"event": "redeem"}, soon())
    (path,) = files(tmp_path)
    first, second = path.read_bytes().splitlines()
    writer = path.stem
    assert first == f'{{"prev":"{"0" * 64}","record":{{"amount":1,"event":"mint"}},"seq":1,"writer":"{writer}"}}'.encode()
    assert json.loads(second)["seq"] == 2
    assert [*read_records(tmp_path / "audit")] == [
        {"event": "mint", "amount": 1, "writer": writer, "seq": 1},
        {"event": "redeem", "writer": writer, "seq": 2},
    ]


def test_hostile_text_stays_inside_its_line(log, tmp_path):
    log.append({HOSTILE: [HOSTILE, {"x": HOSTILE}]}, soon())
    log.append({"event": "next"}, soon())
    (path,) = files(tmp_path)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 2
    assert not {*range(0x20)} - {0x0A} & {*raw}
    assert next(read_records(tmp_path / "audit"))[HOSTILE] == [HOSTILE, {"x": HOSTILE}]


def test_directory_and_files_are_for_their_owner_only(log, tmp_path):
    (path,) = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_directory_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o770)
    with pytest.raises(ConfigError, match="audit"):
        open_audit(tmp_path)


def test_every_log_writes_its_own_segment(tmp_path):
    logs = [FileAudit(tmp_path / "audit") for _ in range(3)]
    for number, log in enumerate(logs):
        log.append({"log": number}, soon())
        log.close()
    assert len(files(tmp_path)) == 3
    assert sorted(r["log"] for r in read_records(tmp_path / "audit")) == [0, 1, 2]


@pytest.mark.parametrize(
    "record",
    [{"n": 2**53}, {"n": float("nan")}, {"t": "\ud800"}, {"o": object()}, {"seq": 1}, {"writer": "x"}, {"t": "x" * 262_144}, {1: 2}],
    ids=["2^53", "nan", "surrogate", "object", "own seq", "own writer", "too large", "key that is no text"],
)
@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_record_that_cannot_be_written_is_refused_and_harms_no_other(tmp_path, kind, record):
    log = open_audit(tmp_path / "audit" if kind == "file" else "memory://")
    with pytest.raises(AuditUnavailable):
        log.append(record, soon())
    log.append({"event": "fine"}, soon())
    log.close()
    kept = log.records if isinstance(log, MemoryAudit) else [*read_records(tmp_path / "audit")]
    assert [(r["event"], r["seq"]) for r in kept] == [("fine", 1)]


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"d": value}
    return value


@pytest.mark.parametrize(
    "candidates",
    [[{"t": "x" * size} for size in range(261_500, 262_200, 10)], [nested(depth) for depth in range(25, 36)]],
    ids=["large", "deep"],
)
def test_every_record_is_either_refused_or_can_be_read_back(log, tmp_path, candidates):
    accepted = []
    for record in candidates:
        with contextlib.suppress(AuditUnavailable):
            log.append(record, soon())
            accepted.append(record)
    assert 0 < len(accepted) < len(candidates)
    assert [{k: v for k, v in r.items() if k not in {"seq", "writer"}} for r in read_records(tmp_path / "audit")] == accepted


# --- durable before it returns


def test_append_returns_only_after_the_sync_of_its_record(tmp_path):
    disk = Disk()
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    disk.free.clear()
    returned = threading.Event()

    def work() -> None:
        log.append({"event": "mint"}, soon(20))
        returned.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not returned.wait(0.2)
    assert disk.syncs == 0
    disk.free.set()
    assert returned.wait(5)
    assert disk.syncs == 1
    thread.join()
    log.close()


def test_kill_9_loses_no_acknowledged_record(tmp_path):
    lost, seen = [], 0
    for number in range(3):
        directory = tmp_path / str(number)
        with subprocess.Popen([sys.executable, "-c", RECORDS_OF_A_CHILD, str(directory)], stdout=subprocess.PIPE) as child:
            assert child.stdout
            acknowledged = [child.stdout.readline() for _ in range(50)]
            child.send_signal(signal.SIGKILL)
            acknowledged += [line for line in child.stdout if line.endswith(b"\n")]
        recorded = {r["id"] for r in read_records(directory)}
        lost += [line for line in acknowledged if line.decode().strip() not in recorded]
        seen += len(acknowledged)
    assert seen >= 150
    assert lost == []


def test_sixteen_threads_share_syncs_and_lose_nothing(tmp_path):
    disk = Disk(takes=0.005)
    log = FileAudit(tmp_path / "audit", sync=disk.sync)

    def work(name: int) -> None:
        for number in range(10):
            log.append({"id": [name, number]}, soon(20))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    records = [*read_records(tmp_path / "audit")]
    assert [r["seq"] for r in records] == [*range(1, 161)]
    assert Counter(tuple(r["id"]) for r in records) == Counter((t, n) for t in range(16) for n in range(10))
    assert disk.syncs <= 80


def test_close_writes_what_was_accepted(tmp_path):
    disk = Disk()
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    disk.free.clear()
    threads = [threading.Thread(target=log.append, args=({"id": number}, soon(20))) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    threading.Timer(0.2, disk.free.set).start()
    log.close()
    for thread in threads:
        thread.join()
    assert len([*read_records(tmp_path / "audit")]) == 4


# --- refused when it cannot be durable


@pytest.mark.deadline
def test_a_sync_that_hangs_refuses_at_the_deadline_and_names_what_came_too_late(tmp_path):
    disk = Disk()
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    log.append({"event": "before"}, soon())
    disk.free.clear()
    started = time.monotonic()
    with pytest.raises(AuditUnavailable, match="deadline"):
        log.append({"event": "late"}, soon(0.3))
    assert 0.25 < time.monotonic() - started < 1
    disk.free.set()
    log.append({"event": "after"}, soon())
    log.close()
    records = [*read_records(tmp_path / "audit")]
    late = next(r["seq"] for r in records if r.get("event") == "late")
    assert [r["records"] for r in records if r.get("type") == "discarded"] == [[late]]
    assert {r.get("event", r.get("type")) for r in records} == {"before", "late", "discarded", "after"}


def test_a_passed_deadline_is_refused_and_nothing_is_written(log, tmp_path):
    with pytest.raises(AuditUnavailable, match="deadline"):
        log.append({"event": "late"}, time.monotonic())
    log.close()
    assert [*read_records(tmp_path / "audit")] == []
    with pytest.raises(AuditUnavailable, match="deadline"):
        MemoryAudit().append({"event": "late"}, time.monotonic())


def test_a_flood_behind_a_hanging_sync_is_refused_at_once(tmp_path):
    disk = Disk()
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    disk.free.clear()
    refusals = (refusal(log, number) for number in range(3 * MAX_WAITING))
    before = len([*itertools.takewhile(lambda text: "wait already" not in text, refusals)])
    assert MAX_WAITING <= before < 3 * MAX_WAITING
    disk.free.set()
    log.close()


def refusal(log: FileAudit, number: int) -> str:
    with pytest.raises(AuditUnavailable) as caught:
        log.append({"id": number}, soon(0.0003))
    return str(caught.value)


def test_a_failing_sync_refuses_and_the_next_record_starts_a_new_segment(tmp_path):
    broken = [True]

    def sync(descriptor: int) -> None:
        if broken[0]:
            raise OSError(5, "Input/output error")
        os.fsync(descriptor)

    broken[0] = False
    log = FileAudit(tmp_path / "audit", sync=sync)
    log.append({"id": 1}, soon())
    broken[0] = True
    with pytest.raises(AuditUnavailable, match="Input/output error"):
        log.append({"id": 2}, soon())
    with pytest.raises(AuditUnavailable, match="Input/output error"):
        log.append({"id": 3}, soon())
    broken[0] = False
    log.append({"id": 4}, soon())
    log.close()
    assert len(files(tmp_path)) == 2
    assert sorted(r["id"] for r in read_records(tmp_path / "audit")) == [1, 4]


def test_a_full_disk_refuses_and_heals_when_there_is_room_again(log, tmp_path):
    log.append({"id": 1}, soon())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (path,) = files(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))  # room for a part of the next line
        with pytest.raises(AuditUnavailable, match="File too large"):
            log.append({"id": 2, "text": "x" * 4000}, soon())
        with pytest.raises(AuditUnavailable, match="File too large"):
            log.append({"id": 3, "text": "x" * 4000}, soon())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.append({"id": 4}, soon())
    assert len(files(tmp_path)) == 1  # nothing was written of what found no room
    assert sorted(r["id"] for r in read_records(tmp_path / "audit")) == [1, 4]


@contextlib.contextmanager
def without_privileges():
    """A directory's mode means nothing to root, so become nobody for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_directory_is_refused_when_opened_and_later():
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if os.geteuid() == 0:
            os.chown(directory, 65534, 65534)
        with without_privileges():
            log = FileAudit(directory)
            log.append({"id": 1}, soon())
            directory.chmod(0o500)
            segment = log._writer._segment
            assert segment
            os.close(segment._descriptor)
            with pytest.raises(AuditUnavailable, match="Bad file descriptor"):
                log.append({"id": 2}, soon())
            with pytest.raises(AuditUnavailable, match="Permission denied"):
                log.append({"id": 3}, soon())
            with pytest.raises(AuditUnavailable, match="Permission denied"):
                open_audit(directory)
            directory.chmod(0o700)
            log.append({"id": 4}, soon())
            log.close()
            assert [r["id"] for r in read_records(directory)] == [1, 4]


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_closed_log_refuses(tmp_path, kind):
    log = open_audit(tmp_path / "audit" if kind == "file" else "memory://")
    log.close()
    log.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        log.append({"id": 1}, soon())
    with pytest.raises(AuditUnavailable, match="closed"):
        asyncio.run(log.aappend({"id": 1}, soon()))


FORK = """
import os, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from agentgate.audit import open_audit
from agentgate.errors import AuditUnavailable
log = open_audit(sys.argv[1])
if os.fork() == 0:
    try:
        log.append({"id": 1}, time.monotonic() + 5)
    except AuditUnavailable as error:
        sys.exit(0 if "fork" in str(error) else 1)
    sys.exit(2)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_child_is_refused_at_once(tmp_path):
    assert subprocess.run([sys.executable, "-c", FORK, str(tmp_path / "audit")], timeout=20, check=False).returncode == 0


def test_a_log_nobody_holds_ends_its_thread(tmp_path):
    log = FileAudit(tmp_path / "audit")
    log.append({"id": 1}, soon())
    thread = log._writer.thread
    del log
    thread.join(5)
    assert not thread.is_alive()


# --- asynchronous


async def test_asynchronous_appends_share_syncs(tmp_path):
    disk = Disk(takes=0.005)
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    await asyncio.gather(*(log.aappend({"id": number}, soon()) for number in range(100)))
    log.close()
    assert sorted(r["id"] for r in read_records(tmp_path / "audit")) == [*range(100)]
    assert disk.syncs <= 10


@pytest.mark.deadline
async def test_an_asynchronous_append_is_refused_at_the_deadline_without_blocking_the_loop(tmp_path):
    disk = Disk()
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    disk.free.clear()
    started = time.monotonic()
    ticks = asyncio.create_task(asyncio.sleep(0.05, "ran"))
    with pytest.raises(AuditUnavailable, match="deadline"):
        await log.aappend({"id": 1}, soon(0.3))
    assert ticks.done()
    assert time.monotonic() - started < 1
    disk.free.set()
    log.close()
    assert [r.get("records") for r in read_records(tmp_path / "audit")] == [None, [1]]


async def test_a_cancelled_append_is_named_as_discarded(tmp_path):
    disk = Disk()
    log = FileAudit(tmp_path / "audit", sync=disk.sync)
    disk.free.clear()
    task = asyncio.create_task(log.aappend({"id": 1}, soon()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    disk.free.set()
    log.close()
    assert [r.get("records") for r in read_records(tmp_path / "audit")] == [None, [1]]


async def test_an_append_that_is_cancelled_as_it_ends_troubles_nobody(tmp_path):
    log, said = FileAudit(tmp_path / "audit"), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    tasks = [asyncio.create_task(log.aappend({"id": number}, soon())) for number in range(2)]
    await asyncio.sleep(0)
    log.close()  # which waits for both, so the loop learns of both ends after this
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await tasks[1]
    assert said == []
    assert [record["id"] for record in read_records(tmp_path / "audit")] == [0, 1]


# --- reading


def written(directory: Path, count: int = 3) -> Path:
    log = FileAudit(directory)
    for number in range(count):
        log.append({"id": number}, soon())
    log.close()
    (path,) = directory.iterdir()
    return path


@pytest.mark.parametrize("tail", [b"", b'{"prev":"00', b"\0" * 700, b"\0\0\n", b"garbage without an end"], ids=repr)
def test_a_torn_last_line_is_left_out(tmp_path, tail):
    path = written(tmp_path / "audit")
    with path.open("ab") as file:
        file.write(tail)
    assert [r["id"] for r in read_records(path.parent)] == [0, 1, 2]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda lines: [lines[0], lines[2]], "seq 3"),
        (lambda lines: lines[1:], "seq 2"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "seq 1"),
        (lambda lines: [lines[1], lines[0], lines[2]], "seq 2"),
        (lambda lines: [lines[0].replace(b'"id":0', b'"id":9'), *lines[1:]], "prev"),
        (lambda lines: [lines[0].replace(b'"id":0', b'"id": 0'), *lines[1:]], "another form"),
        (lambda lines: [lines[0].replace(b'"id":0', b'"id":0,"id":1'), *lines[1:]], "another form"),
        (lambda lines: [b"{}\n", *lines], "another form"),
        (lambda lines: [b"not json\n", *lines], "canonical JSON"),
        (lambda lines: [lines[0], b"\0\0\0\n", *lines[1:]], "torn"),
        (lambda lines: [line.replace(b'"writer":"2', b'"writer":"3') for line in lines], "writer"),
    ],
    ids=[
        "a record left out",
        "the first record left out",
        "a record twice",
        "two records swapped",
        "a value changed",
        "spaces added",
        "a key twice",
        "a line added",
        "a line that is no JSON",
        "zeros in the middle",
        "another writer's lines",
    ],
)
def test_a_damaged_segment_is_named(tmp_path, damage, names):
    path = written(tmp_path / "audit")
    path.write_bytes(b"".join(damage(lines_of(path))))
    with pytest.raises(AuditDamaged) as caught:
        [*read_records(path.parent)]
    assert names in str(caught.value)
    assert caught.value.file == str(path)


# --- addresses, memory


@pytest.mark.parametrize("address", ["", "redis://localhost", "memory://x", "file:///tmp/x"])
def test_an_unknown_address_is_refused(address):
    with pytest.raises(ConfigError, match="memory://"):
        open_audit(address)


def test_memory_is_reached_only_by_its_address_and_says_that_it_is_not_durable(tmp_path):
    memory, file = open_audit("memory://"), open_audit(tmp_path / "audit")
    assert (memory.durable, file.durable) == (False, True)
    file.close()


def test_memory_keeps_copies_and_a_bounded_number():
    log = MemoryAudit()
    record = {"list": [1]}
    log.append(record, soon())
    record["list"].append(2)
    assert log.records == [{"list": [1], "writer": "memory", "seq": 1}]
    for number in range(KEEP):
        log.append({"id": number}, soon())
    assert len(log.records) == KEEP
    assert log.records[0] == {"id": 0, "writer": "memory", "seq": 2}
