"""Whether the user's own words refer to the user as a person in the task: "assign it to me", "close mine", "my own tickets".

Rules: an object of the first person counts ("me", "myself", "mine", "my own"), never "I" or "my" alone. "Me" counts only after a word
that expects a person ("to me", "invite me", "Kim and me"), not as the one to be served ("tell me", "do it for me", "let me know") or for
emphasis ("I did it myself"). It does not count in a quotation, after a colon (dictated or pasted), in a sentence that reports somebody's
words ("Ann said: ...", "she asked to give it to me"), where it is denied there or in a later turn, or where it is exempted ("keep mine",
"unless it is for me"). Forwarded text is not the user's. In doubt, the words do not refer to the user. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from functools import lru_cache

from agentgate.language.denials import clauses
from agentgate.language.quotations import hidden_quotations

_BEFORE = (
    "to by from with of between including and or just only assign reassign unassign add invite remove include email e-mail mail"
    " message notify ping cc bcc pay reimburse send forward"
).split()
_SELF = re.compile(
    rf"(?<![\w'-])(?:(?!by myself)(?<!seems )(?<!looks )(?<!sounds )(?<!according )(?<!back )(?:{'|'.join(_BEFORE)}) (?:me|myself)"
    r"|(?<!on )my own)(?![\w'-])"
)
_MINE = re.compile(
    r"(?:(?<![\w'-])(?:is|are|was|were|be|of|to|from|with|and|or|just|only)|^(?:please )?(?!(?:an?|the|this|that|my) )\w+) mine"
    r"(?= ?[.,;!?)]| (?:and|or|but|too)\b| ?$)"
)
_ANY = re.compile(r"(?<![\w'-])(?:me|myself|mine|my own)(?![\w'-])")
_REPORT = re.compile(
    r"\b(?:sa(?:id|ys?|ying)|wr(?:ote|ites?|iting|itten)|ask(?:s|ed|ing)?|t(?:old|ells?|elling)|want(?:s|ed)|mention(?:s|ed)|repl(?:y|ies|ied)"
    r"|answer(?:s|ed)|begs?|begged|insist(?:s|ed)|suggest(?:s|ed)|according)\b"
)
_SPARING = re.compile(  # exempts somebody from the request: "keep mine", "unless it is for me", "anyone besides me"
    r"(?<![\w'-])(?:keeps?|leaves?|skip|spare|save|exclude|excluding|retain|preserve|protect|unless|besides?|(?:apart|aside) from"
    r"|other than|(?:all|(?:any|every)(?:one|body|thing)) but|but (?:not|for))(?![\w'-])"
)
_PART = re.compile(r"[,.;!?]|(?<![\w'-])and(?![\w'-])")
_SENTENCE = re.compile(r"[.!?]+\s")
_COLON = re.compile(r":(?=\s|$)")


@lru_cache(maxsize=32)
def of_self(turns: tuple[str, ...]) -> bool:
    """Whether these turns (without forwarded text) refer to the user, and no later turn takes that back."""
    referred = False
    for turn in turns:
        text = hidden_quotations(unicodedata.normalize("NFKC", turn).casefold().replace("\u2019", "'"))
        colon = _COLON.search(text)
        text = text if colon is None else text[: colon.start()]
        ends, told = [m.end() for m in _SENTENCE.finditer(text)], [m.start() for m in _REPORT.finditer(text)]
        parts = [(voice, start, end, " ".join(text[start:end].split())) for voice, start, end in clauses(text)]
        said = [(start, end) for voice, start, end, part in parts if voice == "said" and (_SELF.search(part) or _MINE.search(part))]
        referred = referred or not all(_reported(ends, told, start, end) for start, end in said)
        referred = referred and not any(_ANY.search(part) if voice == "denied" else _spared(part) for voice, _, _, part in parts)
    return referred


def _spared(clause: str) -> bool:
    """Whether one part of a clause exempts the user from the request."""
    sparing = ((part, _SPARING.search(part)) for part in _PART.split(clause))
    return any(word is not None and _ANY.search(part, word.end()) for part, word in sparing)


def _reported(ends: list[int], told: list[int], start: int, end: int) -> bool:
    """Whether the sentence that a clause is in has a verb of speech before the clause's end."""
    before = bisect_right(ends, start)
    return bisect_left(told, end) > bisect_left(told, ends[before - 1] if before else 0)
