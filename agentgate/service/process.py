"""The server process: uvicorn around the application, JSON lines on standard error, a graceful
end, a reload on SIGHUP; or several processes behind one address, under uvicorn's supervisor,
which starts a worker again that died.

Rules: standard output stays empty: a host that speaks MCP over it may have started this
process. A request that is being answered when the process ends gets its answer. A client that
sends a header slower than `HEADER_SECONDS` is disconnected.

Every worker opens the gate itself and has an audit segment of its own. SIGHUP goes on to each
worker, which keeps what was in force where the new cannot be read. A gate that does not open
ends them all. A worker ends when its supervisor is gone, however that ended: nobody else would
reload or end it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from agentgate.errors import ConfigError
from agentgate.service.app import application
from agentgate.service.health import METRICS
from agentgate.service.line import Connections, Rates
from agentgate.service.settings import ServiceSettings
from agentgate.values.value_class import value_class

_log = structlog.get_logger("agentgate.service")


class Workers(Multiprocess):
    """The workers of one service."""

    def handle_hup(self) -> None:
        """Let each worker reload, instead of starting it anew: what cannot be read must not end
        what was in force.
        """
        for worker in self.processes:
            if worker.pid is not None and worker.exitcode is None:
                os.kill(worker.pid, signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        """Each worker that starts makes the queue as short as its rounds. This process closes
        its copy of the worker's end of their line: else it waits for the answer of one that ended.
        """
        for shared in self.sockets:
            shared.listen(WAITING)
        for worker in self.processes:
            worker.child_conn.close()
        super().keep_subprocess_alive()

    @property
    def failed(self) -> bool:
        """Whether a worker did not open the gate."""
        return any(worker.exitcode == STARTUP_FAILURE for worker in self.processes)


class OneProcess(uvicorn.Server):
    """A service without workers."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; more connections may wait than are accepted in one round."""
        await super().startup(sockets)
        for server in self.servers:
            for shared in server.sockets:
                with shared.dup() as line:
                    line.listen(WAITING)


def end_with_supervisor() -> None:
    """In a worker: end as on SIGTERM when the process that started it is gone. In any other
    process: nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # readable when nobody holds its other end, even after SIGKILL
    loop = asyncio.get_running_loop()
    gone = parent.sentinel

    def end() -> None:
        loop.remove_reader(gone)
        _log.error("supervisor_gone", pid=parent.pid)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(gone, end)


def listening(config: Config) -> socket.socket:
    """The socket that the workers share, in which no answer waits for the acknowledgement of
    its first part (TCP_NODELAY).

    asyncio says so of sockets that it opens itself; accepted ones have it of the one that
    listens.
    """
    shared = config.bind_socket()
    if shared.family != socket.AF_UNIX:
        shared.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return shared


def supervise(config: Config) -> int:
    """Serve with `config.workers` processes until SIGTERM or SIGINT.

    Args:
        config: of the server; its `app` can be pickled.

    Returns:
        0, or 1 where the gate does not open.
    """
    # of a process that was killed; as asyncio does for a single one
    if config.uds is not None and Path(config.uds).is_socket():
        Path(config.uds).unlink()
    # which worker died, and that another was started
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="agentgate-metrics-") as counts:
        os.environ[METRICS] = counts
        workers = Workers(config, sockets=[listening(config)])
        workers.run()
    return 1 if workers.failed else 0


HEADER_SECONDS = 10
IDLE_SECONDS = 5
END_SECONDS = 10
# that a worker has to say it is there: on a busy machine its imports take longer than uvicorn's
# five, and it would be killed and started again for ever
WORKER_SECONDS = 30
ANSWER_SECONDS = 60  # from a whole head until the answer was taken
# objects: a few requests make the 700 after which Python looks for cycles, and hardly any cycle
_COLLECTED_AFTER = 20_000
# connections that asyncio accepts in one round, and answers nobody meanwhile
BACKLOG = 2
WAITING = 4096  # connections that wait to be accepted
MAX_HEAD = 64 * 1024  # bytes of a request's line and headers


class _WholeAnswers:
    """A transport on which head and body of an answer leave in one write, when it is whole."""

    def __init__(self, protocol: H11Protocol) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it, and what is held; of an answer that goes on, hold it."""
        self._held += data
        cycle = self._protocol.cycle
        if getattr(cycle, "response_complete", True) or not cycle.response_started:
            self._transport.write(self._held)
            self._held = b""


class _Patient(H11Protocol):
    """h11's protocol, with an end to its patience: uvicorn waits for ever for a header that
    never ends, and for who reads no answer.

    It knows a Unix socket's peer, and takes part in who has to make room for whom.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = _WholeAnswers(self)  # type: ignore[assignment]  # it is one
        self.client = self.client or _unix_peer(transport)
        self._connections: Connections = self.app_state["connections"]
        self._own = self._connections.add(
            self.client[0] if self.client is not None else "", transport.abort
        )
        self.app_state = {**self.app_state, "connection": self._own}
        if not self._own.placed.is_set():
            self.app = self._connections.only_health(self.app, self._own)
        self._end = self.loop.time() + HEADER_SECONDS
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._connections.take_bytes(self._own, len(data)):
            super().data_received(data)
        else:
            self.transport.abort()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # a head is complete; its body has a time of its own
            self._end_after(ANSWER_SECONDS)
        if getattr(self.cycle, "response_complete", True) or self.flow.write_paused:
            return
        if not self.cycle.more_body:
            self._connections.change(self._own, waits=False)
        elif self.flow.read_paused:
            self._own.asks.set()  # more of its body comes when somebody reads it
        elif self.cycle.waiting_for_100_continue and not self._own.placed.is_set():
            # it sends no body before; a place it has when its body is here
            self.cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_response_complete(self) -> None:
        self._connections.change(self._own, waits=True)
        self._end_after(HEADER_SECONDS)
        super().on_response_complete()  # which may begin with the next request

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connections.remove(self._own)
        super().connection_lost(exc)

    def _end_after(self, seconds: float) -> None:
        self._end = self.loop.time() + seconds
        # a timer that comes too early finds out
        if self._end < self._timer.when():
            self._timer.cancel()
            self._watch()

    def _watch(self) -> None:
        if (left := self._end - self.loop.time()) > 0:
            self._timer = self.loop.call_later(left, self._watch)
        else:
            self.transport.abort()


def _unix_peer(transport: Any) -> tuple[str, int] | None:
    """``unix:UID`` of the process that connected, by the kernel's word (Linux); None: this is
    no Unix socket, or nobody says.
    """
    line = transport.get_extra_info("socket")
    try:
        if line.family != socket.AF_UNIX:
            return None
        _, uid, _ = struct.unpack(
            "iII",
            line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")),
        )
    except (OSError, AttributeError):
        return None
    return f"unix:{uid}", 0


def log_to_stderr() -> None:
    """One JSON object a line, of our own log and of the libraries'."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # a line in one write: workers share the stream
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    lines = Rates(2, burst=300)
    handler.addFilter(
        lambda record: record.levelno > logging.WARNING or not lines.take(record.name)
    )  # one for each junk request
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[_plain, render], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _plain(_: Any, __: str, event: Any) -> Any:
    """Of a library's record: its text, and of an exception the type alone."""
    record = event.get("_record")
    kept = {
        name: value
        for name, value in event.items()
        if not name.startswith("_") and name != "exc_info"
    }
    if record and record.exc_info and (kind := record.exc_info[0]):
        kept["error"] = kind.__name__
        kept["event"] = str(kept["event"]).split("\n")[0]
    trace = str(kept["event"]).rstrip().splitlines()
    # `not_opened` said it; of a bug, all is shown
    if trace and trace[0].startswith("Traceback") and trace[-1].startswith("agentgate."):
        kept["event"] = "start_failed"
    return kept


@value_class
class _Application:
    """The application, made in the process that serves it."""

    settings: ServiceSettings
    clock: Callable[[], datetime] | None
    file: Path | None

    def __call__(self) -> Starlette:
        log_to_stderr()
        end_with_supervisor()
        return application(self.settings, self.clock, self.file, _freeze)


def _freeze() -> None:
    """What is imported and loaded now stays for good: no collection has to look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)


def of_settings() -> Starlette:
    """The application for another ASGI server, such as granian: its settings are the file that
    the variable AGENTGATE_SETTINGS names.

    Raises:
        ConfigError: names the setting, what it was and what is expected.
    """
    log_to_stderr()
    file = os.environ.get("AGENTGATE_SETTINGS")
    if not file:
        raise ConfigError("AGENTGATE_SETTINGS", file, "the settings file (TOML)")
    settings = ServiceSettings.of(file)
    # its `listen`, a loopback address, says nothing of where that server listens
    if settings.unsafe_unapproved:
        raise ConfigError(
            "unsafe_unapproved",
            True,
            "root, where another server listens (agentgate serve keeps to loopback)",
        )
    return application(settings, file=Path(file), opened=_freeze)


def _check_free(listen: str, host: str, port: int) -> None:
    """ConfigError where this process may not listen, before anything else is opened."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as error:
        raise ConfigError(
            "listen", listen, f"an address of this machine that is free ({error.strerror})"
        ) from None


def serve(
    settings: ServiceSettings,
    *,
    clock: Callable[[], datetime] | None = None,
    file: Path | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, or 1 where the gate does not
    open.

    Args:
        settings: of the service.
        clock: the decision clock, for tests; None: now.
        file: where they are read again on SIGHUP; None: they stay.

    Raises:
        ConfigError: nobody can listen there.
    """
    log_to_stderr()
    where: dict[str, Any] = {"uds": settings.listen.removeprefix("unix:")}
    if not settings.listen.startswith("unix:"):
        host, _, port = settings.listen.rpartition(":")
        where = {"host": host.strip("[]"), "port": int(port)}
    config = uvicorn.Config(
        _Application(settings, clock, file),
        factory=True,
        **where,
        workers=settings.workers,
        http=_Patient,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the gate reads them itself, from configured proxies only
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        timeout_worker_healthcheck=WORKER_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD,
        backlog=BACKLOG,
    )
    if "port" in where:
        _check_free(settings.listen, config.host, config.port)
    elif not os.access(Path(where["uds"]).parent, os.W_OK | os.X_OK):
        raise ConfigError(
            "listen",
            settings.listen,
            "a socket in a directory that is there and that this user can write",
        )
    if settings.workers > 1:
        return supervise(config)
    server = OneProcess(config)
    # uvicorn ends gracefully, then raises the signal again: it was asked, not killed
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, lambda *_: None)
    server.run()
    return 0 if server.started else 1
