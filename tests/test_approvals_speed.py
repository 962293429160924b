"""What verifying approvals costs, as a ratio to the bare signature checks in it, which is the same on any machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentgate.approvals import ApprovalRefused, Prover, status
from agentgate.approvals.loading import strict_judge
from agentgate.approvals.writing import approval, write_approval
from agentgate.intents.lexical import derive
from tests.approvals_team import ALICE, BOB, CAROL, PATH, WORKFLOW, Team, key

WORKFLOWS, MOST = 30, 4.0  # measured 2.1


def least(call: Callable[[], object]) -> float:
    """Processor seconds of the quickest of seven."""

    def once() -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    return min(once() for _ in range(7))


@pytest.mark.alone
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


def calls_of(work: Callable[[], object], *names: str) -> int:
    """How many functions, C ones included, are called (of these names, if any): the same on a busy machine."""
    count = 0

    def counted(frame: FrameType, event: str, what: Any) -> None:
        nonlocal count
        if event in {"call", "c_call"}:
            count += not names or (frame.f_code.co_name if event == "call" else what.__name__) in names

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def versions_signed(folder: Path, upto: int) -> Team:
    """A workflow with this many approved versions, under an index that names the first."""
    team = Team(folder)
    team.approve(ALICE, BOB)
    first = {name: team.approvals(name).read_bytes() for name in ("index.json", "index.json.sig")}
    for version in range(2, upto + 1):
        team.edit(f"version: {version - 1}", f"version: {version}")
        team.approve(ALICE, BOB)
    for name, data in first.items():
        team.approvals(name).write_bytes(data)
    return team


def test_loading_many_versions_that_no_index_names_looks_at_each_once(tmp_path: Path):
    team = versions_signed(tmp_path, 20)
    assert team.running() == 20
    team.known = {}
    assert calls_of(team.load, "scandir") < 20 + 8
    assert calls_of(team.load, "standing") < 5 * 20


def test_an_index_that_is_far_behind_is_renewed_before_more_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(approval, "MAX_UNLISTED", 3)
    team = versions_signed(tmp_path, 4)
    team.edit("version: 4", "version: 5")
    team.approve(ALICE, BOB, index=False)
    team.edit("version: 5", "version: 6")
    with pytest.raises(
        ApprovalRefused, match=r"STALE INDEX: approvals/index.json: .*version 1, and 4 stored since.*agentgate workflow index"
    ):
        team.draft(CAROL)
    team.index()
    team.approve(ALICE, BOB)
    assert team.running() == 6


def test_signing_costs_the_same_among_many_workflows_and_versions(tmp_path: Path):
    team = Team(tmp_path)

    def signed() -> int:
        calls = calls_of(lambda: team.approve(ALICE, index=False))
        calls += calls_of(lambda: status(team.directory, only=team.directory / PATH, now=team.now))
        team.approve(BOB)
        team.edit(f"version: {team.running()}", f"version: {(team.running() or 0) + 1}")
        return calls

    signed()
    few = signed()
    for number in range(100):
        (team.directory / f"shop/w{number}.yaml").write_text(WORKFLOW.replace("shop.refund", f"shop.w{number}"))
    for _ in range(8):
        signed()
    assert signed() < 1.2 * few
