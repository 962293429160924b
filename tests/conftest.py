"""Fixtures shared by all tests: real servers, started once each."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog

from agentgate import Gate
from tests import preloaded
from tests.deadlines import LONG, REAL, python_path, set_call_seconds
from tests.effort import set_quick
from tests.servers import Server, redis_binary, valkey_binary

pytest_plugins = ["tests.jobs"]
BROWSERS = {"tests.browser"}
# Files that wait or compute for long: first, so that no process is left with one when the others have ended.
LONG_FILES = (
    "conversation service_unproven cluster hold_outlives service_audit service_health service_audit_browser demo lying_servers "
    "declared_keys full_runs attacks_succession yeses service_index mutation attacks_doubt proposal audit_seals evaluate faults "
    "layers sentinel langchain_hold stores_faults approvals_demo versions chat_backend passkeys pages_browser mcp_arguments "
    "terminal redeemer cli_new examples cli_review mcp package stores service_shared_address diff form linear attacks_turns "
    "stores_embedded backup computed log pages clauses service_process cli_root service_workers history attacks draft turn "
    "audit_export service_wire ownership notify diff_oracle probe reference openapi unseen"
).split()
SERVERS = {
    f"tests.{name}" for name in "authority bao langchain_shop mcpshop preloaded served servers toolshop upstream".split()
}  # of other programs, or in this one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="fewer examples, and nothing that is marked thorough")


def pytest_configure(config: pytest.Config) -> None:
    """Calls have time; what tests start can be interrupted, also where a shell began them as a background job (which ignores SIGINT)."""
    gc.disable()  # until all tests are read: nothing of them is garbage, and each pass looks at all of it
    os.environ["PYTHONPATH"] = python_path(*filter(None, [os.environ.get("PYTHONPATH")]))
    set_call_seconds(LONG)
    config.option.randomly_reset_seed = False  # nothing draws from what all share, and it takes as long as a small test
    if config.getoption("quick"):
        set_quick()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """While tests are read, on one processor, another one imports what servers need."""
    if session.config.getoption("jobs") and not session.config.option.collectonly:
        preloaded.parent()


def pytest_report_header() -> str:
    """Which state servers this run really tests."""
    redis = redis_binary()
    missing = " (redis-server is not installed, Valkey stands in for it; Debian: apt-get install redis-server)"
    return f"state servers: {redis}{missing if redis == valkey_binary() else ''}, {valkey_binary()}"


def _helpers(module: ModuleType) -> set[str]:
    """The names of the tests' own modules that this one imports, and those import."""
    found, waiting = set[str](), [module.__name__]
    while waiting:
        name = waiting.pop()
        if name not in found and name in sys.modules:
            found.add(name)
            named = [getattr(each, "__module__", None) or getattr(each, "__name__", None) for each in vars(sys.modules[name]).values()]
            waiting += [each for each in named if isinstance(each, str) and each.startswith("tests.")]
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each test is pure, or of a browser, or of servers: by what its file imports and it asks for, where the file does not say it."""
    kinds = dict[str, str]()
    for item in items:
        module = item.getparent(pytest.Module)
        assert module is not None
        if module.name not in kinds:
            helpers = _helpers(module.obj)
            kinds[module.name] = "browser" if helpers & BROWSERS else "server" if helpers & SERVERS else "pure"
        if not {"pure", "server", "browser"} & {mark.name for mark in item.iter_markers()}:
            asks = {"redis_server", "valkey_server"} & {*getattr(item, "fixturenames", ())}
            item.add_marker("server" if asks and kinds[module.name] == "pure" else kinds[module.name])
        if item.get_closest_marker("pure"):
            item.add_marker("disable_socket")
    order = {f"tests/test_{name}.py": number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))
    if config.getoption("quick"):
        left = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)


def pytest_collection_finish() -> None:
    """What was read stays; and a test makes much that it soon drops."""
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The real deadline for a test of deadlines, and for servers that are started for it; for all others, a long one."""
    set_call_seconds(LONG if item.get_closest_marker("deadline") is None else REAL)


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
    from tests.shop import WORKFLOW

    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def gate(folder: Path) -> Iterator[Gate]:
    """A gate with the refund workflow, on a weekday."""
    from tests.shop import opened

    with opened(folder) as gate:
        yield gate
