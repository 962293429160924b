"""Questions to a log are commands: which calls, one call's story, how many; each verifies what it reads and says so."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate import Agent, Allow, Gate, StepUp
from agentgate.audit import FileAudit
from agentgate.audit.questions import FIELDS, Wanted, answer_question, ask_log, find_rows, read_row
from agentgate.audit.retention import compress_segment
from agentgate.audit.verify import LogEvidence, LogFinding, LogVerdict, verify
from agentgate.cli.main import app
from agentgate.errors import AuditDamaged, AuditUnavailable
from tests.shop import LEE, ORDER, WORKFLOW
from tests.test_audit_records import LEADER, NOW, PROMPT, REFUND, auditor

TEXT = WORKFLOW.replace("payee: {type: id", "reason: {text: 200, from: [model]}\n      payee: {type: id")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with refunds that were allowed, held and released, refused, and repeated."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "w").mkdir()
    (folder / "w" / "refund.yaml").write_text(TEXT)
    public, _ = auditor(folder)
    common: dict[str, Any] = {"issuer": "https://gate.example", "clock": lambda: NOW, "auditor": public}
    with Gate.open_unsafe_unapproved(folder / "w", audit=str(folder / "audit"), keys=folder / "keys", **common) as gate:
        for number, amount in enumerate(("39.90", "150.00", "450.00")):
            run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
            look = run.authorize("orders.get", ORDER, tool_call_id=f"look{number}")
            assert isinstance(look, Allow)
            with run.redeem(look.token, tool="orders.get", args=ORDER) as call:
                total = "400.00" if amount == "450.00" else amount
                call.record_result({"total": total, "currency": "EUR", "customer": "cus_8", "order_id": "ORD-10023344"})
            args = {**REFUND, "amount": amount, "payee": "cus_8", "reason": "a secret story"}
            answer = run.authorize("payments.refund", args, tool_call_id=f"pay{number}")
            if isinstance(answer, StepUp):
                gate.release(answer.hold.id, tenant="acme", by=LEADER)
                answer = run.authorize("payments.refund", args, tool_call_id=f"pay{number}")
            if isinstance(answer, Allow):
                with run.redeem(answer.token, tool="payments.refund", args=args):
                    pass
                run.authorize("payments.refund", args, tool_call_id=f"pay{number}")  # again: it is done already
    return folder


def invoked(shop: Path, *words: str) -> Any:
    where = [str(shop / "audit"), "--keys", str(shop / "keys"), "--cache", str(shop / "cache")]
    return CliRunner().invoke(app, ["audit", *words, *where])


def asked(shop: Path, *words: str) -> Any:
    done = invoked(shop, *words)
    assert done.exit_code == 0, done.output
    return done


def test_calls_are_found_by_what_they_are(shop: Path) -> None:
    found = json.loads(asked(shop, "list", "--tool", "payments.refund", "--decision", "allow", "--since", "7d", "--json").stdout)
    assert [each["args"]["amount"] for each in found] == ["39.90", "150.00"]
    assert json.loads(asked(shop, "list", "--user", "nobody", "--json").stdout) == []
    assert json.loads(asked(shop, "list", "--until", "2020-01-01", "--json").stdout) == []
    done = asked(shop, "list", "--tool", "payments.refund", "--decision", "deny", "--csv")
    rows = [*csv.DictReader(io.StringIO(done.stdout))]
    assert {(row["tool"], row["user"], row["workflow"]) for row in rows} == {("payments.refund", "lee", "shop.refund v1")}
    assert "segments: verified" in done.stderr
    plain = asked(shop, "list", "--type", "hold_answer").stdout
    assert "payments.refund" in plain


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--until", "7 days")])
def test_a_time_that_is_none_is_refused(shop: Path, words: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["audit", "list", str(shop / "audit"), "--cache", str(shop / "cache"), *words])
    assert (done.exit_code, "2026-05-31" in done.stderr) == (1, True)


def test_a_decision_that_is_none_is_refused_and_no_record_is_said_to_be_none(shop: Path) -> None:
    done = CliRunner().invoke(app, ["audit", "list", str(shop / "audit"), "--cache", str(shop / "cache"), "--decision", "denied"])
    assert done.exit_code == 1
    assert "'deny'" in done.stderr
    assert "No record is like that" in asked(shop, "list", "--user", "nobody").stderr


def test_a_call_has_a_story(shop: Path) -> None:
    told = json.loads(asked(shop, "show", "pay1", "--auditor-key", str(shop / "auditor.key"), "--json").stdout)
    kinds = [each["type"] for each in told]
    assert kinds == ["run_opened", "decision", "hold_answer", "decision", "redemption", "outcome", "decision"]
    assert [each["decision"] for each in told if each["type"] == "decision"] == ["step_up", "allow", "deny"]
    assert told[3]["sealed"] == {"payee": "cus_8", "reason": "a secret story"}
    assert told[3]["approvals"][0]["by"] == "ana"
    by_txn = json.loads(asked(shop, "show", told[3]["txn"], "--json").stdout)
    assert [each["type"] for each in by_txn] == kinds
    text = asked(shop, "show", "pay1").stdout
    assert "decided: allow" in text
    for name, said in (("nothing", "expected the txn, jti, hold or tool_call_id"), ("", "expected the txn")):
        done = invoked(shop, "show", name)
        assert (done.exit_code, said in done.stderr) == (1, True)


def test_a_call_that_has_the_id_of_another_hides_no_story(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    for call, txn in (("pay", "txn_1"), ("txn_1", "txn_2"), ("jti", "txn_3")):
        record = {"type": "decision", "time": time.time(), "tenant": "acme", "run": "r", "tool_call_id": call, "txn": txn, "jti": f"j{txn}"}
        log.append({**record, "decision": "deny", "hold": f"{txn:a<64}"}, time.monotonic() + 5)
    log.close()
    for name, call in (
        ("txn_1", "pay"),
        ("jtxn_1", "pay"),
        ("txn_2", "txn_1"),
        ("jti", "jti"),
        ("txn_1aaaaaaa", "pay"),
        ("txn_1" + 59 * "a", "pay"),
    ):
        done = CliRunner().invoke(app, ["audit", "show", name, str(tmp_path / "audit"), "--cache", str(tmp_path / "cache"), "--json"])
        assert [each["tool_call_id"] for each in json.loads(done.stdout)] == [call]
    done = CliRunner().invoke(app, ["audit", "show", "txn_1aaaaaa", str(tmp_path / "audit"), "--cache", str(tmp_path / "cache")])
    assert done.exit_code == 1  # eleven characters of a hold are none


def test_calls_are_counted(shop: Path) -> None:
    told = json.loads(asked(shop, "stats", "--json").stdout)
    assert told["tool"]["payments.refund"] == {"allowed": 2, "held": 1, "refused": 3, "unenforced": 0, "unknown": 0}
    assert told["user"]["lee"]["allowed"] == 5
    assert told["approver"] == {"ana": {"allowed": 1, "held": 0, "refused": 0, "unenforced": 0, "unknown": 0}}
    assert told["workflow"]["shop.refund"]["held"] == 1
    assert "payments.refund" in asked(shop, "stats").stdout


def test_what_is_wrong_with_the_log_is_said_with_the_answer(shop: Path) -> None:
    (path,) = (shop / "audit").glob("*.jsonl")
    whole = path.read_bytes()
    asked(shop, "list")
    try:
        path.write_bytes(whole.replace(b'"amount":"39.90"', b'"amount":"39.99"', 1))
        done = asked(shop, "list", "--decision", "allow")
        assert "NOT WHOLE" in done.stderr
        path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
        assert "cut off" in asked(shop, "list").stderr
    finally:
        path.write_bytes(whole)
    assert "verified" in asked(shop, "list").stderr
    blind = CliRunner().invoke(app, ["audit", "list", str(shop / "audit"), "--cache", str(shop / "cache")])
    assert "chains only" in blind.stderr


def test_a_cache_of_others_is_not_used(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o755)
    done = CliRunner().invoke(app, ["audit", "list", str(shop / "audit"), "--cache", str(tmp_path / "cache")])
    assert (done.exit_code, "mode 0700" in done.stderr) == (1, True)


def test_a_repetition_is_not_what_explain_tells_first(shop: Path) -> None:
    common = ["--audit", str(shop / "audit"), "--workflows", str(shop / "w"), "--keys", str(shop / "keys"), "--cache", str(shop / "cache")]
    for name in ("pay0", json.loads(asked(shop, "show", "pay0", "--json").stdout)[-1]["txn"]):
        done = CliRunner().invoke(app, ["explain", name, *common])
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[0].startswith("ALLOW")
        assert "segments: verified" in done.stderr


def test_a_cell_that_a_spreadsheet_would_compute_is_text(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    log.append({"type": "decision", "time": time.time(), "user": "=cmd()", "decision": "deny"}, time.monotonic() + 5)
    log.close()
    done = CliRunner().invoke(app, ["audit", "list", str(tmp_path / "audit"), "--cache", str(tmp_path / "cache"), "--csv"])
    assert ",'=cmd()," in done.stdout


def test_whatever_stands_in_a_file_of_others_is_named_and_no_question_ends_with_it(tmp_path: Path) -> None:
    strange = {"time": "noon", "workflow": 5, "approvals": [7, {"by": 8}], "user": ["x"], "tool_call_id": {"a": 1}, "txn": "t", "run": 3}
    records: list[dict[str, Any]] = [{"type": "segment_lost", "head": {"x": 1}}, {"type": "segment_lost"}, {"type": ["x"]}]
    records += [{"type": "decision", **strange}, {"type": "decision", "txn": "t", "workflow": {"id": [], "version": {}}, "approvals": 5}]
    log = FileAudit(tmp_path / "audit")
    for record in records:
        log.append(record, time.monotonic() + 5)
    log.close()
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "own").mkdir()
    FileAudit(tmp_path / "own", keys=tmp_path / "keys").close()
    where = [str(tmp_path / "audit"), str(tmp_path / "own"), "--keys", str(tmp_path / "keys")]
    assert CliRunner().invoke(app, ["audit", "verify", *where]).exit_code == LogFinding.FORGED
    for words in (["list"], ["list", "--json"], ["list", "--csv", "--since", "7d"], ["stats"]):
        done = CliRunner().invoke(app, ["audit", *words, *where, "--cache", str(tmp_path / "cache")])
        assert (done.exit_code, "no seal names this segment" in done.stderr) == (0, True), done.exception
    done = CliRunner().invoke(app, ["audit", "show", "t", *where, "--cache", str(tmp_path / "cache")])
    assert (done.exit_code, "expected the txn" in done.stderr) == (1, True), done.exception


def test_a_segment_that_grows_leaves_one_entry_in_the_cache_and_no_record(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    for number in range(3):
        log.append({"type": "decision", "time": time.time(), "user": f"u{number}", "decision": "deny"}, time.monotonic() + 5)
        assert asked_plain(tmp_path).count("deny") == number + 1
    log.close()
    (entry,) = (tmp_path / "cache").iterdir()
    assert b"deny" not in entry.read_bytes()
    assert len(entry.read_bytes()) < 500


def asked_plain(folder: Path) -> str:
    return CliRunner().invoke(app, ["audit", "list", str(folder / "audit"), "--cache", str(folder / "cache")]).stdout


def test_what_was_found_without_a_key_excuses_nothing_with_one(tmp_path: Path) -> None:
    forged = FileAudit(tmp_path / "audit")
    forged.append({"type": "decision", "decision": "allow", "user": "forged"}, time.monotonic() + 5)
    forged.close()
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "own").mkdir()
    FileAudit(tmp_path / "own", keys=tmp_path / "keys").close()
    where = ["audit", "list", str(tmp_path / "audit"), str(tmp_path / "own"), "--cache", str(tmp_path / "cache")]
    assert "chains only" in CliRunner().invoke(app, where).stderr
    for _ in range(2):
        assert "no seal names this segment" in CliRunner().invoke(app, [*where, "--keys", str(tmp_path / "keys")]).stderr


def test_a_key_is_given_as_its_directory_or_alone(shop: Path) -> None:
    for key in (("--keys", shop / "keys"), ("--key", shop / "keys" / "audit.pub"), ("--keys", shop / "keys" / "audit.pub")):
        done = CliRunner().invoke(app, ["audit", "list", str(shop / "audit"), "--cache", str(shop / "cache"), *map(str, key)])
        assert "segments: verified" in done.stderr


def test_what_is_wrong_is_said_each_time_and_so_is_what_was_lost(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    log.append({"type": "decision", "time": 1.0, "tenant": "acme"}, time.monotonic() + 5)
    (lost,) = (tmp_path / "audit").glob("*.jsonl")
    lost.unlink()
    with pytest.raises(AuditUnavailable):
        log.append({"type": "decision", "time": 2.0}, time.monotonic() + 5)
    log.append({"type": "decision", "time": 3.0, "tenant": "acme"}, time.monotonic() + 5)
    log.close()
    for path in (tmp_path / "audit").glob("*.seals"):  # as before there were any: only the record tells of it
        path.unlink()
    where = ["audit", "list", str(tmp_path / "audit"), "--cache", str(tmp_path / "cache")]
    for _ in range(2):
        assert "missing: it had 1 records" in CliRunner().invoke(app, where).stderr
    (left,) = (tmp_path / "audit").glob("*.jsonl")
    left.write_bytes(left.read_bytes().replace(b'"time":3.0', b'"time":4.0').replace(b'"time":3,', b'"time":4,'))
    asked: dict[str, Any] = {
        "audit": str(tmp_path / "audit"),
        "keys": str(tmp_path / "keys"),
        "call": "",
        "run": "",
        "tenants": ["acme"],
        "after": "",
    }
    asked |= {"since": 0.0, "until": 1e11, **dict.fromkeys(FIELDS, "")}
    found = [answer_question(asked)["findings"] for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]


def test_what_is_changed_after_it_was_verified_is_verified_again_and_named(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "cache").mkdir(mode=0o700)
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    for _ in range(9):
        log.append({"type": "decision", "time": 1.0, "user": "lee", "decision": "deny"}, time.monotonic() + 5)
    log.close()
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    kept = path.read_bytes()
    look = partial(verify, [tmp_path / "audit"], LogEvidence.of([tmp_path / "keys"]), cache=tmp_path / "cache")

    def ask(found: LogVerdict) -> list[str]:
        path.write_bytes(path.read_bytes().replace(b'"user":"lee"', b'"user":"eve"'))
        return [record["user"] for record in map(read_row, find_rows(found, Wanted({"type": "decision"})))]

    whole, said = ask_log(look, ask, tmp_path / "cache")
    assert (said, [each.finding for each in whole.findings]) == (["eve"], [LogFinding.EDITED])
    path.write_bytes(kept)

    def cut(found: LogVerdict) -> list[Any]:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        return [*map(read_row, find_rows(found, Wanted({})))]

    with pytest.raises(AuditDamaged, match="expected those that were verified"):
        ask_log(look, cut, tmp_path / "cache")


def test_what_was_verified_holds_of_a_segment_that_is_compressed_but_not_of_more_than_it_had(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    log.append({"type": "decision", "time": 1.0, "user": "lee", "decision": "deny"}, time.monotonic() + 5)
    log.close()
    where = [str(tmp_path / "audit"), "--keys", str(tmp_path / "keys"), "--cache", str(tmp_path / "cache")]

    def said() -> tuple[int, str]:
        done = CliRunner().invoke(app, ["audit", "list", *where])
        return done.stdout.count("deny"), done.stderr.splitlines()[-1].partition(": ")[2]

    assert said() == (1, "verified")
    (entry,) = (tmp_path / "cache").iterdir()
    kept = entry.read_bytes()
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    line = path.read_bytes()
    compress_segment(path)
    assert said() == (1, "verified")
    assert entry.read_bytes() == kept
    packed = path.with_name(f"{path.name}.gz")
    whole = packed.read_bytes()
    packed.write_bytes(whole + gzip.compress(line))
    assert said()[1].startswith("NOT WHOLE")
    packed.write_bytes(whole)
    assert said() == (1, "verified")
    packed.write_bytes(whole[:-9])
    assert said()[1].startswith("NOT WHOLE")
    packed.write_bytes(gzip.compress(line + b"half a line"))  # as a killed process left it
    assert [said(), said()] == [(1, "verified")] * 2
    packed.write_bytes(gzip.compress(line + b"half a lin\n"))
    assert said()[1].startswith("NOT WHOLE")


def test_each_line_of_a_log_is_looked_at_once_wherever_it_stands(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    story = {"x": '"outcome":"unknown"', "outcome": "unknown", "type": "outcome", "decision": "deny", "jti": "j"}
    for number in range(400):  # of some kilobytes: they do not end where a part that is read ends
        told = {"type": "decision", "time": 1.0, "user": f"u{number}", "decision": "allow", "jti": f"j{number}", "run": "r"}
        log.queue({**told, "args": story, "met": ["x" * (number * 7)]}, time.monotonic() + 5)
    log.close()
    where = [str(tmp_path / "audit"), "--cache", str(tmp_path / "cache"), "--json"]
    found = json.loads(CliRunner().invoke(app, ["audit", "list", *where]).stdout)
    assert [each["user"] for each in found] == [f"u{number}" for number in range(400)]
    counted = json.loads(CliRunner().invoke(app, ["audit", "stats", *where]).stdout)["user"]
    assert all(counted[f"u{number}"] == {"allowed": 1, "held": 0, "refused": 0, "unenforced": 0, "unknown": 0} for number in range(400))


def test_a_large_log_is_read_by_several_processes(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    for number in range(360):
        told = {"type": "decision", "time": 1.0, "user": "lee", "decision": ("allow", "deny")[number % 2], "jti": f"j{number // 4}"}
        log.append({**told, "run": "r", "args": {"x": "x" * 200_000}}, time.monotonic() + 10)
    log.close()
    assert len([*(tmp_path / "audit").glob("*.jsonl")]) == 2
    where = [str(tmp_path / "audit"), "--cache", str(tmp_path / "cache"), "--json"]
    counted = json.loads(CliRunner().invoke(app, ["audit", "stats", *where]).stdout)
    assert counted["user"]["lee"] == {"allowed": 0, "held": 0, "refused": 180, "unenforced": 0, "unknown": 0}
    assert CliRunner().invoke(app, ["audit", "list", *where, "--decision", "allow"]).stdout == "[]\n"
