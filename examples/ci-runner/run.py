"""A CI job deploys without a secret: its step shows the gate the token its runner was given, and gets one token for one deployment."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

sys.path.append(str(Path(__file__).parents[1] / "_harness"))  # where `python run.py` finds it
from agentgate.errors import ConfigError
from agentgate_demo.case import FoundingCase
from agentgate_demo.row import Expected, TableRow, find_example, refusal_row
from agentgate_demo.show import perform
from agentgate_demo.stage import Stage

TOOL, SERVER = "cloud.assume-deploy-role", "https://deploy.acme.example/deployments"
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


class Job:
    """A job of this repository, in which these claims are other than those of `JOB`; its runner is this process."""

    def __init__(self, stage: Stage, number: int, **claims: Any) -> None:
        self._stage, self._temp = stage, stage.folder / f"runner-{number}"
        self._temp.mkdir()
        self._bearer = secrets.token_urlsafe(16)  # what the runner gives its job, to fetch its token with
        said = {**JOB, "run_id": str(9000 + number), **claims}
        stage.published.jobs[self._bearer] = lambda audience: stage.keys["github"].sign({**said, "aud": audience})

    def step(self, arguments: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """The step of examples/github-action, word for word, as a runner carries it out: `agentgate exchange` in a shell."""
        action = yaml.safe_load((find_example("github-action") / "action.yml").read_text("utf-8"))
        inputs = {"GATE": self._stage.gate.url, "CLIENT": "shop-ci", "WORKFLOW": "ci.deploy", "TOOL": TOOL, "REQUEST": f"POST {SERVER}"}
        inputs["ARGUMENTS"] = json.dumps(arguments)
        runner = {"RUNNER_TEMP": str(self._temp), "GITHUB_OUTPUT": str(self._temp / "output")}
        runner["ACTIONS_ID_TOKEN_REQUEST_URL"] = f"{self._stage.published.url}/token?api-version=2.0"
        runner["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = self._bearer
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        script = action["runs"]["steps"][0]["run"]
        if shutil.which("bash") is None:
            raise ConfigError("demo", "bash is not installed", "bash, which carries out the steps of a CI job")
        env = {**os.environ, **inputs, **runner, "PATH": path}
        return subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, timeout=60, env=env)  # noqa: S603, S607 - bash, as runners have it

    def headers(self) -> dict[str, str]:
        """What the step wrote for the next one (``curl -H @FILE``)."""
        written = Path((self._temp / "output").read_text("utf-8").strip().removeprefix("headers="))
        return dict(line.split(": ", 1) for line in written.read_text("utf-8").splitlines())


def stepped(stage: Stage, expected: Expected, done: subprocess.CompletedProcess[str]) -> TableRow:
    """A row: what a CI job's step was told by ``agentgate exchange``."""
    line = stage.last()
    if done.returncode == 0:
        seen = "ok: exit 0, the headers of one request are in a file of the runner's own"
        detail = f"the job, proven by its own token; one token for exactly this call, in {line['run']}"
        return TableRow(expected, "allowed", "ok", "client", seen, detail=detail, rule=stage.line(TOOL))
    seen = done.stderr.strip()
    found = re.search(r"the gate gave no token: (\w+)", seen)
    return refusal_row(
        expected, line["reasons"], "client", found[1] if found else seen, f"exit {done.returncode}: {seen.partition(chr(10))[0]}"
    )


def scenes(stage: Stage) -> Iterator[TableRow]:
    """The job that may, then everything it may not be."""
    job = Job(stage, 1)
    tried = "The job of the main branch, for production: its step runs agentgate exchange, to deploy shop-web"
    yield stepped(stage, Expected(tried, "allowed", "ok"), job.step(DEPLOY))
    row = stage.sent(
        Expected("Its next step deploys, with the headers that were written", "allowed", "ok"), "/deployments", DEPLOY, job.headers
    )
    session = stage.server("cloud", "/moto-api/data.json")["sts"]["AssumedRole"][0]
    may = "; ".join(f"{', '.join(each['Action'])} on {', '.join(each['Resource'])}" for each in json.loads(session["policy"])["Statement"])
    yield replace(row, detail=f"AssumeRole of {session['role_arn']}, with a session policy for {may}; the token is burned")
    expected = Expected("The same headers again", "denied", "401 invalid_token", "invalid_token", "jti")
    yield stage.sent(expected, "/deployments", DEPLOY, job.headers)
    expected = Expected("A deployment without a token", "denied", "401", "", "authorization")
    yield stage.sent(expected, "/deployments", DEPLOY, dict)
    tried, broad = "A right job asks for every right on ECS", {**DEPLOY, "scopes": ["ecs:*"]}
    expected = Expected(tried, "denied", "invalid_authorization_details", "argument_value", "args.scopes")
    yield stepped(stage, expected, Job(stage, 2).step(broad))
    for number, (tried, claims) in enumerate(OTHERS, 3):
        fields = ", ".join(f"agent.oidc.claims.{name}" for name in claims)
        yield stepped(stage, Expected(tried, "denied", "invalid_request", "agent", fields), Job(stage, number, **claims).step(DEPLOY))


CASE = FoundingCase(
    place=Path(__file__).parent,
    file="ci/deploy.yaml",
    intro="A pipeline deploys. No secret is stored in CI: the job shows the token that its runner was given (here by a local issuer, in "
    "GitHub's shape) at POST /oauth2/token, and a token for one deployment comes to exist only if branch, environment, event and workflow "
    "file are the reviewed ones. The deploy server redeems it, and asks AWS (here: moto's server) for a session of this call's own.",
    keys={"github": "RS256", "deploy": "ES256"},
    scenes=scenes,
    done=(1, "deployment of shop-web"),
    others=("cloud",),
    needs=("boto3", "httpx", "moto", "flask_cors"),
)

if __name__ == "__main__":
    raise SystemExit(perform(CASE))
