"""One argument of a tool: every class of its values, and what each version decides about them.

A class is a value (or none, or a list) together with its origin; applying a rule to one value
of the class gives the rule's answer for all of it. Absence is one more value. Lists have as
many elements as matter: one for what an element alone can do, several where conditions or
origins of different elements add up, one more than the shorter bound, and a role in full.

The possible origins of one value are atoms: the prompt, the user's own id, each fact or argument
of an earlier call that a rule names. An atom holds of a value or not; sources that no rule
distinguishes are one atom. `within` holds the `at_most` bounds that the value respects: always
those facts that it equals (a selected fact equals its fact). `split`: the values that the call
refers to come from different earlier calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import compress, product
from typing import Any

from agentgate.diff.finding import (
    ABSENT,
    ANSWERS,
    NULL,
    ORIGIN,
    Cell,
    Field,
    Ruling,
    Status,
    Unsent,
    asks,
    by,
    free_if,
)
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.values import plain, representatives
from agentgate.values.canonical import parse
from agentgate.values.entities import Key, normal
from agentgate.values.value_class import value_class
from agentgate.workflow.operators import key_of
from agentgate.workflow.rule import MODEL, Rule, Source

Atoms = frozenset[Source]
_MAX_ATOMS = 8  # that the rules distinguish


@value_class
class Explanations:
    """One way in which a value can be explained."""

    atoms: Atoms
    within: frozenset[Source]
    split: bool = False


def ways(rules: Sequence[Rule], whens: Sequence[Rule]) -> list[Explanations]:
    """Every way in which a value can be explained that the rules of both versions and the
    step-up conditions distinguish.

    Raises TooLarge: too many different sources.
    """
    bounds = sorted({r.at_most for r in rules if r.at_most}, key=str)
    lists = [rule.sources for rule in rules]
    lists += [tuple([o for o in w.origin or () if isinstance(o, Source)]) for w in whens]
    groups: dict[object, Source] = {}
    for source in dict.fromkeys(s for sources in lists for s in sources if s != MODEL):
        alone = (
            str(source) if not source.tool else "",
            _fact_of(source),
            *(source == b for b in bounds),
        )
        groups.setdefault((alone, *(source in s for s in lists)), source)
    atoms = list(groups.values())
    if len(atoms) + len(bounds) > _MAX_ATOMS:
        raise TooLarge
    splits = (False, True) if len({r.any_call for r in rules}) > 1 else (False,)
    return list(_all(atoms, bounds, splits))


def _all(
    atoms: list[Source], bounds: list[Source], splits: tuple[bool, ...]
) -> Iterator[Explanations]:
    for split in splits:
        for held in product((False, True), repeat=len(atoms)):
            chosen = frozenset(compress(atoms, held))
            lacking = {*atoms} - chosen
            for bounded in product((True, False), repeat=len(bounds)):
                within = frozenset(compress(bounds, bounded))
                unbounded = chosen.intersection(bounds) - within
                if not unbounded and lacking.isdisjoint(map(_fact_of, chosen)):
                    yield Explanations(chosen, within, split)


def _fact_of(source: Source) -> Source | None:
    """The fact that a selected source equals, in one row of many."""
    return Source("fact", source.tool, source.field) if source.selector else None


def status(
    rule: Rule,
    elements: Sequence[Atoms],
    *,
    split: bool,
) -> Status:
    """What a rule's `from` decides about a value (for a list: about all its elements
    together).
    """
    if rule.free:
        return Status.FREE
    shared = frozenset.intersection(*elements)
    for source in rule.sources:
        if source in shared and (not source.tool or not split or rule.any_call):
            return Status.FREE
    if rule.any_call and all(any(s in atoms for s in rule.sources) for atoms in elements):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]


def bounded(rule: Rule, origin: Explanations) -> bool:
    """Whether `at_most` holds."""
    return rule.at_most is None or (
        rule.at_most in origin.within and (rule.any_call or not origin.split)
    )


def has_origin(
    when: Rule,
    rule: Rule,
    atoms: Atoms,
) -> bool:
    """Whether a step-up condition's `origin` holds of one element."""
    unexplained = not any(source in atoms for source in rule.sources)
    return any(
        unexplained if origin in ("unknown", MODEL) else origin in atoms
        for origin in when.origin or ()
    )


_MAX_LISTS = 3000
Fails = frozenset[str]
Meets = tuple[bool, ...]


@value_class
class Side:
    """One version's view of an argument: its rule (None: the argument is unknown) and the
    conditions on it by step-up rule.
    """

    rule: Rule | None
    whens: tuple[tuple[int, Rule], ...] = ()


Sides = tuple[Side, Side]


@value_class
class _View:
    """What one version says of a single value: what fails, and which conditions it meets.

    `plainly`: which it meets, its origin apart.
    """

    fails: Fails
    meets: Meets
    plainly: Meets


@value_class
class _Element:
    """One class of single values: the value, its origin, and what each version says of it."""

    raw: Any
    origin: Explanations
    views: tuple[_View, ...]


_Elements = list[_Element]


def argument(
    name: str,
    old: Side,
    new: Side,
    budget: Budget | None = None,
) -> Field:
    """Every class of values of one argument. Raises Unreadable, TooLarge: it has no exact
    answer.
    """
    sides = (old, new)
    rules = [s.rule for s in sides if s.rule]
    cells: dict[object, Cell] = {}
    picky = any(r.needs for r in rules)
    whens = [when for side in sides for _, when in side.whens]
    for each in _cells(name, sides, rules, whens, budget):
        if not each.refused:
            # where it is sent, its own intents are needed too
            apart = picky and left_out(each, name)
            cells.setdefault((each.old, each.new, apart), each)
    said = dict[str, tuple[str, str]]()
    for each in cells.values():
        for label in (*each.old.why, *each.new.why):
            operator = label.rpartition(".")[2]
            said[label] = describe(old.rule, operator), describe(new.rule, operator)
    said[f"args.{name}"] = (describe(old.rule), describe(new.rule))
    return Field(f"args.{name}", tuple(cells.values()), said)


def _cells(
    name: str, sides: Sides, rules: list[Rule], whens: list[Rule], budget: Budget | None
) -> Iterator[Cell]:
    absent = [not s.rule or s.rule.optional for s in sides]
    yield _unsent(name, sides, ABSENT, absent)
    null = [bool(s.rule and s.rule.nullable and s.rule.optional) for s in sides]
    yield _unsent(name, sides, NULL, null)
    raws = raws_of(rules, whens, budget)
    origins = ways(rules, whens)
    for many in sorted({bool(r.max_items) for r in rules}):
        elements = _elements(sides, raws, origins, many=many)
        for element in elements:
            yield _cell(name, sides, [element], many=many)
        if many:
            for chosen in _lists(sides, elements):
                yield _cell(name, sides, chosen, many=True)


def _unsent(
    name: str,
    sides: Sides,
    value: Unsent,
    allowed: list[bool],
) -> Cell:
    """The argument left out, or sent as null."""
    key = "optional" if value is ABSENT else "nullable"
    label = f"args.{name}.{key}" if all(s.rule for s in sides) else f"args.{name}"
    old, new = (
        by(label, free_if(a), mask_of(s, [False] * len(s.whens)))
        for s, a in zip(sides, allowed, strict=True)
    )
    return Cell(old, new, {f"args.{name}": value}, str(value))


def left_out(of: Cell, name: str) -> bool:
    """Whether a cell is of an argument that is not sent, or sent as null."""
    return isinstance(of.point.get(f"args.{name}"), Unsent)


def mask_of(side: Side, meets: Sequence[bool]) -> int:
    """One bit for each step-up rule: 0 where a condition on this argument is not met."""
    mask = -1
    for (index, _), met in zip(side.whens, meets, strict=True):
        if not met:
            mask &= ~(1 << index)
    return mask


# --- one value --------------------------------------------------------------------------------
def raws_of(
    rules: list[Rule], whens: Sequence[Rule] = (), budget: Budget | None = None
) -> list[Any]:
    """Values as a call holds them; with two types, those that stand for each."""
    raws: dict[tuple[type, str], Any] = {}
    for kind in dict.fromkeys(r.type for r in rules):
        for key in representatives(kind, rules, whens, budget):
            raw = raw_of(kind, key)
            raws[type(raw), str(raw)] = raw
    return list(raws.values())


def raw_of(kind: str, key: Key) -> Any:
    """A value whose comparison key this is."""
    if isinstance(key, Decimal):
        return int(key) if kind == "integer" else plain(key)
    return parse(key.encode()) if isinstance(key, str) and kind == "json" else key


def _elements(
    sides: Sides, raws: list[Any], origins: list[Explanations], *, many: bool
) -> _Elements:
    """One element for each way in which values and origins are treated."""
    alike: dict[object, _Element] = {}
    for raw in raws:
        each = _element(sides, raw, many=many)
        alike.setdefault(each.views, each)
    return [_from(origin, each, sides) for each in alike.values() for origin in origins]


def _element(
    sides: Sides,
    raw: Any,
    *,
    many: bool,
) -> _Element:
    """One value, its origin apart."""
    views = []
    for side in sides:
        key = _key(side.rule, raw) if side.rule else None
        fails = _fails(side.rule, key, many=many)
        meets = tuple(
            [
                key is not None and all(operator.holds(key) for operator in when.operators)
                for _, when in side.whens
            ]
        )
        views.append(_View(fails, meets, meets))
    return _Element(raw, Explanations(frozenset(), frozenset()), tuple(views))


def _from(
    origin: Explanations,
    element: _Element,
    sides: Sides,
) -> _Element:
    """An element with an origin, which the conditions on origins look at."""
    views = []
    for side, view in zip(sides, element.views, strict=True):
        rule = side.rule
        meets = tuple(
            [
                met
                and (when.origin is None or bool(rule and has_origin(when, rule, origin.atoms)))
                for met, (_, when) in zip(view.plainly, side.whens, strict=True)
            ]
        )
        views.append(_View(view.fails, meets, view.plainly))
    return _Element(element.raw, origin, tuple(views))


def _key(rule: Rule, raw: Any) -> Key | None:
    """The comparison key of a value. Free text is its own: a representative may say a little
    more than the normal form.
    """
    if rule.type == "text":
        return raw if type(raw) is str else None
    return normal(rule.type, raw)


def _fails(
    rule: Rule | None,
    key: Key | None,
    *,
    many: bool,
) -> Fails:
    """Names of the operators that one value (or one element) does not meet."""
    if not rule:
        return frozenset({""})
    if many != bool(rule.max_items):
        return frozenset({"max_items"})
    if key is None:
        return frozenset({"type"})
    failed = {key_of(operator, rule) for operator in rule.operators if not operator.holds(key)}
    if rule.role and not (key in rule.role_scopes if many else {key} < rule.role_scopes):
        failed.add("narrower_than_role")
    return frozenset(failed)


# --- lists ------------------------------------------------------------------------------------
def _lists(sides: Sides, elements: _Elements) -> Iterator[_Elements]:
    """Lists in which elements that both versions accept add up, in length, conditions or
    origins; and whole roles.
    """
    longest = [s.rule.max_items or 0 for s in sides if s.rule]
    fine = [e for e in elements if not any(view.fails for view in e.views)]
    by_sum: dict[object, _Elements] = {}
    layer = [[e] for e in fine]
    for _ in range(max(longest)):
        following = []
        for chosen in layer:
            if by_sum.setdefault(_sum(sides, chosen), chosen) is chosen:
                first = chosen[0].origin
                following += [
                    [*chosen, e]
                    for e in fine
                    if (e.origin.within, e.origin.split) == (first.within, first.split)
                ]
            if len(by_sum) > _MAX_LISTS or len(following) > 20 * _MAX_LISTS:
                raise TooLarge
        layer = following
        if not layer:
            break
    for chosen in by_sum.values():
        yield chosen
        for length in {n + 1 for n in longest if n >= len(chosen)}:
            yield [*chosen, *[chosen[0]] * (length - len(chosen))]
    yield from _roles(sides, elements)


def _sum(sides: Sides, chosen: _Elements) -> object:
    shared = frozenset.intersection(*(e.origin.atoms for e in chosen))
    explained = tuple(
        s.rule is not None
        and all(any(x in e.origin.atoms for x in s.rule.sources) for e in chosen)
        for s in sides
    )
    met = tuple(
        tuple(map(any, zip(*(v.meets + v.plainly for v in views), strict=True)))
        for views in zip(*(e.views for e in chosen), strict=True)
    )
    return shared, chosen[0].origin.within, chosen[0].origin.split, explained, met


def _roles(sides: Sides, elements: _Elements) -> Iterator[_Elements]:
    """Each role in full, which a *strict* subset never is."""
    for scopes in {s.rule.role_scopes for s in sides if s.rule and s.rule.role}:
        whole = [_element(sides, scope, many=True) for scope in sorted(scopes)]
        for origin in {e.origin for e in elements}:
            yield [_from(origin, each, sides) for each in whole]


# --- cells ------------------------------------------------------------------------------------
def _cell(
    name: str,
    sides: Sides,
    chosen: _Elements,
    *,
    many: bool,
) -> Cell:
    origin = chosen[0].origin
    old, new = (
        _decided(name, side, chosen, [e.views[i] for e in chosen], many=many)
        for i, side in enumerate(sides)
    )
    raw: Any = [e.raw for e in chosen] if many else chosen[0].raw
    point = {f"args.{name}": raw}
    rules = [s.rule for s in sides if s.rule]
    asked = any(when.origin for side in sides for _, when in side.whens)
    if asked or any(r.sources for r in rules):
        explained = [tuple(sorted(map(str, e.origin.atoms))) for e in chosen]
        point[f"origin.{name}"] = explained if many else explained[0]
    for bound in {r.at_most for r in rules if r.at_most}:
        point[f"bound.{name}.{bound}"] = bound in origin.within
    if origin.split:
        point[f"split.{name}"] = True
    return Cell(old, new, point, shown(raw))


def _decided(
    name: str,
    side: Side,
    chosen: _Elements,
    views: list[_View],
    *,
    many: bool,
) -> Ruling:
    """What one version decides about a value or list; `views`: what it says of each element."""
    failed = set[str]().union(*(view.fails for view in views))
    rule = side.rule
    origin = chosen[0].origin
    asked = Status.FREE
    if rule and "max_items" not in failed:
        if rule.max_items and len(chosen) > rule.max_items:
            failed.add("max_items")
        if (
            many
            and rule.role
            and frozenset(e.raw for e in chosen) == rule.role_scopes
            and len(chosen) >= len(rule.role_scopes)
        ):
            failed.add("narrower_than_role")
        if not bounded(rule, origin):
            failed.add(
                "any_call" if origin.split and rule.at_most in origin.within else "at_most"
            )
        asked = status(rule, [e.origin.atoms for e in chosen], split=origin.split)
    refused = free_if(not failed)
    if rule and asked:
        failed.add(
            "from"
            if status(rule, [e.origin.atoms for e in chosen], split=False)
            else "any_call"
        )
    why = frozenset(f"args.{name}.{key}" if key else f"args.{name}" for key in failed)
    met = [any(column) for column in zip(*(view.meets for view in views), strict=True)]
    for index, (_, when) in enumerate(side.whens):
        # its origin is left open, whichever element's it is
        if asks(asked) and "unknown" in (when.origin or ()):
            met[index] = any(view.plainly[index] for view in views)
    decided = max(refused, asked)
    return Ruling(decided, why, mask_of(side, met), ORIGIN if asks(decided) else 0)


def shown(raw: Any) -> str:
    """A value for a reviewer, cut at a readable length."""
    text = (
        ", ".join(map(str, raw))
        if isinstance(raw, list)
        else str(raw).lower()
        if isinstance(raw, bool)
        else str(raw)
    )
    printable = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:61])
    return printable if len(text) <= 60 else f"{printable[:40]}... ({len(text)} characters)"


# --- words ------------------------------------------------------------------------------------
def describe(rule: Rule | None, operator: str = "") -> str:
    """A rule, or one operator of it, as the file writes it; empty where it has none."""
    if not rule:
        return ""
    if operator in {"optional", "nullable"}:
        yes, no = (
            ("optional", "required") if operator == "optional" else ("also null", "no null")
        )
        return yes if getattr(rule, operator) else no
    words = {
        "type": rule.type,
        **{key_of(each, rule): each.words for each in rule.operators},
        "origin": _many(rule.origin),
        "at_most": rule.at_most,
        "max_items": rule.max_items,
        "narrower_than_role": rule.role or None,
        "from": _many(rule.sources or None),
        "any_call": rule.any_call or None,
        "optional": "optional" if rule.optional else None,
        "nullable": "also null" if rule.nullable else None,
        "entities": _many(rule.entities),
        "needs": _many(rule.needs or None),
    }
    if operator:
        value = words.get(operator)
        unknown = else_asked(rule) if operator == "from" else ""
        return "" if value is None else f"{value}{unknown}"
    return ", ".join(
        f"{v}" if k in {"optional", "nullable"} else f"{k}: {v}"
        for k, v in words.items()
        if v is not None
    )


def else_asked(rule: Rule) -> str:
    """Who is asked where an origin is unknown, as the end of a description."""
    return {"confirm": ", else the user", "step_up": ", else a person", "deny": ""}[
        rule.unknown_origin
    ]


def _many(values: tuple[Any, ...] | None) -> str | None:
    return None if values is None else ", ".join(map(str, values))
