"""The conformance suite: each cell of the table of a hold's states."""

from __future__ import annotations

import time

from agentgate.decision.hold import AFTER, EVENTS, Event, Row, after
from agentgate.stores import Store, ops
from agentgate_conformance._book import Book, Suite
from agentgate_conformance._withdrawals import take_back

_SOON_MS = 120  # a deadline that is over soon, but not before the steps that lead to it


class _Held:
    """A hold brought into one row of the table."""

    def __init__(self, store: Store, row: Row, event: Event) -> None:
        self.book = Book(store)
        soon = event == "deadline" or row == "expired"
        self.answer_ms = _SOON_MS if soon else 60_000
        revision = self._hold().revision
        self.opened = time.monotonic()
        if row in {"released", "spent", "ran"}:
            assert self._answer(revision, "released")
        if row == "refused":
            assert self._answer(revision, "refused")
        if row in {"spent", "ran"}:
            assert self._mint()
        if row == "ran":
            assert self.book.burn(self.burning).kind == "ok"
        if row == "cancelled":
            take_back(self.book)
        if row == "expired":
            self._wait()

    def _hold(self) -> ops.HoldRecord:
        return self.book.hold(answer_ms=self.answer_ms)

    def _wait(self) -> None:
        time.sleep(max(0.0, self.opened + self.answer_ms / 1000 + 0.01 - time.monotonic()))

    def _answer(self, revision: str, state: ops.HoldState) -> bool:
        return self.book.answer(revision, state) == "ok"

    def _read(self) -> ops.HoldRecord:
        record = self.book.ask(ops.read_hold(self.book.tenant, "hold_1"))
        assert record is not None
        return record

    def _mint(self) -> bool:
        request = self.book.request(hold=ops.HoldTake("hold_1", self._read().revision))
        reply = self.book.mint(request)
        if reply.kind == "ok":
            self.burning = self.book.burning(request, reply.lineage)
        return reply.kind == "ok"

    def happens(self, event: Event) -> bool:
        """Let it happen; False: it was refused."""
        revision = self._read().revision
        match event:
            case "asked":
                self._hold()
            case "yes":
                return self._answer(revision, "pending")
            case "enough":
                return self._answer(revision, "released")
            case "no":
                return self._answer(revision, "refused")
            case "minted":
                return self._mint()
            case "deadline":
                self._wait()
            case "withdrawn":
                take_back(self.book)
        return True

    def state(self) -> str:
        """Its state in the store now."""
        return self._read().state


def _taken(book: Book, hold_id: str, nonce: str, *, take: bool = True, user: str = "ana") -> tuple[str, bool]:
    op = ops.take_nonce(book.tenant, hold_id, nonce, take=take, user=user, opened_ms=1)
    return book.ask(op)


class Holds(Suite):
    """What follows in each state of a hold, and what is refused."""

    def test_what_follows_in_each_state_is_what_the_table_says(self, store: Store) -> None:
        for row in AFTER:
            for event in EVENTS:
                held, then = _Held(store, row, event), after(row, event)
                assert held.happens(event) == (then is not None), (row, event)
                now = row if then is None else then
                assert held.state() == ("spent" if now == "ran" else now), (row, event)

    def test_a_nonce_is_good_once_for_its_own_hold_and_for_its_time(self, book: Book) -> None:
        hold, other = book.hold("a"), book.hold("b")
        for name, nonce, life in (("a", "n1", 60_000), ("b", "n2", 60_000), ("a", "n3", 20)):
            assert book.ask(ops.nonce_hold(book.tenant, name, nonce, life)) == "ok"
        assert book.ask(ops.nonce_hold(book.tenant, "c", "n4", 60_000)) == "missing"
        time.sleep(0.03)
        for nonce in ("n2", "n3", "n9"):
            assert _taken(book, "a", nonce) == ("nonce", False)
            op = ops.answer_hold(book.tenant, "a", hold.revision, b"{}", "released", nonce=nonce)
            assert book.ask(op) == "nonce"
        op = ops.answer_hold(book.tenant, "a", hold.revision, b"{}", "pending", nonce="n1")
        assert book.ask(op) == "ok"
        op = ops.answer_hold(book.tenant, "a", book.hold("a").revision, b"{}", "released", nonce="n1")
        assert book.ask(op) == "nonce"
        assert _taken(book, "b", "n2", take=False) == ("ok", False)
        book.revoke("user", "Kim")
        assert [_taken(book, "b", nonce, take=False, user="kim") for nonce in ("n2", "n9")] == [("ok", True), ("nonce", True)]
        assert [_taken(book, "b", "n2")[0] for _ in range(2)] == ["ok", "nonce"]
        assert book.answer(other.revision, "refused", "b") == "ok"
        assert book.ask(ops.nonce_hold(book.tenant, "b", "n5", 60_000)) == "final"

    def test_sensitive_values_are_read_only_while_a_hold_may_be_answered(self, book: Book) -> None:
        assert book.ask(book.opening("a", sensitive=b'{"x":"y"}')) is not None
        assert b'{"x":"y"}' not in b"".join(part for part in book.send(ops.read_hold(book.tenant, "a")) if isinstance(part, bytes))
        assert book.ask(ops.reveal_hold(book.tenant, "a")) == b'{"x":"y"}'
        assert book.answer(book.hold("a").revision, "refused", "a") == "ok"
        assert book.ask(ops.reveal_hold(book.tenant, "a")) == b""
