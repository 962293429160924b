"""An audit log that is not durable, for tests, benchmarks and demos. Only ``memory://`` opens
it.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from agentgate.audit.segment import record_bytes
from agentgate.errors import AuditUnavailable
from agentgate.values.canonical import parse

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
