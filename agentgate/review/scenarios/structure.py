"""Structures from their leaves: ``files[].id`` is one value for each element of the list `files`."""

from __future__ import annotations

from typing import Any

from agentgate.values.paths import EACH, FIND, KEY, NUMBERS, VALUES


def steps(name: str) -> tuple[str, ...]:
    """The path of a leaf: ``("files", "[]", "id")`` for ``files[].id``."""
    return tuple(step for part in name.split(".") for step in ((part.removesuffix(EACH), EACH) if part.endswith(EACH) else (part,)))


def elements(value: Any) -> list[Any]:
    """The elements of a list; of a single value, that value."""
    return value if type(value) is list else [value]


def put_at(container: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of `container` with a value at a fact's path; a list of values spreads over the elements of the first list."""
    if path and path[0] == NUMBERS:  # beside whatever else is read out of that text
        return f"{container}\n{value}" if type(container) is str else str(value)
    if not path or path[0] in FIND:
        return value
    head, rest = path[0], path[1:]
    if head == VALUES:
        return _in_object(container, rest[1:], value)
    if head != EACH:
        out = dict(container) if type(container) is dict else {}
        out[head] = put_at(out.get(head), rest, value)
        return out
    listed = list(container) if type(container) is list else []
    for index, one in enumerate(elements(value)):
        listed[index : index + 1] = [put_at(listed[index] if index < len(listed) else None, rest, one)]
    return listed


def _in_object(container: Any, rest: tuple[str, ...], value: Any) -> dict[str, Any]:
    """An object of which each value holds one of the values at the rest of a path, or whose keys they are."""
    entries = list(container.items()) if type(container) is dict else []
    for index, one in enumerate(elements(value)):
        key, inner = entries[index] if index < len(entries) else (f"key {index + 1}", None)
        entries[index : index + 1] = [(str(one), inner) if rest == (KEY,) else (key, put_at(inner, rest, one))]
    return dict(entries)
