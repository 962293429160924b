"""Pairs of the large random workflows, for what several origins must meet together: a few rules of the paying tool are changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.rule import Rule
from tests.generate import Case, Generator
from tests.generate_values import MODEL, PROMPT


def _again(generator: Generator, rule: Rule) -> dict[str, Any]:
    """One part of a rule, drawn again."""
    return generator.rng.choice(
        (
            {"sources": generator.some(rule.sources) if rule.sources else ()},
            {"sources": (*rule.sources, generator.rng.choice((PROMPT, MODEL)))},
            {"any_call": not rule.any_call},
            {"unknown_origin": "deny" if rule.unknown_origin == "step_up" else "step_up"},
            {"at_most": None},
            {"optional": not rule.optional, "nullable": False},
            {"needs": generator.rng.choice(((), ("refund",), ("notify",)))},
            {"nullable": rule.optional and not rule.nullable},
            {"max_items": rule.max_items and max(1, rule.max_items + generator.rng.choice((-1, 1)))},
            {"maximum": rule.maximum and rule.maximum * generator.rng.choice((1, 2))},
            {"one_of": rule.one_of if rule.role else rule.one_of and generator.some(rule.one_of)},
            {"entities": None if generator.maybe(0.3) else rule.entities and generator.some(rule.entities)},
        )
    )


def changed(generator: Generator, old: Workflow) -> Workflow:
    """The workflow with one to three changes to its paying tool."""
    pay = old.tools["pay"]
    for _ in range(generator.rng.choice((1, 1, 2, 3))):
        pay = _changed_tool(generator, pay)
    return replace(old, tools={**old.tools, "pay": pay})


def _changed_tool(generator: Generator, pay: Tool) -> Tool:
    kind = generator.rng.random()
    if kind < 0.1:
        return replace(pay, sequence=generator.some(pay.sequence, 0))
    if kind < 0.25:
        return replace(pay, step_ups=generator.some(pay.step_ups, 0))
    name = generator.rng.choice(sorted(pay.args))
    rule = pay.args[name]
    return replace(pay, args={**pay.args, name: replace(rule, **_again(generator, rule))})


def cases(generator: Generator, old: Workflow, new: Workflow, count: int) -> Iterator[Case]:
    """Calls close to the line of each version."""
    for index in range(count):
        yield generator.case((old, new)[index % 2])
