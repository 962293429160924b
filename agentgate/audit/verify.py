"""Is an audit log what its writers wrote? Offline: from its directories, and from the heads that a key directory keeps.

Rules: each segment's chain, numbers and writer are read again; a torn last line was never acknowledged and is only counted. What the log
should hold beyond that is told by its heads, and by a record of a segment that its writer lost: one that is missing, shorter or other than
it was. Without heads, a log that was cut at the end of a line cannot be told from a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentgate.audit.heads import Head
from agentgate.audit.segment import read_lines
from agentgate.errors import AuditDamaged


@dataclass(frozen=True, slots=True)
class Verified:
    """One segment.

    Attributes:
        writer: its name.
        file: where it lies; empty: nowhere.
        records: how many can be read.
        kept: up to which of them a head is kept; None: there is none.
        torn: bytes after the last whole line.
        wrong: what is wrong with it; empty: nothing.
    """

    writer: str
    file: str
    records: int
    kept: int | None
    torn: int = 0
    wrong: str = ""


def verify(directories: Sequence[Path], heads: Mapping[str, Head]) -> tuple[Verified, ...]:
    """Every segment of these directories, and those that only `heads` knows, by name (the time each was opened).

    Raises:
        OSError: a directory or a file cannot be read.
    """
    paths: dict[str, list[Path]] = {name: [] for name in heads}
    for directory in directories:
        for path in directory.iterdir():
            if path.suffix == ".jsonl":
                paths.setdefault(path.stem, []).append(path)
    lost: dict[str, int] = {}
    found = [each for name in sorted(paths) for each in _segment(name, paths[name], heads.get(name), lost)]
    gone = [Verified(name, "", 0, None, wrong=f"missing: it had {seq} records") for name, seq in lost.items() if name not in paths]
    return (*found, *gone)


def _segment(name: str, paths: list[Path], head: Head | None, lost: dict[str, int]) -> Iterable[Verified]:
    kept = head.seq if head is not None else None
    if not paths:
        yield Verified(name, "", 0, kept, wrong=f"missing: it had {kept} records")
    for path in paths:
        records, end, digest, wrong = 0, 0, "", ""
        try:
            for line in read_lines(path):
                records, end = line.seq, line.end
                if line.record.get("type") == "segment_lost":
                    lost[line.record["head"]["writer"]] = line.record["head"]["seq"]
                if records == kept:
                    digest = line.digest
        except AuditDamaged as error:
            wrong = f"line {error.line}: got {error.got}, expected {error.expected}"
        if not wrong and head is not None and head.seq:
            if records < head.seq:
                wrong = f"cut off: got {records} records, expected at least the {head.seq} that it had"
            elif digest != head.digest:
                wrong = f"record {head.seq}: got other content than was kept of it"
        if not wrong and len(paths) > 1:
            wrong = "more than one file has this writer's name"
        yield Verified(name, str(path), records, kept, 0 if wrong else path.stat().st_size - end, wrong)
