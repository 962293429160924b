"""The reference's reading of who calls, where and when: everything that does not look at the arguments."""

from __future__ import annotations

from datetime import UTC, timedelta
from ipaddress import ip_address, ip_network
from zoneinfo import ZoneInfo

from agentgate.values.refusal import Reason
from agentgate.values.request import RunState, Surroundings
from agentgate.workflow.clauses.conditions import Hours
from agentgate.workflow.model import Workflow


def who(workflow: Workflow, run: RunState, around: Surroundings) -> set[Reason]:
    """Tenant, agent, user, hops, posture and boundary."""
    denied = set()
    header, agent, user, rule = run.header, run.header.agent, run.header.user, workflow.agent
    if header.tenant not in workflow.tenants:
        denied.add(Reason.TENANT)

    if not rule.in_process:
        proofs = []
        if rule.spiffe:
            proofs.append(agent.spiffe in rule.spiffe)
        if rule.oidc_issuer:
            proofs.append(agent.issuer == rule.oidc_issuer)
            proofs += [agent.claims.get(claim.name) in claim.one_of for claim in rule.claims]
        placed = rule.cluster or rule.namespace or rule.node_pool  # a service account may be named by where it runs; see below
        if agent.identity != "proven" or not (proofs or placed) or not all(proofs):
            denied.add(Reason.AGENT)

    if workflow.for_user is None:
        if user is not None:
            denied.add(Reason.USER)
    elif user is None:
        denied.add(Reason.USER)
    else:
        if workflow.for_user.same_tenant and user.tenant != header.tenant:
            denied.add(Reason.USER)
        if workflow.for_user.groups and not set(workflow.for_user.groups) & set(user.groups):
            denied.add(Reason.USER)
        if not rule.in_process and user.identity != "proven":
            denied.add(Reason.USER)
        if workflow.for_user.acr and (user.acr is None or user.acr not in workflow.for_user.acr):
            denied.add(Reason.AUTHENTICATION)
        longest = workflow.for_user.max_age
        if longest is not None and (user.auth_time is None or not -5 <= around.now.timestamp() - user.auth_time <= longest):
            denied.add(Reason.AUTHENTICATION)

    if workflow.via is None:
        if agent.via:
            denied.add(Reason.HOPS)
    elif len(agent.via) not in range(workflow.via.min_hops, workflow.via.max_hops + 1) or not set(agent.via) <= set(workflow.via.brokers):
        denied.add(Reason.HOPS)

    if rule.image_signed_by or rule.attested_within is not None:
        posture = agent.posture
        if posture is None:
            denied.add(Reason.POSTURE)
        else:
            if rule.image_signed_by and posture.image_signed_by not in rule.image_signed_by:
                denied.add(Reason.POSTURE)
            age = (around.now - posture.attested_at).total_seconds()
            if rule.attested_within is not None and not 0 <= age <= rule.attested_within:
                denied.add(Reason.POSTURE)

    asked = ((rule.cluster, "cluster"), (rule.namespace, "namespace"), (rule.node_pool, "node_pool"))
    for allowed, field in asked:
        if allowed and (agent.boundary is None or getattr(agent.boundary, field) not in allowed):
            denied.add(Reason.BOUNDARY)
    if rule.same_key_as_last_token and (agent.boundary is None or not agent.boundary.key):
        denied.add(Reason.BOUNDARY)
    return denied


def conditions(workflow: Workflow, run: RunState, around: Surroundings) -> set[Reason]:
    """Where and when, and whether run and workflow are in force."""
    denied = set()
    rule = workflow.conditions
    if rule.environment and around.environment not in rule.environment:
        denied.add(Reason.ENVIRONMENT)
    if rule.hours is not None and not _within(rule.hours, around):
        denied.add(Reason.HOURS)
    if rule.data_class and around.data_class not in rule.data_class:
        denied.add(Reason.DATA_CLASS)
    if rule.network and not any(_inside(around.network, zone) for zone in rule.network):
        denied.add(Reason.NETWORK)
    if around.now.astimezone(UTC).date() > workflow.expires:
        denied.add(Reason.WORKFLOW_EXPIRED)
    if run.closed:
        denied.add(Reason.RUN_CLOSED)
    if run.header.workflow != workflow.id or run.header.digest != workflow.digest:
        denied.add(Reason.WORKFLOW_CHANGED)
    return denied


def _inside(network: str | None, zone: str) -> bool:
    """An address in the zone's block; or its own name, where it is no block."""
    if not network:
        return False
    try:
        block = ip_network(zone)
    except ValueError:
        return network == zone
    try:
        return ip_address(network) in block
    except ValueError:
        return False


def _within(hours: Hours, around: Surroundings) -> bool:
    """In the window that began today or in the one that began yesterday. Start equal to end: never."""
    local = around.now.astimezone(ZoneInfo(hours.zone))
    minute = local.hour * 60 + local.minute
    if hours.start < hours.end:
        return local.weekday() in hours.days and hours.start <= minute < hours.end
    if hours.start > hours.end:
        yesterday = (local - timedelta(days=1)).weekday()
        return (local.weekday() in hours.days and minute >= hours.start) or (yesterday in hours.days and minute < hours.end)
    return False
