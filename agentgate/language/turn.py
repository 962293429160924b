"""One of the user's turns, read once: whose words its parts are, its clauses and their kinds,
and what it takes back.

Everything that depends on the user's words (intents, origins, labels, denials) reads this
value; nothing else looks at the raw text. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from agentgate.language.denials import Voice, clauses, without_idioms
from agentgate.language.force import BIDS, in_doubt, is_conditional
from agentgate.language.pieces import Piece, pieces
from agentgate.language.spans import Entity, small
from agentgate.language.whose import NAMES, Extent, parts, with_lines
from agentgate.language.word_files import Forms, listed, needed
from agentgate.values.request import OWN, PASTED
from agentgate.values.value_class import once

_FORMS = Forms("turn")

Taken = Literal["", "unread", "doubt", "all"]

MAX_TURN = 65_536  # characters of one turn; the gate refuses more
# characters of one turn that are read for what they ask; a longer one is unsure as a whole
MAX_READ = 16_384

_STOPS = ".!?;\n"
# characters before such a word that may hold its subject; at the end, thanks and a name
_NEAR = 200
_SHORT = 160  # characters of a sentence that may be nothing but a withdrawal
_HINTS = needed("takes back", "no signs", "abroad", "calls off", "wrong") | {"t"}  # "don't"
_HOLDS = needed("holding")
# A sentence of second thoughts, whatever it says: "oh, she has paid it", "it'd break his
# heart", "a bit dear, though".
_WOULD_HINTS = listed("would be")
# words of a sentence behind a request that must be understood, or of a request that may mean
# the one before: "kill it"
_FEW = 3


class Clause(NamedTuple):
    """A span of the turn: said by the user, in a sentence whose force is in doubt, denied, or
    reported as somebody else's words.
    """

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
        own: the user's own words: without quotations, except names that the user gives (same
            length).
        bare: `own` with a word without meaning (each character a `_`) for every name and
            quotation.
        low: `bare` in lower case.
        parts: the parts that are not plainly the user's own; `named` are the names among them.
        clauses: the clauses, in order, without a gap; `starts` is where each begins.
        unsure: the texts that may not be the user's own: they grant nothing, and may take back.
        declared: whether the host says whose its parts are.
        memo: what readers further on keep of this turn.
    """

    def __init__(
        self,
        text: str,
        reader: str = "",
    ) -> None:
        """Read a turn, as it is stored (`agentgate.values.request.turn_text`); `reader`: the id
        of the run's user, where it is known.
        """
        self.text = with_lines(text)
        found = [Extent(0, len(text), "unsure")]
        if len(text) <= MAX_READ:
            found = parts(self.text, reader)
        self.parts = found
        self.written = _without(self.text, found, {"forwarded", "pasted", "unsure"})
        self.named = tuple(each for each in found if each.whose in NAMES)
        self.own = _without(self.written, found, {"quoted", "doubtful"})
        hidden = [each._replace(start=each.start - 1, end=each.end + 1) for each in self.named]
        hidden += found
        self.bare = _without(self.own, hidden, {*NAMES, "quoted"}, "_")
        self.low = small(self.bare)
        self._plain = without_idioms(self.low)
        certain = _without(self.text, found, {"forwarded", "pasted", "quoted"})
        self.unsure = tuple(
            small(certain[start:end])
            for start, end, whose in found
            if whose in {"doubtful", "unsure"} and _FORMS.letter.search(certain, start, end)
        )
        self.declared = text.startswith((OWN, PASTED))
        self._hidden = ""
        if not self.declared:
            self._hidden = small("\n".join(self.text[start:end] for start, end, _ in found))
        self.memo: dict[Any, Any] = {}
        self.clauses = tuple(_reported(self.low, clauses(self.bare, self._plain))) or (
            Clause("said", 0, len(text)),
        )
        self.starts = [clause.start for clause in self.clauses]

    def clause_at(self, place: int) -> Clause:
        """The clause that a place is in."""
        return self.clauses[max(0, bisect_right(self.starts, place) - 1)]

    def doubted(self, place: int) -> bool:
        """Whether the force of the sentence at a place is in doubt
        (`agentgate.language.force`), or of one that it goes on with.
        """
        number = bisect_right(self._begins, place) - 1
        return self._doubted(number) or bool(
            number
            and _FORMS.then.match(self.low, self._begins[number])
            and self._doubted(number - 1)
        )

    @cached_property
    def _begins(self) -> list[int]:
        """Where the sentences begin that are read for their force; before the first clause,
        too, is the first one.
        """
        low = self.low
        begins = [0]
        for before, clause in pairwise(self.clauses):
            if low[before.end - 1] in _STOPS or low[before.end] == "\n":
                begins.append(clause.start)
        return begins

    @once
    def _doubted(self, number: int) -> bool:
        start, end = [*self._begins, len(self.low) + 1][number : number + 2]
        here = self._clauses_in(start, end)
        read = [piece for each in here for piece in self.pieces_of(each)]
        return in_doubt(self.low, self.bare, here, read)

    def _clauses_in(
        self,
        start: int,
        end: int,
    ) -> tuple[Clause, ...]:
        """The clauses that begin in these words."""
        return self.clauses[bisect_left(self.starts, start) : bisect_left(self.starts, end)]

    @cached_property
    def voices(self) -> tuple[Clause, ...]:
        """The clauses; those of a sentence whose force is in doubt are doubted."""
        return tuple(
            clause._replace(voice="doubted")
            if clause.voice == "said" and self.doubted(clause.start)
            else clause
            for clause in self.clauses
        )

    def texts(self, voice: Voice) -> Iterator[str]:
        """The user's own words of one voice, clause by clause."""
        return (self.own[start:end] for said, start, end in self.voices if said == voice)

    @once
    def pieces_of(self, clause: Clause) -> tuple[Piece, ...]:
        """The pieces of a clause, if it is said."""
        if clause.voice != "said":
            return ()
        read = list[Piece]()
        for piece in pieces(self.low, clause.start, clause.end):
            place = piece.start, piece.end
            # another language, even in part, may deny or report it
            foreign = piece.kind in {"request", "shaping", "open"} and (
                _FORMS.abroad.search(self.low, *place)
                or _FORMS.unread.search(self.bare, *place)
            )
            read.append(piece._replace(kind="statement") if foreign else piece)
        return tuple(read)

    @property
    def pieces(self) -> Iterator[Piece]:
        """The pieces of all said clauses."""
        return (piece for clause in self.clauses for piece in self.pieces_of(clause))

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences, and what each takes back of what was asked for before it; a part
        behind a dash is one of its own.
        """
        found = list[Sentence]()
        ends = [match.end() for match in _FORMS.afterthought.finditer(self.low)]
        for start, end in pairwise([0, *ends, len(self.low)]):
            if not self.low[start:end].strip():
                continue
            other_case = found and _FORMS.otherwise.match(self.low, start)
            if other_case and is_conditional(self.low[found[-1].start : start]):
                found.append(Sentence(start, end, ""))
                continue
            taken = self._taken(start, end)
            found.append(Sentence(start, end, taken))
            if taken != "all":
                for each in _FORMS.added.finditer(self.low, start, end):
                    if self._only_back(each.end(), end):
                        found.append(Sentence(each.end(), end, "doubt"))
        return tuple(found)

    @property
    def takes_all_back(self) -> bool:
        """Whether the turn is nothing but a plain withdrawal."""
        return {sentence.taken for sentence in self.sentences} == {"all"}

    @property
    def assents(self) -> bool:
        """Whether the turn is nothing but a yes, or a choice and values: what it asks for is
        what somebody else said.
        """
        words = small(self.text).split() if len(self.text) <= _SHORT else []
        low = " ".join([word for word in words if not _FORMS.value.search(word)])
        return agrees(low) and bool(_FORMS.assent.search(low))

    @cached_property
    def _signed(self) -> int:
        """Where the turn's last words begin, if they are thanks or regards and a name."""
        own = self.own.rstrip()
        signed = _FORMS.signed.search(own, max(0, len(own) - _NEAR))
        return signed.start() if signed else len(own)

    def _only_back(self, start: int, end: int) -> bool:
        place = self.low, start, end
        back = end - start <= _SHORT and _FORMS.only_back.match(*place)
        return bool(back and _FORMS.back.search(*place))

    def _taken(self, start: int, end: int) -> Taken:
        text = self.low[start:end]
        words = _FORMS.words.findall(self.low, start, end)
        if self._only_back(start, end):
            return "all"
        brief = len(text) <= _SHORT and (
            len(text.split()) <= _FEW or text.rstrip(" .!)").endswith("?")
        )
        here = list[Piece]()
        if brief or not _HOLDS.isdisjoint(words):
            here += self._pieces_in(start, end)
        if any(
            _FORMS.holding.match(self.low, piece.begins)
            for piece in here
            if piece.kind not in {"statement", "question"}
        ):
            return "unread"
        doubted = is_conditional(text) and self.doubted(end - len(text.lstrip()))
        if doubted and not self._requests(start, end):
            return "doubt"
        wavers = _FORMS.wavers.match(text) or (
            not _WOULD_HINTS.isdisjoint(words) and _FORMS.would.search(text)
        )
        if not (brief or wavers or not text.isascii()) and _HINTS.isdisjoint(words):
            return ""
        plain = self._plain[start:end]
        if _FORMS.corrects.search(plain):
            return "doubt"
        no = _FORMS.no.search(_FORMS.narrows.sub("", plain)) and (
            not _FORMS.fact.search(plain) or _FORMS.wishes.search(plain)
        )
        if no and not self._requests(start, end, {*BIDS, "look", "question"}):
            return "doubt"
        if agrees(text):
            return ""
        if _FORMS.other_script.search(text) or _FORMS.unheard.search(self.bare[start:end]):
            return "doubt"
        if wavers and not self._requests(start, end):
            return "doubt"
        if not brief or _FORMS.labelled.match(text):
            return ""
        answers = _FORMS.value.search(text)
        if answers or start >= self._signed:
            here = [piece for piece in here if piece.kind != "open"]
        if not all(map(self._harmless, here)):
            return "unread"
        return "" if answers or not _FORMS.second.search(plain) else "unread"

    def _pieces_in(
        self,
        start: int,
        end: int,
    ) -> Iterator[Piece]:
        """The pieces that begin in these words."""
        for clause in (self.clause_at(start), *self._clauses_in(start + 1, end)):
            found = self.pieces_of(clause)
            yield from found[bisect_left(found, (start,)) : bisect_left(found, (end,))]

    def _requests(
        self,
        start: int,
        end: int,
        kinds: Collection[str] = BIDS,
    ) -> bool:
        """Whether these words request or ask something, or forbid something that they name.
        `kinds`: of pieces that count.
        """
        return any(piece.kind in kinds for piece in self._pieces_in(start, end)) or any(
            clause.voice == "denied" and _FORMS.forbids.match(self.low, clause.start)
            for clause in self._clauses_in(start, end)
        )

    @property
    def says_no(self) -> bool:
        """Whether a later turn may take anything back by what it says: a request, a value, or
        all.
        """
        return (
            any(sentence.taken in {"doubt", "all"} for sentence in self.sentences)
            or self.doubts()
        )

    @property
    def denied(self) -> list[Clause]:
        """The denied clauses."""
        return [clause for clause in self.clauses if clause.voice == "denied"]

    @property
    def denies(self) -> bool:
        """Whether the user's own words deny anything, in any language that can be listed."""
        return bool(self.denied or _FORMS.no.search(self._plain))

    def reshapes(self, named: Entity) -> bool:
        """Whether what is named in `own` may be meant for an act that was asked for before.

        Nothing is that stands in a question, or that is looked up; nor a number that is only
        told ("for 20 minutes"), nor anything but an amount where it is for one more act.
        """
        kinds = {piece.kind for piece in self.pieces if piece.start <= named.start < piece.end}
        if not kinds:
            return True
        if named.type in {"number", "count"}:
            return not kinds <= {"question", "look", "statement"}
        if named.type != "money" and _FORMS.also.search(self.low):
            return False
        return not kinds <= {"question", "look"}

    @property
    def may_say_no(self) -> bool:
        """Whether words that may not be the user's own say no."""
        return any(map(_FORMS.no.search, self.unsure))

    def doubts(self, beside: Collection[Clause] = ()) -> bool:
        """Whether a later turn has signs of a no or of second thoughts, also in words that a
        host did not declare to be pasted.

        `beside`: clauses that are known; what they deny, if they do, is something else.
        """
        known = [(clause.start, clause.end) for clause in self.denied if clause in beside]
        if len(known) < len(self.denied):
            return True
        plain = blank(self._plain, known, " ") + "\n" + without_idioms(self._hidden)
        if _FORMS.doubts.search(plain):
            return True
        return bool(_FORMS.foreign.search(plain)) and not agrees(plain)

    @cached_property
    def hesitates(self) -> bool:
        """Whether a later turn that requests nothing known may take back what was asked for
        before it.
        """
        return self.doubts() or not all(
            self._harmless(piece)
            and (
                piece.kind in {"look", "question"}
                or not _FORMS.news.match(self._plain, piece.start)
            )
            for piece in self.pieces
        )

    def _harmless(self, piece: Piece) -> bool:
        if piece.kind not in {"request", "shaping", "open"}:
            return True
        words = self.low[piece.begins : piece.end]
        if not any(map(str.isalnum, words)) or agrees(self.low[piece.start : piece.end]):
            return True
        acts = not _FORMS.meant_before.match(words)
        if piece.kind == "request":
            return acts and len(words.split()) > _FEW
        if piece.kind == "shaping":
            return bool(_FORMS.names_it.match(words) or (acts and _FORMS.how.match(words)))
        return bool(_FORMS.answer.match(words))


def fold_spaces(text: str) -> str:
    """A text with one space for any white space, and none around it."""
    return " ".join(text.split())


def agrees(low: str) -> bool:
    """Whether words in lower case are nothing but a yes, thanks or a greeting, or no words."""
    return bool(_FORMS.agrees.match(low))


def _without(
    text: str,
    found: Iterable[Extent],
    kinds: Collection[str],
    filler: str = " ",
) -> str:
    spans = [(start, end) for start, end, whose in found if whose in kinds]
    return blank(text, spans, filler)


def blank(
    text: str,
    spans: Iterable[tuple[int, int]],
    filler: str,
) -> str:
    """A text of the same length, in these spans nothing but this character."""
    parts = []
    at = 0
    for start, end in sorted(spans):
        if end > at:
            parts += [text[at:start], filler * (end - max(at, start))]
            at = end
    return "".join([*parts, text[at:]])


def _reported(
    low: str,
    spans: Iterable[tuple[Voice, int, int]],
) -> Iterator[Clause]:
    """The clauses, each cut where somebody else's words begin, up to the end of its
    sentence.
    """
    text = "\n" + low.rstrip()
    verbs = [(verb.start(), verb.end() - 1) for verb in _FORMS.reporting.finditer(text)]
    until = 0
    for voice, start, end in spans:
        at = max(start, min(until, end))
        if start < at:
            yield Clause("reported", start, at)
        first = bisect_left(verbs, (at,))
        last = bisect_left(verbs, (end,))
        for begins, to in verbs[first:last] if voice == "said" else ():
            if begins < at or to > end or not _reports(low, at, begins, to):
                continue
            yield Clause(voice, at, to)
            stop = _FORMS.sentence.search(low, to)
            until = stop.end() if stop else len(low)
            at = min(until, end)
            if to < at:
                yield Clause("reported", to, at)
        if at < end:
            yield Clause(voice, at, end)


def _reports(
    low: str,
    start: int,
    at: int,
    end: int,
) -> bool:
    """Whether the user's own words, which start in front of it, end behind a verb."""
    near = low[max(start, at - _NEAR) : at]
    subject = _FORMS.bound.split(near)[-1].lstrip()
    return bool(
        _FORMS.obliged.match(low, at, end)
        or _FORMS.subject.match(subject)
        or (not subject and _FORMS.apart.search(near))
    )
