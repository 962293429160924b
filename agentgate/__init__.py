"""agentgate decides whether a credential for an AI agent's tool call should exist at all.

Open a `Gate`, open a run for a user's prompt, authorise each call the model proposes; redeem the token with a `Verifier`.
"""

from agentgate.decision import Allow, Code, Deny, Failure, Reason, StepUp
from agentgate.errors import AgentGateError, RunRefused, TokenRefused
from agentgate.gate import AsyncGate, Gate
from agentgate.request import Agent, User
from agentgate.verifier import AsyncVerifier, Verifier

__all__ = [
    "Agent",
    "AgentGateError",
    "Allow",
    "AsyncGate",
    "AsyncVerifier",
    "Code",
    "Deny",
    "Failure",
    "Gate",
    "Reason",
    "RunRefused",
    "StepUp",
    "TokenRefused",
    "User",
    "Verifier",
]
