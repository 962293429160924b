"""The words of an intent as patterns: a phrase, in any simple inflection, with its places for somebody and something.

Rules, for phrases in small letters: whole words only; each word in its regular inflections ("reply": replies, replied,
replying; a "movie" is none of "move"); articles do not count; up to three words and an article may stand between two. As in a
dictionary, ``something`` stands for one to eight words that do not begin with "up" ("set something to 50": not "set up 50 to Ann"),
and ``someone`` for one to five that are not the user ("tell someone": not "tell me"). A phrase that begins with ``^`` is found only
where a request begins: "Email Ann", "please email Ann", "..., then email Ann", "I'd like you to email Ann"; not "the email" and not
"how to email". Its words are found as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from agentgate.workflow import ARTICLES

_SUBJECT = r"(?:i|we)(?:['\u2019](?:d|ll|ve))?"
_POLITE = (
    r"please|pls|plz|kindly|just|now|also|then|next|finally|afterwards?|so|and|hi|hey|hello|oh|ok|okay|[0-9]{1,3}[.)]|"
    r"(?:(?:any chance|do you think) (?:that )?)?(?:(?:can|could|would|will) (?:you|u)|(?:you|u) (?:can|could))|(?:can|could) we|"
    rf"would you mind|{_SUBJECT} (?:(?:would|really|also|still) )?(?:like|want|need|wish|love)(?: for)? (?:you )?to|"
    r"you (?:should|can|could|may|must|have to|need to)|let['\u2019]?s|let us|remember to|(?:don['\u2019]?t|do not) forget to|"
    r"make sure (?:to|you|that you)|be sure to|go ahead and|feel free to|help me(?: to)?|be so kind (?:as )?to"
)
_REQUEST = re.compile(  # up to where the verb stands; a dot or a hyphen inside a word ("test-plan") begins nothing, a line does
    rf"(?:^\W{{0,8}}|\n\W{{0,8}}|[,;!?:\u2013\u2014]\s{{0,4}}|[.-]\s{{1,4}}|\b(?:and|then|also|so|please)\s{{1,4}})"
    rf"(?:(?:{_POLITE})\W{{1,8}}){{0,4}}\Z"
)
_BACK = 120  # characters before a verb in which its request begins
_GAP = rf"\s+(?:(?:{'|'.join(sorted(ARTICLES))})\s+)?(?:\S+\s+){{0,3}}?"
_NOT_OTHERS = "to|i|we|me|us|myself|ourselves|you|it|what|which|who|whom|whose|when|where|why|how|if|whether|that|about"
_PLACES = {
    "something": r"(?!up\b)(?:\S+\s+){0,7}?\S+",  # to set something up is not to set it
    "someone": rf"(?!(?:{_NOT_OTHERS})\b)(?:\S+\s+){{0,4}}?\S+",
}
_ENDINGS = ("ings", "ing", "ed", "es", "s", "d")
_STARTS = re.compile(r"(\w{1,2})\w*")  # how each word of a text starts; no inflection changes these two letters


def _bases(word: str) -> set[str]:
    """What a word may be an inflection of: itself, and what is left of it without an ending."""
    found = {word}
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3:
            found |= {base, base + "e"} if ending in {"ing", "ings", "ed"} else {base}
            if len(base) > 3 and base[-1] == base[-2]:
                found.add(base[:-1])
    return found


def _inflected(base: str) -> set[str]:
    if base.endswith("e"):
        return {base, base + "s", base + "d", base[:-1] + "ing"}
    if base.endswith("y") and base[-2] not in "aeiou":
        return {base, base[:-1] + "ies", base[:-1] + "ied", base + "ing"}
    plural = base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")
    return {base, plural, base + "ed", base + "ing", base + base[-1] + "ed", base + base[-1] + "ing"}


def _forms(word: str) -> str:
    """A pattern of a word and its regular inflections."""
    forms = {word}
    if len(word) > 2 and word.isascii() and word.isalpha():
        forms |= set().union(*map(_inflected, _bases(word)))
    first, last = min(forms), max(forms)
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    endings = sorted((re.escape(form[same:]) for form in forms), key=len, reverse=True)
    return re.escape(first[:same]) + (f"(?:{'|'.join(endings)})" if len(forms) > 1 else "")


def _parts(words: str) -> list[str]:
    return words.removeprefix("^").lower().split()


def _pattern(words: str) -> list[str]:
    """One phrase, piece by piece: each word or place, and between two what may stand there."""
    form = re.escape if words.startswith("^") else _forms
    parts = _parts(words)
    pieces: list[str] = []
    between = ""
    for part in [part for part in parts if part not in ARTICLES] or parts:
        place = _PLACES.get(part)
        if pieces:
            pieces.append(r"\s+" if place else between)
        pieces.append(place or form(part))
        between = r"\s+" if place else _GAP
    return pieces


def _merged(listed: list[list[str]]) -> str:
    """One pattern for them all, in which what several begin with stands once: text is read once for it."""
    heads: dict[str, list[list[str]]] = {}
    for head, *rest in filter(None, listed):
        heads.setdefault(head, []).append(rest)
    ways = [head + _merged(rest) for head, rest in heads.items()]
    return f"(?:{'|'.join(ways if all(listed) else ['', *ways])})" if ways else ""


def _begun(patterns: list[list[str]]) -> Iterator[str]:
    """The patterns where a word begins; each with its first letter first, which is all that most places are asked for."""
    by_letter: dict[str, list[list[str]]] = {}
    for first, *rest in patterns:
        by_letter.setdefault(first[0] if first[0].isalnum() else "", []).append([first[first[0].isalnum() :], *rest])
    for letter, begun in by_letter.items():
        yield (f"{letter}(?<!\\w{letter})" if letter else r"(?<!\w)") + _merged(begun)


@lru_cache(maxsize=4096)
def _patterns(words: tuple[str, ...]) -> tuple[tuple[re.Pattern[str], bool], ...]:
    """The phrases of an intent as two patterns at most, and whether each counts only where a request begins."""
    kinds = (([_pattern(w) for w in words if w.startswith("^") is asked], asked) for asked in (False, True))
    return tuple((re.compile(rf"(?:{'|'.join(_begun(listed))})(?!\w)"), asked) for listed, asked in kinds if listed)


def places(words: tuple[str, ...], text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Where phrases of an intent stand in a text in small letters: (start, end), of each kind from left to right.

    Args:
        words: the phrases.
        text: the text; what stands before `start` says whether a request begins there.
        start: where a phrase may start.
        end: where it must have ended; left out: the text's end.
    """
    stop = len(text) if end is None else end
    for pattern, asked in _patterns(words):
        for found in pattern.finditer(text, start, stop):
            if not asked or _REQUEST.search(text, max(0, found.start() - _BACK), found.start()) is not None:
                yield found.span()


def without_places(words: str) -> str:
    """A phrase without its places and its ``^``: only the words that mean something by themselves."""
    return " ".join(part for part in _parts(words) if part not in _PLACES)


def starts_of(text: str) -> frozenset[str]:
    """How the words of a text in small letters start; with the empty text, which is how a phrase starts that begins with no word."""
    return frozenset(_STARTS.findall(text)) | {""}


@lru_cache(maxsize=4096)
def starts(words: tuple[str, ...]) -> frozenset[str]:
    """How the phrases of an intent start: a text without any of these has none of them."""
    first = (next((p for p in parts if p not in ARTICLES), parts[0]) for parts in map(_parts, words) if parts)
    return frozenset("" if part in _PLACES or (found := _STARTS.match(part)) is None else found[1] for part in first)
