"""The pure decision: every check of a call against its workflow, in order, all failing reasons together.

Rules: no clock, no I/O, no logging; the same values give the same answer. A check is one function and one row of `CHECKS`;
it appends failures and can do nothing else, so an added check can only refuse. Unknown, empty, missing is a failure.
Counters and releases are not known here: they are settled by the mint script.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.decision import Deny, Eligible, Failure, Reason, RequiredHold, Reservation
from agentgate.entities import NORMAL, NUMERIC, Key, texts
from agentgate.nested import flat
from agentgate.origins import Earlier, Traced, Value, came_from, in_some_call, sources_of, trace
from agentgate.request import Call, RunState, Surroundings
from agentgate.spans import embedded
from agentgate.workflow import ANY, NONE, Rule, StepUpRule, Tool, Workflow

SCALE = 10_000  # sums are kept in units of 10^-4
_NOTHING = Decimal()


class Case:
    """One call under decision, and what the checks found so far. Built by `decide`, seen by the checks, kept by nobody."""

    __slots__ = ("around", "call", "denied", "earlier_", "forced", "run", "tool", "traced", "values", "workflow")

    def __init__(self, workflow: Workflow, run: RunState, call: Call, around: Surroundings) -> None:
        self.workflow, self.run, self.call, self.around = workflow, run, call, around
        self.tool: Tool | None = workflow.tools.get(call.tool)
        self.values: dict[str, Value] = {}
        self.earlier_: Earlier | None = None
        self.traced: Traced | None = None
        self.denied: list[Failure] = []
        self.forced: list[Failure] = []

    @property
    def earlier(self) -> Earlier:
        """The run's redeemed calls, comparable under this workflow's tools."""
        if self.earlier_ is None:
            self.earlier_ = Earlier.of_run(self.run, self.workflow.tools)
        return self.earlier_

    def deny(self, reason: Reason, field: str, got: object, expected: str, line: int = 0) -> None:
        """Record one condition that did not hold."""
        self.denied.append(Failure(reason, field, str(got), expected, f"{self.workflow.file}:{line}" if line else ""))


def check_run(case: Case) -> None:
    """The run is open and was frozen on exactly this workflow, which has not expired."""
    run, workflow = case.run, case.workflow
    if run.closed:
        case.deny(Reason.RUN_CLOSED, "run", "closed", "an open run")
    if run.header.workflow != workflow.id or run.header.digest != workflow.digest:
        case.deny(
            Reason.WORKFLOW_CHANGED,
            "workflow",
            f"{run.header.workflow} {run.header.digest}",
            f"{workflow.id} {workflow.digest}, in force now",
        )
    if case.around.now.astimezone(UTC).date() > workflow.expires:
        case.deny(
            Reason.WORKFLOW_EXPIRED,
            "expires",
            workflow.expires,
            f"a workflow in force on {case.around.now:%Y-%m-%d}",
            workflow.expires_line,
        )


def check_tenant(case: Case) -> None:
    """Exact tenant, from the run only (tenant spoofing by the model)."""
    if case.run.header.tenant not in case.workflow.tenants:
        case.deny(
            Reason.TENANT, "tenant", repr(case.run.header.tenant), "one of " + ", ".join(case.workflow.tenants), case.workflow.tenants_line
        )


def check_agent(case: Case) -> None:
    """The workload: in process where the workflow says so, else proven and named."""
    rule, agent = case.workflow.agent, case.run.header.agent
    if rule.in_process:
        return
    if agent.identity != "proven":
        case.deny(Reason.AGENT, "agent", f"{agent.id} (in process)", "an agent proven by its own credential", rule.line)
        return
    if rule.spiffe and agent.spiffe not in rule.spiffe:
        case.deny(Reason.AGENT, "agent.spiffe", repr(agent.spiffe), "one of " + ", ".join(rule.spiffe), rule.line)
    if rule.oidc_issuer and agent.issuer != rule.oidc_issuer:
        case.deny(Reason.AGENT, "agent.oidc.issuer", repr(agent.issuer), rule.oidc_issuer, rule.line)
    for claim in rule.claims:
        if agent.claims.get(claim.name) not in claim.one_of:
            case.deny(
                Reason.AGENT,
                f"agent.oidc.claims.{claim.name}",
                repr(agent.claims.get(claim.name)),
                "one of " + ", ".join(claim.one_of),
                claim.line,
            )
    if not (rule.spiffe or rule.oidc_issuer or rule.cluster or rule.namespace or rule.node_pool):
        case.deny(Reason.AGENT, "agent", agent.id, "a rule that names who the agent is", rule.line)


def check_user(case: Case) -> None:
    """For whom: present, proven unless the host vouches, of the same tenant and one of the groups."""
    rule, user = case.workflow.for_user, case.run.header.user
    if rule is None:
        if user is not None:
            case.deny(Reason.USER, "user", user.id, "no user: this workflow is for an autonomous workload")
        return
    if user is None:
        case.deny(Reason.USER, "user", "none", "a user", rule.line)
        return
    if user.identity != "proven" and not case.workflow.agent.in_process:
        case.deny(Reason.USER, "user", f"{user.id} (in process)", "a user proven by a token", rule.line)
    if rule.same_tenant and user.tenant != case.run.header.tenant:
        case.deny(Reason.USER, "user.tenant", repr(user.tenant), case.run.header.tenant, rule.line)
    if rule.groups and not set(rule.groups) & set(user.groups):
        case.deny(Reason.USER, "user.groups", ", ".join(user.groups) or "none", "one of " + ", ".join(rule.groups), rule.line)


def check_hops(case: Case) -> None:
    """Delegation: no more hops than allowed, through named brokers only; without `via`, none."""
    rule, via = case.workflow.via, case.run.header.agent.via
    if not via:
        return
    if rule is None or len(via) > rule.max_hops:
        case.deny(Reason.HOPS, "agent.via", f"{len(via)} hops", f"at most {rule.max_hops if rule else 0}", rule.line if rule else 0)
        return
    for broker in via:
        if broker not in rule.brokers:
            case.deny(Reason.HOPS, "agent.via", repr(broker), "one of " + ", ".join(rule.brokers), rule.line)


def check_posture(case: Case) -> None:
    """Attested image and freshness; nothing attested is nothing proven."""
    rule, posture = case.workflow.agent, case.run.header.agent.posture
    if not rule.image_signed_by and rule.attested_within is None:
        return
    if posture is None:
        case.deny(Reason.POSTURE, "agent.posture", "none", "an attested posture", rule.line)
        return
    if rule.image_signed_by and posture.image_signed_by not in rule.image_signed_by:
        case.deny(
            Reason.POSTURE,
            "agent.posture.image_signed_by",
            repr(posture.image_signed_by),
            "one of " + ", ".join(rule.image_signed_by),
            rule.line,
        )
    if rule.attested_within is not None and not 0 <= (case.around.now - posture.attested_at).total_seconds() <= rule.attested_within:
        case.deny(
            Reason.POSTURE, "agent.posture.attested_at", posture.attested_at, f"attested in the last {rule.attested_within} s", rule.line
        )


def check_boundary(case: Case) -> None:
    """Workload-identity boundary; the key itself is compared with the last mint's in the mint script."""
    rule, boundary = case.workflow.agent, case.run.header.agent.boundary
    asked = (("cluster", rule.cluster), ("namespace", rule.namespace), ("node_pool", rule.node_pool))
    if not any(allowed for _, allowed in asked) and not rule.same_key_as_last_token:
        return
    if boundary is None:
        case.deny(Reason.BOUNDARY, "agent.boundary", "none", "a workload inside its boundary", rule.line)
        return
    for name, allowed in asked:
        if allowed and getattr(boundary, name) not in allowed:
            case.deny(Reason.BOUNDARY, f"agent.boundary.{name}", repr(getattr(boundary, name)), "one of " + ", ".join(allowed), rule.line)
    if rule.same_key_as_last_token and not boundary.key:
        case.deny(Reason.BOUNDARY, "agent.boundary.key", "none", "the key the workload presented", rule.line)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def check_conditions(case: Case) -> None:
    """Environment, hours, data class and network, each known to the gate itself; unknown fails."""
    rule, around = case.workflow.conditions, case.around
    if rule.environment and around.environment not in rule.environment:
        case.deny(
            Reason.ENVIRONMENT, "environment", around.environment or "not configured", "one of " + ", ".join(rule.environment), rule.line
        )
    if rule.data_class and around.data_class not in rule.data_class:
        case.deny(Reason.DATA_CLASS, "data_class", around.data_class or "not configured", "one of " + ", ".join(rule.data_class), rule.line)
    if rule.network and not _in_network(around.network, rule.network):
        case.deny(Reason.NETWORK, "network", around.network or "not configured", "one of " + ", ".join(rule.network), rule.line)
    if rule.hours is not None:
        hours, local = rule.hours, around.now.astimezone(_zone(rule.hours.zone))
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if hours.start <= hours.end:
            inside = day in hours.days and hours.start <= minute < hours.end
        else:  # across midnight: the early part belongs to the day before
            inside = (day in hours.days and minute >= hours.start) or ((day - 1) % 7 in hours.days and minute < hours.end)
        if not inside:
            window = f"{hours.start // 60:02}:{hours.start % 60:02}-{hours.end // 60:02}:{hours.end % 60:02} {hours.zone}"
            case.deny(Reason.HOURS, "hours", f"{local:%a %H:%M}", window, hours.line)


def _in_network(address: str | None, allowed: tuple[str, ...]) -> bool:
    """An address in one of the CIDR blocks, or a zone name that is listed."""
    if not address:
        return False
    if address in allowed:
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    for block in allowed:
        try:
            if found in ipaddress.ip_network(block):
                return True
        except ValueError:
            continue  # a zone name
    return False


def check_tool(case: Case) -> None:
    """The tool is on the allowlist, is the one that was reviewed (rug pull), and its upstream broker exists."""
    tool = case.tool
    if tool is None:
        case.deny(Reason.TOOL_UNKNOWN, "tool", repr(case.call.tool), "one of " + ", ".join(case.workflow.tools))
        return
    if tool.definition and case.call.definition != tool.definition:
        case.deny(Reason.TOOL_DEFINITION, f"tools.{tool.name}.definition", case.call.definition or "unknown", tool.definition, tool.line)
    if tool.upstream is not None and tool.upstream.broker not in case.around.brokers:
        case.deny(
            Reason.UPSTREAM,
            f"upstream.{tool.name}.broker",
            f"{tool.upstream.broker} (not configured)",
            "a configured broker",
            tool.upstream.line,
        )


def check_arguments(case: Case) -> None:
    """Every argument known, present, in normal form, and allowed by its operators."""
    tool = case.tool
    if tool is None:
        return
    args, rules = flat(tool, case.call.args), tool.args
    for name in args:
        if name not in rules:
            case.deny(Reason.ARGUMENT_UNKNOWN, f"args.{name}", "an argument", "one of " + (", ".join(rules) or "none"), tool.line)
    for name, rule in rules.items():
        if name not in args:
            if not rule.optional:
                case.deny(Reason.ARGUMENT_MISSING, f"args.{name}", "nothing", "a value", rule.line)
            continue
        raw = args[name]
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
                f"{rule.type} in normal form" if rule.max_items is None else f"a list of {rule.type}",
                rule.line,
            )
            continue
        currency = args.get(rule.currency, "") if rule.currency else ""
        value = case.values[name] = Value(rule, keys, currency if type(currency) is str else "", raw)
        wrong = _violated_by(rule, keys[0]) if rule.max_items is None else _violated(rule, keys, rule.max_items)
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


def _equal(key: Key, allowed: tuple[Any, ...]) -> bool:
    for other in allowed:  # noqa: SIM110 - a generator costs as much as the comparisons
        if key == other and isinstance(key, bool) == isinstance(other, bool):
            return True
    return False


def _violated(rule: Rule, keys: tuple[Key, ...], max_items: int) -> str:
    """What an operator expected of a list and did not get; empty when all hold. Every operator is ANDed, on every element."""
    if len(keys) > max_items:
        return f"at most {max_items} elements"
    for key in keys:
        wrong = _violated_by(rule, key)
        if wrong:
            return wrong
    return ""


def _violated_by(rule: Rule, key: Key) -> str:
    """What an operator expected of one value and did not get; empty when all hold."""
    if rule.equals is not None and not _equal(key, rule.equals):
        return f"{rule.equals[0]}"
    if rule.one_of is not None and not _equal(key, rule.one_of):
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


def check_origins(case: Case) -> None:
    """Origins, bounds and required earlier calls, jointly: one call, one source."""
    tool = case.tool
    if tool is None:
        return
    case.traced = traced = trace(tool, case.values, case.run.prompt, case.earlier, now=case.around.now.timestamp(), file=case.workflow.file)
    case.denied.extend(traced.failures)
    case.forced.extend(traced.unknown.values())


def check_entities(case: Case) -> None:
    """Every address, link and account inside a free text has an allowed origin itself (exfiltration in a memo line).

    Where the argument says ``unknown_origin: step_up`` a person sees the text instead.
    """
    if case.tool is None:
        return
    for name, value in case.values.items():
        allowed = value.rule.entities
        if allowed is None:
            continue
        found = texts(value.raw) if value.rule.type == "json" else map(str, value.keys)
        for text in found:
            for entity in embedded(text, case.around.now.date()):
                if not in_some_call(entity.type, entity.key, allowed, case.run.prompt, case.earlier):
                    shown = "(masked)" if value.rule.sensitive else repr(entity.words)
                    expected, rule = "found in " + " or ".join(map(str, allowed)), f"{case.workflow.file}:{value.rule.line}"
                    ask = value.rule.unknown_origin == "step_up"
                    (case.forced if ask else case.denied).append(Failure(Reason.ENTITY_ORIGIN, f"args.{name}", shown, expected, rule))


def check_intent(case: Case) -> None:
    """One of the needed intents is present in the user's words; unclear asks or refuses, as the intent says."""
    tool = case.tool
    if tool is None or ANY in tool.needs or (NONE in tool.needs and not case.workflow.intents):
        return
    intents = case.run.intents
    derived = {name: intents[name].presence for name in tool.needs if name in intents}
    if "present" in derived.values():
        return
    unclear = [name for name, presence in derived.items() if presence == "unclear"]
    if not unclear:
        case.deny(Reason.INTENT_ABSENT, "intent", "absent", " or ".join(tool.needs), tool.line)
    elif any(case.workflow.intents[name].unclear == "step_up" for name in unclear):
        case.forced.append(
            Failure(
                Reason.INTENT_UNCLEAR, "intent", "unclear: " + ", ".join(unclear), "a clear request", f"{case.workflow.file}:{tool.line}"
            )
        )
    else:
        case.deny(Reason.INTENT_UNCLEAR, "intent", "unclear: " + ", ".join(unclear), "a clear request", tool.line)


Check = Callable[[Case], None]
# Checks of what a run was frozen with against the workflow alone: passed once, they are passed for every call of that state.
FROZEN: frozenset[Check] = frozenset({check_tenant, check_agent, check_user, check_hops, check_boundary})
CHECKS: tuple[Check, ...] = (
    check_run,
    check_tenant,
    check_agent,
    check_user,
    check_hops,
    check_posture,
    check_boundary,
    check_conditions,
    check_tool,
    check_arguments,
    check_origins,
    check_entities,
    check_intent,
)
_REMAINING = tuple(check for check in CHECKS if check not in FROZEN)


def _fires(rule: Rule, case: Case) -> Failure | None:
    """Whether one `step_up.when` condition holds of the call; an absent argument never fires."""
    value = case.values.get(rule.name)
    if value is None:
        return None
    for key in value.keys:
        held = []
        if rule.above is not None:
            held.append(isinstance(key, Decimal) and key > rule.above)
        if rule.not_in is not None:
            held.append(not _equal(key, rule.not_in))
        if rule.origin is not None:
            held.append(_has_origin(rule, value, key, case))
        if all(held) and not _violated_by(rule, key):
            return Failure(Reason.STEP_UP, f"args.{rule.name}", value.shown, "a person's yes", f"{case.workflow.file}:{rule.line}")
    return None


def _has_origin(rule: Rule, value: Value, key: Key, case: Case) -> bool:
    """True when this element has one of the listed origins. `unknown` and `model`: nothing but the model explains it."""
    run, origins, earlier = case.run, rule.origin or (), case.earlier
    for origin in origins:
        if origin == "unknown" or origin.kind == "model":
            if not came_from(value, key, sources_of(value, run.prompt), run.prompt, earlier):
                return True
        elif came_from(value, key, (origin,), run.prompt, earlier):
            return True
    return False


def required_holds(case: Case) -> tuple[RequiredHold, ...]:
    """The step-up rules that fire: each whose `when` holds, and all of the tool's when origin or intent is unclear."""
    tool = case.tool
    holds: list[RequiredHold] = []
    for rule in tool.step_ups if tool is not None else ():
        fired = tuple(f for f in (_fires(each, case) for each in rule.when) if f is not None)
        if case.forced:
            holds.append(RequiredHold(rule, (*case.forced, *fired)))
        elif len(fired) == len(rule.when):
            holds.append(RequiredHold(rule, fired or (_always(rule, case),)))
    return tuple(holds)


def _always(rule: StepUpRule, case: Case) -> Failure:
    return Failure(Reason.STEP_UP, f"step_up.{rule.id}", "every call", "a person's yes", f"{case.workflow.file}:{rule.line}")


def reservations(case: Case) -> tuple[Reservation, ...]:
    """What each limit on this tool takes: one for a count, the amount for a sum (refused by `decide` if it cannot be counted)."""
    taken = []
    for limit in case.tool.limits if case.tool is not None else ():
        if not limit.argument:
            taken.append(Reservation(limit, 1))
            continue
        value = case.values.get(limit.argument)
        if value is None or value.rule.type not in NUMERIC:
            case.deny(
                Reason.LIMIT,
                f"args.{limit.argument}",
                "nothing to count",
                "a number: a limit sums it (an omitted amount must not slip past it)",
                limit.line,
            )
            continue
        total = sum([key for key in value.keys if isinstance(key, Decimal)], _NOTHING) * SCALE
        amount = int(total)
        if amount != total or amount < 0:
            case.deny(Reason.LIMIT, f"args.{limit.argument}", value.shown, "not negative, at most 4 decimals: a limit sums it", limit.line)
            continue
        taken.append(Reservation(limit, amount, value.currency))
    return tuple(taken)


def decide(workflow: Workflow, run: RunState, call: Call, around: Surroundings, checks: tuple[Check, ...] = CHECKS) -> Eligible | Deny:
    """Decide one call, pure: workflow, run, call and surroundings in; `Eligible` or `Deny` with every failing reason out.

    Args:
        workflow: the workflow in force.
        run: the run as last read; its revision is compared again by the mint script.
        call: the proposed call, canonicalised once.
        around: the decision time and what the gate itself knows.
        checks: the table of checks; only tests pass another.
    """
    case = Case(workflow, run, call, around)
    if checks is CHECKS and run.memo.get("passed") is workflow:
        for check in _REMAINING:
            check(case)
    else:
        for check in checks:
            check(case)
        if checks is CHECKS and not case.denied:
            run.memo["passed"] = workflow
    taken = reservations(case)
    holds = required_holds(case)
    if case.forced and not holds:
        case.denied.extend(case.forced)
    if case.denied or case.tool is None:
        return Deny(tuple(case.denied)) if case.denied else Deny((Failure(Reason.TOOL_UNKNOWN, "tool", call.tool, "a known tool"),))
    return Eligible(taken, holds, _intent(case.tool, run), bool(case.values) and case.traced is not None and case.traced.named, case.values)


def _intent(tool: Tool, run: RunState) -> str:
    """The intent the mint is for: the first needed one that is present, else what the tool says (any, none) or the unclear one."""
    unclear = ""
    for name in tool.needs:
        found = run.intents.get(name)
        if found is not None and found.presence == "present":
            return name
        if found is not None and found.presence == "unclear" and not unclear:
            unclear = name
    return unclear or tool.needs[0]


def describe(failures: tuple[Failure, ...]) -> list[Mapping[str, str]]:
    """Failures as JSON for the audit record: reason, field, got, expected, rule."""
    return [{"reason": f.reason.value, "field": f.field, "got": f.got, "expected": f.expected, "rule": f.rule} for f in failures]
