"""A store that has lost a part of its history pays nothing twice: on real servers, after crashes, failovers and flushes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from agentgate import Allow, Gate, Reason, StepUp, TokenRefused, Verifier
from agentgate.audit import FileAudit, read_records, remembered
from agentgate.cli.main import app
from agentgate.errors import Refusal
from agentgate.gate.runs import LIMIT, Issued
from agentgate.stores import open_store, ops, server_id
from agentgate.stores._op import History
from agentgate.token.dpop import DPoP
from tests.servers import Server, as_tool_server, redis_binary, valkey_binary
from tests.shop import BOSS, LEE, REFUND, WORKFLOW, looked_up, opened, reasons, run_of

BIG = {**REFUND, "amount": "150.00"}
EPOCH = "0" * 40 + ".1"


class Shop:
    """A gate, its tool server and their store, each of which may end and come back."""

    def __init__(self, folder: Path, binary: str, workflow: str = WORKFLOW, *, durable: bool = False) -> None:
        (folder / "w").mkdir()
        (folder / "w" / "refund.yaml").write_text(workflow)
        self.folder, self.server, self._ending = folder, Server(binary, folder / "server", durable=durable), ExitStack()
        self._ending.callback(self.server.stop)
        self.gate = self.opened()

    def opened(self, name: str = "gate", store: str = "", **more: Any) -> Gate:
        """A gate process of this name: opened again, it has its audit log and nothing else."""
        settings = more | {"keys": self.folder / "keys", "audit": str(self.folder / name)}
        return self._ending.enter_context(opened(self.folder, store=store or self.server.url, **settings))

    def verifier(self, name: str = "tool") -> Verifier:
        """The same for a tool server."""
        url = self.gate.issuer
        audit = str(self.folder / name)
        verifier = Verifier.open(
            self.gate.jwks(), issuer=url, audience=url, tenants=["acme"], audit=audit, store=as_tool_server(self.server.url, url)
        )
        self._ending.callback(verifier.close)
        return verifier

    def lost(self, after: Any) -> None:
        """Take a snapshot (or a copy of the file), do something, and lose what came after that."""
        self.server.command("SAVE")
        file, copy = self.server.folder / "appendonlydir", self.folder / "copy"
        if file.exists():
            shutil.copytree(file, copy)
        after()
        self.server.kill()
        if copy.exists():
            shutil.rmtree(file)
            copy.rename(file)
        self.server.start()

    def reconcile(self, *logs: str, accept: str = "") -> tuple[int, list[dict[str, Any]]]:
        """Exit code and findings of ``agentgate store reconcile``."""
        given = [word for name in logs for word in ("--audit", str(self.folder / name))]
        accepted = ["--accept-loss", accept] if accept else []
        done = CliRunner().invoke(app, ["store", "reconcile", "--store", self.server.url, *given, *accepted, "--json"])
        return done.exit_code, json.loads(done.stdout)

    def close(self) -> None:
        self._ending.close()


@pytest.fixture(params=[(redis_binary, False), (valkey_binary, False)], ids=["redis", "valkey"])
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    binary, durable = request.param
    shop = Shop(tmp_path, binary(), durable=durable)
    yield shop
    shop.close()


def paid(run: Any, call: str = "pay", args: Any = REFUND) -> None:
    """A refund that is allowed and executed."""
    answer = run.authorize("payments.refund", args, tool_call_id=call)
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool="payments.refund", args=args):
        pass


def asked(run: Any, call: str = "pay", args: Any = REFUND) -> set[Reason]:
    """Why a refund is refused."""
    return reasons(run.authorize("payments.refund", args, tool_call_id=call))


def started(gate: Gate) -> Any:
    run = run_of(gate)
    looked_up(run)
    return run


# what is lost


def test_a_paid_call_is_not_paid_again_from_an_older_snapshot(shop: Shop) -> None:
    run = started(shop.gate)
    shop.lost(lambda: paid(run))
    here, elsewhere = {Reason.OUTCOME_UNKNOWN}, {Reason.RUN_ELSEWHERE}
    handles = [(shop.opened().resume_run("acme", run.id), elsewhere), (run, here), (shop.gate.resume_run("acme", run.id), here)]
    for handle, refused in handles:
        assert asked(handle) == refused
        assert asked(handle, "another") == refused
        looked_up(handle, call=f"look {id(handle)}")  # reads go on


def test_a_gate_that_comes_back_remembers_by_its_log_alone(shop: Shop) -> None:
    run = started(shop.gate)
    shop.lost(lambda: paid(run))
    shop.gate.close()
    assert asked(started(shop.opened())) == {Reason.OUTCOME_UNKNOWN}


def test_a_gate_that_saw_nothing_is_stopped_by_what_another_noticed(shop: Shop) -> None:
    run = started(shop.gate)
    shop.lost(lambda: paid(run))
    assert asked(run, "another") == {Reason.OUTCOME_UNKNOWN}
    assert asked(started(shop.opened("second"))) == {Reason.OUTCOME_UNKNOWN}


def test_a_count_that_has_risen_again_hides_no_loss(shop: Shop) -> None:
    run = started(shop.gate)
    paid(run, "before")
    shop.lost(lambda: paid(run))
    second = shop.opened("second")  # it remembers nothing, so it stops at nothing
    for _ in range(3):
        paid(started(second))
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    assert asked(started(second)) == {Reason.OUTCOME_UNKNOWN}
    code, ((found),) = shop.reconcile("gate", "second")
    assert (code, found["replayed"]) == (0, 1)
    assert asked(run) == {Reason.ALREADY_REDEEMED}


def test_a_lagging_failover_pays_nothing_again(shop: Shop) -> None:
    with shop.server.replica(shop.folder / "replica") as replica:
        run = started(shop.gate)
        replica.follows(shop.server)
        replica.command("REPLICAOF", "NO", "ONE")  # promoted with what it has; what follows never reached it
        paid(run)
        resumed = shop.opened(store=replica.url).resume_run("acme", run.id)
        assert asked(resumed) == {Reason.RUN_ELSEWHERE}
        shop.server.kill()
        replica.takes_over(shop.server)
        assert asked(run) == {Reason.OUTCOME_UNKNOWN}


def test_a_flushed_store_is_noticed_though_its_lineage_stays(shop: Shop) -> None:
    paid(started(shop.gate))
    shop.server.command("FLUSHALL")
    for _ in range(2):
        assert asked(started(shop.gate)) == {Reason.OUTCOME_UNKNOWN}


def test_a_release_that_came_back_is_not_spent_twice(shop: Shop) -> None:
    run = started(shop.gate)
    held = run.authorize("payments.refund", BIG, tool_call_id="pay")
    assert isinstance(held, StepUp)
    shop.gate.release(held.hold.id, tenant="acme", by=BOSS)
    shop.lost(lambda: run.authorize("payments.refund", BIG, tool_call_id="pay"))  # spent, and not even redeemed
    assert asked(run, args=BIG) == {Reason.OUTCOME_UNKNOWN}


def test_a_forgotten_revocation_is_noticed_by_who_saw_what_followed(shop: Shop) -> None:
    run = started(shop.gate)

    def revoked() -> None:
        store = open_store(shop.server.url)
        store.call(ops.revoke("acme", "user", "somebody"), time.monotonic() + 1)
        store.close()
        assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="seen"), Allow)

    shop.lost(revoked)
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}


def test_a_tool_server_that_saw_a_redemption_refuses_the_same_act_of_a_gate_that_did_not(shop: Shop) -> None:
    run = started(shop.gate)
    verifier = shop.verifier()

    def redeemed(by: Verifier) -> None:
        token = run.authorize("payments.refund", REFUND, tool_call_id="pay").token
        proof = DPoP(token.headers("POST", shop.gate.issuer)["DPoP"], method="POST", url=shop.gate.issuer)
        with by.redeem(token.reveal(), tool="payments.refund", args=REFUND, proof=proof):
            pass

    shop.lost(lambda: redeemed(verifier))
    for again in (verifier, shop.verifier()):  # also one that only has its log
        with pytest.raises(TokenRefused) as refused:
            redeemed(again)
        assert refused.value.code is Refusal.LOST
        assert refused.value.code.http_status == 503
        shop.server.command("HDEL", f"ag:{{acme}}:history:{server_id(shop.gate.issuer)}", "lost")
    with pytest.raises(TokenRefused):
        redeemed(verifier)
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}  # and now the gate knows


def test_a_gate_whose_tool_server_redeemed_what_the_store_lost_mints_it_for_no_other(shop: Shop) -> None:
    run = started(shop.gate)

    def redeemed() -> None:
        token = run.authorize("payments.refund", REFUND, tool_call_id="pay").token
        proof = DPoP(token.headers("POST", shop.gate.issuer)["DPoP"], method="POST", url=shop.gate.issuer)
        with shop.verifier().redeem(token.reveal(), tool="payments.refund", args=REFUND, proof=proof):
            pass

    shop.lost(redeemed)  # nobody asked this gate for anything since, so it has not heard of the redemption
    run._view.unspent.clear()  # as for a tool with `redeem: server`
    for handle in (run, shop.gate.resume_run("acme", run.id)):
        assert asked(handle) == {Reason.OUTCOME_UNKNOWN}
    assert asked(started(shop.opened("second"))) == {Reason.OUTCOME_UNKNOWN}  # it is told
    assert shop.reconcile("gate", "tool")[0] == 0
    assert asked(run) == {Reason.ALREADY_REDEEMED}


def test_a_call_whose_mint_was_lost_and_that_nobody_redeemed_runs_once_it_is_reconciled(shop: Shop) -> None:
    run = started(shop.gate)
    shop.lost(lambda: run.authorize("payments.refund", REFUND, tool_call_id="pay"))
    other = shop.gate.resume_run("acme", run.id)
    assert asked(other) == {Reason.OUTCOME_UNKNOWN}
    code, ((found),) = shop.reconcile("gate")
    assert (code, found["state"], found["replayed"], found["missing"]) == (0, "reconciled", 0, [])
    paid(other)
    assert asked(run) == {Reason.ALREADY_REDEEMED}


@pytest.mark.parametrize("shop", [(redis_binary, True), (valkey_binary, True)], ids=["redis", "valkey"], indirect=True)
def test_a_token_that_was_minted_after_the_loss_is_void_once_it_is_reconciled(shop: Shop) -> None:
    """An old copy was put back of a store that keeps everything by itself."""
    run = started(shop.gate)
    verifier = shop.verifier()
    tokens = []

    def redeemed(by: Any) -> None:
        tokens.append(by.authorize("payments.refund", REFUND, tool_call_id="pay").token)
        redeem(tokens[-1])

    def redeem(token: Any) -> None:
        proof = DPoP(token.headers("POST", shop.gate.issuer)["DPoP"], method="POST", url=shop.gate.issuer)
        with verifier.redeem(token.reveal(), tool="payments.refund", args=REFUND, proof=proof):
            pass

    shop.lost(lambda: redeemed(run))
    with pytest.raises(TokenRefused) as refused:
        redeemed(shop.opened("second").resume_run("acme", run.id))  # a gate that knows nothing of it
    assert refused.value.code is Refusal.LOST
    assert shop.reconcile("gate", "second", "tool")[0] == 0
    for token in tokens:
        with pytest.raises(TokenRefused) as refused:
            redeem(token)
        assert refused.value.code in {Refusal.USED, Refusal.LINEAGE}


def test_a_loss_that_happens_again_before_it_is_reconciled_is_noticed_again(shop: Shop) -> None:
    run = started(shop.gate)

    def redeemed() -> None:
        token = run.authorize("payments.refund", REFUND, tool_call_id="pay").token
        proof = DPoP(token.headers("POST", shop.gate.issuer)["DPoP"], method="POST", url=shop.gate.issuer)
        with shop.verifier().redeem(token.reveal(), tool="payments.refund", args=REFUND, proof=proof):
            pass

    shop.lost(redeemed)
    run._view.unspent.clear()  # as for a tool with `redeem: server`
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    shop.server.kill()
    shop.server.start()  # from the same snapshot: it knows nothing of that either
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    assert shop.reconcile("gate", "tool")[0] == 0
    assert asked(run) == {Reason.ALREADY_REDEEMED}


def test_what_a_gate_issued_is_kept_for_the_newest_calls() -> None:
    issued = Issued()
    for number in range(LIMIT // 2 + 2):
        issued.opened(str(number))
        issued.add(str(number), "call")
        issued.add("1", "another")
    last = LIMIT // 2 + 1
    assert [issued.knows(str(number)) for number in (0, 1, 2, 3, last)] == [False, True, False, True, True]
    assert [issued.told(str(number), "call") for number in (0, 1, 2, last)] == [None, "", None, ""]


# what is not lost


def test_a_clean_restart_stops_nothing(shop: Shop) -> None:
    run = started(shop.gate)
    paid(run, "before")
    waiting = run.authorize("payments.refund", REFUND, tool_call_id="waiting").token
    shop.server.command("SHUTDOWN", "SAVE")
    shop.server.stop()
    shop.server.start()
    with pytest.raises(TokenRefused) as refused:
        run.redeem(waiting, tool="payments.refund", args=REFUND)
    assert refused.value.code is Refusal.LINEAGE
    assert asked(run, "before") == {Reason.ALREADY_REDEEMED}
    paid(run, "waiting")


def test_a_call_whose_token_another_handle_held_is_unknown_after_a_restart(shop: Shop) -> None:
    run = started(shop.gate)
    assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="pay"), Allow)
    shop.lost(lambda: None)
    assert asked(shop.gate.resume_run("acme", run.id)) == {Reason.OUTCOME_UNKNOWN}


@pytest.mark.deadline
def test_a_token_that_was_tried_is_no_longer_unspent(shop: Shop) -> None:
    """The burn was lost with its reply: the handle cannot say that its token was never spent."""
    run = started(shop.gate)
    token = run.authorize("payments.refund", REFUND, tool_call_id="pay").token
    shop.server.command("SAVE")
    shop.server.pause()
    with pytest.raises(TokenRefused) as refused:
        run.redeem(token, tool="payments.refund", args=REFUND)
    assert refused.value.code is Refusal.STORE
    shop.server.kill()
    shop.server.start()
    assert asked(run) in ({Reason.OUTCOME_UNKNOWN}, {Reason.STORE})
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}


def test_a_promotion_in_sync_stops_nothing(shop: Shop) -> None:
    with shop.server.replica(shop.folder / "replica") as replica:
        run = started(shop.gate)
        paid(run, "before")
        replica.follows(shop.server)
        shop.server.kill()
        replica.takes_over(shop.server)
        for handle in (run, shop.opened("second").resume_run("acme", run.id)):
            assert asked(handle, "before") == {Reason.ALREADY_REDEEMED}
        paid(run, "after")


def test_a_store_in_memory_forgets_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    for _ in range(2):
        with opened(tmp_path, keys=tmp_path / "keys", audit=str(tmp_path / "audit")) as gate:
            paid(started(gate))
    assert remembered(tmp_path / "audit") == {}


# reconciling


def test_reconciling_writes_back_calls_limits_and_releases(shop: Shop) -> None:
    run = started(shop.gate)
    held = run.authorize("payments.refund", BIG, tool_call_id="big")
    assert isinstance(held, StepUp)
    shop.gate.release(held.hold.id, tenant="acme", by=BOSS)

    def both() -> None:
        paid(run, "small")
        paid(run, "big", BIG)

    shop.lost(both)
    assert asked(run, "small") == {Reason.OUTCOME_UNKNOWN}
    for replayed in (2, 0):
        code, ((found),) = shop.reconcile("gate")
        assert (code, found["replayed"], found["missing"]) == (0, replayed, [])
    assert asked(run, "small") == asked(run, "big", BIG) == {Reason.ALREADY_REDEEMED}
    assert asked(run, "third") == {Reason.LIMIT}  # max: 2 per run
    paid(started(shop.gate), "in another run")
    assert [r["replayed"] for r in read_records(shop.folder / "gate") if r["type"] == "history_reconciled"] == [2]


def test_a_log_that_is_not_given_is_named_and_the_tenant_stays_stopped(shop: Shop) -> None:
    run = started(shop.gate)
    second = started(shop.opened("second"))

    def both() -> None:
        paid(second, "small")
        paid(run)

    shop.lost(both)
    code, ((found),) = shop.reconcile("gate")
    assert (code, found["state"]) == (2, "lost")
    assert "1 of the events 1 to 2" in found["missing"][0]
    assert asked(run) == {Reason.ALREADY_REDEEMED}  # replayed already
    assert asked(second, "small") == {Reason.OUTCOME_UNKNOWN}
    code, ((found),) = shop.reconcile("gate", "second")
    assert (code, found["state"]) == (0, "reconciled")
    assert asked(second, "small") == {Reason.ALREADY_REDEEMED}


def test_what_a_tool_server_did_needs_its_log_and_the_gates(shop: Shop) -> None:
    run = started(shop.gate)
    verifier = shop.verifier()

    def redeemed() -> None:
        token = run.authorize("payments.refund", REFUND, tool_call_id="pay").token
        proof = DPoP(token.headers("POST", shop.gate.issuer)["DPoP"], method="POST", url=shop.gate.issuer)
        with verifier.redeem(token.reveal(), tool="payments.refund", args=REFUND, proof=proof):
            pass

    shop.lost(redeemed)
    code, ((found),) = shop.reconcile("tool")
    assert (code, [what.endswith("(its gate's log)") for what in found["missing"]]) == (2, [True])
    assert shop.reconcile("tool", "gate")[0] == 0
    assert asked(run) == {Reason.ALREADY_REDEEMED}


def test_what_another_server_says_of_an_epoch_hides_no_loss(shop: Shop) -> None:
    """A tool server that was taken over, and guessed the name of an epoch of another: its word that nothing is missing was believed."""
    run = started(shop.gate)
    shop.lost(lambda: paid(run))
    epoch = next(r["redemptions"] for r in read_records(shop.folder / "gate") if "redemptions" in r).split()[0]
    liar, key = server_id("https://liar.example"), "ag:{acme}:history"
    with Redis(port=shop.server.port) as client:
        listed = client.hget(key, "audiences") or b""
        client.hset(key, "audiences", f" {liar}{listed.decode()}")  # a call was minted for it once
        client.hset(f"{key}:{liar}", f"until:{epoch}", "999999")
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    (shop.folder / "empty").mkdir()
    given = ["store", "reconcile", "--store", shop.server.url, "--audit", str(shop.folder / "empty"), "--tenant", "acme", "--json"]
    assert "events" in json.loads(CliRunner().invoke(app, given).stdout)[0]["missing"][0]
    code, ((found),) = shop.reconcile("gate")
    assert (code, found["replayed"], found["missing"]) == (0, 1, [])
    assert asked(run) == {Reason.ALREADY_REDEEMED}


@pytest.mark.parametrize("kind", ["outcome", "redemption"])
def test_no_log_says_of_anothers_call_that_it_did_not_run(shop: Shop, kind: str) -> None:
    """A taken-over tool server's log is read with the others; by its word a refund that was paid was paid again."""
    run = started(shop.gate)
    shop.lost(lambda: paid(run))
    log = FileAudit(shop.folder / "liar")
    for record in read_records(shop.folder / "gate"):
        if record["type"] in {"outcome", kind}:
            body = {name: value for name, value in record.items() if name not in {"seq", "writer"}}
            log.append({**body, **({"outcome": "not_run"} if record["type"] == "outcome" else {})}, time.monotonic() + 5)
    log.close()
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    given = ["store", "reconcile", "--store", shop.server.url, *(w for n in ("gate", "liar") for w in ("--audit", str(shop.folder / n)))]
    told = CliRunner().invoke(app, given)
    if kind == "redemption":  # which of the two lies nobody can tell
        assert (told.exit_code, "expected one writer" in told.output.replace("\n", " ")) == (1, True), told.output
    assert asked(run) == {Reason.OUTCOME_UNKNOWN if kind == "redemption" else Reason.ALREADY_REDEEMED}


def test_a_sensitive_amount_is_on_no_record_and_is_named_as_missing(tmp_path: Path) -> None:
    text = WORKFLOW.replace("amount: {type: money,", "amount: {sensitive: true, type: money,").replace(
        "max: 2, per: run}", "max: 2, per: run}, {sum: payments.refund.amount, max: '500.00', per: tenant, every: 1d}"
    )
    shop = Shop(tmp_path, redis_binary(), text)
    try:
        run = started(shop.gate)
        shop.lost(lambda: paid(run))
        (allowed,) = [record for record in read_records(tmp_path / "gate") if record.get("limits")]
        assert [each["amount"] for each in allowed["limits"]] == [1, None]
        assert "399900" not in json.dumps(list(read_records(tmp_path / "gate")))
        code, ((found),) = shop.reconcile("gate")
        assert (code, found["replayed"], found["missing"]) == (2, 1, [f"the sensitive amount that call pay of {run.id} took of a limit"])
    finally:
        shop.close()


def test_a_person_may_accept_the_loss_and_it_is_on_record(shop: Shop) -> None:
    paid(started(shop.gate))
    shop.server.command("FLUSHALL")
    run = started(shop.gate)
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    FileAudit(shop.folder / "empty").close()
    code, found = shop.reconcile("empty")
    assert (code, found) == (0, [])  # no log names the tenant
    given = ["store", "reconcile", "--store", shop.server.url, "--audit", str(shop.folder / "empty"), "--tenant", "acme"]
    assert CliRunner().invoke(app, given).exit_code == 2
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}
    assert CliRunner().invoke(app, [*given, "--accept-loss", "checked by hand"]).exit_code == 0
    paid(run)
    (record,) = [r for r in read_records(shop.folder / "empty") if r["type"] == "history_reconciled"]
    assert (record["tenant"], record["reason"], bool(record["by"])) == ("acme", "checked by hand", True)


# the memory


def test_a_lower_count_that_comes_late_replaces_nothing() -> None:
    history = History()
    history.see("acme", "", f"{EPOCH} 7")
    history.see("acme", "", f"{EPOCH} 6")
    assert history.seen("acme") == f"{EPOCH} 7"
    history.see("acme", f"{EPOCH} 7", "")
    assert history.seen("acme") == f"{EPOCH} 7"
    history.see("acme", f"{EPOCH} 7", f"{EPOCH}1 3")  # the store found it to follow
    assert history.seen("acme") == f"{EPOCH}1 3"
    assert history.seen("other") == ""


def test_a_log_is_remembered_by_its_highest_counts_whatever_else_it_holds(tmp_path: Path) -> None:
    log = FileAudit(tmp_path)
    for body in (
        {"tenant": "acme", "history": f"{EPOCH} 2"},
        {"tenant": "acme", "history": f"{EPOCH} 1"},
        {"tenant": "other", "history": "forged 9"},
        {"tenant": "other", "note": '"history":"' + f"{EPOCH} 9" + '"'},
        {"tenant": 7, "history": 8},
        {"history": f"{EPOCH} 9"},
    ):
        log.append(body, time.monotonic() + 5)
    log.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"record":{"history":"torn')
    assert remembered(tmp_path) == {"acme": f"{EPOCH} 2"}


# revocations


def test_a_lost_revocation_is_noticed_and_written_again_unless_it_was_lifted(shop: Shop) -> None:
    run = started(shop.gate)
    paid(run)
    where: dict[str, Any] = {"tenants": ["acme"], "by": "ana", "reason": "INC-1"}

    shop.gate.revoke("user:known", **where)

    def revoked() -> None:
        paid(run, "second")
        shop.gate.revoke("user:known", **where)  # said again: no event of its own, or it would stand in the place of the payment
        shop.gate.revoke("user:somebody", **where)
        shop.gate.revoke("agent:other", **where)
        shop.gate.lift("agent:other", **where)
        shop.gate.revoke("run:run_1", **where)

    shop.lost(revoked)
    assert [each.name for each in shop.gate.revocations("acme")] == ["user:known"]
    assert asked(run, "another") == {Reason.OUTCOME_UNKNOWN}
    code, (found,) = shop.reconcile("gate")
    assert (code, found["state"], found["replayed"], found["missing"]) == (0, "reconciled", 3, [])
    assert asked(run, "second") == {Reason.ALREADY_REDEEMED}
    listed = shop.gate.revocations("acme")
    assert {(each.by, each.reason) for each in listed} == {("ana", "INC-1")}
    assert {each.name: each.until is None for each in listed} == {"user:known": True, "user:somebody": True, "run:run_1": False}


def test_a_gate_that_revoked_last_notices_that_the_revocation_is_lost(shop: Shop) -> None:
    run = started(shop.gate)
    shop.lost(lambda: shop.gate.revoke("user:somebody", tenants=["acme"], by="ana", reason="INC-1"))
    assert asked(run) == {Reason.OUTCOME_UNKNOWN}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tenant": 5}, "tenant 5"),
        ({"tenant": None}, "tenant None"),
        ({"redemptions": "none"}, "history: got"),
        ({"redemptions": 7}, "redemptions 7"),
        ({"tool_call_id": {}}, "tool_call_id {}"),
        ({"time": "noon"}, "time 'noon'"),
        ({"type": "decision", "limits": [{"x": 1}], "spent": True}, "limits:"),
        ({"type": "decision", "limits": [5]}, "limits [5]"),
        ({"audience": ...}, "no audience"),
        ({"call_digest": ...}, "no call_digest"),
        ({"jti": ...}, "no jti"),
    ],
)
def test_a_record_with_another_kind_of_value_ends_reconciling_by_its_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    server = Server(valkey_binary(), tmp_path / "server")
    try:
        history = "history" if change.get("type") == "decision" else "redemptions"
        told = {
            "type": "redemption",
            "time": 1.0,
            "tenant": "acme",
            "run": "run_1",
            "tool_call_id": "c",
            "tool": "t",
            "txn": "x",
            "jti": "j",
        }
        told |= {"call_digest": "0" * 64, "audience": "https://shop.example", history: f"{EPOCH} 1"} | change
        log = FileAudit(tmp_path / "log")
        log.append({name: value for name, value in told.items() if value is not ...}, time.monotonic() + 5)
        log.close()
        done = CliRunner().invoke(app, ["store", "reconcile", "--store", server.url, "--audit", str(tmp_path / "log")])
        assert (done.exit_code, named in done.stderr) == (1, True), (done.output, done.exception)
    finally:
        server.stop()


REMEMBERS = (
    WORKFLOW.replace("    effect: read\n", "    effect: read\n    remember: {arg: order_id, for: 90d}\n")
    .replace(
        "{type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}", "{type: id, from: [prompt, confirmed, remembered], unknown_origin: confirm}"
    )
    .replace(
        "step_up:\n",
        "step_up:\n  - {id: which, for: orders.get, when: {order_id: {origin: unknown}}, approvers: {user: true}, timeout: 10m}\n",
    )
)


def test_what_somebody_forgot_does_not_come_back_with_an_older_snapshot(tmp_path: Path) -> None:
    shop, other = Shop(tmp_path, redis_binary(), REMEMBERS), {"order_id": "ORD-99999999"}
    run = run_of(shop.gate)
    held = run.authorize("orders.get", other, tool_call_id="look")
    assert isinstance(held, StepUp)
    shop.gate.release(held.hold.id, tenant="acme", by=LEE)
    with run.perform("orders.get", other, tool_call_id="look"):
        pass
    (known,) = shop.gate.remembered("acme", for_=LEE)
    assert isinstance(run_of(shop.gate).authorize("orders.get", other, tool_call_id="look"), Allow)
    shop.lost(lambda: shop.gate.forget("acme", [known.id], by=LEE))
    assert shop.gate.remembered("acme", for_=LEE) == ()
    assert shop.opened().remembered("acme", for_=LEE) == (), "by its log another process knows of it"
    assert isinstance(run_of(shop.gate).authorize("orders.get", other, tool_call_id="look"), StepUp)
    code, ((found),) = shop.reconcile("gate")
    assert (code, found["state"], found["missing"]) == (0, "reconciled", [])
    assert shop.gate.remembered("acme", for_=LEE) == ()
    shop.close()
