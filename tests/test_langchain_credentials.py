"""A LangChain agent whose user and agent are proven by credentials: at the first invoke, again at each fresh one, and never by a word."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentgate import Agent, OIDCToken, User
from agentgate.integrations.langchain import AgentGateMiddleware, call_outcomes, guard_tools, use_run
from tests.authority import Key, claims_of, web
from tests.langchain_shop import Script, say, tool_messages, vouched
from tests.test_identity_door import ORDER, PROMPT, WORKFLOW, Desk

Shown = tuple[str, Any, Any]


class Chat:
    """One conversation with an agent, whose runtime context is (tenant, user, agent)."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.ran, self.kept, self.said = desk, list[str](), InMemorySaver(), 0
        self.restart()

    def restart(self) -> None:
        """The host's process begins anew: only the store and the graph's checkpoints are left."""
        self.gated = AgentGateMiddleware(self.desk.gate, workflow="desk.refund", identify=lambda context: context)

    def shown(self, **who: Any) -> Shown:
        return ("acme-eu", who.get("user", self.desk.user()), who.get("agent", self.desk.agent()))

    def say(self, context: Shown, *, thread: str = "1") -> str:
        """How the call that the model makes ended."""

        @tool("refund")
        def refund(order_id: str) -> str:
            """Refund an order."""
            self.ran.append(order_id)
            return "refunded"

        self.said += 1
        model = Script(answers=[AIMessage("", tool_calls=[ToolCall(name="refund", args=ORDER, id=f"call_{self.said}")]), say()])
        agent = create_agent(model, [refund], middleware=[self.gated], context_schema=tuple, checkpointer=self.kept)
        out = agent.invoke({"messages": vouched(PROMPT)}, {"configurable": {"thread_id": thread}}, context=context)
        return str(tool_messages(out)[-1].status)

    def records(self, kind: str) -> list[Any]:
        return [each for each in self.desk.records if each["type"] == kind]


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with web() as served:
        desk = Desk(served, tmp_path, WORKFLOW.split("step_up:")[0])
        yield Chat(desk)
        desk.gate.close()


def test_credentials_open_the_run_and_fresh_ones_go_on_with_it(chat: Chat) -> None:
    first = chat.shown()
    assert chat.say(first) == "success"
    (opened,) = chat.records("run_opened")
    assert (opened["user"], opened["agent"]) == ("lee", "desk-1")
    chat.say(first)
    chat.say(chat.shown(user=chat.desk.user(life=900), agent=chat.desk.agent(life=900)))
    assert (len(chat.records("run_opened")), len(chat.records("run_renewed"))) == (1, 1)
    assert len({each["run"] for each in chat.records("decision")}) == 1


def test_a_conversations_run_is_nobody_elses(chat: Chat) -> None:
    chat.say(chat.shown())
    chat.say(chat.shown(user=chat.desk.user("mia")))
    chat.say(chat.shown(agent=chat.desk.agent("desk-2")))
    chat.say(chat.shown(), thread="2")
    runs = [each["run"] for each in chat.records("decision")]
    assert len(set(runs)) == len(runs) == 4
    assert [each["user"] for each in chat.records("run_opened")] == ["lee", "mia", "lee", "lee"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_word_of_the_host_takes_no_run_that_credentials_opened(chat: Chat, restarted: bool) -> None:  # noqa: FBT001 - a row
    lee = User("lee", tenant="acme-eu", groups=["support"])
    words: list[dict[str, Any]] = [{"user": lee, "agent": Agent("desk-1")}, {"user": lee}, {"agent": Agent("desk-1")}]
    for thread, who in enumerate(words):
        assert chat.say(chat.shown(), thread=str(thread)) == "success"
        if restarted:
            chat.restart()
        assert chat.say(chat.shown(**who), thread=str(thread)) == "error"
    assert chat.say(chat.shown(), thread="tenant") == "success"
    assert chat.say(("acme-uk", *chat.shown()[1:]), thread="tenant") == "error"
    assert len(chat.ran) == 4


@pytest.mark.parametrize("restarted", [False, True])
def test_a_credential_that_nobody_signed_takes_no_run(chat: Chat, restarted: bool) -> None:  # noqa: FBT001 - as above
    forged = OIDCToken(Key("people").sign(claims_of("https://people.example", "lee", tenant="acme-eu", groups=["support"])))
    for thread, who in enumerate(({"user": forged}, {"agent": OIDCToken("a.b.c")})):
        assert chat.say(chat.shown(), thread=str(thread)) == "success"
        if restarted:
            chat.restart()
        assert chat.say(chat.shown(**who), thread=str(thread)) == "error"
    assert len(chat.ran) == 2


def test_after_a_restart_the_credentials_are_proven_again(chat: Chat) -> None:
    chat.say(chat.shown())
    chat.restart()
    chat.say(chat.shown())
    assert len(chat.records("run_opened")) == 1


def test_no_credential_is_kept_in_the_graphs_state(chat: Chat) -> None:
    shown = chat.shown()
    chat.say(shown)
    assert shown[1].reveal()[-30:] not in repr(list(chat.kept.list(None)))
    assert shown[1].reveal()[-30:] not in repr(vars(chat.gated))


# --- what the host is told ---------------------------------------------------------------------------------------------------
def told(chat: Chat, context: Shown) -> list[tuple[str, int]]:
    with call_outcomes() as seen:
        chat.say(context)
    return [(each.tool, each.status) for each in seen]


def test_a_token_that_ended_is_told_as_a_401_and_a_group_that_is_missing_as_a_403(chat: Chat) -> None:
    assert told(chat, chat.shown()) == []
    assert told(chat, chat.shown(user=chat.desk.user(life=-120))) == [("", 401), ("refund", 401)]
    assert told(chat, chat.shown(user=chat.desk.user(groups=["sales"]))) == [("", 403), ("refund", 403)]


@pytest.mark.parametrize(("life", "status"), [(60, 401), (600, 403)], ids=["the user's token", "the run"])
def test_a_token_that_ends_in_the_middle_of_a_turn_is_told_apart_from_a_run_that_is_over(chat: Chat, life: int, status: int) -> None:
    @tool("refund")
    def refund(order_id: str) -> str:
        """Refund an order."""
        raise AssertionError

    (guarded,) = guard_tools([refund])
    run = chat.desk.run(user=chat.desk.user(life=life), ttl=90)
    with time_machine.travel(time.time() + 91, tick=True), use_run(run), call_outcomes() as seen:
        message = guarded.invoke({"name": "refund", "args": ORDER, "id": "c1", "type": "tool_call"})
    assert message.content == "agentgate: not_permitted"
    assert [(each.code, each.status) for each in seen] == [("not_permitted", status)]
