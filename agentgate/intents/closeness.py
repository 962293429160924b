"""Whether the words of a clause are a clear request for an intent: how close they are to its examples and counter-examples.

Closeness is the cosine of sets of stems, with typed entities replaced by their type. Compared with an example the intent's words are one
term whatever they are, so "refund ORD-1" and "reimburse ORD-2" are the same request; compared with a counter-example they are themselves,
so "close T-1" is not "update me on T-2". A counter-example without any of the words is ignored (such a prompt is absent anyway).
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from math import sqrt

from agentgate.intents.phrases import places
from agentgate.language.quantity import quantities
from agentgate.language.spans import entities, small
from agentgate.language.stems import stems
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

_NO_DAY = date(2000, 1, 1)  # only the types of entities matter here
_SAME = 0.999  # closeness of a repeated example
_LONG = 1000  # characters; the terms of a longer text are not cached
_NEAR = 0.5  # closeness from which a counter-example applies


def judged(intent: Intent, said: str, hit: str) -> Derived:
    """The answer for a clause with a word of the intent.

    Args:
        intent: the intent.
        said: the clause, as the user wrote it.
        hit: the words of it that match one of the intent's.
    """
    terms, wide = _about(said, intent.words), quantities(said)
    example, like = max(((_close(terms, _about(e, intent.words)), e) for e in intent.examples), default=(0.0, ""))
    counters = (c for c in intent.counter_examples if quantities(c) <= wide and _contains(c, intent.words))
    counter, text = max(((_close(_terms(said), _terms(c)), c) for c in counters), default=(0.0, ""))
    if counter >= _SAME > max((_close(_terms(said), _terms(e)) for e in intent.examples), default=0.0):
        return Derived("absent", f"counter-example: {text}")
    if counter >= _NEAR and counter > example:
        return Derived("unclear", f"word '{hit}', but closest to the counter-example: {text}")
    if wide and not any(map(quantities, intent.examples)):
        return Derived("unclear", f"word '{hit}', but '{min(wide)}' stands in no example")
    return Derived("present", f"word '{hit}'" + (f", closest to the example: {like}" if example else ""))


@lru_cache(maxsize=256)
def _terms(text: str) -> frozenset[str]:
    rest, end = [], 0
    types = set()
    for entity in entities(text, _NO_DAY):
        types.add(f"<{entity.type}>")
        rest.append(text[end : entity.start])
        end = entity.start + len(entity.words)
    return frozenset(types) | stems(" ".join([*rest, text[end:]])) | quantities(text)


@lru_cache(maxsize=8192)
def _contains(text: str, words: tuple[str, ...]) -> bool:
    """Whether a counter-example contains any of an intent's words."""
    return bool(places(words, small(text)))


def _about(text: str, words: tuple[str, ...]) -> frozenset[str]:
    """The terms of a text that contains some of an intent's words, with these as one term (cached, unless the text is long)."""
    return _kept(text, words) if len(text) <= _LONG else _read(text, words)


def _read(text: str, words: tuple[str, ...]) -> frozenset[str]:
    rest, end = [], 0
    for place in places(words, small(text)):
        rest.append(text[end : place.start])
        end = max(end, place.end)
    return _terms(" ".join([*rest, text[end:]])) | {"!"}


_kept = lru_cache(maxsize=8192)(_read)


def _close(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / sqrt(len(a) * len(b)) if a and b else 0.0
