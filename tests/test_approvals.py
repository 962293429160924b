"""Which versions are in force: thresholds, narrowing, and every attack on what lies under approvals/."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from agentgate.approvals import ApprovalRefusal, ApprovalRefused, Prover, sshsig, status
from agentgate.approvals.loading import lenient_judge
from agentgate.approvals.root import distinct
from agentgate.approvals.writing import ReviewRule, write_approval, write_index
from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from tests.approvals_team import ALICE, BOB, CAROL, DAVE, ID, PATH, PEOPLE, WORKFLOW, Team, key

R = ApprovalRefusal


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


@pytest.fixture
def approved(tmp_path: Path) -> Team:
    """Version 1, signed by Alice and Bob."""
    return Team.signed(tmp_path)


def second(team: Team, old: str = '"20.00"]', new: str = '"20.00", "30.00"]') -> None:
    """A version 2 of the file, wider unless said otherwise."""
    team.edit("version: 1", "version: 2")
    team.edit(old, new)


# --- thresholds ------------------------------------------------------------------------------------------------------------
def test_two_signatures_put_a_high_risk_workflow_in_force(approved):
    loaded = approved.load()
    assert [w.version for w in loaded.workflows.values()] == [1]
    assert loaded.refused == ()
    assert loaded.workflows[ID].file == str(approved.file)
    assert loaded.workflows[ID].tools["payments.refund"].line > 1  # the file is what was approved, so its lines are known


def test_nobody_signed(team):
    team.index()
    assert team.load().workflows == {}
    assert team.refusals() == [("UNAPPROVED", "version")]


def test_one_signature_of_two(team):
    team.approve(ALICE)
    refused = team.refusal()
    assert (refused.reason, refused.data["workflow"], refused.data["version"]) == (R.UNAPPROVED, ID, 1)
    assert refused.got == "1 of 2 signatures for **"
    assert team.running() is None


def test_a_definition_that_nobody_signed(approved):
    for gone in approved.approvals(f"{ID}/1").glob("*@*"):
        gone.unlink()
    assert approved.refusal().got == "0 of 2 signatures for **"


def test_a_lower_risk_that_nobody_signed_still_asks_for_what_the_old_one_did(approved):
    second(approved, "risk: high", "risk: low")
    approved.approve(CAROL, index=False)
    for gone in approved.approvals(f"{ID}/2").glob("*@*"):
        gone.unlink()
    assert approved.refusal().got == "0 of 2 signatures for **"
    assert stands(approved).missing == 2


def test_low_risk_takes_one(team):
    team.edit("risk: high", "risk: low")
    team.approve(BOB)
    assert team.running() == 1


def test_the_proposer_never_counts(team):
    team.approve(ALICE, BOB, proposer=ALICE)
    assert (team.running(), team.refusal().got) == (None, "1 of 2 signatures for **")
    team.approve(CAROL, proposer=ALICE)
    assert team.running() == 1


def test_the_proposer_does_not_count_under_another_spelling(team):
    team.approve(ALICE, BOB, proposer=ALICE.upper())
    assert team.running() is None


def test_the_proposer_does_not_count_under_a_second_name_with_the_same_key(tmp_path):
    team = Team(tmp_path, people={ALICE: ["shared", ALICE], BOB: [BOB], "dave2": ["shared"]})
    draft = team.draft(ALICE, proposer="dave2")
    write_approval(team.directory, draft, key(ALICE))
    team.approve(BOB, proposer="dave2")
    assert team.running() == 1
    team.resign(ALICE, by="shared")  # the proposer's own key, under Alice's name
    assert team.running() is None


def test_whoever_any_signer_names_as_proposer_does_not_count(team):
    """One liar hides nobody: Alice names another, Bob names Alice."""
    team.approve(ALICE, index=False)
    team.approve(BOB, proposer=ALICE)
    assert team.running() is None
    team.approve(CAROL, proposer=ALICE)
    assert team.running() == 1


def test_no_author_counts(team):
    write_approval(team.directory, team.draft(ALICE).made_by(DAVE, "Alice+x@ACME.example", BOB), key(ALICE))
    team.approve(BOB)
    team.approve(CAROL)
    assert (team.running(), team.refusal().got) == (None, "1 of 2 signatures for **")
    assert "not alice@acme.example, bob@acme.example" in team.refusal().expected


def test_the_same_key_under_two_names_counts_once(tmp_path):
    team = Team(tmp_path, people={ALICE: ["shared"], BOB: ["shared"], CAROL: [CAROL]})
    draft = team.draft(CAROL)
    for person in (ALICE, BOB):  # signer and file of each, the key of both
        write_approval(team.directory, draft, key(CAROL))
        place = team.approvals(f"{ID}/1/{CAROL}")
        data = orjson.loads(place.with_name(f"{CAROL}.json").read_bytes())
        data["predicate"]["signer"] = person
        text = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
        place.with_name(f"{person}.json").write_bytes(text)
        place.with_name(f"{person}.sig").write_text(key("shared").sign(text, sshsig.NAMESPACE))
        for ending in (".json", ".sig"):
            place.with_name(CAROL + ending).unlink()
    team.index(CAROL)
    assert (team.running(), team.refusal().got) == (None, "1 of 2 signatures for **")
    team.approve(CAROL, index=False)
    team.index(CAROL)
    assert team.running() == 1


def test_two_keys_of_one_person_count_once(tmp_path):
    team = Team(tmp_path, people={ALICE: [ALICE, "alice's other"], BOB: [BOB]})
    team.approve(ALICE, index=False)
    for ending in ("json", "sig"):
        shutil.copy(team.approvals(f"{ID}/1/{ALICE}.{ending}"), team.approvals(f"{ID}/1/{BOB}.{ending}"))
    team.resign(BOB, by="alice's other", signer=BOB)
    team.index()
    assert team.running() is None
    assert team.refusal().reason is R.UNAPPROVED


@pytest.mark.parametrize(
    ("signed", "count"),
    [
        ([], 0),
        ([("a", b"1")], 1),
        ([("a", b"1"), ("a", b"2")], 1),
        ([("a", b"1"), ("b", b"1")], 1),
        ([("a", b"1"), ("a", b"2"), ("b", b"1")], 2),
        ([("b", b"1"), ("a", b"1"), ("a", b"2")], 2),
        ([("a", b"1"), ("a", b"2"), ("a", b"3"), ("b", b"1"), ("c", b"1")], 2),
        ([("a", b"1"), ("b", b"2"), ("c", b"3")], 3),
    ],
)
def test_people_and_keys_are_counted_in_pairs(signed, count):
    assert distinct(signed) == count


def test_a_rule_counts_only_its_own_people(tmp_path):
    team = Team(tmp_path, rules=(ReviewRule("**", PEOPLE, {"high": 2}), ReviewRule("shop/**", (CAROL,), {"high": 1})))
    team.approve(ALICE, BOB)
    assert (team.running(), team.refusal().got) == (None, "0 of 1 signatures for shop/**")
    team.approve(CAROL)
    assert team.running() == 1


def test_without_a_rule_for_its_path_nobody_can_approve(tmp_path):
    team = Team(tmp_path, rules=(ReviewRule("elsewhere/**", PEOPLE, {"high": 1}),))
    team.approve(ALICE, BOB)
    assert (team.running(), team.refusal().got) == (None, "no rule of the root for its path")


def test_a_risk_without_a_number_cannot_be_approved(tmp_path):
    team = Team(tmp_path, rules=(ReviewRule("**", PEOPLE, {"low": 1}),))
    team.approve(ALICE, BOB, CAROL)
    assert (team.running(), team.refusal().got) == (None, "risk high")


def test_a_stranger_does_not_count(approved):
    place = approved.approvals(f"{ID}/1")
    (place / f"{BOB}.json").unlink()
    for ending in ("json", "sig"):
        shutil.copy(place / f"{ALICE}.{ending}", place / f"mallory.{ending}")
    approved.resign("mallory", signer="mallory")
    assert approved.running() is None
    refused = approved.refusal()
    assert (refused.reason, refused.field, refused.got) == (R.UNAPPROVED, "signer", "mallory")


def test_the_stricter_of_old_and_new_risk_applies(approved):
    second(approved)
    approved.edit("risk: high", "risk: low")
    approved.approve(CAROL)
    assert (approved.running(), approved.refusal().got) == (1, "1 of 2 signatures for **")
    approved.approve(ALICE)
    assert approved.running() == 2


def test_the_stricter_of_old_and_new_path_applies(tmp_path):
    rules = (ReviewRule("shop/**", PEOPLE, {"high": 3}), ReviewRule("misc/**", PEOPLE, {"high": 1}))
    team = Team(tmp_path, rules=rules)
    team.approve(ALICE, BOB, CAROL)
    (team.directory / "misc").mkdir()
    second(team)
    team.file.rename(team.directory / "misc/refund.yaml")
    team.approve(ALICE, file="misc/refund.yaml")
    assert team.load().workflows == {}  # and version 1 is not in its place any more
    team.approve(BOB, CAROL, file="misc/refund.yaml")
    assert team.running() == 2


def test_when_nobody_vouches_for_the_version_before_every_rule_applies(tmp_path):
    team = Team(tmp_path, rules=(ReviewRule("shop/**", PEOPLE, {"low": 1, "high": 1}), ReviewRule("**", PEOPLE, {"low": 1, "high": 3})))
    team.edit("risk: high", "risk: low")
    team.approve(ALICE, index=False)
    second(team)
    team.approve(ALICE, index=False)
    write_index(team.directory, key(ALICE), now=team.now, anew=True)
    assert team.running() == 2
    for gone in team.approvals(f"{ID}/1").glob("*.sig"):
        gone.unlink()
    for name in ("index.json", "index.json.sig"):
        team.approvals(name).unlink()
    write_index(team.directory, key(ALICE), now=team.now, anew=True)
    team.known = {}
    assert team.running() is None
    assert team.load().refused[0].got == "1 of 3 signatures for **"


# --- narrowing -------------------------------------------------------------------------------------------------------------
def test_what_only_narrows_needs_one_signature(approved):
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(CAROL)
    assert approved.running() == 2


def test_what_widens_needs_the_quorum(approved):
    second(approved)
    draft = approved.draft(CAROL)
    assert any("amount" in words for words in draft.statement.wider)
    approved.approve(CAROL)
    assert approved.running() == 1
    approved.approve(ALICE)
    assert approved.running() == 2


def test_what_a_person_must_read_needs_the_quorum(approved):
    second(approved, "words: [refund, reimburse]", "words: [refund]")
    approved.approve(CAROL)
    assert approved.running() == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("risk: high", "risk: low"),
        ("risk: high", "risk: high\nmode: observe"),
        ('"2099-05-31"', '"2099-06-01"'),
        ("tenants: [acme, other]", "tenants: [acme, third]"),
        ("{groups: [support], same_tenant: true}", "{groups: [support, other], same_tenant: true}"),
        ("asks_for: Give", "asks_for: Always give"),
        ("redeem: wrapper", "redeem: wrapper\n    audience: https://elsewhere.example"),
        ("from: [prompt]", "from: [model]"),
    ],
)
def test_one_signature_is_not_enough_for(approved, old, new):
    second(approved, old, new)
    approved.approve(CAROL)
    assert approved.running() == 1


def test_a_lower_risk_needs_the_quorum_whatever_a_comparison_says(approved):
    second(approved, "risk: high", "risk: low")
    approved.prover = Prover(lambda _old, _new: _Said(), "test")
    approved.approve(CAROL)
    assert approved.running() == 1


def test_a_move_needs_the_quorum_though_nothing_else_changed(approved):
    approved.edit("version: 1", "version: 2")
    (approved.directory / "misc").mkdir()
    approved.file.rename(approved.directory / "misc/refund.yaml")
    approved.approve(CAROL, file="misc/refund.yaml")
    assert approved.load().workflows == {}
    approved.approve(ALICE, file="misc/refund.yaml")
    assert approved.running() == 2


def test_the_proposer_cannot_approve_a_narrowing_alone(approved):
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(CAROL, proposer=CAROL)
    assert approved.running() == 1


def test_a_narrowing_of_what_was_never_approved_needs_the_quorum(team):
    """Mallory writes a wide version 1 that nobody approved, and a version 2 that only narrows it."""
    team.approve(CAROL, index=False)
    second(team, '"10.00", "20.00"', '"10.00"')
    team.approve(CAROL, index=False)
    team.resign(CAROL, 2, previous=team.draft(ALICE).statement.previous or "sha256:" + "0" * 64)
    team.index()
    assert team.running() is None


def test_a_narrowing_must_be_of_the_newest_version(approved):
    """Narrower than version 1, but wider than version 2, which is in force: one signature is not enough."""
    first = approved.load().workflows[ID].digest
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(CAROL, ALICE)
    assert approved.running() == 2
    approved.edit("version: 2", "version: 3")
    approved.edit('"10.00"]', '"20.00"]')
    approved.approve(CAROL, index=False)
    approved.resign(CAROL, 3, previous=first)
    approved.index()
    assert approved.running() == 2
    shutil.rmtree(approved.approvals(f"{ID}/2"))  # and taking version 2 away does not help
    assert approved.running() is None


def test_a_narrowing_of_a_revoked_version_needs_the_quorum(approved):
    approved.revoke(1)
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(CAROL)
    assert approved.running() is None
    approved.approve(ALICE)
    assert approved.running() == 2


def test_a_narrowing_lasts_no_longer_than_what_it_narrows(team):
    team.approve(ALICE, BOB, not_after="2040-01-01")
    until = team.load().until[ID]
    second(team, '"10.00", "20.00"', '"10.00"')
    team.approve(CAROL, not_after="2050-01-01")
    assert team.load().until[ID] == until


@dataclass(frozen=True)
class _Said:
    only_narrower: bool = True
    read_yourself: tuple[str, ...] = ()
    wider: tuple[str, ...] = ()


@pytest.mark.parametrize("answer", [_Said(only_narrower=False), _Said(read_yourself=("intents",)), _Said(wider=("amount",))])
def test_a_proof_with_anything_left_is_none(approved, answer):
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(CAROL)
    approved.prover = Prover(lambda _old, _new: answer, "test")
    approved.known = {}
    assert approved.running() is None  # the index names version 2


def test_a_proof_is_kept_beside_the_keys_and_not_made_again(approved, tmp_path):
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(CAROL)
    asked = []

    def compare(old, new):
        asked.append((old.version, new.version))
        return _Said()

    for _ in range(2):
        approved.prover = Prover(compare, "test", tmp_path)
        assert approved.running() == 2
    assert asked == [(1, 2)]
    approved.prover = Prover(compare, "another engine", tmp_path)
    assert approved.running() == 2
    assert asked == [(1, 2)] * 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"not json"])
def test_an_unreadable_file_of_proofs_proves_nothing(approved, tmp_path, content):
    second(approved)
    approved.approve(CAROL)
    (tmp_path / "narrowings.json").write_bytes(content)
    approved.prover = Prover(kept=tmp_path)
    assert approved.running() == 1


def test_proofs_that_others_can_read_or_write_prove_nothing(approved, tmp_path):
    second(approved)
    approved.approve(CAROL)
    digests = [approved.approvals(f"{ID}/{v}/definition.json").read_bytes() for v in (1, 2)]
    prover = Prover(kept=tmp_path)
    names = [f"{prover.engine} " + " ".join(f"sha256:{sha256(d).hexdigest()}" for d in digests)]
    (tmp_path / "narrowings.json").write_bytes(orjson.dumps(names))
    (tmp_path / "narrowings.json").chmod(0o644)
    approved.prover = prover
    assert approved.running() == 1


# --- one reviewer alone, with all they can put into a pull request ---------------------------------------------------------------
def test_a_draft_of_ones_own_does_not_stand_for_the_version_before(approved):
    """Carol signs a low-risk version 2 that nobody else looked at, then a version 3 that is compared with it."""
    second(approved, "risk: high", "risk: low")
    approved.approve(CAROL, index=False)
    draft = orjson.loads(approved.approvals(f"{ID}/2/{CAROL}.json").read_bytes())["subject"][0]["digest"]["sha256"]
    approved.edit("version: 2", "version: 3")
    approved.edit('"20.00"]', '"9000.00"]')
    approved.approve(CAROL, index=False)
    approved.resign(CAROL, 3, previous=f"sha256:{draft}")
    assert approved.running() == 1
    approved.known = {}
    assert approved.running() == 1
    approved.index()
    assert approved.running() == 1


@pytest.mark.parametrize("previous", [None, "sha256:" + "0" * 64])
def test_a_first_version_is_not_claimed_where_there_was_one(approved, previous):
    second(approved, "risk: high", "risk: low")
    approved.approve(CAROL, index=False)
    approved.resign(CAROL, 2, previous=previous)
    assert approved.running() == 1
    approved.known = {}
    assert approved.running() == 1


@pytest.mark.parametrize("previous", [None, "sha256:" + "0" * 64])
def test_taking_away_index_and_version_does_not_make_a_first_version_for_who_knew_it(approved, previous):
    assert approved.running() == 1
    second(approved, "risk: high", "risk: low")
    approved.approve(CAROL, index=False)
    approved.resign(CAROL, 2, previous=previous)
    shutil.rmtree(approved.approvals(f"{ID}/1"))
    for name in ("index.json", "index.json.sig"):
        approved.approvals(name).unlink()
    with pytest.raises(ApprovalRefused, match="STALE INDEX"):
        approved.index()
    write_index(approved.directory, key(ALICE), now=approved.now + 5, prover=approved.prover, anew=True)  # somebody insists
    assert approved.running() is None


def test_what_was_in_force_here_counts_though_the_index_does_not_name_it_yet(approved):
    """Version 2 was in force and is taken away; version 3 was compared with version 1, as the index has it."""
    second(approved, '"10.00", "20.00"', '"10.00"')
    approved.approve(ALICE, BOB, index=False)
    assert approved.running() == 2
    shutil.rmtree(approved.approvals(f"{ID}/2"))
    approved.edit("version: 2", "version: 3")
    approved.approve(ALICE, BOB, index=False)
    assert approved.running() is None
    assert ("UNAPPROVED", "predicate.previous") in approved.refusals()


def test_an_index_that_leaves_a_workflow_out_does_not_make_a_first_version_of_it(approved):
    assert approved.running() == 1
    second(approved)
    shutil.rmtree(approved.approvals(f"{ID}/1"))
    for name in ("index.json", "index.json.sig"):
        approved.approvals(name).unlink()
    write_index(approved.directory, key(ALICE), now=approved.now + 5, prover=approved.prover, anew=True)
    approved.approve(ALICE, BOB, index=False)
    assert approved.draft(CAROL).statement.previous is None
    assert approved.running() is None


def test_a_changed_index_is_not_gone_on_from(approved):
    place = approved.approvals("index.json")
    place.write_bytes(place.read_bytes().replace(b'"version":1', b'"version":9'))
    with pytest.raises(ApprovalRefused, match="TAMPERED"):
        approved.index()


def test_statements_of_ones_own_do_not_say_where_the_version_before_lay(tmp_path):
    """Carol takes the statements of version 1 away and signs one that says it lay where she alone decides."""
    team = Team(tmp_path, rules=(ReviewRule("shop/**", PEOPLE, {"high": 3}), ReviewRule("misc/**", PEOPLE, {"high": 1})))
    team.approve(ALICE, BOB, CAROL)
    (team.directory / "misc").mkdir()
    second(team)
    team.file.rename(team.directory / "misc/refund.yaml")
    team.approve(CAROL, file="misc/refund.yaml", index=False)
    for person in (ALICE, BOB):
        team.approvals(f"{ID}/1/{person}.json").unlink()
    team.resign(CAROL, 1, path="misc/refund.yaml")
    for known in ({}, {ID: 1}):
        team.known = known
        assert team.running() is None
    team.index()
    assert team.running() is None


def test_a_version_in_the_index_keeps_what_counted_for_it(tmp_path):
    """Once it is in force, who reviewed the version before need not be kept."""
    team = Team(tmp_path, rules=(ReviewRule("shop/**", PEOPLE, {"high": 2}), ReviewRule("misc/**", PEOPLE, {"high": 1})))
    team.approve(ALICE, BOB)
    (team.directory / "misc").mkdir()
    second(team)
    team.file.rename(team.directory / "misc/refund.yaml")
    team.approve(ALICE, BOB, file="misc/refund.yaml")
    shutil.rmtree(team.approvals(f"{ID}/1"))
    assert team.running() == 2
    team.approvals(f"{ID}/2/{BOB}.sig").unlink()  # one of two
    assert team.running() is None


def test_narrowings_stand_on_each_other_for_a_new_gate(approved):
    for version in range(2, 6):
        approved.edit(f"version: {version - 1}", f"version: {version}")
        approved.edit(f'expires: "{2101 - version}', f'expires: "{2100 - version}')
        approved.approve(CAROL)
    approved.known = {}
    assert approved.running() == 5
    for gone in approved.approvals(f"{ID}/1").glob("*.sig"):  # all of them stand on what two people signed
        gone.unlink()
    assert approved.running() is None


def test_after_many_narrowings_in_a_row_a_quorum_looks_again(approved, monkeypatch):
    monkeypatch.setattr("agentgate.approvals.judge.MAX_NARROWINGS", 2)
    for version in range(2, 5):
        approved.edit(f"version: {version - 1}", f"version: {version}")
        approved.edit(f'expires: "{2101 - version}', f'expires: "{2100 - version}')
        approved.approve(CAROL)
    assert approved.running() == 3
    approved.approve(ALICE)
    assert approved.running() == 4


# --- what was signed ---------------------------------------------------------------------------------------------------------
def test_comments_may_change(approved):
    approved.file.write_text("# a remark\n" + WORKFLOW.replace("risk: high", "risk: high   # really"))
    assert approved.running() == 1
    assert approved.refusals() == []


def test_a_changed_value_in_the_file_is_named_and_the_approved_definition_runs(approved):
    approved.edit('"20.00"]', '"20000.00"]')
    loaded = approved.load()
    amount = loaded.workflows[ID].tools["payments.refund"].args["amount"]
    assert amount.one_of == ("10.00", "20.00")
    (refused,) = loaded.refused
    assert (refused.reason, refused.data["file"], refused.field) == (R.TAMPERED, PATH, "tools.payments.refund.args.amount.in[1]")
    assert (refused.got, refused.expected) == ("'20000.00'", "'20.00', as approved, which stays in force")


def test_a_file_that_cannot_be_read_leaves_the_approved_definition_running(approved):
    approved.file.write_text("what: [")
    loaded = approved.load()
    assert loaded.workflows[ID].version == 1
    assert str(approved.file) in loaded.broken


def test_a_changed_value_in_the_signed_definition_is_refused(approved):
    place = approved.approvals(f"{ID}/1/definition.json")
    place.write_bytes(place.read_bytes().replace(b'"20.00"', b'"99.00"'))
    assert approved.refusal().reason is R.TAMPERED
    assert approved.load().workflows == {}


@pytest.mark.parametrize(
    ("old", "new", "name", "field"),
    [
        (b'"tenants":["acme","other"]', b'"tenants":["acme","evil"]', R.TAMPERED, "predicate.tenants"),
        (b'"risk":"high"', b'"risk":"low"', R.TAMPERED, "predicate.risk"),
        (b'"version":1', b'"version":2', R.WRONG_PLACE, "id"),
        (b'"id":"shop.refund"', b'"id":"shop.other"', R.WRONG_PLACE, "id"),
        (b"{", b" {", R.TAMPERED, "document"),
        (b'"acme"', b'"acme\\u200b"', R.TAMPERED, "document"),
    ],
)
def test_the_field_of_a_changed_definition_is_named(approved, old, new, name, field):
    place = approved.approvals(f"{ID}/1/definition.json")
    place.write_bytes(place.read_bytes().replace(old, new, 1))
    approved.approvals("index.json").unlink()  # so that it is not the index that tells
    found = next(s for s in status(approved.directory, now=approved.now) if s.id == ID)
    judged = found.refused if found.refused and found.refused.reason is name else approved_refusal(approved)
    assert (judged.reason, judged.field) == (name, field)


@pytest.mark.parametrize(
    "value",
    [None, [], {}, 1, {"id": ID, "version": 1}, {"id": ID, "version": 1, "risk": "extreme"}, {"id": ID, "version": 1, "risk": ["low"]}],
)
def test_a_definition_of_any_other_shape_is_refused(approved, value):
    for gone in approved.approvals(f"{ID}/1").glob("*@*"):
        gone.unlink()
    approved.approvals(f"{ID}/1/definition.json").write_bytes(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    loaded = approved.load()
    assert loaded.workflows == {}
    assert loaded.refused[0].reason in {R.TAMPERED, R.WRONG_PLACE}
    assert stands(approved).refused is not None


@pytest.mark.parametrize("value", [1.5, None, "\u200b", {"x": None}])
def test_what_no_workflow_file_can_say_does_not_load_even_when_signed(team, value):
    """Two reviewers sign bytes that no workflow file has."""
    team.approve(ALICE, BOB)
    place = team.approvals(f"{ID}/1/definition.json")
    definition = orjson.loads(place.read_bytes()) | {"title": value}
    place.write_bytes(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS))
    for person in (ALICE, BOB):
        file = team.approvals(f"{ID}/1/{person}.json")
        said = orjson.loads(file.read_bytes())
        said["subject"][0]["digest"]["sha256"] = sha256(place.read_bytes()).hexdigest()
        data = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
        file.write_bytes(data)
        file.with_suffix(".sig").write_text(key(person).sign(data, sshsig.NAMESPACE))
    for name in ("index.json", "index.json.sig"):
        team.approvals(name).unlink()
    write_index(team.directory, key(ALICE), now=team.now, anew=True)
    loaded = team.load()
    assert loaded.workflows == {}
    assert any("what a workflow file can say" in str(error) or "text" in str(error) for error in loaded.broken.values())


def approved_refusal(team: Team):
    """Why version 1 does not count, as the judge of the directory says."""
    asked, _ = lenient_judge(team.directory, None, derive=derive, now=team.now)
    return asked.standing(ID, 1).refused


@pytest.mark.parametrize(
    ("change", "name", "field"),
    [
        ({"version": 2}, R.WRONG_PLACE, "predicate.version"),
        ({"id": "shop.other"}, R.TAMPERED, "subject[0].name"),
        ({"tenants": ["acme"]}, R.TAMPERED, "predicate.tenants"),
        ({"risk": "low"}, R.TAMPERED, "predicate.risk"),
        ({"signer": ALICE}, R.WRONG_PLACE, "predicate.signer"),
        ({"not_after": "2020-01-01T00:00:00Z"}, R.EXPIRED, "predicate.not_after"),
        ({"not_after": "2020-01-32T00:00:00Z"}, R.TAMPERED, "predicate.not_after"),
        ({"not_after": "for ever"}, R.TAMPERED, "predicate.not_after"),
        ({"role": "owner"}, R.TAMPERED, "predicate.role"),
        ({"extra": 1}, R.TAMPERED, "predicate.extra"),
        ({"previous": "sha256:00"}, R.TAMPERED, "predicate.previous"),
        ({"path": ""}, R.TAMPERED, "predicate.path"),
    ],
)
def test_a_statement_that_says_something_else_does_not_count(approved, change, name, field):
    approved.resign(BOB, **change)
    refused = approved.refusal()
    assert (refused.reason, refused.field) == (name, field)
    assert approved.running() is None


def test_a_signature_over_another_digest_does_not_count(approved):
    other = approved.approvals(f"{ID}/1/{BOB}.json")
    value = orjson.loads(other.read_bytes())
    value["subject"][0]["digest"]["sha256"] = "0" * 64
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    other.write_bytes(data)
    other.with_suffix(".sig").write_text(key(BOB).sign(data, sshsig.NAMESPACE))
    refused = approved.refusal()
    assert (refused.reason, refused.field) == (R.TAMPERED, "subject[0].digest")


@pytest.mark.parametrize(
    "form",
    [
        lambda data: data + b"\n",
        lambda data: data.replace(b":", b": ", 1),
        lambda data: data.replace(b'"risk":"high"', b'"risk":"low","risk":"high"'),
        lambda data: data.replace(b'"risk":"high"', b'"risk":"hi\\u0067h"'),
        lambda data: b"{" + data[data.index(b',"predicate":') + 1 : -1] + b"," + data[1 : data.index(b',"predicate":')] + b"}",
    ],
    ids=["a line feed", "a space", "a key twice", "an escape", "another order"],
)
def test_a_signed_statement_in_another_form_does_not_count(approved, form):
    """One form, one reading: what two readers would read differently is not signed."""
    place = approved.approvals(f"{ID}/1/{BOB}.json")
    data = form(place.read_bytes())
    assert data != place.read_bytes()
    place.write_bytes(data)
    place.with_suffix(".sig").write_text(key(BOB).sign(data, sshsig.NAMESPACE))
    assert (approved.refusal().reason, approved.refusal().field) == (R.TAMPERED, "document")


@pytest.mark.parametrize("namespace", ["git", "file", sshsig.ROOT_NAMESPACE, sshsig.INDEX_NAMESPACE])
def test_a_signature_from_another_namespace_does_not_count(approved, namespace):
    approved.resign(BOB, namespace=namespace)
    refused = approved.refusal()
    assert (refused.reason, refused.field) == (R.TAMPERED, "signature")
    assert "namespace" in refused.got


def test_somebody_elses_key_does_not_count(approved):
    approved.resign(BOB, by=CAROL)
    refused = approved.refusal()
    assert (refused.reason, refused.field) == (R.UNAPPROVED, "key")


def test_a_statement_without_its_signature_does_not_count(approved):
    approved.approvals(f"{ID}/1/{BOB}.sig").unlink()
    assert approved.refusal().reason is R.UNAPPROVED


def test_a_statement_changed_after_signing_does_not_count(approved):
    place = approved.approvals(f"{ID}/1/{BOB}.json")
    place.write_bytes(place.read_bytes().replace(b"2099-05-31", b"2199-05-31"))
    refused = approved.refusal()
    assert (refused.reason, refused.field) == (R.TAMPERED, "signature")


def test_one_broken_signature_does_not_void_the_others(approved):
    approved.approve(CAROL)
    approved.approvals(f"{ID}/1/{BOB}.sig").write_text("nothing")
    assert approved.running() == 1


@pytest.mark.parametrize("change", [{"path": "shop/other.yaml"}, {"previous": "sha256:" + "0" * 64}, {"roles": {"boss": ["all"]}}])
def test_signers_who_say_different_things_are_not_counted_together(approved, change):
    approved.resign(BOB, **change)
    assert approved.running() is None


def test_root_tests_and_words_are_informational(approved):
    approved.resign(BOB, root="sha256:" + "1" * 64, tests="sha256:" + "2" * 64, wider=["other words"])
    assert approved.running() == 1


# --- time ------------------------------------------------------------------------------------------------------------------
def test_an_approval_ends(team):
    team.approve(ALICE, BOB, not_after="2030-01-01")
    assert team.running() == 1
    team.now = team.load().until[ID] + 10
    team.now += 365 * 86400 * 30
    team.index()
    refused = team.load().refused[0]
    assert (refused.reason, refused.field) == (R.EXPIRED, "predicate.not_after")
    assert team.load().workflows == {}


def test_until_is_when_too_few_signatures_are_left(team):
    team.approve(ALICE, not_after="2031-01-01", index=False)
    team.approve(BOB, not_after="2030-01-01", index=False)
    team.approve(CAROL, not_after="2029-01-01")
    asked, _ = lenient_judge(team.directory, None, derive=derive, now=team.now)
    found = asked.standing(ID, 1).approved
    assert found is not None
    assert found.until == found.version.signed[1].until == 1893542399  # Bob's: from then on only Alice's is left


def test_the_index_ends_what_runs(approved):
    assert approved.load().until[ID] <= approved.now + 7 * 86400 + 1


# --- older versions ----------------------------------------------------------------------------------------------------------
def test_a_refused_new_version_leaves_the_approved_one_running_also_for_a_new_gate(approved):
    second(approved)
    assert approved.running() == 1
    (refused,) = approved.load().refused
    assert (refused.reason, refused.data["version"]) == (R.UNAPPROVED, 2)
    approved.approve(CAROL)
    approved.known = {}
    assert approved.running() == 1
    assert approved.refusals() == [("UNAPPROVED", "signatures")]


def test_the_newest_approved_version_runs_before_the_index_names_it(approved):
    second(approved)
    approved.approve(ALICE, BOB, index=False)
    assert approved.running() == 2


def test_once_in_force_a_broken_new_version_revives_no_old_one(approved):
    second(approved)
    approved.approve(ALICE, BOB)
    assert approved.running() == 2
    approved.approvals(f"{ID}/2/{BOB}.sig").write_text("broken")
    assert approved.running() is None
    approved.known = {}  # a new gate instance: the index tells
    assert approved.running() is None


def test_once_in_force_a_broken_new_version_revives_no_old_one_even_under_the_old_index(approved):
    old = {name: approved.approvals(name).read_bytes() for name in ("index.json", "index.json.sig")}
    second(approved)
    approved.approve(ALICE, BOB, index=False)
    assert approved.running() == 2
    assert approved.approvals("index.json").read_bytes() == old["index.json"]
    approved.approvals(f"{ID}/2/{BOB}.sig").write_text("broken")
    assert approved.running() is None


def test_an_old_signed_workflow_put_back_is_a_rollback(approved):
    before = {p: p.read_bytes() for p in approved.directory.rglob("*") if p.is_file() and "index" not in p.name}
    second(approved)
    approved.approve(ALICE, BOB)
    assert approved.running() == 2
    shutil.rmtree(approved.approvals(f"{ID}/2"))
    for place, data in before.items():
        place.write_bytes(data)
    assert approved.running() is None
    assert ("ROLLBACK", "version") in approved.refusals()


def test_an_old_index_put_back_is_a_rollback(approved):
    old = {name: approved.approvals(name).read_bytes() for name in ("index.json", "index.json.sig")}
    approved.index()
    approved.load()
    for name, data in old.items():
        approved.approvals(name).write_bytes(data)
    with pytest.raises(ApprovalRefused) as raised:
        approved.load()
    assert (raised.value.refused.reason, raised.value.refused.field) == (R.ROLLBACK, "serial")


def test_the_old_file_under_a_newer_approved_version_is_a_rollback(approved):
    old = approved.file.read_text()
    second(approved)
    approved.approve(ALICE, BOB)
    approved.file.write_text(old)
    assert approved.running() == 2
    assert approved.refusals() == [("ROLLBACK", "version")]


def test_a_signature_given_against_an_older_version_does_not_count(approved):
    """Bob signs version 3 as compared with version 1 while version 2 comes into force: he has not seen what is new in it."""
    second(approved)
    approved.edit("version: 2", "version: 3")
    approved.approve(BOB, index=False)
    approved.edit("version: 3", "version: 2")
    approved.edit('"30.00"', '"40.00"')
    approved.approve(ALICE, BOB)
    approved.edit("version: 2", "version: 3")
    approved.edit('"40.00"', '"30.00"')
    approved.approve(CAROL)
    assert approved.running() == 2
    assert approved.refusals() == [("UNAPPROVED", "predicate.previous")]
    approved.approve(BOB)
    assert approved.running() == 3


def test_a_version_in_force_is_not_signed_again_with_other_content(approved):
    approved.edit('"20.00"]', '"20.00", "30.00"]')
    with pytest.raises(ApprovalRefused, match="a higher version"):
        approved.draft(CAROL)


def test_signatures_over_other_content_are_removed_when_the_new_one_is_signed(team):
    team.approve(ALICE)
    team.edit('"20.00"]', '"25.00"]')
    team.approve(BOB)
    assert not team.approvals(f"{ID}/1/{ALICE}.json").exists()
    assert team.refusal().got == "1 of 2 signatures for **"


# --- revocation ----------------------------------------------------------------------------------------------------------------
def test_one_signature_revokes_and_needs_no_new_index(approved):
    approved.revoke(1)
    assert approved.running() is None
    assert approved.refusal().reason is R.REVOKED


def test_a_revoked_version_does_not_make_room_for_an_older_one(approved):
    second(approved)
    approved.approve(ALICE, BOB)
    approved.revoke(2)
    assert approved.running() is None
    approved.edit("version: 2", "version: 3")
    approved.approve(ALICE, BOB)
    assert approved.running() == 3


def test_status_names_revocations_that_are_older_than_the_index(approved):
    """A gate loads nothing then, so it must not look as if all were well."""
    old = {name: approved.approvals(name).read_bytes() for name in ("revoked.yaml", "revoked.yaml.sig")}
    approved.revoke(1, workflow="shop.other")
    approved.index()
    for name, data in old.items():
        approved.approvals(name).write_bytes(data)
    with pytest.raises(ApprovalRefused, match="at least 2, as in the index"):
        approved.load()
    wrong, found = status(approved.directory, now=approved.now)
    assert wrong.refused is not None
    assert (wrong.id, wrong.refused.reason, wrong.refused.field) == ("", R.ROLLBACK, "serial")
    assert found.in_force is None


def test_a_revocation_is_never_undone(approved):
    """Not by the revocations of before, not by newer ones that leave it out, for a gate that saw it."""
    old = {name: approved.approvals(name).read_bytes() for name in ("revoked.yaml", "revoked.yaml.sig")}
    approved.revoke(1)
    assert approved.running() is None
    revoked = {name: approved.approvals(name).read_bytes() for name in old}
    for name, data in old.items():
        approved.approvals(name).write_bytes(data)
    with pytest.raises(ApprovalRefused, match="ROLLBACK"):
        approved.load()
    text = revoked["revoked.yaml"].decode().replace("serial: 2", "serial: 3")
    text = text[: text.index("revoked:\n")] + "revoked: {}\n"
    approved.approvals("revoked.yaml").write_text(text)
    approved.approvals("revoked.yaml.sig").write_text(key(CAROL).sign(text.encode(), sshsig.REVOKED_NAMESPACE))
    assert approved.running() is None
    approved.index()
    approved.known = {}  # the index was made without it: a gate that never saw the revocation cannot know
    assert approved.running() == 1


def test_a_revocation_in_the_index_holds_for_a_new_gate(approved):
    approved.revoke(1)
    approved.index()
    text = approved.approvals("revoked.yaml").read_text().replace("serial: 2", "serial: 3").replace("up_to: 1", "up_to: 1")
    text = text[: text.index("revoked:\n")] + "revoked: {}\n"
    approved.approvals("revoked.yaml").write_text(text)
    approved.approvals("revoked.yaml.sig").write_text(key(CAROL).sign(text.encode(), sshsig.REVOKED_NAMESPACE))
    approved.known = {}
    assert approved.running() is None


# --- places ----------------------------------------------------------------------------------------------------------------------
def test_a_moved_file_is_in_the_wrong_place(approved):
    approved.file.rename(approved.directory / "refund.yaml")
    loaded = approved.load()
    assert loaded.workflows == {}
    assert {r.reason for r in loaded.refused} == {R.WRONG_PLACE}


def test_a_deleted_file_is_in_the_wrong_place(approved):
    approved.file.unlink()
    refused = approved.refusal()
    assert (refused.reason, refused.data["file"], refused.got) == (R.WRONG_PLACE, PATH, "no workflow file")


def test_a_copy_elsewhere_is_refused_and_the_original_runs(approved):
    shutil.copy(approved.file, approved.directory / "copy.yaml")
    loaded = approved.load()
    assert loaded.workflows[ID].file == str(approved.file)
    assert [(r.reason, r.data["file"]) for r in loaded.refused] == [(R.WRONG_PLACE, "copy.yaml")]


def test_another_workflow_in_its_place_is_refused(approved):
    approved.edit("id: shop.refund", "id: shop.other")
    loaded = approved.load()
    assert loaded.workflows == {}
    assert [(r.reason, r.data["workflow"]) for r in loaded.refused] == [(R.WRONG_PLACE, ID), (R.UNAPPROVED, "shop.other")]


def test_approvals_moved_to_another_id_or_version_are_in_the_wrong_place(approved):
    shutil.copytree(approved.approvals(ID), approved.approvals("shop.other"))
    shutil.copytree(approved.approvals(f"{ID}/1"), approved.approvals(f"{ID}/2"))
    loaded = approved.load()
    assert loaded.workflows[ID].version == 1
    assert {(r.reason, r.data["workflow"], r.data["version"]) for r in loaded.refused} == {
        (R.WRONG_PLACE, "shop.other", 1),
        (R.WRONG_PLACE, ID, 2),
    }


@pytest.mark.parametrize(
    "name", ["root.yaml", "allowed_signers", "index.json", "index.json.sig", "revoked.yaml", "root.alice@acme.example.sig"]
)
def test_a_trust_file_that_is_a_link_loads_nothing(approved, tmp_path, name):
    place = approved.approvals(name)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ApprovalRefused, match="a link"):
        approved.load()


@pytest.mark.parametrize("name", [f"{ID}/1/definition.json", f"{ID}/1/{BOB}.json", f"{ID}/1/{BOB}.sig", f"{ID}/1", ID])
def test_a_link_below_a_workflow_refuses_that_workflow(approved, tmp_path, name):
    place = approved.approvals(name)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    loaded = approved.load()
    assert (loaded.refused[0].reason, loaded.refused[0].got, loaded.refused[0].data["workflow"]) == (R.TAMPERED, "a link", ID)
    assert loaded.workflows == {}


def test_approvals_that_are_a_link_load_nothing(approved, tmp_path):
    approved.approvals().rename(tmp_path / "elsewhere")
    approved.approvals().symlink_to(tmp_path / "elsewhere")
    approved.known = {}
    with pytest.raises(ApprovalRefused):
        approved.load()


def test_one_refused_workflow_stops_no_other(approved):
    (approved.directory / "shop/other.yaml").write_text(WORKFLOW.replace("shop.refund", "shop.other"))
    loaded = approved.load()
    assert set(loaded.workflows) == {ID}
    assert [(r.reason, r.data["workflow"]) for r in loaded.refused] == [(R.UNAPPROVED, "shop.other")]


# --- roles -----------------------------------------------------------------------------------------------------------------------
def test_roles_that_changed_since_are_named_and_the_approved_scopes_stay(team):
    (team.directory / "roles.yaml").write_text("agentgate: roles/v1\nroles: {clerk: [a, b]}\n")
    team.edit(
        'amount: {in: ["10.00", "20.00"], from: [model]}', "scopes: {each_in: [a], max_items: 1, narrower_than_role: clerk, from: [model]}"
    )
    team.approve(ALICE, BOB)
    assert team.running() == 1
    (team.directory / "roles.yaml").write_text("agentgate: roles/v1\nroles: {clerk: [a, b, c]}\n")
    loaded = team.load()
    assert loaded.workflows[ID].tools["payments.refund"].args["scopes"].role_scopes == {"a", "b"}
    assert [(r.reason, r.field) for r in loaded.refused] == [(R.TAMPERED, "roles.clerk")]
    (team.directory / "roles.yaml").unlink()
    assert [(r.reason, r.got) for r in team.load().refused] == [(R.TAMPERED, "no such role")]


def test_bad_roles_load_nothing(approved):
    (approved.directory / "roles.yaml").write_text("roles: what")
    with pytest.raises(WorkflowError):
        approved.load()


# --- status ----------------------------------------------------------------------------------------------------------------------
def stands(team: Team):
    return next(s for s in status(team.directory, team.root, now=team.now) if s.id == ID)


def test_status_says_who_signed_and_who_still_can(team):
    assert [s.refused.reason for s in status(team.directory, now=team.now) if not s.id and s.refused] == [R.MISSING, R.STALE_INDEX]
    found = stands(team)
    assert (found.version, found.in_force, found.missing, found.signed) == (1, None, 2, ())
    team.approve(ALICE)
    found = stands(team)
    assert (found.in_force, found.missing, found.signed, found.can) == (None, 1, (ALICE,), (BOB, CAROL))  # Dave proposed it
    team.approve(BOB)
    found = stands(team)
    assert (found.in_force, found.missing, found.signed, found.can, found.refused) == (1, 0, (ALICE, BOB), (), None)


def test_status_calls_in_force_only_what_a_gate_would_run(approved):
    assert stands(approved).in_force == 1
    index = approved.directory / "approvals" / "index.json"
    kept = index.read_bytes()
    index.unlink()
    assert stands(approved).in_force is None
    index.write_bytes(kept)
    (moved,) = (path for path in approved.directory.rglob("*.yaml") if path.name not in {"roles.yaml", "root.yaml", "revoked.yaml"})
    moved.rename(moved.with_name("elsewhere.yaml"))
    assert (stands(approved).in_force, stands(approved).refused.reason) == (None, R.WRONG_PLACE)


def test_status_of_a_change(approved):
    second(approved)
    found = stands(approved)
    assert (found.version, found.in_force, found.missing) == (2, 1, 2)
    approved.edit('"10.00", "20.00", "30.00"', '"10.00"')
    assert stands(approved).missing == 1  # it only narrows now


def test_status_names_the_changed_field(approved):
    approved.edit('"20.00"]', '"21.00"]')
    refused = stands(approved).refused
    assert refused is not None
    assert (refused.reason, refused.field) == (R.TAMPERED, "tools.payments.refund.args.amount.in[1]")


def test_status_of_a_file_that_cannot_be_read(approved):
    approved.file.write_text("what: [")
    (found,) = status(approved.directory, now=approved.now)
    assert found.refused is not None
    assert found.refused.data["file"].startswith(PATH)
