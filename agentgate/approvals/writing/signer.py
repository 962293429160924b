"""Who signs: an OpenSSH private key read here, or ssh-keygen for a key of ssh-agent or a FIDO
token.

Rules: only signing may start a program, and only ``ssh-keygen -Y sign``; its output is verified
here before it is used.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from agentgate.approvals import sshkey, sshsig
from agentgate.approvals.sshkey import SshKey
from agentgate.approvals.sshsig import PrivateKey
from agentgate.errors import KeyRefused

_MAX_KEY = 16 * 1024
_PATIENCE = 120.0  # seconds in which a person touches a token or types a passphrase


class Signer(Protocol):
    """A person's key, ready to sign."""

    @property
    def public_key(self) -> SshKey:
        """The key that `sign` signs with."""

    def sign(self, message: bytes, namespace: str) -> str:
        """An armoured signature. Raises KeyRefused."""


class KeySigner:
    """A key of this process."""

    __slots__ = ("_private", "public_key")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.public_key = sshkey.encode(private.public_key())

    @classmethod
    def from_seed(cls, seed: bytes) -> KeySigner:
        """The Ed25519 key of a 32-byte seed (RFC 8032 section 5.1.5)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, message: bytes, namespace: str) -> str:
        """See `Signer`."""
        return sshsig.sign(self._private, message, namespace)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<KeySigner {self.public_key.fingerprint}>"


class KeygenSigner:
    """A key that only ssh-keygen can use: in ssh-agent, on a FIDO token, or in a file format of
    its own.

    Args:
        path: the private key file, or the ``.pub`` file of a key in ssh-agent.
    """

    __slots__ = ("_path", "public_key")

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        public = (
            self._path
            if self._path.suffix == ".pub"
            else self._path.with_name(f"{self._path.name}.pub")
        )
        self.public_key = SshKey.from_line(_read(public).decode("utf-8", "replace"))

    def sign(self, message: bytes, namespace: str) -> str:
        """See `Signer`. ssh-keygen asks for touch, PIN or passphrase at the terminal."""
        program = shutil.which("ssh-keygen")
        if program is None:
            raise KeyRefused(
                "ssh-keygen: got none on PATH, expected OpenSSH (Debian, Ubuntu: apt-get install "
                "openssh-client)"
            )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "message"
            file.write_bytes(message)
            command = [
                program,
                "-q",
                "-Y",
                "sign",
                "-f",
                str(self._path),
                "-n",
                namespace,
                str(file),
            ]
            try:
                done = subprocess.run(  # noqa: S603 - an exact program, no shell
                    command, check=False, timeout=_PATIENCE, stderr=subprocess.PIPE
                )
                armored = ""
                if done.returncode == 0:
                    armored = file.with_name("message.sig").read_text("ascii")
            except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
                raise KeyRefused(
                    f"ssh-keygen -Y sign: got {type(error).__name__}, expected a signature"
                ) from None
        if not armored:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [
                f"exit code {done.returncode}"
            ]
            raise KeyRefused(
                f"ssh-keygen -Y sign with {self._path}: got {ascii(said[0])[1:-1][:200]}, expected "
                "a signature"
            )
        if sshsig.verify(armored, message, namespace) != self.public_key:
            raise KeyRefused(
                f"ssh-keygen -Y sign with {self._path}: got a signature by another key, expected "
                f"{self.public_key.fingerprint}"
            )
        return armored

    def __repr__(self) -> str:
        return f"<KeygenSigner {self.public_key.fingerprint}>"


def open_signer(path: Path | str, passphrase: Callable[[], bytes] | None = None) -> Signer:
    """The signer for a key file: a ``.pub`` file or a FIDO key goes through ssh-keygen.

    An OpenSSH private key is read here.

    Args:
        path: private key file, or the public half of a key in ssh-agent.
        passphrase: called once, only for an encrypted file; None: ssh-keygen signs with such a
            file and asks itself.

    Raises KeyRefused: unreadable, wrong passphrase, or a kind of key that is refused.
    """
    file = Path(path)
    if file.suffix == ".pub":
        return KeygenSigner(file)
    data = _read(file)
    try:
        private = load_ssh_private_key(data, password=None)
    except (TypeError, ValueError) as error:
        if not (isinstance(error, TypeError) or "encrypted" in str(error)):
            raise KeyRefused(
                f"{file}: got {ascii(str(error))[1:-1][:120]}, expected an OpenSSH private key"
            ) from None
        if passphrase is None:
            return KeygenSigner(file)
        try:
            private = load_ssh_private_key(data, password=passphrase())
        except (TypeError, ValueError):
            raise KeyRefused(
                f"{file}: got a passphrase that does not open it, expected its own"
            ) from None
    except UnsupportedAlgorithm:  # a FIDO key's file holds only a handle
        return KeygenSigner(file)
    if not isinstance(private, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise KeyRefused(
            f"{file}: got a {type(private).__name__.removesuffix('PrivateKey')} key, expected "
            "Ed25519 or ECDSA (RSA and DSA are refused)"
        )
    return KeySigner(private)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY)
    except OSError as error:
        raise KeyRefused(f"{path}: got {error.strerror}, expected a readable SSH key") from None
