"""Pages: the most rows that one call of a read returns (`page_size`), and how many elements its
list really had.

Rules: a page's size selects rows only where the page is full. The list is counted when the
result is read, including elements that make no row; the count is kept in the last row under
`PAGE`. Without a count, or if the size in the call is no whole number, the size counts as a
choice of rows. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentgate.values.paths import EACH, NUMBERS, PAGE
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import Rule

# names that tools give to the most rows of one call, in lower case, without `_` and `-`
_NAMES = frozenset(
    "n k limit top topk first take count max maxresults maxitems maxcount maxrows numresults "
    "pagesize perpage pagelimit rowlimit".split()
)


def is_size(rule: Rule) -> bool:
    """Whether an argument's name and type say that it is a page's size."""
    return rule.type == "integer" and rule.max_items is None and sized(rule.name)


def sized(name: str) -> bool:
    """Whether a name says that it is a page's size."""
    return re.sub("[_-]", "", name).lower() in _NAMES


def counted(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The list whose elements are the rows, by the paths of a tool's facts; None: no list, or a
    row may be less or more than an element.
    """
    lists = {path[: len(path) - path[::-1].index(EACH) - 1] for path in paths if EACH in path}
    return (
        next(iter(lists))
        if len(lists) == 1 and not any({EACH, NUMBERS} & set(each) for each in lists)
        else None
    )


def paths(tool: Tool) -> dict[str, tuple[str, ...]]:
    """What is read from a tool's results: its facts and, with a `page_size`, the length of
    their list.
    """
    facts = {name: fact.path for name, fact in tool.facts.items()}
    listed = (
        counted(facts.values())
        if [rule for rule in tool.args.values() if rule.page_size]
        else None
    )
    return facts if listed is None else {**facts, PAGE: listed}


def short(rows: tuple[Mapping[str, Any], ...], size: Any) -> bool:
    """Whether a call returned fewer elements than its size, so that the size left none out."""
    count = rows[-1].get(PAGE) if rows else None
    return type(count) is int and type(size) is int and 0 <= count < size
