"""Spans around what a gate or a tool server does, for whoever traces it. Without a `Tracing`
nothing is made.

Rules: names and attributes are those of OpenTelemetry's conventions for generative AI
(`gen_ai.*`, `security_rule.*`, `error.type`). Of a call a span has the names of tool, workflow
and agent and its ids; never an argument, a result, a prompt, a token or a credential, nor the
text of an exception, which may hold one. A tool that the workflow does not know has no name
here: a model may have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from agentgate.errors import AgentGateError, TokenRefused
from agentgate.shell.step import Step

Value = TypeVar("Value")
Attributes = Mapping[str, str | int]
Telling = Callable[..., None]
UNKNOWN_TOOL = "unknown"
MAX_ID = 128  # characters of an id from outside


class Span(Protocol):
    """One span that has begun; it is the current one until it ends."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def end(self, error: str = "") -> None:
        """End it; `error`: its `error.type`."""


class Tracing(Protocol):
    """Where spans go, such as `agentgate.integrations.otel.OpenTelemetry`."""

    def begin(
        self, name: str, attributes: Attributes, *, headers: Mapping[str, str] | None = None
    ) -> Span:
        """Begin a span below the current one; with the `headers` of a request below the one
        that they name (W3C Trace Context).
        """

    def carried(self) -> Mapping[str, str]:
        """The headers of a request that name the current span."""


def call_attributes(
    tool: str, call: str, agent: str, workflow: str, version: int
) -> dict[str, str | int]:
    """What a span says of a call, by the ids of tool, call, agent and workflow."""
    return {
        "gen_ai.tool.name": tool,
        "gen_ai.tool.call.id": call[:MAX_ID],
        "gen_ai.agent.id": agent[:MAX_ID],
        "gen_ai.workflow.name": workflow,
        "security_rule.name": workflow,
        "security_rule.version": str(version),
    }


def spanned(
    tracing: Tracing,
    name: str,
    attributes: Attributes,
    flow: Generator[Step, Any, Value],
    said: Callable[[Value], tuple[Attributes, str]],
) -> Generator[Step, Any, Value]:
    """The flow, in a span. `said`: what its value adds: attributes, and an `error.type` or
    nothing.
    """
    with within(tracing, name, attributes) as tell:
        value = yield from flow
        tell(*said(value))
    return value


@contextmanager
def within(tracing: Tracing | None, name: str, attributes: Attributes) -> Iterator[Telling]:
    """A span around a block, which is given what tells it more: attributes, and an `error.type`
    or nothing.
    """
    if tracing is None:
        yield lambda *_: None
        return
    span = tracing.begin(name, attributes)
    errors = ["cancelled"]

    def tell(more: Attributes, error: str = "") -> None:
        span.set(more)
        errors.append(error)

    try:
        yield tell
    except AgentGateError as raised:
        errors.append(
            str(raised.code) if isinstance(raised, TokenRefused) else type(raised).__name__
        )
        raise
    finally:
        span.end(errors[-1])
