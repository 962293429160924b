"""Carry out the faults, print the table and its totals: ``python -m tests.faults [--row NAME] [--server redis|valkey] [--json FILE]``.

Exits 1 if a call was executed twice or a token accepted twice in any row, and 2 if a row could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agentgate.errors import AgentGateError
from tests.faults.disk import in_own_namespace, may_mount
from tests.faults.measure import Row, measure, totals
from tests.faults.rows import BY_NAME, FAULTS, Fault
from tests.faults.shop import EARLIER, FLYING, MEANWHILE, MINTED, SINCE
from tests.servers import redis_binary, valkey_binary

PHASES = (EARLIER, MINTED, SINCE, FLYING, MEANWHILE)
BINARIES = {"redis": redis_binary, "valkey": valkey_binary}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; see above for the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="What faults of the store, disks and clocks make of calls, on real servers of its own.",
        epilog="For example: make faults ARGS=\"--row 'clean restart' --server valkey\"; names of rows: " + "; ".join(BY_NAME),
    )
    parser.add_argument("--row", action="append", choices=list(BY_NAME), metavar="NAME", help="only this row (may be repeated)")
    parser.add_argument("--server", action="append", choices=list(BINARIES), help="only on this server (default: both)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file (- for standard output, no table)")
    chosen = parser.parse_args(arguments)
    faults = [BY_NAME[name] for name in chosen.row] if chosen.row else list(FAULTS)
    if any(fault.disk for fault in faults):
        in_own_namespace()
    bare = str(chosen.json) == "-"
    console = Console(stderr=bare) if sys.stdout.isatty() else Console(width=200, stderr=bare)
    rows, unmeasured = _measured(faults, chosen.server or list(BINARIES), console)
    if not bare:
        show(rows, console)
    for name, why in unmeasured.items():
        console.print(f"not measured: {name}: {why}", highlight=False, soft_wrap=True)
    for name in dict.fromkeys(row.name for row in rows if not row.holds):
        console.print(f"twice: {name}", style="red", highlight=False, soft_wrap=True)
    counted = totals(rows)
    line = ", ".join(f"{value} {name}" for name, value in counted.items())
    console.print(f"{line}, {len(unmeasured)} not measured", highlight=False, soft_wrap=True)
    if chosen.json is not None:
        text = json.dumps(report(rows, counted, unmeasured), indent=2) + "\n"
        sys.stdout.write(text) if bare else chosen.json.write_text(text, encoding="utf-8")
    return verdict(rows, unmeasured)


def verdict(rows: Sequence[Row], unmeasured: dict[str, str]) -> int:
    """The exit code."""
    return 1 if not all(row.holds for row in rows) else 2 if unmeasured else 0


def _measured(faults: Sequence[Fault], servers: Sequence[str], console: Console) -> tuple[list[Row], dict[str, str]]:
    rows: list[Row] = []
    unmeasured: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(faults) * len(servers))
        for server in servers:
            for fault in faults:
                progress.update(task, description=f"{server}: {fault.name}")
                if not console.is_terminal:
                    console.print(f"{server}: {fault.name}", highlight=False)
                if fault.disk and not may_mount():
                    unmeasured[f"{server}: {fault.name}"] = "a small disk needs Linux, and root or user namespaces (unshare --user --mount)"
                elif fault.watched == "cluster" and server != "valkey":
                    unmeasured[f"{server}: {fault.name}"] = "a cluster needs Redis 8.4"
                else:
                    try:
                        rows.append(measure(fault, BINARIES[server](), server))
                    except AgentGateError as error:  # before the fault, or while it is mended
                        unmeasured[f"{server}: {fault.name}"] = f"{type(error).__name__}: {error}"
                progress.advance(task)
    return rows, unmeasured


def report(rows: Sequence[Row], counted: dict[str, int], unmeasured: dict[str, str]) -> dict[str, Any]:
    """Everything as JSON: the rows, their totals, the machine and the versions."""
    return {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), **{name: _version(path()) for name, path in BINARIES.items()}},
        "rows": [{**asdict(row), "holds": row.holds} for row in rows],
        "unmeasured": unmeasured,
        "totals": counted,
    }


def _version(binary: str) -> str:
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split("v=")[1].split()[0]


def show(rows: Sequence[Row], console: Console) -> None:
    """The table: a line for each fault, for both servers where they differ in nothing but times."""
    table = Table(title="what faults make of calls (answers in the order in which they came)", title_justify="left", pad_edge=False)
    for heading in ("fault", "while it lasts", *(f"then: {phase}" for phase in PHASES)):
        table.add_column(heading, overflow="fold")
    for heading in ("slowest", "tokens twice", "calls twice", "forgotten"):
        table.add_column(heading, justify="right")
    table.add_column("goes on")
    for cells in lines(rows):
        table.add_row(*cells, style="red" if cells[-4] != "0" or cells[-3] != "0" else "")
    console.print(table)


def lines(rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells."""
    found: list[list[str]] = []
    for name in dict.fromkeys(row.name for row in rows):
        alike: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            if row.name == name:
                alike.setdefault(
                    (_told(*row.lasting.values()), *(_told(row.then.get(phase, {})) for phase in PHASES), row.remedy), []
                ).append(row)
        for (*answers, remedy), same in alike.items():
            title = name if len(alike) == 1 else f"{name} ({', '.join(row.server for row in same)})"
            slowest, recovered = max(row.slowest for row in same), max(row.recovered or 0 for row in same)
            found.append(
                [
                    title,
                    *answers,
                    f"{slowest * 1000:.0f} ms",
                    str(sum(len(row.tokens_twice) for row in same)),
                    str(sum(len(row.calls_twice) for row in same)),
                    f"{sum(row.forgotten for row in same)} of {sum(row.done for row in same)}",
                    f"after {remedy}" if remedy else f"by itself, {recovered:.1f} s",
                ]
            )
    return found


def _told(*answers: dict[str, int]) -> str:
    """Each answer once; that a call which was done is done already goes without saying."""
    told = list(dict.fromkeys(answer for each in answers for answer in each))
    if len(answers) == 1 and "done" in told:
        told = [answer for answer in told if answer != "already_done"]
    return ", ".join(told)


if __name__ == "__main__":
    sys.exit(main())
