"""Counts for Prometheus, where its client is installed and settings say `metrics = true`."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import ConfigError
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

    def shown(self) -> Response:
        """In Prometheus' text format."""
        if self._registry is None:
            raise RequestRefused(404, "not_found")
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

        shown = self._registry
        if METRICS in os.environ:  # of all workers together
            shown = CollectorRegistry()
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        return Response(generate_latest(shown), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def metrics(_: Request, service: object) -> Response:
    """``GET /metrics``."""
    return service.counts.shown()  # type: ignore[attr-defined, no-any-return]  # `agentgate.service.state` imports this module
