"""Reads a tool's JSON Schema: follows local references, removes "or null", and tells whether null is a value.

Rules: no remote reference is followed, and a chain of references ends after `MAX_REF`. A schema with several alternatives counts as
empty. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agentgate.errors import CanonicalError
from agentgate.values.entities import number
from agentgate.values.patterns import Pattern

MAX_REF = 16


def resolve(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with local references followed and "or null" removed; only its default and title where it has alternatives or is none."""
    kept: dict[str, Any] = {}
    for _ in range(MAX_REF):
        if not isinstance(schema, Mapping):
            return kept
        kept = {k: v for k, v in schema.items() if k in {"default", "title"}} | kept
        if isinstance(schema.get("$ref"), str):
            schema = _pointed(schema["$ref"], root)
            continue
        nested = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)), None)
        if nested is None:
            kind = schema.get("type")
            if isinstance(kind, list):
                kinds = [k for k in kind if k != "null"]
                kind = kinds[0] if len(kinds) == 1 else None
                schema = {**schema, "type": kind}
            return {**schema, **kept}
        choices = [each for each in nested if not (isinstance(each, Mapping) and each.get("type") == "null")]
        kinds = [each.get("type") for each in choices if isinstance(each, Mapping)]
        if len(choices) == 2 and kinds in (["number", "string"], ["integer", "string"]) and "format" not in choices[1]:
            choices = choices[:1]  # a Decimal: pydantic accepts text too
        if len(choices) != 1:
            return kept
        schema = choices[0]
    return kept


def null_by_default(schema: Any, resolved: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether a schema accepts null and null is its default: a model that does not use the argument may then send null."""
    return "default" in resolved and resolved["default"] is None and _accepts_null(schema, root, MAX_REF)


def _accepts_null(schema: Any, root: Mapping[str, Any], left: int) -> bool:
    if not isinstance(schema, Mapping) or not left:
        return False
    if isinstance(schema.get("$ref"), str):
        return _accepts_null(_pointed(schema["$ref"], root), root, left - 1)
    choices = [each for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list) for each in schema[key]]
    kind = schema.get("type")
    return kind == "null" or (isinstance(kind, list) and "null" in kind) or any(_accepts_null(each, root, left - 1) for each in choices)


def _pointed(ref: str, root: Mapping[str, Any]) -> Any:
    if not ref.startswith("#/"):
        return None  # no remote reference is followed
    target: Any = root
    for part in ref[2:].split("/"):
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    return target


def bound(inclusive: Any, exclusive: Any, step: int | None) -> Decimal | None:
    """One end of a range, exact; None where a workflow cannot state it. `step`: from an exclusive end to the last value; None: none."""
    if exclusive is None:
        return number(inclusive) if type(inclusive) in {int, float} else None
    end = number(exclusive) if type(exclusive) in {int, float} else None
    return end + step if end is not None and step is not None and end == end.to_integral_value() else None


def whole_pattern(pattern: Any) -> str | None:
    """A schema's pattern as a whole-value one; None when it is not anchored at both ends or no RE2 (the schema still checks it)."""
    if type(pattern) is not str or not pattern.startswith("^") or not pattern.endswith("$") or pattern.endswith("\\$"):
        return None
    inner = pattern[1:-1]
    whole = f"(?:{inner})" if "|" in inner else inner
    try:
        return Pattern.of(whole).source if whole and whole.isprintable() else None
    except CanonicalError:
        return None
