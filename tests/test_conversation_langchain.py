"""A conversation under LangChain: found by the host's id in any process, with or without a checkpointer, and followed in its thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from structlog.testing import capture_logs

from agentgate.errors import ConfigError
from agentgate.integrations.langchain import AgentGateMiddleware, call_outcomes
from agentgate.values.refusal import Reason
from agentgate.values.request import User
from tests.langchain_shop import DENIED, LEAD, LEE, ORDER, PROMPT, Script, Shop, calls, identify, say, tool_messages, tool_server, vouched

GET = ("orders.get", {"order_id": ORDER})
PAY = ("payments.refund", {"order_id": ORDER, "amount": "39.90", "currency": "EUR"})
DEAR = ("payments.refund", {"order_id": ORDER, "amount": "150.00", "currency": "EUR"})
LIFE = 2


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with tool_server() as served:
        yield Shop(tmp_path, served)


def agent_of(shop: Shop, *answers: AIMessage, saver: Any = None, **more: Any) -> Any:
    given = {"workflow": "shop.refund", "identify": identify, "conversation": lambda _: "chat-7", **more}
    gated = AgentGateMiddleware(shop.gate, **given)
    return create_agent(Script(answers=[*answers]), tools=shop.tools, middleware=[gated], checkpointer=saver, context_schema=User)


def told(agent: Any, messages: Any, **more: Any) -> Any:
    return agent.invoke({"messages": vouched(messages)}, context=LEE, **more)


def test_a_stateless_host_goes_on_in_one_run(shop: Shop) -> None:
    told(agent_of(shop, calls(GET), say()), PROMPT)
    out = told(agent_of(shop, calls(PAY), say(), history=True), [PROMPT, say(), "And quickly, please"])
    assert tool_messages(out)[0].content == "re_1"
    assert len({record["run"] for record in shop.records if record["type"] == "decision"}) == 1
    assert [r["type"] for r in shop.records].count("run_opened") == 1


def test_a_history_that_leaves_out_a_no_revives_nothing(shop: Shop) -> None:
    told(agent_of(shop, calls(GET), say()), PROMPT)
    told(agent_of(shop, say()), "No, do not refund anything")
    out = told(agent_of(shop, calls(PAY), say(), history=True), [PROMPT, say(), "And the weather?"])
    assert tool_messages(out)[0].content == DENIED


def test_without_an_id_a_host_that_passes_the_history_is_warned(shop: Shop) -> None:
    with capture_logs() as logs:
        agent_of(shop, history=True, conversation=None)
    assert [each["event"] for each in logs] == ["holds_cannot_finish"]
    with capture_logs() as logs:
        agent_of(shop, history=True)
    assert logs == []


def test_in_a_thread_another_run_follows_the_one_that_is_over_only_with_new_words(shop: Shop) -> None:
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "t1"}}
    own = {"saver": saver, "conversation": "thread", "ttl": LIFE}
    told(agent_of(shop, calls(GET), calls(PAY), say(), **own), PROMPT, config=thread)
    time.sleep(LIFE)
    out = told(agent_of(shop, calls(GET), calls(PAY, ids=["anew"]), say(), **own), "Where is it?", config=thread)
    assert [message.content for message in tool_messages(out)[2:]][1] == DENIED
    assert len(shop.server.paid) == 1
    assert [r.get("succession") for r in shop.records if r["type"] == "run_opened"] == [None, 1]


def test_a_closed_conversation_stays_closed_in_its_thread_and_another(shop: Shop) -> None:
    told(agent_of(shop, say()), PROMPT)
    shop.gate.close_conversation("chat-7", workflow="shop.refund", tenant="acme", user=LEE, agent=identify(LEE)[2])
    with call_outcomes() as seen:
        out = told(agent_of(shop, calls(GET), say()), PROMPT)
    assert tool_messages(out)[0].content == DENIED
    assert seen[0].failures[0].reason is Reason.RUN_CLOSED
    assert shop.ran == []


def test_a_conversation_without_a_name_has_no_run(shop: Shop) -> None:
    for conversation in ("thread", lambda _: 7, lambda _: None, lambda _: ""):
        with call_outcomes() as seen:
            out = told(agent_of(shop, calls(GET), say(), conversation=conversation), PROMPT)
        assert tool_messages(out)[0].content == DENIED
        assert "conversation" in str(seen[0].failures[0])
    with pytest.raises(TypeError):
        told(agent_of(shop, calls(GET), say(), conversation=lambda context: context["x"]), PROMPT)
    assert shop.ran == []
    with pytest.raises(ConfigError, match="conversation"):
        agent_of(shop, conversation="threads")


def test_a_held_call_is_finished_in_another_process_of_the_same_conversation(shop: Shop) -> None:
    saver, thread, shop.total = InMemorySaver(), {"configurable": {"thread_id": "t1"}}, "150.00"
    out = told(agent_of(shop, calls(GET), calls(DEAR), saver=saver), PROMPT, config=thread)
    (asked,) = out["__interrupt__"]
    shop.gate.release(asked.value["hold"], tenant="acme", by=LEAD)
    out = agent_of(shop, say(), saver=saver).invoke(Command(resume=True), context=LEE, config=thread)
    assert tool_messages(out)[-1].content == "re_1"


@pytest.mark.parametrize("further", [[], ["And what about the other one?"]])
def test_words_that_nobody_vouches_for_take_back_in_a_run_that_is_over_too(shop: Shop, further: list[str]) -> None:
    saver, thread, shop.total = InMemorySaver(), {"configurable": {"thread_id": "t1"}}, "150.00"
    own = {"saver": saver, "ttl": LIFE}
    out = told(agent_of(shop, calls(GET), calls(DEAR), **own), PROMPT, config=thread)
    (asked,) = out["__interrupt__"]
    time.sleep(LIFE)
    shop.gate.release(asked.value["hold"], tenant="acme", by=LEAD)
    said = [HumanMessage("No, do not refund it"), *vouched(further)]
    agent_of(shop, say(), say(), **own).invoke({"messages": said}, context=LEE, config=thread)
    assert shop.server.paid == []
