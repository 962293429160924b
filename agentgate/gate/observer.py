"""Where second decisions are made, on calls that were answered, under the version that only observes: for the audit log alone.

Rules: it is a thread of its own, with values that nobody changes: no call waits for it. How many wait has an end; what is left out is
counted in the next record. A version that takes longer to decide than a call may take is observed no more by this gate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Semaphore
from typing import Any, ClassVar

import structlog

from agentgate.audit import AuditLog
from agentgate.decision.answer import Deny
from agentgate.errors import AgentGateError
from agentgate.shell.drive import CALL_SECONDS, RECORD_SECONDS

_MOST = 256  # calls that wait
_log = structlog.get_logger("agentgate.gate.observer")
Observation = Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Unenforced(Deny):
    """A refusal, on record, that nobody enforces: its workflow only observes. A host that knows only `Deny` refuses the call."""

    token: ClassVar[None] = None
    idempotency_key: ClassVar[str] = ""


class Observer:
    """Makes the records of one gate, one after the other, in its `log`."""

    def __init__(self) -> None:
        self.log: AuditLog | None = None
        self._thread, self._room = ThreadPoolExecutor(1, "agentgate-observer"), Semaphore(_MOST)
        self._last: list[Future[None]] = []
        self._slow, self._missed = set[str](), 0

    def add(self, version: str, observation: Observation) -> None:
        """Have the record of a call made, under the version of this digest. Never waits, never raises."""
        if not self._room.acquire(blocking=False):
            self._missed += 1
            return
        with suppress(RuntimeError):  # the gate was closed
            self._last = [self._thread.submit(self._record, version, observation)]

    def close(self) -> None:
        """Make the records of what waits."""
        wait(self._last, RECORD_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _record(self, version: str, observation: Observation) -> None:
        self._room.release()
        if version in self._slow:
            self._missed += 1
            return
        began, missed = time.thread_time(), self._missed
        record = observation()
        if (took := time.thread_time() - began) > CALL_SECONDS:
            self._slow.add(version)
            record["why"] = f"{took:.2f} s to decide on it: this gate observes the version no more"
        try:
            if self.log is not None:
                self.log.append({**record, "missed": missed}, time.monotonic() + RECORD_SECONDS)
            self._missed -= missed
        except AgentGateError as error:
            self._missed += 1
            _log.warning("observation_lost", problem=str(error))
