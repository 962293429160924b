"""Who reads the pages: one assertion over a challenge of the gate opens a session, a sealed
cookie carries it.

Rules: a challenge counts once and for `CHALLENGE_SECONDS`, at whichever gate with these keys. A
session reads, ends what is remembered of its person, and never answers. It ends `SECONDS` after
it began, whatever is done in it; before, at the first request at which its passkey is in the
file no more, or its person is revoked. The cookie (RFC 6265bis) is `__Host-`: of this very
host, over TLS or from ``http://localhost``, which Chromium trusts alike.

Signing in with a passkey, and making one, answers no hold and registers nothing. What a page
posts comes from that page: `Origin` is one of the passkeys' (RFC 6454), `Sec-Fetch-Site`, where
a browser sends it, ``same-origin``.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import tzinfo
from functools import wraps
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import CredentialRefused, KeysUnavailable, RequestRefused
from agentgate.identity.assertion import Assertion
from agentgate.service.messages import (
    answered,
    answered_done,
    malformed,
    one_header,
    read_json,
    text,
)
from agentgate.service.pages.rendering import page
from agentgate.service.state import Service
from agentgate.stores import ops
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import User
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

if TYPE_CHECKING:
    from agentgate.identity.passkeys import Passkeys

COOKIE = "__Host-agentgate-holds"
SECONDS = 900
CHALLENGE_SECONDS = 300
_EARLY = 5  # seconds that another gate's clock may be ahead
_OWNER = "holds-pages"  # no tenant: tenants' seals are over statements


@value_class
class Reader:
    """A person who signed in.

    Attributes:
        people: who they are in each tenant whose holds they may read.
        credential: the id of their passkey.
        zone: their time zone.
    """

    people: Mapping[str, User]
    credential: str
    zone: tzinfo

    @property
    def name(self) -> str:
        """Their user id."""
        return next(iter(self.people.values())).id


def make_challenge(keys: KeyRing) -> str:
    """What a passkey signs to sign in, or to be made: time, chance, seal; nothing is stored
    until it is used.
    """
    text = f"{int(time.time())}.{secrets.token_urlsafe(16)}"
    return f"{text}.{_seal(keys, 'challenge', text)}"


def check_challenge(keys: KeyRing, text: str) -> None:
    """Refuse a challenge that is not ours, or too old.

    Raises:
        RequestRefused: 400.
    """
    made, _, seal = text.rpartition(".")
    at = made.partition(".")[0]
    if (
        not text.isascii()
        or not hmac.compare_digest(seal, _seal(keys, "challenge", made))
        or not _young(int(at), CHALLENGE_SECONDS)
    ):
        raise stale("another one, or too old")


async def spend(service: Service, text: str) -> None:
    """Use a challenge up.

    Raises:
        RequestRefused: 400: it was used. StoreUnavailable.
    """
    op = ops.keep(
        _OWNER, "assertion", text, b"1", ttl_ms=(CHALLENGE_SECONDS + 2 * _EARLY) * 1000
    )
    if await service.gate.ask(op) != "ok":
        raise stale("one that was used")


def stale(got: str) -> RequestRefused:
    """A challenge that does not count."""
    failure = Failure(
        Reason.INPUT,
        "challenge",
        got,
        f"a challenge of this gate, unused, at most {CHALLENGE_SECONDS} s old",
    )
    return RequestRefused(
        400,
        "challenge",
        "The page was open too long, or was sent twice. Please try again.",
        failure,
    )


def opened(response: Response, keys: KeyRing, credential: str) -> None:
    """Begin a session with a passkey that just signed in."""
    made = f"{credential}.{int(time.time())}"
    value = f"{made}.{_seal(keys, 'session', made)}"
    response.set_cookie(
        COOKIE, value, max_age=SECONDS, path="/", secure=True, httponly=True, samesite="strict"
    )


def ended(response: Response) -> None:
    """Take the cookie back."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


def sent(request: Request, service: Service) -> tuple[str, int] | None:
    """The session that a request brings, as it was sealed: its passkey and when it began; None:
    it brings none.

    Raises:
        RequestRefused: 429.
    """
    value = request.cookies.get(COOKIE, "")
    made, _, seal = value.rpartition(".")
    credential, _, at = made.rpartition(".")
    ours = value.isascii() and hmac.compare_digest(
        seal, _seal(service.core.keys, "session", made)
    )
    found = (credential, int(at)) if ours and _young(int(at), SECONDS) else None
    if found is not None:
        service.take(request, f"passkey {credential[:16]}")
    return found


async def reader_of(service: Service, found: tuple[str, int] | None) -> Reader | None:
    """Who is signed in with what was `sent`, by the passkey file and the revocations of this
    moment; None: nobody is.

    Raises:
        StoreUnavailable.
    """
    if found is None:
        return None
    people = await people_of(service, *found)
    return Reader(people, found[0], passkeys_of(service).zone(found[0])) if people else None


def for_reader(
    shown: Callable[[Request, Service, Reader], Awaitable[Response]],
) -> Callable[[Request, Service], Awaitable[Response]]:
    """Decorates a page for whoever is signed in; others are shown the one on which they sign
    in.
    """

    @wraps(shown)
    async def show(request: Request, service: Service) -> Response:
        passkeys = passkeys_of(service)
        reader = await reader_of(service, sent(request, service))
        return (
            page("sign_in.html", origins=passkeys.origins)
            if reader is None
            else await shown(request, service, reader)
        )

    return show


async def people_of(service: Service, credential: str, since: int) -> dict[str, User]:
    """Who a passkey says somebody is, by its file of this moment: in each tenant in which they
    are not revoked for what began then.

    Args:
        service: of the gate.
        credential: the passkey's id, base64url.
        since: POSIX seconds.

    Raises:
        KeysUnavailable: the file cannot be read. StoreUnavailable.
    """
    await service.gate.drive(service.core.answerers.fresh())
    people = passkeys_of(service).people(credential)
    return {
        tenant: user
        for tenant, user in people.items()
        if not await service.gate.ask(ops.revoked(tenant, user.id, since * 1000))
    }


def passkeys_of(service: Service) -> Passkeys:
    """The passkeys of the gate. Raises RequestRefused: 404: it has none."""
    if (found := service.core.answerers.passkeys) is None:
        raise RequestRefused(404, "not_found")
    return found


def _seal(keys: KeyRing, what: str, text: str) -> str:
    return keys.seal(_OWNER, canonical([what, text]))


def _young(at: int, seconds: int) -> bool:
    return -_EARLY <= time.time() - at < seconds


MAX_BODY = 32 * 1024  # bytes: a credential, or an assertion, and a few ids
_NAME = 80  # characters


async def posted(
    request: Request, service: Service, required: str = "", optional: str = ""
) -> dict[str, Any]:
    """The body of what one of our pages sent. Raises RequestRefused as `check_page` and
    `read_json`.
    """
    check_page(request, service)
    most = min(MAX_BODY, service.settings.max_body)
    return await read_json(request, most, required, optional)


def check_page(request: Request, service: Service) -> None:
    """Refuse what another page sent. Raises RequestRefused: 400."""
    origin = one_header(request, "origin")
    site = one_header(request, "sec-fetch-site")
    if origin not in passkeys_of(service).origins or site not in {None, "same-origin"}:
        field, got = (
            ("origin", str(origin))
            if site in {None, "same-origin"}
            else ("sec-fetch-site", str(site))
        )
        raise malformed(field, visible(got, 80), "a page of this gate")


async def give_challenge(request: Request, service: Service) -> Response:
    """``POST /holds/challenge``: what a passkey signs to sign in, or to be made."""
    await posted(request, service)
    return answered(
        {
            "challenge": make_challenge(service.core.keys),
            "rp_id": passkeys_of(service).rp_id,
        }
    )


async def sign_in(request: Request, service: Service) -> Response:
    """``POST /holds/session``: an assertion over a challenge becomes a cookie."""
    body = await posted(request, service, "challenge assertion")
    given = text(body["challenge"], "challenge")
    check_challenge(service.core.keys, given)
    try:
        assertion = Assertion.parse(body["assertion"])
        people = await people_of(service, assertion.id, int(time.time()))
        passkeys_of(service).person(assertion, given.encode(), min(people, default=""))
    except KeysUnavailable:
        raise
    except CredentialRefused as error:
        raise _unknown(error) from None
    await spend(service, given)
    response = answered_done()
    opened(response, service.core.keys, assertion.id)
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
    ended(response)
    return response


async def making(_: Request, service: Service) -> Response:
    """``GET /holds/passkey``: the page on which a person makes one."""
    passkeys = passkeys_of(service)
    return page("passkey.html", rp_id=passkeys.rp_id, origins=passkeys.origins)


async def made(request: Request, service: Service) -> Response:
    """``POST /holds/passkey``: the lines for the passkey file. Nothing is stored but that the
    challenge was used.
    """
    body = await posted(request, service, "challenge credential name")
    given = text(body["challenge"], "challenge")
    name = text(body["name"], "name")
    check_challenge(service.core.keys, given)
    try:
        new = passkeys_of(service).registered(json.dumps(body["credential"]), given.encode())
    except CredentialRefused as error:
        raise _unknown(error) from None
    if service.made.take(given):  # in this process: nobody is proven, so nothing is written
        raise stale("one that was used")
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
