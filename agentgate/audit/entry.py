"""A record on its way to the disk, and whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from agentgate.audit.segment import record_bytes
from agentgate.errors import AuditUnavailable


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
