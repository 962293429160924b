"""Box difference: is there a combination of classes, one of each field, for which the new
version needs less than the old?

Three questions, in this order, so that each answer belongs to one field. A: a field that
refused and no longer does, while all others can be met. B: a field for which somebody had to be
asked and no longer is, or somebody less strict. C: fields that agree, under step-up rules that
differ. B and C walk over the fields and keep only what the step-up rules can still distinguish.

A workflow that loads has, for all that a call can leave open, a rule that asks then and is
strict enough (`agentgate.workflow.left_open`): no combination of fields is refused there
because nobody could answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from agentgate.diff.arguments import describe
from agentgate.diff.finding import (
    LEFT_OPEN,
    REMOVED,
    Cell,
    Field,
    Finding,
    Ruling,
    Status,
    asks,
)
from agentgate.diff.language import TooLarge
from agentgate.diff.table import by_id
from agentgate.values.value_class import value_class
from agentgate.workflow.model import StepUpRule

Findings = Iterator[Finding]

Rules = tuple[StepUpRule, ...]
_MAX_STATES = 20_000


@value_class
class Asking:
    """The step-up rules of one tool in both versions."""

    old: Rules
    new: Rules


_Effect = Mapping[str, Any]  # of a finding: `effect`, `back` and `asks`
# Of one version: who must be asked at least, which rules can still fire, and what is left open.
# Where every rule asks, no more is kept.
_Side = tuple[Status, int, int]
# what the step-up rules can still distinguish, in the old and the new version
_State = tuple[_Side, _Side]
_ANY: _Side = (Status.FREE, -1, 0)


class _Path(NamedTuple):
    cell: Cell
    before: _Path | None


class World:
    """One tool's fields, for one way in which a prompt may ask: what is gained, and whether any
    call is `callable` at all.

    Of the fields that all tools share, `gained` looks only at whether they can be met. A
    version without step-up rules has no one to ask: there, asking is refusing.
    """

    def __init__(
        self, tool: str, shared: Sequence[Field], own: Sequence[Field], asking: Asking
    ) -> None:
        self._tool = tool
        self._shared = shared
        self._asking = asking
        self._own = [_usable(f, asking) for f in own]
        self._fields = [*shared, *self._own]
        self.callable = all(
            any(c.new.status != Status.REFUSE for c in f.cells) for f in self._fields
        )

    def gained(self) -> Findings:
        """Everything that needs less under the new version, one finding for each rule that
        causes it.
        """
        if self.callable:
            for field in self._own:
                yield from self._allowed(field)
            yield from self._fewer()

    def refused_before(self) -> Findings:
        """What fields of all tools no longer refuse, shown by this tool."""
        for field in self._shared:
            for found in self._allowed(field):
                yield replace(found, tool="", rest={**found.rest, "call": self._tool})

    def added(self) -> Finding:
        """The finding that the old version did not have the tool."""
        cells = [_best(f) for f in self._fields]
        point = {"call": self._tool}
        return Finding(
            self._tool,
            "tool",
            "",
            self._tool,
            point=point,
            rest=_merged(cells),
            **_now_allowed(cells, self._asking),
        )

    # --- A ------------------------------------------------------------------------------------
    def _allowed(self, field: Field) -> Findings:
        cells = [c for c in field.cells if c.old.status == Status.REFUSE and not c.refused]
        told: set[str] = set()
        cells.sort(key=lambda c: (len(c.old.why), c.new.status))
        for cell in cells:
            if told & cell.old.why:
                continue
            told |= cell.old.why
            rest = [_best(f) for f in self._fields if f is not field]
            yield self._owed(field, cell, _now_allowed([cell, *rest], self._asking), rest)

    def _owed(
        self, field: Field, cell: Cell, effect: _Effect, others: Sequence[Cell]
    ) -> Finding:
        """A finding about the rule by which the old version refused or asked about this
        class.
        """
        label = min(cell.old.why, default=field.name)
        old, new = field.said.get(label, ("", ""))
        return Finding(
            self._tool,
            label,
            old,
            new,
            example=cell.shown,
            point=cell.point,
            rest=_merged(others),
            **effect,
        )

    # --- B and C ------------------------------------------------------------------------------
    def _fewer(self) -> Findings:
        asking = self._asking
        if not asking.old:
            return
        fields = [
            _only(f, lambda c: Status.REFUSE not in {c.old.status, c.new.status})
            for f in self._fields
        ]
        for field in fields:
            for cell in filter(_freed, field.cells):
                start = _after(_ANY, cell.old, asking.old), _after(_ANY, cell.new, asking.new)
                others = [f for f in fields if f is not field]
                less = next(_less(others, start, asking), None)
                if less:
                    state, cells, _ = less
                    yield self._owed(field, cell, _weaker(state, asking), cells)
                    break
        agreeing = [_only(f, lambda c: not _freed(c)) for f in fields]
        told = set()
        for state, cells, lost in _less(agreeing, (_ANY, _ANY), asking):
            label, old, new = lost_rule(lost, asking.new)
            if label not in told:
                told.add(label)
                pairs = zip(agreeing, cells, strict=True)
                moved = [
                    c
                    for f, c in pairs
                    if c.old.status
                    or c.new.status
                    or any((o.old.fires, o.new.fires) != (-1, -1) for o in f.cells)
                ]
                example = ", ".join(c.shown for c in moved[:2])
                point = _merged(moved)
                rest = _merged(cells)
                yield Finding(
                    self._tool,
                    label,
                    old,
                    new,
                    example=example,
                    point=point,
                    rest=rest,
                    **_weaker(state, asking),
                )


def _freed(cell: Cell) -> bool:
    """Whether the old version asks about a class, and the new one does not, or only the
    user.
    """
    return cell.new.status < cell.old.status < Status.REFUSE


def _only(field: Field, kept: Callable[[Cell], bool]) -> Field:
    return replace(field, cells=tuple(filter(kept, field.cells)))


def _usable(field: Field, asking: Asking) -> Field:
    """The field with asking as refusing in a version without step-up rules that could
    answer.
    """

    def usable(ruling: Ruling, rules: Rules) -> Ruling:
        able = any(not (rule.user and ruling.status == Status.ASK) for rule in rules)
        if able or not asks(ruling.status):
            return ruling
        return replace(ruling, status=Status.REFUSE, left_open=0)

    if all(any(not rule.user for rule in rules) for rules in (asking.old, asking.new)):
        return field
    cells = [
        replace(c, old=usable(c.old, asking.old), new=usable(c.new, asking.new))
        for c in field.cells
    ]
    return replace(field, cells=tuple(cells))


def _best(field: Field) -> Cell:
    allowed = (c for c in field.cells if c.new.status != Status.REFUSE)
    return min(allowed, key=lambda c: (c.new.status, c.old.status, -c.new.fires.bit_count()))


def _merged(cells: Sequence[Cell]) -> _Effect:
    return {k: v for cell in cells for k, v in cell.point.items()}


def _now_allowed(cells: Sequence[Cell], asking: Asking) -> _Effect:
    """The effect of a call of these classes being allowed, with the releases that it needs."""
    side = _ANY
    for cell in cells:
        side = _after(side, cell.new, asking.new)
    return _effect("refused", _people(_fired(asking.new, side)))


def _effect(was: str, people: str) -> _Effect:
    now = f"allowed after {people}" if people else "allowed"
    return {
        "effect": f"was {was}, would be {now}",
        "back": f"would be {was}, is {now}",
        "asks": bool(people),
    }


def _people(rules: Sequence[StepUpRule]) -> str:
    """How many releases, and by whom; empty for none."""
    if not rules:
        return ""
    count = max(r.count for r in rules)
    return (
        f"{count} release{'s' if count > 1 else ''} by "
        f"{' and '.join(dict.fromkeys(r.people for r in rules))}"
    )


def _after(
    side: _Side,
    ruling: Ruling,
    rules: Rules,
) -> _Side:
    status = max(side[0], ruling.status)
    if status == Status.ASK and not any(rule.left_open for rule in rules):
        return status, 0, 0
    return status, side[1] & ruling.fires, side[2] | ruling.left_open


def _fired(rules: Rules, side: _Side) -> Rules:
    status, mask, left_open = side
    if status == Status.ASK and not any(rule.left_open for rule in rules):
        return rules
    return tuple(
        r
        for i, r in enumerate(rules)
        if mask >> i & 1 and all(LEFT_OPEN[kind] & left_open for kind in r.left_open)
    )


def _needed(rules: Rules, side: _Side) -> Rules | None:
    """The rules that must be released; None: what is left open nobody is asked who could
    answer, and the call is refused.
    """
    fired = _fired(rules, side)
    answered = not side[0] or any(not (rule.user and side[0] == Status.ASK) for rule in fired)
    return fired if answered else None


def _less(
    fields: Sequence[Field], start: _State, asking: Asking
) -> Iterator[tuple[_State, list[Cell], StepUpRule]]:
    """Every reachable state in which the old version asks more, with the cells that lead there
    and a rule that is missing.
    """
    states: dict[_State, _Path | None] = {start: None}
    for field in fields:
        following: dict[_State, _Path | None] = {}
        for state, path in states.items():
            for cell in field.cells:
                after = (
                    _after(state[0], cell.old, asking.old),
                    _after(state[1], cell.new, asking.new),
                )
                following.setdefault(after, _Path(cell, path))
        if len(following) > _MAX_STATES:
            raise TooLarge
        states = following
    for state, path in states.items():
        needed = _needed(asking.old, state[0])
        kept = _needed(asking.new, state[1])
        lost = (
            None if kept is None else asking.old[0] if needed is None else missing(needed, kept)
        )
        if lost:
            yield state, _cells(path), lost


def _cells(path: _Path | None) -> list[Cell]:
    cells = []
    while path is not None:
        cells.append(path.cell)
        path = path.before
    return cells[::-1]


def missing(old: Sequence[StepUpRule], new: Sequence[StepUpRule]) -> StepUpRule | None:
    """A rule of the old version for which the new one has none as strict, each used once.

    As strict: of the same group, by as many people (any group is stricter than the user); and
    the same rule (what else changed in it is told apart), or one that keeps out whom it keeps
    out, is good for no longer and shows as much.
    """
    taken: dict[int, StepUpRule] = {}

    def seat(rule: StepUpRule, tried: set[int]) -> bool:
        for at, other in enumerate(new):
            if at not in tried and _stands_for(other, rule):
                tried.add(at)
                if at not in taken or seat(taken[at], tried):
                    taken[at] = rule
                    return True
        return False

    kept = {rule.id for rule in new}
    left = [
        rule
        for rule in sorted(old, key=lambda r: (r.id not in kept, -r.count))
        if not seat(rule, set())
    ]
    return left[-1] if left else None


def _stands_for(new: StepUpRule, old: StepUpRule) -> bool:
    if not (old.user or (new.group == old.group and new.count >= old.count)):
        return False
    shown = not new.show or (bool(old.show) and set(old.show) <= set(new.show))
    return new.id == old.id or (
        set(old.exclude) <= set(new.exclude) and new.timeout <= old.timeout and shown
    )


def _weaker(state: _State, asking: Asking) -> _Effect:
    before = _needed(asking.old, state[0])
    was = "refused" if before is None else f"allowed after {_people(before)}"
    return _effect(was, _people(_fired(asking.new, state[1])))


def lost_rule(rule: StepUpRule, new: Sequence[StepUpRule]) -> tuple[str, str, str]:
    """Where a step-up rule became weaker: field, old and new text."""
    name = f"step_up.{rule.id}"
    other = by_id(new).get(rule.id)
    if not other:
        return name, f"{rule.whom} when {when_text(rule)}", REMOVED
    if rule.whom != other.whom:
        return f"{name}.approvers", rule.whom, other.whom
    was = when_text(rule)
    now = when_text(other)
    return f"{name}.when", "whenever a group is asked" if was == now else was, now


def when_text(rule: StepUpRule) -> str:
    """When a person must look."""
    left_open = [
        {"intent": "intent: unclear", "origin": "origin: unknown"}[kind]
        for kind in rule.left_open
    ]
    whens = [f"{w.name}: {describe(w).partition(', ')[2] or describe(w)}" for w in rule.when]
    return "; ".join([*left_open, *whens]) or "every call"
