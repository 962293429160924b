"""What a verb acts on: "drop ticket 4", and not "drop Sam a line".

An English verb has several meanings, and its object tells which. An injected call waits for the
wrong one: its arguments may stand in the same sentence ("drop Sam a line that 48213 is fixed",
"cancel 4711's gift wrap"). So a bare verb of an intent whose tools destroy something, or change
what an id names, asks for it only with an object of its kind: a noun of the tool, the intent or
an example, an entity that the tool takes, a quoted name, or a reference ("it", "the last one");
any certain thing where the tool's origins hold it to what the user named (`NAMED`).
"""

from __future__ import annotations

from functools import lru_cache

from agentgate.intents.phrases import PARTICLES, Occurrence, Phrases, places
from agentgate.language.pieces import FINITE, Piece
from agentgate.language.spans import NO_DAY, entities, small
from agentgate.language.stems import stem
from agentgate.language.turn import Turn
from agentgate.language.word_files import Forms, listed
from agentgate.workflow.model import NAMED, Intent

_FORMS = Forms("objects")
_LONG = 160  # characters behind a verb that may hold its object
_MARKS = ',;:.!?()"\u201c\u201d'
_VAGUE = listed("names nothing") | PARTICLES
_ENDS = listed("ends an object").union(PARTICLES, "-\u2013\u2014")
_ADVERBS = listed("adverbs")
_REFERENCES = listed("references")


def acts_on_its_kind(
    intent: Intent,
    turn: Turn,
    place: Occurrence,
    piece: Piece,
) -> bool:
    """Whether words of an intent are more than a bare verb, or their object is of its kind."""
    if intent.objects is None or not place.bare:
        return True
    low = turn.low
    kinds = _kinds(intent.objects, intent.words, intent.examples)
    begins, ends = _object(low, place)
    if _fits(low[begins:ends], turn.own[begins:ends], kinds):
        return True
    before = low[piece.begins : place.start]
    word = place.text
    if _FORMS.noun.search(before) and f"the {_kind(word)}" in kinds:  # "a new password"
        return True
    if not FINITE.search(word):  # "I want ticket 4 deleted"
        return False
    return _fits(before, turn.own[piece.begins : place.start], kinds)


def _object(low: str, place: Occurrence) -> tuple[int, int]:
    """Where a verb's object is, the second of two ("Sam a line"); without one, the word that
    follows.
    """
    begins = ends = next(_FORMS.first.finditer(low, place.start)).end()
    words = 0
    for match in _FORMS.word.finditer(low, begins, begins + _LONG):
        word = match[0].strip(_MARKS)
        if word in _ENDS or (words and word in {"that", ""}) or (word == "of" and not words):
            if words:
                break
            # the particle of a phrase; "get rid of"
            if match.end() <= place.end or word == "of":
                begins = ends = match.end()
                continue
            return match.start(), match.end()
        # "ORD-1's gift wrap" is no order
        if (owner := _FORMS.owner.match(word)) and owner[1] not in _REFERENCES | _ENDS:
            begins = match.end()
            words = 0
            continue
        if word in {"a", "an"} and words:
            begins = match.start()
        words += bool(word)
        ends = match.end()
        if match[0][-1] in _MARKS and (words or match[0] != ":"):
            break
    return begins, ends


def _fits(said: str, own: str, kinds: frozenset[str]) -> bool:
    """Whether an object is of some kind."""
    words = _words(said)
    if NAMED in kinds and (not words or words[0] not in _VAGUE):
        return True
    if not words or (words[0] in {"me", "us"} and len(words) > 1):  # "drop me the gist of it"
        return False
    if words[-1] in _REFERENCES or any(
        _kind(word) in kinds or set(word) == {"_"} for word in words
    ):
        return True
    return ("<id>" in kinds and any(map(_FORMS.code.match, words))) or any(
        f"<{entity.type}>" in kinds for entity in entities(own, NO_DAY)
    )


def _words(text: str) -> list[str]:
    return [
        word for each in text.split() if (word := each.strip(_MARKS)) and word not in _ADVERBS
    ]


def _kind(word: str) -> str:
    return stem(_FORMS.possessive.sub("", word)) or word


@lru_cache(4096)
def _kinds(
    objects: frozenset[str],
    words: Phrases,
    examples: Phrases,
) -> frozenset[str]:
    """The kinds of an intent's objects: its tools' own, what its phrases name, and how the
    objects of its examples end.
    """
    verbs = {stem(phrase.removeprefix("^")) for phrase in words if " " not in phrase}
    kinds = {noun if noun[0] == "<" else stem(noun) for noun in objects} - verbs
    kinds |= {stem(noun) for phrase in words for noun in _FORMS.named.findall(phrase)}
    for example in examples:
        low = small(example)
        for place in places(words, low):
            begins, ends = _object(low, place)
            kinds |= {_kind(word) for word in _words(low[begins:ends])[-1:]}
            if _FORMS.noun.search(low, 0, place.start):
                kinds.add(f"the {_kind(place.text)}")
    return frozenset(kinds)
