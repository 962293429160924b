"""``POST /oauth2/token``: one endpoint, and the grants that it takes; ``POST /oauth2/key``.

A token that waits for a person (Deferred Token Response, a draft; off by default) is a code now,
and the token when the call was released. The code belongs to one client and its DPoP key.
Whatever a person said, the call is decided again before its token is issued.

A service account changes its key, under `same_key_as_last_token`, by its own credential, as in an
exchange, and a rotation statement about itself that the old key signed
(`agentgate.gate.account_key`). Who has the credential alone, or the old key alone, changes nothing.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.answer import Allow, Deny, StepUp
from agentgate.decision.hold import Hold
from agentgate.errors import RequestRefused, StoreUnavailable, TokenRefused
from agentgate.gate.proving import OverHTTP
from agentgate.gate.run import AsyncRun
from agentgate.service.clients import Caller, unknown
from agentgate.service.exchange import (
    GRANT,
    ExchangeRequest,
    Shown,
    brought_by,
    check_known_by_it,
    check_supported,
    checked_types,
    definition_of,
    fresh,
    proven_run,
    read_exchange,
    shown_with,
    success,
    user_credential,
)
from agentgate.service.line import POLL_SECONDS
from agentgate.service.messages import answered, malformed, read_form, refused_by
from agentgate.service.state import Service
from agentgate.stores import ops
from agentgate.token.dpop import DPoP, check_proof
from agentgate.token.mint import CallToken
from agentgate.values.canonical import canonical, parse
from agentgate.values.refusal import AnswerRefused, Failure, Reason

DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"
# parameters that a deferred request was made with
_OF_EXCHANGES = (
    "authorization_details resource audience scope requested_token_type completion_mode".split()
)
_AFTER = 60  # seconds that the code outlives the time to answer, so that the end can be told
_OVER = {"expired": "expired_token", "cancelled": "invalid_grant", "refused": "access_denied"}


def pending(code: str, hold: Hold) -> RequestRefused:
    """Nobody answered yet. Beside the draft's members: which hold it is, and whose yes it waits
    for.
    """
    more = {
        "deferral_code": code,
        "expires_in": max(1, int(hold.expires_at - time.time())),
        "interval": POLL_SECONDS,
        "hold": {"id": hold.id, "whom": hold.question.whom},
    }
    return RequestRefused(400, "authorization_pending", more=more)


async def defer(
    service: Service, caller: Caller, run: AsyncRun, step_up: StepUp, asked: ExchangeRequest
) -> RequestRefused:
    """Keep the request, and answer with its code."""
    hold = step_up.hold
    key = run.header.agent.key
    certificate = "" if key else asked.agent().certificate
    # then whoever has the code would be the client
    if caller.claimed and not key and not certificate:
        return RequestRefused(400, "access_denied", step_up.code, *step_up.failures)
    code = f"{secrets.token_urlsafe(32)}.{run.tenant}"
    body: dict[str, Any] = {
        # a gate of before 2 would not ask for the certificate again
        "v": 2 if certificate else 1,
        "run": run.id,
        "tool": hold.tool,
        "tool_call_id": hold.tool_call_id,
        "hold": hold.id,
        "key": key,
        "args": dict(asked.asked.arguments),
        "expires_at": hold.expires_at,
        **({"certificate": certificate} if certificate else {}),
    }
    await service.gate.ask(
        ops.keep(
            run.tenant,
            "deferred",
            f"{caller.id}\n{code}",
            canonical(body),
            ttl_ms=int((hold.expires_at - time.time() + _AFTER) * 1000),
        )
    )
    refused = pending(code, hold)
    refused.failures = step_up.failures
    return refused


async def deferred(
    form: Mapping[str, str], request: Request, service: Service, caller: Caller
) -> CallToken:
    """The token, if the call was released and is still allowed.

    Raises:
        RequestRefused.
    """
    check_supported(form, *_OF_EXCHANGES)
    code = form.get("deferral_code", "")
    tenant = code.partition(".")[2]
    if tenant not in caller.settings.tenants:
        raise malformed(
            "deferral_code",
            "none of this client",
            "the code that this client was given",
            "invalid_grant",
        )
    data = await service.gate.ask(ops.kept(tenant, "deferred", f"{caller.id}\n{code}"))
    if data is None:
        raise RequestRefused(400, "invalid_grant")
    kept = parse(data)
    if kept["v"] not in {1, 2}:
        raise StoreUnavailable("deferred request: of another version")
    request.state.run = kept["run"]
    shown = shown_with(request, service, caller, "/oauth2/token")
    _check_sender(caller, shown, kept["key"], kept.get("certificate", ""))
    if caller.claimed:
        service.take(request, caller.id)
    if service.polls.take(code):
        raise RequestRefused(400, "slow_down", more={"interval": POLL_SECONDS})
    await _check_released(service, code, tenant, kept["hold"])
    run = await service.gate.resume_run(tenant, kept["run"])
    # the credentials of the run may have ended while a person thought about it
    if "subject_token" in form:
        run = await _fresh(
            form, service, OverHTTP(client=caller.id, address=request.state.peer), run, shown
        )
    # whichever credential came for it
    if certificate := caller.certificate or kept.get("certificate", ""):
        run = service.gate.shown_by(run, certificate)
    tool = run.workflow.tools.get(kept["tool"])
    answer = await run.authorize(
        kept["tool"],
        kept["args"],
        tool_call_id=kept["tool_call_id"],
        definition=definition_of(service.settings, tool),
        connection=shown.connection,
    )
    if isinstance(answer, Allow):
        return answer.token
    if isinstance(answer, Deny):
        raise refused_by(*answer.failures)
    raise RequestRefused(400, "invalid_grant", "", *answer.failures)


async def _check_released(service: Service, code: str, tenant: str, hold_id: str) -> None:
    """People said yes. Raises RequestRefused: they did not yet, or nothing is asked any more."""
    try:
        hold = await service.gate.hold(hold_id, tenant=tenant)
    except AnswerRefused as error:
        raise RequestRefused(400, "expired_token", "", *error.failures) from None
    if hold.state == "pending":
        raise pending(code, hold)
    if hold.state in _OVER:
        raise RequestRefused(
            400, _OVER[hold.state], "", Failure(Reason.STEP_UP, "hold", hold.state, "released")
        )


async def _fresh(
    form: Mapping[str, str], service: Service, over: OverHTTP, run: AsyncRun, shown: Shown
) -> AsyncRun:
    kind = form[checked_types(form)]
    user = (
        user_credential(form["subject_token"], form["subject_token_type"])
        if "actor_token" in form
        else None
    )
    agent = shown.agent(
        form.get("actor_token", form["subject_token"]), kind, **brought_by(form)
    )
    return await service.gate.presented(run, user=user, agent=agent, over=over)


def _check_sender(caller: Caller, shown: Shown, key: str, certificate: str) -> None:
    """Who polls is who asked: with the same key, or the same certificate, or authenticated by
    another one of its own.
    """
    if (
        certificate
        and not caller.certificate
        and not hmac.compare_digest(certificate.encode(), shown.certificate.encode())
    ):
        raise unknown(
            "client.certificate",
            shown.certificate or "none",
            f"the one that {caller.id} asked with",
        )
    if not key:
        return
    if shown.proof is None:
        raise RequestRefused(400, "invalid_dpop_proof", "proof")
    check_sender(shown.proof, key)


def check_sender(proof: DPoP, key: str) -> None:
    """Whoever sends a request to one of OAuth's endpoints holds this key, by its thumbprint.

    Raises:
        RequestRefused: `invalid_dpop_proof`.
    """
    try:
        check_proof(proof, time.time(), jkt=key, ath=None)
    except TokenRefused as error:
        failure = error.failure(reason=Reason.AGENT)
        raise RequestRefused(400, "invalid_dpop_proof", "proof", failure) from None


async def token(request: Request, service: Service) -> Response:
    """See `agentgate.service.exchange` and `agentgate.service.tokens`."""
    form = await read_form(request, service.settings.max_body)
    grant = form.get("grant_type")
    if grant is None:
        raise malformed("grant_type", "none", GRANT)
    if grant != GRANT and not (grant == DEFERRED and service.settings.deferred):
        raise RequestRefused(400, "unsupported_grant_type")
    caller = await service.clients.by_form(form, request, service.gate)
    service.take_proven(request, caller)
    exchanged = _exchanged if grant == GRANT else deferred
    answer = answered(success(await exchanged(form, request, service, caller)))
    answer.headers["DPoP-Nonce"] = fresh(service.core.keys)
    return answer


async def _exchanged(
    form: Mapping[str, str], request: Request, service: Service, caller: Caller
) -> CallToken:
    mode = form.get("completion_mode", "immediate")
    if mode not in {"immediate", "deferred"} or (
        mode == "deferred" and not service.settings.deferred
    ):
        raise malformed("completion_mode", mode[:80], "none: this server defers nothing")
    asked = read_exchange(form, request, service, caller)
    run, tool = await proven_run(asked, request, service)
    if caller.claimed:
        service.take(request, caller.id)
    call = asked.asked
    decision = await run.authorize(
        call.tool,
        call.arguments,
        tool_call_id=call.tool_call_id,
        definition=definition_of(service.settings, tool),
        connection=asked.shown.connection,
    )
    if isinstance(decision, Allow):
        return decision.token
    if isinstance(decision, Deny):
        raise refused_by(*decision.failures)
    if mode == "deferred":
        raise await defer(service, caller, run, decision, asked)
    raise RequestRefused(400, "access_denied", decision.code, *decision.failures)


async def rotate_key(request: Request, service: Service) -> Response:
    """See the module."""
    form, caller = await service.form(request)
    checked_types(form)
    if "statement" not in form:
        raise malformed("statement", "none", "one")
    shown = shown_with(request, service, caller, "/oauth2/key")
    agent = shown.agent(form["subject_token"], form["subject_token_type"])
    check_known_by_it(caller, agent, service.settings)
    tenant = caller.tenant(form.get("tenant"))
    account = await service.gate.rotate_own_key(form["statement"], tenant=tenant, agent=agent)
    request.state.client = caller.id
    answer = answered({"tenant": tenant, "account": account})
    answer.headers["DPoP-Nonce"] = fresh(service.core.keys)
    return answer
