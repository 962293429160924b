"""JSON Schemas of what the endpoints read and answer, for the OpenAPI document. What is enforced stands in the endpoints themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgate.errors import Refusal
from agentgate.service.authzen import MOST
from agentgate.token.mint import DETAIL_TYPE

Schema = Mapping[str, Any]


def _open(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these members; others are ignored, or may come."""
    named = {"required": list(required)} if required else {}
    return {"type": "object", "properties": {**required, **(optional or {})}, **named}


def _closed(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these members and no others."""
    return {**_open(required, optional), "additionalProperties": False}


TEXT: Schema = {"type": "string", "minLength": 1}
_STRING: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_WHOLE: Schema = {"type": "integer"}
_TENANT: Mapping[str, Schema] = {"tenant": TEXT}

# --- what is read ---------------------------------------------------------------------------------------------------------------
_PARTS: Schema = {"type": "array", "minItems": 1, "items": {"oneOf": [_closed({"own": _STRING}), _closed({"pasted": _STRING})]}}
_TURN: Schema = {"oneOf": [_STRING, _PARTS]}
_CLIENT = dict.fromkeys(("client_id", "client_assertion", "client_assertion_type"), TEXT)
_TOKENS = ("subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type")
_EXCHANGED = (*_TOKENS, "resource", "audience", "scope")
EXCHANGE = _open(
    {"grant_type": TEXT},
    {
        **dict.fromkeys((*_EXCHANGED, "attestation", "delegation", "completion_mode", "deferral_code"), TEXT),
        "authorization_details": {"type": "string", "description": f"JSON: a list of one object of type {DETAIL_TYPE}"},
        **_CLIENT,
    },
)
TOKEN = _open({"token": TEXT}, _CLIENT)
KEY = _open(dict.fromkeys(("subject_token", "subject_token_type", "statement"), TEXT), {"tenant": TEXT, **_CLIENT})
_AGENT = _closed({"client_id": TEXT, "token": TEXT}, {"proof": TEXT, "attestation": TEXT, "delegation": {"type": "array", "items": TEXT}})
RUN = _closed({"workflow": TEXT, "prompt": _TURN, "agent": _AGENT}, {**_TENANT, "subject_token": TEXT, "ttl": _WHOLE, "agent_said": TEXT})
TURN = _closed({"turn": _TURN}, {**_TENANT, "agent_said": TEXT})
CLOSE = _closed({}, _TENANT)
_ATTEMPT: Mapping[str, Schema] = {"attempt": {"type": "string", "pattern": "^[A-Za-z0-9_-]{16,64}$"}}
_PROOF = _closed(dict.fromkeys(("dpop", "method", "url"), TEXT))
_THUMBPRINT: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"}
_BROKERS: Schema = {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 200}}
REDEEM = _closed(
    {"token": TEXT, "tool": TEXT, "arguments": _OBJECT}, {"proof": _PROOF, "certificate": _THUMBPRINT, "brokers": _BROKERS, **_ATTEMPT}
)
_FACTS: Schema = {"type": "array", "items": _OBJECT}
RESULT: Schema = {"oneOf": [_closed({"result": {}}, _TENANT), _closed({"facts": _FACTS}, _TENANT)]}
OUTCOME = _closed({"outcome": {"enum": ["done", "failed", "not_run", "unknown"]}}, {**_TENANT, **_ATTEMPT})
_PROPERTIES: Mapping[str, Schema] = {"properties": _OBJECT}
_SUBJECT = _open({"type": TEXT, "id": TEXT}, _PROPERTIES)
_RESOURCE = _open({"type": TEXT, "id": TEXT}, {"properties": _open({}, {"server": {}, "arguments": _OBJECT})})
_ASKED: Mapping[str, Schema] = {"subject": _SUBJECT, "action": _open({"name": TEXT}, _PROPERTIES), "resource": _RESOURCE}
_CONTEXT: Mapping[str, Schema] = {"context": _open({}, dict.fromkeys(("run", "tenant", "workflow", "requested_scope"), TEXT))}
EVALUATION = _open(_ASKED, _CONTEXT)
_SEMANTIC: Schema = {"enum": ["execute_all", "deny_on_first_deny", "permit_on_first_permit"]}
_SEVERAL: Mapping[str, Schema] = {"evaluations": {"type": "array", "maxItems": MOST, "items": _OBJECT}}
EVALUATIONS = _open({}, {**_ASKED, **_CONTEXT, **_SEVERAL, "options": _open({}, {"evaluations_semantic": _SEMANTIC})})

# --- what is answered -----------------------------------------------------------------------------------------------------------
_WANTED = {"acr_values": TEXT, "max_age": _WHOLE}  # of insufficient_user_authentication
_WAITING = {"deferral_code": TEXT, "expires_in": _WHOLE, "interval": _WHOLE, "hold": _open({"id": TEXT, "whom": _STRING})}
_ERRORS = (  # at either kind of endpoint
    *("invalid_request", "invalid_client", "invalid_authorization_details", "access_denied", "insufficient_user_authentication"),
    *("invalid_dpop_proof", "slow_down", "temporarily_unavailable", "server_error"),
)
_OF_TOKENS = (
    *("unsupported_grant_type", "unauthorized_client", "invalid_grant", "invalid_target", "invalid_scope", "use_dpop_nonce"),
    *("authorization_pending", "expired_token"),
)
_OF_OURS = ("wrong_role", "not_found", "not_redeemed", "already_recorded")
OAUTH_ERROR = _open({"error": {"enum": [*_ERRORS, *_OF_TOKENS]}}, {"error_description": TEXT, **_WANTED, **_WAITING})
_CODE: Schema = {"enum": sorted({*_ERRORS, *_OF_OURS, *map(str, Refusal)})}
PROBLEM = _open({"type": {"const": "about:blank"}, "title": TEXT, "status": _WHOLE, "code": _CODE}, {"detail": TEXT, **_WANTED})
_DETAILS: Schema = {"type": "array", "items": _open({"type": {"const": DETAIL_TYPE}}), "minItems": 1, "maxItems": 1}
MINTED = _closed(
    {
        **dict.fromkeys(("access_token", "issued_token_type", "scope"), TEXT),
        "token_type": {"enum": ["DPoP", "Bearer"]},
        "expires_in": {"type": "integer", "minimum": 1},
        "authorization_details": _DETAILS,
    }
)
KEY_CHANGED = _closed({"tenant": TEXT, "account": TEXT})
INTROSPECTED = _open({"active": {"type": "boolean"}})
_WORKFLOW = _closed({"id": TEXT, "version": _WHOLE, "digest": TEXT})
OPENED = _closed({"run": TEXT, "tenant": TEXT, "workflow": _WORKFLOW, "expires_at": {"type": "number"}, "intents": _OBJECT})
REDEEMED = _open(
    {
        **dict.fromkeys(("txn", "tenant", "sub", "client_id", "scope", "run", "tool_call_id", "tool"), TEXT),
        **dict.fromkeys(("arguments", "act", "identity"), _OBJECT),
        "workflow": _WORKFLOW,
    },
)
EVALUATED = _closed({"decision": {"type": "boolean"}, "context": _open({"reason": TEXT})})
EVALUATED_SEVERAL: Schema = {"oneOf": [EVALUATED, _closed({"evaluations": {"type": "array", "minItems": 1, "items": EVALUATED}})]}
KEYS = _open({"keys": {"type": "array", "minItems": 1, "items": _open({"kty": TEXT, "kid": TEXT, "alg": TEXT})}})
SERVER = _open({"issuer": TEXT, "token_endpoint": TEXT, "jwks_uri": TEXT})
AUTHZEN = _open(dict.fromkeys(("policy_decision_point", "access_evaluation_endpoint", "access_evaluations_endpoint"), TEXT))
