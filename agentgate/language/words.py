"""The word lists of `words.txt`, by name: how people begin a request, name a text, report, ask, and take back."""

from __future__ import annotations

import re
from importlib.resources import files


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


def either(*names: str) -> str:
    """A pattern, for lower case, of the entries of these lists, the longest first; a space is any white space."""
    entries = sorted({entry for name in names for entry in _LISTS[name]}, key=lambda entry: (-len(entry), entry))
    return "|".join(re.escape(entry).replace(r"\ ", r"\s{1,4}").replace("'", "['\u2019]") for entry in entries)
