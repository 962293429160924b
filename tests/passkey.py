"""A passkey in software, for tests: real keys and signatures, and bytes as an authenticator and a browser make them (WebAuthn Level 3)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from webauthn.helpers import encode_cbor

ORIGIN = "https://gate.example"
PRESENT, VERIFIED, NEW_KEY, EXTENSIONS = 0x01, 0x04, 0x40, 0x80


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)


class Passkey:
    """One credential. `count`: what its counter says; synchronised passkeys always say 0."""

    def __init__(self, alg: str = "ES256", rp_id: str = "gate.example", count: int = 0, bits: int = 2048) -> None:
        self.id, self.rp_id, self.count, self.alg = secrets.token_bytes(16), rp_id, count, alg
        self.private: Any = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
            "RS256": lambda: rsa.generate_private_key(65537, bits),
        }[alg]()

    @property
    def cose(self) -> dict[int, Any]:
        """The public key (RFC 9053)."""
        public = self.private.public_key()
        if self.alg == "EdDSA":
            return {1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()}
        numbers = public.public_numbers()
        if self.alg == "RS256":
            return {1: 3, 3: -257, -1: _number(numbers.n), -2: _number(numbers.e)}
        return {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}

    def row(self, user: str, *groups: str, tenants: tuple[str, ...] = ("acme",), **more: Any) -> dict[str, Any]:
        """Its row in the operator's file."""
        key = b64(encode_cbor(self.cose))
        return {"id": b64(self.id), "public_key": key, "user": user, "tenants": list(tenants), "groups": list(groups), **more}

    def sign(self, data: bytes) -> bytes:
        signature: bytes
        if self.alg == "EdDSA":
            signature = self.private.sign(data)
        elif self.alg == "RS256":
            signature = self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = self.private.sign(data, ec.ECDSA(hashes.SHA256()))
        return signature

    def data(self, flags: int = PRESENT | VERIFIED, rp_id: str | None = None, tail: bytes = b"") -> bytes:
        """Authenticator data (section 6.1)."""
        return hashlib.sha256((rp_id or self.rp_id).encode()).digest() + bytes([flags]) + self.count.to_bytes(4) + tail

    def signed(self, client_data: bytes, data: bytes = b"") -> bytes:
        """The signature over this client data (section 7.2, steps 19 and 20)."""
        return self.sign((data or self.data()) + hashlib.sha256(client_data).digest())

    def get(
        self, challenge: bytes, /, *, flags: int = PRESENT | VERIFIED, rp_id: str | None = None, tail: bytes = b"", **client: Any
    ) -> Any:
        """What `toJSON()` of `navigator.credentials.get` gives; `client`: members of the client data, None: without it."""
        said = {"type": "webauthn.get", "challenge": b64(challenge), "origin": ORIGIN, "crossOrigin": False, **client}
        signed = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
        data = self.data(flags, rp_id, tail)
        response = {
            "clientDataJSON": b64(signed),
            "authenticatorData": b64(data),
            "signature": b64(self.signed(signed, data)),
            "userHandle": b64(b"user"),
        }
        of = {"id": b64(self.id), "rawId": b64(self.id), "type": "public-key", "authenticatorAttachment": "platform"}
        return {**of, "clientExtensionResults": {}, "response": response}

    def attested(self, cose: dict[int, Any]) -> bytes:
        """Attested credential data (section 6.5.1) with this key."""
        return bytes(16) + len(self.id).to_bytes(2) + self.id + encode_cbor(cose)

    def create(self, challenge: bytes, /, *, flags: int = PRESENT | VERIFIED | NEW_KEY, rp_id: str | None = None, **client: Any) -> Any:
        """What `toJSON()` of `navigator.credentials.create` gives, without attestation."""
        said = {"type": "webauthn.create", "challenge": b64(challenge), "origin": ORIGIN, "crossOrigin": False, **client}
        attested = {"fmt": "none", "attStmt": {}, "authData": self.data(flags, rp_id, self.attested(self.cose))}
        response = {"clientDataJSON": b64(json.dumps(said).encode()), "attestationObject": b64(encode_cbor(attested))}
        return {"id": b64(self.id), "rawId": b64(self.id), "type": "public-key", "response": response}


def written(file: Path, *rows: dict[str, Any]) -> Path:
    """The operator's file with these rows, put in its place at once."""
    tables = ["\n".join(f"{name} = {json.dumps(value)}" for name, value in row.items()) for row in rows]
    beside = file.with_suffix(".new")
    beside.write_text("".join(f"[[passkeys]]\n{table}\n\n" for table in tables))
    return beside.replace(file)
