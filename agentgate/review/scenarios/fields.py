"""The fields of a scene: dotted keys, what may stand under each, and what is wrong with those that are written.

Rules: a key is read strictly, unknown ones are findings with a suggestion; tool names contain dots, so the longest declared one
wins; a second earlier call of one tool is written ``tool#2``. Nobody states an origin, an intent or an answer: `origin.x` only
says where a value is placed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from agentgate.errors import AgentGateError
from agentgate.loading.yaml_nodes import did_you_mean, shown
from agentgate.values.entities import number
from agentgate.values.times import seconds
from agentgate.workflow.model import Limit, Tool, Workflow

BLOCKS = ("args", "facts", "earlier", "ago", "spent", "who", "origin")


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one key of a scene."""

    key: str
    got: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.key}: got {self.got}, expected {self.expected}" + (f" ({self.hint})" if self.hint else "")


class SceneError(AgentGateError):
    """A scene cannot be made. `findings` names every key, what it got and what was expected."""

    def __init__(self, findings: tuple[FieldProblem, ...]) -> None:
        self.findings = findings
        super().__init__("\n".join(map(str, findings)))


def moment(value: Any) -> datetime | None:
    """An ISO date and time with its offset; None when it is none."""
    try:
        found = datetime.fromisoformat(value) if type(value) is str and "T" in value else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _texts(value: Any) -> bool:
    return type(value) in {list, tuple} and all(type(item) is str for item in value)


Test = Callable[[Any], bool]
_TEXT: tuple[Test, str] = (lambda v: type(v) is str, "text")
_TEXTS: tuple[Test, str] = (_texts, "a list of texts")
_YES: tuple[Test, str] = (lambda v: type(v) is bool, "true or false")
_DURATIONS: tuple[Test, str] = (lambda v: seconds(v) is not None, "a duration: a whole number and s, m, h or d, such as 15m")
_FIXED: Mapping[str, tuple[Test, str]] = {
    "call": _TEXT,
    "tenant": _TEXT,
    "prompt": (lambda v: type(v) is str or (_texts(v) and len(v) > 0), "the user's words: text, or a list of turns"),
    "definition": _TEXT,
    "time": (lambda v: moment(v) is not None, 'a date and time with its offset, in quotes: "2026-01-07T14:00+01:00"'),
    "environment": _TEXT,
    "data_class": _TEXT,
    "network": _TEXT,
    "brokers": _TEXTS,
    "spent_ago": _DURATIONS,
    "nulls": _TEXTS,
    "who.user.id": _TEXT,
    "who.user.tenant": _TEXT,
    "who.user.groups": _TEXTS,
    "who.user.proven": _YES,
    "who.agent.id": _TEXT,
    "who.agent.proven": _YES,
    "who.agent.spiffe": _TEXT,
    "who.agent.issuer": _TEXT,
    "who.agent.posture.image_signed_by": _TEXT,
    "who.agent.posture.attested_ago": _DURATIONS,
    "who.agent.boundary.cluster": _TEXT,
    "who.agent.boundary.namespace": _TEXT,
    "who.agent.boundary.node_pool": _TEXT,
    "who.agent.boundary.key": _TEXT,
    "who.agent.last_key": _TEXT,
    "who.via": _TEXTS,
}
_GROUPS = frozenset({"who.user", "who.agent.posture", "who.agent.boundary", "who.agent.claims"})  # may be left out as a whole
_ALWAYS = frozenset({"call", "tenant", "prompt", "time", "who.agent.id"})  # may not be left out
_PLACES = ("prompt", "user", "computed", "model")
_ASIDE = ("origins", "intents", "origin_of", "decision", "expect")


def flatten(stated: Mapping[str, Any]) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
    """Every leaf as (dotted key, value, path in the mapping). An argument's own value is never looked into."""

    def walk(key: str, value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
        first, dot, _ = key.partition(".")
        if type(value) is dict and first in BLOCKS and not (first == "args" and dot):
            for name, inner in value.items():
                yield from walk(f"{key}.{name}", inner, (*path, name))
        else:
            yield key, value, path

    for name, value in stated.items():
        yield from walk(str(name), value, (name,))


def limit_name(limit: Limit) -> str:
    """How a scene names what a limit counts: ``tenant.payments.refund.amount``, ``run.any``."""
    return f"{limit.per}.{limit.tool}" + (f".{limit.argument}" if limit.argument else "")


def limits_of(workflow: Workflow) -> dict[str, Limit]:
    """Every limit by its name in a scene."""
    return {limit_name(limit): limit for tool in workflow.tools.values() for limit in tool.limits}


def bare(label: str) -> str:
    """The tool of an earlier call's label: ``orders.get`` for ``orders.get#2``."""
    return label.partition("#")[0]


def tool_and_field(tools: Mapping[str, Tool], text: str) -> tuple[str, str] | None:
    """``("orders.get#2", "total")`` for ``orders.get#2.total``; the longest declared tool name wins. None: no declared tool."""
    for name in sorted(tools, key=len, reverse=True):
        if text == name or text.startswith((name + ".", name + "#")):
            found = re.fullmatch(r"((?:#[2-9])?)(?:\.(.+))?", text[len(name) :])
            if found is not None:
                return name + found[1], found[2] or ""
    return None


def findings(workflow: Workflow, stated: Mapping[str, Any], *, changing: bool) -> list[FieldProblem]:
    """Everything wrong with the keys and values of a scene.

    Args:
        workflow: whose tools, arguments and limits the keys name.
        stated: dotted key -> value; None: left out.
        changing: whether `origin.x` may stand here (it places a value into a complete scene).
    """
    out = []
    for key, value in stated.items():
        found = _finding(workflow, key, value, changing=changing)
        if found is not None:
            out.append(found)
    return out


def _finding(workflow: Workflow, key: str, value: Any, *, changing: bool) -> FieldProblem | None:
    block, _, rest = key.partition(".")
    if value is None and key in _ALWAYS:
        return FieldProblem(key, "nothing", "a value (it may not be left out)")
    if key in _FIXED:
        test, expected = _FIXED[key]
        return None if value is None or test(value) else FieldProblem(key, shown(value), expected)
    if key in _GROUPS:
        return None if value is None else FieldProblem(key, shown(value), f"nothing (left out), or one of its keys: {_inside(key)}")
    if key.startswith("who.agent.claims."):
        return None if value is None or type(value) is str else FieldProblem(key, shown(value), "text")
    if not rest or block not in BLOCKS or block == "who":
        expected = "one of " + ", ".join([*(k for k in _FIXED if "." not in k), *BLOCKS])
        if key in BLOCKS:
            return FieldProblem(key, shown(value), "a mapping")
        if key in _ASIDE:
            return FieldProblem(key, "an unknown key", expected + " (origins and intents are derived, never stated)")
        return FieldProblem(key, "an unknown key", expected, did_you_mean(key, [c for c in (*_FIXED, *BLOCKS) if c != key]))
    if block == "args":
        return None
    if block == "spent":
        known = limits_of(workflow)
        if rest not in known:
            return FieldProblem(key, "no such limit", "spent. and one of " + (", ".join(known) or "none"), did_you_mean(rest, known))
        amount = number(value)
        good = value is None or (amount is not None and amount >= 0 and (known[rest].argument or amount % 1 == 0))
        return None if good else FieldProblem(key, shown(value), "how much was used before: a number from 0")
    return _placed(workflow, key, block, rest, value, changing=changing)


def _inside(group: str) -> str:
    return ", ".join(k for k in _FIXED if k.startswith(group + ".")) or group + ".NAME"


def _placed(workflow: Workflow, key: str, block: str, rest: str, value: Any, *, changing: bool) -> FieldProblem | None:
    """`facts`, `earlier`, `ago` and `origin`: keys that name a declared tool."""
    tools = workflow.tools
    if block == "origin":
        if not changing:
            return FieldProblem(key, "an origin", "values only (in base, put the value where it comes from: the prompt or a fact)")
        found = tool_and_field(tools, value) if type(value) is str else None
        if value in _PLACES or (found is not None and found[1]):
            return None
        choices = {*_PLACES, *(f"{n}.{f}" for n, t in tools.items() for f in [*t.facts, *t.args])}
        return FieldProblem(
            key, shown(value), ", ".join(_PLACES) + ", or a field of a declared tool: tool.field", did_you_mean(value, choices)
        )
    found = tool_and_field(tools, rest)
    if found is None:
        expected = "a declared tool" + (", then its field" if block != "ago" else "") + ": " + ", ".join(tools)
        return FieldProblem(key, "an unknown tool", expected, did_you_mean(rest, tools) or did_you_mean(rest.rpartition(".")[0], tools))
    label, field = found
    tool = tools[bare(label)]
    if block == "ago":
        good = not field and (value is None or seconds(value) is not None)
        return None if good else FieldProblem(key, shown(value), _DURATIONS[1])
    if not field:
        good = value is None and block == "earlier"
        return None if good else FieldProblem(key, shown(value), f"{key}. and {'an argument' if block == 'earlier' else 'a fact'}")
    declared = tool.args if block == "earlier" else tool.facts
    if field not in declared:
        more = "" if block == "earlier" else f" (origin.x: {bare(label)}.{field} puts a value into a field that nobody declared)"
        what = f"an undeclared {'argument' if block == 'earlier' else 'fact'}"
        return FieldProblem(key, what, "one of " + (", ".join(declared) or "none") + more, did_you_mean(field, declared))
    return None


def as_number(value: Any) -> Decimal:
    """A checked number."""
    found = number(value)
    return found if found is not None else Decimal()
