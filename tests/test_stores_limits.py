"""Limits against a small model that keeps a plain list and counts it anew each time, on a clock that the test moves.

Source of the rules: a limit counts what was minted in its window, and for at most a sixtieth of the window longer; a reservation is given
back only when its token expired unburned (a key lives through the millisecond it expires in); what was burned counts until it leaves the
window. However many calls a limit counts, a mint looks at few of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import fakeredis._helpers as fake_helpers
import fakeredis._socket._base as fake_expiry
import fakeredis.commands_mixins.server_mixin as fake_time
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentgate.stores import open_store, ops
from agentgate.stores.memory import MemoryStore
from agentgate_conformance._book import Book
from tests.effort import examples
from tests.servers import Server, redis_binary, valkey_binary

TTL = 10  # seconds


class Clock:
    """The `time` module as fakeredis sees it, at a time of our choosing."""

    def __init__(self) -> None:
        self.ms = 1_000_000_000

    def time(self) -> float:
        return self.ms / 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@dataclass
class Taken:
    """One reservation as the model keeps it."""

    call: int
    amount: int
    at: int  # ms
    burned: bool = False


class Model:
    """What a limit must answer, where `longer` (ms) is how much longer than its window it counts."""

    def __init__(self, every: int) -> None:
        self.every, self.taken = every, dict[int, Taken]()

    def counts(self, taken: Taken, now: int, longer: int) -> bool:
        in_window = not self.every or now - taken.at < self.every + longer
        return in_window and (taken.burned or now - taken.at <= TTL * 1000)

    def total(self, call: int, amount: int, now: int, longer: int = 0) -> int:
        return amount + sum(t.amount for t in self.taken.values() if t.call != call and self.counts(t, now, longer))

    def burn(self, call: int, now: int) -> str:
        taken = self.taken.get(call)
        if taken is None or taken.burned or now - taken.at > TTL * 1000:
            return "used"
        taken.burned = True
        return "ok"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("mint"), st.integers(0, 7), st.integers(0, 5)),
        st.tuples(st.just("burn"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([1, 50, 150, 1000, 4000, 9000, 9999, 10_000, 10_001, 30_000]), st.just(0)),
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


@given(steps=steps, maximum=st.integers(0, 12), every=st.sampled_from([0, 1, 5000, 10_000, 25_001]), for_run=st.booleans())
@example(steps=[("mint", 0, 1), ("wait", 10_000, 0), ("mint", 1, 1)], maximum=1, every=0, for_run=False)  # in the very ms it expires
@example(steps=[("mint", 0, 1), ("wait", 10_000, 0), ("mint", 1, 1)], maximum=1, every=0, for_run=True)
@example(
    steps=[("mint", 0, 1), ("wait", 10_001, 0), ("mint", 0, 1), ("mint", 1, 1)], maximum=1, every=25_001, for_run=False
)  # its own, due
@example(steps=[("mint", 0, 1), ("wait", 10_001, 0), ("mint", 0, 1), ("mint", 1, 1)], maximum=1, every=0, for_run=True)
@example(  # minted again, it counts in the later bucket only
    steps=[("mint", 0, 1), ("wait", 9000, 0), ("mint", 0, 1), ("burn", 0, 0), ("wait", 17_000, 0), ("mint", 1, 1)],
    maximum=1,
    every=25_001,
    for_run=False,
)
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_limit_never_counts_less_than_the_model_nor_longer_than_one_bucket_more(clock, steps, maximum, every, for_run):
    store, model = open_store("memory://"), Model(every)
    bucket = -(-every // 60)
    book = Book(store)
    book.send(ops.open_run(book.tenant, "long", b"{}", "hi", 10_000_000, whose="lee", most=9))
    book.run = "long"
    tokens: dict[int, ops.BurnRequest] = {}
    for kind, call, amount in steps:
        if kind == "wait":
            clock.ms += call
        elif kind == "mint":
            beside = ops.LimitTake("beside", amount, 2**40, for_run=not for_run)  # another one in the way
            limits = (beside, ops.LimitTake("sum", amount, maximum, every, for_run=for_run))
            request = book.request(call, limits=limits, ttl_ms=TTL * 1000)
            reply = book.mint(request)
            if call in model.taken and model.taken[call].burned:
                assert reply.kind == "outcome_unknown"
            elif model.total(call, amount, clock.ms) > maximum:
                assert (reply.kind, reply.detail) == ("limit", "1")
            elif model.total(call, amount, clock.ms, bucket) <= maximum:
                assert reply.kind == "ok"
            if reply.kind == "ok":
                model.taken[call] = Taken(call, amount, clock.ms)
                tokens[call] = book.burning(request, reply.lineage)
        elif call in tokens:
            assert book.burn(tokens[call]).kind == model.burn(call, clock.ms)
    store.close()


def test_a_clock_that_goes_back_brings_nothing_back_that_left_the_window(clock):
    book = Book(open_store("memory://"))
    limit = (ops.LimitTake("count", 1, 2, 60_000),)
    book.burn(book.minted(1, limits=limit, ttl_ms=1000, read=True)[1])
    clock.ms += 70_000
    book.burn(book.minted(2, limits=limit, ttl_ms=1000)[1])
    clock.ms -= 40_000
    book.burn(book.minted(1, limits=limit, ttl_ms=1000, read=True)[1])  # the same call: its earlier share was dropped
    assert book.refused(3, limits=limit) == ("limit", "0")
    clock.ms += 40_000 + 61_000
    book.minted(3, limits=limit)


def state_of(book: Book, take: ops.HoldTake) -> str:
    record = book.ask(ops.read_hold(book.tenant, take.hold_id))
    assert record is not None
    return record.state


@pytest.mark.parametrize("closing", [False, True])
def test_what_was_minted_and_held_is_taken_back_where_the_clock_went_back_meanwhile(clock, closing):
    """A step of the store's clock, or a new primary that is a little behind."""
    book = Book(open_store("memory://"))
    take = book.released()
    _, burning = book.minted()
    clock.ms -= 20_000
    book.send(ops.close_run(book.tenant, book.run) if closing else ops.add_turn(book.tenant, book.run, "no, stop", harmless_after=None))
    assert book.burn(burning).kind == "revoked"
    assert state_of(book, take) == "cancelled"
    if not closing:  # what the user asks for afterwards counts, without waiting for the clock
        assert book.burn(book.minted(2)[1]).kind == "ok"
        book.minted(3, hold=book.released())


def test_that_the_user_took_back_is_known_as_long_as_what_was_held(clock):
    book = Book(open_store("memory://"))
    book.released()
    clock.ms += 500_000
    take = book.released("later")
    clock.ms += 90_000
    book.send(ops.add_turn(book.tenant, book.run, "no, stop", harmless_after=None))
    clock.ms += 100_000  # the first hold is over, and so is the run
    assert state_of(book, take) == "cancelled"


def test_a_call_that_comes_again_after_its_counter_has_gone_takes_one_share(clock):
    book = Book(open_store("memory://"))
    limit = (ops.LimitTake("count", 1, 1, 1000),)
    book.burn(book.minted(1, limits=limit, read=True, ttl_ms=1000)[1])
    clock.ms += 500_000  # the counter's own keys have expired
    book.minted(1, limits=limit, read=True, ttl_ms=1000)
    assert book.refused(2, limits=limit) == ("limit", "0")


def test_a_call_that_comes_again_where_its_counter_was_deleted_takes_one_share():
    store = MemoryStore()
    book, limit = Book(store), (ops.LimitTake("ever", 1, 1),)
    book.minted(1, limits=limit)
    store._client.delete(f"ag:{{{book.tenant}}}:limit:ever")
    book.minted(1, limits=limit)
    assert book.refused(2, limits=limit) == ("limit", "0")


COUNTED = examples(1000, 400)  # calls: more than any one mint may look at
WINDOWS = tuple(ops.LimitTake(f"window {n}", 1, 10**6, 3000 + n) for n in range(3))


@pytest.mark.deadline
@pytest.mark.parametrize("binary", [redis_binary, valkey_binary])
def test_however_many_calls_were_counted_a_mint_looks_at_few_of_them(tmp_path, binary):
    server = Server(binary(), tmp_path)
    try:
        store, client = open_store(server.url), redis.Redis(port=server.port)
        book = Book(store)

        def work(call: int, limits: tuple[ops.LimitTake, ...]) -> int:
            """How many commands a mint's script runs."""
            client.config_resetstat()
            assert book.mint(book.request(call, revision=revision, limits=limits, ttl_ms=2500)).kind == "ok"
            return sum(each["calls"] for each in client.info("commandstats").values())

        revision = book.read().revision
        alone = work(0, WINDOWS)
        ever = (ops.LimitTake("ever", 1, COUNTED),)
        for first in range(0, COUNTED, 200):  # in many runs: each stores 500
            other = Book(store, book.tenant, f"run_{first + 2}")
            whole = other.read().revision
            for call in range(first, first + 200):
                assert other.mint(other.request(call, revision=whole, limits=WINDOWS + ever, ttl_ms=2500)).kind == "ok"
        time.sleep(3.2)  # all of it left the windows, unburned
        many = work(3001, WINDOWS)
        assert many < alone + 3 * 30
        sizes = [client.hlen(key) for key in client.keys("*limit:window*")]
        assert len(sizes) == 3
        assert max(sizes) < 70
        assert work(3002, ever) < 200 * 8  # at its maximum, it gives back what it can prove: a bounded part
        assert client.zcard(client.keys("*times:ever")[0]) == COUNTED - 200 + 1
        book.minted(3003, limits=tuple(take._replace(maximum=4) for take in WINDOWS))
    finally:
        server.stop()


def test_what_was_reserved_is_settled_as_calls_come(clock):
    store = MemoryStore()
    book = Book(store)
    limits = (ops.LimitTake("window", 1, 10**6, 10**9), ops.LimitTake("run", 1, 10**6, for_run=True))
    for call in range(100):
        book.burn(book.minted(call, limits=limits, ttl_ms=1000, read=True)[1])
    clock.ms += 2000
    for call in range(100, 130):
        book.minted(call, limits=limits, ttl_ms=100_000)
    for key in ("times:window", f"reserved:{book.run}"):
        assert store._client.zcard(f"ag:{{{book.tenant}}}:{key}") == 30
