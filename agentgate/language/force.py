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
BIDS = frozenset({"request", "shaping"})


def is_conditional(low: str) -> bool:
    """Whether a sentence begins with a condition."""
    return bool(_FORMS.conditional.match(low))


def is_postponed(
    low: str,
    read: Sequence[Piece],
    at: int,
) -> bool:
    """Whether a piece is for another time, or one in front of it: "next week, refund it", "pay
    the bill tomorrow".
    """
    piece = read[at]
    spans = [(piece.start, min(piece.end, piece.aside))]
    if at and read[at - 1].kind == "open":
        spans.append((read[at - 1].start, read[at - 1].end))
    return any(_FORMS.later.search(low, *span) for span in spans)


def in_doubt(
    low: str,
    own: str,
    clauses: Sequence[tuple[str, int, int]],
    read: Sequence[Piece],
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
    bids = [piece.begins for piece in read if piece.kind in BIDS]
    asked = min(bids, default=end)
    if not bids:
        if not read or any(piece.kind == "look" for piece in read):
            return False
        if read[0].kind != "open" and not _FORMS.turns.match(low, read[0].begins):
            return False  # a statement
    if end - start > _LONGEST:
        return bool(_FORMS.turns.search(low, start, end))
    if any(_turns(low, piece, asked, end) for piece in read):
        return True
    for voice, at, to in clauses:
        if voice != "denied":
            continue
        if at < asked < end and _FORMS.not_now.match(low, at, to):
            return True
        no = _FORMS.bare_no.match(low, at, to) and not _FORMS.abbreviated.match(low, at - 1)
        if at > asked and (no or _FORMS.attributed.match(low, at, to)):
            return True  # "..., not yet", "..., never said Ann"
    asking = [
        (piece.start, piece.end if piece.kind == "question" else piece.head) for piece in read
    ]
    for word in _FORMS.turns.finditer(low, start, end):
        counts = word.start() > asked or word["condition"] or word["event"]
        asks = any(at <= word.start() and word.end() <= to for at, to in asking)
        if counts and not asks and _turned(low, own, word, end, read):
            return True
    return False


def _turns(
    low: str,
    piece: Piece,
    asked: int,
    end: int,
) -> bool:
    """Whether a piece makes the request that it begins, or that stands before or behind it, one
    that may not be meant now.
    """
    start = piece.start
    own = piece.begins
    stop = piece.end
    if piece.kind == "question" and asked < end and low.startswith(",", stop):
        inverted = _FORMS.inverted.match(low, own, stop)
        return inverted is not None and not _looked_up(low[inverted.end() - 1 : stop], "")
    if start <= asked:
        bids = piece.kind in {*BIDS, "statement", "open"}
        return bids and _FORMS.delays.match(low, own, stop) is not None
    adds = piece.head < 0 or piece.kind not in {*BIDS, "look"}
    again = adds and _FORMS.again.match(low, start, stop)
    mood = _FORMS.mood.match(low, start, stop)
    return bool(again or mood or _FORMS.attributed.match(low, start, end))


def _turned(
    low: str,
    own: str,
    word: re.Match[str],
    end: int,
    read: Sequence[Piece],
) -> bool:
    """Whether a word of the class changes the force of its sentence."""
    kind = word.lastgroup
    at = word.end()
    near = max(0, word.start() - 40)
    if kind in {"condition", "event"} and _FORMS.tells.search(low, near, word.start()):
        return False
    if kind == "but":
        after = next((piece for piece in read if piece.end > at + 1), None)
        if not after:
            return False
        if after.kind not in BIDS and not _FORMS.adds.match(low, at):
            return True
        return bool(_FORMS.waits.match(low, max(at, after.begins), end))
    if kind == "sure":
        return True
    stop = _FORMS.stop.search(low, at, end)
    text = low[at : stop.start() if stop else end]
    if text.strip() in {"", "at all"}:
        return text != "" or word[0] in {"permitting", "allowing"}
    if _FORMS.polite.match(text):
        return False
    added = next((piece for piece in read if piece.start >= at + len(text)), None)
    joins = _FORMS.joins.search(low, near, word.start())
    if joins and added and added.kind in {"statement", "open"}:
        # "Ann, and if he is free, Bob"
        return bool(_FORMS.value.search(own, added.start, added.end))
    if kind == "event":
        was = _FORMS.past.search(text) and not _FORMS.perfect.search(text)
        if was or _FORMS.time.match(text):
            return bool(_FORMS.decided.search(text))
        return True
    supposes = kind == "condition" and word[0] not in {"if", "unless", "in case"}
    if supposes and _FORMS.subject.match(text):
        return True
    return not _looked_up(text, own[at : at + len(text)])


def _looked_up(text: str, own: str) -> bool:
    """Whether an agent finds the answer to a condition in data: no person decides it, and it is
    no event to come.
    """
    if _FORMS.decided.search(text):
        return False
    if _FORMS.somebody.match(text) or own.lstrip()[:1].isupper():
        return bool(_FORMS.there.match(text))
    return not _FORMS.subject.match(text) or bool(_FORMS.holds.search(text))
