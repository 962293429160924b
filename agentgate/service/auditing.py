"""The audit log for auditors, read only: its newest records, and one call's story, of their
tenants.

Rules: each question is answered by a process of its own, one at a time, which verifies what it
reads (`agentgate.audit.questions`); whoever asks has no turn meanwhile. A record of no tenant
is the operator's alone. What another tenant has is answered like what is not there.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from agentgate.audit.questions import FIELDS, read_moment
from agentgate.errors import ConfigError, RequestRefused
from agentgate.service.answer import answered, malformed, unavailable
from agentgate.service.line import aside
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
