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
from itertools import compress, product

from agentgate.diff.arguments import (
    Explanations,
    Side,
    argument,
    describe,
    else_asked,
    left_out,
    mask_of,
    ways,
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
    cell,
    field,
    free_if,
)
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.surroundings import field_of, one_of
from agentgate.diff.table import same
from agentgate.values.expression import Unreadable
from agentgate.values.value_class import Names, value_class
from agentgate.workflow.clauses.clause import OTHER
from agentgate.workflow.model import ANY, NONE, Sequence, Tool, Workflow
from agentgate.workflow.rule import MODEL, Rule

Fields = list[Field]

_PRESENCES = ("present", "absent", "unclear")
# that the rules distinguish; where only the tool needs some, there are no more
_MAX_INTENTS = 8
_MAX_WORLDS = 256  # of one tool
Presence = Mapping[str, str]


@value_class
class _Need:
    """The intents of which one must be asked for, in both versions.

    Attributes:
        label: the rule: ``needs`` of the tool, or ``args.NAME.needs`` where that is sent.
        sides: each version, and the intents; none where it does not have the argument.
    """

    label: str
    sides: tuple[tuple[Workflow, Names], ...]

    def statuses(self, presence: Presence) -> tuple[Status, ...]:
        """What each version decides where a prompt says this of intents."""
        return tuple([_needed(workflow, names, presence) for workflow, names in self.sides])

    def cell(
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
                workflow.intents[name].unclear
                for workflow, names in self.sides
                if name in names and name in workflow.intents
            }
            if len(answers) > 1 and presence.get(name) == "unclear":
                label = f"intents.{name}.unclear"
        return cell(self.statuses(presence), label, point, text, INTENT)

    @property
    def said(self) -> dict[str, list[str]]:
        """The texts of the rules."""
        workflows = [workflow for workflow, _ in self.sides]
        said = {self.label: [", ".join(names) for _, names in self.sides]}
        for name in dict.fromkeys(name for workflow in workflows for name in workflow.intents):
            said[f"intents.{name}.unclear"] = [
                workflow.intents[name].unclear if name in workflow.intents else ""
                for workflow in workflows
            ]
        return said


def asked(
    old: Workflow, new: Workflow, name: str, fields: Fields, unanswered: list[str]
) -> list[Fields]:
    """The fields of a tool, its intents among them: one list for each world.

    `fields` are the others; the arguments' are called ``args.NAME``. Paths that have no exact
    answer are added to `unanswered`.
    """
    versions = ((old, old.tools[name]), (new, new.tools[name]))
    own = _Need("needs", tuple([(workflow, tool.needs) for workflow, tool in versions]))
    needs = dict[str, _Need]()
    for arg in dict.fromkeys(arg for _, tool in versions for arg in tool.args):
        sides = tuple([(workflow, _of(tool, arg)) for workflow, tool in versions])
        if any(names for _, names in sides):
            needs[f"args.{arg}"] = _Need(f"args.{arg}.needs", sides)
    presences = list(_presences([own, *needs.values()]))
    if not needs:
        return [[*fields, _tools_own(own, presences)]]
    alike: dict[object, Presence] = {}
    for presence in presences:
        statuses = tuple([need.statuses(presence) for need in (own, *needs.values())])
        if min(statuses[0]) < Status.REFUSE:
            alike.setdefault(statuses, presence)
    if not presences or len(alike) > _MAX_WORLDS:
        unanswered.append(f"tools.{name}.needs")
        return [fields]
    found = []
    for presence in alike.values():
        world = [_sent(f, needs[f.name], presence) if f.name in needs else f for f in fields]
        found.append([*world, _tools_own(own, [presence])])
    return found


def _of(tool: Tool, arg: str) -> Names:
    """The intents that an argument needs; nothing where a version does not have it."""
    rule: Rule | None = tool.args.get(arg)
    return rule.needs if rule else ()


def _presences(needs: list[_Need]) -> Iterator[Presence]:
    """What a prompt may say of the intents that the rules distinguish, present first; nothing
    where there are too many.
    """
    groups: dict[object, str] = {}
    sides = [need.sides[version] for version in range(2) for need in needs]
    for name in dict.fromkeys(name for _, names in sides for name in names):
        if name not in {ANY, NONE}:
            kinds = tuple(
                w.intents[name].unclear if name in names and name in w.intents else ""
                for w, names in sides
            )
            groups.setdefault(kinds, name)
    if len(groups) <= _MAX_INTENTS:
        for said in product(_PRESENCES, repeat=len(groups)):
            yield dict(zip(groups.values(), said, strict=True))


def _needed(
    workflow: Workflow,
    needs: Names,
    presence: Presence,
) -> Status:
    if not needs or ANY in needs or (NONE in needs and not workflow.intents):
        return Status.FREE
    known = {n: presence.get(n, "absent") for n in needs if n in workflow.intents}
    if "present" in known.values():
        return Status.FREE
    return min(
        (ANSWERS[workflow.intents[n].unclear] for n, p in known.items() if p == "unclear"),
        default=Status.REFUSE,
    )


def _tools_own(need: _Need, presences: list[Presence]) -> Field:
    """The intents that the tool itself needs."""

    def saying(presence: Presence) -> Cell:
        text = ", ".join(f"{n}: {p}" for n, p in presence.items()) or "any request"
        return need.cell(presence, {"intents": presence}, text)

    return field("needs", map(saying, presences), need.said)


def _sent(
    argument: Field,
    need: _Need,
    presence: Presence,
) -> Field:
    """An argument's field in one world: where it is sent, its own intents are needed too."""
    needed = need.cell(presence, {}, "")
    if not (needed.old.status or needed.new.status):
        return argument
    arg = argument.name.removeprefix("args.")

    def cells() -> Iterator[Cell]:
        for each in argument.cells:
            # an argument that is not inspected may be sent or not
            if left_out(each, arg) or not each.point:
                yield each
            if not left_out(each, arg):
                yield replace(
                    each, old=_both_of(each.old, needed.old), new=_both_of(each.new, needed.new)
                )

    return field(argument.name, cells(), {**need.said, **argument.said})


def _both_of(one: Ruling, other: Ruling) -> Ruling:
    """Two fields' rulings as one."""
    return Ruling(
        max(one.status, other.status),
        one.why | other.why,
        one.fires & other.fires,
        one.left_open | other.left_open,
    )


_MAX_WHENS = 6


def worlds(
    old: Workflow, new: Workflow, name: str, unanswered: list[str], budget: Budget
) -> list[Fields]:
    """Every field of a tool, for each way in which a prompt may ask; one list where only the
    tool needs intents.

    What has no exact answer is added to `unanswered` and taken as one class that both versions
    allow.
    """
    fields = _fields(old, new, name, unanswered, budget)
    return asked(old, new, name, fields, unanswered)


def _fields(
    old: Workflow, new: Workflow, name: str, unanswered: list[str], budget: Budget
) -> Fields:
    """Every field of a tool but its intents."""
    tools = old.tools[name], new.tools[name]
    pinned = tuple([(t.definition,) if t.definition else () for t in tools])
    fields = [
        one_of("definition", "definition", pinned, "sha256:" + "ee" * 32),
        _broker(*tools),
        *_sequence(*tools),
    ]
    for arg in dict.fromkeys((*tools[0].args, *tools[1].args)):
        sides = _sides(tools[0], arg), _sides(tools[1], arg)
        try:
            fields.append(argument(arg, *sides, budget))
        except (Unreadable, TooLarge, RecursionError):  # the last: a pattern nested too deeply
            alike = same(sides[0].rule, sides[1].rule) and same(
                tools[0].step_ups, tools[1].step_ups
            )
            if not alike or len(sides[0].whens) > _MAX_WHENS:
                unanswered.append(f"tools.{name}.args.{arg}")
            fields.append(_unread(arg, sides[0]))
        fields += _entities(arg, sides[0].rule, sides[1].rule)
    return fields


def _unread(arg: str, side: Side) -> Field:
    """An argument whose values are not inspected: every answer that its unchanged rule and
    conditions can give.
    """
    asked = ANSWERS[side.rule.unknown_origin] if side.rule else Status.REFUSE
    cells = []
    for met in product((True, False), repeat=min(len(side.whens), _MAX_WHENS)):
        others = [True] * (len(side.whens) - len(met))
        fires = mask_of(side, (*met, *others))
        rulings = [Ruling(Status.FREE, fires=fires)]
        if asks(asked):
            rulings.append(Ruling(asked, fires=fires, left_open=ORIGIN))
        cells += [Cell(ruling, ruling) for ruling in rulings]
    return Field(f"args.{arg}", tuple(cells))


def _sides(tool: Tool, arg: str) -> Side:
    whens = [(i, when) for i, rule in enumerate(tool.step_ups) for when in rule.when]
    return Side(tool.args.get(arg), tuple([(i, w) for i, w in whens if w.name == arg]))


def _broker(old: Tool, new: Tool) -> Field:
    """Which upstream brokers the gate has: a tool whose broker is not configured is refused."""
    names = [t.upstream.broker if t.upstream else "" for t in (old, new)]

    def having(configured: tuple[bool, ...]) -> Cell:
        brokers = frozenset(filter(None, compress(names, configured)))
        point = {"brokers": brokers}
        text = ", ".join(sorted(brokers)) or "no broker"
        statuses = [free_if(not name or name in brokers) for name in names]
        return cell(statuses, "upstream", point, text)

    configurations = product((True, False), repeat=2)
    return field("upstream", map(having, configurations), {"upstream": names})


# --- order ------------------------------------------------------------------------------------
def _sequence(old: Tool, new: Tool) -> Iterator[Field]:
    """For each required tool, how long ago it was last redeemed."""
    for required in dict.fromkeys(s.require for t in (old, new) for s in t.sequence):
        orders = tuple(
            [
                [order for order in tool.sequence if order.require == required]
                for tool in (old, new)
            ]
        )
        values = Sequence.distinct([order for side in orders for order in side])
        yield field_of(
            f"sequence.{required}",
            orders,
            values,
            lambda side, age: all(s.allows(age) for s in side),
            lambda side: ", ".join(s.words for s in side),
        )


# --- entities inside a text -------------------------------------------------------------------
def _entities(
    arg: str,
    old: Rule | None,
    new: Rule | None,
) -> Fields:
    """An address, link or account inside a free text, and where it may come from."""
    if not old or not new or (old.entities is None and new.entities is None):
        return []  # an argument of one version only is decided by whether it is sent
    rules = (old, new)
    name = f"args.{arg}.entities"

    def inside(origin: Explanations | None) -> Cell:
        atoms = tuple(sorted(map(str, origin.atoms))) if origin else None
        text = (
            "nothing inside"
            if atoms is None
            else f"an address from {', '.join(atoms) or OTHER}"
        )
        return cell(
            [_inner(rule, origin) for rule in rules],
            name,
            {f"entities.{arg}": atoms},
            text,
            ORIGIN,
        )

    origins = ways([Rule(arg, 0, sources=rule.entities or ()) for rule in rules], ())
    said = []
    for rule in rules:
        unknown = "" if rule.entities is None else else_asked(rule)
        said.append(describe(rule, "entities") + unknown)
    return [field(name, map(inside, [None, *origins]), {name: said})]


def _inner(rule: Rule, origin: Explanations | None) -> Status:
    if (
        not origin
        or rule.entities is None
        or any(s == MODEL or s in origin.atoms for s in rule.entities)
    ):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]
