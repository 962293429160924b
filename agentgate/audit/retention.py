"""The later life of a segment that its process has closed: it is compressed, and removed when
its time is over.

Rules: what is removed has a seal that says so before its file goes, signed as every other: a
head that is closed and empty. By that an auditor tells it from what was taken away; a record
(``pruned``) says who removed it. What must outlast every segment is written again before:
revocations, keys of accounts, and up to where each history was seen.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence
from pathlib import Path

from agentgate.audit.file import FileAudit
from agentgate.audit.sealer import Sealer
from agentgate.audit.segment import read_lines, remembered, writer_of
from agentgate.audit.tree import Head
from agentgate.audit.verify import LogVerdict
from agentgate.audit.writing import sync_directory, write_whole

AT_ONCE = 500  # segments that one record and seal name
_LASTING = ("revocation_applied", "lifting", "key_changed")


def ended_before(found: LogVerdict, moment: float) -> list[Path]:
    """The whole segments that the newest log closed before then (POSIX seconds). What has a
    finding, or is of a log before, stays.
    """
    ends = dict[str, float]()
    for log in found.logs:  # of a segment that two logs name, neither says that it is gone
        for name, heads in log.heads.items():
            closed = [head.time / 1000 for head in heads if head.closed and log.finding is None]
            ends[name] = moment if name in ends else min(closed, default=moment)
    return [
        Path(each.file)
        for each in found.segments
        if each.file and each.finding is None and ends.get(each.writer, moment) < moment
    ]


def compress_segment(path: Path) -> None:
    """Write it compressed (gzip) in its own place. Raises OSError."""
    write_whole(path.with_name(f"{path.name}.gz"), gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def remove_segments(
    directory: Path, keys: Path, paths: Sequence[Path], *, before: float, by: str
) -> None:
    """Remove at most `AT_ONCE` segments of a log, sealed and on record.

    Raises:
        AgentGateError, OSError: neither is durable, or a file could not be removed; it may be
            tried again.
    """
    log = FileAudit(directory, keys=keys)
    now = time.time()
    names = [*map(writer_of, paths)]
    told = {
        "type": "pruned",
        "time": round(now, 6),
        "by": by,
        "before": before,
        "removed": names,
    }
    lasting = [
        line.record
        for path in paths
        for line in read_lines(path)
        if line.record.get("type") in _LASTING
    ]
    histories = [
        {**told, "removed": [], "seen": [*each]} for each in remembered(directory).items()
    ]
    try:
        for record in (*lasting, *histories, told):
            log.append(record, time.monotonic() + 10)
    finally:
        log.close()
    sealer = Sealer(directory, keys)
    sealer.begin()
    sealer.seal(*(Head(name, 0, 0, "", int(now * 1000), closed=True) for name in names))
    sealer.close()
    for path in paths:
        path.unlink()
    sync_directory(directory)
