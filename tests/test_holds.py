"""Holds by their id: read, listed, answered and waited for; what follows in each state, through a real gate."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentgate import Agent, Allow, AnswerRefused, AsyncGate, Gate, StepUp, User
from agentgate.decision.hold import AFTER, Event, Hold, Row, after
from agentgate.errors import ConfigError, NameRefused, StoreUnavailable
from agentgate.stores import ops
from tests.servers import Server, valkey_binary
from tests.shop import BOSS, LEE, PROMPT, REFUND, WEEKDAY, WORKFLOW, looked_up, opened, refusals, run_of

BIG = {**REFUND, "amount": "150.00"}
ANN = User("ann", tenant="acme", groups=["leads"])
SECONDS = 600  # the rule's timeout


def held(gate: Gate, call: str = "pay", **more: Any) -> tuple[Any, Hold]:
    run = run_of(gate, **more)
    looked_up(run)
    answer = run.authorize("payments.refund", BIG, tool_call_id=call)
    assert isinstance(answer, StepUp)
    return run, answer.hold


def records(gate: Gate, kind: str) -> list[dict[str, Any]]:
    log: Any = gate._audit
    return [r for r in log.records if r["type"] == kind]


# --- by id ------------------------------------------------------------------------------------------------------------------
def test_a_hold_is_read_by_its_id(gate: Gate) -> None:
    run, hold = held(gate)
    read = gate.hold(hold.id, tenant="acme")
    assert (read.state, read.run, read.tool, read.rules) == ("pending", run.id, "payments.refund", ("big",))
    gate.release(hold.id, tenant="acme", by=BOSS)
    assert gate.hold(hold.id, tenant="acme").state == "released"


def test_what_the_host_said_counts_only_while_the_workflow_takes_its_word(gate: Gate) -> None:
    _, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=BOSS)
    kept, answerers = gate.hold(hold.id, tenant="acme"), gate._core.answerers
    assert [each.id for each in answerers.standing(kept, in_process=True).approvers] == [BOSS.id]
    assert answerers.standing(kept, in_process=False).approvers == ()


@pytest.mark.parametrize(("tenant", "name"), [("other", ""), ("acme", "0" * 64), ("acme", "a b"), ("{x}", ""), (None, ""), ("acme", 7)])
def test_no_other_tenant_and_no_made_up_id_finds_a_hold(gate: Gate, tenant: Any, name: Any) -> None:
    _, hold = held(gate)
    for ask in (
        gate.hold,
        lambda i, tenant: gate.release(i, tenant=tenant, by=BOSS),
        lambda i, tenant: gate.refuse(i, tenant=tenant, by=BOSS),
    ):
        with pytest.raises(AnswerRefused) as refused:
            ask(name or hold.id, tenant=tenant)
        assert refused.value.code == "missing"
    assert gate.hold(hold.id, tenant="acme").state == "pending"


def test_a_hand_built_hold_releases_nothing(gate: Gate) -> None:
    run, hold = held(gate)
    forged = replace(hold, rules=(), expires_at=9e9, state="released")
    ask: Any = gate.release
    with pytest.raises(AnswerRefused):
        ask(forged, tenant="acme", by=BOSS)
    with pytest.raises(TypeError):
        ask(forged, by=BOSS)
    assert run.wait(forged, timeout=0).state == "pending"
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), StepUp)


def test_holds_are_listed_by_tenant_run_and_state_the_earliest_deadline_first(gate: Gate) -> None:
    (one, first), (_, second), (_, third) = held(gate), held(gate), held(gate)
    gate.refuse(second.id, tenant="acme", by=BOSS)
    assert [h.id for h in gate.holds("acme")] == [first.id, third.id]
    assert [h.id for h in gate.holds("acme", state="refused")] == [second.id]
    assert {h.id for h in gate.holds("acme", state=None)} == {first.id, second.id, third.id}
    assert [h.id for h in gate.holds("acme", run=one.id)] == [first.id]
    assert gate.holds("other") == ()
    with pytest.raises(NameRefused):
        gate.holds("{acme}")


def test_an_answer_that_does_not_count_is_on_record_with_its_code(gate: Gate) -> None:
    run, hold = held(gate)
    lee = User("lee", tenant="acme", groups=["leads"])
    for tenant, by, code in (
        ("acme", lee, "approver"),
        ("other", BOSS, "missing"),
        ("acme", "boss", "unproven"),
        ("acme", None, "unproven"),
    ):
        ask: Any = gate.release
        with pytest.raises(AnswerRefused) as refused:
            ask(hold.id, tenant=tenant, by=by)
        assert refused.value.code == code
        record = refusals(gate)[-1]
        assert (record["code"], record["tenant"], record["hold"]) == (code, tenant, hold.id)
        assert record.get("run") == (run.id if tenant == "acme" else None)
        assert record["by"] == (by.id if isinstance(by, User) else None)
    assert gate.hold(hold.id, tenant="acme").state == "pending"
    assert records(gate, "hold_answer") == []


def test_an_answer_is_on_record_before_it_counts(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    _, hold = held(gate)

    def lost(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    log: Any = gate._audit
    monkeypatch.setattr(log, "append", lost)
    with pytest.raises(OSError, match="no space"):
        gate.release(hold.id, tenant="acme", by=BOSS)
    monkeypatch.undo()
    assert gate.hold(hold.id, tenant="acme").state == "pending"


def test_a_hold_of_a_run_that_is_gone_is_not_answered(gate: Gate) -> None:
    run, hold = held(gate)
    store: Any = gate._store
    store._client.delete(f"ag:{{acme}}:run:{run.id}")
    with pytest.raises(AnswerRefused) as refused:
        gate.release(hold.id, tenant="acme", by=BOSS)
    assert refused.value.code == "run"


# --- the table --------------------------------------------------------------------------------------------------------------
def shifted(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The gate's clock, as holds see it."""
    clock = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=time.monotonic)
    monkeypatch.setattr("agentgate.gate.holds.answer.time", clock)
    monkeypatch.setattr("agentgate.gate.holds.release.time", clock)


class Held:
    """A hold of a gate in one row of the table; two leads must say yes."""

    def __init__(self, gate: Gate, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.patch = gate, monkeypatch
        self.run, self.hold = held(gate)
        if row in {"released", "spent", "ran"}:
            self.happens("yes")
            self.happens("enough")
        if row in {"spent", "ran"}:
            self.happens("asked")
        if row == "ran":
            with self.run.redeem(self.token, tool="payments.refund", args=BIG):
                pass
        if row in {"refused", "expired", "cancelled"}:
            self.happens({"refused": "no", "expired": "deadline", "cancelled": "withdrawn"}[row])  # type: ignore[arg-type]  # events

    def happens(self, event: Event) -> bool:
        """Let it happen; False: it was refused."""
        try:
            match event:
                case "asked":
                    answer = self.run.authorize("payments.refund", BIG, tool_call_id="pay")
                    if isinstance(answer, Allow):
                        self.token = answer.token
                case "yes" | "enough":
                    self.gate.release(self.hold.id, tenant="acme", by=BOSS if event == "yes" else ANN)
                case "no":
                    self.gate.refuse(self.hold.id, tenant="acme", by=BOSS)
                case "deadline":
                    shifted(self.patch, SECONDS + 1)
                case "withdrawn":
                    time.sleep(0.002)  # not in the millisecond of what came before
                    self.run.add_turn("no, stop")
                    time.sleep(0.002)
                    self.run.add_turn("Please do refund 150.00 EUR for order ORD-10023344")
        except AnswerRefused as refused:
            if refused.code != "state":
                raise
            return False
        return True

    @property
    def state(self) -> str:
        return self.gate.hold(self.hold.id, tenant="acme").state


@pytest.mark.parametrize("event", ["asked", "yes", "no", "deadline", "withdrawn"])
@pytest.mark.parametrize("row", AFTER)
def test_what_follows_through_a_gate_is_what_the_table_says(folder: Path, monkeypatch: pytest.MonkeyPatch, row: Row, event: Event) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("count: 1, not", "count: 2, not"))
    with opened(folder) as gate:
        held = Held(gate, row, monkeypatch)
        assert held.state == ("spent" if row == "ran" else row)
        then = after(row, event)
        if event == "asked" and row == "released":  # what is asked and was released is minted
            then = after(row, "minted")
        assert held.happens(event) == (then is not None)
        now = row if then is None else then
        if row == "spent" and event == "deadline":  # the store's clock says so; the gate's alone does not end what is spent
            now = "spent"
        assert held.state == ("spent" if now == "ran" else now)


def test_one_yes_of_two_is_pending_and_the_second_releases(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("count: 1, not", "count: 2, not"))
    with opened(folder) as gate:
        _, hold = held(gate)
        assert gate.release(hold.id, tenant="acme", by=BOSS).state == "pending"
        assert gate.release(hold.id, tenant="acme", by=ANN).state == "released"


def test_one_person_is_one_of_two_however_often_they_say_yes(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("count: 1, not", "count: 2, not"))
    with opened(folder) as gate:
        _, hold = held(gate)
        for _ in range(3):
            again = gate.release(hold.id, tenant="acme", by=BOSS)
            assert (again.state, [each.id for each in again.approvers]) == ("pending", [BOSS.id])


def test_a_no_before_the_release_is_spent_ends_it(gate: Gate) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=BOSS)
    assert gate.refuse(hold.id, tenant="acme", by=ANN).state == "refused"
    assert not isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_what_an_earlier_version_stored_is_read(gate: Gate) -> None:
    run, hold = held(gate)
    client: Any = gate._store
    key = f"ag:{{acme}}:hold:{hold.id}"
    write = client._client
    write.hset(key, "state", "waiting")
    assert gate.hold(hold.id, tenant="acme").state == "pending"
    gate.release(hold.id, tenant="acme", by=BOSS)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
    write.hset(key, "state", "consumed")
    assert gate.hold(hold.id, tenant="acme").state == "spent"
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)  # the same call, which did not run


# --- one release, one execution ---------------------------------------------------------------------------------------------
def test_sixty_four_racers_on_one_release_are_one_execution(folder: Path) -> None:
    server = Server(valkey_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            run, hold = held(gate)
            gate.release(hold.id, tenant="acme", by=BOSS)
            ran: list[str] = []
            racers = [gate.resume_run("acme", run.id) for _ in range(64)]
            start = threading.Barrier(64, timeout=30)

            def race(mine: Any) -> None:
                start.wait()
                try:
                    for _ in range(5):
                        answer = mine.authorize("payments.refund", BIG, tool_call_id="pay")
                        if isinstance(answer, Allow):
                            with mine.redeem(answer.token, tool="payments.refund", args=BIG):
                                ran.append(answer.token.jti)
                except Exception:  # noqa: BLE001 - refusals of every kind; what counts is what ran
                    return

            with ThreadPoolExecutor(64) as pool:
                list(pool.map(race, racers))
            if not ran:  # on a busy machine all may have been late
                last = gate.resume_run("acme", run.id).authorize("payments.refund", BIG, tool_call_id="pay")
                assert isinstance(last, Allow)
            assert len(ran) <= 1
            assert gate.hold(hold.id, tenant="acme").state == "spent"
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("changed", "call"),
    [({"amount": "150.01"}, "pay"), ({"amount": "150.0"}, "pay"), ({}, "other"), ({"order_id": "ORD-10023345"}, "pay")],
)
def test_what_was_released_is_one_exact_call(gate: Gate, changed: dict[str, str], call: str) -> None:
    run, hold = held(gate)
    gate.release(hold.id, tenant="acme", by=BOSS)
    assert not isinstance(run.authorize("payments.refund", {**BIG, **changed}, tool_call_id=call), Allow)
    other = run_of(gate)
    looked_up(other)
    assert not isinstance(other.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_a_call_without_an_id_finds_its_open_hold_again_in_the_same_turn(gate: Gate) -> None:
    run = run_of(gate)
    looked_up(run)
    first = run.authorize("payments.refund", BIG)
    assert isinstance(first, StepUp)
    again = gate.resume_run("acme", run.id).authorize("payments.refund", dict(reversed(BIG.items())))
    assert isinstance(again, StepUp)
    assert again.hold.id == first.hold.id
    gate.release(first.hold.id, tenant="acme", by=BOSS)
    assert isinstance(run.authorize("payments.refund", BIG), Allow)


def test_a_held_read_without_an_id_finds_its_hold_again_too(folder: Path) -> None:
    look = "\n  - {id: look, for: orders.get, approvers: {group: leads, count: 1}, timeout: 10m}\ntoken:"
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("\ntoken:", look, 1))
    with opened(folder) as gate:
        run = run_of(gate)
        order = {"order_id": "ORD-10023344"}
        first, again = run.authorize("orders.get", order), run.authorize("orders.get", order)
        assert isinstance(first, StepUp)
        assert isinstance(again, StepUp)
        assert first.hold.id == again.hold.id
        gate.release(first.hold.id, tenant="acme", by=BOSS)
        assert isinstance(run.authorize("orders.get", order), Allow)


# --- waiting ----------------------------------------------------------------------------------------------------------------
def test_a_run_waits_for_the_answer(gate: Gate) -> None:
    run, hold = held(gate)
    timer = threading.Timer(0.2, lambda: gate.release(hold.id, tenant="acme", by=BOSS))
    timer.start()
    assert run.wait(hold).state == "released"
    timer.join()
    assert run.wait(hold.id, timeout=0).state == "released"  # an answer that came before is not missed
    assert isinstance(run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_waiting_ends_with_the_timeout_and_with_the_deadline(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("timeout: 10m", "timeout: 1s"))
    with opened(folder) as gate:
        run, hold = held(gate)
        assert run.wait(hold, timeout=0.1).state == "pending"
        assert run.wait(hold).state == "expired"
        assert time.time() >= hold.expires_at


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon", True])
def test_no_such_timeout(gate: Gate, timeout: Any) -> None:
    run, hold = held(gate)
    with pytest.raises(ConfigError):
        run.wait(hold, timeout=timeout)


def test_a_run_waits_for_no_hold_of_another_run(gate: Gate) -> None:
    (run, _), (_, hold) = held(gate), held(gate)
    with pytest.raises(AnswerRefused) as refused:
        run.wait(hold)
    assert refused.value.code == "missing"


@pytest.mark.deadline
def test_waiting_outlives_a_store_that_is_away_for_a_while(folder: Path) -> None:
    server = Server(valkey_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            run, hold = held(gate)
            server.pause()
            with pytest.raises(StoreUnavailable):
                run.wait(hold, timeout=0.1)
            server.resume()

            def away_and_back() -> None:
                server.pause()
                time.sleep(1)
                server.resume()
                gate.refuse(hold.id, tenant="acme", by=BOSS)

            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(away_and_back)
                assert run.wait(hold, timeout=20).state == "refused"
                done.result()
    finally:
        server.stop()


async def test_waiting_awaited(folder: Path) -> None:
    gate = await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY)
    async with gate:
        run: Any = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        look: Any = await run.authorize("orders.get", {"order_id": "ORD-10023344"}, tool_call_id="look")
        async with await run.redeem(look.token, tool="orders.get", args={"order_id": "ORD-10023344"}) as call:
            await call.record_result({"total": "150.00", "currency": "EUR", "customer": "cus_1"})
        answer: Any = await run.authorize("payments.refund", BIG, tool_call_id="pay")
        waiting = asyncio.create_task(run.wait(answer.hold))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert [h.id for h in await gate.holds("acme")] == [answer.hold.id]
        await gate.release(answer.hold.id, tenant="acme", by=BOSS)
        assert (await waiting).state == "released"
        assert (await gate.hold(answer.hold.id, tenant="acme")).state == "released"
        assert isinstance(await run.authorize("payments.refund", BIG, tool_call_id="pay"), Allow)


def test_a_hold_that_cannot_be_read_is_no_answer(gate: Gate) -> None:
    _, hold = held(gate)
    op = ops.read_hold("acme", hold.id)
    record = op.parse(gate._store.call(op, time.monotonic() + 1))
    assert record is not None
    gate._store.call(ops.answer_hold("acme", hold.id, record.revision, b'{"v":9}', "released"), time.monotonic() + 1)
    for ask in (gate.hold, partial(gate.release, by=BOSS)):
        with pytest.raises(StoreUnavailable):
            ask(hold.id, tenant="acme")
