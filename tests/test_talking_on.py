"""Talking on while a call is held: a turn that denies or changes the act withdraws the hold, any other leaves it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import time_machine
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agentgate.decision.answer import Allow, StepUp
from agentgate.decision.hold import State
from agentgate.gate.gate import AsyncGate, Gate
from agentgate.gate.run import Run
from agentgate.integrations.langchain import (
    AgentGateMiddleware,
    aoffer_held,
    call_outcomes,
    definition_of,
    guard_tools,
    offer_held,
    use_run,
    user_says,
)
from agentgate.stores import ops
from agentgate.values.refusal import AnswerRefused
from agentgate.values.request import User
from tests.langchain_shop import (
    DENIED,
    DESK,
    ISSUER,
    LEAD,
    LEE,
    ORDER,
    PROMPT,
    REFUSED,
    Script,
    Shop,
    calls,
    identify,
    say,
    tool_server,
)

OTHER = "ORD-10023355"
GET = ("orders.get", {"order_id": ORDER})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with tool_server() as served:
        yield Shop(tmp_path, served, total="150.00")


def held(shop: Shop, run: Run) -> StepUp:
    """A refund of 150 that waits for a lead."""
    allowed = run.authorize(*GET, tool_call_id="read")
    assert isinstance(allowed, Allow)
    with run.redeem(allowed.token, tool=GET[0], args=GET[1]) as call:
        call.record_result({"total": "150.00", "currency": "EUR"})
    decision = ask(shop, run)
    assert isinstance(decision, StepUp)
    return decision


def ask(shop: Shop, run: Run) -> Any:
    return run.authorize(*DEAR, tool_call_id="c1", definition=definition_of(shop.tool(DEAR[0])))


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("No, don't refund it", "cancelled"),
        ("Change it to 50 EUR", "cancelled"),
        ("make it 50.00 EUR please", "cancelled"),
        ("I meant 50 EUR", "cancelled"),
        ("It should be 50 EUR", "cancelled"),
        ("50 EUR is enough", "cancelled"),
        ("50", "cancelled"),
        ("Can you refund 50 EUR?", "cancelled"),
        (f"Use {OTHER}", "cancelled"),
        (f"Refund {OTHER}", "cancelled"),
        ("order 10023355", "cancelled"),
        (f"Thanks! {OTHER}", "cancelled"),
        ("also make it 50 EUR", "cancelled"),  # an amount is never one more
        ("Any news on my refund?", "pending"),
        ("Thanks!", "pending"),
        (f"Where is my parcel {OTHER}?", "pending"),
        ("I've been waiting for 20 minutes", "pending"),
        (f"Please also refund {OTHER}", "pending"),
        (f"Yes, {ORDER} is right", "pending"),
        ("150 EUR is right", "pending"),
        ("Is kim@acme.example the address that you have?", "pending"),
        ("My address is kim@acme.example", "pending"),  # of a kind that the call does not have
    ],
)
def test_a_turn_that_denies_or_changes_the_act_withdraws_it_and_any_other_does_not(shop: Shop, said: str, state: State) -> None:
    run = shop.run()
    hold = held(shop, run).hold
    run.add_turn(said)
    assert shop.gate.hold(hold.id, tenant="acme").state == state


def test_a_yes_that_was_given_before_the_change_lets_nothing_run(shop: Shop) -> None:
    run = shop.run()
    hold = held(shop, run).hold
    shop.gate.release(hold.id, tenant="acme", by=LEAD)
    run.add_turn("I meant 50 EUR")
    again = ask(shop, run)
    assert isinstance(again, StepUp)  # a person is asked anew, about what the user says now
    assert again.hold.question.words[-1] == "I meant 50 EUR"


def test_a_change_counts_in_whichever_process_it_is_said(shop: Shop) -> None:
    run = shop.run()
    hold = held(shop, run).hold
    shop.gate.resume_run("acme", run.id).add_turn("make it 50 EUR")
    assert shop.gate.hold(hold.id, tenant="acme").state == "cancelled"


def test_holds_that_ended_hide_none_that_waits(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may have many calls held and withdrawn before the one that matters."""
    monkeypatch.setattr(ops, "list_holds", partial(ops.list_holds, page=1))
    run = shop.run()
    first = held(shop, run).hold
    hold = run.authorize(*DEAR, tool_call_id="c2", definition=definition_of(shop.tool(DEAR[0]))).hold  # type: ignore[union-attr]
    shop.gate.refuse(first.id, tenant="acme", by=LEAD)
    run.add_turn("It should be 50 EUR")
    assert shop.gate.hold(hold.id, tenant="acme").state == "cancelled"


def test_what_the_question_hides_may_be_what_changes(shop: Shop) -> None:
    path = shop.directory / "refund.yaml"
    path.write_text(path.read_text().replace("show: [order_id, amount, currency]", "show: [order_id]"))
    with Gate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://") as gate:
        shop.gate = gate
        run = shop.run()
        hold = held(shop, run).hold
        run.add_turn("It should be 50 EUR")
        assert gate.hold(hold.id, tenant="acme").state == "cancelled"


# --- in an agent with the middleware -----------------------------------------------------------------------------------------
THREAD: dict[str, Any] = {"configurable": {"thread_id": "1"}}
WAITS = re.compile(r"agentgate: needs_approval of: 1 of leads until: 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Chat:
    """An agent in one thread; `model` is what it asks."""

    def __init__(self, shop: Shop, *answers: AIMessage, saver: Any = None, **more: Any) -> None:
        self.model = Script(answers=list(answers))
        gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify, **more)
        made: Any = create_agent(self.model, shop.tools, middleware=[gated], context_schema=User, checkpointer=saver or InMemorySaver())
        self.agent = made

    def say(self, text: str = "") -> dict[str, Any]:
        """The user speaks; empty: the host only looks for what was answered."""
        out: dict[str, Any] = self.agent.invoke({"messages": user_says(text) if text else []}, THREAD, context=LEE)
        return out


def shown(out: dict[str, Any]) -> list[str]:
    """The conversation as a model's interface takes it: who speaks, and which calls are made and answered."""
    told = []
    for message in out["messages"]:
        match message:
            case AIMessage(tool_calls=[_, *_]):
                told += [f"call {call['id']}" for call in message.tool_calls]
            case ToolMessage():
                told.append(f"answer {message.tool_call_id}: {WAITS.sub('waits', str(message.content))}")
            case _:
                told.append(f"{message.type} {message.content}")
    return told


def is_fit_for_a_model(seen: list[BaseMessage]) -> bool:
    """Each id of a call is there once, and right behind its message there are the answers to all of its calls."""
    ids = [call["id"] for message in seen if isinstance(message, AIMessage) for call in message.tool_calls]
    for n, message in enumerate(seen):
        wanted = {call["id"] for call in message.tool_calls} if isinstance(message, AIMessage) else set()
        if {each.tool_call_id for each in seen[n + 1 : n + 1 + len(wanted)] if isinstance(each, ToolMessage)} != wanted:
            return False
    return len(ids) == len({*ids})


def test_the_model_is_told_that_the_call_waits_and_it_is_made_again_in_the_same_thread_once_it_is_released(shop: Shop) -> None:
    chat = Chat(shop, calls(GET), calls(DEAR, ids=["c1"]), say("Your refund still waits for a lead."), say("It is paid."), say("Bye."))
    asked = chat.say(PROMPT)["__interrupt__"][0].value
    with call_outcomes() as seen:
        out = chat.say("Any news on my refund?")
    assert shown(out)[3:] == ["call c1", "answer c1: waits", "human Any news on my refund?", "ai Your refund still waits for a lead."]
    assert out["messages"][-1].content == "Your refund still waits for a lead."
    assert "__interrupt__" not in out
    assert [(each.status, each.hold, each.turn, each.run) for each in seen] == [(202, asked["hold"], "1 of leads", asked["run"])]
    shop.gate.release(asked["hold"], tenant="acme", by=LEAD)
    assert not shop.server.paid  # a manager's request resumes nothing
    assert shown(chat.say())[3:] == [
        "call c1",
        "answer c1: agentgate: needs_approval",
        "human Any news on my refund?",
        "ai Your refund still waits for a lead.",
        "call c1-again-1",
        "answer c1-again-1: re_1",
        "ai It is paid.",
    ]
    assert shop.server.paid == [DEAR[1]]
    assert [hold.state for hold in shop.gate.holds("acme", run=asked["run"], state=None)] == ["spent"]
    chat.say("Thanks!")
    assert shop.server.paid == [DEAR[1]]  # it is not made again
    assert all(map(is_fit_for_a_model, chat.model.seen))


def start(shop: Shop, *more: AIMessage, ids: tuple[str, ...] = ("c1",), wanted: tuple[Any, ...] = (DEAR,)) -> tuple[Chat, dict[str, str]]:
    """A chat whose refund waits; the holds by the ids of their calls."""
    chat = Chat(shop, calls(GET), calls(*wanted, ids=ids), *more)
    run = chat.say(PROMPT)["__interrupt__"][0].value["run"]
    return chat, {hold.tool_call_id: hold.id for hold in shop.gate.holds("acme", run=run)}


@pytest.mark.parametrize("said", ["No, don't refund it", "make it 50 EUR"])
def test_a_call_that_the_user_denies_or_changes_is_withdrawn_and_the_model_is_told(shop: Shop, said: str) -> None:
    chat, holds = start(shop, say("Fine."), say("And now?"))
    assert "answer c1: agentgate: needs_approval withdrawn" in shown(chat.say(said))
    with pytest.raises(AnswerRefused) as refused:
        shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    assert refused.value.code == "state"  # no yes says `released` while nothing runs
    assert "call c1-again-1" not in shown(chat.say("Thanks!"))
    assert not shop.server.paid


def test_a_call_that_waited_for_a_while_is_withdrawn_in_its_place(shop: Shop) -> None:
    chat, _ = start(shop, say("It waits."), say("Fine."))
    assert "answer c1: waits" in shown(chat.say("Any news on my refund?"))
    assert shown(chat.say("No, don't refund it"))[3:6] == [
        "call c1",
        "answer c1: agentgate: needs_approval withdrawn",
        "human Any news on my refund?",
    ]
    assert all(map(is_fit_for_a_model, chat.model.seen))


@pytest.mark.parametrize(("answered", "code"), [("refused", REFUSED), ("expired", DENIED)])
def test_a_no_or_a_deadline_while_the_user_talks_is_told(shop: Shop, answered: str, code: str) -> None:
    chat, holds = start(shop, say("It waits."), say("Sorry."))
    chat.say("Any news on my refund?")
    with ExitStack() as later:
        if answered == "refused":
            shop.gate.refuse(holds["c1"], tenant="acme", by=LEAD)
        else:
            later.enter_context(time_machine.travel(time.time() + 601, tick=True))
        with call_outcomes() as seen:
            out = chat.say("And now?")
    assert f"answer c1-again-1: {code}" in shown(out)
    assert [(each.status, each.code, each.hold) for each in seen] == [(403, code.rsplit(maxsplit=1)[-1], holds["c1"])]
    assert not shop.server.paid


def test_of_one_step_what_ran_is_told_and_not_run_again_and_each_held_call_by_itself(shop: Shop) -> None:
    note = ("notes.add", {"order_id": ORDER, "text": "broken"})
    chat, holds = start(shop, say("One waits."), say("Done."), ids=("n1", "c1", "c2"), wanted=(note, DEAR, DEAR))
    shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    out = chat.say("Any news on my refund?")
    assert shown(out)[3:] == [
        *("call n1", "call c1", "call c2"),
        *("answer n1: agentgate: needs_approval", "answer c1: agentgate: needs_approval", "answer c2: waits"),
        "human Any news on my refund?",
        *("call n1-again-1", "call c1-again-1"),
        *("answer n1-again-1: agentgate: already_done", "answer c1-again-1: re_1"),
        "ai One waits.",
    ]
    shop.gate.release(holds["c2"], tenant="acme", by=LEAD)
    assert shown(chat.say())[-3:] == ["call c2-again-1", "answer c2-again-1: re_2", "ai Done."]
    assert shop.ran_names().count("notes.add") == 1
    assert all(map(is_fit_for_a_model, chat.model.seen))


def test_a_host_may_look_for_answers_whether_or_not_the_user_spoke(shop: Shop) -> None:
    chat, holds = start(shop, say("It waits."), say("Paid."))
    chat.say()
    assert shown(chat.agent.get_state(THREAD).values)[-2:] == ["answer c1: waits", "ai It waits."]
    shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    assert shown(chat.say())[-2:] == ["answer c1-again-1: re_1", "ai Paid."]


def test_another_worker_goes_on_with_it(shop: Shop) -> None:
    saver = InMemorySaver()
    chat = Chat(shop, calls(GET), calls(DEAR, ids=["c1"]), say("It waits."), saver=saver)
    asked = chat.say(PROMPT)["__interrupt__"][0].value
    chat.say("Any news on my refund?")
    shop.gate.release(asked["hold"], tenant="acme", by=LEAD)
    assert shown(Chat(shop, say("Paid."), saver=saver).say())[-2:] == ["answer c1-again-1: re_1", "ai Paid."]


def test_another_user_does_not(shop: Shop) -> None:
    chat, holds = start(shop, say("What?"))
    shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    out = chat.agent.invoke({"messages": []}, THREAD, context=User("mallory", tenant="acme", groups=["support"]))
    assert shown(out)[-2:] == ["call c1", "ai What?"]
    assert not shop.server.paid


def test_a_release_that_the_user_overtook_runs_nothing(shop: Shop) -> None:
    chat, holds = start(shop, say("It waits."), say("Withdrawn."))
    chat.say("Any news on my refund?")
    shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    assert "answer c1: agentgate: needs_approval withdrawn" in shown(chat.say("It should be 50 EUR"))
    assert not shop.server.paid


def test_an_id_that_a_model_makes_up_is_that_call_and_no_other(shop: Shop) -> None:
    chat, holds = start(shop, calls(DEAR, ids=["c1-again-7"]), say("Paid."))
    out = chat.say("Any news on my refund?")  # the model calls it once more, as if it had been released
    assert out["__interrupt__"][0].value["hold"] == holds["c1"]
    shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    assert "answer c1-again-8: re_1" in shown(chat.say())
    assert shop.server.paid == [DEAR[1]]


def test_an_agent_without_tools_is_built_and_talks_on(shop: Shop) -> None:
    gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify)
    made: Any = create_agent(Script(answers=[say("hello")]), [], middleware=[gated], context_schema=User)
    assert made.invoke({"messages": user_says("hi")}, context=LEE)["messages"][-1].content == "hello"


@pytest.mark.parametrize("talks", [True, False])
def test_a_yes_after_the_run_was_over_is_made_again_in_the_same_conversation(shop: Shop, talks: bool) -> None:  # noqa: FBT001 - a row
    chat = Chat(shop, calls(GET), calls(DEAR, ids=["c1"]), *[say("It waits.")] * talks, say("Paid."), conversation="thread", ttl=2)
    asked = chat.say(PROMPT)["__interrupt__"][0].value
    time.sleep(2)
    if talks:
        assert "answer c1: waits" in shown(chat.say("Any news on my refund?"))
    shop.gate.release(asked["hold"], tenant="acme", by=LEAD)
    assert shown(chat.say())[-2:] == ["answer c1-again-1: re_1", "ai Paid."]
    assert shop.server.paid == [DEAR[1]]


# --- in a graph of one's own -------------------------------------------------------------------------------------------------
def graph(shop: Shop, model: Script, offer: Any, run: Any) -> Any:
    made: Any = StateGraph(MessagesState)
    made.add_node("held", offer)
    made.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    made.add_node("tools", ToolNode(guard_tools(shop.tools, run=run)))
    made.add_edge(START, "held")
    made.add_conditional_edges("held", tools_condition, {"tools": "tools", END: "model"})
    made.add_conditional_edges("model", tools_condition)
    made.add_edge("tools", "model")
    return made.compile(checkpointer=InMemorySaver())


SCRIPT = [calls(GET), calls(DEAR, ids=["c1"]), say("It waits."), say("Paid.")]


def test_a_graph_of_ones_own_tells_and_makes_the_call_again_by_a_node_in_front_of_its_model(shop: Shop) -> None:
    run, model = shop.run(), Script(answers=[*SCRIPT])
    made = graph(shop, model, lambda state: offer_held(state, run), run)
    made.invoke({"messages": PROMPT}, THREAD)
    run.add_turn("Any news?")
    assert shown(made.invoke({"messages": "Any news?"}, THREAD))[3:] == ["call c1", "answer c1: waits", "human Any news?", "ai It waits."]
    (hold,) = run.holds()
    shop.gate.release(hold.id, tenant="acme", by=LEAD)
    assert shown(made.invoke({"messages": []}, THREAD))[-3:] == ["call c1-again-1", "answer c1-again-1: re_1", "ai Paid."]
    assert [(hold.state, hold.question.words) for hold in run.holds()] == [("spent", (PROMPT, "Any news?"))]
    assert shop.server.paid == [DEAR[1]]
    assert all(map(is_fit_for_a_model, model.seen))


async def test_an_awaited_graph_does_so_in_the_run_that_is_in_use(shop: Shop) -> None:
    async with await AsyncGate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://") as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=PROMPT)
        made = graph(shop, Script(answers=[*SCRIPT]), aoffer_held, None)
        with use_run(run):
            await made.ainvoke({"messages": PROMPT}, THREAD)
            (hold,) = await run.holds()
            assert "answer c1: waits" in shown(await made.ainvoke({"messages": "Any news?"}, THREAD))
            await gate.refuse(hold.id, tenant="acme", by=LEAD)
            assert f"answer c1-again-1: {REFUSED}" in shown(await made.ainvoke({"messages": []}, THREAD))


def lines_of(page: str, words: str) -> str:
    """The block of a page of the docs in which these words stand."""
    text = (Path(__file__).parent.parent / "docs" / page).read_text()
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if words in each)
    return str(block)


def test_the_lines_of_the_pages_offer_a_held_call_again(shop: Shop) -> None:
    chat, holds = start(shop, say("Paid."))
    asked = {"run": shop.gate.hold(holds["c1"], tenant="acme").run}
    names: dict[str, Any] = {"gate": shop.gate, "tenant": "acme", "asked": asked, "agent": chat.agent, "thread": THREAD, "context": LEE}
    exec(lines_of("langchain.md", 'hold.state != "pending"'), names)  # noqa: S102 - the page is ours
    assert "out" not in names
    shop.gate.release(holds["c1"], tenant="acme", by=LEAD)
    exec(lines_of("langchain.md", 'hold.state != "pending"'), names)  # noqa: S102
    assert shown(names["out"])[-2:] == ["answer c1-again-1: re_1", "ai Paid."]

    made: Any = StateGraph(MessagesState)
    made.add_node("model", lambda _: {"messages": [say()]})
    made.add_node("tools", ToolNode(guard_tools(shop.tools)))
    given = {"graph": made, "run": shop.run(), "START": START, "END": END, "tools_condition": tools_condition}
    exec(lines_of("langchain.md", "import offer_held"), given)  # noqa: S102
    assert shown(made.compile().invoke({"messages": "hello"})) == ["human hello", "ai done"]


def test_without_a_run_or_held_calls_nothing_changes(shop: Shop) -> None:
    messages = [calls(DEAR, ids=["c1"]), say()]
    assert offer_held({"messages": messages}) == offer_held({"messages": messages}, shop.run()) == {}
    assert offer_held({"messages": [say()]}, shop.run()) == {}


def test_a_run_that_is_gone_changes_nothing(shop: Shop) -> None:
    run = shop.run()
    held(shop, run)
    with Gate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://") as another:
        run._store = another._store
        assert offer_held({"messages": [calls(DEAR, ids=["c1"])]}, run) == {}
