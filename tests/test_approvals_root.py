"""Trust files: the root and its rotation, the index, the revocations. One that is bad or absent loads nothing."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentgate.approvals import ApprovalRefusal, ApprovalRefused, root_digest, sshsig, status
from agentgate.approvals._files import Tree
from agentgate.approvals.loading import lenient_judge, strict_judge
from agentgate.approvals.opening import chunks
from agentgate.approvals.root import Root, load_root
from agentgate.approvals.writing import Reviewer, ReviewRule, new_root, sign_root, write_index
from agentgate.errors import ConfigError, NameRefused, StoreUnavailable
from agentgate.intents.lexical import derive
from agentgate.stores import ops
from tests.approvals_team import ALICE, BOB, CAROL, DAVE, FOREVER, ID, PEOPLE, Team, key

R = ApprovalRefusal


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team.signed(tmp_path, threshold=2, signers=(ALICE, BOB))


def refused(team: Team, root: str | None = None) -> ApprovalRefused:
    with pytest.raises(ApprovalRefused) as raised:
        team.load(root)
    return raised.value


# --- the pin -----------------------------------------------------------------------------------------------------------------
def test_the_pinned_root_is_trusted(team):
    assert team.running() == 1


@pytest.mark.parametrize("pin", ["", "sha256:", "sha256:" + "A" * 64, "0" * 64, "sha1:00" + "0" * 64, "sha256:" + "0" * 65, None, 7])
def test_a_pin_that_is_no_digest_is_a_config_error(team, pin):
    with pytest.raises(ConfigError, match="root"):
        strict_judge(team.directory, pin, derive=derive, now=team.now)


def test_another_root_than_the_pinned_one_is_not_trusted(team):
    error = refused(team, "sha256:" + "0" * 64)
    assert (error.refused.reason, error.refused.field) == (R.ROOT_NOT_TRUSTED, "digest")


def test_a_root_swapped_for_ones_own_is_not_trusted(team):
    """Mallory, in a pull request: a root of her own that is properly signed by herself, and approvals by it."""
    for name in ("index.json", "index.json.sig", "revoked.yaml", "revoked.yaml.sig", "root.yaml"):
        team.approvals(name).unlink()
    for sig in team.approvals().glob("root.*.sig"):
        sig.unlink()
    new_root(team.directory, [Reviewer("mallory", (key("mallory").public_key,))], expires=FOREVER, signer=key("mallory"))
    write_index(team.directory, key("mallory"), now=team.now)
    assert root_digest(team.directory) != team.root
    assert refused(team).refused.reason is R.ROOT_NOT_TRUSTED


def test_one_changed_byte_of_the_root_is_not_trusted(team):
    place = team.approvals("root.yaml")
    place.write_text(place.read_text().replace("high: 2", "high: 1"))
    assert refused(team).refused.reason is R.ROOT_NOT_TRUSTED


def test_a_comment_in_the_root_counts_too(team):
    place = team.approvals("root.yaml")
    place.write_text("# harmless\n" + place.read_text())
    assert refused(team).refused.reason is R.ROOT_NOT_TRUSTED


@pytest.mark.parametrize("name", ["root.yaml", "allowed_signers", "index.json", "index.json.sig", "revoked.yaml", "revoked.yaml.sig"])
@pytest.mark.parametrize("how", ["absent", "empty", "binary", "text", "large"])
def test_a_bad_or_absent_trust_file_loads_nothing(team, name, how):
    place = team.approvals(name)
    if how == "absent":
        place.unlink()
    else:
        place.write_bytes({"empty": b"", "binary": b"\xff\xfe\x00", "text": b"hello\n", "large": b"#" * 40_000_000}[how])
    error = refused(team)
    assert name in error.refused.data["file"] or "root" in error.refused.data["file"]
    assert error.refused.data["workflow"] == ""


# --- signatures of the root ----------------------------------------------------------------------------------------------------
def test_a_root_below_its_own_threshold_is_not_trusted(team):
    team.approvals(f"root.{BOB}.sig").unlink()
    error = refused(team)
    assert (error.refused.field, error.refused.got) == ("signatures", "1 by signers of root version 1 over version 1")


def test_a_root_signature_in_another_namespace_is_not_trusted(team):
    data = team.approvals("root.yaml").read_bytes()
    team.approvals(f"root.{BOB}.sig").write_text(key(BOB).sign(data, sshsig.NAMESPACE))
    assert "namespace" in refused(team).refused.got


def test_a_root_signature_by_somebody_elses_key_is_not_trusted(team):
    data = team.approvals("root.yaml").read_bytes()
    team.approvals(f"root.{BOB}.sig").write_text(key(CAROL).sign(data, sshsig.ROOT_NAMESPACE))
    assert refused(team).refused.field == "key"


def test_a_signer_outside_roles_root_cannot_sign_it(tmp_path):
    team = Team(tmp_path, roles={"root": (ALICE,)})
    with pytest.raises(ApprovalRefused, match=r"roles\.root"):
        sign_root(team.directory, key(CAROL))


def test_one_key_under_two_names_signs_a_root_once(tmp_path):
    team = Team(tmp_path, people={ALICE: ["shared"], BOB: ["shared"], CAROL: [CAROL]}, threshold=2)
    data = team.approvals("root.yaml").read_bytes()
    for person in (ALICE, BOB):
        team.approvals(f"root.{person}.sig").write_text(key("shared").sign(data, sshsig.ROOT_NAMESPACE))
    with pytest.raises(ApprovalRefused, match="got 1 by signers"):
        load_root(Tree(team.directory), team.root, team.now)


def test_an_expired_root_loads_nothing(team):
    team.now += 100 * 365 * 86400
    error = refused(team)
    assert (error.refused.reason, error.refused.data["file"], error.refused.field) == (R.EXPIRED, "approvals/root.yaml", "expires")


def test_other_allowed_signers_than_the_root_says_load_nothing(team):
    place = team.approvals("allowed_signers")
    place.write_text(place.read_text() + f"{DAVE} {key('mallory').public_key.line}\n")
    error = refused(team)
    assert (error.refused.reason, error.refused.data["file"]) == (R.TAMPERED, "approvals/allowed_signers")


# --- rotation --------------------------------------------------------------------------------------------------------------------
def rotate(team: Team, *signers: str, **more: Any) -> str:
    return team.new_root(signers=signers, threshold=2, **more)


def test_a_rotation_signed_by_old_and_new_is_followed_from_the_old_pin(team):
    rotate(team, ALICE, BOB)
    team.index()
    assert team.running() == 1
    assert team.load(team.pinned()).workflows  # and a gate pinned to the new one needs no history


def test_a_chain_of_rotations_is_followed(team):
    first = team.root
    for people in ((ALICE, BOB), (BOB, CAROL), (CAROL, DAVE)):
        rotate(team, *people)
    team.index()
    assert team.load(first).root.version == 4


def test_a_rotation_that_the_old_root_did_not_sign_is_not_trusted(team):
    people = {"mallory": ["mallory"], "eve": ["eve"]}
    rotate(team, "mallory", "eve", people=people, rules=(ReviewRule("**", ("mallory",), {"high": 1}),))
    error = refused(team)
    assert error.refused.got == "0 by signers of root version 1 over version 2"


def test_a_rotation_that_the_old_root_signed_below_its_threshold_is_not_trusted(team):
    rotate(team, ALICE, CAROL, people={ALICE: [ALICE], CAROL: [CAROL]})
    assert team.load().root.version == 2
    team.approvals(f"root.{CAROL}.sig").unlink()
    assert refused(team).refused.field == "signatures"


def test_a_rotation_to_new_people_needs_both(team):
    people = {"erin": ["erin"], "frank": ["frank"]}
    rules = (ReviewRule("**", ("erin", "frank"), {"low": 1, "medium": 1, "high": 2}),)
    rotate(team, "erin", "frank", people=people, rules=rules)
    assert refused(team).refused.got == "0 by signers of root version 1 over version 2"
    for person in (ALICE, BOB):
        sign_root(team.directory, key(person))
    team.known = {}
    write_revoked_and_index(team, "erin")
    loaded = team.load()
    assert loaded.root.version == 2
    assert loaded.workflows == {}  # nobody of the new root approved it
    assert loaded.refused[0].reason is R.UNAPPROVED


def write_revoked_and_index(team: Team, person: str) -> None:
    """The old ones are signed by people who are gone."""
    for name in ("index.json", "index.json.sig", "revoked.yaml", "revoked.yaml.sig"):
        team.approvals(name).unlink()
    write_index(team.directory, key(person), now=team.now)


def test_rotating_the_root_does_not_void_approvals(team):
    rotate(team, ALICE, BOB)
    team.index()
    assert team.running() == 1


def test_a_gap_in_the_history_is_not_trusted(team):
    rotate(team, ALICE, BOB)
    rotate(team, ALICE, BOB)
    team.approvals("root/2.yaml").unlink()
    assert refused(team).refused.reason is R.ROOT_NOT_TRUSTED


def test_a_changed_root_in_the_history_is_not_trusted(team):
    rotate(team, ALICE, BOB)
    rotate(team, ALICE, BOB)
    place = team.approvals("root/2.yaml")
    place.write_text(place.read_text() + "# changed\n")
    assert refused(team).refused.reason is R.ROOT_NOT_TRUSTED


def test_a_root_in_the_history_under_another_number_is_not_trusted(team):
    rotate(team, ALICE, BOB)
    rotate(team, ALICE, BOB)
    team.approvals("root/1.yaml").rename(team.approvals("root/2.yaml"))
    assert refused(team).refused.reason is R.ROOT_NOT_TRUSTED


def test_an_older_root_put_back_is_a_rollback(team):
    old = {p: p.read_bytes() for p in team.approvals().iterdir() if p.is_file()}
    rotate(team, ALICE, BOB)
    team.index()
    team.load()
    for place, data in old.items():
        place.write_bytes(data)
    error = refused(team)
    assert (error.refused.reason, error.refused.data["file"], error.refused.field) == (R.ROLLBACK, "approvals/root.yaml", "version")


# --- what a root may say -----------------------------------------------------------------------------------------------------------
ROOT = """
agentgate: root/v1
version: 1
expires: "2099-01-01"
threshold: 1
allowed_signers: sha256:{zeros}
people:
  alice: {{keys: ["{key}"], teams: [payments]}}
  bob: {{keys: ["{other}"]}}
roles: {{root: [alice], index: [alice], revoke: [alice]}}
reviews: [{{path: "**", by: [alice, bob], signatures: {{low: 1}}}}]
""".format(zeros="0" * 64, key=key("alice").public_key.fingerprint, other=key("bob").public_key.fingerprint).lstrip()


def test_a_root_that_is_read():
    root = Root.parse(ROOT.encode(), "root.yaml")
    assert root.person(key("alice").public_key) == "alice"
    assert root.person(key("carol").public_key) is None
    assert [need.needed for need in root.needs(("a.yaml",), ("low",), ())] == [1]
    assert [need.needed for need in root.needs(("a.yaml",), ("low", "high"), ())] == [0]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("root/v1", "root/v2", "agentgate"),
        ("version: 1", "version: 0", "version"),
        ("version: 1", 'version: "1"', "version"),
        ("version: 1", "version: true", "version"),
        ("version: 1\n", "", "version"),
        ('"2099-01-01"', '"2099-13-01"', "expires"),
        ('"2099-01-01"', "never", "expires"),
        ('expires: "2099-01-01"\n', "", "expires"),
        ("threshold: 1", "threshold: 0", "threshold"),
        ("threshold: 1", "threshold: 2", "threshold"),
        ("sha256:", "sha1:", "allowed_signers"),
        ("alice: {keys", "definition: {keys", "people.definition"),
        ("alice: {keys", "../alice: {keys", "people.../alice"),
        ("SHA256:", "MD5:", "people.alice.keys[0]"),
        ("teams: [payments]", "tenants: []", "people.alice.tenants"),
        ("teams: [payments]", "tenants: ['*']", "people.alice.tenants[0]"),
        ("teams: [payments]", "tenants: acme", "people.alice.tenants"),
        ("teams: [payments]", "tenant: [acme]", "people.alice.tenant"),
        ("index: [alice]", "index: [carol]", "roles.index"),
        ("index: [alice]", "index: []", "roles.index"),
        ("index: [alice], ", "", "roles.index"),
        ("by: [alice, bob]", "by: [team:nobody]", "reviews[0].by"),
        ("by: [alice, bob]", "by: []", "reviews[0].by"),
        ("{low: 1}", "{low: 3}", "reviews[0].signatures.low"),
        ("{low: 1}", "{low: 0}", "reviews[0].signatures.low"),
        ("{low: 1}", "{}", "reviews[0].signatures"),
        ("{low: 1}", "{extreme: 1}", "reviews[0].signatures.extreme"),
        ("threshold: 1", "threshold: 1\nsolo: true", "solo"),
        ("threshold: 1", "threshold: 1\ndemo: 1", "demo"),
        ("threshold: 1", "threshold: 1\nthreshold: 2", "threshold"),
        ("threshold: 1", "threshold: 1\ntreshold: 2", "treshold"),
        ("threshold: 1", "threshold: &a 1", "threshold"),
    ],
)
def test_a_root_that_says_something_else_is_not_trusted(old, new, field):
    assert old in ROOT
    with pytest.raises(ApprovalRefused) as raised:
        Root.parse(ROOT.replace(old, new, 1).encode(), "root.yaml")
    assert (raised.value.refused.reason, raised.value.refused.field) == (R.ROOT_NOT_TRUSTED, field)
    assert re.match(r"root\.yaml(:\d+)?$", raised.value.refused.data["file"])


def test_a_team_signs_by_its_name():
    root = Root.parse(ROOT.replace("by: [alice, bob]", "by: [team:payments]").encode(), "root.yaml")
    assert root.needs(("a",), ("low",), ())[0].by == {"alice"}


# --- solo ----------------------------------------------------------------------------------------------------------------------------
def test_a_solo_root_lets_one_person_approve_low_risk_only(tmp_path):
    team = Team(tmp_path, people={ALICE: [ALICE]}, solo=True)
    team.approve(ALICE, proposer=ALICE)
    assert (team.running(), team.refusal().got) == (None, "risk high")
    team.edit("risk: high", "risk: low")
    team.approve(ALICE, proposer=ALICE)
    assert team.running() == 1
    assert team.load().root.solo


def test_a_solo_root_approves_low_risk_whatever_its_rules_say(tmp_path):
    team = Team(tmp_path, people={ALICE: [ALICE]}, solo=True, rules=(ReviewRule("**", (ALICE,), {"low": 1, "high": 1}),))
    team.approve(ALICE, proposer=ALICE)
    assert (team.running(), team.refusal().got) == (None, "risk high")


def test_a_solo_root_cannot_lower_the_risk_of_what_was_higher(tmp_path):
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    team.new_root(people={ALICE: [ALICE]}, solo=True)
    team.root = team.pinned()
    team.edit("version: 1", "version: 2")
    team.edit("risk: high", "risk: low")
    team.known = {}
    team.approve(ALICE, proposer=ALICE)
    assert team.load().workflows == {}


# --- the index -------------------------------------------------------------------------------------------------------------------------
def reindex(team: Team, *, by: str = ALICE, namespace: str = sshsig.INDEX_NAMESPACE, **change: object) -> None:
    place = team.approvals("index.json")
    value = orjson.loads(place.read_bytes()) | change
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    place.write_bytes(data)
    place.with_name("index.json.sig").write_text(key(by).sign(data, namespace))


def entry(version: int) -> dict[str, Any]:
    """An index's word for a version, of some definition."""
    return {"version": version, "digest": "sha256:" + "0" * 64, "paths": ["shop/refund.yaml"], "risks": ["low"], "narrows": []}


def test_an_expired_index_is_stale(team):
    team.load()
    team.now += 7 * 86400 + 1
    error = refused(team)
    assert (error.refused.reason, error.refused.field) == (R.STALE_INDEX, "expires")


def test_an_index_for_longer_than_seven_days_is_stale(team):
    reindex(team, expires="2098-01-01T00:00:00Z")
    assert refused(team).refused.reason is R.STALE_INDEX


def test_an_index_of_another_definition_of_the_version_is_tampering(team):
    reindex(team, workflows={ID: entry(1)})
    loaded = team.load()
    assert loaded.workflows == {}
    assert (loaded.refused[0].reason, loaded.refused[0].field) == (R.TAMPERED, "digest")


def test_an_index_signer_and_a_reviewer_cannot_leave_out_what_this_gate_had_in_force(team):
    """The index says that version 2 counts as low risk only; its statement names a version before that nobody has."""
    assert team.running() == 1
    team.edit("version: 1", "version: 2")
    team.edit("risk: high", "risk: low")
    team.approve(CAROL, index=False)
    team.resign(CAROL, 2, previous="sha256:" + "0" * 64)
    definition = sha256(team.approvals(f"{ID}/2/definition.json").read_bytes()).hexdigest()
    reindex(team, workflows={ID: entry(2) | {"digest": f"sha256:{definition}"}})
    assert team.running() is None
    team.known = {}
    assert team.running() == 2  # who never saw version 1 believes the index that nothing else counted


def test_an_index_cannot_approve(team):
    team.edit("version: 1", "version: 2")
    reindex(team, workflows={ID: entry(2)})
    assert team.running() is None


@pytest.mark.parametrize(
    ("change", "name", "field"),
    [
        ({"serial": 0}, R.TAMPERED, "serial"),
        ({"serial": "1"}, R.TAMPERED, "serial"),
        ({"signer": BOB}, R.UNAPPROVED, "key"),
        ({"extra": 1}, R.TAMPERED, "extra"),
        ({"workflows": {"../../etc": entry(1)}}, R.TAMPERED, "workflows.../../etc"),
        ({"workflows": {"root:version": entry(1)}}, R.TAMPERED, "workflows.root:version"),
        ({"revoked": {"serial": 9, "digest": "sha256:" + "0" * 64, "up_to": {}}}, R.ROLLBACK, "serial"),
        ({"revoked": {"serial": 1, "digest": "sha256:" + "0" * 64, "up_to": {}}}, R.TAMPERED, "digest"),
        ({"expires": "soon"}, R.TAMPERED, "expires"),
    ],
)
def test_an_index_that_says_something_else_loads_nothing(team, change, name, field):
    reindex(team, **change)
    error = refused(team)
    assert (error.refused.reason, error.refused.field) == (name, field)


def test_an_index_by_somebody_without_the_role_loads_nothing(tmp_path):
    team = Team(tmp_path, roles={"index": (ALICE,)})
    team.approve(ALICE, BOB)
    reindex(team, by=BOB, signer=BOB)
    assert (refused(team).refused.reason, refused(team).refused.field) == (R.UNAPPROVED, "signer")
    with pytest.raises(ApprovalRefused, match=r"roles\.index"):
        team.index(BOB)


@pytest.mark.parametrize("namespace", [sshsig.NAMESPACE, sshsig.REVOKED_NAMESPACE, "file"])
def test_an_index_signature_in_another_namespace_loads_nothing(team, namespace):
    reindex(team, namespace=namespace)
    assert refused(team).refused.reason is R.TAMPERED


def test_a_new_index_never_sinks_below_the_old_one(team):
    team.edit("version: 1", "version: 2")
    team.edit('"20.00"]', '"30.00"]')
    team.approve(ALICE, BOB)
    team.approvals(f"{ID}/2/{BOB}.sig").write_text("broken")
    team.index()
    assert orjson.loads(team.approvals("index.json").read_bytes())["workflows"][ID]["version"] == 2
    team.known = {}
    assert team.running() is None


def test_serials_rise(team):
    serials = []
    for _ in range(3):
        team.index()
        serials.append(orjson.loads(team.approvals("index.json").read_bytes())["serial"])
    assert serials == sorted(set(serials))


# --- revocations -------------------------------------------------------------------------------------------------------------------------
def test_somebody_without_the_role_cannot_revoke(tmp_path):
    team = Team(tmp_path, roles={"revoke": (ALICE,)})
    team.approve(ALICE, BOB)
    with pytest.raises(ApprovalRefused, match=r"roles\.revoke"):
        team.revoke(1, BOB)


def test_revocations_add_up(team):
    team.revoke(2)
    team.revoke(1)
    asked, _ = lenient_judge(team.directory, None, derive=derive, now=team.now)
    assert asked.revoked_up_to(ID) == 2


def test_changed_revocations_load_nothing(team):
    team.revoke(1)
    place = team.approvals("revoked.yaml")
    place.write_text(place.read_text().replace("up_to: 1", "up_to: 9"))
    assert refused(team).refused.reason is R.TAMPERED


# --- keys that end -----------------------------------------------------------------------------------------------------------------------
def test_a_key_past_its_end_no_longer_counts(tmp_path):
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    place = team.approvals("allowed_signers")
    lines = [
        line.replace("namespaces=", 'valid-before="20200101Z",namespaces=') if line.startswith(BOB) else line
        for line in place.read_text().splitlines()
    ]
    retrust(team, "\n".join(lines) + "\n")
    found = team.refusal()
    assert (found.reason, found.field) == (R.EXPIRED, "valid-before")


def test_a_key_for_other_namespaces_does_not_count(tmp_path):
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    lines = [
        re.sub('namespaces="[^"]*"', 'namespaces="git"', line) if line.startswith(BOB) else line
        for line in team.approvals("allowed_signers").read_text().splitlines()
    ]
    retrust(team, "\n".join(lines) + "\n")
    found = team.refusal()
    assert (found.reason, found.field) == (R.UNAPPROVED, "namespaces")


def retrust(team: Team, signers: str) -> None:
    """Other allowed_signers, under a root that says so."""
    team.approvals("allowed_signers").write_text(signers)
    place = team.approvals("root.yaml")
    digest = "sha256:" + sha256(signers.encode()).hexdigest()
    place.write_text(re.sub(r"allowed_signers: .?sha256:[0-9a-f]{64}.?", f'allowed_signers: "{digest}"', place.read_text()))
    sign_root(team.directory, key(ALICE))
    team.root = team.pinned()
    team.known = {}


def test_status_needs_a_root(team):
    team.approvals("root.yaml").unlink()
    with pytest.raises(ApprovalRefused, match="ROOT NOT TRUSTED"):
        status(team.directory, now=team.now)


def test_everybody_is_in_the_default_root(tmp_path):
    digest = new_root(tmp_path, [Reviewer(name, (key(name).public_key,)) for name in PEOPLE], expires=FOREVER, signer=key(ALICE))
    _, root, allowed, _ = load_root(Tree(tmp_path), digest, 0.0)
    assert root.needs(("x.yaml",), ("high",), ())[0].needed == 2
    assert all(allowed.until(name, key(name).public_key, sshsig.NAMESPACE, 0.0) > 0 for name in PEOPLE)


# --- marks -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("marks", [{}, {"a": -1}, {"a": 2**53}, {"a": True}, {"": 1}, {"a" * 513: 1}, {str(n): 1 for n in range(501)}])
def test_marks_that_no_store_is_asked_about(marks):
    with pytest.raises(NameRefused):
        ops.raise_marks("https://gate.example", marks)


@pytest.mark.parametrize("values", [[b"x"], [None], [], [b"1", b"2"]])
def test_an_answer_that_is_no_number_is_a_store_that_failed(values):
    op = ops.raise_marks("https://gate.example", {"a": 0})
    with pytest.raises(StoreUnavailable):
        op.parse([op.keys[0].encode(), values])


def test_many_marks_go_in_portions():
    marks = {f"w{n}": n for n in range(1201)}
    portions = list(chunks(marks))
    assert [len(portion) for portion in portions] == [500, 500, 201]
    assert {name: value for portion in portions for name, value in portion.items()} == marks
