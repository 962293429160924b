"""The log of a process whose host configured nothing: standard error, never standard output; JSON where that is no terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.preloaded import Forked, run_code
from tests.shop import WORKFLOW

PROGRAM = """
import sys
from datetime import UTC, datetime
from agentgate import Agent, Gate, User
office = datetime(2026, 6, 2, 9, 30, tzinfo=UTC)  # the workflow has office hours
gate = Gate.open_unsafe_unapproved(sys.argv[1], issuer="https://gate.acme.example", audit="memory://", clock=lambda: office)
run = gate.open_run("shop.refund", tenant="acme", user=User("lee", tenant="acme", groups=("support",)), agent=Agent("bot"),
                    prompt="Please refund order ORD-10023344, it arrived broken")
run.authorize("orders.get", {"order_id": "ORD-99999999"}, tool_call_id="call_1")
run.authorize("made.up.by.a.model", {}, tool_call_id="call_2")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "refund.yaml").write_text(WORKFLOW)
    return tmp_path


def test_a_refusal_without_any_framework_is_one_json_line_on_standard_error(folder: Path) -> None:
    done = run_code(PROGRAM, str(folder))
    assert (done.returncode, done.stdout) == (0, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told, unknown = (line for line in lines if line["event"] == "call_refused")
    assert (told["level"], told["tool"], told["tool_call_id"], told["tenant"]) == ("warning", "orders.get", "call_1", "acme")
    assert told["run"].startswith("run_")
    assert told["reasons"][0].startswith("argument_origin: args.order_id: got (not shown), expected a value from prompt [")
    assert f"{folder}/refund.yaml:" in told["reasons"][0]
    assert "ORD-99999999" not in done.stderr
    assert (unknown["tool"], unknown["tool_call_id"]) == ("(not of this workflow)", "call_2")
    assert "made.up" not in done.stderr


def test_at_a_terminal_it_is_text_for_people(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with TemporaryFile() as out:
        with os.fdopen(theirs, "wb") as terminal:
            assert Forked(PROGRAM, str(folder), stdout=out, stderr=terminal, env=os.environ, cwd=folder).wait(60) == 0
        assert out.seek(0, os.SEEK_END) == 0
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert b"call_refused" in shown
    assert not shown.lstrip().startswith(b"{")


def test_a_host_that_configured_its_log_keeps_it(folder: Path) -> None:
    own = "import structlog\nstructlog.configure(processors=[structlog.processors.LogfmtRenderer()])\n"
    done = run_code(own + PROGRAM, str(folder))
    assert "event=call_refused" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("how", ["closed later", "a full device"])
def test_where_nothing_can_be_logged_any_more_a_call_is_refused_all_the_same(folder: Path, how: str) -> None:
    later = "sys.stderr.close()\n" if how == "closed later" else ""
    program = PROGRAM.replace("run.authorize(", f"{later}said = run.authorize(", 1) + "print(type(said).__name__)\n"
    with TemporaryFile() as out, Path("/dev/full").open("wb") if how == "a full device" else TemporaryFile() as err:
        Forked(program, str(folder), stdout=out, stderr=err, env=os.environ, cwd=folder).wait(60)
        out.seek(0)
        assert out.read() == b"Deny\n"


def test_where_nothing_could_ever_be_logged_a_call_is_refused_all_the_same(folder: Path) -> None:
    program = PROGRAM.replace("run.authorize(", "said = run.authorize(", 1) + "print(type(said).__name__)\n"
    shell = 'exec "$0" -c "$1" "$2" 2>&-'
    done = subprocess.run(["/bin/sh", "-c", shell, sys.executable, program, str(folder)], stdout=subprocess.PIPE, text=True, check=False)
    assert done.stdout == "Deny\n"
