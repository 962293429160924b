"""Texts that a pattern or glob matches, made in a fixed order: the same source and variant always give the same text.

Nothing here decides whether a text matches; the caller asks the pattern itself.
"""

from __future__ import annotations

import string

VARIANTS = 64  # how many values of a pattern are tried
_LETTERS = string.ascii_letters + string.digits
_CLASSES = {
    "d": string.digits,
    "w": string.ascii_letters + string.digits + "_",
    "s": " ",
    "D": string.ascii_letters,
    "W": ".",
    "S": _LETTERS,
}


class _Unreadable(Exception):
    """The pattern has a part that the sampler does not write (a Unicode class); it then makes no value."""


class _Sampler:
    """One pass over an RE2 pattern, writing the shortest text it allows; `variant` moves the choice within classes."""

    def __init__(self, source: str, variant: int) -> None:
        self.source, self.at, self.variant, self.made = source, 0, variant, 0

    def _peek(self) -> str:
        return self.source[self.at] if self.at < len(self.source) else ""

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise _Unreadable
        self.at += 1
        return char

    def choice(self) -> str:
        ways = [self.sequence()]
        while self._peek() == "|":
            self.at += 1
            ways.append(self.sequence())
        return ways[self.variant % len(ways)]

    def sequence(self) -> str:
        out = ""
        while self._peek() not in {"", "|", ")"}:
            start, made = self.at, self.made
            atom = self.atom()
            after, least = self.at, self.repeats()
            rest = self.at
            for index in range(least):
                if index:  # read the atom again, so that a class moves on
                    self.at = start
                    atom = self.atom()
                    self.at = after
                out += atom
            self.made = self.made if least else made
            self.at = rest
        return out

    def repeats(self) -> int:
        """How often the atom before is written: as rarely as allowed, but once where that is allowed too (so that it shows)."""
        least = 1
        while self._peek() in {"?", "*", "+", "{"}:
            char = self._next()
            if char in "?*":
                least = 0 if char == "?" else 1
            elif char == "{":
                end = self.source.find("}", self.at)
                text = self.source[self.at : end]
                self.at = end + 1
                low, _, high = text.partition(",")
                if end < 0 or not low.isdigit():
                    raise _Unreadable
                least = max(int(low), 1 if high != "0" and "," in text else int(low))
        return least

    def atom(self) -> str:
        char = self._next()
        if char == "(":
            if self._peek() == "?":
                end = min((i for i in (self.source.find(c, self.at) for c in ":>") if i > 0), default=0)
                if not end:
                    raise _Unreadable
                self.at = end + 1
            inside = self.choice()
            if self._next() != ")":
                raise _Unreadable
            return inside
        if char == "[":
            return self._pick(self._class())
        if char == ".":
            return self._pick(_LETTERS)
        if char == "\\":
            return self._pick(self._escape())
        return char

    def _escape(self) -> str:
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char.isalnum():
            raise _Unreadable
        return char

    def _class(self) -> str:
        negated = self._peek() == "^"
        self.at += negated
        members, first = "", True
        while first or self._peek() != "]":
            first = False
            char = self._next()
            if char == "[" and self._peek() == ":":
                raise _Unreadable
            chars = self._escape() if char == "\\" else char
            if len(chars) == 1 and self._peek() == "-" and self.source[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                last = self._next()
                last = self._escape() if last == "\\" else last
                chars = "".join(map(chr, range(ord(chars), min(ord(last), ord(chars) + 255) + 1)))
            members += chars
        self._next()
        if negated:
            return "".join(c for c in _LETTERS + " .-_" if c not in members)
        return "".join(sorted(members, key=lambda c: not c.isalnum()))  # letters and digits first

    def _pick(self, chars: str) -> str:
        if not chars:
            raise _Unreadable
        self.made += 1
        return chars[(self.variant + self.made - 1) % len(chars)]


def from_pattern(source: str, variant: int = 0) -> str | None:
    """A text that the RE2 pattern probably matches as a whole, or None where it has a part that the sampler does not write."""
    sampler = _Sampler(source, variant)
    try:
        made = sampler.choice()
    except _Unreadable:
        return None
    return made if sampler.at == len(source) else None


def from_glob(source: str, variant: int) -> str:
    """A text that the glob matches."""
    word = "abcdefgh"[variant % 8]
    return source.replace("**", f"a/{word}" if variant % 2 else word).replace("*", word)
