"""The clauses of `who`: the workload that calls, its posture and its boundary (`agent`); for whom,
and how they signed in (`for_user`); the brokers between the two (`via`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from itertools import combinations
from math import inf
from operator import attrgetter
from typing import Any

from agentgate.values.refusal import Reason
from agentgate.values.value_class import set_derived, value_class
from agentgate.workflow.clauses.clause import (
    EVERYTHING,
    STRANGER,
    Checks,
    Distinct,
    ListedClause,
    Loosening,
    RecentClause,
    Scene,
    Sides,
    Situation,
    WorkflowClause,
    check_of,
    compiled,
)


class InProcessAgent(
    WorkflowClause,
    path="who.agent.in_process",
    field="agent",
    scene="who.agent.proven",
    reason=Reason.AGENT,
):
    """``in_process: true``: the host vouches for the agent, and nothing of it is proven."""

    form = "yes"
    forms = (("who.agent.id", "name"),)
    expected = "an agent that the host vouches for"
    proven = False
    absent = False
    told = ("proven", "in_process")

    def found(self, case: Situation) -> bool:
        return case.run.header.agent.identity == "proven"

    def allows(self, value: Any) -> bool:
        return True

    def shown(self, case: Situation) -> str:
        agent = case.run.header.agent
        return f"{agent.id} ({agent.identity.replace('_', ' ')})"

    def sample(self, given: Scene) -> Scene:
        return {"who.agent.id": "agent", self.scene: self.proven}


class ProvenAgent(InProcessAgent):
    """Everywhere else: the agent is proven by its own credential.

    Its value: whether the rule names who the agent is.
    """

    key = "agent"
    heads = True
    proven = True
    expected = "an agent proven by its own credential"

    def allows(self, value: Any) -> bool:
        return bool(value and self.value)

    def loosened(self) -> Iterator[Loosening]:
        yield Loosening(
            "the host may vouch", "an identity that nobody proved", {"in_process": True}
        )


class Spiffe(ListedClause, path="who.agent.spiffe"):
    """``spiffe: [...]``: its SPIFFE id."""

    after = ProvenAgent
    another = "another workload"
    stranger = STRANGER


class TokenIssuer(ListedClause, path="who.agent.oidc.issuer", scene="who.agent.issuer"):
    """``oidc: {issuer: ...}``: who issued its token."""

    after = ProvenAgent
    names = ("oidc_issuer",)
    stranger = "https://stranger.example"

    found = attrgetter("run.header.agent.issuer")  # type: ignore[assignment]  # a method, as it is called

    @property
    def expected(self) -> str:
        return self.words


class TokenClaim(ListedClause, path="who.agent.oidc.claims", scene="who.agent.claims"):
    """``oidc: {claims: {ref: ...}}``: one claim of that token, by any name."""

    after = ProvenAgent
    form = ""
    stranger = "something-else"
    of = ("ClaimRule", "one_of")

    def __init__(self, claim: ClaimRule, others: tuple[ClaimRule, ...]) -> None:
        super().__init__(claim.one_of, claim.line)
        self.name, self.another, self.loose = (
            claim.name,
            f"another {claim.name}",
            ("dropped", others),
        )
        self.path = f"{self.path}.{claim.name}"
        self.field = f"{self.field}.{claim.name}"
        self.scene = f"{self.scene}.{claim.name}"

    @classmethod
    def compiled(cls, rule: Any) -> Iterator[TokenClaim]:
        for claim in rule.claims:
            yield cls(claim, tuple(other for other in rule.claims if other is not claim))

    def found(self, case: Situation) -> str | None:
        return case.run.header.agent.claims.get(self.name)


class _Known(WorkflowClause):
    """Something must be known of the agent, whatever it is."""

    def shown(self, case: Situation) -> str:
        return "known" if self.found(case) else "none"


class PostureKnown(_Known, path="who.agent.posture", reason=Reason.POSTURE):
    """``posture``: something is attested; nothing attested is nothing proven."""

    form = ""
    heads = True
    expected = "an attested posture"


class ImageSignedBy(ListedClause, path="who.agent.posture.image_signed_by"):
    """``posture: {image_signed_by: [...]}``: who signed its image."""

    after = PostureKnown
    another = "an image signed by somebody else"
    stranger = "stranger@other.example"


class AttestedWithin(
    RecentClause,
    path="who.agent.posture.attested_within",
    field="agent.posture.attested_at",
    scene="who.agent.posture.attested_ago",
):
    """``posture: {attested_within: 10m}``: how long ago it was attested."""

    after = PostureKnown
    another = "an attestation that is too old"
    odd = (-1,)

    def found(self, case: Situation) -> float:
        posture = case.run.header.agent.posture
        return (
            inf if posture is None else (case.around.now - posture.attested_at).total_seconds()
        )

    def shown(self, case: Situation) -> object:
        return self.looked_at(case)

    @property
    def expected(self) -> str:
        return f"attested in the last {self.value} s"


class BoundaryKnown(_Known, path="who.agent.boundary", reason=Reason.BOUNDARY):
    """``boundary``: where it runs is known."""

    form = ""
    heads = True
    expected = "a workload inside its boundary"


class Cluster(ListedClause, path="who.agent.boundary.cluster"):
    """``boundary: {cluster: [...]}``."""

    after = BoundaryKnown


class Namespace(ListedClause, path="who.agent.boundary.namespace"):
    """``boundary: {namespace: [...]}``."""

    after = BoundaryKnown


class NodePool(ListedClause, path="who.agent.boundary.node_pool"):
    """``boundary: {node_pool: [...]}``."""

    after = BoundaryKnown


class SameKey(
    _Known, path="who.agent.boundary.same_key_as_last_token", field="agent.boundary.key"
):
    """``boundary: {same_key_as_last_token: true}``: it presented a key.

    The mint script compares that with the last mint's.
    """

    after = BoundaryKnown
    expected = "the key of this account's last token"
    forms = (("who.agent.last_key", "text"),)

    loose = ("dropped", False)
    another = "an agent that presented no key"

    def sample(self, given: Scene) -> Scene:
        return {self.scene: "key-1", "who.agent.last_key": "key-1"}


_PLACES = (Cluster, Namespace, NodePool)
AGENT = (
    InProcessAgent,
    Spiffe,
    TokenIssuer,
    TokenClaim,
    PostureKnown,
    ImageSignedBy,
    AttestedWithin,
    BoundaryKnown,
    *_PLACES,
    SameKey,
)


@value_class
class ClaimRule:
    """One OIDC claim that must be present and match whole-value one of `one_of`."""

    name: str
    line: int
    one_of: tuple[str, ...]


@value_class
class AgentRule:
    """The workload. `in_process`: the host vouches; else `spiffe`, or `oidc_issuer` and
    `claims`, are proven.

    Attributes:
        identity, posture, freshness, boundary: its clauses, compiled.
    """

    line: int
    in_process: bool = False
    spiffe: tuple[str, ...] = ()
    oidc_issuer: str = ""
    claims: tuple[ClaimRule, ...] = ()
    image_signed_by: tuple[str, ...] = ()
    attested_within: int | None = None
    cluster: tuple[str, ...] = ()
    namespace: tuple[str, ...] = ()
    node_pool: tuple[str, ...] = ()
    same_key_as_last_token: bool = False
    identity: Checks = field(init=False, compare=False, repr=False)
    posture: Checks = field(init=False, compare=False, repr=False)
    freshness: Checks = field(init=False, compare=False, repr=False)
    boundary: Checks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        identity: Checks = (check_of(InProcessAgent(True, self.line)),)
        if not self.in_process:
            proven = ProvenAgent(bool(compiled(self, Spiffe, TokenIssuer, *_PLACES)), self.line)
            identity = (check_of(proven), *compiled(self, Spiffe, TokenIssuer, TokenClaim))
        posture = compiled(self, ImageSignedBy)
        boundary = compiled(self, *_PLACES, SameKey)
        freshness = compiled(self, AttestedWithin)
        if posture or freshness:
            posture = (check_of(PostureKnown(True, self.line)), *posture)
        if boundary:
            boundary = (check_of(BoundaryKnown(True, self.line)), *boundary)
        set_derived(
            self, identity=identity, freshness=freshness, posture=posture, boundary=boundary
        )


class ForUser(
    WorkflowClause, path="who.for_user", field="user", scene="who.user", reason=Reason.USER
):
    """``for_user``: there is a user, proven unless the host vouches."""

    form = ""
    forms = (("who.user.id", "name"), ("who.user.proven", "yes"))
    heads = True
    expected = "a user"
    told = ("a user", "no user")

    def found(self, case: Situation) -> bool:
        user = case.run.header.user
        return user is not None and (
            user.identity == "proven" or bool(case.workflow.agent.in_process)
        )

    def shown(self, case: Situation) -> str:
        user = case.run.header.user
        return "none" if user is None else f"{user.id} ({user.identity.replace('_', ' ')})"

    def expected_under(self, workflow: Any) -> str:
        return "a user" if workflow.agent.in_process else "a user proven by a token"

    def sample(self, given: Scene) -> Scene:
        proven = given["who.agent.proven"]
        return {
            "who.user.id": "user",
            "who.user.tenant": given["tenant"],
            "who.user.proven": proven,
        }


class NoUser(ForUser):
    """Without ``for_user``: an autonomous workload, and no user."""

    bars = True
    expected = "no user: this workflow is for an autonomous workload"

    def found(self, case: Situation) -> bool:
        return case.run.header.user is not None

    def allows(self, value: Any) -> bool:
        return not value

    def expected_under(self, workflow: Any) -> str:
        return self.expected

    def sample(self, given: Scene) -> Scene:
        return {}


class SameTenant(WorkflowClause, path="who.for_user.same_tenant", field="user.tenant"):
    """``same_tenant: true``: of the run's tenant (a confused deputy that serves several)."""

    after = ForUser
    form = "name"
    quoted = True
    expected = "the tenant of the run"
    another = "a user of another tenant"
    absent = "another-tenant"
    loose = ("dropped", False)
    told = ("a user", another)

    def found(self, case: Situation) -> bool:
        return bool(self.looked_at(case) == case.run.header.tenant)

    def shown(self, case: Situation) -> object:
        return self.looked_at(case)


class Groups(ListedClause, path="who.for_user.groups", field="user.groups"):
    """``groups: [...]``: of one of these groups."""

    after = ForUser
    form = "names"
    quoted = False
    another = "a user of another group"
    loose = ("any", ())

    def allows(self, value: Any) -> bool:
        return not set(self.value).isdisjoint(value)

    def shown(self, case: Situation) -> str:
        return ", ".join(self.found(case)) or "none"

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        first, last = (frozenset(side.value) for side in (sides[0], sides[-1]))
        picked = [min(kind) for kind in (first & last, first - last, last - first) if kind]
        chosen = [
            list(groups) for n in range(len(picked) + 1) for groups in combinations(picked, n)
        ]
        for groups in chosen:
            yield Distinct(
                groups, {cls.scene: groups}, f"a user in {', '.join(groups) or 'no group'}"
            )

    def sample(self, given: Scene) -> Scene:
        return {self.scene: [self.value[0]]}


class _SignedIn(WorkflowClause):
    """How they signed in (RFC 9470). A credential that does not say it, or a host's word, is
    not enough.
    """

    @property
    def remedy(self) -> str:
        return f"a user who signs in again: {self.expected}"

    def sample(self, given: Scene) -> Scene:
        # a host's word says nothing of it
        return {**super().sample(given), "who.user.proven": True}


class Acr(
    _SignedIn,
    ListedClause,
    path="who.for_user.acr",
    field="user.acr",
    reason=Reason.AUTHENTICATION,
):
    """``acr: [...]``: in which way."""

    after = ForUser
    another = "a user who signed in otherwise"
    loose = ("anyhow", ())
    stranger = "otherwise"

    @property
    def expected(self) -> str:
        return f'acr_values="{" ".join(self.value)}"'  # as section 3 says it

    @property
    def data(self) -> Mapping[str, Any]:
        return {"acr_values": " ".join(self.value)}


class MaxAge(
    _SignedIn,
    RecentClause,
    path="who.for_user.max_age",
    field="user.auth_time",
    scene="who.user.signed_in_ago",
    reason=Reason.AUTHENTICATION,
):
    """``max_age: 15m``: how long ago; an issuer's clock may be ahead."""

    after = ForUser
    another = "a user who signed in too long ago"
    leeway = 5

    def found(self, case: Situation) -> float | None:
        at = self.looked_at(case)
        return None if at is None else case.around.now.timestamp() - at

    def shown(self, case: Situation) -> str:
        age = self.found(case)
        return "unknown" if age is None else f"{age:.0f} s ago"

    @property
    def expected(self) -> str:
        return f"max_age={self.value}"

    @property
    def data(self) -> Mapping[str, Any]:
        return {"max_age": self.value}


USER = (ForUser, SameTenant, Groups, Acr, MaxAge)
NO_USER = (check_of(NoUser(True, 0)),)


@value_class
class UserRule:
    """For whom. None as `Workflow.for_user`: an autonomous workload, no user.

    Attributes:
        acr: how they signed in, one of these (RFC 9470); empty: anyhow.
        max_age: at most so many seconds ago; None: ever.
        person, authentication: its clauses, compiled.
    """

    line: int
    groups: tuple[str, ...] = ()
    same_tenant: bool = False
    acr: tuple[str, ...] = ()
    max_age: int | None = None
    person: Checks = field(init=False, compare=False, repr=False)
    authentication: Checks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        person = (check_of(ForUser(True, self.line)), *compiled(self, SameTenant, Groups))
        set_derived(self, person=person, authentication=compiled(self, Acr, MaxAge))


class BrokerChain(
    WorkflowClause, path="who.via", field="agent.via", scene="who.via", reason=Reason.HOPS
):
    """``via``: no more hops than allowed, and no fewer, through named brokers only.

    Hops are proven, but what a caller keeps to itself proves nothing: where work must come
    through a broker (RFC 8693 `act`), as few as none count against the caller, too.
    """

    names = ("max_hops", "min_hops", "brokers")
    form = "texts"
    value: tuple[int, int, tuple[str, ...]]  # the least, the most, the brokers

    def allows(self, value: Any) -> bool:
        least, most, brokers = self.value
        return least <= len(value) <= most and not [
            broker for broker in value if broker not in brokers
        ]

    def shown(self, case: Situation) -> str:
        via = case.run.header.agent.via
        return f"{len(via)} hops: {', '.join(via)}".removesuffix(": ")

    @property
    def expected(self) -> str:
        least, most, brokers = self.value
        fewest = f"at least {least} and " if least else ""
        return f"{fewest}at most {most} hops, through {', '.join(brokers)}"

    @classmethod
    def distinct(cls, sides: Sides) -> Iterable[Distinct]:
        """Lists of one broker suffice: a list is refused for its length or for one broker in
        it.
        """
        most = max(side.value[1] for side in sides)
        brokers = dict.fromkeys([broker for side in sides for broker in side.value[2]])
        chains = [[], *[[broker] * n for n in range(1, most + 1) for broker in brokers]]
        chains.append([STRANGER])
        return [
            Distinct(chain, {cls.scene: chain}, " > ".join(chain) or "direct")
            for chain in chains
        ]

    def loosened(self) -> Iterator[Loosening]:
        least, most, brokers = self.value
        if brokers:
            yield Loosening(
                f"{most} -> {most + 1}", "one hop too many", {"max_hops": most + 1}, "max_hops"
            )
            if least:
                yield Loosening(
                    f"{least} -> {least - 1}",
                    "one hop too few",
                    {"min_hops": least - 1},
                    "min_hops",
                )
            yield Loosening("any", "through a stranger", {"brokers": EVERYTHING}, "brokers")

    def sample(self, given: Scene) -> Scene:
        least, _, brokers = self.value
        return {self.scene: [brokers[0]] * least} if least else {}


class NoBrokers(BrokerChain):
    """Without ``via``: the user's agent itself."""

    expected = "no hop between user and agent"
    words = ""


VIA = (BrokerChain,)
NO_BROKERS = (check_of(NoBrokers((0, 0, ()), 0)),)


@value_class
class ViaRule:
    """Delegation: `min_hops` to `max_hops` brokers between user and agent, each one of
    `brokers`.

    Where none are required, a caller may leave all out.
    """

    line: int
    max_hops: int
    brokers: tuple[str, ...]
    min_hops: int = 0
    clauses: Checks = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        chain = BrokerChain((self.min_hops, self.max_hops, self.brokers), self.line)
        object.__setattr__(self, "clauses", (check_of(chain),))
