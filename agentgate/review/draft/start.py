"""An argument as `agentgate init` drafts it: nothing is undecided, since the person who signs
the draft is asked at run time.

Rules: what the user must name asks them where they did not; what is undecided, or only a tool's
default, the model may write. Of a tool that acts each call is held for the user, who sees it
all. What was only guessed refuses nothing: a type by a name alone becomes text of the user's
words (a `recipient` may be no e-mail address), a pattern by examples goes, and a list may be
longer than its schema says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentgate.decision.origins.kinds import kind_of
from agentgate.review.draft.argument import IDS, Argument, constant
from agentgate.review.draft.toolset import resolve, words_of
from agentgate.values.paths import EACH
from agentgate.workflow.model import Effect
from agentgate.workflow.rule import CONFIRMED


def opened(a: Argument, schema: Any, root: Mapping[str, Any], *, acting: bool) -> Argument:
    """The argument for a start in which the person who runs it is asked: what is undecided, or
    only a default, the model may write.
    """
    resolved = resolve(schema, root)
    kind = resolved.get("type")
    if a.rule is not None and not (
        resolved.get("default") is not None and {"is", "pattern"} & a.rule.keys()
    ):
        a = _unguessed(a, a.rule)
        soft = {
            **(a.rule or {}),
            **({"max_items": _MOST} if "max_items" in (a.rule or {}) else {}),
        }
        return replace(a, rule=soft)
    left_out = a.left_out or (
        {"optional": True} if not a.always or resolved.get("default") is not None else {}
    )
    rule: dict[str, Any] = {"type": "json", "text": 4000}
    sample: Any = {"note": "hello"}
    items = resolve(resolved.get("items"), root) if kind == "array" else {}
    closed = items.get("enum")
    if (
        isinstance(closed, list)
        and closed
        and all(constant(v)[0] == "text" and constant(v)[1] for v in closed)
    ):
        rule = {"each_in": closed, "max_items": _MOST}
        sample = [closed[0]]
    elif (element := _SIMPLE.get(str(items.get("type")))) is not None:
        rule = {**element[0], "max_items": _MOST}
        sample = [element[1]]
    elif str(kind) in _SIMPLE:
        rule = dict(_SIMPLE[str(kind)][0])
        sample = _SIMPLE[str(kind)][1]
    elif kind == "array":
        sample = ["hello"]
    elif a.open:  # of no type: most are text
        rule = dict(_SIMPLE["string"][0])
        sample = "hello"
    return Argument(
        a.name,
        {**rule, **({"from": ["model"]} if acting else {}), **left_out},
        "the model chooses",
        samples=(sample, None),
        always=a.always,
    )


def asked_about(a: Argument, effect: Effect) -> Argument:
    """The argument, about which the user is asked where they did not name it; their yes names
    what is looked up, and who is written to.
    """
    rule = a.rule or {}
    if not set(rule.get("from", ())) - {"model"}:
        return a
    kinds = (
        kind_of(CONFIRMED).types
        if effect == "read"
        else frozenset[str]()
        if effect == "destructive"
        else _RECIPIENTS
    )
    named = (
        ["confirmed"] if rule.get("type", "text") in kinds and "prompt" in rule["from"] else []
    )
    return replace(
        a, rule={**rule, "from": [*rule["from"], *named], "unknown_origin": "confirm"}
    )


def _unguessed(a: Argument, rule: Mapping[str, Any]) -> Argument:
    """The argument without what was only guessed, and would refuse what the tool takes."""
    only = rule.get("each_in", ())
    if EACH in a.name and len(only) == 1:  # a default inside a list
        kind = str(rule.get("type", "string"))
        return replace(
            a,
            rule={
                **{k: v for k, v in rule.items() if k not in {"each_in", "type"}},
                **_SIMPLE[kind][0],
            },
            note="the model chooses",
        )
    if a.note.startswith("pattern guessed"):
        return replace(a, rule={key: value for key, value in rule.items() if key != "pattern"})
    if (
        not a.note.startswith("type guessed from its name")
        or words_of(a.name)[-1] in IDS
        or a.samples is None
    ):
        return a
    first = a.samples[0][0] if isinstance(a.samples[0], list) else a.samples[0]
    return replace(
        a,
        rule={"text": 2000, **{k: v for k, v in rule.items() if k != "type"}},
        note="a text of the user's words",
        spoken=first,
    )


_RECIPIENTS = frozenset({"email", "iban", "phone", "user", "channel"})
_MOST = 50  # elements of a list
# of a JSON Schema's type: any value of it, and one
_SIMPLE: Mapping[str, tuple[Mapping[str, Any], Any]] = {
    "string": ({"text": 2000}, "hello"),
    "integer": ({"type": "integer"}, 1),
    "number": ({"type": "number"}, 1),
    "boolean": ({"type": "boolean"}, True),
}
