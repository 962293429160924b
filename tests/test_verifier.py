"""The verifier's shell: what it needs to open, and what a refusal carries."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import agentgate
from agentgate import Agent, Allow, AsyncGate, Gate, TokenRefused, Verifier
from agentgate.errors import ConfigError, Refusal, StoreUnavailable
from agentgate.redemption.outcome import record_result, recorded
from agentgate.redemption.steps import KEY_SECONDS, TrustedKeys
from agentgate.shell.drive import adrive, drive
from agentgate.token.signing import KeyRing
from tests.deadlines import REAL
from tests.servers import Server, as_tool_server, redis_binary
from tests.shop import LEE, ORDER, PROMPT, WEEKDAY, opened, run_of
from tests.upstream import Bank

GOOD: dict[str, Any] = {"issuer": "https://gate.example", "tenants": ["acme"], "audience": "https://orders.example"}


def shown(error: BaseException) -> str:
    """The error and the locals of every frame of the package, as an error reporter sends them."""
    own = str(Path(agentgate.__file__).parent)
    frames = [f for f, _ in traceback.walk_tb(error.__traceback__) if f.f_code.co_filename.startswith(own)]
    assert frames
    return repr(error) + "".join(repr(dict(frame.f_locals)) for frame in frames)


def test_a_refusals_traceback_with_locals_holds_no_token(folder: Path) -> None:
    with opened(folder) as gate:
        answer = run_of(gate).authorize("orders.get", ORDER)
        assert isinstance(answer, Allow)
        verifier = gate.verifier(gate.issuer, tenants=["acme"])
        for args in ({"order_id": "ORD-99999999"}, {"order_id": {1}}):
            with pytest.raises(TokenRefused) as refused:
                verifier.redeem(answer.token.reveal(), tool="orders.get", args=args)
            assert answer.token.reveal()[-40:] not in shown(refused.value)


def test_what_is_no_proof_is_refused_as_one(gate: Gate) -> None:
    answer = run_of(gate).authorize("orders.get", ORDER)
    assert isinstance(answer, Allow)
    verifier: Any = gate.verifier(gate.issuer, tenants=["acme"])
    with pytest.raises(TokenRefused) as refused:
        verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER, proof="a.b.c")
    assert (refused.value.code, refused.value.got) == (Refusal.PROOF, "str")


async def test_an_awaited_refusals_traceback_holds_no_token(folder: Path) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        answer = await run.authorize("orders.get", ORDER)
        assert isinstance(answer, Allow)
        with pytest.raises(TokenRefused) as refused:
            await gate.verifier("https://other.example", tenants=["acme"]).redeem(answer.token.reveal(), tool="orders.get", args=ORDER)
        assert refused.value.code is Refusal.AUDIENCE
        assert answer.token.reveal()[-40:] not in shown(refused.value)


@pytest.mark.deadline
def test_facts_are_read_before_the_deadline_of_their_record_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(declared: Any, result: Any) -> bytes:
        time.sleep(2 * REAL)  # as long as a long text takes
        return recorded(declared, result)

    monkeypatch.setattr("agentgate.shell.drive.SHORT", -1)
    monkeypatch.setattr("agentgate.redemption.outcome.recorded", slowly)
    with opened(folder) as gate:
        run = run_of(gate)
        answer = run.authorize("orders.get", ORDER)
        assert isinstance(answer, Allow)
        result = {"total": "39.99", "currency": "EUR", "customer": "cus_1"}
        drive(record_result(run.redeem(answer.token, tool="orders.get", args=ORDER)._done, result), gate._store, gate._audit)
        assert gate.resume_run("acme", run.id)._view.state.calls[0].rows == (result,)


async def test_a_key_function_that_waits_stops_no_event_loop_and_is_asked_once_for_all() -> None:
    told, ring, asked = threading.Event(), KeyRing.ephemeral(), list[float]()

    def jwks() -> Mapping[str, Any]:
        asked.append(time.monotonic())
        told.wait(KEY_SECONDS / 2)
        return ring.jwks(time.time())

    keys = TrustedKeys(jwks, fetched=True)
    waiting = [asyncio.create_task(adrive(keys.newest(), None, None)) for _ in range(20)]  # type: ignore[arg-type]  # it asks neither
    await asyncio.sleep(0.05)
    assert not told.is_set()
    assert not any(each.done() for each in waiting)  # and this line runs: the loop goes on
    told.set()
    assert len({id(parsed) for parsed in await asyncio.gather(*waiting)}) == len(asked) == 1


async def test_a_key_function_that_hangs_is_a_refusal_and_is_not_asked_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.redemption.steps.KEY_SECONDS", 0.1)
    told, asked = threading.Event(), list[int]()

    def jwks() -> Mapping[str, Any]:
        asked.append(1)
        told.wait(10)
        return {"keys": []}

    keys = TrustedKeys(jwks, fetched=True)
    waiting = (adrive(keys.newest(), None, None) for _ in range(20))  # type: ignore[arg-type]  # as above
    refused = await asyncio.gather(*waiting, return_exceptions=True)
    told.set()
    assert {(type(each), getattr(each, "code", None)) for each in refused} == {(TokenRefused, Refusal.NO_KEYS)}
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": 7}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"tenants": []}, "tenants"),
        ({"tenants": "acme"}, "tenants"),
        ({"tenants": [""]}, "tenants"),
        ({"store": "memory://"}, "store"),
        ({"store": 7}, "store"),
        ({"brokers": {"bank": object()}}, "brokers"),
        ({"brokers": [Bank()]}, "brokers"),
        ({"audit": "memory://"}, "audit"),
    ],
)
def test_nothing_has_a_default_and_the_setting_is_named(folder: Path, change: dict[str, Any], setting: str) -> None:
    with opened(folder) as gate:
        settings = {**GOOD, "store": "redis://127.0.0.1:1", "audit": str(folder / "audit"), **change}
        with pytest.raises(ConfigError) as refused:
            Verifier.open(gate.jwks(), **settings)
    assert refused.value.setting == setting


def test_a_store_that_is_down_opens_no_verifier(folder: Path) -> None:
    with opened(folder) as gate, pytest.raises(StoreUnavailable):
        Verifier.open(gate.jwks(), **GOOD, store="redis://127.0.0.1:1", audit=str(folder / "audit"))


def test_a_tool_server_of_its_own_redeems_once(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            verifier = Verifier.open(
                gate.jwks(), **{**GOOD, "audience": gate.issuer}, store=as_tool_server(server.url, gate.issuer), audit=str(folder / "audit")
            )
            answer = run_of(gate).authorize("orders.get", ORDER)
            assert isinstance(answer, Allow)
            with verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER) as call:
                assert call.args == ORDER
            with pytest.raises(TokenRefused) as refused:
                verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER)
            assert refused.value.code is Refusal.USED
            verifier.close()
    finally:
        server.stop()
