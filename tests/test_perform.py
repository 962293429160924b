"""A call that whoever asks also runs, authorised and redeemed or performed in one step: one suite of both, then what is of one alone."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from agentgate import AsyncGate, Deny, Gate, NotDone, Reason, StepUp, TokenRefused
from agentgate.audit import FileAudit, read_records
from agentgate.audit.reconcile import find_losses
from agentgate.cli.main import app
from agentgate.errors import AuditUnavailable, NotRecorded, Refusal, StoreUnavailable, Unconfirmed
from agentgate.gate.run import Run
from agentgate.redemption.verifier import RedeemedCall, taken
from agentgate.review.report.past import decision_of
from agentgate.stores import Op, Store, ops, recovery, server_id
from tests import upstream
from tests.preloaded import run_code
from tests.servers import Server, redis_binary
from tests.shop import BOSS, ORDER, REFUND, WORKFLOW, opened, run_of

FOUND = {"total": "150.00", "currency": "EUR", "customer": "cus_1"}
UNBOUND = WORKFLOW.replace("bound_to: [call, agent_key]", "bound_to: [call]")
Way = Callable[..., Any]


def in_two(run: Any, tool: str, args: dict[str, Any], call: str) -> Any:
    """Authorise and redeem; what refused it, as a value."""
    answer = run.authorize(tool, args, tool_call_id=call)
    return answer if isinstance(answer, Deny | StepUp) else run.redeem(answer.token, tool=tool, args=args)


def in_one(run: Any, tool: str, args: dict[str, Any], call: str) -> Any:
    return run.perform(tool, args, tool_call_id=call)


@pytest.fixture(params=[in_two, in_one], ids=["authorised and redeemed", "performed"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(UNBOUND, encoding="utf-8")
    return tmp_path


@pytest.fixture
def gate(folder: Path) -> Iterator[Gate]:
    with opened(folder) as gate:
        yield gate


def look(run: Any, way: Way, call: str = "look") -> None:
    with way(run, "orders.get", ORDER, call) as redeemed:
        redeemed.record_result(FOUND)


def pay(run: Any, way: Way, error: BaseException | None = None, call: str = "pay", args: Any = None) -> Any:
    """A refund whose tool raises `error`; or why it does not run."""
    redeemed = way(run, "payments.refund", args or REFUND, call)
    if isinstance(redeemed, Deny | StepUp):
        return redeemed
    with suppress(BaseException if error else StopAsyncIteration), redeemed:
        if error is not None:
            raise error
    return redeemed


def why(answer: Any) -> set[Reason]:
    assert isinstance(answer, Deny), answer
    return set(answer.reasons)


# both ways


def test_a_call_runs_with_what_was_decided_and_its_facts_let_the_next_one_pass(gate: Gate, way: Way) -> None:
    run = run_of(gate)
    assert why(pay(run, way)) >= {Reason.SEQUENCE}
    look(run, way)
    assert run.facts("look") == (FOUND,)
    redeemed = way(run, "payments.refund", REFUND, "pay")
    assert (redeemed.args, redeemed.claims.tool_call_id, redeemed.claims.run, redeemed.claims.exp - redeemed.claims.iat) == (
        REFUND,
        "pay",
        run.id,
        60,
    )
    assert redeemed.idempotency_key.endswith("-1")
    with redeemed:
        assert run_of(gate).id != run.id
    assert why(pay(run, way)) == {Reason.ALREADY_REDEEMED}


@pytest.mark.parametrize(
    ("error", "expected"),
    [(None, Reason.ALREADY_REDEEMED), (RuntimeError("5xx"), Reason.OUTCOME_UNKNOWN), (NotDone("no"), None)],
    ids=["done", "unknown", "failed"],
)
def test_a_repeat_answers_what_is_known(gate: Gate, way: Way, error: BaseException | None, expected: Reason | None) -> None:
    run = run_of(gate)
    look(run, way)
    first = pay(run, way, error)
    other = gate.resume_run(run.tenant, run.id)  # who did not see it run
    answer = pay(other, way)
    if expected is None:
        assert answer.idempotency_key != first.idempotency_key
        answer, expected = pay(run, way), Reason.ALREADY_REDEEMED
    assert why(answer) == {expected}


def test_a_call_that_still_runs_is_unknown(gate: Gate, way: Way) -> None:
    run = run_of(gate)
    look(run, way)
    redeemed = way(run, "payments.refund", REFUND, "pay")
    assert why(pay(run, way)) == {Reason.OUTCOME_UNKNOWN}
    with redeemed:
        pass
    assert why(pay(run, way)) == {Reason.ALREADY_REDEEMED}


def test_a_read_runs_again_three_times(gate: Gate, way: Way) -> None:
    run = run_of(gate)
    for _ in range(4):
        look(run, way)
    assert why(way(run, "orders.get", ORDER, "look")) == {Reason.ALREADY_REDEEMED}


def test_limits_closed_runs_and_revocations_refuse(gate: Gate, way: Way) -> None:
    run = run_of(gate)
    look(run, way)
    for number in (1, 2):
        assert isinstance(pay(run, way, call=f"pay{number}"), RedeemedCall)
    assert why(pay(run, way, call="pay3")) == {Reason.LIMIT}
    gate.revoke(f"run:{run.id}", tenants=["acme"], by="ops", reason="test")
    assert why(way(run, "orders.get", ORDER, "again")) == {Reason.REVOKED}
    shut = run_of(gate)
    shut.close()
    assert why(way(shut, "orders.get", ORDER, "look")) == {Reason.RUN_CLOSED}


def test_a_held_call_runs_once_after_its_release(gate: Gate, way: Way) -> None:
    run = run_of(gate, "Please refund 120.00 EUR for order ORD-10023344, it arrived broken")
    look(run, way)
    big = {**REFUND, "amount": "120.00"}
    held = pay(run, way, args=big)
    assert isinstance(held, StepUp)
    gate.release(held.hold.id, tenant="acme", by=BOSS)
    assert isinstance(pay(run, way, args=big), RedeemedCall)
    assert why(pay(run, way, args=big)) == {Reason.ALREADY_REDEEMED}


def test_explain_and_the_log_tell_the_same_story(gate: Gate, way: Way) -> None:
    run = run_of(gate)
    look(run, way)
    pay(run, way)
    log: Any = gate._audit
    records = [{k: v for k, v in record.items() if k not in {"writer", "seq"}} for record in log.records]
    story = [each for each in records if each.get("tool_call_id") == "pay"]
    decision = decision_of(story)
    assert [record["type"] for record in story] == ["decision", "redemption", "outcome"]
    assert (decision["decision"], story[2]["outcome"]) == ("allow", "done")
    assert {record["txn"] for record in story} == {decision["txn"]}
    assert {record["jti"] for record in story} == {decision["jti"]}
    assert set(decision) >= {"met", "origins", "args", "hidden", "limits", "intent", "call_digest"}


def test_facts_stand_whatever_else_happened_but_not_of_what_did_not_happen(gate: Gate, way: Way) -> None:
    for error, known in ((KeyboardInterrupt(), (FOUND,)), (NotDone("no"), ())):
        run = run_of(gate)
        with suppress(BaseException), way(run, "orders.get", ORDER, "look") as redeemed:
            redeemed.record_result(FOUND)
            raise error
        assert run.facts("look") == known


# what is performed in one step


class Seen:
    """A store that tells which scripts it ran, and what became of one."""

    def __init__(self, store: Store, fails: str = "", error: Exception | None = None, *, runs: bool = True) -> None:
        self._store, self._fails, self._error, self._runs = store, fails, error, runs
        self.scripts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def call(self, op: Op[Any], deadline: float) -> Any:
        self.scripts.append(op.script)
        if op.script != self._fails:
            return self._store.call(op, deadline)
        self._fails = ""
        if self._runs:
            self._store.call(op, deadline)
        assert self._error is not None
        raise self._error


def other(run: Any, gate: Gate, store: Any = None, audit: Any = None) -> Run:
    """The run behind another store or log."""
    return Run(run._view, store or gate._store, audit or gate._audit)


def test_a_call_takes_two_scripts_and_the_next_one_needs_no_read(gate: Gate) -> None:
    run = run_of(gate)
    seen = Seen(gate._store)
    through = other(run, gate, seen)
    look(through, in_one)
    pay(through, in_one)
    look(through, in_one, "once more")
    assert seen.scripts == ["mint", "record_outcome"] * 3
    assert through.state == gate.resume_run(run.tenant, run.id).state


@pytest.mark.parametrize("error", [None, NotDone("no"), RuntimeError()], ids=["done", "failed", "unknown"])
def test_the_run_that_a_handle_keeps_is_the_run_as_it_is_read(gate: Gate, error: BaseException | None) -> None:
    run = run_of(gate)
    look(run, in_one)
    redeemed = in_one(run, "payments.refund", REFUND, "pay")
    assert run.state == gate.resume_run(run.tenant, run.id).state
    with suppress(Exception), redeemed:
        if error is not None:
            raise error
    assert run.state == gate.resume_run(run.tenant, run.id).state
    assert not run._view.behind


def test_what_happened_elsewhere_meanwhile_is_read(gate: Gate) -> None:
    run = run_of(gate)
    with in_one(run, "orders.get", ORDER, "look") as redeemed:
        look(gate.resume_run(run.tenant, run.id), in_one, "elsewhere")
        redeemed.record_result(FOUND)
    pay(run, in_one)
    assert run.state == gate.resume_run(run.tenant, run.id).state
    assert [call.id for call in run.state.calls] == ["look", "elsewhere", "pay"]


class Meanwhile(Seen):
    """A store over a network, whose work meanwhile is done; of another lineage than it was, if that is said."""

    lineage = b""

    def call(self, op: Op[Any], deadline: float) -> Any:
        if op.meanwhile is not None:
            op.meanwhile()
        reply = super().call(op, deadline)
        return [*reply[:2], self.lineage or reply[2], *reply[3:]] if op.script == "mint" else reply


@pytest.mark.parametrize("lineage", [b"", b"0" * 40], ids=["as it is likely", "otherwise"])
def test_a_call_that_was_put_together_while_its_script_ran_is_of_the_lineage_that_the_script_answered(gate: Gate, lineage: bytes) -> None:
    run = run_of(gate)
    meanwhile = Meanwhile(gate._store)
    meanwhile.lineage = lineage
    redeemed = in_one(other(run, gate, meanwhile), "orders.get", ORDER, "look")
    assert redeemed.claims.gen == (lineage.decode() or run.state.revision.rpartition(".")[2])
    assert (redeemed.args, redeemed.claims.tool_call_id) == (ORDER, "look")


@pytest.mark.parametrize("runs", [True, False], ids=["applied", "not applied"])
@pytest.mark.parametrize("error", [StoreUnavailable("lost"), Unconfirmed("WAIT")], ids=["lost", "unconfirmed"])
def test_a_script_whose_answer_is_missing_leaves_a_call_that_may_run(gate: Gate, error: Exception, runs: bool) -> None:  # noqa: FBT001
    run = run_of(gate)
    look(run, in_one)
    refused = pay(other(run, gate, Seen(gate._store, "mint", error, runs=runs)), in_one)
    assert why(refused) == {Reason.STORE}
    assert isinstance(pay(run, in_one), RedeemedCall)
    assert why(pay(run, in_one)) == {Reason.ALREADY_REDEEMED}


KILLED = """
import os, pathlib, signal, sys
from tests.shop import REFUND, opened
folder, run, store = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
gate = opened(folder, keys=folder / "keys", audit=str(folder / "killed"), store=store)
with gate.resume_run("acme", run).perform("payments.refund", REFUND, tool_call_id="pay"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_died_while_its_tool_ran_leaves_an_act_that_is_spent_and_unknown(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server", durable=True)
    try:
        with opened(folder, keys=folder / "keys", audit=str(folder / "audit"), store=server.url) as gate:
            run = run_of(gate)
            look(run, in_one)
            done = run_code(KILLED, str(folder), run.id, server.url)
            assert done.returncode == -9
            assert why(pay(run, in_one)) == {Reason.OUTCOME_UNKNOWN}
            assert [r["type"] for r in read_records(folder / "killed")][-2:] == ["decision", "redemption"]
    finally:
        server.stop()


def test_what_a_store_lost_of_performed_calls_is_written_back_from_the_log(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server")
    try:
        with opened(folder, store=server.url, audit=str(folder / "audit"), keys=folder / "keys") as gate:
            run = run_of(gate, "Please refund 120.00 EUR for order ORD-10023344, it arrived broken")
            look(run, in_one)
            big = {**REFUND, "amount": "120.00"}
            gate.release(pay(run, in_one, args=big).hold.id, tenant="acme", by=BOSS)
            paid = pay(run, in_one, args=big)
            assert isinstance(paid, RedeemedCall)
            store: Any = gate._store
            server.command("FLUSHALL")
            op = recovery.read_history("acme")
            known = op.parse(store.call(op, time.monotonic() + 1))
            (loss,) = find_losses({"acme": known}, [folder / "audit"]).values()
            assert loss.missing == []
            told = {(event.call_digest, event.jti, event.outcome, event.redeemed, len(event.limits)) for event in loss.events}
            assert told == {(paid.claims.call_digest, paid.claims.jti, "done", True, 1)}
            assert len(loss.events) == 2  # the redemption, and the release that it spent
            for event in loss.events:
                done = recovery.replay(event)
                done.parse(store.call(done, time.monotonic() + 1))
            hold = ops.read_hold("acme", paid.claims.call_digest)
            assert hold.parse(store.call(hold, time.monotonic() + 1)) is None  # it went with the store; its call is spent
    finally:
        server.stop()


def test_where_no_replica_confirms_the_script_the_tool_does_not_run(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server", durable=True)
    try:
        server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        with server.replica(folder / "replica") as replica, opened(folder, store=server.url + "?replicas=1", keys=folder / "keys") as gate:
            run = run_of(gate)
            look(run, in_one)
            replica.pause()
            assert why(pay(run, in_one)) == {Reason.STORE}
            known = server.command("HVALS", f"ag:{{acme}}:burns:{server_id(gate.issuer)}:{run.id}")
            assert ("not_run" in known, known.count("redeemed")) == (True, 2)
            os.kill(replica._process.pid, signal.SIGCONT)
            assert isinstance(pay(run, in_one), RedeemedCall)
    finally:
        server.stop()


@pytest.mark.parametrize("gone", ["clock:{run}", "mints:{server}:{run}", "burns:{server}:{run}", "run:{run}"])
def test_a_run_of_which_something_was_evicted_performs_nothing(folder: Path, gone: str) -> None:
    server = Server(redis_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            run = run_of(gate)
            look(run, in_one)
            assert ":1" in server.command("DEL", "ag:{acme}:" + gone.format(run=run.id, server=server_id(gate.issuer)))
            assert why(pay(run, in_one)) == {Reason.RUN_MISSING}
    finally:
        server.stop()


def test_what_did_not_happen_has_no_facts_that_stand(gate: Gate) -> None:
    run = run_of(gate)
    with suppress(NotDone), in_one(run, "orders.get", ORDER, "look") as redeemed:
        redeemed.record_result({**FOUND, "customer": "cus_none"})
        raise NotDone
    look(run, in_one)
    assert gate.resume_run(run.tenant, run.id).facts("look") == (FOUND,)


def test_facts_that_stand_from_before_are_those_that_a_handle_knows(gate: Gate) -> None:
    run, first = run_of(gate), {**FOUND, "customer": "cus_first"}
    with suppress(NotDone), in_two(run, "orders.get", ORDER, "look") as redeemed:
        redeemed.record_result(first)
        raise NotDone
    look(run, in_one)
    assert run.facts("look") == gate.resume_run(run.tenant, run.id).facts("look") == (first,)
    assert run.state == gate.resume_run(run.tenant, run.id).state


class Log:
    """A log that takes so many records and then no more, or has no room."""

    durable = True

    def __init__(self, takes: int, *, full: bool = False) -> None:
        self.takes, self.records, self.full = takes, list[dict[str, Any]](), full

    def append(self, record: Any, deadline: float, *, promised: bool = False) -> None:  # noqa: ARG002
        from agentgate.errors import AuditUnavailable

        if len(self.records) >= self.takes:
            raise AuditUnavailable("full")
        self.records.append(dict(record))

    def room(self, deadline: float) -> None:  # noqa: ARG002
        """There is, or is not."""
        if self.full:
            raise AuditUnavailable("full")


def test_without_room_for_the_record_of_a_redemption_nothing_is_spent(gate: Gate) -> None:
    run = run_of(gate)
    look(run, in_one)
    seen = Seen(gate._store)
    assert why(pay(other(run, gate, seen, Log(9, full=True)), in_one)) == {Reason.AUDIT}
    assert "mint" not in seen.scripts


def test_an_act_that_the_store_has_lost_is_unknown_to_who_performed_it(folder: Path) -> None:
    server = Server(redis_binary(), folder / "server")
    try:
        with opened(folder, store=server.url) as gate:
            run = run_of(gate)
            look(run, in_one)
            redeemed = pay(run, in_one)
            made, of = redeemed.claims.call_digest, f"{server_id(gate.issuer)}:{run.id}"
            for kind, fields in (("mints", ("mint", "head", "free")), ("burns", ("status", "by", "outcome", "at", "runs", "attempt"))):
                assert server.command("HDEL", f"ag:{{acme}}:{kind}:{of}", *[f"{made}:{field}" for field in fields])
            assert why(pay(gate.resume_run("acme", run.id), in_one)) == {Reason.OUTCOME_UNKNOWN}
    finally:
        server.stop()


def test_a_release_that_is_performed_is_on_record_with_its_redemption(gate: Gate) -> None:
    run = run_of(gate, "Please refund 120.00 EUR for order ORD-10023344, it arrived broken")
    look(run, in_one)
    big = {**REFUND, "amount": "120.00"}
    gate.release(pay(run, in_one, args=big).hold.id, tenant="acme", by=BOSS)
    pay(run, in_one, args=big)
    log: Any = gate._audit
    assert [(r["type"], r.get("spent")) for r in log.records[-3:]] == [("decision", None), ("redemption", True), ("outcome", None)]


def test_a_repeat_makes_no_attempt(gate: Gate) -> None:
    run = run_of(gate)
    look(run, in_one)
    pay(run, in_one)
    log: Any = gate._audit
    before = len(log.records)
    assert why(pay(run, in_one)) == {Reason.ALREADY_REDEEMED}
    assert [record["decision"] for record in log.records[before:]] == ["deny"]


async def test_who_goes_away_before_a_refusal_leaves_nothing_behind() -> None:
    async def refused() -> Deny:
        await asyncio.sleep(0.01)
        return Deny(())

    failed: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    waiting = asyncio.ensure_future(taken(refused()))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0.05)
    gc.collect()
    assert failed == []


def test_an_attempt_that_cannot_be_recorded_spends_nothing(gate: Gate, folder: Path) -> None:
    run = run_of(gate)
    look(run, in_one)
    before = gate.resume_run(run.tenant, run.id).state

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    seen = Seen(gate._store)
    assert why(pay(other(run, gate, seen, FileAudit(folder / "full", sync=full)), in_one)) == {Reason.AUDIT}
    assert "mint" not in seen.scripts
    assert gate.resume_run(run.tenant, run.id).state == before


def test_an_act_whose_redemption_cannot_be_recorded_is_not_run(gate: Gate) -> None:
    run = run_of(gate)
    look(run, in_one)
    log = Log(1)
    assert why(pay(other(run, gate, audit=log), in_one)) == {Reason.AUDIT}
    assert [record["type"] for record in log.records] == ["decision"]
    assert isinstance(pay(run, in_one), RedeemedCall)


def test_a_free_read_has_two_records_and_an_act_three(gate: Gate) -> None:
    run = run_of(gate)
    log: Any = gate._audit
    before = len(log.records)
    look(run, in_one)
    assert [record["type"] for record in log.records[before:]] == ["decision", "outcome"]
    assert log.records[before]["performed"] is True


class Disk:
    """What makes records durable: at once, after a while, or not at all."""

    def __init__(self) -> None:
        self.takes, self.broken = 0.0, False

    def sync(self, descriptor: int) -> None:
        time.sleep(self.takes)
        if self.broken:
            raise OSError(5, "Input/output error")
        os.fdatasync(descriptor)


@pytest.mark.parametrize(("tool", "args", "waits"), [("orders.get", ORDER, False), ("payments.refund", REFUND, True)], ids=["read", "act"])
def test_only_the_end_of_an_act_waits_for_the_disk(gate: Gate, folder: Path, tool: str, args: Any, waits: bool) -> None:  # noqa: FBT001
    run, disk = run_of(gate), Disk()
    look(run, in_one)
    log = FileAudit(folder / "log", sync=disk.sync)
    redeemed = in_one(other(run, gate, audit=log), tool, args, "pay")
    disk.takes = 0.5
    began = time.monotonic()
    with redeemed:
        pass
    assert (time.monotonic() - began > 0.4) is waits
    log.close()
    assert [record["type"] for record in read_records(folder / "log")][-1] == "outcome"


def test_the_end_of_a_read_that_cannot_be_written_is_told(gate: Gate, folder: Path) -> None:
    run, disk = run_of(gate), Disk()
    log = FileAudit(folder / "log", sync=disk.sync)
    redeemed = in_one(other(run, gate, audit=log), "orders.get", ORDER, "look")
    disk.broken = True
    with structlog.testing.capture_logs() as told:
        with redeemed:
            pass
        log.close()
    assert [(each["event"], each["txn"]) for each in told] == [("not_recorded", redeemed.txn)]


def test_the_end_of_a_read_after_the_log_was_closed_is_not_recorded(gate: Gate, folder: Path) -> None:
    run = run_of(gate)
    log = FileAudit(folder / "log")
    redeemed = in_one(other(run, gate, audit=log), "orders.get", ORDER, "look")
    log.close()
    with pytest.raises(NotRecorded), redeemed:
        pass


def test_of_an_attempt_that_the_script_refused_the_refusal_counts(gate: Gate) -> None:
    run = run_of(gate)
    look(run, in_one)
    late = gate.resume_run(run.tenant, run.id)
    gate.revoke(f"run:{run.id}", tenants=["acme"], by="ops", reason="test")
    assert why(pay(late, in_one)) == {Reason.REVOKED}
    log: Any = gate._audit
    records = [r for r in log.records if r.get("tool_call_id") == "pay"]
    assert [(r["decision"], r.get("performed")) for r in records] == [("allow", True), ("deny", None)]
    assert len({r["jti"] for r in records}) == 1
    assert decision_of([each for each in log.records if each.get("tool_call_id") == "pay"])["decision"] == "deny"


def test_who_asks_what_was_allowed_is_told_no_attempt_that_was_refused(folder: Path) -> None:
    with opened(folder, audit=str(folder / "audit"), keys=folder / "keys") as gate:
        run = run_of(gate)
        look(run, in_one)
        late = gate.resume_run(run.tenant, run.id)
        gate.revoke(f"run:{run.id}", tenants=["acme"], by="ops", reason="test")
        assert why(pay(late, in_one)) == {Reason.REVOKED}
    log = ["audit", "list", str(folder / "audit"), "--json"]
    told = {each: json.loads(CliRunner().invoke(app, [*log, "--decision", each]).stdout) for each in ("allow", "deny")}
    assert {each: [record["tool"] for record in records] for each, records in told.items()} == {
        "allow": ["orders.get"],
        "deny": ["payments.refund"],
    }
    counted = json.loads(CliRunner().invoke(app, ["audit", "stats", str(folder / "audit"), "--json"]).stdout)
    assert counted["tool"]["payments.refund"] == {"allowed": 0, "held": 0, "refused": 1, "unenforced": 0, "unknown": 0}
    story = CliRunner().invoke(app, ["audit", "show", "pay", str(folder / "audit"), "--json"]).stdout
    assert [record.get("decision") for record in json.loads(story)][-2:] == ["allow", "deny"]


def test_a_tool_that_its_server_redeems_is_allowed_only(folder: Path) -> None:
    where, pinned = "    redeem: wrapper\n    args: {order_id: {type: id, pattern", "sha256:" + "a" * 64
    there = f"redeem: server\n    audience: https://o.example\n    scope: [orders.read]\n    definition: {pinned}"
    assert where in UNBOUND
    (folder / "w" / "refund.yaml").write_text(UNBOUND.replace(where, where.replace("redeem: wrapper", there)), encoding="utf-8")
    with opened(folder) as gate:
        answer = run_of(gate).perform("orders.get", ORDER, tool_call_id="look", definition=pinned)
        assert answer.token.claims.aud == "https://o.example"


def test_a_call_bound_to_the_agents_key_is_proven_as_ever(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(WORKFLOW, encoding="utf-8")
    with opened(folder) as gate:
        run = run_of(gate)
        look(run, in_one)
        redeemed = run.perform("payments.refund", REFUND, tool_call_id="pay")
        log: Any = gate._audit
        assert [(r["type"], r.get("performed")) for r in log.records[-2:]] == [("decision", None), ("redemption", None)]
        with redeemed:
            pass
        assert why(run.perform("payments.refund", REFUND, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}


def test_a_call_that_needs_an_upstream_credential_gets_it(tmp_path: Path) -> None:
    bank = upstream.Bank()
    with upstream.opened(tmp_path, {"bank": bank}) as gate:
        run = upstream.run_of(gate)
        with run.perform("pay", upstream.ORDER, tool_call_id="pay") as redeemed:
            assert redeemed.credential.reveal("key") == upstream.CANARY
        assert (len(bank.asked), bank.ended) == (1, 1)
        bank.fetch = lambda _: 1 / 0  # type: ignore[assignment,return-value]  # it fails
        with pytest.raises(TokenRefused) as refused:
            run.perform("pay", upstream.ORDER, tool_call_id="pay again")
        assert refused.value.code is Refusal.UPSTREAM


async def test_awaited_it_is_the_same(folder: Path) -> None:
    gate = await AsyncGate.open_unsafe_unapproved(
        folder / "w", issuer="https://gate.example", audit="memory://", clock=lambda: __import__("tests.shop").shop.WEEKDAY
    )
    made: Any = gate
    run = await run_of(made)
    async with await run.perform("orders.get", ORDER, tool_call_id="look") as redeemed:
        await redeemed.record_result(FOUND)
    racing = [run.perform("payments.refund", REFUND, tool_call_id="pay") for _ in range(6)]
    answers = await asyncio.gather(*racing)
    done = [answer for answer in answers if not isinstance(answer, Deny)]
    assert len(done) == 1
    async with done[0]:
        pass
    assert why(await run.perform("payments.refund", REFUND, tool_call_id="pay")) == {Reason.ALREADY_REDEEMED}
    await gate.close()
