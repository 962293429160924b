"""Tool servers of any ASGI framework: one call token for each request, redeemed before the tool runs.

`ToolServer` is whose tokens count here, `ToolServer.route` which request is which call, `RedeemMiddleware` stands before an
application. In a FastAPI or Starlette handler of your own: `agentgate.integrations.fastapi`.
"""

from agentgate.integrations.asgi.middleware import RedeemMiddleware
from agentgate.integrations.asgi.refused import RequestRefusal
from agentgate.integrations.asgi.server import PresentedCall, ToolRoute, ToolServer
from agentgate.integrations.asgi.sources import ArgumentSource, body, path, query

__all__ = ["ArgumentSource", "PresentedCall", "RedeemMiddleware", "RequestRefusal", "ToolRoute", "ToolServer", "body", "path", "query"]
