"""``POST /oauth2/token``: one endpoint, and the grants that it takes."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.answer import Allow, Deny
from agentgate.errors import RequestRefused
from agentgate.service import deferred
from agentgate.service.answer import answered, malformed, refused_by
from agentgate.service.clients import Caller
from agentgate.service.exchange import (
    GRANT,
    decide,
    definition_of,
    proven_run,
    read_exchange,
    success,
)
from agentgate.service.nonces import fresh
from agentgate.service.reading import read_form
from agentgate.service.state import Service
from agentgate.token.mint import CallToken


async def token(request: Request, service: Service) -> Response:
    """See `agentgate.service.exchange` and `agentgate.service.deferred`."""
    form = await read_form(request, service.settings.max_body)
    grant = form.get("grant_type")
    if grant is None:
        raise malformed("grant_type", "none", GRANT)
    if grant != GRANT and not (grant == deferred.GRANT and service.settings.deferred):
        raise RequestRefused(400, "unsupported_grant_type")
    caller = await service.clients.by_form(form, request, service.gate)
    service.take_proven(request, caller)
    exchanged = _exchanged if grant == GRANT else deferred.deferred
    answer = answered(success(await exchanged(form, request, service, caller)))
    answer.headers["DPoP-Nonce"] = fresh(service.gate.core.keys)
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
    decision = await decide(
        run, asked.asked, definition_of(service.settings, tool), asked.shown.connection
    )
    if isinstance(decision, Allow):
        return decision.token
    if isinstance(decision, Deny):
        raise refused_by(*decision.failures)
    if mode == "deferred":
        raise await deferred.defer(service, caller, run, decision, asked)
    raise RequestRefused(400, "access_denied", decision.code, *decision.failures)
