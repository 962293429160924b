"""What a tool writes into graph state is no user's: its human messages are marked as added by
the harness.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langchain_core.messages import add_notification_metadata, convert_to_messages
from langgraph.types import Command, Overwrite

from agentgate.errors import ConfigError
from agentgate.integrations.langchain.turns import is_human


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
