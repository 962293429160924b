"""The conformance suite: what a run or its user may use up, however many ask at once."""

from __future__ import annotations

import time
from collections import Counter

from agentgate.stores import Store, ops
from agentgate_conformance._book import Book, Suite


def _opened(book: Book, run: str, whose: str = "user lee", most: int = 3) -> str:
    return book.ask(ops.open_run(book.tenant, run, b"{}", "hi", 60_000, whose=whose, most=most)).kind


def _denied(book: Book, most: int = 3) -> str:
    return book.ask(ops.count_denial(book.tenant, book.run, most))


def _held(book: Book, hold_id: str, most: int = 2, answer_ms: int = 60_000) -> str:
    record = book.held(hold_id, most, answer_ms)
    return record.state if record is not None else "too many"


class Budgets(Suite):
    """Denials and open holds of a run, runs of a user."""

    def test_the_last_denial_closes_the_run_and_says_so(self, book: Book) -> None:
        _, burning = book.minted(1)
        hold = book.hold()
        before = book.read()
        assert [_denied(book) for _ in range(5)] == ["ok", "ok", "spent", "closed", "closed"]
        after = book.read()
        assert (before.closed, before.denials_spent) == (False, False)
        assert (after.closed, after.denials_spent, after.revision == before.revision) == (True, True, False)
        assert book.refused(2) == ("closed", "denials")
        assert book.burn(burning).kind == "revoked"
        after_that = book.ask(ops.read_hold(book.tenant, "hold_1"))
        assert (hold.state, after_that and after_that.state) == ("pending", "cancelled")
        assert book.ask(ops.close_run(book.tenant, book.run)) == "closed"
        assert book.read().denials_spent

    def test_denials_are_of_one_run_and_of_one_that_is_open(self, book: Book) -> None:
        other = Book(book.store, book.tenant, "run_2")
        assert [_denied(book, 1), _denied(other, 2)] == ["spent", "ok"]
        other.ask(ops.close_run(other.tenant, other.run))
        assert (_denied(other), other.read().denials_spent, other.refused(1)) == ("closed", False, ("closed", ""))
        assert book.ask(ops.count_denial(book.tenant, "none", 1)) == "missing"

    def test_racing_denials_close_the_run_once(self, book: Book) -> None:
        assert Counter(self.race(lambda _: _denied(book, 20), range(40))) == {"ok": 19, "spent": 1, "closed": 20}

    def test_so_many_holds_of_a_run_are_pending_at_once(self, book: Book) -> None:
        other = Book(book.store, book.tenant, "run_2")
        assert [_held(book, "a"), _held(book, "b"), _held(book, "c"), _held(book, "a")] == ["pending", "pending", "too many", "pending"]
        assert book.ask(ops.read_hold(book.tenant, "c")) is None
        assert _held(other, "d") == "pending"
        book.answer("1", "refused", "a")
        assert [_held(book, "c"), _held(book, "e")] == ["pending", "too many"]

    def test_a_hold_that_nobody_may_answer_any_more_is_not_open(self, book: Book) -> None:
        _held(book, "a", answer_ms=1)
        _held(book, "b")
        book.send(ops.add_turn(book.tenant, book.run, "thanks", harmless_after=1))
        time.sleep(0.01)
        assert [_held(book, "c"), _held(book, "d")] == ["pending", "too many"]
        book.send(ops.add_turn(book.tenant, book.run, "no, stop", harmless_after=None))
        time.sleep(0.01)  # what was held in the millisecond of the turn is taken back too
        assert [_held(book, "d"), _held(book, "b"), _held(book, "e")] == ["pending", "pending", "too many"]

    def test_racing_calls_open_no_more_holds(self, book: Book) -> None:
        assert Counter(self.race(lambda n: _held(book, f"h{n}", 5), range(30))) == {"pending": 5, "too many": 25}

    def test_so_many_runs_of_one_in_an_hour_in_one_tenant(self, store: Store) -> None:
        book, elsewhere = Book(store), Book(store)
        assert [_opened(book, f"r{n}") for n in range(5)] == ["ok"] * 3 + ["too_many"] * 2
        assert book.ask(ops.read_run(book.tenant, "r3")) is None
        assert [_opened(book, "r0"), _opened(book, "r6", "agent lee"), _opened(elsewhere, "r7")] == ["exists", "ok", "ok"]

    def test_racing_hosts_open_no_more_runs(self, book: Book) -> None:
        assert Counter(self.race(lambda n: _opened(book, f"r{n}", most=7), range(30))) == {"ok": 7, "too_many": 23}
