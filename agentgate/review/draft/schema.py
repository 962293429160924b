"""Reading a tool's JSON Schema: local references followed, "or null" taken away, and whether null is a value of it.

Rules: nothing remote is followed, and a chain of references ends after `MAX_REF`. What a schema says several ways is not read. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_REF = 16


def resolve(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with local references followed and "or null" taken away; an empty one where it says several things or nothing."""
    found: Any = schema
    kept: dict[str, Any] = {}
    for _ in range(MAX_REF):
        if not isinstance(found, Mapping):
            return kept
        kept = {k: v for k, v in found.items() if k in {"default", "title"}} | kept
        if isinstance(found.get("$ref"), str):
            found = _pointed(found["$ref"], root)
            continue
        nested = next((found[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(found.get(key), list)), None)
        if nested is None:
            kind = found.get("type")
            if isinstance(kind, list):
                left = [k for k in kind if k != "null"]
                found = {**found, "type": left[0] if len(left) == 1 else None}
            return {**found, **kept}
        choices = [each for each in nested if not (isinstance(each, Mapping) and each.get("type") == "null")]
        kinds = [each.get("type") for each in choices if isinstance(each, Mapping)]
        if len(choices) == 2 and kinds in (["number", "string"], ["integer", "string"]) and "format" not in choices[1]:
            choices = choices[:1]  # a Decimal: pydantic takes text too
        if len(choices) != 1:
            return kept
        found = choices[0]
    return kept


def null_by_default(schema: Any, found: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether a schema takes null, and null is its default: then a model that does not use the argument may say so."""
    return "default" in found and found["default"] is None and _takes_null(schema, root, MAX_REF)


def _takes_null(schema: Any, root: Mapping[str, Any], left: int) -> bool:
    if not isinstance(schema, Mapping) or not left:
        return False
    if isinstance(schema.get("$ref"), str):
        return _takes_null(_pointed(schema["$ref"], root), root, left - 1)
    choices = [each for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list) for each in schema[key]]
    kind = schema.get("type")
    return kind == "null" or (isinstance(kind, list) and "null" in kind) or any(_takes_null(each, root, left - 1) for each in choices)


def _pointed(ref: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    if not ref.startswith("#/"):
        return None  # nothing remote is followed
    for part in ref[2:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found
