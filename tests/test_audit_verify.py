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
from agentgate.audit.heads import FOLDER, Head, kept
from agentgate.audit.segment import read_lines
from agentgate.audit.verify import verify
from agentgate.cli.main import app
from agentgate.errors import AuditDamaged, AuditUnavailable, ConfigError
from tests.servers import Server, as_tool_server, valkey_binary
from tests.shop import ORDER, WORKFLOW, opened, run_of
from tests.test_verifier import GOOD


def soon() -> float:
    return time.monotonic() + 5


def written(folder: Path, *counts: int) -> list[Path]:
    """Segments with this many records each, and their heads in ``keys``; oldest first."""
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    for count in counts:
        log = FileAudit(folder / "audit", heads=folder / "keys" / FOLDER)
        for number in range(count):
            log.append({"id": number}, soon())
        log.close()
    return sorted((folder / "audit").glob("*.jsonl"))


def found(folder: Path, *more: Path) -> tuple[list[int], list[str]]:
    """Records and what is wrong, of each segment."""
    answer = verify([folder / "audit", *more], kept(folder / "keys"))
    return [each.records for each in answer], [each.wrong for each in answer]


def test_a_whole_log_is_whole(tmp_path: Path) -> None:
    first, *_ = written(tmp_path, 3, 0, 5)
    assert found(tmp_path) == ([3, 0, 5], ["", "", ""])
    last = list(read_lines(first))[-1]
    assert kept(tmp_path / "keys")[first.stem] == Head(first.stem, 3, first.stat().st_size, last.digest)


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
    from agentgate.audit.segment import Segment, record_bytes

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


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        (cut_at_a_line, "cut off: got 2 records, expected at least the 4"),
        (emptied, "cut off: got 0 records, expected at least the 4"),
        (removed, "missing: it had 4 records"),
        (torn_in_the_middle, "cut off: got 2 records"),
        (made_anew, "record 4: got other content than was kept of it"),
        (one_byte, "line 3: got prev"),
        (a_copy, "more than one file has this writer's name"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_done_to_a_segment_is_named(tmp_path: Path, attack: Callable[[Path], None], wrong: str) -> None:
    first, _ = written(tmp_path, 4, 2)
    attack(first)
    more = [tmp_path / "elsewhere"] if (tmp_path / "elsewhere").exists() else []
    _, said = found(tmp_path, *more)
    assert said[0].startswith(wrong)
    assert said[-1] == ""
    result = CliRunner().invoke(app, ["audit", "verify", *map(str, [tmp_path / "audit", *more]), "--keys", str(tmp_path / "keys")])
    assert result.exit_code == 2
    assert wrong in result.output.replace("\n", " ")


def test_a_whole_log_exits_with_0_and_one_that_nothing_could_tell_with_2(tmp_path: Path) -> None:
    written(tmp_path, 3, 5)
    run = CliRunner()
    whole = run.invoke(app, ["audit", "verify", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")])
    assert (whole.exit_code, whole.output.splitlines()[-1]) == (0, "2 segments, 8 records")
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


@pytest.mark.parametrize("case", ["no segments", "no heads", "a head that cannot be read"])
def test_what_cannot_be_verified_is_an_error(tmp_path: Path, case: str) -> None:
    first, *_ = written(tmp_path, 2)
    if case == "no segments":
        first.unlink()
        shutil.rmtree(tmp_path / "keys")
        (tmp_path / "keys").mkdir()
        arguments = [str(tmp_path / "audit")]
    elif case == "no heads":
        shutil.rmtree(tmp_path / "keys" / FOLDER)
        arguments = [str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")]
    else:
        (tmp_path / "keys" / FOLDER / f"{first.stem}.json").write_text('{"seq": 1}')
        arguments = [str(tmp_path / "audit"), "--keys", str(tmp_path / "keys")]
        with pytest.raises(AuditDamaged):
            kept(tmp_path / "keys")
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
    *_, gone = verify([tmp_path / "audit"], {})
    assert (gone.writer, gone.wrong) == (path.stem, "missing: it had 1 records")


def heads(folder: Path) -> int:
    """The records that heads speak of."""
    return sum(head.seq for head in kept(folder).values())


def test_heads_follow_within_a_second_and_do_not_need_another_record(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    log = FileAudit(tmp_path / "audit", heads=tmp_path / "keys" / FOLDER)
    assert len(kept(tmp_path / "keys")) == 1  # one without records already: it cannot go away unseen
    for number in range(10):
        log.append({"id": number}, soon())
    deadline = time.monotonic() + 10
    while heads(tmp_path / "keys") < 10:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    log.close()


def test_heads_that_cannot_be_kept_refuse_the_next_record(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    log = FileAudit(tmp_path / "audit", heads=keys / FOLDER)
    shutil.rmtree(keys)
    log.append({"id": 1}, soon())
    with pytest.raises(AuditUnavailable):  # noqa: PT012 - about a second later
        for _ in range(300):
            log.append({"id": 2}, soon())
            time.sleep(0.01)
    keys.mkdir()
    log.append({"id": 3}, soon())
    log.close()
    assert len(kept(keys)) >= 1


def test_a_gate_keeps_heads_beside_its_keys_and_a_verifier_where_it_is_told(tmp_path: Path) -> None:
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
    (tool,) = verify([tmp_path / "tool"], kept(tmp_path / "not" / "there"))
    assert (tool.records, tool.kept, tool.wrong) == (2, 2, "")
