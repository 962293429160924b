"""The kinds of origins: where a value may come from. Each is one class here, in one table.

A kind knows its word in the file, the types it can be said of, when it explains a value, what a decision's record calls it, and how a
person is told of it. Two families: kinds that stand alone (the prompt, the run's own user, a calculation, the model) explain a value
by themselves; kinds of an earlier call name a fact or an argument of one, and are joined (one call, one source:
`agentgate.decision.origins`). Everything else asks `kind_of(source)`; nothing else knows a kind by its name. Pure.

To add one: a class in `KINDS`, its word in `Source.kind`, docs/workflows.md, the reference model of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

from agentgate.decision.labels import row_is
from agentgate.decision.value import Value, from_user
from agentgate.language.prompt import Prompt
from agentgate.values.entities import CALCULATED, TOKENISED, TYPES, Key, normal
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import Fact, Source

Found = tuple[Key, str] | None  # comparison key and currency
Row = Mapping[str, Any]


class CallSaid(Protocol):
    """What one redeemed call said."""

    id: str
    args: Mapping[str, Any]
    named: bool

    def said(self, source: Source) -> frozenset[tuple[type, Key, str]]:
        """Every (type, key, currency) that is an origin in any of its rows."""

    def meant(self, fact: Fact) -> frozenset[int]:
        """The rows that the user's words mean, by the labels of a fact."""

    def selected(self, source: Source) -> frozenset[int]:
        """The rows that the user's words select."""


class Known(Protocol):
    """What is known of a run: the user's words and id, and the redeemed calls."""

    prompt: Prompt
    tools: Mapping[str, Tool]

    def is_user(self, kind: str, key: Key) -> bool:
        """Whether a value is the id of the run's own user."""

    def calculated(self, value: Value, key: Key, sources: tuple[Source, ...]) -> str | None:
        """The calculation that the user's words name and that gives this value."""

    def of(self, tool: str) -> Iterable[CallSaid]:
        """The redeemed calls of a tool."""


class OriginKind:
    """One kind of origin.

    Attributes:
        name: `Source.kind`; of a kind that stands alone also its word in the file.
        types: the types of values that may have it.
        alone: it names no earlier call.
        free: the model may write the value: nothing is asked of it.
        spread: it is about all rows of a call together.
        row_fact: it is a fact of whatever row has the value.
        words: how a person is told what would have it.
        short: how a person is told that a value has it.
    """

    name: ClassVar[str]
    types: ClassVar[frozenset[str]] = TYPES
    alone: ClassVar[bool] = True
    free: ClassVar[bool] = False
    spread: ClassVar[bool] = False
    row_fact: ClassVar[bool] = False
    words: ClassVar[str]
    short: ClassVar[str]

    def explains(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> bool:
        """Whether one element of a value has this origin, in any call and row; the model explains nothing."""
        raise NotImplementedError

    def recorded(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> str:
        """What a decision's record says of an element with this origin; empty where it has another."""
        return self.name if self.explains(source, value, key, sources, known) else ""

    def told(self, source: Source) -> str:
        """`words`, of this source."""
        return self.words


class FromPrompt(OriginKind):
    """``prompt``: one whole entity of the user's own words; of a text, some of them in their order."""

    name, types = "prompt", TOKENISED
    words, short = "named by the user in the prompt", "the prompt"

    def explains(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> bool:
        return from_user(value, key, known.prompt)


class OwnUser(OriginKind):
    """``user``: the id of the person the run is for, whatever the prompt says."""

    name, types = "user", frozenset({"email", "id", "phone", "text", "user"})
    words, short = "the id of the user this run is for", "the run's own user"

    def explains(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> bool:
        return known.is_user(value.rule.type, key)


class Computed(OriginKind):
    """``computed``: one calculation that the user's words name, over numbers of the other origins beside it."""

    name, types, short = "computed", CALCULATED, "computed"
    words = "the result of one calculation that the user names (a difference, a sum, a share, ...) over such numbers"

    def explains(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> bool:
        return known.calculated(value, key, sources) is not None


class FromModel(OriginKind):
    """``model``: whatever the model writes."""

    name, free = "model", True
    words, short = "written by the model", "the model"

    def explains(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> bool:
        return False


class OfCall(OriginKind):
    """A fact or an argument of an earlier call that was redeemed in this run."""

    alone = False
    returned: ClassVar[bool] = True  # read from a result, not sent
    words, short = "returned by", "returned by"

    def typed(self, source: Source, tools: Mapping[str, Tool]) -> tuple[str, str]:
        """Type, and the sibling that holds the currency."""
        fact = tools[source.tool].facts[source.field]
        return fact.type, fact.currency

    def raw(self, source: Source, call: CallSaid, row: Row) -> Any:
        """What it says in a call and row, as it was returned or sent."""
        return row.get(source.field)

    def beside(self, call: CallSaid, row: Row) -> Mapping[str, Any]:
        """Where its siblings are."""
        return row

    def read(self, source: Source, call: CallSaid, row: Row, index: int, tools: Mapping[str, Tool]) -> Found:
        """Comparison key and currency; None where it does not count. Money without its declared currency does not."""
        if not self.counts(source, call, row, index, tools):
            return None
        kind, sibling = self.typed(source, tools)
        currency = self.beside(call, row).get(sibling) if sibling else ""
        found = normal(kind, self.raw(source, call, row))
        return None if found is None or type(currency) is not str else (found, currency)

    def counts(self, source: Source, call: CallSaid, row: Row, index: int, tools: Mapping[str, Tool]) -> bool:
        """Whether it counts in this row."""
        fact = tools[source.tool].facts[source.field]
        if fact.named and not call.named:
            return False
        if fact.pattern is not None:
            raw = row.get(source.field)
            if not (type(raw) is str and fact.pattern.matches(raw)):
                return False
        return self.meant(source, fact, call, row, index, tools)

    def meant(self, source: Source, fact: Fact, call: CallSaid, row: Row, index: int, tools: Mapping[str, Tool]) -> bool:  # noqa: PLR0917
        """Whether this row is one that the fact asks for: what the call asked for (`where`), and what the user means (`named_by`)."""
        return row_is(fact.where, tools[source.tool].facts, row, call.args) and (not fact.named_by or index in call.meant(fact))

    def explains(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> bool:
        said = (type(key), key, value.currency)
        return any(said in call.said(source) for call in known.of(source.tool))

    def recorded(self, source: Source, value: Value, key: Key, sources: tuple[Source, ...], known: Known) -> str:
        said = (type(key), key, value.currency)
        return next((f"{source} {call.id}" for call in known.of(source.tool) if said in call.said(source)), "")

    def told(self, source: Source) -> str:
        return f"{self.words} {source.tool} as {source.field}"


class FactOf(OfCall):
    """``tool.fact``: equals a declared fact that the call returned."""

    name, row_fact = "fact", True


class ArgumentOf(OfCall):
    """``tool.argument``: equals an argument of the call."""

    name, returned = "arg", False
    words, short = "given to", "given to"

    def typed(self, source: Source, tools: Mapping[str, Tool]) -> tuple[str, str]:
        rule = tools[source.tool].args[source.field]
        return rule.type, rule.currency

    def raw(self, source: Source, call: CallSaid, row: Row) -> Any:
        return call.args.get(source.field)

    def beside(self, call: CallSaid, row: Row) -> Mapping[str, Any]:
        return call.args

    def counts(self, source: Source, call: CallSaid, row: Row, index: int, tools: Mapping[str, Tool]) -> bool:
        return True


class SelectedFact(OfCall):
    """``select``: a fact in the one row that the user's words select ("the largest file")."""

    name = "select"

    def meant(self, source: Source, fact: Fact, call: CallSaid, row: Row, index: int, tools: Mapping[str, Tool]) -> bool:  # noqa: PLR0917
        """See the base class; the selector says itself which row it means."""
        return index in call.selected(source) and row_is(fact.where, tools[source.tool].facts, row, call.args)


class SumOf(OfCall):
    """``at_most: {sum: tool.fact}``: a fact over all rows of one call; a bound, and no origin."""

    name, spread = "sum", True

    def meant(self, source: Source, fact: Fact, call: CallSaid, row: Row, index: int, tools: Mapping[str, Tool]) -> bool:  # noqa: PLR0917
        return True


KINDS: Mapping[str, OriginKind] = {
    kind.name: kind() for kind in (FromPrompt, OwnUser, Computed, FromModel, FactOf, ArgumentOf, SelectedFact, SumOf)
}


def kind_of(source: Source) -> OriginKind:
    """The kind of an origin."""
    return KINDS[source.kind]


def of_call(source: Source) -> OfCall:
    """The kind of an origin that names an earlier call.

    Raises:
        TypeError: it names none.
    """
    kind = KINDS[source.kind]
    if not isinstance(kind, OfCall):
        raise TypeError(f"{source} names no earlier call")
    return kind
