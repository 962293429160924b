"""How many files of the package a reader opens to follow one call: those whose code runs, of all that the call does in its thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agentgate
from agentgate import Allow, Gate, StepUp
from tests.shop import BOSS, ORDER, PROMPT, REFUND, looked_up, opened, run_of

ROOT = f"{Path(agentgate.__file__).parent}/"
# The simplest read: authorised again in a run, and for the first time in one; a refund from the call that is held to its outcome.
READ, FIRST_READ, HELD = 30, 30, 55
BIG = {**REFUND, "amount": "150.00"}


def files_entered(work: Callable[[], Any]) -> set[str]:
    """The files of the package in which a function is called meanwhile, in this thread."""
    found: set[str] = set()

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            found.add(frame.f_code.co_filename.removeprefix(ROOT))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


def shop(folder: Path) -> Gate:
    from tests.shop import WORKFLOW

    (folder / "w").mkdir()
    (folder / "w" / "refund.yaml").write_text(WORKFLOW)
    return opened(folder)


def few(found: set[str], most: int) -> None:
    assert len(found) <= most, "\n".join(sorted(found))


def test_the_simplest_read_is_read_in_few_files(tmp_path: Path) -> None:
    with shop(tmp_path) as gate:
        assert isinstance(run_of(gate).authorize("orders.get", ORDER, tool_call_id="warm"), Allow)
        run = run_of(gate)
        few(files_entered(lambda: run.authorize("orders.get", ORDER, tool_call_id="look")), FIRST_READ)
        few(files_entered(lambda: run.authorize("orders.get", ORDER, tool_call_id="again")), READ)


def test_a_held_refund_is_read_in_few_files(tmp_path: Path) -> None:
    def refund(run: Any) -> None:
        held = run.authorize("payments.refund", BIG, tool_call_id="pay")
        assert isinstance(held, StepUp)
        assert gate.hold(held.hold.id, tenant="acme").state == "pending"
        gate.release(held.hold.id, tenant="acme", by=BOSS)
        answer = run.authorize("payments.refund", BIG, tool_call_id="pay")
        assert isinstance(answer, Allow)
        with run.redeem(answer.token, tool="payments.refund", args=BIG) as redeemed:
            redeemed.record_result({})

    with shop(tmp_path) as gate:
        for _ in range(2):  # what the first call of a process reads and compiles is its own
            run = run_of(gate, prompt=PROMPT.replace("39.99", "150.00"))
            looked_up(run)
            found = files_entered(lambda: refund(run))  # noqa: B023 - called at once
        few(found, HELD)


def test_what_is_entered_is_seen() -> None:
    assert files_entered(lambda: None) == set()
    assert files_entered(lambda: agentgate.values.canonical.canonical({})) == {"values/canonical.py"}
