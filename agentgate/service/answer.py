"""What a caller is told: a closed code, never what is inside. Errors of OAuth's endpoints by
RFC 6749, of our own by RFC 9457.

Rules: WIRE's table of errors is `refused_by`; an operator reads the failures in the log.
Nothing is cached anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import JSONResponse, Response

from agentgate.decision.answer import Deny
from agentgate.errors import RequestRefused
from agentgate.values.refusal import Code, Failure, Reason, code_of, sign_in_wanted

RETRY = "2"  # seconds
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_WHO = frozenset(
    {
        Reason.AGENT,
        Reason.USER,
        Reason.AUTHENTICATION,
        Reason.HOPS,
        Reason.POSTURE,
        Reason.BOUNDARY,
    }
)
_SAID_NO = frozenset(
    {
        *(
            Reason.HOLD_REFUSED,
            Reason.HOLD_EXPIRED,
            Reason.STEP_UP,
            Reason.INTENT_UNCLEAR,
            Reason.REVOKED,
            Reason.LIMIT,
        ),
        *(Reason.TOO_MANY_DENIALS, Reason.TOO_MANY_HOLDS, Reason.TOO_MANY_RUNS),
        *(
            Reason.ALREADY_REDEEMED,
            Reason.FAILED,
            Reason.OUTCOME_UNKNOWN,
            Reason.RUN_CLOSED,
            Reason.RUN_EXPIRED,
        ),
    }
)


def malformed(
    field: str, got: str, expected: str, error: str = "invalid_request"
) -> RequestRefused:
    """A request that has not the form it must have; the caller learns which field."""
    return RequestRefused(
        400, error, f"{field}: expected {expected}", Failure(Reason.INPUT, field, got, expected)
    )


def unavailable(*failures: Failure) -> RequestRefused:
    """Store, audit log or keys do not answer: nothing is decided."""
    return RequestRefused(
        503, "temporarily_unavailable", "unavailable", *failures, headers={"Retry-After": RETRY}
    )


def refused_by(*failures: Failure) -> RequestRefused:
    """The answer to a call or run that was refused for these reasons."""
    reasons = {failure.reason for failure in failures}
    code = code_of(failures)
    if code is Code.UNAVAILABLE:
        return unavailable(*failures)
    if all(failure.data.get("proof") for failure in failures):
        return RequestRefused(400, "invalid_dpop_proof", "proof", *failures)
    if reasons == {Reason.AUTHENTICATION}:
        return RequestRefused(
            400,
            "insufficient_user_authentication",
            "credential",
            *failures,
            more=sign_in_wanted(failures),
        )
    if reasons & _WHO:
        return RequestRefused(400, "invalid_request", "credential", *failures)
    if reasons <= _SAID_NO:
        until = Deny(failures).until
        return RequestRefused(
            400, "access_denied", code, *failures, more={"until": until} if until else {}
        )
    return RequestRefused(400, "invalid_authorization_details", code, *failures)


def answered(body: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status, _HEADERS, media_type="application/json")


def answered_done() -> Response:
    """That it is done, and nothing more."""
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


def oauth_error(refused: RequestRefused) -> Response:
    """RFC 6749 section 5.2."""
    said = {
        "error": refused.error,
        **({"error_description": refused.description} if refused.description else {}),
        **refused.more,
    }
    return JSONResponse(said, refused.status, {**_HEADERS, **refused.headers})


def problem(refused: RequestRefused) -> Response:
    """RFC 9457."""
    title = HTTPStatus(refused.status).phrase
    said = {
        "type": "about:blank",
        "title": title,
        "status": refused.status,
        "code": refused.error,
        **refused.more,
    }
    if refused.description:
        said["detail"] = refused.description
    return JSONResponse(
        said,
        refused.status,
        {**_HEADERS, **refused.headers},
        media_type="application/problem+json",
    )
