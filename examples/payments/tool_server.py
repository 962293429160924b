"""What both tool servers of this example are: `RedeemMiddleware` in front of one route."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentgate.credentials.oauth import OAuthBroker
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.redemption.verifier import AsyncRedeemedCall
from agentgate.service.process import log_to_stderr


def serve_tool(
    tool: str, path: str, args: Sequence[str], *, audience: str, broker: OAuthBroker, run: Callable[[AsyncRedeemedCall], dict[str, Any]]
) -> None:
    """Serve ``POST path``: `run` answers a redeemed call. Its tokens are the gate's, by its key set and over its store."""
    gate, state = os.environ["GATE"], os.environ["STATE"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{gate}/oauth2/jwks") as got:
        keys = json.load(got)
    where = {"store": f"embedded://{state}/gate/store", "audit": f"{state}/{tool}-audit"}
    tenants, brokers = ["acme-eu", "acme-uk"], {"provider": broker}
    server = ToolServer.of(keys, issuer=gate, audience=audience, tenants=tenants, brokers=brokers, **where)
    server.route(tool, "POST", path, args={name: body() for name in args})

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(run, request.scope["agentgate.call"]))

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    guard = Middleware(RedeemMiddleware, server=server, open_paths=["/healthz"])
    app = Starlette(routes=[Route(path, answer, methods=["POST"]), Route("/healthz", healthz)], middleware=[guard])
    log_to_stderr()
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
