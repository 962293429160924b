"""One reviewer alone against a gate that knows what was in force: nothing comes back, and nothing is replaced in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agentgate.errors import WorkflowError
from agentgate.gate.gate import Gate
from agentgate.loading.definition import read_file
from agentgate.loading.source import on_disk
from tests.approvals_team import ALICE, BOB, CAROL, ID, WORKFLOW, Team

NARROW = '"10.00", "20.00"', '"10.00"'


@pytest.fixture
def approved(tmp_path: Path) -> Team:
    """Version 1 by two; version 2, which only narrows it, by one; the index does not name version 2 yet."""
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    team.edit("version: 1", "version: 2")
    team.edit(*NARROW)
    team.approve(CAROL, index=False)
    assert team.running() == 2
    return team


def test_a_version_that_was_in_force_is_not_replaced_under_its_own_number(approved):
    """What version 2 took away comes back as another version 2: against version 1 it only narrows, so one signature would do."""
    shutil.rmtree(approved.approvals(f"{ID}/2"))
    approved.edit(*reversed(NARROW))
    approved.approve(CAROL, index=False)
    assert approved.running() is None
    assert ("TAMPERED", "digest") in approved.refusals()
    approved.edit("version: 2", "version: 3")
    approved.approve(CAROL, index=False)
    assert approved.running() is None


def test_a_version_that_was_in_force_stays_in_force(approved):
    approved.index()
    assert approved.running() == 2
    approved.edit("version: 2", "version: 3")
    approved.approve(CAROL, index=False)
    assert approved.running() == 3


def test_a_role_that_grew_is_no_narrowing(tmp_path):
    """What bounds an upstream credential stands in roles.yaml, and in no field that a comparison of two workflows sees."""
    team = Team(tmp_path)
    roles = team.directory / "roles.yaml"
    roles.write_text("agentgate: roles/v1\nroles:\n  support: [refunds, look]\n")
    team.edit("    redeem: wrapper\n", "    redeem: wrapper\n    scope: [look]\n")
    team.file.write_text(team.file.read_text() + "upstream:\n  payments.refund: {broker: vault, role: writer, narrower_than: support}\n")
    team.approve(ALICE, BOB)
    team.edit("version: 1", "version: 2")
    roles.write_text("agentgate: roles/v1\nroles:\n  support: [refunds, look, admin]\n")
    assert [need.needed for need in team.draft(CAROL).needs] == [2]
    team.approve(CAROL)
    assert team.running() == 1
    team.approve(ALICE)
    assert team.running() == 2
    team.edit("version: 2", "version: 3")
    roles.write_text("agentgate: roles/v1\nroles:\n  support: [refunds, look]\n")
    team.approve(CAROL)
    assert team.running() == 3


def test_a_name_that_is_no_text_stops_no_gate(tmp_path):
    """Git keeps any bytes as a file's name, and a refusal names the file in the audit record."""
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    other = team.approvals(f"{ID}/2")
    other.mkdir()
    (other / "definition.json").write_bytes(team.approvals(f"{ID}/1/definition.json").read_bytes().replace(b'"version":1', b'"version":2'))
    for place in (os.fsencode(other) + b"/\xff.json", os.fsencode(team.directory) + b"/shop/\xff.yaml"):
        with open(place, "w") as file:  # noqa: PTH123 - no Path holds such a name plainly
            file.write(WORKFLOW.replace("shop.refund", "shop.other"))
    assert versions(team) == [1]


@pytest.mark.parametrize("target", ["loop.yaml", "nothing.yaml", "/dev/zero", "..", "/etc/hostname"])
def test_a_link_stops_no_gate_and_no_signer(tmp_path, target):
    team = Team(tmp_path)
    (team.directory / "shop/loop.yaml").symlink_to(target)
    (team.directory / "a.yaml").symlink_to(target)
    for person in (ALICE, BOB):
        team.approve(person, file=ID)
    assert versions(team) == [1]


def versions(team: Team) -> list[int]:
    keys, audit = team.directory.parent / "keys", team.directory.parent / "audit"
    with Gate.open(team.directory, root=team.root, issuer="https://gate.example", keys=keys, audit=str(audit)) as gate:
        return [workflow.version for workflow in gate.catalog]


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/hostname", "../../elsewhere.yaml"])
def test_roles_and_tests_are_read_from_nowhere_else(tmp_path, target):
    """A link in a change must neither keep a gate busy for ever nor show a reviewer's own files to whoever wrote it."""
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    (tmp_path / "elsewhere.yaml").write_text("secret: token")
    (team.directory / "shop/refund.test.yaml").symlink_to(target)
    if target != "/dev/zero":  # no file, so there are no tests
        with pytest.raises(WorkflowError, match="link out"):
            on_disk(team.file)
    (team.directory / "roles.yaml").symlink_to(target)
    with pytest.raises(WorkflowError, match="link out"):
        versions(team)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), tmp_path):
        with pytest.raises(WorkflowError):
            read_file(path)


def test_another_spelling_hides_no_second_name_of_the_proposer(tmp_path):
    team = Team(tmp_path, people={ALICE: ["shared", ALICE], BOB: [BOB], "dave2": ["shared"]})
    team.approve(ALICE, BOB, proposer="DAVE2")
    assert team.running() == 1
    team.resign(ALICE, by="shared")  # the proposer's own key, under Alice's name
    assert team.running() is None


def test_what_was_removed_does_not_come_back_in_an_old_version(approved, tmp_path):
    """The workflow is removed with all its approvals, the index is renewed; then its first version is put back as it was signed."""
    approved.index()
    shutil.copytree(approved.approvals(f"{ID}/1"), tmp_path / "kept")
    shutil.rmtree(approved.approvals(ID))
    text = approved.file.read_text()
    approved.file.unlink()
    assert [name for name, _ in approved.refusals()] == ["UNAPPROVED"]
    approved.now += 60
    approved.index()
    approved.known = {}  # a new gate
    assert approved.load().workflows == {}
    assert approved.refusals() == []  # nobody is told for ever of what is gone
    shutil.copytree(tmp_path / "kept", approved.approvals(f"{ID}/1"))
    approved.file.write_text(text.replace("version: 2", "version: 1").replace(*reversed(NARROW)))
    approved.known = {}
    assert approved.load().workflows == {}
    assert {name for name, _ in approved.refusals()} == {"ROLLBACK"}
