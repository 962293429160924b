"""One resume of a conversation at a time: a lock in the store, short, which ends by itself when
its holder hangs or dies.

Rules: it spares those who resume at the same time an answer that is unknown while the first of
them is still at it. That an act is executed once never rests on it: the mint script compares
the fence of whoever holds the lock, and the rest is as ever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar

from agentgate.errors import StoreUnavailable
from agentgate.shell.context import set_variables
from agentgate.shell.step import Flow, Sleep
from agentgate.stores import ops
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Header

# seconds; a tool that runs longer goes on, and whoever comes then is told what is known of its
# call
LOCKED = 30
WAIT = 5.0  # seconds
_BETWEEN = 0.05
FENCES: ContextVar[Mapping[str, int]] = ContextVar("agentgate_fences", default={})  # noqa: B039 - never changed  # run -> that of its lock


def wait_for_lock(header: Header, holder: str, wait: float) -> Flow:
    """Take the lock of a run, for whoever takes it under the same name too. Returns its fence;
    0: none, and each call is told why.

    Raises (through the driver):
        RunRefused: another holds it for longer than `wait` seconds.
    """
    end = time.monotonic() + wait
    while True:
        try:
            kind, number = yield ops.lock_run(header.tenant, header.id, holder, LOCKED * 1000)
        except StoreUnavailable:
            return 0
        if kind != "held":
            return number
        if time.monotonic() >= end:
            got = f"resumed by another, for {number / 1000:.1f} s at most"
            raise RunRefused(
                (
                    Failure(
                        Reason.RUN_BUSY,
                        "conversation",
                        got,
                        "one resume at a time: again when it is over",
                    ),
                ),
                header.id,
            )
        yield Sleep(_BETWEEN)


def bind_fence(run: str, fence: int) -> set_variables:
    """What mints in a run here holds its lock."""
    return set_variables((FENCES, {**FENCES.get(), run: fence}))
