"""The user and the agent of a run, from credentials that are shown now, or as a host vouches
for them.

Rules: what proves nobody is counted and put on no durable record: whoever can reach a gate
could fill its disk otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from agentgate.errors import CredentialRefused, KeysUnavailable
from agentgate.gate.core import Core, reasons_of
from agentgate.identity.credential import AgentCredential
from agentgate.identity.proven import Proven, narrowed
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Agent, Header, User
from agentgate.values.value_class import Json, value_class
from agentgate.workflow.model import Workflow

UserGiven = User | Proven[User] | AgentCredential | None
AgentGiven = Agent | Proven[Agent] | AgentCredential


@value_class
class OverHTTP:
    """Which clients of a service a run belongs to, by their ids in its settings.

    Attributes:
        host: the one that opens it; empty: the agent itself does, by calling.
        client: the agent, the only one that calls in it.
        address: as whom the caller of this request is counted.
    """

    host: str = ""
    client: str = ""
    address: str = ""


IN_PROCESS = OverHTTP()


def prove(
    core: Core,
    workflow: Workflow,
    tenant: str,
    user: UserGiven,
    agent: AgentGiven | None,
    *,
    run: Header | None = None,
    over: OverHTTP = IN_PROCESS,
    returning: bool = False,
) -> Generator[Any, Any, tuple[Proven[User] | None, Any]]:
    """User and agent of a run, with the ends of what was proven; 0 for what a host vouches for.
    `run`: it is open already.

    `returning`: they come back to a run, or seem to; what founds or renews one is verified
    whole.
    """
    now = time.time()
    known = None if run is None else run.user
    named = None if run is None else run.id
    for each in (user, agent):
        if isinstance(each, AgentCredential):
            each.returning = returning
    try:
        for_user: Proven[User] | None = None
        if isinstance(user, AgentCredential):
            for_user = yield from identities_of(core).user(user, now)
        elif user is not None:
            for_user = user if isinstance(user, Proven) else Proven(user, 0.0)
        if not isinstance(agent, AgentCredential):
            return for_user, agent if agent is None or isinstance(agent, Proven) else Proven(
                agent, 0.0
            )
        who = for_user.who if for_user is not None else known
        found = yield from identities_of(core).agent(agent, tenant, who, now)
    except CredentialRefused as error:
        refused = failure_of(error).with_data(sign_in=True)
    else:
        # Of the claims, the run keeps those that the workflow compares, and nothing else about
        # anybody.
        return for_user, replace(
            found, who=narrowed(found.who, {claim.name for claim in workflow.agent.claims})
        )
    said = {
        "type": "run_refused",
        "tenant": tenant,
        "run": named,
        "workflow": {"id": workflow.id, "version": workflow.version, "digest": workflow.digest},
        "user": None,
        "agent": None,
    }
    count_unproven(core, said, refused, over)
    raise RunRefused((refused,), named or "")


def identities_of(core: Core) -> Any:
    """Who proves credentials here. Raises CredentialRefused: nobody does."""
    if core.identities is None:
        raise CredentialRefused(
            "agent",
            "a credential",
            "a gate with identity settings (identity=...), or a User and an Agent",
        )
    return core.identities


def failure_of(error: CredentialRefused) -> Failure:
    """What a run that was refused for a credential says."""
    reason = (
        Reason.KEYS
        if isinstance(error, KeysUnavailable)
        else error.failures[0].reason or Reason.AGENT
    )
    return error.failure(reason=reason)


def count_unproven(
    core: Core, body: Json, refused: Failure, over: OverHTTP = IN_PROCESS
) -> None:
    """Count what proved nobody: a durable record for each would let anybody fill the disk."""
    said = {"time": round(time.time(), 6), **body, "reasons": reasons_of((refused,))}
    core.unproven.count(
        body["type"], refused.field, over.host or over.client, over.address, refusal=said
    )
