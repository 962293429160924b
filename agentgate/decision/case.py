"""One call under decision, and what the checks found so far."""

from __future__ import annotations

from collections.abc import Callable

from agentgate.decision.earlier import Earlier
from agentgate.decision.origins import Traced
from agentgate.decision.value import Value
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow


class Case:
    """One call under decision, and what the checks found so far; the decision's record is made from it."""

    __slots__ = ("around", "call", "denied", "earlier_", "forced", "run", "tool", "traced", "values", "workflow")

    def __init__(self, workflow: Workflow, run: RunState, call: Call, around: Surroundings) -> None:
        self.workflow, self.run, self.call, self.around = workflow, run, call, around
        self.tool: Tool | None = workflow.tools.get(call.tool)
        self.values: dict[str, Value] = {}
        self.earlier_: Earlier | None = None
        self.traced: Traced | None = None
        self.denied: list[Failure] = []
        self.forced: list[Failure] = []

    @property
    def earlier(self) -> Earlier:
        """The run's redeemed calls, comparable under this workflow's tools."""
        if self.earlier_ is None:
            self.earlier_ = Earlier.of_run(self.run, self.workflow.tools)
        return self.earlier_

    def deny(self, reason: Reason, field: str, got: object, expected: str, line: int = 0, condition: str = "") -> None:  # noqa: PLR0917 - as `Failure`
        """Record one condition that did not hold; its key, where the field alone does not say which."""
        self.denied.append(Failure(reason, field, str(got), expected, f"{self.workflow.file}:{line}" if line else "", condition))


Check = Callable[[Case], None]
