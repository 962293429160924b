"""The queue server: puts one job on a queue, with the rights that were decided on and no others."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.redemption.verifier import AsyncRedeemedCall
from agentgate.service.process import log_to_stderr

QUEUES: dict[str, list[dict[str, Any]]] = {"reports": [], "imports": []}


def dispatch(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call."""
    queue = QUEUES[call.args["queue"]]
    queue.append({"job": call.args["job"], "tenant": call.claims.tenant, "scopes": call.args["scopes"]})
    return {"place": len(queue), **queue[-1]}


async def answer(request: Request) -> JSONResponse:
    """The route: the middleware has redeemed the token of this request, and what runs are the arguments that were decided on."""
    return JSONResponse(await run_in_threadpool(dispatch, request.scope["agentgate.call"]))


async def healthz(_: Request) -> JSONResponse:
    """Whether it has started."""
    return JSONResponse({"ok": True})


def build_app() -> Starlette:
    """`RedeemMiddleware` in front of one route. Its tokens are the gate's, by its key set and over its store."""
    gate, state = os.environ["GATE"], os.environ["STATE"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{gate}/oauth2/jwks") as got:
        keys = json.load(got)
    where = {"store": f"embedded://{state}/gate/store", "audit": f"{state}/jobs.dispatch-audit"}
    server = ToolServer.of(keys, issuer=gate, audience="https://jobs.acme.example", tenants=["acme-eu", "acme-uk"], **where)
    server.route("jobs.dispatch", "POST", "/jobs", args={name: body() for name in ("queue", "job", "scopes")})
    guard = Middleware(RedeemMiddleware, server=server, open_paths=["/healthz"])
    routes = [Route("/jobs", answer, methods=["POST"]), Route("/healthz", healthz)]
    return Starlette(routes=routes, middleware=[guard])


if __name__ == "__main__":
    log_to_stderr()
    uvicorn.run(build_app(), host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
