"""The clauses of `who.agent`: the workload that calls, its posture and its boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from math import inf
from operator import attrgetter
from typing import Any

from agentgate.values.refusal import Reason
from agentgate.values.value_class import set_derived, value_class
from agentgate.workflow.clauses.clause import (
    STRANGER,
    Checks,
    ListedClause,
    Loosening,
    RecentClause,
    Scene,
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
            yield cls(claim, tuple([other for other in rule.claims if other is not claim]))

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
