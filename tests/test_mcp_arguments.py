"""MCP: a tool is called with the values that were decided on, whatever its SDK makes of arguments; or not at all."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import fastmcp
import pytest
from mcp_types import CallToolResult
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, Json, PlainValidator, StringConstraints
from structlog.testing import capture_logs

from agentgate import Agent, AsyncGate
from agentgate.errors import ConfigError
from agentgate.integrations.asgi import ToolServer
from agentgate.integrations.mcp import DENIAL, GatedClient, GatedMCPServer, ProtectedTools, definition_of
from agentgate.integrations.mcp.fastmcp import RedeemTools
from agentgate.integrations.mcp.protected import check_signature
from tests.mcpshop import connected, listed_by
from tests.shop import LEE, WEEKDAY
from tests.toolshop import AUDIENCE, _Shared

WORKFLOW = """
agentgate: workflow/v1
id: shop.tag
version: 1
title: Anything with one value
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme]
who: {{agent: {{in_process: true}}, for_user: {{same_tenant: true}}}}
intents: {{none: "For the test."}}
tools:
  tag:
    effect: read
    needs: any
    redeem: server
    audience: {audience}
    scope: [tag]
    definition: "{definition}"
    args:
      value: {{{rule}, optional: true}}
"""
TEXT, NUMBER, FLAG = "text: 200, from: [model]", "type: number, in: [1], from: [model]", "type: boolean, in: [true], from: [model]"


class Colour(Enum):
    RED = "red"


class Box(BaseModel):
    inside: str = ""


class Made(BaseModel):
    inside: str = Field(default_factory=lambda: "evil")


class Checked(BaseModel):
    inside: Annotated[str, AfterValidator(lambda _: "evil")] = Field("a", validate_default=True)


class Renamed(BaseModel):
    inside: str = Field("a", validation_alias=AliasChoices("inside", "other"))


class Deep(BaseModel):
    boxes: list[Made] | None = None


class Seen:
    def __init__(self) -> None:
        self.values: list[Any] = []


def official(tools: ProtectedTools, annotation: Any, seen: Seen, default: Any) -> Any:
    server = GatedMCPServer("shop", protected=tools)
    server.tool(name="tag")(tool_of(annotation, seen, default))
    return server


def fast(tools: ProtectedTools, annotation: Any, seen: Seen, default: Any) -> Any:
    redeem = RedeemTools(tools)
    server: fastmcp.FastMCP[Any] = fastmcp.FastMCP("shop", lifespan=redeem.lifespan, middleware=[redeem])
    server.tool(name="tag")(tool_of(annotation, seen, default))
    return server


def mounted(tools: ProtectedTools, annotation: Any, seen: Seen, default: Any) -> Any:
    redeem = RedeemTools(tools)
    server: fastmcp.FastMCP[Any] = fastmcp.FastMCP("shop", lifespan=redeem.lifespan, middleware=[redeem])
    inner: fastmcp.FastMCP[Any] = fastmcp.FastMCP("inner")
    inner.tool(name="ag")(tool_of(annotation, seen, default))
    server.mount(inner, tool_names={"ag": "tag"})
    return server


SERVERS: dict[str, Callable[..., Any]] = {"official": official, "fastmcp": fast, "mounted": mounted}
every_server = pytest.mark.parametrize("kind", SERVERS)


def tool_of(annotation: Any, seen: Seen, default: Any) -> Callable[..., dict[str, Any]]:
    """A function with one parameter."""

    def tag(value: Any = default) -> dict[str, Any]:
        """Tag."""
        seen.values.append(value)
        return {"done": True}

    tag.__annotations__ = {"value": annotation, "return": dict[str, Any]}
    if default is ...:
        tag.__defaults__ = None
    return tag


@asynccontextmanager
async def called(
    folder: Path, kind: str, annotation: Any, *, rule: str = TEXT, default: Any = ...
) -> AsyncIterator[tuple[Callable[..., Any], Seen]]:
    """Call the tool by a gate that permits any value."""
    seen, gates = Seen(), list[AsyncGate]()

    async def opening() -> Any:
        return _Shared(gates[0].verifier(AUDIENCE, tenants=["acme"]))

    where = ToolServer(opening, issuer="https://gate.example", audience=AUDIENCE)
    server = SERVERS[kind](ProtectedTools(where, ["tag"]), annotation, seen, default)
    (tool,) = await listed_by(server)
    (folder / "w").mkdir()
    (folder / "w" / "tag.yaml").write_text(WORKFLOW.format(audience=AUDIENCE, definition=definition_of(tool), rule=rule))
    given: dict[str, Any] = {"audit": "memory://", "clock": lambda: WEEKDAY, "store": "memory://"}
    gate = await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", **given)
    gates.append(gate)
    async with gate:
        run = await gate.open_run("shop.tag", tenant="acme", user=LEE, agent=Agent("bot"), prompt="Please tag it.")
        async with connected(server, "official" if kind == "official" else "fastmcp") as client:
            gated = GatedClient(client, run, audience=AUDIENCE)

            async def call(**values: Any) -> CallToolResult:
                return await gated.call_tool("tag", values)

            yield call, seen


LEFT_TO_RIGHT = Annotated[int | str, Field(union_mode="left_to_right")]
TEXTS = ('["a","evil"]', "null", '{"inside":"evil"}', "1", "true", '"a"', " a ", "1e3")


@every_server
@pytest.mark.parametrize("annotation", [str | list[str], str | None, Any, str | int | bool, LEFT_TO_RIGHT])
async def test_text_stays_text(tmp_path: Path, kind: str, annotation: Any) -> None:
    """`MCPServer` parses it as JSON for any parameter that is not exactly `str`: a list, null, an object."""
    async with called(tmp_path, kind, annotation) as (call, seen):
        for text in TEXTS:
            assert not (await call(value=text)).is_error, text
    assert seen.values == list(TEXTS)
    assert {type(value) for value in seen.values} == {str}


@every_server
@pytest.mark.parametrize(
    ("annotation", "rule", "value"),
    [
        (int, TEXT, "1"),
        (int, FLAG, True),
        (bool, TEXT, "true"),
        (bool, NUMBER, 1),
        (float, TEXT, "1.5"),
        (list[str], TEXT, '["a","evil"]'),
        (Box, TEXT, '{"inside":"evil"}'),
        (dt.datetime, TEXT, "2031-01-01 02:00:00Z"),
        (dt.datetime, NUMBER, 1),
        (Annotated[str, StringConstraints(strip_whitespace=True)], TEXT, " a "),
        (Annotated[str, StringConstraints(to_lower=True)], TEXT, "A"),
        (Annotated[str, AfterValidator(lambda text: text + "!")], TEXT, "a"),
    ],
)
async def test_a_value_that_would_be_another_one_in_the_tool_runs_nothing(
    tmp_path: Path, kind: str, annotation: Any, rule: str, value: Any
) -> None:
    async with called(tmp_path, kind, annotation, rule=rule) as (call, seen):
        with capture_logs() as logs:
            answer = await call(value=value)
    assert (seen.values, (answer.meta or {}).get(DENIAL)) == ([], {"code": "invalid_arguments", "by": "server"})
    (line,) = [line for line in logs if line["event"] == "arguments_changed"]
    assert line["tool"] == "tag"
    assert repr(value) not in line["why"]


@every_server
@pytest.mark.parametrize(
    ("annotation", "rule", "pair"),
    [
        (int, NUMBER, (1, 1)),
        (float, NUMBER, (1, 1.0)),
        (bool, FLAG, (True, True)),
        (Colour, TEXT, ("red", Colour.RED)),
        (Literal["a", "b"], TEXT, ("a", "a")),
        (dt.datetime, TEXT, ("2031-01-01T00:00:00Z", dt.datetime(2031, 1, 1, tzinfo=dt.UTC))),
        (dt.date, TEXT, ("2031-01-01", dt.date(2031, 1, 1))),
        (bytes, TEXT, ("abc", b"abc")),
    ],
)
async def test_a_value_of_another_type_is_the_same_value(tmp_path: Path, kind: str, annotation: Any, rule: str, pair: Any) -> None:
    value, seen_as = pair
    async with called(tmp_path, kind, annotation, rule=rule) as (call, seen):
        answer = await call(value=value)
    assert (answer.is_error, seen.values) == (False, [seen_as]), answer


@every_server
async def test_a_plain_default_stands_in_the_definition_and_is_filled_in(tmp_path: Path, kind: str) -> None:
    async with called(tmp_path, kind, str, default="all") as (call, seen):
        assert not (await call()).is_error
    assert seen.values == ["all"]


@every_server
@pytest.mark.parametrize(
    ("annotation", "default", "got"),
    [
        (Annotated[str, Field(default_factory=lambda: "evil")], ..., "a default that is made for each call"),
        (Annotated[str, Field(validate_default=True)], "a", "a default that is validated"),
        (Annotated[str, Field(validation_alias=AliasChoices("value", "other"))], ..., "an alias for reading or writing alone"),
        (Annotated[Any, BeforeValidator(lambda text: [text])], ..., "BeforeValidator"),
        (Annotated[Any, PlainValidator(lambda text: [text])], ..., "PlainValidator"),
        (list[Annotated[str, BeforeValidator(str)]], ..., "BeforeValidator"),
        (Json[list[str]], ..., "Json"),
        (set[str], ..., "a set, which has no order"),
        (Made, ..., "a default that is made for each call"),
        (list[Made] | None, ..., "a default that is made for each call"),
        (Deep, ..., "a default that is made for each call"),
        (Checked, ..., "a default that is validated"),
        (Renamed, ..., "an alias for reading or writing alone"),
    ],
)
async def test_a_signature_whose_values_nobody_decides_on_does_not_start(
    tmp_path: Path, kind: str, annotation: Any, default: Any, got: str
) -> None:
    with pytest.raises(BaseException) as raised:
        async with called(tmp_path, kind, annotation, default=default):
            pass
    error: BaseException = raised.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    named = error if isinstance(error, ConfigError) else error.__cause__ or error
    assert "tools.tag.value" in str(named) or "tools.ag.value" in str(named), named
    assert got in str(named)


class Branch(BaseModel):
    inside: str = ""
    branches: list[Branch] = []


def test_a_model_in_itself_is_looked_at_once() -> None:
    check_signature("tag", Branch)
