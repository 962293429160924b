"""Whether a turn is understood: what is neither looking nor an act that its grammar shows
leaves every intent open.

Rules: a clause is understood where it looks something up, asks, requests or tells in English;
one that a word of an intent explains, or that is denied or reported, need not be. Of anything
else, in any language, nothing follows: it is unclear for every intent. So is a bare yes, which
asks for what somebody else said.
"""

from __future__ import annotations

from agentgate.language.pieces import QUESTION, VERBS, Piece
from agentgate.language.turn import Clause, Turn, agrees, fold_spaces
from agentgate.language.word_files import Forms, listed

_FORMS = Forms("unread")
_MARKS = ",.;:!?()\"'"
_LISTS = (
    "silent, question words, no verb, soft, look, shaping, finite, subordinate, plans, "
    "adverbs, references, agrees"
)
_ENGLISH = VERBS.union(*map(str.split, listed(*_LISTS.split(", "))))
# one word of so many, at least (of a request half as many), is a verb or has no meaning of its
# own
_SHARE = 3
# characters; words in a row that are none of these
_LONG = 400
_SHOWN = 80  # characters of words that were not understood
# words of a later turn that are a choice or an answer, and say nothing without what was said
# before
_FEW = 3


def unread_in(
    turn: Turn, words: list[str], explained: frozenset[Clause], *, later: bool
) -> tuple[int, str]:
    """Where the first words are that were not understood, and the words; -1: all were.

    `words`: the turn's; `explained`: the clauses with words of an intent.
    """
    if turn.assents:
        return 0, shown(turn.own)
    brief = later and len(words) <= _FEW
    first = None
    known = False
    said = _FORMS.any if later else _FORMS.word
    # of a long text, part may be in another language where many words in a row may be
    mixed = len(turn.low) <= _LONG or not turn.low.isascii()
    mixed = mixed or bytes(5) in bytes(map(_ENGLISH.__contains__, words))
    for at, clause in enumerate(turn.clauses if mixed else ()):
        text = turn.low[clause.start : clause.end]
        if clause.voice != "said" or (
            known and (_english(text) or (text.isascii() and len(text.split()) == 1))
        ):
            continue
        if clause in explained:
            known = True
        elif (
            said.search(text)
            and not agrees(text)
            and not any(each.voice == "reported" for each in turn.clauses[at + 1 : at + 2])
        ):
            read = [
                each
                for each in turn.pieces_of(clause)
                if said.search(bit := turn.low[each.start : each.end]) and not agrees(bit)
            ]
            if not read and not brief:
                continue
            if any(_understood(turn, piece, brief=brief) for piece in read):
                known = True
                continue
            place = clause.start, shown(turn.own[clause.start : clause.end])
            if brief or not _english(text):
                return place
            first = first or place
    if first and not known:
        return first
    for text in turn.unsure:
        if not _english(text):
            return len(turn.low), shown(text)
    return -1, ""


def shown(text: str) -> str:
    """Words that were not understood, as evidence shows them."""
    return fold_spaces(text)[:_SHOWN]


def stands_alone(turn: Turn) -> bool:
    """Whether a later turn may say by itself what it asks for."""
    return not turn.assents and len(turn.low.split()) > _FEW


def _understood(
    turn: Turn,
    piece: Piece,
    *,
    brief: bool,
) -> bool:
    words = turn.low[piece.begins : piece.end]
    if piece.kind == "look" or QUESTION.match(words):
        return True
    if piece.kind == "open" and not _FORMS.person.match(words):
        return False
    return not (brief and piece.kind != "question") and _english(
        words, _SHARE * (1 + (piece.kind == "request"))
    )


def _english(low: str, share: int = _SHARE) -> bool:
    words = low.split()
    if share * len(_ENGLISH.intersection(words)) >= len(words):
        return True
    words = [
        word for each in words if (word := each.strip(_MARKS)).isalpha() or not each.isascii()
    ]
    return share * sum(map(_ENGLISH.__contains__, words)) >= len(words)
