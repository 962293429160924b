"""What a tool server answers to a request that it does not execute: RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1.

Rules: the answer has WIRE's closed code and nothing that is inside; field, got and expected are for the log.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from agentgate.errors import AgentGateError, Refusal, TokenRefused

ALGS = "ES256 EdDSA"
RETRY_AFTER = 1  # seconds


class RequestRefusal(AgentGateError):
    """A request that was not executed.

    Attributes:
        status: HTTP status code.
        error: closed code of the answer; empty where none may be given.
        field, got, expected: for the log; never a token, a proof or an argument's value out of a body.
        headers: of the answer, besides `Content-Type`.
        run: id of the token's run, for the log; empty: no good token came.
    """

    run = ""

    def __init__(self, status: int, error: str, field: str, got: str, expected: str, *, headers: dict[str, str] | None = None) -> None:
        self.status, self.error, self.field, self.got, self.expected = status, error, field, got, expected
        self.headers = headers or {}
        super().__init__(f"{status} {error}: {field}: got {got}, expected {expected}".replace(" :", ":"))

    @property
    def problem(self) -> bytes:
        """The body: RFC 9457 problem+json."""
        named = {"error": self.error} if self.error else {}
        return json.dumps({"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status, **named}).encode()

    def all_headers(self) -> dict[str, str]:
        """The headers of the answer."""
        return {"Content-Type": "application/problem+json", "Cache-Control": "no-store", **self.headers}


def challenged(refused: RequestRefusal, *, scheme: str, scope: str, metadata: str) -> RequestRefusal:
    """The refusal with its challenge: of the scheme that was used, or of both where there was no credential."""
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        refused.headers["Retry-After"] = str(RETRY_AFTER)
    elif refused.status in {400, 401, 403} and "WWW-Authenticate" not in refused.headers:
        error = f'error="{refused.error}", ' if refused.error else ""
        scoped = f'scope="{scope}", ' if scope and refused.error in {"", "insufficient_scope"} else ""
        schemes = [scheme] if scheme else ["DPoP", "Bearer"]
        asked = f"{refused.expected}, " if refused.error == "insufficient_user_authentication" else ""  # RFC 9470 section 3
        rest = f'{error}{asked}{scoped}resource_metadata="{metadata}"'
        refused.headers["WWW-Authenticate"] = ", ".join(f'DPoP algs="{ALGS}", {rest}' if s == "DPoP" else f"Bearer {rest}" for s in schemes)
    return refused


def of_token(refused: TokenRefused) -> RequestRefusal:
    """A token's refusal as an answer."""
    code: Refusal = refused.code
    answer = RequestRefusal(code.http_status, code.error, refused.field, refused.got, refused.expected)
    answer.run = refused.run
    return answer
