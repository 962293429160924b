"""The identity server: issues an account's next token, for a call token that was minted for exactly this."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.redemption.verifier import AsyncRedeemedCall
from agentgate.service.process import log_to_stderr

KEY = ec.generate_private_key(ec.SECP256R1())


def refresh(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call: a token for the account and the audience that were decided on."""
    account, audience = call.args["account"], call.args["audience"]
    claims = {"iss": "https://identity.acme.example", "sub": account, "aud": audience, "exp": int(time.time()) + 900}
    return {"account_token": jwt.encode(claims, KEY, "ES256", headers={"kid": "identity-1"}), "audience": audience}


async def answer(request: Request) -> JSONResponse:
    """The route: the middleware has redeemed the token of this request, and what runs are the arguments that were decided on."""
    return JSONResponse(await run_in_threadpool(refresh, request.scope["agentgate.call"]))


async def healthz(_: Request) -> JSONResponse:
    """Whether it has started."""
    return JSONResponse({"ok": True})


def build_app() -> Starlette:
    """`RedeemMiddleware` in front of one route. Its tokens are the gate's, by its key set and over its store."""
    gate, state = os.environ["GATE"], os.environ["STATE"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{gate}/oauth2/jwks") as got:
        keys = json.load(got)
    where = {"store": f"embedded://{state}/gate/store", "audit": f"{state}/identity.refresh-audit"}
    server = ToolServer.of(keys, issuer=gate, audience="https://identity.acme.example", tenants=["acme-eu"], **where)
    server.route("identity.refresh", "POST", "/tokens", args={name: body() for name in ("account", "audience")})
    guard = Middleware(RedeemMiddleware, server=server, open_paths=["/healthz"])
    routes = [Route("/tokens", answer, methods=["POST"]), Route("/healthz", healthz)]
    return Starlette(routes=routes, middleware=[guard])


if __name__ == "__main__":
    log_to_stderr()
    uvicorn.run(build_app(), host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
