"""A mutant: a workflow with one condition dropped or loosened by its smallest step, and changes
of a scene that may show it.

Rules: a mutant keeps its workflow's id and digest, so that runs of the original fit it. Its
tries are only suggestions: a case is proposed where the engine decides the two workflows
differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from functools import cache
from typing import Any

from agentgate.decision.answer import Eligible
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.values import parts
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.model import Workflow

Changes = Mapping[str, Any]
BASE: tuple[Changes, ...] = ({},)


class Anything(Names):
    """A list that contains every name; it prints as the list it was."""

    __slots__ = ()

    def __contains__(self, _: object) -> bool:
        return True


class AnyText(str):
    """A text that equals every text."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, str)


@value_class
class Mutant:
    """A workflow with one condition loosened."""

    # dotted path of the condition, as the file spells it:
    # ``tools.payments.refund.args.amount.max``
    path: str
    words: str  # the change, for a reviewer
    line: int  # line of the condition
    workflow: Workflow = field(repr=False)  # the workflow with only this changed
    of: tuple[str, str]  # the class and field of `agentgate.workflow.model` that was changed
    tool: str = ""  # the tool whose calls can show it; empty: any
    # changes to a base that may show it, the simplest first
    tries: tuple[Changes, ...] = field(default=(), repr=False)
    pin: str = ""  # for what no decision shows: ``grants.ttl`` or ``asks.count``
    name: str = ""  # the name of a case that shows it

    @property
    def place(self) -> str:
        """``file:line`` of the condition."""
        return f"{self.workflow.file}:{self.line}" if self.line else self.workflow.file

    def __str__(self) -> str:
        return f"{self.place}: {self.path}: {self.words}"


@value_class
class NotCovered:
    """A condition that no case can cover, and why."""

    path: str
    why: str


Mutated = Iterator[Mutant | NotCovered]


@value_class
class Part:
    """A value within a workflow, and how to replace it there."""

    path: str  # where the file has it; empty: the workflow itself
    value: Any  # the value, of a class of `agentgate.workflow.model`
    # the workflow with another value in its place; without it for None
    put: Callable[[Any], Workflow]
    tool: str = ""  # the tool whose calls it governs; empty: any

    def inside(self, path: str, field: str, part: Any = None, tool: str = "") -> Part:
        """The value of a field, or the `part` that its tuple or mapping holds."""
        held = getattr(self.value, field)

        def put(new: Any) -> Workflow:
            changed = new
            if isinstance(held, Mapping):
                changed = {**held, part.name: new}
            elif isinstance(held, tuple):
                changed = tuple(
                    new if each is part else each
                    for each in held
                    if each is not part or new is not None
                )
            return self.put(replace(self.value, **{field: changed}))

        return Part(path, part or held, put, tool or self.tool)

    def mutant(
        self,
        key: str,
        words: str,
        name: str,
        tries: Iterable[Changes] = BASE,
        *,
        of: tuple[str, str] | None = None,
        line: int | None = None,
        pin: str = "",
        **changes: Any,
    ) -> Mutant:
        """The workflow with these fields of the part changed, the first of which is the
        condition; without any: with the part dropped.
        """
        mutated = self.put(replace(self.value, **changes) if changes else None)
        path = f"{self.path}.{key}" if self.path else key
        line = getattr(self.value, "line", 0) if line is None else line
        of = of or (type(self.value).__name__, next(iter(changes)))
        return Mutant(path, words, line, mutated, of, self.tool, tuple(tries), pin, name)

    def without(
        self,
        key: str,
        name: str,
        tries: Iterable[Changes] = BASE,
        *,
        words: str = "dropped",
        **more: Any,
    ) -> Iterator[Mutant]:
        """As `mutant`, unless its fields are so already."""
        changes = {field: value for field, value in more.items() if field != "pin"}
        if any(getattr(self.value, field) != value for field, value in changes.items()):
            yield self.mutant(key, words, name, tries, **more)

    def skipped(self, key: str, why: str) -> NotCovered:
        """A condition that no case can show."""
        return NotCovered(f"{self.path}.{key}", why)


class Basis:
    """What the mutants of a workflow start from.

    Attributes:
        root: the workflow as a part.
        scene: a complete scene that calls a tool.
        calling: the fewest changes after which the base calls a tool and is allowed: the tool,
            its prompt, or everything.
    """

    def __init__(self, workflow: Workflow, base: Scene | None = None) -> None:
        self.workflow = workflow
        self.root = Part("", workflow, lambda new: new)
        filled = cache(lambda tool: Scene.of(workflow, {"call": tool}))
        self.calling: Callable[[str], Changes] = cache(
            lambda tool: _calling(base, filled(tool)) if base else {}
        )
        self.scene: Callable[[str], Scene] = cache(
            lambda tool: base.set(self.calling(tool)) if base else filled(tool)
        )

    def turns(self, tool: str) -> Names:
        """The user's words in the scene of a tool."""
        return parts(self.scene(tool).values["prompt"])


def _calling(base: Scene, other: Scene) -> Changes:
    tool = other.values["call"]
    if base.values["call"] == tool:
        return {}
    args = {key: value for key, value in other.values.items() if key.startswith("args.")}
    earlier = {
        key: value
        for key, value in other.values.items()
        if key.startswith(("earlier.", "facts.", "ago.", "yes."))
    }
    gone = {f"earlier.{label}": None for label in base.earlier if label not in other.earlier}
    prompt = {"prompt": other.values["prompt"]}
    for more in ({}, prompt, {**prompt, **gone}, {**gone, **prompt, **earlier, **args}):
        scene = base.set({"call": tool, **more})
        if isinstance(scene.decide(), Eligible) and not scene.unreached:
            return {"call": tool, **more}
    return {"call": tool}
