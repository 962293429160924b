"""LangChain's own tool suites, on guarded tools exactly as on the unguarded ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, Tool, tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from pydantic import BaseModel, Field

from agentgate.gate.gate import Gate
from agentgate.gate.run import Run
from agentgate.integrations.langchain import guard_tools, use_run
from agentgate.values.request import Agent, User

WORKFLOW = """\
agentgate: workflow/v1
id: suite.any
version: 1
title: Everything the suites call
owners: [lee]
risk: low
expires: "2027-05-31"
tenants: [acme]
who: {agent: {in_process: true}, for_user: {same_tenant: true}}
intents: {none: "Only looks; nothing here changes or sends anything."}
tools:
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
"""


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
    with pytest.raises(NotImplementedError):
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
