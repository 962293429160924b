"""Whether the user's own words refer to the user as a person in the task: "assign it to me",
"close mine", "my own tickets".

Rules: an object of the first person counts ("me", "myself", "mine", "my own"), never "I" or
"my" alone. "Me" counts only after a word that expects a person ("to me", "invite me", "Kim and
me"), not as the one to be served ("tell me", "do it for me", "let me know") or for emphasis ("I
did it myself"). It does not count in a quotation, after a colon (dictated or pasted), in a
sentence that reports somebody's words ("Ann said: ...", "she asked to give it to me"), where it
is denied there or in a later turn, or where it is exempted ("keep mine", "unless it is for
me"). Forwarded text is not the user's. In doubt, the words do not refer to the user. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentgate.language.turn import Turn, fold_spaces
from agentgate.language.word_files import Forms

_FORMS = Forms("first_person")


def of_self(turns: Iterable[Turn]) -> bool:
    """Whether these turns refer to the user, and no later turn takes that back."""
    referred = False
    for turn in turns:
        text, *_ = _FORMS.colon.split(turn.low.replace("\u2019", "'"), 1)
        parts = [(voice, fold_spaces(text[start:end])) for voice, start, end in turn.voices]
        referred = referred or any(
            voice == "said" and _FORMS.refers.search(part) for voice, part in parts
        )
        referred = referred and not any(
            _FORMS.any.search(part) if voice == "denied" else _spares(part)
            for voice, part in parts
        )
    return referred


def _spares(clause: str) -> bool:
    """Whether one part of a clause exempts the user from the request."""
    return any(
        (word := _FORMS.spares.search(part)) and _FORMS.any.search(part, word.end())
        for part in _FORMS.part.split(clause)
    )
