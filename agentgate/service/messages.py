"""What is read of a request and what is told in the answer, as HTTP has them.

Rules for reading: a body and headers are capped, in time, no name twice, nothing in the query;
what could be read in two ways is refused. A body arrives within `SECONDS`, whatever its pace.

Rules for answers: a closed code, never what is inside. Errors of OAuth's endpoints by RFC 6749,
of our own by RFC 9457; WIRE's table of errors is `refused_by`, and an operator reads the
failures in the log. Nothing is cached anywhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentgate.decision.answer import Deny
from agentgate.errors import CredentialRefused, RequestRefused
from agentgate.identity.keys import strict_object
from agentgate.values.refusal import Code, Failure, Reason, code_of, sign_in_wanted

RETRY = "2"  # seconds
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_WHO = frozenset(map(Reason, "agent user authentication hops posture boundary".split()))
_SAID_NO = frozenset(
    map(
        Reason,
        (
            "hold_refused hold_expired step_up intent_unclear revoked limit too_many_denials "
            "too_many_holds too_many_runs already_redeemed failed outcome_unknown run_closed "
            "run_expired"
        ).split(),
    )
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


SECONDS = 5.0
MAX_FIELDS = 32
_DEPTH = 32
_CLAIMED = re.compile(rb"&client_id=([\w.-]{1,200})(?:&|$)", re.ASCII)
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


async def _body(request: Request, kind: str, most: int) -> bytes:
    if request.scope["query_string"]:
        raise malformed("query", "one", "none: parameters stand in the body")
    media, _, more = (one_header(request, "content-type") or "").partition(";")
    if media.strip().lower() != kind or more.strip().lower().replace('"', "") not in {
        "",
        "charset=utf-8",
    }:
        raise RequestRefused(415, "invalid_request", f"content-type: expected {kind}")
    if one_header(request, "content-encoding") not in {None, "identity"}:
        raise RequestRefused(415, "invalid_request", "content-encoding: expected none")
    state = request.state
    state.turn.leave()
    read = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                read += chunk
                if len(read) > most:
                    raise RequestRefused(
                        413,
                        "invalid_request",
                        f"body: expected at most {most} bytes",
                        headers={"Connection": "close"},
                    )
    except TimeoutError:
        raise RequestRefused(
            408, "invalid_request", "body: too slow", headers={"Connection": "close"}
        ) from None
    if (
        kind == FORM
        and (named := _CLAIMED.search(b"&" + read))
        and (client := named[1].decode()) in request.app.state.service.settings.clients
    ):
        state.claimed = client
    await state.turn(state.claimed)
    return bytes(read)


def one_header(request: Request, name: str) -> str | None:
    """The value of a header that may stand there once."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise malformed(name.lower(), "several", "one header")
    return values[0] if values else None


def bearer(request: Request) -> str:
    """What stands in ``Authorization: Bearer``; empty: nothing does."""
    scheme, _, shown = (one_header(request, "authorization") or "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""


async def read_form(request: Request, most: int) -> dict[str, str]:
    """The parameters of a form; none of them twice (RFC 6749 section 3.2), none without
    value.
    """
    fields, found = (await _body(request, FORM, most)).split(b"&", MAX_FIELDS), dict[str, str]()
    if len(fields) > MAX_FIELDS:
        raise malformed("body", "more", f"at most {MAX_FIELDS} fields")
    for each in fields:
        try:
            name, value = map(_unescaped, each.decode("ascii").split("=", 1))
        except ValueError:
            raise malformed(
                "body", "something else", "a form in ASCII, with UTF-8 in its escapes"
            ) from None
        if name in found:
            raise malformed(
                name[:40] if name.isidentifier() else "body", "several", "one value"
            )
        found[name] = value
    # RFC 6749 section 3.2: without a value as if it were left out
    return {name: value for name, value in found.items() if value}


def _unescaped(text: str) -> str:
    """Text with what its escapes stand for (RFC 3986 section 2.1), all in one pass; ValueError:
    another escape.
    """
    text = text.replace("+", " ")
    if "%" in text:
        text = text.replace("\\", "\\\\").replace("%", "\\x")
        text = text.encode().decode("unicode_escape").encode("latin-1").decode()
    return text


async def read_json(
    request: Request,
    most: int,
    required: str = "",
    optional: str | None = "",
) -> dict[str, Any]:
    """The members of a JSON object: these, and no others (`optional` None: any others, for
    whoever ignores them).
    """
    try:
        value = strict_object(await _body(request, JSON, most), "body")
    except CredentialRefused:
        raise malformed("body", "something else", "a JSON object without a key twice") from None
    return checked_members(value, "body", required, optional)


def checked_members(
    value: object,
    field: str,
    required: str = "",
    optional: str | None = "",
    error: str = "invalid_request",
) -> dict[str, Any]:
    """An object with the required members and no unknown ones (names with spaces between;
    `optional` None: whatever else), not nested too deep.
    """
    if type(value) is not dict or not _shallow(value, _DEPTH):
        raise malformed(
            field, type(value).__name__, f"an object, at most {_DEPTH} levels deep", error
        )
    must = set(required.split())
    known = must.union((optional or "").split())
    if missing := must - value.keys():
        raise malformed(f"{field}.{min(missing)}", "none", "a value", error)
    if optional is not None and (unknown := value.keys() - known):
        shown = min(unknown)
        raise malformed(
            field,
            shown[:40] if shown.isidentifier() else "an unknown member",
            f"of {', '.join(sorted(known))}",
            error,
        )
    return value


def _shallow(value: object, left: int) -> bool:
    if type(value) is dict:
        return left > 0 and all(_shallow(each, left - 1) for each in value.values())
    if type(value) is list:
        return left > 0 and all(_shallow(each, left - 1) for each in value)
    return True


def text(value: object, field: str, error: str = "invalid_request") -> str:
    """A member that is text and not empty."""
    if type(value) is not str or not value:
        raise malformed(field, type(value).__name__, "text, not empty", error)
    return value


def optional_text(holder: dict[str, Any], name: str) -> str | None:
    """A member that may be left out; None: it is. `null` is no way of leaving it out."""
    return text(holder[name], name) if name in holder else None
