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
from agentgate.values.value_class import names_of
from agentgate.workflow.clauses.clause import Order
from agentgate.workflow.clauses.conditions import Conditions
from agentgate.workflow.clauses.table import CLAUSES
from agentgate.workflow.clauses.who import AgentRule, UserRule, ViaRule
from agentgate.workflow.model import Limit, StepUpRule, TokenRule
from agentgate.workflow.operators import OPERATORS

V = TypeVar("V")
CALLS = "calls"
LIST = "list"
READ = "read"
NONE = "none"

_STATED = {name for kind in CLAUSES for name in kind.names}
ORDERS: Mapping[str, tuple[Order, ...]] = {
    kind: tuple(Order(**row) for row in rows)
    for kind, rows in read_table("agentgate.diff", "orders.toml").items()
} | {rule.__name__: rule.orders for rule in (StepUpRule, TokenRule)}
_ROWS: dict[str, dict[str, str]] = read_table("agentgate.diff", "fields.toml")
_ROWS["Rule"][CALLS] += "".join(f" {operator.field}" for operator in OPERATORS)
TABLE: dict[str, Mapping[str, str]] = {
    kind: {field: answer for answer, names in rows.items() for field in names.split()}
    | {order.field: LIST for order in ORDERS.get(kind, ())}
    for kind, rows in _ROWS.items()
}
for _rule in (AgentRule, UserRule, ViaRule, Conditions):
    TABLE[_rule.__name__] = {"line": NONE} | {
        field.name: CALLS if field.init else NONE
        for field in fields(_rule)
        if field.name in _STATED or not field.init
    }
TABLE["Limit"] = dict.fromkeys(names_of(Limit), LIST) | {"line": NONE}
_PATHS = {
    "agent": "who.agent",
    "for_user": "who.for_user",
    "via": "who.via",
    "step_ups": "step_up",
}  # where a file has these fields


def in_both_versions(
    old: Mapping[str, V],
    new: Mapping[str, V],
) -> Iterator[tuple[str, V, V]]:
    """What both versions have under one name: the name, the old and the new value."""
    for name, value in old.items():
        if name in new:
            yield name, value, new[name]


def rules_by_id(rules: Iterable[StepUpRule]) -> dict[str, StepUpRule]:
    """The step-up rules of a tool by their names."""
    return {rule.id: rule for rule in rules}


def _is_record(value: Any) -> bool:
    """Whether a value has fields of its own."""
    return is_dataclass(value) and not isinstance(value, type)


def _rows_of(value: Any) -> Mapping[str, str]:
    """How differences in the fields of a value are answered."""
    return TABLE.get(type(value).__name__, {})


def without_positions(value: Any) -> Any:
    """A value without positions (lines, files, digests), so that two that mean the same are
    equal.
    """
    if _is_record(value):
        rows = _rows_of(value)
        named = [
            (name, without_positions(getattr(value, name)))
            for name in names_of(value)
            if rows.get(name) != NONE or name in {"name", "id"}
        ]
        return type(value).__name__, *named
    if isinstance(value, Pattern | Glob):
        return type(value).__name__, value.source
    if isinstance(value, Mapping):
        items = [(str(key), without_positions(inner)) for key, inner in value.items()]
        return tuple(sorted(items))
    if isinstance(value, tuple):
        return tuple(without_positions(inner) for inner in value)
    if isinstance(value, bool):
        return "true" if value else "false"  # to Python, True equals 1
    return value


def mean_the_same(old: Any, new: Any) -> bool:
    """Whether two values mean the same."""
    if old is new or type(old) is str or old is None:
        return type(old) is type(new) and bool(old == new)
    return bool(without_positions(old) == without_positions(new))


def fields_without_row(
    value: Any,
    path: str = "",
) -> Iterator[tuple[str, Any]]:
    """Every field without a row anywhere in a value, by its path, as text that can be
    compared.
    """
    if _is_record(value):
        rows = _rows_of(value)
        for name in names_of(value):
            inner = getattr(value, name)
            here = f"{path}.{name}".lstrip(".")
            if name in rows:
                yield from fields_without_row(inner, here)
            else:
                yield here, without_positions(inner)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from fields_without_row(inner, f"{path}.{key}")
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from fields_without_row(inner, f"{path}.{getattr(inner, 'id', index)}")


def differences_to_read(
    old: Any,
    new: Any,
    path: str = "",
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The fields, inside two values of one kind, that differ and have no exact answer: the
    path, and both values.
    """
    if isinstance(old, Mapping):
        for name, one, other in in_both_versions(old, new):
            yield from differences_to_read(one, other, f"{path}.{name}")
    elif isinstance(old, tuple) and old and isinstance(old[0], StepUpRule):
        yield from differences_to_read(rules_by_id(old), rules_by_id(new), path)
    elif _is_record(old) and type(old) is type(new):
        rows = _rows_of(old)
        for name in names_of(old):
            answer = rows.get(name, READ)
            here = f"{path}.{_PATHS.get(name, name)}".lstrip(".")
            one = getattr(old, name)
            other = getattr(new, name)
            if answer == READ and not mean_the_same(one, other):
                yield here, (one, other)
            elif answer in {CALLS, LIST}:
                yield from differences_to_read(one, other, here)
