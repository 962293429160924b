"""An ASGI middleware: nothing behind it runs without a redeemed call.

Rules: a request is a declared call, the metadata, or a path that the settings name as open;
anything else is 404 or 405, `HEAD` and `OPTIONS` among it. The application is given the proven
arguments, rendered anew, and neither token, proof nor unbound headers. Facts and outcome are
recorded from its answer before the answer leaves: 2xx is done; a status that the route declares
`not_done` says that nothing happened; anything else of an act is unknown. Only a JSON answer
has facts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import structlog

from agentgate.errors import ConfigError, NotDone, NotRecorded, RequestRefused, ResultWithheld
from agentgate.integrations.asgi.received import (
    Receive,
    RequestHead,
    Scope,
    Send,
    problem_of,
    refuse_request,
)
from agentgate.integrations.asgi.server import ToolRoute, ToolServer
from agentgate.redemption.verifier import AwaitedCall
from agentgate.values.canonical import strict_parse

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
# in the scope: the redeemed call (`agentgate.redemption.verifier.AwaitedCall`)
CALL = "agentgate.call"
# bytes of an answer that are held back to be read for facts; a longer one passes on and has
# none
MAX_RESULT = 1024 * 1024
# bytes of an answer that are searched for the upstream credential; a longer one is withheld
MAX_LOOKED = 16 * MAX_RESULT
_log = structlog.get_logger("agentgate.integrations.asgi")


class _NoSuccess(Exception):
    """The application answered with another status than success."""


class _Answer:
    """An application's answer, held back until what it says is recorded, and, with an upstream
    credential, has been searched for it.
    """

    def __init__(self, send: Send, call: AwaitedCall) -> None:
        self._send = send
        self._call = call
        self._held: list[MutableMapping[str, Any]] = []
        self._size = 0
        self.status = 0
        self.whole = False
        self.withheld = False

    async def take(self, message: MutableMapping[str, Any]) -> None:
        """What the application sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self._size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        if self._call.has_credential and self._size > MAX_LOOKED:
            self.withheld = True
            self._held.clear()
        else:
            self._held.append(message)
        if self._size > MAX_RESULT and not self._call.has_credential:
            await self.release()

    async def release(self) -> None:
        """Send what is held."""
        held = self._held
        self._held = []
        for message in held:
            await self._send(message)

    def search(self) -> None:
        """Withhold it if the upstream credential is in it. To be called while the call still
        has it.
        """
        try:
            self._call.check_result(
                [
                    [
                        [value for pair in m.get("headers", ()) for value in pair]
                        for m in self._held
                    ],
                    self._body(),
                ]
            )
        except ResultWithheld:
            self.withheld = True
        if self.withheld:
            self._held.clear()

    def result(self) -> Any:
        """The JSON value of the answer; None: it has none, or is not held any more."""
        if not self._held or self._size > MAX_RESULT:
            return None
        headers = {name.lower(): value for name, value in self._held[0].get("headers", ())}
        media = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if media != b"application/json":
            return None
        with suppress(ValueError):
            return strict_parse(self._body())
        return None

    def _body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._held)


class RedeemMiddleware:
    """``app.add_middleware(RedeemMiddleware, server=server)``, the outermost; or
    ``RedeemMiddleware(app, server)``.
    """

    def __init__(
        self, app: Application, server: ToolServer, *, open_paths: Collection[str] = ()
    ) -> None:
        """Stand before an application.

        Args:
            app: the application.
            server: with its routes; at least one.
            open_paths: exact paths that anybody may GET without a token, such as ``/healthz``.
                None of a route.

        Raises:
            ConfigError: no route, or a path that is both open and a call.
        """
        if not server.routes:
            raise ConfigError(
                "routes",
                "none",
                "ToolServer.route for each tool, before the middleware is added",
            )
        for path in [*open_paths, server.metadata_path]:
            if (
                isinstance(open_paths, str)
                or not path.startswith("/")
                or any(r.shape.matches(path) is not None for r in server.routes)
            ):
                raise ConfigError("open_paths", path, "a list of exact paths, none of a route")
        self._app = app
        self._server = server
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            try:
                await self._request(scope, receive, send)
            except RequestRefused as refused:
                await _answer(send, refused)
        elif scope["type"] == "websocket":  # no token of ours is for one
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_when_ready(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._server.start()
            # after it the loop may end at any moment
            elif message["type"] == "lifespan.shutdown.complete":
                await self._server.stop()
            await send(message)

        try:
            await self._app(scope, receive, send_when_ready)
        finally:
            await self._server.stop()

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = RequestHead(scope)
        except RequestRefused as refused:
            raise self._server.refused(refused) from None
        if head.method == "GET" and head.path == self._server.metadata_path:
            data = json.dumps(self._server.metadata()).encode()
            await _send(send, 200, {"Content-Type": "application/json"}, data)
            return
        if head.method == "GET" and head.path in self._open and scope["path"] == head.path:
            await self._app(scope, receive, send)
            return
        matching = [
            route for route in self._server.routes if route.shape.matches(head.path) is not None
        ]
        route = next((each for each in matching if each.shape.method == head.method), None)
        if route:
            await self._call(route, scope, receive, send)
            return
        if not matching:
            raise self._server.refused(
                refuse_request(404, "", "path", head.path[:120], "a path that is declared")
            )
        allowed = ", ".join(sorted({each.shape.method for each in matching}))
        raise self._server.refused(
            refuse_request(
                405, "", "method", head.method[:20], allowed, headers={"Allow": allowed}
            )
        )

    async def _call(self, route: ToolRoute, scope: Scope, receive: Receive, send: Send) -> None:
        presented = await route.present(scope, receive)
        answer = None
        try:
            async with presented as call:
                answer = _Answer(send, call)
                try:
                    await self._app(
                        _proven(scope, route, call),
                        _replayed(route, call, receive),
                        answer.take,
                    )
                finally:
                    if call.has_credential:
                        await asyncio.to_thread(answer.search)
                await _recorded(route, call, answer)
        except (NotDone, _NoSuccess) as error:
            _log.warning(
                "tool_answered",
                tool=route.tool,
                status=answer.status if answer else 0,
                why=str(error),
            )
        except ResultWithheld:
            if answer:
                answer.withheld = True
        # the verifier logged it; the tool ran, and its answer is the caller's
        except NotRecorded:
            pass
        except Exception:
            if answer:
                await answer.release()  # of what is withheld, nothing
            raise
        if answer and answer.withheld:
            raise route.refused(
                refuse_request(
                    502, "", "answer", "the upstream credential, or too long a one", "neither"
                ),
                "",
            )
        if answer:
            await answer.release()


async def _recorded(route: ToolRoute, call: AwaitedCall, answer: _Answer) -> None:
    """Record the facts; raise what makes the outcome another than done."""
    if not answer.whole:
        raise _NoSuccess("no whole answer")
    if not 200 <= answer.status < 300:
        raise (NotDone if answer.status in route.not_done else _NoSuccess)(
            f"status {answer.status}"
        )
    if answer.withheld:
        raise ResultWithheld
    await call.record_result(answer.result())


def _proven(scope: Scope, route: ToolRoute, call: AwaitedCall) -> Scope:
    """The scope the application sees: the proven call, without the token (it is never passed
    on).
    """
    raw, query, data = route.shape.rendered(call.args)
    headers = route.server.headers.of(scope["headers"])
    if call.has_credential:  # nothing is found in a compressed answer
        headers = [
            (name, value) for name, value in headers if name.lower() != b"accept-encoding"
        ]
    if route.shape.has_body:
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()),
        ]
    said = {
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": headers,
    }
    # answers by other messages than those that are recorded and searched, such as a file's path
    # (`http.response.pathsend`)
    extensions = {
        n: value
        for n, value in (scope.get("extensions") or {}).items()
        if not n.startswith("http.response.")
    }
    return {**scope, **said, "extensions": extensions, CALL: call}


def _replayed(route: ToolRoute, call: AwaitedCall, receive: Receive) -> Receive:
    """The proven body once, then whatever the connection says."""
    left = [
        {"type": "http.request", "body": route.shape.rendered(call.args)[2], "more_body": False}
    ]

    async def replayed() -> MutableMapping[str, Any]:
        return left.pop() if left else await receive()

    return replayed


async def _answer(send: Send, refused: RequestRefused) -> None:
    headers = {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        **refused.headers,
    }
    await _send(send, refused.status, headers, problem_of(refused))


async def _send(send: Send, status: int, headers: dict[str, str], data: bytes) -> None:
    listed = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in {**headers, "Content-Length": str(len(data))}.items()
    ]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": data})
