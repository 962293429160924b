"""Asked again, or refused for good: what a no covers, and what the model is told of a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from agentgate import Agent, Deny, Gate, StepUp, User
from agentgate.decision.hold import Hold
from agentgate.stores import ops
from agentgate.values.refusal import Code
from tests.test_confirm import LEE, SMALL, WORKFLOW

AGAIN = "Pay 20 to kim@acme.example, please"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    limits = "limits: [{count: pay, max: 1, per: turn}, {count: pay, max: 2, per: run, every: 1h}, {count: pay, max: 3, per: agent}]\n"
    text = WORKFLOW.replace("step_up:", "  look: {effect: read, needs: any, redeem: wrapper, args: {}}\nstep_up:") + limits
    text += "  - {id: looks, for: look, approvers: {user: true}, timeout: 10m}\n" if "limits: [" not in text else ""
    (tmp_path / "pay.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as opened:
        yield opened


def run_of(gate: Gate, prompt: str = "Pay 20 to kim@acme.example") -> Any:
    return gate.open_run("shop.pay", tenant="acme", user=LEE, agent=Agent("bot"), prompt=prompt)


def refused_by_user(gate: Gate, run: Any, call: str) -> None:
    held = run.authorize("pay", SMALL, tool_call_id=call)
    assert isinstance(held, StepUp)
    gate.refuse(held.hold.id, tenant="acme", by=User("lee", tenant="acme"))
    assert run.authorize("pay", SMALL, tool_call_id=call).code is Code.REFUSED


def test_what_the_user_said_no_to_is_asked_again_only_when_they_ask_for_it_again(gate: Gate) -> None:
    run = run_of(gate)
    refused_by_user(gate, run, "c1")
    assert run.authorize("pay", SMALL, tool_call_id="c2").code is Code.REFUSED
    for words in ("Thanks a lot!", "What is the weather like?"):
        run.add_turn(words)
        assert run.authorize("pay", SMALL, tool_call_id=f"c {words}").code is Code.REFUSED, words
    run.add_doubt(AGAIN)  # which may be an attacker's
    assert run.authorize("pay", SMALL, tool_call_id="c3").code is Code.REFUSED
    run.add_turn(AGAIN)
    refused_by_user(gate, run, "c4")
    assert run.authorize("pay", SMALL, tool_call_id="c5").code is Code.REFUSED
    run.add_turn(AGAIN)
    held = run.authorize("pay", SMALL, tool_call_id="c6")
    gate.release(held.hold.id, tenant="acme", by=User("lee", tenant="acme"))
    assert run.authorize("pay", SMALL, tool_call_id="c6").token


@pytest.mark.parametrize("words", ["Cancel the payment", "On second thought, skip the payment", "No, do not look at that"])
def test_a_turn_that_says_no_again_asks_for_nothing_that_was_refused(tmp_path: Path, words: str) -> None:
    look = "  look: {effect: read, needs: any, redeem: wrapper, args: {}}\nstep_up:\n"
    text = WORKFLOW.replace("step_up:\n", f"{look}  - {{id: looks, for: look, approvers: {{user: true}}, timeout: 10m}}\n")
    (tmp_path / "pay.yaml").write_text(text)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://") as gate:
        run = run_of(gate)
        refused_by_user(gate, run, "c1")
        held = run.authorize("look", {}, tool_call_id="l1")
        gate.refuse(held.hold.id, tenant="acme", by=User("lee", tenant="acme"))
        run.add_turn(words)
        assert isinstance(run.authorize("look", {}, tool_call_id="l2"), Deny)
        assert isinstance(run.authorize("pay", SMALL, tool_call_id="c2"), Deny)
        run.add_turn(AGAIN)
        assert isinstance(run.authorize("pay", SMALL, tool_call_id="c3"), StepUp)


def test_a_request_that_was_there_when_the_user_said_no_is_none_after_it(gate: Gate) -> None:
    run = run_of(gate)
    held = run.authorize("pay", SMALL, tool_call_id="c1")
    run.add_turn(AGAIN)
    gate.refuse(held.hold.id, tenant="acme", by=User("lee", tenant="acme"))
    assert run.authorize("pay", SMALL, tool_call_id="c2").code is Code.REFUSED


def test_a_no_of_an_earlier_version_stands_for_its_time(gate: Gate) -> None:
    run = run_of(gate)
    refused_by_user(gate, run, "c1")
    run.add_turn(AGAIN)
    held, store = run.authorize("pay", SMALL, tool_call_id="c2"), cast("Any", gate._store)
    record = ops.read_hold("acme", held.hold.id).parse(store.call(ops.read_hold("acme", held.hold.id), time.monotonic() + 1))
    assert record is not None
    old = ops.answer_hold("acme", held.hold.id, record.revision, record.body, "refused")  # which noted no turn
    assert old.parse(store.call(old, time.monotonic() + 1)) == "ok"
    run.add_turn(AGAIN)
    assert run.authorize("pay", SMALL, tool_call_id="c3").code is Code.REFUSED


def paid(gate: Gate, run: Any, call: str) -> Any:
    held = run.authorize("pay", SMALL, tool_call_id=call)
    if isinstance(held, StepUp):
        gate.release(held.hold.id, tenant="acme", by=User("lee", tenant="acme"))
    answer = run.authorize("pay", SMALL, tool_call_id=call)
    if not isinstance(answer, Deny):
        with run.redeem(answer.token, tool="pay", args=SMALL):
            pass
    return answer


def test_a_limit_says_until_when_it_is_reached_where_it_is_the_runs_or_turns(gate: Gate) -> None:
    run = run_of(gate)
    assert paid(gate, run, "c1").token
    answer = paid(gate, run, "c2")
    assert (answer.code, answer.until) == (Code.LIMIT_REACHED, "next_turn")
    run.add_turn(AGAIN)
    assert paid(gate, run, "c3").token
    run.add_turn(AGAIN)
    answer = paid(gate, run, "c4")
    at = time.mktime(time.strptime(answer.until, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert answer.code is Code.LIMIT_REACHED
    assert 3600 <= at - time.time() <= 3600 + 61
    other = run_of(gate)
    assert paid(gate, other, "c1").token
    answer = paid(gate, run_of(gate), "c1")  # of the agent, whoever it works for: no time, which would tell of others' work
    assert (answer.code, answer.until) == (Code.LIMIT_REACHED, "")


def test_answering_one_of_the_calls_of_a_step_answers_no_other(gate: Gate) -> None:
    """Recorded attacks put a write of their own beside a write of the user's."""
    mine, theirs = SMALL, {**SMALL, "to": "eve@evil.example"}
    run = run_of(gate, "Pay 20 to kim@acme.example, or eve@evil.example")
    holds = [run.authorize("pay", args, tool_call_id=name).hold for name, args in (("c1", mine), ("c2", theirs))]
    lee = User("lee", tenant="acme")
    gate.answer({holds[0].id: "release"}, tenant="acme", by=lee)
    assert isinstance(run.authorize("pay", theirs, tool_call_id="c2"), StepUp)
    assert isinstance(run.authorize("pay", theirs, tool_call_id="c1"), StepUp)  # under the id of the call that was released
    assert isinstance(run.authorize("pay", mine, tool_call_id="c2"), StepUp)
    assert run.authorize("pay", mine, tool_call_id="c1").token
    run = run_of(gate, "Pay 20 to kim@acme.example, or eve@evil.example")
    holds = [run.authorize("pay", args, tool_call_id=name).hold for name, args in (("c1", mine), ("c2", theirs))]
    said = gate.answer({holds[0].id: "release", holds[1].id: "refuse"}, tenant="acme", by=lee)
    assert [cast("Hold", said[hold.id]).state for hold in holds] == ["released", "refused"]
    assert run.authorize("pay", theirs, tool_call_id="c2").code is Code.REFUSED


def test_twelve_calls_of_a_step_are_asked_about_ten_at_a_time_each_with_its_own_answer(tmp_path: Path) -> None:
    (tmp_path / "pay.yaml").write_text(WORKFLOW)
    asked: list[int] = []

    def confirm(*questions: Any) -> list[bool]:
        asked.append(len(questions))
        return ["p3@acme.example" not in question.sentence for question in questions]

    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://", confirm=confirm) as gate:
        people = [f"p{n}@acme.example" for n in range(12)]
        run = run_of(gate, "Pay 20 to " + ", ".join(people))
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda to: run.authorize("pay", {**SMALL, "to": to}, tool_call_id=f"c {to}"), people))
        assert [type(each).__name__ for each in found] == ["Deny" if to == people[3] else "Allow" for to in people]
        assert max(asked) <= 10
        assert sum(asked) == 12
