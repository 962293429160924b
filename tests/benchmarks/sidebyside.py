"""Two pieces of work timed in turns, so that both see the same machine: what slows one slows the other.

Rules: every call is timed by itself, and medians are reported; the two take turns, and who goes first alternates. A turn is a
hundred calls where nothing but the processor works (a loop of signatures against a loop of decisions and signatures, each with
what it needs in the cache), and one call where a server, a disk or a large table takes part. The garbage collector is off while
a clock runs and has its turn between rounds. What prepares a round is not timed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from statistics import median

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """What is measured, and what it is measured against.

    Attributes:
        measured, baseline: one call each.
        rounds: turns that each of the two gets.
        batch: calls in one turn; more than one only where `prepare` allows it.
        prepare: done before each turn of `measured`, untimed.
    """

    measured: Work
    baseline: Work
    rounds: int
    batch: int = 1
    prepare: Work | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians in microseconds."""

    median_us: float
    baseline_us: float

    @property
    def ratio(self) -> float:
        """Measured over baseline."""
        return self.median_us / self.baseline_us


def _turn(work: Work, batch: int, into: list[int]) -> None:
    clock = time.perf_counter_ns
    for _ in range(batch):
        start = clock()
        work()
        into.append(clock() - start)


def compare(pair: Pair) -> Generator[None, None, Timing]:
    """Run a pair, yielding after each round (for a progress bar); the generator's value is its `Timing`."""
    measured: list[int] = []
    baseline: list[int] = []
    if pair.prepare is not None:
        pair.prepare()
    pair.measured()  # caches and connections
    pair.baseline()
    enabled = gc.isenabled()
    for index in range(pair.rounds):
        if pair.prepare is not None:
            pair.prepare()
        gc.collect(0)
        gc.disable()
        try:
            if index % 2:
                _turn(pair.baseline, pair.batch, baseline)
                _turn(pair.measured, pair.batch, measured)
            else:
                _turn(pair.measured, pair.batch, measured)
                _turn(pair.baseline, pair.batch, baseline)
        finally:
            if enabled:
                gc.enable()
        yield
    return Timing(median(measured) / 1000, median(baseline) / 1000)
