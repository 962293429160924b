"""Where texts from outside are read: long ones not in an event loop, which answers everybody
else meanwhile.

Rules: an event loop has them read by `THREADS` threads of the process, the shortest text first,
so that who sends long ones delays nobody but others with long ones. How many wait is bounded by
how much is under way (`agentgate.shell.bound`). A blocking caller reads by itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import count
from queue import PriorityQueue
from typing import Any, NamedTuple, TypeVar

from agentgate.shell.step import Step, TextReading

# they share one processor with the loop: more would only make it wait longer for its turn
THREADS = 2
SHORT = 2000  # characters that are read faster than a thread is woken
Value = TypeVar("Value")


class _WaitingText(NamedTuple):
    """A text that waits for its reader: its size, its number, how it is read, and who waits for
    that.
    """

    size: int
    number: int
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]


_waiting = PriorityQueue[_WaitingText]()
_numbers = count()
_starting = threading.Lock()
_threads = list[threading.Thread]()


def _end(done: asyncio.Future[Any], answer: Any) -> None:
    if not done.done():
        done.set_result(answer)


def _read_on() -> None:
    while True:
        _, _, work, loop, done = _waiting.get()
        if not done.cancelled():
            answer = work()
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(_end, done, answer)


async def read_in_thread(step: TextReading) -> Any:
    """What the step's work returns, which raises nothing."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    with _starting:
        while len(_threads) < THREADS:
            _threads.append(
                threading.Thread(target=_read_on, daemon=True, name="agentgate-reading")
            )
            _threads[-1].start()
    _waiting.put(_WaitingText(step.size, next(_numbers), step.work, loop, done))
    return await done


def apart(
    size: int, work: Callable[[], Value], seconds: float = 0.0
) -> Generator[Step, Any, Value]:
    """The value of work that reads so many characters, and what it raises; `seconds` of it do
    not count for the call's deadline.
    """
    if size <= SHORT:
        return work()

    def attempt() -> tuple[Value | None, Exception | None]:
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001 - raised where the flow waits for it
            return None, error

    value, error = yield TextReading(size, attempt, seconds)
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]  # of the work
