"""SSH signatures of files (OpenSSH PROTOCOL.sshsig): verified in this process, made here or by
``ssh-keygen -Y sign``; the public keys that make them, and their wire encoding (RFC 4251
section 5), of which every byte is accounted for.

Rules for signatures: one namespace per kind of document, so that no signature is valid for
another kind; version 1, sha256 or sha512, nothing reserved; one armoured block with nothing
around it, canonical base64. Verification never starts a program.

Rules for keys: Ed25519, ECDSA on the NIST curves, and both kinds of FIDO key. RSA and DSA are
refused (a signature's hash would be a choice), and so are small-order and off-curve points; a
FIDO signature counts only with the user-present bit (PROTOCOL.u2f). Two encodings of one point
are the same `material`, which is what thresholds count.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agentgate.errors import KeyRefused
from agentgate.token.jws import PublicKey as JwsKey
from agentgate.token.jws import b64url
from agentgate.values.answers import ANSWER_NAMESPACE
from agentgate.values.value_class import value_class

MAX_STRING = 16 * 1024


def string(data: bytes) -> bytes:
    """A `string`: four bytes of length, then the bytes."""
    return len(data).to_bytes(4) + data


def mpint(number: int) -> bytes:
    """A positive `mpint`: the shortest two's complement form."""
    return string(number.to_bytes(number.bit_length() // 8 + 1))


class WireReader:
    """Reads one blob from its start; a short, long or non-canonical encoding is KeyRefused."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if size > MAX_STRING or end > len(self._data):
            raise KeyRefused(
                f"{self._what}: {field}: got {len(self._data) - self._at} bytes, expected "
                f"{min(size, MAX_STRING + 1)}"
            )
        out = self._data[self._at : end]
        self._at = end
        return out

    def uint32(self, field: str) -> int:
        """A `uint32`."""
        return int.from_bytes(self.take(4, field))

    def string(self, field: str) -> bytes:
        """A `string`."""
        return self.take(self.uint32(field), field)

    def text(self, field: str) -> str:
        """A `string` that is printable ASCII."""
        data = self.string(field)
        if not data.isascii() or not data.decode("ascii").isprintable():
            raise KeyRefused(
                f"{self._what}: {field}: got {data[:40]!r}, expected printable ASCII"
            )
        return data.decode("ascii")

    def mpint(self, field: str) -> int:
        """An `mpint` above zero, in its shortest form."""
        data = self.string(field)
        number = int.from_bytes(data)
        if not data or data[0] & 0x80 or number == 0 or string(data) != mpint(number):
            raise KeyRefused(
                f"{self._what}: {field}: got a number that is not positive or not in "
                "shortest form, expected an mpint"
            )
        return number

    def end(self) -> None:
        """Check that nothing follows."""
        if self._at != len(self._data):
            raise KeyRefused(
                f"{self._what}: got {len(self._data) - self._at} bytes after its end, expected none"
            )


_ED = "ssh-ed25519"
_SK_ED = "sk-ssh-ed25519@openssh.com"
_SK_EC = "sk-ecdsa-sha2-nistp256@openssh.com"
CURVES: dict[str, tuple[str, ec.EllipticCurve, HashAlgorithm]] = {
    "ecdsa-sha2-nistp256": ("nistp256", ec.SECP256R1(), SHA256()),
    "ecdsa-sha2-nistp384": ("nistp384", ec.SECP384R1(), SHA384()),
    "ecdsa-sha2-nistp521": ("nistp521", ec.SECP521R1(), SHA512()),
    _SK_EC: ("nistp256", ec.SECP256R1(), SHA256()),
}
KINDS = (_ED, *CURVES, _SK_ED)
_TOUCHED = 0x01  # flag "user present", PROTOCOL.u2f
_EXPECTED = (
    "ssh-ed25519, ecdsa-sha2-nistp256/384/521 or their sk- forms (RSA and DSA are refused)"
)


@value_class
class SshKey:
    """One public key. Build with `SshKey.parse` or `SshKey.from_line`.

    Attributes:
        blob: its SSH encoding.
        kind: algorithm name, one of `KINDS`.
        fingerprint: ``SHA256:...`` as ssh-keygen prints it.
        material: the point itself, without its encoding; equal for two names of one key.
        application: the application of a FIDO key (``ssh:``); empty for others.
    """

    blob: bytes
    kind: str
    fingerprint: str
    material: bytes
    application: str
    _key: Ed25519PublicKey | ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    @classmethod
    def parse(cls, blob: bytes) -> SshKey:
        """Read an encoded public key. Raises KeyRefused: another kind, malformed, off the
        curve, or of small order.
        """
        return _parse(bytes(blob))

    @classmethod
    def from_line(cls, text: str) -> SshKey:
        """Read a line of a ``.pub`` file: kind, base64, and an optional comment.

        Raises KeyRefused: as `parse`; or the line names another kind than the key is.
        """
        parts = text.split(None, 2)
        if len(parts) < 2:
            raise KeyRefused(
                "public key: got one word, expected a kind and base64, as in a .pub file"
            )
        return from_words(*parts[:2])

    @property
    def line(self) -> str:
        """Kind and base64, as a ``.pub`` file has them."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check an encoded SSH signature over `data`.

        Raises KeyRefused: malformed, of another algorithm, without the touch of a FIDO key, or
        not this key's.
        """
        reader = WireReader(signature, "signature")
        kind = reader.text("algorithm")
        if kind != self.kind:
            raise KeyRefused(f"signature: algorithm: got {kind!r}, expected {self.kind}")
        body = reader.string("bytes")
        if self.application:
            flags = reader.take(1, "flags")
            counter = reader.take(4, "counter")
            if not flags[0] & _TOUCHED:
                raise KeyRefused(
                    f"signature: flags: got {flags[0]:#04x}, expected the user-present bit "
                    "(somebody touched the key)"
                )
            data = (
                hashlib.sha256(self.application.encode()).digest()
                + flags
                + counter
                + hashlib.sha256(data).digest()
            )
        reader.end()
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(body, data)
            else:
                inner = WireReader(body, "signature")
                r = inner.mpint("r")
                s = inner.mpint("s")
                inner.end()
                self._key.verify(encode_dss_signature(r, s), data, ec.ECDSA(CURVES[kind][2]))
        except InvalidSignature:
            raise KeyRefused(
                f"a signature that is not by {self.fingerprint} over this file"
            ) from None


def from_words(kind: str, text: str) -> SshKey:
    """A key from the two words of a line. Raises KeyRefused."""
    try:
        blob = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise KeyRefused(
            "public key: got something that is not base64, expected the second word of a .pub file"
        ) from None
    if base64.b64encode(blob).decode() != text:
        raise KeyRefused(
            "public key: got base64 in another form than its shortest, expected the second "
            "word of a .pub file"
        )
    key = _parse(blob)
    if key.kind != kind:
        raise KeyRefused(
            f"public key: got a line that says {kind} around a key of kind {key.kind}, expected the same"
        )
    return key


@lru_cache(maxsize=4096)
def _parse(blob: bytes) -> SshKey:
    reader = WireReader(blob, "public key")
    kind = reader.text("kind")
    application = ""
    key: Ed25519PublicKey | ec.EllipticCurvePublicKey
    if kind in {_ED, _SK_ED}:
        point = reader.string("point")
        material = b"ed25519" + point
        if len(point) != 32:
            raise KeyRefused(f"public key: point: got {len(point)} bytes, expected 32")
        # refuses small order (pyca does not)
        JwsKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(point).decode()})
        key = Ed25519PublicKey.from_public_bytes(point)
    elif kind in CURVES:
        name, curve, _ = CURVES[kind]
        got = reader.text("curve")
        if got != name:
            raise KeyRefused(f"public key: curve: got {got!r}, expected {name}")
        point = reader.string("point")
        material = name.encode() + point
        wrong = KeyRefused(
            f"public key: point: got one that is not on {name} or not uncompressed, expected "
            "an uncompressed point"
        )
        if point[:1] != b"\x04":
            raise wrong
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        except ValueError:
            raise wrong from None
    else:
        raise KeyRefused(f"public key: got kind {kind[:60]!r}, expected {_EXPECTED}")
    if kind in {_SK_ED, _SK_EC}:
        application = reader.text("application")
        if not application:
            raise KeyRefused("public key: application: got nothing, expected such as ssh:")
    reader.end()
    fingerprint = (
        f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"
    )
    return SshKey(blob, kind, fingerprint, material, application, key)


def encode(key: Ed25519PublicKey | ec.EllipticCurvePublicKey) -> SshKey:
    """The SSH form of a pyca key. Raises KeyRefused for another curve."""
    try:
        return SshKey.from_line(
            key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        )
    except ValueError as error:
        raise KeyRefused(
            f"public key: curve: got {error}, expected nistp256, nistp384 or nistp521"
        ) from None


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
    key = encode(private.public_key())
    data = _signed(message, namespace, "sha512")
    if isinstance(private, Ed25519PrivateKey):
        body = private.sign(data)
    else:
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(CURVES[key.kind][2])))
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
