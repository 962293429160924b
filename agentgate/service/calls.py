"""The tool server's side: redeem a token for the call that was really received, then tell its
result and how it ended; and what has become of a token: introspection (RFC 7662)
by the server it is for, revocation (RFC 7009) by the client that got it.

Rules: only a client with the role tool_server, only for tokens to its own resources. The answer
holds the arguments that were decided on: run the tool from these. A report is taken for a
redeemed call, once. Who lost the answer cannot tell whether it burned the token: it names its
`attempt`, and is believed only if that one did.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import (
    CanonicalError,
    CredentialRefused,
    Refusal,
    RequestRefused,
    StoreUnavailable,
    TokenRefused,
)
from agentgate.identity.credential import Credential
from agentgate.identity.signed import read
from agentgate.redemption.credential import Redemption
from agentgate.redemption.outcome import (
    MAX_LOOKED,
    Reportable,
    checked_facts,
    keep_for_report,
    not_run,
    recorded,
    report_outcome,
    report_result,
    reportable,
)
from agentgate.redemption.steps import burn_request, redeem
from agentgate.service.clients import Caller
from agentgate.service.exchange import proof_of
from agentgate.service.messages import (
    RETRY,
    answered,
    answered_done,
    checked_members,
    malformed,
    one_header,
    optional_text,
    read_json,
    text,
    unavailable,
)
from agentgate.service.state import Service
from agentgate.service.tokens import check_sender
from agentgate.shell.drive import apart
from agentgate.stores import ops
from agentgate.token.claims import Claims, check_token
from agentgate.token.dpop import DPoP
from agentgate.values.canonical import parse
from agentgate.values.refusal import Failure, Reason, RunRefused

# claims that a redeemed call is answered with as they are
_SAID = "txn tenant sub client_id scope run tool_call_id intent tool".split()
_OUTCOMES = "done failed not_run unknown".split()
_ATTEMPT = re.compile(r"[A-Za-z0-9_-]{16,64}").fullmatch
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch
_MAX_BROKERS = 100
_NAME = 200
_READING = 60.0  # seconds in which a result is read: it waits for shorter texts


async def redeem_call(request: Request, service: Service) -> Response:
    """``POST /v1/redeem``: verify, bind to the call, burn."""
    caller = await service.caller(request, "tool_server")
    body = await read_json(
        request,
        service.settings.max_body,
        "token tool arguments",
        "proof certificate attempt brokers",
    )
    token = text(body["token"], "token")
    tool = text(body["tool"], "tool")
    if type(body["arguments"]) is not dict:
        raise malformed("arguments", type(body["arguments"]).__name__, "an object")
    proof = _proof(body)
    certificate = _certificate(body)
    trust = service.trust(caller, _resource(caller, token))
    attempt = _attempt(body)
    brokers = _brokers(body)
    try:
        known = trust.tracing is None or any(
            tool in workflow.tools for workflow in service.gate.catalog
        )
        steps = redeem(
            trust,
            token,
            tool,
            body["arguments"],
            proof,
            known=known,
            certificate=certificate,
            attempt=attempt,
            brokers=brokers,
        )
        done: Redemption = await service.gate.drive(steps)
    except TokenRefused as error:
        request.state.run = error.run
        raise _as_answer(error) from None
    request.state.run = done.claims.run
    try:
        await service.gate.drive(keep_for_report(done), new=False)
    # it is burned, and nobody could say what became of it: the tool must not run
    except StoreUnavailable as error:
        await service.gate.drive(not_run(done.claims), new=False)
        raise unavailable(
            Failure(
                Reason.STORE, "store", str(error)[:200], "a store that keeps what reports need"
            )
        ) from None
    return answered(_redeemed_call(done))


def _proof(body: dict[str, Any]) -> DPoP | None:
    """The proof of a key that came with the call; None: none did."""
    if "proof" not in body:
        return None
    shown = checked_members(body["proof"], "proof", "dpop method url")
    return DPoP(*(text(shown[name], f"proof.{name}") for name in ("dpop", "method", "url")))


def _certificate(body: dict[str, Any]) -> str | None:
    """The thumbprint of the certificate that came with the call; None: none did."""
    certificate = optional_text(body, "certificate")
    if certificate is not None and not _THUMBPRINT(certificate):
        raise malformed(
            "certificate",
            "another form",
            "the SHA-256 thumbprint of the client's certificate, base64url",
        )
    return certificate


def _redeemed_call(done: Redemption) -> dict[str, Any]:
    """What the token says, for the tool that runs now."""
    claims = done.claims
    said = {name: getattr(claims, name) for name in _SAID}
    said |= {
        "arguments": parse(done.data),
        "act": claims.act,
        "identity": claims.identity,
        "read": done.head.get("read") is True,
        "facts": done.head["facts"],
    }
    # of an upstream credential only what it is: the tool server has the brokers, and this gate
    # sees none
    said |= {name: done.head[name] for name in ("key", "upstream") if name in done.head}
    said["workflow"] = claims.workflow._asdict()
    for name in ("auth_time", "acr", "amr"):
        value = getattr(claims, name)
        if value not in {None, ()}:
            said[name] = value
    return said


def _resource(caller: Caller, token: str) -> str:
    """Which of the server's resources the token says it is for; what is verified then is
    that.
    """
    try:
        unverified = read(Credential(token), "token").unverified_claims.get("aud")
    except CredentialRefused:
        unverified = None
    return (
        unverified if unverified in caller.settings.resources else caller.settings.resources[0]
    )


def _attempt(body: Mapping[str, Any]) -> str:
    """The name of this redemption, which its server made up; empty: it made up none."""
    attempt = body.get("attempt", "")
    if "attempt" in body and (type(attempt) is not str or not _ATTEMPT(attempt)):
        raise malformed(
            "attempt",
            type(attempt).__name__,
            "16 to 64 of A-Z a-z 0-9 _ -, new for each redemption",
        )
    return str(attempt)


def _brokers(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The upstream brokers that the tool server has; None: it does not say."""
    if "brokers" not in body:
        return None
    named = body["brokers"]
    if (
        type(named) is not list
        or len(named) > _MAX_BROKERS
        or not all(type(each) is str and len(each) <= _NAME for each in named)
    ):
        raise malformed(
            "brokers", type(named).__name__, f"a list of names, at most {_MAX_BROKERS}"
        )
    return tuple(named)


def _as_answer(error: TokenRefused) -> RequestRefused:
    failure = error.failure(reason=Reason.INPUT)
    headers = {"Retry-After": RETRY} if error.code.http_status == 503 else {}
    return RequestRefused(
        error.code.http_status, str(error.code), error.code.error, failure, headers=headers
    )


async def result(request: Request, service: Service) -> Response:
    """``POST /v1/calls/{txn}/result``: the declared facts of the tool's real result, or that
    result, out of which they are read here.
    """
    caller = await service.caller(request, "tool_server")
    body = await read_json(
        request,
        service.settings.max_body,
        "",
        "result facts tenant",
    )
    if ("result" in body) == ("facts" in body):
        raise malformed("result", "both, or none", "a result, or the facts of one")
    call = await _redeemed(request, service, caller, optional_text(body, "tenant"))
    name = "result" if "result" in body else "facts"
    try:
        read = partial(recorded if name == "result" else checked_facts, call.facts, body[name])
        facts = await service.gate.drive(apart(MAX_LOOKED, read, _READING), new=False)
    except CanonicalError as error:
        raise malformed(name, error.got, error.expected) from None
    return _told(await service.gate.drive(report_result(call, facts), new=False))


async def outcome(request: Request, service: Service) -> Response:
    """``POST /v1/calls/{txn}/outcome``: how the call ended. `failed` and `not_run` say that
    nothing happened.
    """
    caller = await service.caller(request, "tool_server")
    body = await read_json(
        request,
        service.settings.max_body,
        "outcome",
        "tenant attempt",
    )
    if body["outcome"] not in _OUTCOMES:
        raise malformed("outcome", "another", " or ".join(_OUTCOMES))
    call = await _redeemed(request, service, caller, optional_text(body, "tenant"))
    return _told(
        await service.gate.drive(
            report_outcome(call, body["outcome"], _attempt(body)), new=False
        )
    )


async def _redeemed(
    request: Request, service: Service, caller: Caller, named: object
) -> Reportable:
    txn = request.path_params["txn"]
    call: Reportable | None = await service.gate.drive(
        reportable(caller.tenant(named), txn), new=False
    )
    request.state.run = "" if call is None else call.run
    if call is None or call.aud not in caller.settings.resources:
        got = "none" if call is None else f"one of {call.aud}"
        raise RequestRefused(
            404,
            "not_found",
            "",
            Failure(Reason.INPUT, "txn", got, f"a call that {caller.id} redeemed"),
        )
    return call


def _told(answer: str) -> Response:
    if answer != "ok":
        raise RequestRefused(409, answer)
    return answered_done()


_NOT_ACTIVE = {"active": False}


async def introspect(request: Request, service: Service) -> Response:
    """``POST /oauth2/introspect``. A token for somebody else, spent or revoked is not active;
    why is nobody's business.
    """
    form, caller = await service.form(request)
    if caller.settings.role != "tool_server":
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
    named = "iss sub aud client_id iat exp jti txn scope tenant".split()
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


async def revoke_token(request: Request, service: Service) -> Response:
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
        else proof_of(proof, "POST", service.url("/oauth2/revoke"), service.core.keys)
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
