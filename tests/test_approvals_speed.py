"""What verifying approvals costs, as a ratio to the bare signature checks in it, which is the same on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentgate.approvals import Prover, write_approval
from agentgate.approvals.loading import strict_judge
from agentgate.intents.lexical import derive
from tests.approvals_team import ALICE, BOB, CAROL, WORKFLOW, Team, key

WORKFLOWS, MOST = 30, 4.0  # measured 2.1


def least(call: Callable[[], object]) -> float:
    """Processor seconds of the quickest of seven."""

    def once() -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    return min(once() for _ in range(7))


def test_verifying_costs_little_beyond_the_signatures(tmp_path: Path):
    team = Team(tmp_path)
    for number in range(WORKFLOWS):
        name = f"shop/w{number}.yaml"
        (team.directory / name).write_text(WORKFLOW.replace("shop.refund", f"shop.w{number}"))
        for person in (ALICE, BOB, CAROL):
            write_approval(team.directory, team.draft(person, file=name), key(person))
    team.index()
    private = Ed25519PrivateKey.generate()
    signature, public = private.sign(b"x" * 150), private.public_key()

    def bare() -> None:
        for _ in range(3 * WORKFLOWS):
            public.verify(signature, b"x" * 150)

    def verified() -> None:
        asked = strict_judge(team.directory, team.root, derive=derive, now=team.now, prover=Prover())
        found = [asked.standing(id_, 1).approved for id_ in asked.tree.ids()]
        assert len(found) == WORKFLOWS
        assert all(approved is not None and len(approved.signers) == 3 for approved in found)

    ratio = least(verified) / least(bare)
    assert ratio < MOST, f"{ratio:.1f} times the bare signature checks"
