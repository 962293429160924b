"""Seals segments: merges their heads into the tree of their directory's log, and signs a
checkpoint of it.

Rules: every process of a directory seals its own segment, in turns under a lock on the newest
file of seals: when the segment begins, about a second after records came, and when it ends. A
segment that no process writes any more, and that a seal names, is sealed by the next process
that begins, with how much of it was unsealed. One that no seal names was not begun by this log;
only a new log takes over what lies there. A copy of the newest checkpoint is kept in the key
directory, so that a log that went away or back is noticed when the next process begins: a new
log then begins with the record ``log_lost``, and what is left of the old one is not touched.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from agentgate.audit.segment import Segment, read_lines, segment_files, writer_of
from agentgate.audit.tree import (
    KEY,
    SUFFIX,
    Checkpoint,
    Head,
    LogKey,
    LogTree,
    origin_of,
    read_checkpoint,
    read_public,
    seal_files,
    sealed_lines,
)
from agentgate.audit.writing import sync_directory
from agentgate.errors import AgentGateError, AuditDamaged, KeyRefused
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import canonical

LOGS = "audit-logs"  # in the key directory: the newest checkpoint of each log
SEAL_SECONDS = 1.0
SEAL_RECORDS = 4096
_PATIENCE = 2.0  # seconds for the turn of another process
_FILE_BYTES = 8 << 20
_HEADS = 500  # in one line
_COPY = "the newest checkpoint of a log: {directory, note}"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class LogLost(OSError):
    """The seals of a log are gone, went back, or are not what its key signed."""


class Sealer:
    """The seals of one directory, as one process writes them. Used by one thread only."""

    def __init__(
        self, directory: Path, keys: Path, tell: Callable[[str], object] = lambda _: None
    ) -> None:
        """Read nothing yet. `tell` is told of each new checkpoint."""
        self._directory = directory
        self._keys = keys
        self._key = LogKey.open(keys)
        self._path = Path()
        self._descriptor = -1
        self._end = 0
        self._tell = tell
        self._known: Checkpoint | None = None  # the newest that is told of elsewhere
        self._tree = LogTree("", self._key.public)

    @property
    def tree(self) -> LogTree:
        """The log's tree as this process knows it."""
        return self._tree

    def begin(self) -> dict[str, Any] | None:
        """Go on with the directory's log, or begin one; then seal what other processes left.

        Returns:
            The record of a log that was lost.

        Raises:
            OSError: it cannot be read or written now.
        """
        if self._descriptor >= 0:
            with suppress(LogLost, ValueError), self._turn():
                return None
            self.close()
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock(directory)  # or two processes would begin two logs
            return self._begin()
        finally:
            os.close(directory)

    def _begin(self) -> dict[str, Any] | None:
        lost = None
        try:
            found = self._go_on()
        except (LogLost, ValueError) as error:
            lost = self._lost(str(error))
            found = False
        if not found:
            self._begin_log()
        return lost

    def seal(self, *heads: Head) -> None:
        """Seal own segments up to these heads.

        Raises:
            LogLost: `begin` again, and the segment is no part of the log that is then begun.
                OSError: it cannot be written now.
        """
        try:
            with self._turn():
                self._write(list(heads))
        except (LogLost, ValueError) as error:
            self.close()
            raise LogLost(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lost(self, why: str) -> dict[str, Any]:
        known = self._known or self._tree.checkpoint
        told = {"origin": known.origin, "size": known.size, "root": known.root.hex()}
        return {"type": "log_lost", "time": round(time.time(), 6), "why": why[:500], **told}

    def _go_on(self) -> bool:
        """Whether there is a log of this directory, which is then read."""
        logs = seal_files(self._directory)
        copies = [
            each
            for place, each in kept_checkpoints(self._keys).values()
            if place == str(self._directory)
        ]
        copies += [self._tree.checkpoint] if self._tree.edge.size else []
        newest = max([*logs, *(each.origin for each in copies)], default="")
        if not newest:
            return False
        self._known = max(
            (each for each in copies if each.origin == newest),
            key=lambda each: each.size,
            default=None,
        )
        self._tree = LogTree(newest, self._key.public)
        if newest not in logs:
            raise LogLost(f"{self._directory}: the seals of {newest} are gone")
        self._open(logs[newest][-1])
        with self._turn():
            if self._known is not None and self._known.size > self._tree.edge.size:
                raise LogLost(
                    f"{self._path}: ends after {self._tree.edge.size} leaves, expected at "
                    f"least {self._known.size}"
                )
            left = [
                self._left(head, self._directory / f"{writer}.jsonl")
                for writer, head in self._tree.heads.items()
            ]
            self._write([head for head in left if head is not None])
        return True

    def _begin_log(self) -> None:
        """Begin a log, with all the segments that lie here and nobody writes."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(8)}"
        path = self._directory / f"{name}.000000{SUFFIX}"
        self._tree = LogTree(origin_of(path), self._key.public)
        self._begin_file(path)
        with suppress(OSError):
            (self._directory / f"{name}.keys").symlink_to(self._keys)
        found = [
            self._left(Head(writer_of(each), 0, 0, ""), each)
            for each in segment_files(self._directory)
        ]
        left = [head for head in found if head is not None]
        with self._turn():
            for start in range(0, len(left), _HEADS):
                self._write(left[start : start + _HEADS])

    def _begin_file(self, path: Path) -> None:
        """Begin a file, in this process's turn; it is there with its first line, or not at
        all.
        """
        note = self._key.sign(self._tree.checkpoint)
        draft = path.with_name(f".{path.name}")
        data = self._tree.first_line(note)
        descriptor = os.open(draft, _FLAGS | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            lock(descriptor)
            os.write(descriptor, data)
            os.fsync(descriptor)
            draft.rename(path)
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._path = path
        self._descriptor = descriptor
        self._end = len(data)
        self._tree.note = note
        self._keep()

    def _open(self, path: Path) -> None:
        """Go on with another file, from its start."""
        descriptor = os.open(path, _FLAGS)
        self.close()
        self._path = path
        self._descriptor = descriptor
        self._end = 0

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock on the newest file, with all of it read.

        Raises:
            ValueError: a line is not what the key signed. LogLost: the file is another, or
                shorter. OSError: it was not our turn in time.
        """
        lock(self._descriptor)
        try:
            self._read()
            while (after := _next(self._path)).exists():
                self._open(after)
                lock(self._descriptor)
                self._read()
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _read(self) -> None:
        """Take the lines since the last turn; one that a killed process left torn goes away."""
        here = os.fstat(self._descriptor)
        there = None
        with suppress(OSError):
            there = self._path.lstat()
        if (
            there is None
            or (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)
            or here.st_size < self._end
        ):
            raise LogLost(f"{self._path}: deleted, replaced or cut while it was written")
        if here.st_size == self._end:
            return
        for line in sealed_lines(self._path, self._end):
            self._tree.take(line.data, first=self._end == 0)
            self._end = line.end
            if (
                self._known is not None
                and self._known.size == self._tree.edge.size
                and self._known != self._tree.checkpoint
            ):
                raise LogLost(
                    f"{self._path}: another tree of {self._known.size} leaves than the copy "
                    f"in {self._keys / LOGS}"
                )
        os.ftruncate(self._descriptor, self._end)

    def _write(self, heads: list[Head]) -> None:
        """Append a seal of these heads, in this process's turn."""
        if not heads:
            return
        before = self._tree.edge.copy()
        self._tree.grow(heads)
        note = self._key.sign(self._tree.checkpoint)
        try:
            self._append(
                canonical({"heads": [head.leaf for head in heads], "note": note}) + b"\n"
            )
        except OSError:
            self._tree.edge = before
            os.ftruncate(self._descriptor, self._end)
            raise
        self._tree.note = note
        self._keep()
        if self._end > _FILE_BYTES:
            self._begin_next()

    def _append(self, line: bytes) -> None:
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path}: no room for a seal")
        os.fdatasync(self._descriptor)
        self._end += len(line)

    def _begin_next(self) -> None:
        """Begin the next file, with the heads of the segments that go on."""
        self._begin_file(_next(self._path))
        self._write(list(self._tree.heads.values())[:_HEADS])

    def _keep(self) -> None:
        """Keep the newest checkpoint in the key directory."""
        folder = self._keys / LOGS
        folder.mkdir(mode=0o700, exist_ok=True)
        name = self._path.name.split(".")[0]
        draft = folder / f".{name}"
        with os.fdopen(
            os.open(
                draft,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            ),
            "wb",
        ) as out:
            out.write(canonical({"directory": str(self._directory), "note": self._tree.note}))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(folder / f"{name}.json")
        self._tell(self._tree.note)

    @staticmethod
    def _left(known: Head, path: Path) -> Head | None:
        """The end of a segment that nobody writes any more, with how much was unsealed; None:
        it is written, or is not whole.
        """
        try:
            if not Segment.is_over(path):
                return None
            seq = 0
            end = 0
            digest = ""
            same = known.seq == 0
            for line in read_lines(path):
                seq = line.seq
                end = line.end
                digest = line.digest
                same = same or (seq == known.seq and digest == known.digest)
        except (AuditDamaged, FileNotFoundError):  # an auditor is told; it stays as it is
            return None
        if not same:
            return None
        return Head(
            known.writer,
            seq,
            end,
            digest,
            int(path.stat().st_mtime * 1000),
            closed=True,
            unsealed=seq - known.seq,
        )


def lock(descriptor: int) -> None:
    """Take the lock of a file. Raises OSError: another process has it for too long."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise OSError("another process seals this log and does not end")
        time.sleep(0.002)


def _next(path: Path) -> Path:
    name, number, _ = path.name.split(".")
    return path.with_name(f"{name}.{int(number) + 1:06}{SUFFIX}")


def kept_checkpoints(keys: Path) -> dict[str, tuple[str, Checkpoint]]:
    """The newest checkpoints that a key directory keeps, by origin, each with the directory of
    its log.

    Raises:
        AuditDamaged: one is not what the log's key signed. OSError: unreadable.
    """
    found = {}
    for path in sorted((keys / LOGS).glob("*.json")):
        try:
            value = orjson.loads(read_regular(path))
            checkpoint = read_checkpoint(value["note"])
            signed = LogTree(origin_of(path), read_public(keys)).verifier.signed(value["note"])
            found[checkpoint.origin] = str(value["directory"]), checkpoint
        except (OSError, ValueError, TypeError, KeyError, AttributeError, KeyRefused) as error:
            raise AuditDamaged(str(path), 1, str(error), _COPY) from error
        if checkpoint.origin != origin_of(path) or not signed:
            raise AuditDamaged(
                str(path), 1, "a checkpoint that another key signed, or of another log", _COPY
            )
    return found


def keys_of(directory: Path) -> Path | None:
    """The key directory of the log of a directory, where this user may read it; None: there is
    no log, or it may not.

    Nobody has signed where that is: whoever may write there can only keep a command from
    sealing what it writes.
    """
    for files in reversed(seal_files(directory).values()):
        with suppress(AgentGateError, OSError, ValueError, StopIteration):
            keys = files[-1].with_name(f"{files[-1].name.split('.')[0]}.keys").readlink()
            if (keys / KEY).exists():
                LogTree(origin_of(files[-1]), LogKey.open(keys).public).take(
                    next(sealed_lines(files[-1])).data, first=True
                )
                return keys
        return None
    return None
