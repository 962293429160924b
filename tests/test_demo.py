"""`agentgate demo`: every row is what it must be, at any time and in any form; a wrong row fails the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types
import pytest
import time_machine
from typer.main import get_command
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.errors import StoreUnavailable
from agentgate_demo import show as command
from agentgate_demo.case import FIRST, load_case
from agentgate_demo.row import Played, find_example
from tests import preloaded
from tests.deadlines import python_path

pytestmark = pytest.mark.server  # of what it shows

ROOT = Path(__file__).parent.parent
WANTED = [  # outcome, closed code, who gets it, reason, field
    ("allowed", "ok", "model", "", ""),
    ("denied", "not_permitted", "host", "tenant", "tenant"),
    ("denied", "not_permitted", "model", "argument_origin", "args.payee"),
    ("held", "needs_approval", "host", "step_up", "args.amount"),
    ("denied", "not_released", "approver", "step_up", "step_up.big-refund.approvers"),
    ("allowed", "ok", "model", "", ""),
    ("denied", "401 invalid_token", "client", "used", "jti"),
    ("denied", "401", "client", "no_credential", "Authorization"),
]


def test_who_ends_it_ends_its_servers() -> None:
    env = {**os.environ, "PYTHONPATH": python_path(str(ROOT))}
    command = [sys.executable, "-m", "agentgate", "demo", "payments"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as demo:
        deadline, started = time.monotonic() + 30, list[psutil.Process]()
        while not any("valkey" in each.name() for each in started):
            assert demo.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            started = psutil.Process(demo.pid).children(recursive=True)
        demo.terminate()
        assert demo.wait(30) == 128 + signal.SIGTERM
        assert psutil.wait_procs(started, 5)[1] == []


def first_look() -> Any:
    return load_case(FIRST)


@pytest.fixture(scope="module")
def played() -> Played:
    shown: Played = first_look().play()
    return shown


def test_json_says_what_happened_and_the_exit_code_is_0() -> None:
    done = CliRunner().invoke(app, ["demo", "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert [(r["outcome"], r["code"], r["seen_by"], r["reason"], r["field"]) for r in said["rows"]] == WANTED
    assert said["ok"]
    assert [(p["amount"], p["currency"]) for p in said["paid"]] == [("49.90", "EUR"), ("180.00", "EUR")]
    assert said["seconds"] < 15


def test_in_a_pipe_it_is_plain_text_that_says_whose_keys_approved_the_workflow_and_nothing_beside_it() -> None:
    done = preloaded.run("demo", env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.partition("What to do next")[0].splitlines())) <= 100
    assert "demo keys that anybody can make" in " ".join(done.stdout.split())
    assert not done.stderr
    for wanted in ("1. ALLOWED", "4. HELD", "8. DENIED", "argument_origin: args.payee", "Money that moved: 2 refunds, 229.90 EUR"):
        assert wanted in done.stdout


def test_every_refusal_of_the_gate_names_the_line_of_its_rule(played: Played) -> None:
    lines = (find_example("payment-agent") / "workflows" / "customer-refund.yaml").read_text("utf-8").splitlines()
    rules = {}
    for number, row in enumerate(played.rows, 1):
        if row.rule:
            file, _, line = row.rule.rpartition(":")
            assert file == "workflows/customer-refund.yaml"
            rules[number] = lines[int(line) - 1].split(":")[0].strip()
    assert rules == {1: "payments.refund", 2: "tenants", 3: "payee", 4: "when", 5: "- id", 6: "payments.refund"}


def test_the_model_learns_no_more_than_the_closed_code(played: Played) -> None:
    injected = played.rows[2]
    assert injected.seen == "agentgate: not_permitted"
    assert "cus_" not in injected.detail


@pytest.mark.parametrize(
    "moment",
    [datetime(2040, 2, 29, 12, 0, tzinfo=UTC), datetime(2026, 12, 27, 2, 0, tzinfo=UTC), datetime(2026, 7, 1, 1, 0, tzinfo=UTC)],
    ids=["in 2040, after the workflow expired", "on a Sunday at 3 in the morning", "at 3 in the morning in summer"],
)
def test_it_works_on_any_day_at_any_hour(moment: datetime) -> None:
    with time_machine.travel(moment, tick=True):
        assert first_look().play().ok


LATER = pytest.mark.thorough("another moment of the same play")


@pytest.mark.parametrize("slow", [1, pytest.param(3, marks=LATER), 4, pytest.param(7, marks=LATER)])
@pytest.mark.deadline
def test_a_machine_that_is_busy_for_a_moment_does_not_change_what_is_shown(played: Played, slow: int) -> None:
    calls = iter(range(1, 10_000))

    def clock() -> datetime:
        if next(calls) == slow:
            time.sleep(0.4)  # longer than a gate waits for anything
        return datetime.fromisoformat(played.facts["decision_clock"])

    assert first_look().play(clock).ok


@pytest.mark.deadline
def test_a_machine_that_stays_busy_is_said_to_be() -> None:
    def clock() -> datetime:
        time.sleep(0.4)
        return datetime(2026, 6, 2, 9, 30, tzinfo=UTC)

    with pytest.raises(StoreUnavailable, match="too busy"):
        first_look().play(clock)


@pytest.mark.parametrize(
    "changed",
    [{"outcome": "allowed"}, {"code": "unavailable"}, {"reason": "hours"}, {"reason": "argument_origin, hours"}, {"field": "args.amount"}],
    ids=["another outcome", "another code", "another reason", "one more reason", "another field"],
)
def test_a_row_that_ends_otherwise_fails_the_command(played: Played, capsys: pytest.CaptureFixture[str], changed) -> None:
    assert command.show(played, as_json=False) == 0
    assert "WRONG" not in capsys.readouterr().out
    bad = replace(played, rows=(*played.rows[:2], replace(played.rows[2], **changed), *played.rows[3:]))
    assert command.show(bad, as_json=False) == 1
    assert ", WRONG" in capsys.readouterr().out
    assert command.show(bad, as_json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert [said["ok"], *(r["as_expected"] for r in said["rows"])].count(False) == 2


def test_a_payment_that_should_not_be_fails_the_command(played: Played) -> None:
    bad = replace(played, honest=False)
    assert command.show(bad, as_json=False) == 1
    assert "WRONG: 2 payments" in "\n".join(line for line, _ in command.plain(bad, 100))


@pytest.mark.parametrize("width", [60, 80, 110])
def test_the_text_fits_the_terminal_and_drops_nothing(played: Played, width: int) -> None:
    lines = [line for line, _ in command.plain(played, width)]
    shown = lines[: lines.index("What to do next:")]
    assert all(len(line) <= width or " " not in line[24:] for line in shown)  # a word is never broken
    joined = "".join("".join(lines).split())
    for row in played.rows:
        assert "".join(row.tried.split()) in joined
        assert row.reason in joined


def test_the_next_steps_exist(played: Played) -> None:
    for _, step in played.steps:
        program, *words = step.split()
        assert Path(words[-1]).exists() or words[-1] in {"MODULE:TOOLS", "--list"}
        if Path(program).name == "agentgate":
            found: Any = get_command(app)
            while hasattr(found, "commands"):
                found = found.get_command(None, words.pop(0))
            options = {option for parameter in found.params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= options


def test_without_langchain_it_says_what_to_install() -> None:
    absent = "import sys\nsys.modules |= dict.fromkeys(['langchain', *filter(lambda name: name.startswith('langchain.'), sys.modules)])\n"
    code = absent + preloaded.AGENTGATE
    done = preloaded.run_code(code, "demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"langchain is not installed: {sys.executable} -m pip install -e '{ROOT}[service,embedded,langchain]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_examples() -> None:
    done = preloaded.run("demo", "--help")
    assert done.returncode == 0
    assert "agentgate demo --json" in done.stdout


def test_the_example_is_where_the_wheel_and_the_checkout_have_it() -> None:
    assert (find_example("payment-agent") / "agent.py").is_file()
