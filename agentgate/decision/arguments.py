"""The check of a call's arguments: each known, present, in normal form, and allowed by every operator of its rule.

Rules: as in `agentgate.decision.checks`. Every operator is ANDed, on every element of a list.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from agentgate.decision.case import Case
from agentgate.decision.value import Value
from agentgate.values.entities import NORMAL, Key, written
from agentgate.values.refusal import Reason
from agentgate.workflow.model import Rule
from agentgate.workflow.nested import flat

_ABSENT = object()
_TOLD = 100  # unknown arguments that are told one by one


def check_arguments(case: Case) -> None:
    """Every argument known, present, in normal form, and allowed by its operators."""
    tool = case.tool
    if tool is None:
        return
    args, rules, values = flat(tool, case.call.args), tool.args, case.values
    if not args.keys() <= rules.keys():
        unknown, known = [name for name in args if name not in rules], "one of " + (", ".join(rules) or "none")
        for name in unknown[:_TOLD]:
            case.deny(Reason.ARGUMENT_UNKNOWN, f"args.{name}", "an argument", known, tool.line)
        if len(unknown) > _TOLD:
            case.deny(Reason.ARGUMENT_UNKNOWN, "args.*", f"{len(unknown) - _TOLD} more arguments", known, tool.line)
    for name, rule in rules.items():
        raw = args.get(name, _ABSENT)
        if raw is _ABSENT:
            if not rule.optional:
                case.deny(Reason.ARGUMENT_MISSING, f"args.{name}", "nothing", "a value", rule.line)
            continue
        keys: tuple[Key, ...] | None
        if rule.max_items is None:
            key = NORMAL[rule.type](raw)
            keys = None if key is None else (key,)
        else:
            keys = _list_keys(rule, raw)
        if keys is None:
            case.deny(
                Reason.ARGUMENT_FORM,
                f"args.{name}",
                Value(rule, (), "", raw).shown,
                written(rule.type) if rule.max_items is None else f"a list of {rule.type}",
                rule.line,
            )
            continue
        currency = args.get(rule.currency, "") if rule.currency else ""
        fields = (rule, keys, currency if type(currency) is str else "", raw)
        value: Value = tuple.__new__(Value, fields)  # a third of what its own constructor costs
        values[name] = value
        wrong = violated_by(rule, keys[0]) if rule.max_items is None else _violated(rule, keys, rule.max_items)
        if wrong:
            case.deny(Reason.ARGUMENT_VALUE, f"args.{name}", value.shown, wrong, rule.line)
        if rule.role and not set(keys) < rule.role_scopes:
            case.deny(Reason.ROLE, f"args.{name}", value.shown, f"a strict subset of role {rule.role}", rule.line)


def _list_keys(rule: Rule, raw: Any) -> tuple[Key, ...] | None:
    """The comparison keys of a list argument's elements, or None when it is not in normal form (an empty list is not)."""
    if type(raw) is not list or not raw:
        return None
    keys = []
    for item in raw:
        key = NORMAL[rule.type](item)
        if key is None:
            return None
        keys.append(key)
    return tuple(keys)


def equal(key: Key, allowed: tuple[Any, ...]) -> bool:
    """True when the key is one of the allowed values; ``true`` is not 1."""
    for other in allowed:  # noqa: SIM110 - a generator costs as much as the comparisons
        if key == other and isinstance(key, bool) == isinstance(other, bool):
            return True
    return False


def _violated(rule: Rule, keys: tuple[Key, ...], max_items: int) -> str:
    """What an operator expected of a list and did not get; empty when all hold. Every operator is ANDed, on every element."""
    if len(keys) > max_items:
        return f"at most {max_items} elements"
    for key in keys:
        wrong = violated_by(rule, key)
        if wrong:
            return wrong
    return ""


def violated_by(rule: Rule, key: Key) -> str:
    """What an operator expected of one value and did not get; empty when all hold."""
    if rule.equals is not None and not equal(key, rule.equals):
        return f"{rule.equals[0]}"
    if rule.one_of is not None and not equal(key, rule.one_of):
        return "one of " + ", ".join(map(str, rule.one_of))
    if rule.pattern is not None and not (isinstance(key, str) and rule.pattern.matches(key)):
        return f"all of it to match {rule.pattern.source}"
    if rule.glob is not None and not (isinstance(key, str) and rule.glob.matches(key)):
        return f"all of it to match {rule.glob.source}"
    if rule.text is not None and not (isinstance(key, str) and len(key) <= rule.text):
        return f"at most {rule.text} characters"
    if rule.minimum is not None and not (isinstance(key, Decimal) and key >= rule.minimum):
        return f"at least {rule.minimum}"
    if rule.maximum is not None and not (isinstance(key, Decimal) and key <= rule.maximum):
        return f"at most {rule.maximum}"
    return ""
