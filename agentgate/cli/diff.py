"""``agentgate workflow diff``: which calls a change newly permits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from agentgate.audit.questions import Wanted, find_rows, read_moment, read_row, time_of
from agentgate.cli.audit import ask, tell_state
from agentgate.cli.output import choose_form, render_review, say, say_json
from agentgate.loading.source import find
from agentgate.review.report.comparison import compare_versions
from agentgate.review.report.past import Record, decide_again, retrial_lines, version_of


def diff(
    old: str,
    new: str,
    *,
    as_json: bool = False,
    markdown: bool = False,
    html: Path | None = None,
    audit: list[Path] | None = None,
    keys: list[Path] | None = None,
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
        rows = _recorded(
            audit, keys, None, Wanted({"workflow": after.id}, read_moment("7d", 0.0))
        )
        told = retrial_lines(decide_again(map(read_row, rows), before, after), "7 days")
        report = replace(
            report, changes=replace(report.changes, notes=(*report.changes.notes, *told))
        )
    render_review(report, form, html)


def replay(
    new: str,
    *,
    audit: list[Path],
    workflows: Path = Path("workflows"),
    keys: list[Path] | None = None,
    tenant: str = "",
    since: str = "7d",
    until: str = "",
    as_json: bool = False,
    cache: Path | None = None,
) -> None:
    """Which recorded calls another version of their workflow would have decided otherwise, and
    of which the records cannot tell.
    """
    after = find(new).workflow()
    wanted = Wanted(
        {"workflow": after.id, "tenant": tenant},
        read_moment(since, 0.0),
        read_moment(until, inf),
    )
    found = _recorded(audit, keys, cache, wanted)
    newest = dict[object, Record]()  # of each version
    for record in map(read_row, found):
        name = str(record["workflow"])
        newest[name] = max(record, newest.get(name, record), key=time_of)
    known = (
        version_of(each, workflows)
        for each in sorted(newest.values(), key=time_of, reverse=True)
    )
    counted = decide_again(map(read_row, found), next(filter(None, known), after), after)
    if as_json:
        say_json(counted)
    else:
        say(*retrial_lines(counted, since))


def _recorded(
    directories: list[Path], keys: list[Path] | None, cache: Path | None, wanted: Wanted
) -> Sequence[bytes]:
    """What is on record of a workflow."""
    log, found = ask(directories, keys, cache, lambda log: [*find_rows(log, wanted)])
    tell_state(log)
    return found
