"""Runs as a gate read them last: whichever handle asks, the store sends what changed since, and nothing is decided on what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import Allow, Gate, Reason
from agentgate.gate import runs as kept_runs
from tests.shop import ORDER, looked_up, opened, reasons, run_of


@pytest.fixture
def gate(folder: Path) -> Iterator[Gate]:
    with opened(folder) as gate:
        yield gate


def asked(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The revisions up to which the store is told that runs are known, in the order of the reads."""
    revisions, call = list[str](), gate._store.call

    def noted(op: Any, deadline: float) -> Any:
        if op.script == "read_run":
            revisions.append(op.args[0])
        return call(op, deadline)

    monkeypatch.setattr(gate._store, "call", noted)
    return revisions


def test_another_handle_of_a_run_is_sent_what_changed_since(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(gate)
    revisions = asked(gate, monkeypatch)
    for number in range(3):
        looked_up(run, call=f"look-{number}")
        again = gate.resume_run("acme", run.id)
        assert [call.id for call in again.state.calls] == [f"look-{n}" for n in range(number + 1)]
    assert all(revisions)
    assert revisions == sorted(revisions)
    assert len(set(revisions)) == 3  # each look-up was sent once


def test_what_another_gate_did_meanwhile_counts(folder: Path, gate: Gate) -> None:
    run = run_of(gate)
    handle = gate.resume_run("acme", run.id)
    run.close()
    assert reasons(handle.authorize("orders.get", ORDER, tool_call_id="late")) == {Reason.RUN_CLOSED}
    assert gate.resume_run("acme", run.id).state.closed


def test_the_newest_are_kept_and_none_with_very_many_calls(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_runs, "MAX_RUNS", 3)
    monkeypatch.setattr(kept_runs, "MAX_CALLS", 1)
    runs = [run_of(gate) for _ in range(5)]
    kept = gate._core.states
    assert [kept.find("acme", run.id) is not None for run in runs] == [False, False, True, True, True]
    assert kept.find("other", runs[-1].id) is None
    for number in range(2):
        looked_up(runs[-1], call=f"look-{number}")
        gate.resume_run("acme", runs[-1].id)
    assert kept.find("acme", runs[-1].id) is None
    assert isinstance(runs[-1].authorize("orders.get", ORDER, tool_call_id="third"), Allow)
