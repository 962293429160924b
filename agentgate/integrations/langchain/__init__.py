"""LangChain and LangGraph: `guard_tools` for any tool, `AgentGateMiddleware` for agents of `create_agent`.

A guarded tool needs only langchain-core; the middleware, and `user_says` for it, need the extra ``[langchain]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentgate.integrations.langchain.arguments import definition_of
from agentgate.integrations.langchain.outcomes import CallOutcome, CallRefused, call_outcomes
from agentgate.integrations.langchain.tools import call_token, guard_tools, idempotency_key, is_guarded, upstream_credential, use_run

if TYPE_CHECKING:
    from agentgate.integrations.langchain.caller import user_says
    from agentgate.integrations.langchain.middleware import AgentGateMiddleware

__all__ = [
    "AgentGateMiddleware",
    "CallOutcome",
    "CallRefused",
    "call_outcomes",
    "call_token",
    "definition_of",
    "guard_tools",
    "idempotency_key",
    "is_guarded",
    "upstream_credential",
    "use_run",
    "user_says",
]


def __getattr__(name: str) -> Any:
    if name == "AgentGateMiddleware":
        from agentgate.integrations.langchain.middleware import AgentGateMiddleware  # noqa: PLC0415 - needs the extra [langchain]

        return AgentGateMiddleware
    if name == "user_says":
        from agentgate.integrations.langchain.caller import user_says  # noqa: PLC0415 - as above

        return user_says
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
