"""What a host knows of a turn's parts: which the user typed, and which came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentgate.errors import ConfigError

OWN, PASTED = "\x01", "\x02"  # before each part of a stored turn whose parts are declared
DOUBT = "\x03"  # before words among the stored turns that may be the user's


@dataclass(frozen=True, slots=True)
class Own:
    """A part of a turn that the user typed: its lines are the user's own, whatever they look like; quotation marks in it still quote."""

    text: str


@dataclass(frozen=True, slots=True)
class Pasted:
    """A part of a turn that comes from elsewhere (a pasted text, an attachment): it says nothing and names nothing."""

    text: str


Spoken = str | Iterable[Own | Pasted]


def turn_text(spoken: object) -> str:
    """A turn as it is stored and read.

    Args:
        spoken: a text, or its parts in order.

    Raises:
        ConfigError: neither a text nor parts, or a text with a character that separates parts.
    """
    parts = (spoken,) if isinstance(spoken, str) else tuple(spoken) if isinstance(spoken, (list, tuple)) else ()
    if not parts or not (parts == (spoken,) or all(isinstance(part, (Own, Pasted)) for part in parts)):
        raise ConfigError("prompt", type(spoken).__name__, "a text, or a list of Own(...) and Pasted(...)")
    texts = [part if isinstance(part, str) else part.text for part in parts]
    if not all(isinstance(text, str) and {OWN, PASTED, DOUBT}.isdisjoint(text) for text in texts):
        raise ConfigError("prompt", "a part that is no text, or holds U+0001, U+0002 or U+0003", "texts without these characters")
    marks = ["" if isinstance(part, str) else OWN if isinstance(part, Own) else PASTED for part in parts]
    return "".join([mark + text for mark, text in zip(marks, texts, strict=True)])


def split_doubts(stored: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...]]:
    """Stored turns as the user's own, and the words that may be theirs, each with the number of turns before it."""
    turns: list[str] = []
    doubts: list[tuple[int, str]] = []
    for text in stored:
        if text.startswith(DOUBT):
            doubts.append((len(turns), text[1:]))
        else:
            turns.append(text)
    return tuple(turns), tuple(doubts)
