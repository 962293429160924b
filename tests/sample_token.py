"""A call, its token and a server that expects it: what the tests of the token vary one field at a time."""

from typing import Any

import orjson

from agentgate.token.claims import Claims, check_token
from agentgate.token.jws import PublicKeys, b64url
from agentgate.token.mint import CallToken, MintClaims, RunClaims, WorkflowRef, call_digest, draft_token, payload
from agentgate.token.signing import KeyRing
from agentgate.values.canonical import canonical, digest

NOW = 1_800_000_000
ISSUER = "https://gate.acme.example"
AUDIENCE = "https://payments.acme.example/mcp"
URL = "https://payments.acme.example/mcp"
TENANT = "acme-eu"
TOOL = "payments.refund"
DATA = canonical({"order_id": "ORD-10023344", "amount": "120.00", "currency": "EUR"})
RING = KeyRing.ephemeral()
SIGNER = RING.signer(NOW)
KEYS = PublicKeys.from_jwks(RING.jwks(NOW))
RUN_KEY = RING.run_key(TENANT, "run_1")
_WORKFLOW = WorkflowRef("payments.customer-refund", 7, "sha256:" + "a" * 64)


def sample(**changes: Any) -> MintClaims:
    """The claims of the sample call, with `changes`."""
    shared = RunClaims(
        iss=ISSUER,
        sub="lee",
        aud=AUDIENCE,
        client_id="support-agent",
        scope="refunds:create refunds:read",
        tenant=TENANT,
        act={"sub": "support-agent", "iss": ISSUER, "act": {"sub": "orchestrator"}},
        tool=TOOL,
        workflow=_WORKFLOW,
        run="run_1",
    )
    claims = MintClaims(
        shared=shared._replace(**{name: changes.pop(name) for name in RunClaims._fields if name in changes}),
        iat=NOW,
        exp=NOW + 60,
        jti="Zk3rT9wQx1yB7nLs0aPdVg",
        txn="txn_1",
        gen="0123456789abcdef0123456789abcdef01234567",
        tool_call_id="call_7",
        intent="refund",
        call_digest=call_digest(
            tenant=TENANT,
            run="run_1",
            tool_call_id="call_7",
            agent="support-agent",
            user="lee",
            tool=TOOL,
            audience=AUDIENCE,
            definition="",
            workflow_digest=_WORKFLOW.digest,
            data=DATA,
        ),
        arguments_digest=digest(DATA),
        tool_digest="sha256:" + "b" * 64,
        identity={"user": "proven", "agent": "in_process", "host": "in_process"},
        cnf_jkt=RUN_KEY.jkt,
        releases=("hold_1",),
    )
    return claims._replace(**changes)


def minted(**changes: Any) -> CallToken:
    """A real token of the sample claims with `changes`."""
    claims = sample(**changes)
    return draft_token(claims, RUN_KEY if claims.cnf_jkt == RUN_KEY.jkt else None)(SIGNER)


def signed(data: bytes, header: bytes = SIGNER.header) -> str:
    """Any payload bytes under the issuer's real signature: what a strict reader must refuse although it is signed."""
    text = header + b"." + b64url(data)
    return (text + b"." + b64url(SIGNER.sign(text))).decode()


def body(**changes: Any) -> dict[str, Any]:
    """The sample payload as an object, with top-level `changes`."""
    value: dict[str, Any] = orjson.loads(payload(sample()))
    return value | changes


def detail(**changes: Any) -> str:
    """A signed token whose one authorization detail has `changes`."""
    value = body()
    value["authorization_details"][0] |= changes
    return signed(orjson.dumps(value))


def accepted(text: str, **changes: Any) -> Claims:
    """`check_token` as the sample's server calls it, with `changes`."""
    settings: dict[str, Any] = {"issuer": ISSUER, "tenants": [TENANT], "audience": AUDIENCE, "now": NOW + 1}
    return check_token(text, changes.pop("keys", KEYS), **(settings | changes))
