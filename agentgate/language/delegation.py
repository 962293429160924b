"""Delegation: words that leave the choice of actions to a named source ("do the tasks in Ann's
e-mail").

Rules: only a request delegates (`agentgate.language.pieces`), one that begins with a verb of
doing. Its object is a set of actions ("the tasks", "her points"), what somebody asks ("what she
needs"), the content of something ("everything in it"), a text of instructions or a part of one
("follow docs/setup.md"), or a pronoun for actions that were introduced ("the ones for me"). Its
source is

- named in the same words, or opened earlier in the turn ("read a.txt and follow the
  instructions"): clear, if it is one;
- only mentioned earlier in the turn ("Bea left a checklist, x.docx. Tick it off"): doubtful,
  for what the user meant is a guess;
- several ("all my e-mails", "my inbox", two files): doubtful, since whoever can write to the
  user would choose.

Lists are in `words/lists.toml`. Every pattern is for lower case and single spaces. Pure; linear
in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from agentgate.language.pieces import QUESTION
from agentgate.language.spans import small
from agentgate.language.turn import Turn, fold_spaces
from agentgate.language.word_files import Forms

MANY_SOURCES = "many sources"
_NEAR = 1000  # characters before a request that may introduce its source
_SHOWN = 120  # characters of a request

_FORMS = Forms("delegation")
# to hand over, the first that is found
_WAYS = "tasks asked within according plan followed handled accordingly them".split()


class Delegation(NamedTuple):
    """The words that delegate, where they start, and why their source is doubtful (empty: it is
    not).
    """

    words: str
    at: int
    doubt: str = ""


class _Before(NamedTuple):
    """What a turn says before a request: all of it that is no question, and the words that
    opened its last source (empty: none did).
    """

    said: str = ""
    opened: str = ""

    def after(
        self,
        words: str,
        *,
        opens: bool = False,
    ) -> _Before:
        """With further words; a source in them is the last one."""
        opened = self.opened
        if (opens or opened) and _FORMS.source.search(words):
            opened = ""
            if opens and _FORMS.opens.match(words):
                opened = words
        return _Before(f"{self.said} {words}"[-_NEAR:], opened)


def handed_over(turn: Turn) -> Delegation | str | None:
    """The delegation of a turn, the first or one to many sources; or, as text, the words that
    withdraw one.
    """
    low = small(turn.own)
    before = _Before()
    made = None
    refused = None
    for clause in turn.clauses:
        words = fold_spaces(low[clause.start : clause.end])
        if clause.voice == "reported":
            before = before.after(words)
        elif clause.voice == "denied" and (
            denied := _delegates(words, words, before, denied=True)
        ):
            made = None
            refused = denied[0]
        pieces = turn.pieces_of(clause)
        heads = [*(piece.start for piece in pieces if piece.head >= 0), clause.end]
        for piece in pieces:
            words = fold_spaces(low[piece.begins : piece.end])
            if piece.kind == "request" and piece.head >= 0:
                joined = heads[bisect_right(heads, piece.start)]  # "... and b.txt"
                found = _delegates(words, fold_spaces(low[piece.head : joined]), before)
                if found and (not made or found[1] == MANY_SOURCES):
                    doubt = found[1] or (
                        "a source in a sentence that may not ask for it now"
                        if turn.doubted(clause.start)
                        else ""
                    )
                    made = Delegation(
                        fold_spaces(turn.own[piece.head : piece.end])[:_SHOWN],
                        piece.head,
                        doubt,
                    )
            # "Ann left a list, can you do it?"
            if piece.kind != "question" or not QUESTION.match(words):
                before = before.after(words, opens=piece.kind != "statement")
    return made or refused


def _delegates(
    words: str,
    joined: str,
    before: _Before,
    *,
    denied: bool = False,
) -> tuple[str, str] | None:
    """The part of a request that delegates, and why its source is doubtful; of a denied clause,
    wherever the request is in it.
    """
    for way in _WAYS:
        form = vars(_FORMS)[way]
        match = form.search(words) if denied else form.match(words)
        if match and (doubt := _doubt(way, match, joined, before)) is not None:
            return match[0][:_SHOWN], doubt
    return None


def _doubt(
    way: str,
    match: re.Match[str],
    joined: str,
    before: _Before,
) -> str | None:
    """Why the source of a request is doubtful; None where it has none."""
    for name, words in sorted(match.groupdict().items()):
        if not words:
            continue
        if _FORMS.pronoun.match(words):
            return _introduced(before)
        if _FORMS.source.search(words):
            return _one_source(words, joined)
        if name == "speaker" and way != "according" and _FORMS.person.match(words):
            return ""
    if any(match.groups()):
        return None
    if way == "them" and not _FORMS.to_do.search(before.said):
        return None
    return _introduced(before)


def _one_source(words: str, near: str) -> str:
    """Why what names a source may name several: by its words, or the files near it."""
    files = {*_FORMS.file.findall(near)}
    if len(files) > 1 or _FORMS.many.search(words):
        return MANY_SOURCES
    return ""


def _introduced(before: _Before) -> str | None:
    """Why a source that was introduced before the request is doubtful; None where none was."""
    if opened := _FORMS.source.search(before.opened):
        return _one_source(opened[0], before.said)
    return "a text that is only mentioned" if _FORMS.mentioned.search(before.said) else None
