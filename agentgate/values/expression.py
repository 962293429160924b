r"""A pattern as a term over character sets, parsed from its RE2 source.

Unicode classes, single bytes, assertions and case folding beyond ASCII have no exact reading
here: they are `Unreadable`, and a caller must conclude nothing from such a pattern. The syntax
is RE2's (whole-value matching, so greediness, captures and their names do not matter; ``.``
matches no newline unless ``s`` is set; classes such as ``\d`` are ASCII).
"""

from __future__ import annotations

import re
from functools import lru_cache

from agentgate.values.characters import (
    ALL,
    DIGIT,
    POSIX,
    SPACE,
    WORD,
    Ranges,
    complement,
    folded,
    union,
)
from agentgate.values.value_class import value_class

_CLASSES = {"d": DIGIT, "s": SPACE, "w": WORD}
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_REPEAT = re.compile(r"\{([0-9]{1,4})(,([0-9]{1,4})?)?\}")
_GROUP = re.compile(r"\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|([imsU]*(?:-[imsU]+)?)([:)]))")
_HEX = re.compile(r"([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\}")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_NAMED = re.compile(r"\[:(\^?)([a-z]+):\]")
_MAX_DEPTH = 100


class Unreadable(Exception):
    """This pattern has no exact reading here."""


@value_class
class Chars:
    """One character of a set."""

    ranges: Ranges


@value_class
class Then:
    """One after the other; without parts, the empty text."""

    parts: tuple[Expression, ...]


@value_class
class Either:
    """One of them."""

    parts: tuple[Expression, ...]


@value_class
class Both:
    """All of them at once."""

    parts: tuple[Expression, ...]


@value_class
class Not:
    """Anything else."""

    part: Expression


@value_class
class Repeat:
    """`low` to `high` times; `high` None: without end."""

    part: Expression
    low: int
    high: int | None


Expression = Chars | Then | Either | Both | Not | Repeat
ANYTHING: Expression = Repeat(Chars(ALL), 0, None)


def literal(text: str) -> Expression:
    """Exactly this text."""
    return Then(tuple(Chars(((ord(c), ord(c)),)) for c in text))


@lru_cache(maxsize=4096)
def parse(source: str) -> Expression:
    """The term of a pattern that RE2 accepts. Raises Unreadable: it uses what has no exact
    reading here.
    """
    return _Parser(source).whole()


@value_class
class _Flags:
    fold: bool = False
    dot_all: bool = False

    def changed(self, text: str) -> _Flags:
        on, _, off = text.partition("-")
        if "m" in on:
            raise Unreadable(text)  # lines, not the whole value
        return _Flags(
            (self.fold or "i" in on) and "i" not in off,
            (self.dot_all or "s" in on) and "s" not in off,
        )


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.depth = 0

    def whole(self) -> Expression:
        expression = self._either(_Flags())
        self._require(self.at == len(self.source))
        return expression

    def _require(self, readable: object) -> None:
        if not readable:
            raise Unreadable(self.source)

    def _next(self) -> str:
        self._require(self.at < len(self.source))
        self.at += 1
        return self.source[self.at - 1]

    def _sees(self, text: str) -> bool:
        return self.source.startswith(text, self.at)

    def _takes(self, text: str) -> bool:
        """Whether this text is next; then it is consumed."""
        seen = self._sees(text)
        self.at += len(text) * seen
        return seen

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """What must be next, consumed."""
        match = pattern.match(self.source, self.at)
        if match is None:
            raise Unreadable(self.source)
        self.at = match.end()
        return match

    def _either(self, flags: _Flags) -> Expression:
        self.depth += 1
        self._require(self.depth <= _MAX_DEPTH)
        ways = []
        parts: list[Expression] = []
        while self.at < len(self.source) and not self._sees(")"):
            if self._takes("|"):
                ways.append(Then(tuple(parts)))
                parts = []
            elif (
                self._sees("(?")
                and (group := _GROUP.match(self.source, self.at + 1)) is not None
                and group[2] == ")"
            ):
                self.at = group.end()
                flags = flags.changed(group[1])
            elif self._takes("\\Q"):
                quoted, _, _ = self.source[self.at :].partition("\\E")
                self.at += len(quoted)
                self._takes("\\E")
                parts += [Chars(self._folded(_one(ord(c)), flags)) for c in quoted]
                if parts:
                    parts[-1] = self._repeated(parts[-1])
            else:
                parts.append(self._repeated(self._part(flags)))
        self.depth -= 1
        ways.append(Then(tuple(parts)))
        return ways[0] if len(ways) == 1 else Either(tuple(ways))

    def _repeated(self, part: Expression) -> Expression:
        while self.at < len(self.source):
            if self.source[self.at] in "*+?":
                char = self._next()
                part = Repeat(part, int(char == "+"), 1 if char == "?" else None)
            elif (counted := _REPEAT.match(self.source, self.at)) is not None:
                self.at = counted.end()
                low = int(counted[1])
                part = Repeat(
                    part,
                    low,
                    low
                    if counted[2] is None
                    else None
                    if counted[3] is None
                    else int(counted[3]),
                )
            else:
                break
            self._takes("?")  # not greedy: the same texts
        return part

    def _part(self, flags: _Flags) -> Expression:
        """A group, a class or one character."""
        char = self._next()
        if char == "(":
            group = self._match(_GROUP) if self._sees("?") else None
            inside = self._either(
                flags if group is None or group[2] is None else flags.changed(group[1])
            )
            self._require(self._takes(")"))
            return inside
        if char == ".":
            return Chars(ALL if flags.dot_all else complement(_one(10)))
        if char == "[":
            return Chars(self._class(flags))
        self._require(char not in "^$*+?")
        return Chars(
            self._escape(flags) if char == "\\" else self._folded(_one(ord(char)), flags)
        )

    def _folded(self, ranges: Ranges, flags: _Flags) -> Ranges:
        both_cases = folded(ranges) if flags.fold else ranges
        if both_cases is None:
            raise Unreadable(self.source)
        return both_cases

    def _escape(self, flags: _Flags) -> Ranges:
        """A class or a character after its backslash."""
        letter = self.source[self.at : self.at + 1]
        if letter.lower() not in _CLASSES:
            return self._folded(_one(self._code()), flags)
        self.at += 1
        ranges = self._folded(_CLASSES[letter.lower()], flags)
        return complement(ranges) if letter.isupper() else ranges

    def _code(self) -> int:
        """The one character of an escape, after its backslash."""
        if self.source[self.at : self.at + 1] in set("01234567"):
            return int(self._match(_OCTAL)[0], 8)
        char = self._next()
        if char == "x":
            digits = self._match(_HEX)
            return int(digits[1] or digits[2], 16)
        self._require(char in _CONTROLS or not (char.isalnum() or ord(char) > 0x7F))
        return _CONTROLS.get(char, ord(char))

    def _class(self, flags: _Flags) -> Ranges:
        negated = self._takes("^")
        start = self.at
        members: list[tuple[int, int]] = []
        while self.at == start or not self._sees("]"):  # a first ] is a member
            if self._sees("[:"):
                named = self._match(_NAMED)
                self._require(named[2] in POSIX)
                ranges = self._folded(POSIX[named[2]], flags)
                members += complement(ranges) if named[1] else ranges
            elif (
                self._sees("\\") and self.source[self.at + 1 : self.at + 2].lower() in _CLASSES
            ):
                self.at += 1
                members += self._escape(flags)
            else:
                members += self._folded((self._range(),), flags)
        self.at += 1
        ranges = union(members)
        return complement(ranges) if negated else ranges

    def _range(self) -> tuple[int, int]:
        """``a`` or ``a-z`` in a class."""
        low = high = self._member()
        if self._sees("-") and self.source[self.at + 1 : self.at + 2] not in {"]", ""}:
            self.at += 1
            high = self._member()
        self._require(low <= high)
        return low, high

    def _member(self) -> int:
        char = self._next()
        return self._code() if char == "\\" else ord(char)


def _one(code: int) -> Ranges:
    return ((code, code),)
