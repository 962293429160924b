"""Approvals for demonstrations and tests, by people whose keys anyone can derive.

Rules: nothing here protects anything. The keys are derived from a published phrase, the root
says `demo: true`, and a gate warns of it at every start. What does not expire (root,
signatures, revocations) is committed with the workflows; what does (the index, after seven
days) is made in a copy by `prepare`, so that a clone works in any year.

``python -m agentgate.testing.demo_approvals [DIRECTORY ...]`` signs directories again after
their workflows changed.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from agentgate.approvals import root_digest
from agentgate.approvals.writing import (
    KeySigner,
    Reviewer,
    ReviewRule,
    new_root,
    statement,
    write_approval,
    write_index,
)
from agentgate.loading.catalog import APPROVALS, workflow_files

PHRASE = "agentgate demo key, known to everybody: "
PEOPLE = ("alice@demo.example", "bob@demo.example", "carol@demo.example")
TEAMS = {name: ("demo",) if name == PEOPLE[0] else ("demo", "support-leads") for name in PEOPLE}
PROPOSER = "dana@demo.example"
FOREVER = "2999-12-31"
COMMAND = "python -m agentgate.testing.demo_approvals"


def signer(person: str) -> KeySigner:
    """The demo key of this name, which anyone can derive."""
    return KeySigner.from_seed(seed(person))


def seed(person: str) -> bytes:
    """What the demo key of this name is made of."""
    return hashlib.sha256((PHRASE + person).encode()).digest()


def sign(directory: Path | str) -> str:
    """Approve every workflow of a directory anew: two people sign each, and its ``approvals``
    are replaced. Always the same bytes.

    Returns:
        The digest of the demo root.

    Raises:
        WorkflowError: a workflow does not load.
    """
    folder = Path(directory)
    shutil.rmtree(folder / APPROVALS, ignore_errors=True)
    people = [Reviewer(name, (signer(name).public_key,), TEAMS[name]) for name in PEOPLE]
    rule = ReviewRule("**", ("team:demo",), {"low": 1, "medium": 2, "high": 2})
    root = new_root(
        folder, people, expires=FOREVER, rules=(rule,), demo=True, signer=signer(PEOPLE[0])
    )
    for path in workflow_files(folder):
        for person in PEOPLE[:2]:
            key = signer(person)
            write_approval(
                folder,
                statement(folder, path, signer=key, proposer=PROPOSER, not_after=FOREVER),
                key,
            )
    write_index(folder, signer(PEOPLE[0]))  # which also makes the revocations
    for ending in ("index.json", "index.json.sig"):
        (folder / APPROVALS / ending).unlink()
    return root


def prepare(directory: Path | str, now: float | None = None) -> str:
    """Make a fresh index of the approvals in a copy of such a directory, as of `now` (POSIX
    seconds; None: the system clock).

    Returns:
        The digest of its root, for `Gate.open`.
    """
    write_index(directory, signer(PEOPLE[0]), now=now, anew=True)  # none is committed
    return root_digest(directory)


def main(directories: list[str]) -> None:
    """Sign the given directories, or ``workflows`` and the example's."""
    own = "workflows examples/payment-agent/workflows examples/mcp/workflows examples/chat-backend/workflows"
    for directory in directories or own.split():
        print(f"{directory}: root {sign(directory)}")  # noqa: T201 - a command prints


if __name__ == "__main__":
    main(sys.argv[1:])
