"""The arguments that a tool's JSON Schema declares; of a structured argument its leaves, named as a workflow names them.

Rules: an object becomes its fields (``to.email``), a list of objects the fields of its elements (``files[].id``), and a list inside
either its elements (``filter.tags[]``); a list of plain values at the top keeps its name. What is deeper than `MAX_DEPTH`, a list in a
list, and an object with a default stay whole: no workflow can describe them, so they are undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentgate.review.draft.argument import plain_name
from agentgate.review.draft.schema import resolve
from agentgate.workflow.nested import EACH

MAX_DEPTH = 3  # structures in structures
_MOST = 1000  # values of one argument, as in a workflow


@dataclass(frozen=True, slots=True)
class Leaf:
    """One argument.

    Attributes:
        name: its path.
        schema: of its values; of a leaf inside a list, a list of them.
        required: every call that the schema permits has it.
        plain: a workflow can declare each step of the path.
    """

    name: str
    schema: Any
    required: bool
    plain: bool = True


def leaves(schema: Mapping[str, Any]) -> Iterator[Leaf]:
    """Every argument of an input schema, in its order."""
    yield from _inside("", schema, schema, required=True, most=0)


def _inside(prefix: str, schema: Mapping[str, Any], root: Mapping[str, Any], *, required: bool, most: int) -> Iterator[Leaf]:
    """The properties of an object. `most`: inside a list, how many values one name has in all; else 0."""
    properties, must = schema.get("properties"), schema.get("required")
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        path, needed = f"{prefix}{name}", required and isinstance(must, list) and name in must
        resolved = resolve(inner, root)
        default = resolved.get("default")
        if not plain_name(str(name)):
            yield Leaf(path, inner, needed, plain=False)
            continue
        deeper = path.count(".") < MAX_DEPTH
        element = resolve(resolved.get("items"), root) if resolved.get("type") == "array" else {}
        if _is_object(resolved) and default is None and deeper:
            yield from _inside(f"{path}.", resolved, root, required=needed, most=most)
        elif _is_object(element) and default in (None, []) and deeper:
            yield from _inside(f"{path}{EACH}.", element, root, required=needed, most=_times(most, resolved))
        elif element and prefix and default is None and element.get("type") != "array":
            yield Leaf(f"{path}{EACH}", _list(resolved["items"], _times(most, resolved)), needed)
        elif most:
            yield Leaf(path, _list({"const": default} if default is not None and not needed else inner, most), needed)
        else:
            yield Leaf(path, inner, needed)


def _is_object(schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties")
    return isinstance(properties, Mapping) and bool(properties)


def _times(most: int, schema: Mapping[str, Any]) -> int:
    """How many values there are where each of `most` elements holds a list; a list without a maximum counts as one value."""
    longest = schema.get("maxItems")
    return min(_MOST, max(1, most) * (longest if type(longest) is int and longest >= 1 else 1))


def _list(element: Any, most: int) -> Mapping[str, Any]:
    return {"type": "array", "items": element, "maxItems": most}
