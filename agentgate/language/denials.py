"""Splits the user's words into clauses, each said or denied: the words of denial, idioms that only look like denials, where a denial ends.

Rules: a denial in an instruction ("do not pay it") extends to the end of its clause; that of a statement ("I can't come, move it") ends
with its part of the sentence, unless the statement is about what is to be done or allowed. A clause does not end right after its
negation: "do not, please, refund it", or a line break there. Patterns are for lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from agentgate.language.spans import small
from agentgate.language.word_files import Forms, either, listed

_FORMS = Forms("denials")

Voice = Literal["said", "denied"]
_VERBS = listed("verbs")
_NEGATED = "do does did must should ca wo would could need is are was were has have had sha might".split()  # before "n't"
DENIES = (
    rf"(?:{either('not knowing', 'denies')}|(?:{'|'.join(_NEGATED)})(?:n['’ʼ`´‘＇′ʹ՚‛]?| n['’])t|cancel that(?! [a-z])"
    rf"|(?:other than|(?:apart|aside) from)(?! (?:that|this)\b)|excluding(?! vat\b)|skip(?= \w+ing\b))\b"
)
NEGATION = re.compile(rf"\b(?=[acdefhikmnoprsw]){DENIES}")
IDIOM = _FORMS.idiom
# "I can't make it on Friday, move it to Monday", "if it is not shipped, cancel it": a negated statement that is not about "you".
_SENTENCE_TAIL = 400  # characters behind a negation that may hold its "instead"
_LONGEST = 64  # characters of a negation that goes on over a line break
_BREAK = 20  # characters of what ends a statement
_SUBJECT = 60  # characters before a negation that may hold its subject
# A statement about what is to be done, allowed or asked for: its denial goes on ("has not agreed to pay, send it").
# After a comma: a request, not the next item of a denied list ("not from ann@x.example, bob@x.example").
_ENDS = (".", "!", "?", ";", ":")
_ALONE = frozenset({"no", "none", "nobody", "stop", "abort", "forget", "cancel that", "hold off"})  # complete denials


def clauses(turn: str) -> Iterator[tuple[Voice, int, int]]:
    """The clauses of the user's own words as (voice, start, end) spans; a clause is denied from its first negation on."""
    start, text = 0, small(turn)
    bounds = [*((m.start(), m.end()) for m in _FORMS.clause.finditer(text)), (len(turn), len(turn))]
    text = IDIOM.sub(lambda idiom: "_" * len(idiom.group()), text)
    if any(map(text.__contains__, ("noth", "nobody", "no one", "none", "neither", "no money"))):
        text = _FORMS.nothing.sub(lambda denial: "never".ljust(len(denial.group())), text)
    denial: _Denial | None = None  # the one that did not end at the last bound
    seen, listed = 0, 0  # up to where "or" was looked for, and the end of the last one
    for end, following in bounds:
        near = start if denial is None else max(start, denial.start - _LONGEST)
        negation = NEGATION.search(text, near, end)
        if negation is not None:
            listed = max((m.end() for m in _FORMS.listed.finditer(text, max(start, seen), end)), default=max(start, listed))
            seen = end
        while negation is not None:
            denial = denial if denial is not None and denial.is_(negation) else _Denial(text, negation, start)
            over = denial.over(turn, end) if listed <= negation.end() else None
            if over is None:
                break
            yield "said", start, negation.start()
            yield "denied", negation.start(), over.start()
            start = over.end()
            negation = NEGATION.search(text, start, end)
        if negation is None or denial is None:
            yield "said", start, end
        elif end < len(turn) and negation.group() not in _ALONE and (denial.says_nothing(turn, end) or _wraps(turn, end)):
            continue
        else:
            yield "said", start, negation.start()
            yield "denied", negation.start(), end
        start, denial = following, None


def _wraps(turn: str, at: int) -> bool:
    """Whether a line breaks here within a sentence: "do not touch / the other one", "I do not want / ORD-1002 refunded"."""
    following = _FORMS.goes_on.match(turn, at + 1) if turn[at] == "\n" and not turn[max(0, at - 8) : at].rstrip().endswith(_ENDS) else None
    return following is not None and following.group() not in _VERBS and following.group() != "please"


class _Denial:
    """A negation, and where what it denies ends, asked for one bound after the other: no part of the text is read again for each."""

    __slots__ = ("_ends", "_instead", "_nothing", "_span", "_statement", "_text", "start")

    def __init__(self, text: str, negation: re.Match[str], start: int) -> None:
        """`text`: the turn in lower case; `start`: where the unread part of its clause begins."""
        self._text, self._span, self.start = text, negation.span(), negation.start()
        end = self._nothing = negation.end()
        near = max(start, self.start - _SUBJECT)
        verbless = _FORMS.verbless.search(text, near, end) is not None
        stated = verbless or any(form.search(text, near, end) for form in (_FORMS.stated, _FORMS.never))
        stated = stated and _FORMS.you.search(text, start, self.start) is None
        self._ends = None if not stated else _FORMS.colon if verbless else _FORMS.statement_end
        self._statement = (end, False)  # where its end may begin, and whether it is known to be none
        ways = _FORMS.instead.finditer(text, end, end + _SENTENCE_TAIL) if "instead" in text else ()
        self._instead = next((way for way in ways if way["verb"] in _VERBS), None)

    def is_(self, negation: re.Match[str]) -> bool:
        """Whether it is this one."""
        return self._span == negation.span()

    def over(self, turn: str, end: int) -> re.Match[str] | None:
        """Where the denial ends before `end`: after a statement, or before what is to be done instead."""
        instead = self._instead if self._instead is not None and self._instead.start() < end else None
        statement = self._statement_end(turn, end)
        return min(filter(None, (statement, instead)), key=lambda match: match.start(), default=None)

    def _statement_end(self, turn: str, end: int) -> re.Match[str] | None:
        """Where a negated statement ends; None for an instruction, and where the denial may go on ("pay, send, move it")."""
        at, bids = self._statement
        if self._ends is None or bids:
            return None
        over = self._ends.search(self._text, at, end)
        if over is None:
            self._statement = max(at, end - _BREAK), False
            return None
        if at != over.start():
            self._statement = over.start(), _FORMS.bidding.search(self._text, self._span[1], over.start()) is not None
            if self._statement[1]:
                return None
        return over if turn[over.end() : over.end() + 1].islower() and _FORMS.request.match(self._text, over.end(), end) else None

    def says_nothing(self, turn: str, end: int) -> bool:
        """Whether nothing is denied yet: its clause ends right after the negation."""
        blank = _FORMS.blank.match(turn, self._nothing, end)
        self._nothing = self._nothing if blank is None else blank.end()
        return self._nothing == end
