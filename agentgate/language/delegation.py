"""Delegation: words that leave the choice of actions to a named source ("do the tasks in Ann's e-mail").

Rules: only a request delegates (`agentgate.language.pieces`), one that begins with a verb of doing. Its object is a set of actions ("the
tasks", "her points"), what somebody asks ("what she needs"), the content of something ("everything in it"), a text of instructions ("follow
docs/setup.md"), or a pronoun for actions that were introduced. Its source is

- named in the same words, or opened earlier in the turn ("read a.txt and follow the instructions"): clear, if it is one;
- only mentioned earlier in the turn ("Bea left a checklist, x.docx. Tick it off"): doubtful, for what the user meant is a guess;
- several ("all my e-mails", "my inbox", two files): doubtful, since whoever can write to the user would choose.

Lists are in `words/lists.txt`. Every pattern is for lower case and single spaces. Pure; linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from agentgate.language.pieces import QUESTION
from agentgate.language.spans import small
from agentgate.language.turn import Turn
from agentgate.language.word_files import either

MANY_SOURCES, MENTIONED, IN_DOUBT = "many sources", "a text that is only mentioned", "a source in a sentence that may not ask for it now"
_NEAR = 1000  # characters before a request that may introduce its source
_SHOWN = 120  # characters of a request

# --- requests ------------------------------------------------------------------------------------------------------------
_DOES = (
    rf"\b(?:{either('does')}|(?:get|have)(?= .{{1,100}}\b(?:{either('done')})\b)|(?:carry|sort)(?= .{{1,100}}\bout\b)"
    r"|(?:tick|cross)(?= .{1,100}\boff\b))(?! up\b) "
)
_WHOSE = r"(?:the|my|his|her|their|our|this|that|these|those|its|[\w-]+['\u2019]s?) "
_ADJECTIVES = r"(?:[\w-]+ ){0,2}?"
_ALL = r"(?:all|each|every|any|both|everything|whatever|anything|two|three|four|five|six|seven|eight|nine|ten|[0-9]{1,2})"
_FILE = r"[\w/-][\w./-]{0,80}\.(?:txt|md|docx?|pdf|xlsx?|csv|od[st]|rtf|html?|rst|org|eml)\b"
_STATED = rf"(?:{either('stated')})"
_IN = rf"(?:(?:as )?{_STATED} )?(?:in|of|from|on|at|by|inside|within|under) "
_PLACE = rf"(?: {_IN}(?P<place>.{{1,160}}))?"
_SPEAKER = rf"(?P<speaker>(?:[\w.@'\u2019-]+ ){{1,9}}?)(?:{either('says')})\b(?: for| you| me| us| to do)?"
_END = rf"(?= ?(?:\Z|[^\w ]|(?:{either('done', 'after it')})\b))"  # of a pronoun: not "that letter"

_TASKS = re.compile(  # "do all the tasks (that are) in ...", "take care of the things (that) Ann asks for (in ...)"
    rf"{_DOES}(?:{_ALL} )?(?:of )?(?:{_WHOSE})?{_ADJECTIVES}(?:{either('tasks')})\b"
    rf"(?: (?:that|which) (?:are|is|were|you find))?(?: (?:that |which )?(?!(?:{either('joins')})\b){_SPEAKER})?{_PLACE}"
)
_ASKED = re.compile(  # "do (for Ann) what she asks for (in ...)"
    rf"{_DOES}(?:for (?:\S+ ){{1,3}})?(?:exactly |precisely |just )?(?:what|whatever|everything|anything|all|as)(?: that)? "
    rf"{_SPEAKER}{_PLACE}"
)
_WITHIN = re.compile(  # "do everything (that is) in ..."
    rf"{_DOES}(?:everything|all|what(?:ever)?(?: is|['\u2019]s))(?: that(?: is|['\u2019]s))? {_IN}(?P<place>.{{1,160}})"
)
_ACCORDING = re.compile(  # "handle it as described in ...", "the way the guide says": what a person wants there is only how, not what
    rf"{_DOES}(?:\S+ ){{1,5}}?(?:(?:as {_STATED} (?:in|by|on|at|under)|according to|as per) (?P<place>.{{1,160}})"
    rf"|(?:just as|exactly as|precisely as|the way) {_SPEAKER})"
)
_PLAN = re.compile(rf"(?:{either('follows')}) {_WHOSE}{_ADJECTIVES}(?:{either('plans of work')})\b{_PLACE}")  # "follow the runbook in ..."
_FOLLOWED = re.compile(  # "follow docs/setup.md", "work through Ann's letter"
    rf"(?:{either('follows')}) (?P<place>{_FILE}|{_WHOSE}{_ADJECTIVES}(?:letter|note|memo|e-?mails?|mails?|messages?)\b(?! up\b))"
)
_HANDLED = re.compile(rf"(?:{either('handles')}) (?P<place>{_WHOSE}{_ADJECTIVES}(?:{either('sources', 'many sources')})\b)")
_ACCORDINGLY = re.compile(r"(?:act|do so|take action) accordingly\b")
_THEM = re.compile(
    rf"{_DOES}(?:(?:all )?(?:of )?(?:it|that|them|these|those|this)(?: all)?|all (?:of )?(?:the )?{_ALL}|all|both|everything"
    rf"|each(?: one| of (?:it|them))?){_END}"
)
_FORMS = (_TASKS, _ASKED, _WITHIN, _ACCORDING, _PLAN, _FOLLOWED, _HANDLED, _ACCORDINGLY, _THEM)

# --- sources -------------------------------------------------------------------------------------------------------------
_MANY = re.compile(rf"\b(?:{either('many sources')}|{_ALL} (?:{_WHOSE})?{_ADJECTIVES}(?:{either('sources')}))\b")
_SOURCE = re.compile(  # a kind of text; an address, a link, a file, a handle, a ticket
    rf"{_MANY.pattern}|\b(?:{either('sources')})\b"
    r"|(?<![\w.+-])[\w.+-]+@[\w.-]+|https?://\S+|www\.\S+|(?<![\w./-])[\w./-]+\.[a-z]{2,5}\b|[@#]\w[\w.-]*|\b[a-z]{1,10}-[0-9]{1,8}\b"
)
_WROTE_TO_ME = re.compile(r"\b(?:e-?mailed|mailed|messaged|texted|wrote)(?: to)? (?:me|us)\b")
_OPENS = re.compile(rf"(?:{either('opens')})\b")
_TO_DO = re.compile(  # that a text is about actions
    rf"\b(?:{either('tasks')}|(?:list|plan|hand-?over|run-?book)(?! of\b)|(?:something|everything|anything) (?:to|for)"
    rf"|what (?:(?:[\w'\u2019-]+ ){{1,3}}?(?:{either('says')})|has to|(?:needs|is) to|must|to do))\b"
)
_PERSON = re.compile(r"(?!(?:i|we|you|the user) ?\Z)[a-z][\w.'\u2019-]*(?: [a-z][\w.'\u2019-]*){0,2} ?\Z")
_PRONOUN = re.compile(rf"(?:it|them|this|that|these|those|he|she|they|there|here){_END}|(?:he|she|they|it)['\u2019](?:s|re) ?\Z")


class Delegation(NamedTuple):
    """The words that delegate, where they start, and why their source is doubtful (empty: it is not)."""

    words: str
    at: int
    doubt: str = ""


class _Before(NamedTuple):
    """What a turn says before a request: all of it that is no question, and the words that opened its last source (empty: none did)."""

    said: str = ""
    opened: str = ""

    def after(self, words: str, *, opens: bool = False) -> _Before:
        """With further words; a source in them is the last one."""
        opened = self.opened
        if (opens or opened) and _SOURCE.search(words):
            opened = words if opens and _OPENS.match(words) else ""
        return _Before(f"{self.said} {words}"[-_NEAR:], opened)


def handed_over(turn: Turn) -> Delegation | str | None:
    """The delegation of a turn, the first or one to many sources; or, as text, the words that withdraw one."""
    low = small(turn.own)
    before, made, refused = _Before(), None, None
    for clause in turn.clauses:
        words = _spaced(low, clause.start, clause.end) if clause.voice in {"reported", "denied"} else ""
        if clause.voice == "reported":
            before = before.after(words)
        elif words and (denied := _delegates(words, words, before, denied=True)) is not None:
            made, refused = None, denied[0]
        pieces = turn.pieces_of(clause)
        heads = [*(piece.start for piece in pieces if piece.head >= 0), clause.end]
        for piece in pieces:
            words = _spaced(low, piece.begins, piece.end)
            if piece.kind == "request" and piece.head >= 0:
                joined = heads[bisect_right(heads, piece.start)]  # "... and b.txt"
                found = _delegates(words, _spaced(low, piece.head, joined), before)
                if found is not None and turn.doubted(clause.start):
                    found = found[0], found[1] or IN_DOUBT
                if found is not None and (made is None or found[1] == MANY_SOURCES):
                    made = Delegation(_spaced(turn.own, piece.head, piece.end)[:_SHOWN], piece.head, found[1])
            if piece.kind != "question" or QUESTION.match(words) is None:  # "Ann left a list, can you do it?"
                before = before.after(words, opens=piece.kind != "statement")
    return made if made is not None else refused


def _several_files(words: str) -> bool:
    return len({*re.findall(_FILE, words)}) > 1


def _spaced(text: str, start: int, end: int) -> str:
    return " ".join(text[start:end].split())


def _delegates(words: str, joined: str, before: _Before, *, denied: bool = False) -> tuple[str, str] | None:
    """The part of a request that delegates, and why its source is doubtful; of a denied clause, wherever the request is in it."""
    for form in _FORMS:
        match = form.search(words) if denied else form.match(words)
        if match is not None and (doubt := _doubt(match, joined, before)) is not None:
            return match.group()[:_SHOWN], doubt
    return None


def _doubt(match: re.Match[str], joined: str, before: _Before) -> str | None:
    """Why the source of a request is doubtful; None where it has none."""
    groups = match.groupdict()
    named = [(name, groups[name]) for name in ("place", "speaker") if groups.get(name)]
    for name, words in named:
        if _PRONOUN.match(words):
            return _introduced(before)
        if _SOURCE.search(words):
            return MANY_SOURCES if _MANY.search(words) or _several_files(joined) else ""
        if name == "speaker" and match.re is not _ACCORDING and _PERSON.match(words):
            return ""
    if named or (match.re is _THEM and _TO_DO.search(before.said) is None):
        return None
    return _introduced(before)


def _introduced(before: _Before) -> str | None:
    """Why a source that was introduced before the request is doubtful; None where none was."""
    opened = _SOURCE.search(before.opened)
    if opened is not None:
        return MANY_SOURCES if _MANY.search(opened.group()) or _several_files(before.said) else ""
    return MENTIONED if _SOURCE.search(before.said) or _WROTE_TO_ME.search(before.said) else None
