"""The deploy server: a deployment for a job that shows a token for exactly this one, with an AWS session made for this call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import boto3

from agentgate.cli.demo_tool import serve_tool
from agentgate.credentials.static import Secret
from agentgate.credentials.sts import AwsRole, Permission, STSBroker
from agentgate.redemption.verifier import AsyncRedeemedCall

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


if __name__ == "__main__":
    secret = Path(os.environ["STATE"], "aws-secret")  # of the one AWS key that may assume the role; on AWS itself: access_key=None
    secret.touch(mode=0o600)
    secret.write_text("secret-of-the-deploy-server")
    broker = STSBroker(ROLES, access_key=("AKIADEPLOYSERVER", Secret(file=secret)), endpoint=CLOUD)
    serve_tool(
        "cloud.assume-deploy-role",
        "/deployments",
        ["service", "scopes"],
        run=deploy,
        brokers={"aws-sts": broker},
        audience="https://deploy.acme.example",
        tenants=["acme-eu"],
    )
