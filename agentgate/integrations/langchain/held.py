"""A held call as the host is told of it: LangGraph's interrupt, or an error outside of a graph. The model is told nothing."""

from __future__ import annotations

import sys
from typing import Any

from agentgate.decision.answer import StepUp
from agentgate.decision.question import as_json
from agentgate.errors import StepUpRequired
from agentgate.integrations.langchain.outcomes import add_held


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception is LangGraph's, on its way to interrupt the graph."""
    module = sys.modules.get("langgraph.errors")
    return module is not None and isinstance(error, module.GraphBubbleUp)


def asks(decision: StepUp, tool: str) -> dict[str, Any]:
    """What a host shows to whom it asks, as JSON values; it is checkpointed, so sensitive values are masked in it.

    Keys: `type`, `hold` (its id), `code`, `tool`, `whom` (who may answer), `text` (the question as the gate renders it), `question` (the
    same as values: arguments with their origins, the user's words, rules, limits), `deadline` (POSIX seconds), `run`, `tenant`.
    """
    hold, question = decision.hold, decision.hold.question
    return {
        "type": "agentgate.confirm" if decision.confirm else "agentgate.step_up",
        "hold": hold.id,
        "code": str(decision.code),
        "tool": tool,
        "whom": question.whom,
        "text": str(question),
        "question": as_json(question),
        "deadline": hold.expires_at,
        "run": hold.run,
        "tenant": hold.tenant,
    }


def ask_person(decision: StepUp, run: Any, tool: str) -> None:
    """Interrupt the graph until it is resumed; the value it is resumed with is ignored.

    Raises:
        GraphInterrupt: inside a LangGraph graph, with `asks`.
        StepUpRequired: outside of one, with the same.
    """
    add_held(decision.hold, decision.failures)
    asked = asks(decision, tool)
    try:
        from langgraph.types import interrupt  # noqa: PLC0415 - langgraph is an extra

        interrupt(asked)
    except (ImportError, KeyError, RuntimeError):  # what langgraph raises outside of a graph
        raise StepUpRequired(decision.hold.id, asked, run) from None
