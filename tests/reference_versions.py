"""The oracle of a run under two versions: both are asked, and the stricter answer counts, said in the plainest way."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from agentgate.values.refusal import Reason
from agentgate.values.request import Call, Derived, RunState, Surroundings
from agentgate.workflow.model import Limit, StepUpRule, Tool, Workflow
from tests.reference import Verdict, evaluate


def evaluate_both(
    versions: tuple[Workflow, Workflow], intents: Mapping[str, Derived], run: RunState, call: Call, around: Surroundings
) -> Verdict:
    """The verdict of both; of limits the bound that counts in place of the line. `intents`: what the turns ask for under the newer one."""
    opened, newer = versions
    header = replace(run.header, version=newer.version, digest=newer.digest)
    one = evaluate(opened, run, call, around)
    alike = {name for name in opened.tools if name in newer.tools and _terms(opened.tools[name]) == _terms(newer.tools[name])}
    calls = tuple(each if each.tool in alike else replace(each, rows=()) for each in run.calls)
    other = evaluate(newer, replace(run, header=header, intents=intents, calls=calls), call, around)
    if one.denied or other.denied:
        return Verdict(one.denied | other.denied | {Reason.TWO_VERSIONS})
    first, second = opened.tools[call.tool], newer.tools[call.tool]
    if _terms(first) != _terms(second):
        return Verdict(frozenset({Reason.TWO_VERSIONS}))
    holds = set(one.holds)
    for rule in second.step_ups:
        if rule.id in other.holds:
            both = first.args.keys() & second.args.keys()
            same = [known for known in first.step_ups if known.id == rule.id and _people(known, both) == _people(rule, both)]
            holds.add(rule.id if same else f"{rule.id}@{newer.version}")
    counters: dict[object, list[tuple[int, int, str]]] = {}
    for verdict, tool in ((one, first), (other, second)):
        for line, amount, currency in verdict.taken:
            limit = _limit(tool, line)
            counter = (limit.tool, limit.argument, limit.per, limit.every, currency)
            counters.setdefault(counter, []).append((limit.maximum, amount, currency))
    taken = frozenset((min(m for m, _, _ in each), max(a for _, a, _ in each), each[0][2]) for each in counters.values())
    return Verdict(frozenset(), frozenset(holds), one.named and other.named, taken, one.intent)


def _terms(tool: Tool) -> list[object]:
    upstream = tool.upstream and (tool.upstream.broker, tool.upstream.settings, tool.upstream.bound)
    return [upstream, *(getattr(tool, name) for name in ("audience", "scope", "effect", "redeem", "facts"))]


def _people(rule: StepUpRule, both: AbstractSet[str]) -> tuple[object, ...]:
    shown = {name for name in both if not rule.show or name in rule.show}
    return rule.group, rule.count, rule.user, rule.exclude, rule.timeout, shown


def _limit(tool: Tool, line: int) -> Limit:
    (limit,) = [each for each in tool.limits if each.line == line]
    return limit
