"""Runs as one gate read them last: of a run that somebody comes back to, the store then sends only what changed since.

Rules: a state is good enough to allow and for nothing else, as in a handle: the store compares its revision whenever something is minted.
The newest are kept, with at most `MAX_CALLS` calls in all of them together.
"""

from __future__ import annotations

import threading

from agentgate.values.request import RunState

MAX_RUNS, MAX_CALLS = 1024, 10_000


class States:
    """See the module. Safe to share between threads."""

    __slots__ = ("_calls", "_lock", "_of")

    def __init__(self) -> None:
        self._lock, self._calls, self._of = threading.Lock(), 0, dict[tuple[str, str], RunState]()

    def find(self, tenant: str, run: str) -> RunState | None:
        """The run as it was read last."""
        return self._of.get((tenant, run))

    def keep(self, state: RunState) -> RunState:
        """Keep what was read now; returns it."""
        name = state.header.tenant, state.header.id
        with self._lock:
            before = self._of.pop(name, None)
            self._calls += len(state.calls) - (0 if before is None else len(before.calls))
            self._of[name] = state
            while len(self._of) > MAX_RUNS or self._calls > MAX_CALLS:
                self._calls -= len(self._of.pop(next(iter(self._of))).calls)
        return state
