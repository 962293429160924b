"""The flat values of a scene, by dotted key: how they are stated, and read back by the blocks
that they are in.

A structure is stated by its leaves: ``files[].id`` is one value for each element of the list
`files`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentgate.review.scenarios.fields import Values, moment
from agentgate.values.paths import EACH, FIND, KEY, NUMBERS, VALUES
from agentgate.values.times import seconds
from agentgate.workflow.model import Tool
from agentgate.workflow.nested import flat, root


# --- reading ----------------------------------------------------------------------------------
def parts(prompt: Any) -> tuple[str, ...]:
    """The turns of a prompt that is text or a list."""
    return (prompt,) if type(prompt) is str else tuple(prompt)


def argument_of(key: str) -> str:
    """The argument that a leaf of a structure is in: ``args.files`` for ``args.files[].id``;
    any other key itself.
    """
    head, mark, _ = key.partition(EACH)
    return head if mark else key


def missing(values: Values, key: str) -> bool:
    """Whether a key is neither stated nor left out on purpose, alone or with its group."""
    if key in values or argument_of(key) in values:
        return False
    return all(values.get(group, "") is not None for group in _groups(key))


def _groups(key: str) -> list[str]:
    """``who`` and ``who.user`` for ``who.user.id``."""
    steps = key.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps))]


def under(values: Values, prefix: str) -> dict[str, Any]:
    """The values under a prefix by the rest of their keys, structures put together from their
    leaves (``files[].id``).
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith(prefix) and value is not None:
            name = key[len(prefix) :]
            if "." in name and prefix.startswith(("args.", "earlier.")):
                out = put_at(out, steps(name), value)
            else:
                out[name] = value
    return out


def ago(values: Values, label: str) -> int:
    """How many seconds ago an earlier call was redeemed."""
    return seconds(values.get(f"ago.{label}")) or 0


def earlier(values: Values) -> tuple[str, ...]:
    """The labels of the earlier calls, oldest first: the tool's name, ``tool#2`` for its second
    call.
    """
    labels = [key[len("ago.") :] for key in values if key.startswith("ago.")]
    return tuple(
        sorted(
            (each for each in labels if values.get(f"earlier.{each}", "") is not None),
            key=lambda each: -ago(values, each),
        )
    )


def time_of(values: Values) -> datetime:
    """The decision time, in UTC."""
    return (moment(values["time"]) or datetime(2000, 1, 1, tzinfo=UTC)).astimezone(UTC)


# --- stating ----------------------------------------------------------------------------------
def state(values: dict[str, Any], tool: Tool | None, key: str, value: Any) -> list[str]:
    """State one value of a scene that calls `tool`; the keys that now hold it."""
    leaves = {key: value}
    if key.startswith("args."):
        leaves = _leaves(tool, key[len("args.") :], value)
        if EACH not in key:
            for old in [k for k in values if argument_of(k) == key]:
                del values[old]
    for leaf, inner in leaves.items():
        put(values, leaf, inner)
    return list(leaves)


def _leaves(tool: Tool | None, name: str, value: Any) -> dict[str, Any]:
    """A structure by its leaves, where they say all of it; any other value under the argument's
    own key.
    """
    if tool and any(root(rule) == name and "." in rule for rule in tool.args):
        leaves = dict(flat(tool, {name: value}))
        made = dict[str, Any]()
        for leaf, inner in leaves.items():
            made = put_at(made, steps(leaf), inner)
        if made == {name: value}:
            return {f"args.{leaf}": inner for leaf, inner in leaves.items()}
    return {f"args.{name}": value}


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """State one value: a group that is left out takes its parts with it, a part brings its
    group back.
    """
    block, _, rest = key.partition(".")
    groups = _groups(key)
    gone = list[str]()
    if value is None:
        inside = [f"{key}.", f"{key}#", *([f"facts.{rest}."] if block == "earlier" else [])]
        gone = [
            k
            for k in values
            if k.startswith(tuple(inside)) or (block == "earlier" and k == f"ago.{rest}")
        ]
    if block == "facts":
        groups += [f"earlier.{group.removeprefix('facts.')}" for group in groups[1:]]
    gone += [group for group in groups if values.get(group, "") is None]
    for old in gone:
        values.pop(old, None)
    values[key] = value


# --- structures -------------------------------------------------------------------------------
def steps(name: str) -> tuple[str, ...]:
    """The path of a leaf: ``("files", "[]", "id")`` for ``files[].id``."""
    return tuple(
        step
        for part in name.split(".")
        for step in ((part.removesuffix(EACH), EACH) if part.endswith(EACH) else (part,))
    )


def elements(value: Any) -> list[Any]:
    """The elements of a list; of a single value, that value."""
    return value if type(value) is list else [value]


def put_at(container: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of `container` with a value at a fact's path; a list of values spreads over the
    elements of the first list.
    """
    if path and path[0] == NUMBERS:  # beside whatever else is read out of that text
        return f"{container}\n{value}" if type(container) is str else str(value)
    if not path or path[0] in FIND:
        return value
    head = path[0]
    rest = path[1:]
    if head == VALUES:
        return _in_object(container, rest[1:], value)
    if head != EACH:
        out = dict(container) if type(container) is dict else {}
        out[head] = put_at(out.get(head), rest, value)
        return out
    listed = list(container) if type(container) is list else []
    for index, one in enumerate(elements(value)):
        listed[index : index + 1] = [
            put_at(listed[index] if index < len(listed) else None, rest, one)
        ]
    return listed


def _in_object(container: Any, rest: tuple[str, ...], value: Any) -> dict[str, Any]:
    """An object of which each value holds one of the values at the rest of a path, or whose
    keys they are.
    """
    entries = list(container.items()) if type(container) is dict else []
    for index, one in enumerate(elements(value)):
        key, inner = entries[index] if index < len(entries) else (f"key {index + 1}", None)
        entries[index : index + 1] = [
            (str(one), inner) if rest == (KEY,) else (key, put_at(inner, rest, one))
        ]
    return dict(entries)
