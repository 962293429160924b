"""Segments are compressed, and removed when their time is over: the seals say so, and tell it from what was taken away."""

from __future__ import annotations

import gzip
import json
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from typer.testing import CliRunner

from agentgate.audit import FileAudit, read_records, remembered
from agentgate.audit.retention import compress_segment
from agentgate.audit.sealer import Sealer
from agentgate.audit.segment import segment_files, writer_of
from agentgate.audit.tree import SUFFIX, Head, LogKey
from agentgate.audit.verify import LogEvidence, LogFinding, verify
from agentgate.cli.main import app

DAY, NOW = 86400.0, 1_800_000_000.0
EPOCH = f"{'a' * 40}.1"


def day(folder: Path, number: int, *records: dict[str, Any], name: str = "audit") -> None:
    """What a process wrote so many days before now, and ended."""
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    with time_machine.travel(NOW - number * DAY, tick=True):
        log = FileAudit(folder / name, keys=folder / "keys")
        for record in records or ({"type": "decision", "decision": "allow", "day": number},) * 3:
            log.append({"time": time.time(), "tenant": "acme", **record}, time.monotonic() + 5)
        log.close()


def ran(*words: str | Path) -> Any:
    with time_machine.travel(NOW, tick=True):
        return CliRunner().invoke(app, ["audit", *map(str, words)])


def pruned(folder: Path, *words: str) -> Any:
    done = ran("prune", folder / "audit", "--keys", folder / "keys", *words)
    assert done.exit_code == 0, done.output
    return done


def status(folder: Path, *more: str | Path) -> int:
    return int(ran("verify", folder / "audit", *more, "--keys", folder / "keys").exit_code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (500, 450, 100, 1):
        day(tmp_path, number)
    return tmp_path


def test_what_is_older_is_removed_and_the_rest_is_still_proven(folder: Path) -> None:
    first, second, *kept = segment_files(folder / "audit")
    assert "2 segments removed, 0 compressed" in pruned(folder, "--before", "400d").output
    left = segment_files(folder / "audit")
    assert (first in left, second in left, left[:2]) == (False, False, kept)
    assert status(folder) == 0
    (said,) = [record for record in read_records(folder / "audit") if record["type"] == "pruned"]
    assert said["removed"] == [writer_of(first), writer_of(second)]
    assert said["by"]
    assert abs(said["before"] - (NOW - 400 * DAY)) < 100
    whole = {each: each.read_bytes() for each in left}
    for path, data in whole.items():  # each of the others is as proven as before
        path.unlink()
        assert status(folder) == LogFinding.MISSING
        path.write_bytes(data.replace(b"allow", b"alloW", 1) if b"allow" in data else data[:-1] + b"x")
        assert status(folder) != 0
        path.write_bytes(data)
    assert status(folder) == 0


def test_a_second_time_more_is_removed_and_what_was_removed_before_stays_told(folder: Path) -> None:
    pruned(folder, "--before", "480d")
    pruned(folder, "--before", "50d")
    assert status(folder) == 0
    assert "0 segments removed" in pruned(folder, "--before", "50d").output
    day(folder, 0)  # the next process goes on in the same log
    assert status(folder) == 0
    assert [record["day"] for record in read_records(folder / "audit") if "day" in record] == [1, 1, 1, 0, 0, 0]


def test_what_has_a_finding_stays_and_the_rest_goes(folder: Path) -> None:
    first, second, third, _ = segment_files(folder / "audit")
    second.write_bytes(second.read_bytes().replace(b"allow", b"alloW", 1))
    third.unlink()
    done = pruned(folder, "--before", "400d", "--compress", "7d")
    assert "1 segments removed, 0 compressed" in done.stdout
    assert "NOT WHOLE" in done.stderr
    assert (first.exists(), second.exists()) == (False, True)
    assert status(folder) in {LogFinding.EDITED, LogFinding.MISSING}


def test_of_a_log_whose_seals_are_not_whole_nothing_is_removed(folder: Path) -> None:
    seals = next((folder / "audit").glob(f"*{SUFFIX}"))
    whole = seals.read_bytes()
    seals.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    done = pruned(folder, "--before", "400d", "--compress", "7d")
    assert "0 segments removed, 0 compressed" in done.stdout
    assert "NOT WHOLE" in done.stderr
    seals.write_bytes(whole)
    assert (len(segment_files(folder / "audit")), status(folder)) == (4, 0)


def test_what_a_log_took_over_from_another_stays(folder: Path) -> None:
    """Of two logs that name it one would miss it."""
    for path in (folder / "keys" / "audit-logs").iterdir():
        path.unlink()
    origin = next((folder / "audit").glob(f"*{SUFFIX}"))
    hidden = folder / origin.name
    origin.rename(hidden)
    day(folder, 0)
    hidden.rename(origin)
    assert status(folder) == 0
    assert "0 segments removed" in pruned(folder, "--before", "1d").stdout
    assert status(folder) == 0


def test_whoever_has_no_key_of_the_log_removes_nothing_that_is_not_missed(folder: Path, tmp_path: Path) -> None:
    """A record that says so, sealed by nobody or by another log, excuses nothing."""
    first, *_ = segment_files(folder / "audit")
    data = first.read_bytes()
    (tmp_path / "theirs").mkdir(mode=0o700)
    LogKey.open(tmp_path / "theirs")
    theirs = FileAudit(tmp_path / "other", keys=tmp_path / "theirs")
    said = {"type": "pruned", "time": NOW, "by": "x", "before": NOW, "removed": [writer_of(first)]}
    theirs.append(said, time.monotonic() + 5)
    theirs.close()
    sealer = Sealer(tmp_path / "other", tmp_path / "theirs")
    assert sealer.begin() is None
    last = verify([folder / "audit"], LogEvidence.of([folder / "keys"])).logs[0].heads[writer_of(first)][-1]
    sealer.seal(last, Head(writer_of(first), 0, 0, "", int(NOW * 1000), closed=True))
    sealer.close()
    first.unlink()
    assert status(folder) == LogFinding.MISSING
    assert status(folder, tmp_path / "other", "--keys", tmp_path / "theirs") == LogFinding.MISSING
    forged = FileAudit(folder / "audit", keys=None)
    forged.append(said, time.monotonic() + 5)
    forged.close()
    assert status(folder) == LogFinding.MISSING
    seals = next((folder / "audit").glob(f"*{SUFFIX}"))
    whole = seals.read_bytes()
    seals.write_bytes(whole + (tmp_path / "other").joinpath(next((tmp_path / "other").glob(f"*{SUFFIX}")).name).read_bytes())
    assert status(folder) in {LogFinding.SEALS, LogFinding.MISSING}
    seals.write_bytes(whole)
    first.write_bytes(data)


def test_a_removal_that_was_interrupted_is_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = segment_files(folder / "audit")
    unlink = Path.unlink

    def fails(path: Path, **more: Any) -> None:
        if path == second:
            raise OSError(5, "Input/output error")
        unlink(path, **more)

    monkeypatch.setattr(Path, "unlink", fails)
    done = ran("prune", folder / "audit", "--keys", folder / "keys", "--before", "400d")
    assert (done.exit_code, first.exists(), second.exists()) == (1, False, True)
    monkeypatch.undo()
    assert status(folder) == 0
    pruned(folder, "--before", "400d")
    assert (second.exists(), status(folder)) == (False, 0)


def test_what_must_outlast_every_segment_is_written_again(tmp_path: Path) -> None:
    revoked = {
        "type": "revocation_applied",
        "name": "user:lee",
        "by": "kim",
        "reason": "x",
        "before": 0,
        "life": 0,
        "history": f"{EPOCH} 7",
    }
    day(tmp_path, 500, revoked, {"type": "decision", "decision": "allow", "history": f"{EPOCH} 9"})
    day(tmp_path, 450, {"type": "redemption", "redemptions": f"{EPOCH} 4", "audience": "https://tools.example", "history": f"{EPOCH} 8"})
    day(tmp_path, 1)
    before = remembered(tmp_path / "audit")
    assert set(before.values()) == {f"{EPOCH} 9", f"{EPOCH} 4"}
    for words in ("400d", "0d"):
        pruned(tmp_path, "--before", words)
        assert remembered(tmp_path / "audit") == before
        assert [record["name"] for record in read_records(tmp_path / "audit") if record["type"] == "revocation_applied"] == ["user:lee"]
        assert status(tmp_path) == 0


def test_closed_segments_are_compressed_and_read_as_before(folder: Path) -> None:
    records, size = [*read_records(folder / "audit")], sum(each.stat().st_size for each in segment_files(folder / "audit"))
    assert "0 segments removed, 3 compressed" in pruned(folder, "--compress", "7d").output
    assert [each.suffix for each in segment_files(folder / "audit")] == [".gz"] * 3 + [".jsonl"]
    assert [*read_records(folder / "audit")] == records
    assert {each.stat().st_mode & 0o777 for each in (folder / "audit").glob("*.gz")} == {0o600}
    assert sum(each.stat().st_size for each in segment_files(folder / "audit")) < size
    assert status(folder) == 0
    where = (folder / "audit", "--keys", folder / "keys", "--cache", folder / "cache")
    told = json.loads(ran("list", *where, "--json").stdout)
    assert [each["day"] for each in told] == [500] * 3 + [450] * 3 + [100] * 3 + [1] * 3
    day(folder, 0)
    assert status(folder) == 0
    assert "1 segments removed, 1 compressed" in pruned(folder, "--before", "470d", "--compress", "12h").output
    assert status(folder) == 0


@pytest.mark.parametrize("what", ["cut", "changed", "no gzip", "empty", "another", "a bomb"])
def test_a_compressed_segment_that_was_changed_is_named(folder: Path, what: str) -> None:
    pruned(folder, "--compress", "7d")
    path, other, *_ = segment_files(folder / "audit")
    data = path.read_bytes()
    changed: dict[str, Callable[[], bytes]] = {
        "cut": lambda: data[:-20],
        "changed": lambda: gzip.compress(gzip.decompress(data).replace(b"allow", b"alloW", 1)),
        "no gzip": lambda: b"x" * 100,
        "empty": lambda: b"",
        "another": other.read_bytes,
        "a bomb": lambda: gzip.compress(gzip.decompress(data) + b"0" * (64 << 20)),
    }
    path.write_bytes(changed[what]())
    expected = {LogFinding.EDITED, LogFinding.CUT, LogFinding.APPENDED}
    assert status(folder) in expected
    done = ran("list", folder / "audit", "--keys", folder / "keys", "--cache", folder / "cache")
    assert (done.exit_code, "NOT WHOLE" in done.stderr) == (0, True)
    assert isinstance(remembered(folder / "audit"), dict)  # a gate starts


def test_a_few_bytes_that_become_many_are_not_held(folder: Path) -> None:
    pruned(folder, "--compress", "7d")
    path, *_ = segment_files(folder / "audit")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"0" * (64 << 20)))
    evidence = LogEvidence.of([folder / "keys"])
    tracemalloc.start()
    assert verify([folder / "audit"], evidence).segments[0].finding is LogFinding.EDITED
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


def test_compression_that_was_interrupted_is_done_again(folder: Path) -> None:
    first, *_ = segment_files(folder / "audit")
    shutil.copy(first, folder / "kept")
    compress_segment(first)
    shutil.copy(folder / "kept", first)  # as if the process had been killed before it took it away
    assert status(folder) == LogFinding.TWICE
    compress_segment(first)
    assert (first.exists(), status(folder)) == (False, 0)


def test_a_segment_that_is_written_now_is_neither_removed_nor_compressed(folder: Path) -> None:
    log = FileAudit(folder / "audit", keys=folder / "keys")
    log.append({"type": "decision", "time": 1.0}, time.monotonic() + 5)
    try:
        pruned(folder, "--before", "2099-01-01", "--compress", "2099-01-01")
        log.append({"type": "decision", "time": 2.0}, time.monotonic() + 5)
    finally:
        log.close()
    assert status(folder) == 0
    assert [record["time"] for record in read_records(folder / "audit") if record["type"] == "decision"] == [1.0, 2.0]


def test_a_log_that_a_new_one_takes_over_may_be_compressed(folder: Path) -> None:
    pruned(folder, "--compress", "7d")
    for path in (*(folder / "audit").glob(f"*{SUFFIX}"), *(folder / "audit").glob("*.keys"), *(folder / "keys" / "audit-logs").iterdir()):
        path.unlink()
    day(folder, 0)
    assert status(folder) == 0
    assert [*(folder / "keys" / "audit-logs").iterdir()]
