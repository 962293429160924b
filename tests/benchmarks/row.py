"""One measured line, how much is done for it, and what it is measured against where that is bare cryptography.

Rules: a row's baseline runs in the same process, in turns with it. Targets are ratios. Rows without a target are there to be read.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from tests.benchmarks import world
from tests.benchmarks.sidebyside import Pair, Timing, Work, compare

_ES256 = ec.ECDSA(SHA256())
KB, MS = 1024, 1000.0


@dataclass(frozen=True, slots=True)
class Row:
    """One measured line.

    Attributes:
        name: stable; the key in the JSON.
        median_us, baseline_us: medians in microseconds; None where something else was measured.
        baseline: what it is measured against.
        value, unit: what the target speaks of: a ratio ("x"), microseconds ("us") or bytes ("B").
        target: the most `value` may be; None: no target.
        durable: True where an audit record was on disk before the token left.
        note: what was done.
    """

    name: str
    median_us: float | None
    baseline: str
    baseline_us: float | None
    value: float
    unit: str
    target: float | None
    durable: bool
    note: str

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        return None if self.target is None else self.value <= self.target

    @property
    def ratio(self) -> float | None:
        """Measured over baseline; None where something else was measured."""
        return self.value if self.unit == "x" else None


Measuring = Generator[None, None, list[Row]]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: `rounds` for quick work, fewer for work with servers; the two catalogue sizes; runs decided in.

    Work without a server takes turns of `turn` calls: what a loop of it costs. Work with one takes turns call by call.
    """

    rounds: int
    turn: int
    trips: int
    few: int
    many: int
    runs: int


FULL = Scale(rounds=4000, turn=100, trips=1500, few=10, many=100_000, runs=1000)
QUICK = Scale(rounds=20, turn=2, trips=10, few=2, many=20, runs=10)


def compared(name: str, pair: Pair, baseline: str, target: float | None, note: str, *, durable: bool = False) -> Generator[None, None, Row]:
    timing: Timing = yield from compare(pair)
    return Row(name, timing.median_us, baseline, timing.baseline_us, timing.ratio, "x", target, durable, note)


class Bare:
    """What everything is measured against: pyca/cryptography by itself, over as many bytes as a token signs."""

    def __init__(self, size: int) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._public = self._private.public_key()
        self._data = os.urandom(size)
        self._signature = self._private.sign(self._data, _ES256)

    def sign(self) -> None:
        """One ES256 signature."""
        self._private.sign(self._data, _ES256)

    def verify(self) -> None:
        """One ES256 verification."""
        self._public.verify(self._signature, self._data, _ES256)

    def both(self) -> None:
        """One of each."""
        self.sign()
        self.verify()


def token_size(desk: world.Desk) -> int:
    return len(desk.minted(desk.call).reveal().rpartition(".")[0])


def loop(measured: Work, baseline: Work, scale: Scale) -> Pair:
    return Pair(measured, baseline, scale.rounds * 5 // scale.turn, batch=scale.turn)
