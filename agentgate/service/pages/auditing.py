"""The audit log for people: recent decisions, one call's story, and the workflow version that
decided.

Rules: a page only reads, and shows what `GET /v1/audit` would: to an auditor of the settings,
who is known by the client certificate that a proxy passed on (and needs no script), or by the
passkey of somebody in the auditor's group.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.audit.questions import event
from agentgate.errors import RequestRefused
from agentgate.loading.definition import read_file
from agentgate.review.report.past import decision_of, version_of
from agentgate.service.auditing import ask_log, read_query
from agentgate.service.connection import thumbprint_of
from agentgate.service.pages.rendering import page
from agentgate.service.pages.session import reader_of, sent
from agentgate.service.state import Service


async def show(request: Request, service: Service) -> Response:
    """``GET /audit``: decisions, the newest first, as a filter wants them; ``/audit/{call}``:
    its story; ``/audit/{call}/workflow``.
    """
    reader = await _reader(request, service)
    if isinstance(reader, Response):
        return reader
    told, asked = await ask_log(service, request, reader["people"]), read_query(request)
    # of another type or version a record may lack a field
    records = [defaultdict(str, each) for each in told["records"]]
    common = {"root": "/audit", "reader": reader, "findings": told["findings"]}
    if "call" not in request.path_params:
        return page("audit.html", **common, asked=asked, records=records, next=told["next"])
    decided = decision_of(records)
    if not request.url.path.endswith("/workflow"):
        story = [(event(record)[20:], record) for record in records]
        return page("audit_call.html", **common, decided=decided, story=story)
    workflow = await asyncio.to_thread(version_of, decided, service.settings.workflows)
    if workflow is None:
        raise RequestRefused(404, "not_found")
    text = read_file(Path(workflow.file))
    signed = json.loads(text) if workflow.file.endswith(".json") else None
    return page(
        "audit_workflow.html",
        **common,
        decided=decided,
        workflow=workflow,
        signed=signed,
        lines=text.splitlines(),
    )


async def _reader(request: Request, service: Service) -> dict[str, Any] | Response:
    """Who reads: their name, the tenants that they may read, the passkey if they came by one.
    Or the page on which they sign in.
    """
    auditors = {
        name: each for name, each in service.settings.clients.items() if each.role == "auditor"
    }
    if not auditors:
        raise RequestRefused(404, "not_found")
    thumbprint = thumbprint_of(request, service.settings)
    for name, each in auditors.items():
        if thumbprint in each.certificates:
            service.take(request, name)
            return {"name": name, "people": each.tenants, "credential": ""}
    passkeys = service.gate.core.answerers.passkeys
    name = ""
    if (
        passkeys is not None
        and (person := await reader_of(service, sent(request, service))) is not None
    ):
        name = person.name
        groups = {tenant: user.groups for tenant, user in person.people.items()}
        people = [
            t
            for t, own in groups.items()
            if any(each.group in own and t in each.tenants for each in auditors.values())
        ]
        if people:
            return {"name": name, "people": people, "credential": person.credential}
    return page(
        "sign_in.html",
        root="/audit",
        origins=passkeys.origins if passkeys else (),
        reader_name=name,
    )
