"""Which server has an operation's keys: the only one, the primary that Sentinels name, or the
primary of a slot of a cluster. No I/O.

Rules: a guide (a Sentinel, a node of the cluster) says where a primary is, and each primary is
judged by itself before anything is asked of it. A Sentinel is asked before every new
connection, and counts only where it reaches its quorum: one that was cut off together with an
old primary does not. Guides are asked again after an error, a redirection, and every few
seconds. What a store keeps is what the worst of its primaries kept, those of before included.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Generator
from contextlib import suppress
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

import structlog
from redis.crc import key_slot

from agentgate.errors import StoreUnavailable
from agentgate.stores._endpoint import Endpoint, proves_service
from agentgate.stores._exchange import (
    LOOK_AGAIN,
    Dialogue,
    Pool,
    Redirected,
    authenticate,
    time_left,
)
from agentgate.stores._health import Keeps, Weakness, Where
from agentgate.stores._op import Op, prefix, spread
from agentgate.stores._resp import ServerError, pack

# yields whom to ask and until when, is sent what they told or why not, and returns a pool
Search = Generator[tuple[Endpoint, float], Any, Any]
SLOTS = 16384
_TRIES = 3  # guides in one call
_WORST: tuple[Keeps, ...] = ("no", "alone", "yes")
_log = structlog.get_logger("agentgate.stores")


class Range(NamedTuple):
    """The slots from `first` to `last`, and the address of their primary; without a host, that
    of the guide.
    """

    first: int
    last: int
    host: str
    port: int


@lru_cache(maxsize=4096)
def _slot_of(tag: str) -> int:
    slot: int = key_slot(tag.encode(), SLOTS)
    return slot


def slot_of(op: Op[Any]) -> int:
    """The slot of all keys of an operation; where it has none, of the tenant that its first
    argument names.
    """
    key = spread(op.keys)[0] if op.keys else prefix(str(op.args[0]))
    return _slot_of(key[: key.index("}") + 1])


def locate(endpoint: Endpoint, guide: Endpoint) -> Dialogue:
    """Ask a guide for the primaries: a list of `Range`."""
    yield from authenticate(guide)
    if not endpoint.service:
        told = yield pack("CLUSTER", "SLOTS")
        if type(told) is not list:
            raise StoreUnavailable(
                f"store {guide.name}: no node of a cluster (CLUSTER SLOTS answered {str(told)[:200]})"
            )
        return [_range(each) for each in told]
    for command in ("CKQUORUM", "GET-MASTER-ADDR-BY-NAME"):
        told = yield pack("SENTINEL", command, endpoint.service)
        if type(told) is ServerError or told is None:
            raise StoreUnavailable(
                f"Sentinel {guide.name} names no primary of {endpoint.service!r}: "
                f"{str(told or 'unknown')[:200]}"
            )
    return [_range((0, SLOTS - 1, told))]


def _range(told: Any) -> Range:
    try:
        first, last, (host, port, *_), *_ = told
        named = b"" if host is None or host == b"?" else host  # the guide does not know its own
        return Range(int(first), int(last), named.decode("ascii"), int(port))
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreUnavailable(
            f"a guide tells an address that cannot be read: {str(told)[:200]}"
        ) from error


class Topology:
    """The servers of a store, each with its `Pool`."""

    def __init__(self, url: str) -> None:
        self.endpoint = Endpoint.of(url)
        self.checked = False  # whether the store's `check` has taken it
        # primaries that were not reached when they were looked at last
        self.away: set[str] = set()
        self._changes = 0
        self._guides = list(self.endpoint.guides)
        self._guide = ""
        self._pools: dict[str, Pool] = {}  # by name; those of before stay, for what they kept
        self._owners: list[tuple[Range, Pool]] = []  # in the order of their slots
        self._asked = 0.0
        self._stale = True
        self._closed = False
        self.only = None if self._guides else Pool(self.endpoint)

    @property
    def primaries(self) -> list[Pool]:
        """Each once."""
        return (
            [self.only]
            if self.only is not None
            else list(dict.fromkeys(pool for _, pool in self._owners))
        )

    @property
    def where(self) -> Where:
        """See `Where`."""
        if self.only is not None:
            return Where(primaries={self.endpoint.name: True})
        pools = self.primaries
        names = [pool.endpoint.name for pool in pools]
        role = "shards"
        guide = "node"
        if self.endpoint.service:
            role = f"primary of {self.endpoint.service}"
            guide = "Sentinel"
        told = f"{', '.join(names) or 'none'}: {role} by {guide} {self._guide or 'none'}"
        probes = ("readyz",) if self.endpoint.service else tuple(map(self._tenant_of, pools))
        return Where(
            told, {name: name not in self.away for name in names}, self._changes, probes
        )

    @property
    def keeps(self) -> Keeps:
        """What the worst of its primaries kept, of all that it ever had."""
        pools = self._pools.values() if self.only is None else (self.only,)
        return min((pool.keeps for pool in pools), key=_WORST.index, default=_WORST[0])

    @property
    def heartbeat(self) -> float | None:
        """The longest of its primaries'; None where one is not known."""
        known = (pool.heartbeat for pool in self.primaries)
        return max(known, key=lambda each: inf if each is None else each, default=None)

    def pool_of(self, op: Op[Any] | None) -> Pool | None:
        """The pool of the server that has the keys of an operation (None: any); None: nobody is
        known to.
        """
        return self._pool_at_slot(0 if op is None or self.endpoint.service else slot_of(op))

    def _tenant_of(self, pool: Pool) -> str:
        names = (f"readyz-{number}" for number in range(4096))
        return next(
            (name for name in names if self._pool_at_slot(_slot_of(f"{{{name}}}")) is pool),
            "readyz",
        )

    def _pool_at_slot(self, slot: int) -> Pool | None:
        owners = self._owners
        place = bisect_left(owners, slot, key=lambda each: each[0].last)
        if place < len(owners):
            told, pool = owners[place]
            if told.first <= slot:
                return pool
        return None

    def seek_pool(self, op: Op[Any] | None, deadline: float) -> Search:
        """The pool of the server that has an operation's keys, as the guides told; they are
        asked where nobody is known, or from time to time.
        """
        pool = self.pool_of(op)
        if pool is None:
            yield from self.ask_guides(deadline)
            pool = self.pool_of(op)
            if pool is None:
                raise self.missing()
        elif self._stale or time.monotonic() - self._asked > LOOK_AGAIN:
            # a guide that is away stops nothing: the primary is judged by itself
            with suppress(StoreUnavailable):
                yield from self.ask_guides(time.monotonic() + time_left(deadline) / 2)
                pool = self.pool_of(op) or pool
        return pool

    def ask_guides(self, deadline: float) -> Search:
        """Ask the guides, one after another, whoever answered last first, until one tells; the
        pool of the first slot.
        """
        if self._closed:
            raise StoreUnavailable(f"store {self.endpoint.name}: closed")
        self._asked = time.monotonic()  # meanwhile others go on with what is known
        tries = self._guides[:_TRIES]
        failed = list[str]()
        for number, guide in enumerate(tries):
            until = time.monotonic() + time_left(deadline) / (len(tries) - number + 1)
            told = yield guide, until
            try:
                if isinstance(told, StoreUnavailable):
                    raise told
                self.learn(guide, told)
            except StoreUnavailable as error:
                failed.append(str(error))
                self._guides = [each for each in self._guides if each is not guide] + [guide]
            else:
                return self.pool_of(None)
        kind = (
            f"Sentinels of {self.endpoint.service!r}"
            if self.endpoint.service
            else "nodes of a cluster"
        )
        raise StoreUnavailable(
            f"setting 'store' names {kind} at {self.endpoint.name}, and none tells a "
            f"primary: {'; '.join(failed)}"
        )

    def learn(self, guide: Endpoint, told: list[Range]) -> None:
        """Take a guide's answer."""
        found = [
            (each, self._pool_at(each.host or str(guide.options["host"]), each.port))
            for each in sorted(told)
        ]
        before = self.primaries
        now = list(dict.fromkeys(pool for _, pool in found))
        changed = bool(self._owners) and found != self._owners
        self._owners = found
        self._guide = guide.name
        self._asked = time.monotonic()
        self._stale = False
        if self.endpoint.sharded:
            known = {
                each.name: each
                for each in (guide, *(pool.endpoint for pool in now), *self._guides)
            }
            self._guides = list(known.values())
        if changed:
            self._changes += 1
            _log.warning("store_primaries_changed", where=self.where.told)
        for pool in before:
            if pool not in now:
                pool.drop()

    def gaps(self) -> list[str]:
        """The slots that no shard has."""
        found = list[str]()
        after = 0
        for first, last in (
            *((told.first, told.last) for told, _ in self._owners),
            (SLOTS, SLOTS),
        ):
            found += [f"{after}-{first - 1}"] if first > after else []
            after = last + 1
        return found if self.only is None else []

    def missing(self) -> StoreUnavailable:
        """What it means that a slot has no primary."""
        gaps = ", ".join(self.gaps())
        return StoreUnavailable(
            f"setting 'store' names a cluster at {self.endpoint.name} in which no shard has "
            f"the slots {gaps}"
        )

    def follow(self, told: Redirected) -> Pool:
        """Where a node says that a slot is."""
        self._stale = True
        return self._pool_at(told.host, told.port)

    def doubt(self, pool: Pool) -> None:
        """Something went wrong there: who is the primary is asked before the next call."""
        if self.only is None:
            self._stale = True
            pool.drop()

    def close(self) -> None:
        """Close all idle connections; every later call is refused."""
        self._closed = True
        for pool in (*self.primaries, *self._pools.values()):
            pool.close()

    def _pool_at(self, host: str, port: int) -> Pool:
        endpoint = self.endpoint.at(host, port)
        if endpoint.managed and not proves_service(endpoint):
            raise StoreUnavailable(
                f"store {endpoint.name}: no name of the service {endpoint.managed}"
            )
        if endpoint.name not in self._pools:
            self._pools[endpoint.name] = Pool(endpoint, judged=self.checked)
            if self._closed:
                self._pools[endpoint.name].close()
        return self._pools[endpoint.name]


class Examination:
    """What a look at every primary found.

    At start all have to be there; a shard that goes away later takes its own tenants with it,
    and nobody else's.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._errors: list[StoreUnavailable] = []
        self._found: list[Weakness] = []
        topology.away = set()
        if topology.gaps():
            self.lose("slots without one", topology.missing())

    def lose(self, name: str, error: StoreUnavailable) -> None:
        """No gate may use a primary: raises that, at start, or where there is no other."""
        if not self._topology.checked or not self._topology.endpoint.sharded:
            raise error
        self._topology.away.add(name)
        refused = "what its tenants ask is refused; the others go on"
        self._errors.append(error)
        self._found.append(
            Weakness(f"shard {name}: {error}", refused, "a primary for its slots", "shard_away")
        )

    def add(self, pool: Pool, found: tuple[Weakness, ...]) -> None:
        """It may be used, and this is weak about it."""
        if self._topology.only is None:
            found = tuple(
                each._replace(setting=f"{pool.endpoint.name}: {each.setting}") for each in found
            )
        self._found += found

    def weaknesses(self) -> tuple[Weakness, ...]:
        """All of it; StoreUnavailable where no primary may be used."""
        topology = self._topology
        if self._errors and len(self._errors) >= len(topology.primaries):
            raise self._errors[0]
        topology.checked = True
        versions = {pool.version for pool in topology.primaries if pool.version[1]}
        if len(versions) > 1:
            told = ", ".join(
                sorted(f"{kind} {'.'.join(map(str, number))}" for kind, number in versions)
            )
            self._found.append(
                Weakness(
                    f"versions in the cluster of setting 'store': {told}",
                    "an upgrade under way, or half of one",
                    "the same on every node",
                )
            )
        return tuple(self._found)
