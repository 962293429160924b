"""What is the same for every call of one run to one tool: put together once, used for the digest, the mint request and the token.

Rules: all of it comes from the run's frozen header and the workflow's definition, nothing from a call or a model. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentgate.decision.answer import Reservation
from agentgate.stores import ops
from agentgate.token.mint import MintClaims, WorkflowRef, call_digest
from agentgate.values.request import Agent, Call, Header
from agentgate.workflow.model import Tool, Workflow
from agentgate.workflow.page_size import paths

_MAX_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Terms:
    """See the module. Build with `terms_of`.

    Attributes:
        audience: the tool server's resource, or the gate's own URL where the wrapper redeems.
        user: the user's id; empty for an autonomous workload.
        subjects: whom a revocation may name.
        facts: the tool's declared facts, name -> path, as the call's record holds them.
        identity: how user, agent and host are known.
    """

    issuer: str
    header: Header
    tool: Tool
    audience: str
    user: str
    workflow: WorkflowRef
    subjects: ops.Subjects
    facts: Mapping[str, list[str]]
    scope: str
    act: Mapping[str, Any]
    identity: Mapping[str, str]
    counters: dict[tuple[int, str, int], str]

    def digest(self, call: Call) -> str:
        """The call digest (see `agentgate.token.mint.call_digest`)."""
        header = self.header
        return call_digest(
            header.tenant,
            header.id,
            call.id,
            header.agent.id,
            self.user,
            call.tool,
            self.audience,
            call.definition,
            self.workflow.digest,
            call.data,
        )

    def claims(
        self,
        call: Call,
        *,
        iat: int,
        ttl: int,
        jti: str,
        gen: str,
        intent: str,
        made: str,
        arguments_digest: str,
        cnf_jkt: str | None = None,
        releases: tuple[str, ...] = (),
    ) -> MintClaims:
        """What the call's token says.

        Args:
            call: the call that was decided on.
            iat: POSIX seconds.
            ttl: lifetime in seconds.
            jti: a fresh `agentgate.token.mint.new_jti`.
            gen: lineage the mint script answered with.
            intent: the intent it is minted for.
            made: its call digest.
            arguments_digest: `Call.arguments_digest`, worked out once.
            cnf_jkt: thumbprint of the presenter's key; None: a bearer token.
            releases: ids of the holds whose release it used.
        """
        header = self.header
        return MintClaims(  # in the order of its fields: naming each costs more than the tuple
            self.issuer,
            self.user or header.agent.id,
            self.audience,
            header.agent.id,
            iat,
            iat + ttl,
            jti,
            txn(made),
            self.scope,
            header.tenant,
            gen,
            self.act,
            self.tool.name,
            call.id,
            self.workflow,
            intent,
            header.id,
            made,
            arguments_digest,
            call.definition,
            self.identity,
            cnf_jkt,
            releases,
        )

    def take(self, reservation: Reservation, turns: int) -> ops.LimitTake:
        """What one limit takes, as the mint script is told; `turns` is how often the user has spoken (a `per: turn` counter's own)."""
        limit = reservation.limit
        turn = turns if limit.per == "turn" else 0
        place = (id(limit), reservation.currency, turn)  # the tool holds its limits
        name = self.counters.get(place)
        if name is None:
            run, agent = self.header.id, self.header.agent.id
            owner = {"turn": f"{run}:{turn}", "run": run, "agent": agent, "tenant": "*"}[limit.per]
            # The counter's name holds what is counted, not the rule's bound: raising a limit does not start a new count.
            counted = f"{limit.tool}:{limit.argument or 'count'}:{limit.per}:{limit.every or 0}:{reservation.currency}"
            name = self.counters[place] = f"{self.workflow.id}:{counted}:{owner}"
        return ops.LimitTake(name, reservation.amount, limit.maximum, (limit.every or 0) * 1000, limit.per in {"run", "turn"})


def txn(made: str) -> str:
    """The id of the call with this digest, stable across a step-up."""
    return "txn_" + made[:32]


def _actor(agent: Agent, issuer: str) -> dict[str, Any]:
    """RFC 8693 4.1: the agent, and the brokers it came through nested inside."""
    act: dict[str, Any] = {"sub": agent.spiffe or agent.id, "iss": agent.issuer or issuer}
    inner = act
    for broker in reversed(agent.via):
        inner["act"] = {"sub": broker, "iss": issuer}
        inner = inner["act"]
    return act


def _terms(issuer: str, header: Header, workflow: Workflow, tool: Tool) -> Terms:
    agent, user = header.agent, header.user
    identity: dict[str, str] = {"agent": agent.identity, "host": "in_process"}
    if user is not None:
        identity["user"] = user.identity
    reference = WorkflowRef(workflow.id, workflow.version, workflow.digest)
    person = user.id if user is not None else ""
    return Terms(
        issuer=issuer,
        header=header,
        tool=tool,
        audience=tool.audience or issuer,
        user=person,
        workflow=reference,
        subjects=ops.Subjects(agent.id, person, tool.name, ops.workflow_subject(workflow.id, workflow.version)),
        facts={name: list(path) for name, path in paths(tool).items()},
        scope=" ".join(tool.scope) or tool.name,
        act=_actor(agent, issuer),
        identity=identity,
        counters={},
    )


_kept: dict[tuple[int, int, str], Terms] = {}  # an entry holds its header and its tool, so identities stay theirs


def terms_of(issuer: str, header: Header, workflow: Workflow, tool: Tool) -> Terms:
    """The terms of a run's calls to one of its workflow's tools, made once.

    Args:
        issuer: the gate's URL.
        header: the run's frozen header.
        workflow: the workflow that the run was opened with and that is in force now.
        tool: one of its tools.
    """
    place = (id(header), id(tool), issuer)
    found = _kept.get(place)
    if found is None:
        if len(_kept) >= _MAX_KEPT:
            _kept.clear()
        found = _kept[place] = _terms(issuer, header, workflow, tool)
    return found
