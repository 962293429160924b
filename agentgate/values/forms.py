"""The forms in which models send what a tool takes, made the one form that is decided on,
hashed and run.

Rules: by the tool's JSON Schema only what it does not take as it is changes: text that holds a
list or an object, and one value for a list. A null goes only where it is the argument's own
default; elsewhere it may mean "clear this field". By the workflow's types an e-mail address is
in small letters and a time has no ``Z``. Only ASCII changes, since `str.lower` makes a k of the
Kelvin sign. What has no such form stays as it is, and the decision refuses it. Twice is as
once. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from agentgate.values.canonical import strict_parse
from agentgate.values.entities import normal
from agentgate.values.paths import EACH

MAX_REF = 16  # references that lead from one to the next
_CONTAINERS: Mapping[str, type] = {"array": list, "object": dict}
_SINGLE = frozenset({str, int, float, bool, dict})
_SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "email": str.lower,
    "datetime": lambda text: text.removesuffix("Z"),
}
Schema = Mapping[str, Any]


def canonical_form(args: Mapping[str, Any], schema: Schema, declared: Any) -> dict[str, Any]:
    """The arguments of a call in their one form.

    Args:
        args: as a model sent them.
        schema: the tool's JSON Schema.
        declared: the tool as the workflow declares it, with the rules of its arguments
            (`args`); None: it is not known.
    """
    rules = declared.args if declared is not None else {}
    properties = mapping(schema.get("properties"))
    found = {}
    for name, value in args.items():
        shape = mapping(properties.get(name))
        if value is None and shape.get("default", "") is None:
            continue
        rule = rules.get(name)
        # and no list is what the workflow reads
        read_as_one = rule is not None and rule.max_items is None and rule.type != "json"
        kinds = (
            set[str]()
            if read_as_one
            else {str(choice.get("type")) for choice in choices(shape, schema)}
        )
        found[name] = _spelled_inside(_coerced(value, kinds), name, rules)
    return found


def _coerced(value: Any, kinds: set[str]) -> Any:
    """A value for which only lists or objects are taken, as one of them; if it is none, as it
    is.
    """
    wanted = kinds - {"null"}
    if not wanted or not wanted <= _CONTAINERS.keys() or type(value) not in _SINGLE:
        return value
    taken = [_CONTAINERS[kind] for kind in wanted]
    if type(value) is str:
        with suppress(ValueError):
            read = strict_parse(value.encode())
            if type(read) in taken:
                return read
    return value if type(value) in taken or list not in taken else [value]


def _spelled_inside(value: Any, path: str, rules: Mapping[str, Any]) -> Any:
    """A value with every text in it that a rule names as the rule's type spells it."""
    if path in rules:
        kind = rules[path].type
        return (
            [spell_value(kind, each) for each in value]
            if type(value) is list
            else spell_value(kind, value)
        )
    if not any(name.startswith(path) for name in rules):
        return value
    if type(value) is dict:
        return {
            name: _spelled_inside(each, f"{path}.{name}", rules) for name, each in value.items()
        }
    return (
        [_spelled_inside(each, path + EACH, rules) for each in value]
        if type(value) is list
        else value
    )


def spell_value(kind: str, value: Any) -> Any:
    """A text as its type spells it; any other value as it is."""
    if kind not in _SPELLINGS or type(value) is not str or not value.isascii():
        return value
    text = _SPELLINGS[kind](value)
    return text if normal(kind, text) is not None else value


def describe_forms(schema: Schema, fields: Iterable[str]) -> str:
    """JSON type or format of arguments (``args.to``) by the tool's own schema: all that a model
    is told where a form is wrong.
    """
    names = {re.split(r"[.\[]", field)[1] for field in fields if "." in field}
    told = []
    for name, shape in mapping(schema.get("properties")).items():
        if name in names:
            kinds = [
                str(choice.get("format") or choice.get("type") or "any value")
                for choice in choices(shape, schema)
            ]
            told.append(f"{name}: {' or '.join(kinds)}")
    return "; ".join(told)


def choices(schema: Any, root: Schema) -> list[Schema]:
    """The plain schemas of which a value may meet any: with references followed, each of one
    type or of none that is known.
    """
    resolved = _resolved(schema, root)
    nested = resolved.get("anyOf") or resolved.get("oneOf") or resolved.get("allOf")
    if isinstance(nested, list):
        return [_resolved(each, root) for each in nested]
    kinds = resolved.get("type")
    return (
        [{**resolved, "type": kind} for kind in kinds]
        if isinstance(kinds, list)
        else [resolved]
    )


def _resolved(schema: Any, root: Schema) -> Schema:
    for _ in range(MAX_REF):
        reference = mapping(schema).get("$ref")
        if not isinstance(reference, str):
            break
        schema = follow_pointer(reference, root)
    return mapping(schema)


def follow_pointer(ref: str, root: Schema) -> Any:
    """What a local reference points to; no remote one is followed."""
    target: Any = root if ref.startswith("#/") else None
    for part in ref[2:].split("/"):
        target = mapping(target).get(part.replace("~1", "/").replace("~0", "~"))
    return target


def mapping(value: Any) -> Schema:
    """A value that is a mapping; else an empty one."""
    return value if isinstance(value, Mapping) else {}
