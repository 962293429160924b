"""Records found quickly: of each segment, once it was verified, the few fields that questions are about, in a cache of whoever asks.

Rules: an entry of the cache is named by the SHA-256 of the segment's bytes and of the heads that it was verified against, so that it holds
of nothing else: a segment that changed since is verified again, and its entry takes the place of the one before. The cache is for its
owner only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from agentgate.audit.segment import Line, open_segment, writer_of
from agentgate.audit.writing import write_whole
from agentgate.errors import ConfigError


class RecordRow(NamedTuple):
    """A record, where it is, and what questions are about; None: it has no such field.

    Attributes:
        file, start, end: where its line is.
        time: 0 where none stands there.
        workflow, version: of its run.
        approvers: who said yes, of an allowed call.
    """

    file: str
    start: int
    end: int
    time: float
    workflow: str | None
    version: Any
    approvers: list[str]
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
    would: str | None

    @property
    def place(self) -> tuple[float, str, int]:
        """Where it stands among all rows of a log."""
        return self.time, writer_of(Path(self.file)), self.start


_FIELDS = RecordRow._fields[7:]


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
        name = hashlib.sha256(orjson.dumps([content, heads, _FIELDS], option=orjson.OPT_SORT_KEYS)).hexdigest()
        return self._folder / f"{writer_of(path)}.{'sealed' if sealed else 'chain'}.{name}"

    @staticmethod
    def keep(entry: Path, told: Mapping[str, Any], rows: Iterable[bytes]) -> None:
        """Keep what was found of a segment, and its rows."""
        for old in entry.parent.glob(f"{entry.stem}.*"):
            old.unlink(missing_ok=True)
        write_whole(entry, b"\n".join([orjson.dumps(told), *rows]) + b"\n", durable=False)


def row_bytes(start: int, line: Line) -> bytes:
    """The row of a line that begins there. Anything may stand in a line that nobody sealed."""
    record = line.record
    time, workflow, yes = map(record.get, ("time", "workflow", "approvals"))
    named = [_text(workflow.get("id")), workflow.get("version")] if type(workflow) is dict else [_text(workflow), None]
    people = [each["by"] for each in yes if type(each) is dict and _text(each.get("by"))] if type(yes) is list else []
    at = time if type(time) in {int, float} else 0.0
    return orjson.dumps([start, line.end, at, *named, people, *(_text(record.get(name)) for name in _FIELDS)])


def _text(value: object) -> str | None:
    return value if type(value) is str else None


def read_entry(entry: Path) -> dict[str, Any] | None:
    """What is kept of a segment; None: nothing."""
    try:
        with entry.open("rb") as file:
            return dict(orjson.loads(file.readline()))
    except (OSError, ValueError):
        return None


def read_rows(entry: Path, path: str, wanted: Collection[bytes] = ()) -> Iterator[RecordRow]:
    """The rows of a segment in whose JSON one of these stands; without any, all."""
    is_wanted = re.compile(b"|".join(map(re.escape, wanted))).search
    with entry.open("rb") as lines:
        next(lines)
        for line in filter(is_wanted, lines):
            yield RecordRow(path, *orjson.loads(line))


def read_whole(rows: Sequence[RecordRow]) -> list[dict[str, Any]]:
    """The records of these rows; each segment is read once, since a compressed one is read from its start."""
    found = dict[tuple[Any, ...], dict[str, Any]]()
    for name, its in groupby(sorted(rows, key=lambda row: row[:2]), lambda row: row.file):
        with open_segment(Path(name)) as file:
            for row in its:
                file.seek(row.start)
                found[row[:2]] = orjson.loads(file.read(row.end - row.start))["record"]
    return [found[row[:2]] for row in rows]
