"""Replaying many episodes: one after the other, or on all processors where no run can see another.

Rules: results keep the order of the episodes and are the same either way. Where a workflow keeps state across runs (a limit per agent
or tenant, the key of the last token), one gate decides all; otherwise each process opens its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentgate.cli.output import quiet
from agentgate.errors import AgentGateError
from agentgate.gate.gate import Gate
from agentgate.review.replay.deputy import TARGETS, Kind, Tally, confused_deputy
from agentgate.review.replay.evaluate import Clock, Decided, Episode, replay

MANY = 400  # episodes from which starting processes costs less than it saves
_CHUNK = 25
_RUNS_APART = frozenset({"run", "turn"})
Replayed = tuple[list[Decided], dict[Kind, Tally]]


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How to open a gate for a replay; `root` None: the present files, without signatures."""

    workflows: Path
    root: str | None
    environment: str | None

    @contextmanager
    def gate(self, clock: Clock) -> Iterator[Gate]:
        """A gate whose state, keys and log end with the replay."""
        common: Any = {"issuer": "https://gate.invalid", "environment": self.environment, "clock": clock}
        with ExitStack() as stack:
            if self.root is None:
                gate = Gate.open_unsafe_unapproved(self.workflows, audit="memory://", **common)
            else:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="agentgate-evaluate-")))
                gate = Gate.open(self.workflows, root=self.root, keys=folder / "keys", audit=str(folder / "audit"), **common)
            yield stack.enter_context(gate)


def replays(episodes: Sequence[Episode], gate: Gate, clock: Clock, opening: ReplaySettings, *, deputy: bool) -> Iterator[Replayed]:
    """Replay each episode, and with `deputy` its confused-deputy mutants, in their order.

    Raises AgentGateError: as `agentgate.review.replay.evaluate.replay`; or a process ended before its episodes.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(episodes) < MANY or processors < 2 or _remembers(gate, episodes):
        for episode in episodes:
            yield _replayed(gate, clock, episode, deputy=deputy)
        return
    try:
        with ProcessPoolExecutor(processors, get_context("spawn"), _open, (opening, deputy)) as pool:
            yield from pool.map(_in_process, episodes, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise AgentGateError(f"a process that replayed episodes ended: {error}") from error


def _replayed(gate: Gate, clock: Clock, episode: Episode, *, deputy: bool) -> Replayed:
    decided = replay(gate, clock, episode)
    tallies: dict[Kind, Tally] = {kind: Tally() for kind in TARGETS} if deputy else {}
    if deputy:
        confused_deputy(gate, clock, episode, tallies)
    return decided, tallies


def _remembers(gate: Gate, episodes: Sequence[Episode]) -> bool:
    """Whether a run of these workflows can see what another did."""
    named = {episode.workflow for episode in episodes}
    workflows = [workflow for name in named if (workflow := gate.catalog.get(name)) is not None]
    return any(
        workflow.agent.same_key_as_last_token
        or any(limit.per not in _RUNS_APART for tool in workflow.tools.values() for limit in tool.limits)
        for workflow in workflows
    )


# --- in a process of its own -------------------------------------------------------------------------------------------
_own: dict[str, Any] = {}


def _open(opening: ReplaySettings, deputy: bool) -> None:
    quiet(logging.CRITICAL)  # the first gate has logged everything about the workflows
    stack, clock = ExitStack(), Clock()
    _own.update(stack=stack, clock=clock, gate=stack.enter_context(opening.gate(clock)), deputy=deputy)


def _in_process(episode: Episode) -> Replayed:
    return _replayed(_own["gate"], _own["clock"], episode, deputy=_own["deputy"])
