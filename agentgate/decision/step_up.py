"""Whom a call that passes every check must ask: the step-up rules that fire."""

from __future__ import annotations

from agentgate.decision.answer import RequiredHold
from agentgate.decision.arguments import violated
from agentgate.decision.case import Case
from agentgate.decision.origins.kinds import kind_of
from agentgate.decision.origins.tracing import came_from
from agentgate.decision.origins.value import Value, sources_of
from agentgate.values.entities import Key
from agentgate.values.refusal import Failure, Reason, of_argument
from agentgate.workflow.rule import Rule

EVERY_CALL = "every call"  # what a step-up without `when` asks about
_NONE: frozenset[str] = frozenset()


def _fires(rule: Rule, case: Case, step_up: str) -> Failure | None:
    """The failure that asks a person where one `step_up.when` condition holds of the call; an
    absent argument never fires.

    ``origin: unknown`` also holds of an argument whose origin the call leaves open, such as one
    of another call than the rest.
    """
    value = case.values.get(rule.name)
    if value is None:
        return None
    left_open = "unknown" in (rule.origin or ()) and rule.name in case.left_open
    for key in value.keys:
        if violated(rule, (key,)) is None and (
            rule.origin is None or left_open or _has_origin(rule, value, key, case)
        ):
            where = f"{case.workflow.file}:{rule.line}"
            return of_argument(
                Reason.STEP_UP,
                rule.name,
                value.shown,
                "a person's yes",
                where,
                f"step_up.{step_up} step_up",
            )
    return None


def _has_origin(rule: Rule, value: Value, key: Key, case: Case) -> bool:
    """True when this element has one of the origins of a `when`. `unknown` and `model`: nothing
    but the model explains it.
    """
    for origin in rule.origin or ():
        if origin == "unknown" or kind_of(origin).free:
            if not came_from(value, key, sources_of(value, case.run.prompt), case.earlier):
                return True
        elif came_from(value, key, (origin,), case.earlier):
            return True
    return False


def required_holds(case: Case) -> tuple[RequiredHold, ...]:
    """The step-up rules that fire: each whose `when` holds; every one where a group must be
    asked and none says what it is about.
    """
    tool = case.tool
    holds = []
    everyone = case.strict and tool is not None and not tool.by_when
    left_open = (
        {"intent" if f.reason is Reason.INTENT_UNCLEAR else "origin" for f in case.forced}
        if case.forced
        else _NONE
    )
    for rule in tool.step_ups if tool is not None else ():
        fired = tuple(
            [
                failure
                for each in rule.when
                if (failure := _fires(each, case, rule.id)) is not None
            ]
        )
        if everyone or (
            len(fired) == len(rule.when)
            and (not rule.left_open or left_open.issuperset(rule.left_open))
        ):
            where = f"{case.workflow.file}:{rule.line}"
            always = Failure(
                Reason.STEP_UP,
                f"step_up.{rule.id}",
                EVERY_CALL,
                "a person's yes",
                where,
                {"every_call": True},
            )
            holds.append(RequiredHold(rule, (*case.forced, *fired) or (always,)))
    return tuple(holds)
