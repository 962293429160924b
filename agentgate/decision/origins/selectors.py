"""Selectors: "the largest file" names one row of what a read returned, without naming its id.

Rules: the user's own affirmed words must carry it: a superlative of a closed list
(`agentgate.workflow.selector`), directly before a noun that the workflow declares, in the
singular (or "of the ..."), with nothing that narrows the set: "the second largest file", "Bob's
latest e-mail" and "the oldest invoice from March" select nothing, because the gate cannot check
what narrows them. Denied words withdraw it. The row then follows from declared fields: the one
extreme value among all rows of one call. A tie, a row without the field, and rows that were
left out select nothing. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

from agentgate.values.entities import normal
from agentgate.values.paths import CUT
from agentgate.workflow.rule import Fact
from agentgate.workflow.selector import SELECTORS, Selector

MAX_CLAUSE = 4000  # characters; a longer clause selects nothing
_NARROWS = re.compile(r"(?i)\s*(?:only|just|if|unless|provided|when|where)\b")


def chosen(selector: Selector, spoken: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The keys of a selector that the user's words carry.

    Args:
        selector: as declared.
        spoken: the clauses of all turns in order, as (voice, text); a denied one takes back,
            and narrows what it continues.
    """
    carried: set[str] = set()
    for voice, clause, excepted in _with_exceptions(spoken):
        if len(clause) > MAX_CLAUSE or excepted:
            continue
        for key, form in selector.forms:
            if form.search(clause) is not None:
                if voice == "said":
                    carried.add(key)
                else:
                    carried.discard(key)
    return frozenset(carried)


def _with_exceptions(spoken: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, bool]]:
    """Each clause, and whether the sentence goes on to narrow it: "the largest file, but not
    a.txt", "..., only if it is old".
    """
    said = [(voice, clause) for voice, clause in spoken if clause.strip()]
    for (voice, clause), (following, after) in pairwise([*said, ("", "")]):
        goes_on = voice == "said" and clause.rstrip()[-1] not in ".!?;"
        narrows = following == "denied" or _NARROWS.match(after) is not None
        yield voice, clause, goes_on and narrows


def picked(
    key: str, by: Fact, of: Fact, rows: tuple[Mapping[str, Any], ...]
) -> Mapping[str, Any] | None:
    """The one row with the extreme value of `by`; None when it is not the only one, or not all
    rows are known.
    """
    if not rows or CUT in rows[-1]:
        return None
    currencies = [row.get(by.currency) for row in rows] if by.currency else [""]
    values = [
        (normal(by.type, row.get(by.name)), normal(of.type, row.get(of.name)), row)
        for row in rows
    ]
    if any(type(c) is not str or c != currencies[0] for c in currencies):
        return None
    if any(value is None or name is None for value, name, _ in values):
        return None
    pick = max if SELECTORS[key][1] else min
    extreme = pick((value for value, _, _ in values), key=_rank)
    best = [(name, row) for value, name, row in values if value == extreme]
    names = {name for name, _ in best}
    return best[0][1] if len(names) == 1 else None


def _rank(value: Any) -> Any:
    """Numbers by size; dates and times, in their normal form, by their text."""
    return value if isinstance(value, Decimal) else str(value)
