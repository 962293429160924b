"""What a run and its user may use up: denials, open holds, runs in an hour. Each has a closed reason, is on record and is never off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, AsyncGate, Deny, Gate, StepUp, User
from agentgate.errors import ConfigError
from agentgate.gate.settings import MOST
from agentgate.values.refusal import Code, Reason, RunRefused
from tests.shop import LEE, ORDER, REFUND, looked_up, opened, reasons, run_of

STRANGE = {**ORDER, "order_id": "ORD-99999999"}


def records(gate: Gate) -> list[dict[str, Any]]:
    audit: Any = gate._audit
    return list(audit.records)


def denied(run: Any, number: int = 0) -> Any:
    return run.authorize("orders.get", STRANGE, tool_call_id=f"probe {number}")


def test_a_run_closes_with_its_twentieth_denial_and_its_token_dies(folder: Path) -> None:
    with opened(folder) as gate:
        run = run_of(gate)
        token = run.authorize("orders.get", ORDER, tool_call_id="kept").token
        other = gate.resume_run("acme", run.id)
        for number in range(19):
            assert Reason.TOO_MANY_DENIALS not in reasons(denied(run, number))
        assert isinstance(other.authorize("orders.get", ORDER, tool_call_id="look"), Allow)
        assert Reason.TOO_MANY_DENIALS in reasons(denied(run, 19))
        for handle in (run, other, gate.resume_run("acme", run.id)):
            answer: Any = handle.authorize("orders.get", ORDER, tool_call_id="look")
            assert (reasons(answer), answer.code) == ({Reason.TOO_MANY_DENIALS}, Code.NOT_PERMITTED)
        with pytest.raises(Exception, match="revoked"):
            run.redeem(token, tool="orders.get", args=ORDER).__enter__()
        closed = [record for record in records(gate) if record["type"] == "run_closed"]
        assert [record["reasons"][0]["reason"] for record in closed] == ["too_many_denials"]
        assert isinstance(run_of(gate).authorize("orders.get", ORDER, tool_call_id="look"), Allow)


def test_any_handle_on_any_call_counts_toward_the_same_budget(folder: Path) -> None:
    with opened(folder, denials_per_run=4) as gate:
        run = run_of(gate)
        assert isinstance(run.authorize("no.such", {}), Deny)
        assert isinstance(run.authorize("orders.get", {"order_id": float("nan")}), Deny)
        assert isinstance(gate.resume_run("acme", run.id).authorize("payments.refund", REFUND), Deny)
        assert Reason.TOO_MANY_DENIALS in reasons(denied(run))


def test_what_is_known_of_a_call_is_no_denial(folder: Path) -> None:
    with opened(folder, denials_per_run=1) as gate:
        run = run_of(gate)
        looked_up(run)
        answer = run.authorize("payments.refund", {**REFUND}, tool_call_id="pay")
        assert isinstance(answer, Allow)
        with run.redeem(answer.token, tool="payments.refund", args=REFUND):
            pass
        for _ in range(3):
            assert run.authorize("payments.refund", REFUND, tool_call_id="pay").code == Code.ALREADY_DONE
        assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="again"), Allow)


def test_a_denial_that_cannot_be_counted_says_only_unavailable(folder: Path) -> None:
    with opened(folder) as gate:
        run = run_of(gate)
        store: Any = gate._store
        call = store.call
        store.call = lambda op, deadline: call(op, deadline if op.script != "count_denial" else 0.0)
        answer = denied(run)
        assert (Reason.STORE in reasons(answer), answer.code) == (True, Code.UNAVAILABLE)


def test_one_hold_too_many_is_refused_and_an_answer_makes_room(folder: Path) -> None:
    with opened(folder, open_holds_per_run=5) as gate:
        run = run_of(gate)
        looked_up(run)

        def ask(number: int) -> Any:
            return run.authorize("payments.refund", {**REFUND, "amount": "150.00"}, tool_call_id=f"pay {number}")

        held = [ask(number) for number in range(6)]
        assert all(isinstance(answer, StepUp) for answer in held[:5])
        assert reasons(held[5]) == {Reason.TOO_MANY_HOLDS}
        assert isinstance(ask(0), StepUp)
        assert records(gate)[-2]["reasons"][0]["reason"] == "too_many_holds"
        gate.release(held[0].hold.id, tenant="acme", by=User("boss", tenant="acme", groups=["leads"]))
        assert isinstance(ask(5), StepUp)


def test_a_user_opens_sixty_runs_in_an_hour_however_their_id_is_spelt(folder: Path) -> None:
    with opened(folder) as gate:
        for _ in range(60):
            run_of(gate)
        for who in (LEE, User(LEE.id.upper(), tenant="acme", groups=LEE.groups)):
            with pytest.raises(RunRefused) as refused:
                run_of(gate, user=who)
            assert [failure.reason for failure in refused.value.failures] == [Reason.TOO_MANY_RUNS]
        assert [r["reason"] for r in records(gate)[-1]["reasons"]] == ["too_many_runs"]
        assert records(gate)[-1]["type"] == "run_refused"
        run_of(gate, user=User("mia", tenant="acme", groups=LEE.groups), agent=Agent("bot"))


async def test_the_awaited_gate_has_the_same_budgets(folder: Path) -> None:
    settings: dict[str, Any] = {"issuer": "https://gate.example", "audit": "memory://", "denials_per_run": 1, "runs_per_hour": 1}
    async with await AsyncGate.open_unsafe_unapproved(folder / "w", **settings) as gate:
        who: dict[str, Any] = {"tenant": "acme", "user": LEE, "agent": Agent("bot"), "prompt": "hello"}
        run = await gate.open_run("shop.refund", **who)
        assert Reason.TOO_MANY_DENIALS in reasons(await run.authorize("no.such", {}))
        with pytest.raises(RunRefused, match="too_many_runs"):
            await gate.open_run("shop.refund", **who)


@pytest.mark.parametrize("name", MOST)
@pytest.mark.parametrize("value", [0, -1, None, True, 1.5, "20", float("inf")])
def test_no_budget_is_ever_off(folder: Path, name: str, value: object) -> None:
    for wrong in (value, MOST[name] + 1):
        with pytest.raises(ConfigError, match=name):
            opened(folder, **{name: wrong})


def test_the_defaults(folder: Path) -> None:
    with opened(folder) as gate:
        assert isinstance(gate, Gate)
        budgets = gate._core.budgets
        assert (budgets.denials, budgets.holds, budgets.runs) == (20, 50, 60)


def test_the_holds_of_one_user_in_many_runs_leave_room_for_those_of_others(folder: Path) -> None:
    with opened(folder, open_holds_per_run=1) as gate:

        def asks(user: User) -> Any:
            run = run_of(gate, user=user)
            looked_up(run)
            return run.authorize("payments.refund", {**REFUND, "amount": "150.00"}, tool_call_id="pay")

        answers = [asks(LEE) for _ in range(51)]
        assert [type(each) for each in answers] == [StepUp] * 50 + [Deny]
        assert reasons(answers[-1]) == {Reason.TOO_MANY_HOLDS}
        assert isinstance(asks(User("kim", tenant="acme", groups=LEE.groups)), StepUp)
        gate.refuse(answers[0].hold.id, tenant="acme", by=User("mona", tenant="acme", groups=("leads",)))
        assert isinstance(asks(LEE), StepUp)
        assert len(gate.holds("acme")) == 51
