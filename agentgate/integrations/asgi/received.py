"""A request as an ASGI server hands it over: its head, its one credential, and its body under
caps; and what is answered to one that is not executed.

Rules: what could be read in two ways is refused: a header twice, a method or a path in a
header, an encoded body. The body arrives within `SECONDS`, whatever its pace, and is never held
beyond the cap. A call binds method, path, query and body, and no header: whoever sends a
request writes `Cookie` or `X-Tenant` into it as they like, so an application is given those
that it needs, and those that a setting names.

The answer (RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1) has WIRE's closed code
and nothing that is inside; field, got and expected are for the log.

Which certificate its client showed in TLS is that of the connection itself, or the one that a
configured proxy passed on. A header counts from the configured proxies alone; from any other
address it is nothing. What the server says of the connection is ASGI's extension ``tls``, which no
request can write. Where a proxy is the other end, its own certificate is not the client's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from pydantic import ValidationError

from agentgate.errors import ConfigError, Failure, RequestRefused, TokenRefused
from agentgate.identity.certificate import shown_certificate, thumbprint_of
from agentgate.identity.connection import Connection, inside, networks
from agentgate.identity.settings import ProxySettings, wrong_setting
from agentgate.values.refusal import sign_in_wanted
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

ALGS = "ES256 EdDSA"
TOKEN_PARAMETER: Final = "access_token"  # RFC 6750 section 2.3  # noqa: S105 - the name of a parameter
RETRY_AFTER = 1  # seconds


def refuse_request(
    status: int,
    error: str,
    field: str,
    got: str,
    expected: str,
    *,
    headers: dict[str, str] | None = None,
) -> RequestRefused:
    """A request that was not executed; field, got and expected never hold a token, a proof or
    an argument's value out of a body.
    """
    return RequestRefused(status, error, "", Failure("", field, got, expected), headers=headers)


def malformed(field: str, got: str, expected: str, status: int = 400) -> RequestRefused:
    """The request is no call."""
    return refuse_request(status, "invalid_request", field, visible(got)[:120], expected)


def names_token(query_string: str) -> bool:
    """Whether a token stands in the query, by any spelling of the parameter (RFC 6750 section
    2.3: never).
    """
    return any(
        name.lower() == TOKEN_PARAMETER
        for name, _ in parse_qsl(query_string, keep_blank_values=True, errors="replace")
    )


def problem_of(refused: RequestRefused) -> bytes:
    """The body: RFC 9457 problem+json."""
    named = {"error": refused.error} if refused.error else {}
    return json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(refused.status).phrase,
            "status": refused.status,
            **named,
        }
    ).encode()


def challenged(
    refused: RequestRefused, *, scheme: str, scope: str, metadata: str
) -> RequestRefused:
    """The refusal with its challenge: of the scheme that was used, or of both where there was
    no credential.
    """
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        refused.headers["Retry-After"] = str(RETRY_AFTER)
    elif refused.status in {400, 401, 403} and "WWW-Authenticate" not in refused.headers:
        error = f'error="{refused.error}", ' if refused.error else ""
        scoped = (
            f'scope="{scope}", '
            if scope and refused.error in {"", "insufficient_scope"}
            else ""
        )
        schemes = [scheme] if scheme else ["DPoP", "Bearer"]
        asked = "".join(
            f"{name}={json.dumps(value)}, "
            for name, value in sign_in_wanted(refused.failures).items()
        )
        rest = f'{error}{asked}{scoped}resource_metadata="{metadata}"'
        refused.headers["WWW-Authenticate"] = ", ".join(
            f'DPoP algs="{ALGS}", {rest}' if s == "DPoP" else f"Bearer {rest}" for s in schemes
        )
    return refused


def of_token(refused: TokenRefused) -> RequestRefused:
    """A token's refusal as an answer."""
    answer = RequestRefused(refused.code.http_status, refused.code.error, "", *refused.failures)
    answer.run = refused.run
    return answer


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SECONDS = 5.0
MAX_BODY = 256 * 1024  # bytes: as much as arguments may have (`agentgate.values.canonical`)
MAX_HEADERS = 64
MAX_HEAD = 32 * 1024
MAX_PATH = 4096
_ONCE = frozenset(
    "authorization dpop content-type content-length content-encoding host transfer-encoding".split()
)
# Some frameworks let these replace the method or the path, after both were compared.
_REPLACING = frozenset(
    "x-http-method-override x-http-method x-method-override x-original-url x-original-uri x-rewrite-url"
    " script-name path-info".split()  # gunicorn takes the former for where the application is
)
_JSON = "application/json"
_TRANSPORT = frozenset(b"accept accept-encoding traceparent tracestate".split())
_OF_CONNECTION = (
    "connection expect keep-alive proxy-authenticate proxy-authorization "
    "proxy-connection te trailer upgrade"
)
_NEVER = _ONCE | _REPLACING | {"accept-encoding", "range", *_OF_CONNECTION.split()}
Headers = list[tuple[bytes, bytes]]


class BoundHeaders:
    """Which headers of a request an application is given."""

    def __init__(self, names: Collection[str], host: str) -> None:
        """Those of `names` beside what it needs; `host`: the server's own, whatever the request
        says.

        Raises:
            ConfigError: no list of names, or one that says how a request is read.
        """
        self._names = frozenset(name.lower().encode() for name in names)
        self._host = host.encode()
        for name in names:
            if (
                isinstance(names, str)
                or not re.fullmatch("[A-Za-z0-9-]+", name)
                or name.lower() in _NEVER
            ):
                raise ConfigError(
                    "pass_headers",
                    name,
                    "a list of names, with - and no _, that say nothing of how the request is read",
                )

    def of(self, listed: Iterable[tuple[bytes, bytes]], *more: bytes) -> Headers:
        """Of a request's headers those that pass; `more`: names of the framework's own.

        Raises:
            RequestRefused: 400: one of the setting's twice.
        """
        passed = [
            (name, value)
            for name, value in listed
            if name.lower() in {*_TRANSPORT, *self._names, *more}
        ]
        named = [name.lower() for name, _ in passed if name.lower() in self._names]
        if len(named) != len(set(named)):
            raise malformed(
                "headers", "several of one name", "one header of each in pass_headers"
            )
        return [(b"host", self._host), *passed]

    def bind(self, scope: Scope, *more: bytes) -> None:
        """Drop the others of a scope in place, as `of`: whoever holds its headers already is
        left without them, too.
        """
        replace_headers(scope, self.of(scope["headers"], *more))


def replace_headers(scope: Scope, headers: Headers) -> None:
    """Give a scope other headers, and whoever holds its list."""
    if isinstance(scope["headers"], list):
        scope["headers"][:] = headers
    else:
        scope["headers"] = headers


@value_class
class SentToken:
    """The token of a request and how it was sent.

    Attributes:
        scheme: DPoP or Bearer.
        proof: value of the DPoP header.
        certificate: thumbprint of the certificate that the client showed in TLS
            (`ClientCertificates`); None: none counts.
    """

    scheme: str
    token: str = field(repr=False)
    proof: str | None = field(repr=False)
    certificate: str | None = None


class RequestHead:
    """Method, path, query and headers, each in one reading."""

    def __init__(self, scope: Scope) -> None:
        """Raises RequestRefused: it is too large, or ambiguous."""
        listed: list[tuple[bytes, bytes]] = list(scope["headers"])
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        query: bytes = scope.get("query_string", b"")
        if names_token(query.decode("latin-1")):
            # it is refused, and the server's access log would show it
            scope["query_string"] = b"access_token="
        total = sum(len(name) + len(value) for name, value in listed)
        if len(listed) > MAX_HEADERS or total > MAX_HEAD or len(raw) + len(query) > MAX_PATH:
            raise malformed(
                "head",
                "a larger one",
                f"{MAX_HEADERS} headers, {MAX_HEAD} bytes; {MAX_PATH} of path and query",
                431,
            )
        self.method: str = scope["method"]
        self._headers: dict[str, str] = {}
        for name_bytes, value in listed:
            name = name_bytes.decode("latin-1").lower()
            # one and the same to WSGI and CGI, where such an application is behind
            if name.replace("_", "-") in _REPLACING:
                raise malformed(
                    name, "a header", "none: method and path are those of the request line"
                )
            if name in _ONCE and name in self._headers:
                raise malformed(name, "several", "one header")
            self._headers[name] = value.decode("latin-1").strip()
        try:
            self.path = raw.decode("ascii").partition("?")[0]
            self.query = query.decode("ascii")
        except UnicodeDecodeError:
            raise malformed("path", "characters outside ASCII", "percent-encoding") from None

    def header(self, name: str) -> str | None:
        """The value of a header (lower case), or None."""
        return self._headers.get(name)

    @property
    def trace(self) -> dict[str, str]:
        """What names the caller's span (W3C Trace Context)."""
        return {
            name: value
            for name in ("traceparent", "tracestate")
            if (value := self._headers.get(name)) is not None
        }

    def credential(self, certificate: str | None = None) -> SentToken:
        """Steps 1 and 2: the one token, in its one place; `certificate`: as of `SentToken`.

        Raises:
            RequestRefused: 401 without `error`: there is none; 400: more than one, or in the
                query.
        """
        if names_token(self.query):
            raise malformed("query", "a token", "a token in the Authorization header alone")
        scheme, _, token = (self.header("authorization") or "").partition(" ")
        kind = {"bearer": "Bearer", "dpop": "DPoP"}.get(scheme.lower())
        if kind is None or not token.strip():
            raise refuse_request(
                401, "", "authorization", "none", "DPoP or Bearer, and a call token"
            )
        if "," in token:
            raise malformed("authorization", "several", "one credential")
        return SentToken(kind, token.strip(), self.header("dpop"), certificate)

    @property
    def has_body(self) -> bool:
        """Whether the head says that a body follows."""
        return (
            self.header("content-length") not in {None, "0"}
            or self.header("transfer-encoding") is not None
        )

    def check_body(self, *, expected: bool, most: int) -> None:
        """What the head says of the body.

        Raises:
            RequestRefused: 413 too long, 415 not plain JSON, 400 ambiguous length.
        """
        length = self.header("content-length")
        if length is not None and (
            self.header("transfer-encoding") is not None
            or not length.isdigit()
            or not length.isascii()
        ):
            raise malformed("content-length", "two lengths, or none that counts", "one length")
        if length is not None and int(length[:20]) > most:
            raise too_large(most)
        if self.header("content-encoding") not in {None, "identity"}:
            raise malformed("content-encoding", "an encoded body", "none", 415)
        if expected:
            media, _, more = (self.header("content-type") or "").partition(";")
            if media.strip().lower() != _JSON or more.strip().lower().replace('"', "") not in {
                "",
                "charset=utf-8",
            }:
                raise malformed(
                    "content-type",
                    self.header("content-type") or "none",
                    f"{_JSON}, in UTF-8",
                    415,
                )


def too_large(most: int) -> RequestRefused:
    """413."""
    return refuse_request(
        413, "invalid_request", "body", "a longer one", f"at most {most} bytes"
    )


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body.

    Raises:
        RequestRefused: 413 too long, 408 too slow, 400 broken off.
    """
    read = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise malformed("body", "the end of the connection", "a whole one")
                read += message.get("body", b"")
                if len(read) > most:
                    raise too_large(most)
                if not message.get("more_body", False):
                    return bytes(read)
    except TimeoutError:
        raise refuse_request(
            408, "invalid_request", "body", "a slow one", f"all of it in {SECONDS:.0f} s"
        ) from None


class ClientCertificates:
    """See the module."""

    def __init__(
        self, proxies: ProxySettings | Mapping[str, Any] | None, header: str | None
    ) -> None:
        """Proxies (``{"addresses": [...], "certificate": "pem"}``) and the header of theirs;
        None: the connection's own alone counts.

        Raises:
            ConfigError: one without the other, or no such setting.
        """
        try:
            self._proxies = None if proxies is None else ProxySettings.model_validate(proxies)
        except ValidationError as error:
            raise wrong_setting(error, ProxySettings, "proxies") from None
        if (header is None) != (
            self._proxies is None or self._proxies.certificate is None
        ) or header == "":
            raise ConfigError(
                "certificate_header",
                header,
                "the header's name, and proxies with addresses and certificate; or neither",
            )
        self._header = None if header is None else header.lower().encode()

    @property
    def passed_on(self) -> bool:
        """Whether proxies are configured that pass certificates on."""
        return self._header is not None

    def shown(self, scope: Scope) -> str | None:
        """SHA-256 thumbprint (base64url) of the certificate; None: none counts.

        Raises:
            RequestRefused: 400: a proxy's header twice.
        """
        peer = (scope.get("client") or ("",))[0]
        if not self._proxies or not inside(peer, networks(self._proxies.addresses)):
            tls = (scope.get("extensions") or {}).get("tls") or {}
            chain = list(tls.get("client_cert_chain") or ())
            return (
                thumbprint_of(chain[0]) if chain and not tls.get("client_cert_error") else None
            )
        values = [value for name, value in scope["headers"] if name.lower() == self._header]
        if len(values) > 1:
            raise malformed("certificate_header", "several", "one header, by the proxy")
        return (
            shown_certificate(
                Connection(peer, certificate=values[0].decode("latin-1")), self._proxies
            )
            if values
            else None
        )
