"""The files of words under ``words/``, as patterns for lower case.

`lists.txt` has plain words and phrases, `forms.toml` patterns, each with its name and examples.
The other files have ways to say something, one phrase per line:

    a|b one of these words word* with any ending word(s) with or without these letters a? may be
    left out ... up to 60 characters of the same sentence _ any word but a small one NAME a
    class: of the table `classes` of the file, where each may use those before it, or of code
    @NAME a class that only looks (@END: the phrase ends here)

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
from typing import Any

_CLASSES = {
    "_": r"(?!(?:an?|the|of|for|to|in|on|at|by|with|and|or|from|i|we|you|he|she|they|it)\b)[\w'\u2019-]{1,40}\b",
    "...": r"(?:[^.!?;\n]|\.(?=[0-9])){0,60}?\b",
}


def read(name: str) -> str:
    """The text of a file of words."""
    return files("agentgate.language").joinpath("words", name).read_text("utf-8")


def patterns(text: str, code: Mapping[str, str]) -> dict[tuple[str, int], re.Pattern[str]]:
    """The patterns of a file's text, by the table's name and the key in it; `code` has further
    classes.
    """
    tables = tomllib.loads(text)
    classes = {**_CLASSES, **code}
    for name, lines in tables.pop("classes").items():
        classes[name] = _any_of(lines, classes)
    every = {
        (table, int(n)): lines
        for table, numbers in tables.items()
        for n, lines in numbers.items()
    }
    return {
        key: re.compile(rf"(?<![\w.,-]){_any_of(lines, classes)}")
        for key, lines in every.items()
    }


def _any_of(lines: str, classes: Mapping[str, str]) -> str:
    return f"(?:{'|'.join(_phrase(line, classes) for line in lines.strip().splitlines())})"


def _phrase(line: str, classes: Mapping[str, str]) -> str:
    """The pattern of one line."""
    parts = line.split()
    pattern = ""
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part == "..." or part[0] == "@":
            pattern += classes[part.removeprefix("@")]
            continue
        ways = "|".join(
            classes.get(way) or _word(way) for way in part.removesuffix("?").split("|")
        )
        ends = r"(?!\w)" if following in {"", "..."} or following[0] == "@" else r"\s"
        pattern += f"(?:(?:{ways}){ends})" + ("?" if part.endswith("?") else "")
    return pattern


def _word(way: str) -> str:
    word = re.escape(way).replace("_", r"\w{1,40}").replace("'", "['\u2019]")
    return word.replace(r"\*", r"\w*").replace(r"\(", "(?:").replace(r"\)", ")?")


# --- lists ------------------------------------------------------------------------------------
def _parsed(text: str) -> dict[str, tuple[str, ...]]:
    lists: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            into = lists.setdefault(line.strip("[] "), [])
        elif line and not line.startswith("#"):
            into += [entry.strip() for entry in line.split(",") if entry.strip()]
    return {name: tuple(entries) for name, entries in lists.items()}


_LISTS = _parsed(read("lists.txt"))


def listed(name: str) -> frozenset[str]:
    """The entries of one list, in lower case."""
    return frozenset(_LISTS[name])


def needed(*names: str) -> frozenset[str]:
    """One word of each entry of these lists, its longest: a text in lower case without any of
    them holds no entry.
    """
    return frozenset(
        max(re.split("[^a-z]", entry), key=len) for name in names for entry in _LISTS[name]
    )


@cache
def either(*names: str, begins: bool = False) -> str:
    """A pattern, for lower case, of the entries of these lists; the longest that matches
    counts, and a space is any white space.

    `begins`: only where a word begins; with the letter before that condition, a search fails
    fast at most places.
    """
    entries = {entry for name in names for entry in _LISTS[name]}
    return branched(
        entries,
        lambda letter: _LETTERS.get(letter, re.escape(letter)),
        r"(?<!\w{})" if begins else "",
    )


def branched(
    entries: Collection[str], pattern_of: Callable[[str], str], behind_first: str = ""
) -> str:
    """A pattern of these entries, branched by their letters one after the other: most texts
    fail at the first.
    """
    by_first = {
        first: [entry[1:] for entry in group]
        for first, group in groupby(sorted(filter(None, entries)), key=itemgetter(0))
    }
    branches = [
        pattern_of(first)
        + behind_first.format(first)
        + (branched(rest, pattern_of) if rest != [""] else "")
        for first, rest in by_first.items()
    ]
    pattern = (
        branches[0] if len(branches) == 1 and "" not in entries else f"(?:{'|'.join(branches)})"
    )
    return f"{pattern}?" if "" in entries else pattern


class Forms:
    """The patterns of one table of `forms.toml`, each under the name of its row; `code`:
    further parts.
    """

    def __init__(self, table: str, **code: str) -> None:
        rows: Mapping[str, Mapping[str, Any]] = _forms()[table] | {
            name: {"part": part} for name, part in code.items()
        }

        def written(name: str) -> str:
            row = rows[name]
            return _GIVEN.sub(given, row.get("is", row.get("part", "")).replace("\n", ""))

        def given(place: re.Match[str]) -> str:
            return (
                written(place[2])
                if place[1] == "_"
                else either(*place[2].split(", "), begins=place[1] == "^")
            )

        self.__dict__.update(
            {name: re.compile(written(name)) for name in rows if "is" in rows[name]}
        )

    def __getattr__(self, name: str) -> re.Pattern[str]:
        raise AttributeError(name)


@cache
def _forms() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads(read("forms.toml"))


_GIVEN = re.compile(r"\{([_^]?)([a-z][a-z_, -]*)\}")
_LETTERS = {" ": r"\s{1,4}", "'": "['\u2019]"}
