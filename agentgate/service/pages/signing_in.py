"""Signing in with a passkey, and making one: nothing here answers a hold, and nothing is
registered.

Rules: what a page posts comes from that page: `Origin` is one of the passkeys' (RFC 6454),
`Sec-Fetch-Site`, where a browser sends it, ``same-origin``.
"""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import CredentialRefused, KeysUnavailable, RequestRefused
from agentgate.identity.assertion import Assertion
from agentgate.service.answer import answered, answered_done, malformed
from agentgate.service.pages import session
from agentgate.service.pages.rendering import page
from agentgate.service.reading import one_header, read_json, text
from agentgate.service.state import Service
from agentgate.values.refusal import Reason
from agentgate.values.visible import visible

MAX_BODY = 32 * 1024  # bytes: a credential, or an assertion, and a few ids
_NAME = 80  # characters


async def posted(
    request: Request, service: Service, *required: str, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The body of what one of our pages sent. Raises RequestRefused as `check_page` and
    `read_json`.
    """
    check_page(request, service)
    return await read_json(
        request,
        min(MAX_BODY, service.settings.max_body),
        frozenset(required),
        frozenset(optional),
    )


def check_page(request: Request, service: Service) -> None:
    """Refuse what another page sent. Raises RequestRefused: 400."""
    origin = one_header(request, "origin")
    site = one_header(request, "sec-fetch-site")
    if origin not in session.passkeys_of(service).origins or site not in {None, "same-origin"}:
        field, got = (
            ("origin", str(origin))
            if site in {None, "same-origin"}
            else ("sec-fetch-site", str(site))
        )
        raise malformed(field, visible(got, 80), "a page of this gate")


async def challenge(request: Request, service: Service) -> Response:
    """``POST /holds/challenge``: what a passkey signs to sign in, or to be made."""
    await posted(request, service)
    return answered(
        {
            "challenge": session.challenge(service.gate.core.keys),
            "rp_id": session.passkeys_of(service).rp_id,
        }
    )


async def sign_in(request: Request, service: Service) -> Response:
    """``POST /holds/session``: an assertion over a challenge becomes a cookie."""
    body = await posted(request, service, "challenge", "assertion")
    given = text(body["challenge"], "challenge")
    session.check_challenge(service.gate.core.keys, given)
    try:
        assertion = Assertion.parse(body["assertion"])
        people = await session.people_of(service, assertion.id, int(time.time()))
        session.passkeys_of(service).person(assertion, given.encode(), min(people, default=""))
    except KeysUnavailable:
        raise
    except CredentialRefused as error:
        raise _unknown(error) from None
    await session.spend(service, given)
    response = answered_done()
    session.opened(response, service.gate.core.keys, assertion.id)
    return response


def _unknown(error: CredentialRefused) -> RequestRefused:
    words = (
        "This passkey is not in the gate's file, or it did not verify you. Make one "
        "under /holds/passkey, or ask your operator."
    )
    failure = error.failure(reason=Reason.STEP_UP)
    return RequestRefused(401, "passkey", words, failure)


async def sign_out(request: Request, service: Service) -> Response:
    """``DELETE /holds/session``."""
    check_page(request, service)
    response = answered_done()
    session.ended(response)
    return response


async def making(_: Request, service: Service) -> Response:
    """``GET /holds/passkey``: the page on which a person makes one."""
    passkeys = session.passkeys_of(service)
    return page("passkey.html", rp_id=passkeys.rp_id, origins=passkeys.origins)


async def made(request: Request, service: Service) -> Response:
    """``POST /holds/passkey``: the lines for the passkey file. Nothing is stored but that the
    challenge was used.
    """
    body = await posted(request, service, "challenge", "credential", "name")
    given = text(body["challenge"], "challenge")
    name = text(body["name"], "name")
    session.check_challenge(service.gate.core.keys, given)
    try:
        new = session.passkeys_of(service).registered(
            json.dumps(body["credential"]), given.encode()
        )
    except CredentialRefused as error:
        raise _unknown(error) from None
    if service.made.take(given):  # in this process: nobody is proven, so nothing is written
        raise session.stale("one that was used")
    row = {
        "id": new.id,
        "public_key": new.public_key,
        "user": visible(name, _NAME),
        "tenants": ["TENANT"],
        "groups": [],
    }
    return answered(
        {
            "lines": "\n".join(
                [
                    "[[passkeys]]",
                    *(
                        f"{key} = {json.dumps(value, ensure_ascii=False)}"
                        for key, value in row.items()
                    ),
                ]
            )
        }
    )
