"""Tools whose body would run around the decision are refused by name, in `guard_tools` and in an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core._api import LangChainBetaWarning
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, StructuredTool, Tool, create_retriever_tool, tool
from structlog.testing import capture_logs

from agentgate.errors import ConfigError
from agentgate.integrations.langchain import AgentGateMiddleware, CallRefused, guard_tools, is_guarded
from agentgate.values.request import User
from tests.langchain_shop import DENIED, LEE, ORDER, PROMPT, Script, Shop, calls, identify, say, tool_messages, tool_server, vouched

OTHER = {"order_id": "ORD-66666666"}
RAN: list[str] = []


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    RAN.clear()
    with tool_server() as served:
        yield Shop(tmp_path, served)


def body(*_: Any, **__: Any) -> str:
    RAN.append("ran")
    return "done"


async def abody(*_: Any, **__: Any) -> str:
    return body()


class Plain(BaseTool):
    """A tool as `BaseTool` asks for."""

    name: str = "orders.get"
    description: str = "Look an order up."

    def _run(self, order_id: str) -> str:
        return body(order_id)


SCHEMA = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}


class Structured(StructuredTool):
    """A subclass of LangChain's own, as some packages make."""


def structured() -> StructuredTool:
    return Structured.from_function(func=body, name="orders.get", description="Look an order up.", args_schema=SCHEMA)


SYNC = ["run", "invoke", "batch", "batch_as_completed", "stream", "transform", "stream_events", "__call__"]
ASYNC = ["arun", "ainvoke", "abatch", "abatch_as_completed", "astream", "astream_log", "astream_events", "atransform"]


def agent(shop: Shop, tools: list[Any], *before: Any, order: Any = OTHER) -> Any:
    model = Script(answers=[calls(("orders.get", order)), say()])
    gated = AgentGateMiddleware(shop.gate, workflow="shop.refund", identify=identify)
    return create_agent(model, tools, middleware=[*before, gated], context_schema=User)


def refused_by_name(shop: Shop, unguardable: BaseTool, method: str) -> None:
    with pytest.raises(ConfigError, match=rf"'orders\.get', which replaces {method}\b"):
        guard_tools([unguardable])
    with pytest.raises(ConfigError, match=rf"'orders\.get', which replaces {method}\b"):
        agent(shop, [unguardable]).invoke({"messages": vouched(PROMPT)}, context=LEE)
    assert RAN == []


# --- refused -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [*SYNC, *ASYNC])
@pytest.mark.parametrize("base", [Plain, Structured])
def test_a_body_in_an_overridden_entry_point_is_refused(shop: Shop, base: Any, method: str) -> None:
    made: Any = type("Sly", (base,), {method: abody if method in ASYNC else body})
    sly = made() if base is Plain else made.from_function(func=body, name="orders.get", description="Look.", args_schema=SCHEMA)
    refused_by_name(shop, sly, method)


def yielding(**_: Any) -> Iterator[str]:
    RAN.append("yielding")
    yield "shipped"


async def ayielding(**_: Any) -> AsyncIterator[str]:
    RAN.append("ayielding")
    yield "shipped"


@pytest.mark.parametrize("body", [{"func": yielding}, {"func": body, "coroutine": ayielding}])
def test_a_body_that_yields_is_refused_since_it_runs_after_its_outcome_is_recorded(shop: Shop, body: Any) -> None:
    tool = StructuredTool(name="orders.get", description="Look an order up.", args_schema=SCHEMA, **body)
    with pytest.raises(ConfigError, match=r"'orders\.get', which yields"):
        guard_tools([tool])
    assert RAN == []


@pytest.mark.parametrize("later", [lambda **_: yielding(), lambda **_: ayielding(), lambda **_: abody()])
def test_what_is_yet_to_run_is_no_result(shop: Shop, later: Any) -> None:
    tool = StructuredTool.from_function(func=later, name="orders.get", description="Look an order up.", args_schema=SCHEMA)
    with pytest.raises(TypeError, match="yet to run"):
        agent(shop, [tool], order={"order_id": ORDER}).invoke({"messages": vouched(PROMPT)}, context=LEE)
    assert RAN == []


def test_a_body_in_a_class_beside_the_tools_is_refused(shop: Shop) -> None:
    class Beside:
        invoke = body

    class Sly(Beside, Plain):
        pass

    refused_by_name(shop, Sly(), "invoke")


def test_a_tool_that_answers_for_its_attributes_is_refused(shop: Shop) -> None:
    class Sly(Plain):
        def __getattribute__(self, name: str) -> Any:
            return body if name == "run" else super().__getattribute__(name)

    refused_by_name(shop, Sly(), "__getattribute__")


@pytest.mark.parametrize("method", ["_run", "_arun", "run", "invoke", "ainvoke", "__call__"])
def test_a_method_replaced_on_the_instance_is_refused(shop: Shop, method: str) -> None:
    sly = Plain()
    object.__setattr__(sly, method, abody if method in {"_arun", "ainvoke"} else body)
    refused_by_name(shop, sly, method)


def test_a_tool_without_a_decision_inside_is_refused_by_name(shop: Shop) -> None:
    class Documents(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:  # noqa: ARG002 - the base class names them
            return [Document(body(query))]

    wrong: list[Any] = [
        {"type": "web_search"},
        {"name": "code", "type": "custom"},
        body,
        RunnableLambda(body),
        Plain().bind(x=1),
        Plain().with_config(tags=["x"]),
        Plain().with_retry(),
        Documents(),
        Plain,
    ]
    names = ["'web_search'", "'code'", "function", "RunnableLambda", "RunnableBinding", "RunnableBinding", "RunnableRetry", "Documents"]
    for tools, name in zip(wrong, [*names, "ModelMetaclass"], strict=True):
        for given in (tools, [tools]):
            with pytest.raises(ConfigError, match=name):
                guard_tools(given)


def test_a_tool_that_a_middleware_puts_into_the_call_is_refused_with_the_reason(shop: Shop) -> None:
    class Sly(Plain):
        invoke = body

    class Exchange(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool=Sly()))

    with capture_logs() as logs:
        out = agent(shop, [Plain()], Exchange()).invoke({"messages": vouched(PROMPT)}, context=LEE)
    assert [m.content for m in tool_messages(out)] == [DENIED]
    (entry,) = [e for e in logs if e["event"] == "call_refused"]
    assert "'orders.get', which replaces invoke" in entry["reasons"][0]
    assert RAN == []


def test_a_providers_own_tool_is_named_in_the_log(shop: Shop) -> None:
    with capture_logs() as logs:
        agent(shop, [Plain(), {"type": "web_search"}]).invoke({"messages": vouched(PROMPT)}, context=LEE)
    assert "'web_search'" in next(e for e in logs if e["event"] == "tool_not_offered")["tool"]


# --- replaced after guarding ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["_run", "_arun", "run", "arun", "invoke", "ainvoke"])
async def test_a_method_replaced_after_guarding_does_not_run_around_the_decision(shop: Shop, method: str) -> None:
    replacement = abody if method in {"_arun", "arun", "ainvoke"} else body
    original, run = Plain(), shop.run()
    (guarded,) = guard_tools([original], run=run)
    object.__setattr__(original, method, replacement)
    with pytest.raises((AttributeError, ValueError)):
        setattr(guarded, method, replacement)
    shadowed = [guarded.model_copy(update={method: replacement})] if method.endswith("run") else []
    for one in (guarded, *shadowed):
        with pytest.raises(CallRefused):
            one.invoke(OTHER)
        with pytest.raises(CallRefused):
            await one.ainvoke(OTHER)
    assert RAN == []


def test_a_function_exchanged_before_or_after_guarding_is_decided_on(shop: Shop) -> None:
    given = structured()
    given.func = body
    (guarded,) = guard_tools([given], run=shop.run())
    changed: Any = guarded
    changed.func = body
    with pytest.raises(CallRefused):
        guarded.invoke(OTHER)
    assert RAN == []
    assert guarded.invoke({"order_id": ORDER}) == "done"


# --- LangChain's own stay guardable --------------------------------------------------------------------------------------
def simple() -> Tool:
    return Tool("orders.get", body, "Look an order up.")


def decorated() -> BaseTool:
    @tool("orders.get")
    def get(order_id: str) -> str:
        """Look an order up."""
        return body(order_id)

    return get


def runnable() -> BaseTool:
    with pytest.warns(LangChainBetaWarning):
        return RunnableLambda(body).as_tool(name="orders.get", description="Look an order up.", arg_types={"order_id": str})


@pytest.mark.parametrize("make", [Plain, structured, decorated, runnable])
async def test_langchains_own_tools_are_decided_on_each_way(shop: Shop, make: Callable[[], BaseTool]) -> None:
    (guarded,) = guard_tools(make(), run=shop.run())
    assert guarded.invoke({"order_id": ORDER}) == "done"
    assert await guarded.ainvoke({"order_id": ORDER}) == "done"
    assert guarded.batch([{"order_id": ORDER}]) == ["done"]
    assert list(guarded.stream({"order_id": ORDER})) == ["done"]
    assert guarded.bind().invoke({"order_id": ORDER}) == "done"
    for refusing in (
        guarded.invoke,
        guarded.bind().invoke,
        lambda given: guarded.batch([given]),
        lambda given: list(guarded.stream(given)),
    ):
        with pytest.raises(CallRefused):
            refusing(OTHER)
    with pytest.raises(CallRefused):
        await guarded.ainvoke(OTHER)
    assert len(RAN) == 5


def test_tools_of_a_retriever_or_a_text_are_guarded(shop: Shop) -> None:
    class Documents(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:  # noqa: ARG002 - as above
            return [Document(body(query))]

    tools = [simple(), create_retriever_tool(Documents(), "orders.get", "Look.")]
    for guarded in guard_tools(tools, run=shop.run()):
        with pytest.raises(CallRefused):
            guarded.invoke("ORD-66666666")
    assert RAN == []


def test_a_single_tool_needs_no_list(shop: Shop) -> None:
    (guarded,) = guard_tools(Plain())
    assert is_guarded(guarded)


def test_a_workflow_that_the_gate_has_not_loaded_fails_at_once(shop: Shop) -> None:
    with pytest.raises(ConfigError, match=r"'shop\.refnud'.*shop\.refund"):
        AgentGateMiddleware(shop.gate, workflow="shop.refnud", identify=identify)
