"""The groups of rows, and how many steps each takes."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.chatting import chat, rounds_of
from tests.benchmarks.engine import engine
from tests.benchmarks.exchanging import exchanging
from tests.benchmarks.guarded import langchain, perform, throughput
from tests.benchmarks.holding import hold
from tests.benchmarks.many import flat
from tests.benchmarks.reading import reading
from tests.benchmarks.row import Measuring, Scale
from tests.benchmarks.shop import cycle, cycle_audit, cycle_dpop
from tests.benchmarks.startup import startup, turns

GROUPS: dict[str, Callable[[Scale], Measuring]] = {
    "engine": engine,
    "reading": reading,
    "cycle": cycle,
    "cycle_dpop": cycle_dpop,
    "cycle_audit": cycle_audit,
    "hold": hold,
    "http": exchanging,
    "flat": flat,
    "langchain": langchain,
    "chat": chat,
    "perform": perform,
    "throughput": throughput,
    "startup": startup,
}


def rounds(scale: Scale) -> dict[str, int]:
    """How many steps each group of rows takes, for the progress bar."""
    return {
        "engine": 7 * (scale.rounds * 5 // scale.turn),
        "reading": 3 * (scale.rounds // 4),
        "cycle": 3 * scale.trips,
        "cycle_dpop": scale.trips,
        "cycle_audit": scale.trips // 3,
        "hold": 2 * (scale.trips // 6),
        "http": 2 * max(2, scale.trips // 150),
        "flat": scale.rounds + 3,
        "chat": 2 * rounds_of(scale),
        "langchain": 3 * (scale.trips // 3),
        "perform": scale.trips,
        "throughput": 10,
        "startup": turns(scale),
    }
