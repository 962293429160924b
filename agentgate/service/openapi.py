"""``GET /openapi.json``: the endpoints as an OpenAPI 3.1 document, from one table. The tests hold the service to each line of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from agentgate.service import schemas
from agentgate.service.answer import answered
from agentgate.service.schemas import Schema
from agentgate.service.state import Service

FORM, JSON, KEYS, PROBLEM = "application/x-www-form-urlencoded", "application/json", "application/jwk-set+json", "application/problem+json"
TEXT = "text/plain; charset=utf-8"
_HEAD, _BODY, _ASKED = (431,), (400, 408, 413), (401, 429, 503)
_REFUSED = {
    400: "not of the form that it must have, or not allowed",
    401: "the client is not known",
    403: "a client with another role",
    404: "there is none, of this client",
    408: "the body came too slowly",
    409: "said before",
    413: "too long",
    415: "another content type",
    429: "too often",
    431: "too many headers, or too long ones",
    503: "store, audit log or keys do not answer, or there is too much to do",
}


class Operation(NamedTuple):
    """One endpoint. `role`: who may, empty for everybody; `refused`: the statuses of refusals."""

    path: str
    method: str
    summary: str
    role: str
    media: str
    body: Schema | None
    status: int
    answer: Schema | None
    refused: tuple[int, ...]


def _form(path: str, summary: str, role: str, body: Schema, answer: Schema | None) -> Operation:
    return Operation(path, "post", summary, role, FORM, body, 200, answer, (*_HEAD, *_BODY, *_ASKED, 415))


def _json(path: str, summary: str, role: str, body: Schema, answer: Schema | None, *refused: int, status: int = 200) -> Operation:
    return Operation(path, "post", summary, role, JSON, body, status, answer, (*_HEAD, *_BODY, *_ASKED, 403, *refused))


def _get(path: str, summary: str, answer: Schema, *refused: int, media: str = JSON) -> Operation:
    return Operation(path, "get", summary, "", media, None, 200, answer, (*_HEAD, 503, *refused))


_METADATA = "/.well-known/oauth-authorization-server"
OPERATIONS: tuple[Operation, ...] = (
    _form("/oauth2/token", "Exchange a credential for the token of one call", "agent", schemas.EXCHANGE, schemas.MINTED),
    _form("/oauth2/introspect", "Whether a token would be redeemed", "tool_server", schemas.TOKEN, schemas.INTROSPECTED),
    _form("/oauth2/revoke", "Void a token", "agent, host", schemas.TOKEN, None),
    _form("/oauth2/key", "Change a service account's key", "agent", schemas.KEY, schemas.KEY_CHANGED),
    _json("/v1/runs", "Open a run", "host", schemas.RUN, schemas.OPENED, 415, status=201),
    _json("/v1/runs/{run}/turns", "Add what the user says next", "host", schemas.TURN, schemas.OPENED, 404, 415),
    _json("/v1/runs/{run}/close", "Close a run", "host", schemas.CLOSE, None, 404, 415, status=204),
    Operation("/v1/runs/{run}", "delete", "Close a run", "host", JSON, None, 204, None, (*_HEAD, *_ASKED, 400, 403, 404)),
    _json("/v1/redeem", "Redeem a token for the call received", "tool_server", schemas.REDEEM, schemas.REDEEMED, 415),
    _json("/v1/calls/{txn}/result", "Tell a tool's result", "tool_server", schemas.RESULT, None, 404, 409, 415, status=204),
    _json("/v1/calls/{txn}/outcome", "Tell how it ended", "tool_server", schemas.OUTCOME, None, 404, 409, 415, status=204),
    _json("/access/v1/evaluation", "Whether a call would be allowed (AuthZEN 1.0)", "host", schemas.EVALUATION, schemas.EVALUATED),
    _json("/access/v1/evaluations", "The same for several calls", "host", schemas.EVALUATIONS, schemas.EVALUATED_SEVERAL),
    _get("/oauth2/jwks", "The public keys", schemas.KEYS, media=KEYS),
    _get(_METADATA, "Server metadata (RFC 8414)", schemas.SERVER),
    _get(f"{_METADATA}/{{tenant}}", "The same, for a tenant", schemas.SERVER, 404),
    _get("/.well-known/authzen-configuration", "Metadata (AuthZEN 1.0)", schemas.AUTHZEN),
    _get("/healthz", "The process answers", schemas.TEXT, media=TEXT),
    _get("/readyz", "It can decide", schemas.TEXT, media=TEXT),
    _get("/metrics", "Counts for Prometheus, where settings say so", schemas.TEXT, 404, media=TEXT),
)


def _told(operation: Operation) -> dict[str, Any]:
    form = operation.media == FORM
    refusal, media = (schemas.OAUTH_ERROR, JSON) if form else (schemas.PROBLEM, PROBLEM)
    responses: dict[str, Any] = {str(operation.status): {"description": "done"}}
    if operation.answer is not None:
        responses[str(operation.status)]["content"] = {JSON if form else operation.media: {"schema": operation.answer}}
    for status in sorted(operation.refused):
        said = (schemas.TEXT, TEXT) if operation.path == "/readyz" and status == 503 else (refusal, media)
        responses[str(status)] = {"description": _REFUSED[status], "content": {said[1]: {"schema": said[0]}}}
    named = [part.strip("{}") for part in operation.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [{"name": name, "in": "path", "required": True, "schema": schemas.TEXT} for name in named]
    if operation.method == "delete":
        parameters.append({"name": "tenant", "in": "query", "required": False, "schema": schemas.TEXT})
    if operation.path in {"/oauth2/token", "/oauth2/key", "/oauth2/revoke"}:
        parameters.append({"name": "DPoP", "in": "header", "required": False, "schema": schemas.TEXT, "description": "RFC 9449"})
    told: dict[str, Any] = {"summary": operation.summary, "parameters": parameters, "responses": responses}
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {operation.media: {"schema": operation.body}}}
    if operation.role:
        told["description"] = f"Role: {operation.role}."
        told["security"] = [{}] if form else [{"assertion": []}]
    return told


def document(issuer: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _told(operation)
    schemes = {"assertion": {"type": "http", "scheme": "bearer", "bearerFormat": "private_key_jwt (RFC 7523), used once"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentgate", "version": "1"},
        "servers": [{"url": issuer}],
        "paths": paths,
        "components": {"securitySchemes": schemes},
    }


async def openapi(_: Request, service: Service) -> Response:
    """The document."""
    return answered(document(service.settings.issuer))
