"""The founding cases of `agentgate demo`: each runs as real processes, and every row ends as it must, for the reason it must."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgate_demo.case import CASES, FIRST, FoundingCase, load_case
from agentgate_demo.row import Expected, TableRow
from tests import preloaded
from tests.deadlines import python_path
from tests.test_layers import imports

ROOT = Path(__file__).parent.parent
CHAT = "chat"  # tests/test_chat_backend.py
BAD_TOKEN, BAD_PROOF = "401 invalid_token", "400 invalid_dpop_proof"
BAD_CREDENTIAL, BAD_CALL = "400 invalid_request", "400 invalid_authorization_details"
CLAIM = "agent.oidc.claims."
WANTED = {  # code, reason and field of each row, and the key at the line of the workflow that decided
    "payments": [
        ("ok", "", "", "payments.refund"),
        (BAD_CREDENTIAL, "user", "user.oidc.signature", ""),
        (BAD_CALL, "tenant", "tenant", "tenants"),
        ("not_permitted", "argument_origin", "args.payee", "payee"),
        ("needs_approval", "step_up", "args.amount", "when"),
        ("approver", "step_up", "step_up.big-refund.approvers", "id"),
        ("ok", "", "", "payments.refund"),
        (BAD_PROOF, "agent", "agent.key", ""),
        ("401", "", "authorization", ""),
        ("503", "", "token_endpoint", ""),
    ],
    "ci": [
        ("ok", "", "", "cloud.assume-deploy-role"),
        ("ok", "", "", ""),
        (BAD_TOKEN, "invalid_token", "jti", ""),
        ("401", "", "authorization", ""),
        ("invalid_authorization_details", "argument_value", "args.scopes", "scopes"),
        ("invalid_request", "agent", f"{CLAIM}repository, {CLAIM}repository_id", "repository"),
        ("invalid_request", "agent", f"{CLAIM}environment", "environment"),
        ("invalid_request", "agent", f"{CLAIM}job_workflow_ref", "job_workflow_ref"),
        ("invalid_request", "agent", f"{CLAIM}event_name", "event_name"),
    ],
    "partner": [
        ("ok", "", "", "datasets.query"),
        ("ok", "", "", ""),
        ("403 insufficient_scope", "insufficient_scope", "arguments_digest", ""),
        (BAD_CALL, "argument_value", "args.dataset", "dataset"),
        (BAD_CALL, "data_class", "data_class", "conditions"),
        (BAD_CALL, "argument_value", "args.columns", "columns"),
        (BAD_CALL, "network", "network", "conditions"),
        (BAD_CALL, "network", "network", "conditions"),
        (BAD_CREDENTIAL, "agent", f"{CLAIM}tenant", "tenant"),
        (BAD_CALL, "workflow_expired", "expires", "expires"),
    ],
    "service-account": [
        ("ok", "", "", "identity.refresh"),
        ("401 invalid_dpop_proof", "invalid_dpop_proof", "proof.jwk", ""),
        ("ok", "", "", ""),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.cluster", "agent"),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.node_pool", "agent"),
        (BAD_PROOF, "agent", "proof", ""),
        (BAD_PROOF, "agent", "agent.key", ""),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.key", "agent"),
        ("ok", "", "", ""),
        ("ok", "", "", "identity.refresh"),
        (BAD_CREDENTIAL, "boundary", "agent.boundary.key", "agent"),
    ],
    "orchestrator": [
        ("ok", "", "", "jobs.dispatch"),
        ("ok", "", "", ""),
        ("403 insufficient_scope", "insufficient_scope", "arguments_digest", ""),
        (BAD_CALL, "argument_value, role", "args.scopes", "scopes"),
        (BAD_CALL, "argument_value", "args.scopes", "scopes"),
        (BAD_CREDENTIAL, "hops", "agent.via", "via"),
        (BAD_CREDENTIAL, "hops", "agent.via[0].iss", ""),
        ("401 invalid_client", "agent", "client.credential", ""),
    ],
    "mcp": [
        ("ok", "", "", "orders.get"),
        ("not_permitted", "argument_origin", "args.payee", "payee"),
        ("not_permitted", "insufficient_scope", "arguments_digest", ""),
        ("ok", "", "", "payments.refund"),
        ("not_permitted", "invalid_token", "jti", ""),
        ("not_permitted", "", "_meta", ""),
        ("needs_approval", "step_up", "args.amount", "when"),
        ("ok", "", "", "payments.refund"),
        ("not_permitted", "tool_definition", "tools.orders.get.definition", "orders.get"),
    ],
}
SERVICE = "arn:aws:ecs:eu-central-1:123456789012:service/shop/"
SHOWN = {  # row -> what the operator sees of the real credential
    "payments": {1: "fetched 2 tokens of the provider so far, one a call; 0 of them still count", 7: "released: "},
    "ci": {2: f"session policy for ecs:UpdateService on {SERVICE}shop-api, {SERVICE}shop-web; the token is burned"},  # and PutImage on none
}


def key_at(rule: str) -> str:
    """The key at a line of a workflow; empty: the refusal is by no line of it."""
    file, _, line = rule.rpartition(":")
    return re.split(r"[\s:]", (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1].strip(" -{"))[0] if file else ""


def run(*args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": python_path(str(ROOT)), "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run([sys.executable, "-W", "error", *args], check=False, capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.thorough("the same workflows decide the same calls in test_founding_cases")
def test_a_case_ends_as_it_must(name: str) -> None:
    done = run("-m", "agentgate", "demo", name, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert [(row["code"], row["reason"], row["field"], key_at(row["rule"])) for row in said["rows"]] == WANTED[name]
    found = load_case(name)
    assert isinstance(found, FoundingCase)
    assert len(said["done"]) == found.done[0]
    for number, shown in SHOWN.get(name, {}).items():
        assert shown in said["rows"][number - 1]["detail"]
    assert not done.stderr


def test_the_list_names_every_case_and_each_has_what_can_be_copied() -> None:
    done = preloaded.run("demo", "--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [*CASES]
    assert {FIRST, CHAT, *WANTED} == set(CASES)
    for name in WANTED:
        found = load_case(name)
        assert isinstance(found, FoundingCase)
        scripts = {f"{each}.py" for each in (*found.tools, *found.others)}
        assert {"README.md", "gate.toml", "run.py", *scripts} <= {path.name for path in found.place.iterdir()}


def test_an_unknown_case_is_named() -> None:
    done = preloaded.run("demo", "cd")
    assert (done.returncode, done.stdout) == (1, "")
    assert "first-look, payments, ci" in done.stderr


@pytest.mark.parametrize(
    ("name", "module", "what"),
    [
        ("partner", "uvicorn", "[service,embedded]' duckdb"),
        *(
            pytest.param(*row, marks=pytest.mark.thorough("the same line of the harness"))
            for row in [
                ("partner", "duckdb", "[service,embedded]' duckdb"),
                ("payments", "authlib", "[service,embedded,oauth,httpx,langchain]'"),
                ("mcp", "mcp", "[service,embedded,fastmcp]'"),
                ("chat", "itsdangerous", "[service,embedded,fastapi,web,oauth,langchain,httpx]' itsdangerous"),
            ]
        ),
        ("ci", "moto", "[service,embedded,aws,httpx]' 'moto[server]'"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_command_for_this_clone(name: str, module: str, what: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from agentgate.cli.main import app; app()"
    done = preloaded.run_code(code, "demo", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == f"{module} is not installed: {sys.executable} -m pip install -e '{ROOT}{what}"


def test_a_row_that_ends_otherwise_or_a_call_too_many_is_not_ok() -> None:
    found = load_case("ci")
    assert isinstance(found, FoundingCase)
    row = TableRow(Expected("it", "denied", "401", "x", "y"), "allowed", "ok", "client", "ok")
    good = TableRow(Expected("it", "allowed", "ok"), "allowed", "ok", "client", "ok")
    assert found.played((good,), ({},), 1.0).ok
    assert not found.played((good, row), ({},), 1.0).ok
    assert not found.played((good,), ({}, {}), 1.0).ok
    assert "WRONG: 2 x deployment" in found.played((good,), ({}, {}), 1.0).ending


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("[!_]*/*.py")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_copied_example_needs_nothing_of_the_demo(script: Path) -> None:
    """Only `run.py`, which plays the demo, needs the harness beside the examples; and none needs a module of the command line."""
    names = [item.name for item in imports(script.read_text())]
    assert [name for name in names if name.startswith("agentgate.cli")] == []
    assert any(name.startswith("agentgate_demo.") for name in names) is (script.name == "run.py")
