"""Regular languages through derivatives: which combinations of several patterns one text can
match, each with its shortest text.

Rules: all character sets of a question are divided into *atoms* that no pattern distinguishes;
a state is what remains of each pattern after a text (its Brzozowski derivative); the walk over
states is breadth first, so the first text of a combination is a shortest one. The walk is
finite, because terms are kept in a normal form; a question with too many states is `TooLarge`,
never answered in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from agentgate.values.characters import READABLE, Ranges, inside, union
from agentgate.values.expression import Both, Chars, Either, Expression, Not, Repeat, Then

MAX_STATES = 20_000
MAX_WORK = 300_000  # derivatives and their parts, in one question
MAX_WORK_IN_ALL = 3_000_000  # the same, in one comparison
# no text; the empty text; every text
_NONE = 0
_EMPTY = 1
_ALL = 2
Vector = tuple[bool, ...]
Key = tuple[Any, ...]
State = tuple[int, ...]
Groups = Sequence[tuple[int, ...]]
# where a state of a walk was reached from, and by which atom; None: the start
_Parents = dict[State, tuple[State, int] | None]


class TooLarge(Exception):
    """The answer would take more states than a reviewer should wait for."""


class Budget:
    """How much work is left for all questions of one comparison: its patterns are untrusted,
    written by the author of the change.
    """

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_WORK_IN_ALL) -> None:
        self.left = left

    def spend(self, work: int) -> None:
        """Use up some of it. Raises TooLarge: nothing is left."""
        self.left -= work
        if self.left < 0:
            raise TooLarge


def _sets(part: Expression, sets: dict[Ranges, None]) -> None:
    if isinstance(part, Chars):
        sets[part.ranges] = None
    elif isinstance(part, Not | Repeat):
        _sets(part.part, sets)
    else:
        for inner in part.parts:
            _sets(inner, sets)


class Language:
    """Several expressions over one alphabet of atoms. A term is a number: equal terms are the
    same number.
    """

    def __init__(
        self, expressions: Sequence[Expression], alphabet: Ranges, budget: Budget | None = None
    ) -> None:
        self._own = Budget(MAX_WORK)
        self._shared = budget or Budget()
        sets: dict[Ranges, None] = {}
        for expression in expressions:
            _sets(expression, sets)
        self._atoms(list(sets), alphabet)
        self._known: dict[Key, int] = {}
        self._terms: list[Key] = []
        self._nullable: list[bool] = []
        self._derived: dict[tuple[int, int], int] = {}
        for key, nullable in ((("none",), False), (("empty",), True), (("all",), True)):
            self._term(key, nullable)
        self.start = tuple(self._compiled(e) for e in expressions)

    # --- the alphabet -------------------------------------------------------------------------
    def _atoms(self, sets: list[Ranges], alphabet: Ranges) -> None:
        cuts = sorted(
            {p for ranges in (alphabet, *sets) for low, high in ranges for p in (low, high + 1)}
        )
        groups: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
        for low, following in pairwise(cuts):
            if inside(alphabet, low):
                groups.setdefault(tuple(inside(s, low) for s in sets), []).append(
                    (low, following - 1)
                )
        atoms = sorted((self._shown(union(parts)), member) for member, parts in groups.items())
        self.letters = [chr(letter) for (_, letter), _ in atoms]
        self._parts = [groups[member] for _, member in atoms]
        self._masks = {
            ranges: sum(1 << a for a, (_, member) in enumerate(atoms) if member[i])
            for i, ranges in enumerate(sets)
        }
        self._every = (1 << len(atoms)) - 1

    @staticmethod
    def _shown(ranges: Ranges) -> tuple[int, int]:
        """The most readable character of an atom: its rank (lower is better) and code point."""
        for rank, letter in enumerate(READABLE):
            if inside(ranges, ord(letter)):
                return rank, ord(letter)
        return len(READABLE), ranges[0][0]

    # --- terms --------------------------------------------------------------------------------
    def _term(self, key: Key, nullable: bool) -> int:  # noqa: FBT001 - the one property of a term
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = len(self._terms)
            self._terms.append(key)
            self._nullable.append(nullable)
        return known

    def _compiled(self, part: Expression) -> int:
        match part:
            case Chars():
                return self._chars(self._masks[part.ranges])
            case Then():
                term = _EMPTY
                for inner in reversed(part.parts):
                    term = self._then(self._compiled(inner), term)
                return term
            case Either():
                return self._either([self._compiled(p) for p in part.parts])
            case Both():
                return self._both([self._compiled(p) for p in part.parts])
            case Not():
                return self._not(self._compiled(part.part))
            case Repeat():
                return self._repeat(self._compiled(part.part), part.low, part.high)

    def _chars(self, mask: int) -> int:
        return self._term(("chars", mask), False) if mask else _NONE

    def _then(self, one: int, other: int) -> int:
        if _NONE in {one, other}:
            return _NONE
        if one == _EMPTY:
            return other
        if other == _EMPTY:
            return one
        first = []
        # a sequence nests to the right, so that equal terms are one
        while self._terms[one][0] == "then":
            first.append(self._terms[one][1])
            one = self._terms[one][2]
        self._spend(len(first))
        term = (
            _ALL
            if one == other == _ALL
            else self._term(("then", one, other), self._nullable[one] and self._nullable[other])
        )
        for part in reversed(first):
            term = self._term(
                ("then", part, term), self._nullable[part] and self._nullable[term]
            )
        return term

    def _either(self, parts: list[int]) -> int:
        flat = set()
        mask = 0
        for part in parts:
            key = self._terms[part]
            for each in key[1] if key[0] == "either" else (part,):
                if self._terms[each][0] == "chars":
                    mask |= self._terms[each][1]
                elif each != _NONE:
                    flat.add(each)
        if _ALL in flat:
            return _ALL
        if mask:
            flat.add(self._chars(mask))
        if _EMPTY in flat and any(self._nullable[p] for p in flat if p != _EMPTY):
            flat.discard(_EMPTY)
        if len(flat) < 2:
            return next(iter(flat), _NONE)
        self._spend(len(flat))
        return self._term(("either", tuple(sorted(flat))), any(self._nullable[p] for p in flat))

    def _both(self, parts: list[int]) -> int:
        flat = set()
        for part in parts:
            key = self._terms[part]
            flat |= set(key[1]) if key[0] == "both" else {part}
        flat.discard(_ALL)
        if _NONE in flat:
            return _NONE
        if len(flat) < 2:
            return next(iter(flat), _ALL)
        return self._term(("both", tuple(sorted(flat))), all(self._nullable[p] for p in flat))

    def _not(self, part: int) -> int:
        if part in {_NONE, _ALL}:
            return _NONE + _ALL - part
        key = self._terms[part]
        return (
            int(key[1])
            if key[0] == "not"
            else self._term(("not", part), not self._nullable[part])
        )

    def _repeat(self, part: int, low: int, high: int | None) -> int:
        if part in {_NONE, _EMPTY}:
            return _EMPTY if part == _EMPTY or low == 0 else _NONE
        if high == 0:
            return _EMPTY
        if self._nullable[part]:
            low = 0
        if (low, high) == (1, 1):
            return part
        key = self._terms[part]
        if high is None and low == 0 and (key == ("chars", self._every) or part == _ALL):
            return _ALL
        return self._term(("repeat", part, low, high), low == 0)

    def derived(self, term: int, atom: int) -> int:
        """What remains of a term after one character of an atom."""
        place = (term, atom)
        known = self._derived.get(place)
        if known is None:
            self._spend(1)
            known = self._derived[place] = self._derive(term, atom)
        return known

    def _spend(self, work: int) -> None:
        self._own.spend(work)
        self._shared.spend(work)

    def _derive(self, term: int, atom: int) -> int:
        key = self._terms[term]
        kind = key[0]
        if kind == "chars":
            return _EMPTY if key[1] >> atom & 1 else _NONE
        if kind == "then":
            first = self._then(self.derived(key[1], atom), key[2])
            return (
                self._either([first, self.derived(key[2], atom)])
                if self._nullable[key[1]]
                else first
            )
        if kind == "either":
            return self._either([self.derived(p, atom) for p in key[1]])
        if kind == "both":
            return self._both([self.derived(p, atom) for p in key[1]])
        if kind == "not":
            return self._not(self.derived(key[1], atom))
        if kind == "repeat":
            rest = self._repeat(
                key[1], max(key[2] - 1, 0), None if key[3] is None else key[3] - 1
            )
            return self._then(self.derived(key[1], atom), rest)
        return _ALL if term == _ALL else _NONE

    # --- questions ----------------------------------------------------------------------------
    def vectors(
        self,
        groups: Groups = ((),),
        enough: Callable[[dict[Vector, str]], bool] = lambda _: False,
    ) -> dict[Vector, str]:
        """Every combination of expressions that some text matches, with a shortest such text.

        Args:
            groups: only texts that match all expressions of one of these groups (by index)
                count.
            enough: called after each new combination; True ends the walk early.

        Raises:
            TooLarge: more than `MAX_STATES` states.
        """
        shortest: dict[Vector, str] = {}
        for state, parent in self._walk(groups):
            vector = self._vector(state)
            if vector not in shortest and any(
                all(vector[i] for i in group) for group in groups
            ):
                shortest[vector] = self._text(state, parent)
                if enough(shortest):
                    break
        return shortest

    def texts(self, wanted: Callable[[Vector], bool]) -> str | None:
        """A shortest text whose combination is wanted, or None when there is none."""
        return next(
            (
                self._text(state, parent)
                for state, parent in self._walk(((),))
                if wanted(self._vector(state))
            ),
            None,
        )

    def _walk(self, groups: Groups) -> Iterator[tuple[State, _Parents]]:
        """Every state from which a text that counts can still follow, nearest first, with how
        each was reached.
        """
        parent: _Parents = {self.start: None}
        waiting = [self.start]
        for state in waiting:
            yield state, parent
            for atom in range(len(self.letters)):
                after = tuple([self.derived(term, atom) for term in state])
                if after not in parent and any(
                    all(after[i] != _NONE for i in group) for group in groups
                ):
                    if len(parent) >= MAX_STATES:
                        raise TooLarge
                    parent[after] = (state, atom)
                    waiting.append(after)

    def _text(self, state: State, parent: _Parents) -> str:
        """The text on the way to a state of a walk."""
        letters = []
        while (step := parent[state]) is not None:
            state = step[0]
            letters.append(self.letters[step[1]])
        return "".join(reversed(letters))

    def _vector(self, state: State) -> Vector:
        return tuple([self._nullable[term] for term in state])
