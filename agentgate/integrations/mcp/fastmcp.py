"""FastMCP: ``FastMCP("shop", lifespan=redeem.lifespan, middleware=[redeem])`` with ``redeem = RedeemTools(tools)``.

Rules: at the start it becomes the last middleware, so that none follows that could change a call; where one is added later, calls are
refused. A version of a tool that the request picks is refused:
what was decided on is the tool as it is listed. A server that is mounted inside this one needs none of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastmcp import FastMCP
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from fastmcp.server.transforms import GetToolNext, Transform
from fastmcp.tools import Tool as ServerTool
from fastmcp.tools import ToolResult
from fastmcp.utilities.versions import VersionSpec
from mcp_types import CallToolRequestParams, Tool

from agentgate.errors import CallDenied, ConfigError
from agentgate.integrations.asgi.refused import RequestRefusal
from agentgate.integrations.mcp.carried import TAKEN, TakenToken, take_token
from agentgate.integrations.mcp.denial import denied
from agentgate.integrations.mcp.protected import ProtectedTools, check_error
from agentgate.values.refusal import Code


class RedeemTools(Middleware):
    """Runs the tools of a FastMCP server for a call token only."""

    def __init__(self, tools: ProtectedTools) -> None:
        self._tools, self._shield = tools, _Shield()

    @asynccontextmanager
    async def lifespan(self, app: FastMCP[Any]) -> AsyncIterator[dict[str, Any]]:
        """Checks the server's tools and opens the verifier; combine it with your own by ``|``.

        Raises:
            ConfigError: a tool that was not named, a server without this middleware, or with a cache of results.
        """
        if self not in app.middleware:
            raise ConfigError("middleware", "without RedeemTools", "FastMCP(..., middleware=[redeem])")
        for each in app.middleware:
            if isinstance(each, ResponseCachingMiddleware):
                raise ConfigError("middleware", type(each).__name__, "no cache of results: it would answer calls that nobody decided on")
        app.middleware.append(app.middleware.pop(app.middleware.index(self)))  # FastMCP adds its own after those it is given
        self._tools.check_listed(await _listed(app))
        wire = app._mcp_server.middleware  # noqa: SLF001 - the SDK's own list, which FastMCP does not hand out
        if take_token not in wire:
            wire.insert(0, take_token)
            app.add_transform(self._shield)
        async with self._tools.serving():
            yield {}

    async def on_call_tool(
        self, context: MiddlewareContext[CallToolRequestParams], call_next: CallNext[CallToolRequestParams, ToolResult]
    ) -> ToolResult:
        """Redeem, run, report."""
        message, around = context.message, context.fastmcp_context

        async def body(decided: dict[str, Any]) -> ToolResult:
            return await call_next(context.copy(message=message.model_copy(update={"arguments": decided})))

        async def listed() -> Iterable[Tool]:
            return [] if around is None else await _listed(around.fastmcp)

        taken = TAKEN.get()
        if (message.meta or {}).get("fastmcp"):  # the version that the request picks
            taken = TakenToken(None, RequestRefusal(403, "insufficient_scope", "_meta.fastmcp", "a version", "the tool as it is listed"))
        try:
            if around is not None:
                self._check_last(around.fastmcp)
            return await self._tools.run(message.name, message.arguments or {}, body, listed, taken)
        except ConfigError as error:
            self._tools.server.refused(RequestRefusal(503, "", error.setting, str(error.got), error.expected), tool=message.name)
            return ToolResult.from_mcp_result(denied(Code.UNAVAILABLE))
        except CallDenied as refused:
            return ToolResult.from_mcp_result(denied(Code(refused.code)))

    def _check_last(self, app: FastMCP[Any]) -> None:
        if app.middleware[-1] is not self:
            raise ConfigError("middleware", f"{type(app.middleware[-1]).__name__} as the last", "RedeemTools: add others before the start")


class _Shield(Transform):
    """FastMCP logs and traces what a tool raises before any middleware sees it: the upstream credential is looked for in the tool."""

    def __init__(self) -> None:
        self._kinds: dict[type[ServerTool], type[ServerTool]] = {}

    async def get_tool(self, name: str, call_next: GetToolNext, *, version: VersionSpec | None = None) -> ServerTool | None:
        """See `Transform`."""
        tool = await call_next(name, version=version)
        if tool is None:
            return None
        kind = type(tool)
        if kind not in self._kinds:
            self._kinds[kind] = type(kind.__name__, (_Checked, kind), {"KEY_PREFIX": kind.KEY_PREFIX})
        shielded = tool.model_copy()
        shielded.__class__ = self._kinds[kind]
        return shielded


class _Checked:
    """What is added to a tool."""

    async def _run(self, arguments: dict[str, Any]) -> ToolResult:
        inner: Any = super()
        try:
            result: ToolResult = await inner._run(arguments)  # noqa: SLF001 - the method of the tool's own class
        except Exception as error:
            check_error(error)
            raise
        return result


async def _listed(app: FastMCP[Any]) -> list[Tool]:
    """What the server lists now, as clients see it."""
    return [tool.to_mcp_tool() for tool in await app.list_tools()]
