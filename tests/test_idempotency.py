"""The idempotency key of an act: what a payment API needs to do once what was tried twice, and twice what was meant twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.tools import BaseTool, tool

from agentgate import Allow, Gate, NotDone, StepUp
from agentgate.decision.hold import as_json, from_json, text_lines
from agentgate.integrations.langchain import definition_of, guard_tools, idempotency_key
from tests.shop import BOSS, REFUND, WORKFLOW, looked_up, opened, run_of

MANY = WORKFLOW.replace("max: 2, per: run", "max: 20, per: run")
BIG = {**REFUND, "amount": "150.00"}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(MANY)
    with opened(tmp_path) as gate:
        yield gate


@pytest.fixture(params=["", "before"], ids=["a run", "a run of an earlier version"])
def run(gate: Gate, request: pytest.FixtureRequest) -> Any:
    run = run_of(gate)
    if request.param:  # its calls' records are one hash
        client = cast("Any", gate._store)._client
        client.hdel(f"ag:{{acme}}:run:{run.id}", "form", "kept")
        client.delete(f"ag:{{acme}}:clock:{run.id}", "ag:{acme}:history")
        run = gate.resume_run("acme", run.id)
        assert not run.state.owned
    looked_up(run)
    return run


class Bank:
    """A payment API that does once what has one key, and a tool that calls it."""

    def __init__(self, run: Any) -> None:
        self.keys: list[str] = []
        self.fails: Exception | None = None

        @tool("payments.refund")
        def refund(order_id: str, amount: str, currency: str, payee: str) -> str:
            """Refund an order."""
            self.keys.append(idempotency_key())
            if self.fails is not None:
                raise self.fails
            return "paid"

        (self.tool,) = guard_tools([refund], run=run)

    def pay(self, call: str, error: Exception | None = None, args: dict[str, str] = REFUND) -> Any:
        self.fails = error
        try:
            return self.tool.invoke({"name": "payments.refund", "args": args, "id": call, "type": "tool_call"}).content
        except (OSError, NotDone) as raised:
            return raised


def test_an_attempt_after_an_unknown_outcome_keeps_the_key_under_whatever_id_the_model_tries_again(run: Any) -> None:
    bank = Bank(run)
    bank.pay("one", OSError("timed out"))
    assert bank.pay("one") == "agentgate: outcome_unknown"  # the same call does not run again
    bank.pay("two", OSError("timed out"))
    assert bank.pay("three") == "paid"
    assert len(bank.keys) == 3
    assert len(set(bank.keys)) == 1


@pytest.mark.parametrize("again", ["one", "two"], ids=["the same call", "another call"])
def test_an_attempt_after_a_failure_has_a_key_of_its_own(run: Any, again: str) -> None:
    bank = Bank(run)
    for n in range(3):
        bank.pay(again if n else "one", NotDone("declined"))
        looked_up(run, call=f"look {n}")
    bank.pay(again)
    assert len(set(bank.keys)) == 4


def test_a_failed_call_whose_next_token_is_not_used_yet_failed_all_the_same(run: Any) -> None:
    bank = Bank(run)
    bank.pay("one", NotDone("declined"))
    tool_digest = definition_of(bank.tool)
    assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="one", definition=tool_digest), Allow)
    bank.pay("two")
    assert len(set(bank.keys)) == 2


def test_an_attempt_after_a_failure_and_an_unknown_outcome_keeps_the_key_of_the_latter(run: Any) -> None:
    bank = Bank(run)
    bank.pay("one", NotDone("declined"))
    bank.pay("one", OSError("timed out"))
    bank.pay("two")
    assert bank.keys[0] != bank.keys[1] == bank.keys[2]


def test_a_failure_says_nothing_of_an_attempt_before_it_that_may_have_happened(run: Any) -> None:
    bank = Bank(run)
    bank.pay("one", OSError("timed out"))
    bank.pay("two", NotDone("no connection"))
    bank.pay("two", NotDone("no connection"))
    bank.pay("three")
    assert len(bank.keys) == 4
    assert len(set(bank.keys)) == 1


def test_what_is_done_and_meant_once_more_is_another_act(run: Any) -> None:
    bank = Bank(run)
    assert [bank.pay("one"), bank.pay("two"), bank.pay("three")] == ["paid"] * 3
    assert len(set(bank.keys)) == 3


def test_an_unknown_outcome_is_over_when_an_attempt_under_its_key_is_done(run: Any) -> None:
    bank = Bank(run)
    bank.pay("one", OSError("timed out"))
    bank.pay("two")  # which the bank answered with what became of the first
    bank.pay("three")
    assert bank.keys[0] == bank.keys[1] != bank.keys[2]


def test_another_act_run_or_tool_has_another_key(gate: Gate, run: Any) -> None:
    run.add_turn("and refund 20.00 EUR for ORD-10023344, too")
    bank, other = Bank(run), run_of(gate)
    looked_up(other)
    bank.pay("one", OSError("timed out"))
    for call in ("two", "three"):
        bank.pay(call, NotDone("declined"), {**REFUND, "amount": "20.00"})
    bank.pay("four")
    elsewhere = Bank(other)
    elsewhere.pay("one")
    assert len({*bank.keys, *elsewhere.keys}) == 4
    assert bank.keys[0] == bank.keys[3]


def test_another_worker_knows_the_key(gate: Gate, run: Any) -> None:
    bank = Bank(run)
    bank.pay("one", OSError("timed out"))
    elsewhere = Bank(gate.resume_run("acme", run.id))
    elsewhere.pay("two", NotDone("no connection"))
    bank.pay("three")
    assert bank.keys[0] == bank.keys[1] == elsewhere.keys[0]


def test_without_a_framework_the_answer_and_the_redeemed_call_have_the_same_key(run: Any) -> None:
    answer = run.authorize("payments.refund", REFUND, tool_call_id="one")
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="payments.refund", args=REFUND) as call:
        assert call.idempotency_key == answer.idempotency_key != call.txn


def test_a_read_has_no_key_and_neither_has_what_runs_outside_of_a_tool(run: Any) -> None:
    seen: list[str] = []

    @tool("orders.get")
    def get(order_id: str) -> dict[str, str]:
        """Look an order up."""
        with pytest.raises(LookupError, match="no idempotency key"):
            idempotency_key()
        seen.append(order_id)
        return {}

    @tool("payments.refund")
    def refund(order_id: str, amount: str, currency: str, payee: str) -> str:
        """Refund an order, after a look."""
        guarded.invoke({"order_id": order_id})
        return idempotency_key()

    guarded: BaseTool
    guarded, paying = guard_tools([get, refund], run=run)
    looked_up(run, call="again")
    assert run.state.tried == frozenset()  # so a read, or the first attempt at an act, costs no look at earlier ones
    assert asyncio.run(paying.ainvoke(REFUND))
    assert seen
    with pytest.raises(LookupError):
        idempotency_key()


# --- whoever is asked learns of it
def asked(run: Any, call: str) -> Any:
    answer = run.authorize("payments.refund", BIG, tool_call_id=call)
    assert isinstance(answer, StepUp)
    return answer.hold


def tried(gate: Gate, run: Any, call: str, error: Exception | None) -> Any:
    hold = asked(run, call)
    gate.release(hold.id, tenant="acme", by=BOSS)
    answer = run.authorize("payments.refund", BIG, tool_call_id=call)
    with suppress(OSError, NotDone), run.redeem(answer.token, tool="payments.refund", args=BIG):
        if error is not None:
            raise error
    return hold


def test_a_question_after_an_unknown_outcome_says_that_an_attempt_may_have_happened_and_when(gate: Gate, run: Any) -> None:
    first = tried(gate, run, "one", OSError("timed out"))
    question = asked(run, "two").question
    assert first.question.attempted == 0.0
    assert "attempted" not in as_json(first.question)
    assert first.question.opened <= question.attempted <= question.opened
    (line,) = [line for line in text_lines(question) if line.startswith("before")]
    assert "an earlier attempt may have happened, at 20" in line
    assert from_json(as_json(question)) == question
    assert gate.hold(asked(run, "two").id, tenant="acme").question.attempted == question.attempted


@pytest.mark.parametrize("error", [None, NotDone("declined")], ids=["done", "failed"])
def test_a_question_after_a_known_outcome_says_nothing_of_it(gate: Gate, run: Any, error: Exception | None) -> None:
    tried(gate, run, "one", error)
    assert asked(run, "two").question.attempted == 0.0
