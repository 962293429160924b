"""``agentgate workflow check``: what CI runs on a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from agentgate.cli.output import (
    HTML,
    WORKFLOWS,
    Json,
    Markdown,
    Root,
    choose_form,
    render_review,
)
from agentgate.review.check.pull_request import check_directory


def check(
    directory: Annotated[Path, Argument(file_okay=False)] = WORKFLOWS,
    base: str | None = None,
    root: Root = None,
    *,
    unsafe_unapproved: bool = False,
    require_index: bool = False,
    markdown: Markdown = False,
    html: HTML = None,
    as_json: Json = False,
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
