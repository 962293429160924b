"""What all calls of one run to one tool share: put together once, for the digest, the mint request and the token.

Rules: all of it comes from the run's frozen header and the workflow's definition, nothing from a call or a model. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentgate.decision.answer import Reservation
from agentgate.stores import ops
from agentgate.token.mint import MintClaims, WorkflowRef, call_digest
from agentgate.values.identities import name_of
from agentgate.values.request import Agent, Call, Header
from agentgate.workflow.model import Tool, Upstream, Workflow
from agentgate.workflow.page_size import paths


@dataclass(frozen=True, slots=True)
class TokenTemplate:
    """See the module. Build with `template_of`.

    Attributes:
        audience: the tool server's resource, or the gate's own URL where the wrapper redeems.
        user: the user's id; empty for an autonomous workload.
        subjects: whom a revocation may name.
        facts: the tool's declared facts, name -> path, as the call's record holds them.
        upstream: where the upstream credential comes from, as the call's record holds it; None: the tool needs none.
        identity: how user, agent and host are known.
        signed_in: `auth_time`, `acr` and `amr` of the user, as their credential said.
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
    upstream: Mapping[str, Any] | None = None
    signed_in: tuple[int | None, str | None, tuple[str, ...]] = (None, None, ())

    def digest(self, call: Call) -> str:
        """The call digest (see `agentgate.token.mint.call_digest`)."""
        header = self.header
        return call_digest(
            tenant=header.tenant,
            run=header.id,
            tool_call_id=call.id,
            agent=header.agent.id,
            user=self.user,
            tool=call.tool,
            audience=self.audience,
            definition=call.definition,
            workflow_digest=self.workflow.digest,
            data=call.data,
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
        cnf_jkt: str | None = None,
        cnf_x5t: str | None = None,
        releases: tuple[str, ...] = (),
        approver: str = "",
        head_digest: str = "",
    ) -> MintClaims:
        """The claims of the call's token.

        Args:
            call: the call that was decided on.
            iat: POSIX seconds.
            ttl: lifetime in seconds.
            jti: a fresh `agentgate.token.mint.new_jti`.
            gen: the lineage in the mint script's reply.
            intent: the intent it is minted for.
            made: its call digest.
            cnf_jkt: thumbprint of the presenter's key; None: none is named.
            cnf_x5t: of the presenter's certificate; None: none is named.
            releases: ids of the holds whose release it used.
            approver: how those who released it are known; empty: nobody did.
            head_digest: of the head of the call's record (`MintClaims.head_digest`).
        """
        header = self.header
        auth_time, acr, amr = self.signed_in
        return MintClaims(
            iss=self.issuer,
            sub=self.user or header.agent.id,
            aud=self.audience,
            client_id=header.agent.id,
            iat=iat,
            exp=iat + ttl,
            jti=jti,
            txn=txn(made),
            scope=self.scope,
            tenant=header.tenant,
            gen=gen,
            act=self.act,
            tool=self.tool.name,
            tool_call_id=call.id,
            workflow=self.workflow,
            intent=intent,
            run=header.id,
            call_digest=made,
            arguments_digest=call.arguments_digest,
            tool_digest=call.definition,
            identity=self.identity if not approver else {**self.identity, "approver": approver},
            cnf_jkt=cnf_jkt,
            releases=releases,
            auth_time=auth_time,
            acr=acr,
            amr=amr,
            cnf_x5t=cnf_x5t,
            head_digest=head_digest,
        )

    def take(self, reservation: Reservation, turns: int) -> ops.LimitTake:
        """What the call takes of one limit, for the mint script; `turns`: how often the user has spoken, for a counter `per: turn`."""
        limit, run = reservation.limit, self.header.id
        agent = self.header.agent
        owner = {"turn": f"{run}:{turns}", "run": run, "agent": name_of(agent.id, agent.issuer), "tenant": "*"}[limit.per]
        # A counter is named after what it counts, not after the rule's bound: raising a limit starts no new count.
        counted = f"{limit.tool}:{limit.argument or 'count'}:{limit.per}:{limit.every or 0}:{reservation.currency}"
        key = f"{self.workflow.id}:{counted}:{owner}"
        return ops.LimitTake(
            key=key,
            amount=reservation.amount,
            maximum=limit.maximum,
            every_ms=(limit.every or 0) * 1000,
            for_run=limit.per in {"run", "turn"},
        )


def txn(made: str) -> str:
    """The id of the call with this digest, stable across a step-up."""
    return "txn_" + made[:32]


def _actor(agent: Agent, issuer: str) -> dict[str, Any]:
    """RFC 8693 section 4.1: the agent, and the brokers it came through nested inside."""
    act: dict[str, Any] = {"sub": agent.spiffe or agent.id, "iss": agent.issuer or issuer}
    inner = act
    for broker in reversed(agent.via):
        inner["act"] = {"sub": broker, "iss": issuer}
        inner = inner["act"]
    return act


def _upstream(said: Upstream | None) -> Mapping[str, Any] | None:
    if said is None:
        return None
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in said.settings.items()}
    return {"broker": said.broker, "settings": settings, "role_scopes": sorted(said.role_scopes), "bound": sorted(said.bound)}


def template_of(made: dict[str, TokenTemplate], issuer: str, header: Header, workflow: Workflow, tool: Tool) -> TokenTemplate:
    """The template of a run's calls to one of its workflow's tools, made once.

    Args:
        made: those made so far, by tool; of the run's handle.
        issuer: the gate's URL.
        header: the run's frozen header.
        workflow: what the run's calls are minted by (`agentgate.decision.versions`).
        tool: one of its tools.
    """
    known = made.get(tool.name)
    if known is not None and known.header is header and known.tool is tool and known.issuer == issuer:
        return known
    agent, user = header.agent, header.user
    identity: dict[str, str] = {"agent": agent.identity}
    if header.host or not header.client:  # a run that the agent's own credential opened has no host
        identity["host"] = "proven" if header.host else "in_process"
    if user is not None:
        identity["user"] = user.identity
    person = user.id if user is not None else ""
    template = made[tool.name] = TokenTemplate(
        issuer=issuer,
        header=header,
        tool=tool,
        audience=tool.audience or issuer,
        user=person,
        workflow=WorkflowRef(workflow.id, workflow.version, workflow.digest),
        subjects=ops.Subjects(agent.id, person, tool.name, ops.workflow_subject(workflow.id, workflow.version)),
        facts={name: list(path) for name, path in paths(tool).items()},
        scope=" ".join(tool.scope) or tool.name,
        act=_actor(agent, issuer),
        identity=identity,
        upstream=_upstream(tool.upstream),
        signed_in=(None, None, ()) if user is None else (user.auth_time, user.acr, user.amr),
    )
    return template
