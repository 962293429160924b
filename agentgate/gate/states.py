"""Runs as one gate read them last: of a run that somebody comes back to, the store then sends
only what changed since.

Rules: a state is good enough to allow and for nothing else, as in a handle: the store compares
its revision whenever something is minted. The newest are kept, without those of very many
calls.
"""

from __future__ import annotations

from collections import OrderedDict

from agentgate.values.request import RunState

MAX_RUNS = 256
MAX_CALLS = 256


class States:
    """See the module. Safe to share between threads: each change is one step of an ordered
    dictionary.
    """

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of = OrderedDict[tuple[str, str], RunState]()

    def find(self, tenant: str, run: str) -> RunState | None:
        """The run as it was read last."""
        return self._of.get((tenant, run))

    def keep(self, state: RunState) -> RunState:
        """Keep what was read now; returns it."""
        name = state.header.tenant, state.header.id
        self._of.pop(name, None)
        if len(state.calls) <= MAX_CALLS:
            self._of[name] = state
        if len(self._of) > MAX_RUNS:
            self._of.popitem(last=False)
        return state
