"""What a tool server answers to a request that it does not execute: RFC 6750 section 3, RFC
9449 section 7.1, RFC 9728 section 5.1.

Rules: the answer has WIRE's closed code and nothing that is inside; field, got and expected are
for the log.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from agentgate.errors import Failure, RequestRefused, TokenRefused
from agentgate.values.refusal import sign_in_wanted

ALGS = "ES256 EdDSA"
RETRY_AFTER = 1  # seconds


def refuse_request(
    status: int,
    error: str,
    field: str,
    got: str,
    expected: str,
    *,
    headers: dict[str, str] | None = None,
) -> RequestRefused:
    """A request that was not executed; field, got and expected never hold a token, a proof or
    an argument's value out of a body.
    """
    return RequestRefused(status, error, "", Failure("", field, got, expected), headers=headers)


def problem_of(refused: RequestRefused) -> bytes:
    """The body: RFC 9457 problem+json."""
    named = {"error": refused.error} if refused.error else {}
    return json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(refused.status).phrase,
            "status": refused.status,
            **named,
        }
    ).encode()


def challenged(
    refused: RequestRefused, *, scheme: str, scope: str, metadata: str
) -> RequestRefused:
    """The refusal with its challenge: of the scheme that was used, or of both where there was
    no credential.
    """
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        refused.headers["Retry-After"] = str(RETRY_AFTER)
    elif refused.status in {400, 401, 403} and "WWW-Authenticate" not in refused.headers:
        error = f'error="{refused.error}", ' if refused.error else ""
        scoped = (
            f'scope="{scope}", '
            if scope and refused.error in {"", "insufficient_scope"}
            else ""
        )
        schemes = [scheme] if scheme else ["DPoP", "Bearer"]
        asked = "".join(
            f"{name}={json.dumps(value)}, "
            for name, value in sign_in_wanted(refused.failures).items()
        )
        rest = f'{error}{asked}{scoped}resource_metadata="{metadata}"'
        refused.headers["WWW-Authenticate"] = ", ".join(
            f'DPoP algs="{ALGS}", {rest}' if s == "DPoP" else f"Bearer {rest}" for s in schemes
        )
    return refused


def of_token(refused: TokenRefused) -> RequestRefused:
    """A token's refusal as an answer."""
    answer = RequestRefused(refused.code.http_status, refused.code.error, "", *refused.failures)
    answer.run = refused.run
    return answer
