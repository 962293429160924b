"""How a served gate is, in closed codes: what stops it, and what it goes on without. Readiness,
metrics and the log all tell this; the counts are for Prometheus, where its client is installed
and settings say `metrics = true`.

Rules: it is looked at when somebody asks, at most once in `FRESH_SECONDS`, and every
`LOOK_SECONDS` by itself, so that the log names what began and what ended although nobody asked.
A part that cannot be looked at stops the gate. docs/operations/runbook.md explains each code.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response

from agentgate.approvals.opening import warn_of
from agentgate.audit.segment import FULL
from agentgate.errors import (
    AuditUnavailable,
    ClockSkewed,
    ConfigError,
    KeyRefused,
    RequestRefused,
    StoreUnavailable,
)
from agentgate.loading.catalog import AHEAD
from agentgate.service.served import ServedGate
from agentgate.stores import ops, recovery
from agentgate.values.visible import visible

METRICS = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client adds up the workers' counts


# the whole name, help and labels of each metric
_METRICS = {
    name: (f"agentgate_{name}", told, labels)
    for names, _, told in (
        line.partition(": ")
        for line in Path(__file__).with_name("metrics.txt").read_text("utf-8").splitlines()[2:]
    )
    for name, *labels in [names.split()]
}
Gauges = Mapping[
    str, Mapping[Any, float]
]  # by the metric's name, and by its labels: as it is now


class Counts:
    """Requests by route and status, refusals by code, how long answers and the store took,
    calls whose outcome nobody knows.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._registry = None
        if not wanted:
            return
        try:
            import prometheus_client as prometheus  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            raise ConfigError(
                "metrics", True, "pip install '.[prometheus]' in the clone (or metrics = false)"
            ) from None
        self._registry = prometheus.CollectorRegistry()
        counter = partial(prometheus.Counter, registry=self._registry)
        seconds = partial(prometheus.Histogram, registry=self._registry)
        self._requests = counter(*_METRICS["requests"])
        self._refusals = counter(*_METRICS["refusals"])
        self._seconds = seconds(*_METRICS["request_seconds"])
        self._unknown = counter(*_METRICS["outcomes_unknown"])
        buckets = list(
            map(float, "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5".split())
        )
        self._store = seconds(*_METRICS["store_seconds"], buckets=buckets)

    def count_unknown(self) -> None:
        """Count a call whose outcome nobody knows."""
        if self._registry is not None:
            self._unknown.inc()

    def count_operation(self, operation: str, seconds: float) -> None:
        """Count one operation of the state store, answered or not."""
        if self._registry is not None:
            self._store.labels(operation).observe(seconds)

    def count(self, route: str, status: int, error: str, seconds: float) -> None:
        """Count one answer; `error` empty: no refusal."""
        if self._registry is None:
            return
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if error:
            self._refusals.labels(route, error).inc()

    def render(self, gauges: Gauges) -> Response:
        """All counts, and these gauges, in Prometheus' text format."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

        shown = self._registry or CollectorRegistry()
        if METRICS in os.environ:  # of all workers together
            shown = CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        now = CollectorRegistry()
        now.register(_Gauges(gauges))
        return Response(
            generate_latest(shown) + generate_latest(now),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


@dataclass(eq=False)  # it is told apart from others as itself
class _Gauges:
    """Gauges as Prometheus' client collects them."""

    gauges: Gauges

    def collect(self) -> Iterator[Any]:
        """See Prometheus' client."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - as above

        for metric, values in self.gauges.items():
            name, told, labels = _METRICS[metric]
            family = GaugeMetricFamily(name, told, labels=labels)
            for each, value in values.items():
                family.add_metric(each, value)
            yield family


# `agentgate.service.state` imports this module
async def metrics(_: Request, service: Any) -> Response:
    """``GET /metrics``."""
    if not service.settings.metrics:
        raise RequestRefused(404, "not_found")
    shown: Response = service.counts.render(await service.health.gauges())
    return shown


FRESH_SECONDS = 1.0
LOOK_SECONDS = 5.0
# bytes for the audit log; of a sync of it
LITTLE_ROOM = 1 << 30
SLOW_SECONDS = 0.1
_CAUSES = dict.fromkeys(FULL, "audit_full") | {
    errno.EROFS: "audit_read_only",
    errno.EACCES: "audit_read_only",
    errno.ENOENT: "audit_gone",
}
_log = structlog.get_logger("agentgate.service")


class HealthCondition(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        code: closed.
        stops: nothing is decided while it lasts.
        what: for the operator.
        public: whether everybody who asks may read `what`.
    """

    code: str
    stops: bool
    what: str
    public: bool = False

    @property
    def line(self) -> str:
        """What readiness says of it."""
        return f"{self.code}: {self.what}" if self.public else self.code


class Health:
    """The conditions of one service, kept for a moment."""

    def __init__(self, gate: ServedGate, audit: Path, ready: Callable[[], bool]) -> None:
        self._gate = gate
        self._audit = audit
        self._ready = ready
        self._looked = -FRESH_SECONDS
        self._looking = asyncio.Lock()
        self._known: tuple[HealthCondition, ...] = ()
        self._lost: list[str] = []
        self._moves: dict[str, int] = {}
        self._counted = -LOOK_SECONDS

    async def conditions(self) -> tuple[HealthCondition, ...]:
        """What is so now; empty: all is well."""
        async with self._looking:
            if time.monotonic() - self._looked >= FRESH_SECONDS:
                found = await self._look()
                self._tell_changes(found)
                self._known = found
                self._looked = time.monotonic()
        return self._known

    async def gauges(self) -> Gauges:
        """How it is, in numbers, as they are when somebody asks for metrics."""
        conditions, gate = await self.conditions(), self._gate
        held: dict[str, tuple[int, float]] = {}
        for tenant in gate.every_tenant():
            with suppress(StoreUnavailable):  # its shard is away
                held[tenant] = await gate.ask(ops.count_holds(tenant))
        where = gate.store.where
        found: dict[str, Mapping[Any, float]] = {
            "condition": {
                (each.code, "yes" if each.stops else "no"): 1.0 for each in conditions
            },
            "approvals_end_seconds": {
                (each.what,): each.at for each in reversed(gate.catalog.endings())
            },
            "workflow_in_force": {(each.id, str(each.version)): 1.0 for each in gate.catalog},
            "holds_open": {(t,): n for t, (n, _) in held.items()},
            "oldest_hold_seconds": {
                (t,): time.time() - since if since else 0.0 for t, (_, since) in held.items()
            },
            "store_primary_up": {(n,): float(up) for n, up in where.primaries.items()},
            "store_primaries_changed": {(): where.changes},
            "tenant_moves": {(t,): n for t, n in self._moves.items()},
            "tenants_lost": {(): len(self._lost)},
        }
        with suppress(OSError):
            found["audit_free_bytes"] = {(): float(shutil.disk_usage(self._audit).free)}
        return found

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look again and again, until it is left."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            await self.conditions()
            await asyncio.sleep(LOOK_SECONDS)

    def _tell_changes(self, found: tuple[HealthCondition, ...]) -> None:
        before = {each.code: each for each in self._known}
        now = {each.code: each for each in found}
        for code, each in now.items():
            if code not in before:
                _log.warning(
                    "condition_began",
                    code=code,
                    stops=each.stops,
                    what=visible(each.what)[:500],
                )
        for code in before.keys() - now.keys():
            _log.info("condition_ended", code=code)

    async def _look(self) -> tuple[HealthCondition, ...]:
        found = [
            *self._of_keys(),
            *self._of_workflows(),
            *await self._of_store(),
            *await self._of_audit(),
        ]
        if not self._ready():
            found.append(HealthCondition("ending", True, "the process was told to end"))
        return tuple(sorted(found, key=lambda each: not each.stops))

    def _of_keys(self) -> Iterator[HealthCondition]:
        try:
            self._gate.jwks()
        except KeyRefused as error:
            yield HealthCondition("keys", True, str(error))

    def _of_workflows(self) -> Iterator[HealthCondition]:
        catalog = self._gate.catalog
        if not catalog:
            yield HealthCondition("workflows", True, "no workflow is in force")
        if due := catalog.due():  # a gate that nobody calls warns as well
            warn_of(due)
        if (over := catalog.over()) is not None:
            yield HealthCondition(
                "stale_index" if over.what == "index" else f"{over.what}_expired",
                True,
                str(over),
            )
        for each in catalog.endings(AHEAD):
            yield HealthCondition("approvals_end", False, str(each), public=True)

    async def _of_store(self) -> list[HealthCondition]:
        gate = self._gate
        try:
            weaknesses = await gate.store.check()
            refused = await self._write_everywhere()
            if time.monotonic() - self._counted >= LOOK_SECONDS:  # one question for each tenant
                await self._count_histories()
        except ClockSkewed as error:
            return [HealthCondition("clock", True, str(error))]
        except StoreUnavailable as error:
            return [HealthCondition("store", True, str(error))]
        # the rest is doctor's
        found = [
            HealthCondition(
                each.code, False, f"{each.setting}: {each.means}; to do: {each.remedy}"
            )
            for each in weaknesses
            if each.code != "store_weak"
        ]
        found += [HealthCondition("shard_away", False, str(each)) for each in refused]
        if gate.store.keeps == "no" and not any(
            each.code == "store_may_lose" for each in found
        ):
            was = (
                "its settings are right, and were not for a while: this process still "
                "takes it for one that may lose; to do: a restart"
            )
            found.append(HealthCondition("store_may_lose", False, was))
        if self._lost:
            what = f"{', '.join(self._lost)}: agentgate store reconcile"
            found.append(HealthCondition("history_lost", False, what))
        return found

    async def _write_everywhere(self) -> list[StoreUnavailable]:
        """Why some shards take no writes (a full one answers who only reads); raises that where
        none does.
        """
        refused = list[StoreUnavailable]()
        probes = self._gate.store.where.probes
        for tenant in probes:
            try:
                await self._gate.ask(
                    ops.keep(tenant, "assertion", "look", b"1", ttl_ms=1000, replace=True)
                )
            except StoreUnavailable as error:
                refused.append(error)
        if len(refused) == len(probes):
            raise refused[0]
        return refused

    async def _count_histories(self) -> None:
        lost = list[str]()
        for tenant in self._gate.every_tenant():
            # its shard is away: that is a condition of its own
            with suppress(StoreUnavailable):
                history = await self._gate.ask(recovery.read_history(tenant))
                self._moves[tenant] = history.moved
                lost += [tenant] if history.lost else []
        self._lost = lost
        self._counted = time.monotonic()

    async def _of_audit(self) -> list[HealthCondition]:
        try:
            log, free = await self._gate.look_at_audit(), shutil.disk_usage(self._audit).free
        except (AuditUnavailable, OSError) as error:
            why = error.__cause__ or error
            cause = _CAUSES.get(why.errno or 0) if isinstance(why, OSError) else "audit_slow"
            return [
                HealthCondition(code, True, str(error)) for code in ("audit", cause) if code
            ]
        lacking = [f"{place}: {problem}" for place, problem in log.copies.problems.items()]
        found = [
            (free < LITTLE_ROOM, "audit_room", f"{free >> 20} MiB free at {self._audit}"),
            (
                log.took > SLOW_SECONDS,
                "audit_slow",
                f"the last sync took {log.took:.2f} s at {self._audit}",
            ),
            (bool(lacking), "audit_checkpoint", "; ".join(lacking)),
        ]
        return [HealthCondition(code, False, what) for holds, code, what in found if holds]
