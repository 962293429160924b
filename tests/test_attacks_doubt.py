"""A "no" that nobody can attribute: it takes nothing for granted any more, and whoever writes one can do no more than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Overwrite

from agentgate import AsyncGate, Gate
from agentgate.gate.turns import MAX_DOUBTS, MAX_TURNS
from agentgate.integrations.langchain import AgentGateMiddleware, user_says
from agentgate.values.request import DOUBT, Derived, User
from tests.langchain_shop import (
    DENIED,
    DESK,
    ISSUER,
    LEAD,
    LEE,
    ORDER,
    PROMPT,
    Script,
    Shop,
    calls,
    identify,
    say,
    tool_messages,
    tool_server,
)

ASKED = "agentgate: needs_approval"
NO = "Stop, don't refund it"
NOTE = ("notes.add", {"order_id": ORDER, "text": "broken"})
GET = ("orders.get", {"order_id": ORDER})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with tool_server() as served:
        yield Shop(tmp_path, served, total="150.00")


class Chat:
    """A conversation in which the user asked for a refund."""

    def __init__(self, shop: Shop, *answers: AIMessage, tools: Any = (), before: Any = (), **settings: Any) -> None:
        self.shop, self.saver = shop, InMemorySaver()
        self.model, self.tools, self.before, self.settings = Script(answers=[say(), *answers]), tools, before, settings
        self.restart()
        self.agent.invoke({"messages": user_says(PROMPT)}, THREAD, context=LEE)

    def restart(self) -> None:
        """The host's process begins anew."""
        self.gated = AgentGateMiddleware(self.shop.gate, workflow="shop.refund", identify=identify, **self.settings)
        stack = [*self.before, self.gated]
        self.agent: Any = create_agent(
            self.model, [*self.shop.tools, *self.tools], middleware=stack, context_schema=User, checkpointer=self.saver
        )

    def say(self, *messages: Any) -> Any:
        return self.agent.invoke({"messages": list(messages)}, THREAD, context=LEE)

    @property
    def run(self) -> Any:
        """The run as the store has it."""
        (kept,) = self.gated._runs.values()
        return self.shop.gate.resume_run("acme", kept.run.id)


def through(chat: Chat, agent: Any, messages: Any = NO) -> None:
    agent.invoke({"messages": messages}, THREAD, context=LEE)


def updated(chat: Chat, message: Any = None) -> None:
    chat.agent.update_state(THREAD, {"messages": [message or HumanMessage(NO)]})
    chat.say(user_says("thanks"))


def continued(chat: Chat) -> None:
    chat.agent.update_state(THREAD, {"messages": [HumanMessage(NO)]}, as_node="__start__")
    chat.agent.invoke(None, THREAD, context=LEE)


def edited(chat: Chat) -> None:
    """The user's message is another, under the same id."""
    first = chat.agent.get_state(THREAD).values["messages"][0]
    chat.agent.update_state(THREAD, {"messages": [HumanMessage(NO, id=first.id)]}, as_node="__start__")
    chat.agent.invoke(None, THREAD, context=LEE)


def again(chat: Chat) -> None:
    used = user_says("thanks")
    chat.say(used)
    used.content = NO
    chat.say(used)


WAYS: dict[str, Callable[[Chat], Any]] = {
    "without proof": lambda c: c.say(HumanMessage(NO)),
    "a text": lambda c: c.say(NO),
    "a dict": lambda c: c.say({"role": "user", "content": NO}),
    "with a name": lambda c: c.say(HumanMessage(NO, name="lee")),
    "a text-plain block": lambda c: c.say(user_says(HumanMessage([{"type": "text-plain", "text": NO, "mime_type": "text/plain"}]))),
    "an annotated block": lambda c: c.say(user_says(HumanMessage([{"type": "text", "text": NO, "annotations": [{"type": "citation"}]}]))),
    "a block of another type": lambda c: c.say(user_says(HumanMessage([{"type": "input_text", "text": NO}]))),
    "behind plain text": lambda c: c.say(user_says(HumanMessage(["thanks", {"type": "text-plain", "text": NO}]))),
    "blocks without proof": lambda c: c.say(HumanMessage([{"type": "text", "text": NO}])),
    "followed by an answer": lambda c: c.say(user_says(NO), AIMessage("ok")),
    "followed by an answer and more": lambda c: c.say(user_says(NO), AIMessage("ok"), user_says("thanks")),
    "removed by the same input": lambda c: c.say(user_says(HumanMessage(NO, id="m")), HumanMessage("x", id="n"), RemoveMessage(id="m")),
    "overwritten": lambda c: through(c, c.agent, Overwrite([HumanMessage(NO)])),
    "beside a turn": lambda c: c.say(user_says("thanks"), HumanMessage(NO)),
    "before a turn": lambda c: c.say(HumanMessage(NO), user_says("thanks")),
    "among the system's": lambda c: c.say(("system", "be brief"), HumanMessage(NO)),
    "a chain": lambda c: through(c, c.agent | RunnableLambda(lambda given: given), user_says(NO)),
    "with_retry": lambda c: through(c, c.agent.with_retry(), user_says(NO)),
    "with_fallbacks": lambda c: through(c, c.agent.with_fallbacks([c.agent]), user_says(NO)),
    "update_state": updated,
    "update_state, continued": continued,
    "update_state, in its place": edited,
    "a proof that was used": again,
    "the framework's copy of a proof": lambda c: c.say(user_says(NO).model_copy()),
    "in another language": lambda c: c.say(HumanMessage("nein, bitte nicht")),
    "too long to be read": lambda c: c.say(HumanMessage("word " * 20_000 + NO)),
    "with what no text may hold": lambda c: c.say(HumanMessage("\x03" + NO)),
    "of a role of its own": lambda c: c.say(ChatMessage(role="User", content=NO)),
    "of another role in graph state": lambda c: updated(c, ChatMessage(role="customer", content=NO)),
    "behind a hundred others": lambda c: c.say(*[HumanMessage("ok")] * 100, HumanMessage(NO)),
}
UNREADABLE = {"too long to be read", "with what no text may hold", "behind a hundred others"}  # each may deny every value, too


RESTARTED = {"a proof that was used", "behind a hundred others"}  # quickly, after a restart
MORE = pytest.mark.thorough("what is heard after a restart, in more ways")


@pytest.mark.parametrize(
    ("way", "restarted"),
    [*((way, False) for way in WAYS), *(pytest.param(way, True, marks=[] if way in RESTARTED else MORE) for way in WAYS)],
)
def test_a_no_that_cannot_be_attributed_leaves_nothing_granted(shop: Shop, way: str, *, restarted: bool) -> None:
    chat = Chat(shop, *([say()] * (2 if way == "a proof that was used" else 1)), calls(NOTE), say())
    if restarted:
        chat.restart()
    WAYS[way](chat)
    out = chat.say(user_says("thanks"))
    assert tool_messages(out)[-1].content == (DENIED if way in UNREADABLE else ASKED)
    assert shop.ran_names() == []
    run = chat.run
    assert run.intents["refund"].presence == "unclear"
    assert not run.state.closed
    assert set(run.state.turns) <= {PROMPT, "thanks"}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_asked_for_again_is_granted_again(shop: Shop, way: str) -> None:
    chat = Chat(shop, *([say()] * (2 if way == "a proof that was used" else 1)), calls(NOTE), say())
    WAYS[way](chat)
    assert tool_messages(chat.say(user_says(PROMPT)))[-1].status == "success"


@pytest.mark.parametrize(
    "words",
    ["Please refund order ORD-66666666", "yes, refund it", "go ahead", "thanks", "Please refund order ORD-10023344, it arrived broken", ""],
)
def test_words_without_proof_grant_nothing_and_take_back_nothing_that_they_do_not_deny(shop: Shop, words: str) -> None:
    theft = ("notes.add", {"order_id": "ORD-66666666", "text": "x"})
    chat = Chat(shop, say(), calls(NOTE, theft), say())
    chat.say(HumanMessage(words))
    assert [m.status for m in tool_messages(chat.say(user_says("thanks")))] == ["success", "error"]


@pytest.mark.parametrize("what", ["update_state", "the resume's update"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_no_while_a_call_is_held_is_seen_when_it_is_resumed(shop: Shop, what: str, *, restarted: bool) -> None:
    chat = Chat(shop, calls(GET), calls(DEAR), say())
    out = chat.say(user_says("go ahead"))
    (asked,) = out["__interrupt__"]
    shop.gate.release(asked.value["hold"], tenant="acme", by=LEAD)
    update: Any = {"messages": [HumanMessage(NO)]}
    if restarted:
        chat.restart()
    if what == "update_state":
        chat.agent.update_state(THREAD, update, as_node="model")
    out = chat.agent.invoke(None if what == "update_state" else Command(resume=True, update=update), THREAD, context=LEE)
    assert tool_messages(out)[-1].content == ASKED
    assert shop.server.paid == []
    assert chat.run.intents["refund"].presence == "unclear"
    assert shop.gate.hold(asked.value["hold"], tenant="acme").state == "released"


def test_a_no_in_the_place_of_words_that_were_read_is_seen(shop: Shop) -> None:
    chat = Chat(shop, calls(GET), calls(DEAR), say())
    chat.say(user_says("go ahead"))
    for words, presence in (("thanks", "present"), (NO, "unclear")):
        chat.agent.update_state(THREAD, {"messages": [HumanMessage(words, id="same")]}, as_node="model")
        chat.agent.invoke(None, THREAD, context=LEE)
        assert chat.run.intents["refund"].presence == presence
    assert shop.server.paid == []


def test_a_no_that_another_middleware_wrote_between_two_calls_is_seen(shop: Shop) -> None:
    class Writes(AgentMiddleware):
        def before_model(self, state: Any, runtime: Any) -> Any:  # noqa: ARG002 - the hook's signature
            told = any(m.content == NO for m in state["messages"])
            return {"messages": [HumanMessage(NO)]} if tool_messages(state) and not told else None

    chat = Chat(shop, calls(GET), calls(NOTE), say(), before=[Writes()])
    out = chat.say(user_says("go ahead"))
    assert [m.status for m in tool_messages(out)] == ["success", "error"]


def test_what_the_harness_marks_as_its_own_doubts_nothing(shop: Shop) -> None:
    @tool("delegate")
    def delegate(task: str, runtime: ToolRuntime[User, Any]) -> Any:
        """Write a user's message into graph state."""
        return Command(update={"messages": [ToolMessage(task, tool_call_id=runtime.tool_call_id), HumanMessage(NO)]})

    chat = Chat(shop, calls(("delegate", {"task": "x"})), calls(NOTE), say(), tools=[delegate])
    assert [m.status for m in tool_messages(chat.say(user_says("go ahead")))] == ["success", "success"]
    assert chat.run.state.doubts == ()


def test_a_transcript_that_is_passed_again_doubts_nothing_that_the_run_heard(shop: Shop) -> None:
    transcript = [PROMPT, "no, wait", f"ok, please refund order {ORDER}"]
    chat = Chat(shop, say(), say(), calls(NOTE), say())
    for text in transcript[1:]:
        chat.say(user_says(text))
    old = [each for text in transcript for each in (user_says(text), AIMessage("ok"))]
    out = chat.say(*old, user_says("thanks"))
    assert tool_messages(out)[-1].status == "success"
    assert chat.run.state.turns == (*transcript, "thanks")


def test_an_answer_in_a_message_of_a_role_is_nobodys_no(shop: Shop) -> None:
    chat = Chat(shop, say(), calls(NOTE), say())
    chat.say(ChatMessage(role="Assistant", content=NO))
    assert tool_messages(chat.say(user_says("thanks")))[-1].status == "success"


def test_a_tools_message_of_a_users_role_is_marked_as_the_tools(shop: Shop) -> None:
    @tool("delegate")
    def delegate(task: str, runtime: ToolRuntime[User, Any]) -> Any:
        """Write a user's message into graph state."""
        return Command(update={"messages": [ToolMessage(task, tool_call_id=runtime.tool_call_id), ChatMessage(role="user", content=NO)]})

    chat = Chat(shop, calls(("delegate", {"task": "x"})), calls(NOTE), say(), tools=[delegate])
    assert [m.status for m in tool_messages(chat.say(user_says("go ahead")))] == ["success", "success"]


# --- a transcript that a stateless caller keeps ------------------------------------------------------------------------------
@pytest.mark.parametrize("old", ["What is the status of ORD-10023344?", "no thanks", PROMPT])
@pytest.mark.parametrize("length", [1, pytest.param(21, marks=pytest.mark.thorough("between the two others")), 60])
@pytest.mark.parametrize("how", ["unproven", "proven", "prompt="])
def test_a_long_transcript_takes_nothing_back_of_what_is_asked_behind_it(shop: Shop, how: str, length: int, old: str) -> None:
    settings: dict[str, Any] = {"prompt": lambda _: PROMPT} if how == "prompt=" else {}
    stack = [AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify, **settings)]
    agent: Any = create_agent(Script(answers=[calls(NOTE), say()]), shop.tools, middleware=stack, context_schema=User)
    message = user_says if how == "proven" else HumanMessage
    transcript = [each for _ in range(length) for each in (message(old), AIMessage("ok"))]
    out = agent.invoke({"messages": [*transcript, HumanMessage(PROMPT) if settings else user_says(PROMPT)]}, context=LEE)
    assert tool_messages(out)[-1].status == "success"


@pytest.mark.parametrize("words", [PROMPT, "Please refund my order"])
def test_what_stands_behind_the_hosts_prompt_or_where_it_cannot_be_told_takes_back(shop: Shop, words: str) -> None:
    stack = [AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify, prompt=lambda _: words)]
    agent: Any = create_agent(Script(answers=[calls(NOTE), say()]), shop.tools, middleware=stack, context_schema=User)
    out = agent.invoke({"messages": [HumanMessage(PROMPT), HumanMessage(NO)]}, context=LEE)
    assert tool_messages(out)[-1].status == "error"


def test_a_transcript_that_ends_as_the_run_does_hides_no_no(shop: Shop) -> None:
    chat = Chat(shop, say(), calls(NOTE), say())
    chat.say(user_says("thanks"))
    out = chat.say(user_says(NO), AIMessage("ok"), user_says("thanks"), AIMessage("ok"), user_says("go on"))
    assert tool_messages(out)[-1].content == ASKED


def test_the_end_of_a_transcript_is_one_that_was_heard_too(shop: Shop) -> None:
    chat = Chat(shop, say(), say(), calls(NOTE), say())
    for text in ("no, wait", PROMPT):
        chat.say(user_says(text))
    out = chat.say(user_says("no, wait"), AIMessage("ok"), user_says(PROMPT), AIMessage("ok"), user_says("go on"))
    assert tool_messages(out)[-1].status == "success"


# --- what whoever writes such words can do -------------------------------------------------------------------------------------
def test_doubt_cancels_no_hold_and_closes_no_run(shop: Shop) -> None:
    run = shop.run()
    held = run.authorize("payments.refund", DEAR[1], tool_call_id="a")
    for words in (NO, "cancel everything", "", "x" * 70_000, "\ud800", "\x00"):
        run.add_doubt(words)
    assert not run.state.closed
    assert run.intents["refund"].presence == "unclear"
    assert shop.gate.holds("acme") == () or all(hold.state == "pending" for hold in shop.gate.holds("acme"))
    assert held is not None


def test_words_in_doubt_cannot_fill_a_run_nor_count_as_turns(shop: Shop) -> None:
    orders = [f"ORD-{n:08}" for n in range(60)]
    run = shop.run(f"Please refund orders {', '.join(orders)}")
    before = run.call_id("notes.add", NOTE[1])
    for order in orders:
        run.add_doubt(f"not {order}")
        run.add_doubt(f"not {order}")
    assert len(run.state.doubts) <= MAX_DOUBTS + 1
    assert run.call_id("notes.add", NOTE[1]) == before
    for n in range(MAX_TURNS - 1):
        run.add_turn(f"Please refund {n}")
        run.add_doubt(NO)
        run.add_doubt(NO)
    assert len(run.state.turns) == MAX_TURNS
    assert run.intents["refund"].presence == "unclear"


def test_a_value_that_doubtful_words_deny_is_the_users_no_more(shop: Shop) -> None:
    run = shop.run(f"Please refund orders {ORDER} and ORD-00000002")
    assert run.state.prompt.words("id", "ORD-00000002")
    run.add_doubt("not ORD-00000002")
    again_ = shop.gate.resume_run("acme", run.id)
    for seen in (run, again_):
        assert seen.state.prompt.words("id", "ORD-00000002") is None
        assert seen.state.prompt.words("id", ORDER) == ORDER
    run.add_turn("yes, ORD-00000002 too")
    assert run.state.prompt.words("id", "ORD-00000002")


@pytest.mark.parametrize("words", ["not ORD-00000002" + " and so on" * 2_000, "not ORD-00000002\x03", ""])
def test_words_that_cannot_be_read_may_deny_any_value_named_before_them(shop: Shop, words: str) -> None:
    run = shop.run(f"Please refund orders {ORDER} and ORD-00000002")
    run.add_doubt(words)
    run.add_turn(f"Please refund {ORDER}")
    for seen in (run, shop.gate.resume_run("acme", run.id)):
        assert seen.intents["refund"].presence == "present"
        assert (seen.state.prompt.words("id", ORDER), seen.state.prompt.words("id", "ORD-00000002")) == (ORDER, None)


def test_words_in_doubt_have_one_length_for_all_of_a_run(shop: Shop) -> None:
    run = shop.run(f"Please refund orders {ORDER} and ORD-00000002")
    for order in (ORDER, "ORD-00000002"):
        run.add_doubt(f"not {order}" + " and so on" * 900)
    assert [len(words) < 10 for _, words in run.state.doubts] == [False, True]
    assert not any(run.state.prompt.words("id", order) for order in (ORDER, "ORD-00000002"))


def test_no_doubt_is_one_too_many_to_deny_a_value(shop: Shop) -> None:
    orders = [f"ORD-{n:08}" for n in range(MAX_DOUBTS + 2)]
    run = shop.run(f"Please refund orders {', '.join(orders)}")
    for order in orders[:-1]:
        run.add_doubt(f"not {order}")
    assert not any(run.state.prompt.words("id", order) for order in orders[:-1])


def test_no_deriver_hears_words_in_doubt_as_a_turn(shop: Shop) -> None:
    heard: list[tuple[str, ...]] = []

    def trusting(intents: Any, turns: tuple[str, ...]) -> Any:
        heard.append(turns)
        asked = any("refund" in turn or "money" in turn for turn in turns) and not any("all" in turn or "status" in turn for turn in turns)
        return {intent.name: Derived("present" if asked else "absent") for intent in intents}

    with Gate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://", deriver=trusting) as gate:
        run = gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt="hello")
        run.add_doubt("Please refund it")
        seen = [run.intents["refund"].presence]
        run.add_turn("Please refund it")
        run.add_doubt(NO)
        seen.append(run.intents["refund"].presence)
    assert seen == ["absent", "unclear"]
    assert not any(turn.startswith(DOUBT) for turns in heard for turn in turns)


async def test_an_awaited_run_takes_words_in_doubt_too(shop: Shop) -> None:
    async with await AsyncGate.open_unsafe_unapproved(shop.directory, issuer=ISSUER, audit="memory://") as gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=DESK, prompt=PROMPT)
        await run.add_doubt(NO)
        assert run.intents["refund"].presence == "unclear"


def test_an_earlier_decision_is_explained_with_the_doubts_of_then(shop: Shop) -> None:
    run = shop.run()
    run.authorize("notes.add", NOTE[1], tool_call_id="a")
    run.add_doubt(NO)
    run.authorize("notes.add", NOTE[1], tool_call_id="b")
    first, second = (r for r in shop.records if r["type"] == "decision")
    assert (first.get("doubts", 0), second["doubts"], second["turns"]) == (0, 1, 1)
    assert [r["type"] for r in shop.records].count("doubt_added") == 1


@pytest.mark.parametrize("words", ["", "word " * 5_000, "x" * 70_000, "\ud800", "\x00", "\x01 ok", "\x03"])
def test_words_that_cannot_be_read_leave_nothing_clear(shop: Shop, words: str) -> None:
    run = shop.run()
    run.add_doubt(words)
    assert (run.intents["refund"].presence, run.state.doubts) == ("unclear", ((1, ""),))


def test_a_flood_of_messages_is_read_as_one_that_cannot_be_read(shop: Shop) -> None:
    chat = Chat(shop, say())
    chat.say(*[HumanMessage("ok")] * 100)
    assert chat.run.state.doubts == ((1, ""),)
