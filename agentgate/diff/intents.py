"""What the prompt may say of each intent that a tool, or one of its arguments where it is sent, needs.

Intents that nobody tells apart are one. Where arguments need intents of their own, what the prompt says and which of them are sent
belong together: then each way in which a prompt may ask is a world of its own, in which every field stands for itself again. Worlds
that all rules answer alike are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from agentgate.diff.arguments import left_out
from agentgate.diff.finding import Cell, Field, Status
from agentgate.workflow.model import ANY, NONE, Tool, Workflow
from agentgate.workflow.rule import Rule

_PRESENCES = ("present", "absent", "unclear")
_MAX_INTENTS = 8  # that the rules tell apart; where only the tool needs some, there are no more
_MAX_WORLDS = 256  # of one tool
_NOBODY: frozenset[str] = frozenset()
Needs = tuple[str, ...]
Presence = Mapping[str, str]
Both = tuple[Status, Status]
_Versions = tuple[tuple[Workflow, Tool], tuple[Workflow, Tool]]


def asked(old: Workflow, new: Workflow, name: str, fields: list[Field], unanswered: list[str]) -> list[list[Field]]:
    """The fields of a tool with its intents, one list for each world.

    Args:
        old: the approved version.
        new: the proposed one.
        name: the tool.
        fields: its other fields; the arguments' are called ``args.NAME``.
        unanswered: where paths go that have no exact answer.
    """
    versions: _Versions = ((old, old.tools[name]), (new, new.tools[name]))
    asking = [arg for arg in dict.fromkeys((*old.tools[name].args, *new.tools[name].args)) if any(_of(t, arg) for _, t in versions)]
    if not asking:
        return [[*fields, _needs(versions, list(_presences(versions, ())))]]
    presences = list(_presences(versions, asking))
    alike: dict[object, tuple[Presence, Mapping[str, Both]]] = {}
    for presence in presences:
        said = {arg: _both(versions, [_of(t, arg) for _, t in versions], presence) for arg in asking}
        tool = _both(versions, [t.needs for _, t in versions], presence)
        if min(tool) < Status.REFUSE:
            alike.setdefault((tool, *said.values()), (presence, said))
    if not presences or len(alike) > _MAX_WORLDS:
        unanswered.append(f"tools.{name}.needs")
        return [fields]
    return [[*(_sent(versions, f, said, presence) for f in fields), _needs(versions, [presence])] for presence, said in alike.values()]


def _of(tool: Tool, arg: str) -> Needs:
    """The intents that an argument needs; nothing where a version does not have it."""
    rule: Rule | None = tool.args.get(arg)
    return () if rule is None else rule.needs


def _presences(versions: _Versions, asking: Sequence[str]) -> Iterator[Presence]:
    """What a prompt may say of the intents that the rules tell apart, present first; nothing where these are too many."""
    groups: dict[object, str] = {}
    lists = [(w, needs) for w, t in versions for needs in (t.needs, *(_of(t, arg) for arg in asking))]
    for name in dict.fromkeys(name for _, needs in lists for name in needs):
        if name not in {ANY, NONE}:
            kinds = tuple(w.intents[name].unclear if name in needs and name in w.intents else "" for w, needs in lists)
            groups.setdefault(kinds, name)
    if len(groups) <= _MAX_INTENTS:
        for said in product(_PRESENCES, repeat=len(groups)):
            yield dict(zip(groups.values(), said, strict=True))


def _both(versions: _Versions, needs: Sequence[Needs], presence: Presence) -> Both:
    old, new = (_needed(w, asked_for, presence) for (w, _), asked_for in zip(versions, needs, strict=True))
    return old, new


def _needed(workflow: Workflow, needs: Needs, presence: Presence) -> Status:
    if not needs or ANY in needs or (NONE in needs and not workflow.intents):
        return Status.FREE
    known = {n: presence.get(n, "absent") for n in needs if n in workflow.intents}
    if "present" in known.values():
        return Status.FREE
    asks = any(workflow.intents[n].unclear == "step_up" for n, p in known.items() if p == "unclear")
    return Status.ASK if asks else Status.REFUSE


def _needs(versions: _Versions, presences: list[Presence]) -> Field:
    """What the tool itself needs."""
    cells: dict[object, Cell] = {}
    needs = [t.needs for _, t in versions]
    for presence in presences:
        status = _both(versions, needs, presence)
        if min(status) < Status.REFUSE:
            label = _label(versions, needs, presence, "needs")
            why = [frozenset({label}) if s else _NOBODY for s in status]
            text = ", ".join(f"{n}: {p}" for n, p in presence.items()) or "any request"
            cells.setdefault((*status, *why), Cell(status[0], status[1], why[0], why[1], point={"intents": presence}, shown=text))
    return Field("needs", tuple(cells.values()), {"needs": (", ".join(needs[0]), ", ".join(needs[1])), **_unclear(versions)})


def _unclear(versions: _Versions) -> dict[str, tuple[str, str]]:
    (old, _), (new, _) = versions
    names = dict.fromkeys((*old.intents, *new.intents))
    return {
        f"intents.{n}.unclear": (
            old.intents[n].unclear if n in old.intents else "",
            new.intents[n].unclear if n in new.intents else "",
        )
        for n in names
    }


def _label(versions: _Versions, needs: Sequence[Needs], presence: Presence, otherwise: str) -> str:
    """Which rule decides: what an unclear intent does, where the versions differ in that; else what is needed."""
    (old, _), (new, _) = versions
    shared = [n for n in needs[0] if n in needs[1] and presence.get(n) == "unclear" and n in old.intents and n in new.intents]
    return next((f"intents.{n}.unclear" for n in shared if old.intents[n].unclear != new.intents[n].unclear), otherwise)


def _sent(versions: _Versions, field: Field, said: Mapping[str, Both], presence: Presence) -> Field:
    """An argument's field in one world: where it is sent, its own intents are needed too."""
    arg = field.name.removeprefix("args.")
    status = said.get(arg) if field.name == f"args.{arg}" else None
    if status is None or status == (Status.FREE, Status.FREE):
        return field
    needs = [_of(t, arg) for _, t in versions]
    label = _label(versions, needs, presence, f"args.{arg}.needs")
    why = [frozenset({label}) if s else _NOBODY for s in status]
    cells: dict[tuple[object, ...], Cell] = {}
    for cell in field.cells:
        if left_out(cell, arg) or not cell.point:  # of an argument that is not looked into, it may be sent or not
            cells.setdefault(_key(cell), cell)
        if not left_out(cell, arg):
            old, new = max(cell.old, status[0]), max(cell.new, status[1])
            made = replace(cell, old=old, new=new, why_old=cell.why_old | why[0], why_new=cell.why_new | why[1])
            if not made.old == made.new == Status.REFUSE:
                cells.setdefault(_key(made), made)
    said_too = {f"args.{arg}.needs": (", ".join(needs[0]), ", ".join(needs[1])), **_unclear(versions)}
    return Field(field.name, tuple(cells.values()), {**said_too, **field.said})


def _key(cell: Cell) -> tuple[object, ...]:
    return cell.old, cell.new, cell.why_old, cell.why_new, cell.fires_old, cell.fires_new
