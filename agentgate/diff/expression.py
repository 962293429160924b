r"""A pattern as a term over character sets, read from its RE2 source.

Only what can be read exactly is read: Unicode classes, single bytes, assertions and case folding beyond ASCII are `Unreadable`,
and whoever asked must not conclude anything from such a pattern. Source of the syntax: RE2's own (whole-value matching, so that
greed, captures and their names do not matter; ``.`` is no newline unless ``s`` is set; classes such as ``\d`` are ASCII).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from agentgate.diff.characters import ALL, DIGIT, POSIX, SPACE, WORD, Ranges, complement, folded, union

_CLASSES = {"d": DIGIT, "s": SPACE, "w": WORD}
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_REPEAT = re.compile(r"\{([0-9]{1,4})(,([0-9]{1,4})?)?\}")
_GROUP = re.compile(r"\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|([imsU]*(?:-[imsU]+)?)([:)]))")
_MAX_DEPTH = 100


class Unreadable(Exception):
    """This pattern has no exact reading here."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Then:
    """One after the other; without parts, the empty text."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Both:
    """All of them at once."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Anything else."""

    part: Expression


@dataclass(frozen=True, slots=True)
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
    """The term of a pattern that RE2 accepts.

    Raises:
        Unreadable: it uses what has no exact reading here.
    """
    return _Parser(source).whole()


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    dot_all: bool = False

    def changed(self, text: str) -> _Flags:
        on, _, off = text.partition("-")
        if "m" in on:
            raise Unreadable(text)  # lines, not the whole value
        return _Flags((self.fold or "i" in on) and "i" not in off, (self.dot_all or "s" in on) and "s" not in off)


class _Parser:
    def __init__(self, source: str) -> None:
        self.source, self.at, self.depth = source, 0, 0

    def whole(self) -> Expression:
        found = self._either(_Flags())
        if self.at != len(self.source):
            raise Unreadable(self.source)
        return found

    def _next(self) -> str:
        if self.at >= len(self.source):
            raise Unreadable(self.source)
        self.at += 1
        return self.source[self.at - 1]

    def _sees(self, text: str) -> bool:
        return self.source.startswith(text, self.at)

    def _either(self, flags: _Flags) -> Expression:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable(self.source)
        ways: list[Expression] = []
        parts: list[Expression] = []
        while self.at < len(self.source) and not self._sees(")"):
            if self._sees("|"):
                self.at += 1
                ways.append(Then(tuple(parts)))
                parts = []
            elif self._sees("(?") and (found := _GROUP.match(self.source, self.at + 1)) is not None and found[2] == ")":
                self.at = found.end()
                flags = flags.changed(found[1])
            elif self._sees("\\Q"):
                end = self.source.find("\\E", self.at)
                quoted = self.source[self.at + 2 : end if end >= 0 else len(self.source)]
                self.at = end + 2 if end >= 0 else len(self.source)
                parts += [Chars(self._folded(((ord(c), ord(c)),), flags)) for c in quoted]
                if parts:
                    parts[-1] = self._repeated(parts[-1])
            else:
                parts.append(self._repeated(self._one(flags)))
        self.depth -= 1
        ways.append(Then(tuple(parts)))
        return ways[0] if len(ways) == 1 else Either(tuple(ways))

    def _repeated(self, part: Expression) -> Expression:
        while self.at < len(self.source):
            char = self.source[self.at]
            if char in "*+?":
                self.at += 1
                part = Repeat(part, int(char == "+"), 1 if char == "?" else None)
            elif (found := _REPEAT.match(self.source, self.at)) is not None:
                self.at = found.end()
                low = int(found[1])
                part = Repeat(part, low, low if found[2] is None else None if found[3] is None else int(found[3]))
            else:
                break
            if self._sees("?"):  # not greedy: the same texts
                self.at += 1
        return part

    def _one(self, flags: _Flags) -> Expression:
        char = self._next()
        if char == "(":
            if self._sees("?"):
                found = _GROUP.match(self.source, self.at)
                if found is None:
                    raise Unreadable(self.source)
                self.at = found.end()
                flags = flags if found[2] is None else flags.changed(found[1])
            inside = self._either(flags)
            if self._next() != ")":
                raise Unreadable(self.source)
            return inside
        if char == ".":
            return Chars(ALL if flags.dot_all else complement(((10, 10),)))
        if char == "[":
            return Chars(self._class(flags))
        if char in "^$*+?":
            raise Unreadable(self.source)
        if char == "\\":
            return Chars(self._escape(flags))
        return Chars(self._folded(((ord(char), ord(char)),), flags))

    def _folded(self, ranges: Ranges, flags: _Flags) -> Ranges:
        if not flags.fold:
            return ranges
        found = folded(ranges)
        if found is None:
            raise Unreadable(self.source)
        return found

    def _escape(self, flags: _Flags) -> Ranges:
        char = self._next()
        if char.lower() in _CLASSES:
            ranges = self._folded(_CLASSES[char.lower()], flags)
            return complement(ranges) if char.isupper() else ranges
        self.at -= 1
        code = self._code()
        return self._folded(((code, code),), flags)

    def _code(self) -> int:
        """The one character of an escape, behind its backslash."""
        char = self._next()
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "x":
            found = re.compile(r"([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\}").match(self.source, self.at)
            if found is None:
                raise Unreadable(self.source)
            self.at = found.end()
            return int(found[1] or found[2], 16)
        if char in "01234567":
            found = re.compile(r"[0-7]{0,2}").match(self.source, self.at)
            rest = found.group() if found else ""
            if char != "0" and not rest:
                raise Unreadable(self.source)
            self.at += len(rest)
            return int(char + rest, 8)
        if char.isalnum() or ord(char) > 0x7F:
            raise Unreadable(self.source)
        return ord(char)

    def _class(self, flags: _Flags) -> Ranges:
        negated = self._sees("^")
        self.at += negated
        found: list[tuple[int, int]] = []
        first = True
        while first or not self._sees("]"):
            first = False
            if self._sees("[:"):
                named = re.compile(r"\[:(\^?)([a-z]+):\]").match(self.source, self.at)
                if named is None or named[2] not in POSIX:
                    raise Unreadable(self.source)
                self.at = named.end()
                ranges = self._folded(POSIX[named[2]], flags)
                found += complement(ranges) if named[1] else ranges
                continue
            if self._sees("\\") and self.source[self.at + 1 : self.at + 2].lower() in _CLASSES:
                self.at += 1
                found += self._escape(flags)
                continue
            low = self._member()
            high = low
            if self._sees("-") and self.source[self.at + 1 : self.at + 2] not in {"]", ""}:
                self.at += 1
                high = self._member()
            if high < low:
                raise Unreadable(self.source)
            found += self._folded(((low, high),), flags)
        self.at += 1
        ranges = union(found)
        return complement(ranges) if negated else ranges

    def _member(self) -> int:
        char = self._next()
        return self._code() if char == "\\" else ord(char)
