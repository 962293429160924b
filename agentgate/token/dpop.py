"""DPoP proofs (RFC 9449): the sender of a token holds the key that the token names in
`cnf.jkt`.

Rules: `check_proof` runs the checks of section 4.3 in its order; ES256 and Ed25519 only; a
proof sent with a token names it by `ath`. A proof's own `jti` is not remembered: at a tool the
token is single-use, and `ath` binds the proof to it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import orjson

from agentgate.errors import KeyRefused, Refusal, TokenRefused
from agentgate.token.jws import PublicKey, b64url, split, thumbprint, unb64url
from agentgate.values.canonical import strict_parse
from agentgate.values.value_class import value_class

MAX_PROOF = 4096  # characters
MAX_AGE = 60  # seconds a proof may be old
LEEWAY = 5  # seconds of clock difference
PROOF_TYPE = "dpop+jwt"
_HEADER = {"typ", "alg", "jwk"}
# alg -> kty, crv, coordinates
_KINDS = {"ES256": ("EC", "P-256", ("x", "y")), "EdDSA": ("OKP", "Ed25519", ("x",))}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@value_class
class DPoP:
    """A proof as received, and the request it came with.

    Attributes:
        header: value of the only ``DPoP`` header.
        method: HTTP method of the request, as received.
        url: the request's absolute URL by this server's own configuration, never from the
            proof; query and fragment do not count.
        nonce: what this server gave, which the proof must name; None: it gives none.
    """

    header: str = field(repr=False)
    method: str
    url: str
    nonce: str | None = None


def token_hash(token: str) -> str:
    """`ath`: base64url SHA-256 of the access token (RFC 9449 section 4.2)."""
    return b64url(hashlib.sha256(token.encode("ascii")).digest()).decode()


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


@lru_cache(maxsize=1024)
def target(url: str) -> str:
    """The `htu` of a URL: no query or fragment, scheme and host in lower case, no default port,
    escapes normalised.

    RFC 9449 section 4.3 requires RFC 3986 section 6.2.2 and 6.2.3. Dot segments are not
    resolved: such a URL only equals itself.

    Raises:
        ValueError: not an absolute http(s) URL, or one with user information.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = parts.hostname
    if (
        scheme not in _DEFAULT_PORTS
        or not host
        or "@" in parts.netloc
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise ValueError("expected an absolute http(s) URL without user information")
    port = "" if parts.port in (None, _DEFAULT_PORTS[scheme]) else f":{parts.port}"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{port}{_ESCAPE.sub(_escape, parts.path or '/')}"


def _object(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object of a part. Clients may format it as they like, but no key may occur
    twice.
    """
    try:
        value = orjson.loads(data)
        if orjson.dumps(value) != data:
            value = strict_parse(data)
    except (ValueError, TypeError):
        raise _refused(name, "something else", "a JSON object without duplicate keys") from None
    if type(value) is not dict:
        raise _refused(name, type(value).__name__, "a JSON object")
    return value


def _refused(field_name: str, got: str, expected: str) -> TokenRefused:
    return TokenRefused(Refusal.PROOF, f"proof.{field_name}", got, expected)


@lru_cache(maxsize=1024)
def _header_jwk(segment: bytes, typ: str = PROOF_TYPE) -> tuple[dict[str, Any], str]:
    """Checks 4, 5 and 7 of section 4.3: typ, alg, public jwk. Returns the jwk and its
    thumbprint; no key is loaded yet.
    """
    try:
        header = _object(unb64url(segment), "header")
    except ValueError:
        raise _refused("header", "another encoding", "canonical base64url") from None
    if header.keys() != _HEADER:
        raise _refused("header", "missing or further members", "typ, alg and jwk, nothing else")
    if header["typ"] != typ:
        raise _refused("typ", "another type", typ)
    jwk = header["jwk"]
    if type(jwk) is not dict or type(header["alg"]) is not str or header["alg"] not in _KINDS:
        raise _refused("alg", "another algorithm or no key", "ES256 or EdDSA, with its jwk")
    kty, crv, coordinates = _KINDS[header["alg"]]
    if (
        jwk.get("kty") != kty
        or jwk.get("crv") != crv
        or any(type(jwk.get(name)) is not str for name in coordinates)
    ):
        raise _refused("jwk", "another key", f"a public {crv} key")
    try:
        return jwk, thumbprint(jwk)
    except TypeError:  # unpaired surrogates
        raise _refused("jwk", "text that is not Unicode", f"a public {crv} key") from None


@lru_cache(maxsize=1024)
def _header_key(segment: bytes, typ: str = PROOF_TYPE) -> PublicKey:
    try:
        return PublicKey.from_jwk(_header_jwk(segment, typ)[0])
    except KeyRefused as error:
        raise _refused("jwk", "an unusable key", str(error)) from None


def signed_by_shown_key(text: str, typ: str) -> tuple[str, dict[str, Any]]:
    """The thumbprint of the key that a JWS of this type shows in its header and is signed with,
    and its claims.

    Raises:
        TokenRefused: `PROOF`.
    """
    try:
        parts = split(text, MAX_PROOF)
    except TokenRefused as error:
        raise _refused("header", error.got, error.expected) from None
    _, shown = _header_jwk(parts.header, typ)
    if not _header_key(parts.header, typ).verify(parts.signature, parts.signed):
        raise _refused("signature", "no match", "a signature by the key it shows")
    return shown, _object(parts.unverified_payload, "payload")


def check_proof(
    proof: DPoP,
    now: float,
    *,
    jkt: str | None,
    ath: str | None,
    max_age: int = MAX_AGE,
    leeway: int = LEEWAY,
) -> str:
    """Check a proof by RFC 9449 section 4.3, in its order (numbers in the comments). Returns
    the RFC 7638 thumbprint of the proof's key.

    Args:
        proof: the proof and the request.
        now: POSIX seconds.
        jkt: thumbprint the key must have (a token's `cnf.jkt`); None: any key (a token is being
            requested).
        ath: hash of the token sent with the proof (`token_hash`); None: there is none, and the
            proof must not name one.
        max_age: seconds.
        leeway: seconds.

    Raises:
        TokenRefused: `PROOF`.
    """
    try:
        parts = split(proof.header, MAX_PROOF)  # (1) one header, (2) one well-formed JWT
    except TokenRefused as error:
        raise _refused("header", error.got, error.expected) from None
    _, shown = _header_jwk(parts.header)  # (4) typ, (5) alg, (7) a public key
    if jkt is not None and shown != jkt:  # (12b) before the cost of loading a stranger's key
        raise _refused("jwk", "another key than the token's", f"the key {jkt}")
    # (6), (7) no private member
    if not _header_key(parts.header).verify(parts.signature, parts.signed):
        raise _refused("signature", "no match", "a signature by the key it shows")
    claims = _object(parts.unverified_payload, "payload")
    for name in ("jti", "htm", "htu"):  # (3)
        if type(claims.get(name)) is not str or not 0 < len(claims[name]) <= 2048:
            raise _refused(name, "missing or not text", "text")
    if claims["htm"] != proof.method:  # (8)
        raise _refused("htm", "another method", "the request's method")
    try:
        same = target(claims["htu"]) == target(proof.url)  # (9)
    except ValueError:
        same = False
    if not same:
        raise _refused("htu", "another URL", "the request's URL without query and fragment")
    if claims.get("nonce") != proof.nonce:  # (10)
        raise _refused(
            "nonce",
            "another nonce or none",
            "the nonce this server gave" if proof.nonce else "none",
        )
    iat = claims.get("iat")
    if type(iat) is not int or not now - max_age - leeway <= iat <= now + leeway:  # (11)
        raise _refused(
            "iat",
            str(iat)[:24] if type(iat) is int else "missing or not an integer",
            f"at most {max_age} s old",
        )
    if claims.get("ath") != ath:  # (12a)
        raise _refused(
            "ath", "another token or none", "the token that came along" if ath else "none"
        )
    return shown
