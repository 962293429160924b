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
from itertools import chain, compress, product
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
    Texts,
    Unsent,
    asks,
    free_if,
    ruling_by_label,
)
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.values import plain_text, representatives
from agentgate.values.canonical import parse
from agentgate.values.entities import Key, normal
from agentgate.values.value_class import Names, value_class
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

    @property
    def bounding(self) -> tuple[frozenset[Source], bool]:
        """What all elements of a list share."""
        return self.within, self.split

    @property
    def names(self) -> Names:
        """The atoms, for a point."""
        return tuple(sorted(map(str, self.atoms)))


def ways_to_explain(
    rules: Sequence[Rule],
    conditions: Sequence[Rule],
) -> list[Explanations]:
    """Every way in which a value can be explained that the rules of both versions and the
    step-up conditions distinguish.

    Raises TooLarge: too many different sources.
    """
    bounds = sorted({rule.at_most for rule in rules if rule.at_most}, key=str)
    lists = [rule.sources for rule in rules]
    for condition in conditions:
        origins = [origin for origin in condition.origin or () if isinstance(origin, Source)]
        lists.append(tuple(origins))
    groups: dict[object, Source] = {}
    for source in dict.fromkeys(chain(*lists)):
        if source != MODEL:
            named = "" if source.tool else str(source)
            is_bound = tuple(source == bound for bound in bounds)
            listed = tuple(source in sources for sources in lists)
            groups.setdefault((named, _fact_of(source), is_bound, listed), source)
    atoms = list(groups.values())
    if len(atoms) + len(bounds) > _MAX_ATOMS:
        raise TooLarge
    alike = len({rule.any_call for rule in rules}) < 2
    splits = (False,) if alike else (False, True)
    return list(_every_explanation(atoms, bounds, splits))


def _every_explanation(
    atoms: list[Source],
    bounds: list[Source],
    splits: tuple[bool, ...],
) -> Iterator[Explanations]:
    for split in splits:
        for held in product((False, True), repeat=len(atoms)):
            chosen = frozenset(compress(atoms, held))
            lacking = {*atoms} - chosen
            for held_bounds in product((True, False), repeat=len(bounds)):
                within = frozenset(compress(bounds, held_bounds))
                unbounded = chosen.intersection(bounds) - within
                if not unbounded and lacking.isdisjoint(map(_fact_of, chosen)):
                    yield Explanations(chosen, within, split)


def _fact_of(source: Source) -> Source | None:
    """The fact that a selected source equals, in one row of many."""
    if not source.selector:
        return None
    return Source("fact", source.tool, source.field)


def status_by_origin(
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
    if rule.any_call and all(map(frozenset(rule.sources).intersection, elements)):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]


def meets_bound(rule: Rule, explanation: Explanations) -> bool:
    """Whether `at_most` holds."""
    return rule.at_most is None or (
        rule.at_most in explanation.within and (rule.any_call or not explanation.split)
    )


def has_origin(
    condition: Rule,
    rule: Rule,
    atoms: Atoms,
) -> bool:
    """Whether a step-up condition's `origin` holds of one element."""
    unexplained = atoms.isdisjoint(rule.sources)
    return any(
        unexplained if origin in ("unknown", MODEL) else origin in atoms
        for origin in condition.origin or ()
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
    conditions: tuple[tuple[int, Rule], ...] = ()


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

    value: Any
    explanation: Explanations
    views: tuple[_View, ...]


_Elements = list[_Element]


def field_of_argument(
    name: str,
    old: Side,
    new: Side,
    budget: Budget | None = None,
) -> Field:
    """Every class of values of one argument. Raises Unreadable, TooLarge: it has no exact
    answer.
    """
    sides = (old, new)
    cells: dict[object, Cell] = {}
    picky = any(rule.needs for rule in _rules(sides))
    for cell in _cells_of_argument(name, sides, budget):
        if not cell.refused:
            # where it is sent, its own intents are needed too
            apart = picky and is_left_out(cell, name)
            cells.setdefault((cell.old, cell.new, apart), cell)
    said: dict[str, Texts] = {}
    for cell in cells.values():
        for label in (*cell.old.why, *cell.new.why):
            operator = label.rpartition(".")[2]
            before = describe_rule(old.rule, operator)
            after = describe_rule(new.rule, operator)
            said[label] = (before, after)
    said[f"args.{name}"] = (describe_rule(old.rule), describe_rule(new.rule))
    return Field(f"args.{name}", tuple(cells.values()), said)


def _rules(sides: Sides) -> list[Rule]:
    """The rules of the versions that know the argument."""
    return [side.rule for side in sides if side.rule]


def _conditions(sides: Sides) -> list[Rule]:
    """The step-up conditions on the argument, of both versions."""
    return [condition for side in sides for _, condition in side.conditions]


def _cells_of_argument(
    name: str,
    sides: Sides,
    budget: Budget | None,
) -> Iterator[Cell]:
    absent = [not side.rule or side.rule.optional for side in sides]
    yield _cell_unsent(name, sides, ABSENT, absent)
    null = [bool(side.rule and side.rule.nullable and side.rule.optional) for side in sides]
    yield _cell_unsent(name, sides, NULL, null)
    rules = _rules(sides)
    conditions = _conditions(sides)
    values = raws_of(rules, conditions, budget)
    explanations = ways_to_explain(rules, conditions)
    for in_list in sorted({bool(rule.max_items) for rule in rules}):
        elements = _elements_of_values(sides, values, explanations, in_list=in_list)
        for element in elements:
            yield _cell_of_elements(name, sides, [element], in_list=in_list)
        if in_list:
            for chosen in _lists_that_add_up(sides, elements):
                yield _cell_of_elements(name, sides, chosen, in_list=True)


def _cell_unsent(
    name: str,
    sides: Sides,
    value: Unsent,
    allowed: list[bool],
) -> Cell:
    """The argument left out, or sent as null."""
    label = f"args.{name}"
    if all(side.rule for side in sides):
        label += ".optional" if value is ABSENT else ".nullable"
    old, new = (
        ruling_by_label(label, free_if(held), mask_of(side, [False for _ in side.conditions]))
        for side, held in zip(sides, allowed, strict=True)
    )
    return Cell(old, new, {f"args.{name}": value}, str(value))


def is_left_out(of: Cell, name: str) -> bool:
    """Whether a cell is of an argument that is not sent, or sent as null."""
    return isinstance(of.point.get(f"args.{name}"), Unsent)


def mask_of(side: Side, meets: Sequence[bool]) -> int:
    """One bit for each step-up rule: 0 where a condition on this argument is not met."""
    mask = -1
    for (index, _), met in zip(side.conditions, meets, strict=True):
        if not met:
            mask &= ~(1 << index)
    return mask


# --- one value --------------------------------------------------------------------------------
def raws_of(
    rules: list[Rule],
    conditions: Sequence[Rule] = (),
    budget: Budget | None = None,
) -> list[Any]:
    """Values as a call holds them; with two types, those that stand for each."""
    values: dict[tuple[type, str], Any] = {}
    for kind in dict.fromkeys(rule.type for rule in rules):
        for key in representatives(kind, rules, conditions, budget):
            value = raw_of(kind, key)
            values[type(value), str(value)] = value
    return list(values.values())


def raw_of(kind: str, key: Key) -> Any:
    """A value whose comparison key this is."""
    if isinstance(key, Decimal):
        return int(key) if kind == "integer" else plain_text(key)
    if isinstance(key, str) and kind == "json":
        return parse(key.encode())
    return key


def _elements_of_values(
    sides: Sides,
    values: list[Any],
    explanations: list[Explanations],
    *,
    in_list: bool,
) -> _Elements:
    """One element for each way in which values and origins are treated."""
    alike: dict[object, _Element] = {}
    for value in values:
        each = _element_of_value(sides, value, in_list=in_list)
        alike.setdefault(each.views, each)
    return [
        _element_from(explanation, element, sides)
        for element in alike.values()
        for explanation in explanations
    ]


def _element_of_value(
    sides: Sides,
    value: Any,
    *,
    in_list: bool,
) -> _Element:
    """One value, its origin apart."""
    views = []
    for side in sides:
        key = _key_of_value(side.rule, value) if side.rule else None
        fails = _failed_operators(side.rule, key, in_list=in_list)
        meets = tuple(_meets_condition(condition, key) for _, condition in side.conditions)
        views.append(_View(fails, meets, meets))
    return _Element(value, Explanations(frozenset(), frozenset()), tuple(views))


def _meets_condition(condition: Rule, key: Key | None) -> bool:
    """Whether a value meets a condition, its origin apart."""
    return key is not None and all(operator.holds(key) for operator in condition.operators)


def _element_from(
    explanation: Explanations,
    element: _Element,
    sides: Sides,
) -> _Element:
    """An element with an origin, which the conditions on origins look at."""
    views = []
    for side, view in zip(sides, element.views, strict=True):
        meets = list(view.plainly)
        for index, (_, condition) in enumerate(side.conditions):
            if condition.origin is not None:
                known = side.rule is not None and has_origin(
                    condition, side.rule, explanation.atoms
                )
                meets[index] = meets[index] and known
        views.append(_View(view.fails, tuple(meets), view.plainly))
    return _Element(element.value, explanation, tuple(views))


def _key_of_value(rule: Rule, value: Any) -> Key | None:
    """The comparison key of a value. Free text is its own: a representative may say a little
    more than the normal form.
    """
    if rule.type == "text":
        return value if type(value) is str else None
    return normal(rule.type, value)


def _failed_operators(
    rule: Rule | None,
    key: Key | None,
    *,
    in_list: bool,
) -> Fails:
    """Names of the operators that one value (or one element) does not meet."""
    if not rule:
        return frozenset({""})
    if in_list != bool(rule.max_items):
        return frozenset({"max_items"})
    if key is None:
        return frozenset({"type"})
    failed = {key_of(operator, rule) for operator in rule.operators if not operator.holds(key)}
    narrower = key in rule.role_scopes if in_list else {key} < rule.role_scopes
    if rule.role and not narrower:
        failed.add("narrower_than_role")
    return frozenset(failed)


# --- lists ------------------------------------------------------------------------------------
def _lists_that_add_up(
    sides: Sides,
    elements: _Elements,
) -> Iterator[_Elements]:
    """Lists in which elements that both versions accept add up, in length, conditions or
    origins; and whole roles.
    """
    longest = [rule.max_items or 0 for rule in _rules(sides)]
    fine = [element for element in elements if not any(view.fails for view in element.views)]
    by_sum: dict[object, _Elements] = {}
    layer = [[element] for element in fine]
    for _ in range(max(longest)):
        following = []
        for chosen in layer:
            if by_sum.setdefault(_sum_of_elements(sides, chosen), chosen) is chosen:
                following += [
                    [*chosen, element]
                    for element in fine
                    if element.explanation.bounding == chosen[0].explanation.bounding
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
    yield from _lists_of_roles(sides, elements)


def _sum_of_elements(sides: Sides, chosen: _Elements) -> object:
    atoms = [element.explanation.atoms for element in chosen]
    shared = frozenset.intersection(*atoms)
    explained = []
    met = []
    for index, side in enumerate(sides):
        sources = frozenset(side.rule.sources if side.rule else ())
        explained.append(all(map(sources.intersection, atoms)))
        views = [element.views[index] for element in chosen]
        met.append(_any_meets([view.meets + view.plainly for view in views]))
    return shared, chosen[0].explanation.bounding, tuple(explained), tuple(met)


def _any_meets(meets: list[Meets]) -> Meets:
    """Which conditions some element meets, of what each element meets."""
    return tuple(map(any, zip(*meets, strict=True)))


def _lists_of_roles(
    sides: Sides,
    elements: _Elements,
) -> Iterator[_Elements]:
    """Each role in full, which a *strict* subset never is."""
    explanations = {element.explanation for element in elements}
    for scopes in {rule.role_scopes for rule in _rules(sides) if rule.role}:
        whole = [_element_of_value(sides, scope, in_list=True) for scope in sorted(scopes)]
        for explanation in explanations:
            yield [_element_from(explanation, each, sides) for each in whole]


# --- cells ------------------------------------------------------------------------------------
def _cell_of_elements(
    name: str,
    sides: Sides,
    chosen: _Elements,
    *,
    in_list: bool,
) -> Cell:
    explanation = chosen[0].explanation
    old, new = (
        _ruling_on_elements(
            name, side, chosen, [element.views[index] for element in chosen], in_list=in_list
        )
        for index, side in enumerate(sides)
    )
    value: Any = [element.value for element in chosen] if in_list else chosen[0].value
    point = {f"args.{name}": value}
    rules = _rules(sides)
    asked = any(condition.origin for condition in _conditions(sides))
    if asked or any(rule.sources for rule in rules):
        explained = [element.explanation.names for element in chosen]
        point[f"origin.{name}"] = explained if in_list else explained[0]
    for bound in {rule.at_most for rule in rules if rule.at_most}:
        point[f"bound.{name}.{bound}"] = bound in explanation.within
    if explanation.split:
        point[f"split.{name}"] = True
    return Cell(old, new, point, shown_value(value))


def _ruling_on_elements(
    name: str,
    side: Side,
    chosen: _Elements,
    views: list[_View],
    *,
    in_list: bool,
) -> Ruling:
    """What one version decides about a value or list; `views`: what it says of each element."""
    failed = set[str]().union(*(view.fails for view in views))
    rule = side.rule
    explanation = chosen[0].explanation
    asked = Status.FREE
    atoms = [element.explanation.atoms for element in chosen]
    if rule and "max_items" not in failed:
        if rule.max_items and len(chosen) > rule.max_items:
            failed.add("max_items")
        if in_list and rule.role and {element.value for element in chosen} == rule.role_scopes:
            failed.add("narrower_than_role")
        if not meets_bound(rule, explanation):
            by_split = explanation.split and rule.at_most in explanation.within
            failed.add("any_call" if by_split else "at_most")
        asked = status_by_origin(rule, atoms, split=explanation.split)
    refused = free_if(not failed)
    if rule and asked:
        unexplained = status_by_origin(rule, atoms, split=False)
        failed.add("from" if unexplained else "any_call")
    paths = [f"args.{name}.{key}".rstrip(".") for key in failed]
    met = list(_any_meets([view.meets for view in views]))
    for index, (_, condition) in enumerate(side.conditions):
        # its origin is left open, whichever element's it is
        if asks(asked) and "unknown" in (condition.origin or ()):
            met[index] = any(view.plainly[index] for view in views)
    decided = max(refused, asked)
    fires = mask_of(side, met)
    left_open = ORIGIN if asks(decided) else 0
    return Ruling(decided, frozenset(paths), fires, left_open)


def shown_value(value: Any) -> str:
    """A value for a reviewer, cut at a readable length."""
    text = str(value)
    if isinstance(value, list):
        text = ", ".join(map(str, value))
    elif isinstance(value, bool):
        text = text.lower()
    printable = "".join(
        letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text[:61]
    )
    return printable if len(text) <= 60 else f"{printable[:40]}... ({len(text)} characters)"


# --- words ------------------------------------------------------------------------------------
def describe_rule(rule: Rule | None, operator: str = "") -> str:
    """A rule, or one operator of it, as the file writes it; empty where it has none."""
    if not rule:
        return ""
    if operator == "optional":
        return "optional" if rule.optional else "required"
    if operator == "nullable":
        return "also null" if rule.nullable else "no null"
    words = {
        "type": rule.type,
        **{key_of(each, rule): each.words for each in rule.operators},
        "origin": _joined_texts(rule.origin),
        "at_most": rule.at_most,
        "max_items": rule.max_items,
        "narrower_than_role": rule.role or None,
        "from": _joined_texts(rule.sources or None),
        "any_call": rule.any_call or None,
        "optional": "optional" if rule.optional else None,
        "nullable": "also null" if rule.nullable else None,
        "entities": _joined_texts(rule.entities),
        "needs": _joined_texts(rule.needs or None),
    }
    if operator:
        value = words.get(operator)
        unknown = whom_else_it_asks(rule) if operator == "from" else ""
        return "" if value is None else f"{value}{unknown}"
    said = []
    for key, value in words.items():
        if value is not None:
            plainly = key in {"optional", "nullable"}
            said.append(f"{value}" if plainly else f"{key}: {value}")
    return ", ".join(said)


def whom_else_it_asks(rule: Rule) -> str:
    """Who is asked where an origin is unknown, as the end of a description."""
    return {"confirm": ", else the user", "step_up": ", else a person", "deny": ""}[
        rule.unknown_origin
    ]


def _joined_texts(values: tuple[Any, ...] | None) -> str | None:
    return None if values is None else ", ".join(map(str, values))
