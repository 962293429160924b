"""``agentgate workflow test``: the cases beside workflows, decided by the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from agentgate.cli.output import WORKFLOWS, Json, choose_form, render, styled
from agentgate.loading.source import below
from agentgate.review.check.suite import SuiteReport, run_suite, write_cases


def run_cases(
    path: Annotated[Path, Argument()] = WORKFLOWS,
    verbose: Annotated[bool, Option("--verbose", "-v")] = False,
    *,
    mutate: bool = False,
    proposing: Annotated[bool, Option("--propose")] = False,
    as_json: Json = False,
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
