"""What one gate knows of runs: under which versions of its workflow each is decided, which it
opened and what it issued in them, and how they were read last.

Rules: a run is decided under the version in force and, where it was opened with another, under
that one too. Another version counts only while what its reviewers signed does: it is judged as
the directory is now, and looked at again after a reload. One that was revoked, has ended, or is
not here decides nothing, and the run's calls are refused. A gate that meets a run of a newer
version than it loaded decides under that, if its directory says that it is the one in force;
else another gate has to.

Where a store has lost the record of an act for which a token was issued, somebody may have
redeemed that. Only the process that opened a run knows all of its acts; a process that was
forked off knows none.

A state is good enough to allow and for nothing else, as in a handle: the store compares its
revision whenever something is minted. Of a run that somebody comes back to, the store then
sends only what changed since.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from agentgate.decision.versions import Versions
from agentgate.errors import AgentGateError
from agentgate.shell.step import Outside, Step
from agentgate.stores import AsyncStore, Keeps, Store
from agentgate.values.refusal import Failure, Reason, RunRefused
from agentgate.values.request import Header, RunState
from agentgate.workflow.model import Workflow

if TYPE_CHECKING:
    from agentgate.approvals.opening import Other
    from agentgate.loading.catalog import Catalog

# for reading one more version, signatures and all: the first call of its kind after a reload
_SECONDS = 5.0
_AGAIN = 5.0  # seconds until one that does not count is looked for again
_FEW = 10  # loaded workflows that a message names


class InForce:
    """What is in force at a gate.

    Args:
        catalog: the loaded workflows.
        find: a version by id and number, as reviewers signed it; None: a gate without
            approvals, which knows of no other.
    """

    __slots__ = ("_catalog", "_find")

    def __init__(self, catalog: Catalog, find: Callable[[str, int], Other] | None) -> None:
        self._catalog = catalog
        self._find = find

    def workflow(self, name: str) -> Workflow:
        """The workflow in force under this id.

        Raises:
            RunRefused: there is none, or what reviewers signed has ended.
        """
        workflow = self._current(name)
        if workflow is None:
            got = repr(name) if type(name) is str else type(name).__name__
            few = len(self._catalog) <= _FEW
            expected = (
                f"one of {', '.join(each.id for each in self._catalog)}"
                if few
                else f"one of {len(self._catalog)} loaded workflows"
            )
            raise RunRefused((Failure(Reason.WORKFLOW_UNKNOWN, "workflow", got, expected),))
        return workflow

    def known(self, header: Header) -> Versions | None:
        """What `of` said of a run lately; None: it has to be asked, or nothing decides."""
        current = self._catalog.get(header.workflow)
        if current is None:
            return None
        if current.digest == header.digest:
            return self._alone(current)
        kept = self._catalog.others.get((header.digest, current.digest))
        return (
            kept[0]
            if kept is not None and isinstance(kept[0], Versions) and time.time() < kept[1]
            else None
        )

    def of(self, header: Header) -> Generator[Step, Any, Versions]:
        """What the calls of a run are decided under.

        Raises:
            RunRefused: its version decides nothing here, or nothing is in force under its id.
        """
        current = self._current(header.workflow)
        if current is not None and current.digest == header.digest:
            return self._alone(current)
        if current is None or self._find is None:
            raise RunRefused((_changed(f"{header.workflow} {header.digest}"),))
        others = self._catalog.others
        key = (header.digest, current.digest)
        kept = others.get(key)
        if kept is None or time.time() >= kept[1]:
            kept = yield Outside(
                partial(self._looked_up, header, current, self._find), _SECONDS
            )
            others[key] = kept
        if isinstance(kept[0], Failure):
            raise RunRefused((kept[0],))
        found: Versions = kept[0]
        return found

    def own(self, header: Header) -> Generator[Step, Any, Workflow]:
        """The version that a run was opened with; where that decides nothing, the one in force,
        by which it can still be read.

        Raises:
            RunRefused: nothing is in force under its id.
        """
        try:
            versions = yield from self.of(header)
        except RunRefused:
            return self.workflow(header.workflow)
        return versions.opened

    def _alone(self, current: Workflow) -> Versions:
        others = self._catalog.others
        key = (current.digest, current.digest)
        kept = others.get(key)
        if kept is None or kept[0].opened is not current:
            kept = others[key] = Versions(current), inf
        alone: Versions = kept[0]
        return alone

    def _current(self, name: str) -> Workflow | None:
        """The workflow in force under this id; None: no such workflow is loaded. An end that is
        near is warned of.

        Raises:
            RunRefused: it is loaded, and the index, the root or its approval has ended.
        """
        if due := self._catalog.due():
            from agentgate.approvals.opening import warn_of  # noqa: PLC0415 - an hour's first call only

            warn_of(due)
        workflow = self._catalog.get(name) if type(name) is str else None
        ended = self._catalog.ended(name) if workflow is None and type(name) is str else None
        if ended is not None:
            what = Failure(
                Reason.APPROVAL_EXPIRED,
                f"approvals.{ended.what}",
                f"ended at {ended.day}",
                f"one in force: {ended.remedy}",
            )
            raise RunRefused((what,))
        return workflow

    @staticmethod
    def _looked_up(
        header: Header, current: Workflow, find: Callable[[str, int], Other]
    ) -> tuple[Versions | Failure, float]:
        """What counts until when (POSIX seconds); it raises nothing."""
        name = f"{header.workflow} version {header.version}"
        again = time.time() + _AGAIN
        try:
            other = find(header.workflow, header.version)
        except AgentGateError as error:
            return _changed(f"{name}: {error}"[:500]), again
        if other.workflow.digest != header.digest:
            return _changed(f"{name} {header.digest}, another definition"), again
        if header.version < current.version:
            return Versions(other.workflow, current), other.until
        if header.version > current.version and other.newest:
            return Versions(other.workflow), other.until
        return _changed(
            f"{name}, newer than version {current.version}, which this gate loaded (reload it)"
        ), again


def _changed(got: str) -> Failure:
    return Failure(
        Reason.WORKFLOW_CHANGED,
        "workflow",
        got,
        "the version that the run was opened with, approved still and not revoked",
    )


# --- what was opened and issued ---------------------------------------------------------------
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


# --- as read last -----------------------------------------------------------------------------
MAX_RUNS = 256
MAX_CALLS = 256


class States:
    """Runs as one gate read them last: the newest, without those of very many calls. Safe to
    share between threads: each change is one step of an ordered dictionary.
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
