"""What waits for a person, for a page or program of their own: only with their own token, and nothing is answered by it.

Rules: the token is one of their login, for this gate; who is in which tenant and groups is what it says. No run's or conversation's id, and
no client's assertion, shows anything of it.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from agentgate.errors import CredentialRefused, KeysUnavailable, RequestRefused
from agentgate.gate.holds.codec import told_of
from agentgate.gate.holds.inbox import WaitingPage, addressed, person_of
from agentgate.identity.credential import OIDCToken
from agentgate.service.answer import answered, malformed
from agentgate.service.reading import bearer
from agentgate.service.state import Service
from agentgate.values.refusal import Reason
from agentgate.values.request import User

_QUERY = re.compile(r"for=me(?:&after=(\d{1,15}\.[0-9a-f]{64}))?", re.ASCII)


async def waiting(request: Request, service: Service) -> Response:
    """``GET /v1/holds?for=me``: a page of what waits for the person whose token comes along."""
    asked = _QUERY.fullmatch(request.url.query)
    if asked is None:
        raise malformed("query", "another one", "for=me, and after= as next said")
    core = service.gate.core
    try:
        who: User = await service.gate.drive(person_of(core, "", OIDCToken(bearer(request))))
    except KeysUnavailable:
        raise
    except CredentialRefused as error:
        headers = {"WWW-Authenticate": "Bearer"}
        raise RequestRefused(401, "invalid_token", "", error.failure(reason=Reason.USER), headers=headers) from None
    service.take(request, f"user {who.subject} of {who.issuer}")
    page: WaitingPage = await service.gate.drive(addressed(core, who.tenant, who, asked[1] or ""))
    found = [told_of(each.hold) | {"risk": each.risk} for each in page.found]
    return answered({"holds": found, "next": page.next, "total": page.total})
