"""The audit log: a record is durable before its token is issued."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from agentgate.audit.copies import place_of
from agentgate.audit.entry import MemoryAudit
from agentgate.audit.file import FileAudit
from agentgate.audit.segment import read_records, remembered
from agentgate.errors import ConfigError

__all__ = ["AuditLog", "FileAudit", "MemoryAudit", "open_audit", "read_records", "remembered"]


class AuditLog(Protocol):
    """Records are appended, never changed. Once `append` has returned, its record survives a
    crash of this process and of the host.
    """

    @property
    def durable(self) -> bool:
        """False only for ``memory://``."""

    def append(
        self, record: Mapping[str, Any], deadline: float, *, promised: bool = False
    ) -> None:
        """Make one record durable.

        Args:
            record: JSON values only; the keys ``writer`` and ``seq`` are reserved for the log.
            deadline: when the caller stops waiting, in seconds of `time.monotonic()`.
            promised: it tells of what cannot be undone, so it may use the space that is kept
                free for that (`room`).

        Raises:
            AuditUnavailable: the record was not durable in time. Nothing may be minted.
        """

    async def aappend(
        self, record: Mapping[str, Any], deadline: float, *, promised: bool = False
    ) -> None:
        """`append`, without blocking the event loop."""

    def queue(self, record: Mapping[str, Any], deadline: float) -> None:
        """`append` a promised record, and do not wait for it: what becomes of it is in the
        process's log if it is not written.

        Raises:
            AuditUnavailable: it was not even taken.
        """

    def room(self, deadline: float) -> None:
        """Make sure, before something that cannot be undone, that there is room for `promised`
        records of it.

        Raises:
            AuditUnavailable: the disk is full, or the log is not where it was. Nothing may be
                burned.
        """

    async def aroom(self, deadline: float) -> None:
        """`room`, without blocking the event loop."""

    def close(self) -> None:
        """Write what was accepted and end. Every later `append` raises AuditUnavailable."""


def open_audit(
    address: str | os.PathLike[str],
    keys: str | os.PathLike[str] | None = None,
    checkpoints: Sequence[str] = (),
) -> AuditLog:
    """Open the log at ``memory://`` (this process, not durable) or in a directory (created
    owner-only if absent).

    Args:
        address: where.
        checkpoints: where else copies of the newest checkpoint are kept
            (`agentgate.audit.copies.place_of`).
        keys: the directory of the key that seals the log (`agentgate.audit.sealer`), created
            owner-only if absent; None: as `FileAudit`.

    Raises:
        ConfigError: another scheme, a directory others may write to, or one that cannot be
            made.
        AuditUnavailable: the directory cannot be written now.
    """
    if address == "memory://":
        return MemoryAudit()
    text = os.fspath(address)
    if not text or "://" in text:
        raise ConfigError("audit", text, "a directory, or memory://")
    folder = None if keys is None else Path(keys)
    try:
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "heads", str(folder), f"a directory that can be made: {error.strerror}"
        ) from error
    return FileAudit(Path(text), keys=folder, places=tuple(map(place_of, checkpoints)))
