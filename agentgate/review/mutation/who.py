"""The mutants of a workflow as a whole: expiry, tenants, token; who calls for whom; when and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agentgate.review.mutation.mutant import AnyText, Anything, Changes, Mutations
from agentgate.workflow.model import Workflow

STRANGER = "spiffe://stranger.example/ns/x/sa/y"
_ADDRESSES = ("0.0.0.0/0", "::/0")  # all of them


class Frame:
    """Mutants of what holds for every call of a workflow."""

    def __init__(self, found: Mutations) -> None:
        self.found, self.workflow = found, found.workflow

    def _add(  # noqa: PLR0917 - one row of a table
        self, path: str, words: str, line: int, tries: Iterable[Changes], name: str, of: tuple[str, str], mutated: Workflow, **more: Any
    ) -> None:
        """Note one mutant."""
        self.found.add(path, words, line, mutated, of, tries, name=name, **more)

    # --- the workflow itself, who ------------------------------------------------------------------------------------------

    def whole(self) -> None:
        """Expiry, tenants, mode, token."""
        w = self.workflow
        first = next(iter(w.tools))
        after = self.found.base(first).now.replace(tzinfo=None)
        late = [datetime.combine(w.expires + timedelta(days=i), after.time()) for i in range(1, 5)]
        tries = [{"time": moment.isoformat(timespec="minutes") + "+00:00"} for moment in late]
        later = w.expires + timedelta(days=1)
        self._add(
            "expires",
            f"{w.expires} -> {later}",
            w.expires_line,
            tries,
            f"after {w.expires}",
            ("Workflow", "expires"),
            replace(w, expires=later),
        )
        other = {"tenant": "another-tenant"}
        moved = [other, {**other, "who.user.tenant": "another-tenant"}]
        self._add(
            "tenants", "any", w.tenants_line, moved, "another tenant", ("Workflow", "tenants"), replace(w, tenants=Anything(w.tenants))
        )
        if not w.observe:
            self._add(
                "mode",
                "enforce -> observe",
                1,
                [{}],
                "refusals are enforced",
                ("Workflow", "observe"),
                replace(w, observe=True),
                pin=("grants", "mode"),
            )
        token = replace(w.token, ttl=w.token.ttl + 1)
        self._add(
            "token.ttl",
            f"{w.token.ttl}s -> {token.ttl}s",
            0,
            [{}],
            f"a token lives {w.token.ttl} s",
            ("TokenRule", "ttl"),
            replace(w, token=token),
            pin=("grants", "ttl"),
        )
        if w.token.agent_key and any(t.effect != "read" for t in w.tools.values()):
            acting = next(n for n, t in w.tools.items() if t.effect != "read")
            loose = replace(w, token=replace(w.token, agent_key=False))
            self._add(
                "token.bound_to",
                "agent_key dropped",
                0,
                [{}],
                "a token is bound to the agent's key",
                ("TokenRule", "agent_key"),
                loose,
                pin=("grants", "bound_to"),
                tool=acting,
            )

    def who(self) -> None:
        """Agent, user, brokers in between."""
        w, agent = self.workflow, self.workflow.agent

        def add(path: str, words: str, tries: Iterable[Changes], name: str, field: str, *, line: int = agent.line, **changes: Any) -> None:
            self._add(
                f"who.agent.{path}",
                words,
                line,
                tries,
                name,
                ("ClaimRule", "one_of") if field == "claims" else ("AgentRule", field),
                replace(w, agent=replace(agent, **changes)),
            )

        if not agent.in_process:
            unproven: list[Changes] = [{"who.agent.proven": False}, {"who.user.proven": False}]
            add("in_process", "the host may vouch", unproven, "an identity that nobody proved", "in_process", in_process=True)
        if agent.spiffe:
            add("spiffe", "any", [{"who.agent.spiffe": STRANGER}], "another workload", "spiffe", spiffe=Anything(agent.spiffe))
        if agent.oidc_issuer:
            other = [{"who.agent.issuer": "https://stranger.example"}]
            add("oidc.issuer", "any", other, "another issuer", "oidc_issuer", oidc_issuer=AnyText(agent.oidc_issuer))
        for claim in agent.claims:
            wrong = [{f"who.agent.claims.{claim.name}": "something-else"}]
            claims = tuple(c for c in agent.claims if c is not claim)
            add(f"oidc.claims.{claim.name}", "dropped", wrong, f"another {claim.name}", "claims", line=claim.line, claims=claims)
        if agent.image_signed_by:
            signed = [{"who.agent.posture.image_signed_by": "stranger@other.example"}]
            add(
                "posture.image_signed_by",
                "any",
                signed,
                "an image signed by somebody else",
                "image_signed_by",
                image_signed_by=Anything(agent.image_signed_by),
            )
        if agent.attested_within is not None:
            later = agent.attested_within + 1
            old = [{"who.agent.posture.attested_ago": f"{later}s"}]
            add(
                "posture.attested_within",
                f"{later - 1}s -> {later}s",
                old,
                "an attestation that is too old",
                "attested_within",
                attested_within=later,
            )
        for part in ("cluster", "namespace", "node_pool"):
            if getattr(agent, part):
                outside = [{f"who.agent.boundary.{part}": "elsewhere"}]
                anywhere: dict[str, Any] = {part: Anything(getattr(agent, part))}
                add(f"boundary.{part}", "any", outside, f"another {part}", part, **anywhere)
        if agent.same_key_as_last_token:
            key = [{"who.agent.last_key": "another-key"}]
            add(
                "boundary.same_key_as_last_token",
                "dropped",
                key,
                "another key than last time",
                "same_key_as_last_token",
                same_key_as_last_token=False,
            )
        user, via = w.for_user, w.via
        if user is not None and user.groups:
            loose = replace(w, for_user=replace(user, groups=()))
            self._add(
                "who.for_user.groups",
                "any",
                user.line,
                [{"who.user.groups": ["another-group"]}],
                "a user of another group",
                ("UserRule", "groups"),
                loose,
            )
        if user is not None and user.same_tenant:
            loose = replace(w, for_user=replace(user, same_tenant=False))
            self._add(
                "who.for_user.same_tenant",
                "dropped",
                user.line,
                [{"who.user.tenant": "another-tenant"}],
                "a user of another tenant",
                ("UserRule", "same_tenant"),
                loose,
            )
        if via is not None:
            hops = [{"who.via": [via.brokers[i % len(via.brokers)] for i in range(via.max_hops + 1)]}]
            self._add(
                "who.via.max_hops",
                f"{via.max_hops} -> {via.max_hops + 1}",
                via.line,
                hops,
                "one hop too many",
                ("ViaRule", "max_hops"),
                replace(w, via=replace(via, max_hops=via.max_hops + 1)),
            )
            self._add(
                "who.via.brokers",
                "any",
                via.line,
                [{"who.via": [STRANGER]}],
                "through a stranger",
                ("ViaRule", "brokers"),
                replace(w, via=replace(via, brokers=Anything(via.brokers))),
            )

    # --- when and where ----------------------------------------------------------------------------------------------------

    def conditions(self) -> None:
        """Environment, data class, network, hours."""
        w, rule = self.workflow, self.workflow.conditions
        for key, value in (("environment", "staging"), ("data_class", "personal"), ("network", "198.51.100.7")):
            allowed = getattr(rule, key)
            if allowed:
                changes: dict[str, Any] = {key: _ADDRESSES if key == "network" else Anything(allowed)}
                loose = replace(w, conditions=replace(rule, **changes))
                name = f"another {key.replace('_', ' ')}"
                self._add(f"conditions.{key}", "any", rule.line, [{key: value}, {key: "elsewhere"}], name, ("Conditions", key), loose)
        hours = rule.hours
        if hours is None:
            return
        base = self.found.base(next(iter(w.tools))).now.astimezone(ZoneInfo(hours.zone))

        def at(minute: int, days: Iterable[int] = tuple(hours.days)) -> list[Changes]:
            """That minute of local time on each of these days of the base's week."""
            start = base.date() - timedelta(days=base.weekday())
            clock, zone = time(minute // 60 % 24, minute % 60), ZoneInfo(hours.zone)
            moments = [datetime.combine(start + timedelta(days=day + minute // 1440), clock, zone) for day in sorted(days)]
            return [{"time": moment.isoformat(timespec="minutes")} for moment in moments]

        def add(key: str, words: str, tries: list[Changes], name: str, field: str, **changes: Any) -> None:
            loose = replace(w, conditions=replace(rule, hours=replace(hours, **changes)))
            self._add(f"conditions.hours.{key}", words, hours.line, tries, name, ("Hours", field), loose)

        off = [day for day in range(7) if day not in hours.days]
        if off:
            add("days", "any", at(base.hour * 60 + base.minute, off), "on another day", "days", days=frozenset(range(7)))
        if hours.start > 0:
            add("from", "one minute earlier", at(hours.start - 1), "before hours", "start", start=hours.start - 1)
        if hours.end < 24 * 60:
            add("to", "one minute later", at(hours.end), "after hours", "end", end=hours.end + 1)
        if hours.zone != "UTC":
            edges = [*at(hours.end), *at(hours.start), *at(hours.start - 1)]
            add("zone", f"{hours.zone} -> UTC", edges, f"hours are those of {hours.zone}", "zone", zone="UTC")
