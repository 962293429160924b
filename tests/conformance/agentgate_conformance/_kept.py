"""The conformance suite: what a service keeps for a while."""

from __future__ import annotations

import time

from agentgate.stores import Store, ops
from agentgate_conformance._book import Book, Suite, ask


class Keepings(Suite):
    """Values kept under a name."""

    def test_what_is_kept_first_stays_and_is_read_back(self, store: Store) -> None:
        tenant = Book(store).tenant
        assert ask(store, ops.kept(tenant, "deferred", "a")) is None
        assert ask(store, ops.keep(tenant, "deferred", "a", b"one", ttl_ms=60_000)) == "ok"
        assert ask(store, ops.keep(tenant, "deferred", "a", b"two", ttl_ms=60_000)) == "exists"
        assert ask(store, ops.kept(tenant, "deferred", "a")) == b"one"
        for other in (ops.kept(tenant, "assertion", "a"), ops.kept(tenant, "deferred", "b"), ops.kept("somebody", "deferred", "a")):
            assert ask(store, other) is None

    def test_what_is_kept_ends(self, store: Store) -> None:
        tenant = Book(store).tenant
        assert ask(store, ops.keep(tenant, "assertion", "a", b"1", ttl_ms=30)) == "ok"
        time.sleep(0.1)
        assert ask(store, ops.kept(tenant, "assertion", "a")) is None

    def test_of_racers_one_keeps(self, store: Store) -> None:
        tenant = Book(store).tenant
        answers = self.race(lambda _: ask(store, ops.keep(tenant, "assertion", "once", b"1", ttl_ms=60_000)))
        assert sorted(answers) == ["exists"] * (self.racers - 1) + ["ok"]
