"""The gate's signing keys and the run keys made from its secret.

Rules: one algorithm per key, `kid` = RFC 7638 thumbprint; keys live in one owner-only file in an owner-only directory, written
whole or not at all; a new key is published before it signs, a retired one stays published until its last token is dead. Every
gate with these keys derives the same run keys, so any of them continues a run.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_der_private_key

from agentgate.errors import ConfigError, KeyRefused
from agentgate.token.dpop import make_proof, proof_header, token_hash
from agentgate.token.jws import ALGS, Alg, b64url, header_segment, raw_signature, thumbprint

PUBLISH_AHEAD = 600.0  # seconds between publishing a key and signing with it: longer than verifiers cache a key set
KEEP_RETIRED = 600.0  # seconds a key stays published after it stopped signing: longer than a token's life and the leeways
REFRESH = 5.0  # seconds after which a changed file is noticed
_FILE = "ring.json"
_MAX_MASKS = 4096  # tenants whose mask key is kept at hand
_ES256 = ec.ECDSA(SHA256())
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, FIPS 186-5 / SP 800-186 3.2.1.3
_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _jwk(private: _Private) -> dict[str, str]:
    """Public JWK, members in the order of RFC 7638."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"crv": "P-256", "kty": "EC", "x": b64url(point[1:33]).decode(), "y": b64url(point[33:]).decode()}
    return {"crv": "Ed25519", "kty": "OKP", "x": b64url(private.public_key().public_bytes_raw()).decode()}


class SigningKey:
    """A key that signs call tokens.

    Attributes:
        kid: RFC 7638 thumbprint of the public key.
        alg: ES256 or EdDSA.
        header: encoded header segment of every token it signs.
    """

    __slots__ = ("_ec", "_ed", "_public", "alg", "header", "kid")

    def __init__(self, private: _Private) -> None:
        self._public = _jwk(private)
        self._ec = private if isinstance(private, ec.EllipticCurvePrivateKey) else None
        self._ed = private if isinstance(private, ed25519.Ed25519PrivateKey) else None
        self.alg: Alg = "ES256" if self._ec else "EdDSA"
        self.kid = thumbprint(self._public)
        self.header = header_segment(self.alg, self.kid)

    @classmethod
    def generate(cls, alg: Alg = "ES256") -> SigningKey:
        """A new random key.

        Raises:
            ConfigError: another `alg`.
        """
        if alg not in ALGS:
            raise ConfigError("alg", alg, " or ".join(ALGS))
        return cls(ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else ed25519.Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """64 bytes: r || s (RFC 7518 section 3.4) or an Ed25519 signature."""
        if self._ec is not None:
            return raw_signature(self._ec.sign(data, _ES256))
        return self._private_ed().sign(data)

    def _private_ed(self) -> ed25519.Ed25519PrivateKey:
        if self._ed is None:
            raise KeyRefused("signing key: got none")
        return self._ed

    def public_jwk(self) -> dict[str, str]:
        """What the key set publishes: kty, crv, coordinates, kid, alg, use."""
        return {**self._public, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def _der(self) -> bytes:
        private = self._ec if self._ec is not None else self._private_ed()
        return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a signing key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<SigningKey {self.alg} {self.kid}>"


class RunKey:
    """The key of one run (P-256): presents the run's tokens by DPoP. Never leaves the gate's process.

    Attributes:
        jkt: RFC 7638 thumbprint; a token's `cnf.jkt`.
    """

    __slots__ = ("_header", "_private", "jkt")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        jwk = _jwk(private)
        self._private = private
        self.jkt = thumbprint(jwk)
        self._header = proof_header(jwk)

    def sign(self, data: bytes) -> bytes:
        """64 bytes r || s."""
        return raw_signature(self._private.sign(data, _ES256))

    def proof_for(self, ath: str, *, method: str, url: str, now: float) -> str:
        """A DPoP proof for the token whose hash is `ath`.

        Raises:
            ValueError: `url` is not an absolute http(s) URL.
        """
        return make_proof(self.sign, self._header, method=method, url=url, now=now, ath=ath)

    def proof(self, method: str, url: str, token: str, now: float) -> str:
        """A DPoP proof (RFC 9449 section 4.2) for `token` sent with `method` to `url` at `now` (POSIX seconds).

        Raises:
            ValueError: `url` is not an absolute http(s) URL.
        """
        ath = token_hash(token)
        del token  # a traceback with locals must not show it
        return self.proof_for(ath, method=method, url=url, now=now)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a run key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<RunKey {self.jkt}>"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key and the time from which it signs (POSIX seconds); the next entry's start is its end."""

    key: SigningKey
    signs_from: float


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the file holds; entries by `signs_from`."""

    secret: bytes = field(repr=False)
    entries: tuple[_Entry, ...]

    def dump(self) -> bytes:
        keys = [{"signs_from": e.signs_from, "pkcs8": base64.b64encode(e.key._der()).decode()} for e in self.entries]  # noqa: SLF001 - same module
        return orjson.dumps({"agentgate": "keys/v1", "secret": base64.b64encode(self.secret).decode(), "keys": keys})

    @classmethod
    def load(cls, data: bytes, file: Path) -> _Contents:
        """Read the file's bytes.

        Raises:
            KeyRefused: not what `dump` writes.
        """
        try:
            value = orjson.loads(data)
            secret = base64.b64decode(value["secret"], validate=True)
            entries = tuple(_Entry(_private_key(k["pkcs8"]), float(k["signs_from"])) for k in value["keys"])
            known = value["agentgate"] == "keys/v1"
        except (ValueError, KeyError, TypeError) as error:
            raise KeyRefused(f"{file}: unreadable ({type(error).__name__}), expected the key file agentgate wrote") from None
        if not known or len(secret) != 32 or not entries or list(entries) != sorted(entries, key=lambda e: e.signs_from):
            raise KeyRefused(f"{file}: incomplete, expected the key file agentgate wrote")
        return cls(secret, entries)


def _private_key(pkcs8: str) -> SigningKey:
    private = load_der_private_key(base64.b64decode(pkcs8, validate=True), password=None)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return SigningKey(private)
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return SigningKey(private)
    raise KeyRefused(f"signing key: got {type(private).__name__}, expected P-256 or Ed25519")


def _check_private(path: Path, *, directory: bool) -> None:
    found = path.lstat()
    kind = stat.S_ISDIR(found.st_mode) if directory else stat.S_ISREG(found.st_mode)
    if not kind or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        expected = f"a {'directory' if directory else 'file'} of this user with mode {'0700' if directory else '0600'}"
        raise KeyRefused(f"{path}: got mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}; expected {expected}")


class KeyRing:
    """Signing keys and the run-key secret, in a directory or (ephemeral) in this process only."""

    def __init__(self, contents: _Contents, path: Path | None) -> None:
        self._contents = contents
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._mask: tuple[bytes, dict[str, bytes]] = (b"", {})
        self._looked = time.monotonic()

    @classmethod
    def ephemeral(cls, alg: Alg = "ES256") -> KeyRing:
        """A ring that ends with the process; its tokens are worthless afterwards.

        Raises:
            ConfigError: another `alg`.
        """
        return cls(_Contents(secrets.token_bytes(32), (_Entry(SigningKey.generate(alg), 0.0),)), None)

    @classmethod
    def open(cls, path: str | os.PathLike[str], alg: Alg = "ES256", clock: Callable[[], float] = time.time) -> KeyRing:
        """Open a key directory, made with its first key if it does not exist.

        When its newest key has another algorithm, a key of `alg` is added as by `rotate`.

        Args:
            path: the directory.
            alg: ES256 or EdDSA.
            clock: POSIX seconds; asked only when a key is added.

        Raises:
            ConfigError: another `alg`.
            KeyRefused: readable by others, owned by another user, or unreadable.
        """
        if alg not in ALGS:
            raise ConfigError("alg", alg, " or ".join(ALGS))
        folder = Path(path)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(folder, directory=True)
            ring = cls(_Contents(b"", ()), folder)
            with ring._locked():
                if not (folder / _FILE).exists():
                    ring._write(_Contents(secrets.token_bytes(32), (_Entry(SigningKey.generate(alg), 0.0),)))
                ring._read()
        except OSError as error:
            raise KeyRefused(f"{folder}: {error.strerror}, expected a directory that this user can write") from error
        if ring._contents.entries[-1].key.alg != alg:
            ring._add(alg, clock())
        return ring

    @classmethod
    def existing(cls, path: str | os.PathLike[str]) -> KeyRing:
        """Open a key directory as it is; nothing is made.

        Raises:
            KeyRefused: missing, readable by others, owned by another user, or unreadable.
        """
        folder = Path(path)
        try:
            _check_private(folder, directory=True)
            ring = cls(_Contents(b"", ()), folder)
            with ring._locked():
                ring._read()
        except OSError as error:
            raise KeyRefused(f"{folder}: {error.strerror}, expected a key directory (a gate opened with keys= makes it)") from error
        return ring

    def signer(self, now: float) -> SigningKey:
        """The key that signs at `now` (POSIX seconds).

        Raises:
            KeyRefused: none has begun to sign, or the key file can no longer be read.
        """
        self._refresh()
        for entry in reversed(self._contents.entries):
            if entry.signs_from <= now:
                return entry.key
        raise KeyRefused("key ring: no key signs yet at this time; check the clock")

    def jwks(self, now: float) -> dict[str, list[dict[str, str]]]:
        """The key set to publish at `now`: keys that will sign, sign, or signed tokens that may still live."""
        self._refresh()
        return {"keys": [entry.key.public_jwk() for entry in _alive(self._contents.entries, now)]}

    def rotate(self, now: float) -> SigningKey:
        """Add a key: published at once, signing after `PUBLISH_AHEAD` seconds. Keys whose tokens are dead are deleted.

        Raises:
            KeyRefused: the key directory cannot be written.
        """
        return self._add(self._contents.entries[-1].key.alg, now)

    def run_key(self, tenant: str, run: str) -> RunKey:
        """The key of a run, the same in every gate with this ring: HKDF-SHA256 (RFC 5869), candidate reduced as in FIPS 186-5 A.2.1."""
        self._refresh()
        info = orjson.dumps(["agentgate run key v1", tenant, run])
        material = HKDF(algorithm=SHA256(), length=48, salt=None, info=info).derive(self._contents.secret)
        return RunKey(ec.derive_private_key(int.from_bytes(material) % (_ORDER - 1) + 1, ec.SECP256R1()))

    def masked(self, tenant: str, value: bytes) -> str:
        """A value that a log may not hold, as HMAC-SHA256 (RFC 2104, 128 bits in hex) under a key of the tenant's; equal values are equal.

        Without the ring nobody can try values against it, and no tenant's are compared with another's.
        """
        secret = self._contents.secret
        if self._mask[0] is not secret:
            self._mask = (secret, {})
        key = self._mask[1].get(tenant)
        if key is None:
            info = orjson.dumps(["agentgate mask key v1", tenant])
            if len(self._mask[1]) >= _MAX_MASKS:
                self._mask[1].clear()
            key = self._mask[1][tenant] = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
        return hmac.digest(key, value, "sha256").hex()[:32]

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a key ring is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<KeyRing {self._path or 'ephemeral'}: {len(self._contents.entries)} keys>"

    def _add(self, alg: Alg, now: float) -> SigningKey:
        key = SigningKey.generate(alg)
        try:
            with self._locked():
                if self._path is not None:
                    self._read()
                old = self._contents.entries
                start = max(now + PUBLISH_AHEAD, old[-1].signs_from + 1.0)
                self._write(_Contents(self._contents.secret, (*_alive(old, now), _Entry(key, start))))
        except OSError as error:
            raise KeyRefused(f"{self._path}: {error.strerror}, expected a directory that this user can write") from error
        return key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, between threads and between processes."""
        with self._lock:
            if self._path is None:
                yield
                return
            handle = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def _write(self, contents: _Contents) -> None:
        if self._path is not None:
            draft = self._path / f".{_FILE}.{secrets.token_hex(8)}"
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(contents.dump())
                out.flush()
                os.fsync(out.fileno())
            draft.replace(self._path / _FILE)
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._contents = contents

    def _read(self) -> None:
        if self._path is None:
            return
        file = self._path / _FILE
        _check_private(file, directory=False)
        found = file.stat()
        if (found.st_ino, found.st_mtime_ns) != self._seen:
            self._contents = _Contents.load(file.read_bytes(), file)
            self._seen = (found.st_ino, found.st_mtime_ns)

    def _refresh(self) -> None:
        """Notice another process's rotation."""
        if self._path is None or time.monotonic() - self._looked < REFRESH:
            return
        with self._lock:
            try:
                _check_private(self._path, directory=True)
                self._read()
            except OSError as error:
                raise KeyRefused(f"{self._path}: {error.strerror}, expected the key file") from error
            self._looked = time.monotonic()


def _alive(entries: tuple[_Entry, ...], now: float) -> list[_Entry]:
    """Entries whose successor has not been signing for `KEEP_RETIRED` seconds."""
    ends = [entry.signs_from for entry in entries[1:]]
    return [entry for entry, end in zip(entries, ends, strict=False) if end + KEEP_RETIRED > now] + [entries[-1]]
