"""Waiting for the answer to a hold: the store is asked again and again, with growing pauses, so that no answer is missed.

Rules: what counts is what the store says, by the hold's id. A store that does not answer is asked again until the hold's deadline. Waiting
releases nothing: afterwards the same call is authorised again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from math import inf
from typing import Any

from agentgate.audit import AuditLog
from agentgate.decision.hold import Hold
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.gate.answer import one
from agentgate.shell.drive import adrive, drive
from agentgate.shell.step import Flow
from agentgate.stores import AsyncStore, Store
from agentgate.values.refusal import AnswerCode, AnswerRefused, Failure, Reason

_FIRST, _LONGEST, _GROWTH = 0.05, 0.5, 1.5  # seconds between two looks at the store
_PAST = 0.01  # seconds after the deadline at which it is over by any rounding

Looks = Generator[Flow | float, Any, Hold]  # yields a flow that reads the hold, or a pause in seconds


def looks(tenant: str, run: str, hold: Hold | str, timeout: float | None) -> Looks:
    """What one wait does. Raises as `Run.wait`."""
    hold_id = hold.id if isinstance(hold, Hold) else hold
    if timeout is not None and (type(timeout) not in {int, float} or not timeout >= 0):
        raise ConfigError("timeout", timeout, "seconds, 0 or more, or None")
    end, pause = inf if timeout is None else time.monotonic() + timeout, _FIRST
    deadline = hold.expires_at if isinstance(hold, Hold) else time.time()  # until when a store that is away is asked again
    while True:
        found = yield one(tenant, hold_id)
        if isinstance(found, Hold):
            if found.run != run:
                failure = Failure(Reason.STEP_UP, "hold", "of another run", "a hold of this run")
                raise AnswerRefused(AnswerCode.MISSING, (failure,))
            if found.state != "pending":
                return found
            deadline = found.expires_at
        left = end - time.monotonic()
        if isinstance(found, Hold) and left <= 0:
            return found
        if isinstance(found, StoreUnavailable) and (left <= 0 or time.time() >= deadline):
            raise found
        yield min(pause, left, max(0.0, deadline - time.time()) + _PAST)
        pause = min(pause * _GROWTH, _LONGEST)


def wait(steps: Looks, store: Store, audit: AuditLog) -> Hold:
    """Carry out the steps and pauses, blocking. Raises as `Run.wait`."""
    found: object = None
    while True:
        try:
            step = steps.send(found)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the generator returns
        if isinstance(step, float):
            time.sleep(step)
            continue
        try:
            found = drive(step, store, audit)
        except StoreUnavailable as error:
            found = error


async def await_(steps: Looks, store: AsyncStore, audit: AuditLog) -> Hold:
    """`wait`, awaited."""
    found: object = None
    while True:
        try:
            step = steps.send(found)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # as above
        if isinstance(step, float):
            await asyncio.sleep(step)
            continue
        try:
            found = await adrive(step, store, audit)
        except StoreUnavailable as error:
            found = error
