"""``POST /access/v1/evaluation`` and ``/evaluations`` (AuthZEN 1.0): would this call be
allowed? Mints, holds and counts nothing.

Rules: for the host that opened the run, and for nobody else: to whoever may ask as often as
they like, an answer shows where the edge is. What the store alone knows (limits, releases,
revocations) is not asked, so `true` is no promise. Members that the standard does not know are
ignored, as it says; what names no call of a run of this host is `false`; another form is 400,
in a batch `false` with that error. A batch that takes too long is 503 as a whole: a part of it
would read like an answer.

Where a person must be asked, and the setting `access_request` is on, the `false` has
`context.access_request` (AuthZEN Access Request and Approval Profile, Draft 1 of June 2026,
section "Requestable Denial Context"): until when, and, under a name of ours as its section
"Naming Extensions" wants, the token request by which the agent asks (its OAuth profile of
November 2026, binding "Deferred Token Response"). The gate has no Access Request Endpoint of
the draft, and binds no request to the denial: the token request is decided on anew, by itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.answer import Deny, Eligible
from agentgate.errors import RequestRefused
from agentgate.gate import flow
from agentgate.gate.run import AsyncRun
from agentgate.service.clients import Caller, connection_of
from agentgate.service.exchange import GRANT, definition_of
from agentgate.service.messages import (
    answered,
    checked_members,
    malformed,
    read_json,
    text,
    unavailable,
)
from agentgate.service.runs import own_run
from agentgate.service.state import Service
from agentgate.values.refusal import Failure, Reason, RunRefused

TOKEN_REQUEST = "https://agentgate.dev/access-request/token-request/v1"  # noqa: S105 - the name of a member
MOST = 50  # evaluations of one request
# for all of them: each may wait for the store, and together they hold one place of the line
SECONDS = 2.0
_ENTITIES = {"subject": "type id", "action": "name", "resource": "type id"}
_TOLD = "run tenant workflow requested_scope".split()
# what ends a batch: nothing, a no, a yes
_SEMANTICS = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}


async def evaluate(request: Request, service: Service) -> Response:
    """One evaluation."""
    caller, body = await _read(request, service)
    return answered(await _evaluated(request, service, caller, _checked(body)))


async def evaluate_many(request: Request, service: Service) -> Response:
    """Several, each with what the request says for all of them where it says nothing itself;
    without any, as `evaluate`.
    """
    caller, body = await _read(request, service)
    items = body.get("evaluations", [])
    if (
        type(items) is not list
        or len(items) > MOST
        or not all(type(item) is dict for item in items)
    ):
        raise malformed(
            "evaluations", type(items).__name__, f"a list of at most {MOST} objects"
        )
    ends = _SEMANTICS.get(
        semantic := _member(body, "options", "evaluations_semantic", "execute_all"), "unknown"
    )
    if ends == "unknown":
        raise malformed("options.evaluations_semantic", semantic[:80], " or ".join(_SEMANTICS))
    if not items:
        return answered(await _evaluated(request, service, caller, _checked(body)))
    common = {name: body[name] for name in (*_ENTITIES, "context") if name in body}
    _checked(common, all_of_it=False)
    told: list[dict[str, Any]] = []
    end = time.monotonic() + SECONDS
    for number, item in enumerate(items):
        if number:
            if time.monotonic() >= end:
                late = Failure(
                    Reason.STORE,
                    "evaluations",
                    f"{number} in {SECONDS:g} s",
                    f"all {len(items)} in that time",
                )
                raise unavailable(late)
            service.take(request, caller.id)
        try:
            told.append(
                await _evaluated(request, service, caller, _checked({**common, **item}))
            )
        except RequestRefused as error:
            reason = {
                "reason": error.error,
                "error": {"status": error.status, "message": error.description},
            }
            told.append({"decision": False, "context": reason})
        if told[-1]["decision"] is ends:
            break
    return answered({"evaluations": told})


async def _read(request: Request, service: Service) -> tuple[Caller, dict[str, Any]]:
    caller = await service.caller(request, "host")
    try:
        return caller, await read_json(request, service.settings.max_body, "", None)
    except RequestRefused as error:
        if error.status == 415:
            # AuthZEN 1.0 section 10: a request that is not JSON is a bad one
            error.status = 400
        raise


def _checked(asked: Mapping[str, Any], *, all_of_it: bool = True) -> Mapping[str, Any]:
    """An evaluation of the form that it must have (`all_of_it` False: of those members that are
    there).
    """
    for entity, named in _ENTITIES.items():
        if all_of_it or entity in asked:
            if entity not in asked:
                raise malformed(entity, "none", "an object")
            found = checked_members(asked[entity], entity, named, None)
            for name in named.split():
                text(found[name], f"{entity}.{name}")
            properties = checked_members(
                found.get("properties", {}), f"{entity}.properties", "", None
            )
            if entity == "resource":
                checked_members(
                    properties.get("arguments", {}),
                    "resource.properties.arguments",
                    "",
                    None,
                )
    for name in _TOLD:
        _member(asked, "context", name, "")
    return asked


def _member(holder: Mapping[str, Any], field: str, name: str, default: str) -> str:
    """A text in an optional object, where it is there."""
    found = checked_members(holder.get(field, {}), field, "", None)
    return text(found[name], f"{field}.{name}") if name in found else default


async def _evaluated(
    request: Request, service: Service, caller: Caller, asked: Mapping[str, Any]
) -> dict[str, Any]:
    reason = "no_run"
    more = dict[str, Any]()
    if (run := await _run(request, service, caller, asked.get("context", {}))) is not None:
        verdict = await _judged(request, service, run, asked)
        reason = "not_permitted"
        if isinstance(verdict, Eligible):
            reason = "needs_approval" if verdict.holds else "allowed"
        if (
            reason == "needs_approval"
            and service.settings.access_request
            and run.workflow.tools[asked["resource"]["id"]].redeem == "server"
        ):
            more["access_request"] = _requestable(service, run)
    return {
        "decision": reason == "allowed",
        "context": {"evaluation_id": secrets.token_hex(16), "reason": reason, **more},
    }


def _requestable(service: Service, run: AsyncRun) -> dict[str, Any]:
    """How the agent of a run asks for a call that a person must release, and until when;
    nothing is begun by saying it.
    """
    ends = f"{datetime.fromtimestamp(run.header.ends, UTC):%Y-%m-%dT%H:%M:%SZ}"
    asked = {
        "token_endpoint": service.url("/oauth2/token"),
        "grant_type": GRANT,
        "completion_mode": "deferred",
        "run": run.id,
    }
    return {"expires_at": ends, TOKEN_REQUEST: asked}


async def _run(
    request: Request, service: Service, caller: Caller, context: Mapping[str, Any]
) -> AsyncRun | None:
    """The run that is named, if this host opened it and it goes on."""
    if "run" not in context:
        return None
    try:
        return await own_run(service, caller, context["run"], context.get("tenant"), request)
    except (RunRefused, RequestRefused):  # of nobody, of another host or tenant, or ended
        return None


async def _judged(
    request: Request, service: Service, run: AsyncRun, asked: Mapping[str, Any]
) -> Eligible | Deny:
    subject = asked["subject"]
    resource = asked["resource"]
    context = asked.get("context", {})
    properties = resource.get("properties", {})
    header = run.header
    workflow = run.workflow
    tool = workflow.tools.get(resource["id"])
    act = subject.get("properties", {}).get("act")
    said = [
        subject["id"] == (header.agent.id if header.user is None else header.user.id),
        act is None or (type(act) is dict and act.get("sub") == header.agent.id),
        asked["action"]["name"] == "tools/call",
        resource["type"] == "tool",
        context.get("workflow", header.workflow) == header.workflow,
        tool is None or properties.get("server", tool.audience) == tool.audience,
        tool is None
        or set(context.get("requested_scope", " ".join(tool.scope)).split()) == set(tool.scope),
    ]
    call = flow.checked_call(
        resource["id"],
        properties.get("arguments", {}),
        "evaluated",
        definition_of(service.settings, tool),
    )
    if isinstance(call, Deny) or not all(said):
        return Deny(())
    considered = flow.considered(
        service.core, run.state, call, connection_of(request, service.settings)
    )
    verdict: Eligible | Deny
    try:
        _, _, verdict = await service.gate.drive(considered)
    except RunRefused as error:  # it has ended, or its version decides nothing here
        return Deny(error.failures)
    return verdict
