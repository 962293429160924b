"""A held call as the host is told of it: LangGraph's interrupt, or an error outside of a graph.
The model is told nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextvars import copy_context
from typing import Any

from agentgate.decision.answer import StepUp
from agentgate.decision.batch_answer import MOST
from agentgate.decision.hold import as_json
from agentgate.errors import ConfigError, StepUpRequired
from agentgate.integrations.langchain.outcomes import add_held
from agentgate.integrations.langchain.task import TaskCall, Wait
from agentgate.values.visible import visible


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception is LangGraph's, on its way to interrupt the graph."""
    module = sys.modules.get("langgraph.errors")
    return module is not None and isinstance(error, module.GraphBubbleUp)


def asks(decision: StepUp, tool: str) -> dict[str, Any]:
    """What a host shows to whom it asks, as JSON values; it is checkpointed, so sensitive
    values are masked in it.

    Keys: `type`, `hold` (its id), `code`, `tool`, `whom` (who may answer), `text` (the question
    as the gate renders it), `question` (the same as values: arguments with their origins, the
    user's words, rules, limits), `deadline` (POSIX seconds), `run`, `tenant`.
    """
    hold = decision.hold
    question = decision.hold.question
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


class HeldInThread(BaseException):
    """A held call gives its thread back before it waits for the others of its step, who may
    need it.

    Attributes:
        asking: the steps of `ask_person`, for the event loop.
    """

    def __init__(self, asking: Generator[Wait, bool, None]) -> None:
        self.asking = asking


def ask_person(
    decision: StepUp, run: Any, tool: str, call: TaskCall
) -> Generator[Wait, bool, None]:
    """Interrupt the graph, once for all held calls of its step; what it is resumed with answers
    none of them.

    Raises:
        GraphInterrupt: inside a LangGraph graph, with `asks`; for several calls with `type`
            agentgate.questions, `run`, `tenant` and `questions`, `asks` of each, up to ten. It
            is of one task; in those of other tasks is nothing.
        ConfigError: the graph was resumed with something else than an answer for each of
            several.
        StepUpRequired: outside of a graph, with `asks`.
    """
    add_held(decision.hold, decision.failures)
    asked = asks(decision, tool)
    if (step := call.step) is None:
        raise _interruption([asked]) or StepUpRequired(decision.hold.id, asked, run)
    step.held[call] = asked, copy_context()
    yield from call.alone()
    with step.lock:
        if step.error is None:
            # LangGraph begins tasks in the order of their places: at each resume the first that
            # is left asks, so that none keeps an interrupt that no call waits for
            first = min(step.held, key=lambda each: (each.place, each.tool_call_id))
            step.task, (_, context) = first.task, step.held[first]
            waiting = {asked["hold"]: asked for asked, _ in step.held.values()}
            step.error = context.run(
                _interruption, [waiting[hold] for hold in sorted(waiting)[:MOST]]
            )
        if step.error is not None and call.task != step.task:
            from langgraph.errors import GraphInterrupt  # noqa: PLC0415 - langgraph is an extra

            raise GraphInterrupt
    raise step.error or StepUpRequired(decision.hold.id, asked, run)


def _interruption(questions: list[dict[str, Any]]) -> BaseException | None:
    """What interrupts the graph to ask this; None: there is no graph."""
    try:
        from langgraph.errors import GraphBubbleUp  # noqa: PLC0415 - langgraph is an extra
        from langgraph.types import interrupt  # noqa: PLC0415

        payload = questions[0]
        if several := len(questions) > 1:
            payload = {
                "type": "agentgate.questions",
                "run": payload["run"],
                "tenant": payload["tenant"],
                "questions": questions,
            }
        while True:
            resumed = interrupt(payload)
            if several and not (
                isinstance(resumed, dict)
                and all(answer in ("release", "refuse") for answer in resumed.values())
            ):
                # of LangGraph's kind, so that no error handling of a node's makes it a message
                # for the model
                refused = type("ResumeRefused", (ConfigError, GraphBubbleUp), {})
                ids = ", ".join([question["hold"] for question in questions])
                raise refused(
                    "resume",
                    visible(resumed, 200),
                    f"a mapping from the id of each hold to its own answer, release or refuse: {ids}",
                )
    except (ImportError, KeyError, RuntimeError):  # what langgraph raises outside of a graph
        return None
    except GraphBubbleUp as error:
        return error
