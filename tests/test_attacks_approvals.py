"""One reviewer alone against a gate that knows what was in force: nothing comes back, and nothing is replaced in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from agentgate.approvals import ApprovalRefused, sshsig
from agentgate.approvals._files import Tree, moment
from agentgate.approvals.index import load_revoked
from agentgate.approvals.root import load_root
from agentgate.approvals.writing import Reviewer, ReviewRule, new_root, renew_index
from agentgate.approvals.writing.trust import write_revoked
from agentgate.errors import WorkflowError
from agentgate.gate.gate import Gate
from agentgate.loading.definition import read_file
from agentgate.loading.source import on_disk
from tests.approvals_team import ALICE, BOB, CAROL, ID, PEOPLE, WORKFLOW, Team, key

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


# --- who may only renew --------------------------------------------------------------------------------------------------------------
CI, DAY = "ci@acme.example", 86_400.0
ROLES = {"root": (ALICE,), "index": (ALICE, BOB), "revoke": (ALICE, CAROL), "renew": (CI,)}


@pytest.fixture
def renewing(tmp_path: Path) -> Team:
    """A team whose CI may renew; version 1 is in force, and the gate knows it."""
    team = Team(tmp_path, people={name: [name] for name in (*PEOPLE, CI)}, roles=ROLES, rules=(RULE,))
    team.approve(ALICE, BOB)
    assert team.running() == 1
    return team


RULE = ReviewRule("**", PEOPLE, {"low": 1, "medium": 2, "high": 2})


def renew(team: Team, by: str = CI) -> float:
    """Renew at the team's time; returns the end in days from then."""
    return (renew_index(team.directory, key(by), root=team.root, now=team.now)[0] - team.now) / DAY


def sign_renewal(team: Team, *, by: str = CI, namespace: str = sshsig.RENEWAL_NAMESPACE, **change: object) -> None:
    """A renewal that the command would not write."""
    place = team.approvals("renewal.json")
    data = orjson.dumps(orjson.loads(place.read_bytes()) | change, option=orjson.OPT_SORT_KEYS)
    place.write_bytes(data)
    place.with_name("renewal.json.sig").write_text(key(by).sign(data, namespace))


def stale(team: Team) -> tuple[str, str]:
    with pytest.raises(ApprovalRefused) as raised:
        team.load()
    return str(raised.value.refused.reason), raised.value.refused.field


def test_an_index_is_carried_on_for_thirty_days_and_no_longer(renewing):
    began = renewing.now
    for day, left in ((5, 7), (11, 7), (17, 7), (23, 7), (27, 3), (29, 1)):
        renewing.now = began + day * DAY
        assert renew(renewing) == pytest.approx(left, abs=0.001)
        assert renewing.running() == 1
        assert (renewing.load().ends["index"] - renewing.now) / DAY == pytest.approx(left, abs=0.001)
    renewing.now = began + 30 * DAY + 1
    assert stale(renewing) == ("STALE INDEX", "expires")
    with pytest.raises(ApprovalRefused, match=r"STALE INDEX.*roles.index signed in the last thirty days"):
        renew(renewing)
    renewing.index()
    assert renewing.running() == 1


def test_a_chain_of_renewals_reaches_no_further_than_one(renewing):
    """Each names the index, never the renewal before it."""
    began = renewing.now
    renew(renewing)
    for day in (6, 12, 18, 24, 30):
        renewing.now = began + day * DAY
        sign_renewal(renewing, expires=moment(renewing.now + 6.9 * DAY))
        if day < 23:
            assert renewing.running() == 1
    assert stale(renewing) == ("STALE INDEX", "expires")


@pytest.mark.parametrize(
    ("change", "name", "field"),
    [
        ({"workflows": {}}, "TAMPERED", "workflows"),
        ({"revoked": {"serial": 1}}, "TAMPERED", "revoked"),
        ({"agentgate": "index/v1"}, "TAMPERED", "agentgate"),
        ({"expires": "2098-01-01T00:00:00Z"}, "STALE INDEX", "expires"),
        ({"signer": ALICE}, "UNAPPROVED", "signer"),
        ({"revoked_serial": 9}, "ROLLBACK", "serial"),
        ({"by": ALICE}, "UNAPPROVED", "key"),
        ({"by": ALICE, "signer": ALICE}, "UNAPPROVED", "signer"),
        ({"namespace": sshsig.INDEX_NAMESPACE}, "TAMPERED", "signature"),
    ],
)
def test_a_renewal_that_says_more_loads_nothing(renewing, change, name, field):
    renew(renewing)
    sign_renewal(renewing, **change)
    assert stale(renewing) == (name, field)


@pytest.mark.parametrize(
    "change", [{"workflows": {}}, {"serial": 2**52}, {"revoked": {"serial": 1, "digest": "sha256:" + "0" * 64, "up_to": {}}}]
)
def test_whoever_renews_signs_no_index(renewing, change: Mapping[str, object]):
    """Entries that go, a serial that shuts out every later index, other revocations."""
    place = renewing.approvals("index.json")
    for signer in (CI, ALICE):
        data = orjson.dumps(orjson.loads(place.read_bytes()) | change | {"signer": signer}, option=orjson.OPT_SORT_KEYS)
        place.write_bytes(data)
        place.with_name("index.json.sig").write_text(key(CI).sign(data, sshsig.INDEX_NAMESPACE))
        assert stale(renewing)[0] == "UNAPPROVED"
    with pytest.raises(ApprovalRefused, match=r"roles\.index"):
        renewing.index(CI)


def test_an_older_index_is_not_carried_on(renewing):
    """The renewal is of today; the index it names is not the newest that the gate saw."""
    names = ("index.json", "index.json.sig")
    old = {name: renewing.approvals(name).read_bytes() for name in names}
    renewing.edit("version: 1", "version: 2")
    renewing.edit(*NARROW)
    renewing.approve(CAROL)
    assert renewing.running() == 2
    for name, data in old.items():
        renewing.approvals(name).write_bytes(data)
    renew(renewing)
    assert stale(renewing) == ("ROLLBACK", "serial")


def test_a_renewal_of_another_index_changes_nothing(renewing):
    """CI went on from an older checkout; the person's newer index counts, and ends when it ends."""
    began, files = renewing.now, ("index.json", "index.json.sig")
    old = {name: renewing.approvals(name).read_bytes() for name in files}
    renewing.now = began + 6 * DAY
    renewing.index()
    new = {name: renewing.approvals(name).read_bytes() for name in files}
    renewing.now = began + 6.9 * DAY
    for checkout in (old, new):
        for name, data in checkout.items():
            renewing.approvals(name).write_bytes(data)
        if checkout is old:
            renew(renewing)
    assert renewing.running() == 1
    renewing.now = began + 13.5 * DAY
    assert stale(renewing) == ("STALE INDEX", "expires")


def test_a_bad_renewal_stops_nobody_from_signing_the_next_index(renewing):
    """Else they would start anew, and forget what was in force."""
    renewing.approvals("renewal.json").write_text("{}")
    assert stale(renewing)[0] == "TAMPERED"
    renew(renewing)
    sign_renewal(renewing, expires="2098-01-01T00:00:00Z")
    renewing.now += DAY
    renewing.index()
    assert renewing.running() == 1


def test_a_renewal_put_back_only_ends_earlier(renewing):
    began, names = renewing.now, ("renewal.json", "renewal.json.sig")
    renew(renewing)
    old = {name: renewing.approvals(name).read_bytes() for name in names}
    renewing.now = began + 6 * DAY
    renew(renewing)
    assert renewing.running() == 1
    for name, data in old.items():
        renewing.approvals(name).write_bytes(data)
    renewing.now = began + 7.1 * DAY
    assert stale(renewing) == ("STALE INDEX", "expires")


def test_a_revocation_holds_under_a_renewed_index_and_is_not_taken_back_for_a_new_gate(renewing):
    names = ("revoked.yaml", "revoked.yaml.sig")
    old = {name: renewing.approvals(name).read_bytes() for name in names}
    renewing.revoke(1)
    renewing.now += 6 * DAY
    renew(renewing)
    assert renewing.running() is None
    renewing.known = {}  # a gate that never saw the revocation
    for name, data in old.items():
        renewing.approvals(name).write_bytes(data)
    assert stale(renewing) == ("ROLLBACK", "serial")
    with pytest.raises(ApprovalRefused):  # and no root of their own
        new_root(renewing.directory, [Reviewer(CI, (key(CI).public_key,))], expires="2099-01-01", roles={"renew": (CI,)})


def test_the_end_of_an_index_hides_no_other_revocations(renewing):
    """`workflow check` takes the end for a matter of the calendar: exit code 0. Another list under the same serial is none."""
    tree = Tree(renewing.directory)
    trusted = load_root(tree, renewing.root, renewing.now)
    renewing.revoke(1)
    serial = load_revoked(trusted).serial
    renewing.index()
    write_revoked(tree, trusted.root, key(ALICE), serial, {})
    renewing.now += 8 * DAY
    assert stale(renewing) == ("TAMPERED", "digest")


def test_nothing_is_renewed_beside_older_revocations(renewing):
    """Else the machine would sign a list that every gate refuses, and nobody would hear of it before the end."""
    names = ("revoked.yaml", "revoked.yaml.sig")
    old = {name: renewing.approvals(name).read_bytes() for name in names}
    renewing.revoke(1)
    renewing.index()
    for name, data in old.items():
        renewing.approvals(name).write_bytes(data)
    with pytest.raises(ApprovalRefused) as refused:
        renew(renewing)
    assert (str(refused.value.refused.reason), refused.value.refused.field) == ("ROLLBACK", "serial")
    assert not renewing.approvals("renewal.json").exists()


@pytest.mark.parametrize("other", ["root", "index", "revoke", "rule", "team"])
def test_whoever_renews_does_nothing_else(tmp_path, other):
    """Their key lies where a program can use it."""
    roles = ROLES | ({other: (ALICE, CI)} if other in ROLES else {})
    rule = ReviewRule("**", (ALICE, CI), {"low": 1}) if other == "rule" else RULE
    people = [Reviewer(name, (key(name).public_key,), ("leads",) if (name, other) == (CI, "team") else ()) for name in (*PEOPLE, CI)]
    with pytest.raises(ApprovalRefused, match=r"roles\.renew"):
        new_root(tmp_path, people, expires="2099-01-01", roles=roles, rules=(rule,))


def test_a_key_that_renews_approves_nothing_and_is_good_for_nothing_else(renewing):
    text = renewing.approvals("allowed_signers").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(CI)]
    assert 'namespaces="agentgate-renewal"' in line
    renewing.edit("version: 1", "version: 2")
    with pytest.raises(ApprovalRefused, match="namespaces"):
        renewing.approve(CI)
    for person in PEOPLE:
        with pytest.raises(ApprovalRefused, match=r"roles\.renew"):
            renew(renewing, person)


def test_one_person_alone_may_have_a_machine_that_renews(tmp_path):
    people, rule = {ALICE: [ALICE], CI: [CI]}, ReviewRule("**", (ALICE,), {"low": 1})
    team = Team(tmp_path, people=people, roles={"renew": (CI,)}, rules=(rule,), solo=True)
    team.edit("risk: high", "risk: low")
    team.approve(ALICE, proposer=ALICE)
    team.now += 6 * DAY
    renew(team)
    team.now += 6 * DAY
    assert team.running() == 1
    with pytest.raises(ApprovalRefused, match="solo"):
        team.new_root(people={**people, BOB: [BOB]}, roles={"renew": (CI,)}, rules=(rule,), solo=True)
