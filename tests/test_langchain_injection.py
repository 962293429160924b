"""Injected arguments of guarded tools outside the middleware: in LangGraph's own `ToolNode`, and from the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.tools import InjectedState, InjectedStore, ToolRuntime
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import get_fields
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel
from structlog.testing import capture_logs

from agentgate.errors import ConfigError
from agentgate.integrations.langchain import AgentGateMiddleware, CallRefused, definition_of, guard_tools, use_run
from agentgate.integrations.langchain.guard import from_state
from agentgate.values.request import User
from tests.langchain_shop import INVALID, LEE, ORDER, PROMPT, Script, Shop, calls, identify, say, tool_messages, tool_server, vouched


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with tool_server() as served:
        yield Shop(tmp_path, served)


class Desk(MessagesState):
    """Graph state with a field that tools may take."""

    branch: str


@tool("orders.get")
def of_state(order_id: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Look an order up."""
    return f"{order_id} {state['branch']}"


@tool("orders.get")
def of_field(order_id: str, branch: Annotated[str, InjectedState("branch")]) -> str:
    """Look an order up."""
    return f"{order_id} {branch}"


@tool("orders.get")
def of_both(order_id: str, branch: Annotated[str, InjectedState("branch")], runtime: ToolRuntime) -> str:
    """Look an order up."""
    return f"{order_id} {branch}" if runtime.state["branch"] == branch else "another state"


@tool("orders.get")
async def awaited(order_id: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Look an order up."""
    return f"{order_id} {state['branch']}"


class OfRun(BaseTool):
    """Has no schema of its own."""

    name: str = "orders.get"
    description: str = "Look an order up."

    def _run(self, order_id: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        return f"{order_id} {state['branch']}"


class JustTheOrder(BaseModel):
    """The arguments, without the injected one."""

    order_id: str


class Unstripped(BaseTool):
    """Takes graph state by its signature alone, where `ToolNode` does not look for it."""

    name: str = "orders.get"
    description: str = "Look an order up."
    args_schema: type[BaseModel] = JustTheOrder

    def _run(self, order_id: str, state: Annotated[dict[str, Any] | None, InjectedState] = None) -> str:
        return f"{order_id} {state}"


def graph_of(*tools: BaseTool, **compiled: Any) -> Any:
    graph = StateGraph(Desk)
    graph.add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "tools")
    return graph.compile(**compiled)


def asking(**more: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage(PROMPT), calls(("orders.get", {"order_id": ORDER, **more}))], "branch": "north"}


LOCATED = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}


@tool("orders.get", args_schema=LOCATED)
def by_json_schema(order_id: str, state: Annotated[Any, InjectedState], runtime: ToolRuntime) -> str:
    """Look an order up."""
    return f"{order_id} {state['branch']}" if runtime.state is state else "another state"


@tool("orders.get")
def by_its_name(order_id: str, runtime: Any) -> str:
    """Look an order up."""
    return f"{order_id} {runtime.state['branch']}"


STATEFUL = {
    "all of it": of_state,
    "a field": of_field,
    "beside a runtime": of_both,
    "without a schema": OfRun(),
    "of a JSON Schema": by_json_schema,
    "by its name": by_its_name,
}
HIDDEN = {"state": {"branch": "evil"}, "branch": "evil", "runtime": {"branch": "evil"}, "agentgate_runtime": {"branch": "evil"}}


@pytest.mark.parametrize("original", STATEFUL.values(), ids=STATEFUL)
def test_state_that_tool_node_injects_reaches_a_guarded_tool_as_it_reaches_the_raw_one(shop: Shop, original: BaseTool) -> None:
    (guarded,) = guard_tools([original], run=shop.run())
    raw, out = (graph_of(each).invoke(asking()) for each in (original, guarded))
    assert tool_messages(out)[0].content == tool_messages(raw)[0].content == f"{ORDER} north"


async def test_state_reaches_an_awaited_guarded_tool(shop: Shop) -> None:
    (guarded,) = guard_tools([awaited], run=shop.run())
    out = await graph_of(guarded).ainvoke(asking())
    assert tool_messages(out)[0].content == f"{ORDER} north"


def test_messages_that_are_all_of_the_state_reach_a_guarded_tool(shop: Shop) -> None:
    @tool("orders.get")
    def get(order_id: str, messages: Annotated[list[AnyMessage], InjectedState("messages")]) -> str:
        """Look an order up."""
        return f"{order_id} {len(messages)}"

    @tool("orders.get")
    def whole(order_id: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Look an order up."""
        return f"{order_id} {len(state['messages'])}"

    for original in (get, whole):
        graph: Any = StateGraph(list[AnyMessage])
        graph.add_node("tools", ToolNode(guard_tools([original], run=shop.run())))
        graph.add_edge(START, "tools")
        (message,) = [m for m in graph.compile().invoke(asking()["messages"]) if isinstance(m, ToolMessage)]
        assert message.content == f"{ORDER} 2"


def test_a_store_and_a_call_id_reach_a_guarded_tool(shop: Shop) -> None:
    @tool("orders.get")
    def get(order_id: str, store: Annotated[Any, InjectedStore()], call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Look an order up."""
        return f"{order_id} {store.get(('desk',), 'name').value['is']} {call_id}"

    store = InMemoryStore()
    store.put(("desk",), "name", {"is": "kim"})
    (guarded,) = guard_tools([get], run=shop.run())
    out = graph_of(guarded, store=store).invoke(asking())
    assert tool_messages(out)[0].content == f"{ORDER} kim orders.get-0"


@pytest.mark.parametrize("original", STATEFUL.values(), ids=STATEFUL)
def test_state_that_the_model_forged_is_overwritten_by_tool_node(shop: Shop, original: BaseTool) -> None:
    (guarded,) = guard_tools([original], run=shop.run())
    taken = {name: value for name, value in HIDDEN.items() if name in get_fields(guarded.get_input_schema())}
    out = graph_of(guarded).invoke(asking(**taken))
    assert "evil" not in tool_messages(out)[0].content


@pytest.mark.parametrize("original", [of_state, of_field, OfRun()], ids=["all of it", "a field", "without a schema"])
def test_state_that_nobody_vouches_for_is_refused(shop: Shop, original: BaseTool) -> None:
    (guarded,) = guard_tools([original], run=shop.run())
    taken = {name: value for name, value in HIDDEN.items() if name in get_fields(original.get_input_schema())}
    message = guarded.invoke({"name": "orders.get", "args": {"order_id": ORDER, **taken}, "id": "c1", "type": "tool_call"})
    assert (message.status, message.content) == ("error", INVALID)


@pytest.mark.parametrize("forged", [{"branch": "evil"}, None], ids=["state", "null"])
def test_the_name_by_which_tool_node_vouches_is_not_the_models(shop: Shop, forged: Any) -> None:
    (guarded,) = guard_tools([OfRun()], run=shop.run())
    call = {"name": "orders.get", "args": {"order_id": ORDER, "agentgate_runtime": forged}, "id": "c1", "type": "tool_call"}
    assert guarded.invoke(call).content == INVALID


def test_state_that_tool_node_does_not_strip_is_refused(shop: Shop) -> None:
    (guarded,) = guard_tools([Unstripped()], run=shop.run())
    forged = asking(state={"branch": "evil"})
    assert "evil" in tool_messages(graph_of(Unstripped()).invoke(forged))[0].content  # as the raw tool would run
    assert tool_messages(graph_of(guarded).invoke(forged))[0].content == INVALID


def test_a_runtime_vouches_only_for_its_own_state_and_call(shop: Shop) -> None:
    inner, whole = guard_tools([of_both, by_json_schema], run=shop.run())
    tried: list[ToolMessage] = []

    @tool("delegate")
    def delegate(task: str, runtime: ToolRuntime) -> str:
        """Pass a runtime on."""
        for branch, call_id in ((task, runtime.tool_call_id), (runtime.state["branch"], "another")):
            args = {"order_id": ORDER, "branch": branch, "runtime": runtime}
            tried.append(inner.invoke({"name": "orders.get", "args": args, "id": call_id, "type": "tool_call"}))
        states: tuple[Any, ...] = (dict(runtime.state), {"branch": task}, [])
        for state in states:
            args = {"order_id": ORDER, "state": state, "runtime": runtime}
            tried.append(whole.invoke({"name": "orders.get", "args": args, "id": runtime.tool_call_id, "type": "tool_call"}))
        return "done"

    wanted = {"messages": [calls(("delegate", {"task": "south"}))], "branch": "north"}
    graph_of(*guard_tools([delegate], run=shop.run())).invoke(wanted)
    assert [m.content for m in tried] == [INVALID] * 5


def test_messages_that_are_all_of_the_state_vouch_for_these_messages_only() -> None:
    messages: list[Any] = [HumanMessage("Hello")]
    runtime = SimpleNamespace(state=messages)
    for own in (messages, {"messages": messages}):
        assert from_state(own, None, runtime)
    for forged in ([HumanMessage("Hello")], {"messages": [HumanMessage("Hello")]}, {"messages": messages, "branch": "evil"}, {}, "Hello"):
        assert not from_state(forged, None, runtime)
    assert from_state(messages, "messages", runtime)
    assert not from_state({"messages": messages}, "messages", runtime)


@pytest.mark.parametrize("original", STATEFUL.values(), ids=STATEFUL)
def test_a_tool_that_takes_state_looks_like_its_original(original: BaseTool) -> None:
    (guarded,) = guard_tools([original])
    assert guarded.args == original.args
    assert definition_of(guarded) == definition_of(original)
    assert convert_to_openai_tool(guarded) == convert_to_openai_tool(original)


def test_what_tool_node_injects_is_in_no_callback(shop: Shop) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[Any] = []

    class Listening(BaseCallbackHandler):
        def on_tool_start(self, *args: Any, inputs: Any = None, **_: Any) -> None:
            seen.append((args[1], inputs))

    (guarded,) = guard_tools([of_state], run=shop.run())
    graph_of(guarded).invoke(asking(), {"callbacks": [Listening()]})
    assert seen == [(str({"order_id": ORDER}), {"order_id": ORDER})]


# --- the host's own values ------------------------------------------------------------------------------------------------
@tool("orders.get")
def of_customer(
    order_id: str, customer: Annotated[str, InjectedToolArg], limits: Annotated[dict[str, int] | None, InjectedToolArg] = None
) -> str:
    """Look an order up."""
    return f"{order_id} {customer} {limits}"


def test_what_the_host_injects_reaches_the_tool(shop: Shop) -> None:
    (guarded,) = guard_tools([of_customer])
    with use_run(shop.run(), inject={"customer": "cus_7", "limits": {"most": 3}, "for another tool": 1}):
        assert guarded.invoke({"order_id": ORDER}) == f"{ORDER} cus_7 {{'most': 3}}"
        assert guarded.invoke(ORDER) == f"{ORDER} cus_7 {{'most': 3}}"
        out = graph_of(guarded).invoke(asking())
    assert tool_messages(out)[0].content == f"{ORDER} cus_7 {{'most': 3}}"


async def test_what_the_host_injects_reaches_an_awaited_tool(shop: Shop) -> None:
    (guarded,) = guard_tools([of_customer])
    with use_run(shop.run(), inject={"customer": "cus_7"}):
        assert await guarded.ainvoke({"order_id": ORDER}) == f"{ORDER} cus_7 None"


def test_what_the_model_sends_under_the_hosts_name_is_refused(shop: Shop) -> None:
    (guarded,) = guard_tools([of_customer])
    with use_run(shop.run(), inject={"customer": "cus_7"}), capture_logs() as logs:
        message = guarded.invoke({"name": "orders.get", "args": {"order_id": ORDER, "customer": "cus_9"}, "id": "c1", "type": "tool_call"})
        with pytest.raises(CallRefused):
            guarded.invoke({"order_id": ORDER, "customer": "cus_9"})
    assert (message.status, message.content) == ("error", INVALID)
    said = logs[0]["reasons"][0]
    assert said.startswith("argument 'customer' that the model may not set: got a value of unknown source, expected only order_id")
    assert "use_run(run, inject={'customer': ...})" in said
    assert "cus_9" not in str(logs)


def test_the_hosts_values_are_for_the_calls_of_its_run_only(shop: Shop) -> None:
    (bound,) = guard_tools([of_customer.model_copy()], run=shop.run())
    with use_run(shop.run(), inject={"customer": "cus_7"}), pytest.raises(ValueError, match="customer"):
        bound.invoke({"order_id": ORDER})
    run = shop.run()
    (bound,) = guard_tools([of_customer], run=run)
    with use_run(run, inject={"customer": "cus_7"}):
        assert bound.invoke({"order_id": ORDER}) == f"{ORDER} cus_7 None"
        with use_run(run), pytest.raises(ValueError, match="customer"):
            bound.invoke({"order_id": ORDER})


def test_the_host_cannot_inject_what_the_tool_shows_to_the_model(shop: Shop) -> None:
    with use_run(shop.run(), inject={"order_id": "ORD-66666666"}), capture_logs() as logs, pytest.raises(CallRefused) as refused:
        guard_tools([shop.tool("orders.get")])[0].invoke({"order_id": ORDER})
    assert refused.value.code == "invalid_arguments"
    assert "annotate it InjectedToolArg" in logs[0]["reasons"][0]
    assert shop.ran == []


@pytest.mark.parametrize("wrong", [["customer"], {1: "cus_7"}])
def test_inject_is_a_mapping_of_names(shop: Shop, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="inject"), use_run(shop.run(), inject=wrong):
        pass


def agent(shop: Shop, answer: AIMessage, inject: Any, original: BaseTool = of_customer) -> Any:
    gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify, inject=inject)
    return create_agent(Script(answers=[answer, say()]), [original], middleware=[gated], context_schema=User)


def test_the_middleware_injects_what_the_host_reads_from_the_context(shop: Shop) -> None:
    built = agent(shop, calls(("orders.get", {"order_id": ORDER})), lambda user: {"customer": f"of {user.id}"})
    assert tool_messages(built.invoke({"messages": vouched(PROMPT)}, context=LEE))[0].content == f"{ORDER} of lee None"
    built = agent(shop, calls(("orders.get", {"order_id": ORDER, "customer": "cus_9"})), lambda user: {"customer": f"of {user.id}"})
    assert tool_messages(built.invoke({"messages": vouched(PROMPT)}, context=LEE))[0].content == INVALID


@pytest.mark.parametrize("wrong", [lambda _: ["customer"], lambda user: {"customer": user.nothing}])
def test_what_the_middleware_cannot_inject_is_a_refusal(shop: Shop, wrong: Any) -> None:
    with capture_logs() as logs:
        out = agent(shop, calls(("orders.get", {"order_id": ORDER})), wrong).invoke({"messages": vouched(PROMPT)}, context=LEE)
    assert tool_messages(out)[0].content == "agentgate: not_permitted"
    assert "inject" in str(logs)
