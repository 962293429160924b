"""FastMCP: ``FastMCP("shop", lifespan=redeem.lifespan, middleware=[redeem])`` with ``redeem =
RedeemTools(tools)``.

Rules: at the start it becomes the last middleware, so that none follows that could change a
call; where one is added later, calls are refused. A function is called with the decided values,
on a mounted server too: FastMCP validates them once more, and strictly. A version of a tool
that the request picks is refused: what was decided on is the tool as it is listed. A server
that is mounted inside this one needs no middleware of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from fastmcp import FastMCP
from fastmcp.server.dependencies import without_injected_parameters
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from fastmcp.server.providers import FastMCPProvider
from fastmcp.server.transforms import GetToolNext, Transform
from fastmcp.tools import FunctionTool, ToolResult
from fastmcp.tools import Tool as ServerTool
from fastmcp.utilities.versions import VersionSpec
from mcp.server.mcpserver.utilities.func_metadata import func_metadata
from mcp_types import CallToolRequestParams, Tool
from pydantic import BaseModel

from agentgate.errors import CallDenied, ConfigError, RequestRefused
from agentgate.integrations.mcp.carried import denied, take_token
from agentgate.integrations.mcp.protected import (
    ProtectedTools,
    check_error,
    check_signature,
    decided_values,
)
from agentgate.values.refusal import Code


class RedeemTools(Middleware):
    """Runs the tools of a FastMCP server for a call token only."""

    def __init__(self, tools: ProtectedTools) -> None:
        self._tools = tools
        self._shield = _Shield()

    @asynccontextmanager
    async def lifespan(self, app: FastMCP[Any]) -> AsyncIterator[dict[str, Any]]:
        """Checks the server's tools and opens the verifier; combine it with your own by ``|``.

        Raises:
            ConfigError: a tool that was not named, a server without this middleware, or with a
                cache of results.
        """
        if self not in app.middleware:
            raise ConfigError(
                "middleware", "without RedeemTools", "FastMCP(..., middleware=[redeem])"
            )
        for each in app.middleware:
            if isinstance(each, ResponseCachingMiddleware):
                raise ConfigError(
                    "middleware",
                    type(each).__name__,
                    "no cache of results: it would answer calls that nobody decided on",
                )
        # FastMCP adds its own after those it is given
        app.middleware.append(app.middleware.pop(app.middleware.index(self)))
        self._tools.check_listed(await _listed(app))
        for server in _servers(app):
            server.strict_input_validation = True
            for tool in await server.list_tools():
                if isinstance(tool, FunctionTool):
                    check_signature(tool.name, _arguments_of(tool))
            if self._shield not in server.transforms:
                server.add_transform(self._shield)
        wire = app._mcp_server.middleware  # noqa: SLF001 - the SDK's own list, which FastMCP does not hand out
        if take_token not in wire:
            wire.insert(0, take_token)
        async with self._tools.serving():
            yield {}

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Redeem, run, report."""
        message = context.message
        around = context.fastmcp_context

        async def body(decided: dict[str, Any]) -> ToolResult:
            return await call_next(
                context.copy(message=message.model_copy(update={"arguments": decided}))
            )

        async def listed() -> Iterable[Tool]:
            return await _listed(around.fastmcp) if around else []

        try:
            if around:
                self._check_last(around.fastmcp)
            return await self._tools.run(message.name, message.arguments or {}, body, listed)
        except ConfigError as error:
            self._tools.server.refused(
                RequestRefused(503, "", "", *error.failures), tool=message.name
            )
            return ToolResult.from_mcp_result(denied(Code.UNAVAILABLE))
        except CallDenied as refused:
            return ToolResult.from_mcp_result(denied(Code(refused.code)))

    def _check_last(self, app: FastMCP[Any]) -> None:
        if app.middleware[-1] is not self:
            raise ConfigError(
                "middleware",
                f"{type(app.middleware[-1]).__name__} as the last",
                "RedeemTools: add others before the start",
            )


class _Shield(Transform):
    """FastMCP logs and traces what a tool raises before any middleware sees it: the upstream
    credential is looked for in the tool.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[type[ServerTool], Any], type[ServerTool]] = {}

    async def get_tool(
        self, name: str, call_next: GetToolNext, *, version: VersionSpec | None = None
    ) -> ServerTool | None:
        """See `Transform`."""
        tool = await call_next(name, version=version)
        if not tool:
            return None
        kind = type(tool)
        function = tool.fn if isinstance(tool, FunctionTool) else None
        if (kind, function) not in self._kinds:
            made: Any = type(kind.__name__, (_Checked, kind), {"KEY_PREFIX": kind.KEY_PREFIX})
            made.taken_model = _arguments_of(tool) if isinstance(tool, FunctionTool) else None
            self._kinds[kind, function] = made
        shielded = tool.model_copy()
        shielded.__class__ = self._kinds[kind, function]
        return shielded


class _Checked:
    """What is added to a tool. `taken_model`: what its function takes; None: it is no
    function.
    """

    taken_model: ClassVar[type[BaseModel] | None] = None

    async def _run(self, arguments: dict[str, Any]) -> ToolResult:
        inner: Any = super()
        if self.taken_model:
            decided_values(self.taken_model, arguments)
        try:
            result: ToolResult = await inner._run(arguments)  # noqa: SLF001 - the method of the tool's own class
        except Exception as error:
            check_error(error)
            raise
        return result


def _arguments_of(tool: FunctionTool) -> type[BaseModel]:
    """The model of what a tool's function takes from a call."""
    return func_metadata(
        without_injected_parameters(tool.fn), structured_output=False
    ).arg_model


def _servers(app: FastMCP[Any]) -> Iterator[FastMCP[Any]]:
    """A server and those that are mounted in it: each validates what its own tools take."""
    yield app
    for provider in app.providers:
        source: Any = provider
        while hasattr(source, "_inner"):
            source = source._inner  # noqa: SLF001 - what a transform is put around, which FastMCP does not hand out
        if isinstance(source, FastMCPProvider):
            yield from _servers(source.server)


async def _listed(app: FastMCP[Any]) -> list[Tool]:
    """What the server lists now, as clients see it."""
    return [tool.to_mcp_tool() for tool in await app.list_tools()]
