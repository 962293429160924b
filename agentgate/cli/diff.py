"""``agentgate workflow diff``: which calls a change newly permits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Option

from agentgate.audit.questions import Wanted, find_records, read_moment, time_of
from agentgate.cli.output import HTML, Json, choose_form, render_review, say
from agentgate.cli.records import Keys, Since, ask, tell_state
from agentgate.loading.source import find
from agentgate.review.report.comparison import compare_versions
from agentgate.review.report.past import Record, version_of
from agentgate.review.report.recorded import retrial_lines
from agentgate.workflow.model import Workflow


def diff(
    old: str,
    new: str,
    *,
    as_json: Json = False,
    markdown: bool = False,
    html: HTML = None,
    audit: Annotated[list[Path] | None, Option(exists=True)] = None,
    keys: Keys = None,
) -> None:
    """Say which calls NEW permits and OLD did not, of all there can be; each with a value that
    shows it.

    What no program compares (an intent's words, another claim) is listed to be read by a
    person.
    """
    form = choose_form(as_json=as_json, markdown=markdown)
    report = compare_versions(old, new)
    if audit:
        before = find(old).workflow()
        after = find(new).workflow()
        told = retrial_lines(_recorded(audit, keys, after, "7d"), before, after, "7 days")
        report = replace(
            report, changes=replace(report.changes, notes=(*report.changes.notes, *told))
        )
    render_review(report, form, html)


def replay(
    new: str,
    *,
    audit: Annotated[list[Path], Option(exists=True, file_okay=False)],
    workflows: Path = Path("workflows"),
    keys: Keys = None,
    since: Since = "7d",
) -> None:
    """Which recorded calls another version of their workflow would have decided otherwise, and
    of which the records cannot tell.
    """
    after = find(new).workflow()
    records = _recorded(audit, keys, after, since)
    before = next(
        filter(None, (version_of(each, workflows) for each in reversed(records))), after
    )
    say(*retrial_lines(records, before, after, since))


def _recorded(
    directories: list[Path], keys: list[Path] | None, workflow: Workflow, since: str
) -> Sequence[Record]:
    """What is on record of a workflow since then, by time."""
    wanted = Wanted({"workflow": workflow.id}, read_moment(since, 0.0))
    log, found = ask(
        directories, keys, None, lambda log: sorted(find_records(log, wanted), key=time_of)
    )
    tell_state(log)
    return found
