"""A case: what a test file says of one scene, and whether a decision on that scene is so.

Rules: a denial must be for every reason that the case names (`because`), and for no other.
Besides the decision, a case can pin what is handed out (`grants`) and who is asked (`asks`),
read from the workflow as the gate reads it when it mints, opens a hold or fetches a credential.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Literal

from agentgate.decision.answer import Deny, Eligible
from agentgate.loading.inline import inline
from agentgate.loading.yaml_nodes import shown
from agentgate.review.scenarios.scene import Scene
from agentgate.values.entities import number
from agentgate.values.refusal import Failure
from agentgate.values.request import Call
from agentgate.values.times import seconds
from agentgate.values.value_class import value_class
from agentgate.workflow.model import StepUpRule, Workflow

Answer = Literal["allow", "deny", "confirm", "step_up"]
GRANTS = (
    "ttl",
    "bound_to",
    "scope",
    "audience",
    "redeem",
    "effect",
    "intent",
    "upstream",
    "masked",
    "mode",
)
ASKS = ("user", "group", "count", "not", "timeout", "show")
_DURATIONS = frozenset({"ttl", "timeout"})
_UNORDERED = frozenset({"bound_to", "scope", "masked", "show", "not"})


@value_class
class NamedCase:
    """What a test file says of one scene."""

    name: str
    # dotted key -> value, over the base (`set`, and `without` as None)
    changes: Mapping[str, Any]
    answer: Answer  # the expected answer
    rules: tuple[str, ...] = ()  # ids of the rules that fire, for ``confirm`` and ``step_up``
    # fields or reasons; a denial (or hold) is for each of these and nothing else
    because: tuple[str, ...] = ()
    # what an allowed or held call gets; only the named keys are compared
    grants: Mapping[str, Any] = field(default_factory=dict)
    # by rule id, who is asked; only the named keys are compared
    asks: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0  # its line in the file, from 1; 0: a proposed case

    @property
    def expected(self) -> str:
        """The expectation in words."""
        what = " ".join([self.answer, ", ".join(self.rules)]) if self.rules else self.answer
        return what + (f" because {', '.join(self.because)}" if self.because else "")


def mismatch(workflow: Workflow, case: NamedCase, scene: Scene, answer: Eligible | Deny) -> str:
    """What of a case does not hold of a decision, in words; empty when all of it holds."""
    if answer.asks != case.answer:
        return f"expected {case.expected}, got {in_words(answer)}"
    if isinstance(answer, Deny):
        return _because(case, answer.failures)
    if set(rules_of(answer)) != set(case.rules):
        return f"expected {case.expected}, got {in_words(answer)}"
    if case.because and (wrong := _because(case, answer.failures)):
        return wrong
    given = granted(workflow, scene.call, answer)
    pinned = [("grants", key, value, given[key]) for key, value in case.grants.items()]
    for hold in answer.holds:
        who = asked(hold.rule)
        pinned += [
            ("asks", key, value, who[key])
            for key, value in case.asks.get(hold.rule.id, {}).items()
        ]
    for block, key, value, got in pinned:
        if not _same(key, value, got):
            return f"{block}.{key}: expected {_listed(value)}, got {_listed(got)}"
    return ""


def _listed(value: Any) -> str:
    """A pinned value as a message shows it, a list with what is in it."""
    return f"[{', '.join(map(shown, value))}]" if type(value) is list else shown(value)


def _because(case: NamedCase, failures: tuple[Failure, ...]) -> str:
    """A refusal is for every named reason, and only for those."""
    for reason in case.because:
        if not any(_is_for(failure, reason) for failure in failures):
            return f"expected because of {reason}, got " + "; ".join(map(str, failures))
    others = (
        failure
        for failure in failures
        if not any(_is_for(failure, reason) for reason in case.because)
    )
    return next((f"also refused for another reason: {failure}" for failure in others), "")


def _is_for(failure: Failure, reason: str) -> bool:
    """Whether a case names this failure: by its reason, its field, or its argument (``payee``
    for ``args.payee``).
    """
    return reason in {str(failure.reason), failure.field, failure.argument}


def in_words(answer: Eligible | Deny) -> str:
    """A decision in one line."""
    if isinstance(answer, Deny):
        return "deny: " + "; ".join(map(str, answer.failures))
    return f"{answer.asks} {', '.join(rules_of(answer))}".rstrip()


def rules_of(answer: Eligible | Deny) -> tuple[str, ...]:
    """The rules that hold a call; none of one that is refused."""
    return tuple(hold.rule.id for hold in answer.holds) if isinstance(answer, Eligible) else ()


# --- what no decision shows -------------------------------------------------------------------
def granted(workflow: Workflow, call: Call, answer: Eligible) -> Mapping[str, Any]:
    """What the token and the credential for an eligible call are: `GRANTS` by name, as a
    workflow file writes them.
    """
    tool = workflow.tools[call.tool]
    upstream: Any = "none"
    if tool.upstream:
        upstream = {"broker": tool.upstream.broker}
        for name, value in tool.upstream.settings.items():
            upstream[name] = (
                list(value)
                if isinstance(value, tuple)
                else f"{value}s"
                if name == "duration"
                else value
            )
    bound = (
        ["call", "agent_key"]
        if workflow.token.agent_key and (tool.effect != "read" or tool.redeem == "server")
        else ["call"]
    )
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
    whom = {
        "user": rule.user,
        "group": rule.group or "none",
        "count": rule.count,
        "not": list(rule.exclude),
    }
    return {**whom, "timeout": f"{rule.timeout}s", "show": list(rule.show)}


def _same(key: str, stated: Any, got: Any) -> bool:
    """Whether a pinned value is the real one; ``1m`` is ``60s``, and lists of names have no
    order.
    """
    if key in _DURATIONS:
        return seconds(stated) == seconds(got) is not None
    if key in _UNORDERED:
        return (
            type(stated) is list
            and all(type(item) is str for item in stated)
            and sorted(stated) == sorted(got)
        )
    if key == "upstream" and type(stated) is dict and type(got) is dict:
        return stated.keys() == got.keys() and all(
            _equal(stated[name], got[name]) for name in got
        )
    return _equal(stated, got)


def _equal(stated: Any, got: Any) -> bool:
    if type(stated) is type(got) and stated == got:
        return True
    return (number(stated) is not None and number(stated) == number(got)) or seconds(
        stated
    ) == seconds(got) is not None


# --- as YAML ----------------------------------------------------------------------------------
def _one_or_all(values: tuple[str, ...]) -> str | tuple[str, ...]:
    return values[0] if len(values) == 1 else values


def case_yaml(case: NamedCase) -> str:
    """One case as a line (or a few) to append below ``cases:``."""
    expected = {case.answer: _one_or_all(case.rules)} if case.rules else case.answer
    parts = {
        "set": {key: value for key, value in case.changes.items() if value is not None},
        "without": [key for key, value in case.changes.items() if value is None],
        "expect": expected,
        "because": _one_or_all(case.because),
        "grants": case.grants,
        "asks": next(iter(case.asks.values()))
        if len(case.rules) == 1 and case.asks
        else case.asks,
    }
    lines = [
        f"name: {inline(case.name)}",
        *(f"{key}: {inline(value)}" for key, value in parts.items() if value),
    ]
    line = f"  - {{{', '.join(lines)}}}"
    return line if len(line) <= 160 else "  - " + "\n    ".join(lines)


def cases_yaml(cases: Iterable[NamedCase]) -> str:
    """Cases as YAML to append below ``cases:``."""
    return "".join(case_yaml(case) + "\n" for case in cases)


def file_yaml(workflow: Workflow, base: Mapping[str, Any], answer: Eligible | Deny) -> str:
    """A new test file up to ``cases:``, with a base of which this is the answer."""
    lines = [
        f"# What {workflow.id} lets through and what not. `agentgate workflow test -v` runs it.",
        f"workflow: {inline(workflow.id)}",
    ]
    lines += ["base:", *(f"  {key}: {inline(value)}" for key, value in base.items())]
    if held := rules_of(answer):
        lines.append(
            f"expect: {inline({answer.asks: _one_or_all(held)})}   # the base asks a person"
        )
    return "\n".join([*lines, "cases:", ""])
