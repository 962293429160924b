"""Whether the user's own words refer to the user as a person in the task: "assign it to me", "close mine", "my own tickets".

Rules: an object of the first person counts ("me", "myself", "mine", "my own"), never "I" or "my" alone. "Me" counts only after a word
that expects a person ("to me", "invite me", "Kim and me"), not as the one to be served ("tell me", "do it for me", "let me know") or for
emphasis ("I did it myself"). It does not count in a quotation, after a colon (dictated or pasted), in a sentence that reports somebody's
words ("Ann said: ...", "she asked to give it to me"), where it is denied there or in a later turn, or where it is exempted ("keep mine",
"unless it is for me"). Forwarded text is not the user's. In doubt, the words do not refer to the user. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentgate.language.turn import Turn
from agentgate.language.word_files import either

_SELF = re.compile(
    rf"(?<![\w'-])(?:(?!by myself)(?<!seems )(?<!looks )(?<!sounds )(?<!according )(?<!back )(?:{either('before me')}) (?:me|myself)"
    r"|(?<!on )my own)(?![\w'@-])"
)
_MINE = re.compile(
    r"(?:(?<![\w'-])(?:is|are|was|were|be|of|to|from|with|and|or|just|only)|^(?:please )?(?!(?:an?|the|this|that|my) )\w+) mine"
    r"(?= ?[.,;!?)]| (?:and|or|but|too)\b| ?$)"
)
_ANY = re.compile(r"(?<![\w'-])(?:me|myself|mine|my own)(?![\w'-])")
_SPARING = re.compile(rf"(?<![\w'-])(?:{either('spares')})(?![\w'-])")  # "keep mine", "unless it is for me", "anyone besides me"
_PART = re.compile(r"[,.;!?]|(?<![\w'-])and(?![\w'-])")
_COLON = re.compile(r":(?=\s|$)")


def of_self(turns: Iterable[Turn]) -> bool:
    """Whether these turns refer to the user, and no later turn takes that back."""
    referred = False
    for turn in turns:
        text = turn.low.replace("\u2019", "'")
        colon = _COLON.search(text)
        end = len(text) if colon is None else colon.start()
        parts = [(voice, " ".join(text[start : min(stop, end)].split())) for voice, start, stop in turn.voices if start < end]
        referred = referred or any(voice == "said" and (_SELF.search(part) or _MINE.search(part)) for voice, part in parts)
        referred = referred and not any(_ANY.search(part) if voice == "denied" else _spared(part) for voice, part in parts)
    return referred


def _spared(clause: str) -> bool:
    """Whether one part of a clause exempts the user from the request."""
    sparing = ((part, _SPARING.search(part)) for part in _PART.split(clause))
    return any(word is not None and _ANY.search(part, word.end()) for part, word in sparing)
