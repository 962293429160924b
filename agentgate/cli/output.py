"""Options, printing, failing and exit codes, shared by all commands.

Rules: 0 is yes, 2 is "a person must look" (something became wider, or is not approved), 1 is
every error, wrong options included, so that a script never takes a typing error for an answer.
Whatever a command prints goes through this module, a line at a time and `visible`: text of a
store, a file or a server moves no cursor, begins no line of its own and is no markup. No other
module of the commands prints (a test looks).
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table as Ruled
from rich.text import Text

from agentgate.errors import AgentGateError, ConfigError, WorkflowError
from agentgate.review.report.report import ExitStatus, Report, ReviewReport, Table, TextReport
from agentgate.shell import log
from agentgate.values.visible import visible

T = TypeVar("T")
YES = ExitStatus.YES
ERROR = ExitStatus.ERROR
LOOK = ExitStatus.LOOK
Form = Literal["text", "json", "markdown"]
WORKFLOWS = Path("workflows")  # the directory where none is named


@contextmanager
def refusing() -> Iterator[None]:
    """Turns every named error into its message on standard error and exit code 1; never a
    traceback.
    """
    try:
        yield
    except AgentGateError as error:
        from agentgate.approvals import ApprovalRefusal, ApprovalRefused  # noqa: PLC0415 - half a second that other commands do not need

        lines: list[object] = [*error.problems] if isinstance(error, WorkflowError) else [error]
        why = error.refused if isinstance(error, ApprovalRefused) else None
        if why and why.reason is ApprovalRefusal.ROOT_NOT_TRUSTED and why.data.get("absent"):
            lines.append(
                "Nobody signs here yet: agentgate init makes a first root, agentgate root "
                "draft a team's (docs/reviewing.md)."
            )
        fail(*lines)


def fail(*lines: object) -> NoReturn:
    """Print what is wrong, and exit with 1."""
    complain(*lines)
    raise typer.Exit(ERROR)


def exit_with(*, look: object) -> NoReturn:
    """End a command: a person must look, or not."""
    raise typer.Exit(LOOK if look else YES)


def complain(*lines: object, colour: str = "red") -> None:
    """Lines on standard error, visible, in colour at a terminal; after everything printed to
    standard output.
    """
    # buffered in a pipe: these lines would appear in the middle of one of its lines
    sys.stdout.flush()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(visible(line), style=colour))


def note(*lines: object, colour: str = "yellow") -> None:
    """Findings on standard output, visible, in colour at a terminal."""
    styled((str(line), colour) for line in lines)


def styled(lines: Iterable[tuple[str, str]]) -> None:
    """Lines on standard output, visible, each in its style at a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    for line, style in lines:
        console.print(Text(visible(line), style=style))


def terminal() -> Console | None:
    """The terminal that standard output is, or None."""
    console = Console(highlight=False)
    return console if console.is_terminal else None


def say(*lines: object) -> None:
    """Lines on standard output, visible, without markup."""
    for line in lines:
        print(visible(line))


def say_json(value: Any) -> None:
    """A JSON value, in ASCII (so nothing in it reaches a terminal raw)."""
    print(json.dumps(value, indent=2))


def choose_form(*, as_json: bool, markdown: bool = False) -> Form:
    """The form in which a report was asked for. Raises ConfigError: two of them."""
    if as_json and markdown:
        raise ConfigError("output", "--json and --markdown", "one of them")
    return "json" if as_json else "markdown" if markdown else "text"


def render(report: Report, form: Form) -> NoReturn:
    """Print a report in this form, and exit with its status."""
    if form == "json":
        say_json(report.to_json())
    else:
        print_report(report)
    raise typer.Exit(report.status)


def render_review(report: ReviewReport, form: Form, html: Path | None) -> NoReturn:
    """As `render`; `html`: the file for its page, too. Exits with 1 where it cannot be
    written.
    """
    if html:
        try:
            html.write_text(report.to_html(), "utf-8")
        except OSError as error:
            fail(f"{html}: {error.strerror}")
        complain(f"wrote {html}", colour="")
    if form == "markdown":
        say(*report.to_markdown())
        raise typer.Exit(report.status)
    render(report, form)


def print_report(report: TextReport) -> None:
    """Print a report as text, in colour at a terminal."""
    for part in report.text(max(80, shutil.get_terminal_size().columns)):
        if not isinstance(part, Table):
            styled([part])
        elif part.lines and not terminal():
            say(*part.lines)
        else:
            rows(part.head, part.body, styles=part.styles)


def rows(
    head: Sequence[str], body: Sequence[Sequence[object]], *, styles: Sequence[str] = ()
) -> None:
    """A table: ruled at a terminal, aligned text elsewhere. Heads and cells are made visible;
    an empty body prints nothing.
    """
    head = [visible(cell) for cell in head]
    shown = [[visible(cell) for cell in row] for row in body]
    if not shown:
        return
    console = terminal()
    if console:
        table = Ruled(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for cell in head:
            table.add_column(Text(cell))
        for row in shown:
            styled = zip(row, (*styles, *[""] * len(row)), strict=False)
            table.add_row(*(Text(cell, style=style, overflow="fold") for cell, style in styled))
        console.print(table)
        return
    widths = [max(len(row[i]) for row in [head, *shown]) for i in range(len(head))]
    for row in [head, *shown]:
        print(
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
        )


def table(columns: str, body: Sequence[Sequence[object]]) -> None:
    """`rows` under columns like ``bold:hold | state``: heads, each after its style."""
    named = [each.rpartition(":") for each in columns.split(" | ")]
    rows([head for *_, head in named], body, styles=[style for style, *_ in named])


def pairs(body: Iterable[tuple[str, str, str]]) -> None:
    """Lines with a label each, and its style at a terminal."""
    console = terminal()
    if not console:
        say(*(f"{label:<10}{line}".rstrip() for label, line, _ in body))
        return
    table = Ruled(box=None, show_header=False, pad_edge=False)
    for label, line, style in body:
        table.add_row(
            Text(visible(label), style="dim"), Text(visible(line), style=style, overflow="fold")
        )
    console.print(table)


def progress(work: Iterable[T], total: int, what: str = "verify") -> Iterable[T]:
    """The work, with a bar on standard error while it is done, at a terminal."""
    console = Console(stderr=True, highlight=False)
    return track(
        work,
        what,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def quiet(level: int = logging.ERROR) -> None:
    """Log from this level on, to standard error: standard output belongs to the command's
    answer.
    """
    log.configure(level)
