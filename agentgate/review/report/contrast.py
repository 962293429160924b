"""Where two texts differ, word by word, so that a report can mark the difference and shorten
only what is the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

_WORD = re.compile(r"[^\s,]+,?|\s+|,")
_MOST_WORDS = 600  # beyond that the whole text counts as changed
_WHOLE = 60  # a text up to this long is shown whole
_KEPT = 18  # characters of what is the same that stay beside a difference


class Fragment(NamedTuple):
    """A part of a text, and whether the other text lacks it."""

    text: str
    changed: bool


Fragments = tuple[Fragment, ...]


def contrast(old: str, new: str) -> tuple[Fragments, Fragments]:
    """Both texts in fragments, each with what only it has marked."""
    words = [_WORD.findall(text) for text in (old, new)]
    if not old or not new or max(map(len, words)) > _MOST_WORDS:
        return _whole(old), _whole(new)
    bare = [[word.rstrip(",") for word in side] for side in words]
    same = difflib.SequenceMatcher(None, bare[0], bare[1], autojunk=False).get_opcodes()
    left = ("".join(words[0][a:b]) for _, a, b, _, _ in same)
    right = ("".join(words[1][a:b]) for _, _, _, a, b in same)
    changed = [kind != "equal" for kind, *_ in same]
    return _fragments(zip(left, changed, strict=True)), _fragments(
        zip(right, changed, strict=True)
    )


def shortened(fragments: Iterable[Fragment]) -> str:
    """The text with what is the same shortened, and what differs whole."""
    parts = tuple(fragments)
    if sum(len(part.text) for part in parts) <= _WHOLE:
        return "".join(part.text for part in parts)
    return "".join(
        part.text if part.changed or len(part.text) <= 2 * _KEPT else _ends(part.text)
        for part in parts
    )


def _ends(text: str) -> str:
    return f"{text[:_KEPT]}…{text[-_KEPT:]}"


def _whole(text: str) -> Fragments:
    return (Fragment(text, changed=True),) if text else ()


def _fragments(parts: Iterable[tuple[str, bool]]) -> Fragments:
    return tuple(Fragment(text, changed) for text, changed in parts if text)
