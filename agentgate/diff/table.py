"""Every field of every value of a workflow, and how a difference in it is answered. A field
without a row is left to the reviewer.

CALLS: answered exactly, by the calls it allows. LIST: answered by its own order (a longer
lifetime is wider). READ: listed under "read yourself" when it differs. NONE: a position in the
file, or derived from other fields; no difference of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from agentgate.values.patterns import Glob, Pattern
from agentgate.values.tables import read_table
from agentgate.workflow.clauses.conditions import Conditions
from agentgate.workflow.clauses.table import CLAUSES
from agentgate.workflow.clauses.who import AgentRule, UserRule, ViaRule
from agentgate.workflow.model import StepUpRule
from agentgate.workflow.operators import OPERATORS

V = TypeVar("V")
CALLS = "calls"
LIST = "list"
READ = "read"
NONE = "none"

_STATED = {name for kind in CLAUSES for name in kind.names}
_ROWS: dict[str, dict[str, str]] = read_table("agentgate.diff", "fields.toml")
_ROWS["Rule"][CALLS] += "".join(f" {operator.field}" for operator in OPERATORS)
for _rule in (AgentRule, UserRule, ViaRule, Conditions):
    _ROWS[_rule.__name__] = {
        CALLS: " ".join(f.name for f in fields(_rule) if f.name in _STATED),
        NONE: " ".join(f.name for f in fields(_rule) if f.name == "line" or not f.init),
    }
TABLE: Mapping[str, Mapping[str, str]] = {
    kind: {field: answer for answer, names in rows.items() for field in names.split()}
    for kind, rows in _ROWS.items()
}
_PATHS = {
    "agent": "who.agent",
    "for_user": "who.for_user",
    "via": "who.via",
    "step_ups": "step_up",
}  # where a file has these fields


def kept(old: Mapping[str, V], new: Mapping[str, V]) -> Iterator[tuple[str, V, V]]:
    """What both versions have under one name: the name, the old and the new value."""
    for name, value in old.items():
        if name in new:
            yield name, value, new[name]


def by_id(rules: Iterable[StepUpRule]) -> dict[str, StepUpRule]:
    """The step-up rules of a tool by their names."""
    return {rule.id: rule for rule in rules}


def bare(value: Any) -> Any:
    """A value without positions (lines, files, digests), so that two that mean the same are
    equal.
    """
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        rows = TABLE.get(kind, {})
        names = [
            f.name
            for f in fields(value)
            if rows.get(f.name) != NONE or f.name in {"name", "id"}
        ]
        return kind, *((name, bare(getattr(value, name))) for name in names)
    if isinstance(value, Pattern | Glob):
        return type(value).__name__, value.source
    if isinstance(value, Mapping):
        return tuple(sorted((str(k), bare(v)) for k, v in value.items()))
    if isinstance(value, tuple):
        return tuple(bare(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"  # to Python, True equals 1
    return value


def same(old: Any, new: Any) -> bool:
    """Whether two values mean the same."""
    if old is new or type(old) is str or old is None:
        return type(old) is type(new) and bool(old == new)
    return bool(bare(old) == bare(new))


def unlisted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field without a row anywhere in a value, by its path, as text that can be
    compared.
    """
    if is_dataclass(value) and not isinstance(value, type):
        rows = TABLE.get(type(value).__name__, {})
        for field in fields(value):
            inner = getattr(value, field.name)
            here = f"{path}.{field.name}".lstrip(".")
            if field.name in rows:
                yield from unlisted(inner, here)
            else:
                yield here, bare(inner)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unlisted(inner, f"{path}.{key}")
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from unlisted(inner, f"{path}.{getattr(inner, 'id', index)}")


def to_read(
    old: Any,
    new: Any,
    path: str = "",
) -> Iterator[tuple[str, Any, Any]]:
    """The fields, inside two values of one kind, that differ and have no exact answer: path,
    old and new value.
    """
    if isinstance(old, Mapping):
        for name, one, other in kept(old, new):
            yield from to_read(one, other, f"{path}.{name}")
    elif isinstance(old, tuple) and old and isinstance(old[0], StepUpRule):
        yield from to_read(by_id(old), by_id(new), path)
    elif is_dataclass(old) and type(old) is type(new):
        rows = TABLE.get(type(old).__name__, {})
        for field in fields(old):
            answer = rows.get(field.name, READ)
            here = f"{path}.{_PATHS.get(field.name, field.name)}".lstrip(".")
            one = getattr(old, field.name)
            other = getattr(new, field.name)
            if answer == READ and not same(one, other):
                yield here, one, other
            elif answer in {CALLS, LIST}:
                yield from to_read(one, other, here)
