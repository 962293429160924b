"""How often somebody may ask: what was saved up has an end, and so has what a process remembers of whoever asks."""

from __future__ import annotations

import pytest

from agentgate.service import line
from agentgate.service.line import BURST, Rates


def asked(rates: Rates, times: int, now: float, name: str = "client notes") -> list[float]:
    """What each of so many questions at one moment is answered: seconds to wait."""
    return [rates.take(name, now) for _ in range(times)]


def test_who_was_away_for_a_day_has_saved_up_no_more_than_a_burst() -> None:
    rates = Rates(2.0)
    assert asked(rates, 2 * BURST + 1, 100.0) == [0.0] * 2 * BURST + [0.5]
    assert asked(rates, 2 * BURST + 1, 100.0 + 86_400) == [0.0] * 2 * BURST + [0.5]


def test_a_refused_question_costs_nothing_and_one_more_comes_with_time() -> None:
    rates = Rates(2.0, burst=1)
    assert asked(rates, 4, 100.0) == [0.0, 0.5, 0.5, 0.5]
    assert asked(rates, 2, 100.25) == [0.25, 0.25]
    assert asked(rates, 2, 100.5) == [0.0, 0.5]


def test_each_name_has_a_bucket_of_its_own() -> None:
    rates = Rates(1.0, burst=1)
    assert asked(rates, 2, 100.0, "client notes") == [0.0, 1.0]
    assert asked(rates, 1, 100.0, "client other") == [0.0]


def test_whoever_asks_under_ever_new_names_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_KEPT", 3)
    rates = Rates(1.0, burst=1)
    assert asked(rates, 2, 100.0, "oldest") == [0.0, 1.0]
    for name in ("a", "b"):
        rates.take(name, 100.0)
    assert asked(rates, 1, 100.0, "oldest") == [1.0]  # asked again: now `a` is the one who asked longest ago
    rates.take("c", 100.0)
    assert len(rates._buckets) == 3
    assert (asked(rates, 1, 100.0, "oldest"), asked(rates, 1, 100.0, "a")) == ([1.0], [0.0])
