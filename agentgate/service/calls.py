"""The tool server's side: redeem a token for the call that was really received, then tell its
result and how it ended.

Rules: only a client with the role tool_server, only for tokens to its own resources. The answer
holds the arguments that were decided on: run the tool from these. A report is taken for a
redeemed call, once. Who lost the answer cannot tell whether it burned the token: it names its
`attempt`, and is believed only if that one did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import (
    CanonicalError,
    CredentialRefused,
    RequestRefused,
    StoreUnavailable,
    TokenRefused,
)
from agentgate.identity.credential import Credential
from agentgate.identity.signed import read
from agentgate.redemption.facts import MAX_LOOKED, recorded
from agentgate.redemption.outcome import not_run
from agentgate.redemption.records import Reportable
from agentgate.redemption.reporting import (
    checked_facts,
    keep_for_report,
    report_outcome,
    report_result,
    reportable,
)
from agentgate.redemption.steps import redeem
from agentgate.redemption.upstream import Redemption
from agentgate.service.answer import RETRY, answered, answered_done, malformed, unavailable
from agentgate.service.clients import Caller
from agentgate.service.reading import checked_members, optional_text, read_json, text
from agentgate.service.state import Service
from agentgate.shell.readers import apart
from agentgate.token.dpop import DPoP
from agentgate.values.canonical import parse
from agentgate.values.refusal import Failure, Reason

# claims that a redeemed call is answered with as they are
_SAID = "txn tenant sub client_id scope run tool_call_id intent tool".split()
_OUTCOMES = ("done", "failed", "not_run", "unknown")
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
        frozenset({"token", "tool", "arguments"}),
        frozenset({"proof", "certificate", "attempt", "brokers"}),
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
    names = ("dpop", "method", "url")
    shown = checked_members(body["proof"], "proof", frozenset(names), frozenset())
    return DPoP(*(text(shown[name], f"proof.{name}") for name in names))


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
        frozenset(),
        frozenset({"result", "facts", "tenant"}),
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
        frozenset({"outcome"}),
        frozenset({"tenant", "attempt"}),
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
