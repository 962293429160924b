"""One audit segment: a file with one writer, its records as bytes, and its reader.

Each line is RFC 8785 JSON: ``{"prev", "record", "seq", "writer"}``. `seq` rises from 1 without gaps, `prev` is the SHA-256 of the
previous line (64 zeros in the first). Canonical JSON escapes newlines and control characters, so a record is always exactly one
line. The chain shows damage and accidental edits; it has no key, so whoever can write the file can also write a consistent chain.
Files are created owner-only, never reopened, and never written again after an error.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import orjson

from agentgate.errors import AuditDamaged, AuditUnavailable, CanonicalError, NameRefused
from agentgate.stores.history import checked_history, split
from agentgate.values.canonical import MAX_BYTES, canonical, digest

_FIRST = "0" * 64
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_KEYS = {"prev", "record", "seq", "writer"}
_PREFIX = len(b'{"record":')
_MAX = MAX_BYTES - 512  # leaves room for what surrounds a record in its line


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The RFC 8785 bytes of a record, fit to be part of a canonical line.

    Raises:
        AuditUnavailable: no canonical form, too large, or a reserved key. A call that cannot be recorded is refused.
    """
    for key in ("seq", "writer"):
        if key in record:
            raise AuditUnavailable(f"record: got key '{key}', expected none of the log's own keys")
    try:
        data = canonical({"record": dict(record)})[_PREFIX:-1]
    except CanonicalError as error:
        raise AuditUnavailable(f"the record has no canonical form: {error}") from error
    if len(data) > _MAX:
        raise AuditUnavailable(f"record: got {len(data)} bytes, expected at most {_MAX}")
    return data


class Segment:
    """The file of one writer, used by one thread only. Build with `Segment.create`.

    Attributes:
        writer: the segment's unique name.
        seq: number of the last durable record.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.writer, self.seq = path, path.stem, 0
        self._descriptor, self._prev, self._size = descriptor, _FIRST, 0

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new empty segment whose name survives a power cut.

        Raises:
            OSError: the directory cannot be written.
        """
        writer = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(8)}"
        path = directory / f"{writer}.jsonl"
        segment = cls(path, os.open(path, _FLAGS, 0o600))
        try:
            sync_directory(directory)
        except OSError:
            segment.abandon()
            raise
        return segment

    def append(self, records: list[bytes], sync: Callable[[int], None]) -> list[int]:
        """Write records (canonical JSON) as one group and make them durable.

        Returns:
            Their sequence numbers.

        Raises:
            OSError: the segment must be abandoned: after a failed sync the kernel may have dropped the data, and a second sync would
                not report it.
        """
        prev, lines = self._prev, []
        seqs = range(self.seq + 1, self.seq + len(records) + 1)
        for seq, record in zip(seqs, records, strict=True):
            line = b'{"prev":"%b","record":%b,"seq":%d,"writer":"%b"}' % (prev.encode(), record, seq, self.writer.encode())
            lines.append(line + b"\n")
            prev = digest(line)
        data = memoryview(b"".join(lines))
        size = len(data)
        while data:
            data = data[os.write(self._descriptor, data) :]
        sync(self._descriptor)
        self.seq, self._prev, self._size = seqs[-1], prev, self._size + size
        return list(seqs)

    def close(self) -> None:
        """Close the file; everything in it is durable already."""
        with suppress(OSError):
            os.close(self._descriptor)

    def abandon(self) -> None:
        """After an error: cut off what was never acknowledged, if the disk still allows it; remove a file without records."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._size)
        self.close()
        if not self.seq:
            with suppress(OSError):
                self.path.unlink()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: it failed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_records(directory: str | os.PathLike[str], *, damaged: Callable[[AuditDamaged], object] | None = None) -> Iterator[dict[str, Any]]:
    """The records of every segment in a directory, by segment name (the time it was opened), each with its ``writer`` and ``seq``.

    A torn last line was never acknowledged and is left out.

    Args:
        directory: the directory of the segments.
        damaged: called with each damage, after which reading goes on with the next segment. None: damage is raised.

    Raises:
        AuditDamaged: any other line is not what a writer wrote there; the records before it have been yielded.
        OSError: a file cannot be read.
    """
    for path in sorted(Path(directory).glob("*.jsonl")):
        try:
            yield from _read(path)
        except AuditDamaged as error:
            if damaged is None:
                raise
            damaged(error)


def remembered(directory: str | os.PathLike[str]) -> dict[str, str]:
    """The highest history of each tenant that the records of a directory name (`agentgate.stores.history`).

    Damaged lines are passed over: to remember less than everything is no reason to stop, and `read_records` reports damage.

    Raises:
        AuditUnavailable: a file cannot be read.
    """
    found: dict[str, str] = {}
    try:
        for path in Path(directory).glob("*.jsonl"):
            with path.open("rb") as lines:
                for line in lines:
                    if b'"history":"' in line:
                        _remember(found, line)
    except OSError as error:
        raise AuditUnavailable(f"audit directory {directory}: {error}") from error
    return found


def _remember(found: dict[str, str], line: bytes) -> None:
    with suppress(orjson.JSONDecodeError, KeyError, TypeError, NameRefused):
        record = orjson.loads(line)["record"]
        tenant, history = record["tenant"], checked_history(record["history"])
        if split(history)[1] > split(found.get(tenant, ""))[1]:
            found[tenant] = history


def _read(path: Path) -> Iterator[dict[str, Any]]:
    prev, seq = _FIRST, 0
    with path.open("rb") as lines:
        for number, ended in enumerate(lines, 1):
            line = ended.removesuffix(b"\n")
            if line == ended or not line.strip(b"\0"):  # torn; a power cut may leave zeros
                if lines.read(1):
                    raise AuditDamaged(str(path), number, "a torn line", "torn lines only at the end")
                return
            value = _value(path, number, line)
            seq += 1
            for name, got, expected in (("writer", value["writer"], path.stem), ("seq", value["seq"], seq), ("prev", value["prev"], prev)):
                if got != expected:
                    raise AuditDamaged(str(path), number, f"{name} {got!r}", repr(expected))
            prev = digest(line)
            yield {**value["record"], "writer": path.stem, "seq": seq}


def _value(path: Path, number: int, line: bytes) -> dict[str, Any]:
    expected = "canonical JSON of {prev, record, seq, writer}"
    try:
        value = orjson.loads(line)
        if type(value) is not dict or value.keys() != _KEYS or type(value["record"]) is not dict or canonical(value) != line:
            raise AuditDamaged(str(path), number, "another form", expected)
    except (orjson.JSONDecodeError, CanonicalError) as error:
        raise AuditDamaged(str(path), number, str(error), expected) from error
    return value
