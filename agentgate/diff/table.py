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
from agentgate.workflow.clauses.agent import AgentRule
from agentgate.workflow.clauses.conditions import Conditions
from agentgate.workflow.clauses.hops import ViaRule
from agentgate.workflow.clauses.table import CLAUSES
from agentgate.workflow.clauses.user import UserRule
from agentgate.workflow.model import StepUpRule
from agentgate.workflow.operators import OPERATORS

V = TypeVar("V")
CALLS = "calls"
LIST = "list"
READ = "read"
NONE = "none"

_STATED = {name for kind in CLAUSES for name in kind.names}
_ROWS: Mapping[str, Mapping[str, str]] = {
    "Workflow": {
        CALLS: "expires tenants agent for_user via intents conditions tools",
        LIST: "version risk token observe",
        READ: "id title owners",
        NONE: "digest file tenants_line expires_line in_doubt",
    },
    "Doubt": {NONE: "intent key index got"},
    **{
        rule.__name__: {
            CALLS: " ".join(f.name for f in fields(rule) if f.name in _STATED),
            NONE: " ".join(f.name for f in fields(rule) if f.name == "line" or not f.init),
        }
        for rule in (AgentRule, UserRule, ViaRule, Conditions)
    },
    "ClaimRule": {CALLS: "name one_of", NONE: "line"},
    "Hours": {CALLS: "days start end", READ: "zone", NONE: "line"},
    "Intent": {
        CALLS: "unclear",
        LIST: "delegated unheard reader",
        READ: "asks_for words examples counter_examples",
        NONE: "name line objects timed",
    },
    "Tool": {
        CALLS: "needs definition args sequence step_ups",
        LIST: "effect audience scope limits upstream facts remember",
        READ: "redeem title",
        NONE: "name line referenced structures dependencies asking grounded by_when",
    },
    "Rule": {
        CALLS: (
            "at_most max_items role role_scopes sources unknown_origin entities any_call "
            "optional nullable needs origin "
        )
        + " ".join(operator.field for operator in OPERATORS),
        LIST: "named_first page_size",
        READ: "type currency sensitive record",
        NONE: "name line operators references calls alone joint free prompted said_as",
    },
    "Source": {CALLS: "kind tool field selector", NONE: "key"},
    "Selector": {CALLS: "tool nouns by"},
    "Fact": {
        LIST: "named confirmed pattern named_by where",
        READ: "type path currency",
        NONE: "name line",
    },
    "Sequence": {CALLS: "before require within", NONE: "line"},
    "Limit": {LIST: "tool argument maximum per every", NONE: "line"},
    "StepUpRule": {
        CALLS: "when group count user left_open",
        LIST: "exclude timeout show endorses",
        NONE: "id line tool",
    },
    "Upstream": {LIST: "broker settings role_scopes bound", NONE: "line"},
    "TokenRule": {LIST: "ttl agent_key"},
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
    return ((name, value, new[name]) for name, value in old.items() if name in new)


def by_id(rules: Iterable[StepUpRule]) -> dict[str, StepUpRule]:
    """The step-up rules of a tool by their names."""
    return {rule.id: rule for rule in rules}


def bare(value: Any) -> Any:
    """A value without positions (lines, files, digests), so that two that mean the same are
    equal.
    """
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        names = [
            f.name
            for f in fields(value)
            if TABLE.get(kind, {}).get(f.name) != NONE or f.name in {"name", "id"}
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


def to_read(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
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
