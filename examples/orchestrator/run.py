"""An orchestrator starts jobs for other services: each with less than its static role, over at most two named brokers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "_harness"))  # where `python run.py` finds it
from agentgate_demo.case import FoundingCase
from agentgate_demo.row import Expected, TableRow
from agentgate_demo.show import perform
from agentgate_demo.stage import Asker, Stage

TOOL, PROD = "jobs.dispatch", "spiffe://acme.example/ns/prod/sa/"
ROLE = ["jobs:read", "jobs:dispatch", "jobs:cancel", "queues:read", "queues:write"]  # roles.yaml: orchestrator
JOB = {"queue": "reports", "job": "monthly-close", "scopes": ["jobs:read", "queues:read"]}


def scenes(stage: Stage) -> Iterator[TableRow]:
    """Work that came over two brokers, then more rights, and other ways."""
    who = Asker("orchestrator")

    def svid(name: str = "orchestrator") -> str:
        return stage.keys["spire"].sign({"sub": PROD + name, "aud": [stage.gate.url]})

    def chain(*services: str) -> str:
        """The hops from the first of these services over the others to the orchestrator, each signed by who passed the work on."""
        hops: list[str] = []
        act: dict[str, Any] = {"sub": PROD + services[0]}
        for broker, to in zip(services, [*services[1:], "orchestrator"], strict=True):
            act = {"sub": PROD + to, "act": act}
            claims = {"iss": PROD + broker, "sub": PROD + services[0], "aud": stage.gate.url, "act": act}
            hops.append(stage.keys[broker].sign(claims))
        return " ".join(hops)

    def asked(expected: Expected, *services: str, **arguments: Any) -> TableRow:
        more = {"delegation": chain(*services)} if services else {}
        return stage.asked(expected, who, svid(), TOOL, {**JOB, **arguments}, tenant="acme-eu", **more)

    two = {"delegation": chain("scheduler", "api")}
    answer = stage.exchange(who, svid(), TOOL, JOB, tenant="acme-eu", **two)
    yield stage.row(Expected("Work from the scheduler, over the API: a job with two of the role's five scopes", "allowed", "ok"), answer)
    token = answer.body.get("access_token", "")
    yield stage.use(Expected("The job is put on its queue", "allowed", "ok"), who, token, "/jobs", JOB)
    expected = Expected("The same token, for a job with more", "denied", "403 insufficient_scope", "insufficient_scope", "arguments_digest")
    yield stage.use(expected, who, token, "/jobs", {**JOB, "scopes": ROLE[:3]})

    call = "400 invalid_authorization_details"
    every = Expected("A job with all of the static role", "denied", call, "argument_value, role", "args.scopes")
    yield asked(every, "scheduler", "api", scopes=ROLE)
    cancel = Expected("A job with a scope that the workflow does not list", "denied", call, "argument_value", "args.scopes")
    yield asked(cancel, "scheduler", scopes=["jobs:cancel"])
    many = Expected("Work that came over a third hop", "denied", "400 invalid_request", "hops", "agent.via")
    yield asked(many, "scheduler", "api", "scheduler")
    stranger = Expected("Work from a service that is no broker", "denied", "400 invalid_request", "hops", "agent.via[0].iss")
    yield asked(stranger, "stranger")
    other = Expected("The API calls by itself, as the orchestrator", "denied", "401 invalid_client", "agent", "client.credential")
    yield stage.asked(other, who, svid("api"), TOOL, JOB, tenant="acme-eu")


CASE = FoundingCase(
    place=Path(__file__).parent,
    file="orchestration/internal-dispatch.yaml",
    intro="An orchestrator used to carry one broad role everywhere. Now it shows its SVID and the signed hops over which the work came at "
    "POST /oauth2/token, and gets one token for one job, with strictly less than that role.",
    keys={"spire": "RS256", "scheduler": "ES256", "api": "ES256", "stranger": "ES256", "jobs": "ES256"},
    scenes=scenes,
    done=(1, "job on a queue"),
)

if __name__ == "__main__":
    raise SystemExit(perform(CASE))
