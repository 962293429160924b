"""Who spoke: the user's turns in the input that the caller passed to this very `invoke`, `ainvoke` or `stream`.

Graph state cannot tell: tools, models, summaries and other middleware write human messages into it too, and a checkpoint keeps them. So the
input is read where LangChain announces it to callbacks: `on_chain_start` of the graph receives exactly what the caller passed, before a
node has run and before it is merged with a checkpoint.

Rules: the words are copied at that moment. They count only for the nodes of the outermost graph: a graph that runs inside another graph,
tool or Runnable was given its input by a node or a model. (One that a tool invokes in a thread without its context looks like a caller's.)
A human message counts unless it has a name (another agent's), a mark that the harness added it (`lc_source`, as summaries have), or is
removed by the same input; of its content blocks only plain text counts. What cannot be read counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    HumanMessage,
    RemoveMessage,
    add_notification_metadata,
    convert_to_messages,
    get_notification_metadata,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, Overwrite

from agentgate.errors import ConfigError

NOT_THE_CALLER = "the input came from another graph, tool or Runnable around this agent, not from its caller; give the middleware prompt="
NO_MESSAGES = "the input of this invoke holds no messages"
NOTHING_NEW = "the newest message of the input is not the user's"
UNREADABLE = "the input's messages are not a list of messages"
_PLAIN_TEXT = frozenset({"type", "text", "id", "index", "cache_control"})  # keys of a text block that quotes nothing


@dataclass(frozen=True, slots=True)
class Turns:
    """What the user said in one input, each message a turn, in order.

    Attributes:
        newest: after the last message that is not the user's.
        earlier: before it, as in the transcript that a stateless caller passes.
        uncounted: why something in the input, or all of it, does not count; for the log.
    """

    newest: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()


class CallerInput(BaseCallbackHandler):
    """Reads the input of the outermost graph. LangChain makes one for each outermost run and hands it on to all that runs inside."""

    run_inline = True  # in an async graph too; cheaper than a thread
    ignore_llm = ignore_chat_model = ignore_retriever = ignore_retry = ignore_custom_event = True  # what no graph's start can be

    def __init__(self) -> None:
        self._outermost: UUID | None = None
        self._nodes: set[UUID] = set()
        self._turns: Turns | None = None

    def on_chain_start(
        self,
        serialized: Any,  # noqa: ARG002 - the base class names it
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **_: Any,
    ) -> None:
        """Read the first input; remember which runs are nodes of that graph."""
        if self._outermost is None:
            self._outermost = run_id
            if var_child_runnable_config.get() is None:  # set inside every node, tool and Runnable
                self._turns = _turns_of(inputs)
        elif parent_run_id == self._outermost:
            self._nodes.add(run_id)

    def on_tool_start(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """What a tool invokes has no caller."""
        if self._outermost is None:
            self._outermost = run_id

    def turns(self, node: UUID | None) -> Turns | None:
        """The turns, for a node of the outermost graph; None for any other."""
        return self._turns if node in self._nodes else None


class _NewForEachRun:
    """In the place of a `ContextVar`: LangChain calls `get` wherever a run starts, and adds the answer if no `CallerInput` is there yet."""

    def get(self) -> CallerInput:
        return CallerInput()


register_configure_hook(cast("ContextVar[Any]", _NewForEachRun()), inheritable=True, handle_class=CallerInput)


def callers_turns(config: RunnableConfig) -> Turns:
    """The user's turns in the input of the graph whose node runs with this config."""
    manager: Any = config.get("callbacks")
    for handler in getattr(manager, "handlers", ()):
        if isinstance(handler, CallerInput) and (turns := handler.turns(manager.parent_run_id)) is not None:
            return turns
    return Turns(uncounted=(NOT_THE_CALLER,))


def marked_as_written(result: Any) -> Any:
    """A tool's result whose human messages are marked as no user's.

    A stateless caller passes what an invoke returned as part of its next input; the mark tells them from the user's own.

    Raises:
        ConfigError: the result updates graph state in a form in which a human message would not be found.
    """
    if isinstance(result, list):
        return [marked_as_written(one) for one in result]
    if not isinstance(result, Command) or result.update is None:
        return result
    if not isinstance(result.update, dict):  # LangGraph also takes pairs and annotated objects
        raise ConfigError("Command.update", type(result.update).__name__, "a dict of what the tool changes in graph state")
    if "messages" not in result.update:
        return result
    return replace(result, update={**result.update, "messages": _marked(result.update["messages"])})


def _marked(written: Any) -> Any:
    """What an update writes into `messages`, its human messages with the mark."""
    if isinstance(written, Overwrite):
        return Overwrite(_marked(written.value))
    if isinstance(written, list):
        return [_one_marked(one) for one in written]
    return _one_marked(written)


def _one_marked(written: Any) -> Any:
    try:
        (message,) = convert_to_messages([written])
    except Exception as error:
        raise ConfigError("Command.update.messages", type(written).__name__, "messages, which `messages` can hold") from error
    return add_notification_metadata(message, source="tool") if isinstance(message, HumanMessage) else written


def _turns_of(inputs: Any) -> Turns:
    value = inputs.get("messages") if isinstance(inputs, dict) else None
    if value is None:
        return Turns(uncounted=(NO_MESSAGES,))
    try:
        messages = convert_to_messages(value if isinstance(value, list) else [value])  # as the channel reads them
    except Exception:  # noqa: BLE001 - any outermost Runnable's input comes here, not only an agent's; unreadable counts nothing
        return Turns(uncounted=(UNREADABLE,))
    removed = {message.id for message in messages if isinstance(message, RemoveMessage)}
    earlier: list[str] = []
    newest: list[str] = []
    uncounted: list[str] = []
    for message in messages:
        if isinstance(message, RemoveMessage):
            if message.id == REMOVE_ALL_MESSAGES:
                earlier, newest = [], []
        elif not isinstance(message, HumanMessage):
            earlier, newest = [*earlier, *newest], []
        elif reason := _not_the_users(message, removed):
            uncounted.append(reason)
        elif text := "\n".join(_plain_text(message)):
            newest.append(text)
        else:
            uncounted.append("a human message without plain text")
    if not newest and not uncounted:
        uncounted.append(NOTHING_NEW)
    return Turns(tuple(newest), tuple(earlier), tuple(uncounted))


def _not_the_users(message: HumanMessage, removed: set[str | None]) -> str:
    """Why a human message is not the user's own; empty if it is."""
    if message.name is not None:
        return "a human message with a name"
    if get_notification_metadata(message) is not None:
        return "a human message marked as added by the harness"
    return "a human message that the same input removes" if message.id in removed else ""


def _plain_text(message: HumanMessage) -> Iterator[str]:
    """The text and the blocks of plain text; a block with a source, citations or another type is not what the user typed."""
    for block in [message.content] if isinstance(message.content, str) else message.content:
        if isinstance(block, str):
            yield block
        elif block.get("type") == "text" and isinstance(block.get("text"), str) and {k for k, v in block.items() if v} <= _PLAIN_TEXT:
            yield block["text"]
