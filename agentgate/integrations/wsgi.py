"""Tool servers of any WSGI framework (Flask, Django): ``app.wsgi_app = RedeemWSGI(app.wsgi_app,
server)``, the outermost.

Rules: it is `agentgate.integrations.asgi.RedeemMiddleware`, with all its rules, on an event
loop of its own in a thread; the application, and the reading of a body, stay in the request's
own thread. The application's answer is taken whole before it is recorded and sent. Made before
a server forks, it starts in each worker, at its first request or with `start`.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, MutableMapping
from concurrent.futures import Future
from functools import partial
from http.client import responses
from io import BytesIO
from typing import Any, Self, TypeVar
from urllib.parse import quote

import structlog

from agentgate.errors import AgentGateError, ConfigError
from agentgate.integrations.asgi.middleware import CALL, RedeemMiddleware
from agentgate.integrations.asgi.received import MAX_BODY, Receive, Scope, Send
from agentgate.integrations.asgi.server import ToolServer

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Value = TypeVar("Value")
_WSGI = "agentgate.wsgi"  # in the scope: the request
_PAUSE = 1.0  # seconds
_CONTENT = ("CONTENT_TYPE", "CONTENT_LENGTH")
_OF_REQUEST = frozenset({*_CONTENT, "RAW_URI", "REQUEST_URI"})
_log = structlog.get_logger("agentgate.integrations.wsgi")


class _Request:
    """One request: what its own thread does for the event loop, and what is answered."""

    def __init__(self, environ: Environ) -> None:
        self.environ = environ
        self.status = 500
        self.headers = list[tuple[str, str]]()
        self.body = bytearray()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def wait(self, answered: Future[None]) -> None:
        """In the request's thread: do what is asked for until the answer is complete. Raises
        what the application raised.
        """
        answered.add_done_callback(lambda _: self._work.put(None))
        while (work := self._work.get()) is not None:
            work()
        answered.result()

    async def in_its_thread(self, work: Callable[[], Value]) -> Value:
        """What `work` returns or raises, in the request's own thread."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Value] = loop.create_future()

        def told(result: Value | None, error: BaseException | None) -> None:
            if not done.done():  # else nobody waits for it any more
                done.set_exception(error) if error is not None else done.set_result(result)  # type: ignore[arg-type]  # a Value

        def carried_out() -> None:
            try:
                result = work()
            except BaseException as error:
                # no future takes the one, no loop the others
                ended = isinstance(error, StopIteration) or not isinstance(error, Exception)
                loop.call_soon_threadsafe(
                    told, None, RuntimeError(type(error).__name__) if ended else error
                )
                if not isinstance(error, Exception):
                    raise
            else:
                loop.call_soon_threadsafe(told, result, None)

        self._work.put(carried_out)
        return await done

    async def receive(self) -> MutableMapping[str, Any]:
        """The body, as far as it has a length; never more than is accepted, and a byte. One
        that is cut short is none.
        """
        length = self.environ.get("CONTENT_LENGTH") or "0"
        most = (
            min(int(length[:20]), MAX_BODY + 1) if length.isascii() and length.isdigit() else 0
        )
        data = (
            await self.in_its_thread(lambda: self.environ["wsgi.input"].read(most))
            if most
            else b""
        )
        if len(data) < most:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """A part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message["headers"]
                if name != b"connection"  # is the server's (PEP 3333)
            ]
        else:
            self.body += message.get("body", b"")

    def scope(self) -> Scope:
        """The request as ASGI has it."""
        environ = self.environ
        path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
        raw = str(environ.get("REQUEST_URI") or environ.get("RAW_URI") or "").partition("?")[0]
        named = [
            (name[5:], value) for name, value in environ.items() if name.startswith("HTTP_")
        ]
        named += [(name, environ[name]) for name in _CONTENT if environ.get(name)]
        return {
            "type": "http",
            "method": environ["REQUEST_METHOD"],
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw.encode("latin-1", "replace")
            if raw.startswith("/")
            else quote(path, safe="/-._~!$&'()*+,;=:@").encode(),
            "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
            "headers": [
                (name.replace("_", "-").lower().encode("latin-1"), str(value).encode("latin-1"))
                for name, value in named
            ],
            "client": (environ.get("REMOTE_ADDR", ""), 0),
            _WSGI: self,
        }

    def proven(self, scope: Scope, data: bytes) -> Environ:
        """What the application is given: the request of a scope, with this body."""
        environ = {
            name: value
            for name, value in self.environ.items()
            if not name.startswith("HTTP_") and name not in _OF_REQUEST
        }
        for name, value in scope["headers"]:
            key = name.decode("latin-1").upper().replace("-", "_")
            environ[key if key in _CONTENT else f"HTTP_{key}"] = value.decode("latin-1")
        path = (
            scope["path"]
            .encode()
            .decode("latin-1")
            .removeprefix(environ.get("SCRIPT_NAME", ""))
        )
        query = scope["query_string"].decode("latin-1")
        return {
            **environ,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "wsgi.input": BytesIO(data),
            CALL: scope.get(CALL),
        }


class RedeemWSGI:
    """See the module. A redeemed call is ``environ["agentgate.call"]``: its `args`, `claims`,
    `txn` and `credential`.
    """

    def __init__(
        self, app: Application, server: ToolServer, *, open_paths: Collection[str] = ()
    ) -> None:
        """Stand before an application. The parameters are those of `RedeemMiddleware`, and so
        is what is raised.
        """
        self._app = app
        self._server = server
        self._lock = threading.Lock()
        self._inner = RedeemMiddleware(self._called, server, open_paths=open_paths)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()
        self._pid = 0
        self._started = False
        self._again = 0.0
        self._trying = threading.Lock()

    def start(self) -> Self:
        """Open the verifier, in the process that serves. Raises what `AsyncVerifier.open`
        raises, or `GateRedeemer.open`.
        """
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="agentgate-wsgi", daemon=True
                )
                self._thread.start()
            self._check_process()
            if not self._started:
                self._on_loop(self._server.start()).result()
                self._started = True
        return self

    def close(self) -> None:
        """Close the verifier."""
        with self._lock:
            if self._loop is not None and self._pid == os.getpid():
                self._on_loop(self._server.stop()).result()
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()
            self._loop = None
            self._started = False

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One request."""
        if self._loop is not None:
            self._check_process()
        if not self._started:
            self._try()
        request = _Request(environ)
        request.wait(self._on_loop(self._inner(request.scope(), request.receive, request.send)))
        start_response(f"{request.status} {responses.get(request.status, '')}", request.headers)
        return [bytes(request.body)]

    def _try(self) -> None:
        """`start`, for a request; where it fails, those of the next second are answered 503
        without another try.
        """
        with self._trying:
            if self._started or time.monotonic() < self._again:
                return
            try:
                self.start()
            except AgentGateError as error:
                self._again = time.monotonic() + _PAUSE
                _log.error("not_started", error=type(error).__name__, what=str(error))

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ConfigError(
                "start",
                "before the server forked",
                "in each worker: at its first request, or in its post-fork hook",
            )

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        assert self._loop is not None  # noqa: S101 - it was started
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _called(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, as `RedeemMiddleware` calls it."""
        request: _Request = scope[_WSGI]
        environ = request.proven(scope, (await receive())["body"])
        status, headers, data = await request.in_its_thread(
            partial(_answer, self._app, environ)
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": False})


def _answer(app: Application, environ: Environ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The whole answer of an application (PEP 3333)."""
    said = []
    written = bytearray()

    def start_response(
        status: str, headers: list[tuple[str, str]], _: Any = None
    ) -> Callable[[bytes], None]:
        said.append((status, headers))
        return written.extend

    chunks = app(environ, start_response)
    try:
        for chunk in chunks:
            written += chunk
    finally:
        getattr(chunks, "close", lambda: None)()
    status, headers = said[-1]
    return (
        int(status[:3]),
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        bytes(written),
    )
