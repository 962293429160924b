"""What a server's own settings mean for what agentgate promises, and where it is, as an operator
reads it. Pure: judges what was read of the server.

Read at the start, on every new connection and every few seconds: settings change, and another
server takes an address over. Refused: a replica, a Sentinel, an eviction policy other than
`noeviction` (an evicted key is a lost burn or limit), a cluster under the URL of one server and
the reverse, servers older than Redis 7.2 / Valkey 8, in a cluster than Redis 8.4 / Valkey 9
(which move slots as a whole), a clock more than a second off, a lineage that is not 40 hex
characters; and with `replicas=` a server that writes on without them. What only makes a loss
more likely, and what a server does not tell, is a `Weakness`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agentgate.errors import ClockSkewed, StoreUnavailable
from agentgate.stores._op import Op, lineage_of
from agentgate.stores._resp import pack


class Where(NamedTuple):
    """Which servers a store talks to.

    Attributes:
        told: who they are, and through whom that is known; empty: only the one of its URL.
        primaries: whether each was reached when they were looked at last.
        changes: how often another primary was named than before.
        probes: for each shard, a tenant that it has.
    """

    told: str = ""
    primaries: Mapping[str, bool] = MappingProxyType({})
    changes: int = 0
    probes: tuple[str, ...] = ("readyz",)


if TYPE_CHECKING:
    from agentgate.stores._endpoint import Endpoint

# Whether what a server acknowledged survives: `yes`; only as long as no replica can take its
# place (`alone`; a script sees that); `no`.
Keeps = Literal["yes", "alone", "no"]
_SYNCED = {
    b"appendonly": b"yes",
    b"appendfsync": b"always",
    b"no-appendfsync-on-rewrite": b"no",
}
_BACKLOG = b"repl-backlog-ttl"
KEPT = pack("CONFIG", "GET", *_SYNCED, _BACKLOG)


def _probed(lineage: Any, clock: Any) -> tuple[str, float]:
    """The store's lineage, and its clock in POSIX seconds."""
    return lineage_of(lineage), int(clock) / 1000


PROBE = Op("check", _probed, (), ("check",))
OWN_GATE = (
    "acts are minted only by the gate that opened their run, and none over the token exchange"
)
_WAITS = "acts then wait for agentgate store reconcile"
CHECK_SECONDS = 2.0
MAX_SKEW = 1.0  # seconds
_OLDEST = (7, 2)
_OLDEST_SHARD = {"redis": (8, 4), "valkey": (9, 0)}
_POLICY = "maxmemory_policy"
_FULL = 0.8  # of maxmemory


class Weakness(NamedTuple):
    """A setting of a server under which agentgate runs, and loses or stops more easily than it
    has to.

    Attributes:
        setting: the setting, and what it is.
        means: what follows from it.
        remedy: what to do.
        code: for tools: acts are their own gate's (`store_may_lose`), for a while
            (`replica_left`), calls of some tenants are refused (`shard_away`), or none of this
            (`store_weak`).
        of_gates: only a gate needs to know it; a tool server does not.
    """

    setting: str
    means: str
    remedy: str
    code: Literal["store_may_lose", "replica_left", "shard_away", "store_weak"] = "store_weak"
    of_gates: bool = False


_UNTOLD = Weakness(
    setting="appendfsync: not told to this user",
    means="it counts as everysec",
    remedy="the right to config|get",
    code="store_may_lose",
    of_gates=True,
)


def fields_of(info: Any) -> dict[str, str]:
    """The fields in a reply of INFO.

    Raises:
        StoreUnavailable: it is none.
    """
    if type(info) is not bytes:
        raise StoreUnavailable(f"INFO answered {str(info)[:200]}")
    return dict(
        line.split(":", 1)
        for line in info.decode("utf-8", "replace").splitlines()
        if ":" in line
    )


def require(fields: dict[str, str], name: str, expected: str) -> None:
    """Refuse a server one of whose fields is another than expected (StoreUnavailable)."""
    if fields.get(name) != expected:
        raise StoreUnavailable(
            f"the server's {name}: got {fields.get(name)!r}, expected {expected!r}"
        )


def judge_role(info: Any) -> None:
    """Refuse a server that is no primary, given the reply of INFO, before a script is sent to
    it.

    Raises:
        StoreUnavailable: saying what the server is instead.
    """
    fields = fields_of(info)
    if fields.get("redis_mode", fields.get("server_mode")) == "sentinel":
        raise StoreUnavailable(
            "the server is a Sentinel, which holds no state; expected the address of the "
            "primary that it watches"
        )
    if fields.get("role") == "slave":
        primary = f"{fields.get('master_host', '?')}:{fields.get('master_port', '?')}"
        raise StoreUnavailable(
            f"the server's role: got a replica of {primary}, expected the primary: put its "
            "address into the store's URL"
        )
    require(fields, "role", "master")


def heartbeat(lag: Any) -> float | None:
    """After how many seconds a primary without its replicas writes no more, from the reply of
    CONFIG GET min-replicas-max-lag.

    It counts in whole seconds since a replica's last word, and looks once a second. None:
    unlimited, or the store's user may not ask.
    """
    value = lag[1] if type(lag) is list and len(lag) == 2 else b""
    return float(value) + 2 if value.isdigit() and int(value) else None


def _settings(config: Any) -> dict[bytes, bytes]:
    """The settings in the reply of `KEPT`; empty if it is an error."""
    return dict(zip(config[::2], config[1::2], strict=False)) if type(config) is list else {}


def keeps(endpoint: Endpoint, info: Any, config: Any) -> Keeps:
    """Whether a server keeps what it acknowledged, by INFO and `KEPT`: each write is on its
    disk first, and on every replica's.

    A server that does not tell (an error: the store's user may not ask) is taken for one that
    does not. A managed service's word counts.
    """
    told = _settings(config)
    if _POLICY not in fields_of(info):
        return "no"
    if endpoint.managed:
        return "yes"
    if any(told.get(name) != value for name, value in _SYNCED.items()):
        return "no"
    return "yes" if endpoint.replicas else "alone"


def judge(
    endpoint: Endpoint, info: Any, probe: Any, before: float, after: float
) -> tuple[Weakness, ...]:
    """Refuse a server on which a token could be accepted twice, or a limit forgotten; what is
    weak about one that is accepted.

    Args:
        endpoint: the server's address, with `replicas`.
        info: reply of INFO.
        probe: reply of `PROBE`.
        before: POSIX seconds, read before the probe was sent.
        after: the same, after its reply.

    Raises:
        StoreUnavailable: naming what is wrong.
    """
    fields = fields_of(info)
    judge_role(info)
    if _POLICY in fields:
        require(fields, _POLICY, "noeviction")
    mode = "1" if endpoint.sharded else "0"
    if (got := fields.get("cluster_enabled", mode)) != mode:
        raise StoreUnavailable(
            f"the server's cluster_enabled: got {got!r}, expected {mode!r}: the setting "
            "'store' is redis+cluster://host:port,host:port "
            "for a cluster, redis:// or redis+sentinel:// for anything else"
        )
    _judge_version(endpoint, fields)
    # shown only where both are set
    if endpoint.replicas and "min_slaves_good_slaves" not in fields:
        raise StoreUnavailable(
            f"replicas={endpoint.replicas}: the server's min-replicas-to-write and "
            "min-replicas-max-lag are not set, so that a primary "
            "cut off from its replicas would go on; expected min-replicas-to-write "
            f"{endpoint.replicas} and min-replicas-max-lag 2"
        )
    _, server = PROBE.parse(probe)
    if not before - MAX_SKEW <= server <= after + MAX_SKEW:
        raise ClockSkewed(
            f"the server's clock is {server - after:+.3f} s off, expected less than {MAX_SKEW:g} s"
        )
    return tuple(_weaknesses(endpoint, fields))


def version_of(fields: dict[str, str]) -> tuple[str, tuple[int, ...]]:
    """A server's kind, `redis` or `valkey`, and its version; without a number, one that is too
    old.
    """
    kind = "valkey" if "valkey_version" in fields else "redis"
    parts = fields.get(f"{kind}_version", "").split(".")[:3]
    return kind, tuple(int(part) if part.isdigit() else 0 for part in parts)


def _judge_version(endpoint: Endpoint, fields: dict[str, str]) -> None:
    kind, version = version_of(fields)
    shown = f"the server's version: got {fields.get(f'{kind}_version', '')!r}"
    if version[:2] < _OLDEST:
        raise StoreUnavailable(f"{shown}, expected Redis 7.2 or Valkey 8, or later")
    if endpoint.sharded and not endpoint.managed and version[:2] < _OLDEST_SHARD[kind]:
        raise StoreUnavailable(
            f"{shown} in the cluster of setting 'store', expected Redis 8.4 or Valkey 9, or "
            "later: an older one moves a slot key by key, "
            "and a script would see a part of a tenant"
        )


def _dumps(fields: dict[str, str]) -> int:
    """How many of the replicas that are attached have no port: none could be promoted, each is
    a copy under way (redis-cli --rdb).
    """
    return sum(
        bool(re.fullmatch("slave[0-9]+", name)) and ",port=0," in value
        for name, value in fields.items()
    )


def _weaknesses(endpoint: Endpoint, fields: dict[str, str]) -> list[Weakness]:
    replicas, most, used = (
        int(fields.get(name) or 0) for name in ("connected_slaves", "maxmemory", "used_memory")
    )
    rows = (
        (
            replicas > _dumps(fields) and not endpoint.replicas,
            f"{replicas} replicas, none of which confirms a write",
            f"a failover loses what had not reached them, and {_WAITS}",
            f"?replicas={replicas} in the store's URL",
        ),
        (
            replicas < endpoint.replicas,
            f"replicas={endpoint.replicas}, {replicas} connected",
            "runs, mints, redemptions and holds are refused",
            "connect them, or ask for fewer",
        ),
        (
            most and used > _FULL * most,
            f"maxmemory: {used * 100 // (most or 1)} % used",
            "a full server refuses everything",
            "more memory",
        ),
        (
            not most and endpoint.kind != "unix",
            "no maxmemory",
            "a server that fills its host is killed, not refused",
            "maxmemory below the host's memory (with noeviction, as it is)",
        ),
    )
    return [
        Weakness(setting, means, remedy) for applies, setting, means, remedy in rows if applies
    ]


def weak_file(endpoint: Endpoint, info: Any, config: Any) -> tuple[Weakness, ...]:
    """What is weak about a server's append-only file, given the replies of INFO and of
    `KEPT`.
    """
    own = f"; {OWN_GATE}"
    if _POLICY not in fields_of(info):
        setting = f"{_POLICY}: not shown by this server"
        evicts = "a server that evicts forgets burns and limits"
        remedy = "a server that shows it in INFO"
        return (Weakness(setting, evicts + own, remedy, "store_may_lose"),)
    if endpoint.managed:
        word = (
            "that what it acknowledged survives is the word of the service's documentation, "
            "and nothing here can see it; a tenant that "
            "moved to another shard counts as lost, until agentgate store reconcile"
        )
        remedy = "leave service= out of the setting 'store' to count on nothing"
        return (Weakness(f"service={endpoint.managed}", word, remedy),)
    if fields_of(info).get("aof_enabled") == "0":
        lost = f"a crash loses what came after the last snapshot, and {_WAITS}"
        remedy = "appendonly yes and appendfsync always"
        return (Weakness("no append-only file", lost + own, remedy, "store_may_lose"),)
    if type(config) is not list:
        return (_UNTOLD._replace(means=_UNTOLD.means + own),)
    lost = f"a power cut loses the last seconds, and {_WAITS}"
    told = _settings(config)
    off = [
        f"{name.decode()} {told[name].decode()}"
        for name, value in _SYNCED.items()
        if name in told and told[name] != value
    ]
    remedy = "appendfsync always, no-appendfsync-on-rewrite no"
    return (Weakness(", ".join(off), lost + own, remedy, "store_may_lose"),) if off else ()


def weak_backlog(endpoint: Endpoint, info: Any, config: Any) -> tuple[Weakness, ...]:
    """What follows from a replica that may still come back as primary, given the replies of
    INFO and of `KEPT`.

    A server keeps its backlog `repl-backlog-ttl` seconds after its last replica left, and who
    left cannot be told: a dump (redis-cli --rdb) attaches as a replica does.
    """
    fields = fields_of(info)
    if keeps(endpoint, info, config) != "alone" or fields.get("repl_backlog_active") != "1":
        return ()
    dumps = _dumps(fields)
    if int(fields.get("connected_slaves") or 0) > dumps:
        return ()  # a replica: told already
    seconds = _settings(config).get(_BACKLOG, b"?").decode()
    end = (
        "never, since repl-backlog-ttl is 0"
        if seconds == "0"
        else f"{seconds} s after it left (repl-backlog-ttl)"
    )
    who = (
        "a dump (redis-cli --rdb) is attached"
        if dumps
        else "a replica, or a dump (redis-cli --rdb), was attached lately"
    )
    means = (
        "it could be promoted, so acts in runs of several gates are refused "
        f"(run_elsewhere), and this ends {end}; meanwhile {OWN_GATE}"
    )
    remedy = (
        "back up without attaching (docs/state.md), and on a server without replicas "
        "set repl-backlog-ttl to 60"
    )
    return (Weakness(who, means, remedy, "replica_left"),)


def weak_user(endpoint: Endpoint, who: Any) -> tuple[Weakness, ...]:
    """What is weak about the store user, given the reply of ACL WHOAMI (an error: one that may
    not even ask).
    """
    if who != b"default" or endpoint.kind == "unix":
        return ()
    means = "whoever has this address may write everything: runs, releases, revocations"
    return (Weakness("store user: default", means, "a user for each program (docs/state.md)"),)


COVERAGE = b"cluster-require-full-coverage"


def weak_shard(coverage: Any, moves: Any) -> tuple[Weakness, ...]:
    """What is weak about a shard, given the replies of CONFIG GET `COVERAGE` and of what tells
    how slots came here.
    """
    found = []
    if _settings(coverage).get(COVERAGE) == b"yes":
        stops = "one shard without a primary stops the tenants of all"
        found.append(Weakness(f"{COVERAGE.decode()} yes", stops, f"{COVERAGE.decode()} no"))
    if type(moves) is not list:
        setting = "moves of slots: not told to this user"
        lost = "a tenant that moved here counts as lost, until agentgate store reconcile"
        remedy = "the right to cluster|getslotmigrations (Redis: cluster|migration)"
        found.append(Weakness(setting, lost, remedy))
    return tuple(found)
