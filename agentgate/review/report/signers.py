"""Who must still sign a change, according to the approvals beside the workflows; and who made it, according to git.

For people to read: a gate counts signatures itself. Who made a change is recorded in the approval's statement, and never counts as a
reviewer: every author, committer and co-author since the version before, however their address is spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from agentgate.approvals import ApprovalRefused, Need, sshsig
from agentgate.approvals.root import Root
from agentgate.errors import ConfigError, KeyRefused, WorkflowError
from agentgate.loading.catalog import APPROVALS
from agentgate.loading.source import WorkflowText, ask, blob, in_git
from agentgate.review.report.changes import Changes
from agentgate.values.identities import author

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


def in_words(needs: Iterable[Need], made_by: Iterable[str] = ()) -> Iterable[str]:
    """Each rule with signatures missing, in words, and who of its people made the change and so never counts."""
    out = {author(name) for name in made_by}
    for need in needs:
        by, not_ = ({name for name in need.by if (author(name) in out) is made} for made in (False, True))
        if need.needed == 0:
            yield f"nobody can approve this risk under {need.path}"
        elif not need.met:
            have = f" ({need.have} there)" if need.have else ""
            why = f"; not {', '.join(sorted(not_))}, who made the change" if not_ else ""
            short = "" if need.needed <= len(by) else ": the root needs another reviewer (agentgate root draft)"
            yield f"{need.needed} of {', '.join(sorted(by)) or 'nobody'} for {need.path}{have}{why}{short}"


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


# --- who made a change ----------------------------------------------------------------------------------------------------------
_LOG = "%H%x00%ae%x00%ce%x00%(trailers:key=Co-authored-by,valueonly,separator=%x01)%x02"
_MOST_COMMITS = 2_000
_ADDRESS = re.compile(r"<([^<>]*)>")


def makers(file: Path, previous: str | None, signed_by: Root | None = None) -> tuple[str, ...]:
    """Everybody who made a workflow file what it is since the version before: authors, committers, and who is named as co-author.

    Args:
        file: a file of a git repository, as it lies on disk.
        previous: ``sha256:...`` of the version before; None: there is none, so the whole history counts.
        signed_by: the root, where it takes only signed commits; whoever signed one is named too.

    Returns:
        Their addresses, the last commit's author first; empty where git has no such file, or it has changed since its last commit.

    Raises:
        ConfigError: the history is cut off before that version, or a commit has no signature of somebody in the root.
    """
    if ask("diff", "--quiet", "--no-ext-diff", "--no-textconv", "HEAD", "--", str(file)) is None:
        return ()
    log = ask(
        "log", f"-{_MOST_COMMITS}", "--follow", "--no-show-signature", "--no-ext-diff", "--no-mailmap", f"--format={_LOG}", "--", str(file)
    )
    found: dict[str, None] = {}
    entries = [entry.strip("\n").split("\0") for entry in (log or b"").decode("utf-8", "replace").split("\x02") if entry.strip("\n")]
    for commit, writer, committer, others in entries:
        if previous is not None and _digest_at(commit, file) == previous:
            return tuple(found)
        named = [writer, committer, *(address for text in others.split("\x01") for address in _ADDRESS.findall(text))]
        named += [_signer(commit, signed_by)] if signed_by is not None else []
        found.update(dict.fromkeys(name.strip() for name in named if name.strip()))
    cut = ask("rev-parse", "--is-shallow-repository") != b"false\n" or len(entries) == _MOST_COMMITS
    if entries and cut:
        raise ConfigError("proposer", f"{file}: a history that is cut off", "all commits since the version before (git fetch --unshallow)")
    return tuple(found)


def _digest_at(commit: str, file: Path) -> str:
    """The digest of a workflow file's definition in a commit; empty where it has none that loads."""
    path = prefix_of(file)
    try:
        return in_git(commit, path).workflow().digest if path else ""
    except (ConfigError, WorkflowError):
        return ""


def prefix_of(file: Path) -> str:
    """A file's path from the root of its repository; empty where git does not have it."""
    name = ask("ls-files", "--full-name", "--", str(file))
    return (name or b"").decode("utf-8", "replace").strip()


def _signer(commit: str, root: Root) -> str:
    """Who of the root signed a commit (git's ``gpg.format ssh``). Raises ConfigError: nobody did."""
    head, _, body = (ask("cat-file", "commit", commit) or b"").partition(b"\n\n")
    lines, signature, inside = list[bytes](), list[bytes](), False
    for line in head.split(b"\n"):
        inside = line.startswith(b"gpgsig ") or (inside and line.startswith(b" "))
        (signature if inside else lines).append(line.removeprefix(b"gpgsig").removeprefix(b" ") if inside else line)
    signed = b"\n".join(lines) + b"\n\n" + body
    try:
        person = root.person(sshsig.verify(b"\n".join(signature).decode("ascii") + "\n", signed, "git")) if signature else None
    except (KeyRefused, UnicodeDecodeError):
        person = None
    if person is None:
        got = f"commit {commit[:12]} with {'another' if signature else 'no'} signature"
        raise ConfigError("signed_commits", got, "commits that people of the root signed (git config gpg.format ssh; git commit -S)")
    return person
