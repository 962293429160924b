"""Who must still sign a change, according to the approvals beside the workflows; and who made it, according to git.

For people to read: a gate counts signatures itself. The author is recorded in the approval's statement, and never counts as a reviewer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from agentgate.approvals import ApprovalRefused, Need
from agentgate.approvals.root import Root
from agentgate.loading.catalog import APPROVALS
from agentgate.loading.source import WorkflowText, ask, blob
from agentgate.review.report.changes import Changes

_ROOT = f"{APPROVALS}/root.yaml"


def still_to_sign(old: WorkflowText | None, new: WorkflowText | None, changes: Changes) -> tuple[str, ...]:
    """Who must sign a change under the root above the old version (without one, above the new), in words; empty: there is no root.

    The old version's root counts: a change must not choose who signs it.
    """
    versions = [each for each in (old, new) if each is not None]
    data, folder = next(filter(None, map(_root, versions)), (None, ""))
    if data is None:
        return ()
    try:
        root = Root.parse(data, _ROOT)
    except ApprovalRefused as error:
        return (f"unknown: {error}",)
    paths = {PurePosixPath(each.path).name if folder == "." else each.path.removeprefix(f"{folder}/") for each in versions}
    needs = root.needs(paths, {each.workflow().risk for each in versions}, (), narrower=bool(old) and not changes.looks)
    return tuple(in_words(needs)) or ("nobody: no rule of the root is for this path",)


def in_words(needs: Iterable[Need], proposer: str = "") -> Iterable[str]:
    """Each rule with signatures missing, in words; without the `proposer`, whose signature never counts, where others can sign."""
    for need in needs:
        by = need.by - {proposer} or need.by
        if need.needed == 0:
            yield f"nobody can approve this risk under {need.path}"
        elif not need.met:
            have = f" ({need.have} there)" if need.have else ""
            yield f"{need.needed} of {', '.join(sorted(by))} for {need.path}{have}"


def _root(source: WorkflowText) -> tuple[bytes, str] | None:
    """The root's bytes and the folder that it governs."""
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


def author_of(file: Path) -> str | None:
    """The author's address in the last commit of a file; None where git has none, or the file has changed since."""
    if ask("diff", "--quiet", "--no-ext-diff", "--no-textconv", "HEAD", "--", str(file)) is None:
        return None
    address = ask("log", "-1", "--no-show-signature", "--no-ext-diff", "--no-mailmap", "--format=%ae", "--", str(file))
    text = (address or b"").decode("utf-8", "replace").strip()
    return text if text and text.isprintable() else None
