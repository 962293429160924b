"""The conformance suite: what a user takes back, and what a closed run leaves."""

from __future__ import annotations

import time

from agentgate.stores import Store, ops
from agentgate_conformance._book import Book, Suite


def take_back(book: Book, *, closing: bool = False) -> None:
    """The user's next turn takes back, or the run is closed; not in the millisecond of what came before it."""
    time.sleep(0.002)
    op = ops.close_run(book.tenant, book.run) if closing else ops.add_turn(book.tenant, book.run, "no, stop", harmless_after=None)
    assert book.ask(op) == "ok"
    time.sleep(0.002)


class Withdrawals(Suite):
    """Tokens and holds that a turn, or closing the run, makes void."""

    def test_what_was_minted_before_is_not_burned(self, store: Store) -> None:
        for closing in (False, True):
            book = Book(store)
            _, burning = book.minted()
            take_back(book, closing=closing)
            assert book.burn(burning).kind == "revoked"
            assert book.burn(burning).kind == "revoked"  # and stays so

    def test_what_is_minted_afterwards_is(self, book: Book) -> None:
        take_back(book)
        _, burning = book.minted()
        assert book.burn(burning).kind == "ok"

    def test_the_same_call_can_be_minted_again(self, book: Book) -> None:
        _, before = book.minted()
        take_back(book)
        _, again = book.minted()
        assert book.burn(before).kind == "used"
        assert book.burn(again).kind == "ok"

    def test_a_turn_that_takes_nothing_back_voids_nothing(self, book: Book) -> None:
        _, burning = book.minted()
        book.send(ops.add_turn(book.tenant, book.run, "thanks", harmless_after=1))
        assert book.burn(burning).kind == "ok"

    def test_a_turn_behind_others_than_its_reader_knew_is_not_taken_for_harmless(self, book: Book) -> None:
        book.send(ops.add_turn(book.tenant, book.run, "please refund it", harmless_after=1))
        _, burning = book.minted()
        before = book.read()
        for known in (1, 3):
            assert book.ask(ops.add_turn(book.tenant, book.run, "park that", harmless_after=known)) == "stale"
        assert book.read() == before
        assert book.burn(burning).kind == "ok"

    def test_a_burned_call_goes_on(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.burn(burning).kind == "ok"
        take_back(book)
        assert book.result(1) == "ok"
        assert book.outcome(1, "done") == "ok"

    def test_a_hold_is_cancelled_pending_or_released(self, store: Store) -> None:
        for closing in (False, True):
            book = Book(store)
            waiting, take = book.hold("pending"), book.released("released")
            request = book.request(hold=take)
            take_back(book, closing=closing)
            for name in ("pending", "released"):
                record = book.ask(ops.read_hold(book.tenant, name))
                assert record is not None
                assert record.state == "cancelled"
            assert book.answer(waiting.revision, "released", "pending") == "final"
            refused = book.mint(request._replace(revision=book.read().revision))
            assert (refused.kind, refused.detail) == (("closed", "") if closing else ("hold", "cancelled"))

    def test_a_cancelled_hold_opens_anew_and_the_old_answer_does_not_fit(self, book: Book) -> None:
        old = book.hold()
        take_back(book)
        new = book.hold()
        assert (new.state, new.body) == ("pending", b"{}")
        assert new.revision != old.revision
        assert book.answer(old.revision, "released") == "stale"
        book.minted(1, hold=book.released())

    def test_a_release_that_a_void_token_took_is_void_too(self, book: Book) -> None:
        take = book.released()
        _, burning = book.minted(1, hold=take)
        take_back(book)
        assert book.burn(burning).kind == "revoked"
        assert book.mint(book.request(1, hold=take)).detail == "cancelled"

    def test_a_release_that_ran_stays_spent(self, book: Book) -> None:
        _, burning = book.minted(1, hold=book.released())
        assert book.burn(burning).kind == "ok"
        take_back(book)
        assert book.hold().state == "spent"

    def test_a_refused_hold_stays_refused(self, book: Book) -> None:
        book.answer(book.hold().revision, "refused")
        take_back(book)
        assert book.hold().state == "refused"

    def test_it_ends_with_the_run(self, book: Book) -> None:
        op = ops.open_run(book.tenant, "short", b"{}", "hi", 60, whose="lee", most=9)
        book.send(op)
        book.send(ops.add_turn(book.tenant, "short", "stop", harmless_after=None))
        time.sleep(0.2)
        assert book.ask(ops.read_run(book.tenant, "short")) is None
