"""Where second decisions are made, on calls that were answered, under the version that only
observes: for the audit log alone.

Rules: it is a thread of its own, with values that nobody changes: no call waits for it. How
many wait has an end; a call that is left out has no such record, which is counted where they
are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Semaphore
from typing import ClassVar

from agentgate.audit import AuditLog
from agentgate.decision.answer import Deny
from agentgate.shell.drive import RECORD_SECONDS
from agentgate.values.value_class import Values, value_class

_MOST = 256  # calls that wait


@value_class
class Unenforced(Deny):
    """A refusal, on record, that nobody enforces: its workflow only observes. A host that knows
    only `Deny` refuses the call.
    """

    token: ClassVar[None] = None
    idempotency_key: ClassVar[str] = ""


class Observer:
    """Makes the records of one gate, one after the other, in its `log`, which the gate sets."""

    log: AuditLog

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "agentgate-observer")
        self._room = Semaphore(_MOST)

    def add(self, observation: Callable[[], Values]) -> None:
        """Have the record of a call made, where not too many wait. Never waits, never
        raises.
        """
        with suppress(RuntimeError):  # the gate was closed
            if self._room.acquire(blocking=False):
                self._thread.submit(self._record, observation)

    def close(self) -> None:
        """Make the records of what waits."""
        with suppress(RuntimeError, TimeoutError):  # it was closed, or is slow
            self._thread.submit(int).result(RECORD_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _record(self, observation: Callable[[], Values]) -> None:
        self._room.release()
        # a log that takes no record refuses calls, and that is seen
        self.log.append(observation(), time.monotonic() + RECORD_SECONDS)
