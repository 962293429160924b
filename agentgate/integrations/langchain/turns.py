"""Who spoke: what the host vouches for with `user_says`, in the input that it passes to this very `invoke`, `ainvoke` or `stream`.

Where an agent was invoked proves nothing: a tool that starts an agent in a thread, a pool or a task of its own looks like a host. Nor does
graph state: tools, models, summaries and other middleware write human messages into it, and a checkpoint keeps them. So the proof is an
object of this process, the message itself, which counts once.

Rules: it counts for the nodes of the outermost graph, in whose input it is. The first run that is given it takes it, of whatever kind, and
a graph, tool or Runnable inside another, which was given its input by a node or a model, takes it for nothing. Its words are copied at that
moment, from what LangChain announces to callbacks: before a node has run, and before they are merged with a checkpoint. Of its content
blocks only plain text counts.

Whatever else stands in a human message may be the user's: it grants nothing, and what it would take back is unclear (`Run.add_doubt`).
Except for what the harness marks as its own (`lc_source`, as summaries have): that is known to be nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast
from uuid import UUID
from weakref import WeakValueDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AnyMessage,
    HumanMessage,
    MessageLikeRepresentation,
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
from pydantic import BaseModel

from agentgate.errors import ConfigError

NOT_THE_CALLER = "this agent runs inside another graph, tool or Runnable, so its input is not its user's; give the middleware prompt="
NO_PROOF = (
    "a human message that nobody vouches for: if it is the user's, pass user_says(text) in its place, a new one to each invoke: "
    'agent.invoke({"messages": user_says(text)}, ...), from agentgate.integrations.langchain import user_says; '
    "where you do not call invoke yourself, give the middleware prompt="
)
NO_MESSAGES = "the input of this invoke holds no messages"
NOTHING_NEW = "the newest message of the input is not the user's"
UNREADABLE = "the input's messages are not a list of messages"
NO_PLAIN_TEXT = "a human message without plain text"
REMOVED = "a human message that the same input removes"
MAX_DOUBTFUL = 20  # messages of one invoke that are read one by one; more are as one that cannot be read
_PLAIN_TEXT = frozenset({"type", "text", "id", "index", "cache_control"})  # keys of a text block that quotes nothing
_DEPTH = 4  # of an input in which proofs are looked for

_unused: WeakValueDictionary[int, HumanMessage] = WeakValueDictionary()  # id of the object -> a proof that no run has taken


def user_says(message: MessageLikeRepresentation) -> HumanMessage:
    """The host's word that these are the user's own words, typed for this very invoke: it counts once, for the graph that is given it.

    Give it what the user sent, never what a model, a tool or a document says. A copy, or what a checkpoint or another process returns,
    proves nothing.

    Args:
        message: a text, or a human message in any form that LangChain takes.

    Raises:
        ConfigError: another message; or this is called inside a graph, tool or Runnable, where no user speaks.
    """
    if inside_a_run():
        raise ConfigError("user_says", "a call inside a graph, tool or Runnable", "a call by the host; inside, give the middleware prompt=")
    try:
        (said,) = convert_to_messages([message])
    except Exception as error:
        raise ConfigError("message", type(message).__name__, "a text or a human message") from error
    if not isinstance(said, HumanMessage):
        raise ConfigError("message", type(said).__name__, "a text or a human message")
    proof = said.model_copy() if said is message else said
    _unused[id(proof)] = proof
    return proof


@dataclass(frozen=True, slots=True)
class Said:
    """One human message.

    Attributes:
        texts: everything in it that may be the user's words.
        own: those that are, by the host's word.
        earlier: a message of another kind is behind it in the same input.
    """

    texts: tuple[str, ...]
    own: tuple[str, ...] = ()
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Turns:
    """What is said in one input, message by message; and why something in it, or all of it, does not count, for the log."""

    said: tuple[Said, ...] = ()
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
        """Take the proofs in the input; read the first input; remember which runs are nodes of that graph."""
        proofs = _taken(inputs) if _unused else {}
        if self._outermost is None:
            self._turns = None if inside_a_run() else _turns_of(inputs, proofs)
            self._outermost, self._nodes = run_id, set()
        elif parent_run_id == self._outermost:
            self._nodes.add(run_id)

    def on_tool_start(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """What a tool invokes has no caller."""
        if self._outermost is None:
            self._outermost = run_id

    @property
    def running(self) -> bool:
        """Whether the outermost run has not ended."""
        return self._outermost is not None

    def _ended(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """What a run left behind, such as a worker in its context, may be a host when it has ended."""
        if run_id == self._outermost:
            self._outermost, self._turns = None, None

    on_chain_end = on_chain_error = on_tool_end = on_tool_error = _ended

    def turns(self, node: UUID | None) -> Turns | None:
        """The turns, for a node of the outermost graph; None for any other."""
        return self._turns if node in self._nodes else None


class _NewForEachRun:
    """In the place of a `ContextVar`: LangChain calls `get` wherever a run starts, and adds the answer if no `CallerInput` is there yet."""

    def get(self) -> CallerInput:
        return CallerInput()


def inside_a_run() -> bool:
    """Whether a run is around this code, as LangChain knows it: one that has not ended, or of which nothing more is known."""
    around = var_child_runnable_config.get()
    handlers = [each for each in getattr((around or {}).get("callbacks"), "handlers", ()) if isinstance(each, CallerInput)]
    return around is not None and (not handlers or any(each.running for each in handlers))


register_configure_hook(cast("ContextVar[Any]", _NewForEachRun()), inheritable=True, handle_class=CallerInput)


def callers_turns(config: RunnableConfig) -> Turns:
    """What is said in the input of the graph whose node runs with this config."""
    manager: Any = config.get("callbacks")
    for handler in getattr(manager, "handlers", ()):
        if isinstance(handler, CallerInput) and (turns := handler.turns(manager.parent_run_id)) is not None:
            return turns
    return Turns(uncounted=(NOT_THE_CALLER,))


def last_human(messages: Iterable[Any]) -> str:
    """The id of the last human message; empty: there is none."""
    return next((str(message.id) for message in reversed(list(messages)) if isinstance(message, HumanMessage)), "")


def newer_than(messages: Iterable[Any], known: str) -> list[HumanMessage]:
    """The human messages of graph state behind the one of this id, or all; without those that the harness marks as its own."""
    found: list[HumanMessage] = []
    for message in messages:
        if isinstance(message, HumanMessage) and get_notification_metadata(message) is None:
            found.append(message)
        if known and getattr(message, "id", None) == known:
            found = []
    return found


def in_order(said: Iterable[Said], state: Iterable[HumanMessage]) -> list[Said]:
    """What is said in an input and what else new human messages of graph state hold, in the order of that state.

    Where it cannot be told, the input comes first: what may be a no takes back what is asked for before it.
    """
    found: list[Said] = []
    rest = [texts_of(message) for message in state]
    for each in said:
        if each.texts in rest:
            at = rest.index(each.texts)
            found += map(Said, rest[:at])
            rest = rest[at + 1 :]
        found.append(each)
    return [*found, *map(Said, rest)]


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


def _taken(inputs: Any) -> dict[int, HumanMessage]:
    """The unused proofs anywhere in an input; from now on they are used."""
    return {key: proof for message in _messages_in(inputs, _DEPTH) if (proof := _unused.pop(key := id(message), None)) is not None}


def _messages_in(value: Any, depth: int) -> Iterator[HumanMessage]:
    if isinstance(value, HumanMessage):
        yield value
    elif depth and (isinstance(value, Mapping | list | tuple | BaseModel) or is_dataclass(value)):
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else _fields_of(value)
        for each in inner:
            yield from _messages_in(each, depth - 1)


def _fields_of(value: Any) -> list[Any]:
    names = type(value).model_fields if isinstance(value, BaseModel) else [field.name for field in fields(value)]
    return [getattr(value, name, None) for name in names]


def _turns_of(inputs: Any, proofs: dict[int, HumanMessage]) -> Turns:
    value = inputs.get("messages") if isinstance(inputs, dict) else None
    if value is None:
        return Turns(uncounted=(NO_MESSAGES,))
    try:
        messages = convert_to_messages(value if isinstance(value, list) else [value])  # as the channel reads them
    except Exception:  # noqa: BLE001 - any outermost Runnable's input comes here, not only an agent's; unreadable counts nothing
        return Turns(uncounted=(UNREADABLE,))
    removed = {message.id for message in messages if isinstance(message, RemoveMessage)}
    said: list[Said] = []
    uncounted: list[str] = []
    for message in messages:
        if isinstance(message, RemoveMessage):
            if message.id == REMOVE_ALL_MESSAGES:
                said = [replace(each, own=()) for each in said]
        elif not isinstance(message, HumanMessage):
            said = [replace(each, earlier=True) for each in said]
        elif get_notification_metadata(message) is None:
            reason = _why_uncounted(message, proofs, removed)
            uncounted += [reason] if reason else []
            said.append(Said(texts_of(message), () if reason else tuple(_plain_text(message))))
    if not uncounted and not any(each.own and not each.earlier for each in said):
        uncounted.append(NOTHING_NEW)
    return Turns(tuple(said), tuple(dict.fromkeys(uncounted)))


def _why_uncounted(message: HumanMessage, proofs: dict[int, HumanMessage], removed: set[str | None]) -> str:
    """Why a human message is not the user's own; empty if it is."""
    if proofs.pop(id(message), None) is not message:
        return NO_PROOF
    if message.id is not None and message.id in removed:
        return REMOVED
    return "" if any(_plain_text(message)) else NO_PLAIN_TEXT


def texts_of(message: AnyMessage) -> tuple[str, ...]:
    """All text of a message: its own, and that of its blocks; what a file holds is none."""
    texts = [block if isinstance(block, str) else block.get("text") for block in _blocks_of(message)]
    return tuple([text for text in texts if isinstance(text, str) and text.strip()])


def _blocks_of(message: AnyMessage) -> list[Any]:
    return [message.content] if isinstance(message.content, str) else message.content


def _plain_text(message: HumanMessage) -> Iterator[str]:
    """The text and the blocks of plain text; a block with a source, citations or another type is not what the user typed."""
    for block in _blocks_of(message):
        if isinstance(block, str):
            yield block
        elif block.get("type") == "text" and isinstance(block.get("text"), str) and {k for k, v in block.items() if v} <= _PLAIN_TEXT:
            yield block["text"]
