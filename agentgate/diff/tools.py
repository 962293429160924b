"""One tool that both versions have: every field that decides a call to it.

What the prompt may say of each intent that it needs, or one of its arguments where it is sent,
is one of them. Intents that no rule distinguishes are one. Where arguments need intents of
their own, what the prompt says and which arguments are sent depend on each other: each way in
which a prompt may ask is then a world of its own, in which the fields are independent again.
Worlds that all rules answer alike are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from agentgate.diff.arguments import Side, argument, describe, else_asked, left_out, mask_of
from agentgate.diff.finding import (
    ANSWERS,
    INTENT,
    ORIGIN,
    Cell,
    Field,
    Ruling,
    Status,
    asks,
    cell,
    field,
    free_if,
)
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.origins import Explanations, ways
from agentgate.diff.surroundings import field_of, one_of
from agentgate.diff.table import same
from agentgate.values.expression import Unreadable
from agentgate.workflow.clauses.clause import OTHER
from agentgate.workflow.clauses.sequence import Sequence
from agentgate.workflow.model import ANY, NONE, Tool, Workflow
from agentgate.workflow.rule import MODEL, Rule

_PRESENCES = ("present", "absent", "unclear")
# that the rules distinguish; where only the tool needs some, there are no more
_MAX_INTENTS = 8
_MAX_WORLDS = 256  # of one tool
Needs = tuple[str, ...]
Presence = Mapping[str, str]
Both = tuple[Status, Status]
_Versions = tuple[tuple[Workflow, Tool], tuple[Workflow, Tool]]


def asked(
    old: Workflow, new: Workflow, name: str, fields: list[Field], unanswered: list[str]
) -> list[list[Field]]:
    """The fields of a tool, its intents among them: one list for each world.

    `fields` are the others; the arguments' are called ``args.NAME``. Paths that have no exact
    answer are added to `unanswered`.
    """
    versions = ((old, old.tools[name]), (new, new.tools[name]))
    asking = [
        arg
        for arg in dict.fromkeys((*old.tools[name].args, *new.tools[name].args))
        if any(_of(t, arg) for _, t in versions)
    ]
    if not asking:
        return [[*fields, _needs(versions, list(_presences(versions, ())))]]
    presences = list(_presences(versions, asking))
    alike: dict[object, tuple[Presence, Mapping[str, Both]]] = {}
    for presence in presences:
        said = {
            arg: _both(versions, [_of(t, arg) for _, t in versions], presence) for arg in asking
        }
        tool = _both(versions, [t.needs for _, t in versions], presence)
        if min(tool) < Status.REFUSE:
            alike.setdefault((tool, *said.values()), (presence, said))
    if not presences or len(alike) > _MAX_WORLDS:
        unanswered.append(f"tools.{name}.needs")
        return [fields]
    return [
        [*(_sent(versions, f, said, presence) for f in fields), _needs(versions, [presence])]
        for presence, said in alike.values()
    ]


def _of(tool: Tool, arg: str) -> Needs:
    """The intents that an argument needs; nothing where a version does not have it."""
    rule: Rule | None = tool.args.get(arg)
    return rule.needs if rule else ()


def _presences(versions: _Versions, asking: Iterable[str]) -> Iterator[Presence]:
    """What a prompt may say of the intents that the rules distinguish, present first; nothing
    where there are too many.
    """
    groups: dict[object, str] = {}
    lists = [
        (w, needs) for w, t in versions for needs in (t.needs, *(_of(t, arg) for arg in asking))
    ]
    for name in dict.fromkeys(name for _, needs in lists for name in needs):
        if name not in {ANY, NONE}:
            kinds = tuple(
                w.intents[name].unclear if name in needs and name in w.intents else ""
                for w, needs in lists
            )
            groups.setdefault(kinds, name)
    if len(groups) <= _MAX_INTENTS:
        for said in product(_PRESENCES, repeat=len(groups)):
            yield dict(zip(groups.values(), said, strict=True))


def _both(versions: _Versions, needs: list[Needs], presence: Presence) -> Both:
    old, new = (
        _needed(w, asked_for, presence)
        for (w, _), asked_for in zip(versions, needs, strict=True)
    )
    return old, new


def _needed(workflow: Workflow, needs: Needs, presence: Presence) -> Status:
    if not needs or ANY in needs or (NONE in needs and not workflow.intents):
        return Status.FREE
    known = {n: presence.get(n, "absent") for n in needs if n in workflow.intents}
    if "present" in known.values():
        return Status.FREE
    return min(
        (ANSWERS[workflow.intents[n].unclear] for n, p in known.items() if p == "unclear"),
        default=Status.REFUSE,
    )


def _needs(versions: _Versions, presences: list[Presence]) -> Field:
    """The intents that the tool itself needs."""
    needs = [t.needs for _, t in versions]

    def saying(presence: Presence) -> Cell:
        text = ", ".join(f"{n}: {p}" for n, p in presence.items()) or "any request"
        return cell(
            _both(versions, needs, presence),
            _label(versions, needs, presence, "needs"),
            {"intents": presence},
            text,
            INTENT,
        )

    return field(
        "needs",
        map(saying, presences),
        {"needs": [", ".join(each) for each in needs], **_unclear(versions)},
    )


def _unclear(versions: _Versions) -> dict[str, list[str]]:
    names = dict.fromkeys(name for w, _ in versions for name in w.intents)
    return {
        f"intents.{n}.unclear": [
            w.intents[n].unclear if n in w.intents else "" for w, _ in versions
        ]
        for n in names
    }


def _label(versions: _Versions, needs: list[Needs], presence: Presence, otherwise: str) -> str:
    """Which rule decides: what an unclear intent does, where the versions differ in that; else
    what is needed.
    """
    (old, _), (new, _) = versions
    shared = [
        n
        for n in needs[0]
        if n in needs[1]
        and presence.get(n) == "unclear"
        and n in old.intents
        and n in new.intents
    ]
    return next(
        (
            f"intents.{n}.unclear"
            for n in shared
            if old.intents[n].unclear != new.intents[n].unclear
        ),
        otherwise,
    )


def _sent(
    versions: _Versions, argument: Field, said: Mapping[str, Both], presence: Presence
) -> Field:
    """An argument's field in one world: where it is sent, its own intents are needed too."""
    arg = argument.name.removeprefix("args.")
    status = said.get(arg) if argument.name == f"args.{arg}" else None
    if status is None or status == (Status.FREE, Status.FREE):
        return argument
    needs = [_of(t, arg) for _, t in versions]
    needed = cell(
        status, _label(versions, needs, presence, f"args.{arg}.needs"), {}, "", INTENT
    )

    def cells() -> Iterator[Cell]:
        for each in argument.cells:
            # an argument that is not inspected may be sent or not
            if left_out(each, arg) or not each.point:
                yield each
            if not left_out(each, arg):
                yield replace(
                    each, old=_both_of(each.old, needed.old), new=_both_of(each.new, needed.new)
                )

    return field(
        argument.name,
        cells(),
        {
            f"args.{arg}.needs": [", ".join(n) for n in needs],
            **_unclear(versions),
            **argument.said,
        },
    )


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
) -> list[list[Field]]:
    """Every field of a tool, for each way in which a prompt may ask; one list where only the
    tool needs intents.

    What has no exact answer is added to `unanswered` and taken as one class that both versions
    allow.
    """
    return asked(old, new, name, _fields(old, new, name, unanswered, budget), unanswered)


def _fields(
    old: Workflow, new: Workflow, name: str, unanswered: list[str], budget: Budget
) -> list[Field]:
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
        fires = mask_of(side, (*met, *[True] * (len(side.whens) - len(met))))
        rulings = [
            Ruling(Status.FREE, fires=fires),
            *([Ruling(asked, fires=fires, left_open=ORIGIN)] if asks(asked) else []),
        ]
        cells += [Cell(ruling, ruling) for ruling in rulings]
    return Field(f"args.{arg}", tuple(cells))


def _sides(tool: Tool, arg: str) -> Side:
    return Side(
        tool.args.get(arg),
        tuple(
            (i, w) for i, rule in enumerate(tool.step_ups) for w in rule.when if w.name == arg
        ),
    )


def _broker(old: Tool, new: Tool) -> Field:
    """Which upstream brokers the gate has: a tool whose broker is not configured is refused."""
    names = [t.upstream.broker if t.upstream else "" for t in (old, new)]

    def having(configured: tuple[bool, ...]) -> Cell:
        brokers = frozenset(n for n, yes in zip(names, configured, strict=True) if yes and n)
        point = {"brokers": brokers}
        text = ", ".join(sorted(brokers)) or "no broker"
        return cell([free_if(not n or n in brokers) for n in names], "upstream", point, text)

    return field("upstream", map(having, product((True, False), repeat=2)), {"upstream": names})


# --- order ------------------------------------------------------------------------------------
def _sequence(old: Tool, new: Tool) -> Iterator[Field]:
    """For each required tool, how long ago it was last redeemed."""
    for required in dict.fromkeys(s.require for t in (old, new) for s in t.sequence):
        orders = tuple([[s for s in t.sequence if s.require == required] for t in (old, new)])
        values = Sequence.distinct([s for side in orders for s in side])
        yield field_of(
            f"sequence.{required}",
            orders,
            values,
            lambda side, age: all(s.allows(age) for s in side),
            lambda side: ", ".join(s.words for s in side),
        )


# --- entities inside a text -------------------------------------------------------------------
def _entities(arg: str, old: Rule | None, new: Rule | None) -> list[Field]:
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
    said = [
        describe(rule, "entities") + (else_asked(rule) if rule.entities is not None else "")
        for rule in rules
    ]
    return [field(name, map(inside, [None, *origins]), {name: said})]


def _inner(rule: Rule, origin: Explanations | None) -> Status:
    if (
        not origin
        or rule.entities is None
        or any(s == MODEL or s in origin.atoms for s in rule.entities)
    ):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]
