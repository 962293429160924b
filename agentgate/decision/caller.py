"""Checks of who calls, for whom and when: what the run was frozen with, and the gate's surroundings, against the workflow.

Rules: as in `agentgate.decision.checks`: a check appends failures and can do nothing else. Nothing here depends on the call.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agentgate.decision.case import Case, Check
from agentgate.values.refusal import Reason
from agentgate.values.request import Header
from agentgate.values.times import clock
from agentgate.workflow.model import Hours, Workflow


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
    if rule.network and not in_network(around.network, rule.network):
        case.deny(Reason.NETWORK, "network", around.network or "not configured", "one of " + ", ".join(rule.network), rule.line)
    if rule.hours is not None:
        hours, local = rule.hours, around.now.astimezone(_zone(rule.hours.zone))
        if not within(hours, local.weekday(), local.hour * 60 + local.minute):
            window = f"{clock(hours.start)}-{clock(hours.end)} {hours.zone}"
            case.deny(Reason.HOURS, "hours", f"{local:%a %H:%M}", window, hours.line)


def in_network(address: str | None, allowed: tuple[str, ...]) -> bool:
    """An address in one of the CIDR blocks, or a zone that is named exactly; the text of a block is nobody's address."""
    if not address:
        return False
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        found = None
    for each in allowed:
        try:
            block = ipaddress.ip_network(each)
        except ValueError:  # a zone name
            if each == address:
                return True
        else:
            if found is not None and found in block:
                return True
    return False


def within(hours: Hours, day: int, minute: int) -> bool:
    """Whether a minute of a weekday (0 = Monday) is in these hours; across midnight the early part belongs to the day before."""
    if hours.start <= hours.end:
        return day in hours.days and hours.start <= minute < hours.end
    return (day in hours.days and minute >= hours.start) or ((day - 1) % 7 in hours.days and minute < hours.end)


# What belongs here looks at nothing but the run's header and end, the workflow and the surroundings that `_Passed` names, and time
# changes its answer at the turn of a minute of UTC (or at a moment that `remember` knows).
CALLER: tuple[Check, ...] = (
    check_run,
    check_tenant,
    check_agent,
    check_user,
    check_hops,
    check_posture,
    check_boundary,
    check_conditions,
)


class _Passed(NamedTuple):
    """A run that passed every check of `CALLER`, and what they looked at: the same from `since` until before `until`."""

    header: Header
    workflow: Workflow
    environment: str | None
    data_class: str | None
    network: str | None
    since: datetime
    until: datetime


_MINUTE = timedelta(minutes=1)
_LAST_YEAR = 9000  # some time after it, a time plus an interval is no time
_MAX_PASSED = 4096
_passed: dict[tuple[int, int], _Passed] = {}  # an entry holds its header and its workflow, so identities stay theirs


def passed(case: Case) -> bool:
    """True when this run passed every check of `CALLER` within the minute, and nothing that they look at is different now."""
    around, run = case.around, case.run
    kept = _passed.get((id(run.header), id(case.workflow)))
    return (
        kept is not None
        and not run.closed
        and around.now.tzinfo is UTC
        and kept.since <= around.now < kept.until
        and around.environment == kept.environment
        and around.data_class == kept.data_class
        and around.network == kept.network
    )


def remember(case: Case) -> None:
    """Keep that a run passed. Hours and days end with a minute of UTC; attestation may end before."""
    around, header, workflow = case.around, case.run.header, case.workflow
    hours, within, posture = workflow.conditions.hours, workflow.agent.attested_within, header.agent.posture
    if around.now.tzinfo is not UTC or around.now.year > _LAST_YEAR:
        return
    if hours is not None:
        offset = around.now.astimezone(_zone(hours.zone)).utcoffset()
        if offset is None or offset % _MINUTE:
            return
    until = around.now.replace(second=0, microsecond=0) + _MINUTE
    if within is not None and posture is not None:
        until = min(until, posture.attested_at.astimezone(UTC) + timedelta(seconds=within))
    if len(_passed) >= _MAX_PASSED:
        _passed.clear()
    _passed[id(header), id(workflow)] = _Passed(header, workflow, around.environment, around.data_class, around.network, around.now, until)
