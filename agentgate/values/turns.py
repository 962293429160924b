"""What a host knows of a turn's parts: which the user typed, and which came from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from agentgate.errors import ConfigError
from agentgate.values.value_class import value_class

# before each part of a stored turn whose parts are declared
OWN = "\x01"
PASTED = "\x02"
DOUBT = "\x03"  # before words among the stored turns that may be the user's
SAID = "\x04"  # before and behind what the agent had said, which a stored turn answers
MAX_AGENT_SAID = 1000  # characters that are kept of it, the last ones
_UNKEPT = re.compile("[\x00-\x04\ud800-\udfff]")


@value_class
class Own:
    """A part of a turn that the user typed: its lines are the user's own, whatever they look
    like; quotation marks in it still quote.
    """

    text: str


@value_class
class Pasted:
    """A part of a turn that comes from elsewhere (a pasted text, an attachment): it says
    nothing and names nothing.
    """

    text: str


Spoken = str | Iterable[Own | Pasted]


def turn_text(spoken: object) -> str:
    """A turn as it is stored and read.

    Args:
        spoken: a text, or its parts in order.

    Raises:
        ConfigError: neither a text nor parts, or a text with a character that separates parts.
    """
    parts = (
        (spoken,)
        if isinstance(spoken, str)
        else tuple(spoken)
        if isinstance(spoken, (list, tuple))
        else ()
    )
    if not parts or not (
        parts == (spoken,) or all(isinstance(part, (Own, Pasted)) for part in parts)
    ):
        raise ConfigError(
            "prompt", type(spoken).__name__, "a text, or a list of Own(...) and Pasted(...)"
        )
    texts = [part if isinstance(part, str) else part.text for part in parts]
    if not all(
        isinstance(text, str) and {OWN, PASTED, DOUBT, SAID}.isdisjoint(text) for text in texts
    ):
        raise ConfigError(
            "prompt",
            "a part that is no text, or holds U+0001 to U+0004",
            "texts without these characters",
        )
    marks = [
        "" if isinstance(part, str) else OWN if isinstance(part, Own) else PASTED
        for part in parts
    ]
    return "".join([mark + text for mark, text in zip(marks, texts, strict=True)])


def answering(agent_said: object, turn: str) -> str:
    """A turn as it is stored, with what the agent had said before it: text of a model, which is
    shown to people and read by nothing.

    Raises:
        ConfigError: no text.
    """
    if not isinstance(agent_said, str):
        raise ConfigError("agent_said", type(agent_said).__name__, "a text")
    kept = _UNKEPT.sub("", agent_said).strip()[-MAX_AGENT_SAID:]
    return f"{SAID}{kept}{SAID}{turn}" if kept else turn


class StoredTurns(NamedTuple):
    """Stored turns: the user's own; the words that may be theirs, each with the number of turns
    before it; what the last turn answers.
    """

    turns: tuple[str, ...]
    doubts: tuple[tuple[int, str], ...]
    agent_said: str


def split_turns(stored: tuple[str, ...]) -> StoredTurns:
    """Stored turns by whose they are."""
    turns: list[str] = []
    doubts = []
    agent_said = ""
    for text in stored:
        if text.startswith(DOUBT):
            doubts.append((len(turns), text[1:]))
        else:
            before, _, own = (
                text[1:].partition(SAID) if text.startswith(SAID) else ("", "", text)
            )
            agent_said = before
            turns.append(own)
    return StoredTurns(tuple(turns), tuple(doubts), agent_said)
