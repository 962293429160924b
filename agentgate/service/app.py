"""The application: routes, and around each of them what holds for all: caps, the log line,
refusals as answers.

Rules: nothing that is inside leaves: an error that nobody expected is 500 and its type in the
log. A path that is not here is 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agentgate.audit.questions import NotFound
from agentgate.errors import (
    AgentGateError,
    AuditUnavailable,
    CredentialRefused,
    KeyRefused,
    KeysUnavailable,
    Overloaded,
    RequestRefused,
    StoreUnavailable,
)
from agentgate.gate.core import reasons_of
from agentgate.service.line import HEALTH, Connections, OpenConnection
from agentgate.service.messages import oauth_error, problem, refused_by, unavailable
from agentgate.service.pages.rendering import error_page
from agentgate.service.served import ServedGate
from agentgate.service.settings import ServiceSettings
from agentgate.service.state import Service
from agentgate.shell.spans import Span
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.value_class import value_class

_log = structlog.get_logger("agentgate.service")
MAX_PATH = 512
MAX_HEADERS = 64
MAX_HEADER = 20 * 1024
# not a refusal: the first answer to whoever has no nonce yet (RFC 9449 section 8)
_CHALLENGE = "use_dpop_nonce"
_METHODS = frozenset("DELETE GET HEAD OPTIONS PATCH POST PUT".split())
Endpoint = Callable[[Request, Service], Awaitable[Response]]
Refusing = Callable[[RequestRefused], Response]
Routes = tuple[tuple[str, str, Endpoint], ...]  # path, method, endpoint


def _routes(table: str) -> Routes:
    """The endpoints of a table of ``routes.txt``."""
    found = []
    for method, path, target in map(str.split, table.splitlines()):
        module, _, name = target.rpartition(".")
        endpoint = getattr(import_module(f"agentgate.service.{module}"), name)
        found.append((path, method, endpoint))
    return tuple(found)


ROUTES, AUDIT_PAGES, PAGES = map(
    _routes, Path(__file__).with_name("routes.txt").read_text("utf-8").split("\n\n")[1:]
)


def refuser_of(path: str, method: str) -> Refusing:
    """How a path refuses: as OAuth does (RFC 6749), by a problem (RFC 9457), or for whoever
    looks at a page.
    """
    if path.startswith("/oauth2/") and method == "POST":
        return oauth_error
    if method == "GET" and path.startswith(("/holds", "/audit")):
        return partial(error_page, root=path[:6])
    return problem


def application(
    settings: ServiceSettings,
    clock: Callable[[], datetime] | None = None,
    file: Path | None = None,
    opened: Callable[[], object] = lambda: None,
) -> Starlette:
    """The ASGI application. The gate opens when the server starts, and closes when it ends.

    Args:
        settings: of the service.
        clock: the decision clock, for tests; None: now.
        file: where the settings are read again on SIGHUP; None: they stay.
        opened: called when the gate is open.
    """
    _reloads: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Connections]]:
        try:
            gate = await ServedGate.of(settings, clock)
        except AgentGateError as error:
            _log.error("not_opened", error=type(error).__name__, what=str(error))
            raise
        app.state.service = Service(settings, gate)
        opened()
        loop = asyncio.get_running_loop()
        # not in the main thread: somebody else's process
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(
                signal.SIGHUP,
                lambda: _reloads.add(loop.create_task(_reload(app.state.service, file))),
            )
        _log.info(
            "serving",
            issuer=settings.issuer,
            workflows=len(gate.catalog),
            listen=settings.listen,
        )
        try:
            async with app.state.service.health.watching():
                yield {
                    "connections": Connections(settings.connections, app.state.service.is_proxy)
                }
        finally:
            app.state.service.ready = False
            if (summary := app.state.service.untold.summary(last=True)) is not None:
                _log.warning("unproven", **summary)
            await gate.close()

    served = (*ROUTES, *AUDIT_PAGES, *(() if settings.passkeys is None else PAGES))
    routes = [
        Route(path, _Answering(_around(endpoint, refuser_of(path, method))), methods=[method])
        for path, method, endpoint in served
    ]
    app = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _unrouted}
    )
    # it would send a client, with its credentials, to whatever `Host` says, and over plain http
    app.router.redirect_slashes = False
    return app


async def _unrouted(request: Request, error: Exception) -> Response:
    """A path that is not here, or not with this method. What was asked for is not logged:
    anything may stand there.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    code = {404: "not_found", 405: "method_not_allowed"}.get(
        error.status_code, "invalid_request"
    )
    refused = RequestRefused(error.status_code, code, headers=error.headers)

    async def refuse(_: Request, __: Service) -> Response:
        raise refused

    return await _around(refuse, problem)(request)


def _route(request: Request) -> str:
    """How a request's path is told, to the log and to counters."""
    route = request.scope.get("route")
    return "(none)" if route is None else str(route.path)


async def _reload(service: Service, file: Path | None) -> None:
    """Settings, workflows, approvals and root as they are now; where they cannot be read, what
    was in force stays, each by itself.

    One after another, so that what was read earlier never replaces what was read later. Key
    files need no signal.
    """
    async with service.reloading:
        await _reread(service, file)


async def _reread(service: Service, file: Path | None) -> None:
    if file is not None:
        try:
            taken, left = service.reread(await asyncio.to_thread(ServiceSettings.of, file))
            _log.info("settings_reread", changed=taken, restart=left)
        except AgentGateError as error:
            _log.error("settings_not_reread", error=type(error).__name__, what=str(error))
    try:
        await service.gate.reload()
        _log.info("reloaded", workflows=len(service.gate.catalog))
    except AgentGateError as error:
        _log.error("not_reloaded", error=type(error).__name__, what=str(error))


@value_class
class _Answering:
    """An endpoint as an ASGI application. Starlette would put around a function what turns its
    errors into answers: here none is left.
    """

    answer: Callable[[Request], Awaitable[Response]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.answer(Request(scope, receive, send))
        await response(scope, receive, send)


def _around(endpoint: Endpoint, refuse: Refusing) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        began = time.perf_counter()
        service: Service = request.app.state.service
        span = _span(request, service)
        state = request.state
        state.client = state.run = state.claimed = state.peer = ""
        refused: RequestRefused | None = None
        try:
            response = await _in_turn(endpoint, request, service)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a refusal, and is logged by its type
            refused = _refused(error)
            if isinstance(error, RunRefused) and error.run:
                state.run = error.run
            response = refuse(refused)
        if (
            len(named := request.headers.getlist("x-request-id")) == 1
            and named[0].isascii()
            and named[0].isprintable()
        ):
            response.headers["X-Request-ID"] = named[0]
        connections: Connections | None = getattr(state, "connections", None)
        if connections is not None and connections.ends(state.connection):
            response.headers["Connection"] = "close"
        seconds = time.perf_counter() - began
        if refused is not None and refused.error == _CHALLENGE:
            refused = None
        code = refused.error if refused is not None else ""
        service.counts.count(_route(request), response.status_code, code, seconds)
        if refused is not None and any(
            each.reason is Reason.OUTCOME_UNKNOWN for each in refused.failures
        ):
            service.counts.count_unknown()
        _tell(request, response.status_code, seconds, refused)
        if span is not None:
            span.set({"http.response.status_code": response.status_code})
            span.end(code)
        return response

    return answer


async def _in_turn(endpoint: Endpoint, request: Request, service: Service) -> Response:
    """What an endpoint answers. Nobody is answered without a turn: who has no body has it
    first, a body is read before it.
    """
    state = request.state
    # another server than ours says nothing of it
    connection = state.connection = getattr(state, "connection", None) or OpenConnection(
        "", bool
    )
    state.peer = service.peer(request)
    line = service.health_line if request.scope["path"] in HEALTH else service.line
    with line.stand(state.peer, connection) as state.turn:
        try:
            _check_head(request)
            if request.method == "GET":
                await state.turn()
            return await endpoint(request, service)
        finally:
            await state.turn()
            connection.proven = state.client


def _span(request: Request, service: Service) -> Span | None:
    """The span of a request: its method and route, never its URL or headers."""
    tracing = service.core.tracing
    if tracing is None:
        return None
    route = _route(request)
    said: dict[str, str | int] = {"http.request.method": _method(request), "http.route": route}
    return tracing.begin(f"{_method(request)} {route}", said, headers=request.headers)


def _method(request: Request) -> str:
    """Of a request; one that HTTP does not know is not told: anything may stand there."""
    return request.method if request.method in _METHODS else "(other)"


def _check_head(request: Request) -> None:
    headers = request.scope["headers"]
    if (
        len(request.scope["path"]) > MAX_PATH
        or len(headers) > MAX_HEADERS
        or any(len(value) > MAX_HEADER for _, value in headers)
    ):
        raise RequestRefused(431, "invalid_request", "headers: fewer, and shorter ones")


def _refused(error: Exception) -> RequestRefused:
    if isinstance(error, RequestRefused):
        return error
    if isinstance(error, NotFound):
        return RequestRefused(404, "not_found")
    # nobody reads the answer; the log line is like any other
    if isinstance(error, ClientDisconnect):
        return RequestRefused(400, "invalid_request", "body: ended early")
    if isinstance(error, RunRefused):
        return refused_by(*error.failures)
    if isinstance(error, KeyRefused):
        return unavailable(
            Failure(Reason.KEYS, "keys", str(error)[:200], "a key ring that can be read")
        )
    if isinstance(error, KeysUnavailable):
        return unavailable(error.failure(reason=Reason.KEYS))
    if isinstance(error, CredentialRefused):
        return refused_by(error.failure(reason=Reason.AGENT))
    if isinstance(error, StoreUnavailable | AuditUnavailable | Overloaded):
        reason = (
            Reason.AUDIT
            if isinstance(error, AuditUnavailable)
            else Reason.OVERLOAD
            if isinstance(error, Overloaded)
            else Reason.STORE
        )
        return unavailable(
            Failure(reason, str(reason), str(error)[:200], "one that answers in time")
        )
    _log.error(
        "unexpected",
        error=type(error).__name__,
        what=str(error)[:200] if isinstance(error, AgentGateError) else None,
    )
    return RequestRefused(500, "server_error")


def _tell(
    request: Request, status: int, seconds: float, refused: RequestRefused | None
) -> None:
    """One line for each request: no query, no header, no body; of a refusal also why. Of those
    that nobody proved only so many.
    """
    said: dict[str, object] = {
        "method": _method(request),
        "path": _route(request),
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    state = request.state
    said |= {name: value for name in ("client", "run") if (value := getattr(state, name))}
    if refused is not None:
        said |= {"error": refused.error, "reasons": reasons_of(refused.failures)}
        said |= {} if state.client else {"from": state.peer}
    service: Service = request.app.state.service
    if (summary := service.untold.summary()) is not None:
        _log.warning("unproven", **summary)
    unproven = not state.client or (refused is not None and not state.run)
    if unproven and service.lines.take("answered" if refused is None else "refused"):
        service.untold.count(
            _route(request),
            str(status),
            state.claimed,
            state.peer,
            refusal=said,
        )
        return
    if refused is None:
        _log.info("answered", **said)
    else:
        _log.warning("refused", **said)
