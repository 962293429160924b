"""Fixtures shared by all tests: real servers, started once each."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agentgate import Gate
from tests.deadlines import LONG, REAL, python_path, set_call_seconds
from tests.servers import Server, redis_binary, valkey_binary


def pytest_configure() -> None:
    """Calls have time; what tests start can be interrupted, also where a shell began them as a background job (which ignores SIGINT)."""
    os.environ["PYTHONPATH"] = python_path(*filter(None, [os.environ.get("PYTHONPATH")]))
    set_call_seconds(LONG)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Which state servers this run really tests."""
    redis = redis_binary()
    missing = " (redis-server is not installed, Valkey stands in for it; Debian: apt-get install redis-server)"
    return f"state servers: {redis}{missing if redis == valkey_binary() else ''}, {valkey_binary()}"


@pytest.fixture(autouse=True)
def _call_seconds(request: pytest.FixtureRequest) -> Iterator[None]:
    """The real deadline for a test of deadlines; for all others, a long one."""
    if request.node.get_closest_marker("deadline") is None:
        yield
        return
    set_call_seconds(REAL)
    yield
    set_call_seconds(LONG)


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> Iterator[None]:
    """A command run in this process sets the log level for itself only."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True, scope="module")
def _short_collections() -> None:
    """What earlier files left is out of the collector's sight: a pass over all of it takes as long as a call may."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Redis for the whole test run; a test that harms its server starts its own."""
    server = Server(redis_binary(), tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Valkey for the whole test run; a test that harms its server starts its own."""
    server = Server(valkey_binary(), tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the refund workflow in `w`."""
    from tests.test_gate import WORKFLOW

    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def gate(folder: Path) -> Iterator[Gate]:
    """A gate with the refund workflow, on a weekday."""
    from tests.test_gate import opened

    with opened(folder) as gate:
        yield gate
