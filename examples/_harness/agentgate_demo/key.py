"""Keys of the founding cases' issuers and callers, by PyJWT as any client would: tokens, proofs, and key sets over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa


class Key:
    """A private key of an issuer or a caller: signs tokens, and proves itself (DPoP, RFC 9449)."""

    def __init__(self, kid: str, alg: str = "ES256") -> None:
        self.kid, self.alg = kid, alg
        self._private: Any = rsa.generate_private_key(65537, 2048) if alg == "RS256" else ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        public = jwt.get_algorithm_by_name(self.alg).to_jwk(self._private.public_key(), as_dict=True)
        return {**{name: value for name, value in public.items() if name != "key_ops"}, "kid": self.kid, "alg": self.alg}

    @property
    def thumbprint(self) -> str:
        """RFC 7638, of an EC key."""
        public = {name: self.jwk[name] for name in ("crv", "kty", "x", "y")}
        return _digest(json.dumps(public, separators=(",", ":")))

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A JWT of these claims, from now on for five minutes."""
        now = int(time.time())
        return self.sign_exactly({"iat": now, "exp": now + 300, "jti": secrets.token_urlsafe(12), **claims}, {"kid": self.kid, **header})

    def sign_exactly(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        """A JWT of these claims with this header."""
        return jwt.encode(dict(claims), self._private, self.alg, headers=dict(header))

    def proof(self, url: str, *, nonce: str = "", token: str = "") -> str:
        """A proof for one POST, of the token it is sent with."""
        claims: dict[str, Any] = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": secrets.token_urlsafe(12)}
        claims |= {"nonce": nonce} if nonce else {}
        claims |= {"ath": _digest(token)} if token else {}
        public = {name: self.jwk[name] for name in ("kty", "crv", "x", "y")}
        return self.sign_exactly(claims, {"typ": "dpop+jwt", "jwk": public})


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class KeySets:
    """What issuers publish: each key set at its own path of one HTTP server; `spire`: as a SPIFFE bundle.

    At ``/token`` a CI runner's jobs fetch their own tokens, as at GitHub: `jobs` maps what a job shows to what makes its token.
    """

    def __init__(self, keys: Mapping[str, Key]) -> None:
        published = {}
        self.jobs: dict[str, Callable[[str], str]] = {}
        jobs = self.jobs
        for name, key in keys.items():
            listed = {"keys": [{**key.jwk, "use": "jwt-svid" if name == "spire" else "sig"}]}
            published[f"/{name}"] = json.dumps(listed).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                job = jobs.get(self.headers.get("Authorization", "").removeprefix("bearer "))
                body = published.get(path)
                if path == "/token" and job is not None:
                    body = json.dumps({"value": job(parse_qs(query)["audience"][0])}).encode()
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Publish no more."""
        self._server.shutdown()
        self._server.server_close()
