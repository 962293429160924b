"""What has become of a token: introspection (RFC 7662) by the server it is for, revocation (RFC
7009) by the client that got it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import Refusal, RequestRefused, TokenRefused
from agentgate.redemption.steps import burn_request
from agentgate.service.answer import answered, malformed, unavailable
from agentgate.service.clients import Caller
from agentgate.service.deferred import check_sender
from agentgate.service.nonces import proof_of
from agentgate.service.reading import one_header
from agentgate.service.state import Service
from agentgate.stores import ops
from agentgate.token.claims import Claims, check_token
from agentgate.values.refusal import Failure, Reason, RunRefused

_NOT_ACTIVE = {"active": False}


async def introspect(request: Request, service: Service) -> Response:
    """``POST /oauth2/introspect``. A token for somebody else, spent or revoked is not active;
    why is nobody's business.
    """
    form, caller = await service.form(request)
    if caller.claimed or caller.settings.role != "tool_server":
        failure = Failure(Reason.AGENT, "client.role", caller.settings.role, "tool_server")
        raise RequestRefused(400, "unauthorized_client", "", failure)
    if "token" not in form:
        raise malformed("token", "none", "one")
    claims = _verified(service, caller, caller.settings.resources, form["token"])
    if claims is None:
        return answered(_NOT_ACTIVE)
    request.state.run = claims.run
    if await service.gate.ask(ops.live(burn_request(claims))) != "live":
        return answered(_NOT_ACTIVE)
    named = ("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "txn", "scope", "tenant")
    token_type = "Bearer" if claims.cnf_jkt is None else "DPoP"
    sender = {
        name: value
        for name, value in (("jkt", claims.cnf_jkt), ("x5t#S256", claims.cnf_x5t))
        if value is not None
    }
    confirmed = {"cnf": sender} if sender else {}
    said = {name: getattr(claims, name) for name in named}
    return answered(
        {"active": True, "token_type": token_type, **said, **confirmed, "act": dict(claims.act)}
    )


async def revoke(request: Request, service: Service) -> Response:
    """``POST /oauth2/revoke``. A token that is none of the client's is left alone, and the
    answer is the same (RFC 7009 section 2.2).

    A client that has no keys here proves by the token's own key that it holds the token. One
    that is spent or void already is left alone.
    """
    form, caller = await service.form(request)
    proof = one_header(request, "dpop")
    if (caller.claimed and proof is None) or caller.settings.role == "tool_server":
        failure = Failure(
            Reason.AGENT, "client", caller.id, "an agent or host with keys or certificates"
        )
        raise RequestRefused(
            401 if caller.claimed else 400,
            "invalid_client" if caller.claimed else "unauthorized_client",
            "",
            failure,
        )
    shown = (
        None
        if proof is None
        else proof_of(proof, "POST", service.url("/oauth2/revoke"), service.gate.core.keys)
    )
    if "token" not in form:
        raise malformed("token", "none", "one")
    done = Response(status_code=200, headers={"Cache-Control": "no-store"})
    resources = [
        resource
        for client in service.settings.clients.values()
        for resource in client.resources
    ]
    claims = _verified(service, caller, resources, form["token"])
    if claims is None:
        return done
    if caller.claimed and shown is not None:
        check_sender(shown, claims.cnf_jkt or "")
    if await service.gate.ask(ops.live(burn_request(claims))) != "live":
        return done
    try:
        run = await service.gate.resume_run(claims.tenant, claims.run)
    except RunRefused:
        return done
    request.state.run = run.id
    if caller.id in {run.header.client, run.header.host}:
        await service.gate.revoke(
            f"token:{claims.jti}",
            tenants=[claims.tenant],
            by=caller.id,
            reason="its client revoked it",
        )
    return done


def _verified(
    service: Service, caller: Caller, resources: Iterable[str], token: str
) -> Claims | None:
    """The claims of a token for one of these resources, in the caller's tenants; None: it is
    none.

    Raises:
        RequestRefused: 503: without keys nobody can tell. Answered otherwise, a token would be
            taken for revoked that is not.
    """
    now = time.time()
    for resource in resources:
        trust = service.trust(caller, resource)
        try:
            return check_token(
                token,
                trust.keys.trusted(),
                issuer=trust.issuer,
                tenants=trust.tenants,
                audience=trust.audience,
                now=now,
            )
        except TokenRefused as error:
            if error.code is Refusal.NO_KEYS:
                raise unavailable(error.failure(reason=Reason.KEYS)) from None
    return None
