"""A run that a client names goes on for the workload that it was opened for: in the same environment, and where it was attested."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgate import JWTSVID, Gate, RunRefused
from agentgate.gate import open_run, proving
from agentgate.shell.drive import drive
from tests.authority import GATE, Key, web
from tests.founding import EXPORTER, GITHUB, World
from tests.served import Asking, Process, detail, served
from tests.test_service_founding import settings

AUDIENCE, PIN = "https://identity.acme.example", "sha256:" + "0" * 64
HEAD = """
agentgate: workflow/v1
version: 1
title: A workload asks how it is
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme-eu]
intents: {none: "It asks by itself."}
"""
TOOL = f"{{effect: read, needs: any, audience: {AUDIENCE}, scope: [beat], definition: {PIN}, redeem: server, args: {{}}}}"
PLACED = f"""{HEAD}
id: again.placed
who: {{agent: {{spiffe: ["{EXPORTER}"], boundary: {{cluster: [eu-prod-1]}}}}}}
tools: {{placed.beat: {TOOL}}}
"""
JOB = f"""{HEAD}
id: again.job
who: {{agent: {{oidc: {{issuer: {GITHUB}, claims: {{repository_id: {{is: "104857600"}}}}}}}}}}
conditions: {{environment: [prod, staging]}}
tools: {{job.beat: {TOOL}}}
"""


class Place:
    """A served gate in the founding world, with two workflows more, and who asks it."""

    def __init__(self, world: World, gate: Process, workflows: Path) -> None:
        self.world, self.gate, self.workflows = world, gate, workflows

    def exporter(self, svid: str, *, key: Key | None = None, run: str = "", statement: str | None = None) -> httpx.Response:
        call = detail("placed.beat", "again.placed", {}, **({"run": run} if run else {}))
        asking = Asking(self.gate, key)
        return asking.ask(asking.form(svid, call, client_id="exporter", attestation=statement), prove=key is not None)

    def job(self, environment: str, run: str = "") -> httpx.Response:
        """A job of a repository whose tokens all have one `sub` (GitHub lets an organisation choose what is in it)."""
        call = detail("job.beat", "again.job", {}, **({"run": run} if run else {}))
        asking, token = (
            Asking(self.gate),
            self.world.job(sub="repository_id:104857600", environment=environment, jti=str(time.monotonic_ns())),
        )
        return asking.ask(asking.form(token, call, client_id="shop-ci"), prove=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("again")
    workflows = folder / "again"
    workflows.mkdir()
    (workflows / "placed.yaml").write_text(PLACED)
    (workflows / "job.yaml").write_text(JOB)
    with web() as site:
        world = World(site, folder)
        given: dict[str, Any] = settings(world, folder, {}, workflows=str(workflows))
        given["clients"]["identity"]["definitions"] = {"placed.beat": PIN, "job.beat": PIN}
        with served(folder, given) as gate:
            yield Place(world, gate, workflows)
        world.gate.close()


def run_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["authorization_details"][0]["run"])


def refused(answer: httpx.Response, field: str, gate: Process, error: str = "invalid_request") -> None:
    assert (answer.status_code, answer.json().get("error")) == (400, error), answer.text
    assert field in {reason["field"] for reason in gate.log()[-1]["reasons"]}


def test_a_job_of_another_environment_does_not_go_on_with_a_run(place: Place) -> None:
    """It shares project, branch and `sub` with the job that was approved for production, and the run's id is made of what both know."""
    run = run_of(place.job("production"))
    refused(place.job("staging", run), "agent.environment", place.gate)
    assert run_of(place.job("production", run)) == run
    assert run_of(place.job("staging")) != run  # it has one of its own


def test_a_stolen_credential_does_not_go_on_where_its_workload_was_attested(place: Place) -> None:
    """Without a key of its own, whoever has the token alone could be anywhere."""
    svid = place.world.svid(EXPORTER, jti="stolen")
    refused(place.exporter(svid), "agent.boundary", place.gate)
    run = run_of(place.exporter(svid, statement=place.world.attested(EXPORTER)))
    refused(place.exporter(svid, run=run), "agent.boundary", place.gate)
    assert run_of(place.exporter(svid, run=run, statement=place.world.attested(EXPORTER))) == run


def test_who_proved_a_key_is_where_it_was_attested_once(place: Place) -> None:
    svid, key = place.world.svid(EXPORTER, jti="its own"), Key("exporter")
    run = run_of(place.exporter(svid, key=key, statement=place.world.attested(EXPORTER)))
    assert run_of(place.exporter(svid, key=key, run=run)) == run
    refused(place.exporter(svid, key=Key("thief"), run=run), "agent.key", place.gate, "invalid_dpop_proof")


def test_another_certificate_of_the_same_workload_is_not_where_the_first_was_attested(place: Place) -> None:
    world, (first, second) = place.world, ("A" * 43, "B" * 43)
    svid = world.svid(EXPORTER, jti="by certificate")

    def by(certificate: str, statement: str | None = None) -> JWTSVID:
        return JWTSVID(svid, certificate=certificate, attestation=statement)

    with Gate.open_unsafe_unapproved(place.workflows, issuer=GATE, audit="memory://", identity=world.settings) as gate:
        run = gate.open_run("again.placed", tenant="acme-eu", user=None, agent=by(first, world.attested(EXPORTER)), prompt="")

        def present(agent: JWTSVID) -> Any:
            return drive(open_run.present(gate._core, run.state, user=None, agent=agent, over=proving.IN_PROCESS), gate._store, gate._audit)

        assert present(by(first)).header == run.header
        with pytest.raises(RunRefused, match="boundary"):
            present(by(second))
        assert present(by(second, world.attested(EXPORTER))).header == run.header
