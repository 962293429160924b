"""The arguments that a tool's JSON Schema declares, and of an argument that is a structure its leaves, named as a workflow names them.

Rules: an object is taken apart into ``to.email``, a list of objects into ``files[].id``, and a list inside either into
``filter.tags[]``; of a list of plain values at the top the name stays. What is deeper than `MAX_DEPTH`, a list in a list, and an
object with a default stay whole (no workflow can describe them, so they are undecided).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentgate.review.draft.argument import plain_name
from agentgate.review.draft.schema import resolve
from agentgate.workflow.nested import EACH

MAX_DEPTH = 3  # structures in structures that are taken apart
_MOST = 1000  # values of one argument, as the language has it


@dataclass(frozen=True, slots=True)
class Leaf:
    """One argument.

    Attributes:
        name: its path.
        schema: what it may be; of a leaf inside a list: a list of that.
        required: it is in every call that the schema permits.
        plain: each step of the path is a name that a workflow can hold.
    """

    name: str
    schema: Any
    required: bool
    plain: bool = True


def leaves(schema: Mapping[str, Any]) -> Iterator[Leaf]:
    """Every argument of an input schema, in its order."""
    yield from _inside("", schema, schema, required=True, most=0)


def _inside(prefix: str, schema: Mapping[str, Any], root: Mapping[str, Any], *, required: bool, most: int) -> Iterator[Leaf]:
    """The properties of an object. `most`: how many values one name has together, inside a list; else 0."""
    properties, must = schema.get("properties"), schema.get("required")
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        path, needed = f"{prefix}{name}", required and isinstance(must, list) and name in must
        found = resolve(inner, root)
        default = found.get("default")
        if not plain_name(str(name)):
            yield Leaf(path, inner, needed, plain=False)
            continue
        deeper = path.count(".") < MAX_DEPTH
        element = resolve(found.get("items"), root) if found.get("type") == "array" else {}
        if _is_object(found) and default is None and deeper:
            yield from _inside(f"{path}.", found, root, required=needed, most=most)
        elif _is_object(element) and default in (None, []) and deeper:
            yield from _inside(f"{path}{EACH}.", element, root, required=needed, most=_times(most, found))
        elif element and prefix and default is None and element.get("type") != "array":
            yield Leaf(f"{path}{EACH}", _list(found["items"], _times(most, found)), needed)
        elif most:
            yield Leaf(path, _list({"const": default} if default is not None and not needed else inner, most), needed)
        else:
            yield Leaf(path, inner, needed)


def _is_object(schema: Mapping[str, Any]) -> bool:
    inside = schema.get("properties")
    return isinstance(inside, Mapping) and bool(inside)


def _times(most: int, schema: Mapping[str, Any]) -> int:
    """How many values, where each of `most` elements holds a list; a list without a maximum counts one."""
    longest = schema.get("maxItems")
    return min(_MOST, max(1, most) * (longest if type(longest) is int and longest >= 1 else 1))


def _list(element: Any, most: int) -> Mapping[str, Any]:
    return {"type": "array", "items": element, "maxItems": most}
