"""Where the values of a call occur: the user's words with their place, an earlier call's fact
or argument and its row, or nowhere.

Rules: this module shows what `agentgate.decision.origins.tracing` decides by, and decides
nothing. An allowed origin comes first, the one that most of the other arguments share before
others; a value without one is shown where else it occurs, with why that does not count. What a
`sensitive` argument holds, or refers to, is masked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agentgate.decision.case import Case
from agentgate.decision.origins.earlier_calls import Answer
from agentgate.decision.origins.kinds import (
    KINDS,
    Value,
    element,
    from_user,
    kind_of,
    of_call,
    sources_of,
)
from agentgate.decision.origins.labels import asked_by_user, described
from agentgate.language.calculation import MAX_FACTORS, MAX_NUMBERS
from agentgate.language.prompt import Entity, Prompt
from agentgate.language.wording import said
from agentgate.values.entities import Key, normal
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow, short
from agentgate.workflow.rule import COMPUTED, MODEL, PROMPT, REMEMBERED, Source

Place = tuple[Answer, int]

MASKED = "(masked)"
_UNNAMED = (
    "counts only where that call is named: each argument in the prompt, or from a "
    "fact with named_by or trust: named"
)
_SHOWN = 120  # characters of a value or of the user's words


_WORDS = {
    **{kind.name: kind.short for kind in KINDS.values() if kind.alone},
    "unknown": "unknown: no origin that the gate knows",
}


@value_class
class Origin:
    """Where one value (or one element of a list) occurs."""

    # ``prompt``, ``user``, ``computed``, ``remembered DAY``, ``tool.field``, ``model`` (nothing
    # else explains it, and the rule lets the model write it) or ``unknown``; of a value that
    # only the record knows, its short form (`origin_names`)
    source: str
    allowed: bool  # the rule names this origin
    value: str  # the value, masked if sensitive
    # the user's own words, for the prompt, or the calculation; masked if sensitive
    words: str = ""
    # which turn, from 1, and the character it starts at, from 0; 0 and -1 where not known
    turn: int = 0
    start: int = -1
    call: str = ""  # `tool_call_id` of the earlier call
    row: int = 0  # which row of its result, from 1; 0 for an argument of it
    # why it does not count, where more is to say than that the rule does not name it
    why: str = ""

    def __str__(self) -> str:
        if self.source == "prompt":
            place = f", turn {self.turn} at character {self.start}" if self.turn else ""
            where = (
                f"prompt: {self.words!r}{place}"
                if self.words and self.words != MASKED
                else f"prompt{place}"
            )
        elif self.source == "computed" and self.words:
            where = f"computed: {self.words}"
        elif self.call:
            where = f"{self.source} of call {self.call}" + (
                f", row {self.row}" if self.row else ""
            )
        else:
            between = " since " if self.source.startswith(REMEMBERED.kind) else " of call "
            where = _WORDS.get(self.source) or ", ".join(
                between.join(part.split(" ", 1)) for part in self.source.split(", ")
            )
        return (
            where
            if self.allowed or self.source == "unknown"
            else f"{where} ({self.why or 'not an allowed origin'})"
        )


def secret(workflow: Workflow, source: Source) -> bool:
    """True when what this names is, or fills, a sensitive argument of any tool."""
    tool = workflow.tools[source.tool]
    if (
        not of_call(source).returned
        and source.field in tool.args
        and tool.args[source.field].sensitive
    ):
        return True
    rules = (
        rule
        for tool in workflow.tools.values()
        for rule in tool.args.values()
        if rule.sensitive
    )
    return (source.tool, source.field) in (
        (s.tool, s.field) for rule in rules for s in rule.references
    )


class Evidence:
    """The origins of one call's values, for a run as it was decided on."""

    def __init__(self, case: Case) -> None:
        workflow = self._workflow = case.workflow
        run = self._run = case.run
        self._values = case.values
        self._earlier = case.earlier
        self._declared = tuple(self._places_of(workflow))
        labelled = [
            (tool.name, fact)
            for tool in workflow.tools.values()
            for fact in tool.facts.values()
            if fact.named_by or fact.where
        ]
        # a sum is over every row, also one that nobody means
        self._aside = tuple(
            (Source("sum", tool, fact.name), "; ".join(described(fact)))
            for tool, fact in labelled
        )
        self._places = {
            tool: self._ordered(tool) for tool in dict.fromkeys(c.tool for c in run.calls)
        }

    def of(self, name: str) -> tuple[Origin, ...]:
        """The origin of each element of an argument (one for a single value); empty when the
        value is not in normal form.
        """
        value = self._values.get(name)
        return () if value is None else tuple(self._of(value, key) for key in value.keys)

    def places(self, tool: str) -> list[Place]:
        """The calls of a tool and their rows (from 0), the ones the other arguments share
        first.
        """
        return self._places.get(tool, [])

    def _ordered(self, tool: str) -> list[Place]:
        """`places`, of which the one that most arguments of this call can come from is the
        first, the newest of equals.
        """

        def shared(place: Place) -> int:
            call, index = place
            of = [
                (v, [s for s in v.rule.sources if s.tool == tool])
                for v in self._values.values()
            ]
            return sum(
                any(
                    call.origins(s)[index] == element(value, key)
                    for s in sources
                    for key in value.keys
                )
                for value, sources in of
            )

        every = [
            (call, index) for call in self._earlier.of(tool) for index in range(len(call.rows))
        ]
        best = max(reversed(every), key=shared, default=None)
        return sorted(every, key=lambda place: place is not best)

    def _of(self, value: Value, key: Key) -> Origin:
        rule = value.rule
        shown = self._shown(value, key)
        sources = sources_of(value, self._run.prompt) if self._run.prompt else rule.sources
        for origin in filter(None, (self._at(value, key, source) for source in sources)):
            return origin
        if MODEL in rule.sources:
            return Origin(str(MODEL), True, shown)
        allowed = not rule.sources  # any origin will do
        return next(self._elsewhere(value, key, allowed), Origin("unknown", False, shown))

    def _elsewhere(self, value: Value, key: Key, allowed: bool) -> Iterator[Origin]:  # noqa: FBT001 - private
        for source in (PROMPT, *self._declared):
            origin = self._at(value, key, source, allowed=allowed)
            if origin:
                yield replace(
                    origin,
                    why="the user named another one"
                    if source in value.rule.sources and not allowed
                    else "",
                )
        for source, asked in self._aside:
            origin = self._at(value, key, source, allowed=allowed)
            if origin:
                why = f"counts only where {asked}{self._full(source.tool, origin)}"
                yield replace(origin, source=f"{source.tool}.{source.field}", why=why)
        for source in self._declared:
            yield from self._unnamed(value, key, source)
        if (
            COMPUTED in value.rule.sources
            and self._run.prompt
            and self._earlier.too_many_numbers(value, value.rule.sources)
        ):
            why = (
                f"of more than {MAX_NUMBERS} numbers, or {MAX_FACTORS} shares, multiples "
                "and percentages, nothing is computed"
            )
            yield Origin("computed", False, self._shown(value, key), why=why)

    def _full(self, tool: str, origin: Origin) -> str:
        """The page that was full, where the user did not choose its size."""
        rules = {
            name: rule
            for name, rule in self._workflow.tools[tool].args.items()
            if rule.page_size
        }
        for call in self._earlier.of(tool):
            for name, size in call.args.items():
                chosen = name in rules and not asked_by_user(
                    [(rules[name], size)], self._earlier.prompt
                )
                if call.id == origin.call and chosen and not short(call.facts, size):
                    return f"; that call may have left rows out: not fewer than its {name}"
        return ""

    def _unnamed(self, value: Value, key: Key, source: Source) -> Iterator[Origin]:
        """Where a fact with `trust: named` would be the origin, had its call been named."""
        fact = (
            self._workflow.tools[source.tool].facts.get(source.field)
            if kind_of(source).row_fact
            else None
        )
        for call in self._earlier.of(source.tool) if fact and fact.named else ():
            for number, row in enumerate(call.facts if not call.named else (), 1):
                if fact and normal(fact.type, row.get(fact.name)) == key:
                    shown = (
                        MASKED if secret(self._workflow, source) else self._shown(value, key)
                    )
                    yield Origin(
                        str(source), False, shown, call=call.id, row=number, why=_UNNAMED
                    )

    @staticmethod
    def _places_of(workflow: Workflow) -> Iterator[Source]:
        for tool in workflow.tools.values():
            yield from (Source("fact", tool.name, name) for name in tool.facts)
            yield from (
                Source("arg", tool.name, name) for name in tool.args if name in tool.referenced
            )

    def _at(
        self, value: Value, key: Key, source: Source, *, allowed: bool = True
    ) -> Origin | None:
        # of which there is more to say than that it holds
        special = {PROMPT: self._said, COMPUTED: self._computed}.get(source)
        if special:
            return special(value, key, allowed)
        kind = kind_of(source)
        if kind.alone:
            explained = kind.explains(source, value, key, value.rule.sources, self._earlier)
            named = explained if source.kind == REMEMBERED.kind else kind.name
            return Origin(named, allowed, self._shown(value, key)) if explained else None
        shown = MASKED if secret(self._workflow, source) else self._shown(value, key)
        for call, index in self.places(source.tool):
            if call.origins(source)[index] == element(value, key):
                return Origin(
                    str(source),
                    allowed,
                    shown,
                    call=call.id,
                    row=index + 1 if of_call(source).returned else 0,
                )
        return None

    def _computed(self, value: Value, key: Key, allowed: bool) -> Origin | None:  # noqa: FBT001 - private
        """The calculation, masked where a number of it is."""
        if not self._run.prompt:
            return None
        sources = sources_of(value, self._run.prompt)
        how = self._earlier.calculated(value, key, sources)
        if how is None:
            return None
        if value.rule.sensitive or any(
            secret(self._workflow, source) for source in sources if source.tool
        ):
            return Origin("computed", allowed, MASKED, MASKED)
        return Origin("computed", allowed, self._shown(value, key), how)

    def _said(self, value: Value, key: Key, allowed: bool) -> Origin | None:  # noqa: FBT001 - private
        """The user's words that name the value, or that a text repeats."""
        prompt: Prompt | None = self._run.prompt
        if not prompt:
            return None
        words = prompt.words(value.rule.said_as, key, value.currency)
        turn = 0
        start = -1
        if words is None:
            repeated = (
                said(prompt, str(key))
                if value.rule.type == "text" and from_user(value, key, prompt)
                else None
            )
            if not repeated:
                return None
            turn = repeated.turn + 1
            start = repeated.start
            words = self._run.spoken[repeated.turn][start : repeated.end]
        elif (entity := _entity(prompt, value, key, words)) is not None:
            words = entity.words
            turns = [
                n
                for n, text in enumerate(self._run.spoken, 1)
                if text.startswith(words, entity.start)
            ]
            turn, start = (turns[-1], entity.start) if turns else (0, -1)
        return Origin(
            "prompt",
            allowed,
            self._shown(value, key),
            MASKED if value.rule.sensitive else words[:_SHOWN],
            turn,
            start,
        )

    def _shown(self, value: Value, key: Key) -> str:
        return MASKED if value.rule.sensitive else str(key)[:_SHOWN]


def _entity(prompt: Prompt, value: Value, key: Key, words: str) -> Entity | None:
    """The entity of the prompt that names this value; the newest where the user said it
    twice.
    """
    numeric = normal("number", key) if value.rule.type == "id" else key
    fit = [
        entity
        for kind, table in prompt.named.items()
        for wanted in {key, numeric}
        if wanted is not None and (entity := table.get(wanted)) is not None
        if entity.words == words
        or (
            value.rule.type == "money"
            and kind in {"money", "number"}
            and entity.currency in {"", value.currency}
        )
    ]
    return fit[0] if fit else None
