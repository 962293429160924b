"""What only the auditor reads: the values of a call that a record hides, sealed to their public
key (HPKE, RFC 9180: X25519, ChaCha20).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from agentgate.errors import AgentGateError, KeyRefused
from agentgate.token.regular_file import read_regular
from agentgate.values.canonical import canonical, parse

_INFO = b"agentgate audit record v1"


def _suite() -> Any:
    from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 - not in every release that the rest works with

    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


def make_sealer(path: Path) -> Callable[[Mapping[str, Any]], str]:
    """What seals values to the public key in a PEM file (X25519).

    Raises:
        KeyRefused: it is no such key, or this release of cryptography has no HPKE.
    """
    try:
        key = load_pem_public_key(read_regular(path, links=True))
        suite = _suite()
    except (OSError, ValueError, ImportError) as error:
        raise KeyRefused(
            f"auditor: {path}: {error}; expected a public X25519 key as PEM"
        ) from error
    if not isinstance(key, X25519PublicKey):
        raise KeyRefused(
            f"auditor: {path}: got {type(key).__name__}, expected a public X25519 key"
        )
    return lambda values: b64encode(
        suite.encrypt(canonical(dict(values)), key, info=_INFO)
    ).decode()


def unseal_values(sealed: str, path: Path) -> Any:
    """The values again, with the auditor's private key.

    Raises:
        KeyRefused: it is another's, or the values were changed.
    """
    try:
        key = load_pem_private_key(read_regular(path, forbidden=0o077), password=None)
        if isinstance(key, X25519PrivateKey):
            return parse(_suite().decrypt(b64decode(sealed, validate=True), key, info=_INFO))
    except (
        OSError,
        ValueError,
        TypeError,
        InvalidTag,
        UnsupportedAlgorithm,
        AgentGateError,
    ) as error:
        raise KeyRefused(
            f"auditor key: {path}: {type(error).__name__}; expected the private key of what was sealed"
        ) from error
    raise KeyRefused(f"auditor key: {path}: got another kind, expected a private X25519 key")
