"""The steps a flow yields: a store operation, or an audit record. Knows no policy, so that a tool server can verify without any."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

from agentgate.stores import Op


class Record(NamedTuple):
    """An audit record that must be durable before the flow goes on. That of a `refusal` is written after the call's deadline too."""

    body: Mapping[str, Any]
    refusal: bool = False


Step = Op | Record
Flow = Generator[Step, Any, Any]
