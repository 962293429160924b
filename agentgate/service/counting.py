"""Counts for Prometheus, where its client is installed and settings say `metrics = true`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import ConfigError
from agentgate.loading.catalog import Ending
from agentgate.service.answer import RequestRefused
from agentgate.service.workers import METRICS


class Counts:
    """Requests by route and status, refusals by code, and how long answers took."""

    def __init__(self, *, wanted: bool) -> None:
        self._registry = None
        if not wanted:
            return
        try:
            import prometheus_client as prometheus  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            raise ConfigError("metrics", True, "pip install '.[prometheus]' in the clone (or metrics = false)") from None
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter("agentgate_requests", "Answered requests.", ("route", "status"), registry=self._registry)
        self._refusals = prometheus.Counter("agentgate_refusals", "Refusals by their code.", ("route", "error"), registry=self._registry)
        self._seconds = prometheus.Histogram("agentgate_request_seconds", "Until the answer.", ("route",), registry=self._registry)

    def count(self, route: str, status: int, error: str, seconds: float) -> None:
        """Count one answer; `error` empty: no refusal."""
        if self._registry is None:
            return
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if error:
            self._refusals.labels(route, error).inc()

    def shown(self, endings: Iterable[Ending]) -> Response:
        """In Prometheus' text format; `endings`: until when workflows are in force."""
        if self._registry is None:
            raise RequestRefused(404, "not_found")
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

        shown = self._registry
        if METRICS in os.environ:  # of all workers together
            shown = CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        ends = CollectorRegistry()
        ends.register(_Ends(endings))
        return Response(generate_latest(shown) + generate_latest(ends), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Ends:
    """When workflows are no longer in force, as a gauge: the index, the root, or the first approval."""

    def __init__(self, endings: Iterable[Ending]) -> None:
        self._endings = endings

    def collect(self) -> Iterator[Any]:
        """See Prometheus' client."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - as above

        family = GaugeMetricFamily("agentgate_approvals_end_seconds", "POSIX seconds at which it ends.", labels=("what",))
        for what, at in {each.what: each.at for each in reversed(tuple(self._endings))}.items():
            family.add_metric((what,), at)
        yield family


async def metrics(_: Request, service: Any) -> Response:  # `agentgate.service.state` imports this module
    """``GET /metrics``."""
    shown: Response = service.counts.shown(service.gate.catalog.endings())
    return shown
