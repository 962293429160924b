"""What callers read before they ask: key set, server metadata (RFC 8414), health, and the endpoints
as an OpenAPI 3.1 document, to each line of which the tests hold the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agentgate.errors import RequestRefused
from agentgate.identity.keys import ALGORITHMS
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.service.exchange import GRANT
from agentgate.service.messages import answered
from agentgate.service.state import Service
from agentgate.service.tokens import DEFERRED
from agentgate.token.mint import DETAIL_TYPE


async def jwks(_: Request, service: Service) -> Response:
    """The public keys (RFC 7517)."""
    return JSONResponse(
        service.gate.jwks(),
        headers={"Cache-Control": "public, max-age=60"},
        media_type="application/jwk-set+json",
    )


async def server_metadata(request: Request, service: Service) -> Response:
    """RFC 8414. One issuer serves every tenant."""
    tenant = request.path_params.get("tenant")
    if tenant is not None and all(
        tenant not in client.tenants for client in service.settings.clients.values()
    ):
        raise RequestRefused(404, "not_found")
    url = service.url
    mtls = service.settings.certificate_header is not None
    methods = ["private_key_jwt", *(["self_signed_tls_client_auth"] if mtls else [])]
    algorithms = sorted(ALGORITHMS)
    return answered(
        {
            "issuer": service.settings.issuer,
            "token_endpoint": url("/oauth2/token"),
            "jwks_uri": url("/oauth2/jwks"),
            "response_types_supported": [],
            "introspection_endpoint": url("/oauth2/introspect"),
            "revocation_endpoint": url("/oauth2/revoke"),
            "grant_types_supported": [
                GRANT,
                *([DEFERRED] if service.settings.deferred else []),
            ],
            **(
                {"deferred_token_response_supported": True} if service.settings.deferred else {}
            ),  # a draft: Deferred Token Response
            "token_endpoint_auth_methods_supported": [*methods, "none"],
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "introspection_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
            # left out, they would be client_secret_basic (RFC 8414 section 2)
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
            "tls_client_certificate_bound_access_tokens": mtls,  # RFC 8705 section 3.3
            "authorization_details_types_supported": [DETAIL_TYPE],
        }
    )


async def authzen_metadata(_: Request, service: Service) -> Response:
    """AuthZEN 1.0, section 9."""
    one = service.url("/access/v1/evaluation")
    many = service.url("/access/v1/evaluations")
    return answered(
        {
            "policy_decision_point": service.settings.issuer,
            "access_evaluation_endpoint": one,
            "access_evaluations_endpoint": many,
        }
    )


async def healthz(_: Request, __: Service) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


async def readyz(_: Request, service: Service) -> Response:
    """Whether it can decide: ``ok``; ``degraded`` and codes, where it answers and not
    everything goes on; or 503 and codes.

    Below it, where Sentinels or a cluster are asked for it: which servers the store is, and who
    said so.
    """
    conditions = await service.health.conditions()
    stopping = [each.code for each in conditions if each.stops]
    if stopping:
        return PlainTextResponse("\n".join(stopping) + "\n", 503)
    lines = ["degraded", *(each.line for each in conditions)] if conditions else ["ok"]
    if where := service.gate.store.where.told:
        lines.append(f"store: {where}")
    return PlainTextResponse("\n".join(lines) + "\n")


_FILE = Path(__file__).with_name("openapi.yaml")


@cache
def read_document() -> Mapping[str, Any]:
    """The document as it stands in its file: it names no server."""
    document: Mapping[str, Any] = read_yaml(_FILE.read_text("utf-8"), _FILE.name).value
    return document


async def openapi(_: Request, service: Service) -> Response:
    """The document of this gate."""
    return answered({**read_document(), "servers": [{"url": service.settings.issuer}]})
