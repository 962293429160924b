"""``POST /access/v1/evaluation`` (AuthZEN 1.0): would this call be allowed? Mints, holds and counts nothing.

Rules: for the host that opened the run, and for nobody else: to whoever may ask as often as they like, an answer shows where the edge is.
What the store alone knows (limits, releases, revocations) is not asked, so `true` is no promise.
"""

from __future__ import annotations

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.decision.answer import Deny, Eligible
from agentgate.decision.case import Case
from agentgate.decision.checks import judge
from agentgate.gate import flow
from agentgate.gate.core import surroundings
from agentgate.service.answer import answered
from agentgate.service.clients import Caller
from agentgate.service.connection import connection_of
from agentgate.service.exchange import definition_of
from agentgate.service.reading import checked_members, one_header, read_json, text
from agentgate.service.runs import own_run
from agentgate.service.state import Service

_NAMED = frozenset({"type", "id"})
_PROPERTIES = frozenset({"properties"})


async def evaluate(request: Request, service: Service) -> Response:
    """One evaluation."""
    caller = await service.clients.by_header(request, service.gate, "host")
    service.take(request, caller.id)
    top = frozenset({"subject", "action", "resource", "context"})
    body = await read_json(request, service.settings.max_body, top)
    answer = answered(await _evaluated(request, service, caller, body))
    if (named := one_header(request, "x-request-id")) is not None and named.isprintable() and named.isascii():
        answer.headers["X-Request-ID"] = named[:128]
    return answer


async def _evaluated(request: Request, service: Service, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    subject = checked_members(body["subject"], "subject", _NAMED, _PROPERTIES)
    action = checked_members(body["action"], "action", frozenset({"name"}), _PROPERTIES)
    resource = checked_members(body["resource"], "resource", _NAMED, _PROPERTIES)
    context = checked_members(body["context"], "context", frozenset({"run"}), frozenset({"tenant", "workflow", "requested_scope"}))
    properties = checked_members(resource.get("properties", {}), "resource.properties", frozenset(), frozenset({"server", "arguments"}))
    arguments = properties.get("arguments", {})
    run = await own_run(service, caller, text(context["run"], "context.run"), context.get("tenant"), request)
    header, tool_name = run.header, text(resource["id"], "resource.id")
    workflow = run.workflow
    tool = workflow.tools.get(tool_name)
    whose = header.agent.id if header.user is None else header.user.id
    asked = [
        subject["id"] == whose,
        action["name"] == "tools/call",
        resource["type"] == "tool",
        context.get("workflow", header.workflow) == header.workflow,
        tool is None or properties.get("server", tool.audience) == tool.audience,
        tool is None or set(str(context.get("requested_scope", " ".join(tool.scope))).split()) == set(tool.scope),
    ]
    call = flow.checked_call(tool_name, arguments, "evaluated", definition_of(service.settings, tool))
    verdict: Eligible | Deny = call if isinstance(call, Deny) else Deny(())
    if not isinstance(call, Deny) and all(asked):
        around = await service.gate.drive(surroundings(service.gate.core, workflow, header, call, connection_of(request, service.settings)))
        verdict = judge(Case(workflow, run.state, call, around))
    reason = "not_permitted"
    if isinstance(verdict, Eligible):
        reason = "needs_approval" if verdict.holds else "allowed"
    return {"decision": reason == "allowed", "context": {"evaluation_id": secrets.token_hex(16), "reason": reason}}
