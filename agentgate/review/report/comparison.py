"""From two sources of a workflow to what a reviewer is told about the change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentgate.diff import ENGINE, Finding, compare
from agentgate.diff.arguments import describe, shown
from agentgate.errors import WorkflowError
from agentgate.loading.source import WorkflowText
from agentgate.review.report.changes import Change, Changes, arrow, unified
from agentgate.review.report.witness import Witness, witnesses
from agentgate.review.scenarios.testfile import read_tests, tests_of
from agentgate.workflow.model import ANY, NONE, Workflow

_NEW = "a new workflow: everything it permits is new"
_LONGEST = 160  # characters of a reason
_GONE = "the workflow is gone: every call of it is refused"


def changes_between(old: WorkflowText | None, new: WorkflowText | None, signers: tuple[str, ...] = ()) -> Changes:
    """Compare two versions.

    Args:
        old: None: there was none, so all of it is new.
        new: None: it is gone, so nothing of it is left.
        signers: who must still sign, in words.

    Raises:
        WorkflowError: one of them does not load.
    """
    before, after = (source.workflow() if source is not None else None for source in (old, new))
    texts = [source.text if source is not None else "" for source in (old, new)]
    names = [source.name if source is not None else "/dev/null" for source in (old, new)]
    base = next((found for source in (new, old) if source is not None and (found := base_of(source)) is not None), None)
    return told(before, after, signers, lines=unified(texts[0], texts[1], (names[0], names[1])), base=base)


def base_of(source: WorkflowText) -> Mapping[str, Any] | None:
    """The base call of the tests beside a workflow; None where there are none, or they cannot be read."""
    try:
        return read_tests(source.tests, str(tests_of(source.path))).stated if source.tests is not None else None
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
    """Compare two loaded versions; see `changes_between`. `base`: the call that witnesses change as little as they can."""
    engine = f"agentgate diff engine {ENGINE}"
    left = after or before
    if left is None:
        raise ValueError("nothing to compare")
    wider: tuple[Change, ...] = ()
    narrower: tuple[Change, ...] = ()
    read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if before is not None and after is not None:
        found = compare(before, after)
        made = witnesses(before, after, found, base)
        wider = tuple(_shown(each) for each in made if not each.reason)
        narrower, read = tuple(map(_change, found.narrower)), (*found.read_yourself, *(_unshown(each) for each in made if each.reason))
        if before.id != after.id:
            notes = (f"two different workflows are compared: {before.id} and {after.id}",)
    elif before is None:
        wider = _permits(left)
    else:
        narrower = (Change("the workflow", "", "", _GONE),)
    return Changes(left.id, _version(before), _version(after), wider, narrower, read, signers, lines, engine, left.digest, notes)


def _change(found: Finding) -> Change:
    where = f"{found.tool}: {found.field}" if found.tool else found.field
    return Change(where, found.old, found.new, found.effect, found.example)


def _shown(made: Witness) -> Change:
    """A finding with the call that the engine answered differently; none where no single call could show it (a limit, a lifetime)."""
    call = tuple((key, _value(old), _value(new)) for key, (old, new) in (made.changes or {}).items())
    found = _change(made.finding)
    example = next((after for key, _, after in call if f"{made.finding.field}.".startswith(f"{key}.")), found.example)
    return replace(found, example=shown(example), call=call, answers=(made.before, made.after))


def _unshown(made: Witness) -> str:
    """A finding that no call could be made up for: fields are compared one by one, and others may hold it back. A person must say."""
    change = _change(made.finding)
    return f"{change.where} ({arrow(change)}; no call shows that it permits more: {made.reason[:_LONGEST]})"


def _value(value: Any) -> str:
    return "(left out)" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _permits(workflow: Workflow) -> tuple[Change, ...]:
    """A first version: each tool, and each argument with what it may be and where it may come from."""
    found = [Change("the workflow", "", "", _NEW)]
    for tool in workflow.tools.values():
        needs = {ANY: "whatever is asked", NONE: "nobody asks"}
        asked = " or ".join(needs.get(name, f"intent {name}") for name in tool.needs)
        held = ", always after a person's yes" if any(not step.when for step in tool.step_ups) else ""
        found.append(Change(tool.name, "", f"{tool.effect}, for {asked}{held}"))
        for rule in tool.args.values():
            anywhere = "" if rule.sources else ", from anywhere"
            found.append(Change(f"{tool.name}: args.{rule.name}", "", describe(rule) + anywhere))
    return tuple(found)


def _version(workflow: Workflow | None) -> str:
    return f"v{workflow.version}" if workflow is not None else "nothing"
