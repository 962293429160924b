"""Counts for Prometheus, where its client is installed and settings say `metrics = true`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import ConfigError, RequestRefused
from agentgate.service.workers import METRICS


class Gauge(NamedTuple):
    """Numbers of one kind, as they are now: name (without ``agentgate_``), help, names of
    labels, and values by labels.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    values: Mapping[Any, float]


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
        self._requests = prometheus.Counter(
            "agentgate_requests",
            "Answered requests.",
            ("route", "status"),
            registry=self._registry,
        )
        self._refusals = prometheus.Counter(
            "agentgate_refusals",
            "Refusals by their code.",
            ("route", "error"),
            registry=self._registry,
        )
        self._seconds = prometheus.Histogram(
            "agentgate_request_seconds",
            "Until the answer.",
            ("route",),
            registry=self._registry,
        )

        unknown = "Calls asked for again, or reported, whose outcome nobody knows."
        self._unknown = prometheus.Counter(
            "agentgate_outcomes_unknown", unknown, registry=self._registry
        )
        buckets = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
        took = "Until the state store answered."
        self._store = prometheus.Histogram(
            "agentgate_store_seconds",
            took,
            ("operation",),
            registry=self._registry,
            buckets=buckets,
        )

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

    def render(self, gauges: Iterable[Gauge]) -> Response:
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


class _Gauges:
    """Gauges as Prometheus' client collects them."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Any]:
        """See Prometheus' client."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - as above

        for gauge in self._gauges:
            family = GaugeMetricFamily(
                f"agentgate_{gauge.name}", gauge.help, labels=gauge.labels
            )
            for labels, value in gauge.values.items():
                family.add_metric(labels, value)
            yield family


# `agentgate.service.state` imports this module
async def metrics(_: Request, service: Any) -> Response:
    """``GET /metrics``."""
    if not service.settings.metrics:
        raise RequestRefused(404, "not_found")
    shown: Response = service.counts.render(await service.health.gauges())
    return shown
