"""``agentgate doctor``: one table of what holds, and what to do about the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate.cli import doctor
from agentgate.cli.main import app
from agentgate.token.signing import KeyRing
from tests.approvals_team import ALICE, BOB, Team
from tests.served import toml
from tests.servers import Server, redis_binary
from tests.shop import WORKFLOW, opened
from tests.test_history import paid, started


def looked_at(*words: Any) -> tuple[int, dict[str, str]]:
    """Exit code; and what does not hold -> what to do."""
    done = CliRunner().invoke(app, ["doctor", *map(str, words), "--json"])
    return done.exit_code, {each["what"]: each["remedy"] for each in json.loads(done.stdout) if not each["holds"]}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder where a gate on a well-kept store has worked."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    with opened(tmp_path, keys=tmp_path / "keys", audit=str(tmp_path / "audit"), store=f"embedded://{tmp_path / 'store'}") as gate:
        paid(started(gate))
    return tmp_path


def test_what_holds_holds(shop: Path) -> None:
    given = ("--store", f"embedded://{shop / 'store'}", "--keys", shop / "keys", "--audit", shop / "audit")
    assert looked_at(*given) == (0, {})
    shown = CliRunner().invoke(app, ["doctor", *map(str, given)]).stdout
    for words in ("history of acme: whole", "signs; readable by its owner only", "records, each as it was written", "MiB free"):
        assert words in shown


def test_the_logs_of_all_gates_on_one_key_folder_are_looked_at_together(shop: Path) -> None:
    given = ("--store", f"embedded://{shop / 'store'}", "--keys", shop / "keys")
    with opened(shop, keys=shop / "keys", audit=str(shop / "audit-2"), store=f"embedded://{shop / 'store'}") as gate:
        paid(started(gate))
    code, wrong = looked_at(*given, "--audit", shop / "audit")
    what, remedy = list(wrong.items())[-1]
    assert (code, "not here: " in what, "the --audit of every gate that shares these keys" in remedy) == (2, True, True)
    assert looked_at(*given, "--audit", shop / "audit", "--audit", shop / "audit-2") == (0, {})
    (shop / "audit-2").chmod(0o777)
    code, wrong = looked_at(*given, "--audit", shop / "audit", "--audit", shop / "audit-2")
    assert (code, list(wrong)) == (2, [f"{shop / 'audit-2'}: writable by its owner only"])


def test_the_settings_of_a_served_gate_name_its_parts(shop: Path) -> None:
    (shop / "team").mkdir()
    team = Team(shop / "team")
    team.approve(ALICE, BOB)
    parts = {"store": f"embedded://{shop / 'store'}", "keys": shop / "keys", "workflows": team.directory, "audit": shop / "audit"}
    client = {"role": "host", "tenants": ["acme"], "certificates": ["x" * 43]}
    given = {"issuer": "https://gate.example", "root": team.root, "clients": {"desk": client}}
    (shop / "gate.toml").write_text(toml({**given, **{name: str(place) for name, place in parts.items()}}))
    assert looked_at("--settings", shop / "gate.toml") == (0, {})
    shown = CliRunner().invoke(app, ["doctor", "--settings", str(shop / "gate.toml")]).stdout
    for words in ("history of acme: whole", "signs; readable", "root: the pinned one", "records, each as it was written"):
        assert words in shown
    assert looked_at("--settings", shop / "gate.toml", "--keys", shop / "none")[0] == 2  # what is named itself counts
    unsigned = {name: value for name, value in given.items() if name != "root"} | {"unsafe_unapproved": True}
    (shop / "gate.toml").write_text(toml({**unsigned, **{name: str(place) for name, place in parts.items()}}))
    done = CliRunner().invoke(app, ["doctor", "--settings", str(shop / "gate.toml")])
    assert (done.exit_code, "nobody's signature is checked" in done.stdout, "root: the" in done.stdout) == (2, True, False)
    (shop / "gate.toml").write_text("issuer = 5")
    done = CliRunner().invoke(app, ["doctor", "--settings", str(shop / "gate.toml")])
    assert (done.exit_code, "issuer" in done.output) == (1, True)


def test_nothing_named_is_an_error() -> None:
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_a_store_that_no_gate_would_open_is_named(tmp_path: Path) -> None:
    code, wrong = looked_at("--store", "redis://127.0.0.1:1")
    assert (code, len(wrong)) == (2, 1)
    assert looked_at("--store", "http://x")[0] == 2


def test_weak_settings_and_a_lost_history_are_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    server = Server(redis_binary(), tmp_path / "server")
    try:
        with opened(tmp_path, keys=tmp_path / "keys", audit=str(tmp_path / "audit"), store=server.url) as gate:
            paid(started(gate))
        code, wrong = looked_at("--store", server.url, "--audit", tmp_path / "audit")
        own = [what.split(":")[0] for what in wrong if not what.startswith("user tool-")]  # users of other tests may be known here
        assert (code, own) == (2, ["no append-only file", "no maxmemory", "store user"])
        server.command("FLUSHALL")
        code, wrong = looked_at("--store", server.url, "--audit", tmp_path / "audit")
        assert "reconcile" in wrong["history of acme: lost in part; only reads go on"]
    finally:
        server.stop()


def test_keys_others_may_read_and_absent_ones_are_named(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o755)
    for folder in (tmp_path / "keys", tmp_path / "none"):
        assert looked_at("--keys", folder)[0] == 2
    assert not (tmp_path / "none").exists()


def test_a_damaged_or_open_or_full_log_is_named(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = (shop / "audit").glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"acme", b"evil", 1))
    (shop / "audit").chmod(0o777)
    monkeypatch.setattr(doctor, "_SPACE", 1 << 60)
    code, wrong = looked_at("--audit", shop / "audit")
    assert (code, len(wrong)) == (2, 4)
    assert any(what.startswith(str(path)) for what in wrong)


def test_workflows_that_are_not_in_force_or_not_for_long_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = Team(tmp_path)
    pinned = ("--workflows", team.directory, "--root", team.root)
    assert looked_at(*pinned)[0] == 2
    team.approve(ALICE, BOB)
    kept = {name: team.approvals(name).read_bytes() for name in ("index.json", "revoked.yaml")}
    for name, words in (("index.json", "STALE INDEX"), ("revoked.yaml", "MISSING")):
        team.approvals(name).unlink()
        code, wrong = looked_at(*pinned)
        assert (code, len(wrong), "None" in str(wrong), words in str(wrong)) == (2, 2, False, True)
        team.approvals(name).write_bytes(kept[name])
    assert looked_at(*pinned) == (0, {})
    assert list(looked_at(*pinned[:2])[1]) == ["root: as it lies there"]
    monkeypatch.setattr(doctor, "AHEAD", 8 * 24 * 3600)  # an index lives for seven days
    code, wrong = looked_at(*pinned)
    assert (code, list(wrong.values())) == (2, ["agentgate workflow index, and reload the gate"])
