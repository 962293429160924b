"""A store that is a cluster: each tenant on its shard; moves, failovers and losses of shards, with nothing accepted twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import pytest
from redis.crc import key_slot
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.stores import Store, open_async_store, open_store, ops, ready_store, recovery
from agentgate.stores._topology import Examination, Range, Topology
from agentgate_conformance._book import AUDIENCE, WHO, Book, ask
from agentgate_conformance.stores import Blocking, StoreConformance
from tests.servers import Server, as_tool_server, valkey_binary
from tests.watched import FENCED, Load, Shards, until

# Debian's, where they are installed: too old for a cluster, the second of the wheel's kind.
OLDER = [path for path in map(shutil.which, ("redis-server", "valkey-server")) if path]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    """Three shards that no test takes away."""
    shards = Shards(valkey_binary(), tmp_path_factory.mktemp("shards"), replicas=0)
    yield shards
    shards.stop()


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[Shards]:
    found = Shards(valkey_binary(), tmp_path / "shards", settings=FENCED, replicas=2)  # one is left to confirm
    yield found
    found.stop()


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Callable[[str], Store]:
    return open_store if request.param == "sync" else lambda url: Blocking(lambda: open_async_store(url))


_fresh = count()


def tenant_of(shards: Shards, server: Server) -> str:
    """A new tenant whose slot is this server's."""
    return next(name for name in (f"t{number}" for number in _fresh) if shards.owner(name) is server)


def refusal(store: Store) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        store.check()
    store.close()
    return str(refused.value)


def lost(store: Store, tenant: str) -> bool:
    return bool(ask(store, recovery.read_history(tenant)).lost)


def test_each_tenant_is_on_its_shard_and_a_call_goes_its_way(lasting: Shards, opened: Callable[[str], Store]) -> None:
    store = opened(lasting.url)
    assert {each.code for each in store.check()} == {"store_may_lose", "store_weak"}
    for server in lasting.primaries:
        book = Book(store, tenant_of(lasting, server))
        _, burning = book.minted()
        assert [book.burn(burning).kind for _ in range(2)] == ["ok", "used"]
        assert f"ag:{{{book.tenant}}}" in server.command("KEYS", f"ag:{{{book.tenant}}}:*")
        assert all(str(each.port) in store.where.told for each in lasting.primaries)
    store.close()


def test_a_move_as_a_whole_refuses_what_is_in_flight_and_goes_on(lasting: Shards, opened: Callable[[str], Store]) -> None:
    store = opened(lasting.url)
    store.check()
    first, second, _ = lasting.primaries
    book = Book(store, tenant_of(lasting, first))
    done = book.minted(1)[1]
    assert book.burn(done).kind == "ok"
    flying = book.minted(2)[1]
    history = book.ask(recovery.read_history(book.tenant))
    lasting.move(book.tenant, second)
    assert [book.burn(each).kind for each in (flying, done)] == ["lineage", "lineage"]
    assert book.refused(1)[0] in {"outcome_unknown", "already_redeemed"}
    _, burning = book.minted(3)
    assert [book.burn(burning).kind for _ in range(2)] == ["ok", "used"]
    assert not lost(store, book.tenant)
    assert not history.lost
    lasting.move(book.tenant, first)  # it comes back, to the server whose lineage it had: what flew then is void now
    assert [book.burn(each).kind for each in (flying, done, burning)] == ["lineage"] * 3
    assert book.minted(4)
    assert not lost(store, book.tenant)
    store.close()


def test_a_move_key_by_key_counts_as_lost(lasting: Shards, opened: Callable[[str], Store]) -> None:
    store = opened(lasting.url)
    store.check()
    first, second, _ = lasting.primaries
    book = Book(store, tenant_of(lasting, first))
    assert book.burn(book.minted(1)[1]).kind == "ok"
    flying = book.minted(2)[1]
    lasting.move_by_key(book.tenant, second)
    assert book.burn(flying).kind == "lineage"
    assert book.refused(3) == ("outcome_unknown", "lost")
    assert lost(store, book.tenant)
    store.close()


def test_an_earlier_move_as_a_whole_says_nothing_of_a_later_one(lasting: Shards) -> None:
    store = open_store(lasting.url)
    store.check()
    first, second, _ = lasting.primaries
    book = Book(store, tenant_of(lasting, first))
    for target in (second, first):
        lasting.move(book.tenant, target)
        assert book.minted(lasting.primaries.index(target) + 1)
    time.sleep(3.1)  # the server's own record counts in seconds
    lasting.move_by_key(book.tenant, second)
    assert book.refused(3) == ("outcome_unknown", "lost")
    store.close()


def test_a_token_that_was_burned_elsewhere_is_void_where_its_tenant_comes_back(lasting: Shards) -> None:
    """A tool server is the first to ask on each shard, and may not write what tells the stays apart."""
    gate = open_store(lasting.url)
    gate.check()
    first, second, _ = lasting.primaries
    book = Book(gate, tenant_of(lasting, first))
    tool = ready_store(as_tool_server(lasting.url, AUDIENCE, book.tenant), (AUDIENCE, (book.tenant,)))
    flying = book.minted(1)[1]
    lasting.move(book.tenant, second)
    lineage = second.command("INFO", "replication").split("master_replid:")[1][:40]
    assert ask(tool, ops.burn(flying._replace(gen=lineage))).kind == "lineage", "a guess at the server's own"
    assert book.minted(2)
    lasting.move(book.tenant, first)
    assert ask(tool, ops.burn(flying)).kind == "lineage"
    tool.close()
    gate.close()


def test_what_the_store_keeps_is_what_its_worst_shard_keeps(tmp_path: Path, opened: Callable[[str], Store]) -> None:
    shards = Shards(valkey_binary(), tmp_path / "shards", replicas=0, settings=("--appendonly", "yes", "--appendfsync", "always"))
    store = opened(shards.url)
    store.check()
    kept = [store.keeps]
    shards.primaries[0].command("CONFIG", "SET", "appendfsync", "everysec")
    store.check()
    assert [*kept, store.keeps] == ["alone", "no"]
    store.close()
    shards.stop()


def test_a_tool_server_whose_user_may_do_more_does_not_start_on_a_cluster(lasting: Shards) -> None:
    url = as_tool_server(lasting.url, AUDIENCE, "acme", more=("%RW~ag:{acme}:run:*",))
    with pytest.raises(ConfigError, match="a user who may write"):
        ready_store(url, (AUDIENCE, ("acme",)))


def test_while_a_slot_moves_key_by_key_nothing_is_decided_on_a_part_of_a_tenant(lasting: Shards, opened: Callable[[str], Store]) -> None:
    """What was revoked stays so: the revocation has moved already, and the run has not."""
    store = opened(lasting.url)
    store.check()
    first, second, _ = lasting.primaries
    book = Book(store, tenant_of(lasting, first))
    _, burning = book.minted(1)
    book.revoke("agent", "runtime-1")
    lasting.begin_by_key(book.tenant, first, second)
    for key in first.command("KEYS", f"ag:{{{book.tenant}}}:revo*").split("\r\n")[2::2]:
        assert first.command("MIGRATE", "127.0.0.1", str(second.port), key, "0", "5000").startswith("+OK")
    for op in (ops.burn(burning), ops.open_run(book.tenant, "r2", b"{}", "x", 1000, whose="lee", most=9, who=burning.subjects)):
        with pytest.raises(StoreUnavailable):
            book.send(op)
    kept = ops.keep(book.tenant, "assertion", "one", b"1", ttl_ms=60_000)
    assert [book.ask(kept) for _ in range(2)] == ["ok", "exists"], "a script of one key follows ASK"
    slot = str(key_slot(book.tenant.encode()))
    for server in (second, first):
        assert server.command("CLUSTER", "SETSLOT", slot, "STABLE").startswith("+OK")
    store.close()


def test_a_release_that_was_taken_back_is_not_read_as_one_where_only_it_has_moved(lasting: Shards, opened: Callable[[str], Store]) -> None:
    """When the user took back is told by another key, which the hold names, and which is not there yet."""
    store = opened(lasting.url)
    store.check()
    first, second, _ = lasting.primaries
    book = Book(store, tenant_of(lasting, first))
    book.released()
    book.ask(ops.add_turn(book.tenant, book.run, "Stop, do not refund anything", harmless_after=None))
    read = ops.read_hold(book.tenant, "hold_1")
    before = book.ask(read)
    assert before is not None
    assert before.state == "cancelled"
    lasting.begin_by_key(book.tenant, first, second)
    key = f"ag:{{{book.tenant}}}:hold:hold_1"
    assert first.command("MIGRATE", "127.0.0.1", str(second.port), key, "0", "5000").startswith("+OK")
    with pytest.raises(StoreUnavailable, match="TRYAGAIN"):
        book.ask(read)
    slot = str(key_slot(book.tenant.encode()))
    for server in (second, first):
        server.command("CLUSTER", "SETSLOT", slot, "STABLE")
    store.close()


def test_a_tool_server_burns_on_a_shard_with_rights_to_nothing_more(lasting: Shards) -> None:
    gate = open_store(lasting.url)
    gate.check()
    tenant = tenant_of(lasting, lasting.primaries[0])
    book = Book(gate, tenant)
    flying, burning = book.minted(1)[1], book.minted(2)[1]
    tool = ready_store(as_tool_server(lasting.url, AUDIENCE, tenant), (AUDIENCE, (tenant,)))
    assert [ask(tool, ops.burn(burning)).kind for _ in range(2)] == ["ok", "used"]
    lasting.move(tenant, lasting.primaries[1])
    assert ask(tool, ops.burn(flying)).kind == "lineage", "before any gate was there"
    assert book.minted(3)
    assert not lost(gate, tenant)
    tool.close()
    gate.close()


GATE = "on >pw ~ag:* +@all -@dangerous +info +config|get +cluster|getslotmigrations".split()  # as in docs/state.md


@pytest.mark.parametrize("rights", [GATE, GATE[:-1]])
def test_a_gates_user_is_told_how_a_slot_came_or_counts_the_tenant_as_lost(lasting: Shards, rights: list[str]) -> None:
    for server in lasting.primaries:
        server.command("ACL", "DELUSER", "gate")
        server.command("ACL", "SETUSER", "gate", *rights)
    store = open_store(lasting.url.replace("://", "://gate:pw@"))
    told = "\n".join(each.setting for each in store.check())
    assert ("moves of slots: not told to this user" in told) == (rights != GATE)
    book = Book(store, tenant_of(lasting, lasting.primaries[0]))
    assert book.burn(book.minted(1)[1]).kind == "ok"
    lasting.move(book.tenant, lasting.primaries[1])
    assert book.mint(book.request(2)).kind == ("ok" if rights == GATE else "outcome_unknown")
    assert lost(store, book.tenant) == (rights != GATE)
    store.close()


def test_an_older_server_a_cluster_under_another_url_and_the_reverse_are_named(lasting: Shards, tmp_path: Path) -> None:
    told = refusal(open_store(f"redis://127.0.0.1:{lasting.primaries[0].port}"))
    assert "cluster_enabled: got '1'" in told
    assert "redis+cluster://" in told
    single = Server(valkey_binary(), tmp_path / "single")
    told = refusal(open_store(f"redis+cluster://127.0.0.1:{single.port}"))
    assert "no node of a cluster" in told
    assert "setting 'store'" in told
    single.stop()
    for old in OLDER:
        older = Shards(old, tmp_path / Path(old).name, shards=1, replicas=0)
        told = refusal(open_store(older.url))
        older.stop()
        assert "in the cluster of setting 'store', expected Redis 8.4 or Valkey 9" in told
    if OLDER[1:]:
        mixed = Shards(valkey_binary(), tmp_path / "mixed", replicas=0, odd=OLDER[1])
        told = refusal(open_store(mixed.url))
        mixed.stop()
        assert "in the cluster of setting 'store', expected Redis 8.4 or Valkey 9" in told


def test_versions_that_differ_are_a_row() -> None:
    topology = Topology("redis+cluster://a:1,b:2")
    topology.learn(topology.endpoint.guides[0], [Range(0, 8191, "a", 1), Range(8192, 16383, "b", 2)])
    for pool, version in zip(topology.primaries, ((9, 0, 1), (9, 1, 2)), strict=True):
        pool.version = ("valkey", version)
    (row,) = Examination(topology).weaknesses()
    assert row.setting == "versions in the cluster of setting 'store': valkey 9.0.1, valkey 9.1.2"


def test_a_cluster_that_is_down_and_slots_without_a_shard_are_named(tmp_path: Path) -> None:
    shards = Shards(valkey_binary(), tmp_path / "shards", replicas=0, whole="yes")
    shards.primaries[0].command("CLUSTER", "DELSLOTSRANGE", "100", "200")
    until(lambda: "cluster_state:fail" in shards.primaries[0].command("CLUSTER", "INFO"))
    told = refusal(open_store(f"redis+cluster://127.0.0.1:{shards.primaries[0].port}"))
    assert "setting 'store'" in told
    assert "100-200" in told
    shards.primaries[0].command("CLUSTER", "ADDSLOTSRANGE", "100", "200")
    until(shards.whole)
    store = open_store(shards.url)
    assert any("cluster-require-full-coverage yes" in each.setting for each in store.check())
    shards.primaries[2].kill()
    until(lambda: "cluster_state:fail" in shards.primaries[0].command("CLUSTER", "INFO"))
    with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
        Book(store, tenant_of_slot(shards, 0))
    assert "cluster_state of setting 'store'" in refusal(store)
    shards.stop()


def tenant_of_slot(shards: Shards, place: int) -> str:
    """A tenant of a primary, by its number."""
    first, last = (16384 * each // len(shards.primaries) for each in (place, place + 1))
    return next(name for name in (f"t{number}" for number in _fresh) if first <= key_slot(name.encode()) < last)


OTHERS = pytest.mark.thorough("each fault, and each kind of store, is tried with the other")


def failed(shards: Shards, old: Server) -> None:
    old.kill()


def paused(shards: Shards, old: Server) -> None:
    old.pause()


@pytest.mark.deadline
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *((failed, "sync"), (paused, "async")),
        *(pytest.param(*each, marks=OTHERS) for each in ((failed, "async"), (paused, "sync"))),
    ],
)
def test_a_shards_primary_is_lost_under_load_and_its_replica_goes_on(
    shards: Shards, fault: Callable[[Shards, Server], None], kind: str
) -> None:
    old, replicas = shards.primaries[0], shards.replicas[:2]
    tenants = [tenant_of_slot(shards, place) for place in range(3)]
    load = Load(shards.url + "?replicas=1", kind, tenants)
    try:
        until(lambda: len(load.minted) > 20)
        fault(shards, old)
        begun = time.monotonic()
        until(lambda: any("role:master" in each.command("INFO", "replication") for each in replicas), 20)
        promoted = time.monotonic()
        until(lambda: load.again(promoted, *tenants) < 99, 8)
        time.sleep(0.5)
    finally:
        load.end()
        print(load.told(begun))
    others = max(b - a for a, b in pairs([at for at, whose in load.minted if whose != tenants[0] and at > begun]))
    print(load.told(promoted), f"its tenant after {load.again(promoted, tenants[0]):.2f} s, others waited {others:.2f} s")
    assert load.twice() == []
    assert load.slowest < 0.3
    assert load.again(promoted, tenants[0]) < 5
    assert others < 1.5, "the other tenants go on"


def goes_on(load: Load, since: float, tenant: str) -> bool:
    return load.again(since, tenant) < 99


def pairs(times: list[float]) -> list[tuple[float, float]]:
    return list(pairwise(times))


@pytest.mark.deadline
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_slot_moves_under_load_of_its_tenant(lasting: Shards, kind: str) -> None:
    tenant = tenant_of(lasting, lasting.primaries[0])
    load = Load(lasting.url, kind, (tenant, tenant_of(lasting, lasting.primaries[2])))
    try:
        until(lambda: len(load.minted) > 20)
        for target in (lasting.primaries[1], lasting.primaries[2], lasting.primaries[0]):
            lasting.move(tenant, target)
            moved = time.monotonic()
            until(partial(goes_on, load, moved, tenant), 5)
            print(load.told(moved), f"{load.again(moved, tenant):.2f} s")
    finally:
        load.end()
    assert load.twice() == []
    assert load.slowest < 0.3
    assert not lost(open_store(lasting.url), tenant)


def test_a_shard_that_is_lost_takes_its_own_tenants_only(tmp_path: Path, opened: Callable[[str], Store]) -> None:
    shards = Shards(valkey_binary(), tmp_path / "shards", replicas=0)
    store = opened(shards.url)
    store.check()
    books = [Book(store, tenant_of_slot(shards, place)) for place in range(3)]
    shards.primaries[1].kill()
    for book in (books[0], books[2]):
        assert book.minted()
    with pytest.raises(StoreUnavailable):
        books[1].minted()
    assert [each.code for each in store.check()].count("shard_away") == 1
    for book in (books[0], books[2]):
        assert book.minted()
    store.close()
    assert str(shards.primaries[1].port) in refusal(opened(shards.url)), "none starts on a part of a cluster"
    shards.stop()


class TestSharded(StoreConformance):
    """The suite of every store. A shard refuses a script that touches a key of another slot, so it also shows that none does."""

    @pytest.fixture(
        params=[pytest.param("sync", marks=pytest.mark.thorough("as in test_declared_keys, whose scripts are watched")), "async"]
    )
    def store(self, request: pytest.FixtureRequest, lasting: Shards) -> Iterator[Store]:
        for server in lasting.primaries:
            server.command("FLUSHALL")
        url = lasting.url
        store = open_store(url) if request.param == "sync" else Blocking(lambda: open_async_store(url))
        yield store
        store.close()

    def test_tenants_do_not_meet(self, store: Store) -> None:
        """A lineage is of a tenant's stay, so a token of another tenant fails already there."""
        one, other = Book(store), Book(store)
        _, burning = one.minted()
        assert other.burn(burning._replace(tenant=other.tenant)).kind == "lineage"
        one.revoke("agent", WHO.agent)
        assert other.mint(other.request()).kind == "ok"


def test_what_belongs_to_no_tenant_is_on_every_shard(lasting: Shards, opened: Callable[[str], Store]) -> None:
    """Client assertions count once, and marks only rise, wherever they are."""
    for server in lasting.primaries:
        server.command("FLUSHALL")
    store = opened(lasting.url)
    store.check()
    for number in range(40):
        keep = ops.keep("service-clients", "assertion", f"payments {number}", b"1", ttl_ms=60_000)
        assert [ask(store, keep) for _ in range(2)] == ["ok", "exists"]
        gate = f"https://gate-{number}.acme.example"
        assert ask(store, ops.raise_marks(gate, {"index": number + 1})) == {"index": number + 1}
        assert ask(store, ops.raise_marks(gate, {"index": 0})) == {"index": number + 1}
    for server in lasting.primaries:
        for kind in ("service-clients", "_approvals"):
            assert f"ag:{{{kind}-" in server.command("KEYS", f"ag:{{{kind}*")
    store.close()


def test_a_hold_that_waits_is_answered_after_its_tenant_moved(lasting: Shards, opened: Callable[[str], Store]) -> None:
    store = opened(lasting.url)
    store.check()
    book = Book(store, tenant_of(lasting, lasting.primaries[0]))
    held = book.hold()
    lasting.move(book.tenant, lasting.primaries[1])
    assert (held.state, book.hold().state) == ("pending", "pending")
    take = book.released()
    request, burning = book.minted(1, hold=take)
    assert [book.burn(burning).kind for _ in range(2)] == ["ok", "used"]
    assert book.refused(2, hold=take)[0] == "hold"
    assert request.hold == take
    assert not lost(store, book.tenant)
    store.close()


def test_doctor_tells_the_shards(lasting: Shards) -> None:
    shown = CliRunner().invoke(app, ["doctor", "--store", lasting.url, "--json"]).stdout
    assert f": shards by node 127.0.0.1:{lasting.primaries[0].port}" in shown
