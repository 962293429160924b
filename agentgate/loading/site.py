"""One file while it is compiled: its places, where findings are reported, and what its
references name.

Rules of references: the longest declared tool name wins; a name that is not declared is no
origin; a result of a tool that acts is no origin, except a new id.

Equal values of many workflows are one object (`Sharing`), so that a hundred thousand workflows
fit in memory. Only immutable values are shared, by equality and type; what holds a mapping is
compared by the identity of that mapping, which was shared before. The table lives as long as
the loading, not as long as the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from agentgate.decision.origins.kinds import kind_of, of_call
from agentgate.loading.blocks import ArgumentBlock, Definition, FactBlock
from agentgate.loading.yaml_nodes import Document, Node, Path, did_you_mean, node_at, shown
from agentgate.values.entities import NUMERIC
from agentgate.workflow.model import Tool, Upstream
from agentgate.workflow.rule import BY_YES, COMPUTED, MODEL, PROMPT, USER, Source, Sources

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")

_HOLD_MAPPINGS = frozenset({MappingProxyType, Tool, Upstream})  # have no hash


class Sharing:
    """A table of the values seen so far."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Any, Any] = {}

    def __call__(self, value: T) -> T:
        """The first value equal to this one (hashable, and of elements that equal only their
        own kind).
        """
        return self._seen.setdefault(value, value)  # type: ignore[no-any-return]  # the table maps a value to an equal one of its type

    def built(self, kind: Callable[P, T], *fields: P.args, **named: P.kwargs) -> T:
        """The value with these fields, each as for a call of this table, a mapping, or a value
        that holds one and was shared before.

        It is built only for the first of equal ones: what it works out of its fields is worked
        out once.
        """
        key = (
            kind,
            tuple(map(_compared, fields)) if kind in _HOLD_MAPPINGS else fields,
            tuple(named),
            *named.values(),
        )
        if key not in self._seen:
            self._seen[key] = kind(*fields, **named)
        return self._seen[key]  # type: ignore[no-any-return]  # as above

    def mapping(self, items: dict[K, V]) -> Mapping[K, V]:
        """A read-only mapping, one object for equal ones (order counts)."""
        key = ("mapping", *items, *map(_compared, items.values()))
        return self._seen.setdefault(key, MappingProxyType(items))  # type: ignore[no-any-return]  # as above

    def memo(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returned the first time it was called for this key."""
        if (name := ("memo", key)) not in self._seen:
            self._seen[name] = make()
        return self._seen[name]  # type: ignore[no-any-return]  # as above


def _compared(value: object) -> object:
    return id(value) if type(value) in _HOLD_MAPPINGS else value


# origins that name no tool
_ALONE = {str(source): source for source in (PROMPT, USER, COMPUTED, *BY_YES, MODEL)}


@dataclass(slots=True)
class Place:
    """One place of the document. ``place["args", "payee"]`` is a place inside it, whether or
    not the file has anything there.
    """

    document: Document
    path: Path
    node: Node | None

    def __getitem__(self, inside: str | int | Path) -> Place:
        steps = inside if isinstance(inside, tuple) else (inside,)
        return Place(self.document, self.path + steps, node_at(self.node, steps))

    @property
    def line(self) -> int:
        """The line of its key (of its value, in a list)."""
        return self.node.line if self.node else self.document.line(self.path)

    def element(self, index: int) -> Place:
        """The place of an element; this place where the file writes a single word for the
        list.
        """
        element = self[index]
        return element if element.node else self

    def report(self, got: str, expected: str, hint: str = "") -> None:
        """Report what is wrong with the value here."""
        self.document.report(self.path, got, expected, hint)

    def report_key(self, got: str, expected: str) -> None:
        """Report what is wrong with the key here: it is out of place, or something beside it is
        missing.
        """
        self.document.report(self.path, got, expected, key=True)

    def unknown(
        self, name: str, expected: str, known: Collection[str], *, key: bool = False
    ) -> None:
        """Report a name that is none of those known, with the closest of them."""
        self.document.report(
            self.path, shown(name), expected, did_you_mean(name, known), key=key
        )


class Site:
    """What compiling any block of a file needs.

    Attributes:
        root: the place of the whole document.
        definition, tools: the blocks of the file.
        roles: static roles by name.
        share, built: make equal values one object.
        used: tool -> names of its arguments that others refer to (empty: only its facts).
    """

    def __init__(
        self,
        document: Document,
        definition: Definition,
        roles: Mapping[str, frozenset[str]],
        share: Sharing,
    ) -> None:
        self.root, self.definition, self.tools = (
            Place(document, (), document.root),
            definition,
            definition.tools,
        )
        self.roles, self.share, self.built = roles, share, share.built
        self.used: dict[str, set[str]] = {}

    def facts(self, tool: str) -> dict[str, FactBlock]:
        """The facts that a tool declares."""
        return self.tools[tool].facts or {}

    def fact(self, source: Source) -> FactBlock | None:
        """The fact that a source is; None where it is no fact of a row."""
        return self.facts(source.tool)[source.field] if kind_of(source).row_fact else None

    def split(self, text: str) -> tuple[str, str]:
        """``tool.name`` as its tool and name; the longest declared tool name wins, and none is
        empty.
        """
        tool, dot, _ = text.rpartition(".")
        while dot and tool not in self.tools:
            tool, dot, _ = tool.rpartition(".")
        return tool, text[len(tool) + 1 :]

    def declared(self, tool: str, place: Place, *, key: bool = False) -> bool:
        """Whether a tool is declared; reported where it is not."""
        if tool not in self.tools:
            place.unknown(
                tool, f"a declared tool: {', '.join(self.tools)}", self.tools, key=key
            )
        return tool in self.tools

    def role(self, name: str, place: Place) -> frozenset[str] | None:
        """The scopes of a static role, or None after reporting that there is none."""
        if name not in self.roles:
            place.unknown(
                name,
                "a role of roles.yaml: "
                f"{', '.join(sorted(self.roles)) or 'none: the folder has no such file'}",
                self.roles,
            )
        return self.roles.get(name)

    def source(self, text: str, place: Place) -> Source | None:
        """The origin that `text` names, or None after reporting why it is none."""
        if text in _ALONE:
            return _ALONE[text]
        name, field = self.split(text)
        if not name:
            place.unknown(
                text,
                "prompt, model, user, computed, confirmed, remembered, or a fact or argument "
                "of a declared tool",
                self._origins(),
            )
            return None
        facts = self.facts(name)
        args = self.tools[name].args
        if field in facts:
            if self.tools[name].effect == "read" or facts[field].type == "id":
                return self.noted(self.built(Source, "fact", name, field))
            got = f"{shown(text)}, a result of the {self.tools[name].effect} tool {name}"
            place.report(
                got,
                "a fact of a read, or a new id (results of a tool that acts are no origin: a "
                "refused value would launder itself)",
            )
        elif field not in args:
            expected = (
                f"a fact or argument that {name} declares "
                f"({', '.join([*facts, *args]) or 'nothing'})"
            )
            place.unknown(text, expected, self._origins())
        elif "." in field:
            place.report(
                f"{shown(text)}, inside an argument",
                "a fact, or a whole argument (a part of one is no origin)",
            )
        else:
            return self.noted(self.built(Source, "arg", name, field))
        return None

    def sources(self, texts: Iterable[str], place: Place) -> Sources:
        """Every origin of a list that could be read."""
        read = [
            _ALONE.get(text) or self.source(text, place[index])
            for index, text in enumerate(texts)
        ]
        return self.share(tuple(source for source in read if source))

    def _origins(self) -> set[str]:
        return {
            *_ALONE,
            *(
                f"{name}.{field}"
                for name, tool in self.tools.items()
                for field in (*(tool.facts or {}), *tool.args)
            ),
        }

    def noted(self, source: Source) -> Source:
        """The source, after noting that its tool, and an argument it names, are referred to."""
        names = self.used.setdefault(source.tool, set())
        if not of_call(source).returned:
            names.add(source.field)
            currency = self.tools[source.tool].args[source.field].currency
            if currency:
                names.add(currency)
        return source

    def typed(self, source: Source) -> tuple[str, str]:
        """The type of what a source names, and the sibling that holds its currency (empty:
        none).
        """
        if of_call(source).returned:
            fact = self.facts(source.tool)[source.field]
            return fact.type, fact.currency or ""
        block = self.tools[source.tool].args[source.field]
        return argument_type(block), block.currency or ""


def argument_type(block: ArgumentBlock) -> str:
    """The type an argument is compared under: a range without a type is of numbers; everything
    else without one is text.
    """
    return block.type or (
        "number" if block.min is not None or block.max is not None else "text"
    )


def comparable(kind: str, other: str) -> bool:
    """Whether a value of one type can equal one of the other: keys are decimals, booleans or
    text in a type's own form.
    """
    one, two = ("number" if k == "integer" else k for k in (kind, other))
    apart = {"json", "boolean", *NUMERIC}
    return one == two or (
        not {one, two} & apart and bool({one, two} & {"text", "id", "path", "user"})
    )
