"""Servers of the official SDK: `GatedMCPServer`, and `protect` for a low-level `Server`.

Rules: a tool is called with the decided values (`agentgate.integrations.mcp.protected`): by
itself, `MCPServer` parses text as JSON where a parameter is not exactly `str`. The token is
taken out of the request before any other middleware, and redeemed at the innermost place, where
the tool is run: no hook in between sees the one or changes the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from mcp.server import MCPServer, Server
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
)
from mcp_types.version import LATEST_MODERN_VERSION
from starlette.applications import Starlette

from agentgate.errors import CallDenied, ConfigError
from agentgate.integrations.mcp.carried import denied, take_token
from agentgate.integrations.mcp.protected import ProtectedTools, check_signature, decided_values
from agentgate.values.refusal import Code

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
_MAX_PAGES = 100


class GatedMCPServer(MCPServer[Any]):
    """An `MCPServer` whose tools run for a call token only; registered and served as ever, over
    stdio and HTTP.
    """

    def __init__(
        self,
        name: str,
        *,
        protected: ProtectedTools,
        lifespan: Lifespan | None = None,
        **more: Any,
    ) -> None:
        """A server with these tools.

        Args:
            name: of the server.
            protected: which tools it may have.
            lifespan: your own, which starts after the verifier.
            more: further arguments of `MCPServer`.
        """
        self._protected = protected
        self._own = lifespan
        super().__init__(name, lifespan=lambda _: self._serving(), **more)
        self.middleware.insert(0, take_token)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Any]:
        self._protected.check_listed(await self.list_tools())
        for tool in self._tool_manager.list_tools():
            check_signature(tool.name, tool.fn_metadata.arg_model)
        async with self._protected.serving():
            if not self._own:
                yield {}
                return
            async with self._own(self) as state:
                yield state

    def streamable_http_app(self, *, stateless_http: bool = True, **more: Any) -> Starlette:
        """See `MCPServer`; without sessions unless you ask for them
        (`agentgate.integrations.mcp.carried`).
        """
        return super().streamable_http_app(stateless_http=stateless_http, **more)

    async def run_streamable_http_async(
        self, *, stateless_http: bool = True, **more: Any
    ) -> None:
        """See `streamable_http_app`."""
        await super().run_streamable_http_async(stateless_http=stateless_http, **more)

    def add_tool(
        self, fn: Callable[..., Any], name: str | None = None, *args: Any, **more: Any
    ) -> None:
        """See `MCPServer.add_tool`.

        Raises:
            ConfigError: the tool is not one of `protected`.
        """
        self._protected.check_name(name or str(getattr(fn, "__name__", "")))
        super().add_tool(fn, name, *args, **more)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Run a tool for the token that the request brought; without one, refused."""
        run = super().call_tool
        tool = self._tool_manager.get_tool(name)
        if tool:
            tool.fn_metadata.__class__ = _DecidedValues
        try:
            return await self._protected.run(
                name, arguments, lambda decided: run(name, decided, context), self.list_tools
            )
        except CallDenied as refused:
            return denied(Code(refused.code))


class _DecidedValues(FuncMetadata):
    """What a tool's function is called with."""

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        """See `FuncMetadata`; raises ArgumentsChanged."""
        values: Any = decided_values(self.arg_model, arguments_to_validate)
        return dict(values.model_dump_one_level())


def protect(server: Server[Any], tools: ProtectedTools) -> None:
    """Put a low-level server's ``tools/call`` behind call tokens; call it when its handlers are
    registered.

    Raises:
        ConfigError: it has no handlers for ``tools/call`` and ``tools/list``.
    """
    calling = server.get_request_handler("tools/call")
    listing = server.get_request_handler("tools/list")
    if not calling or not listing:
        raise ConfigError(
            "server",
            "no handler for tools/call or tools/list",
            "on_call_tool and on_list_tools, before protect",
        )

    async def call(ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Any:
        async def body(decided: dict[str, Any]) -> Any:
            return await calling.handler(ctx, params.model_copy(update={"arguments": decided}))

        try:
            return await tools.run(
                params.name, params.arguments or {}, body, lambda: _listed(server, ctx)
            )
        except CallDenied as refused:
            return denied(Code(refused.code))

    own = server.lifespan

    @asynccontextmanager
    async def lifespan(app: Server[Any]) -> AsyncIterator[Any]:
        async with own(app) as state:
            nobody: Any = None  # a listing at the start has no client to talk to
            ctx = ServerRequestContext(
                session=nobody,
                lifespan_context=state,
                protocol_version=LATEST_MODERN_VERSION,
                method="tools/list",
                params={},
            )
            tools.check_listed(await _listed(server, ctx))
            if (
                found := server.get_request_handler("tools/call")
            ) is None or found.handler is not call:
                raise ConfigError(
                    "server",
                    "another handler for tools/call",
                    "protect after every handler is registered",
                )
            async with tools.serving():
                yield state

    server.add_request_handler("tools/call", CallToolRequestParams, call)
    server.lifespan = lifespan
    server.middleware.insert(0, take_token)


async def _listed(server: Server[Any], ctx: ServerRequestContext[Any, Any]) -> list[Tool]:
    """Every tool that a low-level server lists now."""
    handler = server.get_request_handler("tools/list")
    found = list[Tool]()
    cursor = None
    for _ in range(_MAX_PAGES):
        page = (
            await handler.handler(ctx, PaginatedRequestParams(cursor=cursor))
            if handler
            else None
        )
        if not isinstance(page, ListToolsResult):
            raise ConfigError(
                "server", f"a listing that is {type(page).__name__}", "a ListToolsResult"
            )
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise ConfigError("server", "a listing without end", f"at most {_MAX_PAGES} pages")
