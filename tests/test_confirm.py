"""A confirm: the run's own user says yes to exactly one call, and nobody says it for them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agentgate import Agent, Allow, AnswerRefused, AsyncGate, Deny, Gate, JWSAnswer, StepUp, User
from agentgate.audit import read_records
from agentgate.decision.hold import check_answer, check_approver
from agentgate.errors import ConfigError, WorkflowError
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.integrations.terminal import ask
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.token.jws import unb64url
from agentgate.token.signing import SigningKey
from agentgate.values.refusal import Reason
from agentgate.workflow.model import StepUpRule
from tests.authority import lasting, nonce_for
from tests.workflows import workflow_text

WORKFLOW = workflow_text(
    "shop.pay",
    intents="""
  pay:
    asks_for: Pay somebody.
    words: [pay, transfer]
    examples: [Pay 20 to kim@acme.example]
""",
    tools="""
  pay:
    effect: write
    needs: [pay]
    redeem: wrapper
    args:
      amount: {type: number, min: "1", max: "1000", from: [prompt]}
      to: {type: email, from: [prompt]}
""",
    step_up="""
  - {id: mine, for: pay, when: {amount: {above: "10"}}, approvers: {user: true}, timeout: 10m}
  - {id: lead, for: pay, when: {amount: {above: "100"}}, approvers: {group: leads}, timeout: 10m}
""",
)
LEE, BOSS = User("lee", tenant="acme", groups=["leads"]), User("boss", tenant="acme", groups=["leads"])
SMALL, LARGE = ({"amount": amount, "to": "kim@acme.example"} for amount in (20, 200))


def load(text: str) -> Any:
    return load_text(text, "w.yaml", {}, derive)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "pay.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(
        tmp_path, issuer="https://gate.example", audit=str(tmp_path / "audit"), keys=tmp_path / "keys"
    ) as opened:
        yield opened


def run_of(gate: Gate, agent: str = "bot") -> Any:
    prompt = "Pay 20 to kim@acme.example, then pay 200 to kim@acme.example"
    return gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent(agent), prompt=prompt)


def held(run: Any, args: dict[str, Any] = SMALL) -> StepUp:
    decision = run.authorize("pay", args, tool_call_id="c1")
    assert isinstance(decision, StepUp)
    return decision


def test_the_user_says_yes_to_exactly_the_call_that_was_asked_about(gate: Gate, tmp_path: Path) -> None:
    run = run_of(gate)
    asked = held(run)
    assert (asked.hold.rules, asked.confirm) == (("mine",), True)
    assert gate.release(asked.hold.id, tenant="acme", by=User("lee", tenant="acme")).state == "released"
    other = run.authorize("pay", {**SMALL, "amount": 200}, tool_call_id="c1")
    assert isinstance(other, StepUp)
    assert isinstance(run.authorize("pay", SMALL, tool_call_id="c1"), Allow)
    records = list(read_records(tmp_path / "audit"))
    (answered,) = (r for r in records if r["type"] == "hold_answer")
    assert (answered["by"], answered["by_identity"], answered["answer"]) == ("lee", "in_process", "release")
    assert [r["decision"] for r in records if r["type"] == "decision"] == ["confirm", "step_up", "allow"]


@pytest.mark.parametrize(
    "by",
    [
        User("boss", tenant="acme", groups=["leads"]),
        User("Lee", tenant="acme"),
        User("@lee", tenant="acme"),
        User("lee", tenant="other"),
        User("the user", tenant="acme", groups=["the user", "user"]),
    ],
    ids=["a lead", "a spelling of the user", "with a sign", "of another tenant", "named like the rule"],
)
def test_nobody_else_says_it_for_the_user(gate: Gate, by: User) -> None:
    run = run_of(gate)
    for release in (gate.release, gate.refuse):
        with pytest.raises(AnswerRefused) as refused:
            release(held(run).hold.id, tenant="acme", by=by)
        assert refused.value.failures[0].field in {"step_up.mine.approvers", "approver"}
    assert isinstance(run.authorize("pay", SMALL, tool_call_id="c1"), StepUp)


def test_an_agent_that_calls_itself_like_its_user_confirms_nothing(gate: Gate) -> None:
    with pytest.raises(AnswerRefused):
        gate.release(held(run_of(gate, agent="Lee")).hold.id, tenant="acme", by=LEE)


def test_a_confirm_stands_for_no_group_and_no_group_for_a_confirm(gate: Gate) -> None:
    """The user is a lead too: their yes still counts under the rule alone that asks the user."""
    run = run_of(gate)
    asked = held(run, LARGE)
    assert (asked.hold.rules, asked.confirm) == (("mine", "lead"), False)
    for by in (LEE, LEE):
        assert gate.release(asked.hold.id, tenant="acme", by=by).state == "pending"
    assert isinstance(run.authorize("pay", LARGE, tool_call_id="c1"), StepUp)
    assert gate.release(asked.hold.id, tenant="acme", by=BOSS).state == "released"
    assert isinstance(run.authorize("pay", LARGE, tool_call_id="c1"), Allow)

    other = run_of(gate)
    asked = held(other, LARGE)
    for by in (BOSS, User("mona", tenant="acme", groups=["leads"])):
        assert gate.release(asked.hold.id, tenant="acme", by=by).state == "pending"
    assert isinstance(other.authorize("pay", LARGE, tool_call_id="c1"), StepUp)


def test_the_user_may_say_no(gate: Gate) -> None:
    run = run_of(gate)
    assert gate.refuse(held(run).hold.id, tenant="acme", by=LEE).state == "refused"
    refused = run.authorize("pay", SMALL, tool_call_id="c1")
    assert isinstance(refused, Deny)
    assert refused.reasons == (Reason.HOLD_REFUSED,)


MINE = StepUpRule("mine", 1, "pay", (), "", 1, (), 600, (), user=True)
LEAD = StepUpRule("lead", 1, "pay", (), "leads", 1, ("requester",), 600, ())


def test_who_may_answer_a_hold() -> None:
    bot, lee = Agent("bot"), proven_user("lee", tenant="acme")
    assert check_approver(MINE, lee, lee, bot, "acme") is None
    assert check_approver(MINE, lee, None, bot, "acme") is not None
    assert check_answer((MINE, LEAD), lee, lee, bot, "acme") == check_answer((MINE, LEAD), BOSS, lee, bot, "acme") == ()
    assert [f.field for f in check_answer((LEAD,), lee, lee, bot, "acme")] == ["step_up.lead.approvers"]
    assert [f.field for f in check_answer((MINE, LEAD), User("x", tenant="acme"), lee, bot, "acme")] == [
        "step_up.mine.approvers",
        "step_up.lead.approvers",
    ]
    assert check_answer((), lee, lee, bot, "acme") != ()


@pytest.mark.parametrize(
    ("old", "new", "got", "expected"),
    [
        ("{user: true}", "{user: true, group: leads}", "group and user", "exactly one of group, user: true"),
        ("{user: true}", "{count: 1}", "no approvers", "exactly one of group, user: true"),
        ("{user: true}", "{user: true, count: 1}", "count beside user", "no count"),
        ("{user: true}", "{user: true, not: [requester]}", "not beside user", "no not"),
        ("{user: true}", "{user: false}", "false", "true"),
        (", for_user: {same_tenant: true}", "", "true", "nobody stands behind this agent"),
    ],
)
def test_a_rule_that_nobody_or_too_many_could_answer_does_not_load(old: str, new: str, got: str, expected: str) -> None:
    with pytest.raises(WorkflowError) as wrong:
        load(WORKFLOW.replace(old, new, 1))
    assert any(got in p.got and expected in p.expected for p in wrong.value.problems), str(wrong.value)


# --- the channels of a confirm ----------------------------------------------------------------------------------------------
def asking(tmp_path: Path, confirm: Any, text: str = WORKFLOW, **more: Any) -> Gate:
    (tmp_path / "pay.yaml").write_text(text)
    return Gate.open_unsafe_unapproved(
        tmp_path, issuer="https://gate.example", audit=str(tmp_path / "audit"), keys=tmp_path / "keys", confirm=confirm, **more
    )


def yes_to(asked: list[Any]) -> Any:
    """A callback that says yes, and keeps what it was asked."""

    def said(question: Any) -> bool:
        asked.append(question)
        return True

    return said


@pytest.mark.deadline
def test_a_callback_of_the_host_asks_the_user_and_token_and_audit_say_so(tmp_path: Path) -> None:
    seen: list[Any] = []

    def yes(question: Any) -> bool:
        seen.append(question)
        time.sleep(0.4)  # longer than a call may take otherwise
        return True

    with asking(tmp_path, yes) as gate:
        run = run_of(gate)
        answer = run.authorize("pay", SMALL, tool_call_id="c1")
        assert isinstance(answer, Allow)
        (question,) = seen
        assert (question.whom, question.tool) == ("the user", "pay")
        assert question.words == ("Pay 20 to kim@acme.example, then pay 200 to kim@acme.example",)
        claims = json.loads(unb64url(answer.token.reveal().split(".")[1].encode()))
        assert claims["authorization_details"][0]["identity"]["approver"] == "in_process"
        with run.redeem(answer.token, tool="pay", args=SMALL):
            pass
    records = list(read_records(tmp_path / "audit"))
    (answered,) = (r for r in records if r["type"] == "hold_answer")
    assert (answered["by"], answered["channel"], answered["answer"]) == ("lee", "in_process", "release")
    (allowed,) = (r for r in records if r.get("decision") == "allow")
    assert allowed["approver"] == "in_process"


def broken(_: Any) -> bool:
    raise RuntimeError("no window")


@pytest.mark.parametrize(
    ("confirm", "kind"),
    [(lambda _: False, Deny), (lambda _: None, StepUp), (lambda _: "yes", StepUp), (lambda _: 1, StepUp), (broken, StepUp), (None, StepUp)],
    ids=["no", "no answer", "a text", "a number", "it fails", "none is set"],
)
def test_nothing_but_true_is_a_yes(tmp_path: Path, confirm: Any, kind: type) -> None:
    with asking(tmp_path, confirm) as gate:
        assert isinstance(run_of(gate).authorize("pay", SMALL, tool_call_id="c1"), kind)


def test_a_proven_users_yes_in_process_is_the_hosts_word(tmp_path: Path) -> None:
    """Their token opened the run; that they said yes is known from the callback alone."""
    with asking(tmp_path, lambda _: True) as gate:
        lee = lasting(proven_user("lee", tenant="acme"))
        run = gate.open_run("shop.pay", tenant="acme", user=lee, agent=Agent("bot"), prompt="Pay 20 to kim@acme.example")
        answer = run.authorize("pay", SMALL, tool_call_id="c1")
        assert isinstance(answer, Allow)
        (record,) = (r for r in read_records(tmp_path / "audit") if r["type"] == "hold_answer")
        assert (record["by_identity"], record["channel"]) == ("in_process", "in_process")


def test_a_user_whom_the_host_vouched_for_may_say_yes_by_a_token_of_their_own(gate: Gate) -> None:
    """No issuer said who the run's user is, so none can contradict it."""
    run = run_of(gate)
    asked = held(run)
    lee = proven_user("lee", tenant="acme", issuer="https://login.example", subject="00u7")
    by = lasting(lee, nonce_for(gate, asked.hold.id, "acme"))
    assert gate.release(asked.hold.id, tenant="acme", by=by).state == "released"
    assert isinstance(run.authorize("pay", SMALL, tool_call_id="c1"), Allow)


def test_a_callback_is_not_asked_what_others_must_judge_too(tmp_path: Path) -> None:
    """A yes that the user got used to give would be the first of two, before the lead looked."""
    asked: list[Any] = []
    with asking(tmp_path, yes_to(asked)) as gate:
        answer = run_of(gate).authorize("pay", LARGE, tool_call_id="c1")
        assert isinstance(answer, StepUp)
        assert (asked, gate.hold(answer.hold.id, tenant="acme").approvers) == ([], ())


PROVEN = WORKFLOW.replace("agent: {in_process: true}", "agent: {spiffe: ['spiffe://acme.example/bot']}")


def proven_run(gate: Gate) -> Any:
    user, agent = lasting(proven_user("lee", tenant="acme")), lasting(proven_agent("bot", spiffe="spiffe://acme.example/bot"))
    return gate.open_run("shop.pay", tenant="acme", user=user, agent=agent, prompt="Pay 20 to kim@acme.example")


def test_where_the_agent_is_proven_the_hosts_callback_is_not_asked_and_without_a_channel_the_call_is_refused(tmp_path: Path) -> None:
    with asking(tmp_path, lambda _: True, PROVEN) as gate:
        answer = proven_run(gate).authorize("pay", SMALL, tool_call_id="c1")
        assert isinstance(answer, Deny)
        assert answer.reasons == (Reason.STEP_UP,)
        assert "answer_keys of tenant acme" in answer.failures[0].expected
        assert gate.holds("acme", state=None) == ()


def test_the_users_own_yes_comes_by_the_front_ends_key(tmp_path: Path) -> None:
    """As docs/holds.md shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": "front-1"}
    with asking(tmp_path, None, PROVEN, answer_keys={"acme": {"keys": [public]}}) as gate:
        run = proven_run(gate)
        asked = run.authorize("pay", SMALL, tool_call_id="c1")
        assert isinstance(asked, StepUp)
        for user in ("boss", "Lee", "lee"):
            stated = json.loads(asked.hold.statement("release", gate.nonce(asked.hold.id, tenant="acme")))
            now = int(time.time())
            claims = {**stated, "aud": gate.issuer, "sub": user, "groups": ["leads"], "iat": now, "exp": now + 60}
            by = JWSAnswer(jwt.encode(claims, key, "ES256", {"kid": "front-1", "typ": "agentgate-answer+jwt"}))
            if user == "lee":
                assert gate.release(asked.hold.id, tenant="acme", by=by).state == "released"
            else:
                with pytest.raises(AnswerRefused):
                    gate.release(asked.hold.id, tenant="acme", by=by)
        answer = run.authorize("pay", SMALL, tool_call_id="c1")
        assert isinstance(answer, Allow)


@pytest.mark.parametrize("forged", ["a value", "no question", "no seal"])
def test_a_callback_is_not_asked_a_question_that_somebody_wrote_into_the_store(tmp_path: Path, forged: str) -> None:
    """The yes would count for the call as it is, not for what was shown."""
    asked: list[Any] = []
    with asking(tmp_path, asked.append) as gate:  # no answer
        run = run_of(gate)
        first = held(run)
        store: Any = gate._store
        key = f"ag:{{acme}}:hold:{first.hold.id}"
        body = json.loads(store._client.hget(key, "body"))
        change: dict[str, Any] = {
            "a value": {"question": json.loads(json.dumps(body["question"]).replace("kim@acme.example", "lee@acme.example"))},
            "no question": {"question": None},
            "no seal": {"seal": ""},
        }[forged]
        store._client.hset(key, "body", json.dumps({**body, **change}))
        asked.clear()
        decision = run.authorize("pay", SMALL, tool_call_id="c1")
        assert isinstance(decision, Deny if forged == "no question" else StepUp)  # without one it is no hold
        assert asked == []
        store._client.hset(key, "body", json.dumps(body))
        held(run)
        assert [question.tool for question in asked] == ["pay"]


def test_a_callback_is_not_asked_where_the_user_has_a_channel_of_their_own(tmp_path: Path) -> None:
    """The host's word is none there: whoever runs the agent would show a question whose answer counts for nothing."""
    asked: list[Any] = []
    keys = {"acme": {"keys": [SigningKey.generate("ES256").public_jwk()]}}
    with asking(tmp_path, yes_to(asked), PROVEN, answer_keys=keys) as gate:
        assert isinstance(proven_run(gate).authorize("pay", SMALL, tool_call_id="c1"), StepUp)
        assert asked == []
        assert [r for r in read_records(tmp_path / "audit") if r["type"] == "hold_answer_refused"] == []


async def test_an_awaited_gate_asks_in_a_thread(tmp_path: Path) -> None:
    (tmp_path / "pay.yaml").write_text(WORKFLOW)
    here = threading.get_ident()
    where: list[int] = []

    def yes(_: Any) -> bool:
        where.append(threading.get_ident())
        return True

    gate = await AsyncGate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", confirm=yes)
    async with gate:
        run = await gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt="Pay 20 to kim@acme.example")
        assert isinstance(await run.authorize("pay", SMALL, tool_call_id="c1"), Allow)
    assert where
    assert where[0] != here

    async def later(_: Any) -> bool:
        return True

    with pytest.raises(ConfigError, match="confirm"):
        Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", confirm=later)  # type: ignore[arg-type]  # not plain


def test_who_thinks_takes_nobodys_place(tmp_path: Path) -> None:
    """Two people are asked and do not answer; a gate that does two things at once still does them for others."""
    asked, answered = threading.Semaphore(0), threading.Event()

    def slow(_: Any) -> bool:
        asked.release()
        return answered.wait(10)

    with asking(tmp_path, slow, at_once=2) as gate:
        runs = [run_of(gate), run_of(gate)]
        with ThreadPoolExecutor() as threads:
            waiting = [threads.submit(run.authorize, "pay", SMALL, tool_call_id="c1") for run in runs]
            assert all(asked.acquire(timeout=5) for _ in runs)
            assert run_of(gate).authorize("pay", {}, tool_call_id="c1").reasons == (Reason.ARGUMENT_MISSING,)
            answered.set()
            assert all(isinstance(each.result(), Allow) for each in waiting)


async def test_an_awaited_gate_asks_as_many_people_as_there_are(tmp_path: Path) -> None:
    """Those who think take none of the few threads of the event loop."""
    (tmp_path / "pay.yaml").write_text(WORKFLOW)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    together = threading.Barrier(3)

    def yes(_: Any) -> bool:
        together.wait(5)
        return True

    gate = await AsyncGate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", confirm=yes)
    async with gate:
        prompt = "Pay 20 to kim@acme.example"
        runs = [await gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt) for _ in range(3)]
        answers = await asyncio.gather(*(run.authorize("pay", SMALL, tool_call_id="c1") for run in runs))
        assert all(isinstance(answer, Allow) for answer in answers)


@pytest.mark.parametrize(("typed", "said"), [("yes\n", True), ("no\n", False), ("y\n", None), ("\n", None), ("YES\n", True)])
def test_the_terminal_takes_a_whole_word(monkeypatch: pytest.MonkeyPatch, gate: Gate, typed: str, said: bool | None) -> None:  # noqa: FBT001 - a row
    """On a real pseudo terminal."""
    question = held(run_of(gate)).hold.question
    assert question is not None
    ours, theirs = pty.openpty()
    monkeypatch.setattr("agentgate.integrations.terminal._TERMINAL", os.ttyname(theirs))
    os.write(ours, typed.encode())
    assert ask(question) is said
    shown = ""
    while "Type yes or no" not in shown:
        shown += os.read(ours, 65536).decode()
    assert "agentgate asks you:" in shown
    assert "typed by the user" in shown
    os.close(ours)
    os.close(theirs)


def test_without_a_terminal_nobody_answered(monkeypatch: pytest.MonkeyPatch, gate: Gate, tmp_path: Path) -> None:
    monkeypatch.setattr("agentgate.integrations.terminal._TERMINAL", str(tmp_path / "none"))
    question = held(run_of(gate)).hold.question
    assert question is not None
    assert ask(question) is None


def test_the_front_end_of_the_docs_answers_for_its_user(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "holds.md").read_text("utf-8")
    source = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if block.startswith("def answer"))
    assert len(source.strip().splitlines()) <= 10
    key = ec.generate_private_key(ec.SECP256R1())
    names: dict[str, Any] = {"json": json, "time": time, "jwt": jwt, "KEY": key}
    exec(compile(source, "docs/holds.md", "exec"), names)  # noqa: S102 - the docs are ours
    public = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": "front-1"}
    (tmp_path / "pay.yaml").write_text(PROVEN)
    keys = {"acme": {"keys": [public]}}
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.acme.example", audit="memory://", answer_keys=keys) as gate:
        for yes, state in ((True, "released"), (False, "refused")):
            hold = held(proven_run(gate)).hold
            text = names["answer"](hold, gate.nonce(hold.id, tenant="acme"), User("lee", tenant="acme"), yes)
            said = gate.release if yes else gate.refuse
            assert said(hold.id, tenant="acme", by=JWSAnswer(text)).state == state
