"""The kinds of origins: where a value may come from. Each is one class, in one table.

A kind knows its word in the file, the types that may have it, which values it explains, its
name in a decision's record, and its description for a person. There are two families. The
prompt, the run's own user, a calculation, a yes of the user's and the model stand alone: each
explains a value by itself. The others name a fact or an argument of an earlier call, and are
met jointly (`agentgate.decision.origins.tracing`). Everything else asks `kind_of(source)`; nothing
else knows a kind by its name. Before them stands what they explain: an argument in the form in
which it is compared. Pure.

To add one: a class in `KINDS`, its word in `Source.kind`, docs/workflows.md, the reference
model of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from agentgate.decision.origins.labels import Row, row_is
from agentgate.language.prompt import Prompt
from agentgate.language.wording import said
from agentgate.values.entities import CALCULATED, NORMAL, NUMERIC, TOKENISED, TYPES, Key
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import PROMPT, Fact, Rule, Source, Sources

# type, comparison key, currency: true is not 1, 100 EUR not 100 USD
Element = tuple[type, Key, str]


class Value(NamedTuple):
    """An argument in normal form: its rule, the keys of its elements (one for a single value),
    its currency, and the value as given.
    """

    rule: Rule
    keys: tuple[Key, ...]
    currency: str
    raw: Any

    @property
    def shown(self) -> str:
        """The value for an operator; a sensitive one is masked."""
        return "(masked)" if self.rule.sensitive else repr(self.raw)[:200]


def element(value: Value, key: Key) -> Element:
    """One element of a value, as it is compared with what earlier calls said."""
    return type(key), key, value.currency


def in_prompt(value: Value, prompt: Prompt) -> bool:
    """True when every element of the value is one whole entity of the user's own words."""
    rule, keys, currency, _ = value
    for key in keys:  # noqa: SIM110 - runs for every argument of every call, and a generator costs as much as the question
        if prompt.words(rule.said_as, key, currency) is None:
            return False
    return True


def from_user(value: Value, key: Key, prompt: Prompt) -> bool:
    """True when one element has the origin `prompt`: one whole entity of the user's own words,
    or, a text, some of them in their order.
    """
    if prompt.words(value.rule.said_as, key, value.currency) is not None:
        return True
    if value.rule.type != "text" or said(prompt, str(key)) is None:
        return False
    # a secret is the user's letter by letter: another capital or mark locks them out
    return not value.rule.sensitive or any(str(key) in turn.written for turn in prompt.turns)


def sources_of(value: Value, prompt: Prompt) -> Sources:
    """The origins that count for a value: the rule's, or with `named_first` only the prompt
    where the user named one of the type.
    """
    rule = value.rule
    return (PROMPT,) if rule.named_first and prompt.holds(rule.said_as) else rule.sources


Found = Element | None
Tools = Mapping[str, Tool]


class AnsweredCall(Protocol):
    """What the kinds read of one redeemed call."""

    id: str
    args: Mapping[str, Any]
    named: bool
    marked: bool
    endorsed: frozenset[str]

    def said(self, source: Source) -> frozenset[Found]:
        """What a source is in each row where it may be an origin."""

    def meant(self, fact: Fact) -> frozenset[int]:
        """The rows that the user's words mean, by the labels of a fact."""

    def selected(self, source: Source) -> frozenset[int]:
        """The rows that the user's words select."""


class KnownRun(Protocol):
    """What the kinds read of a run: the user's words and id, and the redeemed calls."""

    prompt: Prompt
    tools: Tools

    def is_user(self, kind: str, key: Key) -> bool:
        """Whether a value is the id of the run's own user."""

    def calculated(self, value: Value, key: Key, sources: Sources) -> str | None:
        """The calculation that the user's words name and that gives this value."""

    def of(self, tool: str) -> Iterable[AnsweredCall]:
        """The redeemed calls of a tool."""

    def yeses(self, kind: str, tool: str) -> Sequence[AnsweredCall]:
        """The calls of a tool by which something is `confirmed`, or `remembered`."""


class OriginKind:
    """One kind of origin.

    Attributes:
        name: `Source.kind`; of a kind that stands alone also its word in the file.
        types: the types of values that may have it.
        alone: it names no earlier call.
        free: the model may write the value: any value will do.
        spread: it covers all rows of a call together.
        row_fact: it is a fact of any one row.
        of_row: it belongs to one row of a call.
        words: describes the values that have it, for a person.
        short: names it, for a person (only of a kind that stands alone).
    """

    name: ClassVar[str]
    types: ClassVar[frozenset[str]] = TYPES
    alone: ClassVar[bool] = True
    free: ClassVar[bool] = False
    spread: ClassVar[bool] = False
    row_fact: ClassVar[bool] = False
    of_row: ClassVar[bool] = False
    words: ClassVar[str]
    short: ClassVar[str]

    def explains(
        self, source: Source, value: Value, key: Key, sources: Sources, run: KnownRun
    ) -> str:
        """How a decision's record names this origin of one element of a value, in any call and
        row; empty where the element has another.

        Args:
            source: the origin.
            value: an argument.
            key: one of its elements.
            sources: all origins that count for it.
            run: the run.
        """
        return ""

    def told(self, source: Source) -> str:
        """`words` for one source."""
        return self.words


class FromPrompt(OriginKind):
    """``prompt``: one whole entity of the user's own words; of a text, some of them in their
    order.
    """

    name = "prompt"
    types = TOKENISED
    words = "named by the user in the prompt"
    short = "the prompt"

    def explains(
        self, source: Source, value: Value, key: Key, sources: Sources, run: KnownRun
    ) -> str:
        return self.name if from_user(value, key, run.prompt) else ""


class OwnUser(OriginKind):
    """``user``: the id of the person the run is for, whatever the prompt says."""

    name = "user"
    types = frozenset({"email", "id", "phone", "text", "user"})
    words = "the id of the user this run is for"
    short = "the run's own user"

    def explains(
        self, source: Source, value: Value, key: Key, sources: Sources, run: KnownRun
    ) -> str:
        return self.name if run.is_user(value.rule.type, key) else ""


class Computed(OriginKind):
    """``computed``: one calculation that the user's words name, over numbers of the other
    origins beside it.
    """

    name = "computed"
    types = CALCULATED
    short = "computed"
    words = (
        "the result of one calculation that the user names (a difference, a sum, a "
        "share, ...) over such numbers"
    )

    def explains(
        self, source: Source, value: Value, key: Key, sources: Sources, run: KnownRun
    ) -> str:
        return self.name if run.calculated(value, key, sources) is not None else ""


class Confirmed(OriginKind):
    """``confirmed``: the run's own user said yes to this value, open, for this argument of this
    tool, and the call was done.
    """

    name = "confirmed"
    types = TOKENISED - NUMERIC - {"text"}
    short = "confirmed by the user"
    words = "confirmed by the user for this argument, in this run"

    def explains(
        self, source: Source, value: Value, key: Key, sources: Sources, run: KnownRun
    ) -> str:
        calls = [
            call
            for call in run.yeses(self.name, source.field)
            if value.rule.name in call.endorsed and was_sent(call, value)
        ]
        return f"{self.name} {calls[-1].id}" if calls else ""


class Remembered(Confirmed):
    """``remembered``: as `confirmed`, in an earlier run of the same user."""

    name = "remembered"
    short = "remembered"
    words = "confirmed by the user for this argument, and remembered"


def was_sent(call: AnsweredCall, value: Value) -> bool:
    """Whether an argument of a call was just this: of a list the same elements, none left out."""
    given = call.args.get(value.rule.name)
    elements = given if type(given) is list else [given]
    found = {NORMAL[value.rule.type](element) for element in elements}
    return found == set(value.keys)


class FromModel(OriginKind):
    """``model``: whatever the model writes; it explains nothing."""

    name = "model"
    free = True
    words = "written by the model"
    short = "the model"


class OfCall(OriginKind):
    """A fact or an argument of an earlier call that was redeemed in this run."""

    alone = False
    returned: ClassVar[bool] = True  # a fact of the result, not an argument
    # counts only in rows that the user means, where the fact has labels
    labelled: ClassVar[bool] = True
    words = "returned by"

    def declared(self, source: Source, tools: Tools) -> Fact | Rule:
        """The declaration of the fact or argument it names, with its type and the sibling that
        holds its currency.
        """
        return tools[source.tool].facts[source.field]

    def fields(self, call: AnsweredCall, row: Row) -> Row:
        """The mapping that holds the value and its siblings."""
        return row if self.returned else call.args

    def read(
        self, source: Source, call: AnsweredCall, rows: Sequence[Row], tools: Tools
    ) -> tuple[Found, ...]:
        """Its value in each row; None where it does not count, as money without its declared
        currency.
        """
        declared = self.declared(source, tools)
        keys = list[Found]([None]) * len(rows)
        normal_form = NORMAL[declared.type]
        name = source.field
        sibling = declared.currency
        for index in self.counted(source, call, rows, tools):
            fields = self.fields(call, rows[index])
            key = normal_form(fields.get(name))
            currency = fields.get(sibling) if sibling else ""
            if key is not None and type(currency) is str:
                keys[index] = type(key), key, currency
        return tuple(keys)

    def counted(
        self, source: Source, call: AnsweredCall, rows: Sequence[Row], tools: Tools
    ) -> Sequence[int]:
        """The rows in which it counts: what the fact requires of call, value (`trust`,
        `pattern`) and row (`where`, `named_by`) holds.
        """
        facts = tools[source.tool].facts
        indices = list(range(len(rows)))
        fact = facts[source.field]
        if fact.named and not (call.named or (fact.confirmed and call.marked)):
            return ()
        if fact.pattern is not None:
            texts = {
                index: row[source.field]
                for index, row in enumerate(rows)
                if type(row.get(source.field)) is str
            }
            indices = [index for index, text in texts.items() if fact.pattern.matches(text)]
        if fact.where and not self.spread:
            indices = [
                index for index in indices if row_is(fact.where, facts, rows[index], call.args)
            ]
        if fact.named_by and self.labelled:
            indices = [index for index in indices if index in call.meant(fact)]
        return indices

    def explains(
        self, source: Source, value: Value, key: Key, sources: Sources, run: KnownRun
    ) -> str:
        wanted = element(value, key)
        return next(
            (
                f"{source} {call.id}"
                for call in run.of(source.tool)
                if wanted in call.said(source)
            ),
            "",
        )

    def told(self, source: Source) -> str:
        return f"{self.words} {source.tool} as {source.field}"


class FactOf(OfCall):
    """``tool.fact``: equals a declared fact that the call returned."""

    name = "fact"
    row_fact = True
    of_row = True


class ArgumentOf(OfCall):
    """``tool.argument``: equals an argument of the call."""

    name = "arg"
    returned = False
    words = "given to"

    def declared(self, source: Source, tools: Tools) -> Fact | Rule:
        return tools[source.tool].args[source.field]

    def counted(
        self, source: Source, call: AnsweredCall, rows: Sequence[Row], tools: Tools
    ) -> Sequence[int]:
        return range(len(rows))


class SelectedFact(OfCall):
    """``select``: a fact in the one row that the user's words select ("the largest file"); the
    selector tells rows apart, no label.
    """

    name = "select"
    labelled = False
    of_row = True

    def counted(
        self, source: Source, call: AnsweredCall, rows: Sequence[Row], tools: Tools
    ) -> Sequence[int]:
        return [
            index
            for index in super().counted(source, call, rows, tools)
            if index in call.selected(source)
        ]


class SumOf(OfCall):
    """``at_most: {sum: tool.fact}``: a fact over all rows of one call, whichever the fact asks
    for; a bound, and no origin.
    """

    name = "sum"
    spread = True
    labelled = False


KINDS: Mapping[str, OriginKind] = {
    kind.name: kind()
    for kind in (
        FromPrompt,
        OwnUser,
        Computed,
        Confirmed,
        Remembered,
        FromModel,
        FactOf,
        ArgumentOf,
        SelectedFact,
        SumOf,
    )
}
_OF_CALLS = {name: kind for name, kind in KINDS.items() if isinstance(kind, OfCall)}


def kind_of(source: Source) -> OriginKind:
    """The kind of an origin."""
    return KINDS[source.kind]


def of_call(source: Source) -> OfCall:
    """The kind of an origin that names an earlier call."""
    return _OF_CALLS[source.kind]
