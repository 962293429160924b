"""The audit log, read only, for auditors' programs and for people: its newest records, one
call's story, of their tenants, and the workflow version that decided.

Rules: each question is answered by a process of its own, one at a time, which verifies what it
reads (`agentgate.audit.questions`); whoever asks has no turn meanwhile. A record of no tenant
is the operator's alone. What another tenant has is answered like what is not there. A page
shows what `GET /v1/audit` would: to an auditor of the settings, who is known by the client
certificate that a proxy passed on (and needs no script), or by the passkey of somebody in the
auditor's group.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from agentgate.audit.questions import FIELDS, event, read_moment
from agentgate.errors import ConfigError, RequestRefused
from agentgate.loading.definition import read_file
from agentgate.review.report.past import decision_of, version_of
from agentgate.service.clients import thumbprint_of
from agentgate.service.line import aside
from agentgate.service.messages import answered, malformed, unavailable
from agentgate.service.pages.rendering import page
from agentgate.service.pages.session import reader_of, sent
from agentgate.service.state import Service
from agentgate.values.refusal import Failure, Reason

OPTIONS = (*FIELDS, "tenant", "run", "since", "until", "after")


async def read_records(request: Request, service: Service) -> Response:
    """``GET /v1/audit``: a page of records, the newest first; ``GET /v1/audit/{call}``: all of
    one call, the oldest first.
    """
    caller = await service.caller(request, "auditor")
    return answered(await ask_log(service, request, caller.settings.tenants))


async def ask_log(service: Service, request: Request, tenants: Sequence[str]) -> dict[str, Any]:
    """What the log answers to a request of somebody who may read these tenants.

    Raises:
        RequestRefused: 400; 404: no such call, or several; 503: it cannot be read, or not in
            time (what was verified until then is kept).
    """
    asked = read_query(request)
    call = request.path_params.get("call", "")
    try:
        times = {
            "since": read_moment(asked["since"], 0.0),
            "until": read_moment(asked["until"], 1e11),
        }
    except ConfigError as error:
        raise malformed("since, until", "another form", error.expected) from None
    where = {"audit": str(service.settings.audit), "keys": str(service.settings.keys)}
    tenants = [each for each in tenants if asked["tenant"] in {"", each}]
    question = orjson.dumps({**asked, **times, **where, "call": call, "tenants": tenants})
    async with aside():
        try:
            async with asyncio.timeout(60), service.reading_log:
                told: dict[str, Any] = orjson.loads(await _run(question))
        except TimeoutError:
            raise _unreadable("no answer in time") from None
    if call and not told["records"]:
        raise RequestRefused(404, "not_found")
    return told


def read_query(request: Request) -> dict[str, str]:
    """The parameters of a query, each of them at most once; empty where it was left out. Raises
    RequestRefused.
    """
    pairs = request.query_params.multi_items()
    asked = dict.fromkeys(OPTIONS, "") | {"type": "decision"} | dict(pairs)
    if len(asked) > len(OPTIONS) or len(dict(pairs)) < len(pairs):
        raise malformed("query", "something else", f"of {', '.join(OPTIONS)}, each once")
    return asked


async def _run(question: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "agentgate.audit.questions",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, err = await process.communicate(question)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise _unreadable(err.decode(errors="replace")[-300:])
    return out


def _unreadable(why: str) -> RequestRefused:
    return unavailable(Failure(Reason.AUDIT, "audit", why, "a log that can be read"))


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
    passkeys = service.core.answerers.passkeys
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
