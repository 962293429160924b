"""OpenTelemetry: ``Gate.open(..., tracing=OpenTelemetry())``, and the same for verifiers. Only
the API is needed here (extra `otel`).

Rules: where spans go, how many and with which resource is the host's OpenTelemetry SDK, or
``opentelemetry-instrument``. What is in them is `agentgate.shell.spans`. Of a request only
`traceparent` and `tracestate` are read.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentgate.shell.spans import Span

_CARRIED = ("traceparent", "tracestate")


class OpenTelemetry:
    """Spans by an OpenTelemetry tracer."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        """`tracer`: None: that of the global tracer provider."""
        self._tracer = tracer or trace.get_tracer("agentgate")

    def begin(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Span:
        """See `agentgate.shell.spans.Tracing`."""
        carried = (
            {each: headers[each] for each in _CARRIED if each in headers}
            if headers is not None
            else {}
        )
        above = TraceContextTextMapPropagator().extract(carried) if carried else None
        kind = trace.SpanKind.INTERNAL if headers is None else trace.SpanKind.SERVER
        return _Begun(self._tracer.start_span(name, above, kind, attributes))

    def carried(self) -> Mapping[str, str]:
        """See `agentgate.shell.spans.Tracing`."""
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        return headers


class _Begun:
    """A span, current until it ends."""

    def __init__(self, span: trace.Span) -> None:
        self._span, self._token = span, context.attach(trace.set_span_in_context(span))

    def set(self, attributes: Mapping[str, str | int]) -> None:
        """See `agentgate.shell.spans.Span`."""
        self._span.set_attributes(attributes)

    def end(self, error: str = "") -> None:
        """See `agentgate.shell.spans.Span`."""
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        context.detach(self._token)
        self._span.end()
