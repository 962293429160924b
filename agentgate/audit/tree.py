"""The tree of a log: what its seals say, one line after another.

A log is all segments of one directory. Its seals are the files ``LOG.NUMBER.seals`` beside
them, lines of canonical JSON. A file begins with ``{"note", "roots", "size"}``, the tree so
far. Each further line is a seal, ``{"heads", "note"}``: heads of segments, each of which is a
leaf of the tree (its canonical JSON), and the checkpoint after them. Whoever has not the key
can write no line that counts.

Checkpoints are what a log's own key says of its tree, as signed notes that any transparency
witness reads: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint, Ed25519 only. A
note is accepted only in the bytes that its signer wrote. A log's origin is the name of its key in
signatures.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentgate.audit.writing import write_whole
from agentgate.errors import CanonicalError, ConfigError, KeyRefused
from agentgate.token.jws import unb64url
from agentgate.token.regular_file import read_regular
from agentgate.token.signing import SigningKey
from agentgate.values.canonical import canonical
from agentgate.values.merkle import RightEdge, leaf_hash

# in a key directory
KEY = "audit.key"
PUBLIC = "audit.pub"
_ED25519 = b"\x01"
_COSIGNATURE = b"\x04"


class Checkpoint(NamedTuple):
    """A tree: whose, how many leaves, and the root over them."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


class NoteVerifier(NamedTuple):
    """The public key of a log or a witness, under its name."""

    name: str
    kind: bytes
    public: bytes

    @classmethod
    def parse(cls, text: str) -> NoteVerifier:
        """A verifier key as it is printed: name, key id and key, joined by plus signs.

        Raises:
            ConfigError: another form.
        """
        try:
            name, given, data = text.strip().split("+", 2)
            raw = b64decode(data, validate=True)
            found = cls(name, raw[:1], raw[1:])
            if (
                name
                and raw[:1] in {_ED25519, _COSIGNATURE}
                and len(raw) == 33
                and found.id.hex() == given
            ):
                return found
        except ValueError:
            pass
        raise ConfigError(
            "witness", text[:200], "a verifier key of https://c2sp.org/signed-note: name+id+key"
        )

    @property
    def id(self) -> bytes:
        """Four bytes by which signatures name it."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.kind + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(self.kind + self.public).decode()}"

    def signed(self, note: str) -> bool:
        """Whether this key has signed a note, or cosigned it
        (https://c2sp.org/tlog-cosignature).
        """
        text, _, lines = note.rpartition("\n\n")
        for line in lines.splitlines():
            start, _, encoded = line.rpartition(" ")
            if start != f"\u2014 {self.name}":
                continue
            with suppress(ValueError, InvalidSignature):
                data = b64decode(encoded, validate=True)
                message = f"{text}\n".encode()
                if data[:4] != self.id or b64encode(data).decode() != encoded:
                    continue
                if self.kind == _COSIGNATURE:
                    message = (
                        f"cosignature/v1\ntime {int.from_bytes(data[4:12])}\n".encode()
                        + message
                    )
                    data = data[8:]
                Ed25519PublicKey.from_public_bytes(self.public).verify(data[4:], message)
                return True
        return False


def log_verifier(origin: str, public: bytes) -> NoteVerifier:
    """The verifier key of the log of this origin."""
    return NoteVerifier(origin, _ED25519, public)


def read_checkpoint(note: str) -> Checkpoint:
    """The checkpoint in a note, whoever signed it.

    Raises:
        ValueError: another form.
    """
    text, between, _ = note.rpartition("\n\n")
    lines = text.split("\n")
    if len(lines) != 3 or not between or not note.endswith("\n"):
        raise ValueError("no checkpoint")
    found = Checkpoint(lines[0], int(lines[1]), b64decode(lines[2], validate=True))
    if found.text != f"{text}\n" or len(found.root) != 32 or not found.origin:
        raise ValueError("another form of a checkpoint")
    return found


class LogKey:
    """The key of the logs of one key directory. Its file is the only place of the private
    part.
    """

    def __init__(self, key: SigningKey) -> None:
        if key.alg != "EdDSA":
            raise KeyRefused(f"{KEY}: got {key.alg}, expected an Ed25519 key")
        self._key = key
        self.public = unb64url(key.public_jwk()["x"].encode())

    @classmethod
    def open(cls, folder: Path) -> LogKey:
        """The key of a directory, made with its first use; the public part lies beside it, as
        text.

        Raises:
            KeyRefused: it is somebody else's, others may read it, or it is no such key.
                OSError: it cannot be read or made.
        """
        if not (folder / KEY).exists():
            write_whole(folder / KEY, SigningKey.generate("EdDSA").pem(), first=True)
        try:
            key = cls(SigningKey.from_pem(read_regular(folder / KEY, forbidden=0o077)))
        except OSError as error:
            raise KeyRefused(f"{folder / KEY}: {error.strerror}") from error
        if not (folder / PUBLIC).exists():
            write_whole(folder / PUBLIC, b64encode(key.public) + b"\n", first=True)
        return key

    def sign(self, checkpoint: Checkpoint) -> str:
        """The signed note of a checkpoint."""
        signature = log_verifier(checkpoint.origin, self.public).id + self._key.sign(
            checkpoint.text.encode()
        )
        return (
            f"{checkpoint.text}\n\u2014 {checkpoint.origin} {b64encode(signature).decode()}\n"
        )


def read_public(path: Path) -> bytes:
    """The public key of a file that `LogKey.open` wrote, or of the directory that holds it.

    Raises:
        KeyRefused: there is none.
    """
    file = path / PUBLIC if path.is_dir() else path
    try:
        found = b64decode(read_regular(file).strip(), validate=True)
        Ed25519PublicKey.from_public_bytes(found)
    except (OSError, ValueError) as error:
        raise KeyRefused(
            f"{file}: {error}; expected the public key of a log (32 bytes in base64)"
        ) from error
    return found


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
