"""Checkpoints: what a log's own key says of its tree, as signed notes that any transparency
witness reads.

Rules: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint, Ed25519 only. A note
is accepted only in the bytes that its signer wrote. A log's origin is the name of its key in
signatures.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentgate.audit.writing import write_whole
from agentgate.errors import ConfigError, KeyRefused
from agentgate.token.jws import unb64url
from agentgate.token.regular_file import read_regular
from agentgate.token.signing import SigningKey

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
