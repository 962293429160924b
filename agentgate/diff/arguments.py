"""One argument of a tool: every class of its values, and what each version decides about them.

A class is a value (or none, or a list) together with its origin; applying a rule to one value
of the class gives the rule's answer for all of it. Absence is one more value. Lists have as
many elements as matter: one for what an element alone can do, several where conditions or
origins of different elements add up, one more than the shorter bound, and a role in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from agentgate.diff.finding import (
    ABSENT,
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
from agentgate.diff.origins import Explanations, bounded, has_origin, status, ways
from agentgate.diff.values import plain, representatives
from agentgate.values.canonical import parse
from agentgate.values.entities import Key, normal
from agentgate.values.value_class import value_class
from agentgate.workflow.operators import key_of
from agentgate.workflow.rule import Rule

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
class _Element:
    """One class of single values: the value, its origin, what fails in each version, and which
    conditions it meets (old, new).

    `plainly`: which it meets, its origin apart.
    """

    raw: Any
    origin: Explanations
    fails: tuple[Fails, Fails]
    meets: tuple[Meets, Meets]
    plainly: tuple[Meets, Meets]


def argument(name: str, old: Side, new: Side, budget: Budget | None = None) -> Field:
    """Every class of values of one argument. Raises Unreadable, TooLarge: it has no exact
    answer.
    """
    sides = (old, new)
    rules = [s.rule for s in sides if s.rule]
    cells: dict[object, Cell] = {}
    picky = any(r.needs for r in rules)
    for each in _cells(name, sides, rules, [w for s in sides for _, w in s.whens], budget):
        if not each.refused:
            # where it is sent, its own intents are needed too
            apart = picky and left_out(each, name)
            cells.setdefault((each.old, each.new, apart), each)
    names = dict.fromkeys(label for c in cells.values() for label in (*c.old.why, *c.new.why))
    said = {
        label: (
            describe(old.rule, operator := label.rpartition(".")[2]),
            describe(new.rule, operator),
        )
        for label in names
    }
    said[f"args.{name}"] = (describe(old.rule), describe(new.rule))
    return Field(f"args.{name}", tuple(cells.values()), said)


def _cells(
    name: str, sides: Sides, rules: list[Rule], whens: list[Rule], budget: Budget | None
) -> Iterator[Cell]:
    yield _unsent(name, sides, ABSENT, [s.rule is None or s.rule.optional for s in sides])
    yield _unsent(
        name,
        sides,
        NULL,
        [s.rule is not None and s.rule.nullable and s.rule.optional for s in sides],
    )
    raws = raws_of(rules, whens, budget)
    for many in sorted({r.max_items is not None for r in rules}):
        elements = _elements(sides, raws, ways([s.rule for s in sides], whens), many=many)
        for element in elements:
            yield _cell(name, sides, [element], many=many)
        if many:
            for chosen in _lists(sides, elements):
                yield _cell(name, sides, chosen, many=True)


def _unsent(name: str, sides: Sides, value: Unsent, allowed: list[bool]) -> Cell:
    """The argument left out, or sent as null."""
    key = "optional" if value is ABSENT else "nullable"
    label = f"args.{name}.{key}" if all(s.rule is not None for s in sides) else f"args.{name}"
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
) -> list[_Element]:
    """One element for each way in which values and origins are treated."""
    alike: dict[object, _Element] = {}
    for raw in raws:
        each = _element(sides, raw, many=many)
        alike.setdefault((each.fails, each.meets), each)
    return [_from(origin, each, sides) for each in alike.values() for origin in origins]


def _element(sides: Sides, raw: Any, *, many: bool) -> _Element:
    """One value, its origin apart."""
    keys = [_key(s.rule, raw) if s.rule else None for s in sides]
    old, new = (_fails(s.rule, k, many=many) for s, k in zip(sides, keys, strict=True))
    meets = [
        tuple(
            [
                k is not None and all(operator.holds(k) for operator in w.operators)
                for _, w in s.whens
            ]
        )
        for s, k in zip(sides, keys, strict=True)
    ]
    return _Element(
        raw,
        Explanations(frozenset(), frozenset()),
        (old, new),
        (meets[0], meets[1]),
        (meets[0], meets[1]),
    )


def _from(origin: Explanations, element: _Element, sides: Sides) -> _Element:
    """An element with an origin, which the conditions on origins look at."""

    def there(side: Side, when: Rule) -> bool:
        return when.origin is None or (
            side.rule is not None and has_origin(when, side.rule, origin.atoms)
        )

    old, new = (
        tuple([m and there(s, w) for m, (_, w) in zip(met, s.whens, strict=True)])
        for s, met in zip(sides, element.meets, strict=True)
    )
    return _Element(element.raw, origin, element.fails, (old, new), element.plainly)


def _key(rule: Rule, raw: Any) -> Key | None:
    """The comparison key of a value. Free text is its own: a representative may say a little
    more than the normal form.
    """
    if rule.type == "text":
        return raw if type(raw) is str else None
    return normal(rule.type, raw)


def _fails(rule: Rule | None, key: Key | None, *, many: bool) -> Fails:
    """Names of the operators that one value (or one element) does not meet."""
    if not rule:
        return frozenset({""})
    if many != (rule.max_items is not None):
        return frozenset({"max_items"})
    if key is None:
        return frozenset({"type"})
    failed = {key_of(operator, rule) for operator in rule.operators if not operator.holds(key)}
    if rule.role and not (key in rule.role_scopes if many else {key} < rule.role_scopes):
        failed.add("narrower_than_role")
    return frozenset(failed)


# --- lists ------------------------------------------------------------------------------------
def _lists(sides: Sides, elements: list[_Element]) -> Iterator[list[_Element]]:
    """Lists in which elements that both versions accept add up, in length, conditions or
    origins; and whole roles.
    """
    longest = [s.rule.max_items or 0 for s in sides if s.rule]
    fine = [e for e in elements if not any(e.fails)]
    by_sum: dict[object, list[_Element]] = {}
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


def _sum(sides: Sides, chosen: list[_Element]) -> object:
    shared = frozenset.intersection(*(e.origin.atoms for e in chosen))
    explained = tuple(
        s.rule is not None
        and all(any(x in e.origin.atoms for x in s.rule.sources) for e in chosen)
        for s in sides
    )
    met = tuple(
        tuple(map(any, zip(*(e.meets[i] + e.plainly[i] for e in chosen), strict=True)))
        for i in range(2)
    )
    return shared, chosen[0].origin.within, chosen[0].origin.split, explained, met


def _roles(sides: Sides, elements: list[_Element]) -> Iterator[list[_Element]]:
    """Each role in full, which a *strict* subset never is."""
    for scopes in {s.rule.role_scopes for s in sides if s.rule and s.rule.role}:
        whole = [_element(sides, scope, many=True) for scope in sorted(scopes)]
        for origin in {e.origin for e in elements}:
            yield [_from(origin, each, sides) for each in whole]


# --- cells ------------------------------------------------------------------------------------
def _cell(name: str, sides: Sides, chosen: list[_Element], *, many: bool) -> Cell:
    origin = chosen[0].origin
    old, new = (
        _decided(
            name,
            side,
            chosen,
            [(e.fails[i], e.meets[i], e.plainly[i]) for e in chosen],
            many=many,
        )
        for i, side in enumerate(sides)
    )
    raw: Any = [e.raw for e in chosen] if many else chosen[0].raw
    point = {f"args.{name}": raw}
    rules = [s.rule for s in sides if s.rule]
    if any(r.sources for r in rules) or any(w.origin for s in sides for _, w in s.whens):
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
    chosen: list[_Element],
    judged: list[tuple[Fails, Meets, Meets]],
    *,
    many: bool,
) -> Ruling:
    """What one version decides about a value or list; `judged`: what fails of each element, and
    which conditions it meets (plainly).
    """
    failed = set[str]().union(*(fails for fails, _, _ in judged))
    rule = side.rule
    origin = chosen[0].origin
    asked = Status.FREE
    if rule and "max_items" not in failed:
        if rule.max_items is not None and len(chosen) > rule.max_items:
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
    met = [any(column) for column in zip(*(meets for _, meets, _ in judged), strict=True)]
    for index, (_, when) in enumerate(side.whens):
        # its origin is left open, whichever element's it is
        if asks(asked) and "unknown" in (when.origin or ()):
            met[index] = any(plainly[index] for _, _, plainly in judged)
    return Ruling(
        max(refused, asked), why, mask_of(side, met), ORIGIN if asks(max(refused, asked)) else 0
    )


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
