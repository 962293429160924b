"""Quantifiers that widen a request: "all", "every", "everything".

Rules: a quantifier makes an intent unclear, unless an example of the intent has one too. Some
quantify no object of an act and are ignored: frequencies ("every month", "all day"), shares of
what was named ("20 each", "all three"), and set phrases ("at all", "for all the trouble", "all
the best"). ``words/quantities.toml`` lists them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from agentgate.language import word_files
from agentgate.language.spans import small
from agentgate.values.times import WEEKDAYS

WIDE = frozenset(
    {"all", "every", "each", "everything", "everyone", "everybody", "any", "whole", "entire"}
)
_MONEY = r"(?:[\u20ac$\u00a3]?[0-9][0-9.,]*[\u20ac$\u00a3]?|eur|usd|gbp|chf|euros?|dollars?|pounds?|francs?)"
_CLASSES = {
    "END": r"(?=\s*(?:\Z|[,.;:!?)\n]))",
    "ASIDE": r"(?=\s*(?:\Z|[,.;:!?)\n]|(?:with|at|on|for|to|into|in|from|by|and|as|please|until|till|starting|beginning)\b))",
    "START": r"(?<![^\s])(?<![^.,;:!?\n]\s)",
    "COMMA": r"(?<=,\s)",
    "MONEY": _MONEY,
    "FEW": "(?:two|three|four|five|six|seven|eight|nine|ten|[2-9]|10)",
    # no amount, no larger number: not "all 3 EUR", "all three thousand" or "all seven years of
    # mail"
    "ALONE": (
        rf"(?![%\u20ac$\u00a3+\u2013-]|[.,][0-9]|\s?(?:{_MONEY}|(?:hundred|thousand|million|dozen|or|other)\b|(?:day|week|month|quarter|year)s?\b))"
    ),
    "WEEKDAY": "|".join(WEEKDAYS),
    "THING": rf"(?!(?:{'|'.join(sorted(WIDE))})\b)[a-z]{{1,20}}",
}
(_IGNORED,) = word_files.patterns(word_files.read("quantities.toml"), _CLASSES).values()
_WORD = re.compile(r"[a-z]+")
_LONG = 1000  # characters; the result for a longer text is not kept


def quantities(text: str) -> frozenset[str]:
    """The quantifiers of a text that say how much is acted on."""
    return _kept(text) if len(text) <= _LONG else _read(text)


def _read(text: str) -> frozenset[str]:
    lower = small(text)
    wide = WIDE & frozenset(_WORD.findall(lower))
    return wide and WIDE & frozenset(_WORD.findall(_IGNORED.sub(" ", lower)))


_kept = lru_cache(maxsize=8192)(_read)
