"""Waiting for the answer to a hold: the store is asked again and again, with growing pauses, so
that no answer is missed.

Rules: what counts is what the store says, by the hold's id. A store that does not answer is
asked again until the hold's deadline. Waiting releases nothing: afterwards the same call is
authorised again.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from math import inf
from typing import Any

from agentgate.decision.hold import Hold
from agentgate.errors import ConfigError, StoreUnavailable
from agentgate.gate.holds.answer import one
from agentgate.shell.step import Apart, Sleep, Step
from agentgate.values.refusal import AnswerCode, AnswerRefused, Failure, Reason

# seconds between two looks at the store
_FIRST = 0.05
_LONGEST = 0.5
_GROWTH = 1.5
_PAST = 0.01  # seconds after the deadline at which it is over by any rounding


def wait(
    tenant: str, run: str, hold: Hold | str, timeout: float | None
) -> Generator[Step, Any, Hold]:
    """The steps of one wait. Raises as `Run.wait`."""
    hold_id = hold.id if isinstance(hold, Hold) else hold
    if timeout is not None and (type(timeout) not in {int, float} or not timeout >= 0):
        raise ConfigError("timeout", timeout, "seconds, 0 or more, or None")
    end = inf if timeout is None else time.monotonic() + timeout
    pause = _FIRST
    # until when a store that is away is asked again
    deadline = hold.expires_at if isinstance(hold, Hold) else time.time()
    while True:
        try:
            found: Hold = yield Apart(one(tenant, hold_id))
        except StoreUnavailable:
            left = end - time.monotonic()
            if left <= 0 or time.time() >= deadline:
                raise
        else:
            if found.run != run:
                failure = Failure(
                    Reason.STEP_UP, "hold", "of another run", "a hold of this run"
                )
                raise AnswerRefused(AnswerCode.MISSING, (failure,))
            left = end - time.monotonic()
            if found.state != "pending" or left <= 0:
                return found
            deadline = found.expires_at
        yield Sleep(min(pause, left, max(0.0, deadline - time.time()) + _PAST))
        pause = min(pause * _GROWTH, _LONGEST)
