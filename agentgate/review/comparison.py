"""From two sources of a workflow to what a reviewer is told about the change."""

from __future__ import annotations

from agentgate.diff import ENGINE, Finding, compare
from agentgate.review.changes import Change, Changes, unified
from agentgate.review.source import Source
from agentgate.workflow import Workflow

_NEW = "a new workflow: everything it permits is new"
_GONE = "the workflow is gone: every call of it is refused"


def changes_between(old: Source | None, new: Source | None, signers: tuple[str, ...] = ()) -> Changes:
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
    return told(before, after, signers, unified(texts[0], texts[1], (names[0], names[1])))


def told(before: Workflow | None, after: Workflow | None, signers: tuple[str, ...] = (), lines: tuple[str, ...] = ()) -> Changes:
    """Compare two loaded versions; see `changes_between`."""
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
        wider, narrower, read = tuple(map(_change, found.wider)), tuple(map(_change, found.narrower)), found.read_yourself
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


def _permits(workflow: Workflow) -> tuple[Change, ...]:
    """A first version, tool by tool."""
    return (
        Change("the workflow", "", "", _NEW),
        *(
            Change(f"{tool.name}: tools", "", f"{tool.effect}: {', '.join(tool.args) or 'no arguments'}")
            for tool in workflow.tools.values()
        ),
    )


def _version(workflow: Workflow | None) -> str:
    return f"v{workflow.version}" if workflow is not None else "nothing"
