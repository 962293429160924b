"""Sets of characters as sorted, disjoint ranges of code points, without surrogates: a canonical
value has none.
"""

from __future__ import annotations

import string
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
READABLE = string.ascii_letters + string.digits + "-_./@:#+ "  # in this order

ALL: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
PRINTABLE: Ranges = ((0x20, 0x7E),)
# A superset of what a text in normal form may hold: newline, tab, and everything that is no
# control character.
TEXT: Ranges = ((0x09, 0x0A), (0x20, 0x7E), (0xA0, 0xD7FF), (0xE000, 0x10FFFF))
DIGIT: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
POSIX: dict[str, Ranges] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0, 0x1F), (0x7F, 0x7F)),
    "digit": DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": PRINTABLE,
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
# the only characters beyond ASCII that fold to an ASCII letter
_FOLDED = {"k": 0x212A, "s": 0x017F}


def inside(ranges: Iterable[tuple[int, int]], code: int) -> bool:
    """Whether a set holds a code point."""
    return any(low <= code <= high for low, high in ranges)


def union(parts: Iterable[tuple[int, int]]) -> Ranges:
    """The ranges sorted and joined, surrogates cut out."""
    cut = []
    for low, high in parts:
        for first, last in ALL:
            if low <= last and high >= first:
                cut.append((max(low, first), min(high, last)))
    joined: list[tuple[int, int]] = []
    for low, high in sorted(cut):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(ranges: Ranges) -> Ranges:
    """Every other character."""
    gaps = []
    at = 0
    for low, high in ranges:
        if low > at:
            gaps.append((at, low - 1))
        at = high + 1
    gaps.append((at, 0x10FFFF))
    return union(r for r in gaps if r[0] <= r[1])


def folded(ranges: Ranges) -> Ranges | None:
    """The set with every letter in both cases; None when it holds characters beyond ASCII,
    whose case folding is not known here.
    """
    if any(high > 0x7F for _, high in ranges):
        return None
    more = list(ranges)
    for low, high in ranges:
        for code in range(low, high + 1):
            letter = chr(code)
            if letter.isalpha():
                more.append((ord(letter.swapcase()),) * 2)
                if letter.lower() in _FOLDED:
                    more.append((_FOLDED[letter.lower()],) * 2)
    return union(more)
