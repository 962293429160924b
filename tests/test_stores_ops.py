"""Operations as values: keys, names, replies, and what a server must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgate.errors import NameRefused, StoreUnavailable
from agentgate.stores import ops
from agentgate.stores._endpoint import Endpoint
from agentgate.stores._health import PROBE, judge, keeps, weak_backlog, weak_file, weak_user
from agentgate.stores._resp import MAX_REPLY, MORE, Reply, ServerError, pack
from agentgate_conformance._book import WHO

DIGEST = "a" * 64
MINT = ops.MintRequest("acme-eu", "run_1", "1.0", DIGEST, b"{}", "j" * 22, DIGEST, 65_000, False, WHO)
BURN = ops.BurnRequest("acme-eu", "j" * 22, "0" * 40, DIGEST, "run_1", DIGEST, WHO)


def test_all_keys_of_a_tenant_share_its_hash_tag():
    full = MINT._replace(
        limits=(ops.LimitTake("x", 1, 1),), hold=ops.HoldTake("h", "1"), same_key=("a}b{", "t"), subjects=WHO._replace(user="{evil}")
    )
    burn = ops.burn(BURN._replace(subjects=full.subjects))
    revocations = [arg for arg in burn.args if str(arg).startswith("ag:")]
    assert len(revocations) == 7
    for op in (
        ops.mint(full),
        burn,
        ops.open_hold(
            "acme-eu",
            "run_1",
            "h",
            b"",
            audience="https://a",
            act="a" * 64,
            ttl_ms=1,
            answer_ms=1,
            most=1,
            whose="}",
            most_own=1,
            asks=[("group", "{x}")],
        ),
        ops.revoke("acme-eu", "user", "{other}"),
    ):
        for key in (*op.keys, *map(str, revocations)):
            assert key[key.index("{") + 1 : key.index("}")] == "acme-eu"


@pytest.mark.parametrize("tenant", ["", "a}b", "{a}", "a:b", "a b", "ä", "a\n", "a" * 65, None, 7])
def test_a_tenant_that_could_break_the_tag_is_refused(tenant):
    with pytest.raises(NameRefused, match="tenant"):
        ops.read_run(tenant, "run_1")


@pytest.mark.parametrize(
    "change",
    [
        {"run": "run:1"},
        {"run": ""},
        {"jti": "a b"},
        {"jti": "x" * 129},
        {"call_digest": "A" * 64},
        {"call_digest": "a" * 63},
        {"binding": ""},
        {"ttl_ms": 0},
        {"ttl_ms": True},
        {"ttl_ms": 1.5},
        {"head": "text"},
        {"head": b"x" * (1024 * 1024 + 1)},
        {"limits": (ops.LimitTake("x", 1, 1), ops.LimitTake("x", 1, 2))},
        {"limits": (ops.LimitTake("", 1, 1),)},
        {"limits": (ops.LimitTake("x", -1, 1),)},
        {"limits": (ops.LimitTake("x", 2**53, 1),)},
        {"limits": (ops.LimitTake("x", True, 1),)},
        {"limits": tuple(ops.LimitTake(str(n), 1, 1) for n in range(65))},
        {"hold": ops.HoldTake("h:1", "1")},
        {"hold": ops.HoldTake("h", "")},
        {"same_key": ("", "t")},
        {"same_key": ("a", "")},
        {"subjects": WHO._replace(agent="")},
        {"subjects": WHO._replace(agent="\ud800")},
        {"revision": "1 0"},
        {"revision": "\ud800"},
        {"subjects": WHO._replace(workflow="")},
    ],
)
def test_a_mint_with_a_malformed_field_is_refused_before_anything_is_sent(change):
    with pytest.raises(NameRefused):
        ops.mint(MINT._replace(**change))


@pytest.mark.parametrize("change", [{"gen": "0" * 39}, {"gen": "g" * 40}, {"jti": "../x"}, {"binding": "b"}, {"tenant": "a}"}])
def test_a_burn_with_a_malformed_field_is_refused_before_anything_is_sent(change):
    with pytest.raises(NameRefused):
        ops.burn(BURN._replace(**change))


def test_a_turn_without_utf8_form_is_refused():
    with pytest.raises(NameRefused, match="turn"):
        ops.add_turn("acme", "run_1", "pay \ud800", harmless_after=1)


def test_unknown_words_are_refused():
    with pytest.raises(NameRefused):
        ops.record_outcome("acme", "run_1", DIGEST, "great", "j", audience="https://a")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(NameRefused):
        ops.answer_hold("acme", "h", "1", b"", "spent")
    with pytest.raises(NameRefused):
        ops.revoke("acme", "everything", "x")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(NameRefused):
        ops.revoke("acme", "tenant", "another")


def test_only_a_plain_true_makes_a_call_a_read():
    read_flag = 7
    assert ops.mint(MINT._replace(read=True)).args[read_flag] == 1
    assert ops.mint(MINT._replace(read="yes")).args[read_flag] == 0  # type: ignore[arg-type]  # the point of the test


OK_BURN = [ops.burn(BURN).keys[0].encode(), b"ok", b"{}", b""]


@pytest.mark.parametrize(
    "raw",
    [
        None,
        1,
        b"OK",
        [*OK_BURN[:3], b"1 2"],
        [],
        OK_BURN[:2],
        [*OK_BURN, b""],
        [b"ag:{acme-eu}:jti:another", b"ok", b"{}", b""],
        [OK_BURN[0], b"fine", b"{}", b""],
        [OK_BURN[0], 1, b"{}", b""],
        [OK_BURN[0], None, b"{}", b""],
    ],
)
def test_a_burn_reply_that_is_not_this_tokens_is_refused(raw):
    op = ops.burn(BURN)
    assert op.parse(OK_BURN).kind == "ok"
    with pytest.raises(StoreUnavailable):
        op.parse(raw)


@pytest.mark.parametrize("lineage", [b"", b"0" * 39, b"G" * 40, None, 1])
def test_a_mint_reply_without_a_lineage_is_refused(lineage):
    op = ops.mint(MINT)
    with pytest.raises(StoreUnavailable, match="lineage"):
        op.parse([op.keys[0].encode(), b"ok", lineage, *[b""] * 7])


@pytest.mark.parametrize("lost", [b"header", b"rev", b"turns", b"turn:1"])
@pytest.mark.parametrize("known", ["", f"2.0.{'0' * 40}", f"1.0.{'1' * 40}"])  # nothing, another revision, another lineage
def test_a_run_with_a_lost_field_is_unreadable_not_empty(lost, known):
    op = ops.read_run("acme", "run_1", known)
    fields = {b"header": b"{}", b"rev": b"1", b"turns": b"1", b"turn:1": b"hi"}
    flat = [part for name, value in fields.items() if name != lost for part in (name, value)]
    with pytest.raises(StoreUnavailable, match="unreadable"):
        op.parse([op.keys[0].encode(), b"0" * 40, flat, b"0", [], b"all", b"any"])


_RUN = [b"header", b"{}", b"rev", b"1", b"turns", b"1", b"turn:1", b"hi"]


@pytest.mark.parametrize(
    ("op", "rest"),
    [
        (ops.mint(MINT), [b"ok", b"0" * 40, None, b"", b"", b""]),
        (ops.read_run("acme", "run_1"), [b"0" * 40, 1, b"0", [], b"all", b"any"]),
        (ops.read_run("acme", "run_1"), [b"0" * 40, [b"header"], b"0", [], b"all", b"any"]),
        (ops.read_run("acme", "run_1"), [b"0" * 40, _RUN, b"0", [[b"x"]], b"all", b"any"]),
        (ops.read_run("acme", "run_1"), [b"0" * 40, [*_RUN[:3], b"one", *_RUN[4:]], b"0", [], b"all", b"any"]),
        (ops.read_hold("acme", "h"), [b"pending", b"{}", b"x", b""]),
        (ops.read_hold("acme", "h"), [b"pending", b"{}", b"1", None]),
        (ops.list_holds("acme"), [None, 0]),
        (ops.list_holds("acme"), [[1], 0]),
        (ops.list_holds("acme"), [[], 2]),
        (ops.raise_marks("https://g", {"a": 1}), [[b"x"]]),
        (ops.raise_marks("https://g", {"a": 1}), [[]]),
    ],
)
def test_a_reply_with_values_of_another_form_is_unreadable(op, rest):
    with pytest.raises(StoreUnavailable, match="unreadable"):
        op.parse([op.keys[0].encode(), *rest])


@pytest.mark.parametrize("extent", [b"", b"some", None, 1])
def test_a_run_of_unknown_extent_is_refused(extent):
    op = ops.read_run("acme", "run_1", "1.0")
    run = [b"header", b"{}", b"rev", b"1", b"turns", b"1", b"turn:1", b"hi"]
    record = op.parse([op.keys[0].encode(), b"0" * 40, run, b"0", [], b"since", b"any"])
    assert record is not None
    assert record.since
    with pytest.raises(StoreUnavailable, match="expected one of all, since"):
        op.parse([op.keys[0].encode(), b"0" * 40, run, b"0", [], extent, b"any"])


def test_a_call_record_of_unknown_status_is_unreadable():
    op = ops.read_run("acme", "run_1")
    run = [b"header", b"{}", b"rev", b"1", b"turns", b"1", b"turn:1", b"hi"]
    call = [DIGEST.encode(), b"{}", b"0" * 40, b"redeemed", b"1", b"", None]
    assert op.parse([op.keys[0].encode(), b"0" * 40, run, b"1", [call], b"all", b"any"]) is not None
    call[3] = b"maybe"
    with pytest.raises(StoreUnavailable, match="unreadable"):
        op.parse([op.keys[0].encode(), b"0" * 40, run, b"1", [call], b"all", b"any"])


# the server

PLAIN = Endpoint.of("redis://h")
INFO = {"role": "master", "maxmemory_policy": "noeviction", "cluster_enabled": "0", "redis_version": "7.2.4"}


def probe(lineage: bytes = b"0" * 40, clock: bytes = b"1000000") -> list[bytes]:
    return [str(PROBE.args[0]).encode(), lineage, clock]


def info(**changes: str) -> bytes:
    return "\r\n".join(["# Server", *(f"{name}:{value}" for name, value in (INFO | changes).items())]).encode()


def test_a_fit_server_is_accepted():
    judge(PLAIN, info(), probe(), 1000.0, 1000.1)
    judge(PLAIN, info(redis_version="8.0.2"), probe(clock=b"1000900"), 1000.0, 1000.0)


FULL = {"aof_enabled": "1", "connected_slaves": "0", "maxmemory": "1000", "used_memory": "100"}
FENCED = {"min_slaves_good_slaves": "1"}


@pytest.mark.parametrize(
    ("url", "changes", "settings"),
    [
        ("redis://h", {}, []),
        ("redis://h", {"maxmemory": "0"}, ["no maxmemory"]),
        ("unix:///run/store.sock", {"maxmemory": "0"}, []),
        ("redis://h", {"used_memory": "801"}, ["maxmemory: 80 % used"]),
        ("redis://h", {"connected_slaves": "2"}, ["2 replicas, none of which confirms a write"]),
        ("redis://h", {"connected_slaves": "1", "slave0": "ip=10.0.0.9,port=0,state=wait_bgsave,offset=0,lag=0"}, []),
        ("redis://h?replicas=1", {"connected_slaves": "2", **FENCED}, []),
        ("redis://h?replicas=2", {"connected_slaves": "1", **FENCED}, ["replicas=2, 1 connected"]),
    ],
)
def test_a_weak_setting_is_named(url, changes, settings):
    found = judge(Endpoint.of(url), info(**(FULL | changes)), probe(), 1000.0, 1000.1)
    assert [weakness.setting for weakness in found] == settings
    assert all(weakness.means and weakness.remedy for weakness in found)


def test_replicas_without_the_servers_own_fence_are_refused():
    with pytest.raises(StoreUnavailable, match=r"min-replicas-to-write 1 and min-replicas-max-lag"):
        judge(Endpoint.of("redis://h?replicas=1"), info(**FULL), probe(), 1000.0, 1000.1)


SYNCED = [b"appendonly", b"yes", b"appendfsync", b"always", b"no-appendfsync-on-rewrite", b"no"]


DUMP = {"connected_slaves": "1", "slave0": "ip=10.0.0.9,port=0,state=wait_bgsave,offset=0,lag=0,type=replica"}
REPLICA = {"connected_slaves": "1", "slave0": "ip=10.0.0.9,port=6379,state=online,offset=0,lag=0,type=replica"}


@pytest.mark.parametrize(
    ("url", "changes", "config", "setting"),
    [
        ("redis://h", {"repl_backlog_active": "0"}, SYNCED, ""),
        ("redis://h", {"repl_backlog_active": "1"}, SYNCED, "a replica, or a dump (redis-cli --rdb), was attached lately"),
        ("redis://h", {"repl_backlog_active": "1", **DUMP}, SYNCED, "a dump (redis-cli --rdb) is attached"),
        ("redis://h", {"repl_backlog_active": "1", **REPLICA}, SYNCED, ""),  # told as a replica that confirms nothing
        ("redis://h", {"repl_backlog_active": "1", **DUMP, "connected_slaves": "2"}, SYNCED, ""),
        ("redis://h?replicas=1", {"repl_backlog_active": "1"}, SYNCED, ""),
        ("redis://h", {"repl_backlog_active": "1"}, ServerError("NOPERM"), ""),  # its acts are their own gate's in any case
    ],
)
def test_a_dump_or_a_replica_that_left_is_told_with_its_end(url, changes, config, setting):
    ttl = [b"repl-backlog-ttl", b"3600"] if type(config) is list else []
    found = weak_backlog(Endpoint.of(url), info(**changes), config + ttl if ttl else config)
    assert [weakness.setting for weakness in found] == [setting][: bool(setting)]
    assert all("3600 s after it left" in weakness.means and "repl-backlog-ttl to 60" in weakness.remedy for weakness in found)
    never = weak_backlog(Endpoint.of(url), info(**changes), [*config[:6], b"repl-backlog-ttl", b"0"] if ttl else config)
    assert all("ends never" in weakness.means for weakness in never)


@pytest.mark.parametrize(
    ("aof", "config", "kept", "setting"),
    [
        ("1", SYNCED, ("alone", "yes"), ""),
        ("1", [*SYNCED[:3], b"everysec", *SYNCED[4:]], ("no", "no"), "appendfsync everysec"),
        ("1", [*SYNCED[:5], b"yes"], ("no", "no"), "no-appendfsync-on-rewrite yes"),
        ("0", [b"appendonly", b"no", *SYNCED[2:]], ("no", "no"), "no append-only file"),
        ("1", SYNCED[:4], ("no", "no"), ""),
        ("1", [], ("no", "no"), ""),
        ("1", ServerError("NOPERM"), ("no", "no"), "appendfsync: not told to this user"),
        ("1", b"always", ("no", "no"), "appendfsync: not told to this user"),
    ],
)
def test_a_server_keeps_what_it_acknowledged_only_if_each_write_is_on_disk_first(aof, config, kept, setting):
    assert tuple(keeps(Endpoint.of(url), info(aof_enabled=aof), config) for url in ("redis://h", "redis://h?replicas=1")) == kept
    assert [weakness.setting for weakness in weak_file(PLAIN, info(aof_enabled=aof), config)] == [setting][: bool(setting)]


@pytest.mark.parametrize(
    ("url", "who", "weak"),
    [
        ("redis://h", b"default", True),
        ("redis://h", b"gate", False),
        ("redis://h", ServerError("NOPERM"), False),
        ("unix:///run/store.sock", b"default", False),
    ],
)
def test_the_default_user_is_weak_beyond_one_machine(url, who, weak):
    assert bool(weak_user(Endpoint.of(url), who)) is weak


@pytest.mark.parametrize(
    ("answer", "checked", "text"),
    [
        (info(role="slave"), probe(), "role"),
        (info(maxmemory_policy="volatile-lru"), probe(), "maxmemory_policy"),
        (info(cluster_enabled="1"), probe(), "cluster_enabled"),
        (info(redis_version="7.0.15"), probe(), "version"),
        (info(redis_version="6.2.0"), probe(), "version"),
        (info(redis_version="new"), probe(), "version"),
        (b"", probe(), "role"),
        (None, probe(), "INFO"),
        (info(), probe(lineage=b"0"), "lineage"),
        (info(), probe(clock=b"1001200"), "clock"),
        (info(), probe(clock=b"998900"), "clock"),
        (info(), [b"x", b"0" * 40, b"1000000"], "something else"),
    ],
)
def test_an_unfit_server_is_refused(answer, checked, text):
    with pytest.raises(StoreUnavailable, match=text):
        judge(PLAIN, answer, checked, 1000.0, 1000.1)


# the protocol

replies = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)


def encode(value: object) -> bytes:
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    assert isinstance(value, list)
    return b"*%d\r\n" % len(value) + b"".join(encode(item) for item in value)


@given(replies, st.lists(st.integers(1, 8), min_size=1))
def test_a_reply_reads_the_same_however_it_is_cut(value, sizes):
    data, reply, at, got = encode(value), Reply(), 0, MORE
    while at < len(data):
        assert got is MORE
        size = sizes[at % len(sizes)]
        got = reply.feed(data[at : at + size])
        at += size
    assert got == value


@given(replies)
def test_a_reply_that_comes_whole_reads_the_same(value):
    assert Reply().feed(encode(value)) == value


@pytest.mark.parametrize(
    "reply", [b"*1\r\n$2\r\nabc\r\n", b"*2\r\n$2\r\nab\r\n$1\r\nab\r\n", b"*x\r\n$2\r\nab\r\n", b"*1\r\n$2\r\nab\r\n$0\r\n\r\n"]
)
def test_a_reply_whose_sizes_are_not_so_is_refused(reply):
    with pytest.raises(StoreUnavailable):
        Reply().feed(reply)


@pytest.mark.parametrize("reply", [b"*1\r\n$3\r\nab\r\n", b"*2\r\n$2\r\nab\r\n", b"*1\r\n$2\r\nab", b"*1\r\n$2"])
def test_a_reply_that_is_not_whole_is_waited_for(reply):
    assert Reply().feed(reply) is MORE


def test_a_reply_that_never_ends_is_refused():
    with pytest.raises(StoreUnavailable, match="64 MiB"):
        Reply().feed(b"$99999999\r\n" + bytes(MAX_REPLY))


def test_an_error_reply_is_not_text():
    answer = Reply().feed(b"-READONLY no\r\n")
    assert type(answer) is ServerError
    assert answer == "READONLY no"


def test_a_command_is_packed_byte_for_byte():
    assert pack("SET", "ä", b"\r\n", 12) == b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$2\r\n\r\n\r\n$2\r\n12\r\n"
