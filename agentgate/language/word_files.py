"""The files of words under ``words/``, as patterns for lower case.

`lists.toml` has plain words and phrases. The others have tables of patterns, each with its name:
expressions (`is`, with examples, or a `part` of others), or ways to say something (`ways`, or a
`class` of words that others use), one phrase per line:

    a|b one of these words word* with any ending word(s) with or without these letters a? may be
    left out ... up to 60 characters of the same sentence _ any word but a small one NAME a
    class @NAME one that only looks (@END: the phrase ends here)

Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from itertools import groupby
from operator import itemgetter

_ANY = r"(?!(?:an?|the|of|for|to|in|on|at|by|with|and|or|from|i|we|you|he|she|they|it)\b)[\w'\u2019-]{1,40}\b"
_SOME = r"(?:[^.!?;\n]|\.(?=[0-9])){0,60}?\b"


def read(name: str) -> str:
    """The text of a file of words."""
    return files("agentgate.language").joinpath("words", name).read_text("utf-8")


def _phrases(lines: str) -> str:
    """The pattern of phrases, one per line, with places for classes."""
    return f"(?:{'|'.join(map(_phrase, lines.strip().splitlines()))})"


def _phrase(line: str) -> str:
    pattern = ""
    parts = line.split()
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part == "...":
            pattern += _SOME
        elif part[0] == "@":
            pattern += _place(part[1:])
        else:
            ways = "|".join(map(_word, part.removesuffix("?").split("|")))
            ends = r"\s"
            if following in {"", "..."} or following[0] == "@":
                ends = r"(?!\w)"
            pattern += f"(?:(?:{ways}){ends})" + ("?" if part.endswith("?") else "")
    return pattern


def _place(name: str) -> str:
    return f"{{_{name.lower()}}}"


def _word(way: str) -> str:
    if way == "_":
        return _ANY
    if way.isupper():
        return _place(way)
    word = re.escape(way).replace("_", r"\w{1,40}").replace("'", "['\u2019]")
    return word.replace(r"\*", r"\w*").replace(r"\(", "(?:").replace(r"\)", ")?")


FORMS = read("forms.toml")
_tables = cache(tomllib.loads)


_LISTS = {
    name: tuple(filter(None, map(str.strip, re.split("[,\n]", entries))))
    for name, entries in tomllib.loads(read("lists.toml")).items()
}


def listed(*names: str) -> frozenset[str]:
    """The entries of these lists, in lower case."""
    return frozenset().union(*map(_LISTS.__getitem__, names))


def needed(*names: str) -> frozenset[str]:
    """One word of each entry of these lists, its longest: a text in lower case without any of
    them holds no entry.
    """
    return frozenset(max(re.split("[^a-z]", entry), key=len) for entry in listed(*names))


@cache
def either(*names: str) -> str:
    """A pattern, for lower case, of the entries of these lists; the longest that matches
    counts, and a space is any white space.
    """
    return branched(listed(*names), lambda letter: _LETTERS.get(letter, re.escape(letter)))


def branched(
    entries: Collection[str],
    pattern_of: Callable[[str], str],
) -> str:
    """A pattern of these entries, branched by their letters one after the other: most texts
    fail at the first.
    """
    if not any(entries):
        return ""
    branches = [
        pattern_of(first) + branched([entry[1:] for entry in group], pattern_of)
        for first, group in groupby(sorted(filter(None, entries)), key=itemgetter(0))
    ]
    pattern = (
        branches[0] if len(branches) == 1 and "" not in entries else f"(?:{'|'.join(branches)})"
    )
    if "" in entries:
        return f"{pattern}?"
    return pattern


class Forms:
    """The patterns of one table of a file, each under the name of its row; `code`: further
    parts.
    """

    def __init__(
        self,
        table: str,
        file: str = FORMS,
        **code: str,
    ) -> None:
        rows: Mapping[str, Mapping[str, str]] = _tables(file)[table]

        def written(name: str) -> str:
            if name in code:
                return code[name]
            row = rows[name]
            ways = row.get("ways", row.get("class"))
            pattern = _phrases(ways) if ways else row.get("is") or row["part"]
            return _GIVEN.sub(given, pattern.replace("\n", ""))

        def given(place: re.Match[str]) -> str:
            if place[1]:
                return written(place[2])
            return either(*place[2].split(", "))

        for name, row in rows.items():
            if "is" in row:
                self.__dict__[name] = re.compile(written(name))
            elif "ways" in row:
                self.__dict__[name] = re.compile(rf"(?<![\w.,-]){written(name)}")

    def __getattr__(self, name: str) -> re.Pattern[str]:
        raise AttributeError(name)


_GIVEN = re.compile(r"\{(_?)([a-z][a-z_, -]*)\}")
_LETTERS = {" ": r"\s{1,4}", "'": "['\u2019]"}
