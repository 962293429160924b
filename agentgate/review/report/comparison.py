"""Compares two versions of a workflow and makes the reviewer's report of the change."""

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
_ENGINE = f"agentgate diff engine {ENGINE}"
_GONE = "the workflow is gone: every call of it is refused"


def changes_between(old: WorkflowText | None, new: WorkflowText | None, signers: tuple[str, ...] = ()) -> Changes:
    """Compare the approved version (None: the workflow is new) with the proposed one (None: it is removed).

    `signers`: who must still sign, in words. Raises WorkflowError: one of them does not load.
    """
    before, after = (source.workflow() if source is not None else None for source in (old, new))
    texts = [source.text if source is not None else "" for source in (old, new)]
    names = [source.name if source is not None else "/dev/null" for source in (old, new)]
    bases = (base_of(source) for source in (new, old) if source is not None)
    base = next((each for each in bases if each is not None), None)
    return told(before, after, signers, lines=unified(texts[0], texts[1], (names[0], names[1])), base=base)


def base_of(source: WorkflowText) -> Mapping[str, Any] | None:
    """The base call of the test file beside a workflow; None where there is none, or it cannot be read."""
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
    """Compare two loaded versions; see `changes_between`. `base`: the call that witnesses change as little as possible."""
    left = after or before
    if left is None:
        raise ValueError("nothing to compare")
    report = Changes(left.id, _version(before), _version(after), signers=signers, lines=lines, engine=_ENGINE, digest=left.digest)
    if before is None:
        return replace(report, wider=_permits(left))
    if after is None:
        return replace(report, narrower=(Change("the workflow", "", "", _GONE),))
    diff = compare(before, after)
    calls = witnesses(before, after, diff, base)
    return replace(
        report,
        wider=tuple(_shown(each) for each in calls if not each.reason),
        narrower=tuple(map(_change, diff.narrower)),
        read_yourself=(*diff.read_yourself, *(_unshown(each) for each in calls if each.reason)),
        notes=(f"two different workflows are compared: {before.id} and {after.id}",) if before.id != after.id else (),
    )


def _change(finding: Finding) -> Change:
    where = f"{finding.tool}: {finding.field}" if finding.tool else finding.field
    return Change(where, finding.old, finding.new, finding.effect, finding.example)


def _shown(witness: Witness) -> Change:
    """A finding with the call that the engine answered differently, unless no single call could show it (a limit, a lifetime)."""
    call = tuple((key, _value(old), _value(new)) for key, (old, new) in (witness.changes or {}).items())
    change = _change(witness.finding)
    example = next((after for key, _, after in call if f"{witness.finding.field}.".startswith(f"{key}.")), change.example)
    return replace(change, example=shown(example), call=call, answers=(witness.before, witness.after))


def _unshown(witness: Witness) -> str:
    """A finding without a call to show it: the diff compares fields one by one, and other fields may block every such call."""
    change = _change(witness.finding)
    return f"{change.where} ({arrow(change)}; no call shows that it permits more: {witness.reason[:_LONGEST]})"


def _value(value: Any) -> str:
    return "(left out)" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _permits(workflow: Workflow) -> tuple[Change, ...]:
    """A first version: each tool, and each argument with its permitted values and origins."""
    permitted = [Change("the workflow", "", "", _NEW)]
    for tool in workflow.tools.values():
        needs = {ANY: "whatever is asked", NONE: "nobody asks"}
        asked = " or ".join(needs.get(name, f"intent {name}") for name in tool.needs)
        held = ", always after a person's yes" if any(not step.when for step in tool.step_ups) else ""
        permitted.append(Change(tool.name, "", f"{tool.effect}, for {asked}{held}"))
        for rule in tool.args.values():
            anywhere = "" if rule.sources else ", from anywhere"
            permitted.append(Change(f"{tool.name}: args.{rule.name}", "", describe(rule) + anywhere))
    return tuple(permitted)


def _version(workflow: Workflow | None) -> str:
    return f"v{workflow.version}" if workflow is not None else "nothing"
