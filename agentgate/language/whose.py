"""Whose words the parts of a turn are: the user's own; or quoted, forwarded or pasted, which say nothing; or doubtful.

Rules, by which doubt never makes words the user's own. Every kind of mark and line is looked for in the whole turn, so that no part can
hide another one's end:

- *Quotations.* Marks of one kind are counted, apostrophes inside words apart. Two are a quotation. An odd number takes everything from
  the first to the end of the turn; more than two take everything from the first to the last. A short quotation directly behind a word
  with which people name things ("titled", "the file") keeps its text as a name.
- *Forwarded* text goes on to the end of the turn. A line behind ``>`` is quoted with the lines it wraps into; code fences are counted as
  marks.
- *Pasted.* What follows "summarise this:" is pasted. If a line asks about a text at all ("translate", "is this phishing?"), no other line
  is the user's own. Neither are lines of a chat, a log, a table, JSON, CSV or headers among several lines.
- A turn with invisible or control characters is unsure as a whole.

A quotation whose end is unclear is "doubtful", a line that may be pasted "unsure": neither grants, and both may take back.

What a host knows better it says: `agentgate.values.turns.Own` and `Pasted` mark parts; lines of an own part are the user's whatever they
look like. Pure; linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Literal, NamedTuple
from unicodedata import normalize

from agentgate.language.denials import clauses
from agentgate.language.pieces import FINITE, Kind, pieces
from agentgate.language.spans import small
from agentgate.language.word_files import either
from agentgate.values.turns import OWN, PASTED

Whose = Literal["named", "quoted", "doubtful", "forwarded", "pasted", "unsure"]

_BREAK = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029](?!(?<=\r)\n)")  # other ways to begin a line
_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_DECLARED = re.compile(f"[{OWN}{PASTED}]")
_MARK = re.compile("[\u0300-\u036f]")
_ACCENT = re.compile(f"[A-Za-z]{_MARK.pattern}")
_UNSEEN = re.compile(  # what could hide or reorder words; a joiner between emoji is none, nor a byte order mark before all
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\ud800-\udfff\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "(?:(?<![\ufeff\u200d])|(?<=(?<!\\A)\ufeff)|(?<=\\w\u200d)|(?<=\u200d)(?=\\w))"
)

# --- forwarded, as mail programs write it in several languages -----------------------------------------------------------------
_FROM = f"(?:{either('mail from')})"
_FIELD = f"(?:{either('mail fields', 'mail heads')})"
_HEAD = f"(?:{either('mail heads')})"
_WHEN = r"(?:on|am|le|el|il|op|em|den|[a-z\u00e5\u00e6\u00f8]{3,8}\.?,? [0-9]{1,2}\.)"  # a Norwegian reply begins with the day
_LINES = r"\n(?:[^\n]*\n){0,2}"  # a line may separate two fields, or belong to a name
_FORWARDED_AS = (
    rf"(?m)^[ \t]*(?:[-\u2013\u2014_]{{2,40}}[ \t]*(?:{either('mail again')})|begin forwarded message|(?:fwd?|wg|tr|rv|forwarded):"
    rf"|{_WHEN}(?!\w)[^\n]{{1,600}}(?:\n[^\n]{{0,200}}?)?\b(?:{either('mail wrote')})(?:[ \t][^\n:]{{1,400}})?[ \t]?:[ \t\r]*$"
    rf"|\*{{0,2}}{_FROM}[ \t]?:\*{{0,2}}.+{_LINES}[ \t]*\*{{0,2}}{_FIELD}[ \t]?:"
    rf"|\*{{0,2}}{_FROM}[ \t]?:[^\n]{{1,400}}[ \t]{_HEAD}[ \t]?:"
    rf"|\*{{0,2}}{_HEAD}[ \t]?:.*{_LINES}[ \t]*\*{{0,2}}{_FROM}[ \t]?:"
    rf"|[^\n]{{0,200}}<[^\s<>@]{{1,64}}@[^\s<>@]{{1,255}}>[ \t]*\n[^\n]{{0,80}}[0-9]:[0-9]{{2}}[^\n]{{0,20}}\n[ \t]*{_FIELD}[ \t]?:)"
)
# Where an accent was a separate character, `_shown` leaves one after its letter.
_FORWARDED = re.compile("".join(c if c.isascii() or not c.isalpha() else c + "\u0301?" for c in _FORWARDED_AS))

# --- pasted ----------------------------------------------------------------------------------------------------------------
_TEXT = f"(?:{either('texts')})"
_POINTER = re.compile(  # ends with a colon, a line break or a tag
    rf"(?:\b(?:{either('about a text')})\b[^.\n:]{{0,60}}:"
    rf"|\b(?:received|got|here(?:['\u2019]s| is| are))\b[^.\n:]{{0,60}}\b{_TEXT}s?\b[^.\n:]{{0,60}}:"
    rf"|\b(?:wrote|writes|says|said|sent me|reads)\b[^.\n:]{{0,40}}:[ \t]*\n|<(?:{_TEXT}|(?:block)?quote)>)"
)
_ABOUT = re.compile(rf"\b(?:{either('about a text')}|{either('see text')})\b")
_SEE = re.compile(rf"\b(?:{either('see text')})\b")
_SHOWS = re.compile(rf"[^.!?\n:]{{0,80}}\b(?:{either('see text')})\b[^.!?\n:,;]{{0,60}}[.!?:]?")
_HERE = re.compile(r"\b(?:(?:this|these)(?! (?:week|month|year|morning|afternoon|evening|time)\b)|below|above|following|attached|here)\b")
_AFTERWARDS = re.compile(
    r"\b(?:let (?:me|us) know|tell (?:me|us)|confirm)(?: \w+)? (?:when|once|as soon as)\b"
)  # asks about what is to be done
VALUE = re.compile("[0-9@#]")
_ALONE = re.compile(r"(?=\S*[0-9@])[\w.@#+-]+\Z")  # a line of one value
_COURTESY = re.compile(rf"\W*(?:{either('soft', 'agrees', 'signs off')})\b\W*(?:[\w'\u2019.-]+\W*){{0,3}}\Z")
_LINES_OF = re.compile("[^\n]+")
_INTRODUCES = re.compile(rf"\b(?:(?:{either('texts', 'dictates', 'headings')})\b[^\n]{{0,80}}:|(?:{either('reports')})\W*)\Z")
_SENTENCED = re.compile(rf"{FINITE.pattern}|\b(?:i|we|he|she|it|they|there) \w|(?<!please)(?<=\w{{3}})[.!]\Z")
_SMALL = re.compile(r"(?<!\S)[a-z][a-z'\u2019]")

# --- quotations ----------------------------------------------------------------------------------------------------------
_DOUBLES = '"\u201c\u201d\u201e\u201f\uff02\u2033\u02ba\u02ee\u301d\u301e\u301f\u275d\u275e\u276e\u276f'
_SINGLES = "'\u2018\u2019\u201a\u201b\u00b4\u2032\u2035\uff07\u275b\u275c"
_ANGLES = "\u00ab\u00bb\u2039\u203a\u3008\u3009\u300a\u300b\u27ea\u27eb"
_CORNERS = "\u300c\u300d\u300e\u300f\uff62\uff63\ufe41\ufe42\ufe43\ufe44"
_TYPED = rf"([{_SINGLES}`~])(?:(?<=~)~~+|(?<!~)(?:\1+|(?<=(?<!\w).)" + r"{}))"  # of one kind, since what opens as ` may close as '
_OPENS = re.compile(_TYPED.format(""))  # or is typed twice, or three times
# What is in a turn with marks of each kind, and a mark. Which marks the user typed must not depend on the text between them, which may
# begin and end with others: so a mark that is typed twice, as in ``so'', counts with the single ones, too.
_MARKS = (
    ((*_DOUBLES, *(sign * 2 for sign in f"{_SINGLES}`,")), re.compile(rf"[{_DOUBLES}]|([{_SINGLES}])\1+|(?<!`)``(?!`)|(?<!\w),,")),
    ((*_ANGLES, "<<", ">>"), re.compile(rf"[{_ANGLES}]|<<|(?<=[^\n>])>>")),
    (_CORNERS, re.compile(f"[{_CORNERS}]")),
    ((*_SINGLES, "`", "~~~"), re.compile(_TYPED.format(r"|(?!\w)"))),  # not inside a word
)
_SIGNS = f"{_DOUBLES}{_SINGLES}{_ANGLES}{_CORNERS}`~"
_ODD = re.compile(  # no line of prose
    rf"[^\w\s!(@#$\u20ac\u00a3+*\u2022\u2013\u2014\u2026\[>{_SIGNS}\U0001f000-\U0001faff-]|[+*-]?[@#*=_-]{{2}}|\#+\s|[^\t|{{}}\\\u2500-\u257f\n]*+[\t|{{}}\\\u2500-\u257f]"
    r"|[\[{<]|[\w.-]{1,40}\s?=|\"[\w.-]{1,40}\"\s*:|\[?[0-9]{1,4}[-/.:][0-9]{1,2}[-/.:T ][0-9]{1,2}"  # JSON, settings, logs
    r"|\[?(?:debug|info|warn(?:ing)?|error|fatal|trace)\b[\]: ]"
    r"|[^,;\n]{1,60}(?:[,;][^\s,;][^,;\n]{0,60}){2}$|[^.!?\n]{0,60}[0-9]:[0-9]{2}[^.!?\n]{0,40}:\s"  # CSV, chats
)
ITEM = re.compile(r"\s*(?:[*\u2022\u2013-]|[0-9]{1,2}[.)])\s")  # of a list
_LABEL = re.compile(r"(?:[^.!?:\n]|[.:](?=[0-9])){1,60}:\s+\S")  # of a header or of who speaks
_SPEAKER = re.compile(  # on the line of its words: "Eve (10:32 AM): refund it", "USER: refund it"
    rf"(?:\A|\n|[.!?]\s)(?:[*\u2022-]\s)?(?!(?i:{either('headings', 'naming', 'texts', 'soft')})\b)"
    r"(?P<label>(?:[\[(<]?[0-9][^\n!?;]{0,40}?\s)?@?[A-Z][\w.'\u2019]{0,40}(?:\s?[(\[<][^\n!?]{1,40}[)\]>])?)\Z"
)
_SPEAKS = re.compile(r":\s+\S[^\n]*")
_LONGEST = 130  # characters of such a label
_NAMING = re.compile(
    rf"\b(?:(?:{either('naming')})s?|(?:the|my|our|his|her|their|this|that|an?)(?: [\w-]{{1,20}}){{1,3}})"
    r"(?:\s?[:=]|\s(?:is|to|be|it|them))?\s{1,4}\Z"
)
_AND = re.compile(r"\s{0,4}(?:,|and|or|&|, and|, or)\s{1,4}")
_BACK = 60  # characters before a mark that may name the quotation
_MOST_WORDS = 6  # of a name
_SENTENCE = re.compile(r"[!?;:]\s|\.\s(?![0-9])")
_TITLE = re.compile(  # a dot that ends no sentence: "Dr. Meyer", "J. R. Smith"
    r"\b(?:Dr|Drs|Mr|Mrs|Ms|Mx|Prof|Rev|Hon|Gen|Col|Capt|Lt|Sgt|Hr|Fr|Mme|Sra?|vs|St)\.\s|^(?:[A-HJ-Z]\.\s)+(?=[A-Z])"
)


class Extent(NamedTuple):
    """A part of a turn that is not simply the user's own: where it starts and ends, and whose it is."""

    start: int
    end: int
    whose: Whose


def with_lines(text: str) -> str:
    """The text of the same length with every kind of line break as one."""
    return _BREAK.sub("\n", text)


def _shown(text: str) -> str:
    """The text of the same length with every kind of space as one, and each letter and its accent as one character."""
    if text.isascii():
        return text
    text = _SPACE.sub(" ", text)
    return _ACCENT.sub(lambda letter: normalize("NFC", letter.group()).ljust(2, "\u0301"), text) if _MARK.search(text) else text


def parts(text: str) -> list[Extent]:
    """Every part of a turn that is not plainly the user's own; parts may overlap.

    Args:
        text: the turn as `with_lines` returns it.
    """
    text = _shown(text)
    marks = [*_DECLARED.finditer(text)]
    if not text.startswith((OWN, PASTED)):
        return _found(text, pasting=True)
    found: list[Extent] = []
    for mark, end in zip(marks, [*(after.start() for after in marks[1:]), len(text)], strict=True):
        start = mark.end()
        found.append(Extent(mark.start(), start, "pasted"))
        own = mark.group() == OWN
        inner = _found(text[start:end], pasting=False) if own else [Extent(0, end - start, "pasted")]
        found += [Extent(start + a, start + b, whose) for a, b, whose in inner]
    return found


def _found(text: str, *, pasting: bool) -> list[Extent]:
    if not (text.isascii() and text.replace("\n", "").isprintable()) and _UNSEEN.search(text):
        return [Extent(0, len(text), "unsure")]
    low = small(text)
    found = [*_lines(text, low, pasting=pasting)]
    if pasting and ":" in text:
        lines = _merged(found)
        found += [said for said in _speakers(text) if not _within(lines, said.start, said.end)]
    if (forwarded := _FORWARDED.search(low)) is not None:
        found.append(Extent(forwarded.start(), len(text), "forwarded"))
    if pasting and (shows := _shows(low)) is not None:  # "is this phishing?" on the same line as the text
        found += [Extent(0, shows.start(), "unsure"), Extent(shows.end(), len(text), "unsure")]
    if pasting and (":" in text or "<" in text) and (pasted := _POINTER.search(low)) is not None:
        found.append(Extent(pasted.end(), len(text), "pasted"))
    for signs, kind in _MARKS:
        if any(map(text.__contains__, signs)):
            found += _quotations(text, low, [*kind.finditer(text)])
    others = _merged(extent for extent in found if extent.whose != "named")
    return [_checked(each, others) if each.whose == "named" else each for each in dict.fromkeys(found)]


def _merged(extents: Iterable[Extent]) -> list[tuple[int, int]]:
    """What these extents cover, in order, without an overlap."""
    merged = list[tuple[int, int]]()
    for start, end, _ in sorted(extents):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _within(merged: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether one of what these cover holds all between two places."""
    at = bisect_left(merged, (start + 1,))
    return at > 0 and merged[at - 1][1] >= end


def _touches(merged: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether any of what these cover is between two places."""
    at = bisect_left(merged, (end,))
    return at > 0 and merged[at - 1][1] > start


def _speakers(text: str) -> Iterator[Extent]:
    """What somebody says behind their name, in the line of it."""
    for colon in _SPEAKS.finditer(text):
        at = max(0, colon.start() - _LONGEST)
        if (label := _SPEAKER.search(text[at : colon.start()])) is not None and (label.start() > 0 or at == 0 or text[at] == "\n"):
            yield Extent(at + label.start("label"), colon.end(), "unsure")


def _shows(low: str) -> re.Match[str] | None:
    """The first question about a text: what `_SHOWS.search` finds, without a try at every character."""
    if (see := _SEE.search(low)) is None:
        return None
    at = see.start()
    return _SHOWS.match(low, max(0, at - 80, *(low.rfind(sign, 0, at) + 1 for sign in ".!?\n:")))


def _checked(name: Extent, others: list[tuple[int, int]]) -> Extent:
    """A name, or a doubtful quotation where something else takes a part of it."""
    return Extent(name.start - 1, name.end + 1, "doubtful") if _touches(others, name.start, name.end) else name


def _lines(text: str, low: str, *, pasting: bool) -> Iterator[Extent]:
    """Lines that are quoted, and those that a paste may have brought."""
    own, wrapped, quoted = list[tuple[int, int]](), list[tuple[int, int]](), False
    for line in _LINES_OF.finditer(low):
        quoted = line.group().lstrip().startswith(">") or (quoted and not line.group().isspace() and low[line.start() - 2] != "\n")
        if quoted:
            yield Extent(*line.span(), "forwarded")
            wrapped += [] if line.group().lstrip().startswith(">") else [line.span()]
        elif not line.group().isspace():
            own.append(line.span())
    if not pasting:
        return
    if len(own) + len(wrapped) < 2:
        yield from (Extent(start, end, "unsure") for start, end in own if _ODD.match(low[start:end].strip()))
        return
    bits = [_bit(text[start:end], {*_kinds(low, start, end)}) for start, end in own + wrapped]
    asking = [at for at, bit in enumerate(bits) if bit.about or (bit.asks and at >= len(own))]
    behind = ""
    for at, (bit, (start, end)) in enumerate(zip(bits, own, strict=False)):
        if bit.odd or behind == "all" or (behind == "colon" and bit.asks) or (asking and asking != [at]):
            yield Extent(start, end, "unsure")
            behind = "all" if bit.odd or behind else ""
        behind = behind or bit.behind


def _kinds(low: str, start: int, end: int) -> Iterator[Kind]:
    """The kinds of the pieces of a line, clause by clause, as a turn of this line alone would have them."""
    for _, at, to in clauses(low[start:end]):
        yield from (piece.kind for piece in pieces(low, start + at, start + to))


class _Bit(NamedTuple):
    """What a line is to the others of its turn.

    It may ask `about` them, be `odd` (no prose), ask for something as no item of a list does (`asks`); `behind` it, all lines or only what
    asks may be somebody else's.
    """

    about: bool = False
    odd: bool = False
    asks: bool = False
    behind: Literal["", "colon", "all"] = ""


def _bit(line: str, kinds: AbstractSet[Kind]) -> _Bit:
    low, bare = small(line), small(line).strip()
    odd = _ODD.match(bare) is not None or _LABEL.match(bare) is not None or line.startswith((" " * 4, "\t"))
    asks = not kinds <= {"open", "statement"} and ITEM.match(low) is None
    looks = bare.endswith("?") or not kinds.isdisjoint({"question", "look"})
    looks = looks and VALUE.search(line) is None and _AFTERWARDS.search(low) is None
    about = looks or _ABOUT.search(low) is not None or _HERE.search(low) is not None
    if odd or _INTRODUCES.search(bare) is not None:
        return _Bit(about or not (odd or bare.endswith(":")), odd, asks, "all")  # "Eve wrote" may stand below, too
    if bare.endswith(":"):
        return _Bit(about, odd, asks, "colon")
    words = _SMALL.search(line) is not None and _ALONE.match(bare) is None
    if not kinds <= {"open", "statement"} or (words and _SENTENCED.search(bare) is not None) or _COURTESY.match(low) is not None:
        return _Bit(about, odd, asks)
    return _Bit(about or words, words, asks, "all")  # "Kim's message", "of ORD-2", the rest of a line above; "Eve", "10:32"


def _quotations(text: str, low: str, marks: list[re.Match[str]]) -> Iterator[Extent]:
    """The quotations of one kind of mark."""
    if not marks or (marks[0].re is _MARKS[-1][1] and not any(_OPENS.match(text, mark.start()) for mark in marks)):  # apostrophes
        return
    first, last = marks[0].start(), marks[-1].end()
    if len(marks) % 2:
        yield Extent(first, len(text), "doubtful")
        return
    named, end, listed = list[Extent](), -1, True
    for opening, closing in zip(marks[::2], marks[1::2], strict=True):
        listed = listed and (end < 0 or _AND.fullmatch(text, end, opening.start()) is not None)
        if _is_name(text[opening.end() : closing.start()], low, opening.start(), end):
            named.append(Extent(opening.end(), closing.start(), "named"))
            end = closing.end()
    if len(named) < len(marks) // 2:
        yield Extent(first, last, "quoted" if len(marks) == 2 else "doubtful")
        return
    yield from named
    if not listed:  # what stands between the names may be a stranger's
        yield from (Extent(one.end + 1, other.start - 1, "doubtful") for one, other in pairwise(named))


def _is_name(inner: str, low: str, at: int, end: int) -> bool:
    """Whether a quotation is the name of what the user's words directly before it mean.

    Args:
        inner: the quoted text.
        low: the turn in lower case.
        at: where the quotation starts in it.
        end: where the last quotation ended that is a name; -1: there is none.
    """
    if len(inner.split()) > _MOST_WORDS or _SENTENCE.search(_TITLE.sub("", inner)) is not None or "\n" in inner:
        return False
    return _NAMING.search(low, max(0, at - _BACK), at) is not None or (end >= 0 and _AND.fullmatch(low, end, at) is not None)
