"""The conformance suite: what is to be told of holds, by whom, and how often."""

from __future__ import annotations

import time
from typing import Literal

from agentgate.stores import ops
from agentgate_conformance._book import Book, Suite
from agentgate_conformance._withdrawals import take_back

_HOOK, _OTHER = "a" * 64, "b" * 64


def _next(book: Book, hook: str = _HOOK, lease_ms: int = 60_000) -> ops.Notification | Literal["more", "none"]:
    return book.ask(ops.take_notification(book.tenant, hook, lease_ms, 0))


def _told(book: Book, hook: str = _HOOK) -> tuple[str, str, int, bytes]:
    """The next event, which is told."""
    found = _next(book, hook)
    assert isinstance(found, ops.Notification)
    assert book.ask(ops.finish_notification(book.tenant, hook, found)) == "ok"
    return found.what, found.hold_id, found.number, found.event


def _answer(book: Book, state: ops.HoldState, event: bytes, hold_id: str = "a") -> None:
    op = ops.answer_hold(book.tenant, hold_id, book.hold(hold_id).revision, b"{}", state, event=event)
    assert book.ask(op) == "ok"


class Notifications(Suite):
    """The events of holds, for each hook once."""

    def test_each_hook_is_told_of_the_hold_and_of_each_answer_in_their_order(self, book: Book) -> None:
        assert _next(book) == "none"
        book.hold("a")
        assert _told(book) == ("held", "a", 0, b"")
        assert _next(book) == "none"
        _answer(book, "pending", b"one")
        _answer(book, "released", b"two")
        assert [_told(book) for _ in range(2)] == [("answered", "a", 1, b"one"), ("answered", "a", 2, b"two")]
        _answer(book, "refused", b"three")
        assert _told(book) == ("answered", "a", 3, b"three")
        assert [_next(book), _next(book)] == ["none", "none"]
        assert [_told(book, _OTHER)[2] for _ in range(4)] == [0, 1, 2, 3]
        assert _next(Book(book.store)) == "none"

    def test_what_nobody_answered_is_told_at_last(self, book: Book) -> None:
        book.hold("a", answer_ms=1)
        time.sleep(0.01)
        assert [_told(book)[:2] for _ in range(2)] == [("held", "a"), ("expired", "a")]
        assert _next(book) == "none"
        book.hold("b")
        assert _told(book)[:2] == ("held", "b")
        take_back(book)
        assert _told(book)[:2] == ("cancelled", "b")
        assert _next(book) == "none"
        book.hold("b")  # opened anew
        assert _told(book)[:2] == ("held", "b")

    def test_what_somebody_tells_nobody_else_gets_until_they_are_late(self, book: Book) -> None:
        book.hold("a")
        assert isinstance(_next(book), ops.Notification)
        assert (_next(book), _next(book, _OTHER) == "none") == ("none", False)
        book = Book(book.store)
        book.hold("a")
        first = _next(book, lease_ms=1)
        assert isinstance(first, ops.Notification)
        time.sleep(0.01)
        again = _next(book)
        assert again == first
        assert book.ask(ops.finish_notification(book.tenant, _HOOK, first)) == "ok"
        assert _next(book) == "none"

    def test_what_was_told_of_a_hold_is_not_told_of_one_opened_anew(self, book: Book) -> None:
        book.hold("a")
        late = _next(book)
        assert isinstance(late, ops.Notification)
        take_back(book)
        book.hold("a")
        assert book.ask(ops.finish_notification(book.tenant, _HOOK, late)) == "missing"
        assert book.ask(ops.finish_notification(book.tenant, _HOOK, late._replace(hold_id="nobody"))) == "missing"
        assert _told(book)[0] == "held"

    def test_of_racers_one_tells_each_event(self, book: Book) -> None:
        for name in ("a", "b", "c"):
            book.hold(name)
        found = self.race(lambda _: _next(book))
        assert sorted(each.hold_id for each in found if isinstance(each, ops.Notification)) == ["a", "b", "c"]

    def test_no_script_looks_at_more_than_a_page(self, book: Book) -> None:
        for name in ("a", "b", "c"):
            book.hold(name)

        def look(first: int) -> ops.Notification | Literal["more", "none"]:
            return book.ask(ops.take_notification(book.tenant, _HOOK, 60_000, first, page=2))

        assert len({each.hold_id for each in (look(0), look(0)) if isinstance(each, ops.Notification)}) == 2
        assert look(0) == "more"
        assert isinstance(look(2), ops.Notification)
        assert [look(2), look(9)] == ["none", "none"]
