"""``POST /oauth2/token``: one endpoint, and the grants that it takes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.answer import Allow, Deny
from agentgate.service.answer import RequestRefused, answered, malformed, refused_by
from agentgate.service.exchange import GRANT, exchange, read_exchange, success
from agentgate.service.nonces import fresh
from agentgate.service.reading import read_form
from agentgate.service.state import Service


async def token(request: Request, service: Service) -> Response:
    """See `agentgate.service.exchange`."""
    form = await read_form(request, service.settings.max_body)
    grant = form.get("grant_type")
    if grant is None:
        raise malformed("grant_type", "none", GRANT)
    if grant != GRANT:
        raise RequestRefused(400, "unsupported_grant_type")
    caller = await service.clients.by_form(form, request, service.gate)
    service.take(request, None if caller.claimed else caller.id)
    asked = read_exchange(form, request, caller=caller, settings=service.settings, gate=service.gate, url=service.url("/oauth2/token"))
    run, decision = await exchange(asked, service.gate, service.settings)
    request.state.run = run.id
    if isinstance(decision, Allow):
        answer = answered(success(decision.token))
        answer.headers["DPoP-Nonce"] = fresh(service.gate.core.keys)
        return answer
    if isinstance(decision, Deny):
        raise refused_by(decision.failures)
    raise RequestRefused(400, "access_denied", decision.code, failures=decision.failures)
