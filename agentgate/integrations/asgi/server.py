"""A tool server: whose tokens count here, and which request is which call.

Rules: the verifier's checks in their order (`agentgate.token.claims`): (1) a credential, (2)
one, in its one place, then the token and its proof, then the call that the request really is,
then the burn, then the tool. A body is read, and the request is read as a call, only for a good
token. A request whose call cannot be told in one way burns nothing. The URL of a proof is this
server's own, never what a `Host` header says.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import structlog

from agentgate.errors import ConfigError, RequestRefused, TokenRefused
from agentgate.identity.settings import ProxySettings
from agentgate.integrations.asgi.received import (
    ALGS,
    MAX_BODY,
    BoundHeaders,
    ClientCertificates,
    Receive,
    RequestHead,
    Scope,
    SentToken,
    challenged,
    malformed,
    of_token,
    read_body,
    refuse_request,
)
from agentgate.integrations.asgi.sources import ArgumentSource, RouteShape
from agentgate.redemption.steps import Jwks
from agentgate.redemption.verifier import AsyncVerifier, AwaitedCall, Redeemer
from agentgate.shell.spans import Span
from agentgate.token.dpop import DPoP, target
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

if TYPE_CHECKING:
    from agentgate.integrations.client_key import ClientKey

_log = structlog.get_logger("agentgate.integrations.asgi")
_WELL_KNOWN = "/.well-known/oauth-protected-resource"
# settings of `ToolServer`; the others are the verifier's
_OWN = "origin max_body proxies certificate_header pass_headers".split()


def _own(more: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {n: more[n] for n in more.keys() & _OWN}, {n: more[n] for n in more.keys() - _OWN}


class _Arguments(Mapping[str, Any]):
    """The arguments of a request, read when the verifier asks for them: after the token and its
    proof.
    """

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._read = read
        self._held = dict[str, Any]()
        self.refused: RequestRefused | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            self._held = self._read()
        except RequestRefused as refused:
            self.refused = refused
            # the verifier's way to be told that there are no arguments
            raise ValueError("no call") from None
        return iter(self._held)

    def __getitem__(self, name: str) -> Any:
        return self._held[name]

    def __len__(self) -> int:
        return len(self._held)


class PresentedCall:
    """A request with a token, not redeemed yet: entering it redeems, leaving it reports the
    outcome.

    ``async with presented as call:`` gives an `AsyncRedeemedCall` or a `RemoteCall`; run the
    tool from `call.args`. It can be entered once.
    """

    def __init__(
        self,
        route: ToolRoute,
        head: RequestHead,
        credential: SentToken,
        read: Callable[[], dict[str, Any]],
    ) -> None:
        self._route = route
        self._head = head
        self._credential = credential
        self._args = _Arguments(read)
        self._call: AwaitedCall | None = None
        self._span: Span | None = None

    async def redeem(self) -> AwaitedCall:
        """Steps 3 to 13.

        Raises:
            RequestRefused: nothing was executed.
        """
        server = self._route.server
        sent = self._credential
        verifier = server.verifier
        proof = server.proof(sent, self._head.method, self._head.path)
        if verifier.tracing is not None:
            named = {"http.request.method": self._head.method, "http.route": self._route.path}
            self._span = verifier.tracing.begin(
                f"{self._head.method} {self._route.path}", named, headers=self._head.trace
            )
        try:
            tool = self._route.tool
            args = self._args
            shown = sent.certificate
            return await verifier.redeem(
                sent.token, tool=tool, args=args, proof=proof, certificate=shown
            )
        except TokenRefused as error:
            refused = self._args.refused or of_token(error)
            refused.run = error.run
        self._end(refused.error or f"{refused.status}")
        raise self._route.refused(refused, sent.scheme)

    async def __aenter__(self) -> AwaitedCall:
        self._call = await self.redeem()
        return await self._call.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:  # noqa: PYI036 - handed on as they are
        try:
            if self._call:
                await self._call.__aexit__(*raised)
        finally:
            self._end(raised[0].__name__ if raised[0] else "")

    def _end(self, error: str) -> None:
        if self._span is not None:
            self._span.end(error)
            self._span = None


@value_class
class ToolRoute:
    """Which requests are calls of one tool. Made by `ToolServer.route`.

    Attributes:
        server: where it was declared.
        tool: its name in the workflow.
        shape: method, path and where each argument stands.
        scope: what a challenge tells a client to ask for; empty: nothing.
        not_done: statuses by which the application says that nothing happened, so that the same
            call may run again.
    """

    server: ToolServer
    tool: str
    shape: RouteShape
    scope: str
    not_done: frozenset[int]

    @property
    def path(self) -> str:
        """The path, as frameworks write it: ``/orders/{order_id}``."""
        return self.shape.template

    async def present(self, scope: Scope, receive: Receive) -> PresentedCall:
        """Steps 1 and 2; where there is a body, steps 3 to 10, and then the body under its cap.

        Raises:
            RequestRefused.
        """
        scheme = ""
        head = None
        try:
            head = RequestHead(scope)
            self.server.headers.of(scope["headers"])
            credential = head.credential(self.server.certificates.shown(scope))
            scheme = credential.scheme
            segments = self.shape.matches(head.path)
            if segments is None or head.method != self.shape.method:
                raise malformed(
                    "path",
                    f"{head.method} {head.path}",
                    f"{self.shape.method} {self.path}",
                    404,
                )
            head.check_body(expected=self.shape.has_body, most=self.server.max_body)
            data = await self._body(head, credential, receive)
        except RequestRefused as refused:
            if not head or head.has_body:
                refused.headers["Connection"] = "close"  # so that the rest is not read
            raise self.refused(refused, scheme) from None
        return PresentedCall(
            self, head, credential, lambda: self.shape.arguments(segments, head.query, data)
        )

    async def _body(self, head: RequestHead, sent: SentToken, receive: Receive) -> bytes:
        if not (self.shape.has_body or head.has_body):
            return await read_body(receive, 0)
        try:
            await self.server.verifier.check(
                sent.token,
                proof=self.server.proof(sent, head.method, head.path),
                certificate=sent.certificate,
            )
        except TokenRefused as error:
            raise of_token(error) from None
        return await read_body(receive, self.server.max_body)

    def refused(self, refused: RequestRefused, scheme: str) -> RequestRefused:
        """See `ToolServer.refused`."""
        return self.server.refused(refused, scheme=scheme, scope=self.scope, tool=self.tool)


class ToolServer:
    """Redeems the tokens of one tool server's requests."""

    def __init__(
        self,
        opening: Callable[[], Awaitable[Redeemer]],
        *,
        issuer: str,
        audience: str,
        origin: str | None = None,
        max_body: int = MAX_BODY,
        proxies: ProxySettings | Mapping[str, Any] | None = None,
        certificate_header: str | None = None,
        pass_headers: Collection[str] = (),
    ) -> None:
        """A tool server whose verifier is opened when it starts. Most use `ToolServer.of`, or
        `ToolServer.remote`.

        Args:
            opening: opens the verifier.
            issuer: the gate's `iss`, named in the metadata.
            audience: this server's resource URL, the `aud` of its tokens.
            origin: scheme, host and port by which clients reach it; None: those of `audience`.
            max_body: most bytes of a request's body, at most 256 kB.
            proxies: those that end TLS: ``{"addresses": [...], "certificate": "pem"}`` or
                ``"xfcc"``, as `identity.proxies` of a gate.
            certificate_header: the header in which they pass a client's certificate on; None:
                that of the connection itself alone counts.
            pass_headers: names of headers that the application is given, though no call binds
                them: only those that a proxy of yours sets.

        Raises:
            ConfigError: a setting that is no URL, a cap that caps nothing, or one of the last
                two without the other.
        """
        self.certificates = ClientCertificates(proxies, certificate_header)
        if not 0 < max_body <= MAX_BODY:
            raise ConfigError("max_body", max_body, f"1 to {MAX_BODY} bytes")
        try:
            parts = urlsplit(target(audience))
            self.origin = (
                f"{parts.scheme}://{parts.netloc}"
                if origin is None
                else target(origin).removesuffix("/")
            )
        except (ValueError, TypeError, AttributeError):
            raise ConfigError(
                "audience", audience, "this server's absolute http(s) URL, as its origin"
            ) from None
        if urlsplit(self.origin).path:
            raise ConfigError("origin", origin, "scheme, host and port alone")
        self.headers = BoundHeaders(pass_headers, urlsplit(self.origin).netloc)
        # RFC 9728 section 3.1
        self.metadata_path = _WELL_KNOWN + (parts.path if parts.path != "/" else "")
        self.issuer = issuer
        self.audience = audience
        self.max_body = max_body
        self.routes: list[ToolRoute] = []
        self._opening = opening
        self._verifier: Redeemer | None = None

    @classmethod
    def of(
        cls,
        jwks: Jwks,
        *,
        issuer: str,
        tenants: Sequence[str],
        audience: str,
        store: str,
        audit: str,
        **more: Any,
    ) -> Self:
        """A tool server with a verifier of its own.

        The settings are those of `AsyncVerifier.open`, and from `origin` on those of
        `ToolServer`.

        Raises:
            ConfigError: as `ToolServer`; what the verifier refuses is raised when the server
                starts.
        """
        own, more = _own(more)

        async def opening() -> AsyncVerifier:
            return await AsyncVerifier.open(
                jwks,
                issuer=issuer,
                tenants=tenants,
                audience=audience,
                store=store,
                audit=audit,
                **more,
            )

        return cls(opening, issuer=issuer, audience=audience, **own)

    @classmethod
    def remote(
        cls, gate: str, client: ClientKey, *, tenants: Sequence[str], audience: str, **more: Any
    ) -> Self:
        """A tool server that redeems at its gate, over HTTP. Needs the extra `httpx`.

        The settings are those of `GateRedeemer` (`address`, `brokers` and others), and of
        `ToolServer` as for `of`.

        Raises:
            ConfigError: as `ToolServer` and `GateRedeemer`; a gate that does not answer is told
                when the server starts.
        """
        from agentgate.integrations.redeemer import GateRedeemer  # noqa: PLC0415 - httpx is an extra

        own, more = _own(more)
        made = GateRedeemer(gate, client, tenants=tenants, audience=audience, **more)
        return cls(made.open, issuer=gate, audience=audience, **own)

    @property
    def verifier(self) -> Redeemer:
        """The open verifier.

        Raises:
            RequestRefused: 503: the server has not started (`lifespan`).
        """
        if self._verifier is None:
            raise refuse_request(
                503, "", "verifier", "none", "a server started with ToolServer.lifespan"
            )
        return self._verifier

    def proof(self, sent: SentToken, method: str, path: str) -> DPoP | None:
        """The proof that came with a token, and the request that it must be for; without a
        path: to the resource itself.
        """
        if sent.scheme != "DPoP" or sent.proof is None:
            return None
        return DPoP(
            sent.proof, method=method, url=self.origin + path if path else self.audience
        )

    @property
    def metadata_url(self) -> str:
        """Where the metadata is."""
        return self.origin + self.metadata_path

    def metadata(self) -> dict[str, Any]:
        """Protected-resource metadata (RFC 9728 section 2)."""
        scopes = sorted({scope for route in self.routes for scope in route.scope.split()})
        return {
            "resource": self.audience,
            "authorization_servers": [self.issuer],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": ALGS.split(),
            **(
                {"tls_client_certificate_bound_access_tokens": True}
                if self.certificates.passed_on
                else {}
            ),
            **({"scopes_supported": scopes} if scopes else {}),
        }

    def route(
        self,
        tool: str,
        method: str,
        path: str,
        *,
        args: Mapping[str, ArgumentSource],
        scope: str = "",
        not_done: Sequence[int] = (),
    ) -> ToolRoute:
        """Declare which requests are calls of a tool.

        Args:
            tool: its name in the workflow.
            method: HTTP method.
            path: ``/orders/{order_id}``; below the server's root.
            args: every argument -> `path()`, `query()` or `body()`. What is in a request and
                not here is refused.
            scope: what a challenge names.
            not_done: statuses (of 400 to 599) by which the application says that nothing
                happened. Any other answer than success leaves an act's outcome unknown.

        Raises:
            ConfigError: it cannot be told apart from another, or names a place twice.
        """
        shape = RouteShape(method, path, args)
        if (
            not tool
            or not set(not_done) <= set(range(400, 600))
            or not scope.isprintable()
            or '"' in scope
            or "\\" in scope
        ):
            raise ConfigError(
                "route",
                (tool, scope, tuple(not_done)),
                "a tool, a scope, statuses of 400 to 599",
            )
        for other in self.routes:
            if shape.overlaps(other.shape):
                raise ConfigError("path", path, f"one that {other.path} does not match, too")
        self.routes.append(made := ToolRoute(self, tool, shape, scope, frozenset(not_done)))
        return made

    def refused(
        self, refused: RequestRefused, *, scheme: str = "", scope: str = "", tool: str = ""
    ) -> RequestRefused:
        """The refusal as it is answered; its reason is logged."""
        level = _log.error if refused.status >= 500 else _log.warning
        said = {
            "tool": tool,
            "status": refused.status,
            "error": refused.error,
            "field": refused.field,
        }
        said |= {"run": refused.run} if refused.run else {}
        level("request_refused", **said, got=visible(refused.got), expected=refused.expected)
        return challenged(refused, scheme=scheme, scope=scope, metadata=self.metadata_url)

    async def start(self) -> None:
        """Open the verifier. Raises what `AsyncVerifier.open` raises."""
        if self._verifier is None:
            self._verifier = await self._opening()

    async def stop(self) -> None:
        """Close the verifier."""
        verifier = self._verifier
        self._verifier = None
        if verifier is not None:
            await verifier.close()

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """``FastAPI(lifespan=server.lifespan)``: opens the verifier at the start, closes it at
        the end.
        """
        await self.start()
        try:
            yield
        finally:
            await self.stop()
