"""What kind of clause each piece of the user's own words is: a request, a question, a statement ...

Rules: only what is recognised as a request can request something; every other kind is doubt, which never grants. A piece ("..., and ...")
is

- a *request*: a command ("block Friday"), a polite form ("could you ...", "make sure ...", "..., please"), a need ("she should be in that
  meeting", "I need a table for two");
- *shaping*: it only says how ("keep the second one", "use bullet points");
- a *look*: it asks to be shown or told; a *question*;
- a *statement*: facts, the user's own plans, what others say or want;
- *open*: none of these by its form.

The words of a request count up to its first subordinate clause ("check *whether they paid*", "tell Ann *to send it*"). Lists are in
`words/lists.txt`. Every pattern is for lower case and for one piece of bounded length; linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from agentgate.language.word_files import either, listed

Kind = Literal["request", "shaping", "look", "question", "statement", "open"]
MAX_PIECE = 400  # characters; a longer piece requests nothing
VERBS = listed("verbs")

_BREAK = re.compile(r"[,;:()\s](?:(?<=[,;:])\s|(?<=[()\n])|(?<=\s)(?:and|then|but|or|so(?! kind)|[-\u2013\u2014]{1,3})(?=\s))")
_GO_ON = frozenset({"and", "or", "so", ",", ", and", ", or"})
_ENDS = re.compile(r"\b(?:is|are|was|were|called|titled|entitled|named|labelled|labeled|tagged|goes)\s*\Z")
_PLEASE = re.compile(r"\b(?:please|pls|plz|kindly)\b")
_TAG = re.compile(r"[,\s]\s{0,4}(?:can|could|would|will|won['\u2019]t) (?:you|ya)(?: please)?\W{0,4}\Z")
_TAIL = 60  # characters at the end of a clause that may hold a tag
_SOFT = rf"(?:(?:{either('soft')})\b|[0-9]{{1,3}}[.)])(?:\W{{1,4}}|\Z)"
_I_WANT = (
    r"(?:i|we)(?:['\u2019]d| would)?(?: really| also| still| just| only| now)? (?:like|love|want|need|wish|prefer|ask|expect)(?: for)?"
    r"(?: you| somebody| someone)? to"
)
_ASKING = (
    rf"(?:{either('asking')}|{_I_WANT}|do(?= (?:{either('soft', 'verbs', 'does')})\b)"
    r"|(?:can|could|may) (?:i|we)(?= (?:get|have)\b))\b(?:\W{1,4}|\Z)"
)
_HEAD = re.compile(rf"\W{{0,8}}(?:{_SOFT}){{0,8}}(?P<asking>{_ASKING}(?:{_SOFT}){{0,4}})?")
_DOES = re.compile(rf"(?:{either('does')})\b")
_AGREED = re.compile(r"\b(?:go ahead|do (?:it|that|this|them|so)|just do)\b")  # a request without an object
_IDLE = re.compile(
    r"(?:take (?:care(?! of (?!your))|your time|it easy)|let me\b|have (?:a|fun)|be (?:well|safe|careful)|bear with|(?:hang|hold) on)\b"
)
_GIVEN = r"(?!.*\b(?:access|permissions?|rights|back|money|refund|voucher|credit|role)\b)"  # "give me edit access" requests an action
_LOOK = re.compile(
    rf"(?!check (?:in|out)\b|look after\b|see to\b)(?:(?:give|get) (?:me|us) {_GIVEN}|sort(?!.{{0,40}}\bout\b)"
    r"|(?:make|write|prepare|pull|give|get|have|need|want|draw up) (?:(?:me|us) )?(?:an?|the|my|his|her|their|some) (?:[\w-]+ ){0,2}?"
    rf"(?:{either('told')})|(?!(?:give|get) (?:me|us)\b)(?:{either('look')}))\b"
)
QUESTION = re.compile(rf"(?:{either('question words')})(?:['\u2019](?:s|re|d|ll))?\b")
_REQUESTED = re.compile(r"(?:can|could|would|will)\b.*(?:\bbe [a-z]+(?:ed|en|t|ne|ng)\b|\bplease\b)")
_ASKS = r"(?:did|do|does|is|are|was|were|am|have|has|had|will|would|can|should)"
_CONDITION = re.compile(  # "when Ann has confirmed send it"
    rf"(?:if|when(?:ever)?(?!['\u2019]s| {_ASKS}\b)|once|before|after|until|till|unless|while|because|since|as)\b"
)
_PLANS = re.compile(rf"(?:{either('plans')})\b")
_ASIDE = re.compile(rf"\b(?:{either('subordinate')})\b")
_DICTATED = re.compile(rf"(?:{either('dictates')})\s(?!it\b|this\b|that\b)(?:\S{{1,40}}\s){{1,4}}?to\s")
_PERSON = re.compile(r"(?:i|we|they|he|she)\b")
_SUPPOSED = re.compile(r"\bif (?:you|i) were\b")
_HEADING = re.compile(rf"\b(?:{either('texts', 'dictates', 'headings')})\b")
_NOT_WHO = r"(?:i|we|you|it|this|that|there|because|as|since|while|maybe|perhaps|what|which|who|when|where|why|how|whether|if)"
NOBODY = re.compile(rf"{_NOT_WHO}\b")  # what follows does not say who is to get or do something
_NEED = re.compile(  # what is to happen to somebody or something; who is to get what
    rf"(?!{_NOT_WHO}\b)(?!they\b.* be\b)(?:(?!(?:i|we|you|that|because)\b)[\w@.'\u2019#/-]{{1,40}} ){{1,8}}?"
    r"(?:also |still |really |just |only |now |then )?(?:(?:(?:ha(?:s|ve)|needs?|ought) to|should|must|(?:is|are) to(?= be\b)) "
    r"(?!(?:have|know|be (?:somewhere|there|here|fine|ok|enough|around))\b)\w|can be \w+(?:ed|n|t)\b"
    r"|(?:gets|needs|requires?|wants(?! my\b| our\b)) "
    r"(?:the|an?|my|his|her|their|our|its|(?:\w+ )?(?:access|rights|permissions?)|full|back|[0-9\u20ac$\u00a3]|\w+ing\b))"
)
_WISH = re.compile(
    r"(?:i|we)(?:['\u2019](?:d|ll)| would| will|['\u2019]?(?:m|re| am| are) going to)? (?:also |still |really |just |only |now |then )?"
    r"(?:need|want|(?<=d )(?:like|love)) (?!to\b)\w"
    r"|(?:it|that)(?: would|['\u2019]d) be (?:\w+ )?(?:great|good|nice|lovely|helpful|fantastic|better|kind) if"
)
_NUMBER = r"(?:[0-9][0-9.,]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|hundred)"
_AMOUNT = re.compile(  # "12.50 back to each of them", "fifteen instead of ten", "half of it to Ann"
    rf"(?:another |only )?(?:[\u20ac$\u00a3]?{_NUMBER}|half(?! past)|double|twice)\b[^.!?]{{0,60}}?"
    r"\b(?:back|instead|more|(?<=\d\d )to|(?<=it )to|(?:euros?|eur|dollars?|pounds?|francs?) (?:to|for|into|back))\b"
    rf"(?! (?:{_NUMBER}|than)\b)"
)
_DETERMINER = (
    r"(?:the|an?|my|our|his|her|their|its|this|that|these|those|me|us|him|them|it|what|whatever|whoever|everything|everyone|everybody|all|"
    rf"both|each|every|some|{_NUMBER}|half|[\u20ac$\u00a3][0-9.,]+)\b"
)
_COMMAND = re.compile(
    rf"(?P<verb>[a-z]{{2,20}}(?:-[a-z]{{2,12}})?)(?P<rest> (?:(?:up|off|out|down|back|away|on|in|over) )?(?P<object>{_DETERMINER})?.*)?\Z",
    re.DOTALL,
)
_SHAPED = re.compile(r"\b(?:in|as|for) the (?:subject|title|text|body|description|reference|caption|heading|name)\b")
FINITE = re.compile(  # a verb of a statement
    rf"\b(?:{either('finite')})\b"
    r"|\b(?!need|feed|speed)(?<!the )(?<!an )(?<!my )(?<!a )(?<!all )(?<!be )(?<!it )(?<!them )[a-z]{3,}ed\b"
)
_SUBORDINATE = re.compile(rf"\b(?:to|as|the way|i|we|you|it(?=['\u2019]s| (?:is|was|has|had|will)\b)|{either('subordinate')})\b")
_OWN = re.compile(r"(?:my|our|the|this|these|those|[a-z]{2,20}['\u2019]s)\s")  # "my balance, please" requests information
_SHAPING, _NO_VERB, _DICTATING = listed("shaping"), listed("no verb"), listed("dictates")
_SUBJECTS = frozenset("i we you he she it they there this that hope thank thanks sorry hello dear good yes no".split())


class Piece(NamedTuple):
    """One piece: where it starts and ends, and its kind.

    `head` is where its own words begin, behind greetings and "can you" (-1: it only goes on with the piece before); `aside` where those
    begin that request nothing; `looks` where the words end that ask to be shown or told.
    """

    start: int
    end: int
    kind: Kind
    head: int
    aside: int
    looks: int

    @property
    def begins(self) -> int:
        """Where its words are read from."""
        return max(self.head, self.start)


def pieces(low: str, start: int, end: int) -> Iterator[Piece]:
    """The pieces of one clause, in order.

    Args:
        low: the turn in lower case, quotations hidden.
        start: where the clause starts in it.
        end: where it ends.
    """
    clause = low[start:end]
    tag = _TAG.search(clause, max(0, len(clause) - _TAIL))
    if tag is not None:
        clause = clause[: tag.start()]
    question = tag is None and clause.rstrip().endswith("?")
    polite = tag is not None or _PLEASE.search(clause) is not None
    supposed = _SUPPOSED.search(clause) is not None
    read = [_piece(clause, start, a, b, question=question) for a, b in _places(clause)]
    heading = told = False
    for at in range(1, len(read)):
        before, piece = read[at - 1], read[at]
        between = clause[before.end - start : piece.start - start].strip()
        words = low[before.begins : before.end]
        told = between == "and" and (told or _told(before, words))
        heading = heading or (between in {":", ","} and _dictates(words, between))
        if heading:  # "one of the steps is: delete it", "add a to-do: pay Ann"
            read[at] = piece._replace(kind="statement", head=-1)
        elif piece.kind == "request" and (told or supposed):
            read[at] = piece._replace(kind="statement")
        elif piece.kind == "open" and between in _GO_ON:  # "add Kim and Sam as reviewers", "if it was mailed or cancelled"
            read[at] = piece._replace(kind=before.kind, head=-1, aside=piece.start if before.aside < before.end else piece.aside)
    asks = any(piece.kind in {"request", "shaping", "look"} for piece in read)
    for at, piece in enumerate(read):
        if polite and not asks and not question and piece.kind == "open" and any(map(str.isalnum, low[piece.begins : piece.end])):
            read[at], asks = piece._replace(kind="request"), True
    yield from read


def _dictates(words: str, mark: str) -> bool:
    """Whether what follows these words and a colon or comma is a text, or part of a list that somebody describes."""
    return _ENDS.search(words) is not None or (mark == ":" and _HEADING.search(words) is not None)


def _told(piece: Piece, words: str) -> bool:
    """Whether "and" may join to a piece what others are told, or a habit: "tell Ann to open it and pay", "I always open it and pay"."""
    return _DICTATED.match(words) is not None or (piece.kind in {"statement", "open"} and _PERSON.match(words) is not None)


def _places(clause: str) -> Iterator[tuple[int, int]]:
    at = 0
    for gap in _BREAK.finditer(clause):
        if gap.start() - at > 1:
            yield at, gap.start()
        at = gap.end()
    if len(clause) - at > 1:
        yield at, len(clause)


def _piece(clause: str, start: int, at: int, to: int, *, question: bool) -> Piece:
    if to - at > MAX_PIECE:
        return Piece(start + at, start + to, "open", start + to, start + at, start + at)
    text = clause[at:to]
    head = _HEAD.match(text)
    begins = head.end() if head is not None else 0
    asking = head is not None and head["asking"] is not None
    look = _LOOK.match(text[begins:])
    kind = _kind(text, text[begins:].rstrip(), asking=asking, question=question)
    aside, dictated = _ASIDE.search(text, begins + 1), _DICTATED.match(text, begins)
    left = min(to if aside is None else at + aside.start(), to if dictated is None else at + dictated.end())
    return Piece(
        start + at, start + to, kind, start + at + begins, start + left, start + at + begins + (look.end() if look is not None else 0)
    )


def _kind(piece: str, rest: str, *, asking: bool, question: bool) -> Kind:
    if _IDLE.match(rest):
        return "statement"
    if not any(map(str.isalnum, rest)):
        return "request" if asking and _AGREED.search(piece) else "open"
    if _LOOK.match(rest):
        return "look"
    if asking:
        return "request"
    if question and not QUESTION.match(rest) and _command(rest) == "request":
        return "statement"  # "Refund it?" may ask whether to
    if question:
        return "request" if _REQUESTED.match(rest) else "question"
    if _WISH.match(rest):
        return "request"
    if _CONDITION.match(rest):
        return "statement"
    if QUESTION.match(rest):
        return "question"
    if _PLANS.match(rest):
        return "statement"
    if _NEED.match(rest) or _AMOUNT.match(rest):
        return "request"
    return _command(rest)


def _command(rest: str) -> Kind:
    command = _COMMAND.match(rest.removesuffix(":"))
    if _OWN.match(rest):
        return "statement"
    if command is None:
        return "open"
    verb, after = command["verb"], _SUBORDINATE.split(command["rest"] or "", 1)[0]
    finite = FINITE.search(after) is not None
    if verb in _SHAPING or _SHAPED.search(rest):
        return "shaping"
    if verb in VERBS or _DOES.match(rest):
        said = verb in _DICTATING and FINITE.match(after.lstrip()) is None  # "tell Ann nothing is lost"
        return "request" if said or command["object"] is not None or not finite else "statement"
    if verb in _NO_VERB or verb in _SUBJECTS:
        return "statement" if finite or verb in _SUBJECTS else "open"
    if verb.endswith(("ed", "ing", "ly")) or (verb.endswith("s") and not verb.endswith("ss")):
        return "statement" if finite else "open"
    if command["object"] is not None and not finite:
        return "request"
    return "statement" if finite else "open"
