"""The default deriver: by words, examples and counter-examples; deterministic, without a model, with its reasons.

An intent is *present* when a clause of the user's own affirmed words (not quoted, forwarded or denied) contains one of its words
(`agentgate.intents.phrases`), *unless* that clause is close to a counter-example and less close to every example, or has a quantifier
(`agentgate.language.quantity`) that no example has: then the intent is *unclear*, and *absent* where the clause repeats a counter-example.
Without a word it is absent. A counter-example with a quantifier does not apply to a clause without one.
The clearest clause decides. A word in a question or a report (`agentgate.language.questions`) does not count.
A later turn that denies the word withdraws the intent. Where the user used none of an intent's words but delegated the choice of actions
to a source (`agentgate.language.delegation`), the intent's `delegated` decides. Where the last turn with a request requests something
that no word of any intent explains (`agentgate.language.unheard`), and the intent's `unheard` is step_up, an intent that was not mentioned
is unclear.
Closeness is the cosine of sets of stems, with typed entities replaced by their type. Compared with an example the intent's words are one
term whatever they are, so "refund ORD-1" and "reimburse ORD-2" are the same request; compared with a counter-example they are themselves,
so "close T-1" is not "update me on T-2". A counter-example without any of the words is ignored (such a prompt is absent anyway).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

from agentgate.intents.deriver import CLARITY
from agentgate.intents.phrases import keys_of, places
from agentgate.language.delegation import Delegation, delegation
from agentgate.language.denials import clauses
from agentgate.language.quantity import WIDE, quantities
from agentgate.language.questions import aside, asked_about, told_of
from agentgate.language.quotations import blank, hidden_quotations, own_words, unquoted
from agentgate.language.spans import entities, small
from agentgate.language.unheard import pieces
from agentgate.values.request import Derived
from agentgate.workflow.model import Intent

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_COMMON = frozenset(
    """
    a an the to of for in on at by with from and or i me my we us our you your he she it its they them their this
    that these those is are was were be been am do does did can could would will shall should may might must please
    kindly thanks thank hi hello just so as if then than there here have has had want wants need needs like
    """.split()
)
_NO_DAY = date(2000, 1, 1)  # only the types of entities matter here
_SAME = 0.999  # closeness of a repeated example
_SHOWN = 80  # characters of a request that was not understood
_LONG = 1000  # characters; the terms of a longer text are not cached
_NEAR = 0.5  # closeness from which a counter-example applies


def _stem(word: str) -> str:
    """A crude stem: enough to join refund, refunds, refunded and refunding, and never two different short words."""
    for ending in ("ings", "ing", "edly", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] else word


@lru_cache(maxsize=256)
def _terms(text: str) -> frozenset[str]:
    rest, end = [], 0
    types = set()
    for entity in entities(text, _NO_DAY):
        types.add(f"<{entity.type}>")
        rest.append(text[end : entity.start])
        end = entity.start + len(entity.words)
    words = {w.lower() for w in _WORD.findall(" ".join([*rest, text[end:]]))}
    return frozenset(types | {w if w in WIDE else _stem(w) for w in words - _COMMON})


@lru_cache(maxsize=8192)
def _contains(text: str, words: tuple[str, ...]) -> bool:
    """Whether a counter-example contains any of an intent's words."""
    return bool(places(words, small(text)))


def _about(text: str, words: tuple[str, ...]) -> frozenset[str]:
    """The terms of a text that contains some of an intent's words, with these as one term (cached, unless the text is long)."""
    return _kept(text, words) if len(text) <= _LONG else _read(text, words)


def _read(text: str, words: tuple[str, ...]) -> frozenset[str]:
    rest, end = [], 0
    for start, stop in places(words, small(text)):
        rest.append(text[end:start])
        end = max(end, stop)
    return _terms(" ".join([*rest, text[end:]])) | {"!"}


_kept = lru_cache(maxsize=8192)(_read)


def _close(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / sqrt(len(a) * len(b)) if a and b else 0.0


class _Clause(NamedTuple):
    """A clause: its text; the lower-case turn that is searched for the words of intents, and the clause's place in it."""

    text: str
    turn: str
    start: int
    end: int
    keys: frozenset[str]  # how its words start
    cancelled: frozenset[int]  # places in the turn where what it takes back starts
    uses: dict[int, str]  # cache of `use`
    hits: dict[str, tuple[str, str] | None]  # cache of `hit`

    def use(self, at: int) -> str:
        """How the word at a place of the turn is used: it "asks" for something, is "asked" about, or is "aside" (reported, dictated)."""
        if at not in self.uses:
            place = self.turn, self.start, at
            self.uses[at] = "aside" if aside(*place) else "asked" if asked_about(*place) else "asks"
        return self.uses[at]

    def hit(self, intent: Intent) -> tuple[str, str] | None:
        """The words of the clause that match one of the intent's, and their use; None where there are none."""
        if intent.name not in self.hits:
            self.hits[intent.name] = self._searched(intent)
        return self.hits[intent.name]

    def _searched(self, intent: Intent) -> tuple[str, str] | None:
        best = None
        for start, end in places(intent.words, self.turn, self.start, self.end, self.keys):
            if start not in self.cancelled:
                words = self.turn[start:end]
                use = self.use(start)
                if use == "asked" and _by_questions(intent.words, intent.examples):
                    use = "asks"
                elif use == "asks" and told_of(self.turn, self.start, start, words, intent.words):
                    use = "asked"
                if use == "asks":
                    return words, use
                if best is None or (use == "aside") > (best[1] == "aside"):
                    best = words, use
        return best


@lru_cache(maxsize=1024)
def _by_questions(words: tuple[str, ...], examples: tuple[str, ...]) -> bool:
    """Whether questions request an intent ("What is the status of ORD-1?"): some example has its words in questions only."""
    return any(_only_asked(words, example) for example in examples)


def _only_asked(words: tuple[str, ...], example: str) -> bool:
    own = own_words(example)
    turn = small(hidden_quotations(own))
    spans = ((a, b) for voice, a, b in clauses(own) if voice == "said")
    asked = [asked_about(turn, a, start) for a, b in spans for start, _ in places(words, turn, a, b)]
    return bool(asked) and all(asked)


def _one(intent: Intent, said: list[_Clause], denied: list[_Clause]) -> tuple[Derived | None, str]:
    """The answer of one turn for one intent, None where it does not mention it; and a word of it that is only asked about.

    The clearest clause decides; a word in quotes requests nothing.
    """
    clearest: Derived | None = None
    asked = ""
    for clause in said:
        if (hit := clause.hit(intent)) is not None:
            words, use = hit
            if use == "asked":
                asked = asked or words
                continue
            answer = _answer(intent, clause.text, words)
            if answer.presence == "present":
                if use == "asks":
                    return answer, ""
                answer = Derived("unclear", f"word '{words}', but asked, reported or dictated")
            if clearest is None or CLARITY[answer.presence] > CLARITY[clearest.presence]:
                clearest = answer
    if clearest is not None:
        return clearest, ""
    refused = next((hit[0] for clause in denied if (hit := clause.hit(intent)) is not None), None)
    return (Derived("absent", f"denied: {refused}") if refused else None), asked


def _answer(intent: Intent, said: str, hit: str) -> Derived:
    terms, wide = _about(said, intent.words), quantities(said)
    example, like = max(((_close(terms, _about(e, intent.words)), e) for e in intent.examples), default=(0.0, ""))
    counters = (c for c in intent.counter_examples if quantities(c) <= wide and _contains(c, intent.words))
    counter, text = max(((_close(_terms(said), _terms(c)), c) for c in counters), default=(0.0, ""))
    if counter >= _SAME > max((_close(_terms(said), _terms(e)) for e in intent.examples), default=0.0):
        return Derived("absent", f"counter-example: {text}")
    if counter >= _NEAR and counter > example:
        return Derived("unclear", f"word '{hit}', but closest to the counter-example: {text}")
    if wide and not any(map(quantities, intent.examples)):
        return Derived("unclear", f"word '{hit}', but '{min(wide)}' stands in no example")
    return Derived("present", f"word '{hit}'" + (f", closest to the example: {like}" if example else ""))


_AFTER = re.compile(r"(?i)^\W*(?:do not|don['’]?t|never|not|please|ever)\b(?:\W+(?:ever|please)\b)*")  # before denied words
_TAKEN_BACK = (
    r"(?:stop|abort|never ?mind|forget (?:it|that|this|about (?:it|that)|what i said)|hold (?:off|on)|wait|undo (?:it|that|this)|"
    r"scratch (?:it|that|this)|not now|do nothing|i (?:take (?:it|that) back|(?:have )?changed my mind)|i['\u2019]ve changed my mind|"
    r"(?:drop|leave|skip) (?:it|that|this)|nah|nope|i(?:['\u2019]d| would) rather not|"
    r"cancel(?: (?:it|that|this|everything))?|(?:do not|don['\u2019]?t)(?: do (?:it|that|this|anything))?|no)\b"
)
STOP = re.compile(
    rf"(?i)^\W*+(?:(?:no|wait|ok|okay|please|actually|sorry)\W++){{0,4}}{_TAKEN_BACK}"
    rf"(?:\W++(?:it|that|this|everything|now|please|thanks?|thank you|here|immediately)|\s*+[^\w\s]\W*+{_TAKEN_BACK}){{0,12}}\W*+$"
)
_CANCELLED = re.compile(r"\b(?:cancel|undo|stop|scratch) (?:that|this|the|my) (?:(?:last|first|previous|new) )?(?=\w)")


def derive(intents: tuple[Intent, ...], turns: tuple[str, ...]) -> Mapping[str, Derived]:
    """See `agentgate.intents.deriver.Deriver`. The last turn that mentions an intent decides it; a bare "stop" withdraws all."""
    answers = {intent.name: Derived("absent", "no word of it in the prompt", silent=True) for intent in intents}
    spoken: set[str] = set()  # intents that the user's own words mention: no delegation decides them any more
    quiet = set(answers)  # intents that were not mentioned at all
    asking = frozenset(intent.name for intent in intents if intent.unheard != "deny")
    unheard = ""  # the last request that no intent explains
    taken = ""  # a word that requests another intent, and so explains its clause
    for index, turn in enumerate(turns):
        if index and STOP.match(turn):  # a first turn has nothing to take back: there, "cancel it" is a request
            answers = {name: Derived("absent", f"withdrawn: {turn.strip()[:80]}") for name in answers}
            spoken.clear()
            quiet, unheard, taken = set(answers), "", ""
            continue
        words = own_words(turn)
        spans, bare = clauses(words), unquoted(words)
        said, denied = ([(words[a:b], bare[a:b]) for v, a, b in spans if v == voice] for voice in ("said", "denied"))
        handed = _handed_over(said, denied) if asking or any(i.delegated != "deny" for i in intents) else None
        asked, lower = small(hidden_quotations(words)), small(words)
        back = frozenset(match.end() for match in _CANCELLED.finditer(asked)) if index else frozenset[int]()
        affirmed = [_Clause(words[a:b], asked, a, b, keys_of(asked[a:b]), back, {}, {}) for voice, a, b in spans if voice == "said"]
        refused = [
            _Clause(words[a:b], lower, a, b, keys_of(lower[a:b]), frozenset(), {}, {}) for voice, a, b in spans if voice == "denied" or back
        ]
        for intent in intents:
            answer, looked = _one(intent, affirmed, refused)
            if answer is not None:
                answers[intent.name] = answer
                spoken.add(intent.name)
            elif looked and answers[intent.name].presence == "absent":
                answers[intent.name] = Derived("absent", f"asked about or told of, not asked for: {looked}")
            if answer is None and handed is not None and intent.delegated != "deny" and intent.name not in spoken:
                answers[intent.name] = _delegated(intent, handed)
            elif answer is None and not looked:
                continue
            quiet.discard(intent.name)
        if asking & quiet:
            heard = handed is not None or any(answer.presence != "absent" for answer in answers.values())
            unheard = _not_understood(intents, affirmed, handed, shapes=not heard) or ("" if heard or denied else unheard)
            taken = _taken(intents, affirmed) or taken
    for name in asking & quiet:
        if unheard:
            answers[name] = Derived("unclear", f"not understood: '{unheard}'", silent=True)
        elif taken and answers[name].silent:
            answers[name] = replace(answers[name], evidence=f"{answers[name].evidence}; {taken}")
    return answers


def _taken(intents: tuple[Intent, ...], said: list[_Clause]) -> str:
    """The first word of a turn that requests an intent, and which; shown only, to say why no request was left to be understood."""
    hits = ((intent.name, clause.hit(intent)) for clause in said for intent in intents)
    return next((f"'{hit[0]}' belongs to {name}" for name, hit in hits if hit is not None and hit[1] == "asks"), "")


def _not_understood(intents: tuple[Intent, ...], said: list[_Clause], handed: Delegation | str | None, *, shapes: bool) -> str:
    """The first request of a turn that no intent's word and no delegation explains; empty where there is none.

    `shapes`: a piece counts that only shapes another request.
    """
    given = handed.words if isinstance(handed, Delegation) else None
    shaped = ""
    for clause in said:
        if any(clause.hit(intent) is not None for intent in intents) or (given and given in " ".join(clause.text.split())):
            continue
        for piece in pieces(clause.turn, clause.start, clause.end):
            if piece.what == "look":
                shapes = False
            elif clause.use(piece.start) == "asks":
                words = " ".join(clause.text[piece.start - clause.start : piece.end - clause.start].split())[:_SHOWN]
                if piece.what == "asks":
                    return words
                shaped = shaped or words
    return shaped if shapes else ""


def _handed_over(said: list[tuple[str, str]], denied: list[tuple[str, str]]) -> Delegation | str | None:
    """The delegation of this turn, or as text the words that withdraw one."""
    given = delegation(said)
    if given is not None:
        return given
    refused = delegation((_AFTER.sub(blank, clause), _AFTER.sub(blank, bare)) for clause, bare in denied)
    return refused.words if refused is not None else None


def _delegated(intent: Intent, handed: Delegation | str) -> Derived:
    """The answer for an intent that the user did not mention where they delegated the choice of actions."""
    if isinstance(handed, str):
        return Derived("absent", f"denied: {handed}")
    if handed.doubt:
        return Derived("unclear", f"delegated to {handed.doubt}: '{handed.words}'")
    return Derived("present" if intent.delegated == "present" else "unclear", f"delegated: '{handed.words}'")
