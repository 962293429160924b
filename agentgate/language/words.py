"""The word lists of `words.txt`, by name: how people begin a request, name a text, report, ask, and take back."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import groupby
from operator import itemgetter


def _read(text: str) -> dict[str, tuple[str, ...]]:
    lists: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            into = lists.setdefault(line.strip("[] "), [])
        elif line and not line.startswith("#"):
            into += [entry.strip() for entry in line.split(",") if entry.strip()]
    return {name: tuple(entries) for name, entries in lists.items()}


_LISTS = _read(files("agentgate.language").joinpath("words.txt").read_text("utf-8"))


def listed(name: str) -> frozenset[str]:
    """The entries of one list, in lower case."""
    return frozenset(_LISTS[name])


def needed(*names: str) -> frozenset[str]:
    """One word of each entry of these lists, its longest: a text in lower case without any of them holds no entry."""
    return frozenset(max(re.split("[^a-z]", entry), key=len) for name in names for entry in _LISTS[name])


def either(*names: str) -> str:
    """A pattern, for lower case, of the entries of these lists; the longest that matches counts, and a space is any white space."""
    return _branches(sorted({entry for name in names for entry in _LISTS[name]}))


def _branches(entries: list[str]) -> str:
    """The entries, branched by their letters one after the other: most texts fail at the first."""
    by_first = {first: [entry[1:] for entry in group] for first, group in groupby(filter(None, entries), key=itemgetter(0))}
    branches = [_LETTERS.get(first, re.escape(first)) + (_branches(rest) if rest != [""] else "") for first, rest in by_first.items()]
    pattern = branches[0] if len(branches) == 1 and "" not in entries else f"(?:{'|'.join(branches)})"
    return f"{pattern}?" if "" in entries else pattern


_LETTERS = {" ": r"\s{1,4}", "'": "['\u2019]"}
