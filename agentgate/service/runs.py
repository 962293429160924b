"""The host's side: open a run for a user's prompt and an agent, add the user's next turns,
close it.

Rules: the user comes with a token of their own, the agent with its credential and a proof of
its key that it made for this; the host's word counts for the prompt and for nothing else. A
host acts only in runs that it opened itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import ConfigError, RequestRefused
from agentgate.gate.proving import OverHTTP
from agentgate.gate.run import AsyncRun
from agentgate.identity.credential import AgentCredential, OIDCToken
from agentgate.service.clients import Caller
from agentgate.service.exchange import agent_credential
from agentgate.service.messages import (
    answered,
    answered_done,
    checked_members,
    malformed,
    optional_text,
    read_json,
    text,
)
from agentgate.service.state import Service
from agentgate.token.dpop import DPoP
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Own, Pasted, Spoken

_AGENT = "client_id token"
_OF_AGENT = "proof attestation delegation"
_RUN = "workflow prompt agent"
_OF_RUN = "agent_said tenant subject_token ttl conversation"
PATH = "/v1/runs"


def spoken(value: object, field: str) -> Spoken:
    """A turn: a text, or a list of ``{"own": text}`` and ``{"pasted": text}``."""
    if type(value) is str:
        return value
    parts: list[Own | Pasted] = []
    for part in value if type(value) is list else ():
        match part:
            case {"own": str(said), **more} if not more:
                parts.append(Own(said))
            case {"pasted": str(said), **more} if not more:
                parts.append(Pasted(said))
            case _:
                raise malformed(
                    field, "another part", 'parts {"own": text} and {"pasted": text}'
                )
    if not parts:
        raise malformed(field, type(value).__name__, "a text, or a list of parts, not empty")
    return parts


async def open_run(request: Request, service: Service) -> Response:
    """``POST /v1/runs``. With the host's id of a conversation: the run that goes on, or the one
    that follows.
    """
    caller = await service.caller(request, "host")
    body = await read_json(request, service.settings.max_body, _RUN, _OF_RUN)
    tenant = caller.tenant(optional_text(body, "tenant"))
    workflow = text(body["workflow"], "workflow")
    prompt = spoken(body["prompt"], "prompt")
    agent_said = optional_text(body, "agent_said") or ""
    given = checked_members(body["agent"], "agent", _AGENT, _OF_AGENT)
    client = text(given["client_id"], "agent.client_id")
    known = service.settings.clients.get(client)
    if known is None or known.role != "agent" or tenant not in known.tenants:
        failure = Failure(
            Reason.AGENT,
            "agent.client_id",
            client[:80],
            f"a client with the role agent, for {tenant}",
        )
        raise RequestRefused(400, "invalid_request", "credential", failure)
    agent = _agent(given, service.url(PATH))
    if (
        service.core.workflow(workflow).token.agent_key
        and "proof" not in given
        and not known.certificates
    ):
        # It proves its key with each exchange. Said before a run is opened: a conversation that
        # was closed opens no other.
        failure = Failure(
            Reason.AGENT,
            "agent.proof",
            "none",
            "a proof of the agent's key: the workflow binds tokens to it",
        )
        raise RequestRefused(400, "invalid_dpop_proof", "proof", failure)
    ttl = body.get("ttl", 3600)
    if type(ttl) is not int:
        raise malformed("ttl", type(ttl).__name__, "seconds, as a whole number")
    user = None
    if "subject_token" in body:
        user = OIDCToken(text(body["subject_token"], "subject_token"))
    conversation = optional_text(body, "conversation")
    over = OverHTTP(host=caller.id, client=client, address=request.state.peer)
    try:
        run = await service.gate.hosted_run(
            workflow,
            tenant=tenant,
            user=user,
            agent=agent,
            prompt=prompt,
            agent_said=agent_said,
            conversation=conversation,
            ttl=ttl,
            over=over,
        )
    except ConfigError as error:
        raise malformed(error.setting, "another form", error.expected) from None
    request.state.run = run.id
    answer = answered(_told(run), 201)
    answer.headers["Location"] = service.url(f"{PATH}/{run.id}")
    return answer


def _agent(given: Mapping[str, Any], url: str) -> AgentCredential:
    """The agent's credential, with the proof that it made for this request."""
    proof = None
    if "proof" in given:
        proof = DPoP(text(given["proof"], "agent.proof"), method="POST", url=url)
    delegation = given.get("delegation", [])
    if type(delegation) is not list:
        raise malformed("agent.delegation", type(delegation).__name__, "a list of JWTs")
    hops = tuple(text(each, "agent.delegation") for each in delegation)
    attestation = (
        text(given["attestation"], "agent.attestation") if "attestation" in given else None
    )
    return agent_credential(
        text(given["token"], "agent.token"),
        proof=proof,
        attestation=attestation,
        delegation=hops,
    )


def _told(run: AsyncRun) -> dict[str, Any]:
    header = run.header
    workflow = {"id": header.workflow, "version": header.version, "digest": header.digest}
    intents = {name: derived.presence for name, derived in run.intents.items()}
    return {
        "run": run.id,
        "tenant": header.tenant,
        "workflow": workflow,
        "expires_at": header.ends,
        "intents": intents,
    }


async def own_run(
    service: Service, caller: Caller, run_id: str, named: object, request: Request
) -> AsyncRun:
    """A run, if this host opened it."""
    missing = RequestRefused(
        404,
        "not_found",
        "",
        Failure(Reason.RUN_MISSING, "run", "none of this host", "one that it opened"),
    )
    try:
        run = await service.gate.resume_run(caller.tenant(named), run_id)
    except RunRefused as error:
        if {failure.reason for failure in error.failures} != {Reason.RUN_MISSING}:
            raise
        raise missing from None
    request.state.run = run.id
    if run.header.host != caller.id:
        raise missing
    return run


async def add_turn(request: Request, service: Service) -> Response:
    """``POST /v1/runs/{run}/turns``: what the user says next. What takes back voids what was
    minted and held.
    """
    caller = await service.caller(request, "host")
    body = await read_json(
        request,
        service.settings.max_body,
        "turn",
        "tenant agent_said",
    )
    turn = spoken(body["turn"], "turn")
    run = await own_run(
        service, caller, request.path_params["run"], optional_text(body, "tenant"), request
    )
    await run.add_turn(turn, agent_said=optional_text(body, "agent_said") or "")
    return answered(_told(run))


def _only_tenant(request: Request) -> str | None:
    """The tenant that a DELETE names, which may say nothing else, nor have a body."""
    said = request.query_params.multi_items()
    if [name for name, _ in said] not in ([], ["tenant"]):
        raise malformed("query", "another parameter, or one twice", "tenant, or nothing")
    if (
        request.headers.get("content-length", "0") != "0"
        or "transfer-encoding" in request.headers
    ):
        raise malformed("body", "one", "none")
    return said[0][1] if said else None


async def close_run(request: Request, service: Service) -> Response:
    """``POST /v1/runs/{run}/close``, or ``DELETE /v1/runs/{run}`` (with ``?tenant=`` where the
    host has several).
    """
    caller = await service.caller(request, "host")
    if request.method == "DELETE":
        named: object = _only_tenant(request)
    else:
        named = optional_text(
            await read_json(request, service.settings.max_body, "", "tenant"),
            "tenant",
        )
    run = await own_run(service, caller, request.path_params["run"], named, request)
    await run.close()
    return answered_done()
