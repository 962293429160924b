"""Two issuers of one tenant that give somebody the same id: neither uses up what is the other's.

Where an id only refuses, all who have it are refused: a revocation of a name stops whoever has it, and nobody releases what their namesake
asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from agentgate import Agent, Allow, AnswerRefused, Deny, Gate, Reason, StepUp
from agentgate.cli.main import app
from agentgate.errors import AgentGateError
from agentgate.gate.holds import inbox as addressed
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.shell.drive import drive
from agentgate.stores import ops
from agentgate.values.refusal import AnswerCode, RunRefused
from agentgate.values.request import Boundary, User
from tests.authority import lasting, nonce_for
from tests.servers import Server, redis_binary
from tests.shop import ORDER, REFUND, looked_up, opened, reasons
from tests.test_account_key import ARGS, DEFINITION, ISSUER, WORKFLOWS, A, B, Key, later

HERE, THERE = "https://login.acme.example", "https://login.partner.example"
REFRESH, ANY = "identity.service-account-refresh", "identity.any"
DEAR = {**REFUND, "amount": "150.00"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(redis_binary(), tmp_path_factory.mktemp("redis"))
    yield started
    started.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True) as opened:
        opened.flushall()
        yield opened


def written(folder: Path) -> Path:
    """A workflow for the agents of each issuer, and one that takes whomever its host vouches for."""
    text = re.sub(" +spiffe: .*", "    WHO", (WORKFLOWS / "service-account-refresh.yaml").read_text())
    (folder / "w").mkdir()
    for name, issuer in (("here", HERE), ("there", THERE)):
        who = f'oidc: {{issuer: "{issuer}", claims: {{sub: {{is: "1"}}}}}}'
        (folder / "w" / f"{name}.yaml").write_text(text.replace("WHO", who).replace(REFRESH, f"identity.{name}"))
    any_agent = re.sub("    boundary:.*?\n\n", "\n", text.replace("WHO", "in_process: true"), flags=re.DOTALL)
    (folder / "w" / "any.yaml").write_text(any_agent.replace(REFRESH, "identity.any"))
    return folder / "w"


@pytest.fixture
def gate(server: Server, client: Any, tmp_path: Path) -> Iterator[Gate]:
    given: Any = {"issuer": ISSUER, "audit": "memory://", "store": server.url, "environment": "prod"}
    with Gate.open_unsafe_unapproved(written(tmp_path), **given) as made:
        yield made


def asked(gate: Gate, issuer: str, key: Key, workflow: str = "") -> Any:
    where = Boundary("eu-prod-1", "billing", "confidential", key.name)
    agent = proven_agent("exporter", issuer=issuer, subject="1", claims={"sub": "1"}, boundary=where)
    workflow = workflow or ("identity.here" if issuer == HERE else "identity.there")
    run = gate.open_run(workflow, tenant="acme-eu", user=None, agent=lasting(agent), prompt="refresh")
    return run.authorize("identity.refresh", ARGS, definition=DEFINITION)


def refused(gate: Gate, issuer: str, key: Key) -> bool:
    answer = asked(gate, issuer, key)
    return isinstance(answer, Deny) and answer.reasons == (Reason.BOUNDARY,)


def test_an_issuers_account_records_its_key_and_no_namesakes(gate: Gate) -> None:
    """The partner's "exporter" came first: the own one was refused for ever after."""
    assert isinstance(asked(gate, THERE, B), Allow)
    assert isinstance(asked(gate, HERE, A), Allow)
    assert refused(gate, HERE, B)
    assert refused(gate, THERE, A)


def test_a_change_of_key_is_of_one_issuers_account(gate: Gate, tmp_path: Path, server: Server) -> None:
    new = Key()
    assert isinstance(asked(gate, HERE, A), Allow)
    assert isinstance(asked(gate, THERE, B), Allow)
    for issuer in (THERE, ""):
        with pytest.raises(RunRefused, match="by another key"):
            gate.rotate_key(A.says(new, iat=later()), issuer=issuer)
    assert gate.rotate_key(A.says(new, iat=later()), issuer=HERE) == "exporter"
    assert isinstance(asked(gate, HERE, new), Allow)
    assert isinstance(asked(gate, THERE, B), Allow)
    lee = User("lee", tenant="acme-eu")
    gate.release_key("exporter", issuer=THERE, tenant="acme-eu", key=A.name, by=lee, reason="lost")
    assert refused(gate, THERE, B)
    assert isinstance(asked(gate, HERE, new), Allow)
    said = ["store", "release-key", "--store", server.url, "--audit", str(tmp_path / "ops"), "--tenant", "acme-eu", "--account", "exporter"]
    done = CliRunner().invoke(app, [*said, "--key", B.name, "--reason", "found", "--issuer", THERE])
    assert done.exit_code == 0, done.output
    assert isinstance(asked(gate, THERE, B), Allow)


def test_the_key_that_an_earlier_version_recorded_counts_for_whoever_has_the_name(gate: Gate, client: Any) -> None:
    client.set("ag:{acme-eu}:lastkey:exporter", f"1 {A.name}")
    assert refused(gate, HERE, B)
    assert refused(gate, THERE, B)
    assert isinstance(asked(gate, HERE, A), Allow)
    client.set("ag:{acme-eu}:lastkey:exporter", f"1 {B.name}")
    assert refused(gate, HERE, B)  # it has a record of its own by now
    gate.release_key("exporter", issuer=THERE, tenant="acme-eu", key=B.name, by=User("lee", tenant="acme-eu"), reason="their own")
    assert isinstance(asked(gate, THERE, B), Allow)
    assert gate.rotate_key(A.says(B, iat=later()), issuer=HERE) == "exporter"
    client.set("ag:{acme-eu}:lastkey:exporter", f"1 {A.name}")
    assert refused(gate, HERE, A)  # its own record counts from then on


def test_an_earlier_record_hands_over_to_a_new_key(gate: Gate, client: Any) -> None:
    client.set("ag:{acme-eu}:lastkey:exporter", f"1 {A.name}")
    assert gate.rotate_key(A.says(B, iat=later()), issuer=HERE) == "exporter"
    assert refused(gate, HERE, A)
    assert isinstance(asked(gate, HERE, B), Allow)


def test_what_a_store_has_lost_of_a_key_is_written_again_for_its_issuers_account(server: Server, client: Any, tmp_path: Path) -> None:
    audit = str(tmp_path / "audit")
    given: Any = {"issuer": ISSUER, "audit": audit, "store": server.url, "environment": "prod", "keys": tmp_path / "keys"}
    with Gate.open_unsafe_unapproved(written(tmp_path), **given) as gate:
        gate.release_key("exporter", issuer=HERE, tenant="acme-eu", key=B.name, by=User("ana", tenant="acme-eu"), reason="rotated")
        client.flushall()
        assert not isinstance(asked(gate, HERE, A), Allow)
    store = ["--store", server.url, "--audit", audit]
    assert CliRunner().invoke(app, ["store", "reconcile", *store, "--tenant", "acme-eu"]).exit_code == 0
    assert client.keys("ag:{acme-eu}:lastkey:*") == [f"ag:{{acme-eu}}:lastkey:exporter\n{HERE}"]
    with Gate.open_unsafe_unapproved(tmp_path / "w", **given) as gate:
        assert refused(gate, HERE, A)
        assert isinstance(asked(gate, HERE, B), Allow)


def test_a_limit_of_an_agent_is_of_one_issuers_agent(gate: Gate) -> None:
    for _ in range(12):
        assert isinstance(asked(gate, THERE, B, ANY), Allow)
    assert asked(gate, THERE, B, ANY).reasons == (Reason.LIMIT,)
    assert isinstance(asked(gate, HERE, A, ANY), Allow)


def test_what_an_earlier_version_counted_of_an_agent_counts_for_whoever_has_the_name(gate: Gate, client: Any) -> None:
    assert isinstance(asked(gate, HERE, A, ANY), Allow)
    (own,) = [key for key in client.keys("ag:{acme-eu}:limit:*") if key.endswith(HERE)]
    before = own.partition("\n")[0]
    bucket = next(name for name in client.hgetall(own) if name.isdigit())
    client.hset(before, mapping={"total": 10, "first": bucket, bucket: 10})
    assert isinstance(asked(gate, HERE, A, ANY), Allow)
    assert asked(gate, HERE, A, ANY).reasons == (Reason.LIMIT,)
    assert isinstance(asked(gate, THERE, B, ANY), Allow)
    client.hset(before, mapping={"first": int(bucket) - 100, str(int(bucket) - 100): 5, bucket: 5})  # half of it left the hour
    assert isinstance(asked(gate, HERE, A, ANY), Allow)
    assert client.hget(before, "total") == "5"
    name = own.removeprefix("ag:{acme-eu}:limit:")
    shown = ops.read_limits("acme-eu", "run_1", (ops.LimitTake(name, 1, 12, 3_600_000),))
    shell: Any = gate
    assert shown.parse(shell._store.call(shown, time.monotonic() + 1)) == (8,)


def lee(issuer: str, group: str = "support") -> Any:
    return lasting(proven_user("lee", tenant="acme", groups=(group,), issuer=issuer, subject="lee"))


def run_of(gate: Gate, issuer: str) -> Any:
    return gate.open_run("shop.refund", tenant="acme", user=lee(issuer), agent=Agent("bot"), prompt=f"{PROMPT} or 150.00 EUR")


PROMPT = "Please refund 39.99 EUR for order ORD-10023344, it arrived broken"


def test_the_runs_of_an_hour_are_of_one_issuers_user(folder: Path, server: Server, client: Any) -> None:
    with opened(folder, store=server.url, runs_per_hour=2) as gate:
        for _ in range(2):
            run_of(gate, THERE)
        with pytest.raises(RunRefused, match=f"2 in an hour of user lee of {THERE} in acme"):
            run_of(gate, THERE)
        run_of(gate, HERE)
        own = next(key for key in client.keys("ag:{acme}:runs:*") if client.hget(key, "total") == "1")
        before = own.partition("\n")[0]
        client.rename(own, before)  # as an earlier version counted it
        run_of(gate, HERE)
        with pytest.raises(RunRefused):
            run_of(gate, HERE)
        bucket = next(name for name in client.hgetall(before) if name.isdigit())
        client.delete(before)
        client.hset(before, mapping={"total": 1, "first": int(bucket) - 100, str(int(bucket) - 100): 1})  # more than an hour ago
        run_of(gate, HERE)


def held(gate: Gate, issuer: str) -> Any:
    run = run_of(gate, issuer)
    looked_up(run, total="200.00")
    return run, run.authorize("payments.refund", DEAR, tool_call_id="pay")


def test_the_holds_that_wait_are_of_one_issuers_user(folder: Path) -> None:
    with opened(folder, open_holds_per_run=1) as gate:
        for _ in range(50):
            assert isinstance(held(gate, THERE)[1], StepUp)
        assert reasons(held(gate, THERE)[1]) == {Reason.TOO_MANY_HOLDS}
        assert isinstance(held(gate, HERE)[1], StepUp)


def test_nobody_releases_what_a_namesake_asked_for_nor_sees_it(folder: Path) -> None:
    with opened(folder) as gate:
        run, answer = held(gate, HERE)
        by = lasting(lee(THERE, "leads").who, nonce_for(gate, answer.hold.id, "acme"))
        with pytest.raises(AnswerRefused) as got:
            gate.release(answer.hold.id, tenant="acme", by=by)
        assert got.value.code == AnswerCode.APPROVER
        assert not seen(gate, run, answer, THERE, "lee")


def seen(gate: Gate, run: Any, answer: Any, issuer: str, name: str) -> bool:
    """Whether a lead of this issuer and name is shown a hold."""
    who = proven_user(name, tenant="acme", groups=("leads",), issuer=issuer)
    shell: Any = gate
    try:
        drive(addressed.addressed_one(shell._core, "acme", answer.hold.id, who), shell._store, shell._audit)
    except AnswerRefused:
        return False
    return True


def test_a_hold_whose_run_is_over_is_shown_to_who_said_yes_and_to_no_namesake(folder: Path) -> None:
    with opened(folder) as gate:
        run, answer = held(gate, HERE)
        boss = proven_user("boss", tenant="acme", groups=("leads",), issuer=HERE)
        gate.release(answer.hold.id, tenant="acme", by=lasting(boss, nonce_for(gate, answer.hold.id, "acme")))
        assert [seen(gate, run, answer, issuer, "boss") for issuer in (HERE, THERE)] == [True, True]  # each is a lead, who may answer
        run.close()
        shell: Any = gate
        shell._store._client.delete(f"ag:{{acme}}:run:{run.id}")
        assert [seen(gate, run, answer, issuer, "boss") for issuer in (HERE, THERE)] == [True, False]


@pytest.mark.parametrize("kind", ["user", "agent"])
def test_a_revocation_of_a_name_stops_whoever_has_it(folder: Path, kind: Any) -> None:
    with opened(folder) as gate:
        runs = [run_of(gate, issuer) for issuer in (HERE, THERE)]
        gate.revoke(f"{kind}:{'lee' if kind == 'user' else 'bot'}", tenants=["acme"], by="ops", reason="stolen")
        for run in runs:
            assert Reason.REVOKED in reasons(run.authorize("orders.get", ORDER, tool_call_id="look"))
        for issuer in (HERE, THERE):
            with pytest.raises(AgentGateError):
                run_of(gate, issuer)
