"""The conformance suite: a tenant's history, by which a process notices that a store has lost a part of it."""

from __future__ import annotations

import time
from typing import Any

from agentgate.stores import Store, ops, recovery, server_id
from agentgate.stores._op import split
from agentgate_conformance._book import AUDIENCE, WHO, Book, Suite

_LIMIT = (ops.LimitTake("count", 1, 9),)


def _act(book: Book, call: int = 1, **more: Any) -> str:
    """An act that is minted and redeemed; the history after it."""
    return book.burn(book.minted(call, **more)[1]).history


def _known(book: Book) -> recovery.HistoryRecord:
    return book.ask(recovery.read_history(book.tenant))


def beyond(history: str) -> str:
    """One event more than the store knows: what somebody remembers who saw what it has lost."""
    epoch, count = split(history)
    return f"{epoch} {count + 1}"


def accepted(book: Book, seen: str) -> str:
    """A person accepts that this is lost of the audience's history, and what stopped the tenant for it; what still is."""
    epoch, count = split(seen)
    stopped = {server: dict([split(lost)]) for server, lost in _known(book).lost.items() if server != server_id(AUDIENCE)}
    left = book.ask(recovery.accept_history(book.tenant, {epoch: count}, count, server_id(AUDIENCE)))
    return left or "".join(book.ask(recovery.accept_history(book.tenant, ends, 0, server)) for server, ends in stopped.items())


class Histories(Suite):
    """A history counts what must never be forgotten, and what is missing stops everything but plain reads."""

    def test_histories_count_redemptions_of_an_audience_and_a_tenants_spent_releases_and_revocations(self, book: Book) -> None:
        assert book.mint(book.request()).history == ""
        assert split(_act(book))[1] == 1
        assert split(_act(book, 2, read=True, limits=_LIMIT))[1] == 2
        reply = book.mint(book.request(3, hold=book.released()))
        assert (split(reply.history)[1], split(reply.redemptions)[1], reply.detail) == (1, 2, "spent")
        assert book.mint(book.request(3, hold=ops.HoldTake("hold_1", "1"))).detail == ""  # spent by this very call
        for _ in range(2):
            book.revoke("user", "another")
        assert split(book.mint(book.request(4)).history)[1] == 2
        known = _known(book)
        assert {known.whose[epoch]: count for epoch, count in known.ends.items()} == {"": 2, server_id(AUDIENCE): 2}
        assert known.lost == {}

    def test_redemptions_for_another_audience_count_in_another_history(self, book: Book) -> None:
        first = _act(book)
        assert split(_act(book, 2, audience="https://other.acme.example"))[1] == 1
        assert book.mint(book.request(3, redemptions=first)).kind == "ok"
        assert book.refused(4, audience="https://other.acme.example", redemptions=beyond(first)) == ("outcome_unknown", "lost")

    def test_a_plain_read_counts_nothing(self, book: Book) -> None:
        assert _act(book, read=True) == ""
        assert _known(book).ends == {}

    def test_a_remembered_history_stops_nothing(self, book: Book) -> None:
        first = _act(book)
        second = _act(book, 2, redemptions=first)
        for seen in (first, second):
            assert book.mint(book.request(3, redemptions=seen)).redemptions == second

    def test_lost_history_stops_acts_releases_and_limits_and_no_plain_read(self, store: Store) -> None:
        for seen in ("", "another"):
            book = Book(store)
            held = book.released()
            _, act = book.minted(1)
            _, read = book.minted(2, read=True)
            seen = f"{'0' * 40}.1 1" if seen else beyond(_act(book, 3))  # noqa: PLW2901 - an epoch the store never had, or a count
            assert book.burn(act._replace(history=seen)) == ops.BurnReply("lost")
            for more in ({}, {"read": True, "limits": _LIMIT}, {"read": True, "hold": held}):
                assert book.refused(4, redemptions=seen, **more) == ("outcome_unknown", "lost")
            assert book.burn(read._replace(history=seen)).kind == "ok"
            reply = book.mint(book.request(5, read=True, redemptions=seen))
            assert (reply.history, reply.redemptions) == ("", "")
            assert book.hold().state == "released"

    def test_what_one_noticed_stops_everybody_until_it_is_accepted(self, book: Book) -> None:
        _, act = book.minted(1)
        seen = beyond(_act(book, 2))
        book.refused(3, redemptions=seen)
        assert (book.burn(act).kind, book.refused(3)) == ("lost", ("outcome_unknown", "lost"))
        assert _known(book).lost[server_id(AUDIENCE)] == seen
        assert accepted(book, seen) == ""
        assert book.burn(act).kind == "ok"
        assert split(_act(book, 3, redemptions=seen))[1] == 4

    def test_what_one_tool_server_noticed_stops_the_others_with_the_next_mint_for_it(self, book: Book) -> None:
        _, there = book.minted(1, audience="https://other.acme.example")
        seen = beyond(_act(book, 2))
        assert book.burn(book.minted(3)[1]._replace(history=seen)).kind == "lost"
        assert book.refused(4) == ("outcome_unknown", "lost")
        assert book.refused(4, audience="https://third.acme.example") == ("outcome_unknown", "lost")
        assert book.burn(there).kind == "lost"
        assert accepted(book, seen) == ""
        assert book.burn(there).kind == "ok"

    def test_a_count_that_rose_past_a_remembered_one_in_another_epoch_hides_no_loss(self, book: Book) -> None:
        first = _act(book)
        assert accepted(book, first) == ""
        risen = [_act(book, call, redemptions=first) for call in (2, 3, 4)][-1]
        assert split(risen)[1] > split(beyond(first))[1]
        assert book.refused(5, redemptions=beyond(first)) == ("outcome_unknown", "lost")

    def test_accepting_less_than_was_seen_changes_nothing(self, book: Book) -> None:
        first = _act(book)
        seen = beyond(beyond(first))
        book.refused(2, redemptions=seen)
        assert accepted(book, beyond(first)) == seen
        assert book.refused(2) == ("outcome_unknown", "lost")

    def test_a_replayed_redemption_is_one_and_is_counted_once(self, store: Store) -> None:
        for every, for_run in ((0, False), (60_000, False), (0, True)):
            book = Book(store)
            taken = (recovery.Taken("count", 1, every, for_run),)
            event = recovery.Event(
                book.tenant, book.run, f"{1:064x}", "j" * 22, "0" * 40, b"{}", 1, "done", redeemed=True, limits=taken, audience=AUDIENCE
            )
            replies = [book.ask(recovery.replay(event)) for _ in range(2)]
            assert replies == ["ok", "known"]
            assert book.mint(book.request(1)).kind == "already_redeemed"
            limit = (ops.LimitTake("count", 1, 2, every, for_run),)
            if every:  # replayed at its own time, which left the window long ago
                book.minted(2, limits=limit)
            book.minted(3, limits=limit)
            assert book.refused(4, limits=limit) == ("limit", "0")

    def test_a_replay_finds_the_mint_it_belongs_to(self, book: Book) -> None:
        held = book.released(f"{1:064x}")
        limit = (ops.LimitTake("count", 1, 2),)
        request, _ = book.minted(1, limits=limit)
        taken = (recovery.Taken("count", 1, 0, for_run=False),)
        event = recovery.Event(
            book.tenant, book.run, f"{1:064x}", request.jti, "0" * 40, b"{}", 1, "", redeemed=True, limits=taken, audience=AUDIENCE
        )
        assert book.ask(recovery.replay(event)) == "ok"
        assert book.hold(held.hold_id).state == "spent"
        assert book.mint(book.request(1, limits=limit)).kind == "outcome_unknown"
        book.minted(2, limits=limit)
        assert book.refused(3, limits=limit) == ("limit", "0")

    def test_a_replayed_redemption_counts_in_the_window_it_was_in(self, book: Book) -> None:
        limit = (ops.LimitTake("count", 1, 3, 60_000),)
        book.burn(book.minted(1, limits=limit)[1])
        book.outcome(1, "failed")
        later = int(time.time() * 1000) + 5000  # it ran again, and that was lost
        taken = (recovery.Taken("count", 1, 60_000, for_run=False),)
        event = recovery.Event(
            book.tenant, book.run, f"{1:064x}", "j" * 22, "0" * 40, b"{}", later, "", redeemed=True, limits=taken, audience=AUDIENCE
        )
        for _ in range(2):
            book.ask(recovery.replay(event))
        book.minted(2, limits=limit)
        assert book.refused(3, limits=limit) == ("limit", "0")

    def test_a_spent_release_without_a_redemption_leaves_the_call_open(self, book: Book) -> None:
        held = book.released(f"{1:064x}")
        event = recovery.Event(
            book.tenant, book.run, f"{1:064x}", "j" * 22, "0" * 40, b"{}", 1, "", redeemed=False, limits=(), audience=AUDIENCE
        )
        book.ask(recovery.replay(event))
        assert book.mint(book.request(2, hold=held)).detail == "spent"
        book.minted(1, hold=held)

    def test_a_history_belongs_to_one_tenant(self, store: Store) -> None:
        one, other = Book(store), Book(store)
        one.refused(1, history=beyond(_act(one, 2)))
        assert _act(other, 1, subjects=WHO)
