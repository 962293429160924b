"""``agentgate calls``: a call of which nobody knows whether it ran is listed, and a person's word on it counts from then on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate import Allow, Reason, StepUp
from agentgate.audit import read_records
from agentgate.cli import store
from agentgate.cli.main import app
from tests.servers import redis_binary, valkey_binary
from tests.shop import BOSS, REFUND
from tests.test_history import BIG, Shop, asked, paid, started


@pytest.fixture(params=[redis_binary, valkey_binary], ids=["redis", "valkey"])
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    made = Shop(tmp_path, request.param(), durable=True)
    yield made
    made.close()


def command(shop: Shop, *words: str) -> tuple[int, str]:
    where = ["--store", shop.server.url, "--tenant", "acme"]
    done = CliRunner().invoke(app, ["calls", *words, *where])
    return done.exit_code, done.output


def settled(shop: Shop, call: str, outcome: str, reason: str = "INC-1: looked") -> tuple[int, str]:
    return command(shop, "settle", call, outcome, "--reason", reason, "--audit", str(shop.folder / "ops"))


def interrupted(run: Any, args: Any = REFUND, call: str = "pay") -> str:
    """A refund whose tool was started, and then nothing more is heard of; its txn."""
    answer = run.authorize("payments.refund", args, tool_call_id=call)
    assert isinstance(answer, Allow), answer
    run.redeem(answer.token, tool="payments.refund", args=args).__enter__()
    assert asked(run, call, args) == {Reason.OUTCOME_UNKNOWN}
    return answer.token.txn


def test_calls_of_unknown_outcome_are_listed_and_no_others(shop: Shop) -> None:
    run = started(shop.gate)
    paid(run, "known")
    assert command(shop, "list", "--unknown") == (0, "0 calls of tenant acme whose outcome nobody knows\n")
    txn = interrupted(run)
    code, text = command(shop, "list", "--unknown", "--json")
    [found] = json.loads(text)
    assert (code, found["call"], found["tool"], found["run"]) == (2, txn, "payments.refund", run.id)
    assert txn in command(shop, "list", "--unknown")[1]
    assert command(shop, "list")[0] == 1


def test_a_call_that_may_still_run_is_not_settled(shop: Shop) -> None:
    run = started(shop.gate)
    txn = interrupted(run)
    code, text = settled(shop, txn, "done")
    assert (code, "its tool may be running" in text) == (1, True)
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}


@pytest.mark.parametrize(("outcome", "then"), [("done", {Reason.ALREADY_REDEEMED}), ("failed", set()), ("not-run", set())])
def test_a_persons_word_answers_the_call_from_then_on(shop: Shop, monkeypatch: pytest.MonkeyPatch, outcome: str, then: set[Reason]) -> None:
    monkeypatch.setattr(store, "MAX_LIFETIME", 0)
    run = started(shop.gate)
    txn = interrupted(run)
    code, text = settled(shop, txn, outcome)
    assert code == 0, text
    assert command(shop, "list", "--unknown")[0] == 0
    if then:
        assert asked(run) == then
    else:
        paid(run)
    (record,) = read_records(shop.folder / "ops")
    told = {name: record[name] for name in ("type", "tenant", "call", "run", "outcome", "reason")}
    assert told == {
        "type": "outcome",
        "tenant": "acme",
        "call": txn,
        "run": run.id,
        "outcome": outcome.replace("-", "_"),
        "reason": "INC-1: looked",
    }
    assert record["by"]
    assert settled(shop, txn, "done")[0] == 1  # it is known


def test_what_did_not_run_gives_no_release_and_no_share_of_a_limit_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_LIFETIME", 0)
    run = started(shop.gate)
    held = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(held, StepUp)
    shop.gate.release(held.hold.id, tenant="acme", by=BOSS)
    txn = interrupted(run, BIG)
    assert settled(shop, txn, "not-run")[0] == 0
    again = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(again, StepUp)  # a person is asked anew
    shop.gate.release(again.hold.id, tenant="acme", by=BOSS)
    paid(run, "pay", BIG)
    paid(run, "second")
    assert asked(run, "third") == {Reason.LIMIT}  # two of a run: the first was counted once


def broken_off(run: Any) -> str:
    """A refund whose tool raised: its process says that the outcome is unknown; its txn."""
    answer = run.authorize("payments.refund", REFUND, tool_call_id="pay")
    with pytest.raises(OSError, match="reset"), run.redeem(answer.token, tool="payments.refund", args=REFUND):
        raise OSError("reset")
    return str(answer.token.txn)


@pytest.mark.parametrize("unknown", [interrupted, broken_off])
def test_a_store_that_lost_the_word_gets_it_back_from_the_log(shop: Shop, monkeypatch: pytest.MonkeyPatch, unknown: Any) -> None:
    monkeypatch.setattr(store, "MAX_LIFETIME", 0)
    run = started(shop.gate)

    def happens() -> None:
        assert settled(shop, unknown(run), "done")[0] == 0

    shop.lost(happens)
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    assert shop.reconcile("gate", "ops")[0] == 0
    assert asked(run) == {Reason.ALREADY_REDEEMED}


@pytest.mark.parametrize(("call", "reason", "says"), [("txn_0", "x", "got 0 calls"), ("", " ", "--reason")])
def test_what_names_no_call_or_no_reason_changes_nothing(shop: Shop, call: str, reason: str, says: str) -> None:
    run = started(shop.gate)
    txn = interrupted(run)
    code, text = settled(shop, call or txn, "done", reason)
    assert (code, says in text) == (1, True), text
    assert not (shop.folder / "ops").exists() or not list(read_records(shop.folder / "ops"))
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
