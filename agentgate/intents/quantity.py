"""Words of quantity that widen a request: "all", "every", "everything".

Rules: one of them makes an intent unclear, unless an example of the intent says one too. Some count nothing that is acted on and
do not count here: how often ("every month", "all day"), how much of what was named ("20 each", "all three"), and set phrases
("at all", "for all the trouble", "all the best").
"""

from __future__ import annotations

import re
from functools import lru_cache

from agentgate.prompt import small

WIDE = frozenset({"all", "every", "each", "everything", "everyone", "everybody", "any", "whole", "entire"})
_TIMES = (
    r"(?:days?|nights?|mornings?|afternoons?|evenings?|weeks?|weekends?|months?|quarters?|years?|hours?|minutes?|times?|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|mon|tue|wed|thu|fri|sat|sun)"
)
_AMOUNT = r"\s?(?:[0-9.,%€$£]|(?:eur|usd|gbp|chf|euros?|dollars?|pounds?|francs?)\b)"  # "all of 39.99 EUR" counts money
_COUNT = (
    r"(?:(?:two|three|four|five|six|seven|eight|nine|ten|second|third|other|few|single)\b|[0-9]{1,2}(?:st|nd|rd|th)?)"
    rf"(?![0-9])(?!{_AMOUNT})"
)
_COUNTS_NOTHING = re.compile(
    rf"\b(?:every|each|any|all|whole|entire)\s+(?:the\s+)?(?:{_COUNT}\s+)?{_TIMES}\b"
    rf"|\ball\s+(?:of\s+)?(?:(?:the|my|these|those)\s+)?{_COUNT}\b"
    r"|\beach(?=\s*(?:$|[,.;:!?)]|(?:with|at|on|for|to|in|from|by|and|as|please)\b))"
    r"|\beach\s+other\b|\b(?:at|after|above)\s+all\b(?!\s+(?:the|my|of|our|your|those|these)\b)"
    r"|\ball\s+(?:the\s+best|right|good|set|done|together|in\s+all)\b"
    r"|\ball\s+(?:the|that|this|your|his|her|their|our)\s+(?:trouble|help|hassle|inconvenience|work|fuss|waiting|while|way|time)\b"
    r"|\b(?:in|at)\s+any\s+(?:case|rate|time)\b|\bany\s+(?:questions?|problems?|ideas?|chance|luck|longer|more|further|way)\b|\bif\s+any\b(?!\s+\w)"
)


_WORD = re.compile(r"[a-z]+")


@lru_cache(maxsize=8192)
def quantities(text: str) -> frozenset[str]:
    """The words of quantity in a text that say how much is acted on (cached)."""
    lower = small(text)
    found = WIDE & frozenset(_WORD.findall(lower))
    return found and WIDE & frozenset(_WORD.findall(_COUNTS_NOTHING.sub(" ", lower)))
