"""Who must still sign a change, as the approvals beside the workflows say. Words for people; a gate counts for itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from agentgate.approvals import ApprovalRefused, Need
from agentgate.approvals.root import Root
from agentgate.loading.catalog import APPROVALS
from agentgate.loading.source import WorkflowText, blob
from agentgate.review.report.changes import Changes

_ROOT = f"{APPROVALS}/root.yaml"


def still_to_sign(old: WorkflowText | None, new: WorkflowText | None, changes: Changes) -> tuple[str, ...]:
    """What the root above the old version (where there is none, above the new) asks for a change, in words.

    The old side's root counts: a change may not say itself who must sign it. Empty: no root is there.
    """
    for source in (old, new):
        found = _root(source) if source is not None else None
        if source is not None and found is not None:
            data, folder = found
            try:
                root = Root.parse(data, _ROOT)
            except ApprovalRefused as error:
                return (f"unknown: {error}",)
            named = [each for each in (old, new) if each is not None]
            paths = {PurePosixPath(each.path).name if folder == "." else each.path.removeprefix(f"{folder}/") for each in named}
            risks = {each.workflow().risk for each in named}
            narrower = bool(old) and not changes.looks
            return tuple(in_words(root.needs(paths, risks, (), narrower=narrower))) or ("nobody: no rule of the root is for this path",)
    return ()


def in_words(needs: Iterable[Need], proposer: str = "") -> Iterable[str]:
    """Each rule that asks for more, in words. A known `proposer` is not named where others can sign: theirs never counts."""
    for need in needs:
        by = need.by - {proposer} or need.by
        if need.needed == 0:
            yield f"nobody can approve this risk under {need.path}"
        elif not need.met:
            have = f" ({need.have} there)" if need.have else ""
            yield f"{need.needed} of {', '.join(sorted(by))} for {need.path}{have}"


def _root(source: WorkflowText) -> tuple[bytes, str] | None:
    """The root's bytes and the folder it speaks for."""
    if source.commit:
        for parent in PurePosixPath(source.path).parents:
            text = blob(source.commit, str(parent / _ROOT))
            if text is not None:
                return text.encode(), str(parent)
        return None
    for folder in Path(source.path).parents:
        file = folder / _ROOT
        if file.is_file():
            return file.read_bytes(), str(folder)
    return None
