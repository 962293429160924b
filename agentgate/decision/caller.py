"""Checks of who calls, for whom and when: what the run was opened with, and the gate's surroundings, against the workflow.

A check appends failures and can do nothing else. Nothing here depends on the call.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC
from zoneinfo import ZoneInfo

from agentgate.decision.case import Case
from agentgate.values.refusal import Reason
from agentgate.workflow.model import Hours


def check_run(case: Case) -> None:
    """The run is open and was opened under exactly this workflow, which has not expired."""
    run, header, workflow = case.run, case.run.header, case.workflow
    if run.closed:
        case.deny(Reason.TOO_MANY_DENIALS if run.denials_spent else Reason.RUN_CLOSED, "run", "closed", "an open run")
    if header.workflow != workflow.id or header.digest != workflow.digest:
        in_force = f"{workflow.id} {workflow.digest}, in force now"
        case.deny(Reason.WORKFLOW_CHANGED, "workflow", f"{header.workflow} {header.digest}", in_force)
    if case.around.now.astimezone(UTC).date() > workflow.expires:
        expected = f"a workflow in force on {case.around.now:%Y-%m-%d}"
        case.deny(Reason.WORKFLOW_EXPIRED, "expires", workflow.expires, expected, workflow.expires_line)


def check_tenant(case: Case) -> None:
    """Exact tenant, from the run only (tenant spoofing by the model)."""
    tenant, workflow = case.run.header.tenant, case.workflow
    if tenant not in workflow.tenants:
        case.deny(Reason.TENANT, "tenant", repr(tenant), _one_of(workflow.tenants), workflow.tenants_line)


def check_agent(case: Case) -> None:
    """The workload: in process where the workflow says so, else proven and named."""
    rule, agent = case.workflow.agent, case.run.header.agent
    if rule.in_process:
        return
    if agent.identity != "proven":
        case.deny(Reason.AGENT, "agent", f"{agent.id} (in process)", "an agent proven by its own credential", rule.line)
        return
    if rule.spiffe and agent.spiffe not in rule.spiffe:
        case.deny(Reason.AGENT, "agent.spiffe", repr(agent.spiffe), _one_of(rule.spiffe), rule.line)
    if rule.oidc_issuer and agent.issuer != rule.oidc_issuer:
        case.deny(Reason.AGENT, "agent.oidc.issuer", repr(agent.issuer), rule.oidc_issuer, rule.line)
    for claim in rule.claims:
        value = agent.claims.get(claim.name)
        if value not in claim.one_of:
            case.deny(Reason.AGENT, f"agent.oidc.claims.{claim.name}", repr(value), _one_of(claim.one_of), claim.line)
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
    if rule.groups and set(rule.groups).isdisjoint(user.groups):
        case.deny(Reason.USER, "user.groups", ", ".join(user.groups) or "none", _one_of(rule.groups), rule.line)


def check_authentication(case: Case) -> None:
    """How and when the user signed in, as their credential says (RFC 9470); one that does not say, or a host's word, is not enough.

    `data` has what an authorization server is asked for: `acr_values`, `max_age`.
    """
    rule, user = case.workflow.for_user, case.run.header.user
    if rule is None or user is None:
        return
    if rule.acr and user.acr not in rule.acr:
        case.deny(Reason.AUTHENTICATION, "user.acr", repr(user.acr), acr_values(rule.acr), rule.line, acr_values=" ".join(rule.acr))
    if rule.max_age is not None:
        age = None if user.auth_time is None else case.around.now.timestamp() - user.auth_time
        if age is None or not -_LEEWAY <= age <= rule.max_age:
            got = "unknown" if age is None else f"{age:.0f} s ago"
            case.deny(Reason.AUTHENTICATION, "user.auth_time", got, f"max_age={rule.max_age}", rule.line, max_age=rule.max_age)


def acr_values(wanted: tuple[str, ...]) -> str:
    """As RFC 9470 section 3 says it."""
    return f'acr_values="{" ".join(wanted)}"'


_LEEWAY = 5  # seconds an issuer's clock may be ahead


def check_hops(case: Case) -> None:
    """Delegation: no more hops than allowed, and no fewer, through named brokers only; without `via`, none.

    Hops are proven, but what a caller keeps to itself proves nothing: where work must come through a broker (RFC 8693 `act`), as few as
    none count against the caller, too.
    """
    rule, via = case.workflow.via, case.run.header.agent.via
    if rule is None:
        if via:
            case.deny(Reason.HOPS, "agent.via", f"{len(via)} hops", "at most 0 hops")
        return
    if not rule.min_hops <= len(via) <= rule.max_hops:
        case.deny(Reason.HOPS, "agent.via", f"{len(via)} hops", rule.hops, rule.line)
        return
    for broker in via:
        if broker not in rule.brokers:
            case.deny(Reason.HOPS, "agent.via", repr(broker), _one_of(rule.brokers), rule.line)


def check_posture(case: Case) -> None:
    """Attested image and freshness; nothing attested is nothing proven."""
    rule, posture = case.workflow.agent, case.run.header.agent.posture
    if not rule.image_signed_by and rule.attested_within is None:
        return
    if posture is None:
        case.deny(Reason.POSTURE, "agent.posture", "none", "an attested posture", rule.line)
        return
    if rule.image_signed_by and posture.image_signed_by not in rule.image_signed_by:
        signed_by = repr(posture.image_signed_by)
        case.deny(Reason.POSTURE, "agent.posture.image_signed_by", signed_by, _one_of(rule.image_signed_by), rule.line)
    if rule.attested_within is not None and not 0 <= (case.around.now - posture.attested_at).total_seconds() <= rule.attested_within:
        recent = f"attested in the last {rule.attested_within} s"
        case.deny(Reason.POSTURE, "agent.posture.attested_at", posture.attested_at, recent, rule.line)


def check_boundary(case: Case) -> None:
    """Workload-identity boundary; the mint script compares the key itself with the last mint's."""
    rule, boundary = case.workflow.agent, case.run.header.agent.boundary
    if not (rule.cluster or rule.namespace or rule.node_pool or rule.same_key_as_last_token):
        return
    if boundary is None:
        case.deny(Reason.BOUNDARY, "agent.boundary", "none", "a workload inside its boundary", rule.line)
        return
    for name, allowed in (("cluster", rule.cluster), ("namespace", rule.namespace), ("node_pool", rule.node_pool)):
        value = getattr(boundary, name)
        if allowed and value not in allowed:
            case.deny(Reason.BOUNDARY, f"agent.boundary.{name}", repr(value), _one_of(allowed), rule.line)
    if rule.same_key_as_last_token and not boundary.key:
        case.deny(Reason.BOUNDARY, "agent.boundary.key", "none", "the key the workload presented", rule.line)


def check_conditions(case: Case) -> None:
    """Environment, hours, data class and network, each known to the gate itself; unknown fails."""
    rule, around = case.workflow.conditions, case.around
    if rule.environment and around.environment not in rule.environment:
        case.deny(Reason.ENVIRONMENT, "environment", around.environment or _UNSET, _one_of(rule.environment), rule.line)
    if rule.data_class and around.data_class not in rule.data_class:
        case.deny(Reason.DATA_CLASS, "data_class", around.data_class or _UNSET, _one_of(rule.data_class), rule.line)
    if rule.network and not in_network(around.network, rule.network):
        case.deny(Reason.NETWORK, "network", around.network or _UNSET, _one_of(rule.network), rule.line)
    if rule.hours is not None:
        local = around.now.astimezone(ZoneInfo(rule.hours.zone))
        if not within(rule.hours, local.weekday(), local.hour * 60 + local.minute):
            case.deny(Reason.HOURS, "hours", f"{local:%a %H:%M}", rule.hours.times, rule.hours.line)


_UNSET = "not configured"


def _one_of(allowed: tuple[str, ...]) -> str:
    return "one of " + ", ".join(allowed)


def in_network(address: str | None, allowed: tuple[str, ...]) -> bool:
    """Whether an address is in one of the CIDR blocks, or is exactly the name of a zone; the text of a block is no address."""
    if not address:
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        ip = None
    for each in allowed:
        try:
            block = ipaddress.ip_network(each)
        except ValueError:  # a zone name
            if each == address:
                return True
        else:
            if ip is not None and ip in block:
                return True
    return False


def within(hours: Hours, day: int, minute: int) -> bool:
    """Whether a minute of a weekday (0 = Monday) is in these hours; across midnight the early part belongs to the day before."""
    if hours.start <= hours.end:
        return day in hours.days and hours.start <= minute < hours.end
    return (day in hours.days and minute >= hours.start) or ((day - 1) % 7 in hours.days and minute < hours.end)
