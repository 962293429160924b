"""What nobody proved is counted: no record each, and an end to what is kept and told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agentgate.shell.bound import FIRST, ROWS, UNPROVEN_SECONDS, Bound, Refusals
from agentgate.shell.drive import drive
from agentgate.shell.step import Flow


def test_a_summary_has_an_end_whatever_callers_send() -> None:
    counts = Refusals()
    for number in range(5000):
        counts.count("run_refused", "\u202e" * 1000, f"client {number}", f"2001:db8:{number:x}::/64", refusal={"number": number})
    told: Any = counts.summary(last=True)
    assert (told["refused"], len(told["counts"]), told["counts"][-1]) == (5000, ROWS + 1, ["others", 5000 - ROWS])
    assert [each["number"] for each in told["first"]] == list(range(FIRST))
    assert len(json.dumps(told)) < 6_000
    assert counts.summary(last=True) is None


def test_a_summary_comes_no_earlier_than_minutes_after_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counts = Refusals()
    counts.count("run_refused", refusal={})
    now[0] += UNPROVEN_SECONDS - 1
    assert counts.summary() is None
    now[0] += 1
    assert counts.summary() is not None
    counts.count("run_refused", refusal={})
    assert counts.summary() is None


class Log:
    """Records, in memory."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def append(self, record: Any, deadline: float, *, promised: bool = False) -> None:  # noqa: ARG002 - as an AuditLog's
        self.records.append(record)


def flow() -> Flow:
    yield from ()
    return 7


def test_the_next_flow_and_the_end_put_a_summary_on_record() -> None:
    counts, log, nothing = Refusals(), Log(), None
    bound = Bound(unproven=counts)
    counts.count("run_refused", "agent.oidc.signature", "job", "192.0.2.1", refusal={"type": "run_refused"})
    for minutes_ago, told in ((0, 0), (UNPROVEN_SECONDS, 1)):
        counts._began -= minutes_ago
        drive(bound.telling(flow()), nothing, log)  # type: ignore[arg-type]  # which asks no store
        assert len(log.records) == told
    (record,) = log.records
    assert (record["type"], record["counts"]) == ("unproven", [["run_refused", "agent.oidc.signature", "job", "192.0.2.1", 1]])
    counts.count("run_refused", refusal={})
    bound.tell_rest(log)  # type: ignore[arg-type]  # as above
    assert len(log.records) == 2
