"""A primary that Sentinels name: through failovers by kill, pause and partition nothing is accepted twice, and minting goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import StoreUnavailable
from agentgate.stores import Store, open_async_store, open_store
from agentgate_conformance._book import Book
from agentgate_conformance.stores import Blocking
from tests.servers import Server, free_port, redis_binary, valkey_binary
from tests.tls import certificate
from tests.watched import FENCED, SERVICE, Load, Sentinel, Watched, until

BINARIES = {"redis": redis_binary, "valkey": valkey_binary}
OTHERS = pytest.mark.thorough("each fault, and each kind of store, is tried with another")


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.thorough("Valkey's Sentinels are the same code")), "valkey"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    servers = Watched(BINARIES[request.param](), tmp_path / "w", settings=FENCED)
    yield servers
    servers.stop()


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Callable[[str], Store]:
    return open_store if request.param == "sync" else lambda url: Blocking(lambda: open_async_store(url))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Watched]:
    """Watched, for what both servers do alike."""
    servers = Watched(valkey_binary(), tmp_path / "w", settings=FENCED)
    yield servers
    servers.stop()


def refusal(store: Store) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        store.check()
    store.close()
    return str(refused.value)


def kill(servers: Watched, old: Server) -> None:
    old.kill()


def pause(servers: Watched, old: Server) -> None:
    old.pause()


def cut(servers: Watched, old: Server) -> None:
    servers.partition(old)


@pytest.mark.deadline
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *((kill, "sync"), (pause, "async"), (cut, "sync")),
        *(pytest.param(*each, marks=OTHERS) for each in ((kill, "async"), (pause, "sync"), (cut, "async"))),
    ],
)
def test_a_failover_under_load_accepts_nothing_twice_and_minting_goes_on(
    watched: Watched, fault: Callable[[Watched, Server], None], kind: str
) -> None:
    old = watched.primary()
    load = Load(watched.url + "?replicas=1", kind)
    try:
        time.sleep(0.5)
        assert load.minted, "nothing was minted before"
        fault(watched, old)
        watched.promoted(old)
        promoted = time.monotonic()
        until(lambda: load.again(promoted) < 99, 5)
        time.sleep(0.5)
    finally:
        load.end()
    print(load.told(promoted))
    assert load.twice() == []
    assert load.slowest < 0.3
    assert load.again(promoted) < 5


def test_who_is_the_primary_and_who_said_so_is_told(alone: Watched) -> None:
    done = CliRunner().invoke(app, ["doctor", "--store", alone.url, "--json"])
    first = alone.sentinels[0].port
    assert f"127.0.0.1:{alone.primary().port}: primary of {SERVICE} by Sentinel 127.0.0.1:{first}" in done.stdout


def test_a_service_that_no_sentinel_watches_and_sentinels_without_a_quorum_are_named(
    alone: Watched, opened: Callable[[str], Store]
) -> None:
    told = refusal(opened(alone.url.replace(SERVICE, "payments")))
    assert "setting 'store' names Sentinels of 'payments'" in told
    assert "No such master" in told
    for each in alone.sentinels[:2]:
        each.kill()
    until(lambda: "NOQUORUM" in told_by(opened(alone.url)))
    alone.sentinels[2].kill()
    assert "111" in refusal(opened(alone.url))


def told_by(store: Store) -> str:
    """Why it is refused; empty: it is not, yet."""
    try:
        store.check()
    except StoreUnavailable as error:
        return str(error)
    finally:
        store.close()
    return ""


def test_each_new_primary_is_judged_by_itself(alone: Watched, opened: Callable[[str], Store]) -> None:
    store = opened(alone.url + "?replicas=1")
    old = alone.primary()
    for server in alone.servers:
        for setting in (("appendonly", "yes"), ("appendfsync", "always")):
            server.command("CONFIG", "SET", *setting)
    alone.servers[1].command("CONFIG", "SET", "appendfsync", "everysec")
    alone.servers[2].command("CONFIG", "SET", "appendfsync", "everysec")
    store.check()
    assert (store.keeps, store.heartbeat) == ("yes", 4.0)
    Book(store)
    for server in alone.servers[1:]:
        server.command("CONFIG", "SET", "min-replicas-max-lag", "5")
    old.kill()
    alone.promoted(old)
    until(lambda: not told_by_call(store))
    assert (store.keeps, store.heartbeat) == ("no", 7.0), "the new primary keeps less, and notices later"
    assert str(alone.primary().port) in store.where.told
    store.close()


def told_by_call(store: Store) -> str:
    """Why a call is refused; empty: it is not."""
    try:
        Book(store)
    except StoreUnavailable as error:
        return str(error)
    return ""


def test_a_new_primary_that_evicts_is_refused(alone: Watched, opened: Callable[[str], Store]) -> None:
    store, old = opened(alone.url), alone.primary()
    store.check()
    Book(store)
    for server in alone.servers[1:]:
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    old.kill()
    alone.promoted(old)
    until(lambda: "maxmemory_policy" in told_by_call(store))
    store.close()


def test_tls_and_a_user_of_each_layer_are_asked_for(tmp_path: Path, opened: Callable[[str], Store]) -> None:
    """A build with TLS, as Debian's: the wheel's has none."""
    crt = certificate(tmp_path, "server")
    tls: tuple[str, ...] = ("--tls-cert-file", str(crt), "--tls-key-file", str(crt.with_suffix(".key")), "--tls-ca-cert-file", str(crt))
    tls += ("--tls-auth-clients", "no", "--tls-replication", "yes")
    secure, watch = free_port(), free_port()
    users = ("--user", "gate", "on", ">st/re", "~ag:*", "+@all", "--user", "default", "on", "nopass", "resetkeys", "+@all")
    server = Server(redis_binary(), tmp_path / "node", settings=(*tls, "--tls-port", str(secure), *users))
    config = (*(f"{name[2:]} {value}" for name, value in zip(tls[::2], tls[1::2], strict=True)), f"tls-port {watch}")
    config += ("user asker on >w@tch ~* &* +sentinel|get-master-addr-by-name +sentinel|ckquorum", "user default on nopass +ping -sentinel")
    sentinel = Sentinel(redis_binary(), tmp_path / "sentinel", secure, config, quorum=1)
    try:
        url = f"127.0.0.1:{watch}/{SERVICE}?sentinel_username=asker&sentinel_password=w%40tch&ssl_ca_certs={crt}"
        store = opened(f"rediss+sentinel://gate:st%2Fre@{url}")
        store.check()
        assert Book(store).minted()
        assert f"127.0.0.1:{secure}" in store.where.told
        store.close()
        assert "WRONGPASS" in refusal(opened(f"rediss+sentinel://gate:other@{url}"))
        assert "NOPERM" in refusal(
            opened(f"rediss+sentinel://gate:st%2Fre@{url}".replace("sentinel_password=w%40tch", "sentinel_password="))
        )
        other = certificate(tmp_path, "other")
        refused = refusal(opened(f"rediss+sentinel://gate:st%2Fre@{url}".replace(str(crt), str(other))))
        assert "certificate" in refused.lower()
        assert "st/re" not in refused
    finally:
        sentinel.stop()
        server.stop()
