"""The steps a flow yields: a store operation, an audit record, work that waits for somebody
else, or another flow.

They know no policy, so that a tool server can verify without any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from agentgate.stores import Op
from agentgate.values.value_class import Json, Values

T = TypeVar("T")


class Record(NamedTuple):
    """An audit record that must be durable before the flow goes on.

    That of a `refusal`, or of what is on no other record, is written after the deadline too. A
    `promised` one has room on a full disk. One that nobody `waits` for is handed over, and
    durable a little later.
    """

    body: Values
    refusal: bool = False
    promised: bool = False
    waits: bool = True


def date_event(kind: str, /, **said: Any) -> Json:
    """The body of a record of what happens now."""
    return {"type": kind, "time": round(time.time(), 6), **said}


class Room(NamedTuple):
    """Before something that cannot be undone: the audit log has room for promised records of
    it.
    """


class Afterwards(NamedTuple):
    """A store operation that tells of a refusal. It may end a little after the call's deadline,
    as the record of one does.
    """

    op: Op[Any]


class Send(NamedTuple):
    """A store operation that is only sent: the answer reads its reply, in a `Receive`."""

    op: Op[Any]


class Receive(NamedTuple):
    """The store's reply to an operation that was sent."""

    op: Op[Any]
    read: Callable[[float], Any]


class Outside(NamedTuple):
    """Work that may wait for somebody outside: keys are fetched, a catalogue is asked. An
    awaited shell does it in a thread.

    It raises nothing but an `AgentGateError`. It may take `seconds` that do not count for the
    call's deadline. Where others may wait for the same person or issuer, an awaited shell does
    it in a thread of its own (`own_thread`): the shared ones are few, and would all wait.
    """

    work: Callable[[], Any]
    seconds: float = 0.0
    own_thread: bool = False


class TextReading(NamedTuple):
    """Work that reads a text of this size, and raises nothing (`agentgate.shell.drive`);
    `seconds` as in `Outside`.
    """

    size: int
    work: Callable[[], Any]
    seconds: float = 0.0


class Sleep(NamedTuple):
    """So many seconds in which nothing is done; they do not count for the call's deadline."""

    seconds: float


class Apart(NamedTuple):
    """A flow that is carried out under a deadline of its own, for work whose number of steps
    nobody knows: its result is the answer.
    """

    flow: Generator[Any, Any, Any]


Step = (
    Op[Any]
    | Record
    | Room
    | Afterwards
    | Send
    | Receive
    | Outside
    | TextReading
    | Sleep
    | Apart
)
Flow = Generator[Step, Any, Any]
OutsideFlow = Generator[Outside, Any, T]  # which waits for nothing else


def alone(step: Step) -> Flow:
    """A flow of one step."""
    return (yield step)
