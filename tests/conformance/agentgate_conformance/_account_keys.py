"""The conformance suite: the key of a service account, from its first token on."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from agentgate.stores import ops
from agentgate.stores._op import split
from agentgate_conformance._book import Book, Suite
from agentgate_conformance._histories import accepted, beyond

ACCOUNT = "exporter"


def _changed(book: Book, key: str, *, account: str = ACCOUNT, **how: Any) -> tuple[str, str]:
    return book.ask(ops.change_key(book.tenant, account, key, **how))


def _served(book: Book, call: int, key: str, account: str = ACCOUNT) -> bool:
    kind = book.mint(book.request(call, same_key=(account, key))).kind
    assert kind in {"ok", "key_changed"}
    return kind == "ok"


def _later() -> int:
    """A time after everything that is on record now."""
    return int(time.time() * 1000) + 1000


class AccountKeys(Suite):
    """An account's key changes by its old key's word, once, or a person's."""

    def test_the_old_key_hands_over_to_a_new_one(self, book: Book) -> None:
        assert _served(book, 1, "first")
        kind, history = _changed(book, "second", old="first", signed_ms=_later())
        assert (kind, split(history)[1]) == ("ok", 1)
        assert [_served(book, 2, key) for key in ("first", "second")] == [False, True]
        assert _served(book, 3, "first", "another account")

    def test_another_key_hands_over_nothing(self, book: Book) -> None:
        assert _changed(book, "second", old="first", signed_ms=_later()) == ("other", "")  # nothing is on record yet
        assert _served(book, 1, "first")
        assert _changed(book, "third", old="second", signed_ms=_later()) == ("other", "")
        assert _served(book, 2, "first")

    def test_a_statement_counts_once(self, book: Book) -> None:
        before = int(time.time() * 1000) - 1000
        assert _served(book, 1, "first")
        assert _changed(book, "second", old="first", signed_ms=before) == ("old", "")
        signed = _later()
        answers = self.race(lambda _: _changed(book, "second", old="first", signed_ms=signed)[0])
        assert Counter(answers) == {"ok": 1, "other": self.racers - 1}

    def test_a_person_says_what_the_key_is(self, book: Book) -> None:
        assert _changed(book, "first")[0] == "ok"  # also before its first token
        assert [_served(book, 1, key) for key in ("second", "first")] == [False, True]
        assert _changed(book, "second")[0] == "ok"
        assert [_served(book, 2, key) for key in ("first", "second")] == [False, True]

    def test_a_lost_history_takes_a_persons_word_only(self, book: Book) -> None:
        assert _served(book, 1, "first")
        seen = beyond(_changed(book, "first")[1])
        assert _changed(book, "second", old="first", signed_ms=_later(), history=seen) == ("lost", "")
        assert _changed(book, "second", old="first", signed_ms=_later()) == ("lost", "")  # whoever asks now
        assert _changed(book, "second") == ("ok", "")
        assert accepted(book, seen) == ""
        assert [_served(book, 2, key) for key in ("first", "second")] == [False, True]

    def test_after_a_loss_that_was_accepted_an_account_without_a_record_waits_for_a_person(self, book: Book) -> None:
        seen = beyond(_changed(book, "first")[1])
        assert book.refused(1, history=seen) == ("outcome_unknown", "lost")
        assert accepted(book, seen) == ""
        assert not _served(book, 1, "first", "unknown")
        assert _changed(book, "first", account="unknown")[0] == "ok"
        assert _served(book, 1, "first", "unknown")
