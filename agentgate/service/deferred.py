"""A token that waits for a person (Deferred Token Response, a draft; off by default): a code now, the token when the call was released.

Rules: the code belongs to one client and its DPoP key. Whatever a person said, the call is decided again before its token is issued.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from agentgate.decision.answer import Allow, Deny, StepUp
from agentgate.decision.hold import Hold
from agentgate.errors import StoreUnavailable, TokenRefused
from agentgate.gate.door import OverHTTP
from agentgate.gate.run import AsyncRun
from agentgate.identity.credential import OIDCToken
from agentgate.service.answer import RequestRefused, malformed, refused_by
from agentgate.service.clients import Caller
from agentgate.service.connection import connection_of
from agentgate.service.credentials import agent_credential
from agentgate.service.exchange import definition_of
from agentgate.service.limits import POLL_SECONDS
from agentgate.service.nonces import proof_of
from agentgate.service.reading import one_header
from agentgate.service.state import Service
from agentgate.stores import ops
from agentgate.token.dpop import check_proof
from agentgate.token.mint import CallToken
from agentgate.values.canonical import canonical, parse
from agentgate.values.refusal import AnswerRefused, Failure, Reason

GRANT = "urn:ietf:params:oauth:grant-type:deferred"
_AFTER = 60  # seconds that the code outlives the time to answer, so that the end can be told
_OVER = {"expired": "expired_token", "cancelled": "invalid_grant", "refused": "access_denied"}


def pending(code: str, hold: Hold) -> RequestRefused:
    """Nobody answered yet. Beside the draft's members: which hold it is, and whose yes it waits for."""
    whom = hold.question.whom if hold.question is not None else ""
    more: dict[str, Any] = {"deferral_code": code, "expires_in": max(1, int(hold.expires_at - time.time())), "interval": POLL_SECONDS}
    more |= {"hold": {"id": hold.id, "whom": whom}}
    return RequestRefused(400, "authorization_pending", more=more)


async def defer(service: Service, caller: Caller, run: AsyncRun, step_up: StepUp, arguments: Mapping[str, object]) -> RequestRefused:
    """Keep the request, and answer with its code."""
    hold, key = step_up.hold, run.header.agent.key
    if caller.claimed and not key:  # then whoever has the code would be the client
        return RequestRefused(400, "access_denied", step_up.code, failures=step_up.failures)
    code = f"{secrets.token_urlsafe(32)}.{run.tenant}"
    left = hold.expires_at - time.time()
    body = {
        "v": 1,
        "run": run.id,
        "tool": hold.tool,
        "tool_call_id": hold.tool_call_id,
        "hold": hold.id,
        "key": key,
        "args": dict(arguments),
    }
    body["expires_at"] = hold.expires_at
    await service.gate.ask(ops.keep(run.tenant, "deferred", f"{caller.id}\n{code}", canonical(body), ttl_ms=int((left + _AFTER) * 1000)))
    refused = pending(code, hold)
    refused.failures = step_up.failures
    return refused


async def deferred(form: Mapping[str, str], request: Request, service: Service, caller: Caller) -> CallToken:
    """The token, if the call was released and is still allowed.

    Raises:
        RequestRefused.
    """
    code = form.get("deferral_code", "")
    tenant = code.partition(".")[2]
    if not code or tenant not in caller.settings.tenants:
        raise malformed("deferral_code", "none of this client", "the code that this client was given", "invalid_grant")
    data = await service.gate.ask(ops.kept(tenant, "deferred", f"{caller.id}\n{code}"))
    if data is None:
        raise RequestRefused(400, "invalid_grant")
    kept = parse(data)
    if kept["v"] != 1:
        raise StoreUnavailable("deferred request: of another version")
    _check_key(request, service, kept["key"])
    if service.polls.take(code):
        raise RequestRefused(400, "slow_down", more={"interval": POLL_SECONDS})
    try:
        hold = await service.gate.hold(kept["hold"], tenant=tenant)
    except AnswerRefused as error:
        raise RequestRefused(400, "expired_token", failures=error.failures) from None
    request.state.run = kept["run"]
    if hold.state == "pending":
        raise pending(code, hold)
    if hold.state in _OVER:
        raise RequestRefused(400, _OVER[hold.state], failures=(Failure(Reason.STEP_UP, "hold", hold.state, "released"),))
    run = await service.gate.resume_run(tenant, kept["run"])
    if "subject_token" in form:  # the credentials of the run may have ended while a person thought about it
        run = await _fresh(form, request, service, caller, run)
    tool = run.workflow.tools.get(kept["tool"])
    definition, connection = definition_of(service.settings, tool), connection_of(request, service.settings)
    answer = await run.authorize(
        kept["tool"], kept["args"], tool_call_id=kept["tool_call_id"], definition=definition, connection=connection
    )
    if isinstance(answer, Allow):
        return answer.token
    raise refused_by(answer.failures) if isinstance(answer, Deny) else RequestRefused(400, "invalid_grant", failures=answer.failures)


async def _fresh(form: Mapping[str, str], request: Request, service: Service, caller: Caller, run: AsyncRun) -> AsyncRun:
    header = one_header(request, "dpop")
    proof = None if header is None else proof_of(header, "POST", service.url("/oauth2/token"), service.gate.core.keys)
    more = {"proof": proof, "at_token_endpoint": True, "attestation": form.get("attestation")}
    agent = agent_credential(form.get("actor_token", form["subject_token"]), **more, delegation=tuple(form.get("delegation", "").split()))
    user = OIDCToken(form["subject_token"]) if "actor_token" in form else None
    return await service.gate.presented(run, user=user, agent=agent, over=OverHTTP(client=caller.id))


def _check_key(request: Request, service: Service, key: str) -> None:
    header = one_header(request, "dpop")
    if not key:
        return
    if header is None:
        raise RequestRefused(400, "invalid_dpop_proof", "proof")
    proof = proof_of(header, "POST", service.url("/oauth2/token"), service.gate.core.keys)
    try:
        check_proof(proof, time.time(), jkt=key, ath=None)
    except TokenRefused as error:
        failure = Failure(Reason.AGENT, error.field, error.got, error.expected)
        raise RequestRefused(400, "invalid_dpop_proof", "proof", failures=(failure,)) from None
