"""One tool that both versions have: every field that decides a call to it.

What the prompt may say of each intent that it needs, or one of its arguments where it is sent,
is one of them. Intents that no rule distinguishes are one. Where arguments need intents of
their own, what the prompt says and which arguments are sent depend on each other: each way in
which a prompt may ask is then a world of its own, in which the fields are independent again.
Worlds that all rules answer alike are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, compress, product

from agentgate.diff.arguments import (
    Explanations,
    Side,
    describe_rule,
    field_of_argument,
    is_left_out,
    mask_of,
    ways_to_explain,
    whom_else_it_asks,
)
from agentgate.diff.finding import (
    ANSWERS,
    INTENT,
    ORIGIN,
    Cell,
    Field,
    Point,
    Ruling,
    Status,
    asks,
    cell_of_statuses,
    field_of_cells,
)
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.surroundings import field_of, field_of_conditions, field_of_list
from agentgate.diff.table import mean_the_same
from agentgate.values.expression import Unreadable
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.clauses.clause import OTHER, Distinct
from agentgate.workflow.model import ANY, NONE, Sequence, Tool, Workflow
from agentgate.workflow.rule import MODEL, Rule

Fields = list[Field]

_PRESENCES = ("present", "absent", "unclear")
# that the rules distinguish; where only the tool needs some, there are no more
_MAX_INTENTS = 8
_MAX_WORLDS = 256  # of one tool
Presence = Mapping[str, str]
_Sides = tuple[tuple[Workflow, Names], ...]


@value_class
class _Need:
    """The intents of which one must be asked for, in both versions.

    Attributes:
        label: the rule: ``needs`` of the tool, or ``args.NAME.needs`` where that is sent.
        sides: each version, and the intents; none where it does not have the argument.
    """

    label: str
    sides: _Sides

    def statuses(self, presence: Presence) -> tuple[Status, ...]:
        """What each version decides where a prompt says this of intents."""
        return tuple(
            [_status_of_needs(workflow, names, presence) for workflow, names in self.sides]
        )

    def cell_of_presence(
        self,
        presence: Presence,
        point: Point,
        text: str,
    ) -> Cell:
        """What a prompt says, as a class of values.

        The rule is what an unclear intent does, where the versions differ in that; else what is
        needed.
        """
        label = self.label
        for name in reversed(self.sides[0][1]):
            answers = {
                _answer_if_unclear(workflow, name)
                for workflow, names in self.sides
                if name in names
            } - {""}
            if len(answers) > 1 and presence.get(name) == "unclear":
                label = f"intents.{name}.unclear"
        return cell_of_statuses(self.statuses(presence), label, point, text, INTENT)

    @property
    def said(self) -> dict[str, list[str]]:
        """The texts of the rules."""
        workflows = [workflow for workflow, _ in self.sides]
        said = {self.label: [", ".join(names) for _, names in self.sides]}
        for name in dict.fromkeys(chain(*[workflow.intents for workflow in workflows])):
            said[f"intents.{name}.unclear"] = [
                _answer_if_unclear(workflow, name) for workflow in workflows
            ]
        return said


def _answer_if_unclear(workflow: Workflow, name: str) -> str:
    """What a version does where an intent is unclear; empty where it has none of that name."""
    return workflow.intents[name].unclear if name in workflow.intents else ""


def _fields_by_world(
    old: Workflow,
    new: Workflow,
    name: str,
    fields: Fields,
    unanswered: list[str],
) -> list[Fields]:
    """The fields of a tool, its intents among them: one list for each world.

    `fields` are the others; the arguments' are called ``args.NAME``. Paths that have no exact
    answer are added to `unanswered`.
    """
    versions = ((old, old.tools[name]), (new, new.tools[name]))
    tool_needs = [(workflow, tool.needs) for workflow, tool in versions]
    own = _Need("needs", tuple(tool_needs))
    needs = dict[str, _Need]()
    for argument in dict.fromkeys(argument for _, tool in versions for argument in tool.args):
        sides = tuple(
            [(workflow, _needs_of_argument(tool, argument)) for workflow, tool in versions]
        )
        if any(names for _, names in sides):
            needs[f"args.{argument}"] = _Need(f"args.{argument}.needs", sides)
    presences = list(_possible_presences([own, *needs.values()]))
    if not needs:
        return [[*fields, _field_of_needs(own, presences)]]
    alike: dict[object, Presence] = {}
    for presence in presences:
        statuses = tuple(need.statuses(presence) for need in (own, *needs.values()))
        if min(statuses[0]) < Status.REFUSE:
            alike.setdefault(statuses, presence)
    if not presences or len(alike) > _MAX_WORLDS:
        unanswered.append(f"tools.{name}.needs")
        return [fields]
    found = []
    for presence in alike.values():
        world = [_with_needs(field, needs.get(field.name), presence) for field in fields]
        found.append([*world, _field_of_needs(own, [presence])])
    return found


def _needs_of_argument(tool: Tool, argument: str) -> Names:
    """The intents that an argument needs; nothing where a version does not have it."""
    rule: Rule | None = tool.args.get(argument)
    return rule.needs if rule else ()


def _possible_presences(needs: list[_Need]) -> Iterator[Presence]:
    """What a prompt may say of the intents that the rules distinguish, present first; nothing
    where there are too many.
    """
    groups: dict[object, str] = {}
    sides = [need.sides[version] for version in range(2) for need in needs]
    for name in dict.fromkeys(chain(*[names for _, names in sides])):
        if name not in {ANY, NONE}:
            kinds = tuple(
                _answer_if_unclear(workflow, name) if name in names else ""
                for workflow, names in sides
            )
            groups.setdefault(kinds, name)
    if len(groups) <= _MAX_INTENTS:
        for said in product(_PRESENCES, repeat=len(groups)):
            yield dict(zip(groups.values(), said, strict=True))


def _status_of_needs(
    workflow: Workflow,
    needs: Names,
    presence: Presence,
) -> Status:
    if not needs or ANY in needs or (NONE in needs and not workflow.intents):
        return Status.FREE
    statuses = [Status.REFUSE]
    for name in needs:
        if name in workflow.intents:
            said = presence.get(name)
            if said == "present":
                statuses.append(Status.FREE)
            elif said == "unclear":
                statuses.append(ANSWERS[workflow.intents[name].unclear])
    return min(statuses)


def _field_of_needs(need: _Need, presences: list[Presence]) -> Field:
    """The intents that the tool itself needs."""
    cells = []
    for presence in presences:
        heard = [f"{name}: {said}" for name, said in presence.items()]
        text = ", ".join(heard) or "any request"
        cells.append(need.cell_of_presence(presence, {"intents": presence}, text))
    return field_of_cells("needs", cells, need.said)


def _with_needs(
    sent: Field,
    need: _Need | None,
    presence: Presence,
) -> Field:
    """A field in one world: where an argument is sent, its own intents are needed too."""
    if not need:
        return sent
    needed = need.cell_of_presence(presence, {}, "")
    if not (needed.old.status or needed.new.status):
        return sent
    argument = sent.name.removeprefix("args.")
    cells = []
    for cell in sent.cells:
        left_out = is_left_out(cell, argument)
        # an argument that is not inspected may be sent or not
        if left_out or not cell.point:
            cells.append(cell)
        if not left_out:
            old = _joined_rulings(cell.old, needed.old)
            new = _joined_rulings(cell.new, needed.new)
            cells.append(replace(cell, old=old, new=new))
    return field_of_cells(sent.name, cells, {**need.said, **sent.said})


def _joined_rulings(one: Ruling, other: Ruling) -> Ruling:
    """Two fields' rulings as one."""
    return Ruling(
        max(one.status, other.status),
        one.why | other.why,
        one.fires & other.fires,
        one.left_open | other.left_open,
    )


_MAX_WHENS = 6


def worlds_of_tool(
    old: Workflow,
    new: Workflow,
    name: str,
    unanswered: list[str],
    budget: Budget,
) -> list[Fields]:
    """Every field of a tool, for each way in which a prompt may ask; one list where only the
    tool needs intents.

    What has no exact answer is added to `unanswered` and taken as one class that both versions
    allow.
    """
    fields = _fields_of_tool(old, new, name, unanswered, budget)
    return _fields_by_world(old, new, name, fields, unanswered)


def _fields_of_tool(
    old: Workflow,
    new: Workflow,
    name: str,
    unanswered: list[str],
    budget: Budget,
) -> Fields:
    """Every field of a tool but its intents."""
    tools = old.tools[name], new.tools[name]
    pinned = tuple((tool.definition,) if tool.definition else () for tool in tools)
    fields = [
        field_of_list("definition", "definition", pinned, "sha256:" + "ee" * 32),
        _field_of_broker(*tools),
        *_fields_of_sequence(*tools),
    ]
    for argument in dict.fromkeys((*tools[0].args, *tools[1].args)):
        before, after = (_side_of_argument(tool, argument) for tool in tools)
        try:
            fields.append(field_of_argument(argument, before, after, budget))
        except (Unreadable, TooLarge, RecursionError):  # the last: a pattern nested too deeply
            same_rule = mean_the_same(before.rule, after.rule)
            alike = same_rule and mean_the_same(tools[0].step_ups, tools[1].step_ups)
            if not alike or len(before.conditions) > _MAX_WHENS:
                unanswered.append(f"tools.{name}.args.{argument}")
            fields.append(_uninspected_argument(argument, before))
        fields += _fields_of_entities(argument, before.rule, after.rule)
    return fields


def _uninspected_argument(argument: str, side: Side) -> Field:
    """An argument whose values are not inspected: every answer that its unchanged rule and
    conditions can give.
    """
    asked = ANSWERS[side.rule.unknown_origin] if side.rule else Status.REFUSE
    cells = []
    distinct = min(len(side.conditions), _MAX_WHENS)
    others = [True for _ in side.conditions[distinct:]]
    for met in product((True, False), repeat=distinct):
        fires = mask_of(side, (*met, *others))
        rulings = [Ruling(Status.FREE, fires=fires)]
        if asks(asked):
            rulings.append(Ruling(asked, fires=fires, left_open=ORIGIN))
        cells += [Cell(ruling, ruling) for ruling in rulings]
    return Field(f"args.{argument}", tuple(cells))


def _side_of_argument(tool: Tool, argument: str) -> Side:
    conditions = [
        (index, condition)
        for index, rule in enumerate(tool.step_ups)
        for condition in rule.when
        if condition.name == argument
    ]
    return Side(tool.args.get(argument), tuple(conditions))


def _field_of_broker(old: Tool, new: Tool) -> Field:
    """Which upstream brokers the gate has: a tool whose broker is not configured is refused."""
    names = [tool.upstream.broker if tool.upstream else "" for tool in (old, new)]
    values = []
    for configured in product((True, False), repeat=2):
        brokers = frozenset(compress(names, configured)) - {""}
        text = ", ".join(sorted(brokers)) or "no broker"
        values.append(Distinct(brokers, {"brokers": brokers}, text))
    return field_of(
        "upstream",
        names,
        values,
        lambda name, brokers: not name or name in brokers,
        str,
    )


# --- order ------------------------------------------------------------------------------------
def _fields_of_sequence(old: Tool, new: Tool) -> Iterator[Field]:
    """For each required tool, how long ago it was last redeemed."""
    every = (*old.sequence, *new.sequence)
    for required in dict.fromkeys(order.require for order in every):
        orders = [
            [order for order in tool.sequence if order.require == required]
            for tool in (old, new)
        ]
        ages = Sequence.distinct([order for order in every if order.require == required])
        yield field_of_conditions(f"sequence.{required}", orders, ages)


# --- entities inside a text -------------------------------------------------------------------
def _fields_of_entities(
    argument: str,
    old: Rule | None,
    new: Rule | None,
) -> Fields:
    """An address, link or account inside a free text, and where it may come from."""
    if not old or not new or (old.entities is None and new.entities is None):
        return []  # an argument of one version only is decided by whether it is sent
    rules = (old, new)
    name = f"args.{argument}.entities"

    key = f"entities.{argument}"
    nothing = [Status.FREE, Status.FREE]
    cells = [cell_of_statuses(nothing, name, {key: None}, "nothing inside", ORIGIN)]
    named = [Rule(argument, 0, sources=rule.entities or ()) for rule in rules]
    for explanation in ways_to_explain(named, ()):
        statuses = [_status_inside(rule, explanation) for rule in rules]
        text = f"an address from {', '.join(explanation.names) or OTHER}"
        cells.append(cell_of_statuses(statuses, name, {key: explanation.names}, text, ORIGIN))
    said = []
    for rule in rules:
        unknown = "" if rule.entities is None else whom_else_it_asks(rule)
        said.append(describe_rule(rule, "entities") + unknown)
    return [field_of_cells(name, cells, {name: said})]


def _status_inside(rule: Rule, explanation: Explanations) -> Status:
    if rule.entities is None or MODEL in rule.entities:
        return Status.FREE
    if not explanation.atoms.isdisjoint(rule.entities):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]
