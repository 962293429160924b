"""One tool that both versions have: every field that decides a call to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from agentgate.diff.arguments import Side, argument, describe, else_asked, mask_of
from agentgate.diff.finding import (
    ANSWERS,
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
from agentgate.diff.intents import asked
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.origins import Explanations, ways
from agentgate.diff.surroundings import field_of, one_of
from agentgate.diff.table import same
from agentgate.values.expression import Unreadable
from agentgate.workflow.clauses.clause import OTHER
from agentgate.workflow.clauses.sequence import Sequence
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import MODEL, Rule

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
    asked = ANSWERS[side.rule.unknown_origin] if side.rule is not None else Status.REFUSE
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
    names = [t.upstream.broker if t.upstream is not None else "" for t in (old, new)]

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
    if old is None or new is None or (old.entities is None and new.entities is None):
        return []  # an argument of one version only is decided by whether it is sent
    rules = (old, new)
    name = f"args.{arg}.entities"

    def inside(origin: Explanations | None) -> Cell:
        atoms = None if origin is None else tuple(sorted(map(str, origin.atoms)))
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
        origin is None
        or rule.entities is None
        or any(s == MODEL or s in origin.atoms for s in rule.entities)
    ):
        return Status.FREE
    return ANSWERS[rule.unknown_origin]
