"""An argument as `agentgate init` drafts it: nothing is undecided, since the person who signs the draft is asked at run time.

Rules: what the user must name asks them where they did not; what is undecided, or only a tool's default, the model may write. Of a tool
that acts each call is held for the user, who sees it all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentgate.review.draft.argument import Argument, constant
from agentgate.review.draft.schema import null_by_default, resolve


def opened(a: Argument, schema: Any, root: Mapping[str, Any], *, acting: bool) -> Argument:
    """The argument for a start in which the person who runs it is asked: what is undecided, or only a default, the model may write."""
    resolved = resolve(schema, root)
    kind = resolved.get("type")
    if a.rule is not None and not (resolved.get("default") is not None and {"is", "pattern"} & a.rule.keys()):
        return replace(a, rule={**a.rule, "unknown_origin": "confirm"}) if set(a.rule.get("from", ())) - {"model"} else a
    left_out = {"optional": True} if not a.always or resolved.get("default") is not None else {}
    left_out |= {"nullable": True} if null_by_default(schema, resolved, root) else {}
    rule: dict[str, Any] = {"type": "json", "text": 4000}
    sample: Any = {"note": "hello"}
    items = resolve(resolved.get("items"), root) if kind == "array" else {}
    closed = items.get("enum")
    if isinstance(closed, list) and closed and all(constant(v)[0] == "text" and constant(v)[1] for v in closed):
        rule, sample = {"each_in": closed, "max_items": 50}, [closed[0]]
    elif (element := _SIMPLE.get(str(items.get("type")))) is not None:
        rule, sample = {**element[0], "max_items": 50}, [element[1]]
    elif str(kind) in _SIMPLE:
        rule, sample = dict(_SIMPLE[str(kind)][0]), _SIMPLE[str(kind)][1]
    elif kind == "array":
        sample = ["hello"]
    return Argument(
        a.name,
        {**rule, **({"from": ["model"]} if acting else {}), **left_out},
        "the model chooses",
        samples=(sample, None),
        always=a.always,
    )


_SIMPLE: Mapping[str, tuple[Mapping[str, Any], Any]] = {  # of a JSON Schema's type: any value of it, and one
    "string": ({"text": 2000}, "hello"),
    "integer": ({"type": "integer"}, 1),
    "number": ({"type": "number"}, 1),
    "boolean": ({"type": "boolean"}, True),
}
