"""Issuers for tests: real keys, a real authorization server (authlib's) and key sets over real HTTP, all on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant, ResourceOwnerPasswordCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import KeySet as JoseKeySet
from joserfc.jwk import import_key

from agentgate.identity.proven import Proven
from agentgate.shell.step import Outside
from agentgate.values.answers import nonce_claim

GATE = "https://gate.acme.example"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unique() -> str:
    return b64(hashlib.sha256(str(time.monotonic_ns()).encode()).digest())


class Key:
    """A private key with its algorithm and name; signs what it is given, whatever that says."""

    def __init__(self, kid: str, alg: str = "ES256", bits: int = 2048) -> None:
        self.kid, self.alg = kid, alg
        self.private: Any = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
            "RS256": lambda: rsa.generate_private_key(65537, bits),
            "PS256": lambda: rsa.generate_private_key(65537, bits),
        }[alg]()

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        to_jwk = jwt.get_algorithm_by_name(self.alg).to_jwk
        made: dict[str, Any] = json.loads(to_jwk(self.private.public_key()))
        made.pop("key_ops", None)
        return {**made, "kid": self.kid, "alg": self.alg, "use": "sig"}

    @property
    def pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)  # type: ignore[no-any-return]  # bytes

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A JWT by PyJWT."""
        return jwt.encode(dict(claims), self.private, self.alg, headers={"kid": self.kid, **header})

    def sign_raw(self, header: Mapping[str, Any], payload: bytes | str) -> str:
        """A JWS over exactly these bytes, with exactly this header."""
        data = payload.encode() if isinstance(payload, str) else payload
        signed = f"{b64(json.dumps(header).encode())}.{b64(data)}"
        algorithm = jwt.get_algorithm_by_name(self.alg)
        return f"{signed}.{b64(algorithm.sign(signed.encode(), self.private))}"

    def proof(self, method: str, url: str, *, token: str | None = None, **more: Any) -> str:
        """A DPoP proof (RFC 9449)."""
        public = {name: value for name, value in self.jwk.items() if name in {"kty", "crv", "x", "y"}}
        claims = {
            "jti": unique(),
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
        }
        if token is not None:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        return jwt.encode({**claims, **more}, self.private, self.alg, headers={"typ": "dpop+jwt", "jwk": public})

    @property
    def thumbprint(self) -> str:
        """RFC 7638."""
        public = {name: value for name, value in self.jwk.items() if name in {"kty", "crv", "x", "y"}}
        return b64(hashlib.sha256(json.dumps(public, sort_keys=True, separators=(",", ":")).encode()).digest())


def jwks(*keys: Key, **more: Any) -> dict[str, Any]:
    return {"keys": [{**key.jwk, **more} for key in keys]}


def now() -> int:
    return int(time.time())


def claims_of(issuer: str, subject: str, audience: str = GATE, life: int = 600, **more: Any) -> dict[str, Any]:
    return {
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "iat": now(),
        "exp": now() + life,
        "jti": unique(),
        **more,
    }


def lasting(who: Any, nonce: str = "") -> Any:
    """What a verifier proved a moment ago, good for ten minutes."""
    return Proven(who, time.time() + 600, nonce=nonce)


def nonce_for(gate: Any, hold_id: str, tenant: str, said: Any = "release") -> str:
    """The `nonce` that a person's ID token is asked for with, to answer this hold."""
    return nonce_claim(gate.hold(hold_id, tenant=tenant).statement(said, gate.nonce(hold_id, tenant=tenant)))


def proven(steps: Generator[Outside, Any, Any]) -> Any:
    """Carry out what a verifier waits for, as the blocking shell does."""
    try:
        step = next(steps)
        while True:
            step = steps.send(step.work())
    except StopIteration as done:
        return done.value


# --- HTTP ----------------------------------------------------------------------------------------------------------------
Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """An HTTP server whose paths are answered by functions; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.paths: dict[str, Answer] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.paths.get(self.path, lambda h: h.send_error(404))(self)

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def publish(self, path: str, *keys: Key, **more: Any) -> str:
        """Serve a key set; returns its URL."""
        self.paths[path] = lambda handler: reply(handler, json.dumps(jwks(*keys, **more)).encode())
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def slowly(seconds: float, answer: Answer) -> Answer:
    """The same answer, later."""

    def late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        answer(handler)

    return late


def redirect(status: int, to: str) -> Answer:
    return lambda handler: reply(handler, b"", status, Location=to)


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def web() -> Iterator[Web]:
    made = Web()
    try:
        yield made
    finally:
        made.close()


# --- an authorization server nobody here wrote -----------------------------------------------------------------------------
class _Client(ClientMixin):  # type: ignore[misc]  # authlib carries no types
    def __init__(self, name: str, secret: str) -> None:
        self.client_id, self.secret = name, secret

    def get_client_id(self) -> str:
        return self.client_id

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_post"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"client_credentials", "password"}

    def get_allowed_scope(self, scope: str) -> str:
        return scope


class Person:
    """A user of the authorization server."""

    def __init__(self, name: str, password: str, **claims: Any) -> None:
        self.name, self.password, self.claims = name, password, claims

    def get_user_id(self) -> str:
        return self.name


class _Request(OAuth2Request):  # type: ignore[misc]  # as above
    def __init__(self, uri: str, form: dict[str, str]) -> None:
        super().__init__("POST", uri)
        self.payload, self._form = BasicOAuth2Payload(form), form

    @property
    def form(self) -> dict[str, str]:
        return self._form

    @property
    def args(self) -> dict[str, str]:
        return {}


class Authority:
    """authlib's authorization server (RFC 9068 access tokens), its token endpoint and key set served over HTTP."""

    def __init__(self, served: Web, issuer: str, *, alg: str = "ES256", path: str = "/login") -> None:
        self.issuer, self.web, self.path = issuer, served, path
        self.clients: dict[str, _Client] = {}
        self.people: dict[str, Person] = {}
        self.extra: dict[str, Any] = {}
        self.life = 600
        self.key = Key("k1", alg)
        authority = self

        class Tokens(JWTBearerTokenGenerator):  # type: ignore[misc]  # as above
            def get_jwks(self) -> Any:
                private = authority.key.private.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                made = import_key(private, "EC" if authority.key.alg == "ES256" else "RSA")
                return JoseKeySet.import_key_set({"keys": [{**made.as_dict(private=True), "kid": authority.key.kid, "use": "sig"}]})

            def get_audiences(self, client: Any, user: Any, scope: str) -> str:
                return GATE

            def get_extra_claims(self, client: Any, grant_type: str, user: Any, scope: str) -> dict[str, Any]:
                return {**authority.extra, **(user.claims if user is not None else {})}

        class Passwords(ResourceOwnerPasswordCredentialsGrant):  # type: ignore[misc]  # as above
            TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

            def authenticate_user(self, username: str, password: str) -> Person | None:
                person = authority.people.get(username)
                return person if person is not None and person.password == password else None

        class Credentials(ClientCredentialsGrant):  # type: ignore[misc]  # as above
            TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

        class Server(AuthorizationServer):  # type: ignore[misc]  # as above
            def query_client(self, client_id: str) -> _Client | None:
                return authority.clients.get(client_id)

            def save_token(self, token: Any, request: Any) -> None:
                """Nothing is kept."""

            def create_oauth2_request(self, request: Any) -> Any:
                return request

            def handle_response(self, status: int, body: Any, headers: Any) -> Any:
                return status, body

            def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
                """Nobody listens."""

        server = Server()
        server.register_grant(Passwords)
        server.register_grant(Credentials)
        server.register_token_generator("default", Tokens(issuer, alg, expires_generator=lambda _client, _grant: authority.life))

        def token(handler: BaseHTTPRequestHandler) -> None:
            form = dict(urllib.parse.parse_qsl(handler.rfile.read(int(handler.headers["Content-Length"])).decode()))
            status, body = server.create_token_response(_Request(f"{issuer}/token", form))
            reply(handler, json.dumps(body).encode(), status)

        served.paths[f"{path}/token"] = token
        self.keys_url = served.publish(f"{path}/jwks", self.key)

    def rotate(self, kid: str) -> None:
        """Sign with a new key and publish only that."""
        self.key = Key(kid, self.key.alg)
        self.web.publish(f"{self.path}/jwks", self.key)

    def _ask(self, **form: str) -> str:
        answer = httpx.post(f"{self.web.url}{self.path}/token", data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def known(self, name: str) -> str:
        """Register a client; its secret."""
        self.clients[name] = _Client(name, "s3cret")
        return "s3cret"

    def of_client(self, name: str, **extra: Any) -> str:
        """An access token of a service, by its client credentials."""
        secret, self.extra = self.known(name), extra
        return self._ask(grant_type="client_credentials", scope="calls", client_id=name, client_secret=secret)

    def of_user(self, name: str, **claims: Any) -> str:
        """An access token of a person, by their password."""
        self.clients["desk"], self.extra = _Client("desk", "s3cret"), {}
        self.people[name] = Person(name, "pw", **claims)
        return self._ask(grant_type="password", scope="calls", client_id="desk", client_secret="s3cret", username=name, password="pw")
