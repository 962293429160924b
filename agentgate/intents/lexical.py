"""The default deriver: words, examples and counter-examples, no model, deterministic, explains itself.

An intent is *present* when one of its words (`agentgate.intents.phrases`) stands in a clause of the user's own affirmed words (not
quoted, forwarded or denied), *unless* that clause is near a counter-example and less near to any example, or speaks of a quantity
(`agentgate.language.quantity`) that no example speaks of: then it is *unclear*, and *absent* when it repeats a counter-example.
Without a word it is absent. A counter-example that speaks of a quantity says nothing of a clause that does not.
The clearest clause decides. A word that is asked about or told of (`agentgate.language.questions`) says nothing.
A later turn that denies the word withdraws the intent. Where the user named none of an intent's words but handed the choice of
actions to a source (`agentgate.language.delegation`), the intent's `delegated` says what it is. Where the last turn that asks for
something asks for what no word of any intent explains (`agentgate.language.unheard`), and the intent's `unheard` is step_up, an intent
of which nothing was said is unclear.
Closeness is the cosine of stemmed word sets in which typed entities stand as their type. To an example the intent's words are one
term whatever they are, so "refund ORD-1" and "reimburse ORD-2" are the same request; to a counter-example they are themselves, so
"close T-1" is not "update me on T-2". A counter-example without any of the words has nothing to say (such a prompt is absent anyway).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

from agentgate.intents.phrases import keys_of, places
from agentgate.language.delegation import Delegation, delegation
from agentgate.language.denials import clauses
from agentgate.language.quantity import WIDE, quantities
from agentgate.language.questions import asked_about, told_of
from agentgate.language.quotations import hidden_quotations, own_words, unquoted
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
_NOWHERE = date(2000, 1, 1)  # only entity types matter here, not what "tomorrow" is
_SAME = 0.999  # closeness of a repeated example
_SHOWN = 80  # characters of what was not understood
_LONG = 1000  # characters; what a longer text is about is not kept
_NEAR = 0.5  # closeness from which a counter-example has something to say
_CLARITY = {"present": 0, "unclear": 1, "absent": 2}


def _stem(word: str) -> str:
    """A crude stem: enough to join refund, refunds, refunded and refunding, and never two different short words."""
    for ending in ("ings", "ing", "edly", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] else word


@lru_cache(maxsize=256)
def _terms(text: str) -> frozenset[str]:
    kept, end = [], 0
    found = set()
    for entity in entities(text, _NOWHERE):
        found.add(f"<{entity.type}>")
        kept.append(text[end : entity.start])
        end = entity.start + len(entity.words)
    words = {w.lower() for w in _WORD.findall(" ".join([*kept, text[end:]]))}
    return frozenset(found | {w if w in WIDE else _stem(w) for w in words - _COMMON})


@lru_cache(maxsize=8192)
def _says(text: str, words: tuple[str, ...]) -> bool:
    """Whether some of an intent's words stand in a counter-example (cached)."""
    return bool(places(words, small(text)))


def _about(text: str, words: tuple[str, ...]) -> frozenset[str]:
    """The terms of a text that holds some of an intent's words, with these as one term (cached, unless the text is long)."""
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
    """A clause: as it stands; the turn in small letters that is searched for the words of an intent, and where; how its words start."""

    text: str
    turn: str
    start: int
    end: int
    keys: frozenset[str]
    cancelled: frozenset[int]  # where in the turn what it takes back starts
    asides: dict[int, str]  # what is known of the places in the turn: what a word there does
    hits: dict[str, tuple[str, str] | None]  # what is known of the intents: `_hit`

    def does(self, at: int) -> str:
        """What a word that starts here does: it "asks" for something, is "asked" about, or stands "aside" (reported, dictated)."""
        known = self.asides.get(at)
        if known is None:
            aside = _ASIDE.search(self.turn, max(self.start, at - _BEHIND), at) is not None
            aside = aside or (at - self.start < _BEHIND and _SAYS.search(self.turn, max(0, self.start - _SAID), self.start) is not None)
            known = "aside" if aside else "asked" if asked_about(self.turn, self.start, at) else "asks"
            self.asides[at] = known
        return known


# Before a word that asks nothing of the assistant: "should I pay", "she asked me to pay", "tell Ann to pay", "it says pay", "title: pay",
# "he thinks you should pay", "a mail asking to pay", "could Ann pay"; or not yet: "ask me before you pay", "I'll have to pay".
_NOT_I = r"(?<!\bi )(?<!\bwe )"
_MODAL = r"(?:can|could|should|must|may|might|will|would|shall|(?:ha(?:ve|s|d)|need|ought) to|be)"
_AT_FIRST = r"(?:(?:really|just|also|now|then|still|please) )?"
_ASIDE = re.compile(
    r"\b(?:(?:should|shall) (?:i|we)|(?:he|she|they) (?:should|must|can|could|may|will|would|ha[sd] to|have to|needs? to)"
    r"|whether (?:\S+ )?to|(?<!\bi['\u2019]d )say(?:s|ing)?(?: that| to)?|said(?: that| to)?"
    r"|(?:wanted|like|urged|begged) (?:me|us)(?: both)? to|want (?:me|us) to|wants you to"
    r"|(?:ask(?:s|ed)?|t(?:ell|ells|old)|remind(?:s|ed)?|wants|instruct(?:s|ed)?|advised?|invited?)"
    r" (?:(?!and\b)\S{1,40} ){0,3}(?<!\byou )to"
    rf"|{_NOT_I}(?:says|said|thinks|thought|claims|wrote|writes|texted|suggest(?:s|ed)?|recommend(?:s|ed)?|advises|requests|requested|asks|asked|"
    rf"demands|insists)(?: (?:me|us))?(?: (?:that|if|whether))? (?:i|we|you|it|he|she|they)(?: {_MODAL}){{0,2}}"
    rf"|{_NOT_I}(?:suggests|suggested|recommends|recommended|advises|requests)(?: to)?|reads|asked for (?:\S+ ){{1,4}}to be"
    r"|(?<!['\u2019]m )(?<!\bam )(?<!['\u2019]re )(?<!\bare )(?:asking|telling|instructing|ordering|urging|advising|reminding)"
    r" (?:(?!and\b)\S{1,40} ){0,3}to|(?:supposed|meant|required|obliged) to"
    rf"|according to [^,.;!?\n]{{1,60}},? (?:i|we|you) {_MODAL}"
    r"|(?<!\bmy )(?:advice|instructions?|steps?|suggestions?|recommendations?) (?:is|are|was|were)(?: to|:)|(?:called|titled|entitled)"
    r"|(?<!\bhow )(?<!\bwhat )about|(?:ask|tell|check with|let|show|warn) (?:me|us)\b[^.;!?\n]{0,60}\bbefore(?: you)?"
    r"|(?:i|we)(?:['\u2019]ll| will|['\u2019](?:m|re) going to) (?:have|need) to)"
    rf"\s{{1,4}}{_AT_FIRST}\Z"
    r"|(?:^|(?<=[.!?\n]\s))(?:can|could|will|would|may|might) "
    rf"(?!(?:you|u|ya|we|i|it|this|that|these|those|one|some\w+|any\w+|please|the|my|our)\b)[\w'\u2019-]{{1,40}} {_AT_FIRST}\Z"
    r"|\b(?:say(?:s|ing)?|writes?|wrote|title|subject|reply|called|named|remind|(?:goes|reads)(?: like this)?|"
    r"(?:an?|the|this|my|her|his|their|[\w.-]{1,40}['\u2019]s) "
    r"(?:[\w-]{1,40} )?(?:message|e-?mail|text|comment|post|draft|note|to-?do|reminder|task))\b[^.!?\n:]{0,60}:\s[^.!?\n]{0,60}\Z"
    r"|\bhere(?:['\u2019]s| is) what [^.!?\n]{1,40}\s(?:[-\u2013\u2014]|(?<=:\s))\s?[^.!?\n]{0,60}\Z"
)
_SAYS = re.compile(
    r"\b(?:says|said|writes|wrote|reads|t(?:ells|old) (?:me|us|him|her|them|everyone|everybody))\s?,\s{1,8}\Z"
)  # "please pay"
_SAID = 40  # characters before a clause in which these stand
_BEHIND = 160  # characters before a word in which these stand


@lru_cache(maxsize=1024)
def _by_questions(words: tuple[str, ...], examples: tuple[str, ...]) -> bool:
    """Whether an intent is one that questions ask for ("What is the status of ORD-1?"): some example has its words in nothing else."""
    return any(_only_asked(words, example) for example in examples)


def _only_asked(words: tuple[str, ...], example: str) -> bool:
    own = own_words(example)
    turn = small(hidden_quotations(own))
    spans = ((a, b) for voice, a, b in clauses(own) if voice == "said")
    found = [asked_about(turn, a, start) for a, b in spans for start, _ in places(words, turn, a, b)]
    return bool(found) and all(found)


def _hit(intent: Intent, clause: _Clause) -> tuple[str, str] | None:
    """The words of the clause that match a word of the intent, and what they do; None where there are none."""
    if intent.name not in clause.hits:
        clause.hits[intent.name] = _found(intent, clause)
    return clause.hits[intent.name]


def _found(intent: Intent, clause: _Clause) -> tuple[str, str] | None:
    best = None
    for start, end in places(intent.words, clause.turn, clause.start, clause.end, clause.keys):
        if start not in clause.cancelled:
            words = clause.turn[start:end]
            does = clause.does(start)
            if does == "asked" and _by_questions(intent.words, intent.examples):
                does = "asks"
            elif does == "asks" and told_of(clause.turn, clause.start, start, words, intent.words):
                does = "asked"
            if does == "asks":
                return words, does
            if best is None or (does == "aside") > (best[1] == "aside"):
                best = words, does
    return best


def _one(intent: Intent, said: list[_Clause], denied: list[_Clause]) -> tuple[Derived | None, str]:
    """What one turn says of one intent, None when it says nothing; and a word of it that is only asked about.

    The clearest clause decides; a word in quotes asks for nothing.
    """
    clearest: Derived | None = None
    asked = ""
    for clause in said:
        if (hit := _hit(intent, clause)) is not None:
            words, does = hit
            if does == "asked":
                asked = asked or words
                continue
            answer = _answer(intent, clause.text, words)
            if answer.presence == "present":
                if does == "asks":
                    return answer, ""
                answer = Derived("unclear", f"word '{words}', but asked, reported or dictated")
            if clearest is None or _CLARITY[answer.presence] < _CLARITY[clearest.presence]:
                clearest = answer
    if clearest is not None:
        return clearest, ""
    refused = next((hit[0] for clause in denied if (hit := _hit(intent, clause)) is not None), None)
    return (Derived("absent", f"denied: {refused}") if refused else None), asked


def _answer(intent: Intent, said: str, hit: str) -> Derived:
    terms, wide = _about(said, intent.words), quantities(said)
    example, like = max(((_close(terms, _about(e, intent.words)), e) for e in intent.examples), default=(0.0, ""))
    counters = (c for c in intent.counter_examples if quantities(c) <= wide and _says(c, intent.words))
    counter, text = max(((_close(_terms(said), _terms(c)), c) for c in counters), default=(0.0, ""))
    if counter >= _SAME > max((_close(_terms(said), _terms(e)) for e in intent.examples), default=0.0):
        return Derived("absent", f"counter-example: {text}")
    if counter >= _NEAR and counter > example:
        return Derived("unclear", f"word '{hit}', but closest to the counter-example: {text}")
    if wide and not any(map(quantities, intent.examples)):
        return Derived("unclear", f"word '{hit}', but '{min(wide)}' stands in no example")
    return Derived("present", f"word '{hit}'" + (f", closest to the example: {like}" if example else ""))


_AFTER = re.compile(r"(?i)^\W*(?:do not|don['’]?t|never|not|please|ever)\b(?:\W+(?:ever|please)\b)*")  # before what is denied
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
    """See `agentgate.intents.deriver.Deriver`. The last turn that says something of an intent decides; a bare "stop" withdraws all."""
    found = {intent.name: Derived("absent", "no word of it in the prompt", silent=True) for intent in intents}
    spoken: set[str] = set()  # intents the user's own words spoke of: no delegation decides them any more
    quiet = set(found)  # intents of which nothing at all was said
    asking = frozenset(intent.name for intent in intents if intent.unheard != "deny")
    unheard = ""  # what was asked for last, where nobody understood it
    taken = ""  # a word that asked for another intent, and so explains its clause
    for index, turn in enumerate(turns):
        words = own_words(turn)
        if index and STOP.match(turn):  # a first turn has nothing to take back: "cancel it" asks for it
            found = {name: Derived("absent", f"withdrawn: {turn.strip()[:80]}") for name in found}
            spoken.clear()
            quiet, unheard, taken = set(found), "", ""
            continue
        spans = list(clauses(words))
        bare = unquoted(words)
        said = [(words[a:b], bare[a:b]) for voice, a, b in spans if voice == "said"]
        denied = [(words[a:b], bare[a:b]) for voice, a, b in spans if voice == "denied"]
        handed = _handed_over(said, denied) if asking or any(i.delegated != "deny" for i in intents) else None
        asked, lower = small(hidden_quotations(words)), small(words)
        back = frozenset(found.end() for found in _CANCELLED.finditer(asked)) if index else frozenset[int]()
        asides: dict[int, str] = {}
        affirmed = [_Clause(words[a:b], asked, a, b, keys_of(asked[a:b]), back, asides, {}) for voice, a, b in spans if voice == "said"]
        refused = [
            _Clause(words[a:b], lower, a, b, keys_of(lower[a:b]), frozenset(), {}, {}) for voice, a, b in spans if voice == "denied" or back
        ]
        for intent in intents:
            answer, looked = _one(intent, affirmed, refused)
            if answer is not None:
                found[intent.name] = answer
                spoken.add(intent.name)
            elif looked and found[intent.name].presence == "absent":
                found[intent.name] = Derived("absent", f"asked about or told of, not asked for: {looked}")
            if answer is None and handed is not None and intent.delegated != "deny" and intent.name not in spoken:
                found[intent.name] = _delegated(intent, handed)
            elif answer is None and not looked:
                continue
            quiet.discard(intent.name)
        if asking & quiet:
            heard = handed is not None or any(answer.presence != "absent" for answer in found.values())
            unheard = _not_understood(intents, affirmed, handed, shapes=not heard) or ("" if heard or denied else unheard)
            taken = _taken(intents, affirmed) or taken
    for name in asking & quiet:
        if unheard:
            found[name] = Derived("unclear", f"not understood: '{unheard}'", silent=True)
        elif taken and found[name].silent:
            found[name] = replace(found[name], evidence=f"{found[name].evidence}; {taken}")
    return found


def _taken(intents: tuple[Intent, ...], said: list[_Clause]) -> str:
    """The first word of a turn that asks for an intent, and whose it is; only shown, to say why nothing was left to be understood."""
    hits = ((intent.name, _hit(intent, clause)) for clause in said for intent in intents)
    return next((f"'{hit[0]}' belongs to {name}" for name, hit in hits if hit is not None and hit[1] == "asks"), "")


def _not_understood(intents: tuple[Intent, ...], said: list[_Clause], handed: Delegation | str | None, *, shapes: bool) -> str:
    """What a turn asks for first that no intent's word and no delegation explains; empty where there is nothing.

    Args:
        intents: the vocabulary.
        said: the turn's affirmed clauses.
        handed: what the turn hands over.
        shapes: whether a piece counts that only shapes another request.
    """
    given = handed.words if isinstance(handed, Delegation) else None
    shaped = ""
    for clause in said:
        if any(_hit(intent, clause) is not None for intent in intents) or (given and given in " ".join(clause.text.split())):
            continue
        for piece in pieces(clause.turn, clause.start, clause.end):
            if piece.what == "look":
                shapes = False
            elif clause.does(piece.start) == "asks":
                words = " ".join(clause.text[piece.start - clause.start : piece.end - clause.start].split())[:_SHOWN]
                if piece.what == "asks":
                    return words
                shaped = shaped or words
    return shaped if shapes else ""


def _handed_over(said: list[tuple[str, str]], denied: list[tuple[str, str]]) -> Delegation | str | None:
    """What this turn hands over, or as text the words with which it takes that back."""
    given = delegation(said)
    if given is not None:
        return given
    refused = delegation((_AFTER.sub(_blank, clause), _AFTER.sub(_blank, bare)) for clause, bare in denied)
    return refused.words if refused is not None else None


def _blank(found: re.Match[str]) -> str:
    return " " * len(found.group())


def _delegated(intent: Intent, handed: Delegation | str) -> Derived:
    """An intent that the user named no word of, where the choice of actions was handed to a source."""
    if isinstance(handed, str):
        return Derived("absent", f"denied: {handed}")
    if handed.doubt:
        return Derived("unclear", f"delegated to {handed.doubt}: '{handed.words}'")
    return Derived("present" if intent.delegated == "present" else "unclear", f"delegated: '{handed.words}'")
