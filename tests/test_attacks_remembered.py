"""A yes that is remembered: a value that the user confirmed counts in later runs of theirs, and every way to make it count for more."""

from __future__ import annotations

import fnmatch
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agentgate import Agent, Allow, Deny, Gate, JWSAnswer, NotDone, StepUp, User
from agentgate.decision.versions import Versions
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.gate.holds.memory import recall_memory
from agentgate.gate.state import header_bytes
from agentgate.identity.proven import proven_user
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.shell.drive import drive
from agentgate.stores import _ownership as ownership
from agentgate.stores import ops, server_id
from agentgate.stores._op import History
from agentgate.stores._ownership import rules_of
from agentgate.stores.recovery import accept_history
from tests.shop import refusals
from tests.test_attacks_confirmed import ANN, BOB, BOSS, EVE, IBANS, LEE, PROMPT, WORKFLOW, Talk

LISTED = "from: [prompt, confirmed, remembered"


def remembering(text: str = WORKFLOW) -> str:
    """The workflow that remembers whom and which account, and whom somebody looked up."""
    listed = text.replace("from: [prompt, confirmed", LISTED).replace(f"max_items: 10, {LISTED}", "max_items: 10, from: [prompt, confirmed")
    listed = listed.replace('max: "1000", from: [prompt]', 'max: "1000", from: [model]')
    for tool, kept in (
        ("pay", "{arg: [to, iban], for: 90d}"),
        ("tip", "{arg: to, for: 90d}"),
        ("people.get", "{arg: email, for: 7d}"),
    ):
        listed = listed.replace(f"  {tool}:\n    effect", f"  {tool}:\n    remember: {kept}\n    effect")
    address = "{type: email, from: [prompt, confirmed, remembered], unknown_origin: confirm"
    tip = f"args:\n      to: {address}}}\n  mail:"
    assert tip in listed
    return listed.replace(tip, f"args:\n      to: {address}}}\n      cc: {address}, optional: true}}\n  mail:").replace(
        "{arg: to, for: 90d}\n", "{arg: [to, cc], for: 90d}\n"
    )


TEXT = remembering()


def opened(folder: Path, text: str = TEXT, **more: Any) -> Gate:
    folder.mkdir(exist_ok=True)
    (folder / "pay.yaml").write_text(text)
    said: Any = {"audit": "memory://", "answer_keys": {"acme": {"keys": [PUBLIC]}}, **more}
    return Gate.open_unsafe_unapproved(folder, issuer="https://gate.example", **said)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with opened(tmp_path / "w") as made:
        yield made


def talk_of(gate: Gate, user: User = LEE, prompt: str = PROMPT, workflow: str = "shop.pay") -> Talk:
    return Talk(gate, gate.open_run(workflow, tenant=user.tenant, user=user, agent=Agent("bot"), prompt=prompt))


def own(gate: Gate, user: User = LEE) -> Any:
    return gate.remembered(user.tenant, for_=user)


def asked(gate: Gate, user: User = LEE, prompt: str = PROMPT, **args: Any) -> bool:
    """Whether a new run of the user's is asked about a payment."""
    return talk_of(gate, user, prompt).asked("pay", **{"amount": 20, "to": ANN, **args})


def test_a_confirmed_value_is_not_asked_about_in_later_runs_and_the_question_says_so(gate: Gate) -> None:
    held = talk_of(gate).yes("pay", amount=20, to=ANN)
    assert held.hold.question.remembers == {"to": 90 * 86400}
    assert "Yes also lets the agent use this to for pay for 90 days" in str(held.hold.question)
    later = talk_of(gate)
    assert not later.asked("pay", amount=30, to=ANN)
    record = next(each for each in reversed(refusals(gate)) if each["type"] == "decision")
    day = record["origins"]["to"].removeprefix("remembered ")
    assert len(day) == 10
    assert f"remembered since {day}" in str(later.run.explain("pay", {"amount": 30, "to": ANN}))
    assert later.asked("pay", amount=20, to=EVE)
    (one,) = own(gate)
    assert (one.tool, one.args, one.workflow, one.spans) == ("pay", {"to": ANN}, "shop.pay@1", {"to": 90 * 86400})


def test_the_question_says_how_long_several_values_are_used(gate: Gate) -> None:
    held = talk_of(gate).ask("pay", amount=20, to=ANN, iban=IBANS[0])
    assert held.hold.question.more == "Yes also lets the agent use this to and iban for pay for 90 days (where it answers this call alone)"


def test_it_counts_for_no_other_user_tenant_workflow_tool_or_argument(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "other.yaml").write_text(TEXT.replace("id: shop.pay", "id: shop.other"))
    with opened(tmp_path / "w") as gate:
        talk_of(gate).yes("pay", amount=20, to=ANN)
        talk_of(gate).yes("tip", to=BOB, cc=EVE)
        assert not asked(gate)
        assert asked(gate, User("kim", tenant="acme"))
        assert asked(gate, User("lee", tenant="other"))
        assert talk_of(gate).asked("tip", to=ANN)
        assert talk_of(gate).asked("mail", to=[ANN], body="hi")
        assert talk_of(gate).asked("people.get", email=ANN)
        assert talk_of(gate, workflow="shop.other").asked("pay", amount=20, to=ANN)
        assert not talk_of(gate).asked("tip", to=BOB, cc=EVE)
        assert talk_of(gate).asked("tip", to=EVE, cc=BOB)


@pytest.mark.parametrize("names", [("https://a.example", "1"), ("https://b.example", "1"), ("https://a.example", "2")])
def test_each_subject_of_each_issuer_has_a_memory_of_their_own(gate: Gate, names: tuple[str, str]) -> None:
    """The same id at another issuer, of another subject, or by the host's word alone, is somebody else."""
    first = proven_as("https://a.example", "1")
    for user in (LEE, first):
        talk = Talk(gate, run_as(gate, user))
        held = talk.ask("pay", amount=20, to=ANN)
        gate.release(held.hold.id, tenant="acme", by=LEE if user is LEE else yes_of(gate, held.hold))
        talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id="c1"), talk.args)
    again = proven_as(*names)
    assert Talk(gate, run_as(gate, again)).asked("pay", amount=20, to=ANN) == (again.remembered_as != first.remembered_as)


def test_whoever_signs_in_under_another_spelling_sees_and_forgets_what_counts_for_them(gate: Gate) -> None:
    """An issuer that writes an address in another way today would hide it, and it counted on."""
    user = proven_as("https://a.example", "1")
    talk = Talk(gate, run_as(gate, user))
    held = talk.ask("pay", amount=20, to=ANN)
    gate.release(held.hold.id, tenant="acme", by=yes_of(gate, held.hold))
    talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id="c1"), talk.args)
    again = proven_as("https://a.example", "1")
    object.__setattr__(again, "id", "Lee")
    assert not Talk(gate, run_as(gate, again)).asked("pay", amount=20, to=ANN)
    (one,) = own(gate, again)
    assert own(gate, proven_as("https://b.example", "1")) == ()
    assert own(gate, User("kim", tenant="acme")) == ()
    assert gate.forget("acme", [one.id], by=again) == 1
    assert Talk(gate, run_as(gate, user)).asked("pay", amount=20, to=ANN)


def test_what_was_copied_to_another_person_is_not_theirs_to_see(gate: Gate) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    client = gate._store._client  # type: ignore[attr-defined]
    client.copy(ops.memory_key("acme", "lee"), ops.memory_key("acme", "kim"))
    assert own(gate, User("kim", tenant="acme")) == ()


def test_the_hosts_word_for_an_answer_is_not_remembered_of_who_is_proven(gate: Gate) -> None:
    user = proven_as("https://a.example", "1")
    Talk(gate, run_as(gate, user)).yes("pay", amount=20, to=ANN)
    assert Talk(gate, run_as(gate, user)).asked("pay", amount=20, to=ANN)


def test_whoever_is_proven_by_half_is_not_remembered(gate: Gate) -> None:
    assert proven_as("https://a.example", "").remembered_as == ()
    assert proven_as("", "1").remembered_as == ()
    talk = Talk(gate, run_as(gate, proven_as("https://a.example", "")))
    assert talk.ask("pay", amount=20, to=ANN).hold.question.remembers == {}


FRONT = ec.generate_private_key(ec.SECP256R1())
PUBLIC = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(FRONT.public_key())), "kid": "front-1"}


def yes_of(gate: Gate, hold: Any) -> JWSAnswer:
    """Lee's own yes, by a front end's key."""
    stated = json.loads(hold.statement("release", gate.nonce(hold.id, tenant="acme")))
    now = int(time.time())
    claims = {**stated, "aud": gate.issuer, "sub": "lee", "groups": [], "iat": now, "exp": now + 60}
    return JWSAnswer(jwt.encode(claims, FRONT, "ES256", {"kid": "front-1", "typ": "agentgate-answer+jwt"}))


def proven_as(issuer: str, subject: str) -> User:
    """Lee, as an issuer proves them."""
    user = proven_user("lee", tenant="acme", groups=())
    for name, value in (("issuer", issuer), ("subject", subject)):
        object.__setattr__(user, name, value)
    return user


def run_as(gate: Gate, user: User) -> Any:
    """A run of somebody, as it is once their credential was proven at the door."""
    run, store = talk_of(gate).run, gate._store
    key, client = f"ag:{{acme}}:run:{run.id}", store._client  # type: ignore[attr-defined]
    client.hset(key, "header", header_bytes(replace(run._view.state.header, user=user)))
    client.hincrby(key, "rev", 1)
    return gate.resume_run("acme", run.id)


def test_values_of_two_yeses_are_not_recombined(gate: Gate) -> None:
    for to, iban in zip((ANN, BOB), IBANS, strict=True):
        talk_of(gate).yes("pay", amount=20, to=to, iban=iban)
    assert not asked(gate, to=ANN, iban=IBANS[0])
    assert asked(gate, to=ANN, iban=IBANS[1])
    assert asked(gate, to=BOB, iban=IBANS[0])
    assert asked(gate, to=ANN)
    assert asked(gate, to=ANN, iban=IBANS[1], prompt=f"Please pay 20 to {ANN}")


def test_an_account_that_was_confirmed_for_one_person_is_payable_to_no_other(gate: Gate) -> None:
    talk_of(gate, prompt=f"Please pay 20 to {ANN}").yes("pay", amount=20, to=ANN, iban=IBANS[0])
    assert asked(gate, prompt=f"Please pay 20 to {BOB}", to=BOB, iban=IBANS[0])
    assert asked(gate, to=ANN, iban=IBANS[0]), "whom they named was not confirmed"
    assert not asked(gate, prompt=f"Please pay 20 to {ANN}", to=ANN, iban=IBANS[0])


def test_a_groups_yes_is_not_remembered(tmp_path: Path) -> None:
    rule = "{id: whom, for: pay, when: {to: {origin: unknown}}, approvers: {user: true}"
    text = TEXT.replace(rule, rule.replace("{user: true}", "{group: leads}, endorses: [to]"))
    with opened(tmp_path / "w", text) as gate:
        talk = talk_of(gate)
        held = talk.yes("pay", by=BOSS, amount=20, to=ANN)
        assert held.hold.question.endorses == ("to",)
        assert held.hold.question.remembers == {}
        assert not talk.asked("pay", amount=30, to=ANN)
        assert asked(gate)


def test_one_yes_to_several_calls_is_for_this_conversation_alone(gate: Gate) -> None:
    talk = talk_of(gate)
    holds = [talk.ask("pay", amount=20, to=to).hold.id for to in (ANN, EVE)]
    gate.answer(dict.fromkeys(holds, "release"), tenant="acme", by=LEE)
    for number, to in ((1, ANN), (2, EVE)):
        args = {"amount": 20, "to": to}
        talk.redeem("pay", talk.run.authorize("pay", args, tool_call_id=f"c{number}"), args)
    assert not talk.asked("pay", amount=21, to=ANN)
    assert asked(gate)


@pytest.mark.parametrize("error", [NotDone("no"), OSError("lost")])
def test_a_call_that_failed_or_of_which_nobody_knows_is_not_remembered(gate: Gate, error: Exception) -> None:
    talk = talk_of(gate)
    talk.yes("pay", done=False, amount=20, to=ANN)
    allowed = talk.run.authorize("pay", talk.args, tool_call_id="c1")
    assert asked(gate)
    with pytest.raises(type(error)), talk.run.redeem(allowed.token, tool="pay", args=talk.args):
        raise error
    assert asked(gate)
    assert own(gate) == ()


def test_what_a_failed_call_named_is_remembered_once_it_is_done_after_all(gate: Gate) -> None:
    talk = talk_of(gate)
    talk.yes("pay", done=False, amount=20, to=ANN)
    allowed = talk.run.authorize("pay", talk.args, tool_call_id="c1")
    with pytest.raises(NotDone), talk.run.redeem(allowed.token, tool="pay", args=talk.args):
        raise NotDone("no")
    talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id="c1"), talk.args)
    assert not asked(gate)


def test_a_yes_in_one_step_with_the_call_is_remembered(gate: Gate) -> None:
    talk = talk_of(gate)
    held = talk.ask("pay", amount=20, to=ANN)
    gate.release(held.hold.id, tenant="acme", by=LEE)
    with talk.run.perform("pay", talk.args, tool_call_id="c1"):
        assert asked(gate)
    assert not asked(gate)


def test_what_is_forgotten_does_not_come_back(gate: Gate) -> None:
    """Forgotten while another run holds its release, and while a call is on its way."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    waiting, minted = talk_of(gate), talk_of(gate)
    waiting.yes("pay", done=False, amount=20, to=BOB)
    held = minted.ask("pay", amount=20, to=BOB, iban=IBANS[0])
    gate.release(held.hold.id, tenant="acme", by=LEE)
    allowed = minted.run.authorize("pay", minted.args, tool_call_id="c1")
    talk_of(gate).yes("tip", to=ANN)
    assert gate.forget("acme", [each.id for each in own(gate) if each.tool == "pay"], by=LEE) == 1
    assert asked(gate)
    assert not talk_of(gate).asked("tip", to=ANN), "the rest stands"
    waiting.redeem("pay", waiting.run.authorize("pay", waiting.args, tool_call_id="c1"), waiting.args)
    minted.redeem("pay", allowed, minted.args)
    assert asked(gate, to=BOB), "what was asked before something was forgotten is not remembered"
    talk_of(gate).yes("pay", amount=20, to=ANN)
    assert not asked(gate)


def test_a_run_that_recalled_it_before_mints_nothing_on_it_after(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mint script looks again: forgotten between the decision and the mint."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    call = store.call
    forgotten: list[Any] = []

    def between(op: Any, deadline: float) -> Any:
        if op.script == "mint" and not forgotten:
            forgotten.append(op)
            call(ops.forget_memory("acme", "lee"), deadline)
        return call(op, deadline)

    monkeypatch.setattr(store, "call", between)
    assert asked(gate)
    assert forgotten


@pytest.mark.parametrize("between", ["a loss", "another yes"])
def test_what_a_read_rests_on_is_looked_at_again_when_it_is_minted(gate: Gate, monkeypatch: pytest.MonkeyPatch, between: str) -> None:
    """A read that takes nothing is minted after a loss, too; and a yes to another call in that place is not what it was decided on."""
    talk_of(gate).yes("people.get", email=ANN, result={})
    store: Any = gate._store
    client, key, call = store._client, ops.memory_key("acme", "lee"), store.call
    done: list[Any] = []
    (place,) = [each for each in client.hkeys(key) if each != b"forgotten"]
    head = client.hget(key, place).split(b" ")

    def changed(op: Any, deadline: float) -> Any:
        if op.script == "mint" and not done:
            done.append(op)
            if between == "a loss":
                client.hset("ag:{acme}:history", "lost", f"{'0' * 40}.1 9")
            else:
                client.hset(key, place, client.hget(key, place).replace(head[0], b"0" * 64))
                client.hset(f"ag:{{acme}}:burns:{head[3].decode()}:done:{'0' * 64}", "done", "1")
        return call(op, deadline)

    monkeypatch.setattr(store, "call", changed)
    assert talk_of(gate).asked("people.get", email=ANN)
    assert done


def test_a_call_that_is_minted_again_makes_its_time_no_longer(gate: Gate) -> None:
    talk = talk_of(gate)
    talk.yes("pay", done=False, amount=20, to=ANN)
    assert isinstance(talk.run.authorize("pay", talk.args, tool_call_id="c1"), Allow)
    store: Any = gate._store
    before = store._client.hgetall(ops.memory_key("acme", "lee"))
    time.sleep(0.01)
    talk.run = gate.resume_run("acme", talk.run.id)
    talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id="c1"), talk.args)
    assert store._client.hgetall(ops.memory_key("acme", "lee")) == before
    assert not asked(gate)


def test_what_an_earlier_version_revoked_is_not_remembered(gate: Gate) -> None:
    """It leaves no time behind, and what it revoked counts while it is revoked."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    store._client.set("ag:{acme}:revoked:workflow:shop.pay@1", "*")
    assert own(gate) == ()


def test_forgetting_counts_in_the_tenants_history(gate: Gate) -> None:
    """So a store that went back to before it is noticed."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    before = int(store._client.hget("ag:{acme}:history", "count"))
    gate.forget("acme", [each.id for each in own(gate)], by=LEE)
    assert int(store._client.hget("ag:{acme}:history", "count")) == before + 1
    (record,) = [each for each in refusals(gate) if each["type"] == "forgotten"]
    assert (record["tenant"], record["user"], record["by"], record["count"]) == ("acme", "lee", "lee", 1)


def test_only_the_same_person_sees_it(gate: Gate) -> None:
    """Another spelling of an id has the same place to look, and another issuer the same id."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    assert len(own(gate)) == 1
    assert gate.remembered("acme", for_=User("LEE", tenant="acme")) == ()
    assert gate.remembered("acme", for_=User("lee", tenant="other")) == ()
    assert gate.remembered("acme", for_=proven_as("https://a.example", "1")) == ()
    assert len(gate.remembered("acme", for_=proven_user("lee", tenant="acme", groups=()))) == 1, "known by a passkey: by their id"


def test_only_the_person_forgets_and_only_their_own(gate: Gate) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    (one,) = own(gate)
    assert gate.forget("acme", [one.id], by=User("kim", tenant="acme")) == 0
    assert gate.forget("other", [one.id], by=LEE) == 0
    assert not asked(gate)


@pytest.mark.parametrize("name", ["user:lee", "user:LEE", "agent:bot", "workflow:shop.pay@1", "tool:pay", "tenant:*"])
def test_a_revocation_ends_it_also_once_it_is_lifted(gate: Gate, name: str) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    before = talk_of(gate)
    before.yes("pay", done=False, amount=20, to=BOB)
    gate.revoke(name, tenants=["acme"], by="ana", reason="INC-1")
    if name.startswith(("tool", "workflow", "agent")):
        assert own(gate) == ()
    gate.lift(name, tenants=["acme"], by="ana", reason="INC-1 is over")
    assert own(gate) == ()
    assert asked(gate)
    before.redeem("pay", before.run.authorize("pay", before.args, tool_call_id="c1"), before.args)
    assert asked(gate, to=BOB), "nor is what was asked before it"
    talk_of(gate).yes("pay", amount=20, to=ANN)
    assert not asked(gate)


@pytest.mark.parametrize("lifted", [False, True])
def test_revoking_a_run_ends_what_was_remembered_in_it(gate: Gate, *, lifted: bool) -> None:
    talk = talk_of(gate)
    talk.yes("pay", amount=20, to=ANN)
    talk_of(gate).yes("pay", amount=20, to=BOB)
    gate.revoke(f"run:{talk.run.id}", tenants=["acme"], by="ana", reason="INC-1")
    if lifted:
        gate.lift(f"run:{talk.run.id}", tenants=["acme"], by="ana", reason="INC-1 is over")
    assert asked(gate)
    assert not asked(gate, to=BOB)
    talk_of(gate).yes("pay", amount=20, to=ANN)
    assert not asked(gate)


WRONG: list[dict[str, Any]] = [
    {"args": ["to"]},
    {"args": 7},
    {"spans": {}},
    {"spans": {"to": "long"}},
    {"spans": {"to": None}},
    {"spans": ["to"]},
    {"spans": {"cc": 7}},
    {"who": {}},
    {"who": ["acme"]},
    {"who": ["acme", 7, ""]},
    {"tool": {}},
    {"workflow": 7},
    {"user": None},
    {"since": "now"},
    {"more": 1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_is_of_another_type_is_not_there_for_who_reads_without_keys_either(gate: Gate, wrong: dict[str, Any]) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    talk_of(gate).yes("pay", amount=20, to=BOB)
    store: Any = gate._store
    key = ops.memory_key("acme", "lee")
    place = next(each for each in store._client.hkeys(key) if each != b"forgotten")
    *head, text = store._client.hget(key, place).split(b" ", 4)
    body = json.loads(text)
    store._client.hset(key, place, b" ".join([*head, json.dumps({**body, "said": {**body["said"], **wrong}}).encode()]))
    found = drive(recall_memory(History(), None, "acme", "lee"), store, gate._audit)
    assert len(found) == 1
    assert all(each.told["until"] for each in found)


def test_a_lost_history_forgets_all(gate: Gate) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    key = "ag:{acme}:history"
    epoch, count = store._client.hmget(key, "epoch", "count")
    store._client.hset(key, "count", int(count) - 1)  # as after a restore
    assert own(gate) == ()
    script = ops.recall_memory("acme", "lee", history=f"{epoch.decode()} {int(count)}")
    assert script.parse(store.call(script, time.monotonic() + 5)) == ("", ())
    op = accept_history("acme", {epoch.decode(): int(count)}, int(count))
    op.parse(store.call(op, time.monotonic() + 5))
    assert own(gate) == (), "and once the loss is accepted"
    op = accept_history("acme", {epoch.decode(): int(count)}, 9, server_id(gate.issuer))
    op.parse(store.call(op, time.monotonic() + 5))
    talk_of(gate).yes("pay", amount=20, to=ANN)
    assert len(own(gate)) == 1


def test_a_turn_that_takes_back_ends_it_in_that_run(gate: Gate) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    talk = talk_of(gate)
    assert not talk.asked("pay", amount=21, to=ANN)
    talk.run.add_turn("Not to the one from last week, please. Pay 20 to the winner")
    assert talk.asked("pay", amount=22, to=ANN)
    assert not asked(gate)
    assert asked(gate, prompt="Please pay 20 to the winner, not to the old account"), "nor where the first words do"


@pytest.mark.parametrize("words", ["No, not the usual one", "not to the old account"])
def test_a_no_that_may_be_the_users_ends_it_before_anything_was_asked_for(gate: Gate, words: str) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    talk = talk_of(gate, prompt="Hello there")
    talk.run.add_doubt(words)
    talk.run.add_doubt(words)
    talk.run.add_turn(PROMPT)
    assert talk.run.intents["pay"].presence == "present"
    assert len(talk.run.state.doubts) == 1, "it is known"
    assert talk.asked("pay", amount=20, to=ANN)
    assert not asked(gate)


def test_a_no_that_is_no_longer_known_counts_on_in_its_conversation(gate: Gate) -> None:
    """Of an earlier run only the newest turns are."""
    talk_of(gate).yes("pay", amount=20, to=ANN)

    def go_on(prompt: str) -> Talk:
        return Talk(gate, gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt, conversation="c", ttl=3))

    talk = go_on("Please pay 20 to the winner, not to the old account")
    for successions in (1, 2):
        for _ in range(50):
            talk.run.add_turn(PROMPT)
        time.sleep(max(0, talk.run.header.expires_at - 0.2 - time.time()))
        talk = go_on(PROMPT)
        assert (talk.run.header.succession, {*talk.run.state.stored}) == (successions, {PROMPT})
        assert talk.asked("pay", amount=20 + successions, to=ANN)


@pytest.mark.parametrize(
    ("first", "then"),
    [(PROMPT, "If Kim agrees, pay 20 to the winner"), ("Maybe pay 20 to the winner", "Pay only after I come back")],
)
def test_an_intent_that_became_less_clear_ends_it_in_that_run(gate: Gate, first: str, then: str) -> None:
    """No word says no; asked for again, it is as clear as it was."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    talk = talk_of(gate, prompt=first)
    for turn in (PROMPT, then, PROMPT):
        talk.run.add_turn(turn)
    assert talk.asked("pay", amount=20, to=ANN)


def test_limits_denials_and_other_rules_hold_as_they_do(tmp_path: Path) -> None:
    """A value of an attacker's that the user confirmed once by mistake is worth no more than the limits allow."""
    text = TEXT + "limits: [{count: pay, max: 2, per: agent, every: 1d}]\n"
    text = text.replace(
        "step_up:\n", 'step_up:\n  - {id: big, for: pay, when: {amount: {above: "100"}}, approvers: {group: leads}, timeout: 10m}\n'
    )
    with opened(tmp_path / "w", text) as gate:
        talk_of(gate).yes("pay", amount=20, to=EVE)
        held = talk_of(gate).ask("pay", amount=200, to=EVE)
        assert isinstance(held, StepUp)
        assert [rule.id for rule in held.hold.question.rules] == ["big"]
        assert not asked(gate, to=EVE)
        assert isinstance(talk_of(gate).ask("pay", amount=22, to=EVE), Deny)
        assert isinstance(talk_of(gate, prompt="What is the weather?").ask("pay", amount=22, to=EVE), Deny), "it gives no intent"
        assert isinstance(talk_of(gate).ask("pay", amount=5000, to=EVE), Deny)


def test_nothing_that_rests_on_it_is_named_or_marked(gate: Gate) -> None:
    talk_of(gate).yes("people.get", email=ANN, result={"boss": EVE, "secret": EVE})
    talk = talk_of(gate)
    assert not talk.asked("people.get", email=ANN)
    allowed = talk.run.authorize("people.get", talk.args, tool_call_id="c1")
    talk.redeem("people.get", allowed, talk.args, {"boss": EVE, "secret": EVE})
    assert isinstance(talk.ask("write", to=EVE), Deny)


def test_it_ends_after_its_time_and_by_what_the_workflow_says_now(gate: Gate, tmp_path: Path) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    key = ops.memory_key("acme", "lee")
    (place,) = [each for each in store._client.hkeys(key) if each != b"forgotten"]
    call, at, ends, rest = store._client.hget(key, place).split(b" ", 3)
    ago = 91 * 86400 * 1000
    store._client.hset(key, place, b" ".join([call, str(int(at) - ago).encode(), str(int(ends) - ago).encode(), rest]))
    assert asked(gate)
    assert own(gate) == ()
    store._client.hset(key, place, b" ".join([call, str(int(at) - 60 * 86400 * 1000).encode(), ends, rest]))
    assert not asked(gate)
    core: Any = gate._core
    shorter = opened(tmp_path / "short", TEXT.replace("{arg: [to, iban], for: 90d}", "{arg: [to, iban], for: 50d}"))
    core.catalog.become(shorter.catalog)
    assert asked(gate)
    longer = opened(tmp_path / "long", TEXT.replace("{arg: [to, iban], for: 90d}", "{arg: [to, iban], for: 300d}"))
    core.catalog.become(longer.catalog)
    assert not asked(gate)
    store._client.hset(key, place, b" ".join([call, str(int(at) - ago).encode(), ends, rest]))
    assert asked(gate), "the user was told 90 days"


def test_whoever_writes_the_store_makes_nothing_remembered(gate: Gate) -> None:
    """Without a gate's seal, with that of another place, call or person, or said to be done by nobody who may say so."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    client, key = store._client, ops.memory_key("acme", "lee")
    (place,) = [each for each in client.hkeys(key) if each != b"forgotten"]
    text = client.hget(key, place)
    head, body = text.split(b" ", 4)[:4], json.loads(text.split(b" ", 4)[4])
    forged = json.dumps({**body, "said": {**body["said"], "args": {"to": EVE}}}, separators=(",", ":")).encode()
    client.hset(key, place, b" ".join([*head, forged]))
    assert asked(gate)
    client.hset(key, place, text)
    assert not asked(gate)
    asking = talk_of(gate, User("kim", tenant="acme"))
    asking.yes("pay", amount=20, to=BOB, by=asking.run._view.state.header.user)
    kims = ops.memory_key("acme", "kim")
    (other,) = [each for each in client.hkeys(kims) if each != b"forgotten"]
    client.hset(kims, other, text)
    assert asked(gate, User("kim", tenant="acme"), to=BOB)
    client.hset(key, place, text.replace(head[0], b"0" * 64))
    client.hset(f"ag:{{acme}}:burns:{head[3].decode()}:done:{'0' * 64}", "done", "1")
    assert asked(gate), "another call"


@pytest.mark.parametrize("body", ["{broken", "{}", '{"stops":[]}', '{"stops":[{}]}', "7", '{"stops":["user:lee"],"seal":7}'])
def test_what_cannot_be_read_hides_nothing_else_and_keeps_nobody_from_forgetting(gate: Gate, body: str) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    client, key = gate._store._client, ops.memory_key("acme", "lee")  # type: ignore[attr-defined]
    (place,) = [each for each in client.hkeys(key) if each != b"forgotten"]
    head = client.hget(key, place).split(b" ", 4)[:4]
    client.hset(key, "f" * 64, b" ".join([*head, body.encode()]))
    (one,) = own(gate)
    client.hset(key, place, b" ".join([*head, body.encode()]))
    assert asked(gate)
    assert gate.forget("acme", [one.id], by=LEE) == 0


def test_a_later_time_in_the_store_makes_nothing_younger(gate: Gate) -> None:
    """When it was minted is sealed, too: else it would never end."""
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    key = ops.memory_key("acme", "lee")
    (place,) = [each for each in store._client.hkeys(key) if each != b"forgotten"]
    call, at, ends, rest = store._client.hget(key, place).split(b" ", 3)
    times = [str(int(each) + 400 * 86400 * 1000).encode() for each in (at, ends)]
    store._client.hset(key, place, b" ".join([call, *times, rest]))
    (one,) = own(gate)
    assert one.since <= time.time()


def test_a_question_that_somebody_wrote_into_the_store_is_not_remembered(gate: Gate) -> None:
    talk = talk_of(gate)
    held = talk.ask("pay", amount=20, to=ANN)
    store: Any = gate._store
    key = f"ag:{{acme}}:hold:{held.hold.id}"
    body = json.loads(store._client.hget(key, "body"))
    body["question"]["remembers"] = {"to": 365 * 86400}
    store._client.hset(key, "body", json.dumps(body))
    gate.release(held.hold.id, tenant="acme", by=LEE)
    talk.redeem("pay", talk.run.authorize("pay", talk.args, tool_call_id="c1"), talk.args)
    assert asked(gate)


def test_two_hundred_are_kept_and_the_oldest_goes(gate: Gate) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    client, key = store._client, ops.memory_key("acme", "lee")
    (place,) = [each for each in client.hkeys(key) if each != b"forgotten"]
    text = client.hget(key, place)
    call, at, rest = text.split(b" ", 2)
    for number in range(199):
        client.hset(key, f"{number:064x}", b" ".join([call, str(int(at) + number + 1).encode(), rest]))
    talk_of(gate).yes("pay", amount=20, to=BOB)
    assert client.hlen(key) == 200
    assert client.hget(key, place) is None
    assert not asked(gate, to=BOB)


def test_nobody_pays_a_round_trip_but_a_call_that_would_ask(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    talk_of(gate).yes("pay", amount=20, to=ANN)
    store: Any = gate._store
    call = store.call
    scripts: list[str] = []

    def counted(op: Any, deadline: float) -> Any:
        scripts.append(op.script)
        return call(op, deadline)

    monkeypatch.setattr(store, "call", counted)
    assert not asked(gate, to="kim@acme.example", prompt="Please pay 20 to kim@acme.example")
    assert scripts.count("recall") == 0
    assert not asked(gate)
    assert scripts.count("recall") == 1
    assert asked(gate, to=EVE)
    assert scripts.count("recall") == 2


# --- the file, and what changes it ------------------------------------------------------------------------------------------
KEPT = "{arg: [to, iban], for: 90d}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (KEPT, "{arg: [to, ibann], for: 90d}", "an argument of pay"),
        (KEPT, "{arg: [to, amount, iban], for: 90d}", "an argument of pay whose from lists remembered"),
        (KEPT, "{arg: [to, to, iban], for: 90d}", "each element once"),
        (KEPT, "{arg: [to, iban], for: 366d}", "at most 365d"),
        (KEPT, "{arg: to, for: 90d}", "remember: {arg: iban, for: 90d} on pay"),
        (KEPT, "{arg: [to, iban]}", "for"),
        (KEPT, "{arg: [], for: 90d}", "arg"),
        (KEPT, "[{arg: [to, iban], for: 90d}]", "remember"),
        (KEPT, "{arg: {to: 1}, for: 90d}", "arg"),
        (f"    remember: {KEPT}\n    effect: write", f"    remember: {KEPT}\n    effect: destructive", "remembered, of a destructive tool"),
        ("remembered], unknown_origin: confirm, optional", "remembered], optional", "remembered without a question"),
        ("iban: {type: iban, from: [prompt, confirmed, r", "iban: {type: iban, from: [prompt, r", "confirmed beside it"),
        ("iban: {type: iban, ", "iban: {sensitive: true, type: iban, ", "remembered of a sensitive value"),
        ("iban: {type: iban, ", "iban: {type: text, ", "remembered for type text"),
        ("iban: {type: iban, ", "iban: {type: number, ", "remembered for type number"),
        ("from: [model], entities: [prompt]", "from: [model], entities: [prompt, remembered]", "explains nothing inside a text"),
        ("{to: {origin: unknown}}", "{to: {origin: [unknown, remembered]}}", "unknown, or an origin of its own"),
    ],
)
def test_what_can_be_remembered_is_one_value_that_a_yes_names(old: str, new: str, expected: str) -> None:
    assert old in TEXT
    with pytest.raises(WorkflowError, match=re.escape(expected)):
        load_text(TEXT.replace(old, new, 1), "w.yaml", {}, derive)


def test_an_argument_inside_a_list_is_not_remembered() -> None:
    inside = TEXT.replace("iban: {type: iban, ", "rows[].iban: {type: iban, max_items: 3, ").replace(
        KEPT, "{arg: [to, 'rows[].iban'], for: 90d}"
    )
    with pytest.raises(WorkflowError, match="remembered, inside a list"):
        load_text(inside, "w.yaml", {}, derive)


def test_a_list_is_remembered_whole_and_comes_back_whole(tmp_path: Path) -> None:
    listed = "max_items: 10, from: [prompt, confirmed"
    text = TEXT.replace(listed, f"{listed}, remembered").replace("  mail:\n", "  mail:\n    remember: {arg: to, for: 90d}\n")
    with opened(tmp_path / "w", text) as gate:

        def asked_about(*to: str) -> bool:
            return talk_of(gate).asked("mail", to=list(to), body="hi")

        assert talk_of(gate).yes("mail", to=[ANN, EVE], body="hi").hold.question.remembers == {"to": 90 * 86400}
        assert not asked_about(ANN, EVE)
        assert not asked_about(EVE, ANN, EVE), "the same people"
        for other in ([ANN], [EVE], [ANN, BOB], [ANN, BOB, EVE]):
            assert asked_about(*other), other
        gate.forget("acme", [each.id for each in own(gate)], by=LEE)
        assert asked_about(ANN, EVE)
        for one in (ANN, BOB):
            assert talk_of(gate).yes("mail", to=[one], body="hi").hold.question.remembers == {"to": 90 * 86400}
        assert not asked_about(ANN)
        assert not asked_about(BOB)
        assert asked_about(ANN, BOB), "values of two yeses have no place"
        assert asked_about(ANN, EVE)
        assert asked_about(EVE)
        assert [each.args for each in own(gate)] == [{"to": [ANN]}, {"to": [BOB]}]


def test_one_argument_needs_no_list() -> None:
    loaded = load_text(TEXT, "w.yaml", {}, derive)
    assert dict(loaded.tools["pay"].remember) == {"to": 90 * 86400, "iban": 90 * 86400}
    assert dict(loaded.tools["people.get"].remember) == {"email": 7 * 86400}
    assert dict(loaded.tools["mail"].remember) == {}


def test_to_remember_more_or_longer_is_wider_in_the_diff() -> None:
    def wider(one: str, other: str) -> set[str]:
        before, after = (load_text(each, "w.yaml", {}, derive) for each in (one, other))
        return {f"{finding.tool}.{finding.field}" for finding in compare(before, after).wider}

    assert "pay.remember.to" in wider(WORKFLOW, TEXT)
    assert any("args.to" in each for each in wider(WORKFLOW, TEXT))
    longer = TEXT.replace(KEPT, "{arg: [to, iban], for: 91d}")
    assert wider(TEXT, longer) == {"pay.remember.to", "pay.remember.iban"}
    assert wider(longer, TEXT) == set()


def test_under_two_versions_a_value_is_remembered_only_as_both_say() -> None:
    unlisted = "iban: {type: iban, from: [prompt, confirmed]"
    less = TEXT.replace(KEPT, "{arg: to, for: 9d}").replace(unlisted.replace("]", ", remembered]"), unlisted)
    before, after = (load_text(text, "w.yaml", {}, derive) for text in (TEXT, less))
    assert dict(Versions(before, after).minted.tools["pay"].remember) == {"to": 9 * 86400}


def test_a_tool_servers_user_can_neither_write_nor_read_what_is_remembered() -> None:
    for key in (ops.memory_key("acme", "lee"), "ag:{acme}:forgets:user:lee"):
        rules = rules_of("https://tools.example", ["acme"]).split()
        assert not [each for each in rules if "~" in each and fnmatch.fnmatchcase(key, each.partition("~")[2].replace("{", "[{]"))]
        kind = key.partition("}:")[2].partition(":")[0]
        assert any(each.startswith(f"{kind}:") for each in ownership._GATES), "asked at start"
