"""Whose words the parts of a turn are: the user's own; or quoted, forwarded or pasted, which
say nothing; or doubtful.

Rules, by which doubt never makes words the user's own. Every kind of mark and line is looked
for in the whole turn, so that no part can hide another one's end:

- *Quotations.* Marks of one kind are counted, apostrophes inside words apart. Two are a
  quotation. An odd number takes everything from the first to the end of the turn; more than two
  take everything from the first to the last. A short quotation directly behind a word with
  which people name things ("titled", "the file") keeps its text as a name.
- *Forwarded* text goes on to the end of the turn. A line behind ``>`` is quoted with the lines
  it wraps into; code fences are counted as marks.
- *Pasted.* What follows "summarise this:" is pasted. If a line asks about a text at all
  ("translate", "is this phishing?"), no other line is the user's own. Neither are lines of a
  chat, a log, a table, JSON, CSV or headers among several lines.
- A turn with invisible or control characters is unsure as a whole.

A quotation whose end is unclear is "doubtful", a line that may be pasted "unsure": neither
grants, and both may take back.

What a host knows better it says: `agentgate.values.request.Own` and `Pasted` mark parts; lines of
an own part are the user's whatever they look like. Pure; linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple
from unicodedata import normalize

from agentgate.language.denials import clauses, without_idioms
from agentgate.language.pieces import FINITE, HEAD, MAX_PIECE, VERBS, Kind, leads, pieces
from agentgate.language.spans import NO_DAY, entities, small
from agentgate.language.word_files import Forms
from agentgate.values.request import OWN, PASTED

_FORMS = Forms("whose")

Whose = Literal["named", "typed", "sent", "quoted", "doubtful", "forwarded", "pasted", "unsure"]
# quotations that the user's own words give a part in them
NAMES = frozenset({"named", "typed", "sent"})

_DECLARED = re.compile(f"([{OWN}{PASTED}])([^{OWN}{PASTED}]*)")

# Where an accent was a separate character, `_shown` leaves one after its letter.
_FORWARDED = re.compile(
    "".join(
        c if c.isascii() or not c.isalpha() else c + "\u0301?" for c in _FORMS.forwarded.pattern
    )
)

# --- pasted -----------------------------------------------------------------------------------
VALUE = _FORMS.value
_SENTENCED = re.compile(
    rf"{FINITE.pattern}|\b(?:i|we|he|she|it|they|there) \w|(?<!please)(?<=\w{{3}})[.!]\Z"
)

# --- quotations -------------------------------------------------------------------------------
_DOUBLES = '"\u201c\u201d\u201e\u201f\uff02\u2033\u02ba\u02ee\u301d\u301e\u301f\u275d\u275e\u276e\u276f'
_SINGLES = "'\u2018\u2019\u201a\u201b\u00b4\u2032\u2035\uff07\u275b\u275c"
_ANGLES = "\u00ab\u00bb\u2039\u203a\u3008\u3009\u300a\u300b\u27ea\u27eb"
_CORNERS = "\u300c\u300d\u300e\u300f\uff62\uff63\ufe41\ufe42\ufe43\ufe44"
# of one kind, since what opens as ` may close as '
_TYPED = rf"([{_SINGLES}`~])(?:(?<=~)~~+|(?<!~)(?:\1+|(?<=(?<!\w).)" + r"{}))"
_OPENS = re.compile(_TYPED.format(""))  # or is typed twice, or three times
# What is in a turn with marks of each kind, and a mark. Which marks the user typed must not
# depend on the text between them, which may begin and end with others: so a mark that is typed
# twice, as in ``so'', counts with the single ones, too.
_MARKS = (
    (
        (*_DOUBLES, *(sign * 2 for sign in f"{_SINGLES}`,")),
        re.compile(rf"[{_DOUBLES}]|([{_SINGLES}])\1+|(?<!`)``(?!`)|(?<!\w),,"),
    ),
    ((*_ANGLES, "<<", ">>"), re.compile(rf"[{_ANGLES}]|<<|(?<=[^\n>])>>")),
    (_CORNERS, re.compile(f"[{_CORNERS}]")),
    ((*_SINGLES, "`", "~~~"), re.compile(_TYPED.format(r"|(?!\w)"))),  # not inside a word
)
_SIGNS = f"{_DOUBLES}{_SINGLES}{_ANGLES}{_CORNERS}`~"
_ODD = re.compile(  # no line of prose
    rf"[^\w\s!(@#$\u20ac\u00a3+*\u2022\u2013\u2014\u2026\[>{_SIGNS}\U0001f000-\U0001faff-]|[+*-]?[@#*=_-]{{2}}|\#+\s|[^\t|{{}}\\\u2500-\u257f\n]*+[\t|{{}}\\\u2500-\u257f]"
    r"|[\[{<]|[\w.-]{1,40}\s?=|\"[\w.-]{1,40}\"\s*:|\[?[0-9]{1,4}[-/.:][0-9]{1,2}[-/.:T "
    r"][0-9]{1,2}"  # JSON, settings, logs
    r"|\[?(?:debug|info|warn(?:ing)?|error|fatal|trace)\b[\]: ]"
    r"|[^,;\n]{1,60}(?:[,;][^\s,;][^,;\n]{0,60}){2}$|[^.!?\n]{0,60}[0-9]:[0-9]{2}[^.!?\n]{0,40}:\s"  # CSV, chats
)
ITEM = _FORMS.item
_LONGEST = 130  # characters of such a label
_BACK = 60  # characters before a mark that may name the quotation
_MOST_WORDS = 6  # of a name


class Extent(NamedTuple):
    """A part of a turn that is not simply the user's own: where it starts and ends, and whose
    it is.
    """

    start: int
    end: int
    whose: Whose


def with_lines(text: str) -> str:
    """The text of the same length with every kind of line break as one."""
    return _FORMS.gap.sub("\n", text)


def _shown(text: str) -> str:
    """The text of the same length with every kind of space as one, and each letter and its
    accent as one character.
    """
    if text.isascii():
        return text
    text = _FORMS.space.sub(" ", text)
    if not _FORMS.mark.search(text):
        return text
    return _FORMS.accent.sub(
        lambda letter: normalize("NFC", letter[0]).ljust(2, "\u0301"), text
    )


def parts(text: str, reader: str = "") -> list[Extent]:
    """Every part of a turn that is not plainly the user's own; parts may overlap.

    Args:
        text: the turn as `with_lines` returns it.
        reader: the id of the run's user.
    """
    text = _shown(text)
    if not text.startswith((OWN, PASTED)):
        names = _name_parts(reader) if _FORMS.name.match(reader) else ()
        return _found(text, pasting=True, reader=frozenset(names))
    found = list[Extent]()
    for declared in _DECLARED.finditer(text):
        at = declared.start(2)
        found.append(Extent(at - 1, at, "pasted"))
        if declared[1] == PASTED:
            found.append(Extent(at, declared.end(), "pasted"))
            continue
        for start, end, whose in _found(declared[2], pasting=False):
            found.append(Extent(at + start, at + end, whose))
    return found


def _found(
    text: str,
    *,
    pasting: bool,
    reader: frozenset[str] = frozenset(),
) -> list[Extent]:
    if _FORMS.unseen.search(text):
        return [Extent(0, len(text), "unsure")]
    low = small(text)
    found = [*_lines(text, low, pasting=pasting, reader=reader)]
    if pasting and ":" in text:
        lines = _covered(found, len(text))
        found += [said for said in _speakers(text) if not all(lines[said.start : said.end])]
    if forwarded := _FORWARDED.search(low):
        found.append(Extent(forwarded.start(), len(text), "forwarded"))
    # "is this phishing?" on the same line as the text
    if pasting and (shows := _shows(low)) and not leads(shows[0]):
        found.append(Extent(0, shows.start(), "unsure"))
        found.append(Extent(shows.end(), len(text), "unsure"))
    if pasting and (":" in text or "<" in text) and (pasted := _FORMS.pointer.search(low)):
        found.append(Extent(pasted.end(), len(text), "pasted"))
    marked = [
        [*kind.finditer(text)] for signs, kind in _MARKS if any(map(text.__contains__, signs))
    ]
    alone = not found
    first_mark = min((marks[0].start() for marks in marked if marks), default=-1)
    for marks in marked:
        found += _quotations(text, low, marks, alone=alone, first_mark=first_mark)
    if not marked:
        return found
    others = _covered([extent for extent in found if extent.whose not in NAMES], len(text))
    return [
        Extent(start - 1, end + 1, "doubtful")
        if whose in NAMES and any(others[start:end])
        else Extent(start, end, whose)
        for start, end, whose in dict.fromkeys(found)
    ]


def _covered(
    extents: Iterable[Extent],
    size: int,
) -> bytearray:
    """Which characters these extents cover."""
    covered = bytearray(size)
    for start, end, _ in extents:
        covered[start:end] = b"1" * (end - start)
    return covered


def _speakers(text: str) -> Iterator[Extent]:
    """What somebody says behind a label, in the line of it."""
    for colon in _FORMS.speaks.finditer(text):
        at = max(0, colon.start() - _LONGEST)
        found = _FORMS.labelled.search(text[at : colon.start()])
        if not found or _is_own(found["label"], colon[0]):
            continue
        if found.start() or not at or text[at] == "\n":  # a whole label
            yield Extent(at + found.start("label"), colon.end(), "unsure")


def _is_own(label: str, says: str) -> bool:
    """Whether what stands before a colon is no speaker: a command, a sentence, a heading, a
    field of the user's own.
    """
    low = small(label)
    if leads(low) or _FORMS.own_label.match(low):
        return True
    if " " in label and not _FORMS.small.search(label):
        said = pieces(small(says), 1, len(says))
        if any(piece.kind == "request" for piece in said):
            return False  # "Mark Reed: refund it"
    words = HEAD.sub("", low, 1).split()
    if not words or _SENTENCED.search(low):
        return True
    case = _FORMS.case.match(" ".join(words))
    return words[0] in VERBS and not case


def _shows(low: str) -> re.Match[str] | None:
    """The first question about a text: what `_FORMS.shows.search` finds, without a try at every
    character.
    """
    see = _FORMS.see.search("\n" + low)
    if not see:
        return None
    begins = [low.rfind(sign, 0, see.start()) + 1 for sign in ".!?\n:"]
    return _FORMS.shows.match(low, max(see.start() - 80, *begins))


def _lines(
    text: str,
    low: str,
    *,
    pasting: bool,
    reader: frozenset[str],
) -> Iterator[Extent]:
    """Lines that are quoted, and those that a paste may have brought."""
    own = list[tuple[int, int]]()
    wrapped = list[tuple[int, int]]()
    quoted = False
    for line in _FORMS.lines_of.finditer(low):
        marked = line[0].lstrip().startswith(">")
        blank = line[0].isspace()
        quoted = marked or (quoted and not blank and low[line.start() - 2] != "\n")
        if quoted:
            yield Extent(*line.span(), "forwarded")
        if not (marked or blank):
            (wrapped if quoted else own).append(line.span())
    if not pasting:
        return
    if len(own) + len(wrapped) < 2:
        for start, end in own:
            if _ODD.match(low[start:end].strip()):
                yield Extent(start, end, "unsure")
        return
    bits = [_bit(text[start:end], _kinds(low, start, end)) for start, end in own + wrapped]
    listed = _listed([low[start:end] for start, end in own], bits)
    asking = [
        at
        for at, bit in enumerate(bits)
        if at not in listed and (bit.about or (bit.asks and at >= len(own)))
    ]
    behind = ""
    if _of_another([text[start:end] for start, end in own], reader):
        behind = "all"
    asked = False
    for at, (bit, (start, end)) in enumerate(zip(bits, own, strict=False)):
        if at in listed and not bit.odd and behind != "all":
            if bit.leads and not leads(low[start:end]):
                behind = behind or "colon"
            continue
        if asked and bit.field and not behind:
            continue
        strange = bit.odd or (at > 0 and _FORMS.greets.match(text, start, end))
        doubtful = behind == "all" or (
            behind == "colon" and (bit.asks or ITEM.match(low, start, end))
        )
        if strange or doubtful or asking not in ([], [at]):
            yield Extent(start, end, "unsure")
            if strange or behind:
                behind = "all"
        behind = behind or bit.behind
        asked = asked or bit.asks


def _listed(
    lines: Sequence[str],
    bits: Sequence[_Bit],
) -> set[int]:
    """Which lines are a list of the user's own: all of the turn; what is to be done, behind a
    lead-in; what a request is about.
    """
    items = [*map(ITEM.match, lines)]
    if all(items) and len(bits) == len(lines):
        return set(range(len(lines)))
    found = set[int]()
    led = ""
    for at, (line, item) in enumerate(zip(lines, items, strict=True)):
        if not (led and item):
            led = ""
            if line.rstrip().endswith(":"):
                led = "done" if leads(line) else "named" if bits[at].leads else ""
        if led == "done" or (led and (not item or bits[at].kinds <= {"open"})):
            found.add(at)
    return found


def _of_another(
    lines: Sequence[str],
    reader: frozenset[str],
) -> bool:
    """Whether a letter is to the run's own user, or signed by another: by their names, where
    the host gives that of its user.
    """
    if not reader or len(lines) < 2:
        return False
    greeted = _FORMS.greets.match(lines[0])
    if greeted and not reader.isdisjoint(_name_parts(greeted["who"] or "")):
        return True
    signed = _FORMS.signed.search("\n".join(lines))
    by = _name_parts(signed["who"]) if signed else []
    return bool(by) and reader.isdisjoint(by)


def _name_parts(name: str) -> list[str]:
    return _FORMS.name_parts.findall(small(name))


def _kinds(
    low: str,
    start: int,
    end: int,
) -> frozenset[Kind]:
    """The kinds of the pieces of a line, clause by clause, as a turn of this line alone would
    have them.
    """
    line = low[start:end]
    return frozenset(
        piece.kind
        for _, at, to in clauses(line, without_idioms(line))
        for piece in pieces(low, start + at, start + to)
    )


class _Bit(NamedTuple):
    """What a line is to the others of its turn.

    It may ask `about` them, be `odd` (no prose), ask for something as no item of a list does
    (`asks`); `behind` it, all lines or only what asks may be somebody else's.
    """

    about: bool = False
    odd: bool = False
    asks: bool = False
    behind: Literal["", "colon", "all"] = ""
    field: bool = False
    leads: bool = False
    kinds: frozenset[Kind] = frozenset()


def _bit(line: str, kinds: frozenset[Kind]) -> _Bit:
    low = small(line)
    bare = low.strip()
    odd = bool(_ODD.match(bare) or _FORMS.label.match(bare))
    odd = odd or line.startswith(("    ", "\t"))
    acts = not kinds <= {"open", "statement"}
    asks = acts and not ITEM.match(low)
    field = None
    if odd:
        field = _FORMS.field.match(low)
    if field and _kinds(low, field.end() - 1, len(low)) <= {"open", "statement"}:
        return _Bit(odd=True, behind="all", field=True)
    looks = bare.endswith("?") or not kinds.isdisjoint({"question", "look"})
    looks = looks and not _FORMS.done.search(low)
    told = bool(_FORMS.about.search(low))
    about = looks or told or bool(_FORMS.here.search(low))
    if odd or _FORMS.introduces.search(bare):
        # "Eve wrote" may stand below, too
        return _Bit(about or not (odd or bare.endswith(":")), odd, asks, "all")
    if bare.endswith(":"):
        return _Bit(
            about,
            odd,
            asks,
            "colon",
            leads="request" in kinds and not told and " this" not in low,
        )
    words = bool(_FORMS.small.search(line)) and not _FORMS.alone.match(bare)
    if acts or (words and _SENTENCED.search(bare)) or _FORMS.courtesy.match(low):
        return _Bit(about, odd, asks, kinds=kinds)
    # "Kim's message", "of ORD-2", the rest of a line above; "Eve", "10:32"
    return _Bit(about or words, words, asks, "all", kinds=kinds)


def _quotations(
    text: str,
    low: str,
    marks: list[re.Match[str]],
    *,
    alone: bool,
    first_mark: int,
) -> Iterator[Extent]:
    """The quotations of one kind of mark."""
    if not marks or (
        marks[0].re is _MARKS[-1][1]
        and not any(_OPENS.match(text, mark.start()) for mark in marks)
    ):  # apostrophes
        return
    first = marks[0].start()
    if len(marks) % 2:
        yield Extent(first, len(text), "doubtful")
        return
    named = list[Extent]()
    end = 0
    listed = True
    for opening, closing in zip(marks[::2], marks[1::2], strict=True):
        at = opening.start()
        joined = None
        if named and _FORMS.listing.fullmatch(low, end, at):
            joined = named[-1].whose
        listed = listed and bool(joined or not named)
        inner = text[opening.end() : closing.start()]
        first_of_turn = listed and first_mark == first
        whose = _named(inner, low, at, joined, alone=alone, first=first_of_turn)
        if not whose:
            yield Extent(first, marks[-1].end(), "quoted" if len(marks) == 2 else "doubtful")
            return
        named.append(Extent(opening.end(), closing.start(), whose))
        end = closing.end()
    yield from named
    if not listed:  # what stands between the names may be a stranger's
        for one, other in pairwise(named):
            yield Extent(one.end + 1, other.start - 1, "doubtful")


def _named(
    inner: str,
    low: str,
    at: int,
    joined: Whose | None,
    *,
    alone: bool,
    first: bool,
) -> Whose | None:
    """What a quotation is to the user's words directly before it; None: nothing but a
    quotation.

    Args:
        inner: the quoted text.
        low: the turn in lower case.
        at: where the quotation starts in it.
        joined: what the one is that it is listed with.
        alone: no passage of the turn may be somebody else's.
        first: it is the first quotation of the turn, or listed with it.
    """
    start = max(0, at - _BACK)
    if "\n" in inner:
        return None
    if alone and _FORMS.sends.search(low, start, at):
        return "sent"
    if len(inner.split()) > _MOST_WORDS or _FORMS.sentence.search(_FORMS.title.sub("", inner)):
        return None
    titled = _FORMS.titles.search(low, start, at)
    # the piece of a sentence that goes on with the quotation
    begins = max(0, at - MAX_PIECE)
    if ended := _FORMS.ended.match(low, begins, at):
        begins = ended.end()
    before = [] if titled else [*pieces(low, begins, at)]
    read = before[-1] if before else None
    asks = (
        read
        and read.kind not in {"question", "statement"}
        and _FORMS.governed.search(low, start, at)
    )
    if joined == "typed" or (asks and not joined):
        typed = [each.words for each in entities(inner, NO_DAY)]
        shows = read and (
            read.kind == "open" or (read.kind == "look" and not low[read.looks : at].strip())
        )
        if (
            first
            and alone
            and "\n" not in low.strip()
            and typed == [inner]
            and (joined or not shows)
        ):
            return "typed"
        if len(typed) < 2 and (
            " " not in inner or _kinds(small(inner), 0, len(inner)) <= {"open"}
        ):
            return "named"
    if titled or joined or _FORMS.determined.search(low, start, at):
        return "named"
    return None
