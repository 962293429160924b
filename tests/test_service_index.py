"""The end of a signed index, as operators see it: log, metric, readiness, ``serve --check``, and a start that names what it refuses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from agentgate.approvals import ApprovalRefused
from agentgate.approvals.writing import renew_index, write_index
from agentgate.cli.main import app as cli
from agentgate.service.app import application
from agentgate.service.settings import ServiceSettings
from tests.approvals_team import ALICE, BOB, CAROL, PEOPLE, Team, key
from tests.served import toml
from tests.test_attacks_approvals import CI, DAY, ROLES, RULE


@pytest.fixture
def team(tmp_path: Path) -> Team:
    team = Team(tmp_path, people={name: [name] for name in (*PEOPLE, CI)}, roles=ROLES, rules=(RULE,))
    team.approve(ALICE, BOB)
    return team


@pytest.fixture
def file(team: Team, tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    client = {"role": "host", "tenants": ["acme"], "certificates": ["x" * 43]}
    places = {"store": f"embedded://{tmp_path / 'store'}", **{name: str(tmp_path / name) for name in ("keys", "audit")}}
    given = {
        "issuer": "https://gate.example",
        "root": team.root,
        "workflows": str(team.directory),
        "store": f"embedded://{tmp_path / 'store'}",
        "metrics": True,
    }
    (tmp_path / "gate.toml").write_text(toml({**given, **places, "clients": {"desk": client}}))
    return tmp_path / "gate.toml"


def warnings(http: TestClient) -> tuple[int, str, list[str]]:
    """What readiness answers, and what the log is told of ends by that."""
    time.sleep(1.1)  # it looks again
    with capture_logs() as logs:
        ready = http.get("/readyz")
    return ready.status_code, ready.text, [entry["what"] for entry in logs if entry["event"] == "approvals_end"]


def sign_index(team: Team, *, ago: float) -> None:
    """The index as if it had been signed so many seconds ago."""
    team.approvals("index.json").unlink()
    write_index(team.directory, key(ALICE), now=time.time() - ago, anew=True)


def reload(http: TestClient) -> None:
    portal, app = cast("Any", http.portal), cast("Any", http.app)
    portal.call(app.state.service.gate.reload)


def test_the_end_is_told_from_half_its_life_on_and_then_nothing_is_ready_until_it_is_renewed(team: Team, file: Path) -> None:
    """Nobody calls this gate but its health check."""
    sign_index(team, ago=7 * DAY - 10)
    with TestClient(application(ServiceSettings.of(file)), base_url="https://gate.example") as http:
        code, text, _ = warnings(http)
        assert (code, text.startswith("degraded\napprovals_end: the index ends at ")) == (200, True)
        assert "agentgate workflow index" in text
        assert warnings(http)[2] == []  # it was told when it was opened: once an hour
        deadline = time.monotonic() + 30
        while (answer := warnings(http)[:2])[0] == 200 and time.monotonic() < deadline:
            pass
        assert answer == (503, "stale_index\n")
        shown = http.get("/metrics").text
        (line,) = [line for line in shown.splitlines() if line.startswith("agentgate_approvals_end_seconds{")]
        assert line.startswith('agentgate_approvals_end_seconds{what="index"} ')
        assert float(line.split()[-1]) == pytest.approx(time.time(), abs=60)
        assert "agentgate_requests_total{" in shown
        sign_index(team, ago=3.6 * DAY)
        reload(http)
        assert warnings(http)[1].startswith("degraded\n")
        renew_index(team.directory, key(CI))
        reload(http)
        assert warnings(http) == (200, "ok\n", [])


@pytest.mark.parametrize(("days", "answer"), [(3.4, "ok\n"), (3.6, "degraded\n")])
def test_half_its_life_is_where_warnings_begin(team: Team, file: Path, days: float, answer: str) -> None:
    sign_index(team, ago=days * DAY)
    with TestClient(application(ServiceSettings.of(file)), base_url="https://gate.example") as http:
        code, text, _ = warnings(http)
        assert (code, text.startswith(answer)) == (200, True)


def test_a_start_and_a_check_name_what_they_refuse_or_what_ends(team: Team, file: Path) -> None:
    for days, code, words in ((7.1, 1, "STALE INDEX: approvals/index.json: expires"), (3.6, 0, "look: the index ends at "), (0, 0, "")):
        team.approvals("index.json").unlink()
        write_index(team.directory, key(ALICE), now=team.now - days * DAY, anew=True)
        done = CliRunner().invoke(cli, ["serve", "--check", "--settings", str(file)])
        assert (done.exit_code, words in done.output, "index ends" in done.output) == (code, True, days == 3.6), done.output
        if code:
            with capture_logs() as logs, pytest.raises(ApprovalRefused), TestClient(application(ServiceSettings.of(file))):
                pass
            assert [words in entry["what"] for entry in logs if entry["event"] == "not_opened"] == [True]


def test_the_command_renews_and_says_until_when(team: Team, tmp_path: Path) -> None:
    for name in (CI, CAROL):
        (tmp_path / name).write_bytes(private(name))
    command = ["workflow", "renew", "-d", str(team.directory), "--root", team.root, "--key"]
    done = CliRunner().invoke(cli, [*command, str(tmp_path / CI)])
    assert (done.exit_code, done.output.startswith("renewed until ")) == (0, True), done.output
    assert team.running() == 1
    done = CliRunner().invoke(cli, [*command, str(tmp_path / CAROL)])
    assert (done.exit_code, "roles.renew" in done.output) == (1, True)


def private(name: str) -> bytes:
    """The key file of a name of the team."""
    from cryptography.hazmat.primitives import serialization as as_

    return key(name)._private.private_bytes(as_.Encoding.PEM, as_.PrivateFormat.OpenSSH, as_.NoEncryption())
