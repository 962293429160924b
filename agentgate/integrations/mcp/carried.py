"""What a call carries in MCP: its token there, in the request's ``_meta``, over stdio and HTTP alike,
or in the HTTP headers; its denial back.

Rules: never in the arguments, which models, logs and traces see. What stands in ``_meta`` is
what would stand in the headers. Where ``_meta`` has a token, the ``Authorization`` header is
the connection's own credential and no call's. Whoever takes the token takes it out: neither the
tool nor a server behind it is given it. A call is a name and its arguments: what else a request
brings for the tool, such as answers to a question (``inputResponses``), nobody decided on. No
call runs in a session that anybody may join who has its id: they could cancel it, and end the
session.

A refused `tools/call` is answered by a result with ``isError``, never a protocol error, which a
model would not see. The text is a closed code and what to do next, and of arguments in a wrong form
what the tool's schema says; nothing of the workflow, the values or the reasons. A hold says who may
answer it and until when. The host reads the same as values in ``_meta``, under `DENIAL`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

import orjson
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp_types import CallToolResult, TextContent
from starlette.requests import Request

from agentgate.decision.hold import moment
from agentgate.errors import CallDenied, RequestRefused
from agentgate.integrations.asgi.received import (
    RequestHead,
    Scope,
    SentToken,
    refuse_request,
    replace_headers,
)
from agentgate.shell.context import set_variables
from agentgate.values.refusal import Code
from agentgate.values.value_class import value_class
from agentgate.values.visible import visible

AUTHORIZATION: Final = "dev.agentgate/authorization"
PROOF: Final = "dev.agentgate/dpop"
_HEADERS: Final = (b"authorization", b"dpop")
_PASSED: Final = set("progressToken progress_token traceparent tracestate".split())
_OF_A_CALL: Final = {"name", "arguments", "_meta"}


@value_class
class TakenToken:
    """What a request brought: its token, or why it brought none.

    Attributes:
        path: of the request whose headers had it; empty: it was in ``_meta``.
        scope: of the HTTP request that it came with; None: it came with none.
    """

    token: SentToken | None
    refused: RequestRefused | None = field(default=None, repr=False)
    path: str = ""
    scope: Scope | None = field(default=None, repr=False)


NOTHING: Final = TakenToken(None)
TAKEN: ContextVar[TakenToken] = ContextVar("agentgate_mcp_taken", default=NOTHING)


def as_meta(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a token, as members of ``_meta``."""
    return {
        name: headers[header]
        for name, header in ((AUTHORIZATION, "Authorization"), (PROOF, "DPoP"))
        if header in headers
    }


def without(meta: Any) -> Any:
    """Of ``_meta`` what the protocol needs: no token, and as of headers nothing that nobody
    decided on.
    """
    if not isinstance(meta, Mapping):
        return meta
    return {
        name: value
        for name, value in meta.items()
        if name in _PASSED or name.startswith("io.modelcontextprotocol/")
    }


def from_meta(meta: Any) -> TakenToken | None:
    """The token in ``_meta``; None: there is none."""
    if not isinstance(meta, Mapping) or AUTHORIZATION not in meta:
        return None
    credential = meta[AUTHORIZATION]
    proof = meta.get(PROOF)
    scheme, _, token = credential.partition(" ") if type(credential) is str else ("", "", "")
    kind = {"bearer": "Bearer", "dpop": "DPoP"}.get(scheme.lower())
    if kind is None or not token or (proof is not None and type(proof) is not str):
        expected = f"'DPoP TOKEN' or 'Bearer TOKEN', and text in {PROOF}"
        return TakenToken(
            None,
            refuse_request(400, "invalid_request", AUTHORIZATION, "another form", expected),
        )
    return TakenToken(SentToken(kind, token, proof))


def from_request(request: Any) -> tuple[TakenToken, Any]:
    """The token in the headers of an HTTP request, and the request without it."""
    if not isinstance(request, Request):
        return NOTHING, request
    try:
        head = RequestHead(request.scope)
        taken = TakenToken(head.credential(), path=head.path, scope=request.scope)
    except RequestRefused as refused:
        return TakenToken(None, refused), request
    replace_headers(
        request.scope,
        [
            (name, value)
            for name, value in request.scope["headers"]
            if name.lower() not in _HEADERS
        ],
    )
    return taken, request


def in_open_session(request: Any) -> bool:
    """Whether a request came in a session of HTTP that is no authenticated client's: the SDK
    binds only theirs.
    """
    if not isinstance(request, Request):
        return False
    # the latter over SSE
    named = "mcp-session-id" in request.headers or "session_id" in request.query_params
    return named and not isinstance(request.scope.get("user"), AuthenticatedUser)


async def take_token(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """A middleware of the official SDK, the outermost: what follows, telemetry too, is given
    the request without its token.
    """
    if ctx.method != "tools/call":
        return await call_next(ctx)
    params = dict(ctx.params or {})
    taken = from_meta(params.get("_meta"))
    request = ctx.request
    if not taken:
        taken, request = from_request(ctx.request)
    elif isinstance(ctx.request, Request):
        taken = replace(taken, scope=ctx.request.scope)
    if in_open_session(ctx.request):
        expected = (
            "none (stateless_http=True), or a session that is bound to an authenticated client"
        )
        taken = TakenToken(
            None,
            refuse_request(
                403,
                "insufficient_scope",
                "mcp-session-id",
                "a session that its id alone opens",
                expected,
            ),
        )
    if more := {name for name, value in params.items() if value is not None} - _OF_A_CALL:
        got = visible(min(more))[:40]
        expected = "a call's name and arguments alone"
        taken = TakenToken(
            None, refuse_request(403, "insufficient_scope", "params", got, expected)
        )
    if "_meta" in params:
        params["_meta"] = without(params["_meta"])
    with set_variables((TAKEN, taken)):
        return await call_next(
            replace(ctx, params=params, meta=without(ctx.meta), request=request)
        )


DENIAL: Final = "dev.agentgate/denial"
NEXT: Final[Mapping[Code, str]] = orjson.loads(
    Path(__file__).with_name("next.json").read_bytes()
)


@value_class
class HeldCall:
    """A hold as the caller is told of it: its id, who may answer, until when (POSIX
    seconds).
    """

    id: str
    whom: str
    deadline: float

    def __str__(self) -> str:
        return (
            f"Hold {self.id} waits for {self.whom or 'a person'} until {moment(self.deadline)}."
        )


def denied(
    code: Code, hold: HeldCall | None = None, form: str = "", until: str = ""
) -> CallToolResult:
    """The result of a refused call; `form`: of arguments of a wrong form, what the tool's
    schema says; `until`: as `Deny.until`.
    """
    until_when = f"Until: {until}." if until else ""
    text = " ".join(
        filter(None, [f"{CallDenied(code)}.", str(hold or ""), until_when, NEXT[code], form])
    )
    told: dict[str, Any] = {"code": str(code), **({"until": until} if until else {})}
    if hold:
        told["hold"] = {"id": hold.id, "whom": hold.whom, "deadline": hold.deadline}
    return CallToolResult(
        content=[TextContent(type="text", text=text)], is_error=True, _meta={DENIAL: told}
    )
