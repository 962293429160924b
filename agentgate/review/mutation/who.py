"""The mutants of what holds for every call: expiry, tenants, token; who calls for whom; when and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from agentgate.review.mutation.mutant import Basis, Changes, Mutated, Part
from agentgate.workflow.model import Hours

STRANGER = "spiffe://stranger.example/ns/x/sa/y"
_DAY = 24 * 60
_ALL_ADDRESSES = ("0.0.0.0/0", "::/0")
_BOUNDARY = ("cluster", "namespace", "node_pool")


def frame(basis: Basis) -> Mutated:
    """Every mutant of the workflow as a whole, in the order of its blocks."""
    yield from _whole(basis)
    yield from _agent(basis.root.inside("who.agent", "agent"))
    yield from _user_and_brokers(basis.root)
    yield from _conditions(basis)


def _whole(basis: Basis) -> Mutated:
    """Expiry, tenants, mode, token."""
    w, root = basis.workflow, basis.root
    at = basis.scene(next(iter(w.tools))).now.time()
    late = [datetime.combine(w.expires + timedelta(days=i), at) for i in range(1, 5)]
    later = w.expires + timedelta(days=1)
    tries: list[Changes] = [{"time": moment.isoformat(timespec="minutes") + "+00:00"} for moment in late]
    yield root.mutant("expires", f"{w.expires} -> {later}", f"after {w.expires}", tries, line=w.expires_line, expires=later)
    other = {"tenant": "another-tenant"}
    yield from root.anything("tenants", "another tenant", [other, {**other, "who.user.tenant": "another-tenant"}], line=w.tenants_line)
    if not w.observe:
        yield root.mutant("mode", "enforce -> observe", "refusals are enforced", line=1, pin=("grants", "mode"), observe=True)
    token = root.inside("token", "token")
    yield token.moved("ttl", f"a token lives {w.token.ttl} s", pin=("grants", "ttl"))
    acting = next((name for name, tool in w.tools.items() if tool.effect != "read"), "")
    if w.token.agent_key and acting:
        token, name = replace(token, tool=acting), "a token is bound to the agent's key"
        yield token.mutant("bound_to", "agent_key dropped", name, pin=("grants", "bound_to"), agent_key=False)


def _agent(agent: Part) -> Mutated:
    rule = agent.value
    if not rule.in_process:
        unproven: list[Changes] = [{"who.agent.proven": False}, {"who.user.proven": False}]
        yield agent.mutant("in_process", "the host may vouch", "an identity that nobody proved", unproven, in_process=True)
    yield from agent.anything("spiffe", "another workload", [{"who.agent.spiffe": STRANGER}])
    yield from agent.anything("oidc.issuer", "another issuer", [{"who.agent.issuer": "https://stranger.example"}], field="oidc_issuer")
    for claim in rule.claims:
        wrong = [{f"who.agent.claims.{claim.name}": "something-else"}]
        part = agent.inside("who.agent.oidc.claims", "claims", claim)
        yield part.mutant(claim.name, "dropped", f"another {claim.name}", wrong, of=("ClaimRule", "one_of"))
    signed = [{"who.agent.posture.image_signed_by": "stranger@other.example"}]
    yield from agent.anything("posture.image_signed_by", "an image signed by somebody else", signed)
    if rule.attested_within is not None:
        old = [{"who.agent.posture.attested_ago": f"{rule.attested_within + 1}s"}]
        yield agent.moved("posture.attested_within", "an attestation that is too old", old, field="attested_within")
    for place in _BOUNDARY:
        yield from agent.anything(f"boundary.{place}", f"another {place}", [{f"who.agent.boundary.{place}": "elsewhere"}])
    if rule.same_key_as_last_token:
        key, name = "boundary.same_key_as_last_token", "another key than last time"
        yield agent.mutant(key, "dropped", name, [{"who.agent.last_key": "another-key"}], same_key_as_last_token=False)


def _user_and_brokers(root: Part) -> Mutated:
    user, via = root.inside("who.for_user", "for_user"), root.inside("who.via", "via")
    if user.value is not None and user.value.groups:
        yield user.mutant("groups", "any", "a user of another group", [{"who.user.groups": ["another-group"]}], groups=())
    if user.value is not None and user.value.same_tenant:
        yield user.mutant("same_tenant", "dropped", "a user of another tenant", [{"who.user.tenant": "another-tenant"}], same_tenant=False)
    if via.value is not None:
        brokers, hops = via.value.brokers, via.value.max_hops
        yield via.moved("max_hops", "one hop too many", [{"who.via": [brokers[i % len(brokers)] for i in range(hops + 1)]}])
        yield from via.anything("brokers", "through a stranger", [{"who.via": [STRANGER]}])


def _conditions(basis: Basis) -> Mutated:
    """Environment, data class, network, hours."""
    part = basis.root.inside("conditions", "conditions")
    yield from part.anything("environment", "another environment", [{"environment": "staging"}, {"environment": "elsewhere"}])
    yield from part.anything("data_class", "another data class", [{"data_class": "personal"}, {"data_class": "elsewhere"}])
    if part.value.network:
        yield part.mutant(
            "network", "any", "another network", [{"network": "198.51.100.7"}, {"network": "elsewhere"}], network=_ALL_ADDRESSES
        )
    if part.value.hours is not None:
        now = basis.scene(next(iter(basis.workflow.tools))).now
        yield from _hours(part.inside("conditions.hours", "hours"), now)


def _hours(part: Part, now: datetime) -> Mutated:
    hours: Hours = part.value
    zone = ZoneInfo(hours.zone)
    base = now.astimezone(zone)

    def at(minute: int, days: Iterable[int] = hours.days) -> list[Changes]:
        """That minute of local time on each of these days of the base's week."""
        monday, clock = base.date() - timedelta(days=base.weekday()), time(minute // 60 % 24, minute % 60)
        moments = [datetime.combine(monday + timedelta(days=day + minute // _DAY), clock, zone) for day in sorted(days)]
        return [{"time": moment.isoformat(timespec="minutes")} for moment in moments]

    off = set(range(7)) - hours.days
    if off:
        yield part.mutant("days", "any", "on another day", at(base.hour * 60 + base.minute, off), days=frozenset(range(7)))
    if hours.start > 0:
        yield part.mutant("from", "one minute earlier", "before hours", at(hours.start - 1), start=hours.start - 1)
    if hours.end < _DAY:
        yield part.mutant("to", "one minute later", "after hours", at(hours.end), end=hours.end + 1)
    if hours.zone != "UTC":
        edges = [*at(hours.end), *at(hours.start), *at(hours.start - 1)]
        yield part.mutant("zone", f"{hours.zone} -> UTC", f"hours are those of {hours.zone}", edges, zone="UTC")
