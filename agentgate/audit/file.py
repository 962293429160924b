"""The durable audit log: one thread writes and syncs, callers wait for it no longer than their deadline.

Rules: `append` returns only after the sync of its record (no token leaves before its audit record is durable). Whatever waits when the
thread comes round is one group and costs one sync. An error refuses its whole group and ends the segment; the next group
starts a new segment, so a full disk that is freed heals without a restart. A sync that hangs holds nobody beyond its
deadline: the caller is refused, and when the record becomes durable after all, a ``discarded`` record names it, so that an
auditor knows no token left for it. After a fork the child is refused, since a segment has one writer.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from agentgate.audit.record import record_bytes
from agentgate.audit.segment import Segment, sync_directory
from agentgate.errors import AuditUnavailable, ConfigError

MAX_GROUP = 512
MAX_WAITING = 4096  # entries; while a sync hangs, more are refused at once
_CLOSE_WAIT = 5.0

_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class _Entry:
    """One record on its way. `state` changes only under the writer's lock."""

    __slots__ = ("data", "error", "state", "wake")

    def __init__(self, data: bytes, wake: Callable[[], object]) -> None:
        self.data, self.wake = data, wake
        self.state: Literal["waiting", "durable", "failed", "given up"] = "waiting"
        self.error: BaseException | None = None


class _Writer:
    """Queue and thread behind a `FileAudit`. The thread holds no reference to the `FileAudit`, so that one can be collected."""

    def __init__(self, directory: Path, sync: Callable[[int], None]) -> None:
        self._directory, self._sync = directory, sync
        self._segment: Segment | None = Segment.create(directory)
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="agentgate-audit", daemon=True)
        self.thread.start()

    def put(self, entry: _Entry) -> None:
        """Queue an entry.

        Raises:
            AuditUnavailable: closed, another process, or too many are waiting.
        """
        if os.getpid() != self._pid:
            raise AuditUnavailable("the audit log was opened before a fork; open one in each process")
        with self._lock:
            if self._closed:
                raise AuditUnavailable("the audit log is closed")
            if self._queue.qsize() >= MAX_WAITING:
                raise AuditUnavailable(f"{MAX_WAITING} audit records wait already")
            self._queue.put(entry)

    def give_up(self, entry: _Entry) -> None:
        """Wait no longer. An entry that is durable or failed by now stays so."""
        with self._lock:
            if entry.state == "waiting":
                entry.state = "given up"

    def settle(self, entry: _Entry) -> None:
        """The end of waiting, by wake-up or deadline: returns if the record is durable.

        Raises:
            AuditUnavailable: it is not, or not yet; a record that becomes durable later is named as discarded.
        """
        self.give_up(entry)
        if entry.state == "failed":
            raise AuditUnavailable(f"the audit record could not be written: {entry.error}") from entry.error
        if entry.state == "given up":
            raise AuditUnavailable("the audit record was not durable before the deadline")

    def stop(self) -> None:
        """Let the thread finish what waits, and end."""
        if os.getpid() != self._pid:  # a forked child: the lock may be held for ever there, and the thread does not exist
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)

    def _run(self) -> None:
        running = True
        while running:
            group, running = self._group()
            if group:
                self._write(group)
        if self._segment:
            self._segment.close()

    def _group(self) -> tuple[list[_Entry], bool]:
        entry = self._queue.get()
        group: list[_Entry] = []
        with suppress(Empty):
            while entry is not None:
                group.append(entry)
                if len(group) == MAX_GROUP:
                    return group, True
                entry = self._queue.get_nowait()
            return group, False
        return group, True

    def _write(self, group: list[_Entry]) -> None:
        try:
            seqs = self._durable([entry.data for entry in group])
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody is told that a record is durable
            for entry in group:
                self._finish(entry, "failed", error)
            return
        late = [seq for seq, entry in zip(seqs, group, strict=True) if not self._finish(entry, "durable", None)]
        if late:
            with suppress(Exception):  # the log then only fails to say that these records had no effect
                self._durable([record_bytes({"event": "discarded", "records": late})])

    def _durable(self, records: list[bytes]) -> list[int]:
        try:
            if self._segment is None:
                self._segment = Segment.create(self._directory)
            return self._segment.append(records, self._sync)
        except BaseException:
            segment, self._segment = self._segment, None
            if segment:
                segment.abandon()
            raise

    def _finish(self, entry: _Entry, state: Literal["durable", "failed"], error: BaseException | None) -> bool:
        """True when somebody still waited."""
        with self._lock:
            waited = entry.state == "waiting"
            if waited:
                entry.state, entry.error = state, error
        if waited:
            with suppress(RuntimeError):  # an event loop that was closed meanwhile
                entry.wake()
        return waited


class FileAudit:
    """Appends to ``DIRECTORY/<writer>.jsonl``; safe to share between threads. Read with `agentgate.audit.read_records`."""

    durable = True

    def __init__(self, directory: Path, *, sync: Callable[[int], None] = _sync) -> None:
        """Open a new segment.

        Args:
            directory: where segments live; created with mode 0700 if absent.
            sync: makes what was written to a file descriptor durable, or raises.

        Raises:
            ConfigError: others may write to the directory.
            AuditUnavailable: it cannot be written now.
        """
        try:
            _prepare(directory)
            self._writer = _Writer(directory.absolute(), sync)
        except OSError as error:
            raise AuditUnavailable(f"audit directory {directory}: {error}") from error
        self._finalizer = weakref.finalize(self, self._writer.stop)

    def append(self, record: Mapping[str, Any], deadline: float) -> None:
        """See `agentgate.audit.AuditLog`.

        Raises:
            AuditUnavailable: not durable before the deadline.
        """
        ready = threading.Lock()
        ready.acquire()
        entry = _Entry(record_bytes(record), ready.release)
        left = _left(deadline)
        self._writer.put(entry)
        try:
            ready.acquire(timeout=left)
        except BaseException:
            self._writer.give_up(entry)
            raise
        self._writer.settle(entry)

    async def aappend(self, record: Mapping[str, Any], deadline: float) -> None:
        """As `append`, without blocking the event loop. Cancelled while waiting, its record counts as discarded.

        Raises:
            AuditUnavailable: not durable before the deadline.
        """
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        entry = _Entry(record_bytes(record), lambda: loop.call_soon_threadsafe(ready.set))
        left = _left(deadline)
        self._writer.put(entry)
        try:
            async with asyncio.timeout(left):
                await ready.wait()
        except TimeoutError:
            pass
        except BaseException:
            self._writer.give_up(entry)
            raise
        self._writer.settle(entry)

    def close(self) -> None:
        """Write what was accepted and end; waits a few seconds at most."""
        self._writer.stop()
        self._writer.thread.join(_CLOSE_WAIT)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise AuditUnavailable("the audit record was not written: the deadline had passed")
    return min(left, threading.TIMEOUT_MAX)


def _prepare(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_directory(path.parent)
    if directory.stat().st_mode & 0o022:
        raise ConfigError("audit", f"{directory} (others may write to it)", "a directory only its owner may write to")
