"""LangChain's own tool suites, on guarded tools exactly as on the unguarded ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, Tool, tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from pydantic import AfterValidator, BaseModel, Field

from agentgate.errors import ConfigError
from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.integrations.langchain import CallRefused, guard_tools, is_guarded, use_run
from agentgate.values.request import Agent, User
from tests.framework_suites import DIFFERENCES
from tests.workflows import workflow_text

WORKFLOW = workflow_text(
    "suite.any",
    expires='"2027-05-31"',
    intents='{none: "Only looks; nothing here changes or sends anything."}',
    tools="""
  multiply:
    effect: read
    needs: any
    redeem: wrapper
    args: {a: {min: "0", max: "100"}, b: {min: "0", max: "100"}}
  shout:
    effect: read
    needs: any
    redeem: wrapper
    args: {tool_input: {text: 100}}
""",
)


class Factors(BaseModel):
    """Two factors."""

    a: int = Field(description="first factor")
    b: int = Field(default=2, description="second factor")


class Multiply(BaseTool):
    """Implements `_run` and `_arun`, with an artifact."""

    name: str = "multiply"
    description: str = "Multiply two numbers."
    args_schema: type[BaseModel] = Factors
    response_format: str = "content_and_artifact"  # type: ignore[assignment]

    def _run(self, a: int, b: int = 2) -> tuple[str, int]:
        return str(a * b), a * b

    async def _arun(self, a: int, b: int = 2) -> tuple[str, int]:
        return self._run(a, b)


class OnlyRun(BaseTool):
    """Implements only `_run`, and has no schema of its own."""

    name: str = "multiply"
    description: str = "Multiply two numbers."

    def _run(self, a: int, b: int = 2) -> int:
        return a * b


@tool("multiply")
def decorated(a: int, b: int = 2) -> int:
    """Multiply two numbers."""
    return a * b


@tool("multiply")
async def awaited(a: int, b: int = 2) -> int:
    """Multiply two numbers."""
    return a * b


JSON_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
mcp_like = StructuredTool(name="multiply", description="Multiply.", args_schema=JSON_SCHEMA, func=lambda a, b: a * b)
shout = Tool(name="shout", description="Shout.", func=str.upper)


def test_a_tool_without_a_schema_of_its_own_runs_with_its_defaults() -> None:
    (guarded,) = guard_tools([OnlyRun()])
    assert guarded.invoke({"a": 4}) == OnlyRun().invoke({"a": 4}) == 8
    assert guarded.invoke({"a": 4, "b": 3}) == 12
    with pytest.raises(CallRefused):
        guarded.invoke({"a": 4, "b": 101})


@pytest.fixture(autouse=True)
def run(tmp_path: Path) -> Iterator[Run]:
    """The run in which every guarded tool of this file works."""
    (tmp_path / "any.yaml").write_text(WORKFLOW)
    with Gate.open_unsafe_unapproved(tmp_path, issuer="https://gate.acme.example", audit="memory://") as gate:
        opened = gate.open_run("suite.any", tenant="acme", user=User("lee", tenant="acme"), agent=Agent("suite"), prompt="multiply")
        with use_run(opened):
            yield opened


class _Multiplies:
    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"a": 6, "b": 7}


class TestMultiplyUnit(_Multiplies, ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([Multiply()])[0]


class TestMultiplyIntegration(_Multiplies, ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([Multiply()])[0]


class TestUnguardedIntegration(_Multiplies, ToolsIntegrationTests):
    """The baseline: what fails here may fail guarded."""

    @property
    def tool_constructor(self) -> BaseTool:
        return Multiply()


class TestOnlyRunUnit(_Multiplies, ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([OnlyRun()])[0]


class TestOnlyRunIntegration(_Multiplies, ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([OnlyRun()])[0]


class TestDecoratedUnit(_Multiplies, ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([decorated])[0]


class TestDecoratedIntegration(_Multiplies, ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([decorated])[0]


class TestMcpLikeIntegration(_Multiplies, ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return guard_tools([mcp_like])[0]


async def test_an_async_only_tool_works_guarded() -> None:
    (guarded,) = guard_tools([awaited])
    assert await guarded.ainvoke({"a": 6, "b": 7}) == 42
    with pytest.raises(NotImplementedError, match="no token was minted"):  # as the raw tool, and before anything is decided
        guarded.invoke({"a": 6, "b": 7})


async def test_a_single_input_tool_works_guarded_by_every_spelling() -> None:
    (guarded,) = guard_tools([shout])
    assert guarded.invoke("hey") == "HEY"
    assert guarded.invoke({"__arg1": "hey"}) == "HEY"
    assert guarded.invoke({"tool_input": "hey"}) == "HEY"
    assert await guarded.ainvoke("hey") == "HEY"


ORIGINALS = {"subclass": Multiply(), "only run": OnlyRun(), "decorated": decorated, "awaited": awaited, "schema": mcp_like, "text": shout}


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS)
def test_a_guarded_tool_looks_like_its_original(original: BaseTool) -> None:
    (guarded,) = guard_tools([original])
    assert isinstance(guarded, type(original))
    for name in ("name", "description", "args", "response_format", "tags", "metadata", "return_direct", "handle_tool_error"):
        assert getattr(guarded, name) == getattr(original, name), name
    assert guarded.get_input_jsonschema() == original.get_input_jsonschema()
    assert type(original).__name__ == type(guarded).__name__
    assert not hasattr(original, "_agentgate")


# --- the frameworks' own tests: what differs, and why -------------------------------------------------------------------------
@tool("multiply")
def hiding(a: int, b: Annotated[int, InjectedToolArg] = 2) -> int:
    """Multiply two numbers."""
    return a * b


@tool("multiply")
def doubling(a: Annotated[int, AfterValidator(lambda n: n * 2)], b: int = 2) -> int:
    """Multiply two numbers."""
    return a * b


loose = StructuredTool(name="multiply", description="Multiply.", args_schema=JSON_SCHEMA, func=lambda a, b, **_: a * b)


def as_called(made: BaseTool, args: dict[str, Any]) -> Any:
    """What a call answers, or the name of its error."""
    try:
        return made.invoke(args)
    except Exception as error:  # noqa: BLE001 - its name is the answer
        return type(error).__name__


def runs_of_a_finished_call(made: BaseTool, ran: list[int]) -> int:
    """How often a tool ran that had finished when another call of its `ToolNode` interrupted the graph, after the resume."""

    @tool("ask")
    def ask(question: str) -> str:
        """Ask a person."""
        return str(interrupt(question))

    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([made, ask]))
    graph.add_edge(START, "tools")
    built, thread = graph.compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    wanted = [("multiply", {"a": 6, "b": 7}), ("ask", {"question": "?"})]
    asked = AIMessage("", tool_calls=[{"name": name, "args": args, "id": name, "type": "tool_call"} for name, args in wanted])
    ran.clear()
    built.invoke({"messages": [asked]}, thread)  # type: ignore[call-overload]
    built.invoke(Command(resume="yes"), thread)  # type: ignore[call-overload]
    return len(ran)


RAN: list[int] = []


@tool("multiply")
def counted(a: int, b: int) -> int:
    """Multiply two numbers."""
    RAN.append(a)
    return a * b


SHOWN: dict[str, tuple[Callable[[BaseTool], Any], BaseTool, Any, Any]] = {
    "a caller sets a hidden argument in a plain invoke, as a model could": (
        lambda made: as_called(made, {"a": 6, "b": 7}), hiding, 42, "CallRefused"
    ),
    "an argument that the tool does not declare": (
        lambda made: as_called(made, {"a": 6, "b": 7, "c": 8}), loose, 42, "CallRefused"
    ),
    "a value that changes each time it is validated": (lambda made: as_called(made, {"a": 3, "b": 7}), doubling, 42, "CallRefused"),
    "a finished call runs again on resume": (lambda made: runs_of_a_finished_call(made, RAN), counted, 2, 1),
}  # fmt: skip


@pytest.mark.parametrize("reason", DIFFERENCES)
def test_what_the_frameworks_own_tests_expect_otherwise_is_what_the_design_forbids(reason: str) -> None:
    does, original, raw, guarded = SHOWN[reason]
    assert (does(original), does(guard_tools([original])[0])) == (raw, guarded)


def test_the_page_says_what_differs() -> None:
    page = (Path(__file__).parent.parent / "docs/langchain.md").read_text()
    for reason, tests in DIFFERENCES.items():
        assert f"| {reason} | {len(tests)} |" in page, reason
    assert DIFFERENCES.keys() == SHOWN.keys()


# --- pickling -----------------------------------------------------------------------------------------------------------------
def test_a_guarded_tool_is_guarded_again_when_it_is_loaded(run: Run) -> None:
    (guarded,) = guard_tools([Multiply()])
    sent = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(guarded))))  # noqa: S301 - our own
    assert is_guarded(sent)
    assert type(sent).__name__ == "Multiply"
    assert sent.invoke({"a": 6, "b": 7}) == "42"
    run.close()
    with pytest.raises(CallRefused):
        sent.invoke({"a": 6, "b": 7})


def test_what_is_pickled_holds_the_tool_and_no_gate() -> None:
    (guarded,) = guard_tools([Multiply()])
    assert b"agentgate" in pickle.dumps(guarded)
    assert b"Guard" not in pickle.dumps(guarded)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def add_one(a: int, b: int) -> int:
    return add(a, b) + 1


add_one.__wrapped__ = add  # type: ignore[attr-defined]  # as a decorator leaves it


@pytest.mark.parametrize("body", [add, add_one])
def test_a_guarded_function_is_pickled_as_the_hosts_own(body: Callable[[int, int], int]) -> None:
    guarded: Any = guard_tools([StructuredTool.from_function(body, name="add", description="Add.")])[0]
    guarded.args_schema = {"type": "object", "properties": {}}  # of a function it is a class that cannot be pickled
    assert pickle.loads(pickle.dumps(guarded)).func.__wrapped__ is body  # noqa: S301 - our own
    guarded.func = add_one
    assert pickle.loads(pickle.dumps(guarded)).func.__wrapped__ is add_one  # noqa: S301 - our own


def test_a_tool_bound_to_a_run_is_refused_by_name_when_it_is_pickled(run: Run) -> None:
    (bound,) = guard_tools([Multiply()], run=run)
    with pytest.raises(ConfigError, match="'multiply', which is bound to a run"):
        pickle.dumps(bound)


def test_a_tool_that_cannot_be_pickled_raw_cannot_be_guarded() -> None:
    for made in (mcp_like, guard_tools([mcp_like])[0]):
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(made)
