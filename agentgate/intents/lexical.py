"""The default deriver: by words, examples and counter-examples; deterministic, without a model,
with its reasons.

An intent is *present* where the user's own words (`agentgate.language.turn`) request something
(`agentgate.language.pieces`) and contain one of its words (`agentgate.intents.phrases`),
*unless* that clause is close to a counter-example and less close to every example, or has a
quantifier (`agentgate.intents.closeness`) that no example has: then the intent is *unclear*,
and *absent* where the clause repeats a counter-example. A word in a statement, in a subordinate
clause, or in a part that may not be the user's own is unclear, too; without a word, or with one
in a question only, the intent is absent. A counter-example with a quantifier does not apply to
a clause without one. The clearest clause decides. What is said behind a request takes it back,
in the same turn or a later one: what denies the word or says "stop" makes the intent absent,
or unclear where it says what is missing so far ("it still has no reviewers"), but not what a
request is to tell ("write to her that it won't come and ask"); anything else that says no makes
it unclear, until it is asked for again. So does a later turn that is not
understood and requests nothing. Where the user used none of an intent's words but delegated the
choice of actions to a source (`agentgate.language.delegation`), the intent's `delegated`
decides. Where the last turn with a request requests something that no word of any intent
explains, and the intent's `unheard` is step_up, an intent that was not mentioned is unclear.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from agentgate.intents.closeness import judged
from agentgate.intents.deriver import (
    CLARITY,
    Answers,
    Turns,
    Vocabulary,
    all_absent,
    ask,
    give_all,
)
from agentgate.intents.objects import acts_on_its_kind
from agentgate.intents.phrases import Longest, Occurrence, Phrases, keys_of, longest_of, places
from agentgate.intents.unread import shown, stands_alone, unread_in
from agentgate.language.delegation import Delegation, handed_over
from agentgate.language.force import BIDS, is_postponed
from agentgate.language.pieces import FINITE, NOBODY, Piece, pieces
from agentgate.language.turn import Clause, Taken, Turn, fold_spaces
from agentgate.language.whose import ITEM, VALUE
from agentgate.language.word_files import Forms
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

_FORMS = Forms("lexical")


class _Hit(NamedTuple):
    """Words of a clause that match one of an intent's, their use (of `_USES`), their place, and
    whether a question has them.
    """

    words: str
    use: str
    at: int
    asked: bool


class _Heard(NamedTuple):
    """What one turn says of one intent.

    Attributes:
        answer: the answer; None: nothing.
        at: where it is last requested; -1: nowhere.
        looked: a word of it that is only asked about.
        hits: the last hit that asks, or the best one, of each clause.
    """

    answer: Derived | None
    at: int
    looked: str
    hits: Mapping[Clause, _Hit]


class State(NamedTuple):
    """What the turns so far say.

    Attributes:
        answers: intent -> answer; a silent one was not mentioned at all.
        spoken: intents that the user's own words mention: no delegation decides them any more.
        unheard: the last request that no intent explains.
        later: something was said.
        unread: the last words that were not understood; `open` are the intents that these leave
            open.
        alone: they may say by themselves what they ask for.
        doubted: something may have been denied, or not be the user's own, since the last turn
            that took back all: no reader settles it.
        stopped: the last turn took back all.
    """

    answers: Answers
    spoken: frozenset[str] = frozenset()
    unheard: str = ""
    later: bool = False
    unread: str = ""
    open: frozenset[str] = frozenset()
    alone: bool = True
    doubted: bool = False
    stopped: bool = False


class Lexical:
    """See `agentgate.intents.deriver.Fold`."""

    def __call__(self, intents: Vocabulary, turns: Turns) -> Answers:
        """The answers for these turns."""
        return ask(self, intents, turns)

    def begun(self, intents: Vocabulary) -> State:
        """Nothing was said."""
        return State(
            give_all(intents, Derived("absent", "no word of it in the prompt", silent=True))
        )

    def hear(self, intents: Vocabulary, state: State, turn: Turn) -> State:
        """One more turn; what is said behind a request takes it back."""
        answers = dict(state.answers)
        later = state.later
        words = turn.low.split()
        heard = _listen(intents, turn, keys_of(words), later=later)
        delegable = any(_asks(intent) or intent.delegated != "deny" for intent in intents)
        handed = handed_over(turn) if delegable else None
        requested = {name: one.at for name, one in heard.items() if one.answer}
        said = frozenset(requested)
        for intent in intents:
            name = intent.name
            one = heard[name]
            if one.answer:
                answers[name] = one.answer
            elif answers[name].presence == "absent" and (
                mentioned := _mentioned(intent, one, turn)
            ):
                answers[name] = mentioned
            elif handed and intent.delegated != "deny" and name not in state.spoken:
                answers[name] = _delegated(intent, handed)
                if isinstance(handed, Delegation):
                    requested[name] = handed.at
        spoken = state.spoken | said
        unheard = state.unheard
        known = frozenset(clause for one in heard.values() for clause in one.hits)
        if any(map(_asks, intents)):
            understood = bool(handed) or not all_absent(answers)
            unheard = _not_understood(turn, known, handed, unheard, understood=understood)
        unread, unclear = unread_in(turn, words, known, later=later)
        if unread >= 0 and not turn.assents and (handed or handed_over(turn)):
            unread = -1
        left = state.open
        if unread >= 0:
            left = frozenset(answers)
            state = state._replace(unread=unclear, alone=stands_alone(turn))
        elif handed or any(place >= 0 for place in requested.values()):
            left = frozenset()
        left -= said
        asked = not all_absent(answers) or unheard or left
        if asked and _hear_withdrawals(answers, turn, requested, unheard, later=later):
            spoken = said
            unheard = ""
        if left and any(how == "all" and unread < end for _, end, how in turn.sentences):
            left = frozenset()
        stranger = _unexplained(intents, turn, heard)
        if stranger and not handed:
            _take_back(answers, "doubt", stranger, {})
        if asked and turn.may_say_no:
            _take_back(answers, "doubt", turn.low, {})
        elif asked and later and (turn.doubts(known) or (not requested and turn.hesitates)):
            _take_back(answers, "doubt", turn.low, requested)
        if any(intent.reader for intent in intents):
            stopped = turn.takes_all_back
            doubts = bool(turn.unsure) or turn.denies or (later and turn.says_no)
            state = state._replace(
                stopped=stopped, doubted=not stopped and (state.doubted or doubts)
            )
        return state._replace(
            answers=answers, spoken=spoken, unheard=unheard, later=True, open=left
        )

    def told(self, intents: Vocabulary, state: State) -> Answers:
        """The answers; an intent that was not mentioned is unclear where a request was not
        understood.
        """
        answers = dict(state.answers)
        named = (
            f"; {answer.evidence.removeprefix('word ')} belongs to {name}"
            for name, answer in answers.items()
            if answer.presence == "present" and answer.evidence.startswith("word")
        )
        other = next(named, "")
        for intent in intents:
            name = intent.name
            answer = answers[name]
            if answer.presence != "absent":
                continue
            why = ""
            if name in state.open:
                why = f"not understood: '{state.unread}'"
            elif answer.silent and state.unheard and _asks(intent):
                why = f"not understood: '{state.unheard}'"
            elif not intent.words and state.later and not state.stopped:
                why = "no words: left to a reader"
            elif answer.silent and _asks(intent):
                answers[name] = replace(answer, evidence=answer.evidence + other)
            if why:
                alone = name not in state.open or state.alone or not intent.words
                unread = intent.reader and alone and not state.doubted
                answers[name] = Derived("unclear", why, silent=True, unread=unread)
        return answers


derive = Lexical()


def _asks(intent: Intent) -> bool:
    """Whether an intent that was not mentioned is left to a person or a reader where a request
    was not understood.
    """
    return intent.unheard != "deny" or intent.reader


def _listen(
    intents: Vocabulary, turn: Turn, keys: frozenset[str], *, later: bool
) -> Mapping[str, _Heard]:
    """What a turn says of each intent."""
    back = frozenset(
        match.end() for match in _FORMS.cancelled.finditer(turn.low if later else "")
    )
    placed = {intent.name: places(intent.words, turn.low, keys=keys) for intent in intents}
    longest = longest_of(placed.values(), turn)
    return {
        intent.name: _one(intent, turn, placed[intent.name], back, longest)
        for intent in intents
    }


def _mentioned(intent: Intent, one: _Heard, turn: Turn) -> Derived | None:
    """The answer for an intent of which a word is only asked about, or may not be the user's
    own.
    """
    if one.looked:
        return Derived("absent", f"asked about, not asked for: {one.looked}")
    for text in turn.unsure:
        if found := places(intent.words, text):
            return Derived(
                "unclear",
                f"word '{found[0].text}', in words that may not be the user's own",
            )
    return None


def _unexplained(
    intents: Vocabulary,
    turn: Turn,
    heard: Mapping[str, _Heard],
) -> str:
    """A request in a line without a word of any intent, in a turn of several: it may be about a
    text, which the others are.
    """
    if turn.declared or "\n" not in turn.text.strip():
        return ""
    known = {
        _line_of(turn, hit.at)
        for one in heard.values()
        for hit in one.hits.values()
        if hit.use == "asks"
    }
    requests = [
        turn.low[piece.begins : piece.end]
        for piece in turn.pieces
        if piece.kind == "request" and _line_of(turn, piece.begins) not in {-1, *known}
    ]
    for text in turn.unsure:
        for piece in pieces(text, 0, len(text)):
            words = text[piece.begins : piece.end]
            if piece.kind == "request" and not any(
                places(intent.words, words) for intent in intents
            ):
                requests.append(words)
    return next((words for words in requests if not VALUE.search(words)), "")


def _line_of(turn: Turn, at: int) -> int:
    """Where the line of a place begins; items of a list are as one, -1."""
    start = turn.low.rfind("\n", 0, at) + 1
    return -1 if ITEM.match(turn.low, start) else start


def _hear_withdrawals(
    answers: dict[str, Derived],
    turn: Turn,
    requested: Mapping[str, int],
    unheard: str,
    *,
    later: bool,
) -> bool:
    """Sentences take back what is not requested behind them. Whether one took back all, also a
    request that was `unheard`.
    """
    everything = False
    for start, end, how in turn.sentences:
        if how == "unread" and (
            later or any(start <= place < end for place in requested.values())
        ):
            continue
        pending = later or (unheard and not everything)
        if how and (pending or any(place < start for place in requested.values())):
            _take_back(answers, how, turn.low[start:end], requested, start)
            everything |= how == "all"
    return everything


def _take_back(
    answers: dict[str, Derived],
    how: Taken,
    words: str,
    requested: Mapping[str, int],
    start: int = -1,
) -> None:
    """Words take back what is not requested behind their start."""
    for name, answer in answers.items():
        if requested.get(name, -1) > start or answer.presence == "absent":
            continue
        if how == "all":
            answers[name] = Derived("absent", f"withdrawn: {shown(words)}")
        elif answer.presence == "present":
            answers[name] = Derived("unclear", f"perhaps withdrawn: {shown(words)}")


def _one(
    intent: Intent, turn: Turn, placed: list[Occurrence], back: frozenset[int], longest: Longest
) -> _Heard:
    """What a turn says of an intent; the clearest clause decides, and what is denied behind a
    request takes it back.
    """
    clearest = None
    asked = -1
    no = None
    looked = ""
    in_part = False
    hits = dict[Clause, _Hit]()
    for clause, found in groupby(placed, lambda place: turn.clause_at(place.start)):
        each = [place for place in found if place.end <= clause.end]
        denied = each
        if clause.voice != "denied":
            denied = [place for place in each if place.start in back]
            said = [place for place in each if place.start not in back]
            hit = _hit(intent, turn, clause, said, longest)
            if hit and hit.use == "asked":
                looked = looked or hit.words
            elif hit:
                if hit.use == "asks":
                    asked = hit.at
                    counter = _counter_examples(
                        intent.words, intent.counter_examples, asked=hit.asked
                    )
                    answer = judged(
                        intent, counter, turn.own[clause.start : clause.end], hit.words
                    )
                else:
                    answer = Derived("unclear", f"word '{hit.words}', but {_DOUBTS[hit.use]}")
                if not clearest or CLARITY[answer.presence] > CLARITY[clearest.presence]:
                    clearest = answer
        elif each:
            hit = _Hit(each[-1].text, "denied", each[-1].start, False)
        if each and hit:
            hits[clause] = hit
        if denied and not (asked >= 0 and _FORMS.content.match(turn.low, asked, clause.end)):
            no = denied[-1]
            in_part = bool(
                _FORMS.lacks.match(turn.low, clause.start)
                or (clearest and not _FORMS.pronoun.match(turn.low, no.end, clause.end))
            )
    if no and (not clearest or no.start >= asked):
        clearest = (
            Derived("unclear", f"perhaps denied: {no.text}")
            if in_part
            else Derived("absent", f"denied: {no.text}")
        )
    return _Heard(clearest, asked, looked, hits)


def _hit(
    intent: Intent, turn: Turn, clause: Clause, found: list[Occurrence], longest: Longest
) -> _Hit | None:
    best = None
    rest = Piece(clause.start, clause.end, "statement", -1, clause.start, clause.start)
    pieces = [*turn.pieces_of(clause), rest]
    said = turn.own[clause.start : clause.end].strip()
    ends = [piece.end for piece in pieces]
    for place in found:
        at = bisect_right(ends, place.start)
        piece = pieces[at]
        use = _use(place, piece, turn, intent.words)
        if place.asked and (use != "asks" or place.start > piece.head):
            continue
        if use == "asked" and _by_questions(intent.words, intent.examples):
            use = "asks"
        if use == "asks" and not any(said in example for example in intent.examples):
            if max(longest["start", place.start], longest["end", place.end]) > place.length:
                use = "part"
            elif not acts_on_its_kind(intent, turn, place, piece):
                use = "other"
            elif turn.doubted(place.start) or (
                not intent.timed and is_postponed(turn.low, pieces, at)
            ):
                use = "doubted"
        if not best or _USES.index(use) >= _USES.index(best.use):
            best = _Hit(place.text, use, place.start, piece.kind in _TOLD)
    return best


_TOLD = frozenset({"look", "question"})
_USES = "asked aside doubted part other asks".split()
_DOUBTS = {
    "aside": "not in a request",
    "doubted": "in a sentence that may not ask for it now",
    "part": "part of a longer phrase of an intent",
    "other": "not of what its tools act on",
}


def _use(
    place: Occurrence,
    piece: Piece,
    turn: Turn,
    listed: Phrases,
) -> str:
    """How words are used in their piece: they ask for something, are asked about, or
    neither.
    """
    words = place.text
    begins = place.start == piece.head or (place.asked and place.start < piece.head)
    stated = " " in words and (
        FINITE.search(words)
        or (_FORMS.modal.search(words) and not NOBODY.match(turn.low, piece.begins))
    )
    if piece.kind == "question":
        return "asks" if begins and " " in words and _FORMS.asking.match(words) else "asked"
    if piece.kind == "look":
        return "asks" if begins and place.end + place.asked > piece.looks else "asked"
    # a piece without end is aside
    if (
        place.start >= piece.aside
        or _FORMS.dropped.search(turn.low, piece.start, place.start)
        or _FORMS.rest.match(turn.low, place.start)
    ):
        return "aside"
    if not begins and (
        _FORMS.stopping.match(turn.low, piece.begins, piece.end)
        or _FORMS.stopped.search(turn.low, place.end, piece.end)
    ):
        return "aside"
    if piece.kind in BIDS or stated or (words in listed and FINITE.search(words)):
        return "asks"
    return "asks" if begins and (piece.kind == "open" or " " in words) else "aside"


@lru_cache(1024)
def _by_questions(words: Phrases, examples: Phrases) -> bool:
    """Whether questions request an intent ("What is the status of ORD-1?"): some example has
    its words in questions only.
    """
    return any(
        {_use(*each, words) for each in _placed(words, Turn(example))} == {"asked"}
        for example in examples
    )


@lru_cache(4096)
def _counter_examples(
    words: Phrases,
    texts: Phrases,
    *,
    asked: bool,
) -> Phrases:
    """The counter-examples with an intent's words in what asks to be told something, or
    elsewhere.
    """
    return tuple(
        text
        for text in texts
        if any((piece.kind in _TOLD) is asked for _, piece, _ in _placed(words, Turn(text)))
    )


def _placed(
    words: Phrases,
    turn: Turn,
) -> Iterator[tuple[Occurrence, Piece, Turn]]:
    """Where an intent's words are in the user's own words."""
    for piece in turn.pieces:
        for place in places(words, turn.low, piece.start, piece.end):
            if not place.asked or place.start == piece.head:
                yield place, piece, turn


def _not_understood(
    turn: Turn,
    known: frozenset[Clause],
    handed: Delegation | str | None,
    before: str,
    *,
    understood: bool,
) -> str:
    """The first request of a turn that no intent's word and no delegation explains; where there
    is none, the one `before`, until something is understood or denied.

    Where nothing is `understood`, a piece counts that only shapes another request.
    """
    given = handed.words if isinstance(handed, Delegation) else None
    shapes = not understood
    shaped = ""
    for clause in turn.clauses:
        if clause in known or (
            given and given in fold_spaces(turn.own[clause.start : clause.end])
        ):
            continue
        for piece in turn.pieces_of(clause):
            words = shown(turn.own[piece.start : piece.end])
            if piece.kind in _TOLD:
                shapes = False
            elif piece.kind == "request":
                return words
            elif piece.kind == "shaping":
                shaped = shaped or words
    if shapes and shaped:
        return shaped
    return "" if understood or turn.denied else before


def _delegated(intent: Intent, handed: Delegation | str) -> Derived:
    """The answer for an intent that the user did not mention where they delegated the choice of
    actions.
    """
    if isinstance(handed, str):
        return Derived("absent", f"denied: {handed}")
    if handed.doubt:
        return Derived("unclear", f"delegated to {handed.doubt}: '{handed.words}'")
    return Derived(
        "present" if intent.delegated == "present" else "unclear",
        f"delegated: '{handed.words}'",
    )
