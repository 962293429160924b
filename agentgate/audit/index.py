"""Records found quickly: of each segment, once it was verified, the few fields that questions are about, in a cache of whoever asks.

Rules: an entry of the cache is named by the SHA-256 of the segment's bytes and of the heads that it was verified against, so that it holds
of nothing else: a segment that changed since is verified again. The cache is for its owner only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from agentgate.audit.segment import read_lines
from agentgate.errors import AuditDamaged, ConfigError

_FIELDS = ("time", "type", "tenant", "run", "user", "agent", "tool", "tool_call_id", "txn", "hold", "jti", "decision", "outcome", "by")


class RecordRow(NamedTuple):
    """A record, where it is, and what questions are about; None: it has no such field.

    Attributes:
        file, start, end: where its line is.
        workflow, version: of its run.
        approvers: who said yes, of an allowed call.
    """

    file: str
    start: int
    end: int
    workflow: str | None
    version: int | None
    approvers: list[str]
    time: float
    type: str | None
    tenant: str | None
    run: str | None
    user: str | None
    agent: str | None
    tool: str | None
    tool_call_id: str | None
    txn: str | None
    hold: str | None
    jti: str | None
    decision: str | None
    outcome: str | None
    by: Any

    def record(self) -> dict[str, Any]:
        """The whole record."""
        with Path(self.file).open("rb") as file:
            file.seek(self.start)
            return dict(orjson.loads(file.read(self.end - self.start))["record"])


class RecordIndex:
    """The cache in a directory."""

    def __init__(self, folder: Path) -> None:
        """Make it. Raises ConfigError: others may write there."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077 or folder.stat().st_uid != os.geteuid():
            raise ConfigError("cache", str(folder), "a directory of this user with mode 0700")
        self._folder = folder

    def entry(self, path: Path, heads: list[dict[str, Any]], *, sealed: bool) -> Path:
        """Where what is known of a segment is kept; it may not be there yet."""
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return self._folder / hashlib.sha256(orjson.dumps([path.stem, content, heads, sealed], option=orjson.OPT_SORT_KEYS)).hexdigest()

    def keep(self, entry: Path, path: Path, told: Mapping[str, Any]) -> None:
        """Keep what was found of a segment, and its rows."""
        draft = entry.with_suffix(f".{secrets.token_hex(4)}")
        with draft.open("wb") as out:
            out.write(orjson.dumps(told) + b"\n")
            start = 0
            try:
                for line in read_lines(path):
                    out.write(orjson.dumps([start, line.end, *_row(line.record)]) + b"\n")
                    start = line.end
            except AuditDamaged:  # it is told of; what is before it can be read
                pass
        draft.replace(entry)


def _row(record: Mapping[str, Any]) -> Iterator[Any]:
    workflow = record.get("workflow")
    yield from (workflow.get("id"), workflow.get("version")) if isinstance(workflow, dict) else (workflow, None)
    yield [each["by"] for each in record.get("approvals", ())]
    for name in _FIELDS:
        yield record.get(name)


def read_entry(entry: Path) -> dict[str, Any] | None:
    """What is kept of a segment; None: nothing."""
    try:
        with entry.open("rb") as file:
            return dict(orjson.loads(file.readline()))
    except (OSError, ValueError):
        return None


def read_rows(entry: Path, path: str) -> Iterator[RecordRow]:
    """The rows of a segment."""
    with entry.open("rb") as lines:
        next(lines)
        for line in lines:
            yield RecordRow(path, *orjson.loads(line))
