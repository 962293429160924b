"""Where a value came from: the prompt, a fact or argument of an earlier redeemed call, or the model.

Rules: an origin is derived here and accepted from nobody. Only `EarlierCall`s, calls of this run that were minted and
redeemed, count. One call, one source: every reference from one call to one tool (`from`, `at_most`, `require`) must be met
by the same earlier call, and by the same row of a list result; a list argument's elements may each take a row of that call.
`any_call: true` takes an argument out of that: each element from any call and row. A result of a tool that is not a read is
no origin, except a new id it created (a refused recipient would launder itself through the refusal's echo). A selected fact
counts only in the one row that the user's words select, a labelled one only in the rows they mean. `named_first`: where the user
named any value of the type, nothing but the user's words is an origin.

How the joint choice is found without trying every combination: what must hold of one tool whatever the others do
(`at_most`, `require`) filters its candidates; each candidate then covers a set of arguments by `from`; only different,
maximal sets matter; and one set per tool must together cover every argument that needs an earlier call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Context, Decimal, localcontext
from itertools import product
from math import prod
from typing import Any, NamedTuple

from agentgate.decision import Failure, Reason
from agentgate.entities import Key, normal
from agentgate.labels import meant, row_is
from agentgate.prompt import Prompt
from agentgate.request import EarlierCall, RunState
from agentgate.selectors import chosen, picked
from agentgate.workflow import Fact, Rule, Selector, Source, Tool

Row = Mapping[str, Any]
_NO_FACTS: tuple[Row, ...] = ({},)
_PROMPT: tuple[Source, ...] = (Source("prompt"),)


class Value(NamedTuple):
    """An argument in normal form: its rule, the keys of its elements (one for a single value), its currency, and the value as given."""

    rule: Rule
    keys: tuple[Key, ...]
    currency: str
    raw: Any

    @property
    def shown(self) -> str:
        """The value for an operator; a sensitive one is masked."""
        return "(masked)" if self.rule.sensitive else repr(self.raw)[:200]


Found = tuple[Key, str] | None
_Place = tuple[int, int, int]
_MAX_MEMO = 8192
_MAX_CHOICES = 1024  # ways to combine the rows of several tools that are tried; a call with more is refused


class Earlier:
    """The redeemed calls of a run with the types of what they returned, so that values can be compared.

    What a place says is read once and remembered: the calls of a `RunState` and the tools of a workflow never change. An entry
    holds its source, and this object its calls and rows, so that an identity in a key stays that object's.
    """

    __slots__ = ("_by_tool", "_keys", "_meant", "_origins", "_rows", "_said", "_totals", "calls", "prompt", "tools")

    def __init__(self, calls: tuple[EarlierCall, ...], tools: Mapping[str, Tool], prompt: Prompt) -> None:
        self.calls, self.tools, self.prompt = calls, tools, prompt
        self._by_tool: dict[str, list[EarlierCall]] = {}
        for call in calls:
            self._by_tool.setdefault(call.tool, []).append(call)
        self._keys: dict[_Place, tuple[Source, Found]] = {}
        self._origins: dict[_Place, tuple[Source, Found]] = {}
        self._said: dict[tuple[int, int], tuple[Source, frozenset[tuple[type, Key, str]]]] = {}
        self._rows: dict[tuple[int, int], tuple[Source, list[Row]]] = {}
        self._meant: dict[tuple[int, int], frozenset[int]] = {}
        self._totals: dict[tuple[int, int, str], tuple[Source, Decimal | None]] = {}

    @classmethod
    def of_run(cls, run: RunState, tools: Mapping[str, Tool]) -> Earlier:
        """The earlier calls of a run under these tools, made once for a state of a run."""
        kept = run.memo.get("earlier")
        if type(kept) is cls and kept.tools is tools and kept.calls is run.calls:
            return kept
        made = run.memo["earlier"] = cls(run.calls, tools, run.prompt)
        return made

    def of(self, tool: str) -> Collection[EarlierCall]:
        """The redeemed calls of one tool, oldest first."""
        return self._by_tool.get(tool, ())

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
            known = _remember(self._origins, place, source, self._origin(call, source, self.key(call, row, source)))
        return known[1]

    def said(self, call: EarlierCall, source: Source) -> frozenset[tuple[type, Key, str]]:
        """Every (type, key, currency) that is an origin in any row of a call; many values against many rows is one look each."""
        place = (id(call), id(source))
        known = self._said.get(place)
        if known is None:
            if len(self._said) >= _MAX_MEMO:
                self._said.clear()
            rows = call.rows if source.selector is None else self._selected(call, source, source.selector)
            found = (self._origin(call, source, self._read(call, row, source)) for row in rows or _NO_FACTS)
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
        last = [c for c in usable if c.redeemed_at == max(c.redeemed_at for c in usable)]
        if not any(call is c for c in last):
            return []
        facts, by, rows = self.tools[source.tool].facts, dict(selector.by), []
        for key in sorted(chosen(selector, self.prompt.spoken)):
            found = [(c, picked(key, facts[by[key]], facts[source.field], c.rows)) for c in last]
            names = {None if row is None else normal(facts[source.field].type, row[source.field]) for _, row in found}
            if len(names) == 1:  # reads of one moment that disagree select nothing
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
        place = (id(call), id(fact))
        known = self._meant.get(place)
        if known is None:
            labels = (facts[name] for name in fact.named_by)
            known = self._meant[place] = frozenset(map(id, meant(fact, labels, call.rows, self.prompt)))
        return id(row) in known

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


def _same(value: Value, key: Key, found: tuple[Key, str] | None) -> bool:
    return found is not None and type(found[0]) is type(key) and found[0] == key and found[1] == value.currency


def _from_call(value: Value, source: Source, call: EarlierCall, row: Row, earlier: Earlier) -> bool:
    if value.rule.max_items is None:
        return _same(value, value.keys[0], earlier.origin(call, row, source))
    said = earlier.said(call, source)
    return all((type(key), key, value.currency) in said for key in value.keys)


def _within(value: Value, call: EarlierCall, row: Row, earlier: Earlier) -> bool:
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


def _within_some_call(value: Value, bound: Source, earlier: Earlier) -> bool:
    for call in earlier.of(bound.tool):
        for row in call.rows[:1] if bound.kind == "sum" else call.rows or _NO_FACTS:
            if _within(value, call, row, earlier):
                return True
    return False


def _from_some_call(value: Value, sources: list[Source], earlier: Earlier) -> bool:
    for source in sources:
        for call in earlier.of(source.tool):
            if all((type(key), key, value.currency) in earlier.said(call, source) for key in value.keys) and value.keys:
                return True
    return False


def sources_of(value: Value, prompt: Prompt) -> tuple[Source, ...]:
    """The origins that count for a value: the rule's, or with `named_first` only the prompt where the user named one of the type."""
    rule = value.rule
    return _PROMPT if rule.named_first and prompt.holds(rule.type) else rule.sources


def from_prompt(value: Value, prompt: Prompt) -> bool:
    """True when every element of the value is one whole entity of the user's own words."""
    for key in value.keys:  # noqa: SIM110 - this runs for every argument of every call, and a generator costs as much as the question
        if prompt.words(value.rule.type, key, value.currency) is None:
            return False
    return True


class Traced(NamedTuple):
    """What tracing found.

    Attributes:
        failures: conditions no origin can meet, one each.
        unknown: names of arguments whose origin does not hold and whose rule says ``unknown_origin: step_up``, with why.
        named: every argument's value is in the prompt (whether or not its rule asks).
    """

    failures: tuple[Failure, ...]
    unknown: Mapping[str, Failure]
    named: bool


class _Asked(NamedTuple):
    """What one argument's rule asks of its origin: in the prompt, or one of `sources`; and within `bound`."""

    name: str
    origin: bool
    prompt: bool
    sources: tuple[Source, ...]
    bound: Source | None


class _Plan(NamedTuple):
    """A tool's origin rules where they all refer to at most one other tool (empty: none) and no argument opts out."""

    asked: tuple[_Asked, ...]
    windows: tuple[int | None, ...]
    other: str


_MAX_PLANS = 4096
_plans: dict[int, tuple[Tool, _Plan | None]] = {}  # an entry holds its tool, so an identity stays that tool's


def _plan(tool: Tool) -> _Plan | None:
    """The plan of a tool, made once; None when its rules are not that plain."""
    kept = _plans.get(id(tool))
    if kept is None:
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        kept = _plans[id(tool)] = (tool, _planned(tool))
    return kept[1]


def _planned(tool: Tool) -> _Plan | None:
    asked = []
    others = {order.require for order in tool.sequence}
    for name, rule in tool.args.items():
        free = not rule.sources or any(s.kind == "model" for s in rule.sources)
        if free and rule.at_most is None:
            continue
        if rule.any_call:
            return None
        sources = () if free else tuple(s for s in rule.sources if s.tool)
        others.update(s.tool for s in sources)
        if rule.at_most is not None:
            others.add(rule.at_most.tool)
        asked.append(_Asked(name, not free, any(s.kind == "prompt" for s in rule.sources), sources, rule.at_most))
    if len(others) > 1:
        return None
    return _Plan(tuple(asked), tuple(order.within for order in tool.sequence), next(iter(others), ""))


def _holds_plainly(plan: _Plan | None, values: Mapping[str, Value], in_prompt: Callable[[str], bool], earlier: Earlier, now: float) -> bool:
    """The common case, found without looking for reasons: one call and row of one other tool meets everything.

    True only where the long way would find nothing to say; False says nothing.
    """
    if plan is None:
        return False
    wanted, bounded = [], []
    for name, origin, prompt, sources, bound in plan.asked:
        value = values.get(name)
        if value is None:
            continue
        if bound is not None:
            bounded.append((value, bound))
        if origin and not (prompt and in_prompt(name)):
            if not sources or (value.rule.named_first and earlier.prompt.holds(value.rule.type)):
                return False
            wanted.append((value, sources))
    if not plan.other:
        return True
    lists = [(value, sources) for value, sources in wanted if value.rule.max_items is not None]
    single = [(value, sources) for value, sources in wanted if value.rule.max_items is None]
    sums = [value for value, bound in bounded if bound.kind == "sum"]
    rowed = [(value, bound) for value, bound in bounded if bound.kind != "sum"]
    for call in earlier.of(plan.other):
        if not all(_recent(call, within, now) for within in plan.windows):
            continue
        if not all(_within(value, call, {}, earlier) for value in sums):
            continue
        if not all(_said(value, sources, call, earlier) for value, sources in wanted):
            continue
        if len(single) + len(rowed) <= 1 and not rowed:
            return True  # nothing has to share a row
        for row in call.rows or _NO_FACTS:
            if _row_holds(single, rowed, call, row, earlier):
                return True
    return not (single or lists or bounded or plan.windows)


def _said(value: Value, sources: tuple[Source, ...], call: EarlierCall, earlier: Earlier) -> bool:
    """Whether one of the sources has the value, or each element of a list, in some row of a call."""
    for source in sources:
        said = earlier.said(call, source)
        if all((type(key), key, value.currency) in said for key in value.keys):
            return True
    return False


def _row_holds(
    wanted: list[tuple[Value, tuple[Source, ...]]], bounded: list[tuple[Value, Source]], call: EarlierCall, row: Row, earlier: Earlier
) -> bool:
    for value, _ in bounded:
        if not _within(value, call, row, earlier):
            return False
    origin = earlier.origin
    for value, sources in wanted:
        single = value.keys[0]
        for source in sources:
            if (found := origin(call, row, source)) is not None and _same(value, single, found):
                break
        else:
            return False
    return True


def trace(tool: Tool, values: Mapping[str, Value], prompt: Prompt, earlier: Earlier, *, now: float, file: str) -> Traced:
    """Find whether the origins, bounds and required calls of one call can all hold together.

    Args:
        tool: the tool called, with its rules.
        values: the arguments that are present and in normal form.
        prompt: entities of the user's turns.
        earlier: the run's redeemed calls.
        now: decision time in POSIX seconds.
        file: workflow file, for ``file:line`` in failures.
    """
    prompted: dict[str, bool] = {}  # asked only where it matters

    def in_prompt(name: str) -> bool:
        known = prompted.get(name)
        if known is None:
            known = prompted[name] = from_prompt(values[name], prompt)
        return known

    if _holds_plainly(_plan(tool), values, in_prompt, earlier, now):
        return Traced((), {}, all(map(in_prompt, values)))
    failures: list[Failure] = []
    unknown: dict[str, Failure] = {}
    pending: dict[str, list[Source]] = {}
    bounded: dict[str, list[Value]] = {}
    for name, value in values.items():
        rule = value.rule
        if rule.at_most is not None:
            if not _within_some_call(value, rule.at_most, earlier):
                failures.append(
                    Failure(
                        Reason.AT_MOST, f"args.{name}", value.shown, f"at most {rule.at_most} of an earlier call", f"{file}:{rule.line}"
                    )
                )
            elif not rule.any_call:
                bounded.setdefault(rule.at_most.tool, []).append(value)
        if not rule.sources or any(s.kind == "model" or (s.kind == "prompt" and in_prompt(name)) for s in rule.sources):
            continue
        sources = sources_of(value, prompt)
        calls = [s for s in sources if s.tool]
        if rule.any_call and all(came_from(value, key, sources, prompt, earlier) for key in value.keys):
            continue
        if rule.any_call or not _from_some_call(value, calls, earlier):
            failure = Failure(
                Reason.ARGUMENT_ORIGIN,
                f"args.{name}",
                value.shown,
                "a value from " + " or ".join(map(str, sources)) + _apart(value, prompt),
                f"{file}:{rule.line}",
            )
            if rule.unknown_origin == "step_up":
                unknown[name] = failure
            else:
                failures.append(failure)
        else:
            pending[name] = calls
    required: dict[str, list[int | None]] = {}
    for order in tool.sequence:
        if not any(_recent(c, order.within, now) for c in earlier.of(order.require)):
            window = "" if order.within is None else f" in the last {order.within} s"
            failures.append(
                Failure(
                    Reason.SEQUENCE,
                    tool.name,
                    f"no redeemed {order.require}{window}",
                    f"{order.require} before {tool.name}",
                    f"{file}:{order.line}",
                )
            )
        else:
            required.setdefault(order.require, []).append(order.within)
    if not failures and (pending or bounded or required):
        _join(tool, values, pending, bounded, required, earlier, now, file, failures, unknown)
    return Traced(tuple(failures), unknown, all(map(in_prompt, values)))


def _apart(value: Value, prompt: Prompt) -> str:
    """Why a prompt that seems to name a datetime does not: a day and a time belong together only where they stand together."""
    if value.rule.type != "datetime" or not any(s.kind == "prompt" for s in value.rule.sources):
        return ""
    parts = [str(key).partition("T") for key in value.keys]
    named = all(prompt.words("date", day) and prompt.words("time", time[:5]) for day, _, time in parts)
    return ' (the prompt names its day and its time apart: "on 2026-06-03 at 10:00" names both together)' if named else ""


def _recent(call: EarlierCall, within: int | None, now: float) -> bool:
    return within is None or now - call.redeemed_at <= within


def _join(  # noqa: PLR0917 - one step of `trace`, with what it has found so far
    tool: Tool,
    values: Mapping[str, Value],
    pending: Mapping[str, list[Source]],
    bounded: Mapping[str, list[Value]],
    required: Mapping[str, list[int | None]],
    earlier: Earlier,
    now: float,
    file: str,
    failures: list[Failure],
    unknown: dict[str, Failure],
) -> None:
    """One call, one source: choose one earlier call (and row) per referenced tool so that everything holds together."""
    tools = dict.fromkeys([*bounded, *required, *(s.tool for sources in pending.values() for s in sources)])
    covers: list[set[frozenset[str]]] = []
    sourced = {s.tool for sources in pending.values() for s in sources}
    for name in tools:
        found: set[frozenset[str]] = set()
        sums = [value for value in bounded.get(name, ()) if value.rule.at_most is not None and value.rule.at_most.kind == "sum"]
        rowed = [value for value in bounded.get(name, ()) if value.rule.at_most is not None and value.rule.at_most.kind != "sum"]
        for call in earlier.of(name):
            if not all(_recent(call, within, now) for within in required.get(name, ())):
                continue
            if not all(_within(value, call, {}, earlier) for value in sums):
                continue
            for row in (call.rows if rowed or name in sourced else ()) or _NO_FACTS:
                if all(_within(value, call, row, earlier) for value in rowed):
                    found.add(
                        frozenset(
                            arg
                            for arg, sources in pending.items()
                            if any(s.tool == name and _from_call(values[arg], s, call, row, earlier) for s in sources)
                        )
                    )
        if not found and (name in bounded or name in required):
            failures.append(_mixed(tool, f"{name} in one earlier call", file))
            return
        maximal = found if len(found) > _MAX_CHOICES else {c for c in found if not any(c < other for other in found)}
        covers.append(maximal or {frozenset()})
    if prod(map(len, covers)) > _MAX_CHOICES:
        failures.append(_mixed(tool, f"{', '.join(tools)} in few enough different results", file))
        return
    wanted = frozenset(pending)
    choices = [frozenset().union(*choice) for choice in product(*covers)]
    if any(wanted <= covered for covered in choices):
        return
    soft = {name for name in wanted if values[name].rule.unknown_origin == "step_up"}
    best = max(choices, key=lambda covered: (len((covered & wanted) - soft), len(covered & soft)))
    for name in sorted(wanted - best):
        failure = Failure(
            Reason.ONE_SOURCE,
            f"args.{name}",
            values[name].shown,
            "the same earlier call as the other arguments",
            f"{file}:{values[name].rule.line}",
        )
        if name in soft and wanted - soft <= best:
            unknown[name] = failure
        else:
            failures.append(failure)


def _mixed(tool: Tool, expected: str, file: str) -> Failure:
    return Failure(
        Reason.ONE_SOURCE,
        tool.name,
        "conditions met only by different earlier calls",
        f"all references to {expected}",
        f"{file}:{tool.line}",
    )


def came_from(value: Value, key: Key, sources: tuple[Source, ...], prompt: Prompt, earlier: Earlier) -> bool:
    """True when one element of an argument has one of `sources`, in any call and row. The model explains nothing here."""
    for source in sources:
        if source.kind == "prompt" and prompt.words(value.rule.type, key, value.currency) is not None:
            return True
        for call in earlier.of(source.tool) if source.tool else ():
            if (type(key), key, value.currency) in earlier.said(call, source):
                return True
    return False


def in_some_call(kind: str, key: Key, sources: tuple[Source, ...], prompt: Prompt, earlier: Earlier) -> bool:
    """True when a value found inside free text has one of the allowed origins, in any call and row."""
    for source in sources:
        if source.kind == "model" or (source.kind == "prompt" and prompt.words(kind, key) is not None):
            return True
        for call in earlier.of(source.tool) if source.tool else ():
            if (type(key), key, "") in earlier.said(call, source):
                return True
    return False
