"""agentgate decides whether a credential for an AI agent's tool call should exist at all.

Open a `Gate`, open a run for a user's prompt, authorise each call the model proposes; redeem the token with a `Verifier`.

Names are imported when they are first used (PEP 562), so that a tool server that only verifies loads no policy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentgate.decision.answer import Allow, Deny, StepUp
    from agentgate.decision.together import Together
    from agentgate.errors import AgentGateError, NotDone, TokenRefused
    from agentgate.gate.gate import AsyncGate, Gate
    from agentgate.identity.connection import Connection
    from agentgate.identity.credential import JWTSVID, X509SVID, OIDCToken
    from agentgate.redemption.verifier import AsyncVerifier, Verifier
    from agentgate.values.answers import JWSAnswer, SSHAnswer, WebAuthnAnswer
    from agentgate.values.refusal import AnswerRefused, Code, Failure, Reason, RunRefused
    from agentgate.values.request import Agent, User
    from agentgate.values.turns import Own, Pasted

_HOMES = {
    "Agent": "values.request",
    "AgentGateError": "errors",
    "Allow": "decision.answer",
    "AnswerRefused": "values.refusal",
    "AsyncGate": "gate.gate",
    "AsyncVerifier": "redemption.verifier",
    "Code": "values.refusal",
    "Connection": "identity.connection",
    "Deny": "decision.answer",
    "Failure": "values.refusal",
    "Gate": "gate.gate",
    "JWTSVID": "identity.credential",
    "JWSAnswer": "values.answers",
    "NotDone": "errors",
    "SSHAnswer": "values.answers",
    "OIDCToken": "identity.credential",
    "Own": "values.turns",
    "Pasted": "values.turns",
    "Reason": "values.refusal",
    "RunRefused": "values.refusal",
    "StepUp": "decision.answer",
    "Together": "decision.together",
    "TokenRefused": "errors",
    "User": "values.request",
    "Verifier": "redemption.verifier",
    "WebAuthnAnswer": "values.answers",
    "X509SVID": "identity.credential",
}

__all__ = [
    "JWTSVID",
    "X509SVID",
    "Agent",
    "AgentGateError",
    "Allow",
    "AnswerRefused",
    "AsyncGate",
    "AsyncVerifier",
    "Code",
    "Connection",
    "Deny",
    "Failure",
    "Gate",
    "JWSAnswer",
    "NotDone",
    "OIDCToken",
    "Own",
    "Pasted",
    "Reason",
    "RunRefused",
    "SSHAnswer",
    "StepUp",
    "Together",
    "TokenRefused",
    "User",
    "Verifier",
    "WebAuthnAnswer",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentgate' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"agentgate.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
