"""Splits the user's words into clauses, each said or denied: the words of denial, idioms that
only look like denials, where a denial ends.

Rules: a denial in an instruction ("do not pay it") extends to the end of its clause; that of a
statement ("I can't come, move it") ends with its part of the sentence, unless the statement is
about what is to be done or allowed; that of a state of affairs ("ORD-7 never came, ship it
again") only before a command and its object. A clause does not end right after its negation:
"do not, please, refund it", or a line break there. Patterns are for lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from agentgate.language.word_files import Forms, listed

_FORMS = Forms("denials")

Voice = Literal["said", "doubted", "reported", "denied"]
_VERBS = listed("verbs")
NEGATION = _FORMS.negation
# "I can't make it on Friday, move it to Monday", "if it is not shipped, cancel it": a negated
# statement that is not about "you".
_FAR = 400  # characters behind a negation that may hold its end
_LONGEST = 64  # characters of a negation that goes on over a line break
_SUBJECT = 60  # characters before a negation that may hold its subject
# A statement about what is to be done, allowed or asked for: its denial goes on ("has not
# agreed to pay, send it"). After a comma: a request, not the next item of a denied list ("not
# from ann@x.example, bob@x.example").
_ENDS = tuple(".!?;:")
_ALONE = listed("complete denials")


def without_idioms(low: str) -> str:
    """A text in lower case without what only looks like a denial, of the same length."""
    text = _FORMS.idiom.sub(
        lambda idiom: idiom[0][0].ljust(len(idiom[0]), "_"),
        "\n" + low,
    )
    return text[1:]


def clauses(
    turn: str,
    text: str,
) -> Iterator[tuple[Voice, int, int]]:
    """The clauses of the user's own words as (voice, start, end) spans; a clause is denied from
    its first negation on.

    `text`: the turn in lower case, without idioms.
    """
    start = 0
    bounds = [
        *(m.span() for m in _FORMS.clause.finditer(text)),
        (len(turn), len(turn)),
    ]
    if _FORMS.nobody.search(text):
        text = _FORMS.nothing.sub(lambda denial: "never".ljust(len(denial[0])), text)
    # where a denial begins that goes on behind a bound; the last one, and what ends it
    open_from = -1
    denial = (-1, -1)
    stop = None
    bare = 0  # up to where nothing but space stands behind the last denial
    for end, following in bounds:
        negation = NEGATION.search(text, max(start, open_from - _LONGEST), end)
        while negation:
            if denial != negation.span():
                denial = negation.span()
                stop = _stop_of(text, negation, start)
            at = negation.end()
            over = _end_of_denial(turn, text, at, end, stop)
            if not over or _FORMS.listed.search(text, at, min(end, at + _FAR)):
                break
            yield "said", start, negation.start()
            yield "denied", negation.start(), over.start()
            start = over.end()
            negation = NEGATION.search(text, start, end)
        if negation and end < len(turn) and negation[0] not in _ALONE:
            # "do not / touch the other one"
            nothing_yet = not turn[max(bare, negation.end()) : end].strip(" \t\n,")
            if nothing_yet:
                bare = end
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
    before = turn[max(0, end - 8) : end].rstrip()
    if turn[end] != "\n" or before.endswith(_ENDS):
        return False
    following = _FORMS.goes_on.match(turn, end + 1)
    return following is not None and following[0] not in {*_VERBS, "please"}


def _stop_of(
    text: str,
    negation: re.Match[str],
    start: int,
) -> re.Pattern[str] | None:
    """What ends the denial of a negated statement, in a clause that is unread from `start` on;
    None: it is an instruction.
    """
    begins, end = negation.span()
    near = max(start, begins - _SUBJECT)
    if _FORMS.you.search(text, start, begins):
        return None
    if _FORMS.verbless.search(text, near, end):
        return _FORMS.colon
    if _FORMS.statement.search(text, near, end):
        return _FORMS.statement_end
    state = _FORMS.states.search(text, near, end + _SUBJECT)
    if state and state.end() == begins:
        return _FORMS.command_ahead
    return None


def _end_of_denial(
    turn: str,
    text: str,
    at: int,
    end: int,
    stop: re.Pattern[str] | None,
) -> re.Match[str] | None:
    """Where what is denied from a place on ends in its clause: after a statement, or before
    what is to be done instead.

    A statement's denial may go on ("pay, send, move it"); a far end is none.
    """
    over = None
    if stop:
        over = stop.search(text, at, min(end, at + _FAR))
    if over and (
        _FORMS.bidding.search(text, at, over.start())
        or not turn[over.end() : over.end() + 1].islower()
        or not _FORMS.request.match(text, over.end(), end)
    ):
        over = None
    last = end
    if over:
        last = over.start()
    for way in _FORMS.instead.finditer(text, at, at + _FAR):
        if way["verb"] in _VERBS and way.start() < last:
            return way
    return over
