"""What is said in the input of an invoke and in graph state: the user's turns, and what may be
theirs.

Rules: of a message that the host vouches for (`caller`) only plain text counts. Whatever else
stands in a human message may be the user's: it grants nothing, and what it would take back is
unclear (`Run.add_doubt`). Except for what the harness marks as its own (`lc_source`, as
summaries have): that is known to be nobody's. What a tool writes into graph state is no user's
either: its human messages get that mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeGuard

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    add_notification_metadata,
    convert_to_messages,
    get_notification_metadata,
)
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, Overwrite

from agentgate.errors import ConfigError
from agentgate.values.canonical import digest
from agentgate.values.value_class import value_class

NO_PROOF = (
    "a human message that nobody vouches for: if it is the user's, pass user_says(text) in "
    "its place, a new one to each invoke: "
    'agent.invoke({"messages": user_says(text)}, ...), from agentgate.integrations.langchain '
    "import user_says; "
    "where you do not call invoke yourself, give the middleware prompt="
)
NO_MESSAGES = "the input of this invoke holds no messages"
NOTHING_NEW = "the newest message of the input is not the user's"
UNREADABLE = "the input's messages are not a list of messages"
NO_PLAIN_TEXT = "a human message without plain text"
REMOVED = "a human message that the same input removes"
# messages of one invoke that are read one by one; more are as one that cannot be read
MAX_DOUBTFUL = 20
# roles; others may be a user's
_NO_USERS = frozenset("assistant ai system developer tool function".split())
# keys of a text block that quotes nothing
_PLAIN_TEXT = frozenset({"type", "text", "id", "index", "cache_control"})


@value_class
class Utterance:
    """One human message.

    Attributes:
        texts: everything in it that may be the user's words.
        own: those that are, by the host's word.
        earlier: a message of another kind is behind it in the same input.
    """

    texts: tuple[str, ...]
    own: tuple[str, ...] = ()
    earlier: bool = False


@value_class
class Turns:
    """What is said in one input, message by message; and why something in it, or all of it,
    does not count, for the log.
    """

    said: tuple[Utterance, ...] = ()
    uncounted: tuple[str, ...] = ()


def is_human(message: Any) -> TypeGuard[HumanMessage]:
    """Whether a message may be a user's: a human one, or one of a role that is nobody
    else's.
    """
    return isinstance(message, HumanMessage) or (
        isinstance(message, ChatMessage) and message.role.lower() not in _NO_USERS
    )


def name_message(message: AnyMessage) -> str:
    """The id of a message with a digest of its text, which another of the same id may replace."""
    return f"{message.id} {digest(repr(texts_of(message)).encode())}"


def last_human(messages: Iterable[Any]) -> str:
    """The name of the last human message; empty: there is none."""
    return next(map(name_message, filter(is_human, reversed(list(messages)))), "")


def last_calls(state: Any) -> frozenset[str]:
    """The ids of the tool calls that the model made last."""
    messages = state.get("messages") or () if isinstance(state, dict) else ()
    made = next(
        (
            message.tool_calls
            for message in reversed(messages)
            if isinstance(message, AIMessage)
        ),
        (),
    )
    return frozenset(str(call["id"]) for call in made)


def said_before(messages: Iterable[Any]) -> str:
    """What the agent said before the last human message."""
    behind = iter(reversed(list(messages)))
    next((None for message in behind if is_human(message)), None)
    return next(
        (
            str(message.text)
            for message in behind
            if isinstance(message, AIMessage) and message.text
        ),
        "",
    )


def newer_than(messages: Iterable[Any], known: str) -> list[AnyMessage]:
    """The human messages of graph state behind the one of this name, or all; with it where its
    text is another now; without those that the harness marks as its own.
    """
    found: list[AnyMessage] = []
    for message in messages:
        counts = is_human(message) and get_notification_metadata(message) is None
        if known and getattr(message, "id", None) == known.rpartition(" ")[0]:
            found = []
            counts = counts and name_message(message) != known
        if counts:
            found.append(message)
    return found


def in_order(said: Iterable[Utterance], state: Iterable[AnyMessage]) -> list[Utterance]:
    """What is said in an input and what else new human messages of graph state hold, in the
    order of that state.

    Where it cannot be told, the input comes first: what may be a no takes back what is asked
    for before it.
    """
    found: list[Utterance] = []
    rest = [texts_of(message) for message in state]
    for each in said:
        if each.texts in rest:
            at = rest.index(each.texts)
            found += map(Utterance, rest[:at])
            rest = rest[at + 1 :]
        found.append(each)
    return [*found, *map(Utterance, rest)]


def turns_of(inputs: Any, proofs: dict[int, HumanMessage]) -> Turns:
    """What is said in an input, with these proofs, each of which counts once."""
    value = inputs.get("messages") if isinstance(inputs, dict) else None
    if value is None:
        return Turns(uncounted=(NO_MESSAGES,))
    try:
        # as the channel reads them
        messages = convert_to_messages(value if isinstance(value, list) else [value])
    except Exception:  # noqa: BLE001 - any outermost Runnable's input comes here, not only an agent's; unreadable counts nothing
        return Turns(uncounted=(UNREADABLE,))
    removed = {message.id for message in messages if isinstance(message, RemoveMessage)}
    said: list[Utterance] = []
    uncounted: list[str] = []
    for message in messages:
        if isinstance(message, RemoveMessage):
            if message.id == REMOVE_ALL_MESSAGES:
                said = [replace(each, own=()) for each in said]
        elif not is_human(message):
            said = [replace(each, earlier=True) for each in said]
        elif get_notification_metadata(message) is None:
            reason = _why_uncounted(message, proofs, removed)
            uncounted += [reason] if reason else []
            said.append(
                Utterance(texts_of(message), () if reason else tuple(_plain_text(message)))
            )
    if not uncounted and not any(each.own and not each.earlier for each in said):
        uncounted.append(NOTHING_NEW)
    return Turns(tuple(said), tuple(dict.fromkeys(uncounted)))


def _why_uncounted(
    message: HumanMessage, proofs: dict[int, HumanMessage], removed: set[str | None]
) -> str:
    """Why a human message is not the user's own; empty if it is."""
    if proofs.pop(id(message), None) is not message:
        return NO_PROOF
    if message.id is not None and message.id in removed:
        return REMOVED
    return "" if any(_plain_text(message)) else NO_PLAIN_TEXT


def texts_of(message: AnyMessage) -> tuple[str, ...]:
    """All text of a message: its own, and that of its blocks; what a file holds is none."""
    texts = [
        block if isinstance(block, str) else block.get("text") for block in _blocks_of(message)
    ]
    return tuple(text for text in texts if isinstance(text, str) and text.strip())


def _blocks_of(message: AnyMessage) -> list[Any]:
    return [message.content] if isinstance(message.content, str) else message.content


def _plain_text(message: HumanMessage) -> Iterator[str]:
    """The text and the blocks of plain text; a block with a source, citations or another type
    is not what the user typed.
    """
    for block in _blocks_of(message):
        if isinstance(block, str):
            yield block
        elif (
            block.get("type") == "text"
            and isinstance(block.get("text"), str)
            and {k for k, v in block.items() if v} <= _PLAIN_TEXT
        ):
            yield block["text"]


def words_of(
    said: Iterable[Utterance], heard: tuple[str, ...], *, history: bool
) -> list[tuple[bool, Any]]:
    """Turns (True) and words that may be the user's (False), in order.

    Args:
        said: what is said.
        heard: the turns of the run.
        history: whether earlier messages of the input count, too.
    """
    words: list[tuple[bool, Any]] = []
    earlier: tuple[Any, ...] = ()
    for each in said:
        turn = each.own[0] if len(each.own) == 1 else "\n".join(each.own)
        if each.own and each.earlier:
            earlier += (turn,)
            if heard[-len(earlier) :] == earlier:
                words = []  # a transcript that is passed again: the run heard it up to here
                continue
        counts = bool(each.own) and (history or not each.earlier)
        words += [(True, turn)] if counts else []
        words += [(False, text) for text in each.texts if not (counts and text in each.own)]
    doubtful = [n for n, (turn, _) in enumerate(words) if not turn]
    if len(doubtful) > MAX_DOUBTFUL:
        last = doubtful[-1]
        words = [*[each for each in words[:last] if each[0]], (False, ""), *words[last + 1 :]]
    return words


# --- what tools write -------------------------------------------------------------------------
def marked_as_written(result: Any) -> Any:
    """A tool's result whose human messages are marked as no user's.

    A stateless caller passes what an invoke returned as part of its next input; the mark tells
    them from the user's own.

    Raises:
        ConfigError: the result updates graph state in a form in which a human message would not
            be found.
    """
    if isinstance(result, list):
        return [marked_as_written(one) for one in result]
    if not isinstance(result, Command) or result.update is None:
        return result
    if not isinstance(result.update, dict):  # LangGraph also takes pairs and annotated objects
        raise ConfigError(
            "Command.update",
            type(result.update).__name__,
            "a dict of what the tool changes in graph state",
        )
    if "messages" not in result.update:
        return result
    return replace(
        result, update={**result.update, "messages": _marked(result.update["messages"])}
    )


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
        raise ConfigError(
            "Command.update.messages",
            type(written).__name__,
            "messages, which `messages` can hold",
        ) from error
    return add_notification_metadata(message, source="tool") if is_human(message) else written
