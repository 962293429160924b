"""The backup and the restore that docs/state.md describes: its commands, on real servers under two gates."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import Reason
from tests.preloaded import run as run_command
from tests.servers import redis_binary, valkey_binary
from tests.test_acts import ELSEWHERE, elsewhere
from tests.test_history import Shop, asked, paid, started

PAGE = (Path(__file__).parents[1] / "docs" / "state.md").read_text()
COMMANDS = dict(re.findall(r"^```sh\n# (\w[\w ]*)[^\n]*\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL))


VALKEY = pytest.param(valkey_binary, id="valkey", marks=pytest.mark.thorough("the page has the same commands for both"))


@pytest.fixture(params=[pytest.param(redis_binary, id="redis"), VALKEY])
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    made = Shop(tmp_path, request.param(), durable=True)
    yield made
    made.close()


def carry_out(shop: Shop, name: str) -> None:
    """The commands of the page under this name, where this shop's things are."""
    (shop.folder / "backup").mkdir(exist_ok=True)
    places = {
        "PORT": str(shop.server.port),
        "DATA": str(shop.server.folder),
        "BACKUP": str(shop.folder / "backup"),
        "STORE": shop.server.url,
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = COMMANDS[name]
    for documented, own in (("gate-1/audit", "gate"), ("gate-2/audit", "second"), ("payments/audit", "tool")):
        script = script.replace(documented, str(shop.folder / own))
    done = subprocess.run(
        ["bash", "-euc", script], env={**os.environ, **places, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


needs_redis_cli = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed (Debian: redis-tools)")


@needs_redis_cli
def test_a_backup_stops_nothing_and_a_restored_store_runs_nothing_twice(shop: Shop) -> None:
    run, shared = started(shop.gate), started(shop.gate)
    other = elsewhere(shop, shared)
    shop.verifier().close()  # a third log
    paid(run, "before")
    carry_out(shop, "backup")
    paid(run, "since")
    paid(other, "since")
    shop.server.stop()
    carry_out(shop, "restore")
    shop.server.start()
    carry_out(shop, "up to date")
    assert (asked(run, "before"), asked(run, "since")) == ({Reason.ALREADY_REDEEMED}, {Reason.ALREADY_REDEEMED})
    for handle in (shared, other):
        assert asked(handle, "since") == {Reason.ALREADY_REDEEMED}
    paid(shared, "new")
    paid(started(shop.gate))


@needs_redis_cli
def test_a_snapshot_stops_nothing(shop: Shop) -> None:
    run = started(shop.gate)
    carry_out(shop, "snapshot")
    assert (shop.folder / "backup" / "dump.rdb").exists()
    paid(elsewhere(shop, run))


@needs_redis_cli
def test_a_dump_that_attaches_is_named_by_the_doctor_with_its_end_and_ends_then(shop: Shop) -> None:
    run = started(shop.gate)
    other = elsewhere(shop, run)
    shop.server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    shop.server.command("CONFIG", "SET", "repl-backlog-ttl", "8")
    rdb = ["redis-cli", "-p", str(shop.server.port), "--rdb", str(shop.folder / "dump.rdb")]
    subprocess.run(rdb, capture_output=True, timeout=60, check=True)
    denial: Any = other.authorize("payments.refund", {}, tool_call_id="form")  # what is wrong otherwise is told first
    assert Reason.RUN_ELSEWHERE not in {each.reason for each in denial.failures}
    assert asked(other) == ELSEWHERE
    doctor = ("doctor", "--store", shop.server.url, "--json")
    told = run_command(*doctor).stdout
    assert "was attached lately" in told
    assert "this ends 8 s after it left (repl-backlog-ttl)" in told
    deadline = time.monotonic() + 20
    while "repl_backlog_active:1" in shop.server.command("INFO", "replication"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    paid(started(shop.gate))
    assert "attached lately" not in run_command(*doctor).stdout
