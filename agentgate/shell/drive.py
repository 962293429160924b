"""The two shells that carry out a flow's steps: blocking and awaited. One monotonic deadline per call.

Rules: a step that fails or is late is thrown into the flow, which refuses; a reply after the deadline is discarded. Work outside has time
of its own, which moves the deadline. Store steps end a
little before the call's deadline, which leaves time to record the refusal itself; a refusal that comes later still has that much time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from agentgate.audit import AuditLog
from agentgate.errors import AgentGateError, StoreUnavailable
from agentgate.shell.step import Apart, Flow, Outside, Record
from agentgate.stores import AsyncStore, Op, Store

CALL_SECONDS = 0.29  # promise 4: a refusal within 300 ms
_FOR_THE_RECORD = 0.05


def _in_time(answer: Any, deadline: float) -> Any:
    if time.monotonic() > deadline:
        raise StoreUnavailable("the step ended after the call's deadline; its reply is discarded")
    return answer


def _time_for(record: Record, deadline: float) -> float:
    """When to stop waiting for a record: a refusal is recorded whatever the deadline says, within a time of its own."""
    return max(deadline, time.monotonic() + _FOR_THE_RECORD) if record.refusal else deadline


def _later(end: float, step: Outside, began: float) -> float:
    """The deadline without what the work took of its own time."""
    return end + min(step.seconds, time.monotonic() - began)


def drive(flow: Flow, store: Store, audit: AuditLog) -> Any:
    """Run a flow to its result, blocking.

    Raises:
        AgentGateError: what the flow raises.
    """
    end = time.monotonic() + CALL_SECONDS
    try:
        step = next(flow)
        while True:
            try:
                if isinstance(step, Op):
                    answer = _in_time(store.call(step, end - _FOR_THE_RECORD), end)
                elif isinstance(step, Outside):
                    began, answer = time.monotonic(), step.work()
                    end = _later(end, step, began)
                elif isinstance(step, Apart):
                    answer = drive(step.flow, store, audit)
                else:
                    audit.append(step.body, _time_for(step, end))
                    answer = None
            except AgentGateError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as done:
        return done.value


async def adrive(flow: Flow, store: AsyncStore, audit: AuditLog) -> Any:
    """`drive`, awaited."""
    end = time.monotonic() + CALL_SECONDS
    try:
        step = next(flow)
        while True:
            try:
                if isinstance(step, Op):
                    answer = _in_time(await store.call(step, end - _FOR_THE_RECORD), end)
                elif isinstance(step, Outside):
                    began, answer = time.monotonic(), await asyncio.to_thread(step.work)
                    end = _later(end, step, began)
                elif isinstance(step, Apart):
                    answer = await adrive(step.flow, store, audit)
                else:
                    await audit.aappend(step.body, _time_for(step, end))
                    answer = None
            except AgentGateError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as done:
        return done.value
