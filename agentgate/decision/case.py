"""One call under decision, and what the checks found so far."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from typing import Any

from agentgate.decision.origins.earlier_calls import Earlier
from agentgate.decision.origins.trace_result import Traced
from agentgate.decision.origins.value import Value
from agentgate.values.refusal import Failure, Reason, of_argument, place
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import WhenOpen


class Case:
    """One call under decision, built for it and read by the checks; the decision's record is
    made from it.

    Attributes:
        values: the arguments in normal form.
        named: every argument came from the prompt (`agentgate.decision.origins.named_calls`).
        traced: what was found of the arguments' origins.
        denied: failures that refuse the call.
        forced: failures that ask a person; at least a group where `strict`.
    """

    __slots__ = (
        "_earlier",
        "around",
        "call",
        "denied",
        "forced",
        "named",
        "run",
        "strict",
        "tool",
        "traced",
        "values",
        "workflow",
    )

    def __init__(
        self, workflow: Workflow, run: RunState, call: Call, around: Surroundings
    ) -> None:
        self.tool: Tool | None = workflow.tools.get(call.tool)
        self.workflow = workflow
        self.run = _asked_about(run, self.tool)
        self.call = call
        self.around = around
        self.values: dict[str, Value] = {}
        self.named = False
        self.traced: Traced | None = None
        self._earlier: Earlier | None = None
        self.denied: list[Failure] = []
        self.forced: list[Failure] = []
        self.strict = False

    @property
    def earlier(self) -> Earlier:
        """The run's redeemed calls, comparable under this workflow's tools."""
        if self._earlier is None:
            self._earlier = Earlier.of_run(self.run, self.workflow.tools)
        return self._earlier

    def deny(
        self, reason: Reason, field: str, got: object, expected: str, line: int = 0, **data: Any
    ) -> None:
        """Record one condition that did not hold."""
        self.denied.append(
            Failure(reason, field, str(got), expected, place(self.workflow.file, line), data)
        )

    def deny_argument(  # noqa: PLR0917 - as `Failure`
        self, reason: Reason, name: str, got: str, expected: str, line: int, condition: str
    ) -> None:
        """Record one condition on an argument that did not hold."""
        self.denied.append(
            of_argument(reason, name, got, expected, place(self.workflow.file, line), condition)
        )

    @property
    def left_open(self) -> Container[str]:
        """The arguments whose own origin the call leaves open, found out by the checks."""
        return {*self.traced.unknown, *self.traced.apart} if self.traced is not None else ()

    def leave_open(self, failure: Failure, answer: WhenOpen) -> None:
        """Record what the call leaves open: refused, or asked at least as strictly as the
        workflow says.
        """
        (self.denied if answer == "deny" else self.forced).append(failure)
        self.strict |= answer == "step_up"


def _asked_about(run: RunState, tool: Tool | None) -> RunState:
    """The run; where somebody is asked whether the user meant the call at all, also with what
    the user named in doubt.
    """
    if tool is None or run.prompt is None:
        return run
    unclear = False
    for name in tool.needs:
        presence = run.intents[name].presence if name in run.intents else "absent"
        if presence == "present":
            return run
        unclear = unclear or presence == "unclear"
    return replace(run, prompt=replace(run.prompt, in_doubt=True)) if unclear else run


Check = Callable[[Case], None]
