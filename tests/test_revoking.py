"""Revocations from a gate and from the command line: on record, applied, in force, listed, lifted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate import Agent, Allow, AsyncGate, Gate, Reason, TokenRefused
from agentgate.audit import MemoryAudit, read_records
from agentgate.cli.main import app
from agentgate.errors import AgentGateError, AuditUnavailable, Refusal, StoreUnavailable
from agentgate.gate.open_run import MAX_PROVEN_TTL, MAX_TTL
from agentgate.gate.revoking import LIFE
from agentgate.values.refusal import RunRefused
from tests.approvals_team import ALICE, BOB, ID, Team
from tests.servers import Server, redis_binary
from tests.shop import LEE, ORDER, PROMPT, WEEKDAY, opened, reasons, run_of
from tests.test_gate_open import opened as opened_approved

SAID: dict[str, Any] = {"by": "ana", "reason": "INC-2041"}
WHERE: dict[str, Any] = {"tenants": ["acme"], **SAID}


def looking(run: Any, call: str = "look") -> Any:
    return run.authorize("orders.get", ORDER, tool_call_id=call)


def records(gate: Gate) -> list[dict[str, Any]]:
    log = gate._audit
    assert isinstance(log, MemoryAudit)
    return [dict(record) for record in log.records]


# what it stops


@pytest.mark.parametrize("kind", ["token", "run", "agent", "user", "tool", "workflow", "tenant"])
def test_what_is_revoked_neither_redeems_nor_mints_and_does_again_once_lifted(gate: Gate, kind: str) -> None:
    run = run_of(gate)
    out = looking(run)
    jti = out.token.jti
    subject = {"token": jti, "run": run.id, "agent": "bot", "user": "lee", "tool": "orders.get", "workflow": "shop.refund@1", "tenant": "*"}
    name = f"{kind}:{subject[kind]}"
    done = gate.revoke(name, **WHERE)
    assert (done.name, done.tenants, done.lacking, done.unknown) == (name, ("acme",), (), ())
    assert done.in_force_at is not None
    assert done.in_force_at <= time.time()
    with pytest.raises(TokenRefused) as refused:
        run.redeem(out.token, tool="orders.get", args=ORDER)
    assert refused.value.code is Refusal.REVOKED
    if kind != "token":
        assert reasons(looking(run, "again")) == {Reason.REVOKED}
    (listed,) = gate.revocations("acme")
    assert (listed.name, listed.by, listed.reason, listed.before, listed.signed) == (name, "ana", "INC-2041", None, False)
    assert gate.lift(name, **WHERE) == {"acme": "lifted"}
    assert gate.revocations("acme") == ()
    assert isinstance(looking(run, "third"), Allow)


@pytest.mark.parametrize("kind", ["user", "agent", "workflow", "tenant"])
def test_who_is_revoked_opens_no_run_until_it_is_lifted(gate: Gate, kind: str) -> None:
    header = run_of(gate).header
    named = {"user": header.user.id, "agent": header.agent.id, "workflow": f"{header.workflow}@{header.version}", "tenant": "*"}
    name = f"{kind}:{named[kind]}"
    gate.revoke(name, tenants=["acme"], by="ana", reason="INC-1", before=datetime.now(UTC))
    run_of(gate)  # what is opened since is not meant
    gate.revoke(name, tenants=["acme"], by="ana", reason="INC-1")
    with pytest.raises(RunRefused) as refused:
        run_of(gate)
    assert [each.reason for each in refused.value.failures] == [Reason.REVOKED]
    assert (records(gate)[-1]["type"], records(gate)[-1]["reasons"][0]["reason"]) == ("run_refused", "revoked")
    gate.lift(name, tenants=["acme"], by="ana", reason="INC-1 is closed")
    run_of(gate)


def test_every_spelling_of_a_user_is_revoked(gate: Gate) -> None:
    run = run_of(gate)
    gate.revoke("user:LEE", **WHERE)
    assert reasons(looking(run)) == {Reason.REVOKED}


def test_a_time_stops_what_was_open_then_and_nothing_newer(gate: Gate) -> None:
    old = run_of(gate)
    time.sleep(0.01)
    when = datetime.now(UTC)
    time.sleep(0.01)
    new = run_of(gate)
    out = looking(old)
    gate.revoke("agent:bot", before=when, **WHERE)
    with pytest.raises(TokenRefused):  # minted later, in a run that was open then
        old.redeem(out.token, tool="orders.get", args=ORDER)
    assert reasons(looking(old, "again")) == {Reason.REVOKED}
    assert isinstance(looking(new), Allow)
    (listed,) = gate.revocations("acme")
    assert listed.before == pytest.approx(when.timestamp(), abs=0.001)


@pytest.mark.parametrize(("name", "more", "ends"), [
    ("token:" + "a" * 32, {}, True),
    ("run:run_1", {}, True),
    ("user:lee", {"before": datetime(2026, 1, 1, tzinfo=UTC)}, True),
    ("user:lee", {}, False),
    ("tenant:*", {}, False),
    ("workflow:shop.refund@1", {}, False),
])  # fmt: skip
def test_tokens_runs_and_times_end_after_the_longest_run_and_the_rest_when_lifted(
    gate: Gate, name: str, more: dict[str, Any], ends: object
) -> None:
    gate.revoke(name, **WHERE, **more)
    (listed,) = gate.revocations("acme")
    assert listed.until == (pytest.approx(time.time() + LIFE, abs=5) if ends else None)
    assert max(MAX_TTL, MAX_PROVEN_TTL) < LIFE


def test_one_that_spans_tenants_is_in_each(gate: Gate) -> None:
    assert gate.every_tenant() == ("acme", "other")
    run = run_of(gate, tenant="acme", user=LEE)
    done = gate.revoke("agent:bot", tenants=gate.every_tenant(), **SAID)
    assert done.tenants == ("acme", "other")
    for tenant in ("acme", "other"):
        assert [each.name for each in gate.revocations(tenant)] == ["agent:bot"]
    assert reasons(looking(run)) == {Reason.REVOKED}
    assert gate.revoke("agent:bot", tenants=["acme", "amce"], **SAID).unknown == ("amce",)


def test_a_long_list_is_whole(gate: Gate) -> None:
    names = {f"user:u{n}" for n in range(503)}
    for name in names:
        gate.revoke(name, **WHERE)
    assert {each.name for each in gate.revocations("acme")} == names


# on record first


def test_each_is_on_record_before_it_is_written(gate: Gate) -> None:
    gate.revoke("user:lee", **WHERE)
    gate.lift("user:lee", tenants=["acme"], by="bob", reason="closed")
    said = [record for record in records(gate) if record["type"] in {"revocation", "lifting"}]
    assert [(each["type"], each["name"], each["tenant"], each["by"], each["reason"]) for each in said] == [
        ("revocation", "user:lee", "acme", "ana", "INC-2041"),
        ("lifting", "user:lee", "acme", "bob", "closed"),
    ]


def test_without_a_record_nothing_is_revoked_or_lifted(folder: Path) -> None:
    with opened(folder, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        gate.revoke("user:lee", **WHERE)
        gate._audit.close()
        for change in (lambda: gate.revoke("agent:bot", tenants=["acme", "other"], **SAID), lambda: gate.lift("user:lee", **WHERE)):
            with pytest.raises(AuditUnavailable):
                change()
        assert [each.name for each in gate.revocations("acme")] == ["user:lee"]
        assert gate.revocations("other") == ()


@pytest.mark.parametrize(("name", "more"), [
    ("lee", {}),
    ("", {}),
    ("users:lee", {}),
    ("user:", {}),
    ("user: lee", {}),
    ("user:le\u200be", {}),
    ("token:not an id", {}),
    ("workflow:shop.refund", {}),
    ("workflow:shop.refund@v1", {}),
    ("workflow:shop.refund@01", {}),
    ("workflow:@1", {}),
    ("workflow:1", {}),
    ("workflow:shop.refund@", {}),
    ("workflow:shop.refund@\u0661", {}),
    ("workflow:shop.\u200brefund@1", {}),
    ("owner:lee", {}),
    ("tenant:other", {}),
    ("tenant:acme", {"tenants": ["acme", "other"]}),
    (None, {}),
    ("user:lee", {"tenants": []}),
    ("user:lee", {"tenants": "acme"}),
    ("user:lee", {"tenants": ["acme", "a{b}"]}),
    ("user:lee", {"by": ""}),
    ("user:lee", {"reason": ""}),
    ("user:lee", {"reason": "a\nb"}),
    ("user:lee", {"before": datetime(2026, 1, 1)}),
    ("user:lee", {"before": datetime(2999, 1, 1, tzinfo=UTC)}),
    ("user:lee", {"before": 5}),
    ("user:lee", {"before": datetime(1970, 1, 1, tzinfo=UTC)}),  # the store's word for every time
    ("user:lee", {"before": datetime(1960, 1, 1, tzinfo=UTC)}),
    ("run:run_1", {"before": datetime(2026, 1, 1, tzinfo=UTC)}),
])  # fmt: skip
def test_what_would_stop_nothing_or_says_too_little_is_refused_and_not_on_record(gate: Gate, name: Any, more: dict[str, Any]) -> None:
    with pytest.raises(AgentGateError):
        gate.revoke(name, **{**WHERE, **more})
    assert not [record for record in records(gate) if record["type"] == "revocation"]
    assert gate.revocations("acme") == ()


async def test_awaited_it_is_the_same(folder: Path) -> None:
    async with await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: WEEKDAY
    ) as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        done = await gate.revoke("user:lee", **WHERE)
        assert done.in_force_at is not None
        assert reasons(await run.authorize("orders.get", ORDER, tool_call_id="look")) == {Reason.REVOKED}
        assert [each.name for each in await gate.revocations("acme")] == ["user:lee"]
        assert await gate.lift("user:lee", **WHERE) == {"acme": "lifted"}


def test_what_reviewers_revoked_is_listed_with_them_and_not_lifted(tmp_path: Path) -> None:
    team = Team(tmp_path)
    team.approve(ALICE, BOB)
    with opened_approved(team) as gate:
        team.revoke(1)
        gate.reload()
        (listed,) = gate.revocations("acme")
        assert (listed.name, listed.signed, listed.by) == (f"workflow:{ID}@1", True, "reviewers")
        assert gate.lift(listed.name, **WHERE) == {"acme": "signed"}
        loaded = [record for record in read_records(tmp_path / "audit") if record["type"] == "workflows_loaded"]
        assert [record["revoked"] for record in loaded] == [[], [f"{ID}@1"]]
        gate._audit.close()
        team.revoke(2)
        with pytest.raises(AuditUnavailable):
            gate.reload()


# replicas


def asked_for(server: Server, lag: str) -> str:
    """The URL with one replica, on a server that stops without it after so many seconds."""
    for name, value in (("min-replicas-to-write", "1"), ("min-replicas-max-lag", lag)):
        server.command("CONFIG", "SET", name, value)
    return server.url + "?replicas=1"


def test_it_is_in_force_when_the_replica_has_it_and_a_lost_primary_has_stopped(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server")
    try:
        with server.replica(folder / "replica") as replica, opened(folder, store=asked_for(server, "10")) as gate:
            done = gate.revoke("user:lee", **WHERE)
            assert done.in_force_at == pytest.approx(time.time() + 12, abs=1)
            replica.pause()
            try:
                late = gate.revoke("agent:bot", patience=1.0, **WHERE)  # tried several times: a WAIT without a write would confirm it
                assert late.in_force_at is None
                assert "acme: " in late.lacking[0]
                assert "applied, not confirmed" in late.lacking[0]
                assert {each.name for each in gate.revocations("acme")} == {"user:lee", "agent:bot"}
            finally:
                replica.resume()
            again = gate.revoke("agent:bot", **WHERE)
            assert again.in_force_at is not None
            server.command("ACL", "SETUSER", "default", "-config|get")
            with opened(folder, store=server.url + "?replicas=1") as other:
                unknown = other.revoke("agent:bot", **WHERE)
                assert unknown.in_force_at is None
                assert "min-replicas-max-lag" in unknown.lacking[-1]
    finally:
        server.stop()


def test_a_store_that_does_not_answer_is_an_error_that_says_where_it_is_applied(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"applied in: nowhere; not known to be in: acme .*, other"):
                gate.revoke("agent:bot", tenants=["acme", "other"], patience=0.3, **SAID)
            with pytest.raises(StoreUnavailable, match="Lift it again"):
                gate.lift("agent:bot", **WHERE)
    finally:
        server.stop()


# the command


class Shop:
    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, Server(redis_binary(), folder / "server")
        self.gate = opened(folder, store=self.server.url, audit=str(folder / "audit"), keys=folder / "keys")

    def revoke(self, *words: str, tenant: str = "acme", reason: str = "INC-2041") -> Any:
        given = ("--store", self.server.url, "--audit", str(self.folder / "operator"), "--tenant", tenant, "--reason", reason)
        return CliRunner().invoke(app, ["revoke", *words, *given])

    def close(self) -> None:
        self.gate.close()
        self.server.stop()


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    shop = Shop(folder)
    yield shop
    shop.close()


def test_a_person_revokes_lists_and_lifts(shop: Shop) -> None:
    run = run_of(shop.gate)
    done = shop.revoke("user:lee", "--by", "ana")
    assert (done.exit_code, done.stdout.splitlines()) == (0, ["applied: user:lee in acme", "in force: user:lee in acme"])
    assert reasons(looking(run)) == {Reason.REVOKED}
    shown = shop.revoke("--list")
    assert shown.exit_code == 0
    assert "user:lee  everything  when lifted" in shown.stdout
    assert "ana  INC-2041" in shown.stdout
    assert (shop.revoke("user:lee", "--lift").exit_code, shop.revoke("user:lee", "--lift").exit_code) == (0, 2)
    assert shop.revoke("--list").stdout == "nothing is revoked\n"
    assert isinstance(looking(run, "again"), Allow)
    kinds = [record["type"] for record in read_records(shop.folder / "operator")]
    assert kinds == ["revocation", "revocation_applied", "lifting", "lifting"]


def test_store_and_tenant_are_those_of_the_environment_where_none_are_named(shop: Shop) -> None:
    given = ("--audit", str(shop.folder / "operator"), "--reason", "INC-2041")
    env = {"AGENTGATE_STORE": shop.server.url, "AGENTGATE_TENANT": "acme"}
    done = CliRunner().invoke(app, ["revoke", "user:lee", *given], env=env)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "applied: user:lee in acme")
    other = CliRunner().invoke(app, ["revoke", "user:kim", *given, "--tenant", "other"], env=env)
    assert (other.exit_code, other.stdout.splitlines()[0]) == (0, "applied: user:kim in other")


def test_json_tells_applied_and_in_force_apart(shop: Shop) -> None:
    done = json.loads(shop.revoke("agent:bot", "--before", "now", "--json").stdout)
    assert (done["applied"], done["in_force"], done["lacking"]) == (["acme"], True, [])
    (listed,) = json.loads(shop.revoke("--list", "--json").stdout)
    assert listed["before"] == pytest.approx(time.time(), abs=5)


def test_all_tenants_are_those_of_workflows_that_load(shop: Shop) -> None:
    workflows = str(shop.folder / "w")
    assert shop.revoke("agent:bot", tenant="all").exit_code == 1
    assert "in acme, other" in shop.revoke("agent:bot", "--workflows", workflows, tenant="all").stdout
    (shop.folder / "w" / "bad.yaml").write_text("nothing")
    refused = shop.revoke("agent:bot", "--workflows", workflows, tenant="all")
    assert (refused.exit_code, "bad.yaml" in refused.stderr) == (1, True)


def test_a_tenant_nobody_knows_is_said(shop: Shop) -> None:
    done = shop.revoke("agent:bot", "--workflows", str(shop.folder / "w"), tenant="amce")
    assert (done.exit_code, "amce: is that spelt right?" in done.stderr) == (0, True)


@pytest.mark.parametrize("words", [
    ("revoke",),
    ("revoke", "user:lee"),
    ("revoke", "user:lee", "--list", "--store", "redis://127.0.0.1:1", "--audit", "a", "--tenant", "acme"),
    ("revoke", "user:lee", "--store", "memory://", "--audit", "a", "--tenant", "acme", "--reason", "x"),
    ("revoke", "user:lee", "--store", "redis://127.0.0.1:1", "--audit", "a", "--tenant", "acme", "--reason", "x"),
    ("revoke", "user:lee", "--store", "redis://127.0.0.1:1", "--audit", "a", "--tenant", "acme"),
])  # fmt: skip
def test_too_little_is_an_error(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, list(words))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr


def test_a_time_that_is_none_is_an_error(shop: Shop) -> None:
    for when in ("yesterday", "2026-01-01T00:00:00", "2999-01-01T00:00:00Z"):
        assert shop.revoke("user:lee", "--before", when).exit_code == 1


def test_each_help_says_which_revoke_is_which() -> None:
    one = CliRunner().invoke(app, ["revoke", "--help"]).stdout
    other = CliRunner().invoke(app, ["workflow", "revoke", "--help"]).stdout
    assert "agentgate workflow revoke" in " ".join(one.split())
    assert "agentgate revoke" in " ".join(other.split())
