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
from typing import Any

from agentgate.diff.arguments import describe_rule
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
from agentgate.diff.table import rules_by_id
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
_Rule = tuple[str, str, str]  # its name, its text in the old and the new version
# Of one version: who must be asked at least, which rules can still fire, and what is left open.
# Where every rule asks, no more is kept.
_Side = tuple[Status, int, int]
# what the step-up rules can still distinguish, in the old and the new version
_State = tuple[_Side, _Side]
_ANY: _Side = (Status.FREE, -1, 0)
_START: _State = (_ANY, _ANY)
_OPEN = {"intent": "intent: unclear", "origin": "origin: unknown"}


class World:
    """One tool's fields, for one way in which a prompt may ask: what is gained, and whether any
    call is `callable` at all.

    Of the fields that all tools share, `gained` looks only at whether they can be met. A
    version without step-up rules has no one to ask: there, asking is refusing.
    """

    def __init__(
        self,
        tool: str,
        shared: Sequence[Field],
        own: Sequence[Field],
        asking: Asking,
    ) -> None:
        self._tool = tool
        self._shared = shared
        self._asking = asking
        self._own = [_with_refusals(field, asking) for field in own]
        self._fields = [*shared, *self._own]
        self.callable = all(map(_allowed_cells, self._fields))

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
        cells = [_best_cell(field) for field in self._fields]
        return Finding(
            self._tool,
            "tool",
            "",
            self._tool,
            point={"call": self._tool},
            rest=_merged_points(cells),
            **_now_allowed(cells, self._asking),
        )

    # --- A ------------------------------------------------------------------------------------
    def _allowed(self, field: Field) -> Findings:
        cells = [cell for cell in _allowed_cells(field) if cell.old.status == Status.REFUSE]
        cells.sort(key=lambda cell: (len(cell.old.why), cell.new.status))
        told = set[str]()
        for cell in cells:
            if told.isdisjoint(cell.old.why):
                told |= cell.old.why
                rest = [_best_cell(other) for other in self._fields if other is not field]
                effect = _now_allowed([cell, *rest], self._asking)
                yield self._finding(_rule_of(field, cell), [cell], rest, effect)

    def _finding(
        self,
        rule: _Rule,
        moved: Sequence[Cell],
        others: Sequence[Cell],
        effect: _Effect,
    ) -> Finding:
        """A finding about one rule, shown by classes of values: those that moved, and others
        that allow the call.
        """
        return Finding(
            self._tool,
            *rule,
            example=", ".join(cell.shown for cell in moved[:2]),
            point=_merged_points(moved),
            rest=_merged_points(others),
            **effect,
        )

    # --- B and C ------------------------------------------------------------------------------
    def _fewer(self) -> Findings:
        asking = self._asking
        if not asking.old:
            return
        fields = [_with_cells(field, _never_refused) for field in self._fields]
        for field in fields:
            for cell in filter(_asks_less, field.cells):
                start = _next_state(_START, cell, asking)
                others = [other for other in fields if other is not field]
                less = next(_states_that_ask_less(others, start, asking), None)
                if less:
                    state, cells, _ = less
                    effect = _effect_of_weaker_rules(state, asking)
                    yield self._finding(_rule_of(field, cell), [cell], cells, effect)
                    break
        agreeing = [_with_cells(field, lambda cell: not _asks_less(cell)) for field in fields]
        told = set()
        for state, cells, lost in _states_that_ask_less(agreeing, _START, asking):
            rule = lost_rule(lost, asking.new)
            if rule[0] not in told:
                told.add(rule[0])
                pairs = zip(agreeing, cells, strict=True)
                moved = [cell for field, cell in pairs if _matters(field, cell)]
                effect = _effect_of_weaker_rules(state, asking)
                yield self._finding(rule, moved, cells, effect)


def _rule_of(field: Field, cell: Cell) -> _Rule:
    """The rule by which the old version refused or asked about a class."""
    label = min(cell.old.why, default=field.name)
    return label, *field.said.get(label, ("", ""))


def _allowed_cells(field: Field) -> list[Cell]:
    """The classes that the new version does not refuse."""
    return [cell for cell in field.cells if cell.new.status != Status.REFUSE]


def _never_refused(cell: Cell) -> bool:
    return Status.REFUSE not in {cell.old.status, cell.new.status}


def _matters(field: Field, cell: Cell) -> bool:
    """Whether a class of values asks, or its field keeps some step-up rule from firing."""
    if cell.old.status or cell.new.status:
        return True
    return any(other.old.fires & other.new.fires != -1 for other in field.cells)


def _asks_less(cell: Cell) -> bool:
    """Whether the old version asks about a class, and the new one does not, or only the
    user.
    """
    return cell.new.status < cell.old.status < Status.REFUSE


def _with_cells(field: Field, kept: Callable[[Cell], bool]) -> Field:
    return replace(field, cells=tuple(filter(kept, field.cells)))


def _with_refusals(field: Field, asking: Asking) -> Field:
    """The field with asking as refusing in a version without step-up rules that could
    answer.
    """

    def usable(ruling: Ruling, rules: Rules) -> Ruling:
        if not asks(ruling.status) or _answerable(ruling.status, rules):
            return ruling
        return replace(ruling, status=Status.REFUSE, left_open=0)

    if all(_answerable(Status.ASK, rules) for rules in (asking.old, asking.new)):
        return field
    cells = []
    for cell in field.cells:
        old = usable(cell.old, asking.old)
        new = usable(cell.new, asking.new)
        cells.append(replace(cell, old=old, new=new))
    return replace(field, cells=tuple(cells))


def _answerable(status: Status, rules: Rules) -> bool:
    """Whether one of these rules asks somebody who may answer."""
    return any(not (rule.user and status == Status.ASK) for rule in rules)


def _best_cell(field: Field) -> Cell:
    return min(
        _allowed_cells(field),
        key=lambda cell: (cell.new.status, cell.old.status, -cell.new.fires.bit_count()),
    )


def _merged_points(cells: Sequence[Cell]) -> _Effect:
    merged: dict[str, Any] = {}
    for cell in cells:
        merged |= cell.point
    return merged


def _now_allowed(cells: Sequence[Cell], asking: Asking) -> _Effect:
    """The effect of a call of these classes being allowed, with the releases that it needs."""
    side = _ANY
    for cell in cells:
        side = _side_after(side, cell.new, asking.new)
    fired = _rules_that_fire(asking.new, side)
    return _effect_of("refused", people_words(fired))


def _effect_of(was: str, people: str) -> _Effect:
    now = f"allowed after {people}" if people else "allowed"
    return {
        "effect": f"was {was}, would be {now}",
        "back": f"would be {was}, is {now}",
        "asks": bool(people),
    }


def people_words(rules: Sequence[StepUpRule]) -> str:
    """How many releases, and by whom; empty for none."""
    if not rules:
        return ""
    count = max(rule.count for rule in rules)
    releases = "releases" if count > 1 else "release"
    people = dict.fromkeys(rule.people for rule in rules)
    return f"{count} {releases} by {' and '.join(people)}"


def _side_after(
    side: _Side,
    ruling: Ruling,
    rules: Rules,
) -> _Side:
    status = max(side[0], ruling.status)
    if _all_ask(status, rules):
        return status, 0, 0
    return status, side[1] & ruling.fires, side[2] | ruling.left_open


def _next_state(state: _State, cell: Cell, asking: Asking) -> _State:
    """What the rules can still distinguish after a class of values of one more field."""
    old = _side_after(state[0], cell.old, asking.old)
    new = _side_after(state[1], cell.new, asking.new)
    return old, new


def _all_ask(status: Status, rules: Rules) -> bool:
    """Whether every rule asks: a group must be, and no rule says what for."""
    return status == Status.ASK and not any(rule.left_open for rule in rules)


def _rules_that_fire(rules: Rules, side: _Side) -> Rules:
    status, mask, left_open = side
    if _all_ask(status, rules):
        return rules
    fired = []
    for index, rule in enumerate(rules):
        concerned = all(LEFT_OPEN[kind] & left_open for kind in rule.left_open)
        if mask >> index & 1 and concerned:
            fired.append(rule)
    return tuple(fired)


def _rules_needed(rules: Rules, side: _Side) -> Rules | None:
    """The rules that must be released; None: what is left open nobody is asked who could
    answer, and the call is refused.
    """
    fired = _rules_that_fire(rules, side)
    answered = not side[0] or _answerable(side[0], fired)
    return fired if answered else None


def _states_that_ask_less(
    fields: Sequence[Field],
    start: _State,
    asking: Asking,
) -> Iterator[tuple[_State, list[Cell], StepUpRule]]:
    """Every reachable state in which the old version asks more, with the cells that lead there
    and a rule that is missing.
    """
    states: dict[_State, list[Cell]] = {start: []}
    for field in fields:
        following: dict[_State, list[Cell]] = {}
        for state, cells in states.items():
            for cell in field.cells:
                after = _next_state(state, cell, asking)
                if after not in following:
                    following[after] = [*cells, cell]
        if len(following) > _MAX_STATES:
            raise TooLarge
        states = following
    for state, cells in states.items():
        needed = _rules_needed(asking.old, state[0])
        kept = _rules_needed(asking.new, state[1])
        if kept is None:
            continue
        lost = asking.old[0] if needed is None else missing_rule(needed, kept)
        if lost:
            yield state, cells, lost


def missing_rule(
    old: Sequence[StepUpRule],
    new: Sequence[StepUpRule],
) -> StepUpRule | None:
    """A rule of the old version for which the new one has none as strict, each used once.

    As strict: of the same group, by as many people (any group is stricter than the user); and
    the same rule (what else changed in it is told apart), or one that keeps out whom it keeps
    out, is good for no longer and shows as much.
    """
    taken: dict[int, StepUpRule] = {}

    def seat(rule: StepUpRule, tried: set[int]) -> bool:
        for at, other in enumerate(new):
            if at not in tried and other.stands_for(rule):
                tried.add(at)
                if at not in taken or seat(taken[at], tried):
                    taken[at] = rule
                    return True
        return False

    kept = {rule.id for rule in new}
    strictest = sorted(old, key=lambda rule: (rule.id not in kept, -rule.count))
    left = [rule for rule in strictest if not seat(rule, set())]
    return left[-1] if left else None


def _effect_of_weaker_rules(
    state: _State,
    asking: Asking,
) -> _Effect:
    before = _rules_needed(asking.old, state[0])
    was = "refused" if before is None else f"allowed after {people_words(before)}"
    fired = _rules_that_fire(asking.new, state[1])
    return _effect_of(was, people_words(fired))


def lost_rule(
    rule: StepUpRule,
    new: Sequence[StepUpRule],
) -> _Rule:
    """Where a step-up rule became weaker: field, old and new text."""
    name = f"step_up.{rule.id}"
    other = rules_by_id(new).get(rule.id)
    if not other:
        return name, f"{rule.whom} when {when_text(rule)}", REMOVED
    if rule.whom != other.whom:
        return f"{name}.approvers", rule.whom, other.whom
    was = when_text(rule)
    now = when_text(other)
    return f"{name}.when", "whenever a group is asked" if was == now else was, now


def when_text(rule: StepUpRule) -> str:
    """When a person must look."""
    said = [_OPEN[kind] for kind in rule.left_open]
    for when in rule.when:
        words = describe_rule(when)
        said.append(f"{when.name}: {words.partition(', ')[2] or words}")
    return "; ".join(said) or "every call"
