"""A run stores so many calls and no more; the run that follows has room again, and what must not be forgotten is there still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, Deny, Gate, RedeemedCall, User
from agentgate.decision.answer import StepUp
from agentgate.stores import open_store, ops
from agentgate.values.canonical import parse
from agentgate.values.refusal import Code, Reason, RunRefused
from agentgate.values.request import THREAD
from agentgate_conformance._book import WHO, Book
from tests.servers import Server
from tests.shop import BOSS, ORDER, PROMPT, REFUND, looked_up, opened, run_of

CALLS, ROOM = 500, 50
FOUND = {"total": "150.00", "currency": "EUR", "customer": "cus_1"}
Opened = Callable[..., Gate]


@pytest.fixture(
    params=[pytest.param("memory", marks=pytest.mark.thorough("the same scripts, and five times as long for each call")), "valkey"]
)
def gate(request: pytest.FixtureRequest, folder: Path) -> Iterator[Gate]:
    server: Any = None if request.param == "memory" else request.getfixturevalue("valkey_server")
    if server is not None:
        server.command("FLUSHALL")
    with opened(folder, **({} if server is None else {"store": server.url, "keys": folder / "keys", "shared_runs": True})) as gate:
        yield gate
    if server is not None:
        server.command("FLUSHALL")


def talk(gate: Gate, prompt: str = PROMPT, **more: Any) -> Any:
    return run_of(gate, prompt, **{"conversation": "chat-7", **more})


def performed(run: Any, tool: str, args: dict[str, str], call: str, result: object = None) -> Any:
    for _ in range(5):  # whatever else this machine does
        answer = run.perform(tool, args, tool_call_id=call)
        if not (isinstance(answer, Deny) and answer.code == Code.UNAVAILABLE):
            break
    if isinstance(answer, RedeemedCall):
        with answer:
            answer.record_result(result)
    return answer


def fill(run: Any, count: int, name: str = "read") -> None:
    """So many look-ups."""
    for number in range(count):
        assert isinstance(performed(run, "orders.get", ORDER, f"{name}-{number}", FOUND), RedeemedCall)


def refused_for_room(answer: Any, until: str) -> None:
    assert isinstance(answer, Deny), answer
    (failure,) = answer.failures
    assert (failure.reason, failure.field, answer.code, answer.until) == (Reason.LIMIT, "run", Code.LIMIT_REACHED, until)
    assert str(CALLS) in failure.expected


def test_a_call_over_the_cap_is_refused_by_name_and_nothing_is_lost(gate: Gate) -> None:
    run = run_of(gate)
    for _ in range(2):  # it is stored once
        fill(run, 1)
    fill(run, CALLS)
    for number in range(25):  # more often than the run may be denied: it says nothing of the rules
        refused_for_room(run.authorize("orders.get", ORDER, tool_call_id=f"more-{number}"), "end_of_run")
    refused_for_room(run.perform("orders.get", ORDER, tool_call_id="more"), "end_of_run")
    assert gate.resume_run("acme", run.id).is_over
    run.authorize("orders.get", ORDER, tool_call_id="why")
    assert f"at most {CALLS} stored calls" in str(run.explain(tool_call_id="why"))
    # what is stored answers, and runs again where it may
    assert isinstance(performed(run, "orders.get", ORDER, "read-7"), RedeemedCall)
    assert run.facts("read-8") == (FOUND,)
    refused_for_room(run.authorize("payments.refund", REFUND, tool_call_id="pay"), "end_of_run")
    assert not gate.resume_run("acme", run.id).state.closed


def test_the_next_words_begin_a_run_with_room_before_the_last_call_is_stored(gate: Gate) -> None:
    run = talk(gate)
    assert isinstance(performed(run, "orders.get", ORDER, "look", FOUND), RedeemedCall)
    assert isinstance(performed(run, "payments.refund", REFUND, "pay"), RedeemedCall)
    fill(run, CALLS - ROOM - 2)
    assert talk(gate, "And where is it?").header.succession == 0
    fill(run, 1, "one")
    assert talk(gate, "").header.succession == 0  # nobody spoke
    fill(talk(gate, ""), ROOM - 1, "rest")
    refused_for_room(talk(gate, "").authorize("orders.get", ORDER, tool_call_id="over"), "next_turn")
    after = talk(gate, "Please refund ORD-10023345, too")
    assert (after.header.succession, after.is_over) == (1, False)
    fill(after, 20, "anew")  # there is room
    # the act stands, whatever was forgotten
    assert performed(after, "payments.refund", REFUND, "again").reasons == (Reason.ALREADY_REDEEMED,)
    assert performed(after, "payments.refund", REFUND, "pay").reasons == (Reason.ALREADY_REDEEMED,)


ACTS = """\
agentgate: workflow/v1
id: shop.refund
version: 1
title: Notes
owners: [lee]
risk: low
expires: "2031-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents: {write: {asks_for: "Write notes.", words: [write], examples: [Please write the notes]}}
tools:
  notes.write: {effect: write, needs: [write], redeem: wrapper, args: {text: {text: 100, from: [model]}}}
  notes.read: {effect: read, needs: any, redeem: wrapper, args: {}}
"""


@pytest.fixture
def acts(folder: Path) -> None:
    """The folder has the notes instead, before a gate opens it."""
    (folder / "w" / "refund.yaml").write_text(ACTS)


def test_of_a_conversation_that_is_full_of_acts_the_refusal_says_that_it_ends(acts: None, gate: Gate) -> None:
    def write(run: Any, number: int) -> Any:
        return performed(run, "notes.write", {"text": str(number)}, f"write-{number}")

    run = talk(gate, "Please write the notes")
    assert isinstance(performed(run, "notes.read", {}, "read"), RedeemedCall)
    for number in range(CALLS - 1):
        assert isinstance(write(run, number), RedeemedCall), number
    refused_for_room(write(run, CALLS), "next_turn")  # which drops the read
    run = talk(gate, "Please write the notes")
    assert isinstance(write(run, CALLS), RedeemedCall)
    for _ in range(2):
        refused_for_room(write(run, CALLS + 1), "end_of_conversation")
        run = talk(gate, "Please write the notes")


def test_a_token_that_may_still_come_and_what_has_no_outcome_are_there_in_the_run_that_follows(gate: Gate) -> None:
    run = talk(gate)
    minted = run.authorize("orders.get", ORDER, tool_call_id="late")
    assert isinstance(minted, Allow)
    running = run.perform("orders.get", ORDER, tool_call_id="running")
    assert isinstance(running, RedeemedCall)
    fill(run, CALLS - ROOM)
    assert talk(gate, "Where is ORD-10023344 now?").header.succession == 1
    with run.redeem(minted.token, tool="orders.get", args=ORDER) as late:
        late.record_result(FOUND)
    with running:
        running.record_result(FOUND)
    op = ops.read_run("acme", run.id)
    record = op.parse(gate._store.call(op, time.monotonic() + 5))
    assert record is not None
    assert {(parse(call.head)["tool_call_id"], call.outcome) for call in record.calls} == {("late", "done"), ("running", "done")}


@pytest.mark.parametrize("answered", ["pending", "released"])
def test_what_a_call_that_waits_rests_on_is_there_until_it_was_decided(gate: Gate, answered: str) -> None:
    run = talk(gate, "Please refund 120.00 EUR for order ORD-10023344", ttl=3600)
    looked_up(run)
    held = run.authorize("payments.refund", REFUND | {"amount": "120.00"}, tool_call_id="pay")
    assert isinstance(held, StepUp)
    if answered == "released":
        gate.release(held.hold.id, tenant="acme", by=BOSS)
    fill(run, CALLS - ROOM)
    after = talk(gate, "And where is ORD-10023345?")
    assert after.header.succession == 1
    if answered == "pending":
        gate.release(held.hold.id, tenant="acme", by=BOSS)
    assert isinstance(after.authorize("payments.refund", REFUND | {"amount": "120.00"}, tool_call_id="pay"), Allow)
    assert talk(gate, "And the weather?").header.succession == 2  # it was full of what had to be kept
    fill(talk(gate, ""), 20, "anew")


def test_a_call_that_a_person_released_is_minted_in_a_run_that_was_filled_behind_it(gate: Gate) -> None:
    run = talk(gate, "Please refund 120.00 EUR for order ORD-10023344", ttl=3600)
    looked_up(run)
    dear = REFUND | {"amount": "120.00"}
    held = run.authorize("payments.refund", dear, tool_call_id="pay")
    assert isinstance(held, StepUp)
    fill(run, CALLS - 1)
    gate.release(held.hold.id, tenant="acme", by=BOSS)
    refused_for_room(run.authorize("orders.get", ORDER, tool_call_id="over"), "next_turn")
    after = talk(gate, "And where is ORD-10023345?")  # what the call rests on is kept, so there is no more room than before
    assert after.header.succession == 1
    assert isinstance(performed(after, "payments.refund", dear, "pay"), RedeemedCall)
    assert isinstance(performed(after, "payments.refund", dear, "pay"), Deny)
    refused_for_room(after.authorize("orders.get", ORDER, tool_call_id="over"), "next_turn")
    assert talk(gate, "And the weather?").header.succession == 2
    fill(talk(gate, ""), 1, "anew")


def test_a_threads_run_is_kept_for_as_long_as_it_lived_and_a_hosts_for_a_month(valkey_server: Server, folder: Path) -> None:
    valkey_server.command("FLUSHALL")  # a conversation of this name may be there, of another test's workflow
    with opened(folder, store=valkey_server.url, keys=folder / "keys") as gate:
        for name, kept in ((f"{THREAD}7", 100), ("chat-7", 30 * 24 * 3600)):
            run = talk(gate, conversation=name, ttl=100)
            for key, most in (("run", 100 + kept), ("conversation", 12.2 * kept)):
                left = int(valkey_server.command("PTTL", f"ag:{{acme}}:{key}:{run.id}").strip().lstrip(":")) / 1000
                assert most - 60 < left <= most
    valkey_server.command("FLUSHALL")


def test_what_is_known_of_the_calls_lives_as_long_as_the_run_that_follows(valkey_server: Server) -> None:
    store = open_store(valkey_server.url)
    book = Book(store)  # a run of ten minutes
    book.burn(book.minted(1)[1])
    more: Any = {"revision": book.read().revision, "life_ms": 7_200_000, "takes_back": False, "who": WHO}
    assert book.ask(ops.succeed_run(book.tenant, book.run, b"{}", ("x",), **more)) == "ok"
    left = {
        key.split(":")[2]: int(valkey_server.command("PTTL", key).strip().lstrip(":"))
        for key in valkey_server.command("KEYS", f"ag:{{{book.tenant}}}:*").split()
        if book.run in key
    }
    assert {"run", "clock", "mints", "burns"} <= left.keys()
    assert min(left.values()) > 7_000_000
    store.close()


def test_the_count_is_the_conversations_own(gate: Gate) -> None:
    run = talk(gate)
    fill(run, CALLS - ROOM + 1)
    assert talk(gate, "").is_over
    for other in ({"conversation": "chat-8"}, {"user": User("kim", tenant="acme", groups=["support"])}):
        assert not talk(gate, **other).is_over
    gate.revoke(f"run:{run.id}", tenants=["acme"], by="ops", reason="test")
    with pytest.raises(RunRefused, match="revoked"):
        talk(gate, "Where is it?")
