"""Run the benchmarks, print the table and write the JSON: ``python -m tests.benchmarks [--quick] [--only GROUP] [--json FILE]``.

``python -m tests.benchmarks scale`` measures gates and shards instead (`tests.benchmarks.scaling`), and ``yeses`` what a user's yes is
worth to them and to an attacker (`tests.benchmarks.yeses`), or one that is ``remembered`` (`tests.benchmarks.remembering`).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.benchmarks import remembering, scaling, yeses
from tests.benchmarks.row import FULL, QUICK, Row, Scale
from tests.benchmarks.rows import GROUPS, rounds

ROOT = Path(__file__).parents[2]
PACKAGES = ("cryptography", "orjson", "google-re2", "redis", "fakeredis", "pydantic", "langchain-core", "tenuo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 when everything was measured (whether or not targets were met)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["scale"]:
        return scaling.main(words[1:])
    if words[:1] == ["yeses"]:
        return yeses.main(words[1:])
    if words[:1] == ["remembered"]:
        return remembering.main(words[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="agentgate's speed, as ratios measured side by side.")
    parser.add_argument("--quick", action="store_true", help="a few rounds and workflows only: does it run? (the numbers mean nothing)")
    parser.add_argument("--only", action="append", choices=list(GROUPS), help="measure this group of rows only (may be repeated)")
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "bench.json", help="where the result is written (%(default)s)")
    chosen = parser.parse_args(words)
    # the gates opened here warn that nobody signed their workflows, as they should; it is no news in a benchmark
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    scale = QUICK if chosen.quick else FULL
    console = Console() if sys.stdout.isatty() else Console(width=120)
    rows = measure(chosen.only or list(GROUPS), scale, console)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(report(rows, quick=chosen.quick), indent=2) + "\n", encoding="utf-8")
    show(rows, console)
    console.print(f"written to {chosen.json}")
    return 0


def measure(groups: Sequence[str], scale: Scale, console: Console) -> list[Row]:
    """All rows of some groups, one after another, with a progress bar on a terminal and a line per group elsewhere."""
    steps = rounds(scale)
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    # drawn between the rounds, never by a thread of its own beside them
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=sum(steps[name] for name in groups))
        for name in groups:
            progress.update(task, description=name)
            if not console.is_terminal:
                console.print(f"measuring {name}")
            rows += _driven(GROUPS[name](scale), progress, task)
    return rows


def _driven(measuring: Any, progress: Progress, task: Any) -> list[Row]:
    shown = 0.0
    while True:
        try:
            next(measuring)
        except StopIteration as done:
            progress.refresh()
            found: list[Row] = done.value
            return found
        progress.advance(task)
        if time.monotonic() - shown > 0.2:
            progress.refresh()
            shown = time.monotonic()


def report(rows: Sequence[Row], *, quick: bool) -> dict[str, Any]:
    """The result as JSON: the rows by name, the machine, and the versions of what was measured."""
    return {
        "quick": quick,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": {row.name: {**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), **{name: found for name in PACKAGES if (found := _version(name))}},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "B":
        return f"{value / 1024:.1f} kB"
    return f"{value:.2f} x" if unit == "x" else f"{value:,.1f} us"


def show(rows: Sequence[Row], console: Console) -> None:
    """The table, with what each row was measured against below it."""
    table = Table(title="agentgate, measured side by side (medians)", title_justify="left")
    for heading in ("row", "median", "baseline", "result", "target", "met", "audit"):
        table.add_column(heading, justify="left" if heading in {"row", "met", "audit"} else "right", no_wrap=True)
    for row in rows:
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row.met]
        result, target = _amount(row.value, row.unit), _amount(row.target, row.unit)
        table.add_row(
            row.name,
            _amount(row.median_us, "us"),
            _amount(row.baseline_us, "us"),
            result,
            target,
            met,
            "on disk" if row.durable else "not durable",
        )
    console.print(table)
    for row in rows:
        console.print(f"{row.name}: {row.note}{'; against ' + row.baseline if row.baseline else ''}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
