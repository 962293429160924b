"""Which rows of a read the user's words mean: by the words in the rows (`named_by`), or by a
superlative.

Labels: a row is meant when all content words of one of its labels are among the user's words,
and no other thing in the result shares these words (and perhaps more); where the user says no
label in full, only the one thing that shares the most. A tie means no row. Words are compared
without case and common English endings, and without those that carry no meaning ("the", "re");
a label written letter by letter shares one part more. A read whose arguments the model chose
means no row: it could leave out what ties. An e-mail address is a label by the part before the
@, for words that the user wrote as a name (with a capital, or in an address), and in full only
where the user wrote all of it; numbers, dates, accounts and ids count only as a whole. Quoted
and denied words count, forwarded text does not: this only narrows what may be an origin, so a
title in quotes is as good as any other. Whoever can write a row chooses its label, and so which
words mean it: labels take rows away from such a person, they never make a row trusted that was
not. A result with rows left out means no row. Where the user's words speak of the user ("assign
it to me"), the one thing that carries their id counts too (`own_row`); it stands for no words.

Selectors: "the largest file" names one row without naming its id. The user's own affirmed words
must carry it: a superlative of a closed list (`agentgate.workflow.rule.SELECTORS`), directly
before a noun that the workflow declares, in the singular (or "of the ..."), with nothing that
narrows the set: "the second largest file", "Bob's latest e-mail" and "the oldest invoice from
March" select nothing, because the gate cannot check what narrows them. Denied words withdraw
it. The row then follows from declared fields: the one extreme value among all rows of one call.
A tie, a row without the field, and rows that were left out select nothing. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from agentgate.language.first_person import of_self
from agentgate.language.prompt import Prompt
from agentgate.language.stems import WORD, stem, stems
from agentgate.language.turn import Turn
from agentgate.values.entities import Key, normal
from agentgate.values.paths import CUT
from agentgate.values.value_class import once
from agentgate.workflow.rule import SELECTORS, Fact, Rule, Selector

MAX_CLAUSE = 4000  # characters; a longer clause selects nothing
_NARROWS = re.compile(r"(?i)\s*(?:only|just|if|unless|provided|when|where)\b")


def chosen(selector: Selector, spoken: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The keys of a selector that the user's words carry.

    Args:
        selector: as declared.
        spoken: the clauses of all turns in order, as (voice, text); a denied one takes back,
            and narrows what it continues.
    """
    carried: set[str] = set()
    for voice, clause, excepted in _with_exceptions(spoken):
        if len(clause) > MAX_CLAUSE or excepted:
            continue
        for key, form in selector.forms:
            if form.search(clause) is not None:
                if voice == "said":
                    carried.add(key)
                else:
                    carried.discard(key)
    return frozenset(carried)


def _with_exceptions(spoken: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, bool]]:
    """Each clause, and whether the sentence goes on to narrow it: "the largest file, but not
    a.txt", "..., only if it is old".
    """
    said = [(voice, clause) for voice, clause in spoken if clause.strip()]
    for (voice, clause), (following, after) in pairwise([*said, ("", "")]):
        goes_on = voice == "said" and clause.rstrip()[-1] not in ".!?;"
        narrows = following == "denied" or _NARROWS.match(after) is not None
        yield voice, clause, goes_on and narrows


def picked(
    key: str, by: Fact, of: Fact, rows: tuple[Mapping[str, Any], ...]
) -> Mapping[str, Any] | None:
    """The one row with the extreme value of `by`; None when it is not the only one, or not all
    rows are known.
    """
    if not rows or CUT in rows[-1]:
        return None
    currencies = [row.get(by.currency) for row in rows] if by.currency else [""]
    values = [
        (normal(by.type, row.get(by.name)), normal(of.type, row.get(of.name)), row)
        for row in rows
    ]
    if any(type(c) is not str or c != currencies[0] for c in currencies):
        return None
    if any(value is None or name is None for value, name, _ in values):
        return None
    pick = max if SELECTORS[key][1] else min
    extreme = pick((value for value, _, _ in values), key=_rank)
    best = [(name, row) for value, name, row in values if value == extreme]
    names = {name for name, _ in best}
    return best[0][1] if len(names) == 1 else None


def _rank(value: Any) -> Any:
    """Numbers by size; dates and times, in their normal form, by their text."""
    return value if isinstance(value, Decimal) else str(value)


Row = Mapping[str, Any]  # of a result, or the arguments of a call
# label types compared by their words; the others as a whole
WORDED = frozenset({"text", "path", "user", "channel", "email"})
PERSONAL = frozenset({"user", "email", "id"})  # label types that may be the user's own id
# different sets of shared words that are compared; a result with more means no row
MAX_SETS = 256

_ADDRESS = re.compile(r"([\w.+%-]{1,64})@[\w.-]{1,255}")


class Heard(NamedTuple):
    """The stems of the user's words, and of those written as names."""

    words: frozenset[str]
    names: frozenset[str]


def heard(texts: tuple[str, ...]) -> Heard:
    """The words of the user's turns (without forwarded text)."""
    words = set()
    names: set[str] = set()
    for text in texts:
        plain = unicodedata.normalize("NFKC", text)
        for address in _ADDRESS.finditer(plain):
            names |= stems(address[1])
        for word in WORD.findall(_ADDRESS.sub(" ", plain)):
            words.add(stem(word))
            if word[0].isupper():
                names.add(stem(word))
    return Heard(frozenset(words | names) - {""}, frozenset(names) - {""})


@once
def heard_in(prompt: Prompt) -> Heard:
    """All words that are heard."""
    every = [_of_turn(turn)[0] for turn in prompt.turns]
    words = frozenset[str]().union(*(each.words for each in every))
    names = frozenset[str]().union(*(each.names for each in every))
    return Heard(words, names)


@once
def affirmed(prompt: Prompt) -> Heard:
    """The words that the user says: no quotations of somebody, and no words denied in that turn
    or a later one.
    """
    words = set[str]()
    names = set[str]()
    for turn in prompt.turns:
        _, said, denied = _of_turn(turn)
        words |= said.words
        names |= said.names
        words -= denied.words
        names -= denied.words
    return Heard(frozenset(words), frozenset(names))


@once
def _of_turn(turn: Turn) -> tuple[Heard, Heard, Heard]:
    """The words of one turn: all that are heard, those said, those denied."""
    return (
        heard((turn.written,)),
        heard((" ".join(turn.texts("said")),)),
        heard((" ".join(turn.texts("denied")),)),
    )


class _Row(NamedTuple):
    """A row that shares something with the user's words: what it is about, the words, and
    whether one label is said in full.
    """

    key: Key
    row: Row
    shared: frozenset[str]
    whole: bool


def meant(
    of: Fact,
    labels: Iterable[Fact],
    rows: tuple[Row, ...],
    prompt: Prompt,
    words: Heard | None = None,
) -> tuple[Row, ...]:
    """The rows of one call that the user's words mean.

    Args:
        of: the fact that rows are told apart by: two rows with the same value are one thing.
        labels: the facts that name a row.
        rows: all rows of the call.
        prompt: the user's words.
        words: those that count; None: all that are heard.
    """
    if not rows or CUT in rows[-1]:
        return ()
    said = words or heard_in(prompt)
    known = tuple(labels)
    sharing = [
        r for r in (_shares(of, known, row, said, prompt) for row in rows) if r is not None
    ]
    if not any(r.whole for r in sharing):
        most = max((len(r.shared) for r in sharing), default=0)
        best = [r for r in sharing if len(r.shared) == most]
        things = {r.key for r in best}
        return tuple(r.row for r in best) if len(things) == 1 else ()
    keys: dict[frozenset[str], set[Key]] = {}
    for r in sharing:
        keys.setdefault(r.shared, set()).add(r.key)
    if len(keys) > MAX_SETS:
        return ()
    bits = {part: 1 << at for at, part in enumerate(frozenset().union(*keys))}
    masks = {shared: sum(bits[part] for part in shared) for shared in keys}
    alone = {
        shared
        for shared, mask in masks.items()
        if _one_thing(mask, [(masks[other], keys[other]) for other in keys])
    }
    return tuple(r.row for r in sharing if r.whole and r.shared in alone)


def own_row(
    of: Fact, labels: Iterable[Fact], rows: tuple[Row, ...], prompt: Prompt, user: str | None
) -> tuple[Row, ...]:
    """The rows of the one thing that carries the user's own id in a label, where the user's
    words speak of themself.

    In addition to those that the words mean. Two things with this id count as neither: a
    stranger may have written one of them.

    Args:
        of: the fact that rows are told apart by.
        labels: the facts that name a row.
        rows: all rows of the call.
        prompt: the user's words.
        user: the user's id, or None.
    """
    if user is None or not rows or CUT in rows[-1] or not _of_self(prompt):
        return ()
    known = tuple(labels)
    own = tuple([row for row in rows if any(_is_own(label, row, user) for label in known)])
    things = {normal(of.type, row.get(of.name)) for row in own}
    return own if len(things) == 1 else ()


@once
def _of_self(prompt: Prompt) -> bool:
    return of_self(prompt.turns)


def _is_own(label: Fact, row: Row, user: str) -> bool:
    """Whether a label that tells people apart (never free text, which may hold any word) is
    this id, or as a name its part before the @.
    """
    if label.type not in PERSONAL:
        return False
    own = {normal(label.type, user)}
    if label.type == "user" and normal("email", user) is not None:
        own.add(normal("user", user.partition("@")[0]))
    return normal(label.type, row.get(label.name)) in own - {None}


def _one_thing(mask: int, others: list[tuple[int, set[Key]]]) -> bool:
    """Whether all that shares these words, or more, is one thing."""
    things = set()
    for other, keys in others:
        if other & mask == mask:
            things |= keys
            if len(things) > 1:
                return False
    return True


def _shares(
    of: Fact, labels: tuple[Fact, ...], row: Row, said: Heard, prompt: Prompt
) -> _Row | None:
    key = normal(of.type, row.get(of.name))
    if key is None:
        return None
    shared: set[str] = set()
    whole = False
    for label in labels:
        wanted, common = _parts(label, row, said, prompt)
        shared |= common
        whole = whole or (bool(wanted) and common >= wanted)
    return _Row(key, row, frozenset(shared), whole) if shared else None


def _parts(
    label: Fact, row: Row, said: Heard, prompt: Prompt
) -> tuple[frozenset[str], frozenset[str]]:
    """The parts of a label, and those that the user said; the label itself, letter by letter,
    is one more part.
    """
    key = normal(label.type, row.get(label.name))
    currency = row.get(label.currency) if label.currency else ""
    if key is None or type(currency) is not str:
        return frozenset(), frozenset()
    itself = frozenset({f"{label.name}={key}"})
    spelled = itself if prompt.words(label.type, key, currency) is not None else frozenset()
    # said in full only as an address: anybody's may begin with "mark"
    if label.type == "email":
        wanted = stems(str(key).partition("@")[0])
        return wanted | itself, (wanted & said.names) | spelled
    if label.type not in WORDED:
        return itself, spelled
    text = str(key)
    if label.type == "path":  # its last name, without an ending
        name = text.rpartition("/")[2]
        text = name.rpartition(".")[0] or name
    wanted = stems(text)
    return wanted, (wanted & said.words) | spelled


def asked_by_user(
    asked: Iterable[tuple[Rule, Any]], prompt: Prompt, words: frozenset[str] | None = None
) -> bool:
    """Whether the user alone chose which rows a read returned: each argument is fixed, named in
    the prompt, or of the user's words.

    Whoever chooses the rows chooses which of them is unique: a search for one stranger finds no
    tie.

    Args:
        asked: the arguments of the read, each with its rule.
        prompt: the user's words.
        words: a text counts also where all its content words are among these; None: all that
            are heard.
    """
    said = heard_in(prompt).words if words is None else words
    for rule, value in asked:
        key = normal(rule.type, value)
        if key is None:
            return False
        wanted = stems(key) if rule.type == "text" and isinstance(key, str) else frozenset()
        if (
            rule.equals is None
            and not (wanted and wanted <= said)
            and prompt.words(rule.type, key) is None
        ):
            return False
    return True


def row_is(
    where: tuple[tuple[str, str], ...], facts: Mapping[str, Fact], row: Row, args: Row
) -> bool:
    """Whether each of these facts of a row is what the call asked for in the argument beside
    it.
    """
    return all(
        _equal(facts[name], row.get(name), args.get(argument)) for name, argument in where
    )


def _equal(fact: Fact, value: Any, asked: Any) -> bool:
    one = normal(fact.type, value)
    other = normal(fact.type, asked)
    return one is not None and type(one) is type(other) and one == other


def described(fact: Fact) -> Iterator[str]:
    """What a fact requires of its row, for a person."""
    if fact.named_by:
        yield f"the user's words single out its row by {' or '.join(fact.named_by)}"
    yield from (
        f"{name} is what that call asked for as {argument}" for name, argument in fact.where
    )
