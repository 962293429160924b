"""One audit segment: a file with one writer, its records as bytes, and its reader.

Each line is RFC 8785 JSON: ``{"prev", "record", "seq", "writer"}``. `seq` rises from 1 without
gaps, `prev` is the SHA-256 of the previous line (64 zeros in the first). Canonical JSON escapes
newlines and control characters, so a record is always exactly one line. The chain has no key:
whoever can write the file can also write a consistent chain, which its seals show
(`agentgate.audit.tree`). Files are created owner-only, never reopened, and never written again
after an error; closed ones may be compressed (gzip). A writer keeps space free ahead of it, and
looks before and after each group whether its file is still the one in the directory, and as
long as it left it.

The space ahead is for records that must not fail any more, before a token is burned: the file
system itself keeps it (Linux fallocate without a change of size, so that whoever follows the file
sees records only); where it cannot, the space must be free at that moment. A limit of the process
(RLIMIT_FSIZE) counts as a full disk.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gzip
import hashlib
import os
import resource
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, Self, cast

import orjson

from agentgate.audit.entry import AROUND
from agentgate.audit.schema import find_wrong
from agentgate.audit.tree import Head
from agentgate.audit.writing import sync_directory
from agentgate.errors import AuditDamaged, AuditUnavailable, CanonicalError, NameRefused
from agentgate.stores import history_name
from agentgate.stores._op import checked_history, split
from agentgate.values.canonical import MAX_BYTES, canonical, digest

ROOM = 1 << 20  # bytes: at_once is 1024 at most, and a record of a redemption about 1 kB
# bytes that are asked for ahead: some ten records after the disk is full, the log says so
STEP = 16 << 10
FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_KEEP_SIZE = 1
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError):  # macOS
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return lambda *given: int(function(*given))


_fallocate = _find_fallocate()


def check_limit(end: int) -> None:
    """A file may grow to `end` bytes, as far as this process is concerned; else OSError."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and end > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def reserve(descriptor: int, start: int, end: int) -> None:
    """Keep space for bytes `start` to `end` of a file.

    Raises:
        OSError: there is none.
    """
    while _fallocate is not None:
        if _fallocate(descriptor, _KEEP_SIZE, start, end - start) == 0:
            return
        code = ctypes.get_errno()
        if code in _CANNOT:
            break
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    free = os.fstatvfs(descriptor)
    if free.f_bavail * free.f_frsize < end - start:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


LARGE = 64 << 20  # bytes
_FIRST = "0" * 64
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_SCHEMA = "what docs/audit-schema.md says of it"
_KEYS = {"prev", "record", "seq", "writer"}
NO_GZIP = (gzip.BadGzipFile, zlib.error, EOFError)


class SegmentLost(OSError):
    """A segment was deleted, replaced or changed under its writer, which must not touch what is
    there now.
    """


class Segment:
    """The file of one writer, used by one thread only. Build with `Segment.create`.

    Attributes:
        writer: the segment's unique name.
        seq: number of the last durable record.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.writer, self.seq = path, path.stem, 0
        self._descriptor = descriptor
        self._prev = _FIRST
        self._size = 0
        self._reserved = 0
        here = os.fstat(descriptor)
        self._file = here.st_dev, here.st_ino
        self._began = time.time()

    @property
    def head(self) -> Head:
        """The last durable record, now."""
        return Head(self.writer, self.seq, self._size, self._prev, int(time.time() * 1000))

    @property
    def is_full(self) -> bool:
        """Whether the next record belongs into another segment: by its size, or the day
        (UTC).
        """
        return self._size > LARGE or (
            self.seq > 0 and time.time() // 86400 != self._began // 86400
        )

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new empty segment whose name survives a power cut, with room ahead.

        Raises:
            OSError: the directory cannot be written, others may write to it, or the disk is
                full.
        """
        if directory.stat().st_mode & 0o022:
            raise PermissionError(f"{directory}: others may write to it")
        writer = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(8)}"
        path = directory / f"{writer}.jsonl"
        segment = cls(path, os.open(path, _FLAGS, 0o600))
        try:
            # while this process lives, see `is_over`
            fcntl.flock(segment._descriptor, fcntl.LOCK_EX)
            sync_directory(directory)
            segment.make_room([])
        except OSError:
            segment.abandon()
            raise
        return segment

    @staticmethod
    def is_over(path: Path) -> bool:
        """Whether no process writes a segment any more. Raises OSError: it cannot be read."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def make_room(self, records: list[bytes]) -> None:
        """Keep space for these records, and beyond them for what is promised
        (`agentgate.audit.segment`).

        Raises:
            SegmentLost: the file is not what it was. OSError: there is no space; the segment is
                as it was.
        """
        self._check_intact()
        end = self._size + sum(map(len, records)) + AROUND * len(records) + ROOM
        check_limit(end)
        if end > self._reserved:
            reserve(self._descriptor, self._size, end + STEP)
            self._reserved = end + STEP

    def is_there(self) -> bool:
        """Whether the directory still has this file; asked from any thread."""
        try:
            there = self.path.lstat()
        except OSError:
            return False
        return self._file == (there.st_dev, there.st_ino)

    def _check_intact(self) -> None:
        if not self.is_there():
            raise SegmentLost(
                f"segment {self.path}: deleted or replaced after {self.seq} records, while it was written"
            )
        here = os.fstat(self._descriptor)
        if here.st_size != self._size:
            raise SegmentLost(
                f"segment {self.path}: got {here.st_size} bytes, expected the {self._size} "
                "that its writer wrote"
            )

    def append(self, records: list[bytes], sync: Callable[[int], None]) -> list[int]:
        """Write records (canonical JSON) as one group and make them durable.

        Returns:
            Their sequence numbers.

        Raises:
            OSError: the segment must be abandoned: after a failed sync the kernel may have
                dropped the data, and a second sync would not report it. SegmentLost: it must
                not be touched.
        """
        prev = self._prev
        lines = []
        seqs = range(self.seq + 1, self.seq + len(records) + 1)
        for seq, record in zip(seqs, records, strict=True):
            line = b'{"prev":"%b","record":%b,"seq":%d,"writer":"%b"}' % (
                prev.encode(),
                record,
                seq,
                self.writer.encode(),
            )
            lines.append(line + b"\n")
            prev = digest(line)
        data = memoryview(b"".join(lines))
        size = len(data)
        while data:
            data = data[os.write(self._descriptor, data) :]
        sync(self._descriptor)
        before = self._size
        self._size = self._size + size
        try:
            self._check_intact()
        except SegmentLost:
            self._size = before
            raise
        self.seq = seqs[-1]
        self._prev = prev
        return list(seqs)

    def close(self) -> None:
        """Close the file, and give back the room ahead; everything in it is durable already."""
        with suppress(OSError):
            self._check_intact()
            os.ftruncate(self._descriptor, self._size)
        self.leave()

    def leave(self) -> None:
        """Close the file without touching it."""
        with suppress(OSError):
            os.close(self._descriptor)

    def abandon(self) -> None:
        """After an error: cut off what was never acknowledged, if the disk still allows it;
        remove a file without records.
        """
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._size)
        self.leave()
        if not self.seq:
            with suppress(OSError):
                self.path.unlink()


def read_records(
    directory: str | os.PathLike[str],
    *,
    damaged: Callable[[AuditDamaged], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of every segment in a directory, by segment name (the time it was opened),
    each with its ``writer`` and ``seq``.

    A torn last line was never acknowledged and is left out.

    Args:
        directory: the directory of the segments.
        damaged: called with each damage, after which reading goes on with the next segment.
            None: damage is raised.

    Raises:
        AuditDamaged: any other line is not what a writer wrote there; the records before it
            have been yielded.
        OSError: a file cannot be read.
    """
    for path in segment_files(directory):
        try:
            for line in read_lines(path):
                yield {**line.record, "writer": writer_of(path), "seq": line.seq}
        except AuditDamaged as error:
            if damaged is None:
                raise
            damaged(error)


class TypedRecord(dict[str, Any]):
    """A record whose fields have the values that the schema says; a field that it lacks is
    refused by name.
    """

    def __missing__(self, name: str) -> NoReturn:
        raise AuditDamaged(self["writer"], self["seq"], f"no {name}", _SCHEMA)


def read_typed(directories: Iterable[Path], types: Sequence[str]) -> Iterator[TypedRecord]:
    """The records of these types in some directories.

    Raises:
        AuditDamaged: as `read_records`, or a field has another kind of value. OSError: a file
            cannot be read.
    """
    for record in chain.from_iterable(map(read_records, directories)):
        if record.get("type") in types:
            if wrong := find_wrong(record):
                raise AuditDamaged(
                    record["writer"], record["seq"], f"{wrong} {record[wrong]!r:.80}", _SCHEMA
                )
            yield TypedRecord(record)


def remembered(directory: str | os.PathLike[str]) -> dict[str, str]:
    """The highest of each history that the records of a directory tell, by its name
    (`agentgate.stores.history_name`).

    Damaged lines are passed over: to remember less than everything is no reason to stop, and
    `read_records` reports damage.

    Raises:
        AuditUnavailable: a file cannot be read.
    """
    found: dict[str, str] = {}
    try:
        for path in segment_files(directory):
            with open_segment(path) as lines, suppress(*NO_GZIP):
                for line in lines:
                    if (
                        b'"history":"' in line
                        or b'"redemptions":"' in line
                        or b'"seen":["' in line
                    ):
                        _remember(found, line)
    except OSError as error:
        raise AuditUnavailable(f"audit directory {directory}: {error}") from error
    return found


def _remember(found: dict[str, str], line: bytes) -> None:
    with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError, NameRefused):
        record = orjson.loads(line)["record"]
        fields = ("history", ""), ("redemptions", record.get("audience", ""))
        pruned = record.get("type") == "pruned"
        told = (
            [record["seen"]]
            if pruned
            else [
                (history_name(record["tenant"], whose), record.get(name, ""))
                for name, whose in fields
            ]
        )
        for known, history in told:
            if split(checked_history(history))[1] > split(found.get(known, ""))[1]:
                found[known] = history


def segment_files(directory: str | os.PathLike[str]) -> list[Path]:
    """The segments of a directory, by name (the time each was opened); none where there is no
    directory. Raises OSError.
    """
    every = Path(directory).iterdir() if Path(directory).exists() else ()
    return sorted(path for path in every if path.name.endswith((".jsonl", ".jsonl.gz")))


def writer_of(path: Path) -> str:
    """The writer of a segment."""
    return path.name.partition(".")[0]


def open_segment(path: Path) -> IO[bytes]:
    """The bytes of a segment, as its writer wrote them. Raises OSError."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


class Line(NamedTuple):
    """A line of a segment: its record, number and digest, and where it ends (bytes)."""

    record: dict[str, Any]
    seq: int
    digest: str
    end: int


class Content:
    """The whole lines of a segment as they were read: how many bytes, and their digest; and how
    many stand behind them, torn.
    """

    def __init__(self) -> None:
        self.size = 0
        self.torn = 0
        self._hash = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Go on with what was read next."""
        self.size += len(data)
        self._hash.update(data)

    @property
    def digest(self) -> str:
        """SHA-256 of all of them."""
        return self._hash.hexdigest()


def read_lines(
    path: Path, after: Line | None = None, content: Content | None = None
) -> Iterator[Line]:
    """The lines of one segment, from the one after another on, without a torn one at its end.
    Raises as `read_records`.

    `content`: takes their bytes.
    """
    _, seq, prev, end = after or Line({}, 0, _FIRST, 0)
    content = content or Content()
    with open_segment(path) as lines:
        try:
            lines.seek(end)
            while ended := lines.readline(MAX_BYTES + 1):
                seq = seq + 1
                line = ended.removesuffix(b"\n")
                # torn, or still being written; a power cut may leave zeros
                if line == ended or not line.strip(b"\0"):
                    if len(ended) > MAX_BYTES or (line != ended and lines.read(1)):
                        raise AuditDamaged(
                            str(path), seq, "a torn line", "torn lines only at the end"
                        )
                    content.torn = len(ended)
                    return
                value = _value(path, seq, line)
                for name, expected in (
                    ("writer", writer_of(path)),
                    ("seq", seq),
                    ("prev", prev),
                ):
                    if value[name] != expected:
                        raise AuditDamaged(
                            str(path), seq, f"{name} {value[name]!r}", repr(expected)
                        )
                prev = digest(line)
                end = end + len(ended)
                content.take(ended)
                yield Line(value["record"], seq, prev, end)
        except NO_GZIP as error:
            raise AuditDamaged(
                str(path), seq, str(error), "a segment that was compressed (gzip)"
            ) from error


def _value(path: Path, number: int, line: bytes) -> dict[str, Any]:
    expected = "canonical JSON of {prev, record, seq, writer}"
    try:
        value = orjson.loads(line)
        if (
            type(value) is not dict
            or value.keys() != _KEYS
            or type(value["record"]) is not dict
            or canonical(value) != line
        ):
            raise AuditDamaged(str(path), number, "another form", expected)
    except (orjson.JSONDecodeError, CanonicalError) as error:
        raise AuditDamaged(str(path), number, str(error), expected) from error
    return value
