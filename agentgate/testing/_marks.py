"""The conformance suite: marks, the numbers that never fall, by which a gate knows what was in force before."""
# ruff: noqa: S101 - the name of a test is its sentence, and assert is what it does

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

from agentgate.stores import Store, ops
from agentgate.testing._book import ask


def _raise(store: Store, gate: str, **marks: int) -> dict[str, int]:
    return ask(store, ops.raise_marks(gate, marks), ops.parse_raise_marks)


class RisingMarks:
    """Marks never fall."""

    racers: int

    def test_a_mark_rises_and_never_falls(self, store: Store) -> None:
        gate = f"https://{secrets.token_hex(6)}.example"
        assert _raise(store, gate, a=0, b=0) == {"a": 0, "b": 0}
        assert _raise(store, gate, a=3, b=1) == {"a": 3, "b": 1}
        assert _raise(store, gate, a=2, b=2**53 - 1) == {"a": 3, "b": 2**53 - 1}
        assert _raise(store, gate, a=0, b=0) == {"a": 3, "b": 2**53 - 1}

    def test_marks_of_another_gate_are_others(self, store: Store) -> None:
        one, other = (f"https://{secrets.token_hex(6)}.example" for _ in range(2))
        _raise(store, one, a=3)
        assert _raise(store, other, a=0) == {"a": 0}

    def test_as_many_marks_as_fit_one_operation(self, store: Store) -> None:
        gate = f"https://{secrets.token_hex(6)}.example"
        marks = {f"shop.w{n}": n + 1 for n in range(ops.MAX_MARKS)}
        assert _raise(store, gate, **marks) == marks
        assert _raise(store, gate, **dict.fromkeys(marks, 0)) == marks

    def test_racing_gates_leave_the_highest(self, store: Store) -> None:
        gate = f"https://{secrets.token_hex(6)}.example"
        with ThreadPoolExecutor(self.racers) as pool:
            list(pool.map(lambda n: _raise(store, gate, a=n), range(1, 101)))
        assert _raise(store, gate, a=0) == {"a": 100}
