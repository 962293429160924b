"""LangChain and LangGraph: `guard_tools` for any tool, `AgentGateMiddleware` for agents of
`create_agent`.

A guarded tool needs only langchain-core; the middleware, and `user_says` for it, need the extra
``[langchain]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentgate.integrations.langchain.arguments import definition_of
from agentgate.integrations.langchain.outcomes import CallOutcome, CallRefused, call_outcomes
from agentgate.integrations.langchain.tools import (
    call_token,
    guard_tools,
    idempotency_key,
    is_guarded,
    upstream_credential,
    use_run,
)

if TYPE_CHECKING:
    from agentgate.integrations.langchain.caller import user_says
    from agentgate.integrations.langchain.middleware import AgentGateMiddleware
    from agentgate.integrations.langchain.talking_on import aoffer_held, offer_held

__all__ = [
    "AgentGateMiddleware",
    "CallOutcome",
    "CallRefused",
    "aoffer_held",
    "call_outcomes",
    "call_token",
    "definition_of",
    "guard_tools",
    "idempotency_key",
    "is_guarded",
    "offer_held",
    "upstream_credential",
    "use_run",
    "user_says",
]


_OF_THE_EXTRA = {
    "AgentGateMiddleware": "middleware",
    "user_says": "caller",
    "offer_held": "talking_on",
    "aoffer_held": "talking_on",
}


def __getattr__(name: str) -> Any:
    if name not in _OF_THE_EXTRA:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_OF_THE_EXTRA[name]}"), name)
