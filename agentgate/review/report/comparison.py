"""Compares two versions of a workflow and makes the reviewer's report of the change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentgate.diff import ENGINE, Finding, compare
from agentgate.diff.arguments import shown
from agentgate.errors import WorkflowError
from agentgate.loading.source import WorkflowText
from agentgate.review.report.changes import Change, Changes, unified
from agentgate.review.report.reading import added, first, rows, text
from agentgate.review.report.witness import Witness, witness
from agentgate.review.scenarios.testfile import read_tests, tests_of
from agentgate.workflow.model import Workflow

_LONGEST = 160  # characters of a reason
_ENGINE = f"agentgate diff engine {ENGINE}"
_GONE = "the workflow is gone: every call of it is refused"


def changes_between(
    old: WorkflowText | None, new: WorkflowText | None, signers: tuple[str, ...] = ()
) -> Changes:
    """Compare the approved version (None: the workflow is new) with the proposed one (None: it
    is removed).

    `signers`: who must still sign, in words. Raises WorkflowError: one of them does not load.
    """
    before, after = (source.workflow() if source is not None else None for source in (old, new))
    texts = [source.text if source is not None else "" for source in (old, new)]
    names = [source.name if source is not None else "/dev/null" for source in (old, new)]
    bases = (base_of(source) for source in (new, old) if source is not None)
    base = next((each for each in bases if each is not None), None)
    return told(
        before,
        after,
        signers,
        lines=unified(texts[0], texts[1], (names[0], names[1])),
        base=base,
    )


def base_of(source: WorkflowText) -> Mapping[str, Any] | None:
    """The base call of the test file beside a workflow; None where there is none, or it cannot
    be read.
    """
    try:
        return (
            read_tests(source.tests, str(tests_of(source.path))).stated
            if source.tests is not None
            else None
        )
    except WorkflowError:
        return None


def told(
    before: Workflow | None,
    after: Workflow | None,
    signers: tuple[str, ...] = (),
    *,
    lines: tuple[str, ...] = (),
    base: Mapping[str, Any] | None = None,
) -> Changes:
    """Compare two loaded versions; see `changes_between`. `base`: the call that witnesses
    change as little as possible.
    """
    left = after or before
    if left is None:
        raise ValueError("nothing to compare")
    was, now = (
        f"v{each.version}" if each is not None else "nothing" for each in (before, after)
    )
    about = (
        ("risk", left.risk),
        ("tenants", ", ".join(left.tenants)),
        ("last day", left.expires.isoformat()),
    )
    report = Changes(
        left.id,
        was,
        now,
        about=about,
        signers=signers,
        lines=lines,
        engine=_ENGINE,
        digest=left.digest,
    )
    if before is None:
        return replace(report, wider=tuple(first(left)))
    if after is None:
        return replace(report, narrower=(Change("the workflow", "", "", _GONE),))
    diff = compare(before, after)
    more = [witness(before, after, finding, base) for finding in diff.wider]
    less = [witness(after, before, finding, base) for finding in diff.narrower]
    shown = [each for each in more if not each.reason]
    lines_of = [
        added(after, each.finding.tool) if each.finding.field == "tool" else ()
        for each in shown
    ]
    read, idle = rows(
        before,
        after,
        {path: diff.differs.get(path, (None, None)) for path in diff.read_yourself},
    )
    return replace(
        report,
        wider=tuple(sorted(map(_change, shown, lines_of), key=_weight)),
        narrower=tuple(_change(each, wider=False) for each in less),
        read_yourself=(
            *(_change(each) for each in more if each.reason),
            *sorted(read, key=_weight),
        ),
        alike=tuple(
            Change(path, text(diff.differs[path][0]), text(diff.differs[path][1]))
            for path in diff.same_calls
        ),
        idle=idle,
        notes=(f"two different workflows are compared: {before.id} and {after.id}",)
        if before.id != after.id
        else (),
    )


_HEAVY = (
    "mode",
    "args.",
    "step_up",
    "intents",
    "needs",
    "limits",
    "effect",
    "tool",
    "facts",
    "who",
)  # what an attacker would change first
_PAID = (".from", ".any_call", ".at_most", ".max", ".pattern", ".entities")


def _weight(change: Change) -> tuple[int, int, bool]:
    """Worst first: calls that need no person, then calls that need one, then what no call
    shows; in these, payees and origins first.
    """
    field = change.where.rpartition(": ")[2]
    kind = (
        -1
        if field == "mode"
        else 2
        if not change.answers[1]
        else 0
        if change.answers[1] == _ALLOWED
        else 1
    )
    return (
        kind,
        next((n for n, head in enumerate(_HEAVY) if field.startswith(head)), len(_HEAVY)),
        not field.endswith(_PAID),
    )


_ALLOWED = "allowed"


def _change(found: Witness, lines: tuple[str, ...] = (), *, wider: bool = True) -> Change:
    """A finding with the call that the engine answered differently, in the engine's words; a
    limit or a lifetime has no such call.

    Of what is no longer permitted (not `wider`), the older version allows the call, or asks
    fewer people for it. Where no call shows it, the reason stands there: the diff compares
    fields one by one, and other fields may block every such call.
    """
    finding = found.finding
    change = Change(
        f"{finding.tool}: {finding.field}" if finding.tool else finding.field,
        finding.old,
        finding.new,
        finding.effect,
    )
    if found.reason:
        why = found.reason[:_LONGEST]
        none = (
            f"no call shows that it permits more: {why}"
            if wider
            else f"{finding.effect} (no call shows it: {why})"
        )
        return replace(change, effect=none)
    if found.scene is None or found.changes is None:
        return replace(change, lines=lines)
    answers = (found.before, found.after) if wider else (found.after, found.before)
    call = tuple((key, _value(old), _value(new)) for key, (old, new) in found.changes.items())
    values = found.scene.values
    whole = tuple(
        (key, _value(values[key]))
        for key in values
        if key in {"prompt", "call"} or key.startswith("args.")
    )
    was, would = (answer.partition(":")[0] for answer in answers)  # without its reasons
    effect = f"was {was}, would be {would}"
    return replace(
        change,
        example=_example(finding, call),
        call=call,
        whole=whole,
        answers=answers,
        effect=effect,
        lines=lines,
    )


def _example(finding: Finding, call: tuple[tuple[str, str, str], ...]) -> str:
    """The changed value of the call that the finding is about, or else the first one, by its
    name; empty: the base call shows it.
    """
    about = next(
        (value for key, _, value in call if f"{finding.field}.".startswith(f"{key}.")), None
    )
    return (
        shown(about)
        if about is not None
        else next((f"{key}: {shown(value)}" for key, _, value in call), "")
    )


def _value(value: Any) -> str:
    return (
        "(left out)"
        if value is None
        else value
        if isinstance(value, str)
        else json.dumps(value, default=str)
    )
