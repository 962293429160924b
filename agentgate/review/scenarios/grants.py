"""What a permitted call is given, and who is asked about a held one: what a test can pin although no decision shows it.

Rules: everything here is read from the workflow as the gate reads it when it mints, opens a hold or fetches a credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.decision.answer import Eligible
from agentgate.values.entities import number
from agentgate.values.request import Call
from agentgate.values.times import seconds
from agentgate.workflow.model import StepUpRule, Workflow

GRANTS = ("ttl", "bound_to", "scope", "audience", "redeem", "effect", "intent", "upstream", "masked", "mode")
ASKS = ("group", "count", "not", "timeout", "show")
_DURATIONS = frozenset({"ttl", "timeout"})
_UNORDERED = frozenset({"bound_to", "scope", "masked", "show", "not"})


def granted(workflow: Workflow, call: Call, answer: Eligible) -> Mapping[str, Any]:
    """What the token and the credential for an eligible call are: `GRANTS` by name, as a workflow file writes them."""
    tool = workflow.tools[call.tool]
    upstream: Any = "none"
    if tool.upstream is not None:
        upstream = {"broker": tool.upstream.broker}
        for name, value in tool.upstream.settings.items():
            upstream[name] = list(value) if isinstance(value, tuple) else f"{value}s" if name == "duration" else value
    bound = ["call", "agent_key"] if workflow.token.agent_key and tool.effect != "read" else ["call"]
    return {
        "ttl": f"{workflow.token.ttl}s",
        "bound_to": bound,
        "scope": list(tool.scope) or [tool.name],
        "audience": tool.audience or "none",
        "redeem": tool.redeem,
        "effect": tool.effect,
        "intent": answer.intent,
        "upstream": upstream,
        "masked": [name for name, rule in tool.args.items() if rule.sensitive],
        "mode": "observe" if workflow.observe else "enforce",
    }


def asked(rule: StepUpRule) -> Mapping[str, Any]:
    """Who answers a hold under this rule, and what they see: `ASKS` by name."""
    whom = {"group": rule.group, "count": rule.count, "not": list(rule.exclude)}
    return {**whom, "timeout": f"{rule.timeout}s", "show": list(rule.show)}


def same(key: str, stated: Any, got: Any) -> bool:
    """Whether a pinned value is the real one; ``1m`` is ``60s``, and lists of names have no order."""
    if key in _DURATIONS:
        return seconds(stated) == seconds(got) is not None
    if key in _UNORDERED:
        return type(stated) is list and all(type(item) is str for item in stated) and sorted(stated) == sorted(got)
    if key == "upstream" and type(stated) is dict and type(got) is dict:
        return stated.keys() == got.keys() and all(_equal(stated[name], got[name]) for name in got)
    return _equal(stated, got)


def _equal(stated: Any, got: Any) -> bool:
    if type(stated) is type(got) and stated == got:
        return True
    return (number(stated) is not None and number(stated) == number(got)) or seconds(stated) == seconds(got) is not None
