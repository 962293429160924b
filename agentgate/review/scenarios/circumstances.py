"""Who calls for whom, when and where, as a workflow allows it: what a scene leaves out of these."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.workflow.model import Workflow

FIRST_DAY = date(2026, 1, 7)  # a Wednesday; for a workflow that expires before, a day of its last week
_DAY = 24 * 60


def circumstances(workflow: Workflow, tenant: str) -> Iterator[tuple[str, Any]]:
    """A value for every key of a scene that the workflow asks about, and for the ids of agent and user."""
    yield from _agent(workflow)
    user, conditions = workflow.for_user, workflow.conditions
    if user is not None:
        yield "who.user.id", "user"
        yield "who.user.tenant", tenant
        yield "who.user.groups", list(user.groups[:1])
        yield "who.user.proven", not workflow.agent.in_process
    yield "time", _moment(workflow).isoformat(timespec="minutes")
    for name in ("environment", "data_class"):
        yield from ((name, allowed) for allowed in getattr(conditions, name)[:1])
    yield from (("network", addresses.partition("/")[0]) for addresses in conditions.network[:1])
    brokers = sorted({t.upstream.broker for t in workflow.tools.values() if t.upstream is not None})
    if brokers:
        yield "brokers", brokers


def _agent(workflow: Workflow) -> Iterator[tuple[str, Any]]:
    rule = workflow.agent
    yield "who.agent.id", "agent"
    yield "who.agent.proven", not rule.in_process
    if rule.spiffe:
        yield "who.agent.spiffe", rule.spiffe[0]
    if rule.oidc_issuer:
        yield "who.agent.issuer", rule.oidc_issuer
    for claim in rule.claims:
        yield f"who.agent.claims.{claim.name}", claim.one_of[0]
    if rule.image_signed_by or rule.attested_within is not None:
        yield "who.agent.posture.image_signed_by", (*rule.image_signed_by, "release")[0]
        yield "who.agent.posture.attested_ago", "1m" if rule.attested_within is None or rule.attested_within >= 60 else "0s"
    boundary = {"cluster": rule.cluster, "namespace": rule.namespace, "node_pool": rule.node_pool}
    if rule.same_key_as_last_token or any(boundary.values()):
        for name, allowed in boundary.items():
            yield f"who.agent.boundary.{name}", (*allowed, name)[0]
        yield "who.agent.boundary.key", "key-1"
    if rule.same_key_as_last_token:
        yield "who.agent.last_key", "key-1"


def _moment(workflow: Workflow) -> datetime:
    """The middle of the first allowed hours of a day before the workflow expires."""
    hours = workflow.conditions.hours
    first = min(FIRST_DAY, workflow.expires - timedelta(days=7))
    if hours is None:
        return datetime.combine(first, time(12), UTC)
    day = next(d for d in (first + timedelta(days=i) for i in range(7)) if d.weekday() in hours.days)
    start = datetime.combine(day, time(hours.start // 60, hours.start % 60), ZoneInfo(hours.zone))
    return start + timedelta(minutes=((hours.end - hours.start) % _DAY or _DAY) // 2)
