"""The payment provider: an OAuth server (authlib's), and the API behind it that wants its tokens. Stands where yours is."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Error, OAuth2Request, ResourceProtector, TokenMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator, BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LIFE = 300  # seconds
ORDERS = {
    "ORD-10023344": {"order_id": "ORD-10023344", "total": "49.90", "currency": "EUR", "customer_id": "cus_Hn4mQz8Ls2WvXa"},
    "ORD-10023377": {"order_id": "ORD-10023377", "total": "180.00", "currency": "EUR", "customer_id": "cus_B7kTr1Yd9PcEuJ"},
}
# The clients, each with a secret that only its own process can read, and the scopes it may ask for.
SCOPES = {"orders": {"orders:read"}, "payments": {"refunds:create", "refunds:read", "orders:read"}}
PAID: list[dict[str, str]] = []


def secret_of(client: str) -> str:
    """The client's secret, made at the start: a file that its owner alone may read."""
    path = Path(os.environ["STATE"], f"{client}.secret")
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


@dataclass(frozen=True)
class Client(ClientMixin):
    """A client by its name."""

    name: str

    def get_client_id(self) -> str:
        return self.name

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret, secret_of(self.name))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - authlib's signature
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(sorted(set(scope.split()) & SCOPES[self.name]))


@dataclass
class Token(TokenMixin):
    """A token that was issued."""

    client: str
    scope: str
    until: float
    revoked: bool = False

    def check_client(self, client: Client) -> bool:
        return client.name == self.client

    def get_scope(self) -> str:
        return self.scope

    def is_expired(self) -> bool:
        return time.time() > self.until

    def is_revoked(self) -> bool:
        return self.revoked


TOKENS: dict[str, Token] = {}


class Asked(OAuth2Request):
    """A request as authlib reads it; TLS ends in front of this process."""

    def __init__(self, path: str, form: dict[str, str], headers: Mapping[str, str]) -> None:
        super().__init__("POST", f"https://api.provider.example{path}", headers=headers)
        self.payload, self._form = BasicOAuth2Payload(form), form

    @property
    def form(self) -> dict[str, str]:
        return self._form

    @property
    def args(self) -> dict[str, str]:
        return {}


class Credentials(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)


class Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = ("client_secret_basic",)

    def query_token(self, token_string: str, token_type_hint: str) -> Token | None:  # noqa: ARG002 - as above
        return TOKENS.get(token_string)

    def revoke_token(self, token: Token, request: Any) -> None:  # noqa: ARG002 - as above
        token.revoked = True


class Server(AuthorizationServer):
    def query_client(self, client_id: str) -> Client | None:
        return Client(client_id) if client_id in SCOPES else None

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        TOKENS[token["access_token"]] = Token(request.client.name, token["scope"], time.time() + LIFE)

    def create_oauth2_request(self, request: Asked) -> Asked:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:  # noqa: ARG002 - as above
        return JSONResponse(body, status)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


class Known(BearerTokenValidator):
    def authenticate_token(self, token_string: str) -> Token | None:
        return TOKENS.get(token_string)


SERVER, PROTECTOR = Server(scopes_supported=sorted(set().union(*SCOPES.values()))), ResourceProtector()
SERVER.register_grant(Credentials)
SERVER.register_endpoint(Revocation)
SERVER.register_token_generator("default", BearerTokenGenerator(lambda **_: secrets.token_urlsafe(32), None, lambda *_: LIFE))
PROTECTOR.register_token_validator(Known())


async def token(request: Request) -> Response:
    """``POST /token``, RFC 6749."""
    answer: Response = SERVER.create_token_response(Asked("/token", dict(await request.form()), request.headers))
    return answer


async def revoke(request: Request) -> Response:
    """``POST /revoke``, RFC 7009."""
    answer: Response = SERVER.create_endpoint_response("revocation", Asked("/revoke", dict(await request.form()), request.headers))
    return answer


async def order(request: Request) -> Response:
    """``GET /orders/{order_id}``."""
    try:
        PROTECTOR.validate_request(["orders:read"], request)
    except OAuth2Error as error:
        return JSONResponse({"error": error.error}, error.status_code)
    found = ORDERS.get(request.path_params["order_id"])
    return JSONResponse(found or {"error": "unknown_order"}, 200 if found else 404)


async def refund(request: Request) -> Response:
    """``POST /refunds``: money moves."""
    try:
        PROTECTOR.validate_request(["refunds:create"], request)
    except OAuth2Error as error:
        return JSONResponse({"error": error.error}, error.status_code)
    sent = await request.json()
    PAID.append({"refund_id": f"re_{secrets.token_hex(6)}", **{name: sent[name] for name in ("order_id", "amount", "currency", "payee")}})
    return JSONResponse(PAID[-1])


async def books(_: Request) -> Response:
    """What was paid, and how many tokens were issued and still count."""
    live = sum(not each.revoked and not each.is_expired() for each in TOKENS.values())
    return JSONResponse({"paid": PAID, "tokens": {"issued": len(TOKENS), "live": live}})


async def healthz(_: Request) -> Response:
    """It answers."""
    return JSONResponse({"ok": True})


ROUTES = [
    Route("/token", token, methods=["POST"]),
    Route("/revoke", revoke, methods=["POST"]),
    Route("/orders/{order_id}", order),
    Route("/refunds", refund, methods=["POST"]),
    Route("/books", books),
    Route("/healthz", healthz),
]

if __name__ == "__main__":
    for each in SCOPES:
        secret_of(each)
    uvicorn.run(Starlette(routes=ROUTES), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
