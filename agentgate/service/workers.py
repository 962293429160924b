"""Several processes behind one address: uvicorn's supervisor, which starts a worker again that
died.

Rules: every worker opens the gate itself and has an audit segment of its own. SIGHUP goes on to
each worker, which keeps what was in force where the new cannot be read. A gate that does not
open ends them all. A worker ends when its supervisor is gone, however that ended: nobody else
would reload or end it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
from pathlib import Path

import structlog
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess

_log = structlog.get_logger("agentgate.service")
METRICS = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client adds up the workers' counts


class Workers(Multiprocess):
    """The workers of one service."""

    def handle_hup(self) -> None:
        """Let each worker reload, instead of starting it anew: what cannot be read must not end
        what was in force.
        """
        for worker in self.processes:
            if worker.pid is not None and worker.exitcode is None:
                os.kill(worker.pid, signal.SIGHUP)

    @property
    def failed(self) -> bool:
        """Whether a worker did not open the gate."""
        return any(worker.exitcode == STARTUP_FAILURE for worker in self.processes)


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
