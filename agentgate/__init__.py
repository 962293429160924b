"""agentgate decides whether a credential for an AI agent's tool call should exist at all.

Open a `Gate`, open a run for a user's prompt, perform each call the model proposes, or
authorise it and redeem its token with a `Verifier`.

Names are imported when they are first used (PEP 562), so that a tool server that only verifies
loads no policy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentgate.decision.answer import Allow, Deny, StepUp
    from agentgate.decision.batch_answer import Together
    from agentgate.errors import AgentGateError, Failure, NotDone, TokenRefused
    from agentgate.gate.gate import AsyncGate, Gate
    from agentgate.identity.connection import Connection
    from agentgate.identity.credential import JWTSVID, X509SVID, OIDCToken
    from agentgate.redemption.verifier import (
        AsyncRedeemedCall,
        AsyncVerifier,
        RedeemedCall,
        Verifier,
    )
    from agentgate.values.answers import JWSAnswer, SSHAnswer, WebAuthnAnswer
    from agentgate.values.refusal import AnswerRefused, Code, Reason, RunRefused
    from agentgate.values.request import Agent, Own, Pasted, User

_NAMES = {  # module -> what it gives
    "decision.answer": "Allow Deny StepUp",
    "decision.batch_answer": "Together",
    "errors": "AgentGateError Failure NotDone TokenRefused",
    "gate.gate": "AsyncGate Gate",
    "identity.connection": "Connection",
    "identity.credential": "JWTSVID OIDCToken X509SVID",
    "redemption.verifier": "AsyncRedeemedCall AsyncVerifier RedeemedCall Verifier",
    "values.answers": "JWSAnswer SSHAnswer WebAuthnAnswer",
    "values.refusal": "AnswerRefused Code Reason RunRefused",
    "values.request": "Agent Own Pasted User",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [
    "JWTSVID",
    "X509SVID",
    "Agent",
    "AgentGateError",
    "Allow",
    "AnswerRefused",
    "AsyncGate",
    "AsyncRedeemedCall",
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
    "RedeemedCall",
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
