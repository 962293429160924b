"""Rows of starting up: CPU time of `agentgate --help` and `--version` against a bare typer application with one command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.row import Measuring, Row, Scale

_BARE = """
import typer
app = typer.Typer(add_completion=False)
@app.command()
def hello(name: str = "you") -> None:
    '''Say hello.'''
    print(name)
app()
"""


def _cpu(command: list[str]) -> float:
    """User and system seconds of one run, waited for."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise ValueError(f"{command} exited with {child.returncode}")
    return used.ru_utime + used.ru_stime


def startup(scale: Scale) -> Measuring:
    """What a person waits for before the first line; the processes take turns."""
    with tempfile.TemporaryDirectory(prefix="agentgate-bench-") as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(_BARE, encoding="utf-8")
        pairs = {
            "startup": ([sys.executable, "-m", "agentgate", "--help"], [sys.executable, str(bare), "--help"]),
            "startup_version": ([sys.executable, "-m", "agentgate", "--version"], [sys.executable, str(bare)]),
        }
        times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pairs}
        for _ in range(turns(scale)):
            for name, sides in pairs.items():
                for side, into in zip(sides, times[name], strict=True):
                    into.append(_cpu(side) * 1e6)
            yield
    rows = []
    for name, (measured, baseline) in times.items():
        ours, theirs = median(measured), median(baseline)
        note = f"CPU time of agentgate {pairs[name][0][-1]}, a new process each time"
        rows.append(Row(name, ours, "a bare typer application", theirs, ours / theirs, "x", 2.0, False, note))
    return rows


def turns(scale: Scale) -> int:
    """How often each command is started."""
    return max(3, scale.trips // 75)
