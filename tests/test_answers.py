"""Answers to holds that prove who gives them: SSH signatures and JWS, over exactly one hold, answer and nonce. Every attack is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from agentgate import Allow, AnswerRefused, Deny, Gate, JWSAnswer, Reason, SSHAnswer, StepUp, User
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.root import Root, Signers
from agentgate.approvals.sshsig import HOLD_NAMESPACE, NAMESPACE
from agentgate.approvals.writing import KeySigner
from agentgate.approvals.writing.trust import Reviewer, new_root
from agentgate.decision.hold import Hold
from agentgate.errors import ConfigError
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.stores import ops
from agentgate.token.jws import unb64url
from agentgate.token.signing import SigningKey
from agentgate.values.answers import ANSWER_TYPE, NONCE_SECONDS, nonce_claim
from tests.authority import lasting, nonce_for
from tests.shop import BOSS, REFUND, WORKFLOW, looked_up, opened, refusals, run_of

BIG = {**REFUND, "amount": "150.00"}
PROVEN = WORKFLOW.replace("agent: {in_process: true}", "agent: {spiffe: ['spiffe://acme.example/bot']}")
FRONT = ec.generate_private_key(ec.SECP256R1())
MONA, KIM, EVE = (KeySigner.from_seed(bytes([n]) * 32) for n in (1, 2, 3))


def jwk_of(key: EllipticCurvePrivateKey, kid: str = "front-1") -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid}


def signers_of(folder: Path, tenants: tuple[str, ...] = (), **more: Any) -> Signers:
    people = (Reviewer("mona", (MONA.public_key,), ("leads",), tenants), Reviewer("kim", (KIM.public_key,)))
    new_root(folder, people, expires="2099-01-01", threshold=1, signer=MONA, **more)
    root = Root.parse((folder / "approvals" / "root.yaml").read_bytes(), "root.yaml")
    return Signers(root, AllowedSigners.parse((folder / "approvals" / "allowed_signers").read_text(), "allowed_signers"))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate whose workflow takes nobody's word, with a front end for acme and a root's people."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    (tmp_path / "root").mkdir()
    with opened(tmp_path, answer_keys={"acme": {"keys": [jwk_of(FRONT)]}}) as gate:
        known = signers_of(tmp_path / "root")
        gate._core.answerers.signers = lambda: known
        yield gate


def held(gate: Gate, call: str = "pay") -> tuple[Any, Hold]:
    lee = lasting(proven_user("lee", tenant="acme", groups=("support",)))
    run = run_of(gate, user=lee, agent=lasting(proven_agent("bot", spiffe="spiffe://acme.example/bot")))
    looked_up(run)
    answer = run.authorize("payments.refund", BIG, tool_call_id=call)
    assert isinstance(answer, StepUp)
    return run, answer.hold


def claims_of(gate: Gate, hold: Hold, answer: Any = "release", **more: Any) -> dict[str, Any]:
    nonce = more.pop("nonce", None) or gate.nonce(hold.id, tenant="acme")
    now = int(time.time())
    stated = json.loads(hold.statement(answer, nonce))
    return {**stated, "aud": "https://gate.example", "sub": "boss", "groups": ["leads"], "iat": now, "exp": now + 60, **more}


def jws(claims: dict[str, Any], key: Any = FRONT, kid: str = "front-1", typ: str = ANSWER_TYPE, **more: Any) -> JWSAnswer:
    alg = "ES256" if isinstance(key, EllipticCurvePrivateKey) else "EdDSA"
    return JWSAnswer(jwt.encode(claims, key, algorithm=alg, headers={"kid": kid, "typ": typ, **more}))


def ssh(gate: Gate, hold: Hold, answer: Any = "release", signer: KeySigner = MONA, **more: Any) -> SSHAnswer:
    nonce = more.get("nonce") or gate.nonce(hold.id, tenant="acme")
    return SSHAnswer(nonce, signer.sign(hold.statement(answer, nonce), more.get("namespace", HOLD_NAMESPACE)))


def refused(gate: Gate, hold: Hold, by: Any, code: str, tenant: str = "acme") -> None:
    with pytest.raises(AnswerRefused) as caught:
        gate.release(hold.id, tenant=tenant, by=by)
    assert caught.value.code == code, str(caught.value)
    record = [r for r in refusals(gate) if r["type"] == "hold_answer_refused"][-1]
    assert (record["code"], record["hold"], record["answer"]) == (code, hold.id, "release")
    assert gate.hold(hold.id, tenant="acme").state == "pending"


# --- what counts ------------------------------------------------------------------------------------------------------------
def test_a_front_ends_jws_releases_once(gate: Gate) -> None:
    run, hold = held(gate)
    answer = jws(claims_of(gate, hold))
    assert gate.release(hold.id, tenant="acme", by=answer).state == "released"
    log: Any = gate._audit
    record = next(r for r in log.records if r["type"] == "hold_answer")
    assert (record["by"], record["channel"], record["by_identity"], record["rules"]) == ("boss", "jws", "proven", ["big"])
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_an_ssh_signature_of_a_person_in_the_root_releases(gate: Gate) -> None:
    run, hold = held(gate)
    assert gate.release(hold.id, tenant="acme", by=ssh(gate, hold)).state == "released"
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_a_no_is_signed_too(gate: Gate) -> None:
    (_, one), (_, other) = held(gate), held(gate)
    assert gate.refuse(one.id, tenant="acme", by=ssh(gate, one, "refuse")).state == "refused"
    assert gate.refuse(other.id, tenant="acme", by=jws(claims_of(gate, other, "refuse"))).state == "refused"


def test_sensitive_values_are_shown_on_record_to_whoever_must_judge_them(gate: Gate) -> None:
    _, hold = held(gate)
    assert gate.reveal(hold.id, tenant="acme", by=ssh(gate, hold, "reveal")) == {"payee": "cus_1"}
    log: Any = gate._audit
    record = next(r for r in log.records if r["type"] == "hold_revealed")
    assert (record["by"], record["hold"], record["channel"]) == ("mona", hold.id, "ssh")
    assert "cus_1" not in json.dumps(log.records)
    for by in (ssh(gate, hold, "release"), ssh(gate, hold, "reveal", EVE), ssh(gate, hold, "reveal", KIM), BOSS):
        with pytest.raises(AnswerRefused):
            gate.reveal(hold.id, tenant="acme", by=by)
    assert gate.hold(hold.id, tenant="acme").state == "pending"


def test_a_reveal_takes_its_nonce_and_is_over_with_the_hold(gate: Gate) -> None:
    _, hold = held(gate)
    once = ssh(gate, hold, "reveal")
    gate.reveal(hold.id, tenant="acme", by=once)
    with pytest.raises(AnswerRefused) as caught:
        gate.reveal(hold.id, tenant="acme", by=once)
    assert caught.value.code == "nonce"
    again = ssh(gate, hold, "reveal")
    gate.refuse(hold.id, tenant="acme", by=ssh(gate, hold, "refuse"))
    with pytest.raises(AnswerRefused) as caught:
        gate.reveal(hold.id, tenant="acme", by=again)
    assert caught.value.code == "state"


# --- attacks ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"hold": "0" * 64}, "signature"),
        ({"call": "0" * 64}, "signature"),
        ({"tenant": "other"}, "signature"),
        ({"run": "run_other"}, "signature"),
        ({"rules": ["other"]}, "signature"),
        ({"rules": []}, "signature"),
        ({"answer": "refuse"}, "signature"),
        ({"answer": "reveal"}, "signature"),
        ({"aud": "https://other.example"}, "signature"),
        ({"aud": ["https://gate.example"]}, "signature"),
        ({"agentgate": "answer/v2"}, "signature"),
        ({"exp": 1}, "nonce"),
        ({"iat": 2**40, "exp": 2**40 + 60}, "nonce"),
        ({"exp": 2**40}, "nonce"),
        ({"iat": True}, "form"),
        ({"exp": "later"}, "form"),
        ({"sub": ""}, "form"),
        ({"sub": None}, "form"),
        ({"sub": "bo\u200bss"}, "form"),
        ({"groups": "leads"}, "form"),
        ({"groups": [1]}, "form"),
        ({"act": {"sub": "x"}}, "form"),
        ({"nonce": "never-given"}, "nonce"),
        ({"nonce": 7}, "form"),
        ({"nonce": ""}, "form"),
        ({"nonce": "a b"}, "nonce"),
        ({"groups": []}, "approver"),
        ({"sub": "lee"}, "approver"),
        ({"sub": "bot"}, "approver"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_jws_that_says_anything_else_counts_for_nothing(gate: Gate, changed: dict[str, Any], code: str) -> None:
    _, hold = held(gate)
    claims = claims_of(gate, hold) | changed
    if "nonce" in changed and type(changed["nonce"]) is str and changed["nonce"]:
        claims = claims_of(gate, hold, nonce=changed["nonce"])
    refused(gate, hold, jws(claims), code)


def test_a_jws_by_another_key_or_under_another_header_counts_for_nothing(gate: Gate) -> None:
    _, hold = held(gate)
    claims = claims_of(gate, hold)
    other = ec.generate_private_key(ec.SECP256R1())
    good = jws(claims).token
    head, body, signature = good.split(".")
    for by in (
        jws(claims, other),
        jws(claims, FRONT, kid="front-2"),
        jws(claims, FRONT, typ="at+jwt"),
        jws(claims, FRONT, typ="JWT"),
        jws(claims, FRONT, crit=["x"]),
        jws(claims, FRONT, jwk=jwk_of(other)),
        JWSAnswer(f"{head}.{body}.{signature[:-4]}AAAA"),
    ):
        refused(gate, hold, by, "signature")
    for text in ("", "a.b", good + ".x", good[:-1] + "=", f"{head}.{body[:-2]}.{signature}", "x" * 20_000, 7):
        with pytest.raises(AnswerRefused) as caught:
            gate.release(hold.id, tenant="acme", by=JWSAnswer(text))  # type: ignore[arg-type]  # no text either
        assert caught.value.code in {"form", "signature"}
    assert gate.hold(hold.id, tenant="acme").state == "pending"


def test_the_gates_own_key_signs_no_answers(gate: Gate) -> None:
    """A call token is a JWS of the gate; so might be an answer that the agent's process makes."""
    _, hold = held(gate)
    signer = gate._core.keys.signer(time.time())
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    own: Any = load_der_private_key(signer.pkcs8(), None)
    refused(gate, hold, jws(claims_of(gate, hold), own, kid=signer.kid), "signature")


def test_an_ssh_answer_that_is_anything_else_counts_for_nothing(gate: Gate) -> None:
    (_, hold), (_, other) = held(gate), held(gate)
    nonce = gate.nonce(hold.id, tenant="acme")
    for by in (
        ssh(gate, hold, signer=EVE),
        ssh(gate, hold, "refuse"),
        ssh(gate, hold, namespace=NAMESPACE),
        SSHAnswer(nonce, MONA.sign(other.statement("release", nonce), HOLD_NAMESPACE)),
        SSHAnswer(nonce, MONA.sign(replace(hold, rules=()).statement("release", nonce), HOLD_NAMESPACE)),
        SSHAnswer(nonce, MONA.sign(replace(hold, tenant="other").statement("release", nonce), HOLD_NAMESPACE)),
        SSHAnswer(nonce, MONA.sign(replace(hold, run="run_x").statement("release", nonce), HOLD_NAMESPACE)),
        SSHAnswer(nonce, "-----BEGIN SSH SIGNATURE-----"),
        SSHAnswer(gate.nonce(hold.id, tenant="acme"), ssh(gate, hold).signature),
    ):
        refused(gate, hold, by, "signature")
    refused(gate, hold, ssh(gate, hold, signer=KIM), "approver")  # in the root, not in the team
    refused(gate, hold, ssh(gate, hold, nonce="never-given"), "nonce")
    refused(gate, hold, SSHAnswer(7, "x"), "form")  # type: ignore[arg-type]  # no text
    refused(gate, hold, SSHAnswer(nonce, 7), "form")  # type: ignore[arg-type]  # as above
    refused(gate, hold, SSHAnswer("", MONA.sign(hold.statement("release", ""), HOLD_NAMESPACE)), "form")


def test_an_answer_counts_once_and_for_its_own_hold(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN.replace("count: 1, not", "count: 2, not"))
    with opened(tmp_path, answer_keys={"acme": {"keys": [jwk_of(FRONT)]}}) as two:
        two._core.answerers.signers = gate._core.answerers.signers
        (_, hold), (_, other) = held(two), held(two)
        for once in (jws(claims_of(two, hold)), ssh(two, hold)):
            state = two.hold(hold.id, tenant="acme").state
            if state == "pending":
                two.release(hold.id, tenant="acme", by=once)
            if two.hold(hold.id, tenant="acme").state == "pending":
                log: Any = two._audit
                before = [r["type"] for r in log.records].count("hold_answer")
                refused(two, hold, once, "nonce")
                assert [r["type"] for r in log.records].count("hold_answer") == before  # refused before it is put on record as counting
            refused_of_other = pytest.raises(AnswerRefused)
            with refused_of_other as caught:
                two.release(other.id, tenant="acme", by=once)
            assert caught.value.code == "signature"
        with pytest.raises(AnswerRefused) as caught:
            two.release(hold.id, tenant="other", by=jws(claims_of(two, other)))
        assert caught.value.code == "missing"


def test_a_nonce_of_another_hold_and_an_old_one_are_refused(gate: Gate) -> None:
    (_, hold), (_, other) = held(gate), held(gate)
    foreign = gate.nonce(other.id, tenant="acme")
    refused(gate, hold, ssh(gate, hold, nonce=foreign), "nonce")
    store: Any = gate._store
    old = gate.nonce(hold.id, tenant="acme")
    assert store._client.hget(f"ag:{{acme}}:hold:{hold.id}", f"nonce:{old}")
    store._client.hset(f"ag:{{acme}}:hold:{hold.id}", f"nonce:{old}", int(time.time() * 1000) - 1)
    refused(gate, hold, ssh(gate, hold, nonce=old), "nonce")
    assert NONCE_SECONDS <= 300


def test_a_signature_that_somebody_kept_answers_nothing_after_five_minutes(gate: Gate) -> None:
    _, hold = held(gate)
    kept = ssh(gate, hold)
    with time_machine.travel(time.time() + NONCE_SECONDS + 1, tick=True):
        refused(gate, hold, kept, "nonce")


def test_a_hold_keeps_no_more_than_64_nonces(gate: Gate) -> None:
    _, hold = held(gate)
    first = ssh(gate, hold)
    for _ in range(64):
        gate.nonce(hold.id, tenant="acme")
    refused(gate, hold, first, "nonce")
    for tenant in ("other", "{x}"):
        with pytest.raises(AnswerRefused):
            gate.nonce(hold.id, tenant=tenant)
    gate.release(hold.id, tenant="acme", by=ssh(gate, hold))
    gate.refuse(hold.id, tenant="acme", by=ssh(gate, hold, "refuse"))
    with pytest.raises(AnswerRefused) as caught:
        gate.nonce(hold.id, tenant="acme")
    assert caught.value.code == "state"


def test_where_people_are_proven_the_hosts_word_is_none(gate: Gate) -> None:
    _, hold = held(gate)
    refused(gate, hold, BOSS, "unproven")
    refused(gate, hold, replace(BOSS), "unproven")
    refused(gate, hold, lasting(BOSS, nonce_for(gate, hold.id, "acme")), "unproven")  # in the wrapper of a proof, too


def test_a_token_that_names_no_nonce_of_the_gate_is_no_answer(gate: Gate) -> None:
    """Whoever got it once could answer with it until it ends: no nonce is used up."""
    _, hold = held(gate)
    boss = proven_user("boss", tenant="acme", groups=("leads",))
    refused(gate, hold, lasting(boss, nonce_claim(hold.statement("release", ""))), "unproven")
    refused(gate, hold, lasting(boss), "unproven")


def test_a_gate_without_such_keys_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    with opened(tmp_path) as gate:
        _, hold = held(gate)
        for by, name in ((jws(claims_of(gate, hold)), "answer_keys"), (ssh(gate, hold), "root")):
            with pytest.raises(AnswerRefused, match=name) as caught:
                gate.release(hold.id, tenant="acme", by=by)
            assert caught.value.code == "channel"


def test_a_tenants_front_end_answers_for_no_other_tenant(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    with opened(tmp_path, answer_keys={"other": {"keys": [jwk_of(FRONT)]}}) as gate:
        _, hold = held(gate)
        refused(gate, hold, jws(claims_of(gate, hold)), "channel")


# --- the proof is looked at again before the call is minted ------------------------------------------------------------------
def rewritten(gate: Gate, hold: Hold, **changes: Any) -> None:
    """Somebody who can write the store changes the approvers of a released hold."""
    store: Any = gate._store
    key = f"ag:{{acme}}:hold:{hold.id}"
    body = json.loads(store._client.hget(key, "body"))
    body["approvers"] = [{**each, **changes} for each in body["approvers"]] or [changes]
    store._client.hset(key, mapping={"body": json.dumps(body), "state": "released"})


FORGED = {"id": "boss", "tenant": "acme", "groups": ["leads"], "identity": "proven", "channel": "token", "proof": {}}


@pytest.mark.parametrize(
    "forged",
    [
        FORGED,
        {**FORGED, "proof": {"seal": "0" * 64}},
        {**FORGED, "channel": "ssh"},
        {**FORGED, "channel": "ssh", "proof": {"nonce": "n", "signature": "x"}},
        {**FORGED, "channel": "jws", "proof": {"token": "a.b.c"}},
        {**FORGED, "channel": "in_process", "identity": "in_process"},
    ],
    ids=["no proof", "no seal", "no signature", "a signature that is none", "a token that is none", "the host's word"],
)
def test_a_release_that_somebody_wrote_into_the_store_mints_nothing(gate: Gate, forged: dict[str, Any]) -> None:
    run, hold = held(gate)
    rewritten(gate, hold, **forged)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)


@pytest.mark.parametrize(
    "changes",
    [{"id": "kim"}, {"groups": ["leads", "x"]}, {"tenant": "other"}, {"identity": "in_process"}, {"channel": "in_process"}],
    ids=lambda value: next(iter(value)),
)
def test_a_seal_is_of_one_person_in_these_groups(gate: Gate, changes: dict[str, Any]) -> None:
    run, hold = held(gate)
    boss = proven_user("boss", tenant="acme", groups=("leads",))
    gate.release(hold.id, tenant="acme", by=lasting(boss, nonce_for(gate, hold.id, "acme")))
    assert len(gate._core.answerers.standing(gate.hold(hold.id, tenant="acme"), in_process=False).approvers) == 1
    rewritten(gate, hold, **changes)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)
    # Nor does it count for anybody who would be looked at less: not even where the host's word counts.
    assert gate._core.answerers.standing(gate.hold(hold.id, tenant="acme"), in_process=True).approvers == ()


@pytest.mark.parametrize("rules", [[], ["other"], ["big", "other"], ["big", "big"]], ids=str)
def test_a_hold_whose_rules_somebody_wrote_into_the_store_is_not_answered(gate: Gate, rules: list[str]) -> None:
    """Under no rule, everybody might answer."""
    _, hold = held(gate)
    store: Any = gate._store
    key = f"ag:{{acme}}:hold:{hold.id}"
    body = json.loads(store._client.hget(key, "body"))
    store._client.hset(key, "body", json.dumps({**body, "rules": rules}))
    refused(gate, hold, ssh(gate, replace(hold, rules=tuple(rules))), "workflow")


def test_a_nonce_that_has_no_canonical_form_is_refused_on_record(gate: Gate) -> None:
    _, hold = held(gate)
    for by in (replace(ssh(gate, hold), nonce="\ud800"), jws(claims_of(gate, hold) | {"nonce": "\ud800"})):
        refused(gate, hold, by, "form")


def test_a_signature_is_not_moved_to_another_hold(gate: Gate) -> None:
    (_, one), (run, other) = held(gate), held(gate)
    gate.release(one.id, tenant="acme", by=ssh(gate, one))
    (yes,) = gate.hold(one.id, tenant="acme").approvers
    rewritten(gate, other, **{**FORGED, "id": yes.id, "channel": "ssh", "proof": dict(yes.proof)})
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)


def test_a_seal_is_not_moved_to_another_hold(gate: Gate) -> None:
    (_, one), (run, other) = held(gate), held(gate)
    boss = proven_user("boss", tenant="acme", groups=("leads",))
    gate.release(one.id, tenant="acme", by=lasting(boss, nonce_for(gate, one.id, "acme")))
    (yes,) = gate.hold(one.id, tenant="acme").approvers
    rewritten(gate, other, **{**FORGED, "proof": dict(yes.proof)})
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)


def test_an_approval_with_the_hosts_word_in_it_is_not_called_proven(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW.replace("count: 1, not", "count: 2, not"))
    with opened(tmp_path, answer_keys={"acme": {"keys": [jwk_of(FRONT)]}}) as both:
        both._core.answerers.signers = gate._core.answerers.signers
        run = run_of(both)
        looked_up(run)
        asked = run.authorize("payments.refund", BIG, tool_call_id="pay")
        assert isinstance(asked, StepUp)
        assert both.release(asked.hold.id, tenant="acme", by=ssh(both, asked.hold)).state == "pending"
        assert both.release(asked.hold.id, tenant="acme", by=BOSS).state == "released"
        allowed = run.authorize("payments.refund", BIG, tool_call_id="pay")
        assert isinstance(allowed, Allow)
        claims = json.loads(unb64url(allowed.token.reveal().split(".")[1].encode()))
        assert claims["authorization_details"][0]["identity"]["approver"] == "in_process"


def test_an_answer_from_before_the_user_took_back_is_none_to_what_was_asked_again(gate: Gate) -> None:
    run, hold = held(gate)
    late = ssh(gate, hold), jws(claims_of(gate, hold))
    run.add_turn("No, stop, do not refund anything")
    assert gate.hold(hold.id, tenant="acme").state == "cancelled"
    run.add_turn("Please do refund 150.00 EUR for order ORD-10023344")
    again = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(again, StepUp)
    assert again.hold.id == hold.id
    for by in late:
        refused(gate, again.hold, by, "nonce")


def test_the_answers_of_a_hold_are_not_in_its_repr(gate: Gate) -> None:
    _, hold = held(gate)
    answer = jws(claims_of(gate, hold))
    assert answer.token.rpartition(".")[2] not in repr(gate.release(hold.id, tenant="acme", by=answer))


@pytest.mark.parametrize("who", ["mona", "@MONA"])
def test_whoever_is_revoked_answers_nothing_and_has_released_nothing(gate: Gate, who: str) -> None:
    (run, before), (_, after) = held(gate), held(gate)
    gate.release(before.id, tenant="acme", by=ssh(gate, before))
    gate.revoke(f"user:{who}", tenants=["acme"], by="ops", reason="left")
    refused_call = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(refused_call, Deny)
    assert refused_call.reasons == (Reason.REVOKED,)
    for answer, said in ((gate.release, "release"), (gate.refuse, "refuse"), (gate.reveal, "reveal")):
        with pytest.raises(AnswerRefused) as caught:
            answer(after.id, tenant="acme", by=ssh(gate, after, said))
        assert (caught.value.code, "revoked" in str(caught.value)) == ("approver", True)
    gate.lift(f"user:{who}", tenants=["acme"], by="ops", reason="it was somebody else")
    assert gate.release(after.id, tenant="acme", by=ssh(gate, after)).state == "released"


def test_whoever_is_revoked_up_to_a_time_answers_what_was_open_then_no_more_and_what_is_newer(gate: Gate) -> None:
    _, old = held(gate)
    time.sleep(0.01)
    when = datetime.now(UTC)
    time.sleep(0.01)
    _, new = held(gate)
    gate.revoke("user:mona", tenants=["acme"], by="ops", reason="the key was lost, and is back", before=when)
    refused(gate, old, ssh(gate, old), "approver")
    assert gate.release(new.id, tenant="acme", by=ssh(gate, new)).state == "released"


def test_whoever_left_the_root_or_the_team_has_released_nothing(gate: Gate, tmp_path: Path) -> None:
    for people in ((Reviewer("kim", (KIM.public_key,)),), (Reviewer("mona", (MONA.public_key,)), Reviewer("kim", (KIM.public_key,)))):
        run, hold = held(gate)
        before = gate._core.answerers.signers
        gate.release(hold.id, tenant="acme", by=ssh(gate, hold))
        folder = tmp_path / f"root{len(people)}"
        folder.mkdir()
        new_root(folder, people, expires="2099-01-01", threshold=1, signer=KIM)
        root = Root.parse((folder / "approvals" / "root.yaml").read_bytes(), "root.yaml")
        now = Signers(root, AllowedSigners.parse((folder / "approvals" / "allowed_signers").read_text(), "x"))
        gate._core.answerers.signers = lambda now=now: now  # type: ignore[misc]  # bound now
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)
        gate._core.answerers.signers = before
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_whoever_the_root_names_tenants_for_answers_in_these_only(gate: Gate, tmp_path: Path) -> None:
    (run, before), (_, after) = held(gate), held(gate)
    gate.release(before.id, tenant="acme", by=ssh(gate, before))
    for name, tenants in (("elsewhere", ("other", "acme-eu")), ("here", ("other", "acme"))):
        (tmp_path / name).mkdir()
        known = signers_of(tmp_path / name, tenants)
        gate._core.answerers.signers = lambda known=known: known  # type: ignore[misc]  # bound now
        if name == "elsewhere":
            refused(gate, after, ssh(gate, after), "signature")
            assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)  # the yes from before, too
    assert gate.release(after.id, tenant="acme", by=ssh(gate, after)).state == "released"
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_an_ended_root_and_a_key_for_other_things_answer_nothing(gate: Gate, tmp_path: Path) -> None:
    _, hold = held(gate)
    known = gate._core.answerers.signers()
    assert known is not None
    gate._core.answerers.signers = lambda: replace(known, root=replace(known.root, until=time.time() - 1))
    refused(gate, hold, ssh(gate, hold), "signature")
    lines = f'mona namespaces="{NAMESPACE}" {MONA.public_key.line}\n'
    gate._core.answerers.signers = lambda: replace(known, allowed=AllowedSigners.parse(lines, "x"))
    refused(gate, hold, ssh(gate, hold), "signature")


# --- settings ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "keys",
    [
        {"acme": {"keys": []}},
        {"acme": {}},
        {"acme": {"keys": [{**jwk_of(FRONT), "kid": ""}]}},
        {"acme": {"keys": [jwk_of(FRONT), jwk_of(FRONT)]}},
        {"acme": {"keys": [{k: v for k, v in jwk_of(FRONT).items() if k != "kid"}]}},
        {"acme": {"keys": [{**jwk_of(FRONT), "d": "AA"}]}},
        {"acme": {"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}},
        {"acme": "/nowhere/keys.json"},
        {"": {"keys": [jwk_of(FRONT)]}},
        [],
        {"acme": 7},
    ],
    ids=["none", "no set", "no kid", "twice", "without kid", "private", "secret", "no file", "no tenant", "no mapping", "no key"],
)
def test_answer_keys_that_are_none_open_no_gate(tmp_path: Path, keys: Any) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    with pytest.raises(ConfigError, match="answer_keys"):
        opened(tmp_path, answer_keys=keys)


def test_the_gates_own_key_is_no_answer_key(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    with opened(tmp_path, keys=tmp_path / "keys", audit=str(tmp_path / "audit")) as gate:
        own = {**gate.jwks()["keys"][0], "kid": "front-1"}
    with pytest.raises(ConfigError, match="answer_keys"):
        opened(tmp_path, keys=tmp_path / "keys", audit=str(tmp_path / "audit"), answer_keys={"acme": {"keys": [own]}})


def test_answer_keys_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    (tmp_path / "front.json").write_text(json.dumps({"keys": [jwk_of(FRONT), SigningKey.generate("EdDSA").public_jwk()]}))
    with opened(tmp_path, answer_keys={"acme": tmp_path / "front.json"}) as gate:
        _, hold = held(gate)
        assert gate.release(hold.id, tenant="acme", by=jws(claims_of(gate, hold))).state == "released"


def test_a_user_may_still_answer_in_process_where_the_workflow_says_so(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    with opened(tmp_path) as gate:
        run = run_of(gate)
        looked_up(run)
        hold = run.authorize("payments.refund", BIG, tool_call_id="pay").hold
        gate.release(hold.id, tenant="acme", by=User("boss", tenant="acme", groups=["leads"]))
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_a_refused_act_is_not_asked_again_under_another_id_for_a_while(tmp_path: Path) -> None:
    """Approval by tiring: the model asks again and again until somebody says yes."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW.replace("timeout: 10m", "timeout: 2s"))
    with opened(tmp_path) as gate:
        run = run_of(gate)
        looked_up(run)
        hold = run.authorize("payments.refund", BIG, tool_call_id="pay").hold
        gate.refuse(hold.id, tenant="acme", by=BOSS)
        for call in ("again", None):
            answer = run.authorize("payments.refund", BIG, tool_call_id=call)
            assert isinstance(answer, Deny)
            assert answer.reasons == (Reason.HOLD_REFUSED,)
        assert isinstance(run.authorize("payments.refund", {**BIG, "amount": "149.00"}, tool_call_id="less"), StepUp | Deny)
        assert gate.holds("acme", state="refused") == (gate.holds("acme", state="refused")[0],)
        other = run_of(gate)
        looked_up(other)
        assert isinstance(other.authorize("payments.refund", BIG, tool_call_id="again"), StepUp)
        time.sleep(2.1)
        assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="once more"), StepUp)


def test_the_store_keeps_no_nonce_longer_than_it_is_good_for(gate: Gate) -> None:
    _, hold = held(gate)
    op = ops.nonce_hold("acme", hold.id, "short", 1)
    gate._store.call(op, time.monotonic() + 1)
    time.sleep(0.01)
    gate.nonce(hold.id, tenant="acme")
    store: Any = gate._store
    assert store._client.hget(f"ag:{{acme}}:hold:{hold.id}", "nonce:short") is None


def test_a_key_of_two_people_is_nobodys(gate: Gate, tmp_path: Path) -> None:
    """Whoever shares a key with a lead would answer as the lead."""
    _, hold = held(gate)
    folder = tmp_path / "shared"
    folder.mkdir()
    people = (Reviewer("ann", (MONA.public_key,)), Reviewer("mona", (MONA.public_key,), ("leads",)))
    new_root(folder, people, expires="2099-01-01", threshold=1, signer=MONA)
    root = Root.parse((folder / "approvals" / "root.yaml").read_bytes(), "root.yaml")
    known = Signers(root, AllowedSigners.parse((folder / "approvals" / "allowed_signers").read_text(), "x"))
    gate._core.answerers.signers = lambda: known
    refused(gate, hold, ssh(gate, hold), "signature")


def test_a_hold_copied_under_another_id_or_tenant_is_none(gate: Gate) -> None:
    _, hold = held(gate)
    store: Any = gate._store
    copied = store._client.hgetall(f"ag:{{acme}}:hold:{hold.id}")
    for tenant, name in (("acme", "0" * 64), ("other", hold.id)):
        store._client.hset(f"ag:{{{tenant}}}:hold:{name}", mapping=copied)
        with pytest.raises(AnswerRefused) as caught:
            gate.hold(name, tenant=tenant)
        assert caught.value.code == "missing"


def test_one_signature_under_two_names_is_one_yes(gate: Gate) -> None:
    """Somebody who can write the store wants one lead's yes to count for two."""
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=ssh(gate, hold))
    rewritten(gate, hold, id="zed")
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Deny)


def test_a_release_copied_to_another_call_is_none(gate: Gate) -> None:
    """Somebody who can write the store wants one yes to pay twice."""
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=ssh(gate, hold))
    other = run.authorize("payments.refund", BIG, tool_call_id="again")
    assert isinstance(other, StepUp)
    store: Any = gate._store
    copied = store._client.hgetall(f"ag:{{acme}}:hold:{hold.id}")
    store._client.hset(f"ag:{{acme}}:hold:{other.hold.id}", mapping=copied)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="again"), Deny)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_a_copy_hides_nobodys_hold_from_a_list(gate: Gate) -> None:
    run, hold = held(gate)
    other = run.authorize("payments.refund", BIG, tool_call_id="again")
    store: Any = gate._store
    copied = store._client.hgetall(f"ag:{{acme}}:hold:{hold.id}")
    store._client.hset(f"ag:{{acme}}:hold:{other.hold.id}", mapping={**copied, b"state": b"refused"})
    assert [(each.id, each.state) for each in gate.holds(tenant="acme")] == [(hold.id, "pending")]


def test_a_record_never_says_that_a_rule_held_that_asks_a_person(gate: Gate) -> None:
    held(gate)
    log: Any = gate._audit
    record = next(r for r in log.records if r.get("decision") == "step_up")
    assert [reason["condition"] for reason in record["reasons"]] == ["step_up.big step_up"]
    assert "step_up.big step_up" not in record["met"]
