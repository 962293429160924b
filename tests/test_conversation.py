"""A conversation of a host's: its run is found by its id and by nobody else, and what follows it carries its counts, not its grants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Deny, Gate, Reason, User
from agentgate.decision.answer import StepUp
from agentgate.gate.state import header_bytes
from agentgate.stores import Op, ops
from agentgate.values.refusal import RunRefused
from tests.servers import Server, valkey_binary
from tests.shop import BOSS, LEE, ORDER, PROMPT, REFUND, WORKFLOW, looked_up, opened, reasons, refusals, run_of
from tests.watched import Shards

LIFE = 2  # seconds of a run that is to be followed
KIM = User("kim", tenant="acme", groups=["support"])
Opened = Callable[..., Gate]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    found = Shards(valkey_binary(), tmp_path_factory.mktemp("shards"), replicas=0)
    yield found
    found.stop()


VALKEY = pytest.param("valkey", marks=pytest.mark.thorough("the cluster is of the same server, and Redis stands alone"))


@pytest.fixture(params=["memory", "redis", VALKEY, "cluster"])
def gates(request: pytest.FixtureRequest, folder: Path) -> Iterator[Opened]:
    """Opens gates over one store; two in memory are one."""
    name = request.param
    server: Any = None if name == "memory" else request.getfixturevalue("shards" if name == "cluster" else f"{name}_server")
    if server is not None and name != "cluster":
        server.command("FLUSHALL")
    if name == "cluster":
        for each in server.primaries:
            each.command("FLUSHALL")
    made: list[Gate] = []

    def gate(**more: Any) -> Gate:
        if server is None and made:
            return made[0]
        stored = {} if server is None else {"store": server.url, "keys": folder / "keys", "shared_runs": True}
        made.append(opened(folder, **stored, **more))
        return made[-1]

    yield gate
    for each in made:
        each.close()
    if server is not None and name != "cluster":
        server.command("FLUSHALL")  # nor do others see what was revoked here


def talk(gate: Gate, prompt: str, **more: Any) -> Any:
    return run_of(gate, prompt, **{"conversation": "chat-7", **more})


def over(run: Any) -> None:
    """The run's time is over."""
    time.sleep(max(0.0, run.header.expires_at - time.time() + 0.05))


def refund(run: Any, call: str = "pay", **args: str) -> Any:
    return run.authorize("payments.refund", REFUND | args, tool_call_id=call)


def refunded(run: Any, call: str = "pay", **args: str) -> None:
    answer = refund(run, call, **args)
    assert isinstance(answer, Allow), answer
    with run.redeem(answer.token, tool="payments.refund", args=REFUND | args):
        pass


def refused(opening: Callable[[], object]) -> tuple[Reason, str]:
    with pytest.raises(RunRefused) as found:
        opening()
    (failure,) = found.value.failures
    assert failure.reason is not None
    return failure.reason, failure.field


def test_a_host_finds_its_conversation_again_in_any_gate(gates: Opened) -> None:
    run = talk(gates(), PROMPT)
    assert run.conversation == "chat-7"
    looked_up(run)
    again = talk(gates(), "It arrived on Monday")
    assert again.id == run.id
    assert again.state.turns == (PROMPT, "It arrived on Monday")
    refunded(again)
    found = talk(gates(), "")
    assert (found.id, found.state.turns) == (run.id, again.state.turns)
    assert reasons(refund(found)) == {Reason.ALREADY_REDEEMED}


@pytest.mark.parametrize(
    ("who", "named"),
    [
        ({"user": KIM}, "chat-7"),
        ({"user": User("lee", tenant="other", groups=["support"]), "tenant": "other"}, "chat-7"),
        ({"agent": Agent("robot")}, "chat-7"),
        ({}, "chat-8"),
    ],
)
def test_anothers_id_finds_nothing_and_closes_nothing(gates: Opened, who: dict[str, Any], named: str) -> None:
    run = talk(gates(), PROMPT)
    assert refused(lambda: talk(gates(), "", **who, conversation=named)) == (Reason.RUN_MISSING, "run")
    whose = {"tenant": "acme", "user": LEE, "agent": Agent("bot"), **who}
    assert refused(lambda: gates().close_conversation(named, workflow="shop.refund", **whose)) == (Reason.RUN_MISSING, "run")
    other = talk(gates(), "Where is ORD-10023345?", **who, conversation=named)
    assert other.id != run.id
    assert other.state.turns == ("Where is ORD-10023345?",)
    assert talk(gates(), "").state.turns == (PROMPT,)


def test_a_closed_conversation_stays_closed(gates: Opened) -> None:
    gate = gates()
    run = talk(gate, PROMPT, ttl=LIFE)
    looked_up(run)
    for _ in range(2):
        gates().close_conversation("chat-7", workflow="shop.refund", tenant="acme", user=LEE, agent=Agent("bot"))
    assert reasons(refund(run)) == {Reason.RUN_CLOSED}
    for prompt in ("", PROMPT):
        assert refused(lambda prompt=prompt: talk(gates(), prompt)) == (Reason.RUN_CLOSED, "conversation")  # type: ignore[misc]
    over(run)
    assert refused(lambda: talk(gates(), PROMPT)) == (Reason.RUN_CLOSED, "conversation")


def test_no_run_follows_one_that_its_denials_closed(gates: Opened) -> None:
    run = talk(gates(denials_per_run=2), PROMPT, ttl=LIFE)
    for call in "ab":
        assert isinstance(refund(run, call, order_id="ORD-00000000"), Deny)
    over(run)
    assert refused(lambda: talk(gates(), PROMPT)) == (Reason.TOO_MANY_DENIALS, "conversation")


@pytest.mark.parametrize("what", ["run", "user:lee", "before"])
def test_no_run_follows_one_that_is_revoked(gates: Opened, what: str) -> None:
    run = talk(gates(), PROMPT, ttl=LIFE)
    name = f"run:{run.id}" if what == "run" else "user:lee"
    before = datetime.now(UTC) if what == "before" else None
    gates().revoke(name, tenants=["acme"], by="ops", reason="test", before=before)
    over(run)
    gate = gates()
    assert refused(lambda: talk(gate, PROMPT)) == (Reason.REVOKED, "conversation")
    assert any(record["type"] == "run_refused" for record in refusals(gate))


def test_a_conversation_whose_last_run_is_forgotten_begins_no_other(valkey_server: Server, folder: Path) -> None:
    valkey_server.command("FLUSHALL")
    with opened(folder, store=valkey_server.url, keys=folder / "keys") as gate:
        run = talk(gate, PROMPT)
        valkey_server.command("DEL", f"ag:{{acme}}:run:{run.id}")  # as its expiry does
        assert refused(lambda: talk(gate, PROMPT)) == (Reason.RUN_EXPIRED, "conversation")
        left = valkey_server.command("PTTL", f"ag:{{acme}}:conversation:{run.id}").strip().lstrip(":")
        assert int(left) > 365 * 24 * 3600 * 1000


def test_a_run_that_follows_carries_what_was_counted_and_nothing_that_grants(gates: Opened) -> None:
    run = talk(gates(), PROMPT, ttl=LIFE)
    looked_up(run)
    refunded(run)
    assert isinstance(refund(run, "wrong", order_id="ORD-00000000"), Deny)
    over(run)
    assert reasons(run.authorize("orders.get", ORDER, tool_call_id="late")) == {Reason.RUN_EXPIRED}
    after = talk(gates(), "Where is it now?", ttl=LIFE)
    assert (after.id, after.header.succession, after.state.turns) == (run.id, 1, ("Where is it now?",))
    assert after.state.spoken == (PROMPT, "Where is it now?")
    # a name is known, an intent is not, nor is a fact
    assert isinstance(after.authorize("orders.get", ORDER, tool_call_id="again"), Allow)
    assert Reason.INTENT_ABSENT in reasons(refund(after, "second", amount="1.00"))
    asked = talk(gates(), "Please refund 1.00 EUR for ORD-10023344 as well")
    assert reasons(refund(asked, "second", amount="1.00")) >= {Reason.ARGUMENT_ORIGIN}
    looked_up(asked, call="anew")
    refunded(asked, "second", amount="1.00")  # the second of two per run
    assert reasons(refund(asked, "third", amount="1.00", payee="cus_1")) == {Reason.LIMIT}


def test_a_gate_that_knows_the_run_of_before_takes_no_fact_of_it_into_the_next(gates: Opened) -> None:
    run = talk(gates(), PROMPT, ttl=LIFE)
    looked_up(run)
    assert run.facts("look")  # the handle has read it
    over(run)
    talk(gates(), "Please refund 39.99 EUR for order ORD-10023344 now")
    assert Reason.ARGUMENT_ORIGIN in reasons(refund(run))  # its handle has that look-up
    assert run.header.succession == 1


def test_limits_per_run_and_per_conversation_go_on_in_the_run_that_follows(gates: Opened, folder: Path) -> None:
    one = WORKFLOW.replace("{count: payments.refund, max: 2, per: run}", "{count: payments.refund, max: 1, per: conversation}")
    (folder / "w" / "refund.yaml").write_text(one)
    gate = gates()
    assert refused(lambda: run_of(gate)) == (Reason.INPUT, "conversation")
    run = talk(gate, PROMPT, ttl=LIFE)
    looked_up(run)
    refunded(run)
    over(run)
    after = talk(gates(), "Please refund 2.00 EUR for order ORD-10023344")
    looked_up(after, call="anew")
    assert reasons(refund(after, "more", amount="2.00")) == {Reason.LIMIT}
    assert isinstance(refund(talk(gates(), PROMPT, conversation="other"), "more"), Deny)


def test_a_turn_of_the_next_run_is_no_turn_of_the_one_before(gates: Opened, folder: Path) -> None:
    each = WORKFLOW.replace("{count: payments.refund, max: 2, per: run}", "{count: payments.refund, max: 1, per: turn}")
    (folder / "w" / "refund.yaml").write_text(each)
    run = talk(gates(), PROMPT, ttl=LIFE)
    looked_up(run)
    refunded(run)
    named = run.call_id("payments.refund", REFUND)
    over(run)
    after = talk(gates(), "Please refund 2.00 EUR for order ORD-10023344")
    looked_up(after, call="anew")
    refunded(after, "more", amount="2.00")
    assert reasons(refund(after, "twice", amount="2.00")) == {Reason.LIMIT}
    assert after.call_id("payments.refund", REFUND) != named


def test_an_act_that_was_refused_is_asked_about_again_when_the_user_asks_in_the_next_run(gates: Opened) -> None:
    run = talk(gates(), "Where is ORD-10023344?", ttl=LIFE)
    run.add_turn("Please refund 120.00 EUR for order ORD-10023344")
    looked_up(run)
    held = refund(run, amount="120.00")
    assert isinstance(held, StepUp)
    gates().refuse(held.hold.id, tenant="acme", by=BOSS)
    over(run)
    quiet = talk(gates(), "Where is ORD-10023344 now?", ttl=LIFE)
    looked_up(quiet, call="b")
    assert isinstance(refund(quiet, "b", amount="120.00"), Deny)
    quiet.add_turn("Please refund 120.00 EUR for order ORD-10023344, really")
    assert isinstance(refund(quiet, "c", amount="120.00"), StepUp)


def test_of_gates_that_hear_the_user_at_the_same_time_one_opens_the_next_run(gates: Opened) -> None:
    run = talk(gates(), PROMPT, ttl=LIFE)
    over(run)
    said = [f"Where is ORD-1002334{number}?" for number in range(4)]
    opening = [threading.Thread(target=talk, args=(gates(), words)) for words in said]
    for each in opening:
        each.start()
    for each in opening:
        each.join()
    found = talk(gates(), "")
    assert found.header.succession == 1
    assert sorted(found.state.turns) == said


def test_a_run_that_changed_since_it_was_read_is_not_followed(gates: Opened) -> None:
    gate = gates()
    known = talk(gate, PROMPT).state
    talk(gate, "And the weather?")
    who, life = ops.Subjects("bot", "lee", "", "shop.refund@1"), 1000
    asked: Any = {"revision": known.revision, "life_ms": life, "takes_back": False, "who": who}
    op = ops.succeed_run("acme", known.header.id, header_bytes(known.header), ("x",), **asked)
    assert op.parse(gate._store.call(op, time.monotonic() + 5)) == "stale"
    assert talk(gate, "").state.turns == (PROMPT, "And the weather?")


def test_what_follows_a_run_is_refused_once_it_was_closed_and_keeps_its_name_from_beginning_anew(gates: Opened) -> None:
    store = gates()._store

    def ask(op: Op[Any]) -> Any:
        return op.parse(store.call(op, time.monotonic() + 5))

    def follow(run: str, life_ms: int) -> Any:
        revision = ask(ops.read_run("acme", run)).revision
        more: Any = {"revision": revision, "life_ms": life_ms, "takes_back": False, "who": ops.Subjects("bot", "lee", "", "shop.refund@1")}
        return ask(ops.succeed_run("acme", run, b"{}", ("x",), **more))

    def open_of_host(run: str) -> Any:  # its name is kept for 122 ms
        return ask(ops.open_run("acme", run, b"{}", "x", 2000, whose="lee", most=99, keep_ms=10)).kind

    assert open_of_host("short") == "ok"
    assert follow("short", 1000) == "ok"
    until = time.monotonic() + 30
    while ask(ops.read_run("acme", "short")) is not None and time.monotonic() < until:
        time.sleep(0.05)
    assert open_of_host("short") == "gone"
    assert ask(ops.open_run("acme", "closed", b"{}", "x", 60_000, whose="lee", most=99, keep_ms=60_000)).kind == "ok"
    assert ask(ops.close_run("acme", "closed")) == "ok"
    assert follow("closed", 60_000) == "closed"  # who asks knows it as it is now


def test_denials_are_counted_on(gates: Opened) -> None:
    run = talk(gates(denials_per_run=3), PROMPT, ttl=LIFE)
    for call in "ab":
        assert isinstance(refund(run, call, order_id="ORD-00000000"), Deny)
    over(run)
    after = talk(gates(denials_per_run=3), PROMPT)
    assert Reason.TOO_MANY_DENIALS in reasons(refund(after, "c", order_id="ORD-00000000"))


def test_a_spent_act_answers_its_outcome_until_it_is_asked_for_anew(gates: Opened) -> None:
    run = talk(gates(), PROMPT, ttl=LIFE)
    looked_up(run)
    refunded(run)
    over(run)
    after = talk(gates(), "Please refund order ORD-10023345, too", ttl=LIFE)
    looked_up(after, call="anew")
    for call in ("pay", "other-id"):  # the new intent does not pay the earlier order once more
        assert reasons(refund(after, call)) == {Reason.ALREADY_REDEEMED}
    over(after)
    third = talk(gates(), "Please refund 39.99 EUR for order ORD-10023344 again")
    looked_up(third, call="thrice")
    refunded(third, "again")


def test_a_user_who_takes_back_ends_what_is_held_though_another_run_begins(gates: Opened) -> None:
    run = talk(gates(), "Please refund 120.00 EUR for order ORD-10023344", ttl=LIFE)
    looked_up(run)
    held = refund(run, amount="120.00")
    assert isinstance(held, StepUp)
    over(run)
    talk(gates(), "No, do not refund order ORD-10023344")
    assert gates().hold(held.hold.id, tenant="acme").state == "cancelled"


def test_what_was_denied_in_an_earlier_run_is_not_named_by_it(gates: Opened) -> None:
    run = talk(gates(), "Where are ORD-10023344 and ORD-10023345?", ttl=LIFE)
    run.add_turn("Not ORD-10023344.")
    over(run)
    after = talk(gates(), "Where are they now?")
    assert reasons(after.authorize("orders.get", ORDER, tool_call_id="a")) == {Reason.ARGUMENT_ORIGIN}
    assert isinstance(after.authorize("orders.get", {"order_id": "ORD-10023345"}, tool_call_id="b"), Allow)


def test_a_conversation_counts_as_one_run_of_the_hour(gates: Opened) -> None:
    gate = gates(runs_per_hour=1)
    for number in range(4):
        run = talk(gate, f"Where is ORD-1002334{number}?", ttl=LIFE)
    over(run)
    assert talk(gate, "And ORD-10023344?").header.succession == 1
    assert refused(lambda: run_of(gate))[0] is Reason.TOO_MANY_RUNS


def test_a_conversation_stays_with_its_workflow(gates: Opened, folder: Path) -> None:
    (folder / "w" / "other.yaml").write_text(WORKFLOW.replace("id: shop.refund", "id: shop.other"))
    gate = gates()
    talk(gate, PROMPT)
    who: Any = {"tenant": "acme", "user": LEE, "agent": Agent("bot"), "conversation": "chat-7"}
    assert refused(lambda: gate.open_run("shop.other", prompt=PROMPT, **who)) == (Reason.INPUT, "workflow")


@pytest.mark.parametrize("name", ["", " x", "a\n", 7, "x" * 513])
def test_what_is_no_name_is_no_conversation(gate: Gate, name: Any) -> None:
    assert refused(lambda: talk(gate, PROMPT, conversation=name)) == (Reason.INPUT, "conversation")


def test_a_relative_day_of_an_earlier_run_means_that_runs_day(folder: Path) -> None:
    (folder / "w" / "refund.yaml").write_text(
        WORKFLOW.replace(
            "args: {order_id: {type: id, pattern: 'ORD-[0-9]{8}', from: [prompt]}}", "args: {day: {type: date, from: [prompt]}}"
        ).replace("order_id: {type: id, from: [orders.get.order_id]}", "order_id: {type: id, from: [prompt]}")
    )
    now = [datetime(2026, 3, 4, 10, tzinfo=UTC)]
    with opened(folder, clock=lambda: now[0]) as gate:
        run = talk(gate, "What comes tomorrow?", ttl=LIFE)
        over(run)
        now[0] += timedelta(days=5)
        after = talk(gate, "And now?")
        assert isinstance(after.authorize("orders.get", {"day": "2026-03-05"}, tool_call_id="a"), Allow)
        assert reasons(after.authorize("orders.get", {"day": "2026-03-10"}, tool_call_id="b")) == {Reason.ARGUMENT_ORIGIN}


def test_an_approver_may_still_answer_and_the_record_names_the_conversation(gate: Gate) -> None:
    run = talk(gate, "Please refund 120.00 EUR for order ORD-10023344")
    looked_up(run)
    held = refund(run, amount="120.00")
    assert isinstance(held, StepUp)
    gate.release(held.hold.id, tenant="acme", by=BOSS)
    refunded(talk(gate, ""), amount="120.00")
    log: Any = gate._audit
    assert [r["conversation"] for r in log.records if r["type"] == "run_opened"] == ["chat-7"]
