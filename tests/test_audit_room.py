"""A full disk, and a log that is taken away: noticed before a token is burned, or before the next record counts."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, Gate, TokenRefused, Verifier
from agentgate.audit import FileAudit, read_records
from agentgate.audit.segment import ROOM
from agentgate.errors import AuditUnavailable, Refusal
from agentgate.stores import server_id
from tests.servers import Server, as_tool_server, valkey_binary
from tests.shop import ORDER, opened, run_of
from tests.test_verifier import GOOD


def soon() -> float:
    return time.monotonic() + 5


class Disk:
    """A small disk for the log, filled and freed: a file system where this process may mount one, else a limit on the size of files."""

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path, self._mounted = path, mounted
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """Take all that is free."""
        if not self._mounted:
            size = max(file.stat().st_size for file in (self.path / "audit").glob("*.jsonl"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + ROOM, self._limits[1]))
            return
        with suppress(OSError), (self.path / "filler").open("wb", buffering=0) as filler:
            for _ in range(6 * 256 + 1):  # and no more than the whole disk, whatever it is
                filler.write(b"x" * 4096)

    def free(self) -> None:
        """Give it back."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.path / "filler").unlink(missing_ok=True)


@contextmanager
def mounted(path: Path) -> Iterator[bool]:
    """A tmpfs of 6 MiB, where this process may mount one."""
    done = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(path)], check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(path)], check=True)  # also where a failed test left a log open


@pytest.fixture(params=["a full file system", "a limit on files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    if request.param == "a limit on files":
        disk = Disk(path, mounted=False)
        yield disk
        disk.free()
        return
    with mounted(path) as done:
        disk = Disk(path, mounted=done)
        yield disk
        disk.free()


def used_up(log: Any) -> None:
    """Write until the log takes no more, not even a small record."""
    for size in (100_000, 3000, 100, 0):
        with pytest.raises(AuditUnavailable, match=r"No space left|File too large"):  # noqa: PT012 - some of them fit
            for _ in range(400):
                log.append({"type": "other", "text": "x" * size}, soon())


def test_a_tool_server_with_a_full_disk_refuses_before_the_burn(folder: Path, disk: Disk) -> None:
    server = Server(valkey_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            verifier = Verifier.open(
                gate.jwks(),
                **{**GOOD, "audience": gate.issuer},
                store=as_tool_server(server.url, gate.issuer),
                audit=str(disk.path / "audit"),
            )
            run = run_of(gate)
            answer = run.authorize("orders.get", ORDER, tool_call_id="look")
            assert isinstance(answer, Allow)
            disk.fill()
            used_up(verifier._audit)
            burned = f"ag:{{acme}}:token:{server_id(gate.issuer)}:{answer.token.jti}"
            with pytest.raises(TokenRefused) as refused:
                verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER)
            assert refused.value.code is Refusal.AUDIT
            assert server.command("EXISTS", burned).startswith(":1")
            disk.free()
            with verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER) as call:
                call.record_result({"total": "1.00", "currency": "EUR", "customer": "cus_1"})
            assert server.command("EXISTS", burned).startswith(":0")
            verifier.close()
    finally:
        server.stop()


def test_what_was_promised_is_written_on_a_full_disk(disk: Disk) -> None:
    log = FileAudit(disk.path / "audit")
    log.room(soon())
    disk.fill()
    used_up(log)
    free = disk if disk._mounted else None
    for number in range(200 if free else 0):
        log.append({"type": "redemption", "id": number}, soon(), promised=True)
    with pytest.raises(AuditUnavailable):
        log.append({"type": "decision"}, soon())
    with pytest.raises(AuditUnavailable):
        log.room(soon())
    disk.free()
    log.room(soon())
    log.append({"type": "decision"}, soon())
    log.close()
    kinds = [record["type"] for record in read_records(disk.path / "audit") if record["type"] != "other"]
    assert kinds == ["redemption"] * (200 if free else 0) + ["decision"]


async def test_room_is_asked_for_without_blocking_too(disk: Disk) -> None:
    log = FileAudit(disk.path / "audit")
    await log.aroom(soon())
    disk.fill()
    used_up(log)
    with pytest.raises(AuditUnavailable):
        await log.aroom(soon())
    disk.free()
    await log.aroom(soon())
    log.close()


def test_a_log_gives_its_room_back_when_it_ends(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    log.append({"id": 1}, soon())
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    assert path.stat().st_size < 1000  # who follows the file sees records only
    log.close()
    assert path.stat().st_blocks * 512 < ROOM


# --- taken away under its writer --------------------------------------------------------------------------------------------
def delete(directory: Path) -> None:
    (path,) = directory.glob("*.jsonl")
    path.unlink()


def replace(directory: Path) -> None:
    (path,) = directory.glob("*.jsonl")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def cut(directory: Path) -> None:
    (path,) = directory.glob("*.jsonl")
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")


def add(directory: Path) -> None:
    (path,) = directory.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b"{}\n")


def replace_all(directory: Path) -> None:
    directory.rename(directory.with_name("moved"))
    directory.mkdir(mode=0o700)


TAKEN: list[Callable[[Path], None]] = [delete, replace, cut, add, replace_all]


@pytest.mark.parametrize("take", TAKEN, ids=lambda f: f.__name__)
def test_a_segment_that_changes_under_its_writer_is_noticed_before_the_next_record_counts(
    tmp_path: Path, take: Callable[..., None]
) -> None:
    directory = tmp_path / "audit"
    log = FileAudit(directory)
    for number in range(3):
        log.append({"id": number}, soon())
    (path,) = directory.glob("*.jsonl")
    take(directory)
    left = path.read_bytes() if path.exists() else b""
    with pytest.raises(AuditUnavailable, match=f"segment {path}"):
        log.append({"id": 3}, soon())
    assert (path.read_bytes() if path.exists() else b"") == left  # what is there now is evidence
    log.append({"id": 4}, soon())
    log.close()
    (newest,) = (each for each in directory.glob("*.jsonl") if each != path)
    lost, last = ({**record} for record in read_records(directory) if record["writer"] == newest.stem) if take is not add else _of(newest)
    assert (lost["type"], lost["head"]["writer"], lost["head"]["seq"]) == ("segment_lost", path.stem, 3)
    assert last["id"] == 4


def _of(path: Path) -> tuple[dict[str, Any], ...]:
    damaged: list[Any] = []
    return tuple(record for record in read_records(path.parent, damaged=damaged.append) if record["writer"] == path.stem)


def test_a_segment_that_goes_away_while_it_is_synced_is_noticed_too(tmp_path: Path) -> None:
    taken: list[Path] = []

    def sync(descriptor: int) -> None:
        for path in taken:
            path.unlink()
        taken.clear()
        os.fsync(descriptor)

    log = FileAudit(tmp_path / "audit", sync=sync)
    log.append({"id": 1}, soon())
    taken.extend((tmp_path / "audit").glob("*.jsonl"))
    with pytest.raises(AuditUnavailable, match="deleted or replaced after 1 records"):
        log.append({"id": 2}, soon())
    log.append({"id": 3}, soon())
    log.close()


def test_a_deleted_directory_refuses_until_it_is_there_again(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    log = FileAudit(directory)
    log.append({"id": 1}, soon())
    shutil.rmtree(directory)
    for _ in range(3):
        with pytest.raises(AuditUnavailable):
            log.append({"id": 2}, soon())
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    with pytest.raises(AuditUnavailable, match="others may write"):
        log.append({"id": 3}, soon())
    directory.chmod(0o700)
    log.append({"id": 4}, soon())
    log.close()
    assert [record.get("id") for record in read_records(directory)] == [None, 4]


def test_nothing_is_burned_where_the_log_was_taken_away(folder: Path) -> None:
    def redeemed(gate: Gate, run: Any, token: Any) -> Any:
        return run.redeem(token, tool="orders.get", args=ORDER)

    with opened(folder, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        run = run_of(gate)
        token = run.authorize("orders.get", ORDER, tool_call_id="look").token
        shutil.rmtree(folder / "audit")
        with pytest.raises(TokenRefused) as refused:
            redeemed(gate, run, token)
        assert refused.value.code is Refusal.AUDIT
        (folder / "audit").mkdir(mode=0o700)
        with redeemed(gate, run, token):
            pass
