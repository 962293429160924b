"""Facts: the declared fields of a tool's result, read as rows.

Rules: only declared fields are read; the rest of a result never becomes an origin. One row
holds values that belong together, so that order A's id is never combined with order B's payee:
a list is read element by element, a value outside the list is repeated in each of its rows, and
values of two different lists never share a row. A value that is missing, null, not a scalar,
too long or without a canonical form is no fact: less is known, and less may be minted. A text
is searched only where a fact declares it: with `find: one` its one entity of that kind is the
fact, and two are none; with `find: any` each number in it is one row. Rows that were left out
leave a mark, so that the largest of a part does not pass for the largest of all. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentgate.errors import CanonicalError
from agentgate.values.canonical import canonical
from agentgate.values.paths import CUT, EACH, FIND, KEY, MAX_FIND, NUMBERS, PAGE, VALUES
from agentgate.values.value_class import value_class

if TYPE_CHECKING:
    from agentgate.language.searched import SearchedText

_NO_DAY = date(2000, 1, 1)  # no kind in `FINDABLE` depends on a day
MAX_ROWS = 1000
MAX_TEXT = 4096  # characters of one value
# bytes of all rows as canonical JSON: half of what a call record may hold
MAX_TOTAL = 128 * 1024
# characters of one result's texts that are looked into; the rows behind are left out
MAX_LOOKED = 4 * MAX_FIND
# what an element of a list counts for: most of a result may be elements that have no facts
_ELEMENT = 16
_MAX_INT = 2**53 - 1

Row = dict[str, Any]


@dataclass(slots=True)
class _Level:
    """What is declared about one element: its own values by path, and the lists inside it by
    path.
    """

    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lists: dict[tuple[str, ...], _Level] = field(default_factory=dict)


def _levels(declared: Mapping[str, tuple[str, ...]]) -> _Level:
    """Declared paths as a tree in which every list is one level, so facts of the same list meet
    in the same rows.
    """
    top = _Level()
    for name, path in declared.items():
        level = top
        rest = path
        while EACH in rest:
            at = rest.index(EACH)
            level = level.lists.setdefault(rest[:at], _Level())
            rest = rest[at + 1 :]
        level.values[name] = rest
    return top


@value_class
class _Entry:
    """One value of an object, with its key."""

    key: Any
    value: Any


@dataclass(slots=True)
class _Looked:
    """How much of a result's texts was looked into, and what was read there: many facts of one
    text cost one reading.
    """

    characters: int = 0
    texts: dict[str, SearchedText] = field(default_factory=dict)

    def into(self, text: str) -> SearchedText:
        """What is in a text."""
        if text not in self.texts:
            from agentgate.language.searched import SearchedText  # noqa: PLC0415 - who reads English only where a fact looks into a text

            self.texts[text] = SearchedText(text, _NO_DAY)
        return self.texts[text]


def _at(value: Any, path: tuple[str, ...], looked: _Looked) -> Any:
    """The value at a path of keys; None when any step is not an object or lacks the key."""
    for key in path:
        if key == KEY:
            return value.key if isinstance(value, _Entry) and type(value.key) is str else None
        value = value.value if isinstance(value, _Entry) else value
        if key in FIND or key == NUMBERS:
            if type(value) is not str or len(value) > MAX_FIND:
                return None
            looked.characters += len(value)
            if looked.characters > MAX_LOOKED:
                return None
            return (
                _numbers(looked.into(value))
                if key == NUMBERS
                else looked.into(value).only(FIND[key])
            )
        if type(value) is dict and key == VALUES:
            value = [_Entry(name, inner) for name, inner in value.items()]
        elif type(value) is dict and key in value:
            value = value[key]
        else:
            return None
    return value.value if isinstance(value, _Entry) else value


def _numbers(text: SearchedText) -> list[str]:
    """Every different number and amount in a text, without its currency, in the order of the
    text.
    """
    found = (
        e.key
        for e in text.entities
        if e.type in {"number", "money"} and isinstance(e.key, Decimal)
    )
    return list(dict.fromkeys(format(key, "f") for key in found))


def scalar(value: Any) -> Any:
    """The value as a fact (an exact JSON scalar; a Decimal becomes its text); None: it is no
    fact.
    """
    kind = type(value)
    if kind is bool:
        return value
    if kind is int:
        return value if -_MAX_INT <= value <= _MAX_INT else None
    if kind is float:
        return value if abs(value) <= _MAX_INT else None  # which neither NaN nor an infinity is
    if kind is Decimal:
        if not value.is_finite() or abs(value.adjusted()) > 15:
            return None
        return format(value, "f")
    if (
        kind is str
        and len(value) <= MAX_TEXT
        and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))
    ):
        return value
    return None


def _rows(level: _Level, element: Any, outer: Row, looked: _Looked) -> Iterator[Row]:
    known = dict(outer)
    for name, path in level.values.items():
        value = scalar(_at(element, path, looked))
        if value is not None:
            known[name] = value
    empty = True
    for path, inner in level.lists.items():
        items = _at(element, path, looked)
        for item in items if type(items) in {list, tuple} else ():
            looked.characters += _ELEMENT
            if looked.characters > MAX_LOOKED:
                yield known
                return
            for row in _rows(inner, item, known, looked):
                empty = False
                yield row
    if empty and known:
        yield known


def check_rows(declared: Iterable[str], rows: Any) -> None:
    """Check what a tool server says are the rows of the declared facts; their types and
    patterns are the decision's.

    Raises:
        CanonicalError: it is something else.
    """
    names = {CUT, PAGE, *declared}
    if (
        type(rows) is not list
        or len(rows) > MAX_ROWS
        or not all(type(row) is dict and row.keys() <= names for row in rows)
    ):
        raise CanonicalError(
            "facts", "something else", f"at most {MAX_ROWS} objects of declared facts"
        )
    if any(scalar(value) is None for row in rows for value in row.values()):
        raise CanonicalError(
            "facts", "another value, or a long one", "text, numbers and booleans"
        )


def recorded(declared: Mapping[str, list[str]], result: Any) -> bytes:
    """The declared facts of a result (name -> path), as the store keeps them.

    Raises:
        CanonicalError: a fact has no canonical form.
    """
    paths = {name: tuple(path) for name, path in declared.items()}
    return canonical(list(extract(paths, result)) if paths else [])


def to_read(declared: Mapping[str, list[str]]) -> int:
    """How many characters may be read in a result for these facts."""
    return (
        MAX_LOOKED
        if any(path and (path[-1] in FIND or NUMBERS in path) for path in declared.values())
        else 0
    )


def extract(declared: Mapping[str, tuple[str, ...]], result: Any) -> tuple[Row, ...]:
    """The rows of facts in a tool's real result.

    Args:
        declared: fact name -> path into the result (`agentgate.workflow.rule.Fact.path`): keys
            of objects; ``[]`` walks a list; ``[values]`` is the list of an object's values,
            with a last ``[key]`` the key of each; a last ``[iban]`` (or another kind of `FIND`)
            is the one entity of that kind in the text there, ``[numbers]`` the list of all
            numbers in it; an empty path is the result itself. `PAGE` is no fact, but the list
            that is counted.
        result: what the tool returned: dicts, lists or tuples, and scalars. Anything else has
            no facts.

    Returns:
        At most `MAX_ROWS` rows, `MAX_TOTAL` bytes altogether, from at most `MAX_LOOKED`
            characters that were looked into; each maps
        names to str, int, float or bool. Later rows are left out, and the last one kept is
            marked with `CUT`.
    """
    rows: list[Row] = []
    total = 0
    looked = _Looked()
    listed = _at(result, declared[PAGE], looked) if PAGE in declared else None
    for row in _rows(
        _levels({name: path for name, path in declared.items() if name != PAGE}),
        result,
        {},
        looked,
    ):
        total += len(canonical(row)) + 1
        if len(rows) == MAX_ROWS or total > MAX_TOTAL or looked.characters > MAX_LOOKED:
            if rows:
                rows[-1][CUT] = True
            break
        rows.append(row)
    if rows and isinstance(listed, list | tuple):
        rows[-1][PAGE] = len(listed)
    return tuple(rows)
