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
from dataclasses import dataclass, field
from itertools import chain, compress, pairwise
from typing import Any

from agentgate.values.characters import READABLE, Ranges, inside, union
from agentgate.values.expression import Both, Chars, Either, Expression, Not, Repeat, Then

MAX_STATES = 20_000
MAX_WORK = 300_000  # derivatives and their parts, in one question
MAX_WORK_IN_ALL = 3_000_000  # the same, in one comparison
Vector = tuple[bool, ...]
Groups = Sequence[tuple[int, ...]]
Texts = dict[Vector, str]  # the first of each combination


@dataclass(slots=True, eq=False)
class Term:
    """What remains to be matched. Equal terms of one language are one object.

    Attributes:
        kind: of the expression: ``chars``, ``then``, ``either``, ``not``, ``repeat``; or one of
            the three texts below.
        parts: what it is made of: terms, a set of atoms as a mask, how often.
        nullable: the empty text matches it.
        after: what remains of it after one character of an atom, as far as it was asked.
    """

    kind: str
    parts: Any
    nullable: bool
    after: dict[int, Term] = field(default_factory=dict)


_NONE = Term("none", (), False)  # no text
_EMPTY = Term("empty", (), True)  # the empty text
_ALL = Term("all", (), True)  # every text
State = tuple[Term, ...]
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


def _collect_sets(
    part: Expression,
    character_sets: dict[Ranges, None],
) -> None:
    if isinstance(part, Chars):
        character_sets[part.ranges] = None
    elif isinstance(part, Not | Repeat):
        _collect_sets(part.part, character_sets)
    else:
        for inner in part.parts:
            _collect_sets(inner, character_sets)


class Language:
    """Several expressions over one alphabet of atoms."""

    def __init__(
        self,
        expressions: Sequence[Expression],
        alphabet: Ranges,
        budget: Budget | None = None,
    ) -> None:
        self._own = Budget(MAX_WORK)
        self._shared = budget or Budget()
        character_sets: dict[Ranges, None] = {}
        for expression in expressions:
            _collect_sets(expression, character_sets)
        self._atoms(list(character_sets), alphabet)
        self._known: dict[object, Term] = {}
        self.start = tuple(self._compiled(expression) for expression in expressions)

    # --- the alphabet -------------------------------------------------------------------------
    def _atoms(
        self,
        character_sets: list[Ranges],
        alphabet: Ranges,
    ) -> None:
        cuts = set[int]()
        for low, high in chain(alphabet, *character_sets):
            cuts |= {low, high + 1}
        groups: dict[Vector, list[tuple[int, int]]] = {}
        for low, following in pairwise(sorted(cuts)):
            if inside(alphabet, low):
                membership = tuple(inside(ranges, low) for ranges in character_sets)
                groups.setdefault(membership, []).append((low, following - 1))
        atoms = sorted(
            [(self._shown(union(parts)), membership) for membership, parts in groups.items()]
        )
        self.letters = [chr(letter) for (_, letter), _ in atoms]
        self._masks = dict.fromkeys(character_sets, 0)
        for atom, (_, membership) in enumerate(atoms):
            for ranges in compress(character_sets, membership):
                self._masks[ranges] |= 1 << atom
        self._every = (1 << len(atoms)) - 1

    @staticmethod
    def _shown(ranges: Ranges) -> tuple[int, int]:
        """The most readable character of an atom: its rank (lower is better) and code point."""
        for rank, letter in enumerate(READABLE):
            if inside(ranges, ord(letter)):
                return rank, ord(letter)
        return len(READABLE), ranges[0][0]

    # --- terms --------------------------------------------------------------------------------
    def _term(self, kind: str, parts: Any, nullable: bool) -> Term:  # noqa: FBT001 - the one property of a term
        known = self._known.get((kind, parts))
        if not known:
            known = self._known[kind, parts] = Term(kind, parts, nullable)
        return known

    def _compiled(self, part: Expression) -> Term:
        match part:
            case Chars():
                return self._chars(self._masks[part.ranges])
            case Then():
                term = _EMPTY
                for inner in reversed(part.parts):
                    term = self._then(self._compiled(inner), term)
                return term
            case Either():
                return self._either([self._compiled(inner) for inner in part.parts])
            case Both():  # by De Morgan's law, so that terms have one form fewer
                others = [self._not(self._compiled(inner)) for inner in part.parts]
                return self._not(self._either(others))
            case Not():
                return self._not(self._compiled(part.part))
            case Repeat():
                return self._repeat(self._compiled(part.part), part.low, part.high)

    def _chars(self, mask: int) -> Term:
        return self._term("chars", mask, False) if mask else _NONE

    def _then(self, one: Term, other: Term) -> Term:
        if one is _NONE or other is _NONE:
            return _NONE
        if one is _EMPTY:
            return other
        if other is _EMPTY:
            return one
        # a sequence nests to the right, so that equal terms are one
        first = [one]
        while first[-1].kind == "then":
            first[-1:] = first[-1].parts
        self._spend(len(first) - 1)
        for part in reversed(first):
            if not (part is other is _ALL):
                nullable = part.nullable and other.nullable
                other = self._term("then", (part, other), nullable)
        return other

    def _either(self, parts: list[Term]) -> Term:
        flat = set[Term]()
        mask = 0
        for part in parts:
            for each in part.parts if part.kind == "either" else (part,):
                if each.kind == "chars":
                    mask |= each.parts
                elif each is not _NONE:
                    flat.add(each)
        if _ALL in flat:
            return _ALL
        if mask:
            flat.add(self._chars(mask))
        if any(part.nullable for part in flat - {_EMPTY}):
            flat.discard(_EMPTY)
        if len(flat) < 2:
            return next(iter(flat), _NONE)
        self._spend(len(flat))
        nullable = any(part.nullable for part in flat)
        return self._term("either", frozenset(flat), nullable)

    def _not(self, part: Term) -> Term:
        if part is _NONE:
            return _ALL
        if part is _ALL:
            return _NONE
        if part.kind == "not":
            other: Term = part.parts
            return other
        return self._term("not", part, not part.nullable)

    def _repeat(
        self,
        part: Term,
        low: int,
        high: int | None,
    ) -> Term:
        if high == 0 or part is _EMPTY:
            return _EMPTY
        if part is _NONE:
            return _EMPTY if low == 0 else _NONE
        if part.nullable:
            low = 0
        if (low, high) == (1, 1):
            return part
        every = {_ALL, self._chars(self._every)}
        if part in every and (low, high) == (0, None):
            return _ALL
        return self._term("repeat", (part, low, high), low == 0)

    def derived(self, term: Term, atom: int) -> Term:
        """What remains of a term after one character of an atom."""
        known = term.after.get(atom)
        if not known:
            self._spend(1)
            known = term.after[atom] = self._derive(term, atom)
        return known

    def _spend(self, work: int) -> None:
        self._own.spend(work)
        self._shared.spend(work)

    def _derive(self, term: Term, atom: int) -> Term:
        match term.kind:
            case "chars":
                return _EMPTY if term.parts >> atom & 1 else _NONE
            case "then":
                first, rest = term.parts
                after = self._then(self.derived(first, atom), rest)
                if not first.nullable:
                    return after
                return self._either([after, self.derived(rest, atom)])
            case "either":
                return self._either([self.derived(part, atom) for part in term.parts])
            case "not":
                return self._not(self.derived(term.parts, atom))
            case "repeat":
                part, low, high = term.parts
                fewer = max(low - 1, 0)
                rest = self._repeat(part, fewer, high and high - 1)
                return self._then(self.derived(part, atom), rest)
        return _ALL if term is _ALL else _NONE

    # --- questions ----------------------------------------------------------------------------
    def vectors(
        self,
        groups: Groups = ((),),
        enough: Callable[[Texts], bool] = lambda _: False,
    ) -> Texts:
        """Every combination of expressions that some text matches, with a shortest such text.

        Args:
            groups: only texts that match all expressions of one of these groups (by index)
                count.
            enough: called after each new combination; True ends the walk early.

        Raises:
            TooLarge: more than `MAX_STATES` states.
        """
        shortest: Texts = {}
        for state, parent in self._walk(groups):
            vector = _vector(state)
            if vector not in shortest and _meets_a_group(vector, groups):
                shortest[vector] = self._text(state, parent)
                if enough(shortest):
                    break
        return shortest

    def texts(self, wanted: Callable[[Vector], bool]) -> str | None:
        """A shortest text whose combination is wanted, or None when there is none."""
        for state, parent in self._walk(((),)):
            if wanted(_vector(state)):
                return self._text(state, parent)
        return None

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
                if after in parent:
                    continue
                possible = tuple([term is not _NONE for term in after])
                if _meets_a_group(possible, groups):
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


def _vector(state: State) -> Vector:
    return tuple([term.nullable for term in state])


def _meets_a_group(vector: Vector, groups: Groups) -> bool:
    return any(all(vector[index] for index in group) for group in groups)
