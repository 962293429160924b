"""YAML as plain values with the line and column of each, from the subset of YAML that all
parsers agree on.

Refused, all at once and each at its line and column: duplicate keys, anchors, aliases, tags,
merge keys, directives, more than one document, keys that are not text, unquoted scalars that
parsers type differently (``NO``, ``on``, ``~``, ``010``, ``1.0``, ``12:30``, dates), invisible
characters, and anything over the size or depth limits. So parsing constructs no objects, and
what a reviewer reads is what is loaded. Only `true`, `false` and plain whole numbers are typed;
every other scalar is text.

`inline` writes values as YAML on one line, so that this and every other reader reads them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any, NamedTuple

import yaml

from agentgate.errors import Failure, WorkflowError, place_of, problem_at
from agentgate.values.entities import number

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_NODES = 20_000
MAX_SCALAR = 4096

Path = tuple[str | int, ...]
Place = tuple[int, int]

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})", re.ASCII)
_WORDS = frozenset(["", *"y n yes no on off true false null ~ = <<".split()])
_NUMERIC = re.compile(
    # 010, 1.0, 1_000, 1e3, +1
    r"[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:e[-+]?[0-9]+)?"
    r"|[-+]?0[xob][0-9a-f_]*|[-+]?\.(?:inf|nan)"
    r"|[-+]?[0-9][0-9_]*(?::[0-9]{1,2})+(?:\.[0-9_]*)?",  # 12:30 is 750 to YAML 1.1
    re.ASCII | re.IGNORECASE,
)
_DIGITS = frozenset("0123456789+-.")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?", re.ASCII)


_SCALAR = yaml.ScalarEvent
_END_OF_LIST = yaml.SequenceEndEvent
_END_OF_MAPPING = yaml.MappingEndEvent


def dotted(path: Path) -> str:
    """``tools.orders.get.needs[0]`` for a path; ``document`` for the root."""
    out = ""
    for part in path:
        out += f"[{part}]" if type(part) is int else f".{part}" if out else str(part)
    return out or "document"


def closest(got: object, choices: Any) -> str:
    """What was probably meant, of `choices`; empty: nothing is like it."""
    return (
        next(iter(get_close_matches(got, sorted(choices), n=1, cutoff=0.65)), "")
        if isinstance(got, str)
        else ""
    )


def did_you_mean(got: object, choices: Any) -> str:
    """``did you mean 'refund'?`` for the closest of `choices`, or nothing."""
    close = closest(got, choices)
    return f"did you mean '{close}'?" if close else ""


def shown(value: object) -> str:
    """A value as a message shows it: quoted when text, cut at 60 characters, control characters
    escaped.
    """
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool) or value is None:
        return "nothing" if value is None else str(value).lower()
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _from_one(mark: Any) -> Place:
    """Line and column of one of the parser's marks, counted from 1."""
    return (mark.line + 1, mark.column + 1)


class Node(NamedTuple):
    """The position of one value: the marks of its key (None in a list and at the root) and of
    itself, and the nodes inside it.
    """

    key: Any
    value: Any
    inside: dict[Any, Node] | None

    @property
    def line(self) -> int:
        """Line of the key (of the value, in a list)."""
        return int((self.value if self.key is None else self.key).line) + 1


def node_at(node: Node | None, path: Path) -> Node | None:
    """The node at this path inside a node; None where the file has none."""
    for part in path:
        if node is None or node.inside is None:
            return None
        node = node.inside.get(part)
    return node


# a third cheaper than its constructor; a file has hundreds of nodes
_node = partial(tuple.__new__, Node)


@dataclass(slots=True)
class Document:
    """A parsed file.

    Attributes:
        file: the path that messages name.
        value: dict, list, str, int or bool.
        root: the position of every value.
        problems: findings so far.
        hushed: blocks with an unreadable part; later findings about such a block or its parts
            are only its consequences.
    """

    file: str
    value: Any = None
    root: Node | None = None
    problems: list[Failure] = field(default_factory=list)
    hushed: set[Path] = field(default_factory=set)

    def node(self, path: Path) -> Node | None:
        """The node at exactly this path, or None where the file has none."""
        return node_at(self.root, path)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Line and column, from 1, of the value (or key) at `path`; of the nearest enclosing
        key where the file has none.
        """
        node = self.node(path)
        while node is None and path:
            path = path[:-1]
            key = True
            node = self.node(path)
        if node is None:
            return (1, 1)
        return _from_one(node.key if key and node.key is not None else node.value)

    def line(self, path: Path) -> int:
        """Line of the key of `path` (of the value, in a list)."""
        node = self.node(path)
        return node.line if node is not None else self.place(path, key=True)[0]

    def report(
        self, path: Path, got: str, expected: str, hint: str = "", *, key: bool = False
    ) -> None:
        """Add a finding at `path`; a place keeps its first finding only (later ones are its
        consequences).
        """
        if path not in self.hushed and path[:-1] not in self.hushed:
            self.add(
                problem_at(
                    self.file, *self.place(path, key=key), dotted(path), got, expected, hint
                ).with_data(block=path[:1])
            )

    def add(self, problem: Failure) -> None:
        """Add a finding unless its field has one at this place; unprintable text is escaped."""
        parts = (problem.field, problem.got, problem.expected, problem.hint)
        if not all(map(str.isprintable, parts)):
            visible = [part if part.isprintable() else ascii(part)[1:-1] for part in parts]
            problem = problem_at(self.file, *place_of(problem), *visible)
        if not any(
            (place_of(p), p.field) == (place_of(problem), problem.field) for p in self.problems
        ):
            self.problems.append(problem)

    def refuse(self) -> None:
        """Raise when there are findings.

        Raises:
            WorkflowError: with every finding, in the order of the file.
        """
        if self.problems:
            raise WorkflowError(sorted(self.problems, key=place_of))


class _StoppedError(Exception):
    """The rest of the file cannot be read; the document already has the finding."""


class _Reader:
    """One pass over libyaml's events (its nodes no longer carry anchors and tags)."""

    def __init__(self, text: str, document: Document) -> None:
        self._next: Callable[[], Any] = yaml.CBaseLoader(text).get_event
        self._document = document
        self._path: list[str | int] = []
        self._count = 0

    def read(self) -> None:
        document = self._document
        self._next()
        event = self._next()
        if type(event) is yaml.StreamEndEvent:
            document.report((), "an empty file", "one YAML document")
            return
        if event.version or event.tags:
            self._at(event, "a directive", "none (%YAML and %TAG change how the rest is read)")
        document.value, document.root = self._value(self._next(), None)
        self._next()
        event = self._next()
        if type(event) is not yaml.StreamEndEvent:
            self._at(event, "a second document", "one document per file")

    def _at(self, event: Any, got: str, expected: str) -> None:
        self._document.add(
            problem_at(
                self._document.file,
                *_from_one(event.start_mark),
                dotted(tuple(self._path)),
                got,
                expected,
            )
        )

    def _value(self, event: Any, key: Any) -> tuple[Any, Node]:
        self._count += 1
        if self._count > MAX_NODES:
            self._at(event, f"more than {MAX_NODES} values", f"at most {MAX_NODES}")
            raise _StoppedError
        text = _text(event)
        if text is not None:
            return text, _node((key, event.start_mark, None))
        kind = type(event)
        if kind is yaml.AliasEvent:
            self._at(
                event,
                f"an alias *{event.anchor}",
                "the value itself (aliases hide what is approved)",
            )
            return "", Node(key, event.start_mark, None)
        if event.anchor is not None:
            self._at(
                event,
                f"an anchor &{event.anchor}",
                "no anchors (write the value where it is used)",
            )
        if event.tag is not None:
            self._at(
                event, f"a tag {event.tag}", "no tags (a value's type is how it is written)"
            )
        if kind is _SCALAR:
            return self._scalar(event), _node((key, event.start_mark, None))
        if len(self._path) >= MAX_DEPTH:
            self._at(event, f"nesting deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels")
            raise _StoppedError
        inside: dict[Any, Node] = {}
        value = self._mapping(inside) if kind is yaml.MappingStartEvent else self._list(inside)
        return value, _node((key, event.start_mark, inside))

    def _list(self, inside: dict[Any, Node]) -> list[Any]:
        out: list[Any] = []
        path = self._path
        following = self._next
        while type(event := following()) is not _END_OF_LIST:
            index = len(out)
            path.append(index)
            value, inside[index] = self._value(event, None)
            out.append(value)
            path.pop()
        return out

    def _mapping(self, inside: dict[Any, Node]) -> dict[str, Any]:
        out = {}
        path = self._path
        following = self._next
        while type(event := following()) is not _END_OF_MAPPING:
            key = _text(event)
            if key is None or key == "<<":
                key = self._key(event)
            path.append(key)
            if key in out:
                self._at(
                    event,
                    f"the key '{key}' again",
                    f"each key once (first on line {inside[key].key.line + 1}; readers "
                    "differ on which one counts)",
                )
                self._value(following(), None)  # read on, to report its own problems too
            else:
                out[key], inside[key] = self._value(following(), event.start_mark)
            path.pop()
        return out

    def _key(self, event: Any) -> str:
        if type(event) is not yaml.ScalarEvent:
            self._at(event, "a key that is not text", "keys that are text")
            if type(event) is not yaml.AliasEvent:
                self._path.append("?")
                self._value(event, None)
                self._path.pop()
            return "?"
        value: str = event.value
        if event.anchor is not None or event.tag is not None:
            self._at(event, "an anchor or tag on a key", "a plain key")
        self._path.append(value)
        if value == "<<":
            self._at(event, "a merge key <<", "every key written out")
        elif type(self._scalar(event)) is not str:
            self._at(event, f"the unquoted key {value}", f'keys that are text: "{value}"')
        self._path.pop()
        return value

    def _scalar(self, event: Any) -> str | int | bool:
        value: str = event.value
        if len(value) > MAX_SCALAR:
            self._at(event, f"{len(value)} characters", f"at most {MAX_SCALAR}")
        if not event.implicit[0]:  # quoted or a block: text
            # escapes of invisible characters
            if not value.isprintable() and not value.replace("\n", "").isprintable():
                self._at(event, shown(value), "text without control or invisible characters")
            return value
        if value[:1] in _DIGITS:
            if _INTEGER.fullmatch(value) and value != "-0":
                return int(value)
            if _NUMERIC.fullmatch(value) or _DATE.fullmatch(value):
                self._at(
                    event,
                    f"unquoted {value}",
                    f'text in quotes: "{value}" (YAML readers disagree on its type)',
                )
        elif len(value) <= len("false") and value.lower() in _WORDS:
            if value in {"true", "false"}:
                return value == "true"
            what = f"unquoted {value}" if value else "an empty value"
            self._at(
                event,
                what,
                f'text in quotes: "{value}" (YAML readers disagree on its type)'
                if value
                else "a value",
            )
        return value


def _text(event: Any) -> str | None:
    """The text of most scalars, with which nothing is wrong; None for any other event, which
    must be looked at.
    """
    if type(event) is not _SCALAR or event.anchor is not None or event.tag is not None:
        return None
    value: str = event.value
    if event.implicit[0]:
        return value if reads_as_text(value) else None
    return value if len(value) <= MAX_SCALAR and value.isprintable() else None


@lru_cache(maxsize=4096)
def reads_as_text(value: str) -> bool:
    """Whether every parser reads this scalar, unquoted, as text: it is no word and begins like
    no number that some parsers type.
    """
    return len(value) <= MAX_SCALAR and value[:1] not in _DIGITS and value.lower() not in _WORDS


def read_yaml(text: str, file: str) -> Document:
    """Read one YAML document.

    Args:
        text: the file's content.
        file: its name in messages.

    Returns:
        The document; where `problems` is not empty, its value serves only to find further
            problems.

    Raises:
        WorkflowError: the text cannot be read to its end as one document.
    """
    document = Document(file)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        document.report((), f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES} bytes")
        document.refuse()
    if not (text.isascii() and text.replace("\n", "").isprintable()):
        _refuse_invisible(text, document)
    try:
        _Reader(text, document).read()
    except _StoppedError:
        document.refuse()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        got = f"an error ({getattr(error, 'problem', None) or shown(str(error))})"
        document.add(
            problem_at(file, *(_from_one(mark) if mark else (1, 1)), "document", got, "YAML")
        )
        document.refuse()
    return document


def _refuse_invisible(text: str, document: Document) -> None:
    """Bidirectional overrides, zero-width characters, byte-order marks: a reviewer would read
    another file than the loader.
    """
    for row, line in enumerate(text.split("\n"), 1):
        column, char = next(
            (
                (c, char)
                for c, char in enumerate(line.removesuffix("\r"), 1)
                if not char.isprintable()
            ),
            (0, ""),
        )
        if char:
            got = f"the character U+{ord(char):04X}"
            document.add(
                problem_at(
                    document.file,
                    row,
                    column,
                    "document",
                    got,
                    "printable text and line feeds",
                )
            )
    document.refuse()


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.@/-]*", re.ASCII)


def inline(value: Any) -> str:
    """A value as YAML on one line, quoted where parsers would read it differently."""
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{inline(str(key))}: {inline(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    exact = number(value) if isinstance(value, float) else None
    # a workflow does not read 1e-05 as a number
    text = str(value) if exact is None else f"{exact:f}"
    if _PLAIN.fullmatch(text) and reads_as_text(text):
        return text
    if not text.isprintable():  # a line break, in a prompt
        return json.dumps(text, ensure_ascii=False)
    return "'" + text.replace("'", "''") + "'"
