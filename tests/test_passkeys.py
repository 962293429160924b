"""A passkey's assertion as an answer to a hold: over exactly one statement, of a person of the operator's file. Every attack is refused."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cbor2 import CBORTag, dumps
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import encode_cbor

from agentgate import Allow, AnswerRefused, AsyncGate, Deny, Gate, StepUp, WebAuthnAnswer
from agentgate.decision.batch_answer import Together
from agentgate.decision.hold import Hold
from agentgate.errors import ConfigError, CredentialRefused, KeysUnavailable
from agentgate.identity.assertion import MAX_ASSERTION, Assertion
from agentgate.identity.passkeys import FRESH, MAX_FILE, MAX_PASSKEYS, MAX_REGISTRATION, Passkeys
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.identity.settings import PasskeySettings
from agentgate.token.jws import unb64url
from agentgate.values.answers import webauthn_challenge
from tests.authority import lasting
from tests.passkey import EXTENSIONS, NEW_KEY, ORIGIN, PRESENT, VERIFIED, Passkey, b64, written
from tests.shop import ORDER, PROMPT, looked_up, opened, run_of
from tests.test_answers import BIG, FRONT, MONA, PROVEN, claims_of, held, jwk_of, jws, refused, rewritten, signers_of, ssh

LEAD, SECOND, KIM = Passkey(), Passkey("EdDSA"), Passkey()
ROWS = (
    LEAD.row("boss", "leads", label="blue key"),
    SECOND.row("nora", "leads", tenants=("acme", "other")),
    KIM.row("kim"),
    (ELSEWHERE := Passkey()).row("eve", "leads", tenants=("other",)),
)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate whose workflow takes nobody's word, with a file of passkeys."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    with opened(tmp_path, passkeys={"file": str(written(tmp_path / "passkeys.toml", *ROWS))}) as gate:
        yield gate


def now(gate: Gate, *rows: Any) -> None:
    """The operator's file from now on, as the gate will have read it a second later."""
    keys = gate._core.answerers.passkeys
    assert keys is not None
    written(keys._file, *rows)
    keys._read_at -= FRESH


def by(gate: Gate, hold: Hold, answer: Any = "release", key: Passkey = LEAD, **more: Any) -> WebAuthnAnswer:
    nonce = more.pop("nonce", None) or gate.nonce(hold.id, tenant="acme")
    return WebAuthnAnswer(nonce, json.dumps(key.get(webauthn_challenge(hold.statement(answer, nonce)), **more)))


def changed(answer: WebAuthnAnswer, **changes: Any) -> WebAuthnAnswer:
    """The same assertion with other members; of the response those that it has."""
    read = json.loads(str(answer.assertion))
    for name, value in changes.items():
        (read["response"] if name in read["response"] else read)[name] = value
    return WebAuthnAnswer(answer.nonce, read)


def pay(run: Any) -> Any:
    return run.authorize("payments.refund", BIG, tool_call_id="pay")


# --- what counts ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [str, dict])
def test_a_passkey_releases_once_and_record_and_token_say_how(gate: Gate, form: type) -> None:
    run, hold = held(gate)
    answer = by(gate, hold)
    if form is dict:
        answer = WebAuthnAnswer(answer.nonce, json.loads(str(answer.assertion)))
    assert gate.release(hold.id, tenant="acme", by=answer).state == "released"
    log: Any = gate._audit
    record = next(r for r in log.records if r["type"] == "hold_answer")
    assert (record["by"], record["channel"], record["by_identity"]) == ("boss", "webauthn", "proven")
    allowed = pay(run)
    assert isinstance(allowed, Allow)
    claims = json.loads(unb64url(allowed.token.reveal().split(".")[1].encode()))
    assert claims["authorization_details"][0]["identity"]["approver"] == "proven"


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "RS256"])
@pytest.mark.parametrize("count", [0, 7])
def test_each_algorithm_counts_and_so_does_any_counter(gate: Gate, alg: str, count: int) -> None:
    key = Passkey(alg, count=count)
    now(gate, key.row("boss", "leads"))
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold, key=key))
    assert isinstance(pay(run), Allow)


def test_a_no_and_a_reveal_are_signed_too(gate: Gate) -> None:
    _, hold = held(gate)
    once = by(gate, hold, "reveal")
    assert gate.reveal(hold.id, tenant="acme", by=once) == {"payee": "cus_1"}
    for again in (once, by(gate, hold, "reveal", KIM), by(gate, hold, "release")):
        with pytest.raises(AnswerRefused):
            gate.reveal(hold.id, tenant="acme", by=again)
    assert gate.refuse(hold.id, tenant="acme", by=by(gate, hold, "refuse")).state == "refused"


def test_two_people_answer_on_two_channels(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN.replace("count: 1, not", "count: 2, not"))
    (tmp_path / "root").mkdir()
    known = signers_of(tmp_path / "root")
    given = {"passkeys": {"file": tmp_path / "passkeys.toml"}, "answer_keys": {"acme": {"keys": [jwk_of(FRONT)]}}}
    with opened(tmp_path, **given) as two:
        two._core.answerers.signers = lambda: known
        for other in (lambda hold: jws(claims_of(two, hold, sub="nora")), lambda hold: ssh(two, hold, signer=MONA)):
            run, hold = held(two)
            assert two.release(hold.id, tenant="acme", by=by(two, hold)).state == "pending"
            assert two.release(hold.id, tenant="acme", by=by(two, hold)).state == "pending"  # the same person is one
            assert isinstance(pay(run), StepUp)
            assert two.release(hold.id, tenant="acme", by=other(hold)).state == "released"
            assert isinstance(pay(run), Allow)
        # a terminal knows no file of passkeys: whoever answers there last leaves it to the gate to see that it was enough
        run, hold = held(two)
        two.release(hold.id, tenant="acme", by=by(two, hold))
        keys, two._core.answerers.passkeys = two._core.answerers.passkeys, None
        assert two.release(hold.id, tenant="acme", by=ssh(two, hold)).state == "pending"
        assert isinstance(pay(run), StepUp)
        two._core.answerers.passkeys = keys
        assert isinstance(pay(run), Allow)
        run, hold = held(two)
        two.release(hold.id, tenant="acme", by=by(two, hold, key=SECOND))
        assert two.release(hold.id, tenant="acme", by=by(two, hold)).state == "released"


def test_several_are_answered_by_one_assertion_and_each_is_verified_before_its_mint(gate: Gate) -> None:
    run, _ = held(gate)
    holds = [run.authorize("payments.refund", BIG, tool_call_id=f"pay-{n}").hold for n in range(2)]
    asked = Together.of(holds)
    answers: Any = {holds[0].id: "release", holds[1].id: "refuse"}
    nonce = gate.nonce(answers, tenant="acme")
    one = WebAuthnAnswer(nonce, LEAD.get(webauthn_challenge(asked.statement(answers, nonce))))
    with pytest.raises(AnswerRefused) as caught:
        gate.answer({hold.id: "release" for hold in holds}, tenant="acme", by=one)
    assert caught.value.code == "signature"
    refused(gate, holds[0], one, "signature")  # nor is it an answer to one of them alone
    gate.answer(answers, tenant="acme", by=one)
    assert [gate.hold(hold.id, tenant="acme").state for hold in holds] == ["released", "refused"]
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay-0"), Allow)


async def test_an_awaited_gate_takes_them_too(gate: Gate, tmp_path: Path) -> None:
    given: Any = {"issuer": "https://gate.example", "audit": "memory://", "clock": gate._core.clock}
    awaited = await AsyncGate.open_unsafe_unapproved(tmp_path / "w", **given, passkeys={"file": str(tmp_path / "passkeys.toml")})
    async with awaited:
        lee = lasting(proven_user("lee", tenant="acme", groups=("support",)))
        bot = lasting(proven_agent("bot", spiffe="spiffe://acme.example/bot"))
        run = await awaited.open_run("shop.refund", tenant="acme", user=lee, agent=bot, prompt=PROMPT)
        look: Any = await run.authorize("orders.get", ORDER, tool_call_id="look")
        async with await run.redeem(look.token, tool="orders.get", args=ORDER) as redeemed:
            await redeemed.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1", "comment": ""})
        asked: Any = await run.authorize("payments.refund", BIG, tool_call_id="pay")
        hold = asked.hold
        nonce = await awaited.nonce(hold.id, tenant="acme")
        await awaited.release(
            hold.id, tenant="acme", by=WebAuthnAnswer(nonce, LEAD.get(webauthn_challenge(hold.statement("release", nonce))))
        )
        keys: Any = awaited._core.answerers.passkeys
        keys._read_at -= FRESH
        assert isinstance(await run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_the_docs_settings_file_and_answer_work(gate: Gate, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "holds.md").read_text("utf-8")
    settings, file = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "docs.toml").write_text(file)
    given = tomllib.loads(settings)["passkeys"]
    made = Passkeys.of({**given, "file": tmp_path / "docs.toml"}, ORIGIN)
    assert (made.rp_id, made.names("acme-eu")) == ("acme.example", True)
    run, hold = held(gate)
    source = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "WebAuthnAnswer(" in block)
    source = source.replace("acme-eu", "acme").replace("assertion)", "asked(challenge))")
    exec(  # noqa: S102 - the docs are ours
        compile(source, "docs/holds.md", "exec"),
        {"gate": gate, "hold": hold, "asked": LEAD.get, "WebAuthnAnswer": WebAuthnAnswer, "webauthn_challenge": webauthn_challenge},
    )
    assert isinstance(pay(run), Allow)


# --- attacks ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"flags": PRESENT}, "verified"),
        ({"flags": VERIFIED}, "present"),
        ({"flags": 0}, "present"),
        ({"rp_id": "evil.example"}, "RP ID"),
        ({"origin": "https://evil.example"}, "origin"),
        ({"origin": "http://gate.example"}, "origin"),
        ({"origin": "https://gate.example:444"}, "origin"),
        ({"origin": "https://gate.example.evil.example"}, "origin"),
        ({"origin": None}, "malformed"),
        ({"origin": [ORIGIN]}, "origin"),
        ({"type": "webauthn.create"}, "type"),
        ({"type": "payment.get"}, "type"),
        ({"crossOrigin": True}, "crossOrigin"),
        ({"crossOrigin": "false"}, "crossOrigin"),
        ({"topOrigin": "https://evil.example"}, "crossOrigin"),
        ({"challenge": b64(bytes(32))}, "challenge"),
        ({"challenge": None}, "malformed"),
        ({"challenge": 7}, "malformed"),
        ({"flags": PRESENT | VERIFIED | EXTENSIONS, "tail": encode_cbor({"x": True})}, "authenticatorData"),
        ({"flags": PRESENT | VERIFIED | NEW_KEY, "tail": bytes(18)}, "authenticatorData"),
        ({"tail": b"x"}, "authenticatorData"),
    ],
    ids=str,
)
def test_a_signed_assertion_that_was_made_otherwise_counts_for_nothing(gate: Gate, made: dict[str, Any], says: str) -> None:
    _, hold = held(gate)
    answer = by(gate, hold, **made)
    refused(gate, hold, answer, "signature")
    with pytest.raises(AnswerRefused, match=says):
        gate.release(hold.id, tenant="acme", by=answer)


@pytest.mark.parametrize("name", ["id", "rawId", "clientDataJSON", "authenticatorData", "signature"])
def test_a_change_of_any_byte_counts_for_nothing(gate: Gate, name: str) -> None:
    _, hold = held(gate)
    answer = by(gate, hold)
    read = json.loads(str(answer.assertion))
    data = unb64url((read["response"].get(name) or read[name]).encode())
    for place in {0, len(data) // 2, len(data) - 1}:
        with pytest.raises(AnswerRefused) as caught:
            gate.release(
                hold.id, tenant="acme", by=changed(answer, **{name: b64(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])})
            )
        assert caught.value.code in {"signature", "form"}
    others: tuple[Any, ...] = (
        "",
        b64(data) + "=",
        b64(data) + "\n",
        "+" + b64(data),
        b64(data)[:-1],
        "\ud800",
        "A" * (MAX_ASSERTION + 1),
        None,
        7,
        [],
        {},
    )
    for other in others:
        with pytest.raises(AnswerRefused) as caught:
            gate.release(hold.id, tenant="acme", by=changed(answer, **{name: other}))
        assert caught.value.code in {"signature", "form"}
    assert gate.hold(hold.id, tenant="acme").state == "pending"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "[]",
        "null",
        '{"id": "a", "id": "a"}',
        "{" * 5000,
        "\ud800",
        b"{}",
        None,
        7,
        [],
        {},
        {"response": []},
        " " * (MAX_ASSERTION + 1),
    ],
    ids=lambda given: ascii(given)[:20],
)
def test_what_is_no_assertion_is_refused_by_its_form(gate: Gate, given: Any) -> None:
    _, hold = held(gate)
    refused(gate, hold, WebAuthnAnswer(gate.nonce(hold.id, tenant="acme"), given), "form")


def test_a_large_assertion_is_refused_whatever_signed_it(gate: Gate) -> None:
    _, hold = held(gate)
    nonce = gate.nonce(hold.id, tenant="acme")
    asked = webauthn_challenge(hold.statement("release", nonce))
    large = LEAD.get(asked, more="x" * MAX_ASSERTION)
    for given in (large, json.dumps(large), json.dumps(LEAD.get(asked)) + " " * MAX_ASSERTION):
        refused(gate, hold, WebAuthnAnswer(nonce, given), "form")
    refused(gate, hold, changed(by(gate, hold), type="password"), "form")


def test_a_nonce_that_has_no_canonical_form_is_refused_on_record(gate: Gate) -> None:
    _, hold = held(gate)
    refused(gate, hold, replace(by(gate, hold), nonce="\ud800"), "form")


def test_client_data_that_two_readers_would_read_differently_is_refused(gate: Gate) -> None:
    """One challenge for the gate, one for whoever asked the person."""
    _, hold = held(gate)
    nonce = gate.nonce(hold.id, tenant="acme")
    right = webauthn_challenge(hold.statement("release", nonce))
    read = LEAD.get(right)
    page = f'"origin":"{ORIGIN}","crossOrigin":false'
    twice = f'{{"type":"webauthn.get","challenge":"{b64(bytes(32))}","challenge":"{b64(right)}",{page}}}'.encode()
    read["response"] |= {"clientDataJSON": b64(twice), "signature": b64(LEAD.signed(twice))}
    refused(gate, hold, WebAuthnAnswer(nonce, read), "form")


def test_an_answer_to_anything_else_is_none_to_this(gate: Gate) -> None:
    (_, hold), (_, other) = held(gate), held(gate)
    nonce = gate.nonce(hold.id, tenant="acme")
    for stated in (
        hold.statement("refuse", nonce),
        hold.statement("reveal", nonce),
        other.statement("release", nonce),
        replace(hold, tenant="other").statement("release", nonce),
        replace(hold, run="run_x").statement("release", nonce),
        replace(hold, rules=()).statement("release", nonce),
        hold.statement("release", gate.nonce(hold.id, tenant="acme")),
        Together((hold,)).statement("release", nonce),
        b"",
    ):
        refused(gate, hold, WebAuthnAnswer(nonce, LEAD.get(webauthn_challenge(stated))), "signature")
    refused(gate, hold, WebAuthnAnswer(nonce, LEAD.get(hold.statement("release", nonce))), "signature")  # the statement, not its digest
    foreign = gate.nonce(other.id, tenant="acme")
    for given in ("never-given", foreign, "a b"):
        refused(gate, hold, by(gate, hold, nonce=given), "nonce")
    for bad in ("", "x" * 129, 7, None):
        refused(gate, hold, WebAuthnAnswer(bad, by(gate, hold).assertion), "form")  # type: ignore[arg-type]  # no text either
    with pytest.raises(AnswerRefused) as caught:
        gate.release(hold.id, tenant="other", by=by(gate, hold))
    assert caught.value.code == "missing"


def test_a_sign_in_is_no_answer(gate: Gate) -> None:
    _, hold = held(gate)
    refused(gate, hold, WebAuthnAnswer(gate.nonce(hold.id, tenant="acme"), LEAD.get(secrets.token_bytes(32))), "signature")


def test_another_key_and_a_person_of_another_tenant_or_group_answer_nothing(gate: Gate) -> None:
    _, hold = held(gate)
    stranger = Passkey()
    refused(gate, hold, by(gate, hold, key=stranger), "signature")
    stranger.id = LEAD.id  # as if it were the lead's
    refused(gate, hold, by(gate, hold, key=stranger), "signature")
    refused(gate, hold, by(gate, hold, key=ELSEWHERE), "signature")
    refused(gate, hold, by(gate, hold, key=KIM), "approver")
    now(gate, LEAD.row("lee", "leads", "support"))
    refused(gate, hold, by(gate, hold), "approver")  # who asked for it
    now(gate, LEAD.row("bot", "leads"))
    refused(gate, hold, by(gate, hold), "approver")


def test_an_answer_counts_once(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN.replace("count: 1, not", "count: 2, not"))
    with opened(tmp_path, passkeys={"file": tmp_path / "passkeys.toml"}) as two:
        (_, hold), (_, other) = held(two), held(two)
        once = by(two, hold)
        two.release(hold.id, tenant="acme", by=once)
        refused(two, hold, once, "nonce")
        refused(two, other, once, "signature")


def test_a_gate_without_the_setting_names_it(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    with opened(tmp_path) as gate:
        _, hold = held(gate)
        with pytest.raises(AnswerRefused, match="passkeys: ") as caught:
            gate.release(hold.id, tenant="acme", by=by(gate, hold))
        assert caught.value.code == "channel"


# --- before the mint --------------------------------------------------------------------------------------------------------
def test_a_passkey_that_was_removed_since_has_released_nothing(gate: Gate) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold))
    for rows in (ROWS[1:], (Passkey().row("boss", "leads"), *ROWS[1:]), (LEAD.row("boss", "leads", tenants=("other",)),)):
        now(gate, *rows)
        assert isinstance(pay(run), Deny)
    now(gate, *ROWS)
    assert isinstance(pay(run), Allow)


@pytest.mark.parametrize(
    "row", [LEAD.row("boss", "others"), LEAD.row("boss"), LEAD.row("nora", "leads")], ids=["moved", "left", "given away"]
)
def test_groups_and_the_person_are_those_of_the_moment(gate: Gate, row: dict[str, Any]) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold))
    now(gate, row)
    assert isinstance(pay(run), Deny)


@pytest.mark.parametrize("text", [None, "", "passkeys = 7", "[[passkeys]]\nid = 'x'", "\x00", "[["])
def test_while_the_file_cannot_be_read_nobody_answers(gate: Gate, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    run, hold = held(gate)
    answer = by(gate, hold)
    keys: Any = gate._core.answerers.passkeys
    gate.release(hold.id, tenant="acme", by=answer)
    if text is None:
        keys._file.unlink()
    else:
        keys._file.write_text(text)
    keys._read_at -= FRESH
    assert isinstance(pay(run), Deny)
    _, other = held(gate)
    refused(gate, other, by(gate, other), "signature" if text == "" else "channel")
    assert capsys.readouterr().err.count("passkeys_unreadable") == (text != "")  # once, not for every call
    now(gate, *ROWS)
    assert isinstance(pay(run), Allow)


def test_the_file_is_read_again_within_a_second(gate: Gate) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold))
    keys: Any = gate._core.answerers.passkeys
    written(keys._file, *ROWS[1:])
    keys._read_at = keys._clock() - FRESH
    assert isinstance(pay(run), Deny)
    assert not keys.due


def test_a_call_waits_for_a_large_file(gate: Gate) -> None:
    """As many passkeys as a file may have take longer to read than a call may take otherwise."""
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold))
    now(gate, ROWS[0], *(Passkey("EdDSA").row(f"person-{n}", "others") for n in range(MAX_PASSKEYS - 1)))
    assert isinstance(pay(run), Allow)


@pytest.mark.parametrize(
    "forge",
    [
        lambda proof: {},
        lambda proof: {**proof, "nonce": "other"},
        lambda proof: {"assertion": proof["assertion"]},
        lambda proof: {"nonce": proof["nonce"]},
        lambda proof: {**proof, "assertion": "{}"},
        lambda proof: {**proof, "assertion": 7},
        lambda proof: {**proof, "assertion": proof["assertion"].replace(b64(LEAD.id), b64(SECOND.id))},
        lambda proof: {**proof, "assertion": json.dumps(LEAD.get(bytes(32)))},
        lambda proof: {**proof, "leaf": "0/1"},
        lambda proof: {**proof, "leaf": "x"},
        lambda proof: {**proof, "seal": "0" * 64, "assertion": ""},
    ],
)
def test_a_proof_that_somebody_rewrote_in_the_store_mints_nothing(gate: Gate, forge: Any) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold))
    (yes,) = gate.hold(hold.id, tenant="acme").approvers
    rewritten(gate, hold, proof=forge(dict(yes.proof)))
    assert isinstance(pay(run), Deny)
    rewritten(gate, hold, proof=dict(yes.proof))
    assert isinstance(pay(run), Allow)


@pytest.mark.parametrize(
    "changes", [{"id": "nora"}, {"tenant": "other"}, {"channel": "token"}, {"channel": "ssh"}, {"channel": "in_process"}, {"channel": "x"}]
)
def test_a_yes_is_moved_to_no_other_person_and_channel(gate: Gate, changes: dict[str, Any]) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=by(gate, hold))
    rewritten(gate, hold, **changes)
    assert isinstance(pay(run), Deny)


def test_groups_that_somebody_wrote_into_the_store_count_for_nothing(gate: Gate) -> None:
    run, hold = held(gate)
    nonce = gate.nonce(hold.id, tenant="acme")
    kims = KIM.get(webauthn_challenge(hold.statement("release", nonce)))
    assertion = Assertion.parse(kims).text
    of_kim = {"id": "kim", "tenant": "acme", "groups": ["leads"], "identity": "proven", "channel": "webauthn"}
    rewritten(gate, hold, **of_kim, proof={"nonce": nonce, "assertion": assertion})
    assert isinstance(pay(run), Deny)


def test_an_assertion_for_another_hold_a_no_or_a_reveal_is_no_yes_in_the_store(gate: Gate) -> None:
    (_, one), (run, other) = held(gate), held(gate)
    nonce = gate.nonce(other.id, tenant="acme")
    of_boss = {"id": "boss", "tenant": "acme", "groups": ["leads"], "identity": "proven", "channel": "webauthn"}
    for stated in (one.statement("release", nonce), other.statement("refuse", nonce), other.statement("reveal", nonce)):
        assertion = Assertion.parse(LEAD.get(webauthn_challenge(stated))).text
        rewritten(gate, other, **of_boss, proof={"nonce": nonce, "assertion": assertion})
        assert isinstance(pay(run), Deny)


MINE = PROVEN.replace("{group: leads, count: 1, not: [requester]}", "{user: true}").replace("unclear: step_up", "unclear: deny")


# --- a confirm --------------------------------------------------------------------------------------------------------------
def test_the_users_own_passkey_confirms_and_nobody_elses(tmp_path: Path) -> None:
    """Whom the file names is the user, whichever issuer proved them when the run was opened: as a front end's word."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(MINE)
    mine = Passkey()
    rows = (mine.row("lee"), LEAD.row("boss", "leads"), KIM.row("Lee"))
    with opened(tmp_path, passkeys={"file": written(tmp_path / "passkeys.toml", *rows)}) as gate:
        lee = lasting(proven_user("lee", tenant="acme", groups=("support",), issuer="https://idp.example", subject="s-1"))
        run = run_of(gate, user=lee, agent=lasting(proven_agent("bot", spiffe="spiffe://acme.example/bot")))
        looked_up(run)
        asked = pay(run)
        assert isinstance(asked, StepUp)
        assert asked.confirm
        for key in (LEAD, KIM):
            refused(gate, asked.hold, by(gate, asked.hold, key=key), "approver")
        gate.release(asked.hold.id, tenant="acme", by=by(gate, asked.hold, key=mine))
        assert isinstance(pay(run), Allow)


def test_a_confirm_can_be_asked_where_somebody_of_the_tenant_has_a_passkey(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(MINE)
    for rows, kind in (((LEAD.row("lee"),), StepUp), ((LEAD.row("lee", tenants=("other",)),), Deny), ((), Deny)):
        with opened(tmp_path, passkeys={"file": written(tmp_path / "passkeys.toml", *rows)}) as gate:
            lee = lasting(proven_user("lee", tenant="acme", groups=("support",)))
            run = run_of(gate, user=lee, agent=lasting(proven_agent("bot", spiffe="spiffe://acme.example/bot")))
            looked_up(run)
            answer = pay(run)
            assert isinstance(answer, kind)
            if isinstance(answer, Deny):
                assert "passkeys" in answer.failures[0].expected


# --- the file and the settings ----------------------------------------------------------------------------------------------
def cose(key: Passkey, **changes: Any) -> dict[str, Any]:
    """A row whose key has other members; a member's name is its label: `_3` is -3."""
    made = {**key.cose, **{int(name.replace("_", "-")): value for name, value in changes.items()}}
    return {"public_key": b64(encode_cbor({name: value for name, value in made.items() if value is not None}))}


P384 = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
ON_P384 = {1: 2, 3: -35, -1: 2, -2: P384.x.to_bytes(48), -3: P384.y.to_bytes(48)}
POINT = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"public_key": b64(encode_cbor(ON_P384))}, "public_key"),
        ({"public_key": b64(encode_cbor({**ON_P384, 3: -7}))}, "public_key"),
        ({"public_key": b64(b"\x04" + POINT.x.to_bytes(32) + POINT.y.to_bytes(32))}, "public_key"),
        ({"public_key": b64(encode_cbor(Passkey("RS256", bits=1024).cose))}, "public_key"),
        ({"public_key": b64(encode_cbor({**Passkey("RS256").cose, 3: -65535}))}, "public_key"),
        ({"public_key": b64(encode_cbor({**Passkey("RS256").cose, 3: -37}))}, "public_key"),
        ({"public_key": b64(encode_cbor({**Passkey("RS256").cose, -2: b"\x01"}))}, "public_key"),
        ({"public_key": b64(encode_cbor({**Passkey("EdDSA").cose, -2: (1).to_bytes(32, "little")}))}, "public_key"),
        ({"public_key": b64(encode_cbor({**Passkey("EdDSA").cose, -2: b"short"}))}, "public_key"),
        ({"public_key": b64(encode_cbor({1: 7, 3: -48, -1: bytes(1312)}))[:1400]}, "public_key"),
        (cose(LEAD, _3=bytes(32)), "public_key"),
        (cose(LEAD, _3=None), "public_key"),
        (cose(LEAD, **{"3": -257}), "public_key"),
        (cose(LEAD, **{"3": "ES256"}), "public_key"),
        ({"public_key": b64(b"\xff")}, "public_key"),
        ({"public_key": b64(encode_cbor([1]))}, "public_key"),
        (cose(LEAD, **{"99": bytes(1100)}), "public_key"),
        ({"public_key": ""}, "public_key"),
        ({"public_key": "a+b="}, "passkeys.0"),
        ({"id": "a+b="}, "passkeys.0"),
        ({"id": ""}, "id"),
        ({"id": b64(bytes(1100))}, "passkeys.0.id"),
        ({"id": 7}, "id"),
        ({"user": ""}, "user"),
        ({"user": "bo\u200bss"}, "user"),
        ({"tenants": []}, "tenants"),
        ({"tenants": "acme"}, "tenants"),
        ({"groups": "leads"}, "groups"),
        ({"groups": [7]}, "groups"),
        ({"label": "x" * 201}, "label"),
        ({"zone": "Middle/Earth"}, "passkeys.0.zone"),
        ({"zone": "../../etc/passwd"}, "passkeys.0.zone"),
        ({"zone": "/etc/localtime"}, "passkeys.0.zone"),
        ({"zone": "Europe"}, "passkeys.0.zone"),
        ({"zone": ""}, "zone"),
        ({"admin": True}, "admin"),
        ({"user": None}, "user"),
    ],
)
def test_a_row_that_is_none_refuses_the_file_and_is_named(tmp_path: Path, changes: dict[str, Any], setting: str) -> None:
    row = {name: value for name, value in {**LEAD.row("boss", "leads"), **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=r"passkeys\.0") as caught:
        Passkeys.of({"file": written(tmp_path / "p.toml", row)}, ORIGIN)
    assert setting in caught.value.setting


TWIN = Passkey()
TWIN.private = LEAD.private
SAME_ID = Passkey()
SAME_ID.id = LEAD.id


@pytest.mark.parametrize(
    ("second", "setting"),
    [
        (LEAD.row("boss", "leads"), "passkeys.1.id"),
        (SAME_ID.row("kim"), "passkeys.1.id"),
        (TWIN.row("kim"), "passkeys.1.public_key"),
        (KIM.row("boss", "others"), "passkeys.1.groups"),
    ],
    ids=["the same", "one id", "one key", "other groups"],
)
def test_two_rows_that_contradict_each_other_refuse_the_file(tmp_path: Path, second: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Passkeys.of({"file": written(tmp_path / "p.toml", LEAD.row("boss", "leads"), second)}, ORIGIN)
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    ("given", "issuer", "setting"),
    [
        ({"rp_id": "127.0.0.1"}, ORIGIN, "rp_id"),
        ({}, "http://127.0.0.1:8080", "rp_id"),
        ({}, "http://[::1]:8080", "rp_id"),
        ({"rp_id": "Gate.example"}, ORIGIN, "rp_id"),
        ({"rp_id": "https://gate.example"}, ORIGIN, "rp_id"),
        ({"rp_id": "gate..example"}, ORIGIN, "rp_id"),
        ({"rp_id": ""}, ORIGIN, "rp_id"),
        ({"rp_id": "other.example"}, ORIGIN, "origins.0"),
        ({"rp_id": "ate.example"}, ORIGIN, "origins.0"),
        ({"origins": ["https://gate.example/"]}, ORIGIN, "origins.0"),
        ({"origins": ["https://gate.example", "https://Gate.example"]}, ORIGIN, "origins.1"),
        ({"origins": ["https://gate.example:443"]}, ORIGIN, "origins.0"),
        ({"origins": ["https://gate.example:x"]}, ORIGIN, "origins.0"),
        ({"origins": ["https://u@gate.example"]}, ORIGIN, "origins.0"),
        ({"origins": ["http://gate.example"]}, ORIGIN, "origins.0"),
        ({"origins": ["*"]}, ORIGIN, "origins.0"),
        ({"origins": [""]}, ORIGIN, "origins.0"),
        ({"origins": "https://gate.example"}, ORIGIN, "origins"),
        ({"origin": [ORIGIN]}, ORIGIN, "origin"),
        ({"file": 7}, ORIGIN, "file"),
        ({"file": "/nowhere/passkeys.toml"}, ORIGIN, "file"),
    ],
    ids=str,
)
def test_a_setting_that_is_none_is_named(tmp_path: Path, given: dict[str, Any], issuer: str, setting: str) -> None:
    file = written(tmp_path / "p.toml", *ROWS)
    with pytest.raises(ConfigError) as caught:
        Passkeys.of({"file": str(file), **given}, issuer)
    assert caught.value.setting == f"passkeys.{setting}"


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match=r"passkeys\.file"):
        Passkeys.of({"file": tmp_path / "p.toml"}, ORIGIN)


@pytest.mark.parametrize("given", [7, "passkeys.toml", []])
def test_passkeys_are_settings(tmp_path: Path, given: Any) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    with pytest.raises(ConfigError, match="passkeys"):
        opened(tmp_path, passkeys=given)


def test_pages_of_a_domain_below_and_of_localhost_may_be_named(tmp_path: Path) -> None:
    file = written(tmp_path / "p.toml", *ROWS)
    made = Passkeys.of(
        PasskeySettings(file=file, rp_id="acme.example", origins=("https://desk.acme.example", "https://acme.example:8443")), ORIGIN
    )
    assert made.rp_id == "acme.example"
    assert Passkeys.of({"file": file}, "https://GATE.example:443/").origins == (ORIGIN,)
    assert Passkeys.of({"file": file}, "http://localhost:8080").origins == ("http://localhost:8080",)


def test_without_the_library_the_setting_is_refused_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(PROVEN)
    monkeypatch.setitem(sys.modules, "webauthn", None)
    monkeypatch.delitem(sys.modules, "agentgate.identity.passkeys")
    with pytest.raises(ConfigError, match=r"pip install '\.\[web\]'"):
        opened(tmp_path, passkeys={"file": str(written(tmp_path / "p.toml", *ROWS))})
    with opened(tmp_path) as gate:
        assert gate._core.answerers.passkeys is None


# --- signing in, and a new passkey ------------------------------------------------------------------------------------------
@pytest.fixture
def keys(tmp_path: Path) -> Passkeys:
    return Passkeys.of({"file": written(tmp_path / "p.toml", *ROWS)}, ORIGIN)


def test_a_person_is_who_the_file_says_in_that_tenant(keys: Passkeys) -> None:
    asked = secrets.token_bytes(32)
    found = keys.person(Assertion.parse(SECOND.get(asked)), asked, "other")
    assert (found.id, found.tenant, tuple(found.groups), found.identity) == ("nora", "other", ("leads",), "proven")
    for key, over, tenant in ((LEAD, asked, "other"), (SECOND, secrets.token_bytes(32), "acme"), (Passkey(), asked, "acme")):
        with pytest.raises(CredentialRefused):
            keys.person(Assertion.parse(key.get(asked)), over, tenant)


def test_a_new_passkey_is_a_row_for_the_operator_and_nobody_yet(keys: Passkeys, tmp_path: Path) -> None:
    for new in (Passkey(), Passkey("EdDSA"), Passkey("RS256")):
        asked = secrets.token_bytes(32)
        made = keys.registered(json.dumps(new.create(asked)), asked)
        row = new.row("kim")
        assert made == (row["id"], row["public_key"])
        with pytest.raises(CredentialRefused):
            keys.person(Assertion.parse(new.get(asked)), asked, "acme")
        assert Passkeys.of({"file": written(tmp_path / "new.toml", row)}, ORIGIN).names("acme")


@pytest.mark.parametrize(
    "made",
    [
        {"flags": PRESENT | NEW_KEY},
        {"flags": VERIFIED | NEW_KEY},
        {"flags": PRESENT | VERIFIED},
        {"rp_id": "evil.example"},
        {"origin": "https://evil.example"},
        {"type": "webauthn.get"},
        {"crossOrigin": True},
        {"topOrigin": "https://evil.example"},
        {"challenge": b64(bytes(32))},
    ],
    ids=str,
)
def test_a_registration_that_was_made_otherwise_is_none(keys: Passkeys, made: dict[str, Any]) -> None:
    asked = secrets.token_bytes(32)
    with pytest.raises(CredentialRefused):
        keys.registered(json.dumps(Passkey().create(asked, **made)), asked)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"response": 7}', '{"response": {"clientDataJSON": "e30"}}', 7, "x" * 40_000])
def test_what_is_no_registration_is_refused(keys: Passkeys, text: Any) -> None:
    with pytest.raises(CredentialRefused):
        keys.registered(text, secrets.token_bytes(32))


def test_a_large_registration_is_not_read(keys: Passkeys) -> None:
    asked = secrets.token_bytes(32)
    with pytest.raises(CredentialRefused, match="characters"):
        keys.registered(json.dumps(Passkey().create(asked)) + " " * MAX_REGISTRATION, asked)


def test_a_weak_key_is_not_registered(keys: Passkeys) -> None:
    asked = secrets.token_bytes(32)
    with pytest.raises(CredentialRefused, match="KeyRefused"):
        keys.registered(json.dumps(Passkey("RS256", bits=1024).create(asked)), asked)


SLOW = CBORTag(35, "(?i:[\\0-\U0010ffff])" * 400)  # a regular expression, which costs a decoder seconds to compile


@pytest.mark.parametrize("where", ["statement", "key", "extension"])
def test_a_registration_of_an_anonymous_visitor_is_not_obeyed_before_it_is_looked_at(keys: Passkeys, where: str) -> None:
    asked, new = secrets.token_bytes(32), Passkey()
    flags = PRESENT | VERIFIED | NEW_KEY | (EXTENSIONS if where == "extension" else 0)
    data = new.data(flags, tail=new.attested(new.cose | ({99: SLOW} if where == "key" else {})))
    data += dumps({"x": SLOW}) if where == "extension" else b""
    sent = new.create(asked)
    sent["response"]["attestationObject"] = b64(
        dumps({"fmt": "none", "attStmt": {"x": SLOW} if where == "statement" else {}, "authData": data})
    )
    began = time.process_time()
    with pytest.raises(CredentialRefused, match="a tag"):
        keys.registered(json.dumps(sent), asked)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("change", ["cut", "more", "endless", "deep", "many", "no bytes", "short"])
def test_a_registration_that_is_not_exactly_one_object_is_refused(keys: Passkeys, change: str) -> None:
    asked, new = secrets.token_bytes(32), Passkey()
    sent, data = new.create(asked), new.data(PRESENT | VERIFIED | NEW_KEY, tail=new.attested(new.cose))
    whole: dict[str, bytes] = {
        "cut": dumps({"fmt": "none", "attStmt": {}, "authData": data[:-1]}),
        "more": dumps({"fmt": "none", "attStmt": {}, "authData": data + dumps({})}),
        "endless": b"\x9f" + dumps({"fmt": "none"}),
        "deep": b"\x81" * 20_000,
        "many": b"\x9b" + b"\xff" * 8,
        "no bytes": dumps({"fmt": "none", "attStmt": {}, "authData": "x"}),
        "short": dumps({"fmt": "none", "attStmt": {}, "authData": data[:32]}),
    }
    sent["response"]["attestationObject"] = b64(whole[change])
    with pytest.raises(CredentialRefused, match="registration"):
        keys.registered(json.dumps(sent), asked)


def test_no_attestation_is_looked_at_and_what_an_authenticator_adds_is_none_of_ours(keys: Passkeys) -> None:
    asked, new = secrets.token_bytes(32), Passkey()
    sent = new.create(asked)
    data = new.data(PRESENT | VERIFIED | NEW_KEY | EXTENSIONS, tail=new.attested(new.cose)) + dumps({"credProtect": 2})
    sent["response"]["attestationObject"] = b64(dumps({"fmt": "packed", "attStmt": {"alg": -7, "sig": b"wrong"}, "authData": data}))
    assert keys.registered(json.dumps(sent), asked) == (new.row("kim")["id"], new.row("kim")["public_key"])


def test_what_is_wrong_with_the_file_is_said_once_and_who_answers_learns_it(keys: Passkeys) -> None:
    asked = secrets.token_bytes(32)
    keys._file.write_text("[[passkeys]]")
    assert "passkeys.0.id" in keys.read()
    assert keys.read() == ""
    with pytest.raises(KeysUnavailable, match=r"passkeys\.0\.id"):
        keys.person(Assertion.parse(LEAD.get(asked)), asked, "acme")
    written(keys._file, *ROWS)
    assert keys.read() == ""
    assert keys.person(Assertion.parse(LEAD.get(asked)), asked, "acme").id == "boss"
