"""A small shop as an MCP server, made with each SDK, and the gate whose tokens it takes: real protocol, real keys, a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastmcp
import mcp
from mcp.server import Server
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

from agentgate import Agent, Allow, AsyncGate
from agentgate.integrations.asgi import ToolServer
from agentgate.integrations.mcp import GatedClient, GatedMCPServer, ProtectedTools, definition_of, protect, redeemed_call
from agentgate.integrations.mcp.carried import as_meta
from agentgate.integrations.mcp.fastmcp import RedeemTools
from agentgate.token.mint import CallToken
from tests.shop import LEE, PROMPT, WEEKDAY
from tests.toolshop import AUDIENCE, FOUND, ORDER, PIN, REFUND, SERVED, _Shared
from tests.upstream import Bank

NAMES = ["orders.get", "payments.refund"]
_ID = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
_PAY = {"type": "object", "properties": {name: {"type": "string"} for name in REFUND}, "required": list(REFUND)}


class Stock:
    """What the tools did, and what they answer: a value, or an exception that they raise."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.found: Any = FOUND
        self.paid: Any = {"paid": True}
        self.inside: Callable[[Any], Any] = lambda _: None  # called in the tool, with the SDK's context
        self.listed = [Tool(name=NAMES[0], description="Look up an order.", input_schema=_ID), Tool(name=NAMES[1], input_schema=_PAY)]
        self.structured, self.error = True, False  # of a low-level server's results
        self.begun, self.paying = asyncio.Event(), asyncio.Event()  # a refund of the official server says it began, and waits
        self.paying.set()

    def answer(self, tool: str, args: dict[str, Any], context: Any = None) -> Any:
        self.seen.append((tool, args))
        assert redeemed_call().args == args
        self.inside(context)
        answer = self.found if tool == "orders.get" else self.paid
        if isinstance(answer, Exception):
            raise answer
        return answer


def official(tools: ProtectedTools, stock: Stock, **more: Any) -> GatedMCPServer:
    server = GatedMCPServer("shop", protected=tools, **more)

    @server.tool(name="orders.get")
    def orders_get(order_id: str, ctx: Context) -> dict[str, Any]:
        """Look up an order."""
        return stock.answer("orders.get", {"order_id": order_id}, ctx.request_context)  # type: ignore[no-any-return]

    @server.tool(name="payments.refund")
    async def payments_refund(order_id: str, amount: str, currency: str, payee: str) -> dict[str, Any]:
        """Give money back."""
        args = {"order_id": order_id, "amount": amount, "currency": currency, "payee": payee}
        answer = stock.answer("payments.refund", args)
        stock.begun.set()
        await stock.paying.wait()
        return answer  # type: ignore[no-any-return]

    return server


def low_level(tools: ProtectedTools, stock: Stock) -> Server[Any]:
    async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=list(stock.listed), ttl_ms=60_000, cache_scope="private")  # which a client might believe

    async def call_tool(ctx: Any, params: Any) -> CallToolResult:
        answer = stock.answer(params.name, params.arguments, ctx)
        return said(str(answer), structured_content=answer if stock.structured else None, is_error=stock.error)

    server: Server[Any] = Server("shop", on_list_tools=list_tools, on_call_tool=call_tool)
    protect(server, tools)
    return server


def fast(tools: ProtectedTools, stock: Stock) -> fastmcp.FastMCP[Any]:
    redeem = RedeemTools(tools)
    server: fastmcp.FastMCP[Any] = fastmcp.FastMCP("shop", lifespan=redeem.lifespan, middleware=[redeem])

    @server.tool(name="orders.get")
    def orders_get(order_id: str, ctx: fastmcp.Context) -> dict[str, Any]:
        """Look up an order."""
        return stock.answer("orders.get", {"order_id": order_id}, ctx.request_context)  # type: ignore[no-any-return]

    @server.tool(name="payments.refund")
    async def payments_refund(order_id: str, amount: str, currency: str, payee: str) -> dict[str, Any]:
        """Give money back."""
        args = {"order_id": order_id, "amount": amount, "currency": currency, "payee": payee}
        return stock.answer("payments.refund", args)  # type: ignore[no-any-return]

    return server


def impostor(tools: list[Tool], answer: Callable[[Any], CallToolResult]) -> Server[Any]:
    """A server that lists these tools and redeems nothing; `answer` is given the request's context."""

    async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(ctx: Any, params: Any) -> CallToolResult:
        return answer(ctx)

    return Server("shop", on_list_tools=list_tools, on_call_tool=call_tool)


def said(text: str, **more: Any) -> CallToolResult:
    """A result of this text."""
    return CallToolResult(content=[TextContent(type="text", text=text)], **more)


KINDS: dict[str, Callable[[ProtectedTools, Stock], Any]] = {"official": official, "low level": low_level, "fastmcp": fast}


async def listed_by(server: Any) -> list[Tool]:
    """What a server lists."""
    if isinstance(server, Server):
        entry: Any = server.get_request_handler("tools/list")
        return list((await entry.handler(None, None)).tools)
    return [tool if isinstance(tool, Tool) else tool.to_mcp_tool() for tool in await server.list_tools()]


def pinned(digests: Mapping[str, str]) -> str:
    """The shop's workflow with these definitions."""
    head, *tools = SERVED.split(PIN)
    order = ["orders.get", "shop.hours", "payments.refund"]
    return head + "".join(digests.get(name, PIN) + text for name, text in zip(order, tools, strict=True))


class MCPShop:
    """Gate, run, server, and a connected client."""

    def __init__(self, gate: AsyncGate, run: Any, *, server: Any, stock: Stock, client: Any, digests: dict[str, str]) -> None:
        self.gate, self.run, self.server, self.stock, self.client, self.digests = gate, run, server, stock, client, digests
        self.gated = GatedClient(client, run, audience=AUDIENCE)
        self._calls = 0

    async def token(self, tool: str = "orders.get", args: Mapping[str, Any] = ORDER, call: str = "") -> CallToken:
        """A token for one call, as the gate gives it."""
        self._calls += 1
        answer = await self.run.authorize(tool, dict(args), tool_call_id=call or f"call_{self._calls}", definition=self.digests[tool])
        assert isinstance(answer, Allow), answer
        return answer.token

    async def send(self, token: CallToken | None, tool: str = "orders.get", args: Mapping[str, Any] = ORDER, **meta: Any) -> CallToolResult:
        """One `tools/call` by a client without an interceptor."""
        own = {} if token is None else as_meta(token.headers("POST", AUDIENCE))
        send = getattr(self.client, "call_tool_mcp", self.client.call_tool)
        return await send(tool, dict(args), meta={**own, **meta})  # type: ignore[no-any-return]


def connected(server: Any, kind: str) -> Any:
    """A client of the same SDK, connected in this process."""
    return fastmcp.Client(server) if kind == "fastmcp" else mcp.Client(server)


@asynccontextmanager
async def mcp_shop(
    folder: Path,
    kind: str = "official",
    *,
    audience: str = AUDIENCE,
    bank: Bank | None = None,
    own: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[MCPShop]:
    """A shop that runs, its client connected in this process.

    `audience`: whom the server thinks it is; `bank`: its credentials; `own`: further settings of the server; `more`: of the gate.
    """
    stock, gates = Stock(), list[AsyncGate]()

    async def opening() -> Any:
        return _Shared(gates[0].verifier(audience, tenants=["acme"]))

    where = ToolServer(opening, issuer="https://gate.example", audience=audience, **(own or {}))
    server = KINDS[kind](ProtectedTools(where, NAMES), stock)
    digests = {tool.name: definition_of(tool) for tool in await listed_by(server)}
    (folder / "w").mkdir(exist_ok=True)
    upstream = "".join(f"  {name}: {{broker: bank, role: writer}}\n" for name in NAMES) if bank else ""
    (folder / "w" / "refund.yaml").write_text(pinned(digests) + (f"upstream:\n{upstream}" if bank else ""))
    given: dict[str, Any] = {"audit": "memory://", "clock": lambda: WEEKDAY, "store": "memory://", **more}
    given |= {"brokers": {"bank": bank}} if bank else {}
    gate = await AsyncGate.open_unsafe_unapproved(folder / "w", issuer="https://gate.example", **given)
    gates.append(gate)
    async with gate:
        run = await gate.open_run("shop.refund", tenant="acme", user=LEE, agent=Agent("bot"), prompt=PROMPT)
        async with connected(server, kind) as client:
            yield MCPShop(gate, run, server=server, stock=stock, client=client, digests=digests)
