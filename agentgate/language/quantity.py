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
_TIME = rf"(?:day|night|morning|afternoon|evening|week|weekend|month|quarter|year|hour|minute|time|{'|'.join(WEEKDAYS)})"
_FEW = "(?:two|three|four|five|six|seven|eight|nine|ten|[2-9]|10)"
_MONEY = "(?:[0-9€$£]|eur|usd|gbp|chf|euros?|dollars?|pounds?|francs?)"
_END = r"(?=\s*(?:\Z|[,.;:!?)\n]))"  # the words end here
_ASIDE = (
    r"(?=\s*(?:\Z|[,.;:!?)\n]|(?:with|at|on|for|to|into|in|from|by|and|as|please|until|till|starting|beginning)\b))"  # so does their phrase
)
_COUNTS_NOTHING = re.compile(
    # "every month", "each second Monday", "pay every month 20 EUR"
    rf"\b(?:every|each|any)\s(?:(?:{_FEW}|second|third|other|few|single)\s)?{_TIME}s?\b"
    rf"(?:{_ASIDE}|(?=\s(?:(?:the|my|our|his|her|their|an?|it|them|him)\b|{_MONEY})))"
    rf"|\ball\s{_TIME}\b{_END}|\bfor\s(?:the|an?|this|next|last)\s(?:whole|entire)\s{_TIME}\b{_ASIDE}"
    # "all three", but not "all 3 EUR", "all three thousand" or "all seven years of mail"
    rf"|\ball\s(?:of\s)?(?:(?:the|my|these|those)\s)?{_FEW}"
    rf"(?![\w%+\u2013-]|[.,][0-9]|\s?(?:{_MONEY}|(?:hundred|thousand|million|dozen|or|other|{_TIME}s?)\b))"
    # "20 each", "two orders each", "each other"
    rf"|(?:{_MONEY}|\b{_FEW}(?:\s(?!{'|'.join(sorted(WIDE))})[a-z]{{1,20}})?|,)\seach\b{_ASIDE}|(?:\beach\sother|\ball\sthe\sbest)\b{_ASIDE}"
    rf"|\b(?:(?:at|after|above|in)\sall|all\s(?:the|this|that)\s(?:while|way|time)|any\s(?:longer|more|further))\b{_END}"
    rf"|\b(?:(?:in|at)\sany\s(?:case|rate|time)|(?:have|are)\sany\s(?:questions?|problems?|ideas?)|if\sany)\b{_END}|\bany\s(?:chance|way)\b"
    rf"|(?:^|[.,;:!?]\s|\bis\s|['\u2019]s\s)all\s(?:right|good|set|done)\b{_END}|(?<=[0-9]\s)all\sin\b{_END}"
    r"|\bfor\sall\s(?:the|that|this|your|his|her|their|our)\s(?:trouble|help|hassle|inconvenience|fuss|waiting)\b"
)
_WORD = re.compile(r"[a-z]+")
_LONG = 1000  # characters; the result for a longer text is not kept


def quantities(text: str) -> frozenset[str]:
    """The quantifiers of a text that say how much is acted on."""
    return _kept(text) if len(text) <= _LONG else _read(text)


def _read(text: str) -> frozenset[str]:
    lower = small(text)
    wide = WIDE & frozenset(_WORD.findall(lower))
    return wide and WIDE & frozenset(_WORD.findall(_COUNTS_NOTHING.sub(" ", lower)))


_kept = lru_cache(maxsize=8192)(_read)
