"""The durable audit log: one thread writes and syncs, and a caller waits for it no longer than
its deadline.

Rules: `append` returns only after its record is synced (no token is issued before its audit
record is durable). All records that wait when the thread takes them form one group and cost one
sync. An error refuses the whole group and ends the segment; the next group starts a new
segment, so the log recovers without a restart when a full disk is freed. If a sync hangs, each
caller is refused at its deadline; when such a record becomes durable after all, a ``discarded``
record names it, so that an auditor knows that no token was issued for it. A forked child is
refused, since a segment has one writer.

On a full disk records are refused before anything of them is written; what was promised (a
redemption whose token is burned, an outcome) is written into the room kept for it. A segment
that was deleted, replaced or changed under its writer is noticed before the next record counts:
that one is refused, and the next segment begins with a record of what the lost one held
(``segment_lost``).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from agentgate.audit.copies import Copies, CopyPlace
from agentgate.audit.entry import LogEntry, record_bytes, wake_entries
from agentgate.audit.sealer import SEAL_RECORDS, SEAL_SECONDS, LogLost, Sealer, keys_of
from agentgate.audit.segment import FULL, Segment, SegmentLost
from agentgate.audit.tree import Head
from agentgate.audit.writing import sync_directory
from agentgate.errors import AuditUnavailable, ConfigError

MAX_GROUP = 512
MAX_WAITING = 4096  # entries; while a sync hangs, more are refused at once
_CLOSE_WAIT = 5.0
_A_REDEMPTION = bytes(2048)  # as large as the records are for which room is asked

_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class _Writer:
    """Queue and thread behind a `FileAudit`. The thread holds no reference to the `FileAudit`,
    so that one can be collected.
    """

    def __init__(
        self, directory: Path, sync: Callable[[int], None], sealer: Sealer | None
    ) -> None:
        self._directory = directory
        self._sync = sync
        self._sealer = sealer
        self._short: OSError | None = None  # why there is no room
        self._lost: list[bytes] = []  # records of segments and logs that were lost
        self._ended: list[Head] = []  # of segments, to be sealed with the next
        # up to which record, and when
        self._sealed = 0
        self._sealed_at = 0.0
        self._segment: Segment | None = self._begin()
        self._queue: SimpleQueue[LogEntry | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._began = inf
        self.took = 0.0
        self._pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="agentgate-audit", daemon=True)
        self.thread.start()

    def put(self, entry: LogEntry, deadline: float) -> float:
        """Queue an entry; the seconds to wait for it.

        Raises:
            AuditUnavailable: the deadline has passed, the log is closed or another process's,
                or too many records wait.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise AuditUnavailable("the audit record was not written: the deadline had passed")
        if os.getpid() != self._pid:
            raise AuditUnavailable(
                "the audit log was opened before a fork; open one in each process"
            )
        with self._lock:
            if self._closed:
                raise AuditUnavailable("the audit log is closed")
            if self._queue.qsize() >= MAX_WAITING:
                raise AuditUnavailable(f"{MAX_WAITING} audit records wait already")
            self._queue.put(entry)
        return min(left, threading.TIMEOUT_MAX)

    def give_up(self, entry: LogEntry) -> None:
        """Stop waiting: unless the entry is settled already, its record is discarded should it
        become durable later.
        """
        with self._lock:
            if entry.state == "waiting":
                entry.state = "given up"

    def stop(self) -> None:
        """Let the thread write what waits, and end."""
        # a forked child has no such thread, and the lock may stay held for ever
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)

    def has_room(self) -> bool:
        """Whether the segment is there, has room, and its disk answers; False also where only
        the thread can tell.
        """
        segment = self._segment
        answers = time.monotonic() - self._began < 0.25  # else nothing new is begun
        return segment is not None and self._short is None and answers and segment.is_there()

    def _run(self) -> None:
        running = True
        while running:
            group, running = self._group()
            if group:
                self._began = time.monotonic()
                self._write(group)
                self.took = time.monotonic() - self._began
                self._began = inf
        if self._segment:
            self._segment.close()
            with suppress(OSError):
                self._seal(0.0, closed=True)
        if self._sealer:
            self._sealer.close()

    def _group(self) -> tuple[list[LogEntry], bool]:
        """The entries that wait, at least one; and False if none will follow."""
        group: list[LogEntry] = []
        try:
            entry = self._queue.get(
                timeout=SEAL_SECONDS
                if self._sealer and self._segment and self._segment.seq > self._sealed
                else None
            )
        except Empty:
            with suppress(OSError):  # said before the next group
                self._seal(0.0)
            return group, True
        with suppress(Empty):
            while entry is not None:
                group.append(entry)
                if len(group) == MAX_GROUP:
                    return group, True
                entry = self._queue.get_nowait()
            return group, False
        return group, True

    def _write(self, group: list[LogEntry]) -> None:
        self._short = self._room_for(group)
        left = list[LogEntry]()
        ended = list[LogEntry]()
        for entry in group:
            if entry.data and (self._short is None or entry.promised):
                left.append(entry)
            elif self._finish(
                entry,
                "failed" if self._short is not None and not entry.promised else "durable",
                self._short,
            ):
                ended.append(entry)
        wake_entries(ended)
        if not left:
            return
        try:
            seqs = self._durable([entry.data for entry in left])
        except Exception as error:  # noqa: BLE001 - whatever it was, no record of the group is reported as durable
            wake_entries([entry for entry in left if self._finish(entry, "failed", error)])
            return
        waited = [self._finish(entry, "durable", None) for entry in left]
        wake_entries([entry for entry, still in zip(left, waited, strict=True) if still])
        late = [seq for seq, still in zip(seqs, waited, strict=True) if not still]
        if late:
            # the log then only lacks the note that these records had no effect
            with suppress(Exception):
                self._durable(
                    [
                        record_bytes(
                            {
                                "type": "discarded",
                                "time": round(time.time(), 6),
                                "records": late,
                            }
                        )
                    ]
                )

    def _room_for(self, group: list[LogEntry]) -> OSError | None:
        """Why there is no room for a group beyond what is promised; None: there is."""
        try:
            if self._segment is not None and self._segment.is_full:
                self._segment.close()
                self._ended.append(self._segment.head._replace(closed=True))
                self._segment = None
            if self._segment is None:
                self._segment = self._begin()
            self._seal(SEAL_SECONDS)
        except OSError as error:
            return error
        try:
            self._segment.make_room([entry.data or _A_REDEMPTION for entry in group])
        except OSError as error:
            if error.errno not in FULL:
                self._let_go(error)
            return error
        return None

    def _begin(self) -> Segment:
        """A new segment, on record with what was lost before it, and sealed."""
        if self._sealer and (lost := self._sealer.begin()):
            self._lost.append(record_bytes(lost))
        segment = Segment.create(self._directory)
        try:
            if self._sealer:  # before its first record: what no seal names was not begun here
                self._sealer.seal(*self._ended, segment.head)
                self._ended = []
                self._sealed = 0
                self._sealed_at = time.monotonic()
            if self._lost:
                segment.append(self._lost, self._sync)
                self._lost = []
        except OSError:
            segment.abandon()
            raise
        return segment

    def _seal(self, every: float, *, closed: bool = False) -> None:
        """Seal the segment, where it grew and its last seal is older than `every` seconds, or
        many records ago; or it is `closed`.
        """
        segment = self._segment
        if (
            self._sealer is None
            or segment is None
            or (segment.seq == self._sealed and not closed)
        ):
            return
        if (
            time.monotonic() - self._sealed_at < every
            and segment.seq - self._sealed < SEAL_RECORDS
        ):
            return
        self._sealed_at = time.monotonic()
        try:
            self._sealer.seal(segment.head._replace(closed=closed))
        except LogLost:  # the next segment begins in another log, and says so
            segment.close()
            self._segment = None
            raise
        self._sealed = segment.seq

    def _let_go(self, error: OSError) -> None:
        """Give the segment up after an error; one that was lost is not touched, and told of in
        the next.
        """
        segment = self._segment
        self._segment = None
        if segment is None:
            return
        self._ended.append(segment.head._replace(closed=True))
        if not isinstance(error, SegmentLost):
            segment.abandon()
            return
        segment.leave()
        lost = {
            "type": "segment_lost",
            "time": round(time.time(), 6),
            "why": str(error),
            "head": segment.head.leaf,
        }
        self._lost.append(record_bytes(lost))

    def _durable(self, records: list[bytes]) -> list[int]:
        try:
            if self._segment is None:
                self._segment = self._begin()
            return self._segment.append(records, self._sync)
        except BaseException as error:
            self._let_go(error if isinstance(error, OSError) else OSError(str(error)))
            raise

    def _finish(
        self, entry: LogEntry, state: Literal["durable", "failed"], error: BaseException | None
    ) -> bool:
        """True if its caller still waited."""
        with self._lock:
            waited = entry.state == "waiting"
            if waited:
                entry.state = state
                entry.error = error
        return waited


class FileAudit:
    """Appends to ``DIRECTORY/<writer>.jsonl``; safe to share between threads. Read with
    `agentgate.audit.read_records`.
    """

    durable = True

    def __init__(
        self,
        directory: Path,
        *,
        keys: Path | None = None,
        places: tuple[CopyPlace, ...] = (),
        sync: Callable[[int], None] = _sync,
    ) -> None:
        """Open a new segment.

        Args:
            directory: the directory of the segments; created with mode 0700 if absent.
            keys: the directory of the key that seals the log (`agentgate.audit.sealer`); None:
                that of the log that is in the directory already, where this user may read it,
                or no seals.
            places: where else copies of its newest checkpoint are kept.
            sync: makes what was written to a file descriptor durable, or raises.

        Raises:
            ConfigError: others may write to the directory.
            AuditUnavailable: it, or `keys`, cannot be written now. KeyRefused, AuditDamaged:
                `keys` holds something else.
        """
        try:
            _prepare(directory)
            directory = directory.absolute()
            keys = keys_of(directory) if keys is None else keys.absolute()
            self.copies = Copies(directory, places)
            self._writer = _Writer(
                directory,
                sync,
                None if keys is None else Sealer(directory, keys, self.copies.tell),
            )
        except OSError as error:
            raise AuditUnavailable(f"audit directory {directory}: {error}") from error
        self._finalizer = weakref.finalize(self, self._writer.stop)

    @property
    def took(self) -> float:
        """How many seconds the last group took to become durable."""
        return self._writer.took

    def queue(self, record: Mapping[str, Any], deadline: float) -> None:
        """See `agentgate.audit.AuditLog`."""

        def tell() -> None:
            if entry.state == "failed":
                import structlog  # noqa: PLC0415 - who only reads a log starts without it

                log = structlog.get_logger("agentgate.audit.file")
                log.error(
                    "not_recorded",
                    what="audit record",
                    txn=record.get("txn"),
                    error=str(entry.error),
                )

        entry = LogEntry(record, tell, promised=True)
        self._writer.put(entry, deadline)

    def room(self, deadline: float) -> None:
        """See `agentgate.audit.AuditLog`."""
        if not self._writer.has_room():
            self.append(None, deadline)

    async def aroom(self, deadline: float) -> None:
        """`room`, without blocking the event loop."""
        if not self._writer.has_room():
            await self.aappend(None, deadline)

    def append(
        self, record: Mapping[str, Any] | None, deadline: float, *, promised: bool = False
    ) -> None:
        """See `agentgate.audit.AuditLog`. No record: only its place is asked for."""
        ready = threading.Lock()
        ready.acquire()
        entry = LogEntry(record, ready.release, promised=promised)
        left = self._writer.put(entry, deadline)
        try:
            ready.acquire(timeout=left)
        finally:
            self._writer.give_up(entry)
        entry.settle()

    async def aappend(
        self, record: Mapping[str, Any] | None, deadline: float, *, promised: bool = False
    ) -> None:
        """`append`, without blocking the event loop. If it is cancelled while waiting, its
        record counts as discarded.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        entry = LogEntry(record, wake, promised=promised, loop=loop)
        late = loop.call_later(self._writer.put(entry, deadline), wake)
        try:
            await ready
        finally:
            late.cancel()
            self._writer.give_up(entry)
        entry.settle()

    def close(self) -> None:
        """Write what was accepted and end; waits a few seconds at most."""
        self._writer.stop()
        self._writer.thread.join(_CLOSE_WAIT)
        self.copies.close()


def _prepare(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_directory(path.parent)
    if directory.stat().st_mode & 0o022:
        raise ConfigError(
            "audit",
            f"{directory} (others may write to it)",
            "a directory only its owner may write to",
        )
