"""Limits against a small model that keeps a plain list and counts it anew each time, on a clock that the test moves.

Source of the rules: a limit counts what was minted in its window; a reservation is given back only when its token expired
unburned (a key lives through the millisecond it expires in); what was burned counts until it leaves the window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import fakeredis._helpers as fake_helpers
import fakeredis._socket._base as fake_expiry
import fakeredis.commands_mixins.server_mixin as fake_time
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentgate.stores import open_store, ops
from agentgate.testing._book import Book

TTL = 10  # seconds


class Clock:
    """The `time` module as fakeredis sees it, at a time of our choosing."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@dataclass
class Taken:
    """One reservation as the model keeps it."""

    call: int
    amount: int
    at: float
    burned: bool = False


class Model:
    """What a limit must answer."""

    def __init__(self, maximum: int, every: int) -> None:
        self.maximum, self.every, self.taken = maximum, every, dict[int, Taken]()

    def counts(self, taken: Taken, now: float) -> bool:
        in_window = not self.every or now - taken.at < self.every
        return in_window and (taken.burned or now - taken.at <= TTL)

    def mint(self, call: int, amount: int, now: float) -> str:
        old = self.taken.get(call)
        if old and old.burned:
            return "outcome_unknown"
        others = sum(t.amount for t in self.taken.values() if t.call != call and self.counts(t, now))
        if others + amount > self.maximum:
            return "limit"
        self.taken[call] = Taken(call, amount, now)
        return "ok"

    def burn(self, call: int, now: float) -> str:
        taken = self.taken.get(call)
        if taken is None or taken.burned or now - taken.at > TTL:
            return "used"
        taken.burned = True
        return "ok"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("mint"), st.integers(0, 7), st.integers(0, 5)),
        st.tuples(st.just("burn"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 9, 10, 11, 30]), st.just(0)),
    ),
    min_size=4,
    max_size=30,
)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(fake_expiry, "time", clock)
    monkeypatch.setattr(fake_time, "time", clock)
    monkeypatch.setattr(fake_helpers, "time", clock)
    return clock


@given(steps=steps, maximum=st.integers(0, 12), every=st.sampled_from([0, 5, 10, 25]), for_run=st.booleans())
@example(steps=[("mint", 0, 1), ("wait", 10, 0), ("mint", 1, 1)], maximum=1, every=0, for_run=False)  # in the very millisecond it expires
@example(steps=[("mint", 0, 1), ("wait", 10, 0), ("mint", 1, 1)], maximum=1, every=0, for_run=True)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_limit_answers_as_the_model_does(clock, steps, maximum, every, for_run):
    store, model = open_store("memory://"), Model(maximum, every)
    book = Book(store)
    book.send(ops.open_run(book.tenant, "long", b"{}", "hi", 10_000_000))
    book.run = "long"
    tokens: dict[int, ops.BurnRequest] = {}
    for kind, call, amount in steps:
        if kind == "wait":
            clock.now += call
        elif kind == "mint":
            beside = ops.LimitTake("beside", amount, 2**40, for_run=not for_run)  # another one in the way
            limits = (beside, ops.LimitTake("sum", amount, maximum, every * 1000, for_run=for_run))
            request = book.request(call, limits=limits, ttl_ms=TTL * 1000)
            reply = book.mint(request)
            assert reply.kind == model.mint(call, amount, clock.now)
            if reply.kind == "ok":
                tokens[call] = book.burning(request, reply.lineage)
        elif call in tokens:
            assert book.burn(tokens[call]).kind == model.burn(call, clock.now)
    store.close()
