"""Records for whoever keeps logs elsewhere: as they are, as OCSF, as CEF; once, or as they are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate.audit import FileAudit, read_records
from agentgate.audit.retention import compress_segment
from agentgate.audit.segment import segment_files
from agentgate.cli.main import app
from agentgate.values.canonical import MAX_BYTES
from tests.deadlines import python_path

HOSTILE = 'a|b=c\\d\ne\r"f" \u202e CEF:0|x|y|1|z| act=deny suser=root'
CALL = {"tenant": "acme", "run": "run_1", "user": "lee", "agent": "bot", "tool": "payments.refund", "tool_call_id": "c", "txn": "txn_1"}
WORKFLOW = {"id": "shop.refund", "version": 3, "digest": "sha256:00"}
REASONS = [{"reason": "limit", "field": "limits"}, {"reason": "x"}]
DECIDED = {"type": "decision", **CALL, "workflow": WORKFLOW, "decision": "deny", "reasons": REASONS, "args": {"why": HOSTILE}}


def append(log: FileAudit, **record: Any) -> None:
    log.append({"time": round(time.time(), 6), **record}, time.monotonic() + 5)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FileAudit]:
    (tmp_path / "keys").mkdir(mode=0o700)
    made = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    append(made, **DECIDED)
    append(made, **{**DECIDED, "decision": "allow", "user": HOSTILE, "reasons": []})
    append(made, type="outcome", **CALL, workflow=WORKFLOW, outcome="done")
    append(made, type="overloaded", since=1.0, refused=1, at_once=1)
    yield made
    made.close()


def exported(folder: Path, *words: str) -> list[str]:
    done = CliRunner().invoke(app, ["audit", "export", str(folder / "audit"), *words])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_lines_are_the_records_with_their_segment_and_number(log: FileAudit, tmp_path: Path) -> None:
    lines = exported(tmp_path, "--jsonl")
    assert [json.loads(line) for line in lines] == [*read_records(tmp_path / "audit")]
    assert all(line.isascii() for line in lines)
    assert exported(tmp_path, "--jsonl", "--since", "2099-01-01") == []
    assert len(exported(tmp_path, "--jsonl", "--since", "1h")) == 4


def test_an_event_of_ocsf_has_what_its_class_must_have(log: FileAudit, tmp_path: Path) -> None:
    """https://schema.ocsf.io/1.3.0/classes/api_activity with the profile security_control."""
    denied, allowed, done, other = (json.loads(line) for line in exported(tmp_path, "--ocsf"))
    for event, record in zip((denied, allowed, done, other), read_records(tmp_path / "audit"), strict=True):
        for name in (
            "activity_id",
            "actor",
            "api",
            "category_uid",
            "class_uid",
            "metadata",
            "severity_id",
            "src_endpoint",
            "time",
            "type_uid",
        ):
            assert event[name], name
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["class_uid"] // 1000 == event["category_uid"]
        assert event["metadata"]["product"]["vendor_name"]
        assert event["metadata"]["profiles"] == ["security_control"]
        assert event["time"] == int(record["time"] * 1000)
        assert event["unmapped"] == record
    assert (denied["action_id"], denied["action"], denied["status_detail"]) == (2, "Denied", "limit")
    assert (allowed["action_id"], allowed["actor"]["user"]["uid"]) == (1, HOSTILE)
    assert (done["status_id"], done["status"], done["activity_name"]) == (1, "Success", "outcome")
    assert done["api"] == {"operation": "payments.refund", "request": {"uid": "c"}, "service": {"name": "shop.refund", "uid": "sha256:00"}}
    assert denied["metadata"]["correlation_uid"] == "txn_1"
    assert (other["api"]["operation"], other["actor"]["app_name"], other["action_id"]) == ("overloaded", "agentgate", 0)


def cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Read as the CEF guide says: pipes of the head and equals signs of values are escaped, and whatever follows a backslash is not one."""
    parts = [part.replace("\\|", "|").replace("\\\\", "\\") for part in re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)]
    rest = parts.pop()
    found: dict[str, str] = {}
    words, name = rest.split(" "), ""
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.isalnum():
            name, found[key] = key, value
        else:
            found[name] += f" {word}"
    plain = {"\\n": "\n", "\\r": "\r", "\\=": "=", "\\\\": "\\"}
    return parts, {key: "".join(plain.get(each, each) for each in _pieces(value)) for key, value in found.items()}


def _pieces(value: str) -> Iterator[str]:
    rest = iter(value)
    for char in rest:
        yield char + next(rest, "") if char == "\\" else char


def test_a_line_of_cef_cannot_be_broken_by_what_stands_in_it(log: FileAudit, tmp_path: Path) -> None:
    append(log, type="decision", tool=HOSTILE, agent=HOSTILE, decision="step_up")
    lines = exported(tmp_path, "--cef")
    assert len(lines) == 5
    (denied, told), (_, allowed), (done, _), (other, _), (held, hostile) = map(cef, lines)
    assert denied == ["CEF:0", "agentgate", "agentgate", "1", "decision", "payments.refund", "5"]
    assert (told["suser"], told["act"], told["reason"], told["externalId"]) == ("lee", "deny", "limit", "txn_1")
    assert (told["cs3Label"], told["cs3"], told["cn1"]) == ("workflow", "shop.refund", "3")
    assert allowed["act"] == "allow"
    assert allowed["suser"].replace("\\u202e", "\u202e") == HOSTILE
    assert (done[4], other[4:]) == ("outcome", ["overloaded", "overloaded", "1"])
    assert (held[6], hostile["act"]) == ("3", "step_up")
    assert held[5].replace("\\u202e", "\u202e").replace("\\n", "\n").replace("\\r", "\r")[:3] == HOSTILE[:3]
    assert not [line for line in lines if "\n" in line or "\r" in line or "\u202e" in line]


@pytest.mark.parametrize("words", [[], ["--jsonl", "--cef"], ["--ocsf", "--since", "yesterday"]])
def test_a_form_is_named_once(log: FileAudit, tmp_path: Path, words: list[str]) -> None:
    done = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "audit"), *words])
    assert (done.exit_code, "expected" in done.stderr) == (1, True)


def test_a_chain_that_breaks_is_told_and_the_others_go_on(log: FileAudit, tmp_path: Path) -> None:
    log.close()
    (first,) = segment_files(tmp_path / "audit")
    more = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
    append(more, type="decision", user="later")
    more.close()
    first.write_bytes(first.read_bytes().replace(b'"outcome":"done"', b'"outcome":"dOne"'))
    done = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "audit"), "--jsonl"])
    assert (done.exit_code, "later" in done.stdout, "prev" in done.stderr) == (1, True, True)


@contextmanager
def following(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": python_path(str(Path(__file__).parent.parent))}
    command = [sys.executable, "-m", "agentgate", "audit", "export", str(folder / "audit"), "--follow", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_is_written_from_now_on_follows_also_in_another_segment_and_nothing_twice(log: FileAudit, tmp_path: Path) -> None:
    with following(tmp_path, "--jsonl") as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["seq"] for _ in range(4)] == [1, 2, 3, 4]
        append(log, type="decision", user="a")
        assert json.loads(process.stdout.readline())["user"] == "a"
        log.close()
        (first,) = segment_files(tmp_path / "audit")
        compress_segment(first)
        more = FileAudit(tmp_path / "audit", keys=tmp_path / "keys")
        append(more, type="decision", user="b")
        assert json.loads(process.stdout.readline())["user"] == "b"
        first.with_name(f"{first.name}.gz").unlink()
        append(more, type="decision", user="c")
        more.close()
        assert json.loads(process.stdout.readline())["user"] == "c"


def test_no_line_is_lost_or_printed_twice_through_rotation_compression_and_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgate.audit.segment.LARGE", 2 << 20)
    (tmp_path / "keys").mkdir(mode=0o700)
    audit, seen, made = tmp_path / "audit", list[str](), list[str]()

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        while len(seen) < len(made):
            record = json.loads(process.stdout.readline())
            seen.extend([record["user"]] if record["type"] == "decision" else [])

    with following(tmp_path, "--jsonl") as process:
        for round_ in range(4):
            log = FileAudit(audit, keys=tmp_path / "keys")  # another process's segment; with every second one that rotates by its size
            for number in range(3 if round_ % 2 else 160):
                made.append(f"{round_}.{number}")
                append(log, type="decision", user=made[-1], met=["x" * (20_000 if number > 2 else 1)])
            if round_ == 2:
                read(process)
            log.close()
            first = next(path for path in segment_files(audit) if path.suffix == ".jsonl")
            if round_ == 1:
                compress_segment(first)  # whether or not it was read until here
            elif round_ == 2:
                done = CliRunner().invoke(app, ["audit", "prune", str(audit), "--keys", str(tmp_path / "keys"), "--before", "2099-01-01"])
                assert (done.exit_code, " segments removed" in done.stdout) == (0, True), done.output
        read(process)
        append(last := FileAudit(audit, keys=tmp_path / "keys"), type="decision", user="end")
        last.close()
        made.append("end")
        read(process)
    assert sorted(seen) == sorted(made)
    for name in "0123":
        assert [each for each in seen if each.startswith(f"{name}.")] == [each for each in made if each.startswith(f"{name}.")]


# As https://vector.dev/docs/reference/configuration/sources/file, .../exec and .../transforms/remap name them, and
# https://docs.fluentbit.io/manual/data-pipeline/inputs/tail.
VECTOR = {
    "file": {"type", "include", "exclude", "max_line_bytes", "read_from", "oldest_first", "fingerprint", "glob_minimum_cooldown_ms"},
    "exec": {"type", "mode", "command", "include_stderr", "decoding", "streaming", "framing", "environment", "working_directory"},
    "remap": {"type", "inputs", "source", "drop_on_error", "drop_on_abort"},
}
FLUENT_BIT = {
    "SERVICE": {"Flush", "Daemon", "Log_Level", "Parsers_File"},
    "INPUT": {"Name", "Path", "Parser", "DB", "DB.Compare_Filename", "Buffer_Max_Size", "Buffer_Chunk_Size", "Read_from_Head", "Tag"},
}


def recipes(language: str) -> list[str]:
    page = (Path(__file__).parent.parent / "docs" / "audit.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_recipes_are_of_the_form_that_their_tools_describe_and_read_what_a_log_has(log: FileAudit, tmp_path: Path) -> None:
    (segment,) = segment_files(tmp_path / "audit")
    tailed, run = map(tomllib.loads, recipes("toml"))
    for each in (*tailed["sources"].values(), *tailed["transforms"].values(), *run["sources"].values()):
        assert each.keys() <= VECTOR[each["type"]]
    (tail,), (remap,), (command,) = tailed["sources"].values(), tailed["transforms"].values(), run["sources"].values()
    assert remap["inputs"] == [*tailed["sources"]]
    assert tail["max_line_bytes"] >= MAX_BYTES
    (pattern,) = tail["include"]
    assert fnmatch(segment.name, Path(pattern).name)
    names = [f".{name}" for name in ("writer", "seq")]
    assert remap["source"].splitlines() == [
        "line = object!(parse_json!(.message))",
        ". = object!(line.record)",
        *(f"{n} = line{n}" for n in names),
    ]
    lines = [json.loads(line) for line in segment.read_text().splitlines()]
    assert [{**line["record"], "writer": line["writer"], "seq": line["seq"]} for line in lines] == [*read_records(tmp_path / "audit")]
    program, *words = [str(tmp_path / "audit") if word.startswith("/") else word for word in command["command"] if word != "--follow"]
    assert (program, command["mode"], command["decoding"]) == ("agentgate", "streaming", {"codec": "json"})
    done = CliRunner().invoke(app, words)
    assert [json.loads(line)["metadata"]["sequence"] for line in done.stdout.splitlines()] == [1, 2, 3, 4]
    (ini,) = recipes("ini")
    for name, body in re.findall(r"\[(\w+)\]\n((?: .*\n)+)", ini):
        keys = dict(line.split(maxsplit=1) for line in body.splitlines())
        assert keys.keys() <= FLUENT_BIT[name]
    assert fnmatch(segment.name, Path(keys["Path"]).name)
    assert int(keys["Buffer_Max_Size"].removesuffix("k")) * 1024 > MAX_BYTES


def test_whoever_stops_reading_ends_it(log: FileAudit, tmp_path: Path) -> None:
    with following(tmp_path, "--cef") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("CEF:0|")
        process.stdout.close()
        for number in range(20):
            append(log, type="decision", user=f"u{number}")
            time.sleep(0.2)
            if process.poll() is not None:
                break
        assert process.wait(timeout=10) in {1, 141}
        process.stdout = None
