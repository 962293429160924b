"""The tree of a log: what its seals say, one line after another.

A log is all segments of one directory. Its seals are the files ``LOG.NUMBER.seals`` beside
them, lines of canonical JSON. A file begins with ``{"note", "roots", "size"}``, the tree so
far. Each further line is a seal, ``{"heads", "note"}``: heads of segments, each of which is a
leaf of the tree (its canonical JSON), and the checkpoint after them. Whoever has not the key
can write no line that counts.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from agentgate.audit.note import Checkpoint, NoteVerifier, log_verifier, read_checkpoint
from agentgate.errors import CanonicalError
from agentgate.values.canonical import canonical
from agentgate.values.merkle import RightEdge, leaf_hash

SUFFIX = ".seals"
_ORIGIN = "agentgate/audit/"
_HEAD = {"bytes": int, "digest": str, "seq": int, "time": int, "writer": str}
_MORE = {"closed": bool, "unsealed": int}


class Head(NamedTuple):
    """The last durable record of a segment when it was sealed.

    Attributes:
        writer: the segment's name.
        seq: its number; 0: none yet.
        bytes: the length of the segment up to its end.
        digest: SHA-256 of its line, as the next line names it.
        time: when it was sealed, POSIX milliseconds.
        closed: the segment ended there; with `seq` 0 it holds nothing: it has no record, or was
            removed (`agentgate.audit.retention`).
        unsealed: its writer was gone, and so many records were under no checkpoint until then.
    """

    writer: str
    seq: int
    bytes: int
    digest: str
    time: int = 0
    closed: bool = False
    unsealed: int = 0

    @property
    def leaf(self) -> dict[str, Any]:
        """What stands in a seal, and is hashed."""
        return {name: value for name, value in self._asdict().items() if name in _HEAD or value}


def origin_of(path: Path) -> str:
    """The origin of the log that a file of seals is of."""
    return _ORIGIN + path.name.split(".")[0]


def seal_files(directory: Path) -> dict[str, list[Path]]:
    """The files of seals in a directory, by origin, both in their order."""
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        found.setdefault(origin_of(path), []).append(path)
    return found


class LogTree:
    """The tree of one log after the lines that were taken.

    Attributes:
        edge: the tree.
        heads: the last head of each segment that goes on.
        note: the newest checkpoint.
    """

    def __init__(self, origin: str, public: bytes) -> None:
        self.verifier: NoteVerifier = log_verifier(origin, public)
        self.edge = RightEdge()
        self.heads = dict[str, Head]()
        self.note = ""

    @property
    def checkpoint(self) -> Checkpoint:
        """The tree as it is."""
        return Checkpoint(self.verifier.name, self.edge.size, self.edge.root())

    def first_line(self, note: str) -> bytes:
        """The line with which the next file of this log begins."""
        roots = [b64encode(root).decode() for root in self.edge.roots]
        return canonical({"note": note, "roots": roots, "size": self.edge.size}) + b"\n"

    def grow(self, heads: list[Head]) -> None:
        """Add heads of segments."""
        for head in heads:
            self.edge.add(leaf_hash(canonical(head.leaf)))
            self.heads[head.writer] = head
            if head.closed:
                del self.heads[head.writer]

    def take(self, line: bytes, *, first: bool) -> list[Head]:
        """The heads of the next line.

        Raises:
            ValueError: it is not what this log's key signed after the lines before it.
        """
        try:
            value = orjson.loads(line)
            if canonical(value) + b"\n" != line:
                raise ValueError("another form of JSON")
        except CanonicalError as error:
            raise ValueError(str(error)) from error
        if (
            value.keys() != ({"note", "roots", "size"} if first else {"heads", "note"})
            or type(value["note"]) is not str
        ):
            raise ValueError("other keys")
        heads: list[Head] = []
        if first:
            edge = RightEdge(
                value["size"], [b64decode(root, validate=True) for root in value["roots"]]
            )
            if self.note and edge.roots != self.edge.roots:
                raise ValueError("another tree than the file before it")
            self.edge = edge
        else:
            heads = [read_head(each) for each in value["heads"]]
            self.grow(heads)
        self._check(value["note"])
        return heads

    def _check(self, note: str) -> None:
        found = read_checkpoint(note)
        if found != self.checkpoint:
            raise ValueError(
                f"a checkpoint of {found.size} leaves of {found.origin!r}, or of others than "
                f"the {self.edge.size} so far"
            )
        if note.count("\n") != 5 or not self.verifier.signed(note):
            raise ValueError("a checkpoint that the key of this log has not signed")
        self.note = note


def read_head(value: Mapping[str, Any]) -> Head:
    """The head in a line.

    Raises:
        ValueError: another form.
    """
    kinds = {**_HEAD, **_MORE}
    if (
        type(value) is not dict
        or not value.keys() >= _HEAD.keys()
        or any(type(each) is not kinds.get(n) for n, each in value.items())
    ):
        raise ValueError("no head of a segment")
    return Head(**value)


class SealedLine(NamedTuple):
    """A line of a file of seals, with where it ends (bytes)."""

    data: bytes
    number: int
    end: int


def sealed_lines(path: Path, offset: int = 0) -> Iterator[SealedLine]:
    """The whole lines of a file of seals, from a place on; one that a killed process left torn
    is left out.
    """
    end = offset
    with path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield SealedLine(line, number, end)


def sealed_leaves(line: bytes, *, first: bool) -> list[bytes]:
    """The hashed leaves of a line that was taken before."""
    return [] if first else [leaf_hash(canonical(head)) for head in orjson.loads(line)["heads"]]
