"""``agentgate workflow lint``: everything that is wrong with workflow files, and what is
advised.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from agentgate.cli.output import complain, print_report
from agentgate.errors import problem_at
from agentgate.review.check.lint import lint_path


def lint(
    path: Annotated[Path, typer.Argument()] = Path("workflows"),
    *,
    strict: bool = False,
) -> None:
    """Check workflow files: every problem with its place, what was expected and what was
    probably meant.

    Warnings name what loads and deserves a second look: arguments that the model writes and no
    step-up shows, arguments steered by reads that the model chooses, ids that are not tied to
    the values beside them, what is not pinned, and what a draft left to decide (# DECIDE:). Of
    each required argument of a tool that acts, they say where no prompt gives it its value
    without a person (impossible), or none could be made up or found in the tests (not shown).
    """
    report = lint_path(path, strict=strict)
    if not report.loaded and not report.problems:
        got = "no workflow file"
        expected = "at least one *.yaml below the folder"
        nothing = problem_at(str(path), 1, 1, "workflows", got, expected)
        report = replace(report, problems=(nothing,))
    print_report(report)
    for line, colour in report.summary():
        complain(line, colour=colour)
    raise typer.Exit(report.status)
