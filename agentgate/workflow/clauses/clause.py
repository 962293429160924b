"""The base classes of the clauses of `who` and `conditions`: one key of the file is one class.

A clause knows what it looks at and whether that passes; what a person reads of it; which
classes of values it tells apart (for the exact diff); its smallest loosening (for the mutants
of a workflow); and where a scene states what it looks at, with a value that passes. Whatever it
returns is plain data, and everything else iterates: nothing else knows a clause by its name.
The clauses of a rule are compiled into flat tuples when the rule is built, and the decision
reads those. Pure.

To add one: its class and the field of its rule, beside the others of its block; the key of the
block in the file (`agentgate.loading.blocks`); what it looks at (`agentgate.values.request`);
docs/workflows.md and the reference model of the tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter, gt, lt, ne
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from agentgate.values.refusal import Reason
from agentgate.values.request import RunState, Surroundings
from agentgate.values.times import duration

OTHER = "(any other)"
NOBODY = "(none)"
EVERYTHING = object()  # in a `Loosening`: a text, or a list of names, that any other meets
STRANGER = "spiffe://stranger.example/ns/x/sa/y"

Scene = Mapping[str, Any]  # keys of a scene, with their values
Sides = tuple[Any, ...]  # a clause in the versions that have it


class Situation(Protocol):
    """What a clause looks at: the header of the run, and what the gate knows at the moment of
    the call.
    """

    workflow: Any
    run: RunState
    around: Surroundings


class Distinct(NamedTuple):
    """Values that no version of a clause tells apart: one of them, how a scene states it, and
    its text.
    """

    value: Any
    scene: Scene
    text: str


class Loosening(NamedTuple):
    """The smallest change of a clause that allows one more class of calls.

    Attributes:
        words: the change, for a reviewer: ``600s -> 601s``, ``any``.
        name: names the case that notices.
        changes: fields of the rule afterwards, the loosened one first.
        part: the key inside the clause that was loosened; empty: the clause itself.
        of: the class and field that was loosened, where that is a part of the field.
        pin: what a case states that shows it, where no decision does: ``asks.count``.
    """

    words: str
    name: str
    changes: Mapping[str, Any]
    part: str = ""
    of: tuple[str, str] | None = None
    pin: str = ""


WIDER: Mapping[str, Callable[[Any, Any], object]] = {
    "more": lt,
    "less": gt,
    "other": ne,
    "fewer": lambda old, new: set(old) - set(new),
    "further": lambda old, new: set(new) - set(old),
}


class Order(NamedTuple):
    """How two values of a field are compared where no single call shows the difference: which
    is wider, and what that means.

    Attributes:
        field, path: of the rule, and where the file has it inside its block; empty: as the
            field.
        effect, back: what the change does, and what the change the other way round does.
        exceeds: when the new value is wider (`WIDER`).
        ranks: values by how wide they are, where no number says it; a value without a rank is
            an error.
        texts, empty: values as the file writes them, and what stands for an empty one.
        told: values as the effects write them.
    """

    field: str
    effect: str
    back: str
    exceeds: str = "more"
    path: str = ""
    ranks: Mapping[Any, int] = {}
    texts: Mapping[str, str] = {}
    empty: str = ""
    told: Mapping[str, str] = {}

    def widens(self, old: Any, new: Any) -> bool:
        """Whether the field of the new rule is wider than that of the old one."""
        values = [getattr(rule, self.field) for rule in (old, new)]
        if self.ranks:
            values = [self.ranks[value] for value in values]
        return bool(WIDER[self.exceeds](*values))


class WorkflowClause(ABC):
    """One key of `who` or `conditions`, with its value in a workflow.

    Attributes:
        path, key: where the file has it, ``who.agent.boundary.node_pool``, and the last part of
            that.
        block, names: the field of `Workflow` that holds its rule, and the fields of the rule it
            is made of.
        field, looked_at: what it looks at, as a `Failure` names it, and what reads that.
        reason: why a call is refused that does not pass.
        after: the clause that must pass before this one is looked at.
        heads: where it does not pass, those behind it are not looked at.
        bars: no call passes it that has what the clauses behind it look at.
        configured: it looks at a setting of the gate, which the record of a decision holds or
            leaves out.
        quoted: what it looks at is shown in quotes where it does not pass.
        scene, form: where a scene states what it looks at, and in which form.
        forms: other keys of a scene that it needs, with their forms.
        another: the name of a case that does not pass.
        loose, of: words and value of its smallest loosening (None: another clause's); the class
            and field, where not the rule's.
        absent, told: of one that asks yes or no: what a scene states for no, and both answers
            as text.
        value, line: its value, compiled, and the line of the file.
    """

    path: str
    key: str
    block: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    field: str
    looked_at: Callable[[Situation], Any]
    reason: ClassVar[Reason]
    after: ClassVar[type[WorkflowClause] | None] = None
    heads: ClassVar[bool] = False
    bars: ClassVar[bool] = False
    configured: ClassVar[bool] = False
    quoted: ClassVar[bool] = False
    scene: str
    form: ClassVar[str] = "text"
    forms: ClassVar[tuple[tuple[str, str], ...]] = ()
    another: str = ""
    loose: tuple[str, Any] | None = None
    of: ClassVar[tuple[str, str] | None] = None
    absent: ClassVar[Any] = None
    told: ClassVar[tuple[str, str]] = ("known", NOBODY)

    def __init_subclass__(
        cls,
        path: str = "",
        field: str = "",
        scene: str = "",
        reason: Reason | None = None,
    ) -> None:
        if path:
            who, _, inside = path.partition(".")
            prefix = "who." if who == "who" else ""
            cls.path, cls.key, cls.field = path, path.rpartition(".")[2], field or inside
            cls.block = inside.partition(".")[0] if prefix else who
            cls.scene = scene or prefix + cls.field
            cls.looked_at = attrgetter(("run.header." if prefix else "around.") + cls.field)
            if "names" not in vars(cls):
                cls.names = (cls.key,)
            if why := reason or (cls.after and cls.after.reason):
                cls.reason = why
            if cls.found is WorkflowClause.found:
                setattr(cls, "found", cls.looked_at)  # noqa: B010 - for the type checker, a method is one

    def __init__(self, value: Any, line: int) -> None:
        self.value = value
        self.line = line

    @classmethod
    def compiled(cls, rule: Any) -> Iterator[Self]:
        """The clause with its value in a rule of its block; nothing where the rule does not
        state it.
        """
        value = getattr(rule, cls.names[0])
        if value or type(value) is int:
            yield cls(value, rule.line)

    def found(self, case: Situation) -> Any:
        """What it looks at: what the field names, where a class does not say otherwise."""
        return self.looked_at(case)

    def allows(self, value: Any) -> bool:
        """Whether a value passes: one that was found, or of a class of values."""
        return bool(value)

    @property
    def data(self) -> Mapping[str, Any]:
        """What whoever is refused for it needs to know to do better."""
        return {}

    # --- for a person
    @property
    @abstractmethod
    def expected(self) -> str:
        """What would pass."""

    @property
    def words(self) -> str:
        """Its value."""
        return self.expected

    def shown(self, case: Situation) -> object:
        """What it looks at, as text."""
        return self.found(case)

    def expected_under(self, workflow: Any) -> str:
        """What would pass, under the rest of its workflow."""
        return self.expected

    @property
    def remedy(self) -> str:
        """What would make it pass."""
        return f"{self.field}: {self.expected}"

    # --- for the diff, mutants and scenes
    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        """The classes of values that any version of it tells apart; none where they cannot be
        compared.
        """
        with_it, without = cls.told
        return Distinct(True, {}, with_it), Distinct(False, {cls.scene: cls.absent}, without)

    def loosened(self) -> Iterator[Loosening]:
        """The smallest loosenings; what is distinct of both shows them."""
        if self.loose:
            words, value = self.loose
            yield Loosening(
                words, self.another or f"another {self.key}", {self.names[0]: value}, of=self.of
            )

    def sample(self, given: Scene) -> Scene:
        """Values of a scene that pass. `given`: those of the clauses before it, the tenant and
        a time.
        """
        return {}


# How the decision reads a clause: what it looks at, whether that passes; the clause, to tell
# what is wrong.
Check = tuple[Callable[[Situation], Any], Callable[[Any], bool], WorkflowClause]
Checks = tuple[Check, ...]


def compiled(rule: Any, *kinds: type[WorkflowClause]) -> Checks:
    """The clauses of these kinds that a rule states."""
    return tuple(check_of(clause) for kind in kinds for clause in kind.compiled(rule))


def check_of(clause: WorkflowClause) -> Check:
    """One clause, compiled; what is plainly listed, or plainly there, answers by itself,
    without a function of ours around it.
    """
    allows: Callable[[Any], bool] = clause.allows
    if type(clause).allows is ListedClause.allows:
        allows = clause.value.__contains__
    elif type(clause).allows is WorkflowClause.allows:
        allows = bool
    return clause.found, allows, clause


class ListedClause(WorkflowClause):
    """A text that must be one of those that the file lists; `stranger`: what a scene states for
    any other.
    """

    value: tuple[str, ...]
    quoted = True
    loose = ("any", EVERYTHING)
    stranger: ClassVar[str] = "elsewhere"

    def __init__(self, value: Any, line: int) -> None:
        super().__init__((value,) if isinstance(value, str) else value, line)

    def allows(self, value: Any) -> bool:
        return value in self.value

    @property
    def expected(self) -> str:
        return "one of " + self.words

    @property
    def words(self) -> str:
        return ", ".join(self.value)

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        scene = sides[0].scene
        values = dict.fromkeys([value for side in sides for value in side.value])
        return [
            *[Distinct(value, {scene: value}, value) for value in values],
            Distinct(OTHER, {scene: cls.stranger}, OTHER),
        ]

    def sample(self, given: Scene) -> Scene:
        return {self.scene: self.value[0]}


class RecentClause(WorkflowClause):
    """How many seconds ago something may be at most; `leeway`: how many seconds ahead.

    `odd`: ages that are told apart whatever the file says.
    """

    value: int
    form = "duration"
    leeway: ClassVar[int] = 0
    odd: ClassVar[tuple[int, ...]] = ()

    def allows(self, value: Any) -> bool:
        return value is not None and -self.leeway <= value <= self.value

    @property
    def words(self) -> str:
        return duration(self.value)

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        ages = dict.fromkeys(
            [0, *[age for side in sides for age in (side.value, side.value + 1)], *cls.odd]
        )
        return [Distinct(age, {cls.scene: f"{age}s"}, f"{age} s") for age in ages]

    def loosened(self) -> Iterator[Loosening]:
        longer = self.value + 1
        yield Loosening(f"{self.value}s -> {longer}s", self.another, {self.key: longer})

    def sample(self, given: Scene) -> Scene:
        return {self.scene: "1m" if self.value >= 60 else "0s"}
