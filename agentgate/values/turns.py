"""What a host knows of a turn's parts: which the user typed, and which came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentgate.errors import ConfigError

OWN, PASTED = "\x01", "\x02"  # before each part of a stored turn whose parts are declared


@dataclass(frozen=True, slots=True)
class Own:
    """A part of a turn that the user typed: its lines are the user's own, whatever they look like; quotation marks in it still quote."""

    text: str


@dataclass(frozen=True, slots=True)
class Pasted:
    """A part of a turn that comes from elsewhere (a pasted text, an attachment): it says nothing and names nothing."""

    text: str


Spoken = str | Iterable[Own | Pasted]


def turn_text(spoken: object, field: str = "prompt") -> str:
    """A turn as it is stored and read.

    Args:
        spoken: a text, or its parts in order.
        field: the name of what is read, for the error.

    Raises:
        ConfigError: neither a text nor parts, or a text with a character that separates parts.
    """
    given = [spoken] if isinstance(spoken, str) else list(spoken) if isinstance(spoken, (list, tuple)) else None
    if given is None or not all(isinstance(part, (str, Own, Pasted)) for part in given) or (len(given) != 1 and any(isinstance(part, str) for part in given)):
        raise ConfigError(field, type(spoken).__name__, "a text, or a list of Own(...) and Pasted(...)")
    texts = [part if isinstance(part, str) else part.text for part in given]
    if not all(isinstance(text, str) and OWN not in text and PASTED not in text for text in texts):
        raise ConfigError(field, "a part that is no text, or holds U+0001 or U+0002", "texts without these characters")
    return "".join(text if isinstance(part, str) else (OWN if isinstance(part, Own) else PASTED) + text for part, text in zip(given, texts, strict=True))
