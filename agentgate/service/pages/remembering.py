"""What is remembered of a person: a page of it with a button that forgets, and the same for a
program with their own token.

Rules: a form needs no script; it comes from that page (`check_page`), whose address a browser
tells it alone.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import RequestRefused
from agentgate.service.answer import answered, malformed
from agentgate.service.pages.judging import prove_bearer
from agentgate.service.pages.rendering import HEADERS, page
from agentgate.service.pages.session import Reader, for_reader, passkeys_of, reader_of, sent
from agentgate.service.pages.signing_in import MAX_BODY, check_page
from agentgate.service.reading import read_form
from agentgate.service.state import Service


@for_reader
async def show_remembered(_: Request, service: Service, reader: Reader) -> Response:
    """``GET /holds/remembered``: what is remembered of whoever is signed in."""
    found = [
        (tenant, each)
        for tenant, who in reader.people.items()
        for each in await service.gate.remembered(tenant, for_=who)
    ]
    answer = page(
        "remembered.html",
        reader=reader,
        origins=passkeys_of(service).origins,
        zone=reader.zone,
        found=found,
    )
    answer.headers["Referrer-Policy"] = "same-origin"  # else the form would not tell its origin
    return answer


async def forget_remembered(request: Request, service: Service) -> Response:
    """``POST /holds/remembered``: what is forgotten, by its `id`; then the page again."""
    check_page(request, service)
    session, form = sent(request, service), await read_form(request, MAX_BODY)
    reader = await reader_of(service, session)
    for tenant, who in reader.people.items() if reader is not None else ():
        await service.gate.forget(tenant, (form.get("id", ""),), by=who)
    return Response(status_code=303, headers={**HEADERS, "Location": "/holds/remembered"})


async def list_own(request: Request, service: Service) -> Response:
    """``GET /v1/remembered?for=me``: what is remembered of the person whose token comes
    along.
    """
    if request.url.query != "for=me":
        raise malformed("query", "another one", "for=me")
    who = await prove_bearer(request, service)
    return answered(
        {
            "remembered": [
                each.told for each in await service.gate.remembered(who.tenant, for_=who)
            ]
        }
    )


async def forget_own(request: Request, service: Service) -> Response:
    """``DELETE /v1/remembered/{id}``: it is forgotten, by that person's token."""
    who = await prove_bearer(request, service)
    if not await service.gate.forget(who.tenant, (request.path_params["id"],), by=who):
        raise RequestRefused(404, "not_found")
    return Response(status_code=204, headers={"Cache-Control": "no-store"})
