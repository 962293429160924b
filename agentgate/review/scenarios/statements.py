"""What is stated, put into the flat values of a scene: groups, earlier calls, and the leaves of structures."""

from __future__ import annotations

from typing import Any

from agentgate.review.scenarios.filling import whole
from agentgate.review.scenarios.structure import put_at, steps
from agentgate.values.paths import EACH
from agentgate.workflow.model import Tool
from agentgate.workflow.nested import flat, root


def leaves_of(tool: Tool | None, key: str, prefix: str, value: Any) -> dict[str, Any]:
    """A whole structure as its leaves, where they say all of it; anything else under its own key."""
    name = key[len(prefix) :]
    if tool is None or not any(root(rule) == name and "." in rule for rule in tool.args):
        return {key: value}
    found = dict(flat(tool, {name: value}))
    made: Any = {}
    for leaf, inner in found.items():
        made = put_at(made, steps(leaf), inner)
    return {prefix + leaf: inner for leaf, inner in found.items()} if made == {name: value} else {key: value}


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """State one value: a group left out takes its parts with it, a part brings its group back."""
    if value is None:
        for inside in [k for k in values if k.startswith((key + ".", key + "#")) or (key.startswith("earlier.") and _of(k, key))]:
            del values[inside]
    head = key
    while "." in head:
        head = head.rpartition(".")[0]
        if head in values and values[head] is None:
            del values[head]
    if key.startswith("facts."):
        for gone in [k for k, v in values.items() if v is None and k.startswith("earlier.") and key.startswith("facts." + k[8:] + ".")]:
            del values[gone]
    values[key] = value


def _of(key: str, earlier: str) -> bool:
    """Whether a key speaks of the earlier call that is left out."""
    label = earlier[len("earlier.") :]
    return key == f"ago.{label}" or key.startswith(f"facts.{label}.")


def state(values: dict[str, Any], tool: Tool | None, key: str, value: Any) -> list[str]:
    """State one value of a scene that calls `tool`; the keys it now stands under."""
    leaves = {key: value}
    if key.startswith("args."):
        leaves = leaves_of(tool, key, "args.", value)
        if EACH not in key:
            for old in [k for k in values if whole(k) == key]:
                del values[old]
    for leaf, inner in leaves.items():
        put(values, leaf, inner)
    return list(leaves)
