"""Public SSH keys: Ed25519, ECDSA on the NIST curves, and both kinds of FIDO key. Everything
else is refused.

Rules: RSA and DSA are refused (a signature's hash would be a choice); small-order and off-curve
points are refused; a FIDO signature counts only with the user-present bit (PROTOCOL.u2f). Two
encodings of one point are the same `material`, which is what thresholds count.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agentgate.approvals._wire import WireReader
from agentgate.errors import KeyRefused
from agentgate.token.jws import PublicKey as JwsKey
from agentgate.token.jws import b64url
from agentgate.values.value_class import value_class

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
                f"signature: got one that is not by {self.fingerprint} over this file, expected its own"
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
