"""Private keys that sign: the gate's for call tokens, each run's and each caller's for proofs
of possession. One algorithm per key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NoReturn

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
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
        alg: ES256 or EdDSA.
        header: encoded header segment of every token it signs.
    """

    __slots__ = ("_private", "_public", "alg", "header", "kid", "sign")

    def __init__(self, private: _Private) -> None:
        self._private = private
        self._public = _jwk(private)
        self.alg: Alg
        # 64 bytes: r || s (RFC 7518 section 3.4) or an Ed25519 signature
        self.sign: Callable[[bytes], bytes]
        if isinstance(private, ed25519.Ed25519PrivateKey):
            self.alg = "EdDSA"
            self.sign = private.sign
        else:
            self.alg = "ES256"
            self.sign = lambda data: raw_signature(private.sign(data, _ES256))
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
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return cls(private)
        if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(
            private.curve, ec.SECP256R1
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
        return {**self._public, "kid": self.kid, "alg": self.alg, "use": "sig"}

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<SigningKey {self.alg} {self.kid}>"


class RunKey:
    """The key of one run, or of a caller over HTTP (P-256): proves possession of its tokens by
    DPoP. Never leaves its process.

    Attributes:
        jkt: RFC 7638 thumbprint; a token's `cnf.jkt`.
    """

    __slots__ = ("_header", "_private", "jkt")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        jwk = _jwk(private)
        self._private = private
        self.jkt = thumbprint(jwk)
        self._header = b64url(orjson.dumps({"typ": PROOF_TYPE, "alg": "ES256", "jwk": jwk}))

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
        return compact(
            self._header,
            orjson.dumps(claims),
            lambda data: raw_signature(self._private.sign(data, _ES256)),
        )

    def proof(self, method: str, url: str, token: str, now: float) -> str:
        """`proof_for` the text of a token."""
        ath = token_hash(token)
        del token  # a traceback with locals must not show it
        return self.proof_for(ath, method=method, url=url, now=now)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a run key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<RunKey {self.jkt}>"
