"""The default deriver: by words, examples and counter-examples; deterministic, without a model, with its reasons.

An intent is *present* where the user's own words (`agentgate.language.turn`) request something (`agentgate.language.pieces`) and contain
one of its words (`agentgate.intents.phrases`), *unless* that clause is close to a counter-example and less close to every example, or has
a quantifier (`agentgate.language.quantity`) that no example has: then the intent is *unclear*, and *absent* where the clause repeats a
counter-example. A word in a statement, in a subordinate clause, or in a part that may not be the user's own is unclear, too; without a
word, or with one in a question only, the intent is absent. A counter-example with a quantifier does not apply to a clause without one.
The clearest clause decides. What is said behind a request takes it back, in the same turn or a later one: what denies the word or says
"stop" makes the intent absent, anything else that says no makes it unclear, until it is asked for again. So does a later turn that is not
understood and requests nothing. Where the user used none of an intent's words but delegated the choice of actions to a source
(`agentgate.language.delegation`), the intent's `delegated` decides. Where the last turn with a request requests something that no word of
any intent explains, and the intent's `unheard` is step_up, an intent that was not mentioned is unclear.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from agentgate.intents.closeness import judged
from agentgate.intents.deriver import CLARITY
from agentgate.intents.objects import acts_on_its_kind
from agentgate.intents.phrases import Longest, Occurrence, keys_of, line_of, longest_of, places
from agentgate.intents.unread import stands_alone, unread_in
from agentgate.language.delegation import Delegation, handed_over
from agentgate.language.pieces import FINITE, NOBODY, Piece, pieces
from agentgate.language.turn import Clause, Taken, Turn
from agentgate.language.whose import VALUE
from agentgate.language.word_files import either
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

_SHOWN = 80  # characters of a request that was not understood


class _Hit(NamedTuple):
    """Words of a clause that match one of an intent's, their use (of `_USES`), their place, and whether a question has them."""

    words: str
    use: str
    at: int
    asked: bool


class _Found(NamedTuple):
    """The places of an intent's words in a clause, and the last hit that asks, or the best one."""

    places: list[Occurrence]
    hit: _Hit | None


Found = Mapping[Clause, _Found]


class _Heard(NamedTuple):
    """What one turn says of one intent: an answer; where it is last requested (-1: nowhere); a word that is only asked about."""

    answer: Derived | None
    at: int
    looked: str


class State(NamedTuple):
    """What the turns so far say.

    Attributes:
        answers: intent -> answer.
        spoken: intents that the user's own words mention: no delegation decides them any more.
        quiet: intents that were not mentioned at all.
        unheard: the last request that no intent explains.
        taken: a word that requests another intent, and so explains its clause.
        turns: how many turns.
        unread: the last words that were not understood; `open` are the intents that these leave open.
        alone: they may say by themselves what they ask for.
        doubted: something may have been denied, or not be the user's own, since the last turn that took back all.
        stopped: the last turn took back all.
    """

    answers: Mapping[str, Derived]
    spoken: frozenset[str]
    quiet: frozenset[str]
    unheard: str = ""
    taken: str = ""
    turns: int = 0
    unread: str = ""
    open: frozenset[str] = frozenset()
    alone: bool = True
    doubted: bool = False
    stopped: bool = False


_CANCELLED = re.compile(r"\b(?:cancel|undo|stop|scratch) (?:that|this|the|my) (?:(?:last|first|previous|new) )?(?=\w)")
_PRONOUN = re.compile(r"\s*+(?:it|that|this|them|anything|everything)?\W*+\Z")  # "don't refund it" denies every refund


class Lexical:
    """See `agentgate.intents.deriver.Fold`."""

    def __call__(self, intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Mapping[str, Derived]:
        """The answers for these turns."""
        state = self.begun(intents)
        for turn in turns:
            state = self.hear(intents, state, Turn(turn))
        return self.told(intents, state)

    def begun(self, intents: tuple[Intent, ...]) -> State:
        """Nothing was said."""
        names = [intent.name for intent in intents]
        return State({name: Derived("absent", "no word of it in the prompt", silent=True) for name in names}, frozenset(), frozenset(names))

    def hear(self, intents: tuple[Intent, ...], state: State, turn: Turn) -> State:
        """One more turn; what is said behind a request takes it back."""
        answers, spoken, quiet = dict(state.answers), set(state.spoken), set(state.quiet)
        back = frozenset(match.end() for match in _CANCELLED.finditer(turn.low)) if state.turns else frozenset[int]()
        keys = keys_of(turn.low)
        placed = {intent.name: places(intent.words, turn.low, keys=keys) for intent in intents}
        longest = longest_of(placed.values(), turn.low, _heads(turn, chain.from_iterable(placed.values())))
        found = {intent.name: _found(intent, turn, placed[intent.name], back, longest) for intent in intents}
        handed = handed_over(turn) if any(i.unheard != "deny" or i.delegated != "deny" or i.reader for i in intents) else None
        at: dict[str, int] = {}
        given: dict[str, int] = {}
        for intent in intents:
            name = intent.name
            heard = _one(intent, turn, found[name], back)
            if heard.answer is not None:
                answers[name], at[name] = heard.answer, heard.at
                spoken.add(name)
            elif heard.looked and answers[name].presence == "absent":
                answers[name] = Derived("absent", f"asked about, not asked for: {heard.looked}")
            elif not heard.looked and answers[name].presence == "absent" and (word := _unsure(intent, turn)):
                answers[name] = Derived("unclear", f"word '{word}', in words that may not be the user's own")
            elif handed is not None and intent.delegated != "deny" and name not in spoken:
                answers[name] = _delegated(intent, handed)
                if isinstance(handed, Delegation):
                    given[name] = handed.at
            elif not heard.looked:
                continue
            quiet.discard(name)
        unheard, taken = state.unheard, state.taken
        if quiet and any(intent.unheard != "deny" or intent.reader for intent in intents):
            understood = handed is not None or any(answer.presence != "absent" for answer in answers.values())
            denied = any(clause.voice == "denied" for clause in turn.clauses)
            unheard = _not_understood(turn, found.values(), handed, shapes=not understood) or ("" if understood or denied else unheard)
            taken = _explained(turn, found) or taken
        requested = {**given, **at}
        heard_in = {clause for each in found.values() for clause, (_, hit) in each.items() if hit is not None}
        unread, words = unread_in(turn, heard_in.__contains__, later=state.turns > 0)
        if unread >= 0 and not turn.assents and (handed or handed_over(turn)):
            unread, words = -1, ""
        clears = handed is not None or any(place >= 0 for place in at.values())
        left = answers.keys() - at.keys() if unread >= 0 else frozenset[str]() if clears else state.open - at.keys()
        asked = any(answer.presence != "absent" for answer in answers.values()) or unheard or taken or left
        for start, end, how in turn.sentences if asked else ():
            if how == "unread" and (state.turns or any(start <= place < end for place in requested.values())):
                continue
            if how == "all" and unread < end:
                left = frozenset()
            if how and (state.turns or unheard or any(place < start for place in requested.values())):
                _take_back(answers, how, turn.low[start:end], keep={name for name, place in requested.items() if place > start})
                if how == "all":
                    spoken, quiet, unheard, taken = set(at), {name for name in quiet if name not in at}, "", ""
        if (stranger := _unexplained(intents, turn, found.values())) and not handed:
            _take_back(answers, "doubt", stranger, keep=set())
        if asked and turn.may_say_no:
            _take_back(answers, "doubt", turn.low, keep=set())
        elif asked and state.turns and (turn.doubts(_denying(found)) or (not requested and turn.hesitates)):
            _take_back(answers, "doubt", turn.low, keep={name for name, place in requested.items() if place >= 0})
        state = state._replace(answers=answers, spoken=frozenset(spoken), quiet=frozenset(quiet), unheard=unheard, taken=taken)
        state = state._replace(open=frozenset(left), turns=state.turns + 1)
        if unread >= 0:
            state = state._replace(unread=words, alone=stands_alone(turn))
        return _with_doubts(state, turn) if any(intent.reader for intent in intents) else state

    def told(self, intents: tuple[Intent, ...], state: State) -> Mapping[str, Derived]:
        """The answers; an intent that was not mentioned is unclear where a request was not understood."""
        answers = dict(state.answers)
        for intent in intents:
            name, settles = intent.name, intent.reader and not state.doubted
            asks = name in state.quiet and (intent.unheard != "deny" or intent.reader)
            if answers[name].presence != "absent":
                continue
            if name in state.open:
                why = f"not understood: '{state.unread}'"
                answers[name] = Derived("unclear", why, silent=True, unread=settles and (state.alone or not intent.words))
            elif asks and state.unheard:
                answers[name] = Derived("unclear", f"not understood: '{state.unheard}'", silent=True, unread=settles)
            elif not intent.words and state.turns and not state.stopped:
                answers[name] = Derived("unclear", "no words: left to a reader", silent=True, unread=settles)
            elif asks and state.taken and answers[name].silent:
                answers[name] = replace(answers[name], evidence=f"{answers[name].evidence}; {state.taken}")
        return answers


derive = Lexical()


def _with_doubts(state: State, turn: Turn) -> State:
    """The state, with what a reader must not settle: something in the turn may not be the user's own, or may be denied."""
    doubts = bool(turn.unsure) or turn.denies or (state.turns > 1 and turn.says_no)
    return state._replace(stopped=turn.takes_all_back, doubted=not turn.takes_all_back and (state.doubted or doubts))


def _denying(found: Mapping[str, Found]) -> frozenset[Clause]:
    """The clauses that deny some intent by its words."""
    return frozenset(clause for each in found.values() for clause in each if clause.voice == "denied")


def _unexplained(intents: tuple[Intent, ...], turn: Turn, found: Iterable[Found]) -> str:
    """A request in a line without a word of any intent, in a turn of several: it may be about a text, which the others are."""
    if turn.declared or "\n" not in turn.text.strip():
        return ""
    known = {line_of(turn, each.hit.at) for one in found for each in one.values() if each.hit is not None and each.hit.use == "asks"} | {-1}
    own = [
        turn.low[piece.begins : piece.end] for piece in turn.pieces if piece.kind == "request" and line_of(turn, piece.begins) not in known
    ]
    others = [text[piece.begins : piece.end] for text in turn.unsure for piece in pieces(text, 0, len(text)) if piece.kind == "request"]
    others = [words for words in others if not any(places(intent.words, words) for intent in intents)]
    return next((words for words in own + others if VALUE.search(words) is None), "")


def _heads(turn: Turn, placed: Iterable[Occurrence]) -> set[int]:
    """Where the requests begin in whose clauses a phrase stands that only begins one."""
    clauses = {bisect_right(turn.starts, each.start) - 1 for each in placed if each.asked}
    return {piece.head for number in clauses for piece in turn.pieces_of(turn.clauses[number])}


def _take_back(answers: dict[str, Derived], how: Taken, words: str, keep: set[str]) -> None:
    shown = " ".join(words.split())[:_SHOWN]
    for name, answer in answers.items():
        if name in keep or answer.presence == "absent":
            continue
        if how == "all":
            answers[name] = Derived("absent", f"withdrawn: {shown}")
        elif answer.presence == "present":
            answers[name] = Derived("unclear", f"perhaps withdrawn: {shown}")


def _found(intent: Intent, turn: Turn, placed: list[Occurrence], back: frozenset[int], longest: Longest) -> Found:
    """What is found of an intent's words, by clause; those that go over the end of a clause are none."""
    by_clause: dict[Clause, list[Occurrence]] = {}
    for place in placed:
        clause = turn.clauses[bisect_right(turn.starts, place.start) - 1]
        if place.end <= clause.end:
            by_clause.setdefault(clause, []).append(place)
    return {
        clause: _Found(each, _hit(intent, turn, clause, each, back, longest=longest) if clause.voice != "denied" else None)
        for clause, each in by_clause.items()
    }


def _one(intent: Intent, turn: Turn, found: Found, back: frozenset[int]) -> _Heard:
    """What a turn says of an intent; the clearest clause decides, and what is denied behind a request takes it back."""
    clearest: Derived | None = None
    asked, no, looked, denied, in_part = -1, -1, "", "", False
    for clause, (each, hit) in found.items():
        if hit is not None and hit.use == "asked":
            looked = looked or hit.words
        elif hit is not None:
            if hit.use == "asks":
                asked, counter = hit.at, _counter_examples(intent.words, intent.counter_examples, asked=hit.asked)
                answer = judged(intent, counter, turn.own[clause.start : clause.end], hit.words)
            else:
                answer = Derived("unclear", f"word '{hit.words}', but {_DOUBTS[hit.use]}")
            if clearest is None or CLARITY[answer.presence] > CLARITY[clearest.presence]:
                clearest = answer
        for place in each:
            if clause.voice == "denied" or place.start in back:
                no, denied = place.start, turn.low[place.start : place.end]
                in_part = clearest is not None and _PRONOUN.match(turn.low, place.end, clause.end) is None
    if no >= 0 and (clearest is None or no >= asked):
        clearest = Derived("unclear", f"requested, and denied: {denied}") if in_part else Derived("absent", f"denied: {denied}")
    return _Heard(clearest, asked, looked)


def _hit(intent: Intent, turn: Turn, clause: Clause, found: list[Occurrence], back: frozenset[int], *, longest: Longest) -> _Hit | None:
    best: _Hit | None = None
    pieces, said = turn.pieces_of(clause), turn.own[clause.start : clause.end].strip()
    ends = [piece.end for piece in pieces]
    for place in found:
        at = bisect_right(ends, place.start)
        piece = pieces[at] if at < len(pieces) else None
        use = "aside" if piece is None else _use(place, piece, turn, intent.words)
        if place.start in back or (place.asked and (use != "asks" or piece is None or place.start > piece.head)):
            continue
        if use == "asked" and _by_questions(intent.words, intent.examples):
            use = "asks"
        if use == "asks" and piece is not None and not any(said in example for example in intent.examples):
            if max(longest.get(("start", place.start), 0), longest.get(("end", place.end), 0)) > place.length:
                use = "part"
            elif not acts_on_its_kind(intent, turn, place, piece):
                use = "other"
        if use == "asks" and turn.doubted(place.start) and not any(said in example for example in intent.examples):
            use = "doubted"
        if best is None or _USES.index(use) >= _USES.index(best.use):
            best = _Hit(turn.low[place.start : place.end], use, place.start, piece is not None and piece.kind in _TOLD)
    return best


_DROPPED = re.compile(r"\b(?:skip|omit|leave out|drop|without|(?<=\w )than)(?: to)?(?: (?:the|an?|any|my|our))? \Z")
_STOPPING = re.compile(rf"(?!leave an?\b)(?:{either('stopping', 'holding')})\b")  # "reverse the refund"
_STOPPED = re.compile(rf"\b(?:{either('stopped')})\b")  # "make sure the refund is cancelled"
_MODAL = re.compile(r"\b(?:can|could|should|must|may|ought|needs?|ha(?:s|ve))\b")
_ASKING = re.compile(r"(?:can|could|would|will|may)\b")  # "can someone join": such a phrase is a question itself
_TOLD = frozenset({"look", "question"})
_USES = ("asked", "aside", "doubted", "part", "other", "asks")
_DOUBTS = {
    "aside": "not in a request",
    "doubted": "in a sentence that may not ask for it now",
    "part": "part of a longer phrase of an intent",
    "other": "not of what its tools act on",
}


def _use(place: Occurrence, piece: Piece, turn: Turn, listed: tuple[str, ...]) -> str:
    """How words are used in their piece: they ask for something, are asked about, or neither."""
    words = turn.low[place.start : place.end]
    begins = place.start == piece.head or (place.asked and place.start < piece.head)
    stated = " " in words and (FINITE.search(words) or (_MODAL.search(words) and not NOBODY.match(turn.low, piece.begins)))
    if piece.kind == "question":
        return "asks" if begins and " " in words and _ASKING.match(words) else "asked"
    if piece.kind == "look":
        return "asks" if begins and place.end + place.asked > piece.looks else "asked"
    if place.start >= piece.aside or _DROPPED.search(turn.low, piece.start, place.start):  # a piece without end is aside
        return "aside"
    if not begins and (_STOPPING.match(turn.low, piece.begins, piece.end) or _STOPPED.search(turn.low, place.end, piece.end)):
        return "aside"
    if piece.kind in {"request", "shaping"} or stated or (words in listed and FINITE.search(words)):
        return "asks"
    return "asks" if begins and (piece.kind == "open" or " " in words) else "aside"


@lru_cache(maxsize=1024)
def _by_questions(words: tuple[str, ...], examples: tuple[str, ...]) -> bool:
    """Whether questions request an intent ("What is the status of ORD-1?"): some example has its words in questions only."""
    return any({_use(*each, words) for each in _placed(words, Turn(example))} == {"asked"} for example in examples)


@lru_cache(maxsize=4096)
def _counter_examples(words: tuple[str, ...], texts: tuple[str, ...], *, asked: bool) -> tuple[str, ...]:
    """The counter-examples with an intent's words in what asks to be told something, or elsewhere."""
    return tuple([text for text in texts if any((piece.kind in _TOLD) is asked for _, piece, _ in _placed(words, Turn(text)))])


def _placed(words: tuple[str, ...], turn: Turn) -> Iterator[tuple[Occurrence, Piece, Turn]]:
    """Where an intent's words are in the user's own words."""
    for piece in turn.pieces:
        for place in places(words, turn.low, piece.start, piece.end):
            if not place.asked or place.start == piece.head:
                yield place, piece, turn


def _unsure(intent: Intent, turn: Turn) -> str:
    """A word of an intent in a part that may not be the user's own."""
    return next((text[place.start : place.end] for text in turn.unsure for place in places(intent.words, text)), "")


def _explained(turn: Turn, found: Mapping[str, Found]) -> str:
    """The first word of a turn that requests an intent, and which; shown only, to say why no request was left to be understood."""
    hits = ((name, each[clause].hit) for clause in turn.clauses for name, each in found.items() if clause in each)
    return next((f"'{hit.words}' belongs to {name}" for name, hit in hits if hit is not None and hit.use == "asks"), "")


def _not_understood(turn: Turn, found: Iterable[Found], handed: Delegation | str | None, *, shapes: bool) -> str:
    """The first request of a turn that no intent's word and no delegation explains; empty where there is none.

    `shapes`: a piece counts that only shapes another request.
    """
    given = handed.words if isinstance(handed, Delegation) else None
    shaped = ""
    for clause in turn.clauses:
        text = " ".join(turn.own[clause.start : clause.end].split())
        if any(clause in each and each[clause].hit is not None for each in found) or (given and given in text):
            continue
        for piece in turn.pieces_of(clause):
            said = " ".join(turn.own[piece.start : piece.end].split())[:_SHOWN]
            if piece.kind in {"look", "question"}:
                shapes = False
            elif piece.kind == "request":
                return said
            elif piece.kind == "shaping":
                shaped = shaped or said
    return shaped if shapes else ""


def _delegated(intent: Intent, handed: Delegation | str) -> Derived:
    """The answer for an intent that the user did not mention where they delegated the choice of actions."""
    if isinstance(handed, str):
        return Derived("absent", f"denied: {handed}")
    if handed.doubt:
        return Derived("unclear", f"delegated to {handed.doubt}: '{handed.words}'")
    return Derived("present" if intent.delegated == "present" else "unclear", f"delegated: '{handed.words}'")
