"""Pages: the most rows that one call of a read returns (`page_size`), and how many elements its list really had.

Rules: whoever chooses a page's size chooses which rows there are only where the page is full. A list is counted where the result is
read, element by element, also those that make no row; the count is kept in the last row under `PAGE`. Without it, or where the size
asked for is no whole number, the size is a choice of rows. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentgate.values.paths import EACH, NUMBERS, PAGE
from agentgate.workflow.model import Tool
from agentgate.workflow.rule import Rule

# what tools call the most rows of one call, without case and `_`
_NAMES = frozenset(
    "n k limit top topk first take count max maxresults maxitems maxcount maxrows numresults pagesize perpage pagelimit rowlimit".split()
)


def is_size(rule: Rule) -> bool:
    """Whether an argument's name and type say that it is a page's size."""
    return rule.type == "integer" and rule.max_items is None and sized(rule.name)


def sized(name: str) -> bool:
    """Whether a name says so."""
    return re.sub("[_-]", "", name).lower() in _NAMES


def counted(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The list whose elements the rows are, by the paths of a tool's facts; None where there is none, or a row may be less or more."""
    lists = {path[: len(path) - path[::-1].index(EACH) - 1] for path in paths if EACH in path}
    return next(iter(lists)) if len(lists) == 1 and not any({EACH, NUMBERS} & set(each) for each in lists) else None


def paths(tool: Tool) -> dict[str, tuple[str, ...]]:
    """What is read of a tool's results: its facts, and with a `page_size` how long their list is."""
    found = {name: fact.path for name, fact in tool.facts.items()}
    listed = counted(found.values()) if any(rule.page_size for rule in tool.args.values()) else None
    return found if listed is None else {**found, PAGE: listed}


def short(rows: tuple[Mapping[str, Any], ...], size: Any) -> bool:
    """Whether a call returned fewer elements than this many, so that its size left none out."""
    found = rows[-1].get(PAGE) if rows else None
    return type(found) is int and type(size) is int and 0 <= found < size
