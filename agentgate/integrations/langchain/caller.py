"""Who spoke: what the host vouches for with `user_says`, in the input that it passes to this
very `invoke`, `ainvoke` or `stream`.

Where an agent was invoked proves nothing: a tool that starts an agent in a thread, a pool or a
task of its own looks like a host. Nor does graph state: tools, models, summaries and other
middleware write human messages into it, and a checkpoint keeps them. So the proof is an object
of this process, the message itself, which counts once.

Rules: it counts for the nodes of the outermost graph, in whose input it is. The first run that
is given it takes it, of whatever kind; a graph, tool or Runnable inside another, which was
given its input by a node or a model, takes it for nothing. Its words are copied at that moment,
from what LangChain announces to callbacks: before a node has run, and before they are merged
with a checkpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any, cast
from uuid import UUID
from weakref import WeakValueDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, MessageLikeRepresentation, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook
from pydantic import BaseModel

from agentgate.errors import ConfigError
from agentgate.integrations.langchain.turns import Turns, turns_of

NOT_THE_CALLER = (
    "this agent runs inside another graph, tool or Runnable, so its input is "
    "not its user's; give the middleware prompt="
)
_DEPTH = 4  # of an input in which proofs are looked for

# id of the object -> a proof that no run has taken
_unused: WeakValueDictionary[int, HumanMessage] = WeakValueDictionary()


def user_says(message: MessageLikeRepresentation) -> HumanMessage:
    """The host's word that these are the user's own words, typed for this very invoke: it
    counts once, for the graph that is given it.

    Give it what the user sent, never what a model, a tool or a document says. A copy, or what a
    checkpoint or another process returns, proves nothing.

    Args:
        message: a text, or a human message in any form that LangChain takes.

    Raises:
        ConfigError: another message; or this is called inside a graph, tool or Runnable, where
            no user speaks.
    """
    if inside_a_run():
        raise ConfigError(
            "user_says",
            "a call inside a graph, tool or Runnable",
            "a call by the host; inside, give the middleware prompt=",
        )
    try:
        (said,) = convert_to_messages([message])
    except Exception as error:
        raise ConfigError(
            "message", type(message).__name__, "a text or a human message"
        ) from error
    if not isinstance(said, HumanMessage):
        raise ConfigError("message", type(said).__name__, "a text or a human message")
    # what becomes of the caller's blocks afterwards is not vouched for
    proof = said.model_copy(deep=True)
    _unused[id(proof)] = proof
    return proof


class CallerInput(BaseCallbackHandler):
    """Reads the input of the outermost graph. LangChain makes one for each outermost run and
    hands it on to all that runs inside.
    """

    run_inline = True  # in an async graph too; cheaper than a thread
    ignore_llm = ignore_chat_model = ignore_retriever = ignore_retry = ignore_custom_event = (
        True  # what no graph's start can be
    )

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
        """Take the proofs in the input; read the first input; remember which runs are nodes of
        that graph.
        """
        proofs = _taken(inputs) if _unused else {}
        if not self._outermost:
            self._turns = None if inside_a_run() else turns_of(inputs, proofs)
            self._outermost = run_id
            self._nodes = set()
        elif parent_run_id == self._outermost:
            self._nodes.add(run_id)

    def on_tool_start(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """What a tool invokes has no caller."""
        if not self._outermost:
            self._outermost = run_id

    @property
    def name(self) -> str:
        """That of the outermost run; empty: it has ended."""
        return str(self._outermost or "")

    def _ended(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """What a run left behind, such as a worker in its context, may be a host when it has
        ended.
        """
        if run_id == self._outermost:
            self._outermost = None
            self._turns = None

    on_chain_end = on_chain_error = on_tool_end = on_tool_error = _ended

    def turns(self, node: UUID | None) -> Turns | None:
        """The turns, for a node of the outermost graph; None for any other."""
        return self._turns if node in self._nodes else None


class _NewForEachRun:
    """In the place of a `ContextVar`: LangChain calls `get` wherever a run starts, and adds the
    answer if no `CallerInput` is there yet.
    """

    def get(self) -> CallerInput:
        return CallerInput()


def inside_a_run() -> bool:
    """Whether a run is around this code, as LangChain knows it: one that has not ended, or of
    which nothing more is known.
    """
    handlers = _around()
    return handlers is not None and (not handlers or any(each.name for each in handlers))


def name_invoke() -> str:
    """A name of the outermost run around this code, which no other invoke has."""
    return next(
        (each.name for each in _around() or () if each.name), ""
    ) or secrets.token_urlsafe(12)


def _around() -> list[CallerInput] | None:
    around = var_child_runnable_config.get()
    if around is None:
        return None
    return [
        each
        for each in getattr(around.get("callbacks"), "handlers", ())
        if isinstance(each, CallerInput)
    ]


register_configure_hook(
    cast("ContextVar[Any]", _NewForEachRun()), inheritable=True, handle_class=CallerInput
)


def callers_turns(config: RunnableConfig) -> Turns:
    """What is said in the input of the graph whose node runs with this config."""
    manager: Any = config.get("callbacks")
    for handler in getattr(manager, "handlers", ()):
        if isinstance(handler, CallerInput) and (turns := handler.turns(manager.parent_run_id)):
            return turns
    return Turns(uncounted=(NOT_THE_CALLER,))


def _taken(inputs: Any) -> dict[int, HumanMessage]:
    """The unused proofs anywhere in an input; from now on they are used."""
    return {
        key: proof
        for message in _messages_in(inputs, _DEPTH)
        if (proof := _unused.pop(key := id(message), None))
    }


def _messages_in(value: Any, depth: int) -> Iterator[HumanMessage]:
    if isinstance(value, HumanMessage):
        yield value
    elif depth and (
        isinstance(value, Mapping | list | tuple | BaseModel) or is_dataclass(value)
    ):
        inner = (
            value.values()
            if isinstance(value, Mapping)
            else value
            if isinstance(value, list | tuple)
            else _fields_of(value)
        )
        for each in inner:
            yield from _messages_in(each, depth - 1)


def _fields_of(value: Any) -> list[Any]:
    names = (
        type(value).model_fields
        if isinstance(value, BaseModel)
        else [field.name for field in fields(value)]
    )
    return [getattr(value, name, None) for name in names]
