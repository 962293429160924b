"""A request as an ASGI server hands it over: its head, its one credential, and its body under
caps.

Rules: what could be read in two ways is refused: a header twice, a method or a path in a
header, an encoded body. The body arrives within `SECONDS`, whatever its pace, and is never held
beyond the cap. A call binds method, path, query and body, and no header: whoever sends a
request writes `Cookie` or `X-Tenant` into it as they like, so an application is given those
that it needs, and those that a setting names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from dataclasses import field
from typing import Any
from urllib.parse import quote

from agentgate.errors import ConfigError, RequestRefused
from agentgate.integrations.asgi.refused import refuse_request
from agentgate.integrations.asgi.sources import malformed, names_token
from agentgate.values.value_class import value_class

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
