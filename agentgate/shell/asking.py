"""How a thread of its own asks a store, whichever shell that store belongs to."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from agentgate.audit import AuditLog, FileAudit
from agentgate.audit.copies import store_place
from agentgate.audit.tree import Checkpoint
from agentgate.errors import StoreUnavailable
from agentgate.stores import AsyncStore, Op, Store, ops

_ANSWER = 1.0  # seconds for the store
_COPY_SECONDS = 4.0
_MOST_SERVERS = 200
Ask = Callable[[Op[Any]], Any]


def connect(store: Store | AsyncStore) -> Ask:
    """How a thread asks a store: an awaited one on the event loop that runs now.

    Returns:
        A function that raises StoreUnavailable.
    """
    call: Callable[[Op[Any], float], Any] = store.call
    if not inspect.iscoroutinefunction(call):
        return lambda op: op.parse(call(op, time.monotonic() + _ANSWER))
    loop = asyncio.get_running_loop()

    def ask(op: Op[Any]) -> Any:
        asked = call(op, time.monotonic() + _ANSWER)
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError as error:  # asyncio's own way to say that a loop is closed
            asked.close()
            raise StoreUnavailable("the event loop of this gate is closed") from error
        try:
            return op.parse(answer.result(2 * _ANSWER))
        except (TimeoutError, CancelledError) as error:
            with suppress(RuntimeError):  # as above
                answer.cancel()
            raise StoreUnavailable("the event loop of this gate does not run") from error

    return ask


def keep_checkpoints(
    log: AuditLog,
    store: Store | AsyncStore,
    audience: str = "",
    servers: Callable[[], Collection[str]] = tuple,
) -> None:
    """Keep the newest checkpoint of a log in the store, under the key of a tool server or of
    gates, which copy those of `servers`.
    """
    if not isinstance(log, FileAudit):
        return
    ask = connect(store)
    copied_at = 0.0

    def keep(newest: Checkpoint, note: str) -> str:
        nonlocal copied_at
        kept = ask(ops.keep_checkpoint(newest.origin, newest.size, note, audience=audience))
        if (named := servers()) and time.monotonic() - copied_at >= _COPY_SECONDS:
            copied_at = time.monotonic()
            ask(ops.read_checkpoints(tuple(named)[:_MOST_SERVERS]))
        return str(kept)

    log.copies.add(store_place(keep))
