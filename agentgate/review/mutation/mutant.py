"""One mutant: a workflow in which one condition was dropped or loosened by the smallest step, and how a case could tell.

Rules: a mutant keeps its workflow's id and digest, so that runs of the original fit it; its tries are only suggestions, a case
is offered when the engine tells the two workflows apart on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentgate.decision.answer import Eligible
from agentgate.intents.deriver import Deriver
from agentgate.review.scenarios.scene import Scene
from agentgate.workflow.model import StepUpRule, Tool, Workflow
from agentgate.workflow.rule import Rule

Changes = Mapping[str, Any]


class Anything(tuple[str, ...]):
    """A list of names that every name is in; it still prints as the list it was."""

    __slots__ = ()

    def __contains__(self, _: object) -> bool:
        return True


class AnyText(str):
    """A text that every text equals."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, str)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One condition, loosened.

    Attributes:
        path: dotted path of the condition, as the file spells it: ``tools.payments.refund.args.amount.max``.
        words: what was done to it, for a reviewer.
        line: where the condition stands.
        workflow: the workflow with only this changed.
        of: the class and field of `agentgate.workflow.model` that was changed.
        tool: the tool whose calls can tell; empty: any.
        tries: changes to a base that may tell them apart, the simplest first.
        pin: for what no decision shows: ``("grants", "ttl")`` or ``("asks", "count")``.
        name: what a case that tells them apart is called.
    """

    path: str
    words: str
    line: int
    workflow: Workflow = field(repr=False)
    of: tuple[str, str]
    tool: str = ""
    tries: tuple[Changes, ...] = field(default=(), repr=False)
    pin: tuple[str, str] | None = None
    name: str = ""

    @property
    def place(self) -> str:
        """``file:line`` of the condition."""
        return f"{self.workflow.file}:{self.line}" if self.line else self.workflow.file

    def __str__(self) -> str:
        return f"{self.place}: {self.path}: {self.words}"


@dataclass(frozen=True, slots=True)
class NotCovered:
    """A condition that no case can cover, and why."""

    path: str
    why: str


def calling(base: Scene, other: Scene) -> Changes:
    """The fewest changes of a base after which the call of another scene goes through in it: the call, its prompt, or all of it."""
    tool = other.values["call"]
    if base.values["call"] == tool:
        return {}
    args = {key: value for key, value in other.values.items() if key.startswith("args.")}
    earlier = {key: value for key, value in other.values.items() if key.startswith(("earlier.", "facts.", "ago."))}
    gone = {f"earlier.{label}": None for label in base.earlier if label not in other.earlier}
    prompt = {"prompt": other.values["prompt"]}
    for more in ({}, prompt, {**prompt, **gone}, {**gone, **prompt, **earlier, **args}):
        scene = base.set({"call": tool, **more})
        if isinstance(scene.decide(), Eligible) and not scene.unreached:
            return {"call": tool, **more}
    return {"call": tool}


class Mutations:
    """Collects the mutants of one workflow. `base` gives a complete allowed scene of a tool, for values that tries need."""

    def __init__(self, workflow: Workflow, derive: Deriver, base: Scene | None = None) -> None:
        self.workflow, self.derive, self._base = workflow, derive, base
        self.found: list[Mutant] = []
        self.skipped: list[NotCovered] = []
        self._bases: dict[str, Scene] = {}

    def base(self, tool: str) -> Scene:
        """The base, or a filled scene, calling this tool."""
        if tool not in self._bases:
            base = self._base
            made = Scene.of(self.workflow, {"call": tool}, derive=self.derive)
            self._bases[tool] = made if base is None else base.set(calling(base, made))
        return self._bases[tool]

    def add(  # noqa: PLR0917 - one row of a table
        self,
        path: str,
        words: str,
        line: int,
        mutated: Workflow,
        of: tuple[str, str],
        tries: Iterable[Changes] = (),
        *,
        tool: str = "",
        pin: tuple[str, str] | None = None,
        name: str = "",
    ) -> None:
        """Note one mutant."""
        self.found.append(Mutant(path, words, line, mutated, of, tool, tuple(tries), pin, name or f"{path.rpartition('.')[2]}: {words}"))

    def skip(self, path: str, why: str) -> None:
        """Note a condition that no case can tell."""
        self.skipped.append(NotCovered(path, why))

    def with_tool(self, tool: Tool, **changes: Any) -> Workflow:
        """The workflow with one tool changed."""
        return replace(self.workflow, tools={**self.workflow.tools, tool.name: replace(tool, **changes)})

    def with_rule(self, tool: Tool, rule: Rule, **changes: Any) -> Workflow:
        """The workflow with one argument's rule changed."""
        return self.with_tool(tool, args={**tool.args, rule.name: replace(rule, **changes)})

    def with_step_up(self, tool: Tool, rule: StepUpRule, **changes: Any) -> Workflow:
        """The workflow with one step-up rule changed."""
        return self.with_tool(tool, step_ups=tuple(replace(r, **changes) if r is rule else r for r in tool.step_ups))
