"""What a person reads: each field that no program compares, with its value in both versions;
and all of a first version.

Rules: a path of the diff always gives a row, or is named in the one line of what decides
nothing (titles, owners, the order of a list, a word less). Where the words of an intent grew,
the row shows a prompt that has it now and did not have it, as the deriver reads both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

from agentgate.diff.arguments import describe
from agentgate.explain.listing import conditions
from agentgate.review.report.changes import Change
from agentgate.review.scenarios.scene import readings
from agentgate.values.patterns import Glob, Pattern
from agentgate.values.times import duration
from agentgate.workflow.clauses.conditions import Hours
from agentgate.workflow.model import ANY, NONE, Intent, Tool, Workflow
from agentgate.workflow.rule import Fact, Rule

_FOR_PEOPLE = {"title", "owners"}
# of any other value: where it stands, and what it is called
_UNSAID = frozenset({"line", "name"})
_ONCE = {"run", "who", "where"}
# conditions on the run itself, the same for every workflow
_HIDDEN = {"run run", "workflow version"}
_HOW = ("Please {}", "Please {} it", "{} it", "Please {} ORD-10023344", "{}")


def rows(
    old: Workflow, new: Workflow, differs: Mapping[str, tuple[Any, Any]]
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """What is left to read, as rows; and what differs and decides nothing, in words."""
    told = []
    idle = []
    for path, (before, after) in differs.items():
        if path in _FOR_PEOPLE:
            idle.append(f"{path} ({text(before)} -> {text(after)})")
        elif path.endswith(".words") and after and set(after) < set(before or ()):
            idle.append(f"{path} (without {text(tuple(w for w in before if w not in after))})")
        elif (
            isinstance(before, tuple)
            and isinstance(after, tuple)
            and sorted(map(text, before)) == sorted(map(text, after))
        ):
            idle.append(f"{path} (another order)")
        else:
            told.append(Change(path, text(before), text(after), _effect(old, new, path)))
    return tuple(told), tuple(idle)


def _effect(old: Workflow, new: Workflow, path: str) -> str:
    """What a difference means for a prompt, where it is one of an intent's words."""
    block, _, rest = path.partition(".")
    name, _, key = rest.partition(".")
    if block != "intents" or name not in new.intents:
        return ""
    before = old.intents[name].words if name in old.intents else ()
    more = [word for word in new.intents[name].words if word not in before]
    examples = new.intents[name].examples
    swapped = (
        e.replace(known, word)
        for word in more
        for e in examples
        for known in before
        if known in e
    )
    offered = chain(
        examples if name not in old.intents else (),
        swapped,
        (how.format(word) for word in more for how in _HOW),
    )
    for prompt in offered if key in {"", "words"} else ():
        now = _presence(new, name, prompt)
        if now == "present" and _presence(old, name, prompt) != "present":
            return f"now asked for by: {prompt}"
    return ""


def _presence(workflow: Workflow, intent: str, prompt: str) -> str:
    found = readings().intents(workflow, (prompt,)).get(intent)
    return found.presence if found is not None else "absent"


def first(workflow: Workflow) -> Iterator[Change]:
    """A first version, whole: who, for whom, where and when, what may be asked, and each tool
    with its arguments, limits and people.
    """
    if workflow.observe:
        yield Change(
            "mode",
            "",
            "observe",
            "a refused call runs its tool, without a token, a credential or facts",
        )
    yield Change(
        "title", "", workflow.title, f"risk {workflow.risk}, owners {text(workflow.owners)}"
    )
    yield from (
        Change(c.field, "", c.expected)
        for c in conditions(workflow, None)
        if c.about in _ONCE and c.key not in _HIDDEN
    )
    for intent in workflow.intents.values():
        yield Change(f"intents.{intent.name}", "", text(intent), _samples(intent))
    for tool in workflow.tools.values():
        yield from _tool(workflow, tool)
    bound = (
        ", only for the agent's key (of a read: where a server redeems it)"
        if workflow.token.agent_key
        else ""
    )
    yield Change("token", "", f"lives {duration(workflow.token.ttl)}{bound}")


def added(workflow: Workflow, tool: str) -> tuple[str, ...]:
    """A new tool in words: a line each for what it is, its arguments and its limits."""
    return tuple(f"{row.where}: {row.new}" for row in _tool(workflow, workflow.tools[tool]))


def _tool(workflow: Workflow, tool: Tool) -> Iterator[Change]:
    asked = {ANY: "for whatever is asked", NONE: "without any request"}
    needs = " or ".join(asked.get(name, f"for intent {name}") for name in tool.needs)
    given = (
        f", with a credential of {tool.upstream.broker} ({text(tool.upstream.settings)})"
        if tool.upstream is not None
        else ""
    )
    yield Change(
        tool.name,
        "",
        f"{tool.effect}, {needs}{given}",
        f"its token grants {text(tool.scope or (tool.name,))}",
    )
    if tool.title:
        yield Change(
            f"{tool.name}: title",
            "",
            tool.title,
            "what a person reads who is asked about a call",
        )
    for rule in tool.args.values():
        yield Change(
            f"{tool.name}: args.{rule.name}",
            "",
            describe(rule) + ("" if rule.sources else ", from anywhere"),
        )
    for fact in tool.facts.values():
        yield Change(f"{tool.name}: facts.{fact.name}", "", text(fact))
    for condition in conditions(workflow, tool):
        if condition.about in {"order", "person", "limit"}:
            where = {"order": "sequence", "limit": "limits"}.get(
                condition.about, condition.field
            )
            yield Change(f"{tool.name}: {where}", "", condition.expected)


def _samples(intent: Intent) -> str:
    yes = f"asked for by: {intent.examples[0]}" if intent.examples else ""
    no = f"not by: {intent.counter_examples[0]}" if intent.counter_examples else ""
    return "; ".join(filter(None, (yes, no)))


def text(value: Any) -> str:
    """A value of a workflow for a reader, whole."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Rule):
        return describe(value)
    if isinstance(value, Hours):
        return value.window
    if isinstance(value, Pattern | Glob):
        return value.source
    if isinstance(value, Intent):
        return f"{value.asks_for} words: {text(value.words) or 'none, a model reads it'}"
    if isinstance(value, Fact):
        path = f", at {'.'.join(value.path)}" if value.path not in {(), (value.name,)} else ""
        where = (
            f", where {', '.join(f'{fact} is {argument}' for fact, argument in value.where)}"
            if value.where
            else ""
        )
        named = (", only what the user named" if value.named else "") + (
            f", only in rows that the user names by {', '.join(value.named_by)}"
            if value.named_by
            else ""
        )
        return f"{value.type}{path}{where}{named}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(inner)}" for key, inner in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(text, value))
    if is_dataclass(value) and not isinstance(value, type):
        shown = [
            (f.name, getattr(value, f.name)) for f in fields(value) if f.name not in _UNSAID
        ]
        return ", ".join(f"{name}: {text(inner)}" for name, inner in shown if inner)
    return str(value)
