"""A definition with every default written out: the form that is digested, and that reviewers
sign.

Rules: what this release assumes where a file is silent stands in the signed bytes, so no later
release changes their meaning by changing a default. Only what means nothing where it is absent
(no condition, no limit, no origin) stays absent. Writing out adds keys and never changes one;
malformed parts are left as they are, for the loader to report.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import cache
from typing import Any, get_args

from agentgate.loading.blocks import Block, Definition
from agentgate.loading.value_types import Duration

_DURATION = get_args(Duration)[1]


def written_out(value: Any) -> Any:
    """The definition that this parsed definition stands for, as a new value; one that is
    complete comes out equal.
    """
    if type(value) is not dict:
        return value
    out = _filled(Definition, {"token": {}, **value})
    tools = out.get("tools")
    for name, tool in _mappings(tools):
        if tool.get("redeem") == "wrapper":
            tool.setdefault("scope", [name])
        for _, argument in _mappings(tool.get("args")):
            argument.setdefault(
                "type", "number" if "min" in argument or "max" in argument else "text"
            )
            if "from" in argument:
                argument.setdefault("unknown_origin", "deny")
        for fact, block in _mappings(tool.get("facts")):
            block.setdefault("path", fact)
    rules = out.get("step_up")
    defaults = out.get("defaults")
    given = defaults.get("approvers") if type(defaults) is dict else None
    for rule in [each for each in rules if type(each) is dict] if type(rules) is list else ():
        shown = _arguments(tools, rule.get("for"))
        if shown:
            rule.setdefault("show", shown)
        people = (
            rule.setdefault("approvers", copy(given))
            if type(given) is dict
            else rule.get("approvers")
        )
        if type(people) is dict and "group" in people:
            rule["approvers"] = {"count": 1, "not": ["requester"], **people}
    return out


def block_in(annotation: Any) -> type[Block] | None:
    """The block in ``dict[K, Block]``, ``list[Block]``, ``Annotated[...]`` or ``Block | None``;
    None where there is none.
    """
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((block for part in get_args(annotation) if (block := block_in(part))), None)


def is_collection(annotation: Any) -> bool:
    """Whether a field holds many of what it holds."""
    return "dict[" in str(annotation) or "list[" in str(annotation)


@cache
def _inner(block: type[Block]) -> tuple[tuple[str, type[Block], bool], ...]:
    """The fields of a block that hold blocks: key, block, whether they hold many."""
    fields = [
        (field.alias or name, field.annotation) for name, field in block.model_fields.items()
    ]
    return tuple(
        (key, inner, is_collection(kind)) for key, kind in fields if (inner := block_in(kind))
    )


@cache
def _defaults(block: type[Block]) -> dict[str, Any]:
    """What a block assumes where it is silent, as a file would say it."""
    fields = [
        (name, field) for name, field in block.model_fields.items() if not field.is_required()
    ]
    values = [
        (field.alias or name, field, field.get_default(call_default_factory=True))
        for name, field in fields
    ]
    return {
        key: f"{value}s" if _DURATION in field.metadata else value
        for key, field, value in values
        if value is not None
    }


def _filled(block: type[Block], value: Any) -> Any:
    if type(value) is not dict:
        return value
    out = {**_defaults(block), **value}
    for key, inner, many in _inner(block):
        if key in out:
            part = out[key]
            if not many:
                out[key] = _filled(inner, part)
            elif type(part) is dict:
                out[key] = {name: _filled(inner, each) for name, each in part.items()}
            elif type(part) is list:
                out[key] = [_filled(inner, each) for each in part]
    return out


def _mappings(value: Any) -> Iterator[tuple[Any, dict[Any, Any]]]:
    return (
        ((name, each) for name, each in value.items() if type(each) is dict)
        if type(value) is dict
        else iter(())
    )


def _arguments(tools: Any, name: Any) -> list[str]:
    """The arguments of a tool in a fixed order: what a person is shown where a rule does not
    say.
    """
    args = next((tool.get("args") for each, tool in _mappings(tools) if each == name), None)
    return (
        sorted(args) if type(args) is dict and all(type(each) is str for each in args) else []
    )
