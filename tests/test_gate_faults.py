"""A store that is down, hung or read-only, and a run past its life: a refusal with its reason, in time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, AsyncGate, Gate, Reason, RunRefused, StepUp, TokenRefused, Verifier
from agentgate.errors import Refusal, StoreUnavailable
from agentgate.stores import Op
from agentgate.token.dpop import DPoP
from tests.servers import Server, redis_binary, valkey_binary
from tests.shop import BOSS, LEE, ORDER, PROMPT, REFUND, WEEKDAY, looked_up, opened, reasons, run_of

LIMIT = 0.3  # seconds, promise 4


def timed(work: Any) -> tuple[Any, float]:
    start = time.monotonic()
    try:
        return work(), time.monotonic() - start
    except (RunRefused, StoreUnavailable, TokenRefused) as error:
        return error, time.monotonic() - start


def refused_everywhere(gate: Gate, run: Any, token: Any) -> None:
    """Mint, redeem and opening a run are refused, each within the promise."""
    answer, took = timed(lambda: run.authorize("payments.refund", REFUND))
    assert Reason.STORE in reasons(answer)
    assert took < LIMIT
    answer, took = timed(lambda: run.redeem(token, tool="orders.get", args=ORDER))
    assert isinstance(answer, TokenRefused)
    assert answer.code is Refusal.STORE
    assert answer.code.http_status == 503
    assert took < LIMIT
    answer, took = timed(lambda: run_of(gate))
    assert isinstance(answer, StoreUnavailable)
    assert took < LIMIT


@pytest.mark.parametrize("binary", [redis_binary, valkey_binary])
@pytest.mark.parametrize("fault", ["down", "hung", "read-only"])
@pytest.mark.deadline
def test_a_broken_store_refuses_in_time(folder: Path, binary: Any, fault: str) -> None:
    server = Server(binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            run = run_of(gate)
            looked_up(run)
            token = run.authorize("orders.get", ORDER, tool_call_id="again").token
            if fault == "down":
                server.kill()
            elif fault == "hung":
                server.pause()
            else:
                server.command("CONFIG", "SET", "min-replicas-to-write", "1")
            refused_everywhere(gate, run, token)
            if fault == "hung":
                server.resume()
                assert isinstance(run.authorize("orders.get", ORDER, tool_call_id="after"), Allow)
    finally:
        server.stop()


@pytest.mark.parametrize("binary", [redis_binary, valkey_binary])
def test_the_whole_cycle_on_a_real_server(folder: Path, binary: Any) -> None:
    server = Server(binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            run = run_of(gate)
            looked_up(run)
            big = {**REFUND, "amount": "150.00"}
            held = run.authorize("payments.refund", big, tool_call_id="pay")
            assert isinstance(held, StepUp)
            gate.release(held.hold.id, tenant="acme", by=BOSS)
            answer = run.authorize("payments.refund", big, tool_call_id="pay")
            assert isinstance(answer, Allow)
            with run.redeem(answer.token, tool="payments.refund", args=big):
                pass
            assert reasons(run.authorize("payments.refund", big, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}
    finally:
        server.stop()


class Losing:
    """A store that answers no burn: it may have carried it out, or not."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def call(self, op: Op[Any], deadline: float) -> Any:
        if op.script == "burn":
            raise StoreUnavailable("no reply")
        return self.store.call(op, deadline)


class Late:
    """A store that answers after the deadline, whatever it was told."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def call(self, op: Op[Any], deadline: float) -> Any:
        answer = self.store.call(op, deadline)
        time.sleep(LIMIT)
        return answer


@pytest.mark.deadline
def test_an_answer_after_the_deadline_is_none(gate: Gate) -> None:
    run = run_of(gate)
    token = run.authorize("orders.get", ORDER, tool_call_id="look").token
    late: Any = Late(gate._store)
    verifier = Verifier(gate.verifier(gate.issuer, tenants=["acme"])._who, late, gate._audit)
    refused, _ = timed(lambda: verifier.redeem(token.reveal(), tool="orders.get", args=ORDER))
    assert isinstance(refused, TokenRefused)
    assert refused.code is Refusal.STORE


def test_a_redemption_that_lost_its_answer_does_not_say_that_another_ones_tool_did_not_run(folder: Path) -> None:
    """A token is sent twice. One runs the tool; of the other the answer is lost. Else the call would be minted again, and paid twice."""
    with opened(folder) as gate:
        run = run_of(gate)
        looked_up(run)
        answer = run.authorize("payments.refund", REFUND, tool_call_id="pay")
        assert isinstance(answer, Allow)
        verifier = gate.verifier(gate.issuer, tenants=["acme"])
        other = Verifier(verifier._who, Losing(gate._store), gate._audit)  # type: ignore[arg-type]  # it is only called
        text = answer.token.reveal()
        proof = answer.token.headers("POST", gate.issuer)
        shown = DPoP(proof["DPoP"], method="POST", url=gate.issuer) if "DPoP" in proof else None
        with verifier.redeem(text, tool="payments.refund", args=REFUND, proof=shown):
            refused, _ = timed(lambda: other.redeem(text, tool="payments.refund", args=REFUND, proof=shown))
            assert isinstance(refused, TokenRefused)
            assert refused.code is Refusal.STORE
            assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="pay")) == {Reason.OUTCOME_UNKNOWN}
        assert reasons(run.authorize("payments.refund", REFUND, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}


def test_a_run_past_its_life_mints_nothing(folder: Path) -> None:
    with opened(folder) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT, ttl=1)
        time.sleep(1.05)
        assert reasons(run.authorize("orders.get", ORDER)) <= {Reason.RUN_EXPIRED, Reason.RUN_MISSING}


def test_a_store_that_may_evict_opens_no_gate(folder: Path) -> None:
    """An evicted single-use key would be refused, an evicted revocation or limit would not."""
    server = Server(redis_binary(), folder / "server", settings=("--maxmemory-policy", "allkeys-lru"))
    try:
        with pytest.raises(StoreUnavailable, match="noeviction"):
            opened(folder, store=server.url)
    finally:
        server.stop()


async def test_a_store_that_may_evict_opens_no_async_gate(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server", settings=("--maxmemory-policy", "allkeys-lru"))
    try:
        with pytest.raises(StoreUnavailable, match="noeviction"):
            await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://", store=server.url)
    finally:
        server.stop()


@pytest.mark.deadline
async def test_an_awaited_redemption_that_is_cancelled_is_on_record(folder: Path) -> None:
    server = Server(redis_binary(), folder / "redis", durable=True)
    try:
        gate = await AsyncGate.open_unsafe_unapproved(
            folder / "w", issuer="https://gate.example", audit="memory://", store=server.url, clock=lambda: WEEKDAY
        )
        async with gate:
            run: Any = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
            token = (await run.authorize("orders.get", ORDER, tool_call_id="look")).token
            server.pause()
            task = asyncio.create_task(run.redeem(token, tool="orders.get", args=ORDER))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])
            server.resume()
            await asyncio.sleep(0.3)
            records: Any = gate._audit.records  # type: ignore[attr-defined]  # in memory
            assert [each.get("outcome", each["type"]) for each in records[-2:]] == ["redemption", "failed"]
    finally:
        server.stop()
