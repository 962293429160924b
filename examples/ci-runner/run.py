"""A CI job deploys without a secret: it shows the gate the token its runner was given, and gets one token for one deployment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgate.cli.demo import perform
from agentgate.cli.demo_case import FoundingCase
from agentgate.cli.demo_row import Expected, TableRow
from agentgate.cli.demo_stage import Asker, Stage

TOOL = "cloud.assume-deploy-role"
DEPLOY = {"service": "shop-web", "scopes": ["ecs:UpdateService"]}
JOB = {  # what GitHub writes into a job's token: docs.github.com, "OpenID Connect reference"
    "iss": "https://token.actions.githubusercontent.com",
    "sub": "repo:acme/shop:environment:production",
    "repository": "acme/shop",
    "repository_id": "104857600",
    "repository_owner": "acme",
    "repository_owner_id": "4711",
    "ref": "refs/heads/main",
    "environment": "production",
    "event_name": "push",
    "job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
    "runner_environment": "github-hosted",
    "run_id": "9001",
    "run_attempt": "1",
}
OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("A fork of the repository runs the same file", {"repository": "mallory/shop", "repository_id": "999"}),
    ("A job for staging", {"environment": "staging"}),
    ("Somebody edited the workflow file on a branch", {"job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/x"}),
    ("A pull request: a stranger's code", {"event_name": "pull_request"}),
)


def scenes(stage: Stage) -> Iterator[TableRow]:
    """The job that may, then everything it may not be."""

    def job(**claims: Any) -> str:
        return stage.keys["github"].sign({**JOB, "aud": stage.gate.url, **claims})

    runner = Asker("shop-ci")
    answer = stage.exchange(runner, job(), TOOL, DEPLOY)
    yield stage.row(Expected("The job of the main branch, for production, asks to deploy shop-web", "allowed", "ok"), answer)
    token = answer.body.get("access_token", "")
    yield stage.use(Expected("It deploys, with that token", "allowed", "ok"), runner, token, "/deployments", DEPLOY)
    tried = "The same token again"
    yield stage.use(Expected(tried, "denied", "401 invalid_token", "invalid_token", "jti"), runner, token, "/deployments", DEPLOY)
    expected = Expected("A deployment without a token", "denied", "401", "", "authorization")
    yield stage.use(expected, runner, "", "/deployments", DEPLOY)
    broad = {**DEPLOY, "scopes": ["ecs:*"]}
    expected = Expected(
        "A right job asks for every right on ECS", "denied", "400 invalid_authorization_details", "argument_value", "args.scopes"
    )
    yield stage.asked(expected, Asker("shop-ci"), job(run_id="9002"), TOOL, broad)
    for number, (tried, claims) in enumerate(OTHERS):
        fields = ", ".join(f"agent.oidc.claims.{name}" for name in claims)
        expected = Expected(tried, "denied", "400 invalid_request", "agent", fields)
        yield stage.asked(expected, Asker("shop-ci"), job(run_id=str(9010 + number), **claims), TOOL, DEPLOY)


CASE = FoundingCase(
    place=Path(__file__).parent,
    file="ci/deploy.yaml",
    intro="A pipeline deploys. No secret is stored in CI: the job shows the token that its runner was given (here by a local issuer, in "
    "GitHub's shape) at POST /oauth2/token, and a token for one deployment comes to exist only if branch, environment, event and workflow "
    "file are the reviewed ones.",
    keys={"github": "RS256", "deploy": "ES256"},
    scenes=scenes,
    done=(1, "deployment of shop-web"),
)

if __name__ == "__main__":
    raise SystemExit(perform(CASE))
