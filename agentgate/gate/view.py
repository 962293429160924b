"""What a run's handle keeps: the state it last saw, and what does not change while the run lives;
for each of its tools, what the tokens of all calls share.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentgate.decision.answer import Allow, Decision, Deny, Reservation, StepUp
from agentgate.gate.core import Core
from agentgate.gate.state import after_call
from agentgate.redemption.credential import Redemption
from agentgate.stores import ops
from agentgate.token.mint import MintClaims, RunClaims, WorkflowRef, call_digest, txn
from agentgate.token.signing import RunKey
from agentgate.values.refusal import RunRefused
from agentgate.values.request import Agent, Call, Header, RunState, name_of
from agentgate.values.value_class import Json, Values, value_class
from agentgate.workflow.model import Tool, Upstream, Workflow


@value_class
class TokenTemplate:
    """What all calls of one run to one tool share: put together once, for the digest, the mint
    request and the token. Build with `template_of`.

    All of it comes from the run's frozen header and the workflow's definition, nothing from a
    call or a model.

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
    upstream: Values | None = None

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
        owner = self.owners[limit.per]
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


def _actor(agent: Agent, issuer: str) -> Json:
    """RFC 8693 section 4.1: the agent, and the brokers it came through nested inside."""
    act: Json = {"sub": agent.spiffe or agent.id, "iss": agent.issuer or issuer}
    inner = act
    for broker in reversed(agent.via):
        inner["act"] = {"sub": broker, "iss": issuer}
        inner = inner["act"]
    return act


def _upstream(said: Upstream | None) -> Values | None:
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
        facts={name: list(path) for name, path in tool.result_paths.items()},
        identity=identity,
        owners={
            **dict.fromkeys(("turn", "run", "conversation"), header.id),
            "agent": name_of(agent.id, agent.issuer),
            "tenant": "*",
        },
        upstream=_upstream(tool.upstream),
    )
    return template


Settled = Decision | Redemption
_REMEMBERED = 32  # refused calls that a handle can still explain by their id


class WithCall(NamedTuple):
    """A run in which nothing but this call came after a state: how the store has it, and the
    run's revision with it.
    """

    state: RunState
    call: ops.CallRecord
    revision: str
    workflow: Workflow


Seen = RunState | WithCall


@dataclass(slots=True)
class View:
    """See the module. The state is good enough to allow, and for nothing else.

    Attributes:
        seen: the run as it was seen last; what its last call left is put together when it is
            asked for (`state`).
        behind: a token was issued since it was read.
        certificate: thumbprint of the certificate by which the agent that asks proved itself;
            empty: by other means. Where it shows no key of its own, its tokens are bound to it
            (RFC 8705 section 3).
        refused: the newest refused or held calls, by `tool_call_id`.
        unspent: call digest -> its last token (`jti`), of calls that only this handle redeems
            and has not.
        templates: what all calls of the run to a tool share, by tool (`template_of`).
    """

    core: Core
    seen: Seen
    behind: bool = False
    refused: dict[str, tuple[Call, Deny | StepUp]] = field(default_factory=dict)
    unspent: dict[str, str] = field(default_factory=dict)
    certificate: str = ""
    _key: RunKey | None = None
    templates: dict[str, TokenTemplate] = field(default_factory=dict)

    @property
    def state(self) -> RunState:
        """The run as it was seen last."""
        seen = self.seen
        if isinstance(seen, WithCall):  # only where another call comes
            seen = self.seen = after_call(*seen, self.core.readings)
        return seen

    @property
    def header(self) -> Header:
        """The run's frozen header."""
        seen = self.seen
        return (seen.state if isinstance(seen, WithCall) else seen).header

    @property
    def key(self) -> RunKey:
        """The run's key, derived on first use and never stored."""
        if self._key is None:
            self._key = self.core.keys.run_key(self.header.tenant, self.header.id)
        return self._key

    @property
    def workflow(self) -> Workflow:
        """What the run's calls are minted by; where nothing is known of that, the workflow in
        force under its id.
        """
        versions = self.core.in_force.known(self.header)
        return self.core.workflow(self.header.workflow) if versions is None else versions.minted

    def tool(self, name: str) -> Tool | None:
        """One of that workflow's tools; None: it has none of this name, or nothing is in
        force.
        """
        with suppress(RunRefused):
            return self.workflow.tools.get(name) if type(name) is str else None
        return None

    def follow(
        self,
        call: ops.CallRecord,
        workflow: Workflow,
        reply: ops.OutcomeReply,
        outcome: ops.Outcome,
        facts: bytes,
    ) -> None:
        """Take how a call of this handle ended; where anything else happened meanwhile, the run
        is read again before the next.
        """
        seen = self.seen
        state = seen.state if isinstance(seen, WithCall) and seen.call is call else self.state
        if seen.revision == f"{reply.before}.{call.gen}":
            ended = call._replace(outcome=outcome, facts=facts or None)
            self.seen = WithCall(state, ended, f"{reply.after}.{call.gen}", workflow)
        else:
            self.behind = True

    def take(self, call: Call | Deny, decision: Settled, seen: Seen) -> Settled:
        """Keep the freshest state, and a call that was refused or held; returns the
        decision.
        """
        self.seen = seen
        self.behind = isinstance(decision, Allow)
        if isinstance(call, Call) and isinstance(decision, Deny | StepUp):
            self.refused.pop(call.id, None)
            self.refused[call.id] = (call, decision)
            if len(self.refused) > _REMEMBERED:
                del self.refused[next(iter(self.refused))]
        return decision
