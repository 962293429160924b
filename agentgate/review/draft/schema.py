"""Reads a tool's JSON Schema: the arguments it declares, of a structured argument its leaves,
named as a workflow names them.

Rules: no remote reference is followed, and a chain of references ends after `MAX_REF`. A schema
with several alternatives, other than null, counts as empty. An object becomes its fields
(``to.email``), a list of objects the fields of its elements (``files[].id``), and a list inside
either its elements (``filter.tags[]``); a list of plain values at the top keeps its name. What
is deeper than `MAX_DEPTH`, a list in a list, and an object with a default stay whole: no
workflow can describe them, so they are undecided. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from agentgate.errors import CanonicalError
from agentgate.values.entities import number
from agentgate.values.forms import choices, mapping
from agentgate.values.paths import EACH
from agentgate.values.patterns import Pattern
from agentgate.values.value_class import value_class

Schema = Mapping[str, Any]
MAX_DEPTH = 3  # structures in structures
_MOST = 1000  # values of one argument, as in a workflow
# that a workflow can declare
_NAME = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_$@:/-]{0,63}", re.ASCII)


def resolve(schema: Any, root: Schema) -> Schema:
    """A schema with local references followed and "or null" removed; only its default and title
    where it has alternatives or is none.
    """
    kept = {key: value for key, value in mapping(schema).items() if key in {"default", "title"}}
    taken = [choice for choice in choices(schema, root) if choice.get("type") != "null"]
    kinds = [choice.get("type") for choice in taken]
    if kinds in (["number", "string"], ["integer", "string"]) and "format" not in taken[1]:
        taken = taken[:1]  # a Decimal: pydantic accepts text too
    return {**taken[0], **kept} if len(taken) == 1 else kept


def null_by_default(schema: Any, root: Schema) -> bool:
    """Whether a schema accepts null and null is its default: a model that does not use the
    argument may then send null.
    """
    accepted = [choice.get("type") for choice in choices(schema, root)]
    return resolve(schema, root).get("default", "") is None and "null" in accepted


def bound(inclusive: Any, exclusive: Any, step: int | None) -> Decimal | None:
    """One end of a range, exact; None where a workflow cannot state it. `step`: from an
    exclusive end to the last value; None: none.
    """
    if exclusive is None:
        return number(inclusive) if type(inclusive) in {int, float} else None
    end = number(exclusive) if type(exclusive) in {int, float} else None
    return (
        end + step
        if end is not None and step is not None and end == end.to_integral_value()
        else None
    )


def whole_pattern(pattern: Any) -> str | None:
    """A schema's pattern as a whole-value one; None when it is not anchored at both ends or no
    RE2 (the schema still checks it).
    """
    if (
        type(pattern) is not str
        or not pattern.startswith("^")
        or not pattern.endswith("$")
        or pattern.endswith("\\$")
    ):
        return None
    inner = pattern[1:-1]
    whole = f"(?:{inner})" if "|" in inner else inner
    try:
        return Pattern.of(whole).source if whole and whole.isprintable() else None
    except CanonicalError:
        return None


@value_class
class Leaf:
    """One argument."""

    name: str  # its path
    schema: Any  # of its values; of a leaf inside a list, a list of them
    required: bool  # every call that the schema permits has it
    plain: bool = True  # a workflow can declare each step of the path


def leaves(schema: Schema) -> Iterator[Leaf]:
    """Every argument of an input schema, in its order."""
    yield from _inside("", schema, schema, required=True, most=0)


def _inside(
    prefix: str, schema: Schema, root: Schema, *, required: bool, most: int
) -> Iterator[Leaf]:
    """The properties of an object. `most`: inside a list, how many values one name has in all;
    else 0.
    """
    must = schema.get("required")
    for name, inner in mapping(schema.get("properties")).items():
        path = f"{prefix}{name}"
        needed = required and isinstance(must, list) and name in must
        resolved = resolve(inner, root)
        default = resolved.get("default")
        if _NAME.fullmatch(str(name)) is None:
            yield Leaf(path, inner, needed, plain=False)
            continue
        deeper = path.count(".") < MAX_DEPTH
        element = (
            resolve(resolved.get("items"), root) if resolved.get("type") == "array" else {}
        )
        if _is_object(resolved) and default is None and deeper:
            yield from _inside(f"{path}.", resolved, root, required=needed, most=most)
        elif _is_object(element) and default in (None, []) and deeper:
            yield from _inside(
                f"{path}{EACH}.", element, root, required=needed, most=_times(most, resolved)
            )
        elif element and prefix and default is None and element.get("type") != "array":
            yield Leaf(
                f"{path}{EACH}", _list(resolved["items"], _times(most, resolved)), needed
            )
        elif most:
            yield Leaf(
                path,
                _list(
                    {"const": default} if default is not None and not needed else inner, most
                ),
                needed,
            )
        else:
            yield Leaf(path, inner, needed)


def _is_object(schema: Schema) -> bool:
    return bool(mapping(schema.get("properties")))


def _times(most: int, schema: Schema) -> int:
    """How many values there are where each of `most` elements holds a list; a list without a
    maximum counts as one value.
    """
    longest = schema.get("maxItems")
    return min(_MOST, max(1, most) * (longest if type(longest) is int and longest >= 1 else 1))


def _list(element: Any, most: int) -> Schema:
    return {"type": "array", "items": element, "maxItems": most}
