"""The conformance suite: whoever may answer a hold finds it, however many wait for others."""

from __future__ import annotations

import time
from collections.abc import Iterator

from agentgate.stores import ops
from agentgate_conformance._book import Book, Suite
from agentgate_conformance._withdrawals import take_back


def _pages(book: Book, *groups: str, user: str = "mona") -> Iterator[ops.HoldList]:
    """What waits for a person, page by page."""
    after = ""
    while True:
        page = book.ask(ops.waiting_holds(book.tenant, f"user {user}", groups, user, after))
        yield page
        if not (after := page.next):
            return


def _names(*pages: ops.HoldList) -> list[str]:
    return [record.place.partition(".")[2] for page in pages for record in page.records]


def _waits(book: Book, *groups: str, user: str = "mona") -> list[str]:
    return _names(*_pages(book, *groups, user=user))


class WaitingHolds(Suite):
    """Lists of what waits for a group or a person."""

    def test_what_waits_for_others_hides_nothing_and_every_page_says_where_it_stands(self, book: Book) -> None:
        many = [f"h{number:03}" for number in range(ops.WAITING + 2)]
        for name in many:
            book.ask(book.opening(name, asks=[("group", "leads"), ("group", "owners")]))
        book.ask(book.opening("one", asks=[("group", "auditors")]))
        book.ask(book.opening("mine", asks=[("user", "mona")]))
        pages = list(_pages(book, "leads", "owners"))
        assert [(len(page.records), page.total, page.before) for page in pages] == [(ops.WAITING, 53, 0), (3, 53, ops.WAITING)]
        assert _names(*pages) == [*many, "mine"]
        assert _waits(book, "auditors", user="kim") == ["one"]
        assert _waits(book, "Auditors", user="Mona") == []

    def test_nobody_finds_what_they_asked_for_unless_they_are_asked(self, book: Book) -> None:
        book.ask(book.opening("a"))
        book.ask(book.opening("b", asks=[("group", "leads"), ("user", "lee")]))
        (page,) = _pages(book, "leads", user="lee")
        assert (_names(page), page.total) == (["b"], 1)

    def test_what_is_answered_taken_back_or_over_waits_for_nobody(self, book: Book) -> None:
        book.hold("four", answer_ms=1)
        for name in ("one", "two", "three"):
            book.hold(name)
        time.sleep(0.01)
        assert book.answer(book.hold("one").revision, "released", "one") == "ok"
        assert book.answer(book.hold("two").revision, "pending", "two") == "ok"
        ended = book.ask(ops.ended_holds(book.tenant, ["leads"], "mona"))
        assert _names(ended) == ["one", "four"]
        assert sorted(_waits(book, "leads")) == ["three", "two"]
        take_back(book)
        (page,) = _pages(book, "leads")
        assert (page.records, page.total) == ((), 0)
        book.hold("three")  # opened anew
        assert _waits(book, "leads") == ["three"]

    def test_whoever_answered_finds_it_afterwards(self, book: Book) -> None:
        op = ops.answer_hold(book.tenant, "a", book.hold("a").revision, b"{}", "released", user="ann")
        assert book.ask(op) == "ok"
        assert _names(book.ask(ops.ended_holds(book.tenant, [], "ann"))) == ["a"]
        assert _names(book.ask(ops.ended_holds(book.tenant, [], "mona"))) == []

    def test_one_user_has_so_many_open_in_all_runs_and_what_ended_makes_room(self, book: Book) -> None:
        other = Book(book.store, book.tenant, "run_2")

        def opens(where: Book, name: str, whose: str = "user lee") -> bool:
            return where.ask(where.opening(name, most_own=3, whose=whose, act=f"{ord(name):064x}")) is not None

        assert [opens(book, "a"), opens(book, "b"), opens(other, "c"), opens(other, "d")] == [True, True, True, False]
        assert opens(other, "e", "user kim")
        assert book.ask(ops.read_hold(book.tenant, "d")) is None
        assert book.answer(book.hold("a").revision, "refused", "a") == "ok"
        assert [opens(other, "d"), opens(other, "f")] == [True, False]
        take_back(other)
        assert [opens(book, "g"), opens(book, "h"), opens(book, "i")] == [True, True, False]

    def test_a_list_has_pages_and_a_run_has_its_own(self, book: Book) -> None:
        names = [f"h{number}" for number in range(5)]
        for name in names:
            book.hold(name)
        Book(book.store, book.tenant, "run_2").hold("other")
        for run, found in (("", {*names, "other"}), (book.run, {*names}), ("run_2", {"other"})):
            after, pages = "", []
            while True:
                pages.append(book.ask(ops.list_holds(book.tenant, run, after, page=2)))
                if not (after := pages[-1].next):
                    break
            assert set(_names(*pages)) == found
            assert len(pages) == (len(found) + 1) // 2
        assert book.ask(ops.old_holds(book.tenant)).records == ()
