"""What a version that observes said is read: in a list of the log, at the end of a diff, and in what a reviewer sees first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from agentgate.loading.source import on_disk
from agentgate.review.report.comparison import changes_between
from tests.approvals_team import ALICE, BOB, Team
from tests.test_observe_calls import change, opened, pay, run_of


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of a gate under which version 2 observed, and both versions as files."""
    folder = tmp_path_factory.mktemp("observed")
    team = Team(folder)
    team.approve(ALICE, BOB)
    (folder / "old.yaml").write_text(team.file.read_text())
    with opened(team) as gate:
        pay(run_of(gate), "10.00", "before")
    change(team, ('"10.00", "20.00"', '"10.00", "30.00"'))
    (folder / "new.yaml").write_text(team.file.read_text())
    with opened(team) as gate:
        run = run_of(gate)
        for number, amount in enumerate(("10.00", "20.00", "20.00", "30.00", "40.00")):
            pay(run, amount, f"call_{number}")
    return folder


def asked(log: Path, *words: str, status: int = 0) -> Any:
    done = CliRunner().invoke(app, [*words], env={"XDG_CACHE_HOME": str(log / "cache")})
    assert done.exit_code == status, done.output
    return done


def test_the_calls_that_would_be_decided_otherwise_are_listed(log: Path) -> None:
    words = "audit", "list", str(log / "audit"), "--keys", str(log / "keys"), "--would"
    found = json.loads(asked(log, *words, "--json").stdout)
    assert [(each["decision"], each["would"], each["tool_call_id"]) for each in found] == [
        ("allow", "deny", "call_1"),
        ("allow", "deny", "call_2"),
        ("deny", "allow", "call_3"),
    ]
    text = asked(log, *words).stdout
    assert "allow, would be deny" in text
    assert "call_1" in text
    assert "call_1" not in asked(log, *words, "--user", "nobody").stdout


def test_a_diff_ends_with_how_many_recorded_calls_would_be_decided_otherwise(log: Path) -> None:
    words = "workflow", "diff", str(log / "old.yaml"), str(log / "new.yaml"), "--audit", str(log / "audit"), "--keys", str(log / "keys")
    *_, told, apart = asked(log, *words, status=2).stdout.strip().splitlines()
    assert told == (
        "and 3 recorded calls of the last 7 days would be decided otherwise: "
        "2 payments.refund allow -> deny (args.amount), 1 payments.refund deny -> allow (no reason is left)"
    )
    assert apart == "of 0 of 6 calls the log cannot tell: none"  # of the call before it observed, the record tells
    assert json.loads(asked(log, *words, "--json", status=2).stdout)["notes"][-2:] == [told, apart]
    assert "verified" in asked(log, *words, status=2).stderr


def test_limits_and_people_that_observing_cannot_know_are_counted_apart(tmp_path: Path) -> None:
    team = Team(tmp_path)
    team.file.write_text(
        team.file.read_text()
        + """step_up:
  - {id: ask, for: payments.refund, when: {amount: {in: ["20.00"]}}, approvers: {group: leads}, timeout: 10m}
limits: [{count: payments.refund, max: 5, per: run}]
"""
    )
    team.approve(ALICE, BOB)
    (tmp_path / "old.yaml").write_text(team.file.read_text())
    change(team, ("group: leads", "group: chiefs"))
    (tmp_path / "new.yaml").write_text(team.file.read_text())
    with opened(team) as gate:
        for number, amount in enumerate(("10.00", "20.00", "30.00")):
            pay(run_of(gate), amount, f"call_{number}")
    words = str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), "--audit", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")
    *_, none, apart = asked(tmp_path, "workflow", "diff", *words, status=2).stdout.strip().splitlines()
    assert none.endswith("decided otherwise: none")
    assert apart == "of 1 of 3 calls the log cannot tell: 1 for step_up.ask.approvers"
    (tmp_path / "new.yaml").write_text(team.file.read_text().replace("max: 5", "max: 1"))
    *_, _, apart = asked(tmp_path, "workflow", "diff", *words, status=2).stdout.strip().splitlines()
    assert apart.startswith("of 2 of 3 calls the log cannot tell: ")


def test_that_nothing_is_enforced_is_the_widest_change(log: Path) -> None:
    report = changes_between(on_disk(log / "old.yaml"), on_disk(log / "new.yaml"))
    assert report.wider[0].where == "mode"
    first = changes_between(None, on_disk(log / "new.yaml"))
    assert (first.wider[0].where, "runs its tool" in first.wider[0].effect) == ("mode", True)


def test_status_says_which_version_only_observes(log: Path) -> None:
    text = asked(log, "workflow", "status", "--directory", str(log / "w")).stdout
    assert "shop.refund v2 only observes" in text


def test_calls_that_nobody_refused_are_counted_apart(tmp_path: Path) -> None:
    team = Team(tmp_path)
    change(team, version=1)
    with opened(team) as gate:
        pay(run_of(gate), "999.00")
    common = str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")
    counted = json.loads(asked(tmp_path, "audit", "stats", *common, "--json").stdout)
    assert counted["tool"]["payments.refund"] == {"allowed": 0, "held": 0, "refused": 0, "unenforced": 1, "unknown": 0}
    (found,) = json.loads(asked(tmp_path, "audit", "list", *common, "--would", "--json").stdout)
    assert (found["decision"], found["would"]) == ("observed", "deny")
