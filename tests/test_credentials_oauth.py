"""OAuth access tokens from a real authorization server (authlib's) over HTTP: client credentials, token exchange, revocation."""

from __future__ import annotations

import json
import secrets
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    BaseGrant,
    ClientMixin,
    InvalidGrantError,
    InvalidScopeError,
    OAuth2Request,
    TokenEndpointMixin,
)
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint

from agentgate import TokenRefused
from agentgate.credentials.oauth import OAuthBroker
from agentgate.credentials.static import Secret
from agentgate.errors import ConfigError, Refusal
from tests.authority import Answer, Web, redirect, reply, slowly, web
from tests.upstream import ORDER, allowed, opened, records, redeemed, run_of

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
SECRET = "client-s3cret-of-the-tool-server"
SCOPED = "{broker: bank, scopes: [refunds:create], audience: https://bank.example}"


class _Client(ClientMixin):  # type: ignore[misc]  # authlib carries no types
    client_id, scopes = "tools", {"refunds:create", "refunds:read", "orders:read", "payouts:create"}

    def get_client_id(self) -> str:
        return self.client_id

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in {"client_secret_basic", "client_secret_post"}

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"client_credentials", EXCHANGE}

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(sorted(set(scope.split()) & self.scopes))


class _Request(OAuth2Request):  # type: ignore[misc]  # as above
    def __init__(self, uri: str, form: dict[str, str], headers: dict[str, str]) -> None:
        super().__init__("POST", uri, headers=headers)
        self.payload, self._form = BasicOAuth2Payload(form), form

    @property
    def form(self) -> dict[str, str]:
        return self._form

    @property
    def args(self) -> dict[str, str]:
        return {}


class Issued:
    """A token that the server knows."""

    def __init__(self, form: dict[str, str]) -> None:
        self.form, self.revoked = form, False

    def check_client(self, client: Any) -> bool:
        return bool(client.client_id == "tools")


class Bank:
    """The authorization server of a bank. `adds` changes what it answers."""

    def __init__(self, served: Web) -> None:
        self.issued: dict[str, Issued] = {}
        self.subjects = {"the-session-of-lee": "lee"}
        self.adds: dict[str, Any] = {}
        self.life = 300
        bank = self

        class Credentials(ClientCredentialsGrant):  # type: ignore[misc]  # as above
            TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

        class Exchange(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]  # as above
            GRANT_TYPE = EXCHANGE
            TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

            @classmethod
            def check_token_endpoint(cls, request: Any) -> bool:
                return bool(request.payload.grant_type == EXCHANGE)

            def validate_token_request(self) -> None:
                self.request.client = self.authenticate_token_endpoint_client()
                form = self.request.form
                if form["subject_token"] not in bank.subjects or form["subject_token_type"] != ACCESS:
                    raise InvalidGrantError
                if not set(form["scope"].split()) <= _Client.scopes:
                    raise InvalidScopeError

            def create_token_response(self) -> Any:
                token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
                self.save_token(token)
                return 200, {**token, "issued_token_type": ACCESS}, self.TOKEN_RESPONSE_HEADER

        class Revocation(RevocationEndpoint):  # type: ignore[misc]  # as above
            CLIENT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

            def query_token(self, token_string: str, token_type_hint: str) -> Issued | None:
                return bank.issued.get(token_string)

            def revoke_token(self, token: Issued, request: Any) -> None:
                token.revoked = True

        class Server(AuthorizationServer):  # type: ignore[misc]  # as above
            def query_client(self, client_id: str) -> _Client | None:
                return _Client() if client_id == "tools" else None

            def save_token(self, token: Any, request: Any) -> None:
                bank.issued[token["access_token"]] = Issued(dict(request.form))

            def create_oauth2_request(self, request: Any) -> Any:
                return request

            def handle_response(self, status: int, body: Any, headers: Any) -> Any:
                return status, body

            def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
                """Nobody listens."""

        server = Server(scopes_supported=sorted(_Client.scopes))
        server.register_grant(Credentials)
        server.register_grant(Exchange)
        server.register_endpoint(Revocation)
        made = BearerTokenGenerator(lambda **_: "upstream-" + secrets.token_urlsafe(24), None, lambda _client, _grant: bank.life)
        server.register_token_generator("default", made)

        def asked(handler: BaseHTTPRequestHandler) -> _Request:
            form = dict(urllib.parse.parse_qsl(handler.rfile.read(int(handler.headers["Content-Length"])).decode()))
            return _Request("https://bank.example/token", form, dict(handler.headers))

        def token(handler: BaseHTTPRequestHandler) -> None:
            status, body = server.create_token_response(asked(handler))
            answer = {name: value for name, value in {**body, **(self.adds if status == 200 else {})}.items() if value is not None}
            reply(handler, json.dumps(answer).encode(), status)

        def revoke(handler: BaseHTTPRequestHandler) -> None:
            status, body = server.create_endpoint_response("revocation", asked(handler))
            reply(handler, json.dumps(body).encode(), status)

        self.token: Answer = token
        served.paths |= {"/token": token, "/revoke": revoke}


@pytest.fixture
def served() -> Iterator[Web]:
    with web() as made:
        yield made


@pytest.fixture
def bank(served: Web) -> Bank:
    return Bank(served)


@pytest.fixture
def broker(served: Web, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> OAuthBroker:
    monkeypatch.setenv("CLIENT_SECRET", SECRET)
    return OAuthBroker(f"{served.url}/token", "tools", Secret(env="CLIENT_SECRET"), revocation_endpoint=f"{served.url}/revoke")


def why(folder: Path, broker: OAuthBroker, pay: str = SCOPED) -> str:
    with opened(folder, {"bank": broker}, pay) as gate, pytest.raises(TokenRefused) as error:
        redeemed(run_of(gate))
    assert error.value.code is Refusal.UPSTREAM
    assert SECRET not in str(error.value) + json.dumps(records(gate))
    return str(error.value)


@pytest.mark.parametrize("how", ["client_secret_basic", "client_secret_post"])
def test_a_call_gets_a_token_of_its_own_that_is_revoked_when_it_is_over(tmp_path: Path, broker: OAuthBroker, bank: Bank, how: Any) -> None:
    broker = OAuthBroker(
        broker.token_endpoint, "tools", broker.client_secret, revocation_endpoint=broker.revocation_endpoint, authentication=how
    )
    with opened(tmp_path, {"bank": broker}, SCOPED) as gate:
        run, tokens = run_of(gate), []
        for name in ("c1", "c2"):
            with redeemed(run, call=name) as call:
                tokens.append(call.credential.reveal())
                issued = bank.issued[tokens[-1]]
                assert (issued.form["scope"], issued.form["audience"], issued.revoked) == ("refunds:create", "https://bank.example", False)
                assert call.credential.scopes == {"refunds:create"}
        assert len(set(tokens)) == 2
        assert all(bank.issued[token].revoked for token in tokens)


def test_without_scopes_in_the_workflow_those_of_the_call_are_asked_for(tmp_path: Path, broker: OAuthBroker, bank: Bank) -> None:
    with opened(tmp_path, {"bank": broker}, "{broker: bank}") as gate:
        token = redeemed(run_of(gate)).credential.reveal()
    assert bank.issued[token].form["scope"] == "refunds:create"


def test_the_token_of_a_session_is_exchanged(tmp_path: Path, broker: OAuthBroker, bank: Bank) -> None:
    asked: list[str] = []

    def subject(call: Any) -> str:
        asked.append(call.claims.tool_call_id)
        return "the-session-of-lee"

    exchanging = OAuthBroker(broker.token_endpoint, "tools", broker.client_secret, subject=subject)
    with opened(tmp_path, {"bank": exchanging}, SCOPED) as gate:
        token = redeemed(run_of(gate)).credential.reveal()
    form = bank.issued[token].form
    assert (form["grant_type"], form["subject_token"], form["scope"]) == (EXCHANGE, "the-session-of-lee", "refunds:create")
    assert asked == ["c1"]


@pytest.mark.parametrize(
    ("subject", "adds", "expected"),
    [
        ("a-stranger", {}, "invalid_grant"),
        ("the-session-of-lee", {"issued_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "issued_token_type"),
        ("the-session-of-lee", {"issued_token_type": None}, "issued_token_type"),
    ],
)
def test_an_exchange_that_fails_is_refused(  # noqa: PLR0917 - pytest passes them by name
    tmp_path: Path, broker: OAuthBroker, bank: Bank, subject: str, adds: dict[str, Any], expected: str
) -> None:
    bank.adds = adds
    exchanging = OAuthBroker(broker.token_endpoint, "tools", broker.client_secret, subject=lambda _: subject)
    assert expected in why(tmp_path, exchanging)


@pytest.mark.parametrize(
    ("adds", "expected"),
    [
        ({"scope": "refunds:create payouts:create"}, "scope: got 'payouts:create refunds:create'"),
        ({"token_type": "mac"}, "token_type"),
        ({"token_type": None}, "token_type"),
        ({"access_token": 7}, "access_token"),
        ({"access_token": "short"}, "at least 8"),
    ],
    ids=["wider", "another type", "no type", "no text", "short"],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    tmp_path: Path, broker: OAuthBroker, bank: Bank, adds: dict[str, Any], expected: str
) -> None:
    bank.adds = adds
    assert expected in why(tmp_path, broker)


def test_a_server_that_does_not_say_the_scope_granted_what_was_asked_for(tmp_path: Path, broker: OAuthBroker, bank: Bank) -> None:
    bank.adds = {"scope": None}
    with opened(tmp_path, {"bank": broker}, SCOPED) as gate:
        assert redeemed(run_of(gate)).credential.scopes == {"refunds:create"}


@pytest.mark.parametrize(
    ("scopes", "passes"), [("[refunds:create]", True), ("[refunds:create, refunds:read, orders:read]", False), ("[payouts:create]", False)]
)
def test_narrower_than_is_compared_with_what_the_server_granted(
    tmp_path: Path,
    broker: OAuthBroker,
    bank: Bank,
    scopes: str,
    passes: bool,  # noqa: FBT001 - a row
) -> None:
    said = f"{{broker: bank, scopes: {scopes}, narrower_than: support}}"
    if passes:
        with opened(tmp_path, {"bank": broker}, said) as gate:
            redeemed(run_of(gate))
    else:
        assert "narrower_than" in why(tmp_path, broker, said)
        assert [issued.revoked for issued in bank.issued.values()] == [True]


def test_a_token_that_lives_longer_than_the_workflow_says_is_refused_and_revoked(tmp_path: Path, broker: OAuthBroker, bank: Bank) -> None:
    assert "duration" in why(tmp_path, broker, "{broker: bank, duration: 60s}")
    assert [issued.revoked for issued in bank.issued.values()] == [True]
    bank.life = 60
    with opened(tmp_path, {"bank": broker}, "{broker: bank, duration: 60s}") as gate:
        redeemed(run_of(gate))


def test_a_wrong_secret_and_a_scope_that_the_client_may_not_have_are_refused(
    tmp_path: Path, broker: OAuthBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "invalid_scope" in why(tmp_path, broker, "{broker: bank, scopes: [everything]}")
    monkeypatch.setenv("CLIENT_SECRET", "another-secret")
    assert "invalid_client" in why(tmp_path, broker)


def broken(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, b"<html>" + SECRET.encode(), 502)


@pytest.mark.parametrize("case", ["no server", "502", "a redirect", "a hanging server", "no JSON"])
@pytest.mark.usefixtures("bank")
def test_a_server_that_does_not_answer_is_a_refusal(tmp_path: Path, served: Web, broker: OAuthBroker, case: str) -> None:
    answers: dict[str, Answer] = {
        "502": broken,
        "a redirect": redirect(307, "/elsewhere"),
        "a hanging server": slowly(3.5, broken),
        "no JSON": lambda handler: reply(handler, b"access_token=abc"),
    }
    if case == "no server":
        served.close()
    else:
        served.paths["/token"] = answers[case]
    assert "token_endpoint" in why(tmp_path, broker)
    assert "/elsewhere" not in served.asked


def test_a_revocation_that_fails_is_logged(tmp_path: Path, served: Web, broker: OAuthBroker, bank: Bank, capsys: Any) -> None:
    served.paths["/revoke"] = broken
    with opened(tmp_path, {"bank": broker}, SCOPED) as gate, redeemed(run_of(gate)) as call:
        token = call.credential.reveal()
    said = "".join(capsys.readouterr())
    assert "not_ended" in said
    assert token not in said
    assert bank.issued[token].revoked is False


@pytest.mark.parametrize("endpoint", ["http://bank.example/token", "ftp://bank.example/token", "", "bank.example"])
def test_the_endpoint_is_https(endpoint: str) -> None:
    with pytest.raises(ConfigError):
        OAuthBroker(endpoint, "tools", Secret(env="CLIENT_SECRET"))


def test_the_token_works_at_the_bank_and_only_while_the_call_runs(tmp_path: Path, served: Web, broker: OAuthBroker, bank: Bank) -> None:
    def refunds(handler: BaseHTTPRequestHandler) -> None:
        issued = bank.issued.get((handler.headers["Authorization"] or "").removeprefix("Bearer "))
        fine = issued is not None and not issued.revoked and "refunds:create" in issued.form["scope"].split()
        reply(handler, b'{"id": "re_1"}' if fine else b"{}", 200 if fine else 401)

    served.paths["/refunds"] = refunds
    with opened(tmp_path, {"bank": broker}, SCOPED) as gate:
        run = run_of(gate)
        with run.redeem(allowed(run), tool="pay", args=ORDER) as call:
            headers = {"Authorization": f"Bearer {call.credential.reveal()}"}
            assert call.record_result(httpx.post(f"{served.url}/refunds", headers=headers, content="{}").json()) == {"id": "re_1"}
    assert httpx.post(f"{served.url}/refunds", headers=headers, content="{}").status_code == 401
