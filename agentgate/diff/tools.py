"""One tool that both versions have: every field a call to it is decided by."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from agentgate.diff.arguments import Side, argument, describe, mask_of
from agentgate.diff.expression import Unreadable
from agentgate.diff.finding import Cell, Field, Status
from agentgate.diff.intents import asked
from agentgate.diff.language import Budget, TooLarge
from agentgate.diff.origins import Explanations, ways
from agentgate.diff.surroundings import NOBODY, OTHER, one_of, seconds
from agentgate.diff.table import same
from agentgate.workflow.model import Sequence, Tool, Workflow
from agentgate.workflow.rule import MODEL, Rule

_MAX_WHENS = 6


def worlds(old: Workflow, new: Workflow, name: str, unanswered: list[str], budget: Budget) -> list[list[Field]]:
    """Every field of a tool, for each way in which a prompt may ask; one list where only the tool needs intents.

    What cannot be told exactly is added to `unanswered` and taken as one class that both allow.
    """
    return asked(old, new, name, _fields(old, new, name, unanswered, budget), unanswered)


def _fields(old: Workflow, new: Workflow, name: str, unanswered: list[str], budget: Budget) -> list[Field]:
    """Every field of a tool but its intents."""
    tools = old.tools[name], new.tools[name]
    found = [_definition(*tools), _broker(*tools)]
    found += _sequence(*tools)
    for arg in dict.fromkeys((*tools[0].args, *tools[1].args)):
        sides = _sides(tools[0], arg), _sides(tools[1], arg)
        try:
            found.append(argument(arg, *sides, budget))
        except (Unreadable, TooLarge, RecursionError):  # the last: a pattern nested too deeply
            alike = same(sides[0].rule, sides[1].rule) and same(tools[0].step_ups, tools[1].step_ups)
            if not alike or len(sides[0].whens) > _MAX_WHENS:
                unanswered.append(f"tools.{name}.args.{arg}")
            found.append(_unread(arg, sides[0]))
        found += _entities(arg, sides[0].rule, sides[1].rule)
    return found


def _unread(arg: str, side: Side) -> Field:
    """An argument whose values are not looked into: all that its unchanged rule and conditions can say of one."""
    cells = [Cell(Status.ASK, Status.ASK)]
    for met in product((True, False), repeat=min(len(side.whens), _MAX_WHENS)):
        mask = mask_of(side, (*met, *[True] * (len(side.whens) - len(met))))
        cells.append(Cell(Status.FREE, Status.FREE, fires_old=mask, fires_new=mask))
    return Field(f"args.{arg}", tuple(cells))


def _sides(tool: Tool, arg: str) -> Side:
    return Side(tool.args.get(arg), tuple((i, w) for i, rule in enumerate(tool.step_ups) for w in rule.when if w.name == arg))


def _definition(old: Tool, new: Tool) -> Field:
    pinned = [(t.definition,) if t.definition else () for t in (old, new)]
    return one_of("definition", "definition", pinned[0], pinned[1])


def _broker(old: Tool, new: Tool) -> Field:
    """Which upstream brokers the gate has: a tool whose broker is not configured is refused."""
    names = [t.upstream.broker if t.upstream is not None else "" for t in (old, new)]
    cells: dict[object, Cell] = {}
    for have in ((True, True), (True, False), (False, True), (False, False)):
        brokers = frozenset(n for n, yes in zip(names, have, strict=True) if yes and n)
        status = [Status.FREE if not n or n in brokers else Status.REFUSE for n in names]
        why = [frozenset({"upstream"}) if s else frozenset[str]() for s in status]
        if Status.FREE in status:
            text = ", ".join(sorted(brokers)) or "no broker"
            cells.setdefault(tuple(status), Cell(status[0], status[1], why[0], why[1], point={"brokers": brokers}, shown=text))
    return Field("upstream", tuple(cells.values()), {"upstream": (names[0], names[1])})


# --- order ---------------------------------------------------------------------------------------------------------------
def _sequence(old: Tool, new: Tool) -> Iterator[Field]:
    """For each required tool, how long ago it was last redeemed (or never)."""
    for required in dict.fromkeys(s.require for t in (old, new) for s in t.sequence):
        windows = [[s.within for s in t.sequence if s.require == required] for t in (old, new)]
        name = f"sequence.{required}"
        ages: list[int | None] = [0, *sorted({w + 1 for side in windows for w in side if w is not None}), None]
        cells: dict[object, Cell] = {}
        for age in ages:
            status = [_recent(age, side) for side in windows]
            if min(status) < Status.REFUSE:
                why = [frozenset({name}) if s else frozenset[str]() for s in status]
                text = NOBODY if age is None else f"{seconds(age)} ago"
                cells.setdefault(tuple(status), Cell(status[0], status[1], why[0], why[1], point={name: age}, shown=f"{required}: {text}"))
        said = [_order(t.sequence, required) for t in (old, new)]
        yield Field(name, tuple(cells.values()), {name: (said[0], said[1])})


def _recent(age: int | None, windows: list[int | None]) -> Status:
    held = all(age is not None and (w is None or age <= w) for w in windows)
    return Status.FREE if held else Status.REFUSE


def _order(sequence: tuple[Sequence, ...], required: str) -> str:
    found = [
        f"after {s.require}" + (f" within {seconds(s.within)}" if s.within is not None else "") for s in sequence if s.require == required
    ]
    return ", ".join(found)


# --- what stands inside a text ---------------------------------------------------------------------------------------------
def _entities(arg: str, old: Rule | None, new: Rule | None) -> list[Field]:
    """An address, link or account inside a free text, and where it may come from."""
    if old is None or new is None or (old.entities is None and new.entities is None):
        return []  # an argument that only one version has: whether it is sent says all
    rules = (old, new)
    bare = [Rule(arg, 0, sources=r.entities or ()) for r in rules]
    name = f"args.{arg}.entities"
    cells: dict[object, Cell] = {}
    for origin in [None, *ways(bare, ())]:
        status = [Status.FREE if origin is None else _inner(r, origin) for r in rules]
        if min(status) < Status.REFUSE:
            why = [frozenset({name}) if s else frozenset[str]() for s in status]
            atoms = None if origin is None else tuple(sorted(map(str, origin.atoms)))
            text = "nothing inside" if atoms is None else f"an address from {', '.join(atoms) or OTHER}"
            cells.setdefault(tuple(status), Cell(status[0], status[1], why[0], why[1], point={f"entities.{arg}": atoms}, shown=text))
    return [Field(name, tuple(cells.values()), {name: (_entities_text(old), _entities_text(new))})]


def _inner(rule: Rule, origin: Explanations) -> Status:
    if rule.entities is None or any(s == MODEL or s in origin.atoms for s in rule.entities):
        return Status.FREE
    return Status.ASK if rule.unknown_origin == "step_up" else Status.REFUSE


def _entities_text(rule: Rule | None) -> str:
    asks = rule is not None and rule.entities is not None and rule.unknown_origin == "step_up"
    return describe(rule, "entities") + (", else a person" if asks else "")
