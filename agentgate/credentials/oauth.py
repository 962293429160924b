"""OAuth 2.0 access tokens: client credentials (RFC 6749 section 4.4), or another token
exchanged (RFC 8693).

Rules: the scopes asked for are those of the workflow's `upstream:` block, else those that the
call was granted; an answer with a scope that was not asked for is refused. A new token for each
call; where the server can revoke (RFC 7009), it is revoked when the call is over. https, http
only on loopback; no redirect, no proxy of the environment. Operators are shown the server's
`error` code and no more of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Any, Literal
from urllib.parse import urlsplit

from agentgate.credentials.static import Secret
from agentgate.errors import ConfigError, KeysUnavailable, UpstreamRefused
from agentgate.identity.fetch import ask
from agentgate.redemption.credential import Redemption, UpstreamCredential
from agentgate.values.urls import is_secure
from agentgate.values.value_class import value_class

_SECONDS = 3.0  # until the server's whole answer is there
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
_JWT = "urn:ietf:params:oauth:token-type:jwt"


@value_class
class OAuthBroker:
    """One client at one authorization server (extra ``[oauth]``).

    Attributes:
        token_endpoint: its URL.
        client_id, client_secret: of this client.
        subject: for RFC 8693, what gives the token to exchange for a redeemed call (the user's,
            of the session `call.claims.sub`); None: client credentials.
        subject_type: its type (RFC 8693 section 3).
        revocation_endpoint: its URL; empty: tokens live on until they expire.
        authentication: how the client authenticates itself.
        tenants: the only ones for whose calls it is asked; None: those of the tool server.
    """

    token_endpoint: str
    client_id: str
    client_secret: Secret
    _: KW_ONLY
    subject: Callable[[Redemption], str] | None = None
    subject_type: str = _ACCESS_TOKEN
    revocation_endpoint: str = ""
    authentication: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    tenants: Sequence[str] | None = None
    takes = frozenset({"scopes", "audience"})

    def __post_init__(self) -> None:
        for name, url in (
            ("token_endpoint", self.token_endpoint),
            ("revocation_endpoint", self.revocation_endpoint),
        ):
            if url and not is_secure(urlsplit(url)):
                raise ConfigError(name, url, "an https URL (http only on loopback)")
        if not self.token_endpoint or not self.client_id:
            raise ConfigError(
                "token_endpoint" if not self.token_endpoint else "client_id", "", "a value"
            )

    def fetch(self, call: Redemption) -> UpstreamCredential:
        """A new access token.

        Raises:
            UpstreamRefused: the server gave none, or one that is wider than what was asked for.
        """
        asked = call.wanted
        settings = call.wanted.settings
        scopes = frozenset(settings.get("scopes") or call.claims.scopes)
        form = {"grant_type": "client_credentials", "scope": " ".join(sorted(scopes))}
        if "audience" in settings:
            form["audience"] = str(settings["audience"])
        if self.subject is not None:
            form |= {
                "grant_type": _EXCHANGE,
                "subject_token": self.subject(call),
                "subject_token_type": self.subject_type,
            }
            form["requested_token_type"] = _ACCESS_TOKEN
        with self._client() as client:
            got = self._asked(client, form)
        where = f"upstream.{asked.broker}"
        token = got.get("access_token")
        kind = got.get("token_type")
        lives = got.get("expires_in", 1)
        # RFC 6749 appendix A.12: it goes into a header
        if type(token) is not str or not (token.isascii() and token.isprintable()):
            raise UpstreamRefused(
                f"{where}.access_token",
                type(token).__name__,
                "text, without control characters",
            )
        if type(kind) is not str or kind.lower() not in {"bearer", "n_a"}:
            raise UpstreamRefused(f"{where}.token_type", kind, "Bearer")
        if self.subject is not None and got.get("issued_token_type") not in {
            _ACCESS_TOKEN,
            _JWT,
        }:
            raise UpstreamRefused(
                f"{where}.issued_token_type",
                got.get("issued_token_type"),
                f"{_ACCESS_TOKEN} or {_JWT}",
            )
        # left out: what was asked for (RFC 6749 section 5.1)
        said = got.get("scope", " ".join(scopes))
        granted = frozenset(said.split()) if type(said) is str else frozenset()
        if not granted or not granted <= scopes:
            shown = " ".join(sorted(granted)) or type(said).__name__
            raise UpstreamRefused(
                f"{where}.scope", shown, f"one or more of {' '.join(sorted(scopes))}"
            )
        if type(lives) is not int or not 0 < lives < 2**53:
            raise UpstreamRefused(
                f"{where}.expires_in",
                lives if type(lives) is int else type(lives).__name__,
                "seconds, more than 0",
            )
        expires_at = time.time() + lives if "expires_in" in got else None
        end = (lambda: self._revoke(token)) if self.revocation_endpoint else None
        return UpstreamCredential(
            {"access_token": token}, expires_at=expires_at, scopes=granted, end=end
        )

    def _client(self) -> Any:
        try:
            import httpx2  # noqa: PLC0415 - an extra
            from authlib.integrations.httpx_client import OAuth2Client  # noqa: PLC0415 - as above
        except ImportError:
            raise UpstreamRefused(
                "upstream", "no package authlib or httpx2", "the extra [oauth]"
            ) from None

        def send(request: Any) -> Any:
            headers = {name.decode(): value.decode() for name, value in request.headers.raw}
            got = ask(
                request.method,
                str(request.url),
                request.content,
                headers,
                private=True,
                seconds=_SECONDS,
            )
            return httpx2.Response(got.status, headers=got.headers.items(), content=got.body)

        how = {
            "token_endpoint_auth_method": self.authentication,
            "revocation_endpoint_auth_method": self.authentication,
        }
        return OAuth2Client(
            self.client_id,
            self.client_secret.read(),
            **how,
            transport=httpx2.MockTransport(send),
            trust_env=False,
        )

    def _asked(self, client: Any, form: dict[str, str]) -> dict[str, Any]:
        from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415 - as above

        try:
            return dict(client.fetch_token(self.token_endpoint, **form))
        except AuthlibBaseError as error:
            raise UpstreamRefused(
                "token_endpoint", str(error.error)[:80], "an access token"
            ) from None
        except KeysUnavailable as error:
            raise UpstreamRefused.of(
                error.failure(field="token_endpoint", expected="an access token")
            ) from None
        except Exception as error:  # noqa: BLE001 - of the HTTP client: its text may hold what was sent
            status = getattr(getattr(error, "response", None), "status_code", "")
            raise UpstreamRefused(
                "token_endpoint", f"{type(error).__name__} {status}".strip(), "an access token"
            ) from None

    def _revoke(self, token: str) -> None:
        with self._client() as client:
            status = client.revoke_token(
                self.revocation_endpoint,
                token=token,
                token_type_hint="access_token",  # noqa: S106 - a hint
            ).status_code
        if status != 200:
            raise UpstreamRefused("revocation_endpoint", status, "200 (RFC 7009 section 2.2)")
