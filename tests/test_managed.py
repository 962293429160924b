"""A managed service: what cannot be looked at counts for nothing, and is one row; the word of one counts where TLS proves whose it is."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import Store, open_async_store, open_store, ready_store
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._health import KEPT, keeps, weak_file
from agentgate.stores._resp import ServerError
from agentgate.stores._topology import Range, Topology
from agentgate_conformance._book import Book
from agentgate_conformance.stores import Blocking
from tests.servers import Server, redis_binary, valkey_binary
from tests.test_stores_ops import SYNCED, info
from tests.watched import Shards

OURS = "clustercfg.shop.abc123.memorydb.eu-central-1.amazonaws.com:6379"
MANAGED = f"rediss+cluster://gate:pw@{OURS}?service=memorydb"


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Callable[[str], Store]:
    return open_store if request.param == "sync" else lambda url: Blocking(lambda: open_async_store(url))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(redis_binary(), tmp_path / "own", durable=True)
    found.command("ACL", "SETUSER", "gate", "on", ">pw", "~ag:*", "+@all", "-@admin", "-@dangerous", "+info")
    yield found
    found.stop()


class _Hiding(socketserver.BaseRequestHandler):
    """Passes everything on, and leaves some fields out of each INFO."""

    def handle(self) -> None:
        server: _Proxy = self.server  # type: ignore[assignment]
        with socket.create_connection(("127.0.0.1", server.upstream)) as behind:
            while request := self.request.recv(65536):
                behind.sendall(request)
                answer = behind.recv(1 << 20)
                if b"\r\nINFO\r\n" in request and answer.startswith(b"$"):
                    size, _, text = answer.partition(b"\r\n")
                    while len(text) < int(size[1:]) + 2:
                        text += behind.recv(1 << 20)
                    lines = [line for line in text[:-2].split(b"\r\n") if not line.startswith(server.hidden)]
                    text = b"\r\n".join(lines)
                    answer = b"$%d\r\n%b\r\n" % (len(text), text)
                self.request.sendall(answer)


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    upstream: int
    hidden: tuple[bytes, ...]


@contextmanager
def hiding(server: Server, *fields: str) -> Iterator[int]:
    """A port at which this server shows none of these fields."""
    with _Proxy(("127.0.0.1", 0), _Hiding) as proxy:
        proxy.upstream, proxy.hidden = server.port, tuple(f"{field}:".encode() for field in fields)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield proxy.server_address[1]
        finally:
            proxy.shutdown()
            thread.join()


def test_a_user_without_config_may_lose_in_one_row(server: Server, opened: Callable[[str], Store]) -> None:
    url = server.url.replace("redis://", "redis://gate:pw@")
    store = opened(url)
    assert [each.setting for each in store.check() if each.code == "store_may_lose"] == ["appendfsync: not told to this user"]
    assert store.keeps == "no"
    assert Book(store).minted()
    store.close()
    shown = CliRunner().invoke(app, ["doctor", "--store", url, "--json"]).stdout
    assert shown.count("not told to this user") == 1


def test_fields_that_are_not_shown_count_for_nothing_in_one_row(server: Server, opened: Callable[[str], Store]) -> None:
    with hiding(server, "maxmemory_policy", "cluster_enabled", "aof_enabled", "connected_slaves", "repl_backlog_active") as port:
        store = opened(f"redis://127.0.0.1:{port}")
        assert [each.setting for each in store.check() if each.code == "store_may_lose"] == ["maxmemory_policy: not shown by this server"]
        assert store.keeps == "no"
        assert Book(store).minted()
        store.close()
    assert keeps(Endpoint.of("redis://h"), info(), SYNCED) == "alone", "what is shown, and right, counts"


@pytest.mark.parametrize("field", ["role", "redis_version"])
def test_what_a_fence_is_made_of_has_to_be_shown(server: Server, field: str) -> None:
    with hiding(server, field) as port:
        store = open_store(f"redis://127.0.0.1:{port}")
        with pytest.raises(StoreUnavailable, match=r"role|version"):
            store.check()
        store.close()


def test_a_cluster_without_config_may_lose(tmp_path: Path) -> None:
    shards = Shards(valkey_binary(), tmp_path / "shards", replicas=0, settings=("--appendonly", "yes", "--appendfsync", "always"))
    for each in shards.primaries:
        each.command("ACL", "SETUSER", "gate", "on", ">pw", "~ag:*", "+@all", "-@admin", "-@dangerous", "+info")
    store = open_store(shards.url.replace("://", "://gate:pw@"))
    told = [each.setting.partition(": ")[2] for each in store.check() if each.code == "store_may_lose"]
    assert told == ["appendfsync: not told to this user"] * 3
    assert store.keeps == "no"
    store.close()
    shards.stop()


@pytest.mark.parametrize(
    "url",
    [
        MANAGED.replace("rediss", "redis"),
        MANAGED.replace("+cluster", ""),
        MANAGED.replace("+cluster", "+sentinel").replace(":6379", ":6379/service"),
        MANAGED + "&ssl_ca_certs=/own/ca.pem",
        MANAGED + "&ssl_check_hostname=false",
        MANAGED + "&replicas=1",
        MANAGED.replace("amazonaws.com", "amazonaws.com.evil.example"),
        MANAGED.replace("memorydb.eu", "cache.eu"),
        MANAGED.replace(OURS, f"{OURS},store.acme.example:6379"),
        MANAGED.replace("memorydb?", "?").replace("service=memorydb", "service=elasticache"),
        MANAGED.replace("service=memorydb", "service="),
    ],
)
def test_the_word_of_a_service_counts_only_where_tls_proves_its_domain(url: str) -> None:
    if url.endswith("service="):
        assert Endpoint.of(url).managed == ""
        return
    with pytest.raises(ConfigError):
        Endpoint.of(url)


def test_a_service_keeps_by_its_word_and_says_so() -> None:
    endpoint = Endpoint.of(MANAGED)
    denied = ServerError("NOPERM")
    assert KEPT
    assert keeps(endpoint, info(), denied) == "yes"
    (row,) = weak_file(endpoint, info(), denied)
    assert row.code == "store_weak"
    assert "word of the service" in row.means
    assert keeps(Endpoint.of(f"rediss+cluster://{OURS}"), info(), denied) == "no", "not without being asked to"
    evicting = info().replace(b"maxmemory_policy", b"something_else")
    assert keeps(endpoint, evicting, denied) == "no"


def test_a_node_of_another_domain_is_none_of_the_service() -> None:
    topology = Topology(MANAGED)
    guide = topology.endpoint.guides[0]
    node = "shop-0001-001.shop.abc123.memorydb.eu-central-1.amazonaws.com"
    topology.learn(guide, [Range(0, 16383, node, 6379)])
    with pytest.raises(StoreUnavailable, match="no name of the service memorydb"):
        topology.learn(guide, [Range(0, 16383, "10.0.0.7", 6379)])


def test_every_start_logs_on_whose_word(server: Server) -> None:
    with capture_logs() as logs:
        ready_store(server.url.replace("redis://", "redis://gate:pw@")).close()
    assert [each["setting"] for each in logs if each["code"] == "store_may_lose"] == ["appendfsync: not told to this user"]
