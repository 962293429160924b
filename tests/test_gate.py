"""One call end to end, on the in-memory store: every step of the gate, and every way it refuses."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from inspect import iscoroutinefunction, signature
from pathlib import Path
from typing import Any

import pytest
import time_machine

from agentgate import (
    Agent,
    Allow,
    AnswerRefused,
    AsyncGate,
    AsyncVerifier,
    Deny,
    Gate,
    Reason,
    RunRefused,
    StepUp,
    TokenRefused,
    User,
    Verifier,
)
from agentgate.audit import read_records
from agentgate.errors import AuditUnavailable, CanonicalError, ConfigError, Refusal, StoreUnavailable
from agentgate.gate import minting, turns
from agentgate.gate.run import AsyncRun, Run
from agentgate.gate.settings import UnapprovedSettings
from agentgate.gate.state import Readings, header_bytes, run_state
from agentgate.gate.view import View
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.redemption.steps import VerifierSettings
from agentgate.stores.ops import RunRecord
from agentgate.token.dpop import DPoP
from agentgate.values.request import CanonicalArguments, Derived
from tests.shop import BOSS, LEE, ORDER, PROMPT, REFUND, WEEKDAY, WORKFLOW, looked_up, opened, reasons, run_of


def test_a_refund_passes_once(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    answer = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="payments.refund", args=REFUND) as redeemed:
        assert redeemed.args == REFUND
    with pytest.raises(TokenRefused) as refused:
        run.redeem(answer.token, tool="payments.refund", args=REFUND)
    assert refused.value.code is Refusal.USED
    assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}


def test_a_handle_that_reads_what_changed_knows_what_a_new_one_knows(gate: Gate) -> None:
    run = run_of(gate)
    watching = gate.resume_run(run.tenant, run.id)
    token = run.authorize("orders.get", ORDER, tool_call_id="look").token
    with run.redeem(token, tool="orders.get", args=ORDER) as redeemed:
        assert isinstance(watching.authorize("payments.refund", REFUND, tool_call_id="early"), Deny)  # redeemed, and nothing recorded yet
        redeemed.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1", "comment": "none"})
    for number in range(3):
        looked_up(run, call=f"look {number}")
    watching.add_turn("I am waiting")
    assert isinstance(watching.authorize("payments.refund", REFUND, tool_call_id="pay"), Allow)
    assert watching._view.state == gate.resume_run(run.tenant, run.id)._view.state
    assert len(watching._view.state.calls) == 4


def test_a_part_of_a_run_is_no_run(gate: Gate) -> None:
    run = run_of(gate)
    record = RunRecord(header_bytes(run.header), (PROMPT,), "1.1." + "0" * 40, False, (), "0" * 40, since=True)
    with pytest.raises(RunRefused, match="only a part"):
        run_state(run.tenant, run.id, record=record, workflow=run.workflow, readings=Readings(derive))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda body: body.replace(b'"v":1', b'"v":2'), "ValueError"),
        (lambda body: body.replace(b'"tenant":"acme","user"', b'"tenant":"other","user"'), "another run"),
        (lambda body: body.replace(b'"id":"run_', b'"id":"run_x'), "another run"),
        (lambda body: body.replace(b'"digest"', b'"digests"'), "KeyError"),
        (lambda body: body.replace(b'"lee"', b'""'), "IdentityRefused"),
        (lambda _: b"", "unreadable"),
    ],
    ids=["of another form", "of another tenant", "of another run", "without its digest", "of a user without an id", "that is left out"],
)
def test_a_header_is_refused(gate: Gate, change: Any, why: str) -> None:
    run = run_of(gate)
    body = header_bytes(run.header)
    assert change(body) != body
    record = RunRecord(change(body), (PROMPT,), "1.1." + "0" * 40, False, (), "0" * 40, since=False)
    with pytest.raises(RunRefused, match=why):
        run_state(run.tenant, run.id, record=record, workflow=run.workflow, readings=Readings(derive))


def test_a_handle_explains_what_it_refused_and_nothing_that_it_allowed(gate: Gate) -> None:
    run = run_of(gate)
    assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="early"), Deny)
    assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="look"), Allow)
    assert run.refusal("look") is None
    assert isinstance(run.refusal("early"), Deny)


def test_a_result_is_recorded_once_and_an_id_is_free_again_when_its_call_ended(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run, call="one")
    answer = run.authorize("payments.refund", REFUND, tool_call_id="one")
    assert isinstance(answer, Allow)
    with run.redeem(answer.token, tool="payments.refund", args=REFUND):
        run.record_result("one", {})
        with pytest.raises(ConfigError):
            run.record_result("one", {})


def test_a_release_that_a_call_took_is_its_own_until_its_timeout(gate: Gate) -> None:
    run = run_of(gate, prompt=PROMPT.replace("39.99", "120.00"))
    looked_up(run)
    big = {**REFUND, "amount": "120.00"}
    held = run.authorize("payments.refund", big, tool_call_id="pay")
    assert isinstance(held, StepUp)
    gate.release(held.hold.id, tenant="acme", by=BOSS)
    for _ in range(2):  # minted, not redeemed, asked again
        assert isinstance(run.authorize("payments.refund", big, tool_call_id="pay"), Allow)


def test_the_same_call_again_takes_no_second_reservation_and_kills_the_first_token(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    tokens = [run.authorize("payments.refund", REFUND, tool_call_id="pay").token for _ in range(5)]
    for token in tokens[:-1]:
        with pytest.raises(TokenRefused):
            run.redeem(token, tool="payments.refund", args=REFUND)
    run.redeem(tokens[-1], tool="payments.refund", args=REFUND)


def test_the_limit_counts_calls(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    for name in ("a", "b"):
        assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id=name), Allow)
    assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="c")) == {Reason.LIMIT}


def test_limits_with_counters_of_their_own_are_all_taken_from(folder: Path) -> None:
    """Which limits would share a counter is known when the file is loaded; whatever loads can be taken from."""
    limits = """limits:
  - {count: payments.refund, max: 9, per: run}
  - {count: payments.refund, max: 9, per: turn}
  - {count: payments.refund, max: 9, per: run, every: 1h}
  - {count: any, max: 9, per: run}
  - {sum: payments.refund.amount, max: "900", per: run}
  - {sum: payments.refund.amount, max: "45", per: tenant, every: 1d}
"""
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("limits: [{count: payments.refund, max: 2, per: run}]\n", limits))
    with opened(folder) as gate:
        run = run_of(gate)
        looked_up(run)
        assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="a"), Allow)
        assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="b")) == {Reason.LIMIT}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"payee": "cus_evil"}, Reason.ARGUMENT_ORIGIN),
        ({"amount": "150.01"}, Reason.AT_MOST),
        ({"amount": "500.01"}, Reason.ARGUMENT_VALUE),
        ({"amount": True}, Reason.ARGUMENT_FORM),
        ({"currency": "USD"}, Reason.ARGUMENT_VALUE),
        ({"tenant": "other"}, Reason.ARGUMENT_UNKNOWN),
        ({"order_id": "ORD-99999999"}, Reason.ARGUMENT_ORIGIN),
        ({"amount": 2**60}, Reason.INPUT),
    ],
)
def test_one_changed_argument_is_refused_for_its_own_reason(gate: Gate, change: dict[str, Any], reason: Reason) -> None:
    run = run_of(gate)
    looked_up(run)
    assert reason in reasons(run.authorize("payments.refund", {**REFUND, **change}, tool_call_id="pay"))


def test_a_missing_amount_slips_past_nothing(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    args = {k: v for k, v in REFUND.items() if k != "amount"}
    assert Reason.ARGUMENT_MISSING in reasons(run.authorize("payments.refund", args))


def test_a_fact_counts_only_after_redemption(gate: Gate) -> None:
    run = run_of(gate)
    answer = run.authorize("orders.get", ORDER, tool_call_id="look")
    assert isinstance(answer, Allow)
    assert reasons(run.authorize("payments.refund", REFUND)) >= {Reason.SEQUENCE, Reason.ARGUMENT_ORIGIN}


def test_all_reasons_come_together(gate: Gate) -> None:
    run = run_of(gate, prompt="What is in ORD-10023344?")
    assert reasons(run.authorize("payments.refund", {**REFUND, "amount": "900.00"})) >= {
        Reason.INTENT_ABSENT,
        Reason.SEQUENCE,
        Reason.ARGUMENT_VALUE,
        Reason.AT_MOST,
    }


def test_a_big_refund_waits_for_a_lead_and_then_passes_once(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    big = {**REFUND, "amount": "150.00"}
    held = run.authorize("payments.refund", big, tool_call_id="pay")
    assert isinstance(held, StepUp)
    assert held.hold.shown == {"order_id": "ORD-10023344", "amount": "150.00", "payee": "(masked)"}
    assert run.authorize("payments.refund", big, tool_call_id="pay").hold.id == held.hold.id
    gate.release(held.hold.id, tenant="acme", by=BOSS)
    assert isinstance(run.authorize("payments.refund", {**big, "amount": "149.00"}, tool_call_id="pay"), StepUp | Deny)
    assert isinstance(run.authorize("payments.refund", big, tool_call_id="other"), StepUp)
    assert isinstance(run.authorize("payments.refund", big, tool_call_id="pay"), Allow)


@pytest.mark.parametrize(
    "by",
    [
        LEE,
        User("lee", tenant="acme", groups=["leads"]),
        User("bot", tenant="acme", groups=["leads"]),
        User("boss", tenant="other", groups=["leads"]),
        User("eve", tenant="acme", groups=["support"]),
    ],
)
def test_nobody_else_may_release(gate: Gate, by: User) -> None:
    run = run_of(gate)
    looked_up(run)
    big = {**REFUND, "amount": "150.00"}
    held = run.authorize("payments.refund", big, tool_call_id="pay")
    with pytest.raises(AnswerRefused) as refused:
        gate.release(held.hold.id, tenant="acme", by=by)
    assert refused.value.code == "approver"
    assert isinstance(run.authorize("payments.refund", big, tool_call_id="pay"), StepUp)


def test_a_refused_hold_stays_refused(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    big = {**REFUND, "amount": "150.00"}
    held = run.authorize("payments.refund", big, tool_call_id="pay")
    gate.refuse(held.hold.id, tenant="acme", by=BOSS)
    with pytest.raises(AnswerRefused):
        gate.release(held.hold.id, tenant="acme", by=BOSS)
    assert reasons(run.authorize("payments.refund", big, tool_call_id="pay")) == {Reason.HOLD_REFUSED}


def test_an_unclear_request_asks_a_person_and_a_withdrawn_one_is_refused(gate: Gate) -> None:
    run = run_of(gate, prompt="Refund every order, also 39.99 for ORD-10023344")
    looked_up(run)
    assert isinstance(run.authorize("payments.refund", REFUND), StepUp)
    run.add_turn("stop")
    assert Reason.INTENT_ABSENT in reasons(run.authorize("payments.refund", REFUND))


def test_a_stale_view_never_decides(folder: Path, gate: Gate) -> None:
    """Two handles of one run: the one that did not see the withdrawal must not mint."""
    first = run_of(gate)
    looked_up(first)
    second = gate.resume_run("acme", first.id)
    second.add_turn("do not refund it")
    assert Reason.INTENT_ABSENT in reasons(first.authorize("payments.refund", REFUND))
    second.close()
    assert Reason.RUN_CLOSED in reasons(first.authorize("orders.get", ORDER))
    with pytest.raises(RunRefused):
        first.add_turn("refund ORD-10023344")


def test_a_view_that_missed_the_facts_does_not_deny(gate: Gate) -> None:
    first = run_of(gate)
    second = gate.resume_run("acme", first.id)
    looked_up(first)
    assert isinstance(second.authorize("payments.refund", REFUND), Allow)


def test_a_view_that_another_thread_refreshes_between_two_lines_does_not_deny(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """`behind` is read once: a state counts as fresh only where it was read."""
    first = run_of(gate)
    second = gate.resume_run("acme", first.id)
    looked_up(first)
    asked = iter([True])
    monkeypatch.setattr(View, "behind", property(lambda _: next(asked, False), lambda _, __: None))
    assert isinstance(second.authorize("payments.refund", REFUND), Allow)


def test_what_a_run_says_of_intents_cannot_be_written(gate: Gate) -> None:
    """The answers are shared by the runs of every tenant with the same words."""
    with pytest.raises(TypeError):
        run_of(gate).intents["refund"] = Derived("present", "I say so")


def test_a_view_that_missed_the_facts_asks_nobody(folder: Path) -> None:
    """With `unknown_origin: step_up` a stale view would hold a call that needs no person."""
    source = WORKFLOW.replace(
        "from: [orders.get.customer], sensitive: true", "from: [orders.get.customer], unknown_origin: step_up, sensitive: true"
    )
    (folder / "w" / "refund.yaml").write_text(source)
    with opened(folder) as gate:
        first = run_of(gate)
        second = gate.resume_run("acme", first.id)
        looked_up(first)
        assert isinstance(second.authorize("payments.refund", REFUND), Allow)


def test_canonical_arguments_are_the_same_call_and_redeem_only_themselves(gate: Gate) -> None:
    run = run_of(gate)
    first = run.authorize("orders.get", CanonicalArguments(ORDER), tool_call_id="call_1")
    again = run.authorize("orders.get", ORDER, tool_call_id="call_1")
    assert isinstance(first, Allow)
    assert isinstance(again, Allow)
    assert first.token.txn == again.token.txn
    with pytest.raises(TokenRefused) as refused:
        run.redeem(again.token, tool="orders.get", args=CanonicalArguments({"order_id": "ORD-99999999"}))
    assert refused.value.code is Refusal.ARGUMENTS
    with run.redeem(again.token, tool="orders.get", args=CanonicalArguments(ORDER)) as call:
        assert call.args == ORDER


@pytest.mark.parametrize("wrong", [b'{"order_id":"ORD-10023344"}', [("order_id", 1.5, 2)], None, {"order_id": {1}}])
def test_nothing_but_arguments_becomes_canonical_arguments(wrong: Any) -> None:
    with pytest.raises((CanonicalError, TypeError, ValueError)):
        CanonicalArguments(wrong)


def test_a_token_is_not_redeemed_under_a_workflow_that_is_gone(gate: Gate) -> None:
    run = run_of(gate)
    answer = run.authorize("orders.get", ORDER)
    assert isinstance(answer, Allow)
    gate.catalog.become(Catalog({}, {}))
    with pytest.raises(TokenRefused) as refused:
        run.redeem(answer.token, tool="orders.get", args=ORDER)
    assert refused.value.code is Refusal.TOOL


def test_what_two_gates_of_one_process_read_is_kept_apart(folder: Path) -> None:
    """Each gate has its own deriver and its own memory of what it said."""
    with opened(folder) as one, opened(folder, deriver=lambda *asked: {} if asked[1] == (PROMPT,) else derive(*asked)) as other:
        assert run_of(one).intents["refund"].presence == "present"
        assert run_of(other).intents["refund"].presence == "absent"


def test_a_missing_run_is_refused(gate: Gate) -> None:
    for tenant, run in (("acme", "run_nobody"), ("a}b", "run_x"), ("acme", "run x")):
        with pytest.raises(RunRefused) as refused:
            gate.resume_run(tenant, run)
        assert refused.value.failures[0].reason is Reason.RUN_MISSING


def test_a_run_of_another_tenant_is_not_found(gate: Gate) -> None:
    with pytest.raises(RunRefused):
        gate.resume_run("other", run_of(gate).id)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tenant": "unknown"}, Reason.TENANT),
        ({"tenant": "other"}, Reason.USER),
        ({"user": None}, Reason.USER),
        ({"user": User("eve", tenant="acme", groups=[])}, Reason.USER),
        ({"prompt": "x" * 70_000}, Reason.INPUT),
        ({"prompt": "refund \ud800"}, Reason.INPUT),
        ({"prompt": "refund \x00"}, Reason.INPUT),
        ({"ttl": 0}, Reason.INPUT),
        ({"ttl": True}, Reason.INPUT),
    ],
)
def test_a_run_that_could_never_mint_does_not_open(gate: Gate, change: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(RunRefused) as refused:
        run_of(gate, **change)
    assert reason in {f.reason for f in refused.value.failures}


@pytest.mark.parametrize(
    "definition", ["x" * 257, "sha256:\u00e9", "\ud800", None, 7, b"sha256:00", ["sha256:00"]], ids=lambda value: repr(value)[:20]
)
def test_a_definition_that_is_no_digest_is_refused_also_where_none_is_pinned(gate: Gate, definition: Any) -> None:
    run = run_of(gate)
    assert reasons(run.authorize("orders.get", ORDER, definition=definition)) == {Reason.INPUT}
    assert isinstance(run.authorize("orders.get", ORDER, definition="sha256:" + "0" * 64), Allow)


def test_in_the_last_moment_of_a_run_there_is_no_token_for_no_time(gate: Gate) -> None:
    """It would count for as long as clocks may differ, which is after the run."""
    with time_machine.travel(float(int(time.time())) + 0.7, tick=False) as clock:
        run = run_of(gate, ttl=5)
        assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="early"), Allow)
        clock.shift(4.6)
        assert time.time() < run.header.ends
        assert reasons(run.authorize("orders.get", ORDER, tool_call_id="late")) == {Reason.RUN_EXPIRED}


def test_a_run_with_as_many_turns_as_there_may_be_takes_no_other_and_can_be_closed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_TURNS", 3)
    run = run_of(gate, prompt="Please refund 39.99 EUR for order ORD-10023344 \U0001f642")
    for _ in range(2):
        run.add_turn("Thanks")
    with pytest.raises(RunRefused, match="open a new run"):
        run.add_turn("Thanks")
    run.close()
    assert reasons(run.authorize("orders.get", ORDER)) == {Reason.RUN_CLOSED}
    with pytest.raises(RunRefused) as refused:
        run.add_turn("x")
    assert refused.value.failures
    run.close()  # it is closed


def test_what_a_calls_record_keeps_of_its_arguments_is_neither_sensitive_nor_long(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payee is sensitive: it is a digest in the log, and in the store it stands nowhere but in the hold that asks about it."""

    def kept() -> dict[str, Any]:
        run = run_of(gate)
        looked_up(run)
        with run.redeem(run.authorize("payments.refund", REFUND, tool_call_id="pay").token, tool="payments.refund", args=REFUND):
            pass
        return {call.tool: set(call.args) for call in gate.resume_run(run.tenant, run.id).state.calls}

    assert kept() == {"orders.get": {"order_id"}, "payments.refund": {"order_id", "amount", "currency"}}
    monkeypatch.setattr(minting, "_SHORT", 10)
    assert kept() == {"orders.get": {"order_id"}, "payments.refund": set()}  # what later calls may refer to stays


def test_a_run_that_the_store_lost_takes_no_turn(gate: Gate) -> None:
    run = run_of(gate)
    store: Any = gate._store
    store._client.flushall()
    for change in (lambda: run.add_turn("Thanks"), run.close):
        with pytest.raises(RunRefused) as refused:
            change()
        assert {failure.reason for failure in refused.value.failures} == {Reason.RUN_MISSING}


def test_hours_come_from_the_decision_clock(folder: Path) -> None:
    sunday = datetime(2026, 3, 8, 10, tzinfo=UTC)
    with opened(folder, clock=lambda: sunday) as gate:
        assert Reason.HOURS in reasons(run_of(gate).authorize("orders.get", ORDER))


def test_an_unknown_workflow_is_refused(gate: Gate) -> None:
    with pytest.raises(RunRefused, match=r"got 'nobody', expected one of [a-z.]+$"):
        gate.open_run("nobody", tenant="acme", user=LEE, agent=Agent("bot"), prompt="")


def test_a_run_of_another_version_is_refused(folder: Path) -> None:
    store = f"embedded://{folder / 'store'}"
    with opened(folder, store=store) as old:
        run = run_of(old)
        (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("version: 1", "version: 2"))
        with opened(folder, store=store) as new:
            assert Reason.WORKFLOW_CHANGED in reasons(new.resume_run("acme", run.id).authorize("orders.get", ORDER))


def test_a_second_gate_goes_on_with_the_run(folder: Path) -> None:
    store, keys = f"embedded://{folder / 'store'}", folder / "keys"
    with opened(folder, store=store, keys=keys) as first:
        run = run_of(first)
        looked_up(run)
        with opened(folder, store=store, keys=keys) as second:
            resumed = second.resume_run("acme", run.id)
            answer = resumed.authorize("payments.refund", REFUND, tool_call_id="pay")
            assert isinstance(answer, Allow)
            with resumed.redeem(answer.token, tool="payments.refund", args=REFUND):
                assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="pay")) == {Reason.OUTCOME_UNKNOWN}
            assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}


def test_one_call_runs_once_under_racers(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    token = run.authorize("payments.refund", REFUND, tool_call_id="pay").token
    won: list[int] = []

    def race(number: int) -> None:
        try:
            run.redeem(token, tool="payments.refund", args=REFUND)
        except TokenRefused:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_arguments_swapped_after_the_decision_are_refused(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    token = run.authorize("payments.refund", REFUND).token
    for tool, args in (("payments.refund", {**REFUND, "payee": "cus_evil"}), ("orders.get", REFUND)):
        with pytest.raises(TokenRefused):
            run.redeem(token, tool=tool, args=args)
    run.redeem(token, tool="payments.refund", args=REFUND)


def test_the_agents_process_never_redeems_for_a_server(folder: Path) -> None:
    """It holds token and key, so it could; then it would report the facts itself."""
    pinned = "redeem: server\n    audience: https://orders.example\n    scope: [orders:read]\n    definition: sha256:" + "0" * 64
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("redeem: wrapper", pinned, 1))
    with opened(folder) as gate:
        run = run_of(gate)
        answer = run.authorize("orders.get", ORDER, definition="sha256:" + "0" * 64)
        assert isinstance(answer, Allow)
        with pytest.raises(TokenRefused) as refused:
            run.redeem(answer.token, tool="orders.get", args=ORDER)
        assert refused.value.code is Refusal.TOOL
        verifier, url = gate.verifier("https://orders.example", tenants=["acme"]), "https://orders.example/get"
        token = answer.token.reveal()
        with pytest.raises(TokenRefused, match="proof_missing"):  # bound to the agent's key, although it is a read: it leaves the process
            verifier.redeem(token, tool="orders.get", args=ORDER)
        proof = DPoP(answer.token.headers("GET", url)["DPoP"], "GET", url)
        with verifier.redeem(token, tool="orders.get", args=ORDER, proof=proof):
            pass


def test_no_audit_no_token(folder: Path) -> None:
    gate = opened(folder, audit=str(folder / "audit"), keys=folder / "keys")
    run = run_of(gate)
    gate._audit.close()
    assert Reason.AUDIT in reasons(run.authorize("orders.get", ORDER))
    with pytest.raises(AuditUnavailable):
        run_of(gate)


def test_every_decision_and_redemption_is_on_record(folder: Path) -> None:
    from agentgate.audit import read_records

    with opened(folder, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        run = run_of(gate)
        looked_up(run)
        run.authorize("payments.refund", {**REFUND, "payee": "cus_evil"})
    records = list(read_records(folder / "audit"))
    assert [r["type"] for r in records] == ["run_opened", "decision", "redemption", "outcome", "decision"]
    assert records[-1]["reasons"][0]["reason"] == "argument_origin"
    text = "".join(path.read_text() for path in (folder / "audit").glob("*.jsonl"))
    assert "it arrived broken" not in text
    assert "cus_evil" not in text


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"issuer": "gate"}, "issuer"),
        ({"issuer": "http://gate.example"}, "issuer"),
        ({"issuer": "http://localhost.evil.example"}, "issuer"),
        ({"issuer": "https://gate.example?x"}, "issuer"),
        ({"store": "file://x"}, "store"),
        ({"audit": "redis://x"}, "audit"),
    ],
)
def test_a_bad_setting_is_named(folder: Path, change: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Gate.open_unsafe_unapproved(folder / "w", **{"issuer": "https://gate.example", "audit": "memory://", **change})
    assert refused.value.setting == setting


@pytest.mark.parametrize(
    ("setting", "got"),
    [
        ("workflows", ""),
        ("audit", 7),
        ("store", b"redis://:canary@127.0.0.1"),
        ("keys", ""),
        ("environment", 1),
        ("clock", datetime(2026, 3, 4)),
        ("alg", "RS256"),
        ("brokers", "vault"),
        ("deriver", "lexical"),
    ],
)
def test_a_setting_of_another_kind_is_named_with_what_it_got_and_what_it_takes(folder: Path, setting: str, got: Any) -> None:
    given = {"workflows": folder / "w", "issuer": "https://gate.example", "audit": "memory://", setting: got}
    with pytest.raises(ConfigError) as refused:
        Gate.open_unsafe_unapproved(**given)
    assert (refused.value.setting, refused.value.got) == (setting, "bytes" if setting == "store" else got)
    assert len(refused.value.expected) > 5


def test_settings_do_not_show_the_stores_password() -> None:
    settings = UnapprovedSettings("w", issuer="https://gate.example", audit="memory://", store="redis://:canary@127.0.0.1")
    assert "canary" not in repr(settings)
    assert "canary" not in repr(
        VerifierSettings(
            {},
            issuer="https://gate.example",
            tenants=["acme"],
            audience="https://orders.example",
            store="redis://:canary@127.0.0.1",
            audit="audit",
        )
    )


def test_both_gates_take_the_same_settings_and_their_help_names_them() -> None:
    for name in ("open", "open_unsafe_unapproved"):
        one, other = getattr(Gate, name), getattr(AsyncGate, name)
        assert signature(one).parameters == signature(other).parameters
        assert {p.name for p in signature(one).parameters.values() if p.kind is not p.KEYWORD_ONLY} == {"workflows"}
        assert all(f"{setting}:" in one.__doc__ for setting in signature(one).parameters)
    assert "root" in signature(Gate.open).parameters
    for one, other in ((Gate, AsyncGate), (Run, AsyncRun), (Verifier, AsyncVerifier)):
        for name in {"open_run", "resume_run", "release", "refuse", "authorize", "explain", "add_turn", "redeem"} & set(vars(one)):
            blocking, awaited = getattr(one, name), getattr(other, name)
            assert (blocking.__name__, blocking.__doc__) == (name, awaited.__doc__)
            assert signature(blocking).parameters == signature(awaited).parameters
            assert iscoroutinefunction(awaited)
            assert not iscoroutinefunction(blocking)
    assert "root" not in signature(Gate.open_unsafe_unapproved).parameters


def test_no_workflow_no_gate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.example", audit="memory://")


async def test_the_async_gate_is_the_same(folder: Path) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        answer = await run.authorize("orders.get", ORDER, tool_call_id="look")
        assert isinstance(answer, Allow)
        async with await run.redeem(answer.token, tool="orders.get", args=ORDER) as call:
            await call.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1"})
        big = {**REFUND, "amount": "150.00"}
        held = await run.authorize("payments.refund", big, tool_call_id="pay")
        assert isinstance(held, StepUp)
        await gate.release(held.hold.id, tenant="acme", by=BOSS)
        answer = await run.authorize("payments.refund", big, tool_call_id="pay")
        assert isinstance(answer, Allow)
        verifier = gate.verifier("https://gate.example", tenants=["acme"])
        with pytest.raises(TokenRefused) as refused:
            await verifier.redeem(answer.token.reveal(), tool="payments.refund", args=big)
        assert refused.value.code is Refusal.PROOF_MISSING
        async with await run.redeem(answer.token, tool="payments.refund", args=big):
            pass
        assert reasons(await run.authorize("payments.refund", big, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}
        await run.close()
        assert reasons(await run.authorize("orders.get", ORDER)) == {Reason.RUN_CLOSED}


@pytest.mark.parametrize("more", ["", ", sensitive: true"])
def test_an_id_that_a_write_only_echoes_is_no_new_id(folder: Path, more: str) -> None:
    """Else a refused recipient launders itself: send it somewhere harmless, and take it from the result."""
    writes = """
  notes.create:
    effect: write
    needs: [refund]
    redeem: wrapper
    args: {topic: {type: id, from: [model]}}
    facts: {note: {type: id}}
  notes.send:
    effect: egress
    needs: [refund]
    redeem: wrapper
    args: {note: {type: id, from: [notes.create.note]}}
"""
    writes = writes.replace("from: [model]", f"from: [model]{more}")
    source = WORKFLOW.replace("\nsequence:", writes + "sequence:").replace("unclear: step_up", "unclear: deny")
    (folder / "w" / "refund.yaml").write_text(source)
    with opened(folder) as gate:
        run = run_of(gate)
        for topic, note, allowed in (("cus_evil", "cus_evil", False), ("weather", "note_7", True)):
            answer = run.authorize("notes.create", {"topic": topic})
            assert isinstance(answer, Allow)
            with run.redeem(answer.token, tool="notes.create", args={"topic": topic}) as call:
                call.record_result({"note": note})
            assert isinstance(run.authorize("notes.send", {"note": note}), Allow) is allowed


def test_an_unsigned_workflow_cannot_switch_enforcement_off(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("risk: high", "risk: high\nmode: observe"))
    with opened(folder) as gate:
        assert "observe_ignored" in "".join(capsys.readouterr())
        assert isinstance(run_of(gate).authorize("payments.refund", REFUND), Deny)


def test_a_deriver_that_fails_finds_nothing_present(folder: Path) -> None:
    """Loading asks it about the examples, so it fails only later, as one behind a network would."""
    from agentgate.intents.lexical import derive

    down = threading.Event()

    def flaky(intents: Any, turns: Any) -> Any:
        if down.is_set():
            raise RuntimeError("the model behind it is away")
        return derive(intents, turns)

    with opened(folder, deriver=flaky) as gate:
        down.set()
        run = run_of(gate)
        assert run.intents["refund"].presence == "unclear"
        looked_up(run)
        assert isinstance(run.authorize("payments.refund", REFUND), StepUp)


def test_keys_that_others_may_read_sign_nothing(folder: Path) -> None:
    with opened(folder, keys=folder / "keys") as gate:
        run = run_of(gate)
        (folder / "keys" / "ring.json").chmod(0o644)
        gate._core.keys._looked -= 60  # the ring looks at its file every few seconds
        failures = run.authorize("orders.get", ORDER).failures
        assert [(f.reason, f.field) for f in failures] == [(Reason.STORE, "keys")]


def test_a_run_is_never_written_over_another(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.gate.open_run.secrets.token_urlsafe", lambda _: "same")
    run_of(gate)
    with pytest.raises(StoreUnavailable):
        run_of(gate)


def test_tomorrow_is_counted_from_the_day_the_run_was_opened(folder: Path) -> None:
    """Else what the user named moves at midnight, while the run is open."""
    dated = WORKFLOW.replace(
        "args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}", "args: {order_id: {type: date, from: [prompt]}}"
    )
    dated = dated.replace("order_id: {type: id, from: [orders.get.order_id]}", "order_id: {type: date, from: [orders.get.order_id]}")
    (folder / "w" / "refund.yaml").write_text(dated)
    now = [WEEKDAY]
    with opened(folder, clock=lambda: now[0]) as gate:
        run = run_of(gate, prompt="Please refund what comes tomorrow")
        now[0] += timedelta(days=1)
        run = gate.resume_run("acme", run.id)
        assert isinstance(run.authorize("orders.get", {"order_id": "2026-03-05"}), Allow)
        assert Reason.ARGUMENT_ORIGIN in reasons(run.authorize("orders.get", {"order_id": "2026-03-06"}))


def test_a_limit_per_turn_begins_again_when_the_user_speaks(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("max: 2, per: run", "max: 1, per: turn"))
    with opened(folder) as gate:
        run = run_of(gate)
        looked_up(run)
        assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="one"), Allow)
        assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="two")) == {Reason.LIMIT}
        run.add_turn("and refund 20 EUR more for ORD-10023344")
        again = {**REFUND, "amount": "20.00"}
        assert isinstance(run.authorize("payments.refund", again, tool_call_id="three"), Allow)
        assert reasons(run.authorize("payments.refund", again, tool_call_id="four")) == {Reason.LIMIT}


class _Busy:
    """The gate's store, for a run in which others always speak just before one operation of this handle, the first `times` times."""

    def __init__(self, store: Any, other: Any, times: int, script: str = "mint", says: str = "I am waiting") -> None:
        self.store, self.other, self.times, self.script, self.says = store, other, times, script, says

    def call(self, op: Any, deadline: float) -> Any:
        if op.script == self.script and self.times:
            self.times -= 1
            self.other.add_turn(self.says)
        return self.store.call(op, deadline)


class _Reading:
    """The gate's store, and how many turns the gate had read before each operation."""

    def __init__(self, gate: Gate) -> None:
        self.store, self.turn, self.read = gate._store, gate._core.readings.turn, list[tuple[str, int]]()

    def call(self, op: Any, deadline: float) -> Any:
        self.read.append((op.script, self.turn.cache_info().misses))  # type: ignore[attr-defined]  # it is an lru_cache
        return self.store.call(op, deadline)


def test_a_turn_is_read_once_before_it_is_stored(gate: Gate) -> None:
    gate._store = store = _Reading(gate)  # type: ignore[assignment]
    run = run_of(gate)
    run.add_turn("when will it arrive?")
    looked_up(run)
    assert [each for each in store.read if each[0] in {"open_run", "add_turn"}] == [("open_run", 1), ("add_turn", 2)]
    assert store.read[-1][1] == 2
    gate._store = store.store


@pytest.mark.parametrize("times", [1, 6])
def test_a_call_in_a_busy_run_goes_on_trying(gate: Gate, times: int) -> None:
    run = run_of(gate)
    looked_up(run)
    run._store = _Busy(run._store, gate.resume_run(run.tenant, run.id), times)
    assert isinstance(run.authorize("payments.refund", REFUND), Allow)
    assert run._store.times == 0


@pytest.mark.parametrize("later", ["no, stop", "that's wrong", "don't refund it", "hm, pull the plug"])
def test_a_turn_that_takes_back_kills_the_tokens_that_were_not_redeemed(gate: Gate, later: str) -> None:
    run = run_of(gate)
    looked_up(run)
    allowed = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(allowed, Allow)
    run.add_turn(later)
    with pytest.raises(TokenRefused, match="revoked"):
        run.redeem(allowed.token, tool="payments.refund", args=REFUND)
    assert not isinstance(run.authorize("payments.refund", REFUND, tool_call_id="pay"), Allow)
    run.add_turn("Please refund order ORD-10023344 after all")
    assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="pay"), Allow)


def test_a_turn_takes_back_also_what_its_gate_had_not_heard_asked_for(gate: Gate) -> None:
    run = run_of(gate, prompt="Hello")
    behind = gate.resume_run(run.tenant, run.id)
    run.add_turn(PROMPT)
    looked_up(run)
    allowed = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(allowed, Allow)
    behind.add_turn("park that for now")  # a no only where something was asked for
    assert behind.intents["refund"].presence == "unclear"
    with pytest.raises(TokenRefused, match="revoked"):
        run.redeem(allowed.token, tool="payments.refund", args=REFUND)


@pytest.mark.parametrize(("times", "void"), [(2, False), (1000, True)])
def test_what_a_turn_takes_back_is_read_behind_the_turns_of_other_gates(gate: Gate, times: int, *, void: bool) -> None:
    """In a run in which others never stop speaking it is not known, so it takes back."""
    run = run_of(gate)
    looked_up(run)
    allowed = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(allowed, Allow)
    run._store = _Busy(run._store, gate.resume_run(run.tenant, run.id), times, "add_turn", "thanks!")
    run.add_turn("when will it arrive?")
    assert run._view.state.turns.count("when will it arrive?") == 1
    refused = pytest.raises(TokenRefused, match="revoked") if void else nullcontext()
    with refused, run.redeem(allowed.token, tool="payments.refund", args=REFUND):
        pass


@pytest.mark.parametrize("later", ["thanks!", "when will it arrive?", "It is the blue one."])
def test_a_turn_that_takes_nothing_back_leaves_them(gate: Gate, later: str) -> None:
    run = run_of(gate)
    looked_up(run)
    allowed = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(allowed, Allow)
    run.add_turn(later)
    with run.redeem(allowed.token, tool="payments.refund", args=REFUND) as call:
        call.record_result({})


def test_closing_a_run_kills_its_tokens(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    allowed = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(allowed, Allow)
    run.close()
    with pytest.raises(TokenRefused, match="revoked"):
        run.redeem(allowed.token, tool="payments.refund", args=REFUND)


def test_a_run_that_never_rests_mints_nothing(gate: Gate) -> None:
    run = run_of(gate)
    run._store = _Busy(run._store, gate.resume_run(run.tenant, run.id), 1000)
    assert reasons(run.authorize("orders.get", ORDER)) == {Reason.STORE}


def test_the_record_names_the_call_that_everything_was_taken_from(folder):
    """Both calls returned the payee, and only one of them a total that the amount stays below: it is the source of all."""
    with opened(folder, audit=str(folder / "audit"), keys=str(folder / "keys")) as gate:
        run = run_of(gate)
        looked_up(run, total="10.00", call="low")
        looked_up(run, total="150.00", call="high")
        assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="pay"), Allow)
    decided = [each for each in read_records(folder / "audit") if each["type"] == "decision" and each["tool"] == "payments.refund"]
    assert decided[-1]["origins"]["payee"] == "orders.get.customer high"
    assert decided[-1]["origins"]["order_id"] == "orders.get.order_id high"
