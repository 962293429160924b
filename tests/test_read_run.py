"""A gate that knows a run is sent what it lacks, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow
from agentgate.stores import open_store, ops
from agentgate.values.request import RunState
from agentgate.values.value_class import names_of
from agentgate_conformance._book import Book
from tests.servers import Server
from tests.shop import ORDER, PROMPT, WORKFLOW, opened, run_of

MORE = "and please look at it soon"


def replied(store: Any, run: Any, revision: str) -> tuple[ops.RunRecord, bytes]:
    """The run as it is read by who knows that revision, and what the store sent."""
    op = ops.read_run(run.tenant, run.id, revision)
    raw = store.call(op, time.monotonic() + 2)
    record = op.parse(raw)
    assert record is not None
    return record, repr(raw).encode()


def test_a_run_with_one_more_call_is_else_the_same() -> None:
    said: list[Any] = [f"its {name}" for name in names_of(RunState) if name != "memo"]
    run = RunState(*said)
    calls: Any = "other calls"
    tried: Any = "other acts"
    assert run.with_calls(calls, tried, "2") == replace(run, calls=calls, tried=tried, revision="2")


def test_of_a_run_whose_turns_are_known_only_the_calls_are_sent(tmp_path: Path, redis_server: Server) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW, encoding="utf-8")
    store = open_store(redis_server.url)
    with opened(tmp_path, store=redis_server.url) as gate:
        run = run_of(gate)
        whole, sent = replied(store, run, "")
        assert whole.turns
        assert PROMPT.encode() in sent
        looked = run.authorize("orders.get", ORDER, tool_call_id="c1")
        assert isinstance(looked, Allow)
        with run.redeem(looked.token, tool="orders.get", args=ORDER) as call:
            call.record_result({"total": "39.99", "currency": "EUR", "customer": "cus_1"})
        later, less = replied(store, run, whole.revision)
        assert len(later.calls) == 1  # what changed
        assert (later.header, later.turns) == (b"", ())
        assert PROMPT.encode() not in less
        everything, more = replied(store, run, "")
        assert (everything.header, everything.turns) == (whole.header, whole.turns)
        assert len(less) < len(more) - len(whole.header) - len(PROMPT)
        run.add_turn(MORE)
        spoken, _ = replied(store, run, later.revision)
        assert (spoken.header, len(spoken.turns)) == (whole.header, 2)
        elsewhere, _ = replied(store, run, spoken.revision.rpartition(".")[0] + "." + "0" * 40)
        assert elsewhere.turns == spoken.turns  # a revision of another lineage says nothing
        other = gate.resume_run(run.tenant, run.id)  # the gate reads it with what it knows
        assert [MORE in str(turn) for turn in other._view.state.stored] == [False, True]
        assert other._view.state.header == run._view.state.header
    store.close()


@pytest.mark.parametrize("called", [False, True])
def test_who_knew_a_run_that_is_lost_knows_nothing_of_one_that_was_opened_anew_under_its_id(redis_server: Server, *, called: bool) -> None:
    store = open_store(redis_server.url)
    book = Book(store)
    if called:
        book.burn(book.minted(1)[1])
        assert book.result(1) == "ok"
    known = book.read()
    for key in redis_server.command("KEYS", f"ag:{{{book.tenant}}}:*").split():
        redis_server.command("DEL", key)
    again = Book(store, book.tenant)
    if called:  # as many changes as before, and one more
        for call in (2, 3):
            again.burn(again.minted(call)[1])
    anew = again.read(known.revision)
    whole = again.read()
    assert (anew.header, anew.turns, anew.since) == (whole.header, whole.turns, False)
    assert {call.digest for call in anew.calls} == {call.digest for call in whole.calls}
    assert again.mint(again.request(4, revision=known.revision)).kind == "stale"
    store.close()
