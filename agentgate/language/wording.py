"""Whether the user said a text, word by word.

Rules: white space separates words; quotation marks, brackets and punctuation at their ends do
not count, and case is ignored (NFKC). The user said a text where all its words are in one turn,
in order and without a gap; a gap is a denied part, a blanked line or quotation, or an empty
line. A denial in this turn or a later one withdraws it. A text may omit marks at the end of a
word, but not the end of a sentence inside the text; it may add a comma, and at its end a full
stop, an exclamation or question mark, but nothing else, so no line break and no tab: "@all",
"*" and "<b>" are not "all" and "b". The user never said a text without a letter or digit. Each
turn is read once, when a text is first searched for. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from unicodedata import normalize

from agentgate.language.prompt import Prompt, Turn
from agentgate.language.turn import with_other
from agentgate.values.once import once

# quotation marks, and those of emphasis
_MARKS = "\"'`*_\u2018\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"
_BEFORE = _MARKS + "([{<\u00bf\u00a1"
_BEHIND = _MARKS + ")]}>.,;:!?\u3001\u3002"
_ENDS = frozenset(".!?;\u3002")
_WORDS = re.compile(r"\S+")
_SPLIT = re.compile(r"(?<!\s)(\s*)(\S+)")
# a line break or a tab would make a header or a column of the words after it
_LAID_OUT = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]")
# blanked text is at least four spaces, or a line of them
_GAP = re.compile(r"\n[^\S\n]*\n| {4}")
_TRIES = 32  # occurrences of the words whose marks are compared; further ones do not count
_NEXT = "\n"  # between two words; no word holds one


class Said(NamedTuple):
    """Where the user said a text: the turn, from 0, and the span in it."""

    turn: int
    start: int
    end: int


class _Word(NamedTuple):
    """A word without the marks at its ends, these marks, and where it is in the turn; a gap is
    an empty word.
    """

    core: str
    before: str = ""
    behind: str = ""
    start: int = 0
    end: int = 0


class _Heard(NamedTuple):
    """One turn's words, said and denied, each as one text to search in, and those that are
    said.
    """

    said: str
    denied: str
    words: tuple[_Word, ...]


def _plain(text: str) -> str:
    return normalize("NFKC", normalize("NFKC", text).casefold()).replace("\u2019", "'")


def _word(text: str, broken: str = "", span: tuple[int, int] = (0, 0)) -> _Word:
    """A word and the marks at its ends, `broken` before them; marks alone are a word."""
    rest = text.lstrip(_BEFORE)
    core = rest.rstrip(_BEHIND)
    if not core:
        return _Word(text, broken, "", *span)
    return _Word(core, broken + text[: len(text) - len(rest)], rest[len(core) :], *span)


def _joined(words: Iterable[_Word]) -> str:
    return _NEXT + "".join([word.core + _NEXT for word in words])


def _wanted(text: str) -> list[_Word]:
    """The words of a value, each but the first with the line break or tab before it."""
    parts = _SPLIT.findall(_plain(text))
    return [
        _word(word, _NEXT if place and _LAID_OUT.search(space) else "")
        for place, (space, word) in enumerate(parts)
    ]


@once
def _read(turn: Turn) -> _Heard:
    """The words of one turn."""
    reported = [(start, end) for voice, start, end in turn.clauses if voice == "reported"]
    text = with_other(turn.own, reported, "\n" * len(turn.own))
    denied = [(start, end) for voice, start, end in turn.clauses if voice == "denied"]
    said = list[_Word]()
    no = list[_Word]()
    place = 0
    last = 0
    was = False
    for chunk in _WORDS.finditer(text):
        start, end = chunk.span()
        while place < len(denied) and denied[place][1] <= start:
            place += 1
        is_no = place < len(denied) and denied[place][0] < end
        into = no if is_no else said
        if is_no != was or _GAP.search(text, last, start):
            into.append(_Word(""))
        break_ = _NEXT if _LAID_OUT.search(text, last, start) else ""
        for each in _plain(chunk.group()).split():
            into.append(_word(each, break_, (start, end)))
            break_ = ""
        last = end
        was = is_no
    return _Heard(_joined(said), _joined(no), tuple(said))


def _kept(wanted: _Word, word: _Word, *, final: bool) -> bool:
    """Whether the marks at the ends of a word are the user's, or fewer; a sentence that ends
    inside the text must still end there.
    """
    if wanted.before and not word.before.endswith(wanted.before):
        return False
    if not final and not _ENDS.isdisjoint(word.behind) and _ENDS.isdisjoint(wanted.behind):
        return False
    return word.behind.startswith(wanted.behind) or wanted.behind in (
        (".", "!", "?") if final else (",",)
    )


def said(prompt: Prompt, text: str) -> Said | None:
    """Where the user said this text, as a sequence of whole words; None where they did not, or
    denied it since.

    Args:
        prompt: the user's words.
        text: an argument in normal form.
    """
    wanted = _wanted(text)
    around = text[: len(text) - len(text.lstrip())] + text[len(text.rstrip()) :]
    if _LAID_OUT.search(around) or not any(c.isalnum() for word in wanted for c in word.core):
        return None
    needle = _joined(wanted)
    for number in range(len(prompt.turns) - 1, -1, -1):
        turn = _read(prompt.turns[number])
        if needle in turn.denied:
            return None
        place = -1
        for _ in range(_TRIES):
            place = turn.said.find(needle, place + 1)
            if place < 0:
                break
            first = turn.said.count(_NEXT, 0, place)
            found = turn.words[first : first + len(wanted)]
            if (
                prompt.in_doubt
                or not any(prompt.turns[number].doubted(word.start) for word in found)
            ) and all(
                _kept(one, word, final=word is found[-1])
                for one, word in zip(wanted, found, strict=True)
            ):
                return Said(number, found[0].start, found[-1].end)
    return None
