"""What this process opened and issued: the runs it opened, and the acts for which tokens of
theirs left it.

Where a store has lost the record of such an act, somebody may have redeemed its token. Only the
process that opened a run knows all of its acts; a process that was forked off knows none.
"""

from __future__ import annotations

import os
import threading

from agentgate.stores import AsyncStore, Keeps, Store
from agentgate.values.request import RunState

LIMIT = 50_000  # runs and calls; the runs of before are forgotten, with their calls


class Issued:
    """Runs, those used last at the end, each with its calls. Safe to share between threads.

    Attributes:
        store: the gate's.
    """

    store: Store | AsyncStore | None = None

    def __init__(self) -> None:
        # run -> digest of a call -> what the store said that it has lost
        self._runs: dict[str, dict[str, str]] = {}
        self._size = 0
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def keeps(self) -> Keeps:
        """Whether the store keeps what it acknowledges."""
        return "no" if self.store is None else self.store.keeps

    def may_act(self, state: RunState) -> bool:
        """Whether an act in this run that the store does not know was never minted, by any
        gate.

        The state says who mints acts in it (`RunRecord.acts`), and the mint script compares the
        lineage in which that was read.
        """
        if state.acts == "opener":
            return self.knows(state.header.id)
        return state.acts == "any" or self.keeps in {
            "alone": ("alone", "yes"),
            "replicated": ("yes",),
        }.get(state.acts, ())

    def opened(self, run: str) -> None:
        """This gate opened it."""
        with self._lock:
            self._use(run)

    def add(self, run: str, digest: str) -> None:
        """A token of this call leaves the gate."""
        with self._lock:
            calls = self._use(run)
            self._size += digest not in calls
            calls[digest] = ""

    def tell(self, run: str, digest: str, lost: str) -> None:
        """The store has said what it has lost. Once it finds that again, it is reconciled, and
        so is what became of the call.
        """
        with self._lock:
            if digest in self._runs.get(run, ()):
                self._runs[run][digest] = lost

    def told(self, run: str, digest: str) -> str | None:
        """What `tell` took of a call, or empty; None: no token of it left the gate."""
        with self._lock:
            return self._runs.get(run, {}).get(digest)

    def knows(self, run: str) -> bool:
        """Whether this process opened the run, and remembers all of its calls."""
        with self._lock:
            return run in self._runs and os.getpid() == self._pid

    def _use(self, run: str) -> dict[str, str]:
        if run in self._runs:
            calls = self._runs[run] = self._runs.pop(run)
            return calls
        while self._size >= LIMIT:
            self._size -= 1 + len(self._runs.pop(next(iter(self._runs))))
        self._size += 1
        calls = self._runs[run] = {}
        return calls
