"""Held calls of a conversation that goes on: the model is told that they wait; once they are
answered, they are offered again.

An invoke with new words drops LangGraph's interrupt, and what other calls of that step
returned. The hold stays in the store, unless these words deny or change the act. So each call
that has no answer gets one, in its place: that it waits, for whom and until when. At the first
invoke after its answer (it may say nothing: ``{"messages": []}``) the very same call is made
again, in the same thread, by a message of its own, since a model's interface wants each id of a
call once; its id is the first one with an ending. The gate decides on it anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from langchain_core.messages import AIMessage, AnyMessage, RemoveMessage, ToolMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from agentgate.decision.hold import Hold
from agentgate.errors import AgentGateError, CallDenied
from agentgate.integrations.langchain.calls import RUN, Ask, Steps, adrive, attempt_of, drive
from agentgate.integrations.langchain.outcomes import add_held, until_of
from agentgate.values.refusal import Code
from agentgate.values.visible import visible

_log = structlog.get_logger("agentgate.langchain")
_WAITS = "agentgate.waits"


def offer_held(state: Mapping[str, Any], run: Any = None) -> Any:
    """A node in front of a model in a graph of one's own: an update of its `messages`, empty
    where no call is held.

    Where a call is made again, the last message is it, so the graph goes on to its tools
    (`langgraph.prebuilt.tools_condition`), else to its model. `run`: that of the tools; None:
    that of `use_run`.
    """
    return drive(offer_again(run or RUN.get(), state["messages"]))


async def aoffer_held(state: Mapping[str, Any], run: Any = None) -> Any:
    """As `offer_held`, for an `AsyncRun`."""
    return await adrive(offer_again(run or RUN.get(), state["messages"]))


def offer_again(run: Any, messages: Sequence[AnyMessage]) -> Steps:
    """The update of graph state that answers each held call, and makes those again whose hold
    was answered.
    """
    made = {
        attempt_of(call["id"])[0]: call for message in messages for call in _calls_of(message)
    }  # the newest attempt at each
    for message in messages:
        if isinstance(message, ToolMessage) and not _waits(message.artifact):
            made = {
                name: call for name, call in made.items() if call["id"] != message.tool_call_id
            }
    if run is None or not made:
        return {}
    try:
        holds: Mapping[str, Hold] = {hold.tool_call_id: hold for hold in (yield Ask(run.holds))}
    except AgentGateError as error:
        _log.warning("held_calls_unknown", run=run.id, reasons=[visible(error)[:2000]])
        return {}
    ran = {call.id for call in run.state.calls}
    told = dict[str, ToolMessage]()
    again = list[Any]()
    for name, call in made.items():
        hold = holds.get(name)
        if not hold and name not in ran:
            continue  # nobody was asked about it
        told[call["id"]] = _answer(call, hold)
        if hold and hold.state == "pending":
            add_held(hold)
        elif not hold or hold.state != "cancelled":
            again.append({**call, "id": f"{name}-again-{attempt_of(call['id'])[1] + 1}"})
    if not told:
        return {}
    rebuilt: list[Any] = [RemoveMessage(id=REMOVE_ALL_MESSAGES)]
    for message in messages:
        rebuilt += [message] if getattr(message, "tool_call_id", "") not in told else []
        rebuilt += [told[call["id"]] for call in _calls_of(message) if call["id"] in told]
    return {"messages": [*rebuilt, *([AIMessage("", tool_calls=again)] if again else [])]}


def made_again(messages: Sequence[AnyMessage]) -> AnyMessage | None:
    """The message that makes calls again, where it is the last one: no model has to be asked
    for the next.
    """
    return next(
        (
            each
            for each in messages[-1:]
            if any(attempt_of(call["id"])[1] for call in _calls_of(each))
        ),
        None,
    )


def _calls_of(message: AnyMessage) -> Sequence[Any]:
    return getattr(message, "tool_calls", ())


def _waits(artifact: Any) -> bool:
    return isinstance(artifact, dict) and artifact.get("type") == _WAITS


def _answer(call: Mapping[str, Any], hold: Hold | None) -> ToolMessage:
    """That a call waits; that it does no more, since the user took it back; or, where it is
    made again, only that it did.
    """
    said = str(CallDenied(Code.NEEDS_APPROVAL))
    artifact = {"type": "agentgate.refused", "code": str(Code.NEEDS_APPROVAL)}
    if hold:
        artifact |= {"hold": hold.id, "until": until_of(hold)}
        if hold.state == "pending":
            said += f" of: {hold.question.whom} until: {until_of(hold)}"
            artifact["type"] = _WAITS
        elif hold.state == "cancelled":
            said += " withdrawn"
    return ToolMessage(
        said, status="error", tool_call_id=call["id"], name=call["name"], artifact=artifact
    )
