"""One call under decision, and what the checks found so far."""

from __future__ import annotations

from collections.abc import Callable

from agentgate.decision.earlier import Earlier
from agentgate.decision.traced import Traced
from agentgate.decision.value import Value
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow


class Case:
    """One call under decision, built for it and read by the checks; the decision's record is made from it.

    Attributes:
        values: the arguments in normal form.
        named: every argument came from the prompt (`agentgate.decision.named`).
        traced: what was found of the arguments' origins.
        denied: failures that refuse the call.
        forced: failures that ask a person, whatever the step-up rules say.
    """

    __slots__ = ("_earlier", "around", "call", "denied", "forced", "named", "run", "tool", "traced", "values", "workflow")

    def __init__(self, workflow: Workflow, run: RunState, call: Call, around: Surroundings) -> None:
        self.workflow, self.run, self.call, self.around = workflow, run, call, around
        self.tool: Tool | None = workflow.tools.get(call.tool)
        self.values: dict[str, Value] = {}
        self.named = False
        self.traced: Traced | None = None
        self._earlier: Earlier | None = None
        self.denied: list[Failure] = []
        self.forced: list[Failure] = []

    @property
    def earlier(self) -> Earlier:
        """The run's redeemed calls, comparable under this workflow's tools."""
        if self._earlier is None:
            self._earlier = Earlier.of_run(self.run, self.workflow.tools)
        return self._earlier

    def deny(self, reason: Reason, field: str, got: object, expected: str, line: int = 0, condition: str = "") -> None:  # noqa: PLR0917 - as `Failure`
        """Record one condition that did not hold, with its key where the field alone does not identify it."""
        self.denied.append(Failure(reason, field, str(got), expected, f"{self.workflow.file}:{line}" if line else "", condition))


Check = Callable[[Case], None]
