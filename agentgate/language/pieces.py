"""What kind of clause each piece of the user's own words is: a request, a question, a statement
...

Rules: only what is recognised as a request can request something; every other kind is doubt,
which never grants. A piece ("..., and ...") is

- a *request*: a command ("block Friday"), a polite form ("could you ...", "make sure ...",
  "..., please"), a need ("she should be in that meeting", "I need a table for two");
- *shaping*: it only says how ("keep the second one", "use bullet points");
- a *look*: it asks to be shown or told; a *question*;
- a *statement*: facts, the user's own plans, what others say or want;
- *open*: none of these by its form.

The words of a request count up to its first subordinate clause ("check *whether they paid*",
"tell Ann *to send it*"). Lists are in `words/lists.toml`. Every pattern is for lower case and
for one piece of bounded length; linear in the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from agentgate.language.numerals import SMALL
from agentgate.language.word_files import Forms, listed

_FORMS = Forms("pieces", small=SMALL)

Kind = Literal["request", "shaping", "look", "question", "statement", "open"]
MAX_PIECE = 400  # characters; a longer piece requests nothing
VERBS = listed("verbs")

_GO_ON = frozenset("and|or|so|,|, and|, or".split("|"))
_TAIL = 60  # characters at the end of a clause that may hold a tag
HEAD = _FORMS.head
QUESTION = _FORMS.question
NOBODY = _FORMS.nobody
FINITE = _FORMS.finite
_SHAPING = listed("shaping")
_NO_VERB = listed("no verb")
_DICTATING = listed("dictates")
# others are statements
_SORTS: Mapping[str, Kind] = {
    "look": "look",
    "wish": "request",
    "question": "question",
    "need": "request",
}
_SUBJECTS = listed("no command")


class Piece(NamedTuple):
    """One piece: where it starts and ends, and its kind.

    `head` is where its own words begin, behind greetings and "can you" (-1: it only goes on
    with the piece before); `aside` where those begin that request nothing; `looks` where the
    words end that ask to be shown or told.
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
    """Whether a line, or what stands before a colon in it, says that what follows is to be
    done: "please do the following:".
    """
    asking, begins = _head(line)
    led = _FORMS.lead.match(line, begins)
    return led is not None and (len(led[0]) > 1 or asking)


def _head(text: str) -> tuple[bool, int]:
    """Whether a text begins as a request does ("could you"), and where its own words begin."""
    head = next(HEAD.finditer(text))
    return head["asking"] is not None, head.end()


def pieces(
    low: str,
    start: int,
    end: int,
) -> Iterator[Piece]:
    """The pieces of one clause, in order.

    Args:
        low: the turn in lower case, quotations hidden.
        start: where the clause starts in it.
        end: where it ends.
    """
    clause = low[start:end]
    tag = _FORMS.tag.search(clause, max(0, len(clause) - _TAIL))
    if tag:
        clause = clause[: tag.start()]
    question = not tag and (
        clause.rstrip().endswith("?") or bool(_FORMS.asked_on.match(low, end))
    )
    supposed = _FORMS.supposed.search(clause)
    read = [_piece(clause, start, a, b, question=question) for a, b in _places(clause)]
    heading = told = False
    for at in range(1, len(read)):
        before, piece = read[at - 1 : at + 1]
        between = low[before.end : piece.start].strip()
        words = low[before.begins : before.end]
        if between == "and":  # "tell Ann to open it and pay", "I always open it and pay"
            states = before.kind in {"statement", "open"} and _FORMS.person.match(words)
            told = bool(told or states or _FORMS.dictated.match(words))
        else:
            told = False
        # what follows is a text, or part of a list that somebody describes
        introduces = _FORMS.ends if between == "," else _FORMS.introduces
        if between == "," or (between == ":" and not leads(words)):
            heading = heading or bool(introduces.search(words))
        if heading:  # "one of the steps is: delete it", "add a to-do: pay Ann"
            read[at] = piece._replace(kind="statement", head=-1)
        elif piece.kind == "request" and (told or supposed):
            read[at] = piece._replace(kind="statement")
        # "add Kim and Sam as reviewers", "if it was mailed or cancelled"
        elif piece.kind == "open" and between in _GO_ON:
            read[at] = piece._replace(
                kind=before.kind,
                head=-1,
                aside=piece.start if before.aside < before.end else piece.aside,
            )
    asks = question or any(piece.kind in {"request", "shaping", "look"} for piece in read)
    if not asks and (tag or _FORMS.please.search(clause)):
        for at, piece in enumerate(read):
            if piece.kind == "open" and any(map(str.isalnum, low[piece.begins : piece.end])):
                read[at] = piece._replace(kind="request")
                break
    yield from read


def _places(clause: str) -> Iterator[tuple[int, int]]:
    at = 0
    for gap in _FORMS.gap.finditer(clause):
        if gap.start() - at > 1:
            yield at, gap.start()
        at = gap.end()
    if len(clause) - at > 1:
        yield at, len(clause)


def _piece(
    clause: str,
    start: int,
    at: int,
    to: int,
    *,
    question: bool,
) -> Piece:
    if to - at > MAX_PIECE:
        return Piece(start + at, start + to, "open", start + to, start + at, start + at)
    text = clause[at:to]
    asking, begins = _head(text)
    rest = text[begins:].rstrip()
    sort = _FORMS.sorts.match(rest)
    led = (clause.startswith(":", to) or rest.endswith(":")) and leads(text)
    kind = (
        "statement"
        if led
        else _kind(
            text, rest, sort.lastgroup if sort else None, asking=asking, question=question
        )
    )
    aside = _FORMS.aside.search(text, begins + 1)
    dictated = _FORMS.dictated.match(text, begins)
    left = len(text)
    if aside:
        left = aside.start()
    if dictated:
        left = min(left, dictated.end())
    return Piece(
        start + at,
        start + to,
        kind,
        start + at + begins,
        start + at + left,
        start + at + begins + (sort.end() if sort else 0),
    )


def _kind(
    piece: str,
    rest: str,
    sort: str | None,
    *,
    asking: bool,
    question: bool,
) -> Kind:
    if not any(map(str.isalnum, rest)):
        if asking and _FORMS.agreed.search(piece):
            return "request"
        return "open"
    if sort not in {"idle", "look"}:
        if asking:
            return "request"
        if question and not QUESTION.match(rest) and _command(rest) == "request":
            return "statement"  # "Refund it?" may ask whether to
        if question:
            if _FORMS.requested.match(rest):
                return "request"
            return "question"
        if not sort:
            return _command(rest)
    return _SORTS.get(sort or "", "statement")


def _command(rest: str) -> Kind:
    command = _FORMS.command.match(rest.removesuffix(":"))
    if _FORMS.own.match(rest):
        return "statement"
    if not command:
        return "open"
    verb = command["verb"]
    known = command["object"]
    after = _FORMS.subordinate.split(command["rest"] or "", 1)[0]
    finite = FINITE.search(after)
    if verb in _SHAPING or _FORMS.shaped.search(rest):
        return "shaping"
    if verb in VERBS or _FORMS.does.match(rest):
        dictates = verb in _DICTATING
        if not dictates and _FORMS.subject.match(_FORMS.aside.split(rest, 1)[0]):
            return "statement"
        told = dictates and not FINITE.match(after.lstrip())  # "tell Ann nothing is lost"
        if told or known or not finite:
            return "request"
        return "statement"
    if finite or verb in _SUBJECTS:
        return "statement"
    if known and verb not in _NO_VERB and not _FORMS.no_verb.search(verb):
        return "request"
    return "open"
