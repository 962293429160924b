"""Is an audit log what its writers wrote? Offline: from its directories, and the public key
that its checkpoints are signed with.

Rules: every line of every segment is read again, every seal, and the tree that the seals make.
What the log should hold beyond what lies there is told by checkpoints that are kept elsewhere
(`Known`): a tree that is smaller, or has another root at that size, went back. What a segment
has beyond its last head is under no checkpoint, which is counted: as long as its process lives,
up to a second of records.

A cache of whoever asks keeps which segments were found whole: one that was verified before is only
hashed, as it is searched. An entry is named by the heads that the segment was verified against,
and has the SHA-256 of its lines, which whoever reads records compares
(`agentgate.audit.questions`), so that it holds of nothing else: a segment that changed since is
verified again, and its entry takes the place of the one before. No record is in it. The cache is
for its owner only.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import orjson

from agentgate.audit.sealer import kept_checkpoints
from agentgate.audit.segment import Content, read_lines, segment_files, writer_of
from agentgate.audit.tree import (
    PUBLIC,
    Checkpoint,
    Head,
    LogTree,
    read_head,
    read_public,
    seal_files,
    sealed_lines,
)
from agentgate.audit.writing import write_whole
from agentgate.errors import AuditDamaged, ConfigError
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import parse


def open_cache(folder: Path) -> Path:
    """Make it. Raises ConfigError: others may write there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077 or folder.stat().st_uid != os.geteuid():
        raise ConfigError("cache", str(folder), "a directory of this user with mode 0700")
    return folder


def entry_of(
    folder: Path, path: Path, heads: Sequence[Mapping[str, Any]], *, sealed: bool
) -> Path:
    """Where a segment stands if it was found whole."""
    name = hashlib.sha256(
        orjson.dumps([sealed, *heads], option=orjson.OPT_SORT_KEYS)
    ).hexdigest()
    return folder / f"{writer_of(path)}.{name}"


def read_entry(entry: Path, path: Path) -> dict[str, Any] | None:
    """What was found of a segment, if it may be as it was then; None: it was not whole, or has
    another size.
    """
    with suppress(OSError, ValueError):
        told: dict[str, Any] = orjson.loads(entry.read_bytes())
        if path.suffix == ".gz" or path.stat().st_size == told["size"]:
            return {**told, "file": str(path)}
    return None


def write_entry(entry: Path, told: Mapping[str, Any]) -> None:
    """Keep that a segment is whole, and what else was found of it."""
    drop_entries(entry.parent, entry.stem)
    write_whole(entry, orjson.dumps(told), durable=False)


def drop_entries(folder: Path, writer: str) -> None:
    """Forget what was found of a segment."""
    for old in folder.glob(f"{writer}.*"):
        old.unlink(missing_ok=True)


FOLDER = "audit-heads"  # in the key directory
_EXPECTED = "the head of a segment: {bytes, digest, seq, writer}"


def kept_heads(keys: Path) -> dict[str, Head]:
    """The heads that a key directory keeps, by writer.

    Raises:
        AuditDamaged: one has another form. OSError: unreadable.
    """
    found: dict[str, Head] = {}
    for path in sorted((keys / FOLDER).glob("*.json")):
        try:
            head = found[path.stem] = read_head({"time": 0, **parse(read_regular(path))})
        except (OSError, ValueError, TypeError) as error:
            raise AuditDamaged(str(path), 1, str(error), _EXPECTED) from error
        if head.writer != path.stem:
            raise AuditDamaged(str(path), 1, f"the head of {head.writer}", _EXPECTED)
    return found


S = TypeVar("S")
T = TypeVar("T")
_MANY = 64 << 20  # bytes, from which on segments are read by several processes


class LogFinding(IntEnum):
    """What is wrong, as an exit status."""

    # a line is not what its writer wrote: changed, dropped, added, or in another order
    EDITED = 10
    CUT = 11  # records are missing at the end
    MISSING = 12  # a segment is not there
    FORGED = 13  # a segment that no seal names
    CHANGED = 14  # a consistent chain of other records than were sealed
    APPENDED = 15  # records after the segment ended
    SEALS = 16  # a seal is not what the log's key signed
    # a log, or a part of its tree, that a checkpoint kept elsewhere tells of is not there
    WENT_BACK = 17
    TWICE = 18  # more than one file of a segment


@dataclass(frozen=True, slots=True)
class Verified:
    """One segment.

    Attributes:
        writer: its name.
        file: where it lies; empty: nowhere.
        records: how many can be read.
        sealed: up to which of them there is a checkpoint; None: no seal names it.
        unsealed: how many were under none until another process sealed them.
        torn: bytes after the last whole line.
        finding: what is wrong with it; None: nothing.
        wrong: the same in words.
        size: of the lines of these records, in bytes (as its writer wrote them, also where they
            were compressed).
        content: SHA-256 of these lines.
    """

    writer: str
    file: str
    records: int
    sealed: int | None
    unsealed: int = 0
    torn: int = 0
    finding: LogFinding | None = None
    wrong: str = ""
    size: int = 0
    content: str = ""

    @property
    def name(self) -> str:
        """Where it is, or its writer."""
        return self.file or self.writer

    @property
    def tail(self) -> int:
        """How many records are under no checkpoint."""
        return max(0, self.records - (self.sealed or 0))


@dataclass(slots=True)
class Sealed:
    """One log: what its seals say.

    Attributes:
        origin: its name.
        size: how many leaves its tree has.
        heads: of each segment, every head.
        verifier: its key, as witnesses are told of it.
        sealed_at: when its newest seal was made, POSIX milliseconds.
        gaps: from when to when no process wrote it; to an earlier time: the clock went back.
        finding: what is wrong with it; None: nothing.
        wrong: the same in words.
    """

    origin: str
    size: int = 0
    heads: dict[str, list[Head]] = field(default_factory=lambda: defaultdict(list))
    verifier: str = ""
    sealed_at: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    finding: LogFinding | None = None
    wrong: str = ""

    @property
    def name(self) -> str:
        """Its origin."""
        return self.origin


class Known(NamedTuple):
    """A checkpoint that is kept elsewhere: where, and what it says."""

    source: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class LogVerdict:
    """What was found of all of it."""

    segments: tuple[Verified, ...]
    logs: tuple[Sealed, ...]

    @property
    def findings(self) -> list[Verified | Sealed]:
        """What is wrong, the logs first."""
        every: tuple[Verified | Sealed, ...] = (*self.logs, *self.segments)
        return [each for each in every if each.finding is not None]

    @property
    def is_checked(self) -> bool:
        """Whether seals, or heads of an earlier version, told what was cut off, forged or
        deleted; else only chains were looked at.
        """
        return bool(self.logs) or any(each.sealed is not None for each in self.segments)


Watch = Callable[[Any, int], Any]  # is told how far it is: the work, and how much of it


class LogEvidence(NamedTuple):
    """What tells of a log, outside of its directories.

    Attributes:
        keys: those that may have signed its checkpoints; none: only chains can be looked at.
        known: checkpoints that are kept elsewhere.
        heads: heads of segments, as earlier versions kept them.
    """

    keys: Sequence[bytes] = ()
    known: Sequence[Known] = ()
    heads: Mapping[str, Head] = MappingProxyType({})

    @classmethod
    def of(cls, folders: Iterable[Path]) -> LogEvidence:
        """What key directories tell.

        Raises:
            AuditDamaged: something there has another form. KeyRefused: one has no key of a log.
                OSError: unreadable.
        """
        keys = list[bytes]()
        known = list[Known]()
        heads = dict[str, Head]()
        for folder in folders:
            old = kept_heads(folder)
            heads |= old
            if old and not (folder / PUBLIC).exists():
                continue
            keys.append(read_public(folder))
            known += [
                Known(str(folder), checkpoint)
                for _, checkpoint in kept_checkpoints(folder).values()
            ]
        return cls(keys, known, heads)


def verify(
    directories: Sequence[Path],
    evidence: LogEvidence,
    watch: Watch = lambda work, _: work,
    *,
    cache: Path | None = None,
) -> LogVerdict:
    """Every log and segment of these directories, and those that only checkpoints and heads
    know, by name (the time each was opened).

    The directories are those of one log or more, also where segments were moved to. `cache`:
    what was found before, which holds as long as the bytes of the segment are those
    (`Verified.content`).

    Raises:
        OSError: a directory or a file cannot be read.
    """
    keys, known, heads = evidence
    logs = read_logs(directories, keys, known) if keys else {}
    paths = dict[str, list[Path]]()
    for directory in directories:
        for path in segment_files(directory):
            paths.setdefault(writer_of(path), []).append(path)
    expected: dict[str, list[Head]] = {name: [head] for name, head in heads.items()}
    for log in logs.values():
        for name, each in log.heads.items():
            expected.setdefault(name, []).extend(each)
    found = list[Verified]()
    work = list[_Work]()
    sealed = bool(logs or heads)
    entries = dict[str, Path]()
    for name in sorted(paths):
        for path in paths[name]:
            those = expected.get(name, [])
            if cache is not None:
                entries[name] = entry_of(
                    cache, path, [head.leaf for head in those], sealed=sealed
                )
                if told := read_entry(entries[name], path):
                    found.append(Verified(**told))
                    continue
            work.append((name, path, those))
    size = sum(path.stat().st_size for _, path, _ in work)
    for each, lost in watch(
        spread(partial(_read_segment, sealed=sealed), work, size), len(work)
    ):
        found.append(each)
        if each.writer in entries and each.finding is None and not (lost or each.torn):
            write_entry(entries[each.writer], asdict(each))
        for head in lost:
            expected.setdefault(head.writer, []).append(head)
    found = [
        _twice(each) if len(paths[each.writer]) > 1 and each.finding is None else each
        for each in found
    ]
    for name, those in expected.items():
        last = max(those, key=lambda head: head.seq)
        newest = [log.heads[name][-1] for log in logs.values() if name in log.heads] or [last]
        # one log does not say what another removed
        if name not in paths and not all(head.closed and not head.seq for head in newest):
            missing = LogFinding.MISSING
            wrong = f"missing: it had {last.seq} records"
            found.append(Verified(name, "", 0, last.seq, finding=missing, wrong=wrong))
    return LogVerdict(tuple(sorted(found, key=lambda each: each.writer)), tuple(logs.values()))


_Work = tuple[str, Path, list[Head]]


def spread(function: Callable[[S], T], work: Sequence[S], size: int) -> Iterator[T]:
    """What a function returns of each; by several processes, where all of it is of many
    bytes.
    """
    cores = (
        min(len(os.sched_getaffinity(0)), len(work)) if hasattr(os, "sched_getaffinity") else 1
    )
    if cores < 2 or size < _MANY:
        yield from map(function, work)
        return
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        yield from pool.map(function, work)


def _twice(each: Verified) -> Verified:
    return replace(
        each, finding=LogFinding.TWICE, wrong="more than one file has this writer's name"
    )


def _read_segment(work: _Work, *, sealed: bool) -> tuple[Verified, list[Head]]:
    """What is found of one file, and the heads of segments that it says were lost."""
    name, path, heads = work
    wanted = dict[int, set[str]]()
    for head in heads:
        if head.seq:
            wanted.setdefault(head.seq, set()).add(head.digest)
    records = 0
    lost = list[Head]()
    content = Content()
    wrong: tuple[LogFinding, str] | None = None
    last = max(heads, key=lambda head: head.seq, default=None)
    try:
        for line in read_lines(path, content=content):
            records = line.seq
            if line.record.get("type") == "segment_lost":
                with suppress(KeyError, TypeError, ValueError):  # another form: nobody's record
                    lost.append(read_head({"time": 0, "closed": True, **line.record["head"]}))
            if records in wanted and wanted.pop(records) != {line.digest}:
                wrong = wrong or (
                    LogFinding.CHANGED,
                    f"record {records}: got other content than was sealed",
                )
    except AuditDamaged as error:
        wrong = wrong or (
            LogFinding.EDITED,
            f"line {error.line}: got {error.got}, expected {error.expected}",
        )
    if wrong is None and last is None and sealed:
        wrong = LogFinding.FORGED, "no seal names this segment: no process of this log began it"
    elif wrong is None and last is not None and wanted:
        wrong = (
            LogFinding.CUT,
            f"cut off: got {records} records, expected at least the {last.seq} that it had",
        )
    elif (
        wrong is None
        and last is not None
        and records > last.seq
        and any(head.closed for head in heads)
    ):
        wrong = LogFinding.APPENDED, f"{records - last.seq} records after its end"
    finding, said = wrong or (None, "")
    late = sum(head.unsealed for head in heads)
    told = late, 0 if finding else content.torn, finding, said, content.size, content.digest
    return Verified(name, str(path), records, last and last.seq, *told), lost


def read_logs(
    directories: Sequence[Path], keys: Sequence[bytes], known: Iterable[Known]
) -> dict[str, Sealed]:
    """The logs of these directories, and those that only a checkpoint tells of, by origin.
    Raises OSError: a file cannot be read.
    """
    elsewhere = dict[str, list[Known]]()
    for each in known:
        elsewhere.setdefault(each.checkpoint.origin, []).append(each)
    files = dict[str, list[Path]]()
    for directory in directories:
        for origin, paths in seal_files(directory).items():
            files.setdefault(origin, []).extend(paths)
    logs = {
        origin: _read_log(origin, paths, keys, elsewhere.pop(origin, []))
        for origin, paths in sorted(files.items())
    }
    for origin, those in elsewhere.items():
        most = max(those, key=lambda each: each.checkpoint.size)
        wrong = f"not here: {most.source} knows {most.checkpoint.size} leaves of it"
        logs[origin] = Sealed(origin, finding=LogFinding.WENT_BACK, wrong=wrong)
    return logs


def _read_log(
    origin: str, paths: list[Path], keys: Sequence[bytes], known: list[Known]
) -> Sealed:
    paths = sorted(paths, key=lambda path: path.name)
    tree = LogTree(origin, _key_of(origin, paths[0], keys))
    sealed = Sealed(origin)
    left = list(known)
    try:
        for index, path in enumerate(paths):
            _read_seals(path, index, tree, sealed, left)
    except ValueError as error:
        sealed.finding = LogFinding.SEALS
        sealed.wrong = str(error)
    sealed.verifier = str(tree.verifier)
    sealed.size = tree.edge.size
    if sealed.finding is None and left:
        most = max(left, key=lambda each: each.checkpoint.size)
        sealed.finding = LogFinding.WENT_BACK
        sealed.wrong = (
            f"it ends after {sealed.size} leaves, {most.source} knows {most.checkpoint.size}"
        )
    return sealed


def _read_seals(
    path: Path, index: int, tree: LogTree, sealed: Sealed, left: list[Known]
) -> None:
    """Take one file of seals, and of what is known those that it confirms. Raises ValueError:
    what is wrong, and where.
    """
    if int(path.name.split(".")[1]) != index:
        raise ValueError(f"{path}: the file before it, number {index}, is not here")
    if not path.stat().st_size:
        raise ValueError(f"{path}: empty")
    for line in sealed_lines(path):
        idle = sealed.sealed_at and not tree.heads
        try:
            heads = tree.take(line.data, first=line.number == 1)
        except ValueError as error:
            raise ValueError(f"{path}, line {line.number}: {error}") from error
        for head in heads:
            sealed.heads[head.writer].append(head)
        before = sealed.sealed_at
        sealed.sealed_at = max((head.time for head in heads), default=sealed.sealed_at)
        # processes that wait for their turn seal a little later than they looked at the clock
        if before - sealed.sealed_at > 5000 or (idle and sealed.sealed_at - before > 60_000):
            sealed.gaps.append((before, sealed.sealed_at))
        for each in [each for each in left if each.checkpoint.size == tree.edge.size]:
            if each.checkpoint.root != tree.edge.root():
                raise ValueError(
                    f"{path}, line {line.number}: another tree of {tree.edge.size} leaves "
                    f"than {each.source} knows"
                )
            left.remove(each)


def _key_of(origin: str, path: Path, keys: Sequence[bytes]) -> bytes:
    """The key that signed the first line of a log; if none did, any."""
    for line in sealed_lines(path):
        for key in keys:
            with suppress(ValueError):
                LogTree(origin, key).take(line.data, first=True)
                return key
        break
    return keys[0]
