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

from collections.abc import Iterator
from typing import Literal, NamedTuple

from agentgate.language.numerals import SMALL
from agentgate.language.word_files import Forms, listed

_FORMS = Forms("pieces", small=SMALL)

Kind = Literal["request", "shaping", "look", "question", "statement", "open"]
MAX_PIECE = 400  # characters; a longer piece requests nothing
VERBS = listed("verbs")

_GO_ON = frozenset({"and", "or", "so", ",", ", and", ", or"})
_TAIL = 60  # characters at the end of a clause that may hold a tag
HEAD = _FORMS.head
QUESTION = _FORMS.question
NOBODY = _FORMS.nobody
FINITE = _FORMS.finite
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


def leads(line: str) -> bool:
    """Whether a line, or what stands before a colon in it, says that what follows is to be done: "please do the following:"."""
    head = HEAD.match(line)
    led = None if head is None else _FORMS.lead.match(line, head.end())
    return led is not None and head is not None and (len(led.group()) > 1 or head["asking"] is not None)


def pieces(low: str, start: int, end: int) -> Iterator[Piece]:
    """The pieces of one clause, in order.

    Args:
        low: the turn in lower case, quotations hidden.
        start: where the clause starts in it.
        end: where it ends.
    """
    clause = low[start:end]
    tag = _FORMS.tag.search(clause, max(0, len(clause) - _TAIL))
    if tag is not None:
        clause = clause[: tag.start()]
    question = tag is None and clause.rstrip().endswith("?")
    polite = tag is not None or _FORMS.please.search(clause) is not None
    supposed = _FORMS.supposed.search(clause) is not None
    read = [_piece(clause, start, a, b, question=question) for a, b in _places(clause)]
    heading = told = False
    for at in range(1, len(read)):
        before, piece = read[at - 1], read[at]
        between = clause[before.end - start : piece.start - start].strip()
        words = low[before.begins : before.end]
        told = between == "and" and (told or _told(before, words))
        heading = heading or (between in {":", ","} and _dictates(words, between) and not (between == ":" and leads(words)))
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
    return _FORMS.ends.search(words) is not None or (mark == ":" and _FORMS.heading.search(words) is not None)


def _told(piece: Piece, words: str) -> bool:
    """Whether "and" may join to a piece what others are told, or a habit: "tell Ann to open it and pay", "I always open it and pay"."""
    return _FORMS.dictated.match(words) is not None or (piece.kind in {"statement", "open"} and _FORMS.person.match(words) is not None)


def _places(clause: str) -> Iterator[tuple[int, int]]:
    at = 0
    for gap in _FORMS.gap.finditer(clause):
        if gap.start() - at > 1:
            yield at, gap.start()
        at = gap.end()
    if len(clause) - at > 1:
        yield at, len(clause)


def _piece(clause: str, start: int, at: int, to: int, *, question: bool) -> Piece:
    if to - at > MAX_PIECE:
        return Piece(start + at, start + to, "open", start + to, start + at, start + at)
    text = clause[at:to]
    head = HEAD.match(text)
    begins = head.end() if head is not None else 0
    asking = head is not None and head["asking"] is not None
    look = _FORMS.look.match(text[begins:])
    led = (clause[to : to + 1] == ":" or text.rstrip().endswith(":")) and leads(text)
    kind = "statement" if led else _kind(text, text[begins:].rstrip(), asking=asking, question=question)
    aside, dictated = _FORMS.aside.search(text, begins + 1), _FORMS.dictated.match(text, begins)
    left = min(to if aside is None else at + aside.start(), to if dictated is None else at + dictated.end())
    return Piece(
        start + at, start + to, kind, start + at + begins, start + left, start + at + begins + (look.end() if look is not None else 0)
    )


def _kind(piece: str, rest: str, *, asking: bool, question: bool) -> Kind:
    if _FORMS.idle.match(rest):
        return "statement"
    if not any(map(str.isalnum, rest)):
        return "request" if asking and _FORMS.agreed.search(piece) else "open"
    if _FORMS.look.match(rest):
        return "look"
    if asking:
        return "request"
    if question and not QUESTION.match(rest) and _command(rest) == "request":
        return "statement"  # "Refund it?" may ask whether to
    if question:
        return "request" if _FORMS.requested.match(rest) else "question"
    if _FORMS.wish.match(rest):
        return "request"
    if _FORMS.condition.match(rest):
        return "statement"
    if QUESTION.match(rest):
        return "question"
    if _FORMS.plans.match(rest):
        return "statement"
    if _FORMS.need.match(rest) or _FORMS.amount.match(rest):
        return "request"
    return _command(rest)


def _command(rest: str) -> Kind:
    command = _FORMS.command.match(rest.removesuffix(":"))
    if _FORMS.own.match(rest):
        return "statement"
    if command is None:
        return "open"
    verb, after = command["verb"], _FORMS.subordinate.split(command["rest"] or "", 1)[0]
    finite = FINITE.search(after) is not None
    if verb in _SHAPING or _FORMS.shaped.search(rest):
        return "shaping"
    if verb in VERBS or _FORMS.does.match(rest):
        said = verb in _DICTATING and FINITE.match(after.lstrip()) is None  # "tell Ann nothing is lost"
        if verb not in _DICTATING and _FORMS.subject.match(_FORMS.aside.split(rest, 1)[0]) is not None:
            return "statement"
        return "request" if said or command["object"] is not None or not finite else "statement"
    if verb in _NO_VERB or verb in _SUBJECTS:
        return "statement" if finite or verb in _SUBJECTS else "open"
    if verb.endswith(("ed", "ing", "ly")) or (verb.endswith("s") and not verb.endswith("ss")):
        return "statement" if finite else "open"
    if command["object"] is not None and not finite:
        return "request"
    return "statement" if finite else "open"
