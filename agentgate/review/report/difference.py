"""The report of ``agentgate workflow diff``: one change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from agentgate.loading.source import find, lend_roles
from agentgate.review.report.changes import Changes, as_json, comment, page, plain
from agentgate.review.report.comparison import changes_between
from agentgate.review.report.report import ExitStatus, Line
from agentgate.review.report.signers import still_to_sign
from agentgate.values.value_class import value_class


@value_class
class DiffReport:
    """What a proposed version permits that the approved one did not. `compared`: which two, in
    words.
    """

    changes: Changes
    compared: str

    @property
    def status(self) -> ExitStatus:
        """Whether a person must look."""
        return ExitStatus.LOOK if self.changes.looks else ExitStatus.YES

    def text(self, width: int) -> Iterator[Line]:
        """See `Report`."""
        return plain(self.changes, width)

    def to_json(self) -> dict[str, Any]:
        """See `Report`."""
        return as_json(self.changes)

    def to_markdown(self) -> Iterator[str]:
        """See `Report`."""
        return comment(self.changes)

    def to_html(self) -> str:
        """See `Report`."""
        return page([self.changes], subtitle=self.compared)


def compare_versions(old: str, new: str) -> DiffReport:
    """Compare two versions, each a file or ``REV:path``.

    Raises:
        ConfigError: one of them is not there.
        WorkflowError: one of them does not load.
    """
    before, after, notes = lend_roles(find(old), find(new))
    changes = changes_between(before, after)
    changes = changes_between(before, after, still_to_sign(before, after, changes))
    return DiffReport(replace(changes, notes=(*changes.notes, *notes)), f"{old} → {new}")
