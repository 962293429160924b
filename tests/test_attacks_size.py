"""Attacks by size: texts that take longer to read than a call may take, and arguments that are read for a token that is none."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, AsyncGate, Deny, Gate, Reason, TokenRefused, User
from agentgate.audit import read_records
from agentgate.decision.checks import MAX_SEARCHED, MAX_TEXT
from agentgate.errors import CanonicalError, Refusal
from agentgate.values.canonical import MAX_BYTES, canonical
from tests.deadlines import REAL
from tests.shop import LEE, ORDER, PROMPT, WEEKDAY, opened, run_of
from tests.shop import WORKFLOW as SHOP
from tests.workflows import workflow_text

NOTES = workflow_text(
    "notes",
    title="Write a note",
    intents='{write: {asks_for: Write a note., words: [write], examples: ["Write a note"]}}',
    tools="""
  note:
    effect: read
    needs: any
    redeem: wrapper
    args:
      title: {type: text, from: [model], entities: [prompt], text: 80, optional: true}
      body: {text: 20000, from: [model], entities: [prompt], optional: true}
      data: {text: 20000, type: json, from: [model], entities: [prompt], optional: true}
      lines: {text: 20000, from: [model], entities: [prompt], max_items: 1000, optional: true}
      file: {text: 20000, from: [model], optional: true}
      files: {text: 20000, from: [model], max_items: 9, optional: true}
""",
)
SLOW = "1% "  # each is looked at several times, and none is an address
SECONDS = 0.25  # of processor time; without the caps each of these takes from 0.7 to 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "notes.yaml").write_text(NOTES)
    (tmp_path / "w" / "refund.yaml").write_text(SHOP)
    return tmp_path


def noted(gate: Gate, args: dict[str, Any]) -> Any:
    run = gate.open_run(
        "notes", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt="Write a note to a@acme.example"
    )
    return run.authorize("note", args)


def failures(answer: Any) -> list[tuple[Reason, str]]:
    assert isinstance(answer, Deny)
    return [(failure.reason, failure.field) for failure in answer.failures]


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"body": SLOW * 83_000}, "args.body"),
        ({"file": SLOW * 83_000}, "args.file"),
        ({"data": {"a": [SLOW * 20_000, SLOW * 20_000]}}, "args.data"),
        ({"data": {SLOW * 50_000: 1}}, "args.data"),
        ({"lines": [SLOW * 90] * 900}, "args.lines"),
        ({"files": [SLOW * 20_000, SLOW * 20_000]}, "args.files"),
    ],
    ids=["a text", "a text that is not searched", "texts in JSON", "a key in JSON", "many texts", "two texts"],
)
def test_a_text_over_the_cap_is_refused_by_its_name_before_it_is_read(gate: Gate, args: dict[str, Any], field: str) -> None:
    begun = time.process_time()
    assert failures(noted(gate, args)) == [(Reason.ARGUMENT_FORM, field)]
    assert time.process_time() - begun < SECONDS


def test_texts_that_are_searched_have_a_cap_together(gate: Gate) -> None:
    fits = {"body": "note " * 4_000, "data": {"a": "note " * 3_990}}
    answer = noted(gate, {**fits, "lines": ["note " * 10]})
    assert failures(answer) == [(Reason.ENTITY_ORIGIN, "args.lines")]
    assert answer.failures[0].expected.startswith(f"at most {MAX_SEARCHED} characters")


def test_a_text_up_to_the_cap_passes_where_nothing_is_searched_for(gate: Gate) -> None:
    assert isinstance(noted(gate, {"files": ["a" * (MAX_TEXT // 4)] * 4}), Allow)


def test_a_text_that_is_too_long_is_not_searched(gate: Gate) -> None:
    """A searched one would have a second reason. Its length is also not that of the other texts."""
    long = "eve@evil.example " * 1_000
    assert failures(noted(gate, {"title": long})) == [(Reason.ARGUMENT_VALUE, "args.title")]
    assert failures(noted(gate, {"title": long, "body": long})) == [
        (Reason.ARGUMENT_VALUE, "args.title"),
        *[(Reason.ENTITY_ORIGIN, "args.body")] * 1_000,
    ]


def test_an_explanation_says_what_was_not_searched(gate: Gate) -> None:
    run = gate.open_run("notes", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("bot"), prompt="Write a note")
    verdicts = {row.condition.key: row.verdict for row in run.explain("note", {"title": "a" * 81}).rows}
    assert verdicts["args.title text"] == "failed"
    assert verdicts["args.title entities"] == "not reached"
    verdicts = {row.condition.key: row.verdict for row in run.explain("note", {"lines": ["a" * 10_000] * 5}).rows}
    assert verdicts["args.lines entities"] == "failed"


@pytest.mark.parametrize(
    "value",
    [[1] * 5_000_000, [1.0] * 2_500_000, [*[1] * 5_000_000, object()], [*[[]] * 3_000_000, 2**60], "é" * 5_000_000, [1e-6] * 45_000],
    ids=["whole numbers", "floats", "an object at the end", "a large integer at the end", "a text", "numbers longer in canonical form"],
)
def test_arguments_over_the_cap_are_refused_before_they_are_canonicalised(value: Any) -> None:
    begun = time.process_time()
    with pytest.raises(CanonicalError, match=f"at most {MAX_BYTES}"):
        canonical({"args": value})
    assert time.process_time() - begun < SECONDS


def test_a_call_over_the_cap_is_refused_on_record(gate: Gate) -> None:
    assert failures(noted(gate, {"body": [1] * 5_000_000})) == [(Reason.INPUT, "args")]
    assert gate._audit.records[-1]["reasons"][0]["expected"] == f"at most {MAX_BYTES} bytes"  # type: ignore[attr-defined]  # in memory


class SlowClock:
    """A decision clock that takes longer than a call may, from when it is `slow`: as if the decision itself did."""

    slow = False

    def __call__(self) -> datetime:
        if self.slow:
            time.sleep(REAL + 0.02)
        return WEEKDAY


@pytest.mark.deadline
def test_a_refusal_is_on_record_however_late_it_is(folder: Path) -> None:
    clock = SlowClock()
    with opened(folder, audit=str(folder / "audit"), keys=folder / "keys", clock=clock) as gate:
        run = run_of(gate)
        clock.slow = True
        answer = run.authorize("payments.refund", {**ORDER, "amount": "400.00"}, tool_call_id="late")
        assert isinstance(answer, Deny)
        assert Reason.AUDIT not in answer.reasons
    (record,) = [r for r in read_records(folder / "audit") if r.get("tool_call_id") == "late"]
    assert (record["decision"], [each["reason"] for each in record["reasons"]]) == ("deny", [str(r) for r in answer.reasons])


@pytest.mark.deadline
async def test_an_awaited_refusal_is_on_record_however_late_it_is(folder: Path) -> None:
    clock = SlowClock()
    async with await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", audit="memory://", clock=clock) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        clock.slow = True
        answer = await run.authorize("payments.refund", {**ORDER, "amount": "400.00"})
        assert isinstance(answer, Deny)
        assert Reason.AUDIT not in answer.reasons
        assert gate._audit.records[-1]["decision"] == "deny"  # type: ignore[attr-defined]  # in memory


@pytest.mark.parametrize("spoil", ["no token", "another audience", "a tampered token"])
def test_arguments_are_read_for_a_good_token_only(gate: Gate, spoil: str) -> None:
    answer = run_of(gate).authorize("orders.get", ORDER)
    assert isinstance(answer, Allow)
    token = {"no token": "x", "a tampered token": answer.token.reveal()[:-4] + "AAAA"}.get(spoil, answer.token.reveal())
    audience = "https://other.example" if spoil == "another audience" else gate.issuer
    begun = time.process_time()
    with pytest.raises(TokenRefused) as refused:
        gate.verifier(audience, tenants=["acme"]).redeem(token, tool="orders.get", args={"order_id": [{1}] * 1_000_000})
    assert refused.value.code is not Refusal.ARGUMENTS
    assert time.process_time() - begun < SECONDS


def test_arguments_over_the_cap_are_refused_with_a_good_token_too(gate: Gate) -> None:
    answer = run_of(gate).authorize("orders.get", ORDER)
    assert isinstance(answer, Allow)
    verifier = gate.verifier(gate.issuer, tenants=["acme"])
    begun = time.process_time()
    with pytest.raises(TokenRefused) as refused:
        verifier.redeem(answer.token.reveal(), tool="orders.get", args={"order_id": [1.0] * 2_500_000})
    assert refused.value.code is Refusal.ARGUMENTS
    assert time.process_time() - begun < SECONDS
    verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER)  # and nothing is burned
