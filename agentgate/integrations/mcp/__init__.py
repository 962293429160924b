"""MCP: tools that run for a call token only, and a client whose every call carries one.

A server: `ProtectedTools` says which tools there are; `GatedMCPServer` or `protect` (official
SDK) or `agentgate.integrations.mcp.fastmcp.RedeemTools` (FastMCP, extra ``[fastmcp]``) puts
them behind it. A client: `GatedClient`.
"""

from agentgate.integrations.mcp.carried import DENIAL
from agentgate.integrations.mcp.client import GatedClient
from agentgate.integrations.mcp.official import GatedMCPServer, protect
from agentgate.integrations.mcp.protected import ProtectedTools, definition_of, redeemed_call
from agentgate.integrations.mcp.tokens import ExchangeTokens

__all__ = [
    "DENIAL",
    "ExchangeTokens",
    "GatedClient",
    "GatedMCPServer",
    "ProtectedTools",
    "definition_of",
    "protect",
    "redeemed_call",
]
