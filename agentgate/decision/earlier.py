"""What the redeemed calls of a run said: arguments and facts as comparison keys, with their currency.

Rules: only `EarlierCall`s, calls of this run that were minted and redeemed, count. A result of a tool that is not a read is no
origin, except a new id it created (a refused recipient would launder itself through the refusal's echo). A selected fact counts
only in the one row that the user's words select.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from decimal import Context, Decimal, localcontext
from math import inf
from typing import Any

from agentgate.decision.labels import Heard, affirmed, asked_by_user, meant, own_row, row_is
from agentgate.decision.selectors import chosen, picked
from agentgate.decision.value import Value
from agentgate.language.calculation import Number, calculation, names_any, spoken, too_many
from agentgate.language.prompt import Prompt
from agentgate.language.wording import said
from agentgate.values.entities import Key, normal
from agentgate.values.request import EarlierCall, RunState
from agentgate.workflow.model import Fact, Rule, Selector, Source, Tool
from agentgate.workflow.page_size import short

Row = Mapping[str, Any]
NO_FACTS: tuple[Row, ...] = ({},)


def from_user(value: Value, key: Key, prompt: Prompt) -> bool:
    """True when one element has the origin `prompt`: one whole entity of the user's own words, or, a text, some of them in their order."""
    if prompt.words(value.rule.said_as, key, value.currency) is not None:
        return True
    if value.rule.type != "text" or said(prompt, str(key)) is None:
        return False
    # a secret is the user's letter by letter: another capital or mark locks them out
    return not value.rule.sensitive or any(str(key) in turn for turn in prompt.written)


def in_words(value: Value, prompt: Prompt) -> bool:
    """True for a text of which each element has the origin `prompt`."""
    return value.rule.type == "text" and all(from_user(value, key, prompt) for key in value.keys)


def own_id(run: RunState) -> str | None:
    """The id of the user a run is for; None without one, and for one of another tenant, where that id may be somebody else's."""
    user = run.header.user
    return user.id if user is not None and user.tenant == run.header.tenant and user.id else None


Found = tuple[Key, str] | None
_Place = tuple[int, int, int]
_MAX_MEMO = 8192


class Earlier:
    """The redeemed calls of a run with the types of what they returned, so that values can be compared.

    What a place says is read once and remembered: the calls of a `RunState` and the tools of a workflow never change. An entry
    holds its source, and this object its calls and rows, so that an identity in a key stays that object's.
    """

    __slots__ = (
        "_by_tool",
        "_keys",
        "_meant",
        "_numbers",
        "_origins",
        "_rows",
        "_said",
        "_standing",
        "_totals",
        "calls",
        "prompt",
        "tools",
        "user",
    )

    def __init__(self, calls: tuple[EarlierCall, ...], tools: Mapping[str, Tool], prompt: Prompt, user: str | None = None) -> None:
        self.calls, self.tools, self.prompt, self.user = calls, tools, prompt, user
        self._by_tool: dict[str, list[EarlierCall]] = {}
        for call in calls:
            self._by_tool.setdefault(call.tool, []).append(call)
        self._keys: dict[_Place, tuple[Source, Found]] = {}
        self._origins: dict[_Place, tuple[Source, Found]] = {}
        self._said: dict[tuple[int, int], tuple[Source, frozenset[tuple[type, Key, str]]]] = {}
        self._rows: dict[tuple[int, int], tuple[Source, list[Row]]] = {}
        self._meant: dict[tuple[int, int, bool], frozenset[int]] = {}
        self._standing: dict[int, tuple[Source, ...]] = {}
        self._totals: dict[tuple[int, int, str], tuple[Source, Decimal | None]] = {}
        self._numbers: dict[tuple[int, str, str], tuple[tuple[Source, ...], frozenset[Number]]] = {}

    @classmethod
    def of_run(cls, run: RunState, tools: Mapping[str, Tool]) -> Earlier:
        """The earlier calls of a run under these tools, made once for a state of a run."""
        kept = run.memo.get("earlier")
        if type(kept) is cls and kept.tools is tools and kept.calls is run.calls:
            return kept
        made = run.memo["earlier"] = cls(run.calls, tools, run.prompt, own_id(run))
        return made

    def is_user(self, kind: str, key: Key) -> bool:
        """Whether a value is the id of the run's own user, in the normal form of its type; of a run without a user none is."""
        own = None if self.user is None else normal(kind, self.user)
        return own is not None and type(own) is type(key) and own == key

    def of(self, tool: str) -> Collection[EarlierCall]:
        """The redeemed calls of one tool, oldest first."""
        return self._by_tool.get(tool, ())

    def standing(self, rule: Rule) -> tuple[Source, ...]:
        """The facts among a rule's origins that stand for the user's words where they count: a label of the row, or the read, is named."""
        known = self._standing.get(id(rule))
        if known is None:
            known = self._standing[id(rule)] = tuple([s for s in rule.sources if s.kind == "fact" and self._carries(s)])
        return known

    def _carries(self, source: Source) -> bool:
        tool = self.tools[source.tool]
        fact = tool.facts[source.field]
        return (fact.named or bool(fact.named_by)) and tool.effect == "read"

    def key(self, call: EarlierCall, row: Row, source: Source) -> Found:
        """The comparison key and currency of what `source` names in this call and row; None if it does not count.

        A money value without its declared currency does not count: 100 of something is no bound for 100 EUR.
        """
        place = (id(call), id(row), id(source))
        known = self._keys.get(place)
        if known is None:
            known = _remember(self._keys, place, source, self._read(call, row, source))
        return known[1]

    def origin(self, call: EarlierCall, row: Row, source: Source) -> Found:
        """As `key`, where it may serve as an origin: not a result of a tool that is not a read, unless a new id."""
        place = (id(call), id(row), id(source))
        known = self._origins.get(place)
        if known is None:
            known = _remember(self._origins, place, source, self._origin(call, source, self._read(call, row, source)))
        return known[1]

    def said(self, call: EarlierCall, source: Source) -> frozenset[tuple[type, Key, str]]:
        """Every (type, key, currency) that is an origin in any row of a call; many values against many rows is one look each."""
        place = (id(call), id(source))
        known = self._said.get(place)
        if known is None:
            if len(self._said) >= _MAX_MEMO:
                self._said.clear()
            rows = call.rows if source.selector is None else self._selected(call, source, source.selector)
            found = (self._origin(call, source, self._read(call, row, source)) for row in rows or NO_FACTS)
            known = self._said[place] = (source, frozenset((type(f[0]), *f) for f in found if f is not None))
        return known[1]

    def total(self, call: EarlierCall, source: Source, currency: str) -> Decimal | None:
        """The sum of a fact over all rows of a call that have it in this currency; None when there is none."""
        place = (id(call), id(source), currency)
        known = self._totals.get(place)
        if known is None:
            if len(self._totals) >= _MAX_MEMO:
                self._totals.clear()
            found = [self._read(call, row, source) for row in call.rows]
            amounts = [f[0] for f in found if f is not None and isinstance(f[0], Decimal) and f[1] == currency]
            with localcontext(Context(prec=64)):  # exact: a thousand amounts of 15 digits
                known = self._totals[place] = (source, sum(amounts, Decimal()) if amounts else None)
        return known[1]

    def calculated(self, value: Value, key: Key, sources: tuple[Source, ...]) -> str | None:
        """How a value is computed, as a reader sees it: one calculation that the user's words name; None where it is not, or may not be.

        Args:
            value: an argument.
            key: one element of it.
            sources: the origins that count, with `computed` among them: where the numbers come from, each by itself, in whatever call
                and row it counts. What is computed belongs to no call.
        """
        if not isinstance(key, Decimal):
            return None
        said = spoken(self.prompt.written)
        return calculation(said, self._operands(value, sources), key) if names_any(said) else None

    def too_many_numbers(self, value: Value, sources: tuple[Source, ...]) -> bool:
        """Whether a calculation is named, and nothing is computed because there is too much to calculate with."""
        said = spoken(self.prompt.written)
        return names_any(said) and too_many(said, self._operands(value, sources))

    def _operands(self, value: Value, sources: tuple[Source, ...]) -> frozenset[Number]:
        """The numbers of these origins in the currency of a value, or in none, each once."""
        place = (id(sources), value.rule.type, value.currency)
        known = self._numbers.get(place)
        if known is None:
            if len(self._numbers) >= _MAX_MEMO:
                self._numbers.clear()
            known = self._numbers[place] = (sources, self._gathered(value, sources))
        return known[1]

    def _gathered(self, value: Value, sources: tuple[Source, ...]) -> frozenset[Number]:
        kind, currency = value.rule.type, value.currency
        own = spoken(self.prompt.written).numbers if any(s.kind == "prompt" for s in sources) else frozenset()
        said = {n for n in own if self.prompt.words(kind, n[0], currency) is not None}
        # what an act answered, or was read after one, may be a result: it is not calculated with again
        reads = {name for name, tool in self.tools.items() if tool.effect == "read"}
        first = min((c.redeemed_at for c in self.calls if c.tool not in reads), default=inf)
        calls = [(s, c) for s in sources if s.tool in reads for c in self.of(s.tool) if c.redeemed_at <= first]
        found = {(k, c) for source, call in calls for _, k, c in self.said(call, source) if isinstance(k, Decimal)}
        held = {(k, c) for k, c in found if c == currency}
        return frozenset({Number(*n, own=True) for n in said} | {Number(*n) for n in held - said})

    def _selected(self, call: EarlierCall, source: Source, selector: Selector) -> list[Row]:
        """The rows of a call that the user's words select: of the last read before the first call of the tool that acts on it."""
        place = (id(call), id(source))
        known = self._rows.get(place)
        if known is None:
            known = self._rows[place] = (source, self._select(call, source, selector))
        return known[1]

    def _select(self, call: EarlierCall, source: Source, selector: Selector) -> list[Row]:
        acted = [c.redeemed_at for c in self.of(selector.tool)]
        usable = [c for c in self.of(source.tool) if not acted or c.redeemed_at <= min(acted)]
        # After the first act all must agree: a read that began before it may have returned what it left.
        last = [c for c in usable if acted or c.redeemed_at == max(c.redeemed_at for c in usable)]
        if not any(call is c for c in last):
            return []
        facts, by, rows = self.tools[source.tool].facts, dict(selector.by), []
        for key in sorted(chosen(selector, self.prompt.spoken)):
            found = [
                (c, picked(key, facts[by[key]], facts[source.field], c.rows) if self._asked_by_user(c, frozenset()) else None) for c in last
            ]
            names = {None if row is None else normal(facts[source.field].type, row[source.field]) for _, row in found}
            if len(names) == 1:  # reads that disagree select nothing
                rows += [row for c, row in found if c is call and row is not None]
        return rows

    def _counts(self, call: EarlierCall, row: Row, source: Source, fact: Fact) -> bool:
        """Whether a row is one that its fact asks for. A sum is over all rows, and a selector says itself which row it means."""
        if source.kind == "sum":
            return True
        facts = self.tools[source.tool].facts
        if not row_is(fact.where, facts, row, call.args):
            return False
        if not fact.named_by or source.kind == "select":
            return True
        return id(row) in self._rows_meant(call, fact)

    def _rows_meant(self, call: EarlierCall, fact: Fact, said: Heard | None = None) -> frozenset[int]:
        """Identities of the rows that the user's words mean: all that are heard, or those `said`."""
        place = (id(call), id(fact), said is None)
        known = self._meant.get(place)
        if known is None:
            labels = [self.tools[call.tool].facts[name] for name in fact.named_by]
            rows: tuple[Row, ...] = ()
            if self._asked_by_user(call, None if said is None else said.words):
                rows = meant(fact, labels, call.rows, self.prompt, said)
                if said is None:  # an id is no word of the user's: it leads nowhere
                    rows += own_row(fact, labels, call.rows, self.prompt, self.user)
            known = self._meant[place] = frozenset(map(id, rows))
        return known

    def stands(self, call: EarlierCall, row: Row, source: Source) -> Found:
        """As `origin`, of a source that stands for the user's words (`standing`), in a row that the words mean which the user said.

        Quoted and denied words tell rows apart, and so take some away; they make none the user's.
        """
        found = self.origin(call, row, source)
        if found is None:
            return None
        fact = self.tools[source.tool].facts[source.field]
        return found if fact.named or id(row) in self._rows_meant(call, fact, affirmed(self.prompt.written)) else None

    def _asked_by_user(self, call: EarlierCall, words: frozenset[str] | None = None) -> bool:
        """Whether nobody but the user chose which rows a read returned; False where its record may not hold all arguments.

        `words`: a text counts also where all its words are among these; None: all that are heard.
        """
        rules = self.tools[call.tool].args
        if call.named or not rules:
            return True
        if any(rule.sensitive or "." in name for name, rule in rules.items()) or not call.args.keys() <= rules.keys():
            return False
        sent = ((rules[name], value) for name, value in call.args.items() if value is not None or not rules[name].nullable)
        chose = ((rule, value) for rule, value in sent if not (rule.page_size and short(call.rows, value)))
        return asked_by_user(chose, self.prompt, words)

    def _read(self, call: EarlierCall, row: Row, source: Source) -> Found:
        if source.selector is not None and not any(row is r for r in self._selected(call, source, source.selector)):
            return None
        if source.kind == "arg":
            rule = self.tools[source.tool].args[source.field]
            raw, kind, currency = call.args.get(source.field), rule.type, call.args.get(rule.currency) if rule.currency else ""
        else:
            fact = self.tools[source.tool].facts[source.field]
            if fact.named and not call.named:
                return None
            if (fact.named_by or fact.where) and not self._counts(call, row, source, fact):
                return None
            raw, kind, currency = row.get(source.field), fact.type, row.get(fact.currency) if fact.currency else ""
            if fact.pattern is not None and not (type(raw) is str and fact.pattern.matches(raw)):
                return None
        found = normal(kind, raw)
        return None if found is None or type(currency) is not str else (found, currency)

    def _origin(self, call: EarlierCall, source: Source, found: Found) -> Found:
        if found is None or source.kind == "arg" or self.tools[source.tool].effect == "read":
            return found
        if self.tools[source.tool].facts[source.field].type != "id":
            return None
        return None if any(str(item) == found[0] for item in _scalars(call.args)) else found


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


def _remember(memo: dict[_Place, tuple[Source, Found]], place: _Place, source: Source, found: Found) -> tuple[Source, Found]:
    if len(memo) >= _MAX_MEMO:
        memo.clear()
    entry = memo[place] = (source, found)
    return entry


def same(value: Value, key: Key, found: Found) -> bool:
    """True when what was found is this element of the value: type, key and currency."""
    return found is not None and type(found[0]) is type(key) and found[0] == key and found[1] == value.currency


def within_bound(value: Value, call: EarlierCall, row: Row, earlier: Earlier) -> bool:
    """True when every element of the value is at most what the bound of its rule names in this call and row."""
    bound = value.rule.at_most
    if bound is not None and bound.kind == "sum":
        total = earlier.total(call, bound, value.currency)
        return total is not None and all(isinstance(key, Decimal) and key <= total for key in value.keys)
    found = earlier.key(call, row, bound) if bound is not None else None
    if found is None or not isinstance(found[0], Decimal):
        return False
    if found[1] != value.currency:
        return False
    return all(isinstance(key, Decimal) and key <= found[0] for key in value.keys)


def recent(call: EarlierCall, within: int | None, now: float) -> bool:
    """True when the call was redeemed within so many seconds (None: ever)."""
    return within is None or now - call.redeemed_at <= within
