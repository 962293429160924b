"""A run under two versions of its workflow: the one that it was opened with, and a newer one
that is in force.

Rules: each version decides by itself, with what its own intents say; a call passes only if both
let it, and then on the stricter terms of each: every person that either asks for, every counter
that either keeps and the lower bound of one that both keep, the shorter life, the key that
either wants. What no token can be at once (of another audience, scope, effect, redeemer,
upstream or with other facts) is refused, and what an earlier call on such terms returned is no
fact under the newer version. A call is named after the version that the run was opened with, so
that it stays the same call. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any

from agentgate.decision.answer import Deny, Eligible, RequiredHold, Reservation
from agentgate.decision.case import Case
from agentgate.decision.decide import judge
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import Call, Derived, RunState, Surroundings
from agentgate.values.value_class import set_derived, value_class
from agentgate.workflow.model import Limit, StepUpRule, Tool, Workflow

Intents = Callable[
    [Workflow, tuple[str, ...], tuple[tuple[int, str], ...], str], Mapping[str, Derived]
]


@value_class
class Versions:
    """What the calls of a run are decided under.

    Attributes:
        opened: the version that the run was opened with.
        newer: the one in force, where it is another. Either masks what the other says is
            sensitive, wherever it shows a value.
        minted: what a call that passes is minted by: `opened`, on the stricter terms of both,
            with the tools that both have.
        changed: tools whose terms differ.
    """

    opened: Workflow
    newer: Workflow | None = None
    minted: Workflow = field(init=False)
    changed: frozenset[str] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        opened = self.opened
        newer = self.newer
        if newer is None:
            set_derived(self, minted=opened)
            return
        opened, newer = _masked(opened, newer), _masked(newer, opened)
        both = opened.tools.keys() & newer.tools.keys()
        changed = frozenset(
            name for name in both if any(_differing(opened.tools[name], newer.tools[name]))
        )
        set_derived(
            self, opened=opened, newer=newer, minted=_minted(opened, newer), changed=changed
        )

    @property
    def each(self) -> tuple[Workflow, ...]:
        """The versions, that of the run first."""
        return (self.opened,) if self.newer is None else (self.opened, self.newer)

    def file_of(self, limit: Limit, tool: str) -> str:
        """The file of the version that says so."""
        known = (
            each.file
            for each in self.each
            if tool in each.tools and any(limit is said for said in each.tools[tool].limits)
        )
        return next(known, self.opened.file)


def under(state: RunState, workflow: Workflow, intents: Intents) -> RunState:
    """The run as if it had been opened under this version of its workflow."""
    if state.header.digest == workflow.digest:
        return state
    header = replace(state.header, version=workflow.version, digest=workflow.digest)
    return replace(
        state,
        header=header,
        intents=intents(workflow, state.turns, state.doubts, header.reader),
    )


def under_newer(
    versions: Versions, newer: Workflow, state: RunState, intents: Intents
) -> RunState:
    """`under` the newer version, which takes no fact from a call on other terms: it was read as
    this version does not say.
    """
    seen = under(state, newer, intents)
    if not any(call.rows and call.tool in versions.changed for call in seen.calls):
        return seen
    return replace(
        seen,
        calls=tuple(
            [
                replace(call, rows=()) if call.tool in versions.changed else call
                for call in seen.calls
            ]
        ),
    )


def judged(
    versions: Versions, state: RunState, call: Call, around: Surroundings, intents: Intents
) -> tuple[Case, Eligible | Deny]:
    """Decide one call of a run under all its versions; `intents` says what turns ask for under
    a version.

    Returns:
        The case of the version that the run was opened with, by whose terms a call is minted,
            and the answer of all.
    """
    case = Case(versions.opened, state, call, around)
    first = judge(case)
    newer = versions.newer
    if newer is None:
        return case, first
    second = judge(Case(newer, under_newer(versions, newer, state, intents), call, around))
    case.workflow = versions.minted
    case.tool = versions.minted.tools.get(call.tool)
    names = (f"version {versions.opened.version}", f"version {newer.version}")
    if isinstance(first, Deny) or isinstance(second, Deny):
        answers = [
            f"{name} {_said(answer)}"
            for name, answer in zip(names, (first, second), strict=True)
        ]
        failures = [
            f for answer in (first, second) if isinstance(answer, Deny) for f in answer.failures
        ]
        return case, Deny((*failures, _ended(", ".join(answers), names)))
    tool = versions.opened.tools[call.tool]
    other = newer.tools[call.tool]
    differing = tuple(_differing(tool, other))
    if differing:
        return case, Deny((_ended("other terms: " + ", ".join(differing), names),))
    return case, _together(first, second, _rules(tool, other, newer.version))


def _said(answer: Eligible | Deny) -> str:
    return (
        "refuses it"
        if isinstance(answer, Deny)
        else "allows it"
        if not answer.holds
        else "asks about it"
    )


def _ended(got: str, names: tuple[str, str]) -> Failure:
    expected = (
        f"a call that passes {names[0]}, which the run was opened with, and "
        f"{names[1]}, in force now: the run ends"
    )
    return Failure(Reason.TWO_VERSIONS, "workflow", got, expected)


# --- the terms of both ------------------------------------------------------------------------
def _differing(one: Tool, other: Tool) -> Iterator[str]:
    """The terms of a tool that no token can meet twice."""
    for name in ("effect", "audience", "redeem"):
        if getattr(one, name) != getattr(other, name):
            yield name
    # what is signed writes the default out
    if {*(one.scope or (one.name,))} != {*(other.scope or (other.name,))}:
        yield "scope"
    if one.upstream != other.upstream:
        yield "upstream"
    if one.result_paths != other.result_paths:
        yield "facts"


def _minted(opened: Workflow, newer: Workflow) -> Workflow:
    tools = {
        name: _tool(tool, newer.tools[name], newer.version)
        for name, tool in opened.tools.items()
        if name in newer.tools
    }
    one = opened.agent
    other = newer.agent
    agent = replace(
        one,
        in_process=one.in_process and other.in_process,
        same_key_as_last_token=one.same_key_as_last_token or other.same_key_as_last_token,
        claims=(*one.claims, *other.claims),
    )
    token = opened.token.join(newer.token)
    return replace(opened, tools=MappingProxyType(tools), agent=agent, token=token)


def _masked(one: Workflow, other: Workflow) -> Workflow:
    tools = {
        name: _masked_tool(tool, other.tools[name]) if name in other.tools else tool
        for name, tool in one.tools.items()
    }
    return replace(one, tools=MappingProxyType(tools))


def _masked_tool(one: Tool, other: Tool) -> Tool:
    secret = [name for name, rule in other.args.items() if rule.sensitive]
    args = {
        name: replace(
            rule, sensitive=rule.sensitive or any(_overlap(name, each) for each in secret)
        )
        for name, rule in one.args.items()
    }
    return replace(one, args=MappingProxyType(args))


def _overlap(one: str, other: str) -> bool:
    """Whether one of two arguments is the other, or inside it."""
    short, long = sorted((one, other), key=len)
    return long == short or long.startswith((f"{short}.", f"{short}["))


def _tool(one: Tool, other: Tool, version: int) -> Tool:
    more = tuple(
        rule for rule in _rules(one, other, version).values() if rule not in one.step_ups
    )
    spans = {
        name: min(span, other.remember[name])
        for name, span in one.remember.items()
        if name in other.remember
    }
    return replace(
        one,
        referenced=one.referenced | other.referenced,
        step_ups=(*one.step_ups, *more),
        remember=spans,
    )


def _rules(one: Tool, other: Tool, version: int) -> Mapping[str, StepUpRule]:
    """The newer version's rules as people are shown them: as the older one's where that asks
    the same people, for as long, by as much.
    """
    both = one.args.keys() & other.args.keys()
    found = dict[str, StepUpRule]()

    for rule in other.step_ups:
        asked = rule.asked_about(both)
        same = next((known for known in one.step_ups if known.asked_about(both) == asked), None)
        found[rule.id] = (
            replace(rule, id=f"{rule.id}@{version}", line=0) if same is None else same
        )
    return found


def _together(first: Eligible, second: Eligible, rules: Mapping[str, StepUpRule]) -> Eligible:
    taken: dict[tuple[Any, ...], Reservation] = {}
    for each in (*first.reservations, *second.reservations):
        limit = each.limit
        counter = (*limit.counter, each.currency)
        known = taken.get(counter, each)
        lower = known if known.limit.stands_for(limit) else each
        taken[counter] = Reservation(lower.limit, max(known.amount, each.amount), each.currency)
    holds = {hold.rule.id: hold for hold in first.holds}
    for hold in second.holds:
        rule = rules[hold.rule.id]
        shown = holds.get(rule.id)
        holds[rule.id] = RequiredHold(
            rule, hold.why if shown is None else tuple(dict.fromkeys((*shown.why, *hold.why)))
        )
    return first._replace(
        reservations=tuple(taken.values()),
        holds=tuple(holds.values()),
        named=first.named and second.named,
    )
