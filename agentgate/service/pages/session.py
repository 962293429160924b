"""Who reads the pages: one assertion over a challenge of the gate opens a session, a sealed
cookie carries it.

Rules: a challenge counts once and for `CHALLENGE_SECONDS`, at whichever gate with these keys. A
session reads, ends what is remembered of its person, and never answers. It ends `SECONDS` after
it began, whatever is done in it; before, at the first request at which its passkey is in the
file no more, or its person is revoked. The cookie (RFC 6265bis) is `__Host-`: of this very
host, over TLS or from ``http://localhost``, which Chromium trusts alike.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import tzinfo
from functools import wraps
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import RequestRefused
from agentgate.service.pages.rendering import page
from agentgate.service.state import Service
from agentgate.stores import ops
from agentgate.token.keys import KeyRing
from agentgate.values.canonical import canonical
from agentgate.values.refusal import Failure, Reason
from agentgate.values.request import User
from agentgate.values.value_class import value_class

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


def challenge(keys: KeyRing) -> str:
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
        seal, _seal(service.gate.core.keys, "session", made)
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
    await service.gate.drive(service.gate.core.answerers.fresh())
    people = passkeys_of(service).people(credential)
    return {
        tenant: user
        for tenant, user in people.items()
        if not await service.gate.ask(ops.revoked(tenant, user.id, since * 1000))
    }


def passkeys_of(service: Service) -> Passkeys:
    """The passkeys of the gate. Raises RequestRefused: 404: it has none."""
    if (found := service.gate.core.answerers.passkeys) is None:
        raise RequestRefused(404, "not_found")
    return found


def _seal(keys: KeyRing, what: str, text: str) -> str:
    return keys.seal(_OWNER, canonical([what, text]))


def _young(at: int, seconds: int) -> bool:
    return -_EARLY <= time.time() - at < seconds
