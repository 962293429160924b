"""Selectors: the words by which a user picks one row of a result, such as "the largest file",
without naming its id.

`agentgate.decision.origins.selectors` says when such words select, and which row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

# key of `select` -> (its words, whether it takes the greatest value)
SELECTORS: Mapping[str, tuple[str, bool]] = {
    "largest": ("largest|biggest|heaviest|bulkiest", True),
    "smallest": ("smallest|tiniest|lightest", False),
    "newest": (r"newest|latest|most\s+recent|last", True),
    "oldest": ("oldest|earliest|first", False),
    "highest": (r"highest|most\s+expensive|priciest|dearest|costliest", True),
    "lowest": (r"lowest|cheapest|least\s+expensive", False),
    "longest": ("longest", True),
    "shortest": ("shortest", False),
}
IN_TIME = frozenset({"newest", "oldest"})  # compare dates and times; the others compare numbers
_WHOLE = (  # a place that holds everything narrows nothing
    r"(?:\s+(?:in|on|from|of|at)\s+(?:my|the|our)\s+(?:whole\s+|entire\s+)?(?:cloud\s+)?"
    r"(?:drive|account|inbox|mailbox|calendar|list|storage|workspace|cloud))?"
)
_AFTER = (
    r"(?:\s+(?:please|now|for\s+me|there|(?:that\s+)?(?:i\s+have|there\s+is|you\s+(?:can\s+)?find)))?"
    r"\s*(?=$|[.,;:!?)]|(?:and|then|to|as)\b)"
)


def _form(key: str, nouns: tuple[str, ...]) -> re.Pattern[str]:
    """How a user writes one superlative with one of these nouns, with nothing that narrows the
    set.
    """
    words, _ = SELECTORS[key]
    one = "(?:" + "|".join(r"\s+".join(map(re.escape, noun.split())) for noun in nouns) + ")"
    among = rf"(?:one\s+)?of\s+(?:(?:all|the|my|our)\s+){{1,3}}{one}(?:e?s)?(?!\w)"
    before = rf"(?:the|my|our)\s+(?:single\s+|very\s+)?(?:{words})\s+(?:{one}(?!\w)|{among})"
    behind = rf"(?:the|my|our)\s+{one}\s+(?:that|which)\s+is\s+(?:the\s+)?(?:{words})(?!\w)"
    return re.compile(rf"(?i)(?<![\w'\u2019-])(?:{before}|{behind}){_WHOLE}{_AFTER}")


@dataclass(frozen=True)
class Selector:
    """Which row of a read "the largest file" is.

    Attributes:
        tool: the tool whose argument is selected; after its first call in a run, no later read
            selects for it again.
        nouns: what the user may call such an object, in the singular.
        by: pairs of a key of `SELECTORS` and the fact that it compares.
    """

    tool: str
    nouns: tuple[str, ...]
    by: tuple[tuple[str, str], ...]

    @cached_property
    def forms(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        """For each key of `by`, the form in which the user's words carry it."""
        return tuple([(key, _form(key, self.nouns)) for key, _ in self.by])
