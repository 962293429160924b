"""The conformance suite: limits, releases, holds, what is recorded after a burn, and marks."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from agentgate.errors import StoreUnavailable
from agentgate.stores import Store, ops
from agentgate_conformance._book import Book, Suite, ask
from agentgate_conformance._withdrawals import take_back


def _count(maximum: int, every_ms: int = 0, key: str = "count", *, for_run: bool = False) -> tuple[ops.LimitTake, ...]:
    return (ops.LimitTake(key, 1, maximum, every_ms, for_run),)


KINDS = ((0, False), (60_000, False), (0, True))  # (every_ms, for_run): for ever, in a window, in one run


def _raise(store: Store, gate: str, **marks: int) -> dict[str, int]:
    return ask(store, ops.raise_marks(gate, marks))


class Limits(Suite):
    """Limits, releases, holds, results, outcomes, deadlines, marks."""

    # limits

    def test_a_count_stops_at_its_maximum(self, store: Store) -> None:
        for every, for_run in KINDS:
            book = Book(store)
            for call in (1, 2):
                book.minted(call, limits=_count(2, every, for_run=for_run))
            assert book.refused(3, limits=_count(2, every, for_run=for_run)) == ("limit", "0")

    def test_a_sum_is_exact(self, book: Book) -> None:
        most = 2**52 - 1
        book.minted(1, limits=(ops.LimitTake("sum", most - 1, most),))
        assert book.mint(book.request(2, limits=(ops.LimitTake("sum", 2, most),))).kind == "limit"
        book.minted(3, limits=(ops.LimitTake("sum", 1, most),))
        assert book.mint(book.request(4, limits=(ops.LimitTake("sum", 1, most),))).kind == "limit"

    def test_an_amount_of_zero_is_taken_and_given_back(self, book: Book) -> None:
        for _ in range(2):
            book.minted(1, limits=(ops.LimitTake("sum", 0, 0),), ttl_ms=30)
            time.sleep(0.1)

    def test_a_mint_over_one_limit_takes_nothing_from_the_others(self, book: Book) -> None:
        book.minted(1, limits=_count(1, key="narrow"))
        assert book.refused(2, limits=_count(1, key="wide") + _count(1, key="narrow")) == ("limit", "1")
        book.minted(3, limits=_count(1, key="wide"))

    def test_a_refused_mint_leaves_the_earlier_token_alone(self, book: Book) -> None:
        _, burning = book.minted(1)
        assert book.mint(book.request(1, limits=(ops.LimitTake("none", 1, 0),))).kind == "limit"
        assert book.burn(burning).kind == "ok"

    def test_the_same_call_counts_once(self, book: Book) -> None:
        for _ in range(3):
            book.minted(1, limits=_count(1))
        assert book.mint(book.request(2, limits=_count(1))).kind == "limit"

    def test_a_window_slides(self, book: Book) -> None:
        book.burn(book.minted(1, limits=_count(2, 300))[1])
        time.sleep(0.2)
        book.burn(book.minted(2, limits=_count(2, 300))[1])
        assert book.mint(book.request(3, limits=_count(2, 300))).kind == "limit"
        time.sleep(0.15)
        book.minted(3, limits=_count(2, 300))
        assert book.mint(book.request(4, limits=_count(2, 300))).kind == "limit"

    def test_an_expired_unburned_reservation_is_given_back(self, store: Store) -> None:
        for every, for_run in KINDS:
            book = Book(store)
            book.minted(1, limits=_count(1, every, for_run=for_run), ttl_ms=30)
            time.sleep(0.1)
            book.minted(2, limits=_count(1, every, for_run=for_run))

    def test_a_live_reservation_is_not_given_back(self, book: Book) -> None:
        book.minted(1, limits=_count(1))
        assert book.mint(book.request(2, limits=_count(1))).kind == "limit"

    def test_a_burned_reservation_is_never_given_back(self, store: Store) -> None:
        for every, for_run in KINDS:
            book = Book(store)
            book.burn(book.minted(1, limits=_count(1, every, for_run=for_run), ttl_ms=60)[1])
            book.outcome(1, "failed")
            time.sleep(0.15)
            for call in (2, 3):
                assert book.mint(book.request(call, limits=_count(1, every, for_run=for_run))).kind == "limit"

    def test_a_reservation_given_back_is_taken_anew_by_its_call(self, book: Book) -> None:
        book.minted(1, limits=_count(1), ttl_ms=30)
        time.sleep(0.1)
        book.minted(2, limits=_count(1))
        assert book.mint(book.request(1, limits=_count(1))).kind == "limit"

    def test_a_limit_spans_the_runs_of_a_tenant(self, book: Book) -> None:
        other = Book(book.store, book.tenant, "run_2")
        book.minted(1, limits=_count(1), ttl_ms=300)
        assert other.mint(other.request(2, limits=_count(1))).kind == "limit"
        time.sleep(0.4)
        other.minted(2, limits=_count(1))

    def test_a_limit_of_a_run_counts_that_run_only(self, book: Book) -> None:
        other = Book(book.store, book.tenant, "run_2")
        for each in (book, other):
            each.minted(1, limits=_count(1, for_run=True))
            assert each.mint(each.request(2, limits=_count(1, for_run=True))).kind == "limit"

    def test_limits_of_all_kinds_hold_together_and_the_first_that_fails_is_named(self, book: Book) -> None:
        for index in range(3):
            limits = [ops.LimitTake(f"{index}-{n}", 1, 2, every, for_run) for n, (every, for_run) in enumerate(KINDS)]
            limits[index] = ops.LimitTake(f"narrow-{index}", 1, 1, *KINDS[index])
            book.minted(10 * index + 1, limits=tuple(limits))
            assert book.refused(10 * index + 2, limits=tuple(limits)) == ("limit", str(index))
            limits[index] = ops.LimitTake(f"wide-{index}", 1, 9, *KINDS[index])
            book.minted(10 * index + 3, limits=tuple(limits))
            assert book.mint(book.request(10 * index + 4, limits=tuple(limits))).kind == "limit"

    def test_one_limits_name_in_anothers_does_not_mix_them_up(self, book: Book) -> None:
        inner, outer = "inner", "x" * 58 + ":inner"
        for key in (outer, inner):
            book.minted(1 if key == outer else 2, limits=_count(1, key=key, for_run=True), ttl_ms=30)
        time.sleep(0.1)
        for call, key in ((3, inner), (4, outer)):
            book.minted(call, limits=_count(1, key=key, for_run=True))
            assert book.mint(book.request(9, limits=_count(1, key=key, for_run=True))).kind == "limit"

    def test_racing_mints_never_pass_a_limit(self, store: Store) -> None:
        for every, for_run in KINDS:
            book = Book(store)
            requests = [book.request(call, limits=_count(5, every, for_run=for_run)) for call in range(20)]
            assert Counter(reply.kind for reply in self.race(book.mint, requests)) == {"ok": 5, "limit": 15}

    # releases

    def test_a_call_without_its_release_is_refused_with_the_state(self, book: Book) -> None:
        take = ops.HoldTake("hold_1", "1")
        assert book.mint(book.request(hold=take)).detail == "missing"
        revision = book.hold().revision
        assert book.mint(book.request(hold=take)).detail == "pending"
        book.answer(revision, "refused")
        assert book.refused(hold=take) == ("hold", "refused")

    def test_a_release_is_spent_by_one_call_which_may_come_again(self, book: Book) -> None:
        take = book.released()
        for _ in range(2):
            book.minted(1, hold=take)
        record = book.hold()
        assert (record.state, record.call) == ("spent", f"{1:064x}")
        assert book.mint(book.request(2, hold=take)).detail == "spent"

    def test_a_release_read_at_another_revision_is_stale(self, book: Book) -> None:
        take = book.released()
        take_back(book)
        book.released()
        assert book.mint(book.request(hold=take)).detail == "stale"

    def test_a_mint_refused_by_a_limit_leaves_the_release(self, book: Book) -> None:
        take = book.released()
        assert book.mint(book.request(1, hold=take, limits=_count(0))).kind == "limit"
        assert book.hold().state == "released"

    def test_sixty_four_racers_spend_a_release_once(self, book: Book) -> None:
        take = book.released()
        requests = [book.request(call, hold=take) for call in range(64)]
        with ThreadPoolExecutor(64) as pool:
            kinds = Counter(reply.kind for reply in pool.map(book.mint, requests))
        assert kinds == {"ok": 1, "hold": 63}

    def test_the_accounts_last_key_must_be_the_same(self, book: Book) -> None:
        book.minted(1, same_key=("svc-1", "thumb-a"))
        book.minted(2, same_key=("svc-1", "thumb-a"))
        assert book.mint(book.request(3, same_key=("svc-1", "thumb-b"))).kind == "key_changed"
        book.minted(4, same_key=("svc-2", "thumb-b"))

    # holds

    def test_an_opened_hold_is_left_as_it_is(self, book: Book) -> None:
        first = book.hold()
        assert (first.state, first.body, first.call) == ("pending", b"{}", "")
        book.answer(first.revision, "pending")
        assert book.hold().body == b'{"by":"ana"}'

    def test_an_answer_to_an_old_revision_is_stale(self, book: Book) -> None:
        revision = book.hold().revision
        assert [book.answer(revision, "pending"), book.answer(revision, "released")] == ["ok", "stale"]
        assert book.hold().state == "pending"

    def test_refused_and_spent_are_final(self, book: Book) -> None:
        book.answer(book.hold("a").revision, "refused", "a")
        assert book.answer(book.hold("a").revision, "released", "a") == "final"
        book.minted(1, hold=book.released("b"))
        assert book.answer(book.hold("b").revision, "released", "b") == "final"
        assert book.answer("1", "released", "c") == "missing"

    def test_holds_are_listed_until_they_expire(self, book: Book) -> None:
        book.hold("long")
        book.send(book.opening("short", ttl_ms=30, answer_ms=30))
        time.sleep(0.1)
        book.answer(book.hold("said").revision, "refused", "said")
        found = book.ask(ops.list_holds(book.tenant))
        assert not found.next
        assert sorted((record.state, record.body) for record in found.records) == [("pending", b"{}"), ("refused", b'{"by":"ana"}')]
        of_run = book.ask(ops.list_holds(book.tenant, book.run))
        assert (len(of_run.records), of_run.next) == (2, "")
        assert book.ask(ops.list_holds(book.tenant, "run_2")).records == ()
        assert book.ask(ops.read_hold(book.tenant, "short")) is None

    # after the burn

    def test_a_result_is_recorded_once_and_only_for_a_redeemed_call(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.result(1) == "not_redeemed"
        book.burn(burning)
        assert [book.result(1, b"[1]"), book.result(1, b"[2]")] == ["ok", "already_recorded"]
        assert book.read().calls[0].facts == b"[1]"

    def test_a_failed_call_takes_no_result(self, book: Book) -> None:
        book.burn(book.minted()[1])
        book.outcome(1, "failed")
        assert book.result(1) == "already_recorded"

    def test_an_outcome_is_recorded_once_and_unknown_may_become_known(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.outcome(1, "done") == "not_redeemed"
        book.burn(burning)
        reported: tuple[ops.Outcome, ...] = ("unknown", "unknown", "done", "failed")
        assert [book.outcome(1, outcome) for outcome in reported] == ["ok", "already_recorded", "ok", "already_recorded"]
        assert book.read().calls[0].outcome == "done"

    # marks, by which a gate knows what was in force before

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
        self.race(lambda n: _raise(store, gate, a=n), range(1, 101))
        assert _raise(store, gate, a=0) == {"a": 100}

    # the protocol itself

    def test_a_call_after_its_deadline_is_refused(self, store: Store, book: Book) -> None:
        op = ops.mint(book.request())
        try:
            store.call(op, time.monotonic() - 0.001)
        except StoreUnavailable:
            assert book.read().calls == ()
        else:
            raise AssertionError("a late call was answered")

    def test_the_store_passes_its_own_check(self, store: Store) -> None:
        assert isinstance(store.check(), tuple)

    def test_large_values_come_back_whole(self, book: Book) -> None:
        book.burn(book.minted()[1])
        facts = bytes(range(256)) * 4000
        assert book.result(1, facts) == "ok"
        assert book.read().calls[0].facts == facts
