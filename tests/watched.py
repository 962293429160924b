"""A primary with replicas under Sentinels, and a cluster of shards; and callers who never stop. Real servers, on loopback, ended by pid."""

from __future__ import annotations

import atexit
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import combinations, islice
from pathlib import Path
from typing import TypeVar

from redis.crc import key_slot

from agentgate.errors import StoreUnavailable
from agentgate.stores import Op, Store, open_async_store, open_store, ops
from agentgate_conformance._book import Book, T
from agentgate_conformance.stores import Blocking
from tests.effort import examples
from tests.servers import Server, free_port

S = TypeVar("S", bound=Server)
SERVICE = "ag-main"
FENCED = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")


def until(holds: Callable[[], object], seconds: float = 15.0, what: str = "") -> float:
    """Wait for it; how long that took."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, what or f"not within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - begin


class Sentinel(Server):
    """One Sentinel of a service."""

    def __init__(
        self, binary: str, folder: Path, primary: int, config: Sequence[str] = (), *, quorum: int = 2, port: int | None = None
    ) -> None:
        folder.mkdir(parents=True)
        lines = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} {quorum}",
            *(f"sentinel {name} {SERVICE} {value}" for name, value in (("down-after-milliseconds", 600), ("failover-timeout", 4000))),
            *config,
        )
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        super().__init__(binary, folder, port=port)

    def start(self) -> None:
        """Start, and wait until it answers."""
        words = [self.binary, "sentinel.conf", "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        none = subprocess.DEVNULL
        self._process = subprocess.Popen(words, stdout=none, stderr=none, cwd=self.folder)
        until(self._answers, 10, f"{self.binary} --sentinel does not answer")

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(("+PONG", "-NOAUTH"))
        except OSError:
            return False

    def primary(self) -> int:
        """The port of the primary, by its word."""
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE).split("\r\n")[4])


class Watched:
    """A primary, its replicas, and three Sentinels; `partition` cuts servers off from these and from each other, and not from gates."""

    def __init__(self, binary: str, folder: Path, *, settings: tuple[str, ...] = (), replicas: int = 2) -> None:
        self._ending = ExitStack()
        atexit.register(self._ending.close)  # also where a test, or this start, fails before `stop`
        # who may replicate and watch: without them a server hears nobody but gates
        users = ("--user", "watch", "on", ">watched", "~*", "&*", "+@all", "--masteruser", "watch", "--masterauth", "watched")
        more = (*settings, *users, "--repl-diskless-sync-delay", "0")
        self.servers = [self._started(Server(binary, folder / "node-0", settings=more))]
        for number in range(1, replicas + 1):
            follow = ("--replicaof", f"127.0.0.1 {self.servers[0].port}")
            self.servers.append(self._started(Server(binary, folder / f"node-{number}", settings=(*more, *follow))))
        for replica in self.servers[1:]:
            replica.follows(self.servers[0])
        known = (f"sentinel auth-user {SERVICE} watch", f"sentinel auth-pass {SERVICE} watched")
        # they know each other, as after a restart: else each would hear of the others in two seconds
        ids = {free_port(): f"{number}" * 40 for number in range(3)}
        self.sentinels = []
        for port, own in ids.items():
            others = (f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {id_}" for other, id_ in ids.items() if other != port)
            config = (*known, f"sentinel myid {own}", *others)
            sentinel = Sentinel(binary, folder / f"sentinel-{own[0]}", self.servers[0].port, config, port=port)
            self.sentinels.append(self._started(sentinel))
        until(self.agree, 20, "the Sentinels do not find each other")

    def _started(self, server: S) -> S:
        self._ending.callback(server.end)
        return server

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}"

    def agree(self) -> bool:
        """Whether a majority sees a majority, and all replicas."""
        told = [each.command("SENTINEL", "CKQUORUM", SERVICE) for each in self.sentinels if each.runs()]
        known = self.sentinels[0].command("SENTINEL", "REPLICAS", SERVICE).count("\r\nip\r\n")
        return known == len(self.servers) - 1 and all("3 usable" in each for each in told)

    def primary(self, sentinels: Sequence[Sentinel] = ()) -> Server:
        """The one that (these) Sentinels name."""
        ports = [each.primary() for each in sentinels or self.sentinels if each.runs()]
        return next(each for each in self.servers if each.port == max(set(ports), key=ports.count))

    def promoted(self, before: Server, sentinels: Sequence[Sentinel] = ()) -> float:
        """Until the Sentinels name another primary, and it is one; how long that took."""

        def done() -> bool:
            now = self.primary(sentinels)
            return now is not before and "role:master" in now.command("INFO", "replication")

        return until(done, 25, "nobody was promoted")

    def partition(self, server: Server) -> None:
        """From now on it hears neither Sentinels nor replicas, nor they it; gates it does."""
        server.command("ACL", "SETUSER", "watch", "off")
        server.command("ACL", "SETUSER", "default", "-ping", "-psync")  # nor without a name
        server.command("CLIENT", "KILL", "USER", "watch")

    def heal(self, server: Server) -> None:
        """The end of `partition`."""
        server.command("ACL", "SETUSER", "default", "+@all")
        server.command("ACL", "SETUSER", "watch", "on")

    def stop(self) -> None:
        """End all of them."""
        self._ending.close()


class Shards:
    """A cluster: primaries that share the slots alike, each with a replica where wanted."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        shards: int = 3,
        replicas: int = 1,
        settings: tuple[str, ...] = (),
        whole: str = "no",
        odd: str = "",
    ) -> None:
        self._ending = ExitStack()
        atexit.register(self._ending.close)  # also where a test, or this start, fails before `stop`
        own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-require-full-coverage", whole)
        self._binary, self._folder = binary, folder
        self._settings = (*settings, *own, "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
        self.servers: list[Server] = []
        self._buses: dict[int, str] = {}
        self.primaries = [self.add() for _ in range(shards - 1)]
        self._binary = odd or binary  # the server of the last shard may be of another kind
        self.primaries.append(self.add())
        for number, server in enumerate(self.primaries):
            first, last = (16384 * place // shards for place in (number, number + 1))
            assert server.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last - 1)).startswith("+OK")
        self.replicas = [self.add() for _ in range(replicas * shards)]
        self._meet()
        for number, replica in enumerate(self.replicas):
            self._follow(replica, self.primaries[number // replicas])
        until(lambda: all("link_status:up" in each.command("INFO", "replication") for each in self.replicas))
        until(self.whole, 30, "the cluster does not come together")

    def add(self) -> Server:
        """One more node, of its own."""
        bus = ("--cluster-port", str(free_port()))  # ten thousand above a port there may be none
        server = Server(self._binary, self._folder / f"shard-{len(self.servers)}", settings=(*self._settings, *bus))
        self._buses[server.port] = bus[1]
        self._ending.callback(server.end)
        self.servers.append(server)
        return server

    def join(self, server: Server) -> None:
        """It becomes a shard without slots."""
        self._meet()
        until(lambda: self.node(server) in self.primaries[0].command("CLUSTER", "NODES"))

    def _follow(self, replica: Server, primary: Server) -> None:
        node = self.node(primary)
        until(lambda: replica.command("CLUSTER", "REPLICATE", node).startswith("+OK"))

    def _meet(self) -> None:
        """Each is told of every other, which is sooner than they would hear of them by themselves."""
        for one, other in combinations(self.servers, 2):
            one.command("CLUSTER", "MEET", "127.0.0.1", str(other.port), self._buses[other.port])
        until(lambda: all(f"cluster_known_nodes:{len(self.servers)}" in each.command("CLUSTER", "INFO") for each in self.servers))

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{each.port}' for each in self.primaries)}"

    @staticmethod
    def node(server: Server) -> str:
        """The id of a node."""
        return server.command("CLUSTER", "MYID").split("\r\n")[1]

    def whole(self) -> bool:
        """Whether every node that runs has every slot's owner."""
        told = [each.command("CLUSTER", "INFO") for each in self.servers if each.runs()]
        return all("cluster_state:ok" in each and "cluster_slots_ok:16384" in each for each in told)

    def owner(self, tenant: str) -> Server:
        """Whose slot this tenant's is, by the node itself. Waits for one: while the slot moves, it is for a moment nobody's."""
        found: list[Server] = []

        def one() -> bool:
            found.extend(islice((each for each in self.servers if self._owns(each, tenant)), 1))
            return bool(found)

        until(one, what=f"nobody has {tenant}")
        return found[0]

    @staticmethod
    def _owns(server: Server, tenant: str) -> bool:
        return (
            server.runs()
            and "MOVED" not in server.command("GET", f"ag:{{{tenant}}}:x")
            and "role:master" in server.command("INFO", "replication")
        )

    def move(self, tenant: str, target: Server) -> None:
        """Its slot moves as a whole."""
        source, slot = self.owner(tenant), str(key_slot(tenant.encode()))
        told = source.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.node(target))
        assert told.startswith("+OK"), told
        until(lambda: self.owner(tenant) is target, what=f"{tenant} does not move")

    def move_by_key(self, tenant: str, target: Server) -> None:
        """Its slot moves key by key, as before there was anything else."""
        source, slot = self.owner(tenant), str(key_slot(tenant.encode()))
        self.begin_by_key(tenant, source, target)
        for key in source.command("CLUSTER", "GETKEYSINSLOT", slot, "1000").split("\r\n")[2::2]:
            assert source.command("MIGRATE", "127.0.0.1", str(target.port), key, "0", "5000").startswith(("+OK", "+NOKEY"))
        for server in (target, source):
            assert server.command("CLUSTER", "SETSLOT", slot, "NODE", self.node(target)).startswith("+OK")
        until(lambda: self.owner(tenant) is target)

    def begin_by_key(self, tenant: str, source: Server, target: Server) -> None:
        """The first half of that."""
        slot = str(key_slot(tenant.encode()))
        assert target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.node(source)).startswith("+OK")
        assert source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.node(target)).startswith("+OK")

    def stop(self) -> None:
        """End all of them."""
        self._ending.close()


# Between two calls of one caller: quickly, with less of a processor, and still with more than one under way whenever something fails.
PAUSE = examples(0, 4) / 1000


class Load:
    """Callers, one for each tenant, who open a run, mint, and burn the token twice, again and again; and what became of it."""

    def __init__(self, url: str, kind: str, tenants: Sequence[str] = ("t0", "t1", "t2")) -> None:
        self.store: Store = open_store(url) if kind == "sync" else Blocking(lambda: open_async_store(url))
        self.store.check()
        self.burned: Counter[tuple[str, str]] = Counter()
        self.minted: list[tuple[float, str]] = []
        self.slowest, self.refused = 0.0, Counter[str]()
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._ask, args=(tenant,)) for tenant in tenants]
        for each in self._callers:
            each.start()

    def call(self, op: Op[T]) -> T:
        """One operation, under the deadline of a real call."""
        began = time.monotonic()
        try:
            return op.parse(self.store.call(op, began + 0.25))
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)

    def _ask(self, tenant: str) -> None:
        tries = 0
        while not self._over.wait(PAUSE):
            tries += 1
            try:
                book = _Hurried(self, tenant, f"r{tries}")
                _, burning = book.minted()
                self.minted.append((time.monotonic(), tenant))
            except (StoreUnavailable, AssertionError) as error:
                self.refused[str(error)[:60]] += 1
                time.sleep(0.02)
            else:
                for _ in range(2):
                    try:
                        self.burned[tenant, burning.jti] += book.burn(burning).kind == "ok"
                    except StoreUnavailable as error:
                        self.refused[str(error)[:60]] += 1

    def twice(self) -> list[tuple[str, str]]:
        """The tokens that were accepted more than once."""
        return [token for token, times in self.burned.items() if times > 1]

    def again(self, since: float, *tenants: str) -> float:
        """How long after that something was minted, by the last of these tenants (none: by the first of any)."""
        first = {
            tenant: min((at for at, whose in self.minted if at > since and whose == tenant), default=since + 999)
            for _, tenant in self.minted
        }
        return (max(first[tenant] for tenant in tenants) if tenants else min(first.values(), default=since + 999)) - since

    def told(self, since: float) -> str:
        """All of it in a line."""
        burned = sum(1 for times in self.burned.values() if times)
        refused = f"{self.refused.total()} refused, slowest {self.slowest * 1000:.0f} ms"
        return f"{burned} burned, {refused} {dict(self.refused.most_common(4))}, minted again after {self.again(since):.2f} s"

    def end(self) -> None:
        """No more."""
        self._over.set()
        for each in self._callers:
            each.join()
        self.store.close()


class _Hurried(Book):
    def __init__(self, load: Load, tenant: str, run: str) -> None:
        self._load = load
        self.store, self.tenant, self.run, self.burned = load.store, tenant, run, {}
        op = ops.open_run(tenant, run, b'{"id":"run_1"}', "Please refund ORD-10023344", 600_000, whose="lee", most=10**6)
        assert self.ask(op).kind == "ok"

    def ask(self, op: Op[T]) -> T:
        return self._load.call(op)
