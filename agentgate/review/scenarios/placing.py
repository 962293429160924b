"""An argument placed by ``origin.x``: its value is put where the key says and nowhere else; the engine finds it there, or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.review.scenarios.fields import FieldProblem, SceneError, bare, tool_and_field
from agentgate.review.scenarios.filling import AGO, Filler, Slot
from agentgate.review.scenarios.statements import put
from agentgate.review.scenarios.structure import elements
from agentgate.review.scenarios.values import candidates, fits
from agentgate.values.entities import number
from agentgate.workflow.model import Workflow
from agentgate.workflow.rule import PROMPT


def place_argument(workflow: Workflow, values: dict[str, Any], name: str, where: str, *, fresh: bool) -> None:
    """Put an argument of the call where `where` says.

    Args:
        workflow: the workflow of the scene.
        values: the scene's values, changed in place.
        name: the argument.
        where: ``prompt``, ``user``, ``computed``, ``model``, or a field of a tool.
        fresh: whether it gets another value, which the scene does not hold yet.

    Raises:
        SceneError: the called tool has no such argument, or no other value of it could be made up.
    """
    tool = workflow.tools.get(values["call"])
    if tool is None or name not in tool.args:
        raise SceneError((FieldProblem(f"origin.{name}", "an argument that the called tool does not have", "one of its arguments"),))
    slot, filler = Slot(tool, tool.args[name]), Filler(workflow, values)
    if fresh or values.get(slot.key) is None:
        values[slot.key] = _fresh(workflow, values, slot, where)
    value, currency = values[slot.key], filler.currency(slot)
    named = tool_and_field(workflow.tools, where)
    if where == "user":
        values["who.user.id"] = str(elements(value)[0])
    elif where == "computed":
        filler.compute(slot.rule, value, currency)
    elif where == "prompt":
        filler.name(slot.rule, elements(value), currency)
    elif named is not None:
        label, field = named
        other = workflow.tools[bare(label)]
        sent = other.args[field] if field in other.args and field not in other.facts else None
        put(values, f"{'facts' if sent is None else 'earlier'}.{label}.{field}", value)
        if sent is not None and PROMPT in sent.sources:
            filler.name(sent, elements(value), currency)
        if sent is None and field in other.facts and label == other.name:
            filler.need(f"ago.{label}", AGO)
            filler.meant(other, other.facts[field])


def _fresh(workflow: Workflow, values: Mapping[str, Any], slot: Slot, where: str) -> Any:
    """Another allowed value that the scene does not hold yet."""
    top = Filler(workflow, dict(values)).bound(slot.rule)
    named = tool_and_field(workflow.tools, where)
    fact = workflow.tools[bare(named[0])].facts.get(named[1]) if named is not None else None
    pattern = fact.pattern if fact is not None else None
    known = [item for value in values.values() for item in elements(value)]
    for value in candidates(slot.rule, top):
        amount = number(value)
        new = not any(one in known or str(one) in known for one in elements(value))
        formed = pattern is None or all(type(one) is str and pattern.matches(one) for one in elements(value))
        bounded = amount is None or top is None or amount <= top
        if new and formed and bounded and fits(workflow, slot.tool.name, slot.rule.name, value):
            return value
    got = "no other value that the rule allows could be made up"
    raise SceneError((FieldProblem(f"origin.{slot.rule.name}", got, f"args.{slot.rule.name} beside it, with the value to place"),))
