"""What a host learns of refused and held calls, beside what the model sees: no log has to be read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import convert_to_messages, convert_to_openai_messages
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentgate import Gate, Reason
from agentgate.errors import StepUpRequired
from agentgate.integrations.langchain import AgentGateMiddleware, CallOutcome, CallRefused, call_outcomes, guard_tools, use_run
from agentgate.values.refusal import Code, Failure
from tests.langchain_shop import ISSUER, LEAD, LEE, ORDER, PROMPT, Script, Shop, calls, identify, say, tool_messages, tool_server, vouched

GET = ("orders.get", {"order_id": ORDER})
OTHER = ("orders.get", {"order_id": "ORD-99999999"})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with tool_server() as served:
        yield Shop(tmp_path, served, total="150.00")


def agent(shop: Shop, *answers: Any, **more: Any) -> Any:
    gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", **{"identify": identify, **more})
    return create_agent(Script(answers=list(answers)), shop.tools, middleware=[gated], context_schema=object, checkpointer=InMemorySaver())


def ask() -> dict[str, Any]:
    return {"messages": vouched(PROMPT)}


def test_each_refused_call_reaches_the_host_with_its_reasons_and_run(shop: Shop) -> None:
    built = agent(shop, calls(GET, OTHER), say())
    with call_outcomes() as seen:
        out = built.invoke(ask(), THREAD, context=LEE)
    (outcome,) = seen
    (record,) = [each for each in shop.records if each["type"] == "run_opened"]
    assert (outcome.code, outcome.status, outcome.turn) == ("not_permitted", 403, "nobody")
    assert (outcome.tool, outcome.tool_call_id, outcome.run) == ("orders.get", "orders.get-1", record["run"])
    assert [(each.reason, each.field) for each in outcome.failures] == [(Reason.ARGUMENT_ORIGIN, "args.order_id")]
    refused = tool_messages(out)[1]
    assert refused.artifact == {"type": "agentgate.refused", "code": "not_permitted", "hold": "", "until": ""}
    assert tool_messages(built.get_state(THREAD).values)[1].artifact == refused.artifact  # as the checkpoint has it


def test_nothing_of_it_is_shown_to_a_model(shop: Shop) -> None:
    with call_outcomes():
        out = agent(shop, calls(OTHER), say()).invoke(ask(), THREAD, context=LEE)
    shown = json.dumps(convert_to_openai_messages(convert_to_messages(out["messages"])))
    assert "agentgate: not_permitted" in shown
    assert not {word for word in ("agentgate.refused", "argument_origin", "run_") if word in shown}


def test_a_held_call_says_whose_turn_it_is_and_until_when_and_a_no_is_the_holds(shop: Shop) -> None:
    built = agent(shop, calls(GET), calls(DEAR), say())
    with call_outcomes() as seen:
        out = built.invoke(ask(), THREAD, context=LEE)
    (held,) = seen
    (interrupt,) = out["__interrupt__"]
    assert (held.code, held.status, held.turn, held.hold) == ("needs_approval", 202, "1 of leads", interrupt.value["hold"])
    assert held.until == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(interrupt.value["deadline"]))
    with call_outcomes() as seen:
        built.invoke(Command(resume=True), THREAD, context=LEE)
    assert seen == [held]  # decided on twice
    shop.gate.refuse(held.hold, tenant="acme", by=LEAD)
    with call_outcomes() as seen:
        out = built.invoke(Command(resume=True), THREAD, context=LEE)
    (no,) = seen
    assert (no.code, no.status, no.turn, no.hold) == ("refused", 403, "nobody", held.hold)
    assert tool_messages(out)[-1].artifact["hold"] == held.hold


def test_a_wrong_form_is_the_agents_turn(shop: Shop) -> None:
    with call_outcomes() as seen:
        agent(shop, calls(("orders.get", {"order_id": ORDER, "all": True})), say()).invoke(ask(), THREAD, context=LEE)
    assert [(each.code, each.status, each.turn) for each in seen] == [("invalid_arguments", 422, "the agent")]


def test_a_limit_says_until_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.langchain_shop as of

    limits = "limits: [{{count: orders.get, max: 1, per: run}}]\nstep_up:"
    monkeypatch.setattr(of, "WORKFLOW", of.WORKFLOW.replace("step_up:", limits, 1))
    with tool_server() as served:
        shop = Shop(tmp_path, served)
        with call_outcomes() as seen:
            out = agent(shop, calls(GET), calls(GET, ids=["again"]), say()).invoke(ask(), THREAD, context=LEE)
    (limit,) = seen
    assert (limit.code, limit.status, limit.turn, limit.until) == ("limit_reached", 429, "nobody", "end_of_run")
    assert tool_messages(out)[-1].artifact["until"] == "end_of_run"


def test_too_many_runs_is_told_apart_from_what_is_not_allowed(shop: Shop) -> None:
    shop.gate.close()
    shop.gate = Gate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://", runs_per_hour=1)
    shop.run()
    with call_outcomes() as seen:
        agent(shop, calls(GET), say()).invoke(ask(), THREAD, context=LEE)
    assert [(each.tool, each.status, each.run) for each in seen] == [("", 429, ""), ("orders.get", 429, "")]
    assert seen[1].code == "not_permitted"  # all that the model learns


@pytest.mark.parametrize("who", [lambda _: 1 / 0, lambda _: ("acme", "lee", "bot")], ids=["raised", "nobody"])
def test_nobody_who_is_proven_is_told_to_sign_in(shop: Shop, who: Any) -> None:
    with call_outcomes() as seen:
        agent(shop, calls(GET), say(), identify=who).invoke(ask(), THREAD, context=LEE)
    assert [(each.tool, each.status, each.turn) for each in seen] == [("", 401, "the user"), ("orders.get", 401, "the user")]


def test_a_tenant_that_may_not_is_not_told_to_sign_in(shop: Shop) -> None:
    with call_outcomes() as seen:
        agent(shop, calls(GET), say(), identify=lambda user: ("evil", *identify(user)[1:])).invoke(ask(), THREAD, context=LEE)
    assert {each.status for each in seen} == {403}


def test_a_gate_that_is_gone_is_worth_another_try(shop: Shop) -> None:
    built = agent(shop, calls(GET), say())
    shop.gate.close()
    with call_outcomes() as seen:
        built.invoke(ask(), THREAD, context=LEE)
    assert {(each.status, each.turn) for each in seen} == {(503, "the host")}


def test_a_closed_thread_is_told_with_its_run(shop: Shop) -> None:
    built = agent(shop, say(), calls(GET), say())
    built.invoke(ask(), THREAD, context=LEE)
    run = built.get_state(THREAD).values["agentgate_run"]
    shop.gate.resume_run("acme", run).close()
    with call_outcomes() as seen:
        built.invoke(ask(), THREAD, context=LEE)
    assert seen[0].run == run
    assert {each.status for each in seen} == {403}


def test_without_a_graph_it_is_the_same(shop: Shop) -> None:
    get, refund = guard_tools([shop.tool("orders.get"), shop.tool("payments.refund")])
    run = shop.run()
    with use_run(run), call_outcomes() as seen:
        get.invoke(GET[1])
        with pytest.raises(CallRefused) as refused:
            get.invoke(OTHER[1])
        with pytest.raises(StepUpRequired) as held:
            refund.invoke(DEAR[1])
    assert [(each.code, each.run) for each in seen] == [("not_permitted", run.id), ("needs_approval", run.id)]
    assert (seen[0].tool_call_id, seen[1].hold) == (refused.value.tool_call_id, held.value.hold_id)


async def test_invokes_at_once_have_a_list_each(shop: Shop) -> None:
    import asyncio

    async def one(number: int) -> list[Any]:
        thread: Any = {"configurable": {"thread_id": str(number)}}
        with call_outcomes() as seen:
            await agent(shop, calls(OTHER, ids=[f"call_{number}"]), say()).ainvoke(ask(), thread, context=LEE)
        return seen

    found = await asyncio.gather(*map(one, range(3)))
    assert [[each.tool_call_id for each in seen] for seen in found] == [["call_0"], ["call_1"], ["call_2"]]


def test_why_there_is_no_run_is_no_reason_of_a_call_that_has_one_and_no_call_is_one_of_anothers(shop: Shop) -> None:
    (get,) = guard_tools([shop.tool("orders.get")])
    run = shop.run()
    with call_outcomes() as seen:
        agent(shop, calls(GET), say(), identify=lambda _: 1 / 0).invoke(ask(), THREAD, context=LEE)
        with use_run(run):
            for args in ({"order_id": ORDER, "all": True}, OTHER[1]):
                with pytest.raises(CallRefused):
                    get.invoke(args)
    assert [(each.run, each.status, bool(each.failures)) for each in seen[2:]] == [(run.id, 422, False), (run.id, 403, True)]
    with call_outcomes() as seen:
        with use_run(run), pytest.raises(CallRefused):
            get.invoke(OTHER[1])
        with pytest.raises(CallRefused):
            get.invoke(GET[1])
    assert [(each.run, bool(each.failures)) for each in seen] == [(run.id, True), ("", False)]


def test_a_resume_for_another_user_says_why_the_run_does_not_go_on(shop: Shop) -> None:
    built = agent(shop, calls(GET), calls(DEAR), say())
    built.invoke(ask(), THREAD, context=LEE)
    with call_outcomes() as seen:
        built.invoke(Command(resume=True), THREAD, context=LEAD)
    why, refused = seen
    assert why.run == built.get_state(THREAD).values["agentgate_run"]
    assert (refused.tool, refused.status, refused.failures) == ("payments.refund", 403, why.failures)


@pytest.mark.parametrize(
    ("code", "reason", "status", "turn"),
    [
        (Code.NOT_PERMITTED, Reason.AUTHENTICATION, 401, "the user"),
        (Code.OUTCOME_UNKNOWN, Reason.OUTCOME_UNKNOWN, 409, "an operator"),
        (Code.ALREADY_DONE, Reason.ALREADY_REDEEMED, 409, "nobody"),
    ],
)
def test_a_login_of_another_kind_is_the_users_turn_and_what_nobody_knows_an_operators(
    code: Code, reason: Reason, status: int, turn: str
) -> None:
    outcome = CallOutcome(code, (Failure(reason, "", "", ""),))
    assert (outcome.status, outcome.turn) == (status, turn)
