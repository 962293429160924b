"""``agentgate workflow diff``: which calls a change newly permits."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from agentgate.cli.output import HTML, choose_form, refusing, render_review
from agentgate.cli.signing import Json
from agentgate.review.report.difference import compare_versions


def diff(
    old: Annotated[str, Argument(help="The approved version: a file, or REV:path.")],
    new: Annotated[str, Argument(help="The proposed version: a file, or REV:path.")],
    as_json: Json = False,
    markdown: Annotated[
        bool,
        Option(
            "--markdown",
            help="Print a comment for a pull request: at most 8 rows, the worst first.",
        ),
    ] = False,
    html: HTML = None,
) -> None:
    """Say which calls NEW permits and OLD did not, of all there can be; each with a value that shows it.

    What no program compares (an intent's words, another claim) is listed to be read by a person.
    """
    with refusing():
        form = choose_form(as_json=as_json, markdown=markdown)
        report = compare_versions(old, new)
    render_review(report, form, html)
