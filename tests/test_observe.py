"""A version that only observes: beside the one in force it changes nothing; alone it lets nothing run that could do harm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentgate.approvals import ApprovalRefused, Loaded, status
from agentgate.approvals.opening import Opening
from agentgate.audit import MemoryAudit
from agentgate.intents.lexical import derive
from agentgate.shell.drive import drive
from agentgate.stores import open_store
from agentgate.token.signing import KeyRing
from tests.approvals_team import ALICE, BOB, CAROL, ID, Team


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


@pytest.fixture
def beside(team: Team) -> Team:
    """Version 1 is enforced, and version 2, with a lower bound, observes."""
    team.approve(ALICE, BOB)
    observe(team)
    team.approve(ALICE, BOB)
    return team


def observe(team: Team, version: int = 2) -> None:
    team.edit(f"version: {version - 1}", f"version: {version}")
    team.edit("risk: high", "risk: high\nmode: observe")
    team.edit('"10.00", "20.00"', '"10.00"')


def enforce(team: Team, version: int = 3) -> None:
    team.edit(f"version: {version - 1}", f"version: {version}")
    team.edit("\nmode: observe", "")


# --- which version counts ----------------------------------------------------------------------------------------------------
def test_an_observed_version_is_loaded_beside_the_one_in_force(beside: Team) -> None:
    for _ in range(2):  # what was in force before is remembered
        loaded = beside.load()
        assert (loaded.workflows[ID].version, loaded.observed[ID].version, loaded.refused) == (1, 2, ())
    assert loaded.marks[ID] == 1


def test_an_observe_version_that_nobody_signed_observes_nothing(team: Team) -> None:
    team.approve(ALICE, BOB)
    observe(team)
    loaded = team.load()
    assert (loaded.workflows[ID].version, loaded.observed) == (1, {})
    team.approve(ALICE)  # one of two
    loaded = team.load()
    assert (loaded.workflows[ID].version, loaded.observed) == (1, {})
    assert [each.got for each in loaded.refused] == ["1 of 2 signatures for **"]


def test_what_observes_takes_the_whole_quorum_however_narrow_it_is(team: Team) -> None:
    team.approve(ALICE, BOB)
    observe(team)
    assert {need.needed for need in team.draft(ALICE).needs} == {2}


def test_an_observed_version_never_comes_into_force(beside: Team, tmp_path: Path) -> None:
    opening = Opening(
        beside.directory,
        beside.root,
        gate="https://gate.example",
        ring=KeyRing.open(tmp_path / "k"),
        kept=tmp_path / "k",
        log=MemoryAudit(),
        derive=derive,
    )
    with pytest.raises(ApprovalRefused) as refused:  # whoever writes its number into a run's record
        opening.other(ID, 2)
    assert (refused.value.refused.field, refused.value.refused.expected) == ("version", "an approved version that is enforced")
    assert opening.other(ID, 1).newest


def test_what_was_observed_is_no_base_for_one_signature(beside: Team) -> None:
    """Enforcing what was only observed changes what is enforced: it is compared with what was."""
    beside.edit('["10.00"]', '["10.00", "20.00", "30.00"]')
    beside.edit("version: 2", "version: 3")
    beside.approve(ALICE, BOB)
    assert beside.load().observed[ID].version == 3
    enforce(beside, 4)
    draft = beside.draft(ALICE)
    assert draft.old is not None
    assert (draft.old.version, draft.statement.previous) == (1, draft.old.digest)
    beside.approve(CAROL)
    assert beside.running() == 1
    beside.approve(ALICE)
    assert beside.running() == 4
    assert beside.load().observed == {}  # an older one observes no more


def test_the_index_keeps_the_version_in_force_as_the_lowest(beside: Team) -> None:
    index = orjson.loads(beside.approvals("index.json").read_bytes())
    assert index["workflows"][ID]["version"] == 1


def test_enforce_turned_into_observe_in_the_stored_definition_is_not_what_was_signed(beside: Team) -> None:
    stored = beside.approvals(f"{ID}/1/definition.json")
    stored.write_bytes(stored.read_bytes().replace(b'"mode":"enforce"', b'"mode":"observe"'))
    loaded = beside.load()
    assert ID not in loaded.workflows
    assert loaded.observed == {}  # nothing is observed where nothing is in force any more


@pytest.mark.parametrize("gone", ["deleted", "revoked"])
def test_without_the_version_that_was_enforced_what_observes_does_not_run_alone(beside: Team, gone: str) -> None:
    assert beside.running() == 1
    if gone == "revoked":
        beside.revoke(1)
    else:
        for each in beside.approvals(f"{ID}/1").iterdir():
            each.unlink()
        beside.approvals(f"{ID}/1").rmdir()
    for known in ({}, beside.known):
        beside.known = known
        loaded = beside.load()
        assert (loaded.workflows, loaded.observed) == ({}, {})
    beside.index()  # nor once an index says so
    loaded = beside.load()
    assert (loaded.workflows, loaded.observed) == ({}, {})
    assert [refused.data["version"] for refused in loaded.refused][-1:] == [2]


def test_a_version_that_was_revoked_was_enforced_whatever_the_index_lists(team: Team) -> None:
    team.index()
    team.approve(ALICE, BOB, index=False)
    team.revoke(1)
    observe(team)
    team.approve(ALICE, BOB)
    assert orjson.loads(team.approvals("index.json").read_bytes())["workflows"] == {}
    loaded = team.load()
    assert (loaded.workflows, loaded.observed) == ({}, {})


# --- alone ----------------------------------------------------------------------------------------------------------------------
def test_a_workflow_that_was_never_enforced_runs_observing(team: Team) -> None:
    team.edit("risk: high", "risk: high\nmode: observe")
    team.approve(ALICE, BOB)
    for _ in range(2):
        loaded = team.load()
        assert loaded.refused == ()
        assert loaded.workflows[ID].observe
        assert loaded.observed == {}
        assert ID not in loaded.marks


@pytest.mark.parametrize("last", [2, 3], ids=["alone", "beside"])
def test_an_older_version_that_observed_does_not_come_back(team: Team, tmp_path: Path, last: int) -> None:
    """Where nothing is enforced, it might let tools run that its reviewers took out of the newer one."""
    if last == 3:
        team.approve(ALICE, BOB)
        observe(team)
    else:
        team.edit("risk: high", "risk: high\nmode: observe")
    team.approve(ALICE, BOB)
    team.edit(f"version: {last - 1}", f"version: {last}")
    team.approve(ALICE, BOB)

    def observed(opening: Opening) -> tuple[int, list[str]]:
        loaded: Loaded = drive(opening.steps(), store, MemoryAudit())
        found = loaded.observed.get(ID) or loaded.workflows.get(ID)
        return (found.version if found and found.observe else 0), [each.expected for each in loaded.refused if each.field == "version"]

    store, ring = open_store("memory://"), KeyRing.ephemeral()
    common: Any = {"gate": "https://gate.example", "ring": ring, "log": MemoryAudit(), "derive": derive}
    for name in ("one", "two"):
        (tmp_path / name).mkdir(mode=0o700)
    one, two = (Opening(team.directory, team.root, kept=tmp_path / name, **common) for name in ("one", "two"))
    assert observed(one) == (last, [])
    shutil.rmtree(team.approvals(f"{ID}/{last}"))
    team.edit(f"version: {last}", f"version: {last - 1}")
    for opening in (one, two):  # the second knows by the store alone
        assert observed(opening) == (0, [f"version {last} or later, which observed before"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("effect: write", "effect: destructive"),
        ("effect: write", "effect: egress"),
        (
            "redeem: wrapper",
            f"redeem: server\n    audience: https://pay.example\n    scope: [refund]\n    definition: sha256:{'0' * 64}",
        ),
        ("\ntools:", "\nupstream: {payments.refund: {broker: vault, role: pay, duration: 60s}}\ntools:"),
    ],
    ids=["destructive", "egress", "server", "upstream"],
)
def test_a_tool_that_could_do_harm_is_refused_by_its_name_where_nothing_is_enforced(team: Team, old: str, new: str) -> None:
    team.edit("risk: high", "risk: high\nmode: observe")
    team.edit(old, new)
    team.approve(ALICE, BOB)
    loaded = team.load()
    assert (loaded.workflows, loaded.observed) == ({}, {})
    assert (loaded.refused[0].field, loaded.refused[0].got) == ("tools", "payments.refund")
    (standing,) = status(team.directory, team.root)
    assert (standing.in_force, standing.refused) == (None, loaded.refused[0])
