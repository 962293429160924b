"""Foreign text made visible for a person: a terminal, a page or a comment shows every character
and obeys none.

Rules: every character that cannot be seen, moves the cursor, changes colours or turns the
reading direction (ANSI, C0 and C1 controls, bidirectional marks, zero-width characters) is
shown as its escape. So is a letter of another alphabet inside a word that has ASCII letters: in
a review, no name may look like another.
"""

from __future__ import annotations

import re
import unicodedata

UNSEEN = re.compile(  # characters that are not shown at all
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U000e0000-\U000e0fff]"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_ASCII = re.compile(r"[A-Za-z]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&@:/$])")


def visible(text: object, limit: int = 0) -> str:
    """One line of text in which every character is visible.

    Args:
        text: anything; its `str` counts.
        limit: longest result in characters; more is cut and ends in ``...``. 0: no limit.
    """
    line = str(text)
    if not line.isascii():
        line = _WORD.sub(_mixed, line)
    if not line.isprintable():
        line = "".join(char if char.isprintable() else _escape(char) for char in line)
    line = UNSEEN.sub(lambda found: _escape(found[0]), line)
    return line if not limit or len(line) <= limit else line[: limit - 3] + "..."


def markdown(text: object, limit: int = 0) -> str:
    """`visible` text with no meaning in Markdown: no link, mention, image, HTML, table cell or
    emphasis comes of it.
    """
    return _MARKDOWN.sub(lambda m: f"&#{ord(m[1])};", visible(text, limit))


def code(text: object, limit: int = 0) -> str:
    """`markdown` text as code: a forge looks for no ``@name`` and no ``#12`` in it (they are
    looked for after entities are read).
    """
    return f"<code>{markdown(text, limit)}</code>"


def _escape(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or char.encode(
        "unicode_escape"
    ).decode()


def _mixed(match: re.Match[str]) -> str:
    """A word of several alphabets with its foreign letters escaped."""
    word = match.group()
    if word.isascii() or not _ASCII.search(word):
        return word
    return "".join(
        c
        if c.isascii() or unicodedata.name(c, "").startswith(("LATIN", "COMBINING"))
        else _escape(c)
        for c in word
    )
