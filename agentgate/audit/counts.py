"""How many calls were allowed, held and refused, and of how many nobody knows the outcome."""

from __future__ import annotations

from collections import Counter
from functools import cache

from agentgate.audit.questions import Record, Wanted, attempt_of, read_calls, value_of
from agentgate.audit.verify import LogVerdict

KINDS = "allowed", "held", "refused", "unenforced", "unknown"
_DECISIONS = {"allow": "allowed", "deny": "refused", "observed": "unenforced"}
_WORDS = [b'"type":"decision"'], [b'"outcome":"unknown"']
_Names = tuple[tuple[str, str], ...]  # what it is, and its name


def count_calls(log: LogVerdict, wanted: Wanted) -> dict[str, dict[str, dict[str, int]]]:
    """Of each workflow, tool, user and approver: how many calls were allowed, held, refused,
    and ended nobody knows how.
    """
    calls = [*read_calls(log, wanted, _WORDS, _read_call)]
    decided = {attempt: names for attempt, names, kind in calls if kind != "unknown"}
    totals = Counter(
        [
            (decided.get(attempt, names) if kind == "unknown" else names, kind)
            for attempt, names, kind in calls
            if kind
        ]
    )
    counted = {
        name: dict[str, dict[str, int]]() for name in ("workflow", "tool", "user", "approver")
    }
    for (names, kind), count in totals.items():
        for name, value in names:
            counted[name].setdefault(value, dict.fromkeys(KINDS, 0))[kind] += count
    return {name: dict(sorted(table.items())) for name, table in counted.items()}


def _read_call(record: Record) -> tuple[str, _Names, str]:
    """An attempt at a call, its names, and what became of it; empty: nothing that counts."""
    yes = record.get("approvals")
    named = [(name, value_of(record, name)) for name in ("workflow", "tool", "user")]
    named += (
        [("approver", each.get("by")) for each in yes if isinstance(each, dict)]
        if isinstance(yes, list)
        else []
    )
    names = _same(tuple([each for each in named if type(each[1]) is str]))
    if record.get("type") == "decision":
        return attempt_of(record), names, _DECISIONS.get(str(record.get("decision")), "held")
    return attempt_of(record), names, "unknown" if record.get("outcome") == "unknown" else ""


@cache
def _same(names: _Names) -> _Names:
    """Equal names as one value, which is sent to another process once."""
    return names
