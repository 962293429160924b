"""The fence and the faults, on real servers: races, restarts, servers that are down, hung, read-only or misconfigured."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import threading
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import Op, _exchange, async_ready_store, open_async_store, open_store, ops, ready_store, recovery, server_id
from agentgate.stores._resp import pack
from agentgate.stores._scripts import script
from agentgate_conformance._book import AUDIENCE, Book
from agentgate_conformance.stores import Blocking
from tests.servers import Server, as_tool_server, free_port, redis_binary, valkey_binary

LATE = 0.3  # seconds: what a caller may wait at most


@pytest.fixture(params=["redis", "valkey"])
def binary(request):
    return redis_binary() if request.param == "redis" else valkey_binary()


@pytest.fixture
def server(binary, tmp_path):
    server = Server(binary, tmp_path / "own")
    yield server
    server.stop()


@pytest.fixture(params=["sync", "async"])
def book(request, server):
    opened = open_store(server.url) if request.param == "sync" else Blocking(lambda: open_async_store(server.url))
    yield Book(opened)
    opened.close()


def refused(book: Book, op: Op[Any]) -> str:
    """The call is refused in time; the error's text."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        book.store.call(op, started + LATE - 0.05)
    assert time.monotonic() - started < LATE
    return str(caught.value)


# the fence


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_thirty_two_racers_burn_three_thousand_tokens_three_thousand_times(kind, redis_server, valkey_server):
    server = redis_server if kind == "redis" else valkey_server
    store = open_store(server.url)
    books = [Book(store) for _ in range(6)]
    whole = [(book, book.read().revision) for book in books]
    burns = [
        ops.burn(book.minted(call, revision=revision)[1]) for book, revision in whole for call in range(500)
    ]  # as many as a run stores
    requests = [pack("EVALSHA", script(op.script).sha, len(op.keys), *op.keys, *op.args) for op in burns]
    books[0].send(burns[0])  # the script is known from here on
    accepted: Counter[int] = Counter({0: 1})
    start = threading.Barrier(32)

    def race(shift: int) -> None:
        order = [(shift + step) % 3000 for step in range(3000)]
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line, line.makefile("rb") as replies:
            start.wait()
            for at in range(0, 3000, 100):
                line.sendall(b"".join(requests[token] for token in order[at : at + 100]))
                for token in order[at : at + 100]:
                    assert replies.readline() == b"*4\r\n"
                    _key, kind, *_ = [(replies.readline(), replies.readline())[1].strip() for _ in range(4)]
                    accepted[token] += kind == b"ok"

    racers = [threading.Thread(target=race, args=(number * 90,)) for number in range(32)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    store.close()
    assert sum(accepted.values()) == 3000
    assert set(accepted.values()) == {1}


def test_after_a_restart_tokens_are_refused_and_only_reads_are_minted_again(binary, tmp_path):
    server = Server(binary, tmp_path / "own", durable=True)
    store = open_store(server.url)
    try:
        book = Book(store)
        old = book.read().lineage
        limit = (ops.LimitTake("count", 1, 3),)
        _, write = book.minted(1, limits=limit, ttl_ms=500)
        _, read = book.minted(2, limits=limit, ttl_ms=500)
        book.burn(book.minted(3, limits=limit)[1])
        server.kill()
        server.start()
        assert book.read().lineage != old
        assert [book.burn(write).kind, book.burn(read).kind] == ["lineage", "lineage"]
        assert book.mint(book.request(1)).kind == "outcome_unknown"
        assert book.mint(book.request(1, unspent=read.jti)).kind == "outcome_unknown"  # another token that was kept
        assert book.mint(book.request(3)).kind == "outcome_unknown"
        time.sleep(0.6)  # both tokens are dead, but nothing proves in this history that they were not burned
        assert book.mint(book.request(4, limits=limit)).kind == "limit"
        _, again = book.minted(2, read=True)
        assert book.burn(again).kind == "ok"
        assert book.burn(book.minted(1, unspent=write.jti)[1]).kind == "ok"  # its holder knows that it was not spent
    finally:
        store.close()
        server.stop()


def test_a_replayed_call_whose_share_was_counted_before_is_not_counted_again(binary, tmp_path):
    server = Server(binary, tmp_path / "own", durable=True)
    store = open_store(server.url)
    try:
        book = Book(store)
        _, lost = book.minted(1, limits=(ops.LimitTake("count", 1, 3),), ttl_ms=30)
        server.kill()
        server.start()
        time.sleep(0.1)
        for call, kind in ((2, "ok"), (3, "ok"), (4, "limit")):  # the last finds a share that cannot be proven unburned, and keeps it
            assert book.mint(book.request(call, limits=(ops.LimitTake("count", 1, 3),))).kind == kind
        taken = (recovery.Taken("count", 1, 0, for_run=False),)
        event = recovery.Event(
            book.tenant, book.run, lost.call_digest, lost.jti, lost.gen, b"{}", 1, "done", redeemed=True, limits=taken, audience=AUDIENCE
        )
        assert book.ask(recovery.replay(event)) == "ok"
        assert book.mint(book.request(1)).kind == "already_redeemed"
        assert book.mint(book.request(5, limits=(ops.LimitTake("count", 1, 4),))).kind == "ok"
    finally:
        store.close()
        server.stop()


def test_a_single_use_key_that_comes_back_burns_nothing_twice(book, server):
    request, burning = book.minted()
    book.burn(burning)
    server.command("SET", f"ag:{{{book.tenant}}}:token:{server_id(AUDIENCE)}:{request.jti}", request.binding)
    assert book.burn(burning).kind == "used"


def test_a_replaced_token_leaves_no_key(book, server):
    first, _ = book.minted()
    second, _ = book.minted()
    found = [server.command("EXISTS", f"ag:{{{book.tenant}}}:token:{server_id(AUDIENCE)}:{request.jti}") for request in (first, second)]
    assert found == [":0\r\n", ":1\r\n"]


def test_a_server_without_its_scripts_is_given_them_again(book, server):
    server.command("SCRIPT", "FLUSH")
    assert book.burn(book.minted()[1]).kind == "ok"


def test_no_key_of_a_run_lives_for_ever(book, server):
    windows = (ops.LimitTake("hour", 1, 9, 3_600_000), ops.LimitTake("run", 1, 9, for_run=True))
    assert book.mint(book.request(9, limits=(ops.LimitTake("refused", 2, 1, 3_600_000),))).kind == "limit"
    book.burn(book.minted(1, limits=windows, ttl_ms=30)[1])
    book.minted(2, limits=windows, hold=book.released(), ttl_ms=30)
    time.sleep(0.1)
    book.minted(3, limits=windows)
    keys = [word for word in server.command("KEYS", f"ag:{{{book.tenant}}}:*").split() if word.startswith("ag:")]
    lives = {
        key: int(server.command("PTTL", key)[1:])
        for key in keys
        if not key.endswith(("holds:all", "holds:since")) and key.split(":")[2] != "history"
    }
    kinds = "run runs clock mints burns limit times reserved hold holds open token"
    assert {key.split(":")[2] for key in lives} == set(kinds.split())
    assert min(lives.values()) > 0
    assert max(lives.values()) < 4 * 3_600_000


# faults


def test_a_server_that_is_down_refuses_in_time(book, server):
    op = ops.mint(book.request())
    server.kill()
    refused(book, op)  # the connection of before
    assert "Connect" in refused(book, op)  # a new one
    server.start()
    assert book.mint(book.request(revision="1.0")).kind == "missing"  # it lost everything, and says so


def test_a_hung_server_refuses_in_time_and_its_late_reply_reaches_nobody(book, server):
    _, first = book.minted(1)
    _, second = book.minted(2)
    book.burn(book.minted(3)[1])  # the script is known from here on
    server.pause()
    try:
        refused(book, ops.burn(first))  # the connection of before
        refused(book, ops.burn(first))  # a new one
    finally:
        server.resume()
    assert book.burn(second).kind == "ok"
    assert book.burn(first).kind == "used"  # it was burned late, and nobody was told


def test_a_server_short_of_replicas_refuses_and_writes_nothing(book, server):
    op = ops.mint(book.request())
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    assert "NOREPLICAS" in refused(book, op)
    assert book.read().calls == ()


def test_a_demoted_server_refuses(book, server):
    _, burning = book.minted()
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    refused(book, ops.burn(burning))
    with pytest.raises(StoreUnavailable, match="role"):
        book.store.check()


def test_a_promoted_server_is_another_history(book, server):
    _, burning = book.minted()
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    server.command("REPLICAOF", "NO", "ONE")
    assert book.burn(burning).kind == "lineage"


def test_an_evicting_server_is_refused_at_start(book, server):
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreUnavailable, match=r"maxmemory_policy.*allkeys-lru.*noeviction"):
        book.store.check()


def test_an_eviction_policy_that_changes_while_the_server_runs_is_noticed(book, server):
    pool = getattr(book.store, "_store", book.store)._topology.only
    _, burning = book.minted()
    for policy, works in (("allkeys-lru", False), ("allkeys-lru", False), ("noeviction", True)):
        server.command("CONFIG", "SET", "maxmemory-policy", policy)
        pool.looked = time.monotonic() - 11
        if works:
            assert book.burn(burning).kind == "ok"
        else:
            assert "maxmemory_policy" in refused(book, ops.burn(burning))


def test_a_server_that_takes_over_the_address_is_looked_at_before_it_is_used(book, server):
    book.store.check()
    _, burning = book.minted()
    server.stop()
    server._settings = ("--maxmemory-policy", "allkeys-lru")
    server.start()
    for _ in range(2):
        assert "maxmemory_policy" in refused(book, ops.burn(burning))
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert book.burn(burning).kind == "lineage"


@pytest.mark.parametrize(
    ("options", "changed", "text"),
    [
        ("", ("maxmemory-policy", "volatile-lru"), "maxmemory_policy"),
        ("?replicas=1", ("min-replicas-to-write", "0"), "min-replicas-to-write 1"),
    ],
)
def test_a_setting_that_a_server_must_have_is_looked_at_every_few_seconds(server, tmp_path, options, changed, text):
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    server.command("CONFIG", "SET", "min-replicas-max-lag", "2")
    with server.replica(tmp_path / "replica"):
        store = open_store(server.url + options)
        store.check()
        book = Book(store)
        server.command("CONFIG", "SET", *changed)
        _, burning = book.minted()  # just looked at
        store._topology.only.looked -= _exchange.LOOK_AGAIN  # type: ignore[attr-defined]  # of a RedisStore
        assert text in refused(book, ops.burn(burning))
        store.close()


def test_a_sentinel_and_a_replica_say_what_they_are(server, binary, tmp_path):
    replica = Server(binary, tmp_path / "replica", settings=("--replicaof", f"127.0.0.1 {server.port}"))
    port = free_port()
    (tmp_path / "sentinel.conf").write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {server.port} 1\n")
    command = [binary, str(tmp_path / "sentinel.conf"), "--sentinel"]
    sentinel = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        for address, text in ((replica.port, f"a replica of 127.0.0.1:{server.port}, expected the primary"), (port, "is a Sentinel")):
            store = open_store(f"redis://127.0.0.1:{address}")
            while True:
                with pytest.raises(StoreUnavailable) as caught:
                    store.check()
                if "refused" not in str(caught.value) or time.monotonic() > deadline:  # it listens
                    break
                time.sleep(0.05)
            assert text in str(caught.value)
            store.close()
    finally:
        sentinel.kill()
        sentinel.wait()
        replica.stop()


def test_a_writable_replica_burns_nothing(book, server):
    _, burning = book.minted()
    server.command("CONFIG", "SET", "replica-read-only", "no")
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    assert "role:master" in refused(book, ops.burn(burning))


def test_what_is_weak_about_a_server_is_said(book, server):
    settings = {weakness.setting for weakness in book.store.check()}
    assert settings == {"no append-only file", "no maxmemory", "store user: default"}


def test_a_well_kept_server_has_no_weakness(binary, tmp_path):
    server = Server(binary, tmp_path / "own", durable=True, settings=("--maxmemory", "1gb"))
    server.command("ACL", "SETUSER", "gate", "on", ">pw", "~ag:*", "+@all")
    store = open_store(server.url.replace("redis://", "redis://gate:pw@"))
    try:
        assert store.check() == ()
    finally:
        store.close()
        server.stop()


class _AsGate(Server):
    """A server that nobody but its named users may ask."""

    def command(self, *words: str) -> str:
        return super().command("AUTH gate pw\r\n", *words).removeprefix("+OK\r\n")


def test_a_restart_loses_nothing_under_the_documented_users(binary, tmp_path):
    lines = re.findall(r"^user (.+)$", (Path(__file__).parent.parent / "docs" / "state.md").read_text(), re.MULTILINE)
    users = [word for line in lines for word in ("--user", *line.replace(">...", ">pw").split())]
    server = _AsGate(binary, tmp_path / "own", durable=True, settings=tuple(users))
    assert Server.command(server, "PING").startswith("-NOAUTH")  # nobody is the default user
    stores = [open_store(server.url.replace("redis://", "redis://gate:pw@")) for _ in range(2)]
    try:
        book = Book(stores[0])
        assert {weakness.setting for weakness in book.store.check()} == {"no maxmemory"}
        before = book.read()
        server.kill()
        server.start()
        book.store = stores[1]
        assert replace(book.read(), revision=before.revision, lineage=before.lineage) == before
    finally:
        for store in stores:
            store.close()
        server.stop()


def test_a_run_whose_clock_was_evicted_burns_nothing(book, server):
    _, burning = book.minted(1)
    server.command("DEL", f"ag:{{{book.tenant}}}:clock:run_1")
    assert [book.burn(each).kind for each in (burning, book.minted(2)[1])] == ["used", "used"]
    book.ask(ops.close_run(book.tenant, book.run))
    assert book.burn(burning).kind == "revoked"


def test_a_first_replica_changes_the_lineage_and_the_run_says_that_it_is_there(book, server, tmp_path):
    op = ops.open_run(book.tenant, "kept", b"{}", "hi", 60_000, whose="lee", most=9, keeps="alone")
    assert book.ask(op).kind == "ok"
    book.run = "kept"
    before = book.read()
    with server.replica(tmp_path / "replica"):
        after = book.read()
    assert (before.acts, after.acts, before.lineage == after.lineage) == ("alone", "replicated", False)
    assert book.read().acts == "replicated"


@pytest.mark.parametrize("kind", [f"mints:{server_id(AUDIENCE)}:run_1", f"burns:{server_id(AUDIENCE)}:run_1"])
def test_a_run_whose_calls_were_evicted_is_missing_and_burns_nothing(book, server, kind):
    assert book.burn(book.minted(1)[1]).kind == "ok"
    _, burning = book.minted(2)
    server.command("DEL", f"ag:{{{book.tenant}}}:{kind}")
    revision = book.read().revision
    for _ in range(2):
        assert book.burn(burning).kind == "used"
    assert [book.refused(call, read=read, revision=revision) for call in (1, 2, 3) for read in (True, False)] == 6 * [("missing", "")]


def test_replicas_need_the_servers_own_fence(server):
    store = open_store(server.url + "?replicas=1")
    with pytest.raises(StoreUnavailable, match="min-replicas-to-write"):
        store.check()
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    assert "replicas=1, 0 connected" in {weakness.setting for weakness in store.check()}
    store.close()


def test_a_full_server_refuses_and_writes_nothing(book, server):
    op = ops.mint(book.request(limits=(ops.LimitTake("count", 1, 9, 1000),)))
    server.command("CONFIG", "SET", "maxmemory", "1")
    assert "OOM" in refused(book, op)
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert book.read().calls == ()


def test_a_user_without_info_gets_an_error_not_a_weaker_fence(book, server):
    _, burning = book.minted()
    server.command("ACL", "SETUSER", "blind", "on", ">secret-canary", "~*", "+@all", "-info")
    blind = Book.__new__(Book)
    blind.store = open_store(server.url.replace("redis://", "redis://blind:secret-canary@"))
    error = refused(blind, ops.burn(burning))
    blind.store.close()
    assert "permission" in error.lower()
    assert "secret-canary" not in error + repr(blind.store)
    assert book.burn(burning).kind == "ok"


def test_a_tool_servers_user_can_burn_and_report_but_not_write_runs_holds_or_revocations(book, server):
    _, burning = book.minted()
    store = ready_store(as_tool_server(server.url, AUDIENCE, book.tenant), (AUDIENCE, [book.tenant]))
    tool = Book.__new__(Book)
    tool.store, tool.tenant, tool.run, tool.burned = store, book.tenant, book.run, {}
    assert tool.burn(burning).kind == "ok"
    assert (tool.result(1), tool.outcome(1, "done")) == ("ok", "ok")
    for op in (
        ops.open_run(book.tenant, "run_2", b"{}", "hi", 1000, whose="lee", most=9),
        ops.add_turn(book.tenant, book.run, "please pay", harmless_after=1),
        book.opening("hold_1", ttl_ms=1000, answer_ms=1000),
        ops.revoke(book.tenant, "tenant", "*"),
        ops.mint(book.request(2)),
    ):
        refused(tool, op)
    store.close()


OTHER, SERVING = server_id("https://other.example"), (AUDIENCE, ["acme", "acme-eu"])
TOO_MUCH = (
    *("%RW~ag:{*}:run:*", "%R~ag:{acme}:run:*", "%RW~ag:{*}:hold:*", "%RW~ag:{*}:limit:*", "~*", "~ag:*"),
    *("%RW~ag:{*}:revoked:*", "%RW~ag:{acme-eu}:clock:*", "%RW~ag:{acme}:mints:*", "%R~ag:{acme}:mints:*", "%RW~ag:{*}:history:*"),
    *("%R~ag:{acme}:lastkey:*", "%R~ag:{acme}:token:*", "%R~ag:{acme}:history:*"),
    *("%RW~ag:{acme}:burns:*", "%R~ag:{acme-eu}:burns:*", "%RW~ag:{acme}:token:*", "%R~ag:{*}:clock:*"),
    f"%RW~ag:{{acme}}:mints:{server_id(AUDIENCE)}:*",
)


@pytest.mark.parametrize("more", TOO_MUCH)
def test_a_tool_server_whose_user_may_do_more_is_refused_at_start(server, more):
    url = as_tool_server(server.url, *SERVING[:1], *SERVING[1], more=(more,))
    with pytest.raises(ConfigError, match="a tool server's own"):
        ready_store(url, SERVING)
    with pytest.raises(ConfigError, match="a tool server's own"):
        asyncio.run(async_ready_store(url, SERVING))
    ready_store(url).close()  # a gate may


@pytest.mark.parametrize("serving", [(AUDIENCE, ["acme", "another"]), ("https://other.example", ["acme"])])
def test_a_tool_server_whose_user_may_not_do_what_it_must_is_refused_at_start(server, serving):
    with pytest.raises(ConfigError, match=r"may not (read|write) ag:"):
        ready_store(as_tool_server(server.url, AUDIENCE, "acme"), serving)


BEFORE = ("%RW~ag:{*}:jti:*", "%RW~ag:{*}:calls:*", "%RW~ag:{*}:history", "%R~ag:{*}:revoked:*")


def test_the_patterns_of_earlier_versions_are_a_warning_until_the_last_old_run_has_ended(server):
    url = as_tool_server(server.url, AUDIENCE, "acme", more=BEFORE)
    with capture_logs() as logs:
        ready_store(url, (AUDIENCE, ["acme"])).close()
    assert [each["setting"] for each in logs if "earlier" in each["setting"]] == ["key patterns of earlier versions in this user's ACL"]
    week_ago = int((time.time() - 7 * 24 * 3600) * 1000)
    server.command("HSET", "ag:{acme}:history", "owned", str(week_ago))
    ready_store(url, (AUDIENCE, ["acme"])).close()
    server.command("HSET", "ag:{acme}:history", "owned", str(week_ago - 2 * 3600 * 1000))
    with pytest.raises(ConfigError, match="a week after new runs need it"):
        ready_store(url, (AUDIENCE, ["acme"]))
    ready_store(as_tool_server(server.url, AUDIENCE, "acme"), (AUDIENCE, ["acme"])).close()
    server.command("DEL", "ag:{acme}:history")


def test_who_serves_every_tenant_is_told_what_that_means(server):
    own = server_id(AUDIENCE)
    everywhere = tuple(
        f"%{may}~ag:{{*}}:{kind}" for may, kind in (("RW", f"token:{own}:*"), ("RW", f"burns:{own}:*"), ("R", f"mints:{own}:*"))
    )
    with capture_logs() as logs:
        ready_store(as_tool_server(server.url, AUDIENCE, "acme", more=everywhere), (AUDIENCE, ["acme"])).close()
    assert "this user's own keys in tenants that it does not serve" in [each["setting"] for each in logs]


def test_a_wrong_password_is_refused_and_not_told(server):
    server.command("CONFIG", "SET", "requirepass", "right")
    url = server.url.replace("redis://", "redis://:wrong-canary@")
    for store in (open_store(url), Blocking(lambda: open_async_store(url))):
        with pytest.raises(StoreUnavailable, match="AUTH") as caught:
            store.check()
        assert "canary" not in str(caught.value) + repr(store)
        store.close()


def test_a_server_without_auth_does_not_tell_the_password_that_it_was_sent(tmp_path):
    """Its error names the arguments of a command that it does not know, and that error is logged."""
    server = Server(valkey_binary(), tmp_path / "server", settings=("--rename-command", "AUTH", ""))
    url = server.url.replace("redis://", "redis://:canary@")
    try:
        for store in (open_store(url), Blocking(lambda: open_async_store(url))):
            with pytest.raises(StoreUnavailable, match="AUTH was answered ERR unknown command") as caught:
                store.check()
            assert "canary" not in str(caught.value)
            store.close()
    finally:
        server.stop()


def test_a_write_that_no_replica_confirmed_is_refused_though_applied(server):
    store = open_store(server.url + "?replicas=1")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="applied, not confirmed"):
        store.call(ops.revoke("acme", "user", "lee"), started + LATE - 0.05)
    assert time.monotonic() - started < LATE
    plain = Book(open_store(server.url), tenant="acme")
    assert plain.mint(plain.request()).kind == "revoked"
    other = Book(plain.store)
    _, burning = other.minted()
    with pytest.raises(StoreUnavailable, match="applied, not confirmed"):
        store.call(ops.burn(burning), time.monotonic() + LATE - 0.05)
    assert other.burn(burning).kind == "used"
    plain.store.close()
    store.close()


def test_a_write_that_the_replica_confirmed_is_answered(server, tmp_path):
    with server.replica(tmp_path / "replica"):
        store = open_store(server.url + "?replicas=1")
        assert Book(store).minted()
        store.close()


def test_a_database_the_server_does_not_have_is_refused(server):
    for store in (open_store(f"{server.url}/99"), Blocking(lambda: open_async_store(f"{server.url}/99"))):
        with pytest.raises(StoreUnavailable, match="SELECT was answered"):
            store.call(ops.read_hold("acme", "h"), time.monotonic() + 1)
        store.close()


def test_an_idle_connection_that_the_server_closed_is_not_used(book, server):
    server.command("CLIENT", "KILL", "TYPE", "normal")
    time.sleep(0.05)
    assert book.read().calls == ()


def test_a_connection_serves_only_the_event_loop_that_opened_it(server):
    store = open_async_store(server.url)

    async def read() -> None:
        op = ops.read_hold("acme", "h")
        assert op.parse(await store.call(op, time.monotonic() + 1)) is None

    with asyncio.Runner() as one, asyncio.Runner() as another:
        for runner in (one, another, one):
            runner.run(read())
        one.run(store.close())


def test_a_store_closed_during_a_call_keeps_no_connection(server):
    store = open_store(server.url)
    op = ops.read_hold("acme", "h")
    store.call(op, time.monotonic() + 1)
    server.pause()
    caller = threading.Thread(target=store.call, args=(op, time.monotonic() + 10))
    caller.start()
    time.sleep(0.1)
    store.close()
    server.resume()
    caller.join()
    assert server.command("INFO", "clients").split("connected_clients:")[1].split()[0] == "1"  # the one that asks


def test_a_closed_store_refuses(server):
    store = open_store(server.url)
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.check()


# servers that do not keep to the protocol


def answering(reply: bytes, pause: float = 0.0) -> tuple[str, threading.Thread]:
    """A server that answers whatever it gets with `reply`, byte by byte when `pause` is set; its URL and thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def serve() -> None:
        with listener, listener.accept()[0] as line:
            line.recv(65536)
            for at in range(0, len(reply), 1 if pause else max(1, len(reply))):
                try:
                    line.sendall(reply[at : at + 1] if pause else reply)
                except OSError:
                    return
                time.sleep(pause)
            time.sleep(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"redis://127.0.0.1:{listener.getsockname()[1]}", thread


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"+OK\r\n+OK\r\n", "out of step"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "does not speak RESP2"),
        (b"$3\r\nabcde\r\n", "without its end"),
        (b"$x\r\n", "does not speak RESP2"),
        (b"*2\r\n+OK\r\n", "closed the connection"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"", "closed the connection"),
    ],
)
@pytest.mark.parametrize("opened", [open_store, lambda url: Blocking(lambda: open_async_store(url))], ids=["sync", "async"])
def test_a_malformed_reply_is_refused(reply, text, opened):
    url, thread = answering(reply)
    store = opened(url)
    with pytest.raises(StoreUnavailable, match=text):
        store.call(ops.read_hold("acme", "h"), time.monotonic() + 1)
    store.close()
    thread.join()


@pytest.mark.parametrize("opened", [open_store, lambda url: Blocking(lambda: open_async_store(url))], ids=["sync", "async"])
def test_a_reply_that_dribbles_is_cut_off_at_the_deadline(opened):
    url, thread = answering(b"$30\r\n" + b"x" * 30 + b"\r\n", pause=0.05)
    store = opened(url)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.call(ops.read_hold("acme", "h"), started + 0.2)
    assert time.monotonic() - started < LATE
    store.close()
    thread.join()


def test_a_cancelled_call_leaves_no_connection_behind(server):
    async def cancelled() -> None:
        store = open_async_store(server.url)
        await store.check()
        server.pause()
        work = asyncio.ensure_future(store.call(ops.read_hold("acme", "a"), time.monotonic() + 5))
        await asyncio.sleep(0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        server.resume()
        op = ops.read_hold("acme", "b")
        assert op.parse(await store.call(op, time.monotonic() + 1)) is None
        await store.close()

    asyncio.run(cancelled())


# settings


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory://x",
        "http://127.0.0.1",
        "redis://h?socket_timeout=60",
        "redis://h?retry_on_timeout=1",
        "rediss://h?ssl_cert_reqs=none",
        "redis://h?replicas=-1",
        "redis+cluster://h?db=1",
        "redis+cluster://h/0",
        "redis+sentinel://h:26379",
        "redis+sentinel://h:26379,/service",
        "redis+shards://h",
        "embedded://host/path",
        "embedded:///",
        "embedded:///tmp/x?replicas=1",
    ],
)
@pytest.mark.parametrize("opened", [open_store, open_async_store])
def test_a_url_that_is_unknown_or_weakens_a_call_is_refused(url, opened):
    with pytest.raises(ConfigError):
        opened(url)


@pytest.mark.parametrize("between", ["/", "#", "?", "?x=", "[", "@", "@/", "\uff0f", "%", ""])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis:"])
@pytest.mark.parametrize("opened", [open_store, open_async_store])
def test_a_password_that_was_not_escaped_is_in_no_error(opened, scheme, between):
    """A service logs why it does not start, with the whole chain of exceptions."""
    url = f"{scheme}://gate:hunter{between}canary@127.0.0.1:6379/0?nonsense=1"
    with pytest.raises(ConfigError) as refused:
        opened(url)
    shown = "".join(traceback.format_exception(refused.value))
    assert not {part for part in ("hunter", "canary") if part in shown}, shown


@pytest.mark.parametrize("between", ["/", "#"])
@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
def test_a_password_that_begins_like_a_port_is_no_address(scheme, between):
    """Else what stands before the mark is the port of this machine, and the rest a service; both are told."""
    url = f"{scheme}://:7777{between}canary@127.0.0.1:6379/service"
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    shown = "".join(traceback.format_exception(refused.value))
    assert not {part for part in ("7777", "canary") if part in shown}, shown


def test_a_run_whose_end_is_unknown_is_refused_before_anything_is_written(book, server):
    request = book.request()
    server.command("HDEL", f"ag:{{{book.tenant}}}:run:{book.run}", "ends")
    before = server.command("DBSIZE")
    refused(book, ops.mint(request))
    assert server.command("DBSIZE") == before
