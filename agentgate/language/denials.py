"""Splits the user's words into clauses, each said or denied: the words of denial, idioms that
only look like denials, where a denial ends.

Rules: a denial in an instruction ("do not pay it") extends to the end of its clause; that of a
statement ("I can't come, move it") ends with its part of the sentence, unless the statement is
about what is to be done or allowed. A clause does not end right after its negation: "do not,
please, refund it", or a line break there. Patterns are for lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from agentgate.language.word_files import Forms, either, listed

_FORMS = Forms("denials")

Voice = Literal["said", "denied"]
_VERBS = listed("verbs")
_NEGATED = (
    "do does did must should ca wo would could need is are was were has have had sha might"
).split()  # before "n't"
DENIES = (
    rf"(?:{either('not knowing', 'denies')}|(?:{'|'.join(_NEGATED)})(?:n['’ʼ`´‘＇′ʹ՚‛]?| "
    r"n['’])t|cancel that(?! [a-z])"
    rf"|(?:other than|(?:apart|aside) from)(?! (?:that|this)\b)|excluding(?! vat\b)|skip(?= \w+ing\b))\b"
)
NEGATION = re.compile(rf"\b(?=[acdefhikmnoprsw]){DENIES}")
# "I can't make it on Friday, move it to Monday", "if it is not shipped, cancel it": a negated
# statement that is not about "you".
_FAR = 400  # characters behind a negation that may hold its end
_LONGEST = 64  # characters of a negation that goes on over a line break
_SUBJECT = 60  # characters before a negation that may hold its subject
# A statement about what is to be done, allowed or asked for: its denial goes on ("has not
# agreed to pay, send it"). After a comma: a request, not the next item of a denied list ("not
# from ann@x.example, bob@x.example").
_ENDS = (".", "!", "?", ";", ":")
_ALONE = frozenset(
    {"no", "none", "nobody", "stop", "abort", "forget", "cancel that", "hold off"}
)  # complete denials


def without_idioms(low: str) -> str:
    """A text in lower case without what only looks like a denial, of the same length."""
    return _FORMS.idiom.sub(lambda idiom: "_" * len(idiom.group()), low)


def clauses(turn: str, text: str) -> Iterator[tuple[Voice, int, int]]:
    """The clauses of the user's own words as (voice, start, end) spans; a clause is denied from
    its first negation on.

    `text`: the turn in lower case, without idioms.
    """
    start = 0
    bounds = [
        *((m.start(), m.end()) for m in _FORMS.clause.finditer(text)),
        (len(turn), len(turn)),
    ]
    if any(map(text.__contains__, ("noth", "nobody", "no one", "none", "neither", "no money"))):
        text = _FORMS.nothing.sub(lambda denial: "never".ljust(len(denial.group())), text)
    # where a denial begins that goes on behind a bound; the last one, and what ends it
    open_from = -1
    denial = (-1, -1)
    stop = None
    # up to where "or" was looked for, and the end of the last one
    seen = 0
    listed = 0
    bare = 0  # up to where nothing but space stands behind the last denial
    for end, following in bounds:
        negation = NEGATION.search(text, max(start, open_from - _LONGEST), end)
        if negation:
            listed = max(
                (m.end() for m in _FORMS.listed.finditer(text, max(start, seen), end)),
                default=max(start, listed),
            )
            seen = end
        while negation:
            if denial != negation.span():
                denial = negation.span()
                stop = _stop_of(text, negation, start)
            over = (
                _end_of_denial(turn, text, negation.end(), end, stop)
                if listed <= negation.end()
                else None
            )
            if not over:
                break
            yield "said", start, negation.start()
            yield "denied", negation.start(), over.start()
            start = over.end()
            negation = NEGATION.search(text, start, end)
        if negation and end < len(turn) and negation.group() not in _ALONE:
            # "do not / touch the other one"
            nothing_yet = not turn[max(bare, negation.end()) : end].strip(" \t\n,")
            bare = end if nothing_yet else bare
            if nothing_yet or _breaks_within(turn, end):
                open_from = negation.start()
                continue
        yield "said", start, negation.start() if negation else end
        if negation:
            yield "denied", negation.start(), end
        start = following
        open_from = -1


def _breaks_within(turn: str, end: int) -> bool:
    """Whether a line breaks here within a sentence: "do not touch / the other one", "I do not
    want / ORD-1002 refunded".
    """
    breaks = turn[end] == "\n" and not turn[max(0, end - 8) : end].rstrip().endswith(_ENDS)
    following = _FORMS.goes_on.match(turn, end + 1) if breaks else None
    return following is not None and following.group() not in {*_VERBS, "please"}


def _stop_of(text: str, negation: re.Match[str], start: int) -> re.Pattern[str] | None:
    """What ends the denial of a negated statement, in a clause that is unread from `start` on;
    None: it is an instruction.
    """
    begins, end = negation.span()
    near = max(start, begins - _SUBJECT)
    if _FORMS.you.search(text, start, begins):
        return None
    if _FORMS.verbless.search(text, near, end):
        return _FORMS.colon
    return (
        _FORMS.statement_end
        if _FORMS.stated.search(text, near, end) or _FORMS.never.search(text, near, end)
        else None
    )


def _end_of_denial(
    turn: str, text: str, at: int, end: int, stop: re.Pattern[str] | None
) -> re.Match[str] | None:
    """Where what is denied from a place on ends in its clause: after a statement, or before
    what is to be done instead.

    A statement's denial may go on ("pay, send, move it"); a far end is none.
    """
    over = stop.search(text, at, min(end, at + _FAR)) if stop else None
    if over and (
        _FORMS.bidding.search(text, at, over.start())
        or not _requests(turn, text, over.end(), end)
    ):
        over = None
    ways = _FORMS.instead.finditer(text, at, at + _FAR) if "instead" in text else ()
    ends = [over, *(way for way in ways if way["verb"] in _VERBS and way.start() < end)]
    return min(filter(None, ends), key=lambda match: match.start(), default=None)


def _requests(turn: str, text: str, at: int, end: int) -> bool:
    return turn[at : at + 1].islower() and _FORMS.request.match(text, at, end) is not None
