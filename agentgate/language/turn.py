"""One of the user's turns, read once: whose words its parts are, its clauses and their kinds, and what it takes back.

Everything that depends on the user's words (intents, origins, labels, denials) reads this value; nothing else looks at the raw text. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from agentgate.language.denials import IDIOM, clauses
from agentgate.language.pieces import Piece, pieces
from agentgate.language.spans import small
from agentgate.language.whose import Extent, parts, with_lines
from agentgate.language.word_files import either, needed
from agentgate.values.turns import OWN, PASTED

Voice = Literal["said", "reported", "denied"]
Taken = Literal["", "doubt", "all"]

MAX_TURN = 65_536  # characters of one turn; the gate refuses more
MAX_READ = 16_384  # characters of one turn that are read for what they ask; a longer one is unsure as a whole

_SENTENCE = re.compile(r"(?<![.!?;])[.!?;]++(?=\s)|\n")
_REPORTING = re.compile(rf"\b(?:(?P<obliged>{either('obliged')})|(?:{either('reports')}))\b(?! down\b)")
_NEAR = 200  # characters before such a word that may hold its subject
_BOUND = re.compile(r"[.!?;,(\n]\s?|\b(?:if|and|but|because|since|as|so)\s")
_SUBJECT = re.compile(  # somebody else: not the user, and no command, request or question
    rf"(?!(?:i|we|you|please|on|in|at|for|with|to|from|of|{either('question words', 'look', 'verbs', 'does', 'asking')})\b)"
    r"(?:[\w@'\u2019-]{1,40}\s){1,6}\Z"
)
_SHORT = 160  # characters of a sentence that may be nothing but a withdrawal
_BACK = re.compile(rf"\b(?:{either('takes back')})\b")
_ONLY_BACK = re.compile(rf"\W*+(?:(?:{either('takes back', 'fillers', 'soft')})\b\W*+)+\Z")
_WORDS = re.compile("[a-z]+")
_HINTS = needed("takes back", "no signs", "calls off") | frozenset("t wrong incorrect mistake mistakes error errors".split())  # "don't"
_CALLS_OFF = re.compile(rf"\b(?:{either('calls off')})\b")
_NO = re.compile(rf"\b(?:{either('no signs')})\b|n['\u2019\u02bc`\u00b4]t\b|[\U0001f6d1\u270b\u274c\U0001f44e\U0001f6ab\u26d4\u2716]")
_SECOND = re.compile(rf"\b(?:{either('second thoughts')})\b")
_WISHES = re.compile(rf"\b(?:{either('wishes')})\b")
_AUX = "(?:ca|could|wo|would|is|are|was|were|has|have|had|do|did|does)n['\u2019]?t"
_FACT = re.compile(  # a negated statement: "it never arrived", "the blue one doesn't fit", "I have no receipt"
    r"\b(?!(?:you|that|this|please|do|and|but|so|absolutely)\b)[\w'\u2019-]{1,40} (?:\w+ly |still |just |also )?"
    rf"(?:{_AUX}|cannot|never|(?:can|could|will|is|are|was|were|has|have|had|do|did|does|am) (?:not|never|no)"
    r"|(?:have|has|had|got|there is|there['\u2019]s) no|(?<=i['\u2019]m )not)\b"
)
_WRONG = f"(?:{either('wrong')})"
_THAT_IS_WRONG = re.compile(
    rf"\W*(?:that|this|it|which)(?:['\u2019]s| is| was) (?:\w+ )?(?:an? |the )?{_WRONG}"
    r"(?: (?:one|order|account|person|number|amount|thing))?\W*\Z"
    rf"|\W*(?:\w+ ){{0,2}}{_WRONG}(?: \w+)?\W*\Z"
)
_FORBIDS = re.compile(  # "don't ship a replacement", not "don't do it" or "don't want it"
    r"(?:(?<=do )not|don['\u2019]?t|never)\s+(?!(?:want|need|mean|think|like|wish|care|bother)\b)\w{3,}\s+"
    r"(?!(?:it|that|this|anything|so)\b)\w"
)
_FEW = 3  # words of a request that may mean the one before: "kill it", "pull the plug"
_LETTER = re.compile(r"\w")
_LATIN = re.compile("[a-z]{2}")
_FOREIGN = re.compile("[\u0370-\u1fff\u2c00-\ua6ff\ua720-\ud7ff\uf900-\ufdff\ufe70-\ufeff]")  # letters of other scripts
_AGREES = re.compile(rf"\W*+(?:(?:{either('agrees', 'soft')})(?!\w)\W*+)*\Z")
_ANSWER = re.compile(
    r"\W*(?:i|we|he|she|they|the|an?|my|our|his|her|their|to|for|from|in|on|at|with|by|it['\u2019]?s|this|these|those|number|no\.?|[#@+]?[0-9])\b|.*[0-9@]|_+"
)


class Clause(NamedTuple):
    """A span of the turn: said by the user, denied by them, or reported as somebody else's words."""

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
        parts: the parts that are not plainly the user's own; `named` are the spans of the names among them.
        clauses: the clauses, in order, without a gap; `starts` is where each begins.
        unsure: the texts that may not be the user's own: they grant nothing, and may take back.
        memo: what readers further on keep of this turn.
    """

    def __init__(self, text: str) -> None:
        """Read a turn, as it is stored (`agentgate.values.turns.turn_text`)."""
        self.text = with_lines(text)
        self.parts = found = parts(self.text) if len(text) <= MAX_READ else [Extent(0, len(text), "unsure")]
        self.written = _masked(self.text, [part for part in found if part.whose in {"forwarded", "pasted", "unsure"}])
        own = _masked(self.written, [part for part in found if part.whose in {"quoted", "doubtful"}])
        self.named = tuple([(start, end) for start, end, whose in found if whose == "named" and not self.written[start - 1].isspace()])
        for start, end in self.named:
            own = own[: start - 1] + self.written[start - 1 : end + 1] + own[end + 1 :]
        self.own = own
        quoted = [*((start - 1, end + 1, "_") for start, end in self.named), *(part for part in found if part.whose == "quoted")]
        self.bare = _masked(own, quoted, "_")
        self.low = small(self.bare)
        certain = _masked(self.text, [part for part in found if part.whose in {"forwarded", "pasted", "quoted"}])
        unsure = [small(certain[start:end]) for start, end, whose in found if whose in {"doubtful", "unsure"}]
        hidden = () if text.startswith((OWN, PASTED)) else found
        self._hidden = small("\n".join([self.text[start:end] for start, end, _ in hidden]))
        self.unsure = tuple([words for words in unsure if _LETTER.search(words)])
        self.clauses = tuple(_reported(self.low, clauses(self.bare)))
        self.starts = [clause.start for clause in self.clauses]
        self.memo: dict[str, Any] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {}

    def texts(self, voice: Voice) -> Iterator[str]:
        """The user's own words of one voice, clause by clause."""
        return (self.own[start:end] for said, start, end in self.clauses if said == voice)

    def pieces_of(self, clause: Clause) -> tuple[Piece, ...]:
        """The pieces of a clause, if it is said."""
        if clause.start not in self._pieces:
            self._pieces[clause.start] = tuple(pieces(self.low, clause.start, clause.end)) if clause.voice == "said" else ()
        return self._pieces[clause.start]

    @property
    def pieces(self) -> Iterator[Piece]:
        """The pieces of all said clauses."""
        return (piece for clause in self.clauses for piece in self.pieces_of(clause))

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences, and what each takes back of what was asked for before it."""
        ends = [*(match.end() for match in _SENTENCE.finditer(self.low)), len(self.low)]
        return tuple([Sentence(start, end, self._taken(start, end)) for start, end in pairwise([0, *ends]) if self.low[start:end].strip()])

    @property
    def takes_all_back(self) -> bool:
        """Whether the turn is nothing but a plain withdrawal."""
        return bool(self.sentences) and all(sentence.taken == "all" for sentence in self.sentences)

    def _taken(self, start: int, end: int) -> Taken:
        text = self.low[start:end]
        if _HINTS.isdisjoint(_WORDS.findall(text)) and text.isascii():
            return ""
        if end - start <= _SHORT and _BACK.search(text) and _ONLY_BACK.match(text):
            return "all"
        if _FOREIGN.search(text) and not _LATIN.search(text):
            return "doubt"
        plain = IDIOM.sub(" ", text)
        if _THAT_IS_WRONG.match(plain) or _CALLS_OFF.search(plain):
            return "doubt"
        if _NO.search(plain) is None or (_FACT.search(plain) and not _WISHES.search(plain)):
            return ""
        return "" if self._requests(start, end) else "doubt"

    def _requests(self, start: int, end: int) -> bool:
        """Whether these words request or ask something, or forbid something that they name."""
        near = [clause for clause in self.clauses if clause.start < end and clause.end > start]
        pieces = [piece for clause in near for piece in self.pieces_of(clause) if piece.start >= start]
        denied = [clause.start for clause in near if clause.voice == "denied" and clause.start >= start]
        return any(piece.kind not in {"statement", "open"} for piece in pieces) or any(_FORBIDS.match(self.low, at) for at in denied)

    @property
    def says_no(self) -> bool:
        """Whether a later turn may take anything back by what it says: a request, a value, or all."""
        return any(sentence.taken for sentence in self.sentences) or any(c.voice == "denied" for c in self.clauses) or self.doubts()

    @property
    def may_say_no(self) -> bool:
        """Whether words that may not be the user's own say no."""
        return any(map(_NO.search, self.unsure))

    def doubts(self, beside: Collection[Clause] = ()) -> bool:
        """Whether a later turn has signs of a no or of second thoughts, also in words that a host did not declare to be pasted.

        `beside`: clauses whose denial is known to be of something else.
        """
        said = " ".join(self.low[clause.start : clause.end] for clause in self.clauses if clause not in beside) if beside else self.low
        plain = IDIOM.sub(" ", f"{said}\n{self._hidden}")
        return any(sign.search(plain) for sign in (_NO, _SECOND, _FOREIGN))

    @cached_property
    def hesitates(self) -> bool:
        """Whether a later turn that requests nothing known may take back what was asked for before it."""
        return self.doubts() or any(not self._harmless(piece) for piece in self.pieces if piece.kind in {"request", "shaping", "open"})

    def _harmless(self, piece: Piece) -> bool:
        words = self.low[piece.begins : piece.end]
        if not any(map(str.isalnum, words)) or _AGREES.match(self.low[piece.start : piece.end]) is not None:
            return True
        return len(words.split()) > _FEW if piece.kind == "request" else _ANSWER.match(words) is not None


def _masked(text: str, spans: Iterable[tuple[int, int, str]], filler: str = " ") -> str:
    for start, end, _ in spans:
        text = text[:start] + filler * (end - start) + text[end:]
    return text


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
            stop = _SENTENCE.search(low, report)
            until = len(low) if stop is None else stop.end()


def _report(low: str, start: int, end: int) -> int | None:
    """Where the words of somebody else begin in a clause."""
    for verb in _REPORTING.finditer(low, start, end):
        near = low[max(start, verb.start() - _NEAR) : verb.start()]
        begins = max((bound.end() for bound in _BOUND.finditer(near)), default=0)
        if verb["obliged"] or _SUBJECT.match(near[begins:].lstrip()):
            return verb.end()
    return None
