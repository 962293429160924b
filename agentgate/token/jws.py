"""A strict codec for compact JWS (RFC 7515), two algorithms wide: ES256 and EdDSA with Ed25519.

Rules: three ASCII parts in canonical base64url (no padding, no stray bits, no other alphabet);
one key has one algorithm; the header selects the key and is trusted for nothing else; a key
that is private, off the curve, of small order or for another use is refused when it is loaded.
No `none`, no HMAC, no RSA, no `jku`, `x5u`, `jwk`, `crit`, `b64`, `zip`: a verifier compares
the whole encoded header with those of the keys it knows, so there is nothing to parse.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from agentgate.errors import KeyRefused, Refusal, TokenRefused

Alg = Literal["ES256", "EdDSA"]
ALGS: tuple[Alg, ...] = ("ES256", "EdDSA")
MAX_TOKEN = 8192  # characters; what servers accept as one header line
TYPE = "at+jwt"  # RFC 9068 section 2.1

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
# By how many characters a segment is longer than whole groups of four: the last ones whose
# unused bits are zero, and the padding.
_LAST = (frozenset[int](), frozenset[int](), frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))
_PADDING = (b"", b"", b"==", b"=")
_ES256 = ECDSA(SHA256())
# RFC 7518 sections 6.2.2, 6.3.2, 6.4.1
SECRET = frozenset("d p q dp dq qi oth k".split())
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def b64url(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515 section 2)."""
    out = binascii.b2a_base64(data, newline=False)
    if b"+" in out or b"/" in out:  # rare in JSON, and cheaper to look for than to translate
        out = out.translate(_TO_URL)
    return out.rstrip(b"=")


def unb64url(segment: bytes) -> bytes:
    """The bytes of a base64url segment.

    Raises:
        ValueError: anything but the one canonical encoding (padding, other alphabet, non-zero
            trailing bits).
    """
    if b"+" in segment or b"/" in segment or b"=" in segment:
        raise ValueError("not the base64url alphabet")
    left = len(segment) % 4
    if left and segment[-1] not in _LAST[left]:
        raise ValueError("a length that no bytes have, or trailing bits that are not zero")
    standard = segment.translate(_FROM_URL) if b"-" in segment or b"_" in segment else segment
    return binascii.a2b_base64(
        standard + _PADDING[left] if left else standard, strict_mode=True
    )


class Split(NamedTuple):
    """The parts of a compact JWS: the header still encoded, the rest decoded;
    `unverified_payload` proves nothing.
    """

    header: bytes
    unverified_payload: bytes
    signed: bytes
    signature: bytes


def split(text: str, maximum: int = MAX_TOKEN) -> Split:
    """Step 3: size, then exactly three non-empty parts; payload and signature in canonical
    base64url.

    Raises:
        TokenRefused: `SIZE` or `FORM`.
    """
    if type(text) is not str:
        raise TokenRefused(Refusal.FORM, "token", type(text).__name__, "text")
    if len(text) > maximum:
        raise TokenRefused(
            Refusal.SIZE, "token", f"{len(text)} characters", f"at most {maximum}"
        )
    if not text.isascii():
        raise TokenRefused(Refusal.FORM, "token", "characters outside ASCII", "base64url")
    data = text.encode()
    parts = data.split(b".")
    if len(parts) != 3 or not all(parts):
        raise TokenRefused(
            Refusal.FORM, "token", f"{len(parts)} parts, or an empty one", "three parts"
        )
    header, payload, signature = parts
    try:
        return Split(
            header, unb64url(payload), data[: -len(signature) - 1], unb64url(signature)
        )
    except ValueError:
        raise TokenRefused(
            Refusal.FORM,
            "token",
            "another encoding",
            "canonical base64url: no padding, no stray bits, no line break behind it",
        ) from None


def compact(header: bytes, payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    """The compact JWS of an encoded `header` segment and an encoded `payload`."""
    signed = header + b"." + payload
    return (signed + b"." + b64url(sign(signed))).decode()


def raw_signature(der: bytes) -> bytes:
    """The 64 bytes r || s of ES256 (RFC 7518 section 3.4) from pyca's DER; P-256 lengths fit
    one byte.
    """
    size = der[3]
    return der[4 : 4 + size][-32:].rjust(32, b"\0") + der[6 + size :][-32:].rjust(32, b"\0")


def _der_signature(raw: bytes) -> bytes:
    r = raw[:32].lstrip(b"\0") or b"\0"
    s = raw[32:].lstrip(b"\0") or b"\0"
    r = b"\0" + r if r[0] & 0x80 else r
    s = b"\0" + s if s[0] & 0x80 else s
    return bytes((0x30, len(r) + len(s) + 4, 2, len(r))) + r + bytes((2, len(s))) + s


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638 SHA-256 thumbprint of an EC or OKP key, base64url."""
    names = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    return b64url(
        hashlib.sha256(orjson.dumps({name: jwk[name] for name in names})).digest()
    ).decode()


def _small_order(encoded: bytes) -> bool:
    """True if the Ed25519 point is not a canonical point of the curve, or eight times it is the
    identity (RFC 8032 5.1.3).

    pyca loads such a key, and one signature then verifies for every message.
    """
    number = int.from_bytes(encoded, "little")
    y = number & (2**255 - 1)  # without the sign of x, which does not matter here
    if y >= _P:
        return True
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if x * x % _P != square:
        return True
    for _ in range(3):
        product = _D * x * x * y * y % _P
        x, y = (
            2 * x * y * pow(1 + product, -1, _P) % _P,
            (y * y + x * x) * pow(1 - product, -1, _P) % _P,
        )
    return x == 0 and y == 1


def _member(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if type(value) is not str:
        raise KeyRefused(
            f"key member '{name}': got {type(value).__name__}, expected base64url of 32 bytes"
        )
    try:
        data = unb64url(value.encode("ascii"))
    except ValueError:
        raise KeyRefused(f"key member '{name}': expected base64url of 32 bytes") from None
    if len(data) != 32:
        raise KeyRefused(f"key member '{name}': got {len(data)} bytes, expected 32")
    return data


class PublicKey:
    """One public key with its one algorithm. Build with `from_jwk`.

    Attributes:
        alg: ES256 or EdDSA.
        kid: RFC 7638 thumbprint (what `cnf.jkt` holds, too).
    """

    __slots__ = ("_verify", "alg", "kid")

    def __init__(self, key: EllipticCurvePublicKey | Ed25519PublicKey, kid: str) -> None:
        self._verify: Callable[[bytes, bytes], None]
        self.alg: Alg
        if isinstance(key, Ed25519PublicKey):
            self.alg = "EdDSA"
            self._verify = key.verify
        else:
            self.alg = "ES256"
            self._verify = lambda signature, data: key.verify(
                _der_signature(signature), data, _ES256
            )
        self.kid = kid

    @classmethod
    def from_jwk(cls, jwk: object) -> PublicKey:
        """Load a JWK (RFC 7517; unknown members are ignored, as it requires).

        Raises:
            KeyRefused: private or secret, not P-256 or Ed25519, for another `alg`, `use` or
                `key_ops`, off the curve, small order.
        """
        if not isinstance(jwk, Mapping) or SECRET & jwk.keys():
            raise KeyRefused("key: got a private or secret key, expected a public JWK")
        kind = (jwk.get("kty"), jwk.get("crv"))
        if kind not in (("EC", "P-256"), ("OKP", "Ed25519")):
            raise KeyRefused(f"key: got kty, crv {kind!r}, expected EC P-256 or OKP Ed25519")
        alg = "ES256" if kind[0] == "EC" else "EdDSA"
        if (
            jwk.get("alg", alg) != alg
            or jwk.get("use", "sig") != "sig"
            or jwk.get("key_ops", ["verify"]) != ["verify"]
        ):
            raise KeyRefused(
                f"key: got another alg, use or key_ops, expected {alg}, sig, verify"
            )
        x = _member(jwk, "x")
        if alg == "EdDSA":
            if _small_order(x):
                raise KeyRefused("key: got an Ed25519 point off the curve or of small order")
            return cls(Ed25519PublicKey.from_public_bytes(x), thumbprint(jwk))
        numbers = EllipticCurvePublicNumbers(
            int.from_bytes(x), int.from_bytes(_member(jwk, "y")), SECP256R1()
        )
        try:
            return cls(numbers.public_key(), thumbprint(jwk))
        except ValueError:
            raise KeyRefused("key: got a point off the curve P-256") from None

    def verify(self, signature: bytes, data: bytes) -> bool:
        """True if `signature` (64 bytes, r || s or Ed25519) is this key's over `data`."""
        if len(signature) != 64:
            return False
        try:
            self._verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"PublicKey({self.alg}, {self.kid})"


def header_segment(alg: Alg, kid: str) -> bytes:
    """The only header a call token may have: ``{"alg","kid","typ":"at+jwt"}``, encoded."""
    return b64url(orjson.dumps({"alg": alg, "kid": kid, "typ": TYPE}))


class PublicKeys(Mapping[bytes, PublicKey]):
    """Encoded header segment -> key: alg, typ and kid in one look-up. An empty set verifies
    nothing.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[bytes, PublicKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def from_jwks(cls, jwks: object) -> PublicKeys:
        """Load a JWK set (RFC 7517 section 5) in which every key has an `alg` and its
        thumbprint as `kid`.

        Raises:
            KeyRefused: not a JWK set; one of its keys is unusable; a `kid` is missing, wrong or
                not unique.
        """
        listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
        if not isinstance(listed, list | tuple):
            raise KeyRefused('key set: expected {"keys": [...]}')
        keys: dict[bytes, PublicKey] = {}
        for jwk in listed:
            key = PublicKey.from_jwk(jwk)
            if jwk.get("kid") != key.kid or "alg" not in jwk:
                raise KeyRefused(
                    f"key: got kid {str(jwk.get('kid'))[:64]!r}, expected alg and the "
                    f"thumbprint {key.kid!r} (RFC 7638)"
                )
            segment = header_segment(key.alg, key.kid)
            if segment in keys:
                raise KeyRefused(f"key {key.kid!r} is twice in the set")
            keys[segment] = key
        return cls(keys)

    def __getitem__(self, segment: bytes) -> PublicKey:
        return self._keys[segment]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def verify(text: str, keys: PublicKeys, maximum: int = MAX_TOKEN) -> bytes:
    """Steps 3 to 6: form, known header, key, signature. Returns the payload's bytes: authentic,
    but not yet judged.

    Raises:
        TokenRefused: `SIZE`, `FORM`, `NO_KEYS`, `HEADER` or `SIGNATURE`.
    """
    header, unverified_payload, signed, signature = split(text, maximum)  # (3)
    key = keys.get(header)  # (4) and (5)
    if key is None:
        if not keys:
            raise TokenRefused(Refusal.NO_KEYS, "keys", "none", "at least one public key")
        raise TokenRefused(
            Refusal.HEADER, "header", "one that no known key has", "a known key's header"
        )
    if not key.verify(signature, signed):  # (6)
        raise TokenRefused(
            Refusal.SIGNATURE, "signature", "no match", f"a signature by {key.kid}"
        )
    return unverified_payload
