"""Texts that a pattern or glob matches, made in a fixed order: the same source and variant
always give the same text.

Nothing here decides whether a text matches; the caller asks the pattern itself.
"""

from __future__ import annotations

from functools import cache

from agentgate.values.characters import READABLE, Ranges, inside
from agentgate.values.expression import (
    Chars,
    Either,
    Expression,
    Repeat,
    Then,
    Unreadable,
    parse,
)

VARIANTS = 64  # how many values of a pattern are tried


class _Sampler:
    """Writes a short text of a pattern; `variant` moves the choice between alternatives and
    within classes.
    """

    def __init__(self, variant: int) -> None:
        self.variant = variant
        self.made = 0

    def text(self, part: Expression) -> str:
        """As rarely repeated as allowed, but once where more is allowed too (so that it
        shows).
        """
        match part:
            case Chars():
                return self._pick(part.ranges)
            case Then():
                return "".join(map(self.text, part.parts))
            case Either():
                return self.text(part.parts[self.variant % len(part.parts)])
            case Repeat():
                often = max(part.low, 0 if part.high in {0, 1} else 1)
                return "".join(map(self.text, [part.part] * often))
            case _:
                raise Unreadable  # no pattern is parsed to it

    def _pick(self, ranges: Ranges) -> str:
        chars = [char for char in READABLE if inside(ranges, ord(char))] or [
            chr(low) for low, _ in ranges[:1]
        ]
        if not chars:
            raise Unreadable  # the empty class
        self.made += len(chars) > 1
        return chars[(self.variant + self.made - 1) % len(chars)]


@cache
def from_pattern(source: str, variant: int = 0) -> str | None:
    """A text that the RE2 pattern probably matches as a whole, or None where the pattern has no
    exact reading.
    """
    try:
        return _Sampler(variant).text(parse(source))
    except Unreadable:
        return None


def from_glob(source: str, variant: int) -> str:
    """A text that the glob matches."""
    word = "abcdefgh"[variant % 8]
    return source.replace("**", f"a/{word}" if variant % 2 else word).replace("*", word)
