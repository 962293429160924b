"""One caller reads for all: what is asked from somebody who may hang takes few places of a
process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# of the 32 calls that a gate has under way at once (`agentgate.shell.bound.AT_ONCE`)
WAITERS = 8


class OneReader:
    """Lets one caller read at a time, and at most `most` be here, the reader among them. Safe
    to share between threads.
    """

    __slots__ = ("_lock", "_room")

    def __init__(self, most: int = WAITERS) -> None:
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(most)

    @property
    def reading(self) -> bool:
        """Whether somebody reads now."""
        return self._lock.locked()

    def read(self, work: Callable[[], object], due: Callable[[], bool], *, wait: bool) -> None:
        """Do the work, if it is due still when it is this caller's turn; who does not `wait`,
        or finds no room, does nothing.
        """
        if not self._room.acquire(blocking=False):
            return
        try:
            if not self._lock.acquire(blocking=wait):
                return
            try:
                if due():
                    work()
            finally:
                self._lock.release()
        finally:
            self._room.release()
