"""The content words of a text, without case and common English endings, and without words that
carry no meaning ("the", "re").
"""

from __future__ import annotations

import re
import unicodedata

from agentgate.language.word_files import listed

WORD = re.compile(r"[^\W_]+")
_ENDINGS = "ations ation ings ists ions ory ing ies ist ion ers ed es er al ly s y e".split()
_KEPT = 3  # letters that a word keeps at least
_SILENT = listed("silent")


def stems(text: str) -> frozenset[str]:
    """The stems of the content words of a text (NFKC)."""
    words = WORD.findall(unicodedata.normalize("NFKC", text))
    return frozenset(map(stem, words)) - {""}


def stem(word: str) -> str:
    """A word without its ending; empty for one that carries no meaning."""
    low = word.casefold()
    if low in _SILENT or (len(low) == 1 and not low.isdigit()):
        return ""
    for ending in _ENDINGS:
        base = low.removesuffix(ending)
        if _KEPT <= len(base) < len(low):
            return base
    return low
