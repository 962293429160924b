"""Splits the user's words into clauses, each said or denied: the words of denial, idioms that only look like denials, where a denial ends.

Rules: a denial in an instruction ("do not pay it") extends to the end of its clause; that of a statement ("I can't come, move it") ends
with its part of the sentence, unless the statement is about what is to be done or allowed. A clause does not end right after its
negation: "do not, please, refund it", or a line break there. Patterns are for lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from agentgate.language.spans import small
from agentgate.language.word_files import either, listed

Voice = Literal["said", "denied"]
_VERBS = listed("verbs")
_CLAUSE = re.compile(  # between two clauses; each alternative begins with a space or a comma
    r"[\s,](?:(?<=[.!?;]\s)(?<!\b(?:dr|mr|ms|mx)\.\s)(?<!\bmrs\.\s)(?<!\bprof\.\s)|(?<=\n)(?<!\binstead\n)(?<!\brather\n)|(?:(?<=,)\s|(?<!\s\s)(?<!,))\s{0,7}"
    r"\b(?:but(?<!\ball.but)(?<!(?:any|ery)thing.but)(?<!(?:any|ery)body.but)(?<!(?:any|ery)one.but)|instead(?!\s{1,8}of\b)|rather(?!\s{1,8}than\b)|then|however)\b"
    r"|(?<=,)\s{1,8}(?=(?:and|just|only|please)\b))"
)
_NEGATED = "do does did must should ca wo would could need is are was were has have had sha might".split()  # before "n't"
DENIES = (
    rf"(?:{either('not knowing', 'denies')}|(?:{'|'.join(_NEGATED)})(?:n['’ʼ`´‘＇′ʹ՚‛]?| n['’])t|cancel that(?! [a-z])"
    rf"|(?:other than|(?:apart|aside) from)(?! (?:that|this)\b)|excluding(?! vat\b)|skip(?= \w+ing\b))\b"
)
NEGATION = re.compile(rf"\b(?=[acdefhikmnoprsw]){DENIES}")
IDIOM = re.compile(  # "don't forget to", "no later than", "invoice no. 7" deny nothing
    rf"\b(?=[abcdinorsw])(?:(?:{either('no denial')})\b|(?:don['\u2019]?t|do not|never) (?:forget|hesitate)(?= to\b)|if not(?=,)"
    r"|no (?:rush|hurry|problem|worries|doubt|matter)\b(?! (?:to|in)\b)|(?<!\w )why not\b(?! \w+ed\b)"
    r"|or not(?=\s{0,3}(?:[,.;:!?)]|\Z))|(?<=why )don['\u2019]?t (?:you|we)\b"
    r"|(?:before|in case|if|or|so) (?:i|we)(?:['\u2019]ll| might| may| will)? forget\b|no\. ?(?=[0-9])"
    r"|(?<=\b(?:invoice|account|booking|receipt) )no (?=[0-9])|(?<=\b(?:ticket|flight) )no (?=[0-9])"
    r"|(?<=\b(?:as|to|is) )won['\u2019]?t[ -]?fix\b)"
)
_NOTHING = re.compile(  # "pay nothing", "pay Ann nothing" deny everything
    r"\b(?:(?:want|need|like) (?=\S+ (?:\w+ed|sent|paid|put|to be)\b)|(?:make sure|ensure)(?: that)? |see that )(?:nothing|nobody|no one)\b"
    r"|(?:(?<![^,.;:!?\n])|(?<=[,.;:!?\n-]\s)|(?<=\b(?:so|to)\s)|(?<=\b(?:and|but)\s)|(?<=(?:then|just)\s)|(?<=please\s))(?!if\b)"
    r"[a-z]{2,20} (?:(?:(?:me|us|him|her|it|them|absolutely) )?(?:nothing|nobody|no one|neither \S{1,40} nor)\b"
    r"|(?:(?!(?:and|but|or|if|when|that|is|are|was|says?)\b)[\w@.'\u2019-]{1,40} ){0,2}(?:nothing|nobody|no one|none|neither|no money)\b"
    r"(?=\s*(?:[,.;:!?\n]|\Z|(?:to|for|at|of|yet|until|back|today|now)\b)))(?! else)"
)
# "I can't make it on Friday, move it to Monday", "if it is not shipped, cancel it": a negated statement that is not about "you".
_STATED = re.compile(
    r"\b(?:instead\s{1,8}of|rather\s{1,8}than)\Z"
    r"|\b(?!(?:you|one|agents?|assistants?)\b)[\w'\u2019]{1,40} (?:(?:ca|could|wo|is|are|was|were|has|have|had|did|does)n['\u2019]?t|cannot"
    r"|(?:can|could|will|is|are|was|were|has|have|had|did|does|am) not|(?:have|has|got) no|decided against|(?<=i['\u2019]m )not"
    rf"|(?<=\bif )(?:not|no|nobody)|(?<=\bthere['\u2019]s )no|(?<=\bthere is )no|{either('not knowing')})\Z"
)
_VERBLESS = re.compile(r"(?:\A|(?<=[.!?;\n]\s)|(?<=\n))not\Z")  # "not the blue one: refund it"
_NEVER = re.compile(  # "it never arrived"
    r"\b(?:i|we|he|she|it|they|(?:the|my|our|this|that) [\w-]{1,40}) (?:\w+ly |has |have |had )?never\Z"
)
_INSTEAD = re.compile(  # "don't ship it, refund it instead"
    r",\s{1,8}(?=(?:(?:just|but|please)\s{1,8})?(?P<verb>[a-z]{2,20})\s[^.;!?\n]{1,200}?\binstead\b(?!\s{1,8}of\b))"
)
_SENTENCE_TAIL = 400  # characters behind a negation that may hold its "instead"
_COLON = re.compile(r"[,:]\s{1,8}")
_LONGEST = 64  # characters of a negation that goes on over a line break
_BREAK = 20  # characters of what ends a statement
_BLANK = re.compile(r"[ \t\n,]*")
_SUBJECT = 60  # characters before a negation that may hold its subject
_YOU = re.compile(r"\byou\b")
_STATEMENT_END = re.compile(r",\s{1,8}|\s{1,8}so\s{1,8}|\s{1,8}[-\u2013\u2014]\s{1,8}")
_LISTED = re.compile(r"\b(?:or|nor|either|neither)\b")
# A statement about what is to be done, allowed or asked for: its denial goes on ("has not agreed to pay, send it").
_BIDDING = re.compile(
    r"\byou\b|(?<!\bable )\bto (?!(?:the|an?|my|our|his|her|their|this|these|me|us|him|them|work)\b)|\bthat (?!(?:is|was)\b)\w"
    r"|\b(?:let|ok|okay|fine|right|sa(?:y|ys|id|ying)|ask(?:s|ed|ing)?|t(?:ell|ells|old)|allow(?:s|ed|ing)?|permit(?:s|ted)?|meant?|"
    r"authori[sz]ed?|approved?|agreed?|tolerate|accept(?:ed)?|request(?:s|ed)?|instruct(?:s|ed)?|supposed|should|must|may)\b"
)
# After a comma: a request, not the next item of a denied list ("not from ann@x.example, bob@x.example").
_REQUEST = re.compile(r"(?!\w+(?:ing|ed)\b)[a-z](?:[a-z'\u2019-]*[a-z])?\s+(?!and\b)\S")
_GOES_ON = re.compile(r"(?![0-9]{1,2}\)\s)(?:[a-z][^\s,.;:!?]*|(?=\S{0,60}[0-9@])\S+)")  # no number of a list
_ENDS = (".", "!", "?", ";", ":")
_ALONE = frozenset({"no", "none", "nobody", "stop", "abort", "forget", "cancel that", "hold off"})  # complete denials


def clauses(turn: str) -> Iterator[tuple[Voice, int, int]]:
    """The clauses of the user's own words as (voice, start, end) spans; a clause is denied from its first negation on."""
    start, text = 0, small(turn)
    bounds = [*((m.start(), m.end()) for m in _CLAUSE.finditer(text)), (len(turn), len(turn))]
    text = IDIOM.sub(lambda idiom: "_" * len(idiom.group()), text)
    if any(map(text.__contains__, ("noth", "nobody", "no one", "none", "neither", "no money"))):
        text = _NOTHING.sub(lambda denial: "never".ljust(len(denial.group())), text)
    denial: _Denial | None = None  # the one that did not end at the last bound
    seen, listed = 0, 0  # up to where "or" was looked for, and the end of the last one
    for end, following in bounds:
        near = start if denial is None else max(start, denial.start - _LONGEST)
        negation = NEGATION.search(text, near, end)
        if negation is not None:
            listed = max((m.end() for m in _LISTED.finditer(text, max(start, seen), end)), default=max(start, listed))
            seen = end
        while negation is not None:
            denial = denial if denial is not None and denial.is_(negation) else _Denial(text, negation, start)
            over = denial.over(turn, end) if listed <= negation.end() else None
            if over is None:
                break
            yield "said", start, negation.start()
            yield "denied", negation.start(), over.start()
            start = over.end()
            negation = NEGATION.search(text, start, end)
        if negation is None or denial is None:
            yield "said", start, end
        elif end < len(turn) and negation.group() not in _ALONE and (denial.says_nothing(turn, end) or _wraps(turn, end)):
            continue
        else:
            yield "said", start, negation.start()
            yield "denied", negation.start(), end
        start, denial = following, None


def _wraps(turn: str, at: int) -> bool:
    """Whether a line breaks here within a sentence: "do not touch / the other one", "I do not want / ORD-1002 refunded"."""
    following = _GOES_ON.match(turn, at + 1) if turn[at] == "\n" and not turn[max(0, at - 8) : at].rstrip().endswith(_ENDS) else None
    return following is not None and following.group() not in _VERBS and following.group() != "please"


class _Denial:
    """A negation, and where what it denies ends, asked for one bound after the other: no part of the text is read again for each."""

    __slots__ = ("_ends", "_instead", "_nothing", "_span", "_statement", "_text", "start")

    def __init__(self, text: str, negation: re.Match[str], start: int) -> None:
        """`text`: the turn in lower case; `start`: where the unread part of its clause begins."""
        self._text, self._span, self.start = text, negation.span(), negation.start()
        end = self._nothing = negation.end()
        near = max(start, self.start - _SUBJECT)
        verbless = _VERBLESS.search(text, near, end) is not None
        stated = verbless or any(form.search(text, near, end) for form in (_STATED, _NEVER))
        stated = stated and _YOU.search(text, start, self.start) is None
        self._ends = None if not stated else _COLON if verbless else _STATEMENT_END
        self._statement = (end, False)  # where its end may begin, and whether it is known to be none
        ways = _INSTEAD.finditer(text, end, end + _SENTENCE_TAIL) if "instead" in text else ()
        self._instead = next((way for way in ways if way["verb"] in _VERBS), None)

    def is_(self, negation: re.Match[str]) -> bool:
        """Whether it is this one."""
        return self._span == negation.span()

    def over(self, turn: str, end: int) -> re.Match[str] | None:
        """Where the denial ends before `end`: after a statement, or before what is to be done instead."""
        instead = self._instead if self._instead is not None and self._instead.start() < end else None
        statement = self._statement_end(turn, end)
        return min(filter(None, (statement, instead)), key=lambda match: match.start(), default=None)

    def _statement_end(self, turn: str, end: int) -> re.Match[str] | None:
        """Where a negated statement ends; None for an instruction, and where the denial may go on ("pay, send, move it")."""
        at, bids = self._statement
        if self._ends is None or bids:
            return None
        over = self._ends.search(self._text, at, end)
        if over is None:
            self._statement = max(at, end - _BREAK), False
            return None
        if at != over.start():
            self._statement = over.start(), _BIDDING.search(self._text, self._span[1], over.start()) is not None
            if self._statement[1]:
                return None
        return over if turn[over.end() : over.end() + 1].islower() and _REQUEST.match(self._text, over.end(), end) else None

    def says_nothing(self, turn: str, end: int) -> bool:
        """Whether nothing is denied yet: its clause ends right after the negation."""
        blank = _BLANK.match(turn, self._nothing, end)
        self._nothing = self._nothing if blank is None else blank.end()
        return self._nothing == end
