"""The end of a read to which no other call refers is only sent: the run's next call, its end or the gate's reads the reply."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from agentgate import Agent, AsyncGate, Deny, Gate, Reason, User
from agentgate.audit import read_records
from agentgate.errors import StoreUnavailable
from agentgate.gate.settings import MOST
from agentgate.redemption.outcome import MOST_QUEUED, record_outcome
from agentgate.redemption.verifier import AsyncRedeemedCall, RedeemedCall
from agentgate.shell.step import Receive, Send
from agentgate.stores import ops
from agentgate.stores.redis import RedisStore
from agentgate.values.canonical import parse
from tests.servers import Server, redis_binary

WORKFLOW = """
agentgate: workflow/v1
id: orders.status
version: 1
title: Assistant looks up orders that the customer names
owners: [lee]
risk: low
expires: "2099-12-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents:
  note: {asks_for: "A note on an order", words: [note], unclear: deny, examples: ["Add a note"], counter_examples: ["Cancel it"]}
tools:
  orders.status:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}
    facts: {status: {type: text}}
  orders.get:
    effect: read
    needs: any
    redeem: wrapper
    args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}
    facts: {customer: {type: id}}
  notes.add:
    effect: write
    needs: [note]
    redeem: wrapper
    args: {customer: {type: id, from: [orders.get.customer]}}
"""
ORDER = {"order_id": "ORD-10023344"}
PROMPT = "Please add a note for order ORD-10023344"

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(redis_binary(), tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def settings(tmp_path: Path, server: Server) -> dict[str, Any]:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "status.yaml").write_text(WORKFLOW, encoding="utf-8")
    return {"issuer": "https://gate.example", "store": server.url, "audit": str(tmp_path / "audit"), "keys": tmp_path / "keys"}


@pytest.fixture
def gate(tmp_path: Path, settings: dict[str, Any]) -> Iterator[Gate]:
    with Gate.open_unsafe_unapproved(tmp_path / "w", **settings, **MOST) as gate:
        yield gate


def run_of(gate: Any) -> Any:
    return gate.open_run("orders.status", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt=PROMPT)


def look(run: Any, call: str, tool: str = "orders.status") -> RedeemedCall:
    redeemed = run.perform(tool, ORDER, tool_call_id=call)
    assert isinstance(redeemed, RedeemedCall), redeemed
    with redeemed:
        redeemed.record_result({"status": "delivered", "customer": "cus_1"})
    return redeemed


def waiting(gate: Any) -> int:
    return len(gate._core.queue)


def _soon() -> float:
    return time.monotonic() + 2


def outcomes(gate: Gate, run: Any) -> dict[str, str]:
    """What the store says of the run's calls."""
    read = ops.read_run(run.tenant, run.id)
    record = read.parse(gate._store.call(read, _soon()))
    assert record is not None
    return {parse(call.head)["tool_call_id"]: call.outcome for call in record.calls}


def told(folder: Path) -> list[Any]:
    return [record.get("missing") for record in read_records(folder / "audit") if record["type"] == "outcome"]


def test_the_end_is_sent_and_its_reply_read_by_the_next_call(gate: Gate) -> None:
    run = run_of(gate)
    look(run, "a")
    assert waiting(gate) == 1
    end = time.monotonic() + 5
    while (found := outcomes(gate, run)) != {"a": "done"}:  # nobody read its reply
        assert time.monotonic() < end, found
    look(run, "b")
    assert waiting(gate) == 1
    assert not run._view.behind, "the next call is decided on what this handle knows"
    assert run.facts("a") == ({"status": "delivered"},)


@pytest.mark.parametrize("ends", ["run", "gate"])
def test_the_end_of_the_run_and_of_the_gate_read_it(tmp_path: Path, settings: dict[str, Any], ends: str) -> None:
    with Gate.open_unsafe_unapproved(tmp_path / "w", **settings, **MOST) as gate:
        run, other = run_of(gate), run_of(gate)
        look(run, "a")
        look(other, "b")
        if ends == "run":
            run.close()
            assert list(gate._core.queue) == [other.id]
    assert waiting(gate) == 0
    assert told(tmp_path) == [None, None]


@pytest.mark.parametrize(
    "note",
    [
        "args: {order_id: {type: id, from: [orders.status.order_id, prompt]}}",
        "args: {text: {type: text, from: [prompt], entities: [orders.status.status]}}",
        "args: {count: {type: integer, from: [prompt], at_most: orders.status.count}}",
        "args: {order_id: {type: id, from: [orders.status.order_id], any_call: true}}",
        "args: {order_id: {type: id, from: [prompt]}}\nsequence: [{before: notes.add, require: orders.status}]",
    ],
)
def test_whoever_refers_to_a_read_waits_for_its_end(tmp_path: Path, settings: dict[str, Any], note: str) -> None:
    text = WORKFLOW.replace("args: {customer: {type: id, from: [orders.get.customer]}}", note).replace(
        "{status: {type: text}}", "{status: {type: text}, count: {type: integer}}"
    )
    assert text.count(note) == 1
    (tmp_path / "w" / "status.yaml").write_text(text, encoding="utf-8")
    with Gate.open_unsafe_unapproved(tmp_path / "w", **settings) as gate:
        run = run_of(gate)
        look(run, "a")
        assert waiting(gate) == 0
        look(run, "b", "orders.get")
        assert waiting(gate) == 1


def test_whoever_ends_an_act_or_a_read_that_another_call_refers_to_waits(gate: Gate) -> None:
    run = run_of(gate)
    look(run, "a", "orders.get")
    assert waiting(gate) == 0
    act = run.perform("notes.add", {"customer": "cus_1"}, tool_call_id="b")
    assert isinstance(act, RedeemedCall), act
    with act:
        pass
    assert waiting(gate) == 0
    assert outcomes(gate, run) == {"a": "done", "b": "done"}


def test_what_the_store_has_not_got_is_told(tmp_path: Path, gate: Gate, server: Server) -> None:
    run = run_of(gate)
    look(run, "a")
    redeemed = run.perform("orders.status", ORDER, tool_call_id="b")
    with structlog.testing.capture_logs() as logs:
        with redeemed:
            redeemed.record_result({"status": "delivered"})
            server.pause()
        assert not [line for line in logs if line["event"] == "not_recorded"]
        server.kill()
        answer = run.perform("orders.status", ORDER, tool_call_id="c")
    assert isinstance(answer, Deny)
    assert Reason.STORE in answer.reasons
    assert [(line["what"], line["txn"]) for line in logs if line["event"] == "not_recorded"] == [
        (what, redeemed.claims.txn) for what in ("facts", "outcome")
    ]
    assert told(tmp_path)[:3] == [None, None, ["facts", "outcome"]]


def test_a_store_that_hangs_delays_the_next_call_no_longer_than_any(gate: Gate, server: Server) -> None:
    run = run_of(gate)
    look(run, "a")
    redeemed = run.perform("orders.status", ORDER, tool_call_id="b")
    server.pause()
    began = time.monotonic()
    with redeemed:
        redeemed.record_result({"status": "delivered"})
    assert time.monotonic() - began < 1, "nobody waits for the reply"
    assert isinstance(run.perform("orders.status", ORDER, tool_call_id="c"), Deny)
    server.resume()
    look(run, "d")


def test_at_most_so_many_wait(gate: Gate) -> None:
    runs = [run_of(gate) for _ in range(MOST_QUEUED + 3)]
    for number, run in enumerate(runs):
        look(run, "a")
        assert waiting(gate) == min(number + 1, MOST_QUEUED)
    assert list(gate._core.queue) == [run.id for run in runs[3:]]


def test_a_server_that_lost_its_scripts_gets_the_end_all_the_same(gate: Gate, server: Server) -> None:
    run = run_of(gate)
    look(run, "a")
    redeemed = run.perform("orders.status", ORDER, tool_call_id="b")
    server.command("SCRIPT", "FLUSH")
    with redeemed:
        pass
    look(run, "c")
    assert outcomes(gate, run)["b"] == "done"


def test_a_failed_read_may_run_again_at_once(gate: Gate) -> None:
    run = run_of(gate)
    look(run, "a")
    redeemed = run.perform("orders.status", ORDER, tool_call_id="b")
    with pytest.raises(ValueError, match="away"), redeemed:
        raise ValueError("away")
    look(run, "b")
    run.close()
    assert outcomes(gate, run)["b"] == "done"


def test_an_awaited_gate_waits_for_the_reply(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def calls() -> None:
        async with await AsyncGate.open_unsafe_unapproved(tmp_path / "w", **settings) as gate:
            run = await run_of(gate)
            for call in ("a", "b"):
                redeemed = await run.perform("orders.status", ORDER, tool_call_id=call)
                assert isinstance(redeemed, AsyncRedeemedCall), redeemed
                async with redeemed:
                    await redeemed.record_result({"status": "delivered"})
        assert waiting(gate) == 0

    asyncio.run(calls())
    assert told(tmp_path) == [None, None]


def test_beside_other_calls_an_end_waits_for_its_reply(gate: Gate) -> None:
    run = run_of(gate)
    with gate._bound.place(new=True):
        look(run, "a")
        assert waiting(gate) == 0
    assert outcomes(gate, run) == {"a": "done"}
    assert not run._view.behind
    look(run, "b")
    assert waiting(gate) == 1


def test_two_ends_of_one_run_that_meet_are_both_read(gate: Gate) -> None:
    run, store = run_of(gate), cast("Any", gate._store)
    look(run, "a")
    first, second = (run.perform("orders.status", ORDER, tool_call_id=call) for call in "bc")
    steps = record_outcome(first._done, None)
    sent: Any = next(steps)
    while not isinstance(sent, Send):
        sent = steps.send(store.call(sent.op, _soon()))
    with second:  # of another thread, meanwhile
        pass
    read: Any = steps.send(store.send(sent.op, _soon()))
    assert isinstance(read, Receive), "nobody else would read it"
    read.op.parse(read.read(_soon()))
    assert list(gate._core.queue) == [run.id]


# the store


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    store = RedisStore(server.url)
    store.send(_kept("first"), _soon())  # there is a connection, and the server has the script
    yield store
    store.close()


def _kept(name: str) -> Any:
    return ops.keep("acme", "deferred", name, b"x", ttl_ms=60_000)


def test_a_reply_is_read_on_the_connection_of_its_request(store: RedisStore) -> None:
    first, second = store.send(_kept("a"), _soon()), store.send(_kept("b"), _soon())
    third = store.call(_kept("c"), _soon())
    answers = [_kept(name).parse(raw) for name, raw in (("b", second(_soon())), ("a", first(_soon())), ("c", third))]
    assert answers == ["ok"] * 3


def test_a_reply_that_is_late_is_nobodys(store: RedisStore, server: Server) -> None:
    read = store.send(_kept("a"), _soon())
    late = store.send(_kept("c"), _soon())
    read(_soon())
    for name in "bxyz":
        store.call(_kept(name), _soon())
    server.pause()
    hung = store.send(_kept("d"), _soon())
    late(_soon())  # it was here
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        hung(began + 0.1)
    assert time.monotonic() - began < 1, "not as long as it was sent for"
    server.resume()
    store.call(_kept("e"), _soon())


def test_a_forked_child_does_not_read_its_parents_reply(store: RedisStore) -> None:
    read = store.send(_kept("a"), _soon())
    child = os.fork()
    if not child:
        try:
            read(_soon())
        except StoreUnavailable:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    _kept("a").parse(read(_soon()))


def test_a_request_that_cannot_be_sent_is_told_at_once(store: RedisStore) -> None:
    with pytest.raises(StoreUnavailable, match="not asked"):
        store.send(_kept("a"), time.monotonic() - 1)
    store.call(_kept("b"), _soon())
