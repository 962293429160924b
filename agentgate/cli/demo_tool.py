"""The process of a case's tool server: `RedeemMiddleware` in front of one route, from the environment that `demo_stage` gives it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentgate.cli.demo_process import get
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.redemption.upstream import UpstreamBroker
from agentgate.redemption.verifier import AsyncRedeemedCall, AsyncVerifier
from agentgate.service.process import log_to_stderr


def serve_tool(
    tool: str,
    path: str,
    args: Sequence[str],
    *,
    audience: str,
    tenants: Sequence[str],
    run: Callable[[AsyncRedeemedCall], dict[str, Any]],
    brokers: Mapping[str, UpstreamBroker] | None = None,
) -> None:
    """Serve ``POST path`` until the process is ended.

    Args:
        tool: its name in the workflow.
        path: of its route.
        args: the members of its JSON body.
        audience: of its tokens.
        tenants: whose tokens it takes.
        run: what it does for a redeemed call; the answer.
        brokers: of upstream credentials, by the names in the workflow.
    """
    gate, port, state = os.environ["GATE"], int(os.environ["PORT"]), os.environ["STATE"]
    keys = get(f"{gate}/oauth2/jwks")

    async def opening() -> AsyncVerifier:
        store, audit = f"embedded://{state}/gate/store", f"{state}/{tool}-audit"
        return await AsyncVerifier.open(
            keys, issuer=gate, tenants=tenants, audience=audience, store=store, audit=audit, brokers=brokers or {}
        )

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(run, request.scope["agentgate.call"]))

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    server = ToolServer(opening, issuer=gate, audience=audience)  # clients know it by its audience: TLS ends in front of it
    server.route(tool, "POST", path, args={name: body() for name in args})
    guard = Middleware(RedeemMiddleware, server=server, open_paths=["/healthz"])
    app = Starlette(routes=[Route(path, answer, methods=["POST"]), Route("/healthz", healthz)], middleware=[guard])
    log_to_stderr()
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
