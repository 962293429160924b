"""Tool servers of any ASGI framework: one call token for each request, redeemed before the tool
runs.

`ToolServer` is whose tokens count here, `ToolServer.route` which request is which call,
`RedeemMiddleware` stands before an application. In a FastAPI or Starlette handler of your own:
`agentgate.integrations.fastapi`.
"""

from warnings import warn

from agentgate.errors import RequestRefused
from agentgate.integrations.asgi.middleware import RedeemMiddleware
from agentgate.integrations.asgi.server import PresentedCall, ToolRoute, ToolServer
from agentgate.integrations.asgi.sources import ArgumentSource, body, path, query

__all__ = [
    "ArgumentSource",
    "PresentedCall",
    "RedeemMiddleware",
    "RequestRefused",
    "ToolRoute",
    "ToolServer",
    "body",
    "path",
    "query",
]


def __getattr__(name: str) -> object:
    if name != "RequestRefusal":
        raise AttributeError(f"module 'agentgate.integrations.asgi' has no attribute {name!r}")
    warn(
        "RequestRefusal is called RequestRefused now, and goes with the next version",
        DeprecationWarning,
        stacklevel=2,
    )
    return RequestRefused
