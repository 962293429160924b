"""Words that change the force of a sentence: "refund it, *but only if* Ann agrees", "send it,
*or rather* don't".

Rules: what stands beside a request is a reason, politeness, manner, an argument, a condition
that the agent looks up in data ("if the room is free") or a choice; else all of its sentence is
in doubt. The words that make it so are a closed class (`force.turns` in `words/forms.toml`),
and what follows them decides: a condition on what a person decides ("if Ann agrees"), on an
event ("once the parcel arrives"), a bare "no", a mood ("..., I'm only testing you"). Every
pattern is for lower case and one sentence; linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentgate.language.days import BEGINS
from agentgate.language.pieces import Piece
from agentgate.language.word_files import Forms

_FORMS = Forms("force", begins=BEGINS)

_LONGEST = 1000  # characters of a sentence that is read for its force
_BIDS = frozenset({"request", "shaping"})


def conditional(text: str) -> bool:
    """Whether a sentence begins with a condition."""
    return bool(_FORMS.conditional.match(text))


def goes_on(low: str, start: int) -> bool:
    """Whether a sentence says what follows the one before it: "then refund it"."""
    return bool(_FORMS.then.match(low, start))


def is_postponed(low: str, read: Sequence[Piece], at: int) -> bool:
    """Whether a piece is for another time, or one in front of it: "next week, refund it", "pay
    the bill tomorrow".
    """
    spans = [(piece.start, min(piece.end, piece.aside)) for piece in read[at : at + 1]]
    spans += [
        (piece.start, piece.end) for piece in read[max(0, at - 1) : at] if piece.kind == "open"
    ]
    return any(
        not word["argument"] for span in spans for word in _FORMS.later.finditer(low, *span)
    )


def in_doubt(
    low: str, own: str, clauses: Sequence[tuple[str, int, int]], read: Sequence[Piece]
) -> bool:
    """Whether the force of a sentence is in doubt.

    Args:
        low: the turn in lower case, quotations hidden.
        own: as it was written: a word with a capital is a name.
        clauses: of the sentence, each as (voice, start, end).
        read: its pieces.
    """
    start = clauses[0][1]
    end = clauses[-1][2]
    asked = next((piece.begins for piece in read if piece.kind in {"request", "shaping"}), end)
    looks = any(piece.kind == "look" for piece in read)
    if asked == end and (
        looks
        or not any(
            piece.kind == "open" or _FORMS.turns.match(low, piece.begins) for piece in read[:1]
        )
    ):
        return False  # a statement
    if end - start > _LONGEST:
        return bool(_FORMS.turns.search(low, start, end))
    if any(_turns(low, piece, asked, end) for piece in read):
        return True
    if any(
        _delays(low, at, to) if at < asked < end else at > asked and _takes_back(low, at, to)
        for voice, at, to in clauses
        if voice == "denied"
    ):
        return True
    words = [
        word
        for word in _FORMS.turns.finditer(low, start, end)
        if word.start() > asked or word["condition"] or word["event"]
    ]
    asking = [
        (piece.start, piece.end if piece.kind == "question" else piece.head) for piece in read
    ]
    return any(
        _turned(low, own, word, end, read)
        for word in words
        if not any(at <= word.start() and word.end() <= to for at, to in asking)
    )


def _delays(low: str, at: int, to: int) -> bool:
    """Whether a denial in front of a request is one to act for now: "don't do anything until
    ...".
    """
    return bool(_FORMS.until.match(low, at, to) or _FORMS.delays.match(low, at, to))


def _takes_back(low: str, at: int, to: int) -> bool:
    """Whether a denial behind a request is of all of it: "..., not yet", "..., never said
    Ann".
    """
    no = _FORMS.bare_no.match(low, at, to) and not _FORMS.abbreviated.match(low, at - 1)
    return bool(no or _FORMS.attributed.match(low, at, to))


def _turns(low: str, piece: Piece, asked: int, end: int) -> bool:
    """Whether a piece makes the request that it begins, or that stands before or behind it, one
    that may not be meant now.
    """
    if piece.kind == "question" and asked < end and low[piece.end : piece.end + 1] == ",":
        inverted = _FORMS.inverted.match(low, piece.begins, piece.end)
        return inverted is not None and not _looked_up(low[inverted.end() - 1 : piece.end], "")
    if piece.start <= asked:
        return piece.kind in {*_BIDS, "statement"} and bool(
            _FORMS.delays.match(low, piece.begins, piece.end)
        )
    again = (piece.head < 0 or piece.kind not in {*_BIDS, "look"}) and _FORMS.again.match(
        low, piece.start, piece.end
    )
    return bool(
        again
        or _FORMS.mood.match(low, piece.start, piece.end)
        or _FORMS.attributed.match(low, piece.start, end)
    )


def _turned(low: str, own: str, word: re.Match[str], end: int, read: Sequence[Piece]) -> bool:
    """Whether a word of the class changes the force of its sentence."""
    kind = word.lastgroup
    at = word.end()
    if kind in {"condition", "event"} and _FORMS.tells.search(
        low, max(0, word.start() - 40), word.start()
    ):
        return False
    if kind == "but":
        after = next((piece for piece in read if piece.end > at + 1), None)
        if not after:
            return False
        goes_on_doing = after.kind in _BIDS or _FORMS.adds.match(low, at)
        return not goes_on_doing or bool(_FORMS.waits.match(low, max(at, after.begins), end))
    if kind == "sure":
        return True
    rest = _FORMS.rest.match(low, at, end)
    text = _FORMS.ends.split(rest.group())[0] if rest else ""
    if text.strip() in {"", "at all"}:
        return text != "" or word.group() in {"permitting", "allowing"}
    if _FORMS.polite.match(text):
        return False
    added = next((piece for piece in read if piece.start >= at + len(text)), None)
    if (
        added
        and added.kind in {"statement", "open"}
        and _FORMS.joins.search(low, max(0, word.start() - 8), word.start())
    ):
        # "Ann, and if he is free, Bob"
        return bool(_FORMS.value.search(own, added.start, added.end))
    if kind == "event" and (
        text.startswith(" you ")
        or _FORMS.time.match(text)
        or (_FORMS.past.search(text) and not _FORMS.perfect.search(text))
    ):
        return bool(_FORMS.decided.search(text))
    if (
        kind == "condition"
        and word.group() not in {"if", "unless", "in case"}
        and _FORMS.subject.match(text)
    ):
        return True
    return kind == "event" or not _looked_up(text, own[at : at + len(text)])


def _looked_up(text: str, own: str) -> bool:
    """Whether an agent finds the answer to a condition in data: no person decides it, and it is
    no event to come.
    """
    if _FORMS.decided.search(text):
        return False
    if _FORMS.somebody.match(text) or own.lstrip()[:1].isupper():
        return bool(_FORMS.there.match(text))
    return not _FORMS.subject.match(text) or bool(_FORMS.holds.search(text))
