"""The faults, one function each: what comes first (up to the first yield), the fault (up to the second), and its end.

Between the first and the second yield calls are executed, and tokens minted, that the fault may lose. Between the second and the end hosts
ask for all calls, and after the end they ask again.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from tests.faults.shop import TENANTS, Shop, Side
from tests.servers import Server
from tests.watched import Shards, Watched, until

Steps = Iterator[None]
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
FENCED = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        steps: what happens, as above.
        settings: of the server.
        replica: whether the server has one that need not confirm anything.
        confirmed: whether it has one that must confirm every write (``?replicas=1``).
        disk: the folder of the shop that is a small file system of its own ("" for none).
        asked: gate and tool server that hosts ask first: those of side "a" executed the calls, those of "b" saw nothing of them.
        apart: while it lasts, hosts reach only these.
        shared: whether runs belong to any gate (the setting `shared_runs`).
        watched: what tells gates where the store is: three Sentinels, which watch it and two replicas, or a cluster of three shards.
    """

    name: str
    steps: Callable[[Shop], Steps]
    settings: tuple[str, ...] = ()
    replica: bool = False
    confirmed: bool = False
    disk: str = ""
    asked: tuple[Side, Side] = ("a", "a")
    apart: bool = False
    shared: bool = False
    watched: Literal["", "sentinel", "cluster"] = ""


def kill(shop: Shop) -> Steps:
    yield
    shop.server.kill()
    yield
    shop.server.start()


def kill_with_older_snapshot(shop: Shop) -> Steps:
    shop.server.command("SAVE")
    yield from kill(shop)


def power_cut(shop: Shop) -> Steps:
    """The host goes down before the append-only file was synced again: of what was acknowledged since, nothing is on the disk."""
    file, synced = shop.server.folder / "appendonlydir", shop.folder / "synced"
    shutil.copytree(file, synced)
    yield
    shop.server.kill()
    shutil.rmtree(file)
    synced.rename(file)
    yield
    shop.server.start()


def clean_restart(shop: Shop) -> Steps:
    yield
    shop.server.command("SHUTDOWN", "SAVE")
    shop.server.wait()
    yield
    shop.server.start()


def flush(shop: Shop) -> Steps:
    yield
    shop.server.command("FLUSHALL")
    yield


def failover_in_sync(shop: Shop) -> Steps:
    replica = shop.replica()
    yield
    replica.follows(shop.server)
    shop.server.kill()
    yield
    replica.takes_over(shop.server)
    shop.lead(replica)


def failover_of_a_replica_that_lags(shop: Shop) -> Steps:
    """The link to the replica is cut; the primary goes on, and ends; the replica takes its place with what it has."""
    replica = shop.replica()
    replica.follows(shop.server)
    replica.command("REPLICAOF", "NO", "ONE")
    yield
    shop.server.kill()
    yield
    replica.takes_over(shop.server)
    shop.lead(replica)


def split_brain(shop: Shop) -> Steps:
    """Side a stays with the old primary, side b goes with the promoted replica; then the old one is demoted."""
    old, new = shop.server, shop.replica()
    new.follows(old)
    new.command("REPLICAOF", "NO", "ONE")
    shop.lead(new)
    shop.move("b", new.url)
    yield
    yield
    old.command("REPLICAOF", "127.0.0.1", str(new.port))
    shop.move("a", new.url)


def writable_replica(shop: Shop) -> Steps:
    """Side b talks to a replica that takes writes, which shares its primary's `master_replid`; then it is promoted, and side a follows."""
    other = shop.started(Server(shop.server.binary, shop.folder / "writable", settings=("--replica-read-only", "no")))
    shop.move("b", other.url)
    yield
    shop.server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    other.command("REPLICAOF", "127.0.0.1", str(shop.server.port))
    other.follows(shop.server)
    yield
    other.command("REPLICAOF", "NO", "ONE")
    shop.lead(other)
    shop.move("a", other.url)


def hang(shop: Shop) -> Steps:
    yield
    shop.server.pause()
    yield
    shop.server.resume()


def pause_clients(shop: Shop) -> Steps:
    yield
    shop.server.command("CLIENT", "PAUSE", "60000", "WRITE")
    yield
    shop.server.command("CLIENT", "UNPAUSE")


def full_memory(shop: Shop) -> Steps:
    yield
    shop.server.command("CONFIG", "SET", "maxmemory", "1")
    yield
    shop.server.command("CONFIG", "SET", "maxmemory", "0")


def eviction(shop: Shop) -> Steps:
    """An operator makes room: keys go at random, among them ours, before any gate has looked at the policy again."""
    for number in range(100):
        shop.server.command("SET", f"cache:{number}", "x" * 4000)
    yield
    used = int(shop.server.command("INFO", "memory").split("used_memory:")[1].split()[0])
    shop.server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    shop.server.command("CONFIG", "SET", "maxmemory", str(used - 250_000))
    shop.server.command("SET", "cache:more", "x" * 4000)
    yield
    shop.server.command("CONFIG", "SET", "maxmemory", "0")
    shop.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    time.sleep(0.1)


def full_disk(shop: Shop) -> Steps:
    assert shop.disk is not None
    yield
    shop.disk.fill()
    shop.ask_until_refused()  # a page that is in use has room for some more records
    yield
    shop.disk.free()
    if not shop.server.runs():  # a server that must sync every write ends when it cannot, and whatever supervises it starts it again
        shop.server.start()


def clocks(gate: float, tool: float) -> Callable[[Shop], Steps]:
    """The clocks of all gates and of all tool servers step by so many seconds, and back; both alike is the store's clock, the other way."""

    def steps(shop: Shop) -> Steps:
        yield
        shop.clocks.update(gate=gate, tool=tool)
        yield
        shop.clocks.update(gate=0.0, tool=0.0)

    return steps


def is_replica(server: Server) -> bool:
    """Whether it was demoted; it may close connections just then."""
    with suppress(OSError):
        return "role:slave" in server.command("INFO", "replication")
    return False


def watched(fault: Callable[[Watched, Server], None], mend: Callable[[Watched, Server], None]) -> Callable[[Shop], Steps]:
    """Something happens to the primary, and Sentinels promote a replica; then it comes back, and is demoted."""

    def steps(shop: Shop) -> Steps:
        assert shop.sentinels is not None
        old = shop.server
        yield
        for replica in shop.sentinels.servers[1:]:
            replica.follows(old)
        fault(shop.sentinels, old)
        yield
        shop.sentinels.promoted(old)
        mend(shop.sentinels, old)
        until(lambda: is_replica(old), 30)
        shop.lead(shop.sentinels.primary())

    return steps


def shard_fails(shop: Shop) -> Steps:
    """The primary of a shard is killed, and a replica of its own takes its slots."""
    assert shop.shards is not None
    old, replicas = shop.shards.primaries[0], [each for each in shop.shards.replicas if each.follows_port(shop.shards.primaries[0].port)]
    yield
    for replica in replicas:
        replica.follows(old)
    old.kill()
    yield
    until(lambda: any("role:master" in each.command("INFO", "replication") for each in replicas), 20)
    until(shop.shards.whole, 20)


def shard_hands_over(shop: Shop) -> Steps:
    """An operator promotes a replica of a shard (CLUSTER FAILOVER), as before an upgrade of its primary."""
    assert shop.shards is not None
    replica = next(each for each in shop.shards.replicas if each.follows_port(shop.shards.primaries[0].port))
    yield
    replica.command("CLUSTER", "FAILOVER")
    yield
    until(lambda: "role:master" in replica.command("INFO", "replication"), 20)
    until(shop.shards.whole, 20)


def shard_is_lost(shop: Shop) -> Steps:
    """A shard without a replica; the tenants of the others go on."""
    assert shop.shards is not None
    yield
    shop.shards.primaries[0].kill()
    yield
    shop.shards.primaries[0].start()
    until(shop.shards.whole, 20)


def slots_move(move: Callable[[Shards, str, Server], None]) -> Callable[[Shop], Steps]:
    """The slots of all tenants move on by a shard while hosts ask."""

    def steps(shop: Shop) -> Steps:
        shards = shop.shards
        assert shards is not None
        used = TENANTS[:20]

        def move_all() -> None:
            for tenant in used:
                place = shards.primaries.index(shards.owner(tenant))
                move(shards, tenant, shards.primaries[(place + 1) % len(shards.primaries)])

        yield
        moving = threading.Thread(target=move_all)
        moving.start()
        yield
        moving.join()

    return steps


def shard_is_emptied(shop: Shop) -> Steps:
    """A new node takes over every slot of a shard."""
    shards = shop.shards
    assert shards is not None
    new, old = shards.add(), shards.primaries[0]
    shards.join(new)
    yield
    told = old.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", str(16384 // 3 - 1), "NODE", shards.node(new))
    assert told.startswith("+OK"), told
    yield
    until(lambda: "state\r\n$7\r\nsuccess" in old.command("CLUSTER", "GETSLOTMIGRATIONS"), 20)
    until(shards.whole, 20)


_HOUR = 3600.0
KILLED = watched(lambda _, old: old.kill(), lambda _, old: old.start())
STOPPED = watched(lambda _, old: old.pause(), lambda _, old: old.resume())
CUT_OFF = watched(Watched.partition, Watched.heal)
FAULTS = (
    Fault("kill -9, no file", kill),
    Fault("kill -9, everysec", kill, EVERYSEC),
    Fault("kill -9, always", kill, ALWAYS),
    Fault("kill -9, older snapshot", kill_with_older_snapshot),
    Fault("kill -9, older snapshot, asked elsewhere", kill_with_older_snapshot, asked=("b", "b")),
    Fault("kill -9, older snapshot, other tool server", kill_with_older_snapshot, asked=("a", "b")),
    Fault("kill -9, older snapshot, shared runs, asked elsewhere", kill_with_older_snapshot, asked=("b", "b"), shared=True),
    Fault("kill -9, older snapshot, replicas=1, asked elsewhere", kill_with_older_snapshot, FENCED, confirmed=True, asked=("b", "b")),
    Fault("power cut, everysec, asked elsewhere", power_cut, EVERYSEC, asked=("b", "b")),
    Fault("clean restart", clean_restart),
    Fault("clean restart, always, asked elsewhere", clean_restart, ALWAYS, asked=("b", "b")),
    Fault("failover in sync", failover_in_sync, replica=True),
    Fault("lagging failover", failover_of_a_replica_that_lags, replica=True),
    Fault("lagging failover, asked elsewhere", failover_of_a_replica_that_lags, replica=True, asked=("b", "b")),
    Fault("lagging failover, other tool server", failover_of_a_replica_that_lags, replica=True, asked=("a", "b")),
    Fault("lagging failover, replicas=1", failover_of_a_replica_that_lags, FENCED, confirmed=True),
    Fault("lagging failover, replicas=1, asked elsewhere", failover_of_a_replica_that_lags, FENCED, confirmed=True, asked=("b", "b")),
    Fault("split brain", split_brain, replica=True, apart=True),
    Fault("split brain, asked elsewhere", split_brain, replica=True),
    Fault("split brain, replicas=1, asked elsewhere", split_brain, FENCED, confirmed=True),
    Fault("writable replica, promoted", writable_replica),
    Fault("SIGSTOP", hang),
    Fault("CLIENT PAUSE", pause_clients),
    Fault("FLUSHALL", flush),
    Fault("FLUSHALL, asked elsewhere", flush, asked=("b", "b")),
    Fault("out of memory", full_memory),
    Fault("eviction while running", eviction),
    Fault("full disk, gate's audit", full_disk, disk="a/gate"),
    Fault("full disk, tool server's audit", full_disk, disk="a/tool"),
    Fault("full disk, store (everysec)", full_disk, EVERYSEC, disk="server"),
    Fault("full disk, store (always)", full_disk, ALWAYS, disk="server"),
    Fault("gates' clocks +1 h", clocks(_HOUR, 0)),
    Fault("gates' clocks -1 h", clocks(-_HOUR, 0)),
    Fault("tool servers' clocks +1 h", clocks(0, _HOUR)),
    Fault("tool servers' clocks -1 h", clocks(0, -_HOUR)),
    Fault("store's clock +1 h", clocks(-_HOUR, -_HOUR)),
    Fault("store's clock -1 h", clocks(_HOUR, _HOUR)),
    Fault("Sentinel: kill -9", KILLED, watched="sentinel"),
    Fault("Sentinel: kill -9, replicas=1, asked elsewhere", KILLED, FENCED, confirmed=True, asked=("b", "b"), watched="sentinel"),
    Fault("Sentinel: SIGSTOP", STOPPED, watched="sentinel"),
    Fault("Sentinel: SIGSTOP, replicas=1, asked elsewhere", STOPPED, FENCED, confirmed=True, asked=("b", "b"), watched="sentinel"),
    Fault("Sentinel: primary cut off", CUT_OFF, watched="sentinel"),
    Fault("Sentinel: primary cut off, replicas=1, asked elsewhere", CUT_OFF, FENCED, confirmed=True, asked=("b", "b"), watched="sentinel"),
    Fault("cluster: a primary killed", shard_fails, replica=True, watched="cluster"),
    Fault("cluster: a primary killed, replicas=1, always", shard_fails, (*FENCED, *ALWAYS), confirmed=True, watched="cluster"),
    Fault("cluster: a replica promoted by hand", shard_hands_over, replica=True, watched="cluster"),
    Fault("cluster: slots move", slots_move(Shards.move), ALWAYS, watched="cluster"),
    Fault("cluster: slots move, asked elsewhere", slots_move(Shards.move), ALWAYS, asked=("b", "b"), watched="cluster"),
    Fault("cluster: slots move key by key", slots_move(Shards.move_by_key), ALWAYS, watched="cluster"),
    Fault("cluster: a shard is emptied", shard_is_emptied, ALWAYS, watched="cluster"),
    Fault("cluster: one of three shards is lost", shard_is_lost, ALWAYS, watched="cluster"),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
