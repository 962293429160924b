"""The five founding workflows, each opened and minted in with proven identities; and what must never open or mint in them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine

from agentgate import JWTSVID, Agent, Allow, Connection, Deny, OIDCToken, Reason, RunRefused, User
from agentgate.token.dpop import DPoP
from tests.authority import Key, web
from tests.founding import EXPORTER, PROD, World, shown

TUESDAY = datetime(2027, 3, 2, 11, tzinfo=ZoneInfo("Europe/Berlin"))
ORDER = {"order_id": "ORD-10023344"}
REFUND = {**ORDER, "amount": "39.99", "currency": "EUR", "payee": "cus_A1b2C3d4E5f6G7"}
PROMPT = "Please refund order ORD-10023344, it arrived broken"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """In office hours of the payments workflow."""
    with web() as served, time_machine.travel(TUESDAY, tick=True):
        made = World(served, tmp_path_factory.mktemp("world"))
        yield made
        made.gate.close()


def refused(world: World, workflow: str, **given: Any) -> set[Reason]:
    with pytest.raises(RunRefused) as error:
        world.gate.open_run(workflow, **{"tenant": "acme-eu", "user": None, "prompt": "", **given})
    return {failure.reason for failure in error.value.failures}


def asked(world: World, run: Any, tool: str, args: dict[str, Any], **more: Any) -> Any:
    return run.authorize(tool, args, definition=world.definition(run.header.workflow, tool), **more)


def reasons(answer: Any) -> set[Reason]:
    assert isinstance(answer, Deny), answer
    return {failure.reason for failure in answer.failures}


# --- 1: a support agent refunds ---------------------------------------------------------------------------------------------
def support(world: World, **changed: Any) -> dict[str, Any]:
    name = PROD + "support-agent"
    key = Key("agent")
    token = world.svid(name)
    hop = world.hop("orchestrator", name, "lee")
    own = {"attestation": world.attested(name), "delegation": [hop], **shown(key, token), **changed}
    user = OIDCToken(world.acme.of_user("lee", tenant="acme-eu", groups=["support-l1"], auth_time=1_700_000_000, acr="mfa", amr=["hwk"]))
    return {"agent": JWTSVID(token, **own), "user": user, "prompt": PROMPT, "key": key}


def test_a_support_agent_refunds_for_a_proven_user(world: World) -> None:
    given = support(world)
    key = given.pop("key")
    run = world.gate.open_run("payments.customer-refund", tenant="acme-eu", **given)
    assert run.header.user is not None
    assert (run.header.user.identity, run.header.agent.identity, run.header.agent.via) == ("proven", "proven", (PROD + "orchestrator",))
    look = asked(world, run, "orders.get", ORDER, tool_call_id="look")
    assert isinstance(look, Allow)
    orders = world.gate.verifier("https://orders.acme.example", tenants=["acme-eu"])
    text, url = look.token.reveal(), "https://orders.acme.example/orders"
    proof = DPoP(key.proof("POST", url, token=text), method="POST", url=url)  # reads are bound to the agent's key, too
    with orders.redeem(text, tool="orders.get", args=ORDER, proof=proof) as call:
        call.record_result({"total": "39.99", "currency": "EUR", "customer_id": "cus_A1b2C3d4E5f6G7"})
    pay = asked(world, run, "payments.refund", REFUND, tool_call_id="pay")
    assert isinstance(pay, Allow)
    payments, url = world.gate.verifier("https://payments.acme.example", tenants=["acme-eu"]), "https://payments.acme.example/refunds"
    text = pay.token.reveal()
    proof = DPoP(key.proof("POST", url, token=text), method="POST", url=url)  # only the agent can: the gate has no such key
    with payments.redeem(text, tool="payments.refund", args=REFUND, proof=proof) as paid:
        claims = paid.claims
    assert claims.identity == {"user": "proven", "agent": "proven", "host": "in_process"}
    assert (claims.sub, claims.cnf_jkt) == ("lee", key.thumbprint)
    assert claims.act["sub"] == PROD + "support-agent"
    assert claims.act["act"]["sub"] == PROD + "orchestrator"
    assert (claims.auth_time, claims.acr, claims.amr) == (1_700_000_000, "mfa", ("hwk",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w, n: {"attestation": w.attested(n, ago=601)}, Reason.POSTURE),
        (lambda w, n: {"attestation": w.attested(n, image_signed_by="dev@acme.example")}, Reason.POSTURE),
        (lambda w, n: {"attestation": w.attested(PROD + "orchestrator")}, Reason.POSTURE),
        (lambda w, n: {"attestation": w.attested(n, key=Key("attest"))}, Reason.POSTURE),
        (lambda w, n: {"attestation": None}, Reason.POSTURE),
        (lambda w, n: {"delegation": [w.hop("scheduler", n, "lee")]}, Reason.HOPS),
        (
            lambda w, n: {
                "delegation": [
                    w.hop("orchestrator", PROD + "api", "lee"),
                    w.hop("api", n, "lee", {"sub": PROD + "api", "act": {"sub": PROD + "orchestrator"}}),
                ]
            },
            Reason.HOPS,
        ),
        (lambda w, n: {"delegation": [w.hop("orchestrator", n, "kim")]}, Reason.HOPS),
        (lambda w, n: {"delegation": [w.hop("orchestrator", PROD + "other", "lee")]}, Reason.HOPS),
        (lambda w, n: {"delegation": [w.hop("stranger", n, "lee")]}, Reason.HOPS),
    ],
    ids=[
        "a stale attestation",
        "an image somebody else signed",
        "another workload's attestation",
        "an attestation that nobody signed",
        "no attestation",
        "a broker that the workflow does not name",
        "a hop too many",
        "work of another user",
        "passed to another agent",
        "a hop that no broker signed",
    ],
)
def test_a_support_agent_that_is_not_quite_it_opens_no_run(world: World, change: Any, reason: Reason) -> None:
    given = support(world, **change(world, PROD + "support-agent"))
    del given["key"]
    assert refused(world, "payments.customer-refund", **given) == {reason}


@pytest.mark.parametrize(
    ("claims", "field"),
    [({"groups": ["sales"]}, "user.groups"), ({"tenant": "acme-uk"}, "user.tenant"), ({"tenant": "northwind"}, "user.oidc.tenant")],
)
def test_a_user_of_another_group_or_tenant_opens_no_run(world: World, claims: dict[str, Any], field: str) -> None:
    given = support(world)
    del given["key"]
    given["user"] = OIDCToken(world.acme.of_user("lee", **{"tenant": "acme-eu", "groups": ["support-l1"], **claims}))
    with pytest.raises(RunRefused) as error:
        world.gate.open_run("payments.customer-refund", tenant="acme-eu", **given)
    assert [failure.field for failure in error.value.failures] == [field]


# --- 2: a CI job --------------------------------------------------------------------------------------------------------------
DEPLOY = {"service": "shop-web", "scopes": ["ecs:UpdateService"]}


def test_a_job_of_the_main_branch_gets_one_credential(world: World) -> None:
    token = world.job()
    key = Key("runner")
    run = world.gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=OIDCToken(token, **shown(key, token)), prompt="", ttl=86400)
    assert run.header.ends <= run.header.opened_at + 301  # the job's token, whatever the run's own life
    answer = asked(world, run, "cloud.assume-deploy-role", DEPLOY)
    assert isinstance(answer, Allow)
    assert reasons(asked(world, run, "cloud.assume-deploy-role", DEPLOY, tool_call_id="second")) == {Reason.LIMIT}


def test_an_attempt_of_a_job_has_one_run_however_often_it_asks(world: World) -> None:
    def run(**claims: Any) -> Any:
        agent = OIDCToken(world.job(**{"run_id": "77", **claims}))
        return world.gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=agent, prompt="", once=True)

    first, again = run(), run(exp=int(time.time()) + 900)
    assert first.id == again.id
    assert again.header.ends > first.header.ends, "a fresh token of the job goes on with its run"
    assert isinstance(asked(world, first, "cloud.assume-deploy-role", DEPLOY, tool_call_id="a"), Allow)
    assert reasons(asked(world, run(), "cloud.assume-deploy-role", DEPLOY, tool_call_id="b")) == {Reason.LIMIT}
    assert len({first.id, run(run_attempt="2").id, run(run_id="78").id, run(sub="repo:acme/shop:ref:refs/heads/main").id}) == 4
    again.close()
    with pytest.raises(RunRefused, match="closed"):
        run()


def test_a_job_does_not_become_somebodys(world: World) -> None:
    run = world.gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=OIDCToken(world.job(run_id="79")), prompt="")
    with pytest.raises(RunRefused) as refused:
        run.renew(user=OIDCToken(world.acme.of_user("lee", tenant="acme-eu")))
    assert {failure.reason for failure in refused.value.failures} == {Reason.USER}
    assert run.header.user is None


def test_a_credential_without_an_id_of_its_own_has_one_run(world: World) -> None:
    text, other = world.svid(ORCHESTRATOR), world.svid(ORCHESTRATOR, exp=int(time.time()) + 290)

    def run(text: str) -> str:
        given: dict[str, Any] = {"tenant": "acme-uk", "user": None, "prompt": "", "once": True}
        return str(world.gate.open_run("orchestration.internal-dispatch", agent=JWTSVID(text), **given).id)

    assert run(text) == run(text) != run(other)


@pytest.mark.parametrize("more", [{"prompt": "deploy"}, {"agent": Agent("ci")}, {"user": User("lee", tenant="acme-eu")}], ids=str)
def test_a_run_that_somebody_asks_for_is_not_found_by_a_credential(world: World, more: Any) -> None:
    given = {"tenant": "acme-eu", "user": None, "agent": OIDCToken(world.job()), "prompt": "", **more}
    with pytest.raises(RunRefused, match="once"):
        world.gate.open_run("ci.deploy", once=True, **given)
    held = support(world)
    del held["key"]
    with pytest.raises(RunRefused, match="once"):
        world.gate.open_run("payments.customer-refund", tenant="acme-eu", once=True, **held)


@pytest.mark.parametrize(
    ("claims", "field"),
    [
        ({"repository": "mallory/shop"}, "agent.oidc.claims.repository"),
        ({"repository_id": "999"}, "agent.oidc.claims.repository_id"),
        ({"ref": "refs/heads/main-2"}, "agent.oidc.claims.ref"),
        ({"environment": "staging"}, "agent.oidc.claims.environment"),
        ({"environment": None}, "agent.oidc.claims.environment"),
        ({"event_name": "pull_request"}, "agent.oidc.claims.event_name"),
        ({"job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/x"}, "agent.oidc.claims.job_workflow_ref"),
        ({"runner_environment": "self-hosted"}, "agent.oidc.claims.runner_environment"),
        ({"ref": None}, "agent.oidc.ref"),
        ({"repository_id": 104857600}, "agent.oidc.repository_id"),
    ],
    ids=str,
)
def test_another_job_opens_no_run(world: World, claims: dict[str, Any], field: str) -> None:
    with pytest.raises(RunRefused) as error:
        world.gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=OIDCToken(world.job(**claims)), prompt="")
    assert [failure.field for failure in error.value.failures] == [field]


def test_a_job_opens_no_run_of_another_tenant(world: World) -> None:
    assert refused(world, "ci.deploy", tenant="acme-uk", agent=OIDCToken(world.job())) == {Reason.TENANT}
    assert refused(world, "ci.deploy", tenant="northwind", agent=OIDCToken(world.job())) == {Reason.AGENT}


def test_the_environment_is_the_jobs_by_its_claim(world: World) -> None:
    """A gate of staging mints nothing for production's jobs by being somewhere, and a production gate nothing for another environment."""
    settings = copy.deepcopy(world.settings)

    def answer(known: dict[str, str] | None, deployment: str) -> Any:
        settings["issuers"]["github"]["environment"] = known
        with world.opened(identity=settings, environment=deployment) as gate:
            run = gate.open_run("ci.deploy", tenant="acme-eu", user=None, agent=OIDCToken(world.job()), prompt="")
            return asked(world, run, "cloud.assume-deploy-role", DEPLOY)

    assert reasons(answer({"production": "staging"}, "prod")) == {Reason.ENVIRONMENT}
    assert reasons(answer({"elsewhere": "prod"}, "prod")) == {Reason.ENVIRONMENT}
    assert isinstance(answer({"production": "prod"}, "staging"), Allow)
    assert isinstance(answer(None, "prod"), Allow)  # nothing is said of jobs: the gate's own counts
    assert reasons(answer(None, "staging")) == {Reason.ENVIRONMENT}


# --- 3: a partner ---------------------------------------------------------------------------------------------------------------
QUERY = {"dataset": "northwind/orders/2026", "columns": ["order_ref", "sku"]}
THEIRS = Connection("203.0.113.9")


def partner(world: World, **claims: Any) -> Any:
    token = world.northwind.of_client("northwind-order-sync", **{"tenant": "northwind", **claims})
    return world.gate.open_run("partners.northwind-orders", tenant="northwind", user=None, agent=OIDCToken(token), prompt="")


def test_a_partner_reads_its_own_data_from_its_own_network(world: World) -> None:
    run = partner(world)
    assert run.header.agent.id == "northwind-order-sync"
    assert isinstance(asked(world, run, "datasets.query", QUERY, connection=THEIRS), Allow)
    behind = Connection("10.1.2.3", forwarded="6.6.6.6, 203.0.113.9")
    assert isinstance(asked(world, run, "datasets.query", QUERY, connection=behind), Allow)


@pytest.mark.parametrize(
    "connection",
    [
        None,
        Connection("203.0.114.1"),
        Connection("198.51.100.1", forwarded="203.0.113.9"),
        Connection("10.1.2.3", forwarded="203.0.113.9, 6.6.6.6"),
        Connection("10.1.2.3"),
        Connection("10.1.2.3", forwarded="203.0.113.9, unknown"),
        Connection("10.1.2.3", forwarded="203.0.113.9" + ", 10.0.0.1" * 64),
    ],
    ids=["none", "elsewhere", "a proxy nobody named", "behind somebody else", "the proxy itself", "unreadable", "without end"],
)
def test_a_partner_from_elsewhere_gets_nothing(world: World, connection: Connection | None) -> None:
    assert reasons(asked(world, partner(world), "datasets.query", QUERY, connection=connection)) == {Reason.NETWORK}


@pytest.mark.parametrize("dataset", ["northwind/orders/raw"])
def test_another_class_of_data_is_refused(world: World, dataset: str) -> None:
    assert reasons(asked(world, partner(world), "datasets.query", {**QUERY, "dataset": dataset}, connection=THEIRS)) == {Reason.DATA_CLASS}


def test_data_that_the_catalogue_does_not_know_is_refused(world: World, tmp_path: Path) -> None:
    catalogue = tmp_path / "data.toml"
    catalogue.write_text('[arguments]\n"datasets.query" = "dataset"\n[data_sets]\n"northwind/customers" = "personal"\n')
    with world.opened(data_classes=catalogue) as gate:
        token = world.northwind.of_client("northwind-order-sync", tenant="northwind")
        run = gate.open_run("partners.northwind-orders", tenant="northwind", user=None, agent=OIDCToken(token), prompt="")
        assert reasons(asked(world, run, "datasets.query", QUERY, connection=THEIRS)) == {Reason.DATA_CLASS}
        catalogue.write_text('[arguments]\n"datasets.query" = "dataset"\n[data_sets]\n"northwind/orders/*" = "pseudonymous"\n')
        gate._core.sources.data_class._looked = 0.0  # type: ignore[union-attr]  # a second later
        assert isinstance(asked(world, run, "datasets.query", QUERY, connection=THEIRS), Allow)


def failing(tool: str, args: Any) -> str:
    raise OSError("the catalogue is down")


@pytest.mark.parametrize("answer", [lambda tool, args: None, lambda tool, args: 7, lambda tool, args: "", failing])
def test_a_catalogue_that_does_not_know_is_a_refusal(world: World, answer: Any) -> None:
    with world.opened(data_classes=answer) as gate:
        token = world.northwind.of_client("northwind-order-sync", tenant="northwind")
        run = gate.open_run("partners.northwind-orders", tenant="northwind", user=None, agent=OIDCToken(token), prompt="")
        assert reasons(asked(world, run, "datasets.query", QUERY, connection=THEIRS)) == {Reason.DATA_CLASS}


def test_another_partner_or_client_opens_no_run(world: World) -> None:
    other = OIDCToken(world.northwind.of_client("northwind-order-sync", tenant="contoso"))
    assert refused(world, "partners.northwind-orders", tenant="northwind", agent=other) == {Reason.AGENT}
    client = OIDCToken(world.northwind.of_client("northwind-reports", tenant="northwind"))
    assert refused(world, "partners.northwind-orders", tenant="northwind", agent=client) == {Reason.AGENT}
    theirs = OIDCToken(world.northwind.of_client("northwind-order-sync", tenant="northwind"))
    assert refused(world, "ci.deploy", tenant="acme-eu", agent=theirs) == {Reason.AGENT}


def test_a_stolen_token_is_worth_nothing_without_its_key(world: World) -> None:
    key = Key("sync")
    token = world.northwind.of_client("northwind-order-sync", tenant="northwind", cnf={"jkt": key.thumbprint})
    given: dict[str, Any] = {"tenant": "northwind", "user": None, "prompt": ""}
    thief = Key("thief")
    for stolen in (OIDCToken(token), OIDCToken(token, **shown(thief, token)), OIDCToken(token, **shown(key, token + "x"))):
        with pytest.raises(RunRefused):
            world.gate.open_run("partners.northwind-orders", agent=stolen, **given)
    run = world.gate.open_run("partners.northwind-orders", agent=OIDCToken(token, **shown(key, token)), **given)
    assert run.header.agent.key == key.thumbprint


# --- 4: a service account ---------------------------------------------------------------------------------------------------------
REFRESH = {"account": "billing-exporter", "audience": "https://ledger.acme.example"}


def exporter(world: World, key: Key | None, **attested: Any) -> JWTSVID:
    token = world.svid(EXPORTER)
    proof = shown(key, token) if key is not None else {}
    return JWTSVID(token, attestation=world.envelope(EXPORTER, **attested), **proof)


def test_a_service_account_refreshes_inside_its_boundary_with_its_key(world: World) -> None:
    key, given = Key("exporter"), {"tenant": "acme-eu", "user": None, "prompt": ""}
    for _ in range(2):
        run = world.gate.open_run("identity.service-account-refresh", agent=exporter(world, key), **given)  # type: ignore[arg-type]  # as given
        assert isinstance(asked(world, run, "identity.refresh", REFRESH), Allow)
    run = world.gate.open_run("identity.service-account-refresh", agent=exporter(world, Key("thief")), **given)  # type: ignore[arg-type]  # as above
    assert reasons(asked(world, run, "identity.refresh", REFRESH)) == {Reason.BOUNDARY}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cluster": "eu-dev-1"}, Reason.POSTURE),
        ({"namespace": "shop"}, Reason.BOUNDARY),
        ({"node_pool": "spot"}, Reason.BOUNDARY),
        ({"expires_at": "2020-01-01T00:00:00Z"}, Reason.POSTURE),
        ({"attested_at": "2099-01-01T00:00:00Z"}, Reason.POSTURE),
        ({"attested_at": "yesterday"}, Reason.POSTURE),
    ],
    ids=str,
)
def test_a_service_account_elsewhere_opens_no_run(world: World, change: dict[str, Any], reason: Reason) -> None:
    assert refused(world, "identity.service-account-refresh", agent=exporter(world, Key("k"), **change)) == {reason}


def test_a_service_account_in_another_cluster_opens_no_run(world: World) -> None:
    token = world.svid(EXPORTER)
    elsewhere = JWTSVID(token, attestation=world.attested(EXPORTER, cluster="eu-prod-2"), **shown(Key("k"), token))
    assert refused(world, "identity.service-account-refresh", agent=elsewhere) == {Reason.BOUNDARY}


def test_a_service_account_without_its_key_opens_no_run(world: World) -> None:
    assert refused(world, "identity.service-account-refresh", agent=exporter(world, None)) == {Reason.BOUNDARY}


# --- 5: an orchestrator -------------------------------------------------------------------------------------------------------------
DISPATCH = {"queue": "reports", "job": "nightly-report", "scopes": ["jobs:read", "queues:read"]}
ORCHESTRATOR, SCHEDULER, API = (PROD + name for name in ("orchestrator", "scheduler", "api"))


def chain(world: World) -> list[str]:
    first = world.hop("scheduler", API, SCHEDULER)
    return [first, world.hop("api", ORCHESTRATOR, SCHEDULER, {"sub": API, "act": {"sub": SCHEDULER}})]


def test_an_orchestrator_starts_a_job_for_a_scheduler(world: World) -> None:
    agent = JWTSVID(world.svid(ORCHESTRATOR), delegation=chain(world))
    run = world.gate.open_run("orchestration.internal-dispatch", tenant="acme-uk", user=None, agent=agent, prompt="")
    assert run.header.agent.via == (SCHEDULER, API)
    assert isinstance(asked(world, run, "jobs.dispatch", DISPATCH), Allow)


def test_scopes_equal_to_the_static_role_are_refused(world: World) -> None:
    run = world.gate.open_run(
        "orchestration.internal-dispatch", tenant="acme-uk", user=None, agent=JWTSVID(world.svid(ORCHESTRATOR)), prompt=""
    )
    scopes = ["jobs:read", "jobs:dispatch", "jobs:cancel", "queues:read", "queues:write"]
    assert Reason.ROLE in reasons(asked(world, run, "jobs.dispatch", {**DISPATCH, "scopes": scopes}))


def test_a_hop_too_many_or_left_out_opens_no_run(world: World) -> None:
    act = {"sub": ORCHESTRATOR, "act": {"sub": API, "act": {"sub": SCHEDULER}}}
    longer = [*chain(world), world.hop("orchestrator", ORCHESTRATOR, SCHEDULER, act)]
    assert refused(world, "orchestration.internal-dispatch", agent=JWTSVID(world.svid(ORCHESTRATOR), delegation=longer)) == {Reason.HOPS}
    for left in (chain(world)[:1], chain(world)[1:], chain(world)[::-1], [chain(world)[1]] * 2):
        shorter = JWTSVID(world.svid(ORCHESTRATOR), delegation=left)
        assert refused(world, "orchestration.internal-dispatch", agent=shorter) == {Reason.HOPS}


def test_another_service_opens_no_run(world: World) -> None:
    assert refused(world, "orchestration.internal-dispatch", agent=JWTSVID(world.svid(API))) == {Reason.AGENT}
    stranger = JWTSVID(world.svid("spiffe://evil.example/ns/prod/sa/orchestrator"))
    assert refused(world, "orchestration.internal-dispatch", agent=stranger) == {Reason.AGENT}
