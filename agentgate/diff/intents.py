"""What the prompt may say of each intent that a tool needs, or one of its arguments where it is
sent.

Intents that no rule distinguishes are one. Where arguments need intents of their own, what the
prompt says and which arguments are sent depend on each other: each way in which a prompt may
ask is then a world of its own, in which the fields are independent again. Worlds that all rules
answer alike are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from agentgate.diff.arguments import left_out
from agentgate.diff.finding import ANSWERS, INTENT, Cell, Field, Ruling, Status, cell, field
from agentgate.workflow.model import ANY, NONE, Tool, Workflow
from agentgate.workflow.rule import Rule

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
    return () if rule is None else rule.needs


def _presences(versions: _Versions, asking: Sequence[str]) -> Iterator[Presence]:
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


def _both(versions: _Versions, needs: Sequence[Needs], presence: Presence) -> Both:
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


def _label(
    versions: _Versions, needs: Sequence[Needs], presence: Presence, otherwise: str
) -> str:
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
