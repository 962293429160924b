"""A demo as it is shown: as text, in colour at a terminal, or as JSON."""

from __future__ import annotations

import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentgate.cli.output import note, quiet, refusing, say_json, styled
from agentgate_demo.case import DemoCase, FoundingCase
from agentgate_demo.row import Played, TableRow

_WIDEST = 110  # columns: longer lines are hard to read
_COLOUR = {"allowed": "green", "denied": "red", "held": "yellow"}
_CALLER = {"model": "the model sees", "host": "the host gets", "client": "the caller gets", "approver": "the approver gets"}


def perform(case: DemoCase, *, as_json: bool = False) -> int:
    """Play a case and print it; the exit code."""
    quiet()  # the rows show what an operator's log would say
    if isinstance(case, FoundingCase) and sys.stderr.isatty():
        note("A gate and its servers are starting; all of it takes ten to thirty seconds.")
    with refusing(), _ending_on_sigterm():
        played = case.play()
    return show(played, as_json=as_json)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Servers that a case started end with it, also where somebody ends the demo."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show(played: Played, *, as_json: bool) -> int:
    """Print a demo; the exit code is 1 when a row or a payment is not the expected one."""
    if as_json:
        say_json(to_json(played))
    else:
        styled(plain(played, min(shutil.get_terminal_size().columns, _WIDEST)))
    return 0 if played.ok else 1


def to_json(played: Played) -> dict[str, Any]:
    """The demo for a program."""
    names = ("tried", "outcome", "code", "seen_by", "seen", "reason", "field", "detail", "rule", "as_expected")
    rows = [{name: getattr(row, "caller" if name == "seen_by" else name) for name in names} for row in played.rows]
    return {"ok": played.ok, "rows": rows, **played.facts, "seconds": round(played.seconds, 2)}


def _entries(row: TableRow) -> list[tuple[str, str]]:
    """Who sees which text."""
    seen = row.seen if row.code == "ok" or row.code in row.seen else f"{row.code}: {row.seen}"
    why = row.detail if not row.reason or row.detail.startswith(f"{row.reason}:") else f"{row.reason}: {row.detail}"
    entries = [(_CALLER[row.caller], seen), ("the operator sees", why)]
    return [*entries, ("because of", row.rule)] if row.rule else entries


def _verdict(row: TableRow) -> str:
    return row.outcome if row.as_expected else f"{row.outcome}, WRONG"


def plain(played: Played, width: int) -> Iterator[tuple[str, str]]:
    """The demo as text, at most so many columns wide: each line with its style at a terminal."""
    yield from ((line, "") for line in textwrap.wrap(played.intro, width))
    for number, row in enumerate(played.rows, 1):
        colour = _COLOUR[row.outcome] if row.as_expected else "white on red"
        yield "", ""
        tried = textwrap.wrap(f"{number}. {_verdict(row).upper():8} {row.tried}", width, subsequent_indent=" " * 12)
        yield from ((line, f"bold {colour}") for line in tried)
        for name, text in _entries(row):
            first = f"    {name:>18}  "
            lines = textwrap.wrap(
                text, width, initial_indent=first, subsequent_indent=" " * 24, break_long_words=False, break_on_hyphens=False
            )
            yield from ((line, "") for line in lines)
    yield "", ""
    yield from ((line, "bold green" if played.honest else "bold red") for line in textwrap.wrap(played.ending, width))
    yield "", ""
    yield "What to do next:", "bold"
    for what, command in played.steps:
        yield f"  {what}", "dim"
        yield f"    {command}", ""
