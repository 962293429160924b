"""The approvals that are shipped: they match the workflows that are shipped, and only what everybody knows signs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from agentgate import Gate
from agentgate.approvals import ApprovalRefused, root_digest, status
from agentgate.cli.main import app
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import Catalog
from agentgate.testing import demo_approvals
from tests.approvals_team import keygen
from tests.preloaded import run_code

ROOT = Path(__file__).parent.parent
SHIPPED = ["workflows", "examples/payment-agent/workflows", "examples/mcp/workflows", "examples/chat-backend/workflows"]


@pytest.fixture(params=SHIPPED)
def copied(request, tmp_path):
    shutil.copytree(ROOT / request.param, tmp_path / "w")
    return tmp_path / "w"


def test_the_shipped_approvals_match_the_shipped_workflows(copied):
    root = demo_approvals.prepare(copied)
    refused = [str(found.refused) for found in status(copied, root) if found.refused is not None]
    assert refused == [], f"workflows changed since they were signed; sign them again: {demo_approvals.COMMAND}"


def test_a_gate_opens_on_them_and_warns(copied, tmp_path):
    root = demo_approvals.prepare(copied)
    with (
        capture_logs() as logs,
        Gate.open(copied, root=root, issuer="https://gate.example", keys=tmp_path / "keys", audit=str(tmp_path / "audit")) as gate,
    ):
        assert {w.id for w in gate.catalog} == {w.id for w in Catalog.load(copied, derive)}
    assert [entry["event"] for entry in logs] == ["root_demo"]


def test_what_ends_is_not_committed():
    for shipped in SHIPPED:
        assert not list((ROOT / shipped / "approvals").glob("index.json*"))


def test_without_a_fresh_index_nothing_loads(copied, tmp_path):
    with pytest.raises(ApprovalRefused, match="STALE INDEX"):
        Gate.open(
            copied,
            root=root_digest(copied),
            issuer="https://gate.example",
            keys=tmp_path / "keys",
            audit=str(tmp_path / "audit"),
        )


def test_a_clone_works_in_any_year(copied):
    year = 365.25 * 86400
    for later in (0.0, 20 * year, 400 * year):
        root = demo_approvals.prepare(copied, 1_800_000_000 + later)
        assert all(found.refused is None for found in status(copied, root, now=1_800_000_000 + later))


def test_the_check_that_ci_runs_finds_the_shipped_workflows_approved(copied, monkeypatch):
    """As in a fresh clone, and as on a pull request: the index is of today, made in this copy, and committed nowhere."""
    monkeypatch.chdir(copied.parent)
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "shipped")):
        subprocess.run(["git", *words], check=True)
    command = ["workflow", "check", copied.name, "--base", "HEAD"]
    for more, code in (((), 0), (("--require-index",), 2)):
        bare = CliRunner().invoke(app, [*command, *more])
        assert (bare.exit_code, "STALE INDEX" in bare.stdout, "in force" in bare.stdout) == (code, True, False)
    demo_approvals.prepare(copied)
    done = CliRunner().invoke(app, [*command, "--require-index"])
    assert (done.exit_code, "approved: every workflow file is in force" in done.stdout) == (0, True), done.stdout


def test_signing_again_changes_nothing(copied):
    def approvals() -> dict[Path, bytes]:
        return {p.relative_to(copied): p.read_bytes() for p in (copied / "approvals").rglob("*") if p.is_file()}

    demo_approvals.sign(copied)
    before = approvals()
    demo_approvals.sign(copied)
    assert approvals() == before


def test_the_command_signs_a_directory(copied):
    shutil.rmtree(copied / "approvals")
    code = "from runpy import run_module; run_module('agentgate.testing.demo_approvals', run_name='__main__')"
    done = run_code(code, str(copied))
    assert done.returncode == 0, done.stderr
    assert "root sha256:" in done.stdout
    assert (copied / "approvals/root.yaml").is_file()


def test_no_private_key_is_shipped():
    for shipped in SHIPPED:
        for path in (ROOT / shipped).rglob("*"):
            assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()


def test_openssh_verifies_the_same_files():
    """Nobody needs agentgate to check an approval."""
    for shipped in SHIPPED:
        approvals = ROOT / shipped / "approvals"
        statements = [p for p in approvals.rglob("*@*.json") if p.is_file()]
        assert statements
        for file in statements:
            command = [keygen(), "-Y", "verify", "-f", str(approvals / "allowed_signers"), "-I", file.stem, "-n", "agentgate-workflow"]
            done = subprocess.run(
                [*command, "-s", str(file.with_suffix(".sig"))], input=file.read_bytes(), capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr
