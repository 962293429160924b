"""A record on its way into a log: its bytes, and whoever waits until they are on the disk. And the
log that is not durable, for tests, benchmarks and demos, which only ``memory://`` opens.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from agentgate.audit.schema import VERSION
from agentgate.errors import AuditUnavailable, CanonicalError
from agentgate.values.canonical import MAX_BYTES, canonical, parse

_PREFIX = len(b'{"record":')
AROUND = 512  # bytes, at most, of what surrounds a record in its line
_MAX = MAX_BYTES - AROUND


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The RFC 8785 bytes of a record, fit to be part of a canonical line; made once of a
    `DraftedRecord`.

    Raises:
        AuditUnavailable: no canonical form, too large, or a reserved key. A call that cannot be
            recorded is refused.
    """
    if type(record) is DraftedRecord:
        return record.data
    for key in ("seq", "writer"):
        if key in record:
            raise AuditUnavailable(
                f"record: got key '{key}', expected none of the log's own keys"
            )
    try:
        data = canonical(
            {"record": {"v": VERSION, **record} if "type" in record else dict(record)}
        )[_PREFIX:-1]
    except CanonicalError as error:
        raise AuditUnavailable(f"the record has no canonical form: {error}") from error
    if len(data) > _MAX:
        raise AuditUnavailable(f"record: got {len(data)} bytes, expected at most {_MAX}")
    return data


class DraftedRecord(Mapping[str, Any]):
    """A record whose bytes are made before it is written. It says what they say: it holds
    nothing else.
    """

    __slots__ = ("data",)

    def __init__(self, record: Mapping[str, Any]) -> None:
        """Raises as `record_bytes`."""
        self.data: Final = record_bytes(record)

    def __getitem__(self, key: str) -> Any:
        return parse(self.data)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(parse(self.data))

    def __len__(self) -> int:
        return len(parse(self.data))


class LogEntry:
    """One record on its way to the disk. `state` changes once, under the writer's lock."""

    __slots__ = ("data", "error", "loop", "promised", "state", "wake")

    def __init__(
        self,
        record: Mapping[str, Any] | None,
        wake: Callable[[], object],
        *,
        promised: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take a record, or None: only ask for room. A `promised` one may use the room that is
        kept. `loop`: where to call `wake`.
        """
        self.data = record_bytes(record) if record is not None else b""
        self.wake = wake
        self.promised = promised
        self.loop = loop
        self.state: Literal["waiting", "durable", "failed", "given up"] = "waiting"
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Once it no longer waits: return if the record is durable, else raise
        AuditUnavailable.
        """
        if self.state == "failed":
            raise AuditUnavailable(
                f"the audit record could not be written: {self.error}"
            ) from self.error
        if self.state != "durable":
            raise AuditUnavailable("the audit record was not durable before the deadline")


def wake_entries(entries: list[LogEntry]) -> None:
    """Wake whoever waits for these; those of one event loop together, since each call into a
    loop is one to the kernel.
    """
    loops: dict[asyncio.AbstractEventLoop, list[LogEntry]] = {}
    for entry in entries:
        if entry.loop is None:
            entry.wake()
        else:
            loops.setdefault(entry.loop, []).append(entry)
    for loop, those in loops.items():
        with suppress(RuntimeError):  # it was closed meanwhile
            loop.call_soon_threadsafe(_each, those)


def _each(entries: list[LogEntry]) -> None:
    for entry in entries:
        entry.wake()


KEEP = 10_000


class MemoryAudit:
    """Keeps the newest `KEEP` records, as the bytes that a file would hold."""

    durable = False

    def __init__(self) -> None:
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEEP)
        self._seq = itertools.count(1)
        self._closed = False

    @property
    def records(self) -> list[dict[str, Any]]:
        """Copies of the records, oldest first, each with its ``writer`` and ``seq``."""
        return [
            {**parse(data), "writer": "memory", "seq": seq} for seq, data in tuple(self._kept)
        ]

    def append(
        self,
        record: Mapping[str, Any],
        deadline: float,
        *,
        promised: bool = False,  # noqa: ARG002 - memory is not kept free
    ) -> None:
        """See `agentgate.audit.AuditLog`."""
        if self._closed:
            raise AuditUnavailable("the audit log is closed")
        data = record_bytes(record)
        if time.monotonic() >= deadline:
            raise AuditUnavailable("the audit record was not written before the deadline")
        self._kept.append((next(self._seq), data))

    async def aappend(
        self, record: Mapping[str, Any], deadline: float, *, promised: bool = False
    ) -> None:
        """`append`, which never waits."""
        self.append(record, deadline, promised=promised)

    queue = append  # which never waits

    def room(self, deadline: float) -> None:
        """See `agentgate.audit.AuditLog`."""
        if self._closed or time.monotonic() >= deadline:
            raise AuditUnavailable("the audit log is closed, or the deadline has passed")

    async def aroom(self, deadline: float) -> None:
        """`room`, which never waits."""
        self.room(deadline)

    def close(self) -> None:
        """End; the kept records stay readable."""
        self._closed = True
