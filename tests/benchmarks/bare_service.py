"""What an exchange costs at the least: a Starlette endpoint with two PyJWT verifications, one SET and one ES256 signature.

``python -m tests.benchmarks.bare_service PORT REDIS SUBJECT_JWKS CLIENT_JWKS ISSUER KEPT``, with uvicorn set as for ``agentgate serve``.
KEPT: of how many credentials it keeps the claims, once they are verified; of a client's assertion it keeps nothing.
"""

from __future__ import annotations

import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentgate.token.signing import SigningKey


def _key(file: str) -> Any:
    return jwt.PyJWK(json.loads(Path(file).read_text())["keys"][0]).key


def application(store: str, subject: str, client: str, issuer: str, most: int) -> Starlette:
    """The endpoint."""
    subject_key, client_key, signing = _key(subject), _key(client), SigningKey.generate("ES256")
    private: Any = signing._private
    asked = redis.asyncio.Redis.from_url(store)

    kept: dict[bytes, Any] = {}

    def subject_of(text: str) -> Any:
        if most and (known := kept.get(name := sha256(text.encode()).digest())) is not None and known["exp"] > time.time():
            return known
        claims = jwt.decode(text, subject_key, algorithms=["ES256"], audience=issuer)
        if most:
            if len(kept) >= most:
                del kept[next(iter(kept))]
            kept[name] = claims
        return claims

    async def token(request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        who = subject_of(form["subject_token"])
        by = jwt.decode(form["client_assertion"], client_key, algorithms=["ES256"], audience=issuer)
        if not await asked.set(f"bare:{by['jti']}", b"1", nx=True, px=60_000):
            return JSONResponse({"error": "invalid_client"}, 401)
        now = int(time.time())
        claims = {"iss": issuer, "sub": who["sub"], "client_id": by["sub"], "iat": now, "exp": now + 60, "jti": by["jti"]}
        details = json.loads(form["authorization_details"])
        made = jwt.encode({**claims, "authorization_details": details}, private, algorithm="ES256", headers={"typ": "at+jwt"})
        return JSONResponse({"access_token": made, "token_type": "Bearer", "expires_in": 60})

    return Starlette(routes=[Route("/oauth2/token", token, methods=["POST"]), Route("/readyz", lambda _: Response("ok"))])


if __name__ == "__main__":
    _, listen, store, subject, client, issuer, most = sys.argv
    served = application(store, subject, client, issuer, int(most))
    uvicorn.run(served, port=int(listen), http=H11Protocol, ws="none", log_config=None, access_log=False, server_header=False)
