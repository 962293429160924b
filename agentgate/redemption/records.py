"""What an audit record says of a redeemed call, whoever tells it: the process that redeemed it,
or its server over HTTP, later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from agentgate.shell.step import Record
from agentgate.token.mint import MintClaims, WorkflowRef
from agentgate.values.value_class import value_class


@value_class
class Reportable:
    """A redeemed call, as its server can report on it. `facts`: the declared ones, name ->
    path; `recorded_for`: as of its claims.
    """

    tenant: str
    run: str
    call_digest: str
    jti: str
    txn: str
    aud: str
    sub: str
    client_id: str
    tool_call_id: str
    workflow: WorkflowRef
    facts: Mapping[str, list[str]]
    recorded_for: str


def record_of(
    claims: MintClaims | Reportable,
    kind: str,
    *,
    refusal: bool = False,
    promised: bool = False,
    **more: object,
) -> Record:
    """The audit record of what became of a call."""
    # an autonomous agent's token has the agent as its subject
    user = None if claims.sub == claims.client_id else claims.sub
    who = {
        "tenant": claims.tenant,
        "run": claims.run,
        "workflow": claims.workflow._asdict(),
        "user": user,
        "agent": claims.client_id,
    }
    call = {"txn": claims.txn, "jti": claims.jti, "tool_call_id": claims.tool_call_id}
    return Record(
        {"type": kind, "time": round(time.time(), 6), **who, **call, **more}, refusal, promised
    )
