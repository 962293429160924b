"""What all calls of one run to one tool share: put together once, for the digest, the mint
request and the token.

Rules: all of it comes from the run's frozen header and the workflow's definition, nothing from
a call or a model. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.decision.answer import Reservation
from agentgate.stores import ops
from agentgate.token.mint import MintClaims, RunClaims, WorkflowRef, call_digest
from agentgate.values.identities import name_of
from agentgate.values.request import Agent, Call, Header
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Tool, Upstream, Workflow
from agentgate.workflow.page_size import paths


@value_class
class TokenTemplate:
    """See the module. Build with `template_of`.

    Attributes:
        shared: the claims that their tokens have in common; `aud` is the gate's own URL where
            the wrapper redeems.
        subjects: whom a revocation may name.
        facts: the tool's declared facts, name -> path, as the call's record holds them.
        identity: how user, agent and host are known.
        owners: whose counter of a limit it is, by what the limit is `per`.
        upstream: where the upstream credential comes from, as the call's record holds it; None:
            the tool needs none.
    """

    header: Header
    tool: Tool
    shared: RunClaims
    subjects: ops.Subjects
    facts: Mapping[str, list[str]]
    identity: Mapping[str, str]
    owners: Mapping[str, str]
    upstream: Mapping[str, Any] | None = None

    def digest(self, call: Call) -> str:
        """The call digest (see `agentgate.token.mint.call_digest`)."""
        shared = self.shared
        return call_digest(
            tenant=shared.tenant,
            run=shared.run,
            tool_call_id=call.id,
            agent=shared.client_id,
            user=self.subjects.user,
            tool=call.tool,
            audience=shared.aud,
            definition=call.definition,
            workflow_digest=shared.workflow.digest,
            data=call.data,
        )

    def claims(
        self, call: Call, *, made: str, ttl: int, approver: str = "", iat: int, **more: Any
    ) -> MintClaims:
        """The claims of the call's token.

        Args:
            call: the call that was decided on.
            made: its call digest.
            ttl: lifetime in seconds.
            approver: how those who released it are known; empty: nobody did.
            iat: POSIX seconds.
            more: the others, by the names that `MintClaims` gives them.
        """
        return MintClaims(
            shared=self.shared,
            iat=iat,
            exp=iat + ttl,
            txn=txn(made),
            tool_call_id=call.id,
            call_digest=made,
            arguments_digest=call.arguments_digest,
            tool_digest=call.definition,
            identity=self.identity if not approver else {**self.identity, "approver": approver},
            **more,
        )

    def take(self, reservation: Reservation, turns: int) -> ops.LimitTake:
        """What the call takes of one limit, for the mint script; `turns`: how often the user
        has spoken, for a counter `per: turn`.
        """
        limit = reservation.limit
        owner = self.owners[reservation.limit.per]
        if limit.per == "turn":
            owner = f"{owner}:{self.header.name_turn(turns)}"
        # A counter is named after what it counts, not after the rule's bound: raising a limit
        # starts no new count.
        counted = f"{limit.tool}:{limit.argument or 'count'}:{limit.per}:{limit.every or 0}"
        key = f"{self.shared.workflow.id}:{counted}:{reservation.currency}:{owner}"
        return ops.LimitTake(
            key=key,
            amount=reservation.amount,
            maximum=limit.maximum,
            every_ms=(limit.every or 0) * 1000,
            for_run=limit.per not in {"agent", "tenant"},
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
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in said.settings.items()
    }
    return {
        "broker": said.broker,
        "settings": settings,
        "role_scopes": sorted(said.role_scopes),
        "bound": sorted(said.bound),
    }


def template_of(
    made: dict[str, TokenTemplate], issuer: str, header: Header, workflow: Workflow, tool: Tool
) -> TokenTemplate:
    """The template of a run's calls to one of its workflow's tools, made once.

    Args:
        made: those made so far, by tool; of the run's handle.
        issuer: the gate's URL.
        header: the run's frozen header.
        workflow: what the run's calls are minted by (`agentgate.decision.versions`).
        tool: one of its tools.
    """
    known = made.get(tool.name)
    if (
        known is not None
        and known.header is header
        and known.tool is tool
        and known.shared.iss == issuer
    ):
        return known
    agent = header.agent
    user = header.user
    identity: dict[str, str] = {"agent": agent.identity}
    # a run that the agent's own credential opened has no host
    if header.host or not header.client:
        identity["host"] = "proven" if header.host else "in_process"
    if user is not None:
        identity["user"] = user.identity
    person = header.reader
    template = made[tool.name] = TokenTemplate(
        header=header,
        tool=tool,
        shared=RunClaims(
            iss=issuer,
            sub=person or agent.id,
            aud=tool.audience or issuer,
            client_id=agent.id,
            scope=" ".join(tool.scope) or tool.name,
            tenant=header.tenant,
            act=_actor(agent, issuer),
            tool=tool.name,
            workflow=WorkflowRef(workflow.id, workflow.version, workflow.digest),
            run=header.id,
            auth_time=user.auth_time if user else None,
            acr=user.acr if user else None,
            amr=user.amr if user else (),
        ),
        subjects=ops.Subjects(
            agent.id, person, tool.name, ops.workflow_subject(workflow.id, workflow.version)
        ),
        facts={name: list(path) for name, path in paths(tool).items()},
        identity=identity,
        owners={
            **dict.fromkeys(("turn", "run", "conversation"), header.id),
            "agent": name_of(agent.id, agent.issuer),
            "tenant": "*",
        },
        upstream=_upstream(tool.upstream),
    )
    return template
