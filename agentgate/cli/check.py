"""``agentgate workflow lint``, ``test`` and ``check``: what is wrong with workflow files and
advised, their cases, and what CI runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from typer import Exit

from agentgate.cli.output import (
    WORKFLOWS,
    choose_form,
    complain,
    print_report,
    render,
    render_review,
    styled,
)
from agentgate.errors import problem_at
from agentgate.loading.source import below
from agentgate.review.check.reports import (
    SuiteReport,
    check_directory,
    lint_path,
    run_suite,
    write_cases,
)


def run_cases(
    path: Path = WORKFLOWS,
    verbose: bool = False,
    *,
    mutate: bool = False,
    proposing: bool = False,
    as_json: bool = False,
) -> None:
    """Run the cases of NAME.test.yaml beside each workflow.

    The real engine decides; nothing in the files is executed.
    """
    suites = []
    for source in below(path):
        suite = run_suite(source)
        if proposing and not as_json:
            suite, written = write_cases(suite)
            styled(written)
        suites.append(suite)
    surveys = [suite.survey() if mutate else None for suite in suites]
    render(SuiteReport(tuple(suites), tuple(surveys), verbose), choose_form(as_json=as_json))


def lint(
    path: Path = WORKFLOWS,
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
    raise Exit(report.status)


def check(
    directory: Path = WORKFLOWS,
    base: str | None = None,
    root: str | None = None,
    *,
    unsafe_unapproved: bool = False,
    require_index: bool = False,
    markdown: bool = False,
    html: Path | None = None,
    as_json: bool = False,
) -> None:
    """Check everything a reviewer would ask.

    Does it load, do its tests hold, what does it newly permit, who signed it.
    """
    form = choose_form(as_json=as_json, markdown=markdown)
    report = check_directory(
        directory,
        base=base,
        root=root,
        unsafe_unapproved=unsafe_unapproved,
        require_index=require_index,
    )
    render_review(report, form, html)
