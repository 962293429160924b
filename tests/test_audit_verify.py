"""``agentgate audit verify``: what an auditor finds, offline, of a log that was cut, exchanged or taken away."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate import Allow, Gate, Verifier
from agentgate.audit import FileAudit
from agentgate.audit.sealer import LOGS
from agentgate.audit.segment import read_lines
from agentgate.audit.tree import PUBLIC
from agentgate.audit.verify import FOLDER, LogEvidence, LogFinding, LogVerdict, verify
from agentgate.cli.main import app
from agentgate.errors import AuditDamaged, AuditUnavailable, ConfigError
from agentgate.values.canonical import canonical
from tests.servers import Server, as_tool_server, valkey_binary
from tests.shop import ORDER, WORKFLOW, opened, run_of
from tests.test_verifier import GOOD


def soon() -> float:
    return time.monotonic() + 5


def written(folder: Path, *counts: int) -> list[Path]:
    """Segments with this many records each, sealed with the key in ``keys``; oldest first."""
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    for count in counts:
        log = FileAudit(folder / "audit", keys=folder / "keys")
        for number in range(count):
            log.append({"id": number}, soon())
        log.close()
    return sorted((folder / "audit").glob("*.jsonl"))


def verdict(keys: Path, *directories: Path) -> LogVerdict:
    return verify(directories, LogEvidence.of([keys]))


def found(folder: Path, *more: Path) -> tuple[list[int], list[str]]:
    """Records and what is wrong, of each segment."""
    answer = verdict(folder / "keys", folder / "audit", *more)
    assert not [log.wrong for log in answer.logs if log.wrong]
    return [each.records for each in answer.segments], [each.wrong for each in answer.segments]


def test_a_whole_log_is_whole(tmp_path: Path) -> None:
    first, *_ = written(tmp_path, 3, 0, 5)
    assert found(tmp_path) == ([3, 0, 5], ["", "", ""])
    last = list(read_lines(first))[-1]
    (log,) = verdict(tmp_path / "keys", tmp_path / "audit").logs
    newest = log.heads[first.stem][-1]
    assert (newest.seq, newest.bytes, newest.digest, newest.closed) == (3, first.stat().st_size, last.digest, True)


def cut_at_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def torn_in_the_middle(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def made_anew(path: Path) -> None:
    """A consistent chain of other records, under the same name: what whoever can write the file can make."""
    other = FileAudit(path.parent / "other")
    for number in range(4):
        other.append({"id": number + 100}, soon())
    other.close()
    (forged,) = (path.parent / "other").glob("*.jsonl")
    segment = [line.record for line in read_lines(forged)]
    shutil.rmtree(path.parent / "other")
    from agentgate.audit.entry import record_bytes
    from agentgate.audit.segment import Segment

    path.unlink()
    made = Segment(path, os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    made.append([record_bytes(record) for record in segment], os.fsync)
    made.close()


def one_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"id":1', b'"id":7', 1))


def a_copy(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(path, elsewhere)


def appended(path: Path) -> None:
    """One more record behind the chain, as whoever can write the file can make it."""
    *_, last = read_lines(path)
    line = {"prev": last.digest, "record": {"id": 9}, "seq": last.seq + 1, "writer": path.stem}
    with path.open("ab") as file:
        file.write(canonical(line) + b"\n")


def another_beside(path: Path) -> None:
    """A segment of nobody, by its name from before."""
    log = FileAudit(path.parent.parent / "other")
    log.append({"id": 1}, soon())
    log.close()
    (forged,) = (path.parent.parent / "other").glob("*.jsonl")
    name = "20200101T000000000000-0000000000000000"
    (path.parent / f"{name}.jsonl").write_bytes(forged.read_bytes().replace(forged.stem.encode(), name.encode()))


@pytest.mark.parametrize(
    ("attack", "wrong", "finding"),
    [
        (cut_at_a_line, "cut off: got 2 records, expected at least the 4", LogFinding.CUT),
        (emptied, "cut off: got 0 records, expected at least the 4", LogFinding.CUT),
        (removed, "missing: it had 4 records", LogFinding.MISSING),
        (torn_in_the_middle, "cut off: got 2 records", LogFinding.CUT),
        (made_anew, "record 4: got other content than was sealed", LogFinding.CHANGED),
        (one_byte, "line 3: got prev", LogFinding.EDITED),
        (a_copy, "more than one file has this writer's name", LogFinding.TWICE),
        (appended, "1 records after its end", LogFinding.APPENDED),
        (another_beside, "no seal names this segment", LogFinding.FORGED),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_done_to_a_segment_is_named(tmp_path: Path, attack: Callable[[Path], None], wrong: str, finding: LogFinding) -> None:
    first, _ = written(tmp_path, 4, 2)
    attack(first)
    more = [tmp_path / "elsewhere"] if (tmp_path / "elsewhere").exists() else []
    _, said = found(tmp_path, *more)
    assert said[0].startswith(wrong)
    result = CliRunner().invoke(app, ["audit", "verify", *map(str, [tmp_path / "audit", *more]), "--keys", str(tmp_path / "keys")])
    assert result.exit_code == finding
    assert wrong in result.output.replace("\n", " ")


def test_a_whole_log_exits_with_0_and_one_that_nothing_could_tell_with_2(tmp_path: Path) -> None:
    written(tmp_path, 3, 5)
    run = CliRunner()
    whole = run.invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")])
    assert (whole.exit_code, whole.output.splitlines()[-1]) == (0, "2 segments, 8 records")
    public = run.invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--key", str(tmp_path / "keys" / PUBLIC)])
    assert (public.exit_code, public.output.splitlines()[-1]) == (0, "2 segments, 8 records")
    blind = run.invoke(app, ["audit", "verify", str(tmp_path / "audit")])
    assert (blind.exit_code, "give --keys" in blind.output) == (2, True)
    told = run.invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys"), "--json"])
    answer = json.loads(told.output)
    assert (told.exit_code, answer["whole"], answer["truncation_checked"]) == (0, True, True)
    assert [each["records"] for each in answer["segments"]] == [3, 5]


def test_a_torn_last_line_is_counted_and_no_damage(tmp_path: Path) -> None:
    _, last = written(tmp_path, 3, 5)
    with last.open("ab") as file:
        file.write(b'{"prev":"half')
    assert found(tmp_path)[1] == ["", ""]
    result = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")])
    assert result.exit_code == 0
    assert "never acknowledged" in result.output


@pytest.mark.parametrize("case", ["no segments", "no key", "a copy of a checkpoint that cannot be read"])
def test_what_cannot_be_verified_is_an_error(tmp_path: Path, case: str) -> None:
    first, *_ = written(tmp_path, 2)
    arguments = [str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")]
    if case == "no segments":
        first.unlink()
        arguments = [str(tmp_path / "audit")]
    elif case == "no key":
        (tmp_path / "keys" / PUBLIC).unlink()
    else:
        (copy,) = (tmp_path / "keys" / LOGS).iterdir()
        copy.write_text('{"note": "", "directory": ""}')
        with pytest.raises(AuditDamaged):
            LogEvidence.of([tmp_path / "keys"])
    assert CliRunner().invoke(app, ["audit", "verify", *arguments]).exit_code == 1


def test_segments_that_were_moved_are_found_where_they_are(tmp_path: Path) -> None:
    first, _ = written(tmp_path, 3, 5)
    archive = tmp_path / "archive"
    archive.mkdir()
    first.rename(archive / first.name)
    assert found(tmp_path)[1][0].startswith("missing")
    assert found(tmp_path, archive)[1] == ["", ""]


def test_a_segment_that_was_lost_while_it_was_written_is_missed_without_heads_too(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    log.append({"id": 1}, soon())
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    path.unlink()
    with pytest.raises(AuditUnavailable):
        log.append({"id": 2}, soon())
    log.append({"id": 3}, soon())
    log.close()
    *_, gone = sorted(verify([tmp_path / "audit"], LogEvidence()).segments, key=lambda each: each.file, reverse=True)
    assert (gone.writer, gone.wrong) == (path.stem, "missing: it had 1 records")


def sealed(keys: Path, audit: Path) -> int:
    """The records that there is a checkpoint of."""
    return sum(each.sealed or 0 for each in verdict(keys, audit).segments)


def test_seals_follow_within_a_second_and_do_not_need_another_record(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    log = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    (one,) = verdict(tmp_path / "keys", tmp_path / "audit").segments  # one without records already: it cannot go away unseen
    assert one.sealed == 0
    for number in range(10):
        log.append({"id": number}, soon())
    deadline = time.monotonic() + 10
    while sealed(tmp_path / "keys", tmp_path / "audit") < 10:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    log.close()


def test_a_checkpoint_that_cannot_be_kept_refuses_the_next_record(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    log = FileAudit(tmp_path / "audit", keys=keys)
    keys.rename(tmp_path / "away")
    log.append({"id": 1}, soon())
    with pytest.raises(AuditUnavailable):  # noqa: PT012 - about a second later
        for _ in range(300):
            log.append({"id": 2}, soon())
            time.sleep(0.01)
    (tmp_path / "away").rename(keys)
    log.append({"id": 3}, soon())
    log.close()
    assert found(tmp_path)[1] == [""]


def test_a_log_of_an_earlier_version_verifies_by_its_heads(tmp_path: Path) -> None:
    log = FileAudit(tmp_path / "audit")
    log.append({"id": 1}, soon())
    log.append({"id": 2}, soon())
    log.close()
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    *_, last = read_lines(path)
    (tmp_path / "keys" / FOLDER).mkdir(parents=True)
    head = {"bytes": last.end, "digest": last.digest, "seq": 2, "writer": path.stem}
    (tmp_path / "keys" / FOLDER / f"{path.stem}.json").write_bytes(canonical(head))
    assert found(tmp_path) == ([2], [""])
    cut = path.read_bytes().splitlines(keepends=True)[0]
    whole = path.read_bytes()
    path.write_bytes(cut)
    assert found(tmp_path)[1] == ["cut off: got 1 records, expected at least the 2 that it had"]
    path.write_bytes(whole)
    written(tmp_path, 1)  # this version goes on in the same directory
    assert found(tmp_path) == ([2, 1], ["", ""])
    path.write_bytes(cut)
    assert found(tmp_path)[1][0].startswith("cut off")


def test_a_gate_seals_with_a_key_beside_its_keys_and_a_verifier_where_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    server = Server(valkey_binary(), tmp_path / "server")
    try:
        with opened(tmp_path, store=server.url, audit=str(tmp_path / "audit"), keys=tmp_path / "keys") as gate:
            assert isinstance(gate, Gate)
            more: dict[str, Any] = {**GOOD, "audience": gate.issuer, "store": as_tool_server(server.url, gate.issuer)}
            (tmp_path / "file").touch()
            for named in ("file", "file/below"):
                with pytest.raises(ConfigError, match=f"'heads': got '{tmp_path / named}'"):
                    Verifier.open(gate.jwks(), **more, audit=str(tmp_path / "tool"), heads=str(tmp_path / named))
            heads = str(tmp_path / "not" / "there")  # it is made
            verifier = Verifier.open(gate.jwks(), **more, audit=str(tmp_path / "tool"), heads=heads)
            answer = run_of(gate).authorize("orders.get", ORDER)
            assert isinstance(answer, Allow)
            with verifier.redeem(answer.token.reveal(), tool="orders.get", args=ORDER):
                pass
            verifier.close()
    finally:
        server.stop()
    assert found(tmp_path) == ([2], [""])
    (tool,) = verdict(tmp_path / "not" / "there", tmp_path / "tool").segments
    assert (tool.records, tool.sealed, tool.wrong) == (2, 2, "")
