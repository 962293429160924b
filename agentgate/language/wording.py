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

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from unicodedata import normalize

from agentgate.language.prompt import Prompt, Turn
from agentgate.language.turn import blank
from agentgate.language.word_files import Forms
from agentgate.values.value_class import once

_FORMS = Forms("wording")

# quotation marks, and those of emphasis
_MARKS = "\"'`*_\u2018\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"
_BEFORE = _MARKS + "([{<\u00bf\u00a1"
_BEHIND = _MARKS + ")]}>.,;:!?\u3001\u3002"
_ENDS = frozenset(".!?;\u3002")
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
    """One turn's words, and those that are said and denied, each as one text to search in, with
    gaps for the others.
    """

    words: list[_Word]
    said: str
    denied: str


def _plain(text: str) -> str:
    return normalize("NFKC", normalize("NFKC", text).casefold()).replace("\u2019", "'")


def _words(text: str) -> Iterator[_Word]:
    """The words of a text, each with the line break or tab before it; marks alone are a
    word.
    """
    last = 0
    for chunk in _FORMS.words.finditer(text):
        start, end = chunk.span()
        broken = ""
        if _FORMS.laid_out.search(text, last, start):
            broken = _NEXT
        for each in _plain(chunk[0]).split():
            core = each.lstrip(_BEFORE).rstrip(_BEHIND) or each
            before, core, behind = each.partition(core)
            yield _Word(core, broken + before, behind, start, end)
            broken = ""
        last = end


def _joined(cores: Iterable[str]) -> str:
    return _NEXT + "".join(core + _NEXT for core in cores)


@once
def _read(turn: Turn) -> _Heard:
    """The words of one turn."""
    reported = [(start, end) for voice, start, end in turn.clauses if voice == "reported"]
    text = blank(turn.own, reported, "\n")
    denied = turn.denied
    words = list[_Word]()
    said = list[str]()
    noes = list[str]()
    last = 0
    for word in _words(text):
        if _FORMS.gap.search(text, last, word.start):
            words.append(_Word(""))
            said.append("")
            noes.append("")
        while denied and denied[0].end <= word.start:
            del denied[0]
        no = denied and denied[0].start < word.end
        words.append(word)
        said.append("" if no else word.core)
        noes.append(word.core if no else "")
        last = word.end
    return _Heard(words, _joined(said), _joined(noes))


def _kept(
    wanted: _Word,
    word: _Word,
    *,
    final: bool,
) -> bool:
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
    inner = text.strip()
    wanted = [*_words(inner)]
    needle = _joined([word.core for word in wanted])
    around = text.replace(inner, "", 1)
    if _FORMS.laid_out.search(around) or not any(map(str.isalnum, needle)):
        return None
    for number, turn in reversed([*enumerate(prompt.turns)]):
        heard = _read(turn)
        if needle in heard.denied:
            return None
        place = -1
        for _ in range(_TRIES):
            place = heard.said.find(needle, place + 1)
            if place < 0:
                break
            first = heard.said.count(_NEXT, 0, place)
            found = heard.words[first : first + len(wanted)]
            if not prompt.in_doubt and any(turn.doubted(word.start) for word in found):
                continue
            kept = (
                _kept(one, word, final=word is found[-1])
                for one, word in zip(wanted, found, strict=True)
            )
            if all(kept):
                return Said(number, found[0].start, found[-1].end)
    return None
