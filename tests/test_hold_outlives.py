"""A hold lives as long as its rule says, whatever its run's life: the run is kept for it, and takes no new call in between."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentgate import Agent, Allow, Reason, User
from agentgate.decision.answer import StepUp
from agentgate.gate import open_run
from agentgate.gate.proving import OverHTTP
from agentgate.shell.drive import drive
from agentgate.values.refusal import AnswerCode, AnswerRefused, RunRefused
from tests.servers import Server
from tests.shop import BOSS, LEE, ORDER, REFUND, WEEKDAY, WORKFLOW, looked_up, opened, reasons, refusals, run_of
from tests.test_conversation import LIFE, Opened, gates, over, refund, refunded, refused, shards, talk  # noqa: F401 - fixtures
from tests.test_identity_door import ORDER as PROVEN_ORDER
from tests.test_identity_door import PROMPT as PROVEN_PROMPT
from tests.test_identity_door import Desk, desk, with_key  # noqa: F401 - a fixture

DEAR = "Please refund 120.00 EUR for order ORD-10023344"
WHO: Any = {"tenant": "acme", "user": LEE, "agent": Agent("bot")}


def held(run: Any) -> str:
    looked_up(run)
    answer = refund(run, amount="120.00")
    assert isinstance(answer, StepUp)
    return answer.hold.id


def test_a_yes_after_the_end_counts_for_that_call_and_for_whoever_comes_back(gates: Opened) -> None:  # noqa: F811
    gate = gates()
    run = run_of(gate, DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    gates().release(hold, tenant="acme", by=BOSS)
    assert reasons(refund(run, amount="120.00")) == {Reason.RUN_EXPIRED}  # nobody came back
    found = gates().resume_run("acme", run.id)
    with pytest.raises(RunRefused, match="user"):
        found.continue_for(**WHO | {"user": User("kim", tenant="acme", groups=["support"])})
    found.continue_for(**WHO)
    assert reasons(found.authorize("orders.get", ORDER, tool_call_id="more")) == {Reason.RUN_EXPIRED}
    assert reasons(refund(found, "other", amount="120.00")) == {Reason.RUN_EXPIRED}  # it is not held anew
    refunded(found, amount="120.00")
    assert reasons(refund(found, amount="120.00")) == {Reason.ALREADY_REDEEMED}


def test_everything_is_judged_anew(gates: Opened) -> None:  # noqa: F811
    now = [WEEKDAY]
    gate = gates(clock=lambda: now[0])
    run = run_of(gate, DEAR, ttl=LIFE)
    gate.release(held(run), tenant="acme", by=BOSS)
    over(run)
    run.continue_for(**WHO)
    now[0] = datetime(2026, 3, 4, 22, tzinfo=UTC)
    assert Reason.HOURS in reasons(refund(run, amount="120.00"))
    with pytest.raises(RunRefused):
        run.continue_for(**WHO | {"user": User("lee", tenant="acme", groups=["others"])})
    gate.revoke("user:lee", tenants=["acme"], by="ops", reason="left")
    now[0] = WEEKDAY
    assert reasons(refund(run, amount="120.00")) == {Reason.REVOKED}


def test_words_after_the_end_only_take_back(gates: Opened) -> None:  # noqa: F811
    gate = gates()
    run = run_of(gate, DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    for words in ("Tell me when it is through", "No, do not refund it"):
        assert refused(lambda words=words: run.add_turn(words)) == (Reason.RUN_EXPIRED, "run")  # type: ignore[misc]
        assert gate.hold(hold, tenant="acme").state == ("cancelled" if words.startswith("No") else "pending")
    assert gate.resume_run("acme", run.id).state.turns == (DEAR, "No, do not refund it")


def test_a_conversation_finishes_its_held_call_in_another_process_without_new_words(gates: Opened) -> None:  # noqa: F811
    run = talk(gates(), DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    gates().release(hold, tenant="acme", by=BOSS)
    found = talk(gates(), "")
    assert found.is_over
    assert reasons(found.authorize("orders.get", ORDER, tool_call_id="more")) == {Reason.RUN_EXPIRED}
    refunded(found, amount="120.00")


def test_a_call_that_waits_is_finished_in_the_run_that_follows_and_opens_nothing_else(gates: Opened) -> None:  # noqa: F811
    run = talk(gates(), DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    after = talk(gates(), "What is the weather?")
    still = refund(after, "asked-again", amount="120.00")
    assert isinstance(still, StepUp)  # it still waits, for the same person
    assert still.hold.id == hold
    assert Reason.INTENT_ABSENT in reasons(refund(after, "other", amount="1.00"))
    gates().release(hold, tenant="acme", by=BOSS)
    assert Reason.INTENT_ABSENT in reasons(refund(after, "other", amount="1.00"))
    refunded(after, "by-any-id", amount="120.00")
    assert Reason.INTENT_ABSENT in reasons(refund(after, "once-more", amount="120.00"))


def test_a_host_without_state_finds_the_released_call_again_and_holds_none_anew(gates: Opened) -> None:  # noqa: F811
    hold = held(talk(gates(), DEAR))
    again = refund(talk(gates(), "Is it done?"), "another-id", amount="120.00")
    assert isinstance(again, StepUp)
    assert again.hold.id == hold
    assert len(gates().holds("acme")) == 1
    gates().release(hold, tenant="acme", by=BOSS)
    refunded(talk(gates(), "And now?"), "third-id", amount="120.00")
    anew = refund(talk(gates(), "Please refund 120.00 EUR for order ORD-10023344 once more"), "fourth", amount="120.00")
    assert isinstance(anew, StepUp)  # one yes, one act
    assert anew.hold.id != hold


@pytest.mark.parametrize("ended", ["closed", "closed before", "denied"])
def test_a_hold_of_a_closed_conversation_is_answered_by_nobody(gates: Opened, ended: str) -> None:  # noqa: F811
    gate = gates(denials_per_run=1)
    run = talk(gate, DEAR, ttl=LIFE)
    hold = held(run)
    if ended == "closed before":
        over(run)
    if ended == "denied":
        refund(run, "wrong", order_id="ORD-00000000")
    else:
        gate.close_conversation("chat-7", workflow="shop.refund", **WHO)
    with pytest.raises(AnswerRefused) as no:
        gate.release(hold, tenant="acme", by=BOSS)
    assert no.value.code is AnswerCode.STATE
    assert "cancelled" in str(no.value)
    assert refused(lambda: talk(gate, ""))[1] == "conversation"
    assert any(record["type"] == "hold_answer_refused" for record in refusals(gate))
    assert not isinstance(refund(run, amount="120.00"), Allow)


def test_what_all_runs_were_told_opens_no_new_hold(gates: Opened) -> None:  # noqa: F811
    run = talk(gates(), DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    after = talk(gates(), "What is the weather?")
    other = after.authorize("payments.refund", REFUND | {"amount": "120.00"}, tool_call_id="pay", definition="sha256:" + "0" * 64)
    assert reasons(other) == {Reason.RUN_EXPIRED}  # the same act of a tool that is another: it was not held
    assert [each.id for each in gates().holds("acme")] == [hold]


def test_where_the_version_of_before_is_gone_nothing_of_it_waits(valkey_server: Server, folder: Path) -> None:
    valkey_server.command("FLUSHALL")
    stored: Any = {"store": valkey_server.url, "keys": folder / "keys"}
    with opened(folder, **stored) as gate:
        run = talk(gate, DEAR, ttl=LIFE)
        hold = held(run)
        over(run)
    (folder / "w" / "refund.yaml").write_text(WORKFLOW.replace("version: 1", "version: 2"))
    with opened(folder, **stored) as gate:
        after = talk(gate, "What is the weather?")
        assert (after.header.version, after.header.succession) == (2, 1)
        assert gate.hold(hold, tenant="acme").state == "cancelled"


def test_a_fresh_credential_of_the_same_person_finishes_the_call_and_no_other_does(desk: Desk) -> None:  # noqa: F811
    run = desk.run(ttl=LIFE, conversation="c1")
    call = {"tool": "refund", "args": PROVEN_ORDER}
    waiting = run.authorize(**call, tool_call_id="a")
    assert isinstance(waiting, StepUp)
    over(run)
    desk.gate.release(waiting.hold.id, tenant="acme-eu", by=desk.answer("boss", waiting, groups=["leads"]))
    run.renew(agent=desk.agent())
    assert reasons(run.authorize(**call, tool_call_id="a")) == {Reason.RUN_EXPIRED}  # the person did not come
    with pytest.raises(RunRefused, match=r"user\.subject"):
        run.renew(user=desk.user("kim"))
    kim = {"user": desk.user("kim"), "conversation": "c1", "prompt": ""}
    assert refused(lambda: desk.run(**kim)) == (Reason.RUN_MISSING, "run")
    run.renew(user=desk.user(life=40))
    answer = run.authorize(**call, tool_call_id="a")
    assert isinstance(answer, Allow)
    assert answer.token.claims.exp - answer.token.claims.iat <= 40


def test_an_agent_may_have_another_key_in_the_next_run_and_not_in_this_one(desk: Desk) -> None:  # noqa: F811
    run = desk.run(ttl=LIFE, conversation="c1", agent=with_key(desk))
    assert refused(lambda: desk.run(conversation="c1")) == (Reason.AGENT, "agent.key")
    over(run)
    after = desk.run(conversation="c1")
    assert (after.id, after.header.succession, after.header.agent.key) == (run.id, 1, "")


def test_a_conversation_of_one_client_is_no_others(desk: Desk) -> None:  # noqa: F811
    def opening(client: str) -> Any:
        who: Any = {"tenant": "acme-eu", "user": desk.user(), "agent": desk.agent(), "conversation": "c1"}
        steps = open_run.open_run(desk.gate._core, "desk.refund", **who, prompt=PROVEN_PROMPT, ttl=LIFE, over=OverHTTP("host", client))
        return drive(steps, desk.gate._store, desk.gate._audit)

    state = opening("one")
    assert refused(lambda: opening("two")) == (Reason.AGENT, "client")
    time.sleep(max(0.0, state.header.expires_at - time.time()))
    assert refused(lambda: opening("two")) == (Reason.AGENT, "client")
    assert opening("one").header.succession == 1


def test_a_call_of_an_earlier_run_is_finished_although_others_change_the_run_meanwhile(gates: Opened) -> None:  # noqa: F811
    meanwhile: list[Any] = []

    def clock() -> datetime:
        if meanwhile:
            meanwhile.pop()()
        return WEEKDAY

    gate = gates(clock=clock)
    run = talk(gate, DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    gate.release(hold, tenant="acme", by=BOSS)
    after, other = talk(gate, "And order ORD-10023344?"), talk(gates(), "")
    meanwhile += [lambda n=n: looked_up(other, call=f"look-{n}") for n in range(4)]
    refunded(after, amount="120.00")
    assert not meanwhile


def test_words_in_doubt_count_against_what_waits_from_an_earlier_run(gates: Opened, folder: Path) -> None:  # noqa: F811
    (file,) = (folder / "w").glob("*.yaml")
    file.write_text(file.read_text().replace("unclear: step_up", "unclear: deny"))
    run = talk(gates(), DEAR, ttl=LIFE)
    hold = held(run)
    over(run)
    after = talk(gates(), "What is the weather?")
    gates().release(hold, tenant="acme", by=BOSS)
    after.add_doubt("No, do not refund it")
    assert not isinstance(refund(after, amount="120.00"), Allow)
    assert not isinstance(refund(talk(gates(), ""), amount="120.00"), Allow)
