"""One of the user's turns, read once: whose words its parts are, its clauses and their kinds, and what it takes back.

Everything that depends on the user's words (intents, origins, labels, denials) reads this value; nothing else looks at the raw text. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from agentgate.language.denials import IDIOM, clauses
from agentgate.language.force import conditional, goes_on, in_doubt
from agentgate.language.pieces import Piece, pieces
from agentgate.language.spans import small
from agentgate.language.whose import FIELD, NAMES, Extent, parts, with_lines
from agentgate.language.word_files import Forms, needed
from agentgate.values.turns import OWN, PASTED

_FORMS = Forms("turn")

Voice = Literal["said", "doubted", "reported", "denied"]
Taken = Literal["", "unread", "doubt", "all"]

MAX_TURN = 65_536  # characters of one turn; the gate refuses more
MAX_READ = 16_384  # characters of one turn that are read for what they ask; a longer one is unsure as a whole

_STOPS = frozenset(".!?;\n")
_NEAR = 200  # characters before such a word that may hold its subject; at the end, thanks and a name
_SHORT = 160  # characters of a sentence that may be nothing but a withdrawal
_HINTS = needed("takes back", "no signs", "abroad", "calls off") | frozenset(
    "t wrong incorrect mistake mistakes error errors".split()
)  # "don't"
_HOLDS = needed("holding")
# A sentence of second thoughts, whatever it says: "oh, she has paid it", "it'd break his heart", "a bit dear, though".
_WOULD_HINTS = frozenset("would d might could though although albeit".split())
_BIDS = ("request", "shaping")
_FEW = 3  # words of a sentence behind a request that must be understood, or of a request that may mean the one before: "kill it"
_ABROAD_WORDS = needed("abroad")


class Clause(NamedTuple):
    """A span of the turn: said by the user, in a sentence whose force is in doubt, denied, or reported as somebody else's words."""

    voice: Voice
    start: int
    end: int


class Sentence(NamedTuple):
    """A sentence, and whether it takes back what was asked for before it."""

    start: int
    end: int
    taken: Taken


class Turn:
    """What one turn says.

    Attributes:
        text: as it was sent, with every kind of line break as one.
        written: without forwarded and pasted text (same length); quotations are left.
        own: the user's own words: without quotations, except names that the user gives (same length).
        bare: `own` with a word without meaning (each character a `_`) for every name and quotation.
        low: `bare` in lower case.
        parts: the parts that are not plainly the user's own; `named` are the names among them.
        clauses: the clauses, in order, without a gap; `starts` is where each begins.
        unsure: the texts that may not be the user's own: they grant nothing, and may take back.
        declared: whether the host says whose its parts are.
        memo: what readers further on keep of this turn.
    """

    def __init__(self, text: str, reader: str = "") -> None:
        """Read a turn, as it is stored (`agentgate.values.turns.turn_text`); `reader`: the id of the run's user, where it is known."""
        self.text = with_lines(text)
        self.parts = found = parts(self.text, reader) if len(text) <= MAX_READ else [Extent(0, len(text), "unsure")]
        self.written = _masked(self.text, [part for part in found if part.whose in {"forwarded", "pasted", "unsure"}])
        own = _masked(self.written, [part for part in found if part.whose in {"quoted", "doubtful"}])
        self.named = tuple([each for each in found if each.whose in NAMES and not self.written[each.start - 1].isspace()])
        self.own = own = with_other(own, [(start - 1, end + 1) for start, end, _ in self.named], self.written)
        quoted = [*((start - 1, end + 1, "_") for start, end, _ in self.named), *(part for part in found if part.whose == "quoted")]
        self.bare = _masked(own, quoted, "_")
        self.low = small(self.bare)
        certain = _masked(self.text, [part for part in found if part.whose in {"forwarded", "pasted", "quoted"}])
        unsure = [small(certain[start:end]) for start, end, whose in found if whose in {"doubtful", "unsure"}]
        self.declared = text.startswith((OWN, PASTED))
        hidden = () if self.declared else found
        self._hidden = small("\n".join([self.text[start:end] for start, end, _ in hidden]))
        self.unsure = tuple([words for words in unsure if _FORMS.letter.search(words)])
        self.memo: dict[str, Any] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {}
        self._last: dict[tuple[int, Collection[str]], int] = {}
        self._in_doubt: dict[int, tuple[int, bool]] = {}
        self.clauses = tuple(_reported(self.low, clauses(self.bare)))
        self.starts = [clause.start for clause in self.clauses]

    def doubted(self, place: int) -> bool:
        """Whether the force of the sentence at a place is in doubt (`agentgate.language.force`), or of one that it goes on with."""
        first, doubt = self._force(max(0, bisect_right(self.starts, place) - 1))
        return doubt or (first > 0 and goes_on(self.low, self.clauses[first].start) and self._force(first - 1)[1])

    def _force(self, at: int) -> tuple[int, bool]:
        """The first clause of the sentence of a clause, and whether that sentence is in doubt."""
        if at not in self._in_doubt:
            first = last = at
            while first > 0 and not self._ends_sentence(first - 1):
                first -= 1
            while last + 1 < len(self.clauses) and not self._ends_sentence(last):
                last += 1
            here = self.clauses[first : last + 1]
            doubt = in_doubt(self.low, self.bare, here, [piece for each in here for piece in self.pieces_of(each)])
            self._in_doubt |= dict.fromkeys(range(first, last + 1), (first, doubt))
        return self._in_doubt[at]

    def _ends_sentence(self, number: int) -> bool:
        end = self.clauses[number].end
        return self.low[max(0, end - 1) : end] in _STOPS or self.low[end : end + 1] == "\n"

    @cached_property
    def voices(self) -> tuple[Clause, ...]:
        """The clauses; those of a sentence whose force is in doubt are doubted."""
        return tuple(
            [
                clause._replace(voice="doubted") if clause.voice == "said" and self.doubted(clause.start) else clause
                for clause in self.clauses
            ]
        )

    def texts(self, voice: Voice) -> Iterator[str]:
        """The user's own words of one voice, clause by clause."""
        return (self.own[start:end] for said, start, end in self.voices if said == voice)

    def pieces_of(self, clause: Clause) -> tuple[Piece, ...]:
        """The pieces of a clause, if it is said."""
        if clause.start not in self._pieces:
            found = pieces(self.low, clause.start, clause.end) if clause.voice == "said" else ()
            self._pieces[clause.start] = tuple([self._understood(piece) for piece in found])
        return self._pieces[clause.start]

    def _understood(self, piece: Piece) -> Piece:
        """The piece; a statement where it is in part of another language, which may deny or report it."""
        if piece.kind not in {"request", "shaping", "open"}:
            return piece
        if self.low.isascii() and _ABROAD_WORDS.isdisjoint(_FORMS.words.findall(self.low, piece.start, piece.end)):
            return piece
        foreign = _FORMS.abroad.search(self.low, piece.start, piece.end) or _FORMS.unread.search(self.bare, piece.start, piece.end)
        return piece._replace(kind="statement") if foreign else piece

    @property
    def pieces(self) -> Iterator[Piece]:
        """The pieces of all said clauses."""
        return (piece for clause in self.clauses for piece in self.pieces_of(clause))

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences, and what each takes back of what was asked for before it; a part behind a dash is one of its own."""
        ends = [*(match.end() for match in _FORMS.afterthought.finditer(self.low)), len(self.low)]
        found = list[Sentence]()
        for start, end in pairwise([0, *ends]):
            if self.low[start:end].strip():
                words = _FORMS.words.findall(self.low, start, end)
                found.append(Sentence(start, end, self._taken(start, end, words)))
                added = _FORMS.added.finditer(self.low, start, end) if found[-1].taken != "all" and not _HINTS.isdisjoint(words) else ()
                found += [Sentence(each.end(), end, "doubt") for each in added if self._only_back(each.end(), end)]
        return tuple(found)

    @property
    def takes_all_back(self) -> bool:
        """Whether the turn is nothing but a plain withdrawal."""
        return bool(self.sentences) and all(sentence.taken == "all" for sentence in self.sentences)

    @property
    def assents(self) -> bool:
        """Whether the turn is nothing but a yes, or a choice and values: what it asks for is what somebody else said."""
        words = small(self.text).split() if len(self.text) <= _SHORT else []
        low = " ".join([word for word in words if _FORMS.value.search(word) is None])
        return agrees(low) and _FORMS.assent.search(low) is not None

    @cached_property
    def _signed(self) -> int:
        """Where the turn's last words begin, if they are thanks or regards and a name."""
        own = self.own.rstrip()
        signed = _FORMS.signed.search(own, max(0, len(own) - _NEAR))
        return len(self.own) if signed is None else signed.start()

    def _only_back(self, start: int, end: int) -> bool:
        if end - start > _SHORT:
            return False
        text = self.low[start:end]
        return _FORMS.only_back.match(text) is not None and _FORMS.back.search(text) is not None

    def _taken(self, start: int, end: int, words: list[str]) -> Taken:
        text, hints = self.low[start:end], not _HINTS.isdisjoint(words)
        if self._only_back(start, end):
            return "all"
        brief = len(text) <= _SHORT and (len(text.split()) <= _FEW or text.rstrip(" .!)").endswith("?"))
        here = () if not brief and _HOLDS.isdisjoint(words) else self._pieces_in(start, end)
        if any(piece.kind not in {"statement", "question"} and _FORMS.holding.match(self.low, piece.begins) for piece in here):
            return "unread"
        wavers = _FORMS.wavers.match(text) is not None or (not _WOULD_HINTS.isdisjoint(words) and _FORMS.would.search(text) is not None)
        if conditional(text) and self.doubted(end - len(text.lstrip())) and not self._requests(start, end, _BIDS):
            return "doubt"
        if not brief and not hints and not wavers and text.isascii():
            return ""
        if _FORMS.foreign.search(text) and not _FORMS.latin.search(text):
            return "doubt"
        plain = IDIOM.sub(" ", text)
        if _FORMS.that_is_wrong.match(plain) or _FORMS.calls_off.search(plain):
            return "doubt"
        if wavers and not self._requests(start, end, _BIDS) and not agrees(text):
            return "doubt"
        fact = _FORMS.fact.search(plain) is not None and _FORMS.wishes.search(plain) is None
        if _FORMS.no.search(plain) is not None and not fact and not self._requests(start, end):
            return "doubt"
        if not brief or agrees(text) or FIELD.match(text) is not None:
            return ""
        answers = _FORMS.value.search(text) is not None
        read = all(self._harmless(piece) for piece in here if not ((answers or start >= self._signed) and piece.kind == "open"))
        return "" if read and (answers or _FORMS.second.search(plain) is None) else "unread"

    def _pieces_in(self, start: int, end: int) -> tuple[Piece, ...]:
        """The pieces that begin in these words."""
        near = self.clauses[max(0, bisect_right(self.starts, start) - 1) : bisect_right(self.starts, end)]
        pieces = [self.pieces_of(clause) for clause in near]
        return tuple([piece for each in pieces for piece in each[bisect_left(each, (start,)) : bisect_left(each, (end,))]])

    def _requests(self, start: int, end: int, kinds: Collection[str] = (*_BIDS, "look", "question")) -> bool:
        """Whether these words request or ask something, or forbid something that they name. `kinds`: of pieces that count."""
        near = self.clauses[max(0, bisect_right(self.starts, start) - 1) : bisect_left(self.starts, end)]
        denied = [clause.start for clause in near if clause.voice == "denied" and clause.start >= start]
        return any(self._last_of(clause, kinds) >= start for clause in near) or any(_FORMS.forbids.match(self.low, at) for at in denied)

    def _last_of(self, clause: Clause, kinds: Collection[str]) -> int:
        """Where the last piece of these kinds begins in a clause; -1: it has none. A clause may hold many sentences that ask for it."""
        key = clause.start, kinds
        if key not in self._last:
            self._last[key] = max((piece.start for piece in self.pieces_of(clause) if piece.kind in kinds), default=-1)
        return self._last[key]

    @property
    def says_no(self) -> bool:
        """Whether a later turn may take anything back by what it says: a request, a value, or all."""
        return any(sentence.taken in {"doubt", "all"} for sentence in self.sentences) or self.doubts()

    @property
    def denies(self) -> bool:
        """Whether the user's own words deny anything, in any language that can be listed."""
        return any(clause.voice == "denied" for clause in self.clauses) or _FORMS.no.search(IDIOM.sub(" ", self.low)) is not None

    @property
    def may_say_no(self) -> bool:
        """Whether words that may not be the user's own say no."""
        return any(map(_FORMS.no.search, self.unsure))

    def doubts(self, beside: Collection[Clause] = ()) -> bool:
        """Whether a later turn has signs of a no or of second thoughts, also in words that a host did not declare to be pasted.

        `beside`: clauses whose denial is known to be of something else.
        """
        low = _masked(self.low, [(clause.start, clause.end, "") for clause in beside])
        plain = IDIOM.sub(" ", f"{low}\n{self._hidden}")
        denied = any(clause.voice == "denied" and clause not in beside for clause in self.clauses)
        return denied or any(sign.search(plain) for sign in (_FORMS.no, _FORMS.second, _FORMS.foreign))

    @cached_property
    def hesitates(self) -> bool:
        """Whether a later turn that requests nothing known may take back what was asked for before it."""
        return self.doubts() or not all(map(self._harmless, self.pieces))

    def _harmless(self, piece: Piece) -> bool:
        if piece.kind not in {"request", "shaping", "open"}:
            return True
        words = self.low[piece.begins : piece.end]
        if not any(map(str.isalnum, words)) or agrees(self.low[piece.start : piece.end]):
            return True
        if piece.kind == "shaping":
            return _FORMS.names_it.match(words) is not None or (
                _FORMS.how.match(words) is not None and _FORMS.about_it.match(words) is None
            )
        if piece.kind == "request":
            return len(words.split()) > _FEW and _FORMS.holding.match(words) is None and _FORMS.about_it.match(words) is None
        return _FORMS.answer.match(words) is not None


def agrees(low: str) -> bool:
    """Whether words in lower case are nothing but a yes, thanks or a greeting, or no words."""
    return _FORMS.agrees.match(low) is not None


def _masked(text: str, spans: Iterable[tuple[int, int, str]], filler: str = " ") -> str:
    places = [(start, end) for start, end, _ in spans]
    return with_other(text, places, filler * len(text)) if places else text


def with_other(text: str, spans: Iterable[tuple[int, int]], other: str) -> str:
    """A text, in these spans the other one of the same length."""
    parts, at = [], 0
    for start, end in sorted(spans):
        if end > at:
            parts += [text[at:start], other[max(at, start) : end]]
            at = end
    return "".join([*parts, text[at:]])


def _reported(low: str, spans: Iterable[tuple[Literal["said", "denied"], int, int]]) -> Iterator[Clause]:
    """The clauses, each cut where somebody else's words begin, up to the end of its sentence."""
    until = 0
    for voice, start, end in spans:
        at = start
        while at < end:
            if at < until:
                yield Clause("reported", at, min(end, until))
                at = min(end, until)
                continue
            report = _report(low, at, end) if voice == "said" else None
            yield Clause(voice, at, end if report is None else report)
            if report is None:
                break
            at = report
            stop = _FORMS.sentence.search(low, report)
            until = len(low) if stop is None else stop.end()


def _report(low: str, start: int, end: int) -> int | None:
    """Where the words of somebody else begin in a clause."""
    for verb in _FORMS.reporting.finditer(low, start, end):
        near = low[max(start, verb.start() - _NEAR) : verb.start()]
        begins = max((bound.end() for bound in _FORMS.bound.finditer(near)), default=0)
        subject = near[begins:].lstrip()
        if verb["obliged"] or _FORMS.subject.match(subject) or (not subject and _FORMS.apart.search(near)):
            return verb.end()
    return None
