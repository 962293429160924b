"""The check of a call's arguments: each known, present, in normal form, and allowed by every
operator of its rule.

Rules: as in `agentgate.decision.decide`. Every operator is ANDed, on every element of a list. A
value with more text than `MAX_TEXT` is refused before anything reads it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from agentgate.decision.case import Case
from agentgate.decision.origins.value import Value
from agentgate.values.entities import NORMAL, Key, texts, written
from agentgate.values.refusal import Reason
from agentgate.workflow.model import Tool
from agentgate.workflow.nested import flat
from agentgate.workflow.operator import Operator
from agentgate.workflow.rule import Rule

MAX_TEXT = 65_536  # characters of all texts in one argument
_LISTED = 100  # unknown arguments that are reported one by one
_value = partial(tuple.__new__, Value)  # a third of what the constructor costs


def check_arguments(case: Case) -> None:
    """Every argument known, present, in normal form, and allowed by its operators."""
    tool = case.tool
    if tool is None:
        return
    args = flat(tool, case.call.args)
    if not args.keys() <= tool.args.keys():
        _deny_unknown(case, tool, [name for name in args if name not in tool.args])
    large = len(case.call.data) > MAX_TEXT  # else no text in it is
    for name, rule in tool.args.items():
        if name not in args:
            if not rule.optional:
                _deny_missing(case, rule)
            continue
        raw = args[name]
        keys = None
        if large and (length := sum(map(len, texts(raw)))) > MAX_TEXT:
            shown = f"{length} characters"
            expected = f"at most {MAX_TEXT} characters"
            case.deny_argument(
                Reason.ARGUMENT_FORM, name, shown, expected, rule.line, f"args.{name} type"
            )
            continue
        if rule.max_items is not None:
            keys = _list_keys(rule, raw)
        elif (key := NORMAL[rule.type](raw)) is not None:
            keys = (key,)
        if keys is None:
            expected = (
                written(rule.type) if rule.max_items is None else f"a list of {rule.type}"
            )
            _deny(case, Reason.ARGUMENT_FORM, Value(rule, (), "", raw), expected, "type")
            continue
        currency = ""
        if rule.currency:
            stated = args.get(rule.currency)
            currency = stated if type(stated) is str else ""
        value = case.values[name] = _value((rule, keys, currency, raw))
        if rule.max_items is not None and len(keys) > rule.max_items:
            _deny(
                case,
                Reason.ARGUMENT_VALUE,
                value,
                f"at most {rule.max_items} elements",
                "max_items",
            )
        elif (wrong := violated(rule, keys)) is not None:
            _deny(case, Reason.ARGUMENT_VALUE, value, wrong.expected, wrong.key)
        if rule.role and not set(keys) < rule.role_scopes:
            _deny(
                case,
                Reason.ROLE,
                value,
                f"a strict subset of role {rule.role}",
                "narrower_than_role",
            )


def _deny_unknown(case: Case, tool: Tool, unknown: list[str]) -> None:
    known = "one of " + (", ".join(tool.args) or "none")
    for name in unknown[:_LISTED]:
        case.deny_argument(
            Reason.ARGUMENT_UNKNOWN, name, "an argument", known, tool.line, "args args"
        )
    if len(unknown) > _LISTED:
        case.deny_argument(
            Reason.ARGUMENT_UNKNOWN,
            "*",
            f"{len(unknown) - _LISTED} more arguments",
            known,
            tool.line,
            "args args",
        )


def _deny_missing(case: Case, rule: Rule) -> None:
    case.deny_argument(
        Reason.ARGUMENT_MISSING,
        rule.name,
        "nothing",
        "a value",
        rule.line,
        f"args.{rule.name} required",
    )


def _deny(case: Case, reason: Reason, value: Value, expected: str, word: str) -> None:
    rule = value.rule
    case.deny_argument(
        reason, rule.name, value.shown, expected, rule.line, f"args.{rule.name} {word}"
    )


def _list_keys(rule: Rule, raw: Any) -> tuple[Key, ...] | None:
    """The comparison keys of a list argument's elements; None where it is not in normal form
    (an empty list is not).
    """
    if type(raw) is not list or not raw:
        return None
    keys = []
    for item in raw:
        key = NORMAL[rule.type](item)
        if key is None:
            return None
        keys.append(key)
    return tuple(keys)


def violated(rule: Rule, keys: tuple[Key, ...]) -> Operator | None:
    """The first operator that a value, or an element of a list, violates; None where all
    pass.
    """
    operators = rule.operators
    for key in keys:
        for operator in operators:
            if not operator.holds(key):
                return operator
    return None
