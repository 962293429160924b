"""The fields of a scene: its dotted keys, the values that each may have, and what is wrong with
stated ones.

Rules: keys are read strictly, and an unknown one is a finding with a suggestion. Tool names
contain dots, so the longest declared one wins; the second earlier call of a tool is written
``tool#2``. An origin, an intent or an answer cannot be stated: `origin.x` only says where a
value is placed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from agentgate.decision.origins.kinds import of_call
from agentgate.errors import Failure, Refused
from agentgate.loading.yaml_nodes import did_you_mean, shown
from agentgate.values.entities import number
from agentgate.values.identities import FORM, is_name
from agentgate.values.times import seconds
from agentgate.workflow.clauses.table import CLAUSES
from agentgate.workflow.model import Limit, Tool, Workflow
from agentgate.workflow.rule import REMEMBERED, Source

Values = Mapping[str, Any]  # of a scene or a part of it, by dotted keys

BLOCKS = ("args", "facts", "earlier", "ago", "yes", "spent", "who", "origin")


class SceneError(Refused):
    """A scene cannot be made. `failures` names every key, what it got and what was expected."""

    _between = "\n"

    @staticmethod
    def _shown(got: object) -> str:
        return str(got)


def moment(value: Any) -> datetime | None:
    """An ISO date and time with its offset; None when the value is none."""
    try:
        read = datetime.fromisoformat(value) if type(value) is str and "T" in value else None
    except ValueError:
        return None
    return read if read and read.tzinfo else None


def _texts(value: Any) -> bool:
    return type(value) in {list, tuple} and all(type(item) is str for item in value)


def _used(value: Any, *, whole: bool = False) -> bool:
    amount = number(value)
    return amount is not None and amount >= 0 and not (whole and amount % 1)


_Form = tuple[Callable[[Any], bool], str]  # whether a value has it, and what is expected
_AMOUNT: _Form = (_used, "how much was used before: a number from 0")
_COUNT: _Form = (partial(_used, whole=True), _AMOUNT[1])
_TEXT: _Form = (lambda v: type(v) is str, "text")
_TEXTS: _Form = (_texts, "a list of texts")
_DURATIONS: _Form = (
    lambda v: seconds(v) is not None,
    "a duration: a whole number and s, m, h or d, such as 15m",
)
_NAMED: Mapping[str, _Form] = {  # as clauses name them
    "text": _TEXT,
    "texts": _TEXTS,
    "name": (is_name, FORM),
    "names": (lambda v: _texts(v) and all(map(is_name, v)), f"a list of names, each {FORM}"),
    "yes": (lambda v: type(v) is bool, "true or false"),
    "duration": _DURATIONS,
}
_FIXED: Mapping[str, _Form] = {
    **dict.fromkeys(("call", "tenant"), _TEXT),
    "prompt": (
        lambda v: type(v) is str or (_texts(v) and len(v) > 0),
        "the user's words: text, or a list of turns",
    ),
    "definition": _TEXT,
    "time": (
        lambda v: moment(v) is not None,
        'a date and time with its offset, in quotes: "2026-01-07T14:00+01:00"',
    ),
    **{
        key: _NAMED[form]
        for kind in CLAUSES
        for key, form in ((kind.scene, kind.form), *kind.forms)
        if form
    },
    "brokers": _TEXTS,
    "spent_ago": _DURATIONS,
    "nulls": _TEXTS,
}
_WHOLE = {
    "ago": _DURATIONS,
    "yes": (lambda v: type(v) is bool or v == REMEMBERED.kind, "true, false or remembered"),
}  # of an earlier call as a whole
# may be left out as a whole
_GROUPS = [kind.scene for kind in CLAUSES if kind.scene not in _FIXED]


def _group(name: str) -> _Form:
    inside = ", ".join(key for key in _FIXED if key.startswith(f"{name}.")) or f"{name}.NAME"
    return lambda _: False, f"nothing (left out), or one of its keys: {inside}"


_FORMS: Mapping[str, _Form] = {**_FIXED, **{name: _group(name) for name in _GROUPS}}
_ALWAYS = frozenset({"call", "tenant", "prompt", "time", "who.agent.id"})  # may not be left out
_PLACES = ("prompt", "user", "computed", "confirmed", "remembered", "model")
_DERIVED = ("origins", "intents", "origin_of", "decision", "expect")


def flatten(stated: Values) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
    """Every leaf as (dotted key, value, path in the mapping). An argument's own value is never
    looked into.
    """

    def walk(
        key: str, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
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


def bare(label: str) -> str:
    """The tool of an earlier call's label: ``orders.get`` for ``orders.get#2``."""
    return label.partition("#")[0]


def tool_and_field(tools: Mapping[str, Tool], text: str) -> tuple[str, str] | None:
    """``("orders.get#2", "total")`` for ``orders.get#2.total``; the longest declared tool name
    wins. None: no declared tool.
    """
    for name in sorted(tools, key=len, reverse=True):
        if text == name or text.startswith((name + ".", name + "#")):
            match = re.fullmatch(r"((?:#[2-9])?)(?:\.(.+))?", text[len(name) :])
            if match:
                return name + match[1], match[2] or ""
    return None


def place(source: Source, second: str = "") -> str:
    """The key under which a scene holds what this source says; `second` is ``#2`` for the
    tool's second call.
    """
    return f"{'facts' if of_call(source).returned else 'earlier'}.{source.tool}{second}.{source.field}"


def named(source: Source) -> str:
    """A source as the value of `origin.x`."""
    return f"{source.tool}.{source.field}" if source.tool else str(source)


def _wrong(key: str, got: str, expected: str, hint: str = "") -> Failure:
    return Failure("", key, got, expected, data={"hint": hint})


def findings(workflow: Workflow, stated: Values, *, changing: bool) -> list[Failure]:
    """Everything wrong with the keys and values of a scene. `changing`: `origin.x` is allowed
    (it places a value into a complete scene).
    """
    found = (_finding(workflow, key, value, changing=changing) for key, value in stated.items())
    return [problem for problem in found if problem]


def _finding(workflow: Workflow, key: str, value: Any, *, changing: bool) -> Failure | None:
    block, _, rest = key.partition(".")
    if value is None and key in _ALWAYS:
        return _wrong(key, "nothing", "a value (it may not be left out)")
    form = _FORMS.get(key, _TEXT if key.startswith("who.agent.claims.") else None)
    if form is None and (not rest or block not in BLOCKS or block == "who"):
        return _unknown(key, value)
    if block == "spent":
        limits = {
            limit_name(limit): limit
            for tool in workflow.tools.values()
            for limit in tool.limits
        }
        if rest not in limits:
            return _wrong(
                key,
                "no such limit",
                "spent. and one of " + (", ".join(limits) or "none"),
                did_you_mean(rest, limits),
            )
        form = _AMOUNT if limits[rest].argument else _COUNT
    if form is not None:
        return None if value is None or form[0](value) else _wrong(key, shown(value), form[1])
    if block == "origin":
        return _origin(workflow.tools, key, value, changing=changing)
    return None if block == "args" else _of_call(workflow.tools, key, value)


def _unknown(key: str, value: Any) -> Failure:
    if key in BLOCKS:
        return _wrong(key, shown(value), "a mapping")
    expected = "one of " + ", ".join([*(k for k in _FIXED if "." not in k), *BLOCKS])
    if key in _DERIVED:
        return _wrong(
            key, "an unknown key", expected + " (origins and intents are derived, never stated)"
        )
    return _wrong(
        key,
        "an unknown key",
        expected,
        did_you_mean(key, [c for c in (*_FIXED, *BLOCKS) if c != key]),
    )


def _origin(
    tools: Mapping[str, Tool], key: str, value: Any, *, changing: bool
) -> Failure | None:
    if not changing:
        return _wrong(
            key,
            "an origin",
            "values only (in base, put the value where it comes from: the prompt or a fact)",
        )
    named = tool_and_field(tools, value) if type(value) is str else None
    if value in _PLACES or (named is not None and named[1]):
        return None
    choices = {*_PLACES, *(f"{n}.{f}" for n, t in tools.items() for f in [*t.facts, *t.args])}
    expected = ", ".join(_PLACES) + ", or a field of a declared tool: tool.field"
    return _wrong(key, shown(value), expected, did_you_mean(value, choices))


def _of_call(tools: Mapping[str, Tool], key: str, value: Any) -> Failure | None:
    """`facts`, `earlier`, `ago` and `yes`: keys that name a declared tool."""
    block, _, rest = key.partition(".")
    named = tool_and_field(tools, rest)
    if named is None:
        expected = (
            "a declared tool"
            + ("" if block in _WHOLE else ", then its field")
            + ": "
            + ", ".join(tools)
        )
        return _wrong(
            key,
            "an unknown tool",
            expected,
            did_you_mean(rest, tools) or did_you_mean(rest.rpartition(".")[0], tools),
        )
    tool = tools[bare(named[0])]
    field = named[1]
    if block in _WHOLE:
        has_form, expected = _WHOLE[block]
        return (
            None
            if not field and (value is None or has_form(value))
            else _wrong(key, shown(value), expected)
        )
    declared, article, what = (
        (tool.args, "an", "argument") if block == "earlier" else (tool.facts, "a", "fact")
    )
    if not field:
        return (
            None
            if value is None and block == "earlier"
            else _wrong(key, shown(value), f"{key}. and {article} {what}")
        )
    if field in declared:
        return None
    more = (
        ""
        if block == "earlier"
        else f" (origin.x: {tool.name}.{field} puts a value into a field that nobody declared)"
    )
    expected = "one of " + (", ".join(declared) or "none") + more
    return _wrong(key, f"an undeclared {what}", expected, did_you_mean(field, declared))
