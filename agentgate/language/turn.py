"""One of the user's turns, read once: whose words its parts are, its clauses and their kinds, and what it takes back.

Everything that depends on the user's words (intents, origins, labels, denials) reads this value; nothing else looks at the raw text. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
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
Taken = Literal["", "unread", "doubt", "all"]

MAX_TURN = 65_536  # characters of one turn; the gate refuses more
MAX_READ = 16_384  # characters of one turn that are read for what they ask; a longer one is unsure as a whole

_STOP = r"(?<=[.!?;])(?<![.!?;]{2})(?<!\b[dm][rsx]\.)(?<!\bmrs\.)(?<!\bprof\.)[.!?;]*+(?=\s)"
_SENTENCE = re.compile(rf"[.!?;\n](?:(?<=\n)|{_STOP})")
_AFTERTHOUGHT = re.compile(rf"[.!?;\n\u2026\u2013\u2014-](?:(?<=[\n\u2026])|(?<=\s[\u2013\u2014-])[\u2013\u2014-]*(?=\s)|{_STOP})")
_ADDED = re.compile(r"[,(]\s*")  # "refund it, no wait"
_REPORTING = re.compile(rf"\b(?:(?P<obliged>{either('obliged')})|(?:{either('reports')}))\b(?! down\b)")
_NEAR = 200  # characters before such a word that may hold its subject; at the end, thanks and a name
_BOUND = re.compile(r"[.!?;,(\n]\s?|\b(?:if|and|but|because|since|as|so)\s")
_SUBJECT = re.compile(  # somebody else: not the user, and no command, request or question
    rf"(?!(?:i|we|you|please|on|in|at|for|with|to|from|of|{either('question words', 'look', 'verbs', 'does', 'asking')})\b)"
    r"(?:[\w@'\u2019-]{1,40}\s){1,6}\Z"
)
_APART = re.compile(r"\w, \w[^.!?;\n]{2,60}, \Z")  # "some man, very insistent, told me to": the subject stands before what is added
_SHORT = 160  # characters of a sentence that may be nothing but a withdrawal
_BACK = re.compile(rf"\b(?:{either('takes back')})\b")
_ONLY_BACK = re.compile(rf"\W*+(?:(?:{either('takes back', 'fillers', 'soft')})\b\W*+)+\Z")
_WORDS = re.compile("[a-z]+")
_HINTS = needed("takes back", "no signs", "abroad", "calls off") | frozenset(
    "t wrong incorrect mistake mistakes error errors".split()
)  # "don't"
_CALLS_OFF = re.compile(rf"\b(?:{either('calls off')})\b")
_NO = re.compile(
    rf"\b(?:{either('no signs', 'abroad')})\b|n['\u2019\u02bc`\u00b4]t\b|[\U0001f6d1\u270b\u274c\U0001f44e\U0001f6ab\u26d4\u2716]"
)
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
_HOLDING = re.compile(rf"(?!leave an?\b)(?:{either('holding')})\b")
_HOLDS = needed("holding")
# A sentence of second thoughts, whatever it says: "oh, she has paid it", "it'd break his heart", "a bit dear, though".
_WAVERS = re.compile(rf"\W*(?:{either('interjections')}|but|or|unless|except|however)\b")
_WOULD = re.compile(
    r"\b(?:though|although|albeit)\b|(?:\bwould|(?<=\w)['\u2019]d|\bmight|\bcould)(?: \w+ly| just| also| really)?+ "
    rf"(?!(?:{either('polite')})\b)\w"
)
_WOULD_HINTS = frozenset("would d might could though although albeit".split())
_BIDS = ("request", "shaping")
_ABOUT_IT = re.compile(  # "park that for now", which may mean the request before; not "make it blue"
    r"(?!(?:make|do)\b)[a-z'\u2019-]{1,40} (?:(?:up|off|out|down|back|away|on|in|over) )?(?:it|that|this|them)\b"
)
_HOW = re.compile(r"(?:use|mention|include|title|name|sign)\b")  # "use the short form", not "keep it" or "pick the other one"
_NAMES_IT = re.compile(r"(?:call|title|name) (?:it|that|this|them) _")  # "call it 'Lunch'", not "call it a day"
_FEW = 3  # words of a sentence behind a request that must be understood, or of a request that may mean the one before: "kill it"
_SIGNED = re.compile(
    rf"(?:\A|(?<=[.!?\n]))\s*(?i:{either('signs off')})(?:\s*[,\u2013-]|[.!,]?\s*\n)\s*(?:[A-Z][\w.'\u2019-]*\s*){{0,3}}\Z"
)
_VALUE = re.compile("[0-9@_]")
_LETTER = re.compile(r"\w")
_LATIN = re.compile("[a-z]{2}")
_FOREIGN = re.compile("[\u0370-\u1fff\u2c00-\ua6ff\ua720-\ud7ff\uf900-\ufdff\ufe70-\ufeff]")  # letters of other scripts
_ABROAD = re.compile(rf"\b(?:{either('abroad')})\b|{_FOREIGN.pattern}")
_ABROAD_WORDS = needed("abroad")
_UNREAD = re.compile("(?<!\\w)[a-z]*[\u00df-\u024f][a-z\u00df-\u024f]*(?!\\w)")  # a word, no name, with letters that English does without
_AGREES = re.compile(rf"\W*+(?:(?:{either('agrees', 'soft')})(?!\w)\W*+)*\Z")
_ANSWER = re.compile(
    r"\W*(?:i|we|he|she|they|the|an?|my|our|his|her|their|to|for|from|in|on|at|with|by|it['\u2019]?s|this|these|those|number|no\.?|[#@+]?[0-9])\b|.*[0-9@_]"
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
        declared: whether the host says whose its parts are.
        memo: what readers further on keep of this turn.
    """

    def __init__(self, text: str) -> None:
        """Read a turn, as it is stored (`agentgate.values.turns.turn_text`)."""
        self.text = with_lines(text)
        self.parts = found = parts(self.text) if len(text) <= MAX_READ else [Extent(0, len(text), "unsure")]
        self.written = _masked(self.text, [part for part in found if part.whose in {"forwarded", "pasted", "unsure"}])
        own = _masked(self.written, [part for part in found if part.whose in {"quoted", "doubtful"}])
        self.named = tuple([(start, end) for start, end, whose in found if whose == "named" and not self.written[start - 1].isspace()])
        self.own = own = with_other(own, [(start - 1, end + 1) for start, end in self.named], self.written)
        quoted = [*((start - 1, end + 1, "_") for start, end in self.named), *(part for part in found if part.whose == "quoted")]
        self.bare = _masked(own, quoted, "_")
        self.low = small(self.bare)
        certain = _masked(self.text, [part for part in found if part.whose in {"forwarded", "pasted", "quoted"}])
        unsure = [small(certain[start:end]) for start, end, whose in found if whose in {"doubtful", "unsure"}]
        self.declared = text.startswith((OWN, PASTED))
        hidden = () if self.declared else found
        self._hidden = small("\n".join([self.text[start:end] for start, end, _ in hidden]))
        self.unsure = tuple([words for words in unsure if _LETTER.search(words)])
        self.clauses = tuple(_reported(self.low, clauses(self.bare)))
        self.starts = [clause.start for clause in self.clauses]
        self.memo: dict[str, Any] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {}
        self._last: dict[tuple[int, Collection[str]], int] = {}

    def texts(self, voice: Voice) -> Iterator[str]:
        """The user's own words of one voice, clause by clause."""
        return (self.own[start:end] for said, start, end in self.clauses if said == voice)

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
        if self.low.isascii() and _ABROAD_WORDS.isdisjoint(_WORDS.findall(self.low, piece.start, piece.end)):
            return piece
        foreign = _ABROAD.search(self.low, piece.start, piece.end) or _UNREAD.search(self.bare, piece.start, piece.end)
        return piece._replace(kind="statement") if foreign else piece

    @property
    def pieces(self) -> Iterator[Piece]:
        """The pieces of all said clauses."""
        return (piece for clause in self.clauses for piece in self.pieces_of(clause))

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        """The sentences, and what each takes back of what was asked for before it; a part behind a dash is one of its own."""
        ends = [*(match.end() for match in _AFTERTHOUGHT.finditer(self.low)), len(self.low)]
        found = list[Sentence]()
        for start, end in pairwise([0, *ends]):
            if self.low[start:end].strip():
                words = _WORDS.findall(self.low, start, end)
                found.append(Sentence(start, end, self._taken(start, end, words)))
                added = _ADDED.finditer(self.low, start, end) if found[-1].taken != "all" and not _HINTS.isdisjoint(words) else ()
                found += [Sentence(each.end(), end, "doubt") for each in added if self._only_back(each.end(), end)]
        return tuple(found)

    @property
    def takes_all_back(self) -> bool:
        """Whether the turn is nothing but a plain withdrawal."""
        return bool(self.sentences) and all(sentence.taken == "all" for sentence in self.sentences)

    @cached_property
    def _signed(self) -> int:
        """Where the turn's last words begin, if they are thanks or regards and a name."""
        own = self.own.rstrip()
        signed = _SIGNED.search(own, max(0, len(own) - _NEAR))
        return len(self.own) if signed is None else signed.start()

    def _only_back(self, start: int, end: int) -> bool:
        if end - start > _SHORT:
            return False
        text = self.low[start:end]
        return _ONLY_BACK.match(text) is not None and _BACK.search(text) is not None

    def _taken(self, start: int, end: int, words: list[str]) -> Taken:
        text, hints = self.low[start:end], not _HINTS.isdisjoint(words)
        if self._only_back(start, end):
            return "all"
        brief = len(text) <= _SHORT and (len(text.split()) <= _FEW or text.rstrip(" .!)").endswith("?"))
        here = () if not brief and _HOLDS.isdisjoint(words) else self._pieces_in(start, end)
        if any(piece.kind not in {"statement", "question"} and _HOLDING.match(self.low, piece.begins) for piece in here):
            return "unread"
        wavers = _WAVERS.match(text) is not None or (not _WOULD_HINTS.isdisjoint(words) and _WOULD.search(text) is not None)
        if not brief and not hints and not wavers and text.isascii():
            return ""
        if _FOREIGN.search(text) and not _LATIN.search(text):
            return "doubt"
        plain = IDIOM.sub(" ", text)
        if _THAT_IS_WRONG.match(plain) or _CALLS_OFF.search(plain):
            return "doubt"
        if wavers and not self._requests(start, end, _BIDS) and _AGREES.match(text) is None:
            return "doubt"
        fact = _FACT.search(plain) is not None and _WISHES.search(plain) is None
        if _NO.search(plain) is not None and not fact and not self._requests(start, end):
            return "doubt"
        if not brief or _AGREES.match(text) is not None:
            return ""
        answers = _VALUE.search(text) is not None
        read = all(self._harmless(piece) for piece in here if not ((answers or start >= self._signed) and piece.kind == "open"))
        return "" if read and (answers or _SECOND.search(plain) is None) else "unread"

    def _pieces_in(self, start: int, end: int) -> tuple[Piece, ...]:
        """The pieces that begin in these words."""
        near = self.clauses[max(0, bisect_right(self.starts, start) - 1) : bisect_right(self.starts, end)]
        pieces = [self.pieces_of(clause) for clause in near]
        return tuple([piece for each in pieces for piece in each[bisect_left(each, (start,)) : bisect_left(each, (end,))]])

    def _requests(self, start: int, end: int, kinds: Collection[str] = (*_BIDS, "look", "question")) -> bool:
        """Whether these words request or ask something, or forbid something that they name. `kinds`: of pieces that count."""
        near = self.clauses[max(0, bisect_right(self.starts, start) - 1) : bisect_left(self.starts, end)]
        denied = [clause.start for clause in near if clause.voice == "denied" and clause.start >= start]
        return any(self._last_of(clause, kinds) >= start for clause in near) or any(_FORBIDS.match(self.low, at) for at in denied)

    def _last_of(self, clause: Clause, kinds: Collection[str]) -> int:
        """Where the last piece of these kinds begins in a clause; -1: it has none. A clause may hold many sentences that ask for it."""
        key = clause.start, kinds
        if key not in self._last:
            self._last[key] = max((piece.start for piece in self.pieces_of(clause) if piece.kind in kinds), default=-1)
        return self._last[key]

    @property
    def says_no(self) -> bool:
        """Whether a later turn may take anything back by what it says: a request, a value, or all."""
        plain = any(sentence.taken in {"doubt", "all"} for sentence in self.sentences)
        return plain or any(c.voice == "denied" for c in self.clauses) or self.doubts()

    @property
    def may_say_no(self) -> bool:
        """Whether words that may not be the user's own say no."""
        return any(map(_NO.search, self.unsure))

    def doubts(self, beside: Collection[Clause] = ()) -> bool:
        """Whether a later turn has signs of a no or of second thoughts, also in words that a host did not declare to be pasted.

        `beside`: clauses whose denial is known to be of something else.
        """
        low = _masked(self.low, [(clause.start, clause.end, "") for clause in beside])
        plain = IDIOM.sub(" ", f"{low}\n{self._hidden}")
        denied = any(clause.voice == "denied" and clause not in beside for clause in self.clauses)
        return denied or any(sign.search(plain) for sign in (_NO, _SECOND, _FOREIGN))

    @cached_property
    def hesitates(self) -> bool:
        """Whether a later turn that requests nothing known may take back what was asked for before it."""
        return self.doubts() or not all(map(self._harmless, self.pieces))

    def _harmless(self, piece: Piece) -> bool:
        if piece.kind not in {"request", "shaping", "open"}:
            return True
        words = self.low[piece.begins : piece.end]
        if not any(map(str.isalnum, words)) or _AGREES.match(self.low[piece.start : piece.end]) is not None:
            return True
        if piece.kind == "shaping":
            return _NAMES_IT.match(words) is not None or (_HOW.match(words) is not None and _ABOUT_IT.match(words) is None)
        if piece.kind == "request":
            return len(words.split()) > _FEW and _HOLDING.match(words) is None and _ABOUT_IT.match(words) is None
        return _ANSWER.match(words) is not None


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
            stop = _SENTENCE.search(low, report)
            until = len(low) if stop is None else stop.end()


def _report(low: str, start: int, end: int) -> int | None:
    """Where the words of somebody else begin in a clause."""
    for verb in _REPORTING.finditer(low, start, end):
        near = low[max(start, verb.start() - _NEAR) : verb.start()]
        begins = max((bound.end() for bound in _BOUND.finditer(near)), default=0)
        subject = near[begins:].lstrip()
        if verb["obliged"] or _SUBJECT.match(subject) or (not subject and _APART.search(near)):
            return verb.end()
    return None
