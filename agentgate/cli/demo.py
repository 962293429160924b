"""``agentgate demo``: the examples, each tried in every way that must be refused (`demo_case`).

Rules: every row shows what happened, and is compared with the expected outcome; one wrong row, or something done that should not be,
exits with 1. Nothing leaves loopback.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from agentgate.cli import demo_case
from agentgate.cli.demo_row import Played, TableRow
from agentgate.cli.output import note, quiet, refusing, say, say_json, styled

_WIDEST = 110  # columns: longer lines are hard to read
_COLOUR = {"allowed": "green", "denied": "red", "held": "yellow"}
_CALLER = {"model": "the model sees", "host": "the host gets", "client": "the caller gets", "approver": "the approver gets"}


def demo(
    name: Annotated[str, typer.Argument(metavar="CASE", help="Which case; --list names them.")] = demo_case.FIRST,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the text.")] = False,
    list_cases: Annotated[bool, typer.Option("--list", help="Name the cases, and run none.")] = False,
) -> None:
    """Run a guarded case: what is minted, refused, held, and why.

    Without a name, the first look: a LangChain agent with a scripted model, the
    gate in the same process, an HTTP API on loopback. The cases: a served gate,
    tool servers and their callers as processes. Keys for this run only. Every
    outcome is checked: what happened, and for which reason.
    """
    if list_cases:
        for each, (_, what) in demo_case.CASES.items():
            say(f"{each:16} {what}")
        return
    with refusing():
        case = demo_case.case(name)
    raise typer.Exit(perform(case, as_json=as_json))


def perform(case: demo_case.DemoCase, *, as_json: bool = False) -> int:
    """Play a case and print it; the exit code."""
    quiet()  # the rows show what an operator's log would say
    if isinstance(case, demo_case.FoundingCase) and sys.stderr.isatty():
        note("A gate and its servers are starting; all of it takes ten to thirty seconds.")
    with refusing():
        played = case.play()
    return show(played, as_json=as_json)


def show(played: Played, *, as_json: bool) -> int:
    """Print the demo, as text (in colour at a terminal) or JSON; the exit code is 1 when a row or a payment is not the expected one."""
    if as_json:
        names = ("tried", "outcome", "code", "seen_by", "seen", "reason", "field", "detail", "rule", "as_expected")
        listed = [{name: getattr(row, "caller" if name == "seen_by" else name) for name in names} for row in played.rows]
        say_json({"ok": played.ok, "rows": listed, **played.facts, "seconds": round(played.seconds, 2)})
    else:
        styled(plain(played, min(shutil.get_terminal_size().columns, _WIDEST)))
    return 0 if played.ok else 1


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
