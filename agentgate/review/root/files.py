"""The files of a root: made and signed in a copy, and moved to their place only after every check passed.

Rules: this touches the root, its signatures, the file of its keys, the roots before it, and (reading) the index and the revocations,
and nothing else of the directory. No root follows one that is not completely signed: no gate could follow from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentgate.approvals._files import APPROVALS, ROOT, SIGNERS, Tree
from agentgate.approvals.index import MAX_INDEX
from agentgate.approvals.refusal import ROOT_NOT_TRUSTED
from agentgate.errors import ConfigError
from agentgate.review.root.handover import FILES
from agentgate.review.root.standing import standing


@contextmanager
def scratch_copy(directory: Path) -> Iterator[Path]:
    """A temporary directory with a copy of these files. Raises ApprovalRefused: one is a link or cannot be read."""
    with tempfile.TemporaryDirectory() as place:
        source, copy = Tree(directory), Tree(Path(place) / "w")
        there = {name for name, _ in source.names()}
        for name in [*trust_files(source), *(name for name in FILES if name in there)]:
            copy.write(name, source.read(name, ROOT_NOT_TRUSTED, limit=MAX_INDEX))
        yield copy.directory


def publish(folder: Path, directory: Path, more: Iterable[str] = ()) -> None:
    """Copy the finished files to their place: first `more` (below ``approvals``), then earlier roots, the keys, the root, its signatures.

    Raises ApprovalRefused: one cannot be written.
    """
    source, there = Tree(folder), Tree(directory)
    made = trust_files(source)
    for name in more:
        there.write(name, source.read(name, ROOT_NOT_TRUSTED, limit=MAX_INDEX))
    for name in sorted(made, key=lambda name: (not name.startswith("root/"), name != SIGNERS, name != ROOT)):
        if name == ROOT:
            for old in trust_files(there):
                if old not in made:
                    (directory / APPROVALS / old).unlink()
        there.write(name, source.read(name, ROOT_NOT_TRUSTED))


def trust_files(tree: Tree) -> list[str]:
    """Their names, below ``approvals``."""
    names = [name for name, _ in tree.names() if name in {ROOT, SIGNERS} or (name.startswith("root.") and name.endswith(".sig"))]
    return names + [f"root/{name}" for name, _ in tree.names("root")]


def drop_unfinished(folder: Path, *, replace: bool) -> None:
    """In a copy (`scratch_copy`), go back to the root before, where the present one is not complete. `replace`: the person asked for it.

    Raises ConfigError: it is not complete and nobody asked, or there is no earlier one.
    """
    tree = Tree(folder)
    if ROOT not in trust_files(tree):
        return
    state = standing(folder)
    if state.complete:
        return
    missing = [f"{side.missing} signatures for version {side.version} are missing" for side in state.sides if side.missing]
    why = f"version {state.root.version}, not complete: {'; '.join((*state.wrong, *missing))}"
    if not replace:
        raise ConfigError("root", why, "a complete one: sign it first (agentgate root sign), or drop it with --replace")
    version = state.root.version - 1
    if version and state.before is None:
        raise ConfigError("root", why, f"approvals/root/{version}.yaml to go on from: restore it from git")
    place = folder / APPROVALS
    for name in trust_files(tree):
        if "/" not in name and name != SIGNERS:
            (place / name).unlink()
    for name in trust_files(tree):
        if name.startswith(f"root/{version}."):
            (place / name).rename(place / f"root.{name.removeprefix(f'root/{version}.')}")
