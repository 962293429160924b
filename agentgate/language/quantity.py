"""Quantifiers that widen a request: "all", "every", "everything".

Rules: a quantifier makes an intent unclear, unless an example of the intent has one too. Some quantify no object of an act and are
ignored: frequencies ("every month", "all day"), shares of what was named ("20 each", "all three"), and set phrases ("at all", "for all the
trouble", "all the best").
"""

from __future__ import annotations

import re
from functools import lru_cache

from agentgate.language.spans import small
from agentgate.values.times import WEEKDAYS

WIDE = frozenset({"all", "every", "each", "everything", "everyone", "everybody", "any", "whole", "entire"})
_WIDE = f"(?:{'|'.join(sorted(WIDE))})"
_TIME = (
    "(?:day|night|morning|afternoon|evening|week|weekend|month|quarter|year|hour|minute|time|"
    f"{'|'.join((*WEEKDAYS, *(day[:3] for day in WEEKDAYS)))})"
)
_FEW = r"(?:two|three|four|five|six|seven|eight|nine|ten|[2-9]|10)"
_NTH = rf"(?:{_FEW}|second|third|other|few|single|[0-9]{{1,2}}(?:st|nd|rd|th)?)"
_MORE = (  # "all 3 EUR" counts money; "all three thousand" and "all seven years of mail" are many
    rf"(?:[\w%€$£+\u2013-]|[.,][0-9]|\s?(?:[0-9%€$£]|(?:eur|usd|gbp|chf|euros?|dollars?|pounds?|francs?|hundred|thousand|million|dozen|"
    rf"or\s+more|or\s+so|other|{_TIME}s?\s+of)\b))"
)
_END = r"(?=\s*(?:\Z|[,.;:!?)\n]))"  # the words end here
_ASIDE = (
    r"(?=\s*(?:\Z|[,.;:!?)\n]|(?:with|at|on|for|to|into|in|from|by|and|as|please|until|till|starting|beginning)\b))"  # so does their phrase
)
_WHEN = _ASIDE[:-1] + r"|\s+(?:(?:the|my|our|his|her|their|an?|it|them|him)\b|[0-9€$£]))"  # "pay every month 20 EUR"
_COUNTS_NOTHING = re.compile(
    rf"\b(?:every|each|any)\s+(?:{_NTH}\s+)?{_TIME}s?\b{_WHEN}|\ball\s+{_TIME}\b{_END}"
    rf"|\b(?:for|during|over)\s+(?:the|an?|this|next|last)\s+(?:whole|entire)\s+{_TIME}\b{_ASIDE}"
    rf"|\ball\s+(?:of\s+)?(?:(?:the|my|these|those)\s+)?{_FEW}(?!{_MORE})"
    rf"|(?:[0-9€$£]|\b(?:eur|usd|gbp|chf|euros?|dollars?|pounds?|francs?|{_FEW}(?:\s+(?!{_WIDE}\b)[a-z]{{1,20}})?))\s+each\b{_ASIDE}"
    rf"|(?<=,\s)each\b{_ASIDE}|\beach\s+other\b{_ASIDE}|\b(?:at|after|above)\s+all\b{_END}"
    rf"|\ball\s+the\s+best\b{_ASIDE}|\ball\s+in\s+all\b|(?:^|[.,;:!?]\s|\b(?:is|are|'s|\u2019s)\s)all\s+(?:right|good|set|done)\b{_END}"
    r"|\bfor\s+all\s+(?:the|that|this|your|his|her|their|our)\s+(?:trouble|help|hassle|inconvenience|fuss|waiting)\b"
    rf"|\ball\s+(?:the|this|that)\s+(?:while|way|time)\b{_END}|\b(?:in|at)\s+any\s+(?:case|rate|time)\b{_END}"
    rf"|\b(?:have|are)\s+any\s+(?:questions?|problems?|ideas?)\b{_END}|\bany\s+(?:longer|more|further)\b{_END}|\bany\s+(?:chance|way|luck|possibility)\b|\bif\s+any\b(?!\s+\w)"
    rf"|(?<=[0-9]\s)all\s+in\b{_END}"
)
_WORD = re.compile(r"[a-z]+")
_LONG = 1000  # characters; the result for a longer text is not cached


def quantities(text: str) -> frozenset[str]:
    """The quantifiers of a text that say how much is acted on."""
    return _kept(text) if len(text) <= _LONG else _read(text)


def _read(text: str) -> frozenset[str]:
    lower = small(text)
    wide = WIDE & frozenset(_WORD.findall(lower))
    return wide and WIDE & frozenset(_WORD.findall(_COUNTS_NOTHING.sub(" ", lower)))


_kept = lru_cache(maxsize=8192)(_read)
