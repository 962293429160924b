"""``GET /openapi.json``: the endpoints as an OpenAPI 3.1 document, from one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentgate.service.answer import answered
from agentgate.service.authzen import MOST
from agentgate.service.state import Service
from agentgate.token.mint import DETAIL_TYPE

Schema = Mapping[str, Any]
_TEXT: Schema = {"type": "string", "minLength": 1}
_OBJECT: Schema = {"type": "object"}
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def _of(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


_TURN: Schema = {
    "oneOf": [
        {"type": "string"},
        {
            "type": "array",
            "minItems": 1,
            "items": {"oneOf": [_of({"own": {"type": "string"}}), _of({"pasted": {"type": "string"}})]},
        },
    ]
}
_CLIENT: Mapping[str, Schema] = {"client_id": _TEXT, "client_assertion": _TEXT, "client_assertion_type": _TEXT}
_TENANT: Mapping[str, Schema] = {"tenant": _TEXT}
_EXCHANGE: Schema = {
    "type": "object",
    "properties": {
        "grant_type": _TEXT,
        **dict.fromkeys(("subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"), _TEXT),
        **dict.fromkeys(("resource", "scope", "attestation", "delegation", "completion_mode", "deferral_code"), _TEXT),
        "authorization_details": {"type": "string", "description": f"JSON: a list of one object of type {DETAIL_TYPE}"},
        **_CLIENT,
    },
    "required": ["grant_type"],
}
_AGENT = _of(
    {"client_id": _TEXT, "token": _TEXT},
    {"proof": _TEXT, "attestation": _TEXT, "delegation": {"type": "array", "items": _TEXT}},
)
_RUN = _of({"workflow": _TEXT, "prompt": _TURN, "agent": _AGENT}, {**_TENANT, "subject_token": _TEXT, "ttl": {"type": "integer"}})
_ATTEMPT: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{16,64}$"}
_PROOF = _of({"dpop": _TEXT, "method": _TEXT, "url": _TEXT})
_REDEEM = _of(
    {"token": _TEXT, "tool": _TEXT, "arguments": _OBJECT},
    {"proof": _PROOF, "attempt": _ATTEMPT, "brokers": {"type": "array", "items": _TEXT}},
)
_REPORT: Mapping[str, Schema] = {"result": {}, "facts": {"type": "array", "items": _OBJECT}}
_OUTCOME: Schema = {"enum": ["done", "failed", "not_run", "unknown"]}
_NAMED: Schema = {"type": "object", "properties": {"type": _TEXT, "id": _TEXT, "properties": _OBJECT}, "required": ["type", "id"]}
_ACTION: Schema = {"type": "object", "properties": {"name": _TEXT, "properties": _OBJECT}, "required": ["name"]}
_CONTEXT: Schema = {"type": "object", "properties": dict.fromkeys(("run", "tenant", "workflow", "requested_scope"), _TEXT)}
_ASKED: Mapping[str, Schema] = {"subject": _NAMED, "action": _ACTION, "resource": _NAMED, "context": _CONTEXT}
_EVALUATION: Schema = {"type": "object", "properties": _ASKED, "required": ["subject", "action", "resource"]}  # AuthZEN: others are ignored
_SEMANTIC: Schema = {"enum": ["execute_all", "deny_on_first_deny", "permit_on_first_permit"]}
_OPTIONS: Schema = {"type": "object", "properties": {"evaluations_semantic": _SEMANTIC}}
_SEVERAL: Schema = {"type": "array", "maxItems": MOST, "items": _OBJECT}
_EVALUATIONS: Schema = {"type": "object", "properties": {**_ASKED, "options": _OPTIONS, "evaluations": _SEVERAL}}

# path -> method, what it does, body's type, body, statuses of success, who may
PATHS: tuple[tuple[str, str, str, str, Schema | None, int, str], ...] = (
    ("/oauth2/token", "post", "Exchange a credential for the token of one call", FORM, _EXCHANGE, 200, "agent"),
    ("/oauth2/introspect", "post", "Whether a token would be redeemed", FORM, _of({"token": _TEXT}, _CLIENT), 200, "tool_server"),
    ("/oauth2/revoke", "post", "Void a token", FORM, _of({"token": _TEXT}, _CLIENT), 200, "agent, host"),
    ("/v1/runs", "post", "Open a run", JSON, _RUN, 201, "host"),
    ("/v1/runs/{run}/turns", "post", "Add what the user says next", JSON, _of({"turn": _TURN}, _TENANT), 200, "host"),
    ("/v1/runs/{run}/close", "post", "Close a run", JSON, _of({}, _TENANT), 204, "host"),
    ("/v1/runs/{run}", "delete", "Close a run", JSON, None, 204, "host"),
    ("/v1/redeem", "post", "Redeem a token for the call received", JSON, _REDEEM, 200, "tool_server"),
    ("/v1/calls/{txn}/result", "post", "Tell a tool's result", JSON, _of({}, {**_REPORT, **_TENANT}), 204, "tool_server"),
    (
        "/v1/calls/{txn}/outcome",
        "post",
        "Tell how it ended",
        JSON,
        _of({"outcome": _OUTCOME}, {"attempt": _ATTEMPT, **_TENANT}),
        204,
        "tool_server",
    ),
    ("/access/v1/evaluation", "post", "Whether a call would be allowed", JSON, _EVALUATION, 200, "host"),
    ("/access/v1/evaluations", "post", "The same for several calls", JSON, _EVALUATIONS, 200, "host"),
    ("/oauth2/jwks", "get", "The public keys", JSON, None, 200, ""),
    ("/.well-known/oauth-authorization-server", "get", "Server metadata (RFC 8414)", JSON, None, 200, ""),
    ("/.well-known/authzen-configuration", "get", "Metadata (AuthZEN 1.0)", JSON, None, 200, ""),
    ("/healthz", "get", "The process answers", JSON, None, 200, ""),
    ("/readyz", "get", "It can decide", JSON, None, 200, ""),
)


def document(issuer: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary, media, body, status, who in PATHS:
        named = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
        told: dict[str, Any] = {"summary": summary, "responses": {str(status): {"description": "done"}}}
        told["parameters"] = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in named]
        if body is not None:
            told["requestBody"] = {"required": True, "content": {media: {"schema": body}}}
            refusals = (400, 401, 403, 404, 408, 409, 413, 415, 429, 431, 503)
            told["responses"] |= {str(each): {"description": "refused"} for each in refusals}
        if who:
            told["description"] = f"Role: {who}."
            told["security"] = [{}] if media == FORM else [{"assertion": []}]
        paths.setdefault(path, {})[method] = told
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
