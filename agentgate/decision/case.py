"""One call under decision, and what the checks found so far; what tracing its arguments finds
(`agentgate.decision.origins.tracing.trace`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

from agentgate.decision.origins.earlier_calls import Answer, Earlier, own_id
from agentgate.decision.origins.kinds import Value, sources_of
from agentgate.language.prompt import Prompt
from agentgate.values.refusal import Failure, Reason, of_argument, place
from agentgate.values.request import Call, RunState, Surroundings
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import PROMPT, WhenOpen

# tool -> the call, and the row of it, that everything refers to
Joined = Mapping[str, tuple[Answer, int]]


class Traced:
    """What tracing one call finds.

    Attributes:
        failures: conditions that refuse the call.
        unknown: arguments whose origin does not hold and whose `unknown_origin` asks a person
            then, with why.
        apart: those of which any may be the one that no call explains together with the rest.
        named: the call is named (`agentgate.decision.origins.tracing`).
        origins: how the decision's record names the origin of each argument that no earlier
            call explains.
        args: the arguments as sent.
        pending, chosen: the arguments that earlier calls explain, and the call (and row) of
            each tool that was chosen for all of them.
    """

    __slots__ = (
        "apart",
        "args",
        "chosen",
        "failures",
        "file",
        "named",
        "origins",
        "pending",
        "prompt",
        "tool",
        "unknown",
    )

    def __init__(self, tool: Tool, args: Mapping[str, Any], prompt: Prompt, file: str) -> None:
        self.tool = tool
        self.args = args
        self.prompt = prompt
        self.file = file
        self.named = False
        self.failures: list[Failure] = []
        self.unknown: dict[str, Failure] = {}
        self.apart: set[str] = set()
        self.origins: dict[str, str] = {}
        self.pending: Mapping[str, Value] = {}
        self.chosen: Joined = {}

    def recorded(self, name: str) -> str:
        """How the record names the origin of an argument, as it was found; empty where nothing
        was asked or found.
        """
        if name not in self.pending:
            return self.origins.get(name, "")
        value = self.pending[name]
        for tool, sources in value.rule.calls:
            if tool in self.chosen:
                call, index = self.chosen[tool]
                for source in sources:
                    if call.in_row(value, (source,), index):
                        return f"{source} {call.id}"
        raise AssertionError(f"{name}: nothing that was chosen explains it")

    def argument(
        self, reason: Reason, value: Value, expected: str, condition: str, *, asks: bool = False
    ) -> None:
        """Record that the origin or the bound of an argument does not hold; `asks`: a person
        may still say yes.
        """
        name = value.rule.name
        place = f"{self.file}:{value.rule.line}"
        failure = of_argument(reason, name, value.shown, expected, place, condition)
        if asks:
            self.unknown[name] = failure
        else:
            self.failures.append(failure)

    def above(self, value: Value) -> None:
        """Record that no earlier call bounds an argument."""
        expected = f"at most {value.rule.at_most} of an earlier call"
        self.argument(Reason.AT_MOST, value, expected, f"args.{value.rule.name} at_most")

    def unexplained(self, value: Value) -> None:
        """Record that an argument has none of its origins."""
        expected = (
            "a value from "
            + " or ".join(map(str, sources_of(value, self.prompt)))
            + self._apart(value)
        )
        asks = value.rule.unknown_origin != "deny"
        self.argument(
            Reason.ARGUMENT_ORIGIN, value, expected, f"args.{value.rule.name} from", asks=asks
        )

    def _apart(self, value: Value) -> str:
        """Why a prompt that seems to name a datetime does not: a day and a time belong together
        only where they stand together.
        """
        if value.rule.type != "datetime" or PROMPT not in value.rule.sources:
            return ""
        words = self.prompt.words
        parts = [str(key).partition("T") for key in value.keys]
        named = all(words("date", day) and words("time", time[:5]) for day, _, time in parts)
        return (
            ' (the prompt names its day and its time apart: "on 2026-06-03 at 10:00" names both together)'
            if named
            else ""
        )

    def of_tool(
        self, reason: Reason, got: str, expected: str, line: int, condition: str
    ) -> None:
        """Record that something does not hold of the call as a whole."""
        name = self.tool.name
        self.failures.append(
            Failure(
                reason,
                name,
                got,
                expected,
                f"{self.file}:{line}",
                {"condition": f"{name} {condition}"},
            )
        )

    def mixed(self, expected: str) -> None:
        """Record that only different calls meet what one call must."""
        got = "conditions met only by different earlier calls"
        self.of_tool(
            Reason.ONE_SOURCE,
            got,
            f"all references to {expected}",
            self.tool.line,
            "one source",
        )


class Case:
    """One call under decision, built for it and read by the checks; the decision's record is
    made from it.

    Attributes:
        values: the arguments in normal form.
        named: every argument came from the prompt (`agentgate.decision.origins.tracing`).
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
            run = self.run
            tools = self.workflow.tools
            known: Earlier | None = run.memo.get("earlier")  # made once for a state of a run
            if known is None or known.tools is not tools:
                known = run.memo["earlier"] = Earlier(run.calls, tools, run.prompt, own_id(run))
                known.remembered = run.remembered
            self._earlier = known
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
