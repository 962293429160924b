"""The words of an intent as patterns: a phrase in its regular inflections, with places for a
person and a thing.

Rules, for lower case: whole words only, each in its regular inflections ("reply": replies,
replied, replying; "movie" is none of "move"); articles do not count; up to three words and an
article may separate two words. As in a dictionary, ``something`` is one to eight words that do
not begin with "up" or "to know" ("set something to 50": not "set up 50 to Ann"), and
``someone`` is one to five that are not the user ("tell someone": not "tell me"). A phrase that
begins with ``^`` matches, without inflections, only where a request begins
(`agentgate.language.pieces`): "Email Ann", "please email Ann", "I'd like you to email Ann"; not
"the email" and not "how to email".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from os.path import commonprefix
from sys import maxsize
from typing import NamedTuple

from agentgate.language.stems import stem
from agentgate.language.turn import Turn
from agentgate.language.word_files import branched, listed
from agentgate.workflow.model import ARTICLES, PLACES

_GAP = rf"\s+(?:(?:{'|'.join(sorted(ARTICLES))})\s+)?(?:\S+\s+){{0,3}}?"
_NOT_OTHERS = "to|i|we|me|us|myself|ourselves|you|it|what|which|who|whom|whose|when|where|why|how|if|whether|that|about"
_PLACES = {
    "something": (
        r"(?!(?:up|to "
        r"(?:know|see|check|find|hear|ask|understand))\b)(?:\S+\s+){0,7}?\S+"
    ),  # not "set up"
    "someone": rf"(?!(?:{_NOT_OTHERS})\b)(?:\S+\s+){{0,4}}?\S+",
}
_SMALL = PLACES | ARTICLES | listed("small words")
PARTICLES = listed("particles")
_ENDINGS = "ings ing ed es s d".split()
_FIRST = re.compile(r"(?<!\w)\w{1,3}")


Phrases = tuple[str, ...]
# how long the longest phrase is that starts or ends at a place
Longest = Counter[tuple[str, int]]


class Occurrence(NamedTuple):
    """Where a phrase is.

    Attributes:
        text: its words.
        asked: it counts only where a request begins.
        length: how many of its words have a meaning of their own; the phrase with more takes a
            word that two have.
        bare: it is a verb, perhaps with a particle ("take something off"), and does not say of
            what.
        words: of how many words it is, articles aside; 0: it has places for others.
    """

    start: int
    end: int
    text: str
    asked: bool
    length: int
    bare: bool
    words: int


def _bases(word: str) -> set[str]:
    """The words that a word may be an inflection of: itself, and itself without an ending."""
    bases = {word}
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3:
            bases |= {base, base + "e"} if ending in {"ing", "ings", "ed"} else {base}
            if len(base) > 3 and base[-1] == base[-2]:
                bases.add(base[:-1])
    return bases


def _inflected(base: str) -> set[str]:
    if base.endswith("e"):
        return {base, base + "s", base + "d", base[:-1] + "ing"}
    if base.endswith("y") and base[-2] not in "aeiou":
        return {base, base[:-1] + "ies", base[:-1] + "ied", base + "ing"}
    plural = base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")
    double = base + base[-1]
    return {base, plural, base + "ed", base + "ing", double + "ed", double + "ing"}


def _all_forms(word: str) -> set[str]:
    """A word and its regular inflections."""
    inflected = len(word) > 2 and word.isascii() and word.isalpha()
    return {word}.union(*map(_inflected, _bases(word))) if inflected else {word}


def _parts(words: str) -> list[tuple[str, set[str]]]:
    """The words of a phrase, but articles, each with its forms."""
    parts = words.removeprefix("^").lower().split()
    kept = [part for part in parts if part not in ARTICLES] or parts
    return [(part, {part} if words.startswith("^") else _all_forms(part)) for part in kept]


def _key(forms: set[str]) -> str:
    """The first three characters of a word, or fewer where its inflections differ or other
    characters follow.
    """
    start = _FIRST.match(commonprefix([*forms]))  # noqa: RUF071 - characters are meant
    return start[0] if start else ""


@lru_cache(16384)
def fixed(words: str) -> Phrases:
    """The stems of a phrase's words with a meaning of their own: neither places nor "to" and
    "the".
    """
    return tuple(
        word if word in PARTICLES else stem(word) or word
        for word in words.removeprefix("^").split()
        if word not in _SMALL
    )


class _Phrase(NamedTuple):
    """A phrase: its words, what of an `Occurrence` does not depend on the place, and the keys
    that a text with it must have.
    """

    words: str
    known: tuple[bool, int, bool, int]
    needed: frozenset[str]


@lru_cache(16384)
def _compiled(words: str) -> re.Pattern[str]:
    """The pattern of a phrase: each word or place, and what may separate two."""
    pattern = ""
    between = ""
    for part, forms in _parts(words):
        place = _PLACES.get(part)
        pattern += (r"\s+" if place and pattern else between) + (
            place or branched(forms, re.escape)
        )
        between = r"\s+" if place else _GAP
    # the letter first: most places fail at it
    first = pattern[:1] if pattern[:1].isalnum() else ""
    return re.compile(f"{first}(?<!\\w{first}){pattern[len(first) :]}(?!\\w)")


@lru_cache(4096)
def _index(words: Phrases) -> Mapping[str, list[_Phrase]]:
    """The phrases of an intent, each under the longest of its keys, so that few are searched
    for in a text.
    """
    index: dict[str, list[_Phrase]] = {}
    for phrase in words:
        parts = _parts(phrase)
        keys = {_key(forms) for part, forms in parts if part not in PLACES | ARTICLES}
        longest = max(keys, key=lambda key: (len(key), key), default="")
        meant = fixed(phrase)
        of_words = len(parts) if PLACES.isdisjoint(dict(parts)) else 0
        known = phrase.startswith("^"), len(meant), PARTICLES.issuperset(meant[1:]), of_words
        index.setdefault(longest, []).append(_Phrase(phrase, known, frozenset(keys)))
    return index


def places(
    words: Phrases,
    text: str,
    start: int = 0,
    end: int = maxsize,
    keys: frozenset[str] | None = None,
) -> list[Occurrence]:
    """The places of an intent's phrases in a lower-case text, from left to right, the longest
    first.

    Args:
        words: the phrases.
        text: the text.
        start: where phrases may start.
        end: where they must end.
        keys: `keys_of` of that part of the text, where known.
    """
    index = _index(words)
    known = keys_of(text[start:end].split()) if keys is None else keys
    matches = []
    for key in known & index.keys():
        for phrase in index[key]:
            if phrase.needed <= known:
                matches += [
                    Occurrence(*match.span(), match[0], *phrase.known)
                    for match in _compiled(phrase.words).finditer(text, start, end)
                ]
    return sorted(matches, key=lambda place: (place.start, -place.end))


def longest_of(
    placed: Iterable[list[Occurrence]],
    turn: Turn,
) -> Longest:
    """The length of the longest phrase of any intent that begins or ends at each place of a
    turn, without other words in between.
    """
    longest = Longest()
    for place in chain.from_iterable(placed):
        said = (
            [word for word in place.text.split() if word not in ARTICLES] if place.words else ()
        )
        begins = not place.asked or any(
            piece.head == place.start for piece in turn.pieces_of(turn.clause_at(place.start))
        )
        if len(said) <= place.words and begins:
            for end in (("start", place.start), ("end", place.end)):
                longest[end] = max(place.length, longest[end])
    return longest


def overlaps(
    words: Mapping[str, Iterable[str]],
) -> Iterator[tuple[str, str, str, str]]:
    """Each bare verb of an intent that a longer phrase of another begins or ends with: its
    intent and it, the other's name and phrase.
    """
    named = [
        (name, phrase, fixed(phrase)) for name, phrases in words.items() for phrase in phrases
    ]
    for name, phrase, meant in named:
        size = len(meant)
        if not size or not PARTICLES.issuperset(meant[1:]):
            continue
        for other, each, longer in named:
            if other == name or len(longer) <= size:
                continue
            if meant in {longer[:size], longer[-size:]}:
                yield name, phrase, other, each


def keys_of(words: Iterable[str]) -> frozenset[str]:
    """The keys of all words of a lower-case text, and the empty key, for a phrase without a
    word of its own.
    """
    three = _FIRST.findall(" ".join({*words}))
    return frozenset({"", *three, *[start[:2] for start in three]})
