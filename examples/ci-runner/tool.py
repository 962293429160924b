"""The deploy server: a deployment for a job that shows a token for exactly this one, with an AWS session made for this call."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentgate.credentials.static import Secret
from agentgate.credentials.sts import AwsRole, Permission, STSBroker
from agentgate.integrations.asgi import RedeemMiddleware, ToolServer, body
from agentgate.redemption.verifier import AsyncRedeemedCall
from agentgate.service.process import log_to_stderr

ACCOUNT, CLOUD = "eu-central-1:123456789012", os.environ["CLOUD"]  # CLOUD: leave it out where AWS itself is asked
# What the scope `deploy:assume` of the workflow stands for. A call gets the part that its argument `scopes` asks for.
DEPLOY = [
    Permission(["ecs:UpdateService"], [f"arn:aws:ecs:{ACCOUNT}:service/shop/shop-web", f"arn:aws:ecs:{ACCOUNT}:service/shop/shop-api"]),
    Permission(["ecr:PutImage"], [f"arn:aws:ecr:{ACCOUNT}:repository/shop-web", f"arn:aws:ecr:{ACCOUNT}:repository/shop-api"]),
    Permission(["logs:PutLogEvents"], ["*"]),
]
ROLES = {"shop-deploy": AwsRole("arn:aws:iam::123456789012:role/shop-deploy", {"deploy:assume": DEPLOY}, asked_in="scopes")}


def deploy(call: AsyncRedeemedCall) -> dict[str, Any]:
    """Runs for a redeemed call. The job never sees the session."""
    session = {part: call.credential.reveal(part) for part in call.credential.parts}
    sts, ecs = (boto3.client(name, endpoint_url=CLOUD, **session) for name in ("sts", "ecs"))
    started = ecs.update_service(cluster="shop", service=call.args["service"], forceNewDeployment=True)
    return {"deployment": started["service"]["deployments"][0]["id"], "as": sts.get_caller_identity()["Arn"]}


async def answer(request: Request) -> JSONResponse:
    """The route: the middleware has redeemed the token of this request, and what runs are the arguments that were decided on."""
    return JSONResponse(await run_in_threadpool(deploy, request.scope["agentgate.call"]))


async def healthz(_: Request) -> JSONResponse:
    """Whether it has started."""
    return JSONResponse({"ok": True})


def build_app(broker: STSBroker) -> Starlette:
    """`RedeemMiddleware` in front of one route. Its tokens are the gate's, by its key set and over its store."""
    gate, state = os.environ["GATE"], os.environ["STATE"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{gate}/oauth2/jwks") as got:
        keys = json.load(got)
    where = {"store": f"embedded://{state}/gate/store", "audit": f"{state}/cloud.assume-deploy-role-audit"}
    server = ToolServer.of(
        keys, issuer=gate, audience="https://deploy.acme.example", tenants=["acme-eu"], **where, brokers={"aws-sts": broker}
    )
    server.route("cloud.assume-deploy-role", "POST", "/deployments", args={name: body() for name in ("service", "scopes")})
    guard = Middleware(RedeemMiddleware, server=server, open_paths=["/healthz"])
    routes = [Route("/deployments", answer, methods=["POST"]), Route("/healthz", healthz)]
    return Starlette(routes=routes, middleware=[guard])


if __name__ == "__main__":
    secret = Path(os.environ["STATE"], "aws-secret")  # of the one AWS key that may assume the role; on AWS itself: access_key=None
    secret.touch(mode=0o600)
    secret.write_text("secret-of-the-deploy-server")
    broker = STSBroker(ROLES, access_key=("AKIADEPLOYSERVER", Secret(file=secret)), endpoint=CLOUD)
    log_to_stderr()
    uvicorn.run(build_app(broker), host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
