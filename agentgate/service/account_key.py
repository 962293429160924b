"""``POST /oauth2/key``: a service account changes its key, under `same_key_as_last_token`; the
old key signs for the new one.

Rules: the account shows its own credential, as in an exchange, and a rotation statement
(`agentgate.gate.account_key`) about itself. Who has the credential alone, or the old key alone,
changes nothing.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agentgate.service.answer import answered, malformed
from agentgate.service.exchange import check_known_by_it, checked_types, shown_with
from agentgate.service.nonces import fresh
from agentgate.service.state import Service


async def rotate(request: Request, service: Service) -> Response:
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
    answer.headers["DPoP-Nonce"] = fresh(service.gate.core.keys)
    return answer
