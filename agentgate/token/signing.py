"""Private keys that sign: the gate's for call tokens, each run's and each caller's for proofs of
possession. One algorithm per key. And the gate's key ring: its signing keys, and the secret
from which run keys are derived.

Rules: a key's `kid` is its RFC 7638 thumbprint; the keys of a ring are in one owner-only file
in an owner-only directory, written completely or not at all; a new key is published before it
signs, a retired one stays published until its last token has expired. Every gate with this ring
derives the same run keys, so any of them continues a run.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from agentgate.errors import ConfigError, KeyRefused
from agentgate.token.dpop import PROOF_TYPE, target, token_hash
from agentgate.token.jws import (
    ALGS,
    Alg,
    b64url,
    compact,
    header_segment,
    raw_signature,
    thumbprint,
)
from agentgate.token.regular_file import read_regular
from agentgate.values.value_class import value_class

_ES256 = ec.ECDSA(SHA256())
_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _jwk(private: _Private) -> dict[str, str]:
    """Public JWK, members in the order of RFC 7638."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            "crv": "P-256",
            "kty": "EC",
            "x": b64url(point[1:33]).decode(),
            "y": b64url(point[33:]).decode(),
        }
    return {
        "crv": "Ed25519",
        "kty": "OKP",
        "x": b64url(private.public_key().public_bytes_raw()).decode(),
    }


class SigningKey:
    """A key that signs call tokens.

    Attributes:
        kid: RFC 7638 thumbprint of the public key.
        public: the public key: the members of RFC 7638.
        alg: ES256 or EdDSA.
        header: encoded header segment of every token it signs.
    """

    __slots__ = ("_private", "alg", "header", "kid", "public", "sign")

    def __init__(self, private: _Private) -> None:
        self._private = private
        self.public = _jwk(private)
        self.alg: Alg
        # 64 bytes: r || s (RFC 7518 section 3.4) or an Ed25519 signature
        self.sign: Callable[[bytes], bytes]
        if isinstance(private, ed25519.Ed25519PrivateKey):
            self.alg = "EdDSA"
            self.sign = private.sign
        else:
            self.alg = "ES256"
            self.sign = lambda data: raw_signature(private.sign(data, _ES256))
        self.kid = thumbprint(self.public)
        self.header = header_segment(self.alg, self.kid)

    @classmethod
    def generate(cls, alg: Alg = "ES256") -> SigningKey:
        """A new random key.

        Raises:
            ConfigError: another `alg`.
        """
        if alg not in ALGS:
            raise ConfigError("alg", alg, " or ".join(ALGS))
        return cls(
            ec.generate_private_key(ec.SECP256R1())
            if alg == "ES256"
            else ed25519.Ed25519PrivateKey.generate()
        )

    @classmethod
    def from_pkcs8(cls, der: bytes) -> SigningKey:
        """A key from what `pkcs8` returned.

        Raises:
            KeyRefused: another kind of key. ValueError: no key.
        """
        private = load_der_private_key(der, password=None)
        if isinstance(private, ed25519.Ed25519PrivateKey) or (
            isinstance(private, ec.EllipticCurvePrivateKey)
            and isinstance(private.curve, ec.SECP256R1)
        ):
            return cls(private)
        raise KeyRefused(
            f"signing key: got {type(private).__name__}, expected P-256 or Ed25519"
        )

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """A key as unencrypted PEM.

        Raises:
            KeyRefused: something else.
        """
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise KeyRefused(
                "signing key: expected an unencrypted private key as PEM"
            ) from None
        return cls.from_pkcs8(
            private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        )

    def pem(self) -> bytes:
        """The secret: the private key as unencrypted PEM."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def pkcs8(self) -> bytes:
        """The secret: the private key as unencrypted DER."""
        return self._private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def public_jwk(self) -> dict[str, str]:
        """What the key set publishes: kty, crv, coordinates, kid, alg, use."""
        return {**self.public, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<SigningKey {self.alg} {self.kid}>"


def sign_jwt(key: SigningKey, claims: Mapping[str, Any]) -> str:
    """A JWT with a fresh `jti`, which is no call token."""
    header = b64url(orjson.dumps({"alg": key.alg, "kid": key.kid, "typ": "JWT"}))
    said = b64url(orjson.dumps({**claims, "jti": secrets.token_urlsafe(16)}))
    return compact(header, said, key.sign)


class RunKey:
    """The key of one run, or of a caller over HTTP (P-256): proves possession of its tokens by
    DPoP. Never leaves its process.

    Attributes:
        jkt: RFC 7638 thumbprint; a token's `cnf.jkt`.
    """

    __slots__ = ("_header", "_sign", "jkt")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        key = SigningKey(private)
        self._sign = key.sign
        self.jkt = key.kid
        said = {"typ": PROOF_TYPE, "alg": "ES256", "jwk": key.public}
        self._header = b64url(orjson.dumps(said))

    @classmethod
    def generate(cls) -> RunKey:
        """A new random key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def proof_for(
        self, ath: str | None, *, method: str, url: str, now: float, nonce: str | None = None
    ) -> str:
        """A DPoP proof (RFC 9449 section 4.2) for the token whose hash is `ath`, sent with
        `method` to `url` at `now` (POSIX seconds).

        `ath` of None: a token is being requested. `nonce`: what the server gave, if it did.

        Raises:
            ValueError: `url` is not an absolute http(s) URL.
        """
        claims = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": target(url),
            "iat": int(now),
        }
        claims |= {
            name: value for name, value in (("ath", ath), ("nonce", nonce)) if value is not None
        }
        return compact(self._header, b64url(orjson.dumps(claims)), self._sign)

    def proof(self, method: str, url: str, token: str, now: float) -> str:
        """`proof_for` the text of a token."""
        ath = token_hash(token)
        del token  # a traceback with locals must not show it
        return self.proof_for(ath, method=method, url=url, now=now)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a run key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<RunKey {self.jkt}>"


# seconds between publishing a key and signing with it: longer than verifiers cache a key set
PUBLISH_AHEAD = 600.0
# seconds a key stays published after it stopped signing: longer than a token's life and the
# leeways
KEEP_RETIRED = 600.0
REFRESH = 5.0  # seconds after which a changed file is noticed
_FILE = "ring.json"
_MAX_MASKS = 4096  # tenants whose mask key is cached
# of P-256, FIPS 186-5 / SP 800-186 3.2.1.3
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@value_class
class _Entry:
    """A key and the time from which it signs (POSIX seconds); the next entry's start is its
    end.
    """

    key: SigningKey
    signs_from: float


@value_class
class _Contents:
    """What the file holds; entries by `signs_from`."""

    secret: bytes = field(repr=False)
    entries: tuple[_Entry, ...]

    @classmethod
    def new(cls, alg: Alg) -> _Contents:
        return cls(secrets.token_bytes(32), (_Entry(SigningKey.generate(alg), 0.0),))

    def dump(self) -> bytes:
        keys = [
            {"signs_from": e.signs_from, "pkcs8": base64.b64encode(e.key.pkcs8()).decode()}
            for e in self.entries
        ]
        return orjson.dumps(
            {
                "agentgate": "keys/v1",
                "secret": base64.b64encode(self.secret).decode(),
                "keys": keys,
            }
        )

    @classmethod
    def load(cls, data: bytes, file: Path) -> _Contents:
        """Read the file's bytes.

        Raises:
            KeyRefused: not what `dump` writes.
        """
        try:
            value = orjson.loads(data)
            secret = base64.b64decode(value["secret"], validate=True)
            entries = tuple(
                _Entry(
                    SigningKey.from_pkcs8(base64.b64decode(k["pkcs8"], validate=True)),
                    float(k["signs_from"]),
                )
                for k in value["keys"]
            )
            known = value["agentgate"] == "keys/v1"
        except (ValueError, KeyError, TypeError) as error:
            raise KeyRefused(
                f"{file}: unreadable ({type(error).__name__}), expected the key file agentgate wrote"
            ) from None
        if (
            not known
            or len(secret) != 32
            or not entries
            or list(entries) != sorted(entries, key=lambda e: e.signs_from)
        ):
            raise KeyRefused(f"{file}: incomplete, expected the key file agentgate wrote")
        return cls(secret, entries)

    def published(self, now: float) -> list[_Entry]:
        """Entries whose successor has not been signing for `KEEP_RETIRED` seconds."""
        return [
            entry
            for entry, successor in pairwise(self.entries)
            if successor.signs_from + KEEP_RETIRED > now
        ] + [self.entries[-1]]

    def derive(self, length: int, *info: str) -> bytes:
        """HKDF-SHA256 (RFC 5869) of the secret, for a purpose and names."""
        return HKDF(
            algorithm=SHA256(), length=length, salt=None, info=orjson.dumps(info)
        ).derive(self.secret)


_NOTHING = _Contents(b"", ())


def _check_private(path: Path, *, directory: bool) -> os.stat_result:
    status = path.lstat()
    kind = stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode)
    if not kind or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        expected = (
            "a directory of this user with mode 0700"
            if directory
            else "a file of this user with mode 0600"
        )
        raise KeyRefused(
            f"{path}: got mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}; "
            f"expected {expected}"
        )
    return status


class KeyRing:
    """Signing keys and the run-key secret, in a directory or (ephemeral) in this process
    only.
    """

    def __init__(self, contents: _Contents, path: Path | None) -> None:
        self._contents = contents
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._masks: dict[tuple[bytes, str], hmac.HMAC] = {}  # which has its key already
        self._looked = time.monotonic()

    @classmethod
    def ephemeral(cls, alg: Alg = "ES256") -> KeyRing:
        """A ring that ends with the process; its tokens are worthless afterwards.

        Raises:
            ConfigError: another `alg`.
        """
        return cls(_Contents.new(alg), None)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        alg: Alg = "ES256",
        clock: Callable[[], float] = time.time,
    ) -> KeyRing:
        """Open a key directory; if it does not exist, create it with its first key.

        When its newest key has another algorithm, a key of `alg` is added as by `rotate`.

        Args:
            path: the directory.
            alg: ES256 or EdDSA.
            clock: POSIX seconds; read only when a key is added.

        Raises:
            ConfigError: another `alg`.
            KeyRefused: readable by others, owned by another user, or unreadable.
        """
        if alg not in ALGS:
            raise ConfigError("alg", alg, " or ".join(ALGS))
        ring = cls(_NOTHING, Path(path))
        ring._load(Path(path), alg)
        if ring._contents.entries[-1].key.alg != alg:
            ring._add(alg, clock())
        return ring

    @classmethod
    def existing(cls, path: str | os.PathLike[str]) -> KeyRing:
        """Open a key directory as it is; nothing is created.

        Raises:
            KeyRefused: missing, readable by others, owned by another user, or unreadable.
        """
        ring = cls(_NOTHING, Path(path))
        ring._load(Path(path), None)
        return ring

    def signer(self, now: float) -> SigningKey:
        """The key that signs at `now` (POSIX seconds).

        Raises:
            KeyRefused: no key signs yet, or the key file can no longer be read.
        """
        self._refresh()
        for entry in reversed(self._contents.entries):
            if entry.signs_from <= now:
                return entry.key
        raise KeyRefused("key ring: no key signs yet at this time; check the clock")

    def jwks(self, now: float) -> dict[str, list[dict[str, str]]]:
        """The key set to publish at `now`: keys that will sign, that sign, or that signed
        tokens which may not have expired.
        """
        self._refresh()
        return {"keys": [entry.key.public_jwk() for entry in self._contents.published(now)]}

    def rotate(self, now: float) -> SigningKey:
        """Add a key: published at once, signing after `PUBLISH_AHEAD` seconds. Keys whose
        tokens have all expired are deleted.

        Raises:
            KeyRefused: the key directory cannot be written.
        """
        return self._add(self._contents.entries[-1].key.alg, now)

    def withdraw(self, kid: str, now: float) -> SigningKey:
        """Take back a key that leaked: it is published and signs no more; its tokens are
        refused wherever the key set is read again.

        The next key signs at once, announced or not; without a next one a new key does.

        Args:
            kid: of a key that signs, will sign, or is still published.
            now: POSIX seconds.

        Returns:
            The key that signs now.

        Raises:
            KeyRefused: there is no such key, or the key directory cannot be written.
        """
        try:
            with self._locked() as handle:
                self._read()
                left = [entry for entry in self._contents.entries if entry.key.kid != kid]
                if len(left) == len(self._contents.entries):
                    raise KeyRefused(
                        f"kid: got {kid}, expected one of "
                        f"{', '.join(e.key.kid for e in self._contents.entries)}"
                    )
                if not left:
                    left = [
                        _Entry(SigningKey.generate(self._contents.entries[-1].key.alg), now)
                    ]
                if left[0].signs_from > now:
                    left[0] = _Entry(left[0].key, now)
                self._write(_Contents(self._contents.secret, tuple(left)), handle)
        except OSError as error:
            raise KeyRefused(
                f"{self._path}: {error.strerror}, expected a directory that this user can write"
            ) from error
        return self.signer(now)

    def run_key(self, tenant: str, run: str) -> RunKey:
        """The key of a run, the same in every gate with this ring: derived, then reduced to a
        candidate as in FIPS 186-5 A.2.1.
        """
        self._refresh()
        candidate = int.from_bytes(
            self._contents.derive(48, "agentgate run key v1", tenant, run)
        )
        return RunKey(ec.derive_private_key(candidate % (_ORDER - 1) + 1, ec.SECP256R1()))

    def masked(self, tenant: str, value: bytes) -> str:
        """A value that a log may not hold, as HMAC-SHA256 (RFC 2104, 128 bits in hex) under a
        key of the tenant; equal values are equal.

        Without the ring a guess cannot be tested against it, and values of different tenants
        cannot be compared.
        """
        contents = self._contents
        keyed = self._masks.get((contents.secret, tenant))
        if keyed is None:
            if len(self._masks) >= _MAX_MASKS:
                self._masks.clear()
            keyed = self._masks[contents.secret, tenant] = hmac.new(
                contents.derive(32, "agentgate mask key v1", tenant), digestmod="sha256"
            )
        mac = keyed.copy()
        mac.update(value)
        return mac.hexdigest()[:32]

    def seal(self, tenant: str, value: bytes) -> str:
        """An HMAC-SHA256 (hex) that only this ring makes over what a gate wrote into a store,
        under a key of the tenant of its own.
        """
        return hmac.digest(
            self._contents.derive(32, "agentgate seal key v1", tenant), value, "sha256"
        ).hex()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key ring is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<KeyRing {self._path or 'ephemeral'}: {len(self._contents.entries)} keys>"

    def _load(self, folder: Path, create: Alg | None) -> None:
        try:
            if create:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(folder, directory=True)
            with self._locked() as handle:
                if create and not (folder / _FILE).exists():
                    self._write(_Contents.new(create), handle)
                self._read()
        except OSError as error:
            expected = (
                "a directory that this user can write"
                if create
                else "a key directory (a gate opened with keys= makes it)"
            )
            raise KeyRefused(f"{folder}: {error.strerror}, expected {expected}") from error

    def _add(self, alg: Alg, now: float) -> SigningKey:
        key = SigningKey.generate(alg)
        try:
            with self._locked() as handle:
                self._read()
                start = max(now + PUBLISH_AHEAD, self._contents.entries[-1].signs_from + 1.0)
                self._write(
                    _Contents(
                        self._contents.secret,
                        (*self._contents.published(now), _Entry(key, start)),
                    ),
                    handle,
                )
        except OSError as error:
            raise KeyRefused(
                f"{self._path}: {error.strerror}, expected a directory that this user can write"
            ) from error
        return key

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """One writer at a time, between threads and between processes; the open directory (-1:
        in this process only).
        """
        with self._lock:
            if self._path is None:
                yield -1
                return
            handle = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield handle
            finally:
                os.close(handle)

    def _write(self, contents: _Contents, directory: int) -> None:
        if self._path is not None:
            draft = self._path / f".{_FILE}.{secrets.token_hex(8)}"
            with os.fdopen(
                os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600),
                "wb",
            ) as out:
                out.write(contents.dump())
                out.flush()
                os.fsync(out.fileno())
            draft.replace(self._path / _FILE)
            os.fsync(directory)
        self._contents = contents

    def _read(self) -> None:
        if self._path is None:
            return
        file = self._path / _FILE
        status = _check_private(file, directory=False)
        if (status.st_ino, status.st_mtime_ns) != self._seen:
            self._contents = _Contents.load(read_regular(file, forbidden=0o077), file)
            self._seen = (status.st_ino, status.st_mtime_ns)

    def _refresh(self) -> None:
        """Notice another process's rotation."""
        if self._path is None or time.monotonic() - self._looked < REFRESH:
            return
        with self._lock:
            try:
                _check_private(self._path, directory=True)
                self._read()
            except OSError as error:
                raise KeyRefused(
                    f"{self._path}: {error.strerror}, expected the key file"
                ) from error
            self._looked = time.monotonic()
