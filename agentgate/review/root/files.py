"""The files of a root: made and signed in a copy, and moved to their place only after every
check passed.

Rules: this touches the root, its signatures, the file of its keys, the roots before it, and
(reading) the index and the revocations, and nothing else of the directory. No root follows one
that is not completely signed: no gate could follow from it. A gate accepts neither index nor
revocations from somebody whom its root does not name, so before such a root is made they are
signed again, unchanged, by somebody whom both roots name; what is not valid under the present
root is left alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentgate.approvals import ApprovalRefused, sshsig
from agentgate.approvals._files import (
    APPROVALS,
    INDEX,
    RENEWAL,
    REVOKED,
    ROOT,
    SIGNERS,
    Tree,
    text_of,
)
from agentgate.approvals._shape import moment
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import MAX_INDEX, index_bytes, load_index, load_revoked
from agentgate.approvals.refusal import ROOT_NOT_TRUSTED
from agentgate.approvals.root import Role, Root, TrustedRoot
from agentgate.approvals.writing import Signer
from agentgate.approvals.writing.trust import write_revoked, write_signed
from agentgate.errors import ConfigError
from agentgate.review.root.standing import standing

FILES = (INDEX, f"{INDEX}.sig", RENEWAL, f"{RENEWAL}.sig", REVOKED, f"{REVOKED}.sig")


@contextmanager
def scratch_copy(directory: Path) -> Iterator[Path]:
    """A temporary directory with a copy of these files. Raises ApprovalRefused: one is a link
    or cannot be read.
    """
    with tempfile.TemporaryDirectory() as place:
        source = Tree(directory)
        copy = Tree(Path(place) / "w")
        there = {name for name, _ in source.names()}
        for name in [*trust_files(source), *(name for name in FILES if name in there)]:
            copy.write(name, source.read(name, ROOT_NOT_TRUSTED, limit=MAX_INDEX))
        yield copy.directory


def publish(folder: Path, directory: Path, more: Iterable[str] = ()) -> None:
    """Copy the finished files to their place: first `more` (below ``approvals``), then earlier
    roots, the keys, the root, its signatures.

    Raises ApprovalRefused: one cannot be written.
    """
    source = Tree(folder)
    there = Tree(directory)
    made = trust_files(source)
    for name in more:
        there.write(name, source.read(name, ROOT_NOT_TRUSTED, limit=MAX_INDEX))
    for name in sorted(
        made, key=lambda name: (not name.startswith("root/"), name != SIGNERS, name != ROOT)
    ):
        if name == ROOT:
            for old in trust_files(there):
                if old not in made:
                    (directory / APPROVALS / old).unlink()
        there.write(name, source.read(name, ROOT_NOT_TRUSTED))


def trust_files(tree: Tree) -> list[str]:
    """Their names, below ``approvals``."""
    names = [
        name
        for name, _ in tree.names()
        if name in {ROOT, SIGNERS} or (name.startswith("root.") and name.endswith(".sig"))
    ]
    return names + [f"root/{name}" for name, _ in tree.names("root")]


def drop_unfinished(folder: Path, *, replace: bool) -> None:
    """In a copy (`scratch_copy`), go back to the root before, where the present one is not
    complete. `replace`: the person asked for it.

    Raises ConfigError: it is not complete and nobody asked, or there is no earlier one.
    """
    tree = Tree(folder)
    if ROOT not in trust_files(tree):
        return
    state = standing(folder)
    if state.complete:
        return
    missing = [
        f"{side.missing} signatures for version {side.version} are missing"
        for side in state.sides
        if side.missing
    ]
    why = f"version {state.root.version}, not complete: {'; '.join((*state.wrong, *missing))}"
    if not replace:
        raise ConfigError(
            "root",
            why,
            "a complete one: sign it first (agentgate root sign), or drop it with --replace",
        )
    version = state.root.version - 1
    if version and not state.before:
        raise ConfigError(
            "root", why, f"approvals/root/{version}.yaml to go on from: restore it from git"
        )
    place = folder / APPROVALS
    for name in trust_files(tree):
        if "/" not in name and name != SIGNERS:
            (place / name).unlink()
    for name in trust_files(tree):
        if name.startswith(f"root/{version}."):
            (place / name).rename(place / f"root.{name.removeprefix(f'root/{version}.')}")


def hand_over(
    folder: Path, old: tuple[Root, AllowedSigners], new: Root, own: Signer | None, now: float
) -> tuple[str, ...]:
    """Sign the revocations and the index again, where the new root would refuse who signed
    them. Returns those files.

    `folder`: a copy with the new root, and the index and revocations beside it. `old`: the root
    that is replaced, and its keys. `own`: whose key signs; None: there is no signer. Raises
    ConfigError: this key cannot sign; says who can.
    """
    tree = Tree(folder)
    changed = []
    before = TrustedRoot(tree, *old, now)
    after = TrustedRoot(tree, new, allowed_in(tree), now)
    roots = old[0], new
    try:
        revoked = load_revoked(before)
    except ApprovalRefused:
        return ()
    try:
        index = load_index(before)
    except ApprovalRefused:
        index = None
    try:
        load_revoked(after)
    except ApprovalRefused:
        signer, _ = _in_both("revoke", revoked.signer, REVOKED, roots, own)
        revoked = write_revoked(tree, old[0], signer, revoked.serial + 1, revoked.revoked)
        changed += [f"{REVOKED}.sig", REVOKED]
    if not index:
        return tuple(changed)
    try:
        load_index(after)
    except ApprovalRefused:
        signer, person = _in_both("index", index.signer, INDEX, roots, own)
        data = index_bytes(
            index.serial + 1, moment(index.until), person, index.workflows, revoked
        )
        write_signed(tree, INDEX, data, signer, sshsig.INDEX_NAMESPACE)
        changed += [f"{INDEX}.sig", INDEX]
    return tuple(changed)


def allowed_in(tree: Tree) -> AllowedSigners:
    """The present file of keys. Raises ApprovalRefused: absent, or not understood."""
    return AllowedSigners.parse(text_of(tree.read(SIGNERS, ROOT_NOT_TRUSTED), SIGNERS), SIGNERS)


def _in_both(
    role: Role, last: str, file: str, roots: tuple[Root, Root], own: Signer | None
) -> tuple[Signer, str]:
    old, new = roots
    able = [
        name
        for name in new.roles[role]
        if name in old.roles[role] and old.keys[name] & new.keys[name]
    ]
    if own is not None:
        for name in able:
            if all(root.owns(name, own.public_key) for root in roots):
                return own, name
    who = (
        f"agentgate root new by {' or '.join(able)}, who signs it again"
        if able
        else f"somebody in roles.{role} of both roots"
    )
    raise ConfigError(
        f"approvals/{file}",
        f"signed by {last}, whose key the new root does not name there",
        who,
    )
