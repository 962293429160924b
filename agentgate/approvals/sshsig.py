"""SSH signatures of files (OpenSSH PROTOCOL.sshsig): verified in this process, made here or by
``ssh-keygen -Y sign``.

Rules: one namespace per kind of document, so that no signature is valid for another kind;
version 1, sha256 or sha512, nothing reserved; one armoured block with nothing around it,
canonical base64. Verification never starts a program.
"""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from agentgate.approvals import sshkey
from agentgate.approvals._wire import WireReader, mpint, string
from agentgate.approvals.sshkey import SshKey
from agentgate.errors import KeyRefused
from agentgate.values.answers import ANSWER_NAMESPACE

NAMESPACE = "agentgate-workflow"
ROOT_NAMESPACE = "agentgate-root"
INDEX_NAMESPACE = "agentgate-index"
RENEWAL_NAMESPACE = "agentgate-renewal"
REVOKED_NAMESPACE = "agentgate-revoked"
HOLD_NAMESPACE = ANSWER_NAMESPACE

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey

_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG"
_VERSION = 1
_MAX_ARMOUR = 8 * 1024
_LINE = re.compile(r"[A-Za-z0-9+/]{1,76}={0,2}", re.ASCII)
_HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}


def verify(armored: str, message: bytes, namespace: str) -> SshKey:
    """The key that signed `message` in exactly this namespace; the caller decides whose key
    that is.

    Raises KeyRefused: malformed, another version, hash or namespace, a kind of key that is
    refused, or not a signature over `message`.
    """
    reader = WireReader(_unarmoured(armored), "signature")
    if reader.take(len(_MAGIC), "magic") != _MAGIC:
        raise KeyRefused("signature: magic: got other bytes, expected SSHSIG")
    version = reader.uint32("version")
    if version != _VERSION:
        raise KeyRefused(f"signature: version: got {version}, expected {_VERSION}")
    key = SshKey.parse(reader.string("public key"))
    got = reader.text("namespace")
    if got != namespace:
        raise KeyRefused(f"signature: namespace: got {got[:60]!r}, expected '{namespace}'")
    if reader.string("reserved"):
        raise KeyRefused("signature: reserved: got bytes, expected none")
    hashed = reader.text("hash")
    if hashed not in _HASHES:
        raise KeyRefused(f"signature: hash: got {hashed[:20]!r}, expected sha256 or sha512")
    body = reader.string("signature")
    reader.end()
    key.verify(body, _signed(message, namespace, hashed))
    return key


def sign(private: PrivateKey, message: bytes, namespace: str) -> str:
    """An armoured signature by a key of this process (sha512, as ssh-keygen makes them). Raises
    KeyRefused: a curve without an SSH name.
    """
    key = sshkey.encode(private.public_key())
    data = _signed(message, namespace, "sha512")
    if isinstance(private, Ed25519PrivateKey):
        body = private.sign(data)
    else:
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(sshkey.CURVES[key.kind][2])))
        body = mpint(r) + mpint(s)
    inner = string(key.kind.encode()) + string(body)
    parts = (key.blob, namespace.encode(), b"", b"sha512", inner)
    return armour(_MAGIC + _VERSION.to_bytes(4) + b"".join(map(string, parts)))


def armour(blob: bytes) -> str:
    """A signature's bytes as the text of a ``.sig`` file."""
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join((_BEGIN, *lines, _END, ""))


def _signed(message: bytes, namespace: str, hashed: str) -> bytes:
    """The bytes that the key signs."""
    return (
        _MAGIC
        + string(namespace.encode())
        + string(b"")
        + string(hashed.encode())
        + string(_HASHES[hashed](message).digest())
    )


def _unarmoured(text: str) -> bytes:
    lines = text.removesuffix("\n").split("\n") if len(text) <= _MAX_ARMOUR else []
    lines = [line.removesuffix("\r") for line in lines]
    inner = lines[1:-1]
    if (
        len(lines) < 3
        or lines[0] != _BEGIN
        or lines[-1] != _END
        or not all(_LINE.fullmatch(line) for line in inner)
    ):
        raise KeyRefused(
            f"signature: armour: got something else, expected one block from {_BEGIN} to "
            f"{_END} of at most {_MAX_ARMOUR} bytes"
        )
    joined = "".join(inner)
    try:
        blob = base64.b64decode(joined, validate=True)
    except ValueError:
        raise KeyRefused(
            "signature: armour: got broken base64, expected what ssh-keygen -Y sign writes"
        ) from None
    if base64.b64encode(blob).decode() != joined:
        raise KeyRefused(
            "signature: armour: got base64 in another form than its shortest, expected what "
            "ssh-keygen -Y sign writes"
        )
    return blob
