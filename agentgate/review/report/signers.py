"""Who must still sign a change, according to the approvals beside the workflows; and who made
it, according to git.

For people to read: a gate counts signatures itself. Who made a change is recorded in the
approval's statement, and never counts as a reviewer: every author, committer and co-author
since the version before, however their address is spelled.
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
from agentgate.values.request import author
from agentgate.values.value_class import Names

_ROOT = f"{APPROVALS}/root.yaml"


def still_to_sign(
    old: WorkflowText | None, new: WorkflowText | None, changes: Changes
) -> Names:
    """Who must sign a change under the root above the old version (without one, above the new),
    in words; empty: there is no root.

    The old version's root counts: a change must not choose who signs it.
    """
    versions = [each for each in (old, new) if each]
    data, folder = next(filter(None, map(_root, versions)), (None, ""))
    if data is None:
        return ()
    try:
        root = Root.parse(data, _ROOT)
    except ApprovalRefused as error:
        return (f"unknown: {error}",)
    paths = {
        PurePosixPath(each.path).name if folder == "." else each.path.removeprefix(f"{folder}/")
        for each in versions
    }
    needs = root.needs(
        paths,
        {each.workflow().risk for each in versions},
        (),
        narrower=bool(old) and not changes.looks,
    )
    return tuple(in_words(needs)) or ("nobody: no rule of the root is for this path",)


def in_words(needs: Iterable[Need], made_by: Iterable[str] = ()) -> Iterable[str]:
    """Each rule with signatures missing, in words, and who of its people made the change and so
    never counts.
    """
    out = {author(name) for name in made_by}
    for need in needs:
        not_ = {name for name in need.by if author(name) in out}
        by = need.by - not_
        if need.needed == 0:
            yield f"nobody can approve this risk under {need.path}"
        elif not need.met:
            have = f" ({need.have} there)" if need.have else ""
            why = f"; not {', '.join(sorted(not_))}, who made the change" if not_ else ""
            short = (
                ""
                if need.needed <= len(by)
                else ": the root needs another reviewer (agentgate root draft)"
            )
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


# --- who made a change ------------------------------------------------------------------------
_LOG = "%H%x00%P%x00%ae%x00%ce%x00%(trailers:key=Co-authored-by,valueonly,separator=%x20)%x00"
_MOST_COMMITS = 2_000
_ADDRESS = re.compile(r"<([^<>]*)>")


def makers(file: Path, previous: str | None, signed_by: Root | None = None) -> Names:
    """Everybody who made a workflow file what it is since the version before: authors,
    committers, and who is named as co-author.

    From the last commit on, history is followed to each parent that the text came from, and
    there no further than the version before: who merged counts where the merge is neither
    side's text, and a commit of the version before on another branch ends nothing.

    Args:
        file: a file of a git repository, as it lies on disk.
        previous: ``sha256:...`` of the version before; None: there is none, so the whole
            history counts.
        signed_by: the root, where it takes only signed commits; whoever signed one is named
            too.

    Returns:
        Their addresses, the last commit's author first; empty where git has no such file, or it
            has changed since its last commit.

    Raises:
        ConfigError: a link; the history is cut off before that version, or a commit has no
            signature of somebody in the root.
    """
    if file.is_symlink():
        raise ConfigError(
            "proposer",
            f"{file}, a link",
            "a file: git does not tell who changed what a link leads to",
        )
    if (
        ask("diff", "--quiet", "--no-ext-diff", "--no-textconv", "HEAD", "--", str(file))
        is None
    ):
        return ()
    found = dict[str, None]()
    cut = False
    names = [("HEAD", prefix_of(file))]
    for start, path in names:  # and, from a renaming on, each name before
        log = _log(start, path)
        commits = list(log)[:1]
        for commit in commits:
            if commit not in log:
                cut = True
            elif previous is None or _digest_at(commit, path) != previous:
                parents, named = log[commit]
                named += [_signer(commit, signed_by)] if signed_by else []
                found.update(dict.fromkeys(name.strip() for name in named if name.strip()))
                commits += [parent for parent in parents if parent not in commits]
                before = [] if parents else _before(commit, path)
                names += [each for each in before if each not in names]
                cut = cut or not (
                    parents
                    or before
                    or ask("rev-parse", "--is-shallow-repository") == b"false\n"
                )
    if cut:
        raise ConfigError(
            "proposer",
            f"{file}: a history that is cut off",
            "all commits since the version before (git fetch --unshallow)",
        )
    return tuple(found)


def _log(start: str, path: str) -> dict[str, tuple[list[str], list[str]]]:
    """The commits that a path's text came from, the newest first: with those before them, and
    who made them.
    """
    options = ("--no-show-signature", "--no-ext-diff", "--no-mailmap", f"--format={_LOG}")
    log = (
        ask(
            "log", f"-{_MOST_COMMITS}", "--topo-order", "--parents", *options, start, "--", path
        )
        if path
        else None
    )
    fields = (log or b"").decode("utf-8", "replace").split("\0")
    # no header or message of a commit holds a NUL
    entries = zip(*[iter(fields)] * 5, strict=False)
    return {
        commit.strip(): (parents.split(), [writer, committer, *_ADDRESS.findall(others)])
        for commit, parents, writer, committer, others in entries
    }


def _before(commit: str, path: str) -> list[tuple[str, str]]:
    """The commits before one from which this file was renamed or copied, each with its path
    there; empty: it is new.
    """
    found = []
    for parent in (ask("rev-parse", f"{commit}^@") or b"").decode().split():
        told = ask(
            "diff-tree",
            "-r",
            "--follow",
            "--no-ext-diff",
            "--name-status",
            "-z",
            parent,
            commit,
            "--",
            path,
        )
        status, *paths = (told or b"").decode("utf-8", "replace").strip("\0").split("\0")
        found += [(parent, paths[0])] if status[:1] in {"R", "C"} and len(paths) == 2 else []
    return found


def _digest_at(commit: str, path: str) -> str:
    """The digest of a workflow file's definition in a commit; empty where it has none that
    loads.
    """
    try:
        return in_git(commit, path).workflow().digest if path else ""
    except (ConfigError, WorkflowError):
        return ""


def prefix_of(file: Path) -> str:
    """A file's path from the root of its repository; empty where git does not have it."""
    name = ask("ls-files", "--full-name", "--", str(file))
    return (name or b"").decode("utf-8", "replace").strip()


def _signer(commit: str, root: Root) -> str:
    """Who of the root signed a commit (git's ``gpg.format ssh``). Raises ConfigError: nobody
    did.
    """
    head, _, body = (ask("cat-file", "commit", commit) or b"").partition(b"\n\n")
    lines = list[bytes]()
    signature = list[bytes]()
    inside = False
    for line in head.split(b"\n"):
        inside = line.startswith(b"gpgsig ") or (inside and line.startswith(b" "))
        (signature if inside else lines).append(
            line.removeprefix(b"gpgsig").removeprefix(b" ") if inside else line
        )
    signed = b"\n".join(lines) + b"\n\n" + body
    try:
        person = (
            root.person(
                sshsig.verify(b"\n".join(signature).decode("ascii") + "\n", signed, "git")
            )
            if signature
            else None
        )
    except (KeyRefused, UnicodeDecodeError):
        person = None
    if person is None:
        got = f"commit {commit[:12]} with {'another' if signature else 'no'} signature"
        raise ConfigError(
            "signed_commits",
            got,
            "commits that people of the root signed (git config gpg.format ssh; git commit -S)",
        )
    return person
