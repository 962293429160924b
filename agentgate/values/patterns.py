"""Patterns and globs: whole-value matches that cannot be slow (RE2; no back-tracking) and
cannot be half anchored.

Both compile on first use. The tables below hold interned values, not answers: equal sources
share one object and one RE2 program between all workflows, since a program is kilobytes of
native memory.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2
from re2 import _re2

from agentgate.errors import CanonicalError

MAX_PATTERN = 512
MAX_VALUE = 4096
_BOTH = _re2.RE2.Anchor.ANCHOR_BOTH
# `^`, `$`, `\A`, `\z`, `\b`: anchoring is implicit; "^" + p + "$" around `a|b` is half anchored
_ANCHOR = re.compile(r"(?:^|[^\\])(?:\\\\)*(?:\\[AzZbB]|[$^])")
_CLASS = re.compile(r"\[(?:\\.|\[:\^?\w+:\]|[^\]\\])(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]")
_LAYOUT = re2.Options()
_LAYOUT.log_errors = False
_LAYOUT.max_mem = 1 << 20


@lru_cache(maxsize=4096)
def _program(source: str) -> Any:
    return re2.compile(source, _LAYOUT)._regexp  # noqa: SLF001 - the wrapper costs 3 us a match, the program 0.5


class Pattern:
    """A whole-value RE2 match. Build with `Pattern.of`; equal sources are one object."""

    __slots__ = ("source",)

    def __init__(self, source: str) -> None:
        self.source = source

    @classmethod
    def of(cls, source: str) -> Pattern:
        """The shared pattern of this source.

        Raises:
            CanonicalError: not RE2, too long, or anchored by hand.
        """
        if len(source) > MAX_PATTERN:
            raise CanonicalError(
                "pattern", f"{len(source)} characters", f"at most {MAX_PATTERN}"
            )
        if _ANCHOR.search(_CLASS.sub("[]", source)):
            raise CanonicalError(
                "pattern",
                repr(source),
                "no ^ $ \\A \\z \\b (a pattern always matches the whole value)",
            )
        try:
            _program(source)
        except re2.error as error:
            reason = (
                error.args[0].decode()
                if error.args and isinstance(error.args[0], bytes)
                else str(error)
            )
            raise CanonicalError(
                "pattern",
                f"{source!r} ({reason})",
                "RE2 syntax (no look-around, no back-references)",
            ) from error
        return _shared_pattern(source)

    def matches(self, value: str) -> bool:
        """True when the whole of `value` matches; a value over `MAX_VALUE` bytes does not."""
        data = value.encode()
        program = _program(self.source)
        return len(data) <= MAX_VALUE and program.Match(_BOTH, data, 0, len(data))[0][0] == 0

    def __repr__(self) -> str:
        return f"Pattern({self.source!r})"


class Glob:
    """`*` stops at `/`, `**` does not; every other character is itself. A value with a ``.`` or
    ``..`` segment never matches.
    """

    __slots__ = ("pattern", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        parts = re.split(r"(\*\*|\*)", source)
        self.pattern = Pattern.of(
            "".join({"**": "(?s:.*)", "*": "[^/]*"}.get(p, re2.escape(p)) for p in parts)
        )

    @classmethod
    def of(cls, source: str) -> Glob:
        """The shared glob of this source.

        Raises:
            CanonicalError: too long.
        """
        return _shared_glob(source)

    def matches(self, value: str) -> bool:
        """True when the whole of `value` matches and it has no dot segments."""
        return not {".", ".."} & set(value.split("/")) and self.pattern.matches(value)

    def __repr__(self) -> str:
        return f"Glob({self.source!r})"


_shared_pattern = lru_cache(maxsize=65536)(Pattern)
_shared_glob = lru_cache(maxsize=65536)(Glob)
