"""What the redeemed calls of a run said: arguments and facts as comparison keys, with their
currency.

Rules: only `EarlierCall`s, calls of this run that were minted and redeemed, count. A result of
a tool that is not a read is no origin, except a new id it created (a refused recipient would
launder itself through the refusal's echo). A selected fact counts only in the one row that the
user's words select. Each call is read once: the calls of a run's state, the tools of a workflow
and the user's words never change while an `Earlier` lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal, localcontext
from math import inf
from typing import Any

from agentgate.decision.origins.kinds import Element, Found, Value, element, kind_of, of_call
from agentgate.decision.origins.labels import (
    Heard,
    Row,
    affirmed,
    asked_by_user,
    chosen,
    meant,
    own_row,
    picked,
)
from agentgate.language.calculation import (
    Number,
    Spoken,
    calculation,
    names_any,
    spoken,
    too_many,
)
from agentgate.language.prompt import Prompt
from agentgate.values.entities import Key, normal
from agentgate.values.request import EarlierCall, RunState
from agentgate.values.value_class import once
from agentgate.workflow.model import Tool, short
from agentgate.workflow.rule import PROMPT, REMEMBERED, Fact, Rule, Source, Sources


@once
def _spoken(prompt: Prompt) -> Spoken:
    """What the user's words name to calculate."""
    return spoken(prompt.turns)


def own_id(run: RunState) -> str | None:
    """The id of the user a run is for; None without one, and for one of another tenant, where
    that id may be somebody else's.
    """
    user = run.header.user
    return user.id if user is not None and user.tenant == run.header.tenant else None


_NO_FACTS: tuple[Row, ...] = ({},)
_NOTHING = (str, "", "")


class Answer:
    """What one redeemed call said, row by row.

    Attributes:
        rows: its facts; one empty row where it has none, so that its arguments have a row.
        returned: how many rows of facts there are.
    """

    def __init__(self, call: EarlierCall, earlier: Earlier) -> None:
        self.id = call.id
        self.tool = call.tool
        self.args = call.args
        self.named = call.named
        self.redeemed_at = call.redeemed_at
        self.marked = call.marked
        self.endorsed = call.endorsed
        self.rows, self.returned, self.earlier = call.rows or _NO_FACTS, len(call.rows), earlier
        self._keys: dict[str, tuple[Found, ...]] = {}
        self._origins: dict[str, tuple[Found, ...]] = {}
        self.memo: dict[Any, Any] = {}

    @property
    def facts(self) -> tuple[Row, ...]:
        """The rows of facts."""
        return self.rows[: self.returned]

    def keys(self, source: Source) -> tuple[Found, ...]:
        """For each row what `source` names there; None where it does not count."""
        known = self._keys.get(source.key)
        if known is None:
            known = self._keys[source.key] = of_call(source).read(
                source, self, self.rows, self.earlier.tools
            )
        return known

    def origins(self, source: Source) -> tuple[Found, ...]:
        """As `keys`, where it may serve as an origin: of a tool that is not a read, only a new
        id.
        """
        known = self._origins.get(source.key)
        if known is None:
            known = self.keys(source)
            if self.earlier.tools[source.tool].effect != "read" and of_call(source).returned:
                known = tuple([self._created(source, key) for key in known])
            self._origins[source.key] = known
        return known

    def _created(self, source: Source, key: Found) -> Found:
        if key is None or self.earlier.tools[source.tool].facts[source.field].type != "id":
            return None
        return None if any(str(item) == key[1] for item in _scalars(self.args)) else key

    @once
    def said(self, source: Source, *, standing: bool = False) -> frozenset[Found]:
        """The `origins` (or what is `standing`) of all rows: many values against many rows is
        one look-up each.
        """
        return frozenset(self.standing(source) if standing else self.origins(source))

    def has(self, value: Value, source: Source, *, standing: bool = False) -> bool:
        """Whether every element of a value is an origin in some row."""
        said = self.said(source, standing=standing)
        for key in value.keys:  # noqa: SIM110 - as in `agentgate.decision.origins.kinds.in_prompt`
            if element(value, key) not in said:
                return False
        return True

    def has_any(
        self, value: Value, sources: Iterable[Source], *, standing: bool = False
    ) -> bool:
        """Whether one source has the value, or each element of a list, in some row."""
        return any(self.has(value, source, standing=standing) for source in sources)

    def in_row(
        self, value: Value, sources: Iterable[Source], index: int, *, standing: bool = False
    ) -> bool:
        """Whether one source has the value in a row; the elements of a list may each take a row
        of this call.
        """
        rule, keys, currency, _ = value
        if rule.max_items is not None:
            return self.has_any(value, sources, standing=standing)
        wanted = type(keys[0]), keys[0], currency  # as `element`, without the call
        for source in sources:
            known = (
                self.standing(source)
                if standing
                else self._origins.get(source.key) or self.origins(source)
            )
            if known[index] == wanted:
                return True
        return False

    def rows_with(
        self, wanted: Element, sources: Iterable[Source], *, standing: bool = False
    ) -> frozenset[int]:
        """The rows in which one of the sources has this value."""
        return frozenset().union(
            *[self._rows_of(source, standing=standing).get(wanted, ()) for source in sources]
        )

    @once
    def _rows_of(self, source: Source, *, standing: bool = False) -> Mapping[Found, list[int]]:
        """Each value that a source has, and in which rows."""
        rows: dict[Found, list[int]] = {}
        for index, key in enumerate(
            self.standing(source) if standing else self.origins(source)
        ):
            rows.setdefault(key, []).append(index)
        return rows

    @once
    def standing(self, source: Source) -> tuple[Found, ...]:
        """As `origins`, of a source that stands for the user's words, in the rows that the
        words mean which the user said.

        Quoted and denied words tell rows apart, and so take some away; they make none the
        user's.
        """
        fact = self.earlier.tools[source.tool].facts[source.field]
        known = self.origins(source)
        if fact.named:  # a yes makes a value usable, and no word of the user's
            return known if self.named else (None,) * len(known)
        rows = self.meant(fact, affirmed(self.earlier.prompt))
        return tuple([key if index in rows else None for index, key in enumerate(known)])

    def within(self, value: Value, index: int) -> bool:
        """Whether every element of a value is at most what the bound of its rule names in this
        row, or over all rows.
        """
        rule, keys, wanted, _ = value
        bound = rule.at_most
        if bound is None:
            return False
        most: Key | None
        if kind_of(bound).spread:
            most = self.total(bound, wanted)
            currency = wanted
        else:
            _, most, currency = self.keys(bound)[index] or _NOTHING
        if currency != wanted or not isinstance(most, Decimal):
            return False
        for key in keys:  # noqa: SIM110 - as in `has`
            if not (isinstance(key, Decimal) and key <= most):
                return False
        return True

    @once
    def total(self, source: Source, currency: str) -> Decimal | None:
        """The sum of a fact over all rows that have it in this currency; None when there is
        none.
        """
        amounts = [
            key
            for _, key, unit in filter(None, self.keys(source))
            if isinstance(key, Decimal) and unit == currency
        ]
        with localcontext(Context(prec=64)):  # exact: a thousand amounts of 15 digits
            return sum(amounts, Decimal()) if amounts else None

    def recent(self, within: float | None, now: float) -> bool:
        """Whether it was redeemed at most so many seconds ago (None: ever)."""
        return within is None or now - self.redeemed_at <= within

    @once
    def selected(self, source: Source) -> frozenset[int]:
        """The rows that the user's words select: of the last read before the first call of the
        tool that acts on it.
        """
        selector = source.selector
        earlier = self.earlier
        if selector is None:
            return frozenset()
        acted = [call.redeemed_at for call in earlier.of(selector.tool)]
        usable = [
            call
            for call in earlier.of(source.tool)
            if not acted or call.redeemed_at <= min(acted)
        ]
        # After the first act all must agree: a read that began before it may have returned what
        # it left.
        last = [
            call
            for call in usable
            if acted or call.redeemed_at == max(each.redeemed_at for each in usable)
        ]
        if not any(self is call for call in last):
            return frozenset()
        facts = earlier.tools[source.tool].facts
        by = dict(selector.by)
        rows = []
        for key in sorted(chosen(selector, earlier.prompt.spoken)):
            picks = [
                (
                    call,
                    picked(key, facts[by[key]], facts[source.field], call.facts)
                    if call.asked_by_user(frozenset())
                    else None,
                )
                for call in last
            ]
            names = {
                None if row is None else normal(facts[source.field].type, row[source.field])
                for _, row in picks
            }
            if len(names) == 1:  # reads that disagree select nothing
                rows += [row for call, row in picks if call is self and row is not None]
        return self._places(rows)

    @once
    def meant(self, fact: Fact, said: Heard | None = None) -> frozenset[int]:
        """The rows that some words mean, by the labels of a fact; None: all words that are
        heard.
        """
        earlier = self.earlier
        if not self.asked_by_user(None if said is None else said.words):
            return frozenset()
        labels = [earlier.tools[self.tool].facts[name] for name in fact.named_by]
        rows = meant(fact, labels, self.facts, earlier.prompt, said)
        if said is None:  # an id is no word of the user's: it leads no further
            rows += own_row(fact, labels, self.facts, earlier.prompt, earlier.user)
        return self._places(rows)

    def _places(self, rows: Iterable[Row]) -> frozenset[int]:
        wanted = {id(row) for row in rows}
        return frozenset([index for index, row in enumerate(self.facts) if id(row) in wanted])

    def asked_by_user(self, words: frozenset[str] | None = None) -> bool:
        """Whether the user alone chose which rows a read returned; False where its record may
        not hold all arguments.

        Args:
            words: a text counts also where all its words are among these; None: all that are
                heard.
        """
        rules = self.earlier.tools[self.tool].args
        if self.named or not rules:
            return True
        if (
            any(rule.sensitive or "." in name for name, rule in rules.items())
            or not self.args.keys() <= rules.keys()
        ):
            return False
        sent = (
            (rules[name], value)
            for name, value in self.args.items()
            if value is not None or not rules[name].nullable
        )
        chose = (
            (rule, value)
            for rule, value in sent
            if not (rule.page_size and short(self.facts, value))
        )
        return asked_by_user(chose, self.earlier.prompt, words)


class Earlier:
    """The redeemed calls of a run, comparable under the tools of a workflow; and the user's
    words and id.
    """

    def __init__(
        self,
        calls: tuple[EarlierCall, ...],
        tools: Mapping[str, Tool],
        prompt: Prompt,
        user: str | None = None,
    ) -> None:
        self.calls = calls
        self.tools = tools
        self.prompt = prompt
        self.user = user
        self.remembered: EarlierCall | None = None
        self._answers: dict[str, list[Answer]] = {}
        self._numbers: dict[tuple[Sources, str, str], frozenset[Number]] = {}

    def is_user(self, kind: str, key: Key) -> bool:
        """Whether a value is the id of the run's own user, in the normal form of its type; of a
        run without a user none is.
        """
        own = None if self.user is None else normal(kind, self.user)
        return own is not None and type(own) is type(key) and own == key

    def of(self, tool: str) -> list[Answer]:
        """The redeemed calls of one tool, oldest first."""
        known = self._answers.get(tool)
        if known is None:  # one list for all threads: answers are compared by identity
            known = self._answers.setdefault(
                tool, [Answer(call, self) for call in self.calls if call.tool == tool]
            )
        return known

    def yeses(self, kind: str, tool: str) -> list[Answer]:
        """Those of one tool by which something is `confirmed`, or `remembered`."""
        if kind != REMEMBERED.kind:
            return self.of(tool)
        return (
            []
            if self.remembered is None or self.remembered.tool != tool
            else [Answer(self.remembered, self)]
        )

    def standing(self, rule: Rule) -> Sources:
        """The facts among a rule's origins that stand for the user's words where they count: a
        label of the row, or the read, is named.
        """
        return tuple(
            [source for source in rule.sources if stands_for_words(source, self.tools)]
        )

    def calculated(self, value: Value, key: Key, sources: Sources) -> str | None:
        """How a value is computed, as a reader sees it: one calculation that the user's words
        name; None where it is not, or may not be.

        Args:
            value: an argument.
            key: one element of it.
            sources: the origins that count, with `computed` among them: the numbers come from
                these, each in any call and row where it counts. What is computed belongs to no
                call.
        """
        said = _spoken(self.prompt)
        if not isinstance(key, Decimal) or not names_any(said):
            return None
        return calculation(said, self._operands(value, sources), key)

    def too_many_numbers(self, value: Value, sources: Sources) -> bool:
        """Whether a calculation is named, and nothing is computed because there is too much to
        calculate with.
        """
        said = _spoken(self.prompt)
        return names_any(said) and too_many(said, self._operands(value, sources))

    def _operands(self, value: Value, sources: Sources) -> frozenset[Number]:
        """The numbers of these origins in the currency of a value, or in none, each once."""
        kind = value.rule.type
        currency = value.currency
        place = (sources, kind, currency)
        if place in self._numbers:
            return self._numbers[place]
        own = _spoken(self.prompt).numbers if PROMPT in sources else frozenset()
        said = {
            number for number in own if self.prompt.words(kind, number[0], currency) is not None
        }
        # what an act answered, or was read after one, may be a result: it is not calculated
        # with again
        reads = {name for name, tool in self.tools.items() if tool.effect == "read"}
        first = min(
            (call.redeemed_at for call in self.calls if call.tool not in reads), default=inf
        )
        calls = [
            (s, call)
            for s in sources
            if s.tool in reads
            for call in self.of(s.tool)
            if call.redeemed_at <= first
        ]
        numbers = {
            (k, c)
            for source, call in calls
            for _, k, c in filter(None, call.said(source))
            if isinstance(k, Decimal)
        }
        held = {(k, c) for k, c in numbers if c == currency}
        known = frozenset(
            {Number(*number, own=True) for number in said}
            | {Number(*number) for number in held - said}
        )
        self._numbers[place] = known
        return known


def stands_for_words(source: Source, tools: Mapping[str, Tool]) -> bool:
    """Whether a value from here stands for the user's words: a fact of a read that counts only
    where its row, or the read, is named.
    """
    tool = tools.get(source.tool)
    fact = (
        tool.facts.get(source.field)
        if tool is not None and tool.effect == "read" and kind_of(source).row_fact
        else None
    )
    return fact is not None and (fact.named or bool(fact.named_by))


def _scalars(value: Any) -> Iterator[Any]:
    """Every scalar in a JSON value."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, Mapping):
            left += item.values()
        elif type(item) is list:
            left += item
        else:
            yield item
