"""The conditions of a workflow, one by one: everything that must hold before one of its tools is minted for.

Rules: this names conditions, it decides nothing. What held and what did not comes from `agentgate.decision.checks`; a `Failure` carries
the key of its condition, or names it by its field. A condition that lies behind others (`after`) was not looked at when one
of those did not hold. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from agentgate.values.entities import written
from agentgate.values.refusal import Failure, Reason
from agentgate.values.times import SHORT_WEEKDAYS, clock
from agentgate.workflow.model import ANY, NONE, Hours, Limit, Rule, StepUpRule, Tool, Workflow

About = Literal["run", "who", "where", "tool", "argument", "origin", "intent", "order", "person", "limit", "store"]

AT_MINT: frozenset[About] = frozenset({"limit", "store"})  # known to the store alone, when it mints


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a workflow for one of its tools.

    Attributes:
        about: what kind of thing it looks at.
        field: what is looked at, as a `Failure` names it.
        word: the key of the workflow file that sets it (``pattern``, ``at_most``, ``from``, ...); with `field` unique.
        expected: what holds, as text.
        line: line of its rule; 0 when no line of the file says it.
        reasons: what a failure of it is called.
        argument: the argument it is about, or empty.
        after: `key` of the conditions without which this one is not looked at.
        rule: the argument's rule, the step-up rule or the limit behind it.
    """

    about: About
    field: str
    word: str
    expected: str
    line: int
    reasons: frozenset[Reason]
    argument: str = ""
    after: frozenset[str] = frozenset()
    rule: Rule | StepUpRule | Limit | None = None

    @property
    def key(self) -> str:
        """Its name within one tool."""
        return f"{self.field} {self.word}"


def matching(failure: Failure, found: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """The condition a failure is of, by the key it carries or else by its field; none for what no rule of the workflow says."""
    return tuple([c for c in found if failure.reason in c.reasons and (failure.condition or failure.field) in {c.key, c.field}][:1])


def conditions(workflow: Workflow, tool: Tool | None) -> tuple[Condition, ...]:
    """Every condition a call of this tool must meet, in the order of the checks; None: a tool that is not of this workflow."""
    found = [*_run(workflow), *_who(workflow), *_where(workflow)]
    known = ", ".join(workflow.tools)
    found.append(_of("tool", "tool", "tools", f"one of {known}", tool.line if tool else 0, Reason.TOOL_UNKNOWN))
    if tool is not None:
        found += [*_tool(tool), *_arguments(tool), *_together(tool), *_intent(workflow, tool), *_order(tool), *_persons(tool)]
        found += [*_limits(tool), *_store()]
    return tuple(found)


def _of(about: About, field: str, word: str, expected: str, line: int, *reasons: Reason, **more: object) -> Condition:
    return Condition(about, field, word, expected, line, frozenset(reasons), **more)  # type: ignore[arg-type]  # the fields of Condition


def _any(words: tuple[str, ...]) -> str:
    return "one of " + ", ".join(words)


# --- the run and who it is for -------------------------------------------------------------------------------------------
def _run(workflow: Workflow) -> Iterator[Condition]:
    opened = (Reason.RUN_CLOSED, Reason.RUN_MISSING, Reason.RUN_EXPIRED)
    yield _of("run", "run", "run", "an open run within its lifetime", 0, *opened)
    in_force = f"{workflow.id} {workflow.digest}, in force now"
    yield _of("run", "workflow", "version", in_force, 0, Reason.WORKFLOW_CHANGED, Reason.WORKFLOW_UNKNOWN)
    yield _of("run", "expires", "expires", f"not after {workflow.expires}", workflow.expires_line, Reason.WORKFLOW_EXPIRED)
    yield _of("run", "tenant", "tenants", _any(workflow.tenants), workflow.tenants_line, Reason.TENANT)


def _who(workflow: Workflow) -> Iterator[Condition]:
    yield from _agent(workflow)
    user = workflow.for_user
    if user is None:
        yield _of("who", "user", "for_user", "no user: this workflow is for an autonomous workload", 0, Reason.USER)
    else:
        proven = "a user" if workflow.agent.in_process else "a user proven by a token"
        yield _of("who", "user", "for_user", proven, user.line, Reason.USER)
        behind = frozenset({"user for_user"})
        if user.same_tenant:
            yield _of("who", "user.tenant", "same_tenant", "the tenant of the run", user.line, Reason.USER, after=behind)
        if user.groups:
            yield _of("who", "user.groups", "groups", _any(user.groups), user.line, Reason.USER, after=behind)
    via = workflow.via
    hops = f"at most {via.max_hops} hops, through {', '.join(via.brokers)}" if via is not None else "no hop between user and agent"
    yield _of("who", "agent.via", "via", hops, via.line if via is not None else 0, Reason.HOPS)


def _agent(workflow: Workflow) -> Iterator[Condition]:
    rule = workflow.agent
    if rule.in_process:
        yield _of("who", "agent", "in_process", "an agent that the host vouches for", rule.line, Reason.AGENT)
    else:
        yield _of("who", "agent", "agent", "an agent proven by its own credential", rule.line, Reason.AGENT)
    behind = frozenset({"agent agent"})
    if rule.spiffe and not rule.in_process:
        yield _of("who", "agent.spiffe", "spiffe", _any(rule.spiffe), rule.line, Reason.AGENT, after=behind)
    if rule.oidc_issuer and not rule.in_process:
        yield _of("who", "agent.oidc.issuer", "issuer", rule.oidc_issuer, rule.line, Reason.AGENT, after=behind)
    for claim in () if rule.in_process else rule.claims:
        yield _of("who", f"agent.oidc.claims.{claim.name}", "claims", _any(claim.one_of), claim.line, Reason.AGENT, after=behind)
    if rule.image_signed_by or rule.attested_within is not None:
        yield _of("who", "agent.posture", "posture", "an attested posture", rule.line, Reason.POSTURE)
        behind = frozenset({"agent.posture posture"})
        if rule.image_signed_by:
            signed = _any(rule.image_signed_by)
            yield _of("who", "agent.posture.image_signed_by", "image_signed_by", signed, rule.line, Reason.POSTURE, after=behind)
        if rule.attested_within is not None:
            recent = f"attested in the last {rule.attested_within} s"
            yield _of("who", "agent.posture.attested_at", "attested_within", recent, rule.line, Reason.POSTURE, after=behind)
    asked = (("cluster", rule.cluster), ("namespace", rule.namespace), ("node_pool", rule.node_pool))
    if any(allowed for _, allowed in asked) or rule.same_key_as_last_token:
        yield _of("who", "agent.boundary", "boundary", "a workload inside its boundary", rule.line, Reason.BOUNDARY)
        behind = frozenset({"agent.boundary boundary"})
        for name, allowed in asked:
            if allowed:
                yield _of("who", f"agent.boundary.{name}", name, _any(allowed), rule.line, Reason.BOUNDARY, after=behind)
        if rule.same_key_as_last_token:
            same = "the key of this account's last token"
            yield _of("who", "agent.boundary.key", "same_key_as_last_token", same, rule.line, Reason.BOUNDARY, after=behind)


def _where(workflow: Workflow) -> Iterator[Condition]:
    rule = workflow.conditions
    if rule.environment:
        yield _of("where", "environment", "environment", _any(rule.environment), rule.line, Reason.ENVIRONMENT)
    if rule.data_class:
        yield _of("where", "data_class", "data_class", _any(rule.data_class), rule.line, Reason.DATA_CLASS)
    if rule.network:
        yield _of("where", "network", "network", _any(rule.network), rule.line, Reason.NETWORK)
    if rule.hours is not None:
        yield _of("where", "hours", "hours", window(rule.hours), rule.hours.line, Reason.HOURS)


def window(hours: Hours) -> str:
    """Days and times as a reader says them: ``Mon-Fri 08:00-20:00 Europe/Berlin``."""
    days, spans = sorted(hours.days), []
    while days:
        last = next((n for n, day in enumerate(days) if day != days[0] + n), len(days)) - 1
        spans.append(SHORT_WEEKDAYS[days[0]] if last == 0 else f"{SHORT_WEEKDAYS[days[0]]}-{SHORT_WEEKDAYS[days[last]]}")
        days = days[last + 1 :]
    times = f"{clock(hours.start)}-{clock(hours.end)}"
    return f"{','.join(spans)} {times} {hours.zone}"


# --- the tool and its arguments ------------------------------------------------------------------------------------------
def _tool(tool: Tool) -> Iterator[Condition]:
    if tool.definition:
        field = f"tools.{tool.name}.definition"
        yield _of("tool", field, "definition", tool.definition, tool.line, Reason.TOOL_DEFINITION)
    if tool.upstream is not None:
        expected = f"broker {tool.upstream.broker}, configured"
        yield _of("tool", f"upstream.{tool.name}.broker", "upstream", expected, tool.upstream.line, Reason.UPSTREAM)
    known = "no argument but " + ", ".join(tool.args) if tool.args else "no argument"
    yield _of("argument", "args", "args", known, tool.line, Reason.ARGUMENT_UNKNOWN)


def _arguments(tool: Tool) -> Iterator[Condition]:
    for name, rule in tool.args.items():
        yield from _argument(name, rule)


def _argument(name: str, rule: Rule) -> Iterator[Condition]:
    field = f"args.{name}"

    def one(about: About, word: str, expected: str, reason: Reason, after: frozenset[str] = frozenset()) -> Condition:
        return _of(about, field, word, expected, rule.line, reason, argument=name, after=after, rule=rule)

    if not rule.optional:
        yield one("argument", "required", "a value", Reason.ARGUMENT_MISSING)
    missing = frozenset({f"{field} required"})
    form = written(rule.type) if rule.max_items is None else f"a list of {rule.type}"
    yield one("argument", "type", form, Reason.ARGUMENT_FORM, missing)
    formed = missing | {f"{field} type"}
    before = formed
    stated = [(operator.key, operator.expected) for operator in rule.operators]
    for word, expected in ([("max_items", f"at most {rule.max_items} elements")] if rule.max_items is not None else []) + stated:
        yield one("argument", word, expected, Reason.ARGUMENT_VALUE, before)  # the first that does not hold is the one that is named
        before |= {f"{field} {word}"}
    if rule.needs:
        asked = one("intent", "needs", " or ".join(rule.needs), Reason.INTENT_ABSENT, formed)
        yield replace(asked, reasons=asked.reasons | {Reason.INTENT_UNCLEAR})
    if rule.role:
        yield one("argument", "narrower_than_role", f"a strict subset of role {rule.role}", Reason.ROLE, formed)
    if rule.at_most is not None:
        yield one("origin", "at_most", f"at most {rule.at_most} of an earlier call", Reason.AT_MOST, formed)
    if rule.sources:
        yield one("origin", "from", "a value from " + " or ".join(map(str, rule.sources)), Reason.ARGUMENT_ORIGIN, formed)
    if rule.entities is not None:
        grounded = "found in " + " or ".join(map(str, rule.entities))
        yield one("origin", "entities", grounded, Reason.ENTITY_ORIGIN, formed)


def _together(tool: Tool) -> Iterator[Condition]:
    """One call, one source: looked at only when every reference can be met by itself."""
    joined = [r for r in tool.args.values() if not r.any_call and r.references]
    if not joined and not tool.sequence:
        return
    after = {f"args.{r.name} {word}" for r in tool.args.values() for word in ("from", "at_most")}
    after |= {f"{tool.name} require {n}" for n in range(len(tool.sequence))}
    yield _of(
        "origin",
        tool.name,
        "one source",
        "all that refers to an earlier call of one tool is met by the same call and row",
        tool.line,
        Reason.ONE_SOURCE,
        after=frozenset(after),
    )


# --- what was asked, in what order, how much, who must look ----------------------------------------------------------------
def _intent(workflow: Workflow, tool: Tool) -> Iterator[Condition]:
    if ANY not in tool.needs and (NONE not in tool.needs or workflow.intents):
        yield _of("intent", "intent", "needs", " or ".join(tool.needs), tool.line, Reason.INTENT_ABSENT, Reason.INTENT_UNCLEAR)


def _order(tool: Tool) -> Iterator[Condition]:
    for number, order in enumerate(tool.sequence):
        expected = f"{order.require} before {tool.name}" + ("" if order.within is None else f", at most {order.within} s ago")
        yield _of("order", tool.name, f"require {number}", expected, order.line, Reason.SEQUENCE)


def _persons(tool: Tool) -> Iterator[Condition]:
    for rule in tool.step_ups:
        when = " and ".join(_when(each) for each in rule.when) or "every call"
        yield _of(
            "person",
            f"step_up.{rule.id}",
            "step_up",
            f"{when}: a yes of {rule.count} of {rule.group}" + (", not the requester" if rule.exclude else ""),
            rule.line,
            Reason.STEP_UP,
            rule=rule,
        )
    if tool.step_ups:
        answered = (Reason.STEP_UP, Reason.HOLD_REFUSED, Reason.HOLD_EXPIRED)
        yield _of("store", "hold", "hold", "a release for exactly this call, where a person must look", 0, *answered)


def _when(rule: Rule) -> str:
    said = [operator.expected for operator in rule.operators]
    if rule.origin is not None:
        said.append("from " + " or ".join(map(str, rule.origin)))
    return f"{rule.name} {', '.join(said)}"


def _limits(tool: Tool) -> Iterator[Condition]:
    for number, limit in enumerate(tool.limits):
        window_ = "" if limit.every is None else f" every {limit.every} s"
        what = f"sum of {limit.tool}.{limit.argument}" if limit.argument else f"calls of {limit.tool}"
        bound = limit.maximum / 10_000 if limit.argument else limit.maximum
        yield _of(
            "limit",
            "limits",
            f"limit {number}",
            f"{what}: at most {bound:g} per {limit.per}{window_}",
            limit.line,
            Reason.LIMIT,
            rule=limit,
        )


def _store() -> Iterator[Condition]:
    yield _of("store", "revocations", "revoked", "nothing of this call revoked", 0, Reason.REVOKED)
    ran = (Reason.ALREADY_REDEEMED, Reason.OUTCOME_UNKNOWN)
    yield _of("store", "call", "once", "a call that did not run yet", 0, *ran)
