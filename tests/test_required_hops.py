"""`min_hops`: work must come through a broker. Whoever leaves the hop out gets nothing, whichever way they come."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from typer.testing import CliRunner

from agentgate import Allow, OIDCToken, Reason, RunRefused
from agentgate.cli.main import app
from agentgate.decision.answer import Deny as Denied
from agentgate.diff import compare
from agentgate.errors import WorkflowError
from agentgate.explain.listing import conditions
from agentgate.intents.lexical import derive
from agentgate.loading.blocks import written_out
from agentgate.loading.catalog import roles_of
from agentgate.loading.definition import load_text
from agentgate.review.mutation.mutation import mutations
from agentgate.review.scenarios.scene import Scene
from agentgate.workflow.model import Workflow
from tests.authority import Key, web
from tests.founding import GITHUB, PROD, World, shown
from tests.served import Asking, detail, served
from tests.shop import WORKFLOW
from tests.test_evaluate import LOOK, episode, pay
from tests.test_identity_door import Through
from tests.test_service_founding import (
    ORDER,
    PROMPT,
    REFUND,
    SUPPORT,
    TUESDAY,
    Refunding,
    Stage,
    chain,
    dispatch,
    granted,
    refused,
    settings,
)

SHIPPED = Path(__file__).parent.parent / "workflows"
OWN = {
    "payments/customer-refund.yaml": ("{max_hops: 1", "{min_hops: 1, max_hops: 1"),
    "orchestration/internal-dispatch.yaml": ("    max_hops: 2", "    min_hops: 2\n    max_hops: 2"),
}


def text(name: str = "payments/customer-refund.yaml", least: str = "min_hops: 1, ") -> str:
    old, new = OWN[name]
    return (SHIPPED / name).read_text().replace(old, new.replace("min_hops: 1, ", least))


def loaded(source: str) -> Workflow:
    return load_text(source, "w.yaml", roles_of(SHIPPED), derive)


def folder(at: Path) -> Path:
    """The shipped workflows, with a hop required of all that come through one, and of a CI job."""
    made = at / "workflows"
    shutil.copytree(SHIPPED, made, ignore=shutil.ignore_patterns("approvals"))
    for name in OWN:
        (made / name).write_text(text(name))
    deploy = made / "ci/deploy.yaml"
    line = next(line for line in deploy.read_text().splitlines() if line.startswith("  agent:"))
    deploy.write_text(deploy.read_text().replace(line, f'  via: {{min_hops: 1, max_hops: 1, brokers: ["{PROD}api"]}}\n{line}'))
    return made


def test_the_call_is_judged_by_how_many_hops_it_came_through() -> None:
    workflow, broker = loaded(text()), f"{PROD}orchestrator"
    scene = Scene.of(workflow, {"call": "payments.refund"})
    assert scene.values["who.via"] == [broker]  # a scene of nothing but the call is allowed
    assert not isinstance(scene.decide(), Denied)
    for via in (None, [], [broker, broker], [PROD + "stranger"]):
        answer = scene.set({"who.via": via}).decide()
        assert isinstance(answer, Denied)
        assert {(failure.reason, failure.field) for failure in answer.failures} == {(Reason.HOPS, "agent.via")}
    direct = scene.set({"who.via": None}).decide()
    assert isinstance(direct, Denied)
    said = direct.failures[0]
    assert (said.got, said.expected) == ("0 hops", f"at least 1 and at most 1 hops, through {broker}")
    assert not isinstance(scene.set({"who.via": None}).decide(loaded(text(least=""))), Denied)  # without it, hops are voluntary
    later = Scene.of(loaded(text(least="")), {"call": "payments.refund"})  # a run that was opened under the version before
    answer = later.decide(workflow)
    assert isinstance(answer, Denied)
    assert {failure.reason for failure in answer.failures} == {Reason.HOPS}


def test_a_definition_without_it_keeps_its_digest() -> None:
    for name in ("payments.customer-refund/7", "orchestration.internal-dispatch/1"):
        definition = json.loads((SHIPPED / "approvals" / name / "definition.json").read_bytes())
        assert "min_hops" not in definition["who"]["via"]
        assert written_out(definition) == definition
    assert loaded(text()).digest != loaded(text(least="")).digest


@pytest.mark.parametrize("least", ["min_hops: 0, ", "min_hops: 2, ", "min_hops: true, ", "min_hops: 9, "])
def test_a_number_that_means_nothing_or_refuses_everything_is_an_error(least: str) -> None:
    with pytest.raises(WorkflowError, match=r"who\.via\.min_hops"):
        loaded(text(least=least))


def test_to_drop_it_is_wider_and_to_add_it_is_narrower() -> None:
    strict, free = loaded(text()), loaded(text(least=""))
    assert [finding.field for finding in compare(strict, free).wider] == ["who.via"]
    assert compare(strict, free).narrower == ()
    assert [finding.field for finding in compare(free, strict).narrower] == ["who.via"]
    assert compare(free, strict).wider == ()


def test_a_mutant_without_it_is_noticed_by_a_case_and_it_is_explained() -> None:
    found = [mutant for mutant in mutations(loaded(text())).found if mutant.of == ("ViaRule", "min_hops")]
    assert [mutant.words for mutant in found] == ["1 -> 0"]
    expected = [each.expected for each in conditions(loaded(text()), loaded(text()).tools["payments.refund"]) if each.field == "agent.via"]
    assert expected == [f"at least 1 and at most 1 hops, through {PROD}orchestrator"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    shift, at = TUESDAY.timestamp() - time.time(), tmp_path_factory.mktemp("stage")
    with web() as web_, time_machine.travel(TUESDAY, tick=True):
        world, tools = World(web_, at), dict[str, Key]()
        with served(at, settings(world, at, tools, workflows=str(folder(at))), shift=shift) as gate:
            yield Stage(world, gate, tools)
        world.gate.close()


def test_in_process_no_run_is_opened_without_the_hop_and_none_goes_on_without_it(tmp_path: Path) -> None:
    with web() as web_, time_machine.travel(TUESDAY, tick=True):
        world = World(web_, tmp_path, workflows=folder(tmp_path))
        try:
            with pytest.raises(RunRefused) as refused_:
                Through(world, None)
            assert [failure.reason for failure in refused_.value.failures] == [Reason.HOPS]
            made = Through(world)
            with pytest.raises(RunRefused):
                made.run.renew(agent=made.agent())
            end = made.run.header.ends
            state = made.presented(made.agent())  # its own run, which came through the hop, and ends with it
            assert (state.header.agent.via, state.header.ends) == ((PROD + "orchestrator",), end)
        finally:
            world.gate.close()


def test_over_http_no_run_is_opened_without_the_hop(stage: Stage) -> None:
    refunding = Refunding(stage)
    assert refunding.opened.status_code == 201
    refunding.look()
    paid = refunding.ask("payments.refund", REFUND, "call_2")
    granted(paid, stage.gate, "https://payments.acme.example")
    for hops in ([], [stage.world.hop("stranger", SUPPORT, "lee")]):
        answer = refunding.host.post("/v1/runs", refunding.body(PROMPT, delegation=hops))
        assert answer.status_code >= 400, answer.text
        assert stage.gate.log()[-1]["reasons"][0]["field"].startswith("agent.via")


def test_over_http_nothing_is_exchanged_without_the_hop(stage: Stage) -> None:
    granted(dispatch(stage, ["jobs:read"], chain(stage, "scheduler", "api")), stage.gate, "https://jobs.acme.example")
    for hops in ([], chain(stage, "api"), chain(stage, "scheduler")):
        refused(dispatch(stage, ["jobs:read"], hops), "invalid_request")
        assert [(each["reason"], each["field"]) for each in stage.gate.log()[-1]["reasons"]] == [("hops", "agent.via")]


def test_a_ci_job_brings_the_hop_of_who_started_it(stage: Stage) -> None:
    asking, job = Asking(stage.gate), stage.world.job()
    deploy = detail("cloud.assume-deploy-role", "ci.deploy", {"service": "shop-web", "scopes": ["ecs:UpdateService"]})
    refused(asking.ask(asking.form(job, deploy, client_id="shop-ci")), "invalid_request")
    assert stage.gate.log()[-1]["reasons"][0]["field"] == "agent.via"


# --- a run that came through the hop, or was opened before it was required -----------------------------------------------------
DEPLOY = {"service": "shop-web", "scopes": ["ecs:UpdateService"]}
AUTHZEN = "/access/v1/evaluation"


def test_a_job_finds_its_run_again_through_the_hop_alone(tmp_path: Path) -> None:
    with web() as web_, time_machine.travel(TUESDAY, tick=True):
        world = World(web_, tmp_path)
        world.gate.close()
        world.settings["brokers"][PROD + "api"]["issuers"] = [GITHUB]
        world.gate = world.opened(workflows=folder(tmp_path))
        try:
            job, key = world.job(), Key("runner")
            subject = "repo:acme/shop:environment:production"

            def opened(*hops: str) -> Any:
                agent = OIDCToken(job, delegation=list(hops), **shown(key, job))
                return world.gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=agent, prompt="", once=True)

            hop = world.hop("api", subject, PROD + "api")
            run = opened(hop)
            for hops in ([], [world.hop("scheduler", subject, PROD + "scheduler")]):
                with pytest.raises(RunRefused) as refused_:
                    opened(*hops)
                assert {failure.field.partition(".issuer")[0] for failure in refused_.value.failures} == {"agent.via"}
            assert opened(hop).id == run.id
            resumed = world.gate.resume_run("acme-eu", run.id)
            assert resumed.header.agent.via == (PROD + "api",)
            definition = world.definition("ci.deploy", "cloud.assume-deploy-role")
            assert isinstance(resumed.authorize("cloud.assume-deploy-role", DEPLOY, definition=definition), Allow)
        finally:
            world.gate.close()


def test_over_http_a_run_goes_on_and_is_asked_about_through_its_own_hop(stage: Stage) -> None:
    """What is left out later is the run's own; another hop is refused."""
    refunding = Refunding(stage)
    stranger, orchestrator = stage.world.hop("stranger", SUPPORT, "lee"), stage.world.hop("orchestrator", SUPPORT, "lee")
    other = stage.world.hop("api", SUPPORT, "lee")
    for hop in (stranger, other):
        refused(refunding.ask("orders.get", ORDER, "look", delegation=hop), "invalid_request")
        assert stage.gate.log()[-1]["reasons"][0]["field"].startswith("agent.via")
    refunding.look()
    looked = refunding.ask("payments.refund", REFUND, "call_3", delegation=orchestrator)
    claims = granted(looked, stage.gate, "https://payments.acme.example")
    assert claims["act"]["act"]["sub"] == PROD + "orchestrator"
    spent = stage.tool("payments").redeem(looked.json()["access_token"], "payments.refund", REFUND, refunding.asking.key)
    assert (spent.status_code, spent.json()["act"]["act"]["sub"]) == (200, PROD + "orchestrator")

    def evaluation(run: str) -> dict[str, Any]:
        arguments = {"type": "tool", "id": "orders.get", "properties": {"arguments": ORDER}}
        return {
            "subject": {"type": "user", "id": "lee"},
            "action": {"name": "tools/call"},
            "resource": arguments,
            "context": {"run": run, "tenant": "acme-eu"},
        }

    assert refunding.host.post(AUTHZEN, evaluation(refunding.run)).json().get("decision") is True, stage.gate.log()[-1]
    assert refunding.host.post(AUTHZEN, evaluation("run_of_nobody")).json()["decision"] is False
    both = {**evaluation(refunding.run), "evaluations": [{}, {"context": {"run": "run_of_nobody", "tenant": "acme-eu"}}]}
    assert [each["decision"] for each in refunding.host.post(f"{AUTHZEN}s", both).json()["evaluations"]] == [True, False]


def test_recorded_traffic_that_came_through_nobody_is_refused(tmp_path: Path) -> None:
    """`agentgate evaluate`: an episode has no hops."""
    (tmp_path / "episodes.jsonl").write_text(episode("small", LOOK, pay("39.99")))
    counts = []
    for via in ("", "via: {min_hops: 1, max_hops: 1, brokers: [api]}, "):
        (at := tmp_path / f"w{len(via)}").mkdir()
        (at / "refund.yaml").write_text(WORKFLOW.replace("groups: [support], ", "").replace("who: {", "who: {" + via))
        command = ["evaluate", str(tmp_path / "episodes.jsonl"), "--workflows", str(at), "--unsafe-unapproved", "--json"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        counts.append(json.loads(done.stdout)["overall"]["tasks fully automatic"]["k"])
    assert counts == [1, 0]
