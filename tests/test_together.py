"""Several held calls as one question: one signature for all, each yes verified by itself, and an answer to these is one to nothing else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, AnswerRefused, AsyncGate, Deny, Gate, JWSAnswer, SSHAnswer, StepUp
from agentgate.approvals.sshsig import HOLD_NAMESPACE
from agentgate.decision.batch_answer import Inclusion, Together
from agentgate.decision.hold import Hold
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.values.answers import nonce_claim
from tests.authority import lasting
from tests.shop import BOSS, WEEKDAY, WORKFLOW, looked_up, opened, refusals, run_of
from tests.test_answers import BIG, EVE, FRONT, KIM, MONA, PROVEN, jwk_of, jws, signers_of
from tests.test_merkle import model

Answers = dict[str, Any]


def opened_for(folder: Path, source: str) -> Gate:
    """A gate with a front end for acme and a root's people, whose runs may refund often."""
    for name in ("w", "root"):
        (folder / name).mkdir()
    (folder / "w" / "refund.yaml").write_text(source.replace("max: 2, per: run", "max: 20, per: run"))
    made = opened(folder, answer_keys={"acme": {"keys": [jwk_of(FRONT)]}}, open_holds_per_run=20)
    known = signers_of(folder / "root")
    made._core.answerers.signers = lambda: known
    return made


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate whose workflow takes nobody's word."""
    with opened_for(tmp_path, PROVEN) as made:
        yield made


def held(gate: Gate, count: int = 3) -> tuple[Any, list[Hold]]:
    """A run in which so many refunds are held."""
    lee = lasting(proven_user("lee", tenant="acme", groups=("support",)))
    run = run_of(gate, user=lee, agent=lasting(proven_agent("bot", spiffe="spiffe://acme.example/bot")))
    looked_up(run)
    return run, [asked(run, n).hold for n in range(count)]  # type: ignore[union-attr]  # a StepUp


def asked(run: Any, n: int) -> StepUp | Allow | Deny:
    answer: StepUp | Allow | Deny = run.authorize("payments.refund", BIG, tool_call_id=f"pay-{n}")
    return answer


def yes(holds: list[Hold]) -> Answers:
    return {hold.id: "release" for hold in holds}


def signed(gate: Gate, holds: list[Hold], answers: Answers | None = None, signer: Any = MONA, nonce: str = "") -> SSHAnswer:
    nonce = nonce or gate.nonce([hold.id for hold in holds], tenant="acme")
    return SSHAnswer(nonce, signer.sign(Together.of(holds).statement(answers or yes(holds), nonce), HOLD_NAMESPACE))


def fronted(gate: Gate, held: list[Hold], /, **more: Any) -> JWSAnswer:
    stated = json.loads(Together.of(held).statement("release", gate.nonce([hold.id for hold in held], tenant="acme")))
    now = int(time.time())
    claims = {**stated, "aud": gate.issuer, "sub": "boss", "groups": ["leads"], "iat": now, "exp": now + 60, **more}
    return jws(claims)


def refused(gate: Gate, answers: Answers, by: Any, code: str, tenant: str = "acme") -> dict[str, Any]:
    with pytest.raises(AnswerRefused) as caught:
        gate.answer(answers, tenant=tenant, by=by)
    assert caught.value.code == code, str(caught.value)
    record = [r for r in refusals(gate) if r["type"] == "hold_answer_refused"][-1]
    assert record["code"] == code
    return record


def states(gate: Gate, holds: list[Hold]) -> list[str]:
    return [gate.hold(hold.id, tenant="acme").state for hold in holds]


# --- what counts ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_one_signature_releases_up_to_ten_and_each_is_verified_before_its_mint(gate: Gate, count: int) -> None:
    run, holds = held(gate, count)
    answered = gate.answer(yes(holds), tenant="acme", by=signed(gate, holds[::-1]))
    assert [(type(each), each.state) for each in answered.values()] == [(Hold, "released")] * count  # type: ignore[union-attr]  # as it says
    log: Any = gate._audit
    records = [r for r in log.records if r["type"] == "hold_answer"]
    root = model([hold.statement("release", "") for hold in sorted(holds, key=lambda hold: hold.id)])
    assert [r["together"] for r in records] == [{"holds": count, "root": root.hex()}] * count
    assert all(isinstance(asked(run, n), Allow) for n in range(count))


@pytest.mark.parametrize("channel", ["jws", "token"])
def test_a_front_ends_jws_and_an_id_token_answer_several_too(gate: Gate, channel: str) -> None:
    run, holds = held(gate)
    by: Any = fronted(gate, holds)
    if channel == "token":
        nonce = gate.nonce([hold.id for hold in holds], tenant="acme")
        boss = proven_user("boss", tenant="acme", groups=("leads",))
        by = lasting(boss, nonce_claim(Together.of(holds).statement("release", nonce)))
    gate.answer(yes(holds), tenant="acme", by=by)
    assert all(isinstance(asked(run, n), Allow) for n in range(3))


def test_each_may_be_answered_otherwise_by_the_same_signature(gate: Gate) -> None:
    run, holds = held(gate)
    answers = {**yes(holds), holds[1].id: "refuse"}
    gate.answer(answers, tenant="acme", by=signed(gate, holds, answers))
    assert states(gate, holds) == ["released", "refused", "released"]
    assert [type(asked(run, n)) for n in range(3)] == [Allow, Deny, Allow]


def test_one_of_them_may_be_answered_alone(gate: Gate) -> None:
    _, holds = held(gate)
    nonce = gate.nonce(holds[0].id, tenant="acme")
    gate.release(holds[0].id, tenant="acme", by=SSHAnswer(nonce, MONA.sign(holds[0].statement("release", nonce), HOLD_NAMESPACE)))
    assert states(gate, holds) == ["released", "pending", "pending"]


def test_what_was_answered_or_cancelled_meanwhile_is_said_and_the_others_count(gate: Gate) -> None:
    run, holds = held(gate)
    by = signed(gate, holds)
    alone = signed(gate, holds[1:2], {holds[1].id: "refuse"})
    gate.answer({holds[1].id: "refuse"}, tenant="acme", by=alone)
    answered = gate.answer(yes(holds), tenant="acme", by=by)
    first, second, third = (answered[hold.id] for hold in holds)
    assert isinstance(second, AnswerRefused)
    assert second.code == "state"
    assert isinstance(first, Hold)
    assert isinstance(third, Hold)
    assert states(gate, holds) == ["released", "refused", "released"]
    assert [type(asked(run, n)) for n in range(3)] == [Allow, Deny, Allow]
    refused(gate, yes(holds), by, "state")
    with pytest.raises(AnswerRefused, match="answered, or over") as caught:
        gate.nonce([hold.id for hold in holds], tenant="acme")
    assert caught.value.code == "state"


def test_the_host_answers_several_where_its_word_counts(tmp_path: Path) -> None:
    with opened_for(tmp_path, WORKFLOW) as gate:
        run = run_of(gate)
        looked_up(run)
        holds = [asked(run, n).hold for n in range(2)]  # type: ignore[union-attr]  # a StepUp
        gate.answer({holds[0].id: "release", holds[1].id: "refuse"}, tenant="acme", by=BOSS)
        assert [type(asked(run, n)) for n in range(2)] == [Allow, Deny]


async def test_an_awaited_gate_answers_several_too(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    url = {"issuer": "https://gate.example", "audit": "memory://", "clock": lambda: WEEKDAY}
    async with await AsyncGate.open_unsafe_unapproved(tmp_path / "w", **url) as gate:  # type: ignore[arg-type]  # settings
        with pytest.raises(AnswerRefused, match="no such hold"):
            await gate.answer({"0" * 64: "release"}, tenant="acme", by=BOSS)


def test_each_is_shown_whole(gate: Gate) -> None:
    _, holds = held(gate)
    text = str(Together.of(holds))
    for hold in holds:
        assert str(hold.question) in text
    assert all(f"{n} of 3\n" in text for n in (1, 2, 3))


def test_the_lines_of_the_page_answer_several(gate: Gate) -> None:
    run, holds = held(gate)
    page = (Path(__file__).parent.parent / "docs" / "holds.md").read_text("utf-8")
    source = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if block.startswith("asked ="))
    names: dict[str, Any] = {"Together": Together, "gate": gate, "run_id": run.id, "by": SSHAnswer}
    names["sign"] = lambda signed: MONA.sign(signed, HOLD_NAMESPACE)
    source = source.replace("acme-eu", "acme").replace("by=...", "by=by(nonce, sign(signed))")
    exec(compile(source, "docs/holds.md", "exec"), names)  # noqa: S102 - the docs are ours
    assert states(gate, holds) == ["released"] * 3


# --- attacks ----------------------------------------------------------------------------------------------------------------
def test_none_eleven_and_one_twice_are_no_question(gate: Gate) -> None:
    _, holds = held(gate, 11)
    for some in ([], holds, [holds[0], holds[1], holds[0]]):
        with pytest.raises(AnswerRefused) as caught:
            Together.of(some)
        assert caught.value.code == "form"
        with pytest.raises(AnswerRefused) as caught:
            gate.nonce([hold.id for hold in some], tenant="acme")
        assert caught.value.code == "form"
    for some_ids in ([f"{n:064x}" for n in range(11)], ["0" * 64, "0" * 64]):  # counted before any is looked for
        with pytest.raises(AnswerRefused) as caught:
            gate.nonce(some_ids, tenant="acme")
        assert caught.value.code == "form"
    nonce = gate.nonce([hold.id for hold in holds[:10]], tenant="acme")
    by = SSHAnswer(nonce, MONA.sign(Together(tuple(holds)).statement("release", nonce), HOLD_NAMESPACE))
    record = refused(gate, yes(holds), by, "form")
    assert len(record["holds"]) == 10, "a record holds no more names than can be asked about"
    refused(gate, {}, by, "form")
    refused(gate, yes(holds[:10]), by, "signature")
    for word in ("reveal", "approve", "Release", "", None):
        refused(gate, {holds[0].id: word}, by, "form")
        refused(gate, {holds[0].id: "refuse", holds[1].id: word}, by, "form")
    assert set(states(gate, holds)) == {"pending"}


def test_a_hold_of_another_run_version_or_tenant_is_in_no_question(gate: Gate) -> None:
    (_, one), (_, other) = held(gate, 1), held(gate, 1)
    mixed = [*one, *other]
    assert one[0].question is not None
    for with_it in (
        mixed,
        [one[0], replace(one[0], id="0" * 64, tenant="other")],
        [one[0], replace(one[0], id="0" * 64, question=replace(one[0].question, workflow="shop.refund v2"))],
    ):
        with pytest.raises(AnswerRefused) as caught:
            Together.of(with_it)
        assert caught.value.code == "form"
    with pytest.raises(AnswerRefused) as caught:
        gate.nonce([hold.id for hold in mixed], tenant="acme")
    assert caught.value.code == "form"
    by = signed(gate, one)
    refused(gate, yes(mixed), by, "form")
    refused(gate, yes(one), by, "missing", tenant="other")
    assert states(gate, mixed) == ["pending", "pending"]


def test_an_answer_to_several_answers_nothing_else(gate: Gate) -> None:
    _, holds = held(gate, 4)
    by = signed(gate, holds[:3])
    for some in (holds[:2], holds[1:3], holds, holds[1:], holds[:1]):
        refused(gate, yes(some), by, "signature")
    refused(gate, {**yes(holds[:3]), holds[0].id: "refuse"}, by, "signature")
    for hold in holds:
        with pytest.raises(AnswerRefused) as caught:
            gate.release(hold.id, tenant="acme", by=by)
        assert caught.value.code == "signature"
    assert set(states(gate, holds)) == {"pending"}


def test_an_answer_to_one_is_none_to_a_question_of_one(gate: Gate) -> None:
    _, (hold,) = held(gate, 1)
    nonce = gate.nonce(hold.id, tenant="acme")
    alone = SSHAnswer(nonce, MONA.sign(hold.statement("release", nonce), HOLD_NAMESPACE))
    refused(gate, yes([hold]), alone, "signature")
    entry = SSHAnswer(nonce, MONA.sign(hold.statement("release", ""), HOLD_NAMESPACE))
    refused(gate, yes([hold]), entry, "signature")


def test_who_signs_several_must_be_one_who_may(gate: Gate) -> None:
    _, holds = held(gate)
    refused(gate, yes(holds), signed(gate, holds, signer=EVE), "signature")
    refused(gate, yes(holds), signed(gate, holds, signer=KIM), "approver")
    refused(gate, yes(holds), fronted(gate, holds, sub="lee"), "approver")
    refused(gate, yes(holds), fronted(gate, holds, holds=2), "signature")
    refused(gate, yes(holds), fronted(gate, holds, root="0" * 64), "signature")
    refused(gate, yes(holds), fronted(gate, holds, answer="release"), "form")
    refused(gate, yes(holds), BOSS, "unproven")
    assert set(states(gate, holds)) == {"pending"}


def test_the_nonce_is_of_these_holds_and_good_once(gate: Gate) -> None:
    _, holds = held(gate)
    refused(gate, yes(holds), signed(gate, holds, nonce="never-given"), "nonce")
    for part in (holds[0].id, [hold.id for hold in holds[:2]]):
        given = gate.nonce(part, tenant="acme")
        answered = gate.answer(yes(holds), tenant="acme", by=signed(gate, holds, nonce=given))
        assert [type(answered[hold.id]) for hold in holds].count(AnswerRefused) >= 1
        last = answered[holds[2].id]
        assert isinstance(last, AnswerRefused)
        assert last.code == "nonce"
    assert states(gate, holds) == ["released", "released", "pending"]


def rewritten(gate: Gate, hold: Hold, proof: dict[str, str] | None = None, **changes: Any) -> None:
    """Somebody who can write the store changes the yes to a released hold."""
    store: Any = gate._store
    key = f"ag:{{acme}}:hold:{hold.id}"
    body = json.loads(store._client.hget(key, "body"))
    for each in body["approvers"]:
        each.update(changes)
        each["proof"].update(proof or {})
    store._client.hset(key, mapping={"body": json.dumps(body), "state": "released"})


def test_a_yes_to_several_is_not_moved_to_another_place_or_hold(gate: Gate) -> None:
    """Each yes is verified again by its own path: whoever writes the store cannot lead another hold to the root."""
    run, holds = held(gate)
    gate.answer(yes(holds), tenant="acme", by=signed(gate, holds))
    known = {hold.id: gate.hold(hold.id, tenant="acme").approvers[0].proof for hold in holds}
    first = min(range(3), key=lambda n: holds[n].id)  # two hashes below the root
    other, leaf = holds[first - 1], Inclusion.parse(known[holds[first].id]["leaf"])
    for wrong in (
        known[other.id]["leaf"],
        str(replace(leaf, index=(leaf.index + 1) % 3)),
        str(replace(leaf, size=4)),
        str(replace(leaf, above=())),
        str(replace(leaf, above=leaf.above[::-1])),
        str(replace(leaf, above=(bytes(32), *leaf.above[1:]))),
        str(leaf).upper(),
        "0/1",
        "0/0",
        "",
        "x",
    ):
        rewritten(gate, holds[first], {"leaf": wrong})
        assert isinstance(asked(run, first), Deny), wrong
    rewritten(gate, holds[first], {"leaf": str(leaf)})
    assert isinstance(asked(run, first), Allow)
    (_, fresh), store = held(gate, 1), gate._store
    client: Any = store._client  # type: ignore[attr-defined]  # in memory
    approvers = json.loads(client.hget(f"ag:{{acme}}:hold:{other.id}", "body"))["approvers"]
    body = json.loads(client.hget(f"ag:{{acme}}:hold:{fresh[0].id}", "body")) | {"approvers": approvers}
    client.hset(f"ag:{{acme}}:hold:{fresh[0].id}", mapping={"body": json.dumps(body), "state": "released"})
    assert gate._core.answerers.standing(gate.hold(fresh[0].id, tenant="acme"), in_process=False).approvers == ()


def test_a_no_among_several_is_no_yes_in_the_store(gate: Gate) -> None:
    run, holds = held(gate)
    answers = {**yes(holds), holds[1].id: "refuse"}
    together = Together.of(holds)
    gate.answer(answers, tenant="acme", by=signed(gate, holds, answers))
    client: Any = gate._store._client  # type: ignore[attr-defined]  # in memory
    body = json.loads(client.hget(f"ag:{{acme}}:hold:{holds[1].id}", "body"))
    body["approvers"] = json.loads(client.hget(f"ag:{{acme}}:hold:{holds[0].id}", "body"))["approvers"]
    body["approvers"][0]["proof"]["leaf"] = str(together.leaf(holds[1].id, answers))
    client.hset(f"ag:{{acme}}:hold:{holds[1].id}", mapping={"body": json.dumps(body), "state": "released"})
    assert isinstance(asked(run, 1), Deny)


def test_eleven_under_one_signature_count_for_none_of_them_in_the_store(gate: Gate) -> None:
    run, holds = held(gate, 11)
    by = signed(gate, holds[:2])
    gate.answer(yes(holds[:2]), tenant="acme", by=by)
    eleven, nonce = Together(tuple(sorted(holds, key=lambda hold: hold.id))), by.nonce
    signature = MONA.sign(eleven.statement("release", nonce), HOLD_NAMESPACE)
    rewritten(gate, holds[0], {"signature": signature, "leaf": str(eleven.leaf(holds[0].id, "release"))})
    assert isinstance(asked(run, 0), Deny)
    assert isinstance(asked(run, 1), Allow)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Gate]:
    """A gate whose rule wants two leads."""
    with opened_for(tmp_path, PROVEN.replace("count: 1, not", "count: 2, not")) as made:
        yield made


def test_a_quorum_is_met_by_answers_alone_and_together(two: Gate) -> None:
    run, holds = held(two)
    two.answer(yes(holds), tenant="acme", by=signed(two, holds))
    assert states(two, holds) == ["pending"] * 3
    two.answer(yes(holds[:2]), tenant="acme", by=fronted(two, holds[:2]))
    assert states(two, holds) == ["released", "released", "pending"]
    assert [type(asked(run, n)) for n in range(3)] == [Allow, Allow, StepUp]


def test_a_yes_that_somebody_wrote_into_the_store_makes_no_quorum_with_a_real_one(two: Gate) -> None:
    _, (hold,) = held(two, 1)
    client: Any = two._store._client  # type: ignore[attr-defined]  # in memory
    key = f"ag:{{acme}}:hold:{hold.id}"
    forged = {"id": "zed", "tenant": "acme", "groups": ["leads"], "identity": "proven", "channel": "token", "proof": {"seal": "0" * 64}}
    client.hset(key, "body", json.dumps(json.loads(client.hget(key, "body")) | {"approvers": [forged]}))
    answered = two.answer(yes([hold]), tenant="acme", by=signed(two, [hold]))[hold.id]
    assert isinstance(answered, Hold)
    assert answered.state == "pending"
