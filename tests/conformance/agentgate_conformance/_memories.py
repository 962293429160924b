"""The conformance suite: what a user's own yes lets later runs use is there once the call was done, until it is forgotten or revoked."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agentgate.stores import ops
from agentgate_conformance._book import WHO, Book, Suite

PLACE, OTHER = "a" * 64, "b" * 64


def _body(book: Book, said: str) -> bytes:
    return json.dumps({"stops": ops.revocations_of_memory(book.tenant, WHO, book.run), "said": said}).encode()


def _memory(book: Book, place: str = PLACE, said: str = "ann", span_ms: int = 60_000) -> ops.Memory:
    return ops.Memory("lee", place, body=_body(book, said), span_ms=span_ms)


def _remember(book: Book, call: int = 1, *, ends: Any = "done", **memory: Any) -> None:
    """A call that a yes released, with what is to be remembered of it."""
    _, burning = book.minted(call, hold=book.released(f"hold_{call}"), memory=_memory(book, **memory))
    assert book.burn(burning).kind == "ok"
    if ends:
        assert book.outcome(call, ends) == "ok"


def _recalled(book: Book, *places: str, user: str = "lee") -> dict[str, str]:
    """What is remembered, by place."""
    _, found = book.ask(ops.recall_memory(book.tenant, user, places))
    return {place: json.loads(body)["said"] for place, _, _, body in found}


class Memories(Suite):
    """What is remembered of a user."""

    def test_it_counts_once_the_call_was_done(self, book: Book) -> None:
        _remember(book, ends=None)
        assert _recalled(book) == {}
        assert book.outcome(1, "done") == "ok"
        assert _recalled(book) == _recalled(book, PLACE) == {PLACE: "ann"}
        assert _recalled(book, OTHER) == _recalled(book, user="kim") == {}
        (record,) = book.ask(ops.recall_memory(book.tenant, "LEE"))[1]
        assert record[1] == f"{1:064x}"
        assert abs(record[2] - time.time()) < 60

    @pytest.mark.parametrize("outcome", ["failed", "not_run", "unknown"])
    def test_nothing_of_a_call_that_was_not_done(self, book: Book, outcome: ops.Outcome) -> None:
        _remember(book, ends=outcome)
        assert _recalled(book) == {}

    def test_nothing_of_a_call_that_spends_no_release(self, book: Book) -> None:
        _, burning = book.minted(memory=_memory(book))
        assert book.burn(burning).kind == "ok"
        assert book.outcome(1, "done") == "ok"
        assert _recalled(book) == {}

    def test_what_is_forgotten_is_gone_and_what_was_asked_before_does_not_come_back(self, book: Book) -> None:
        _remember(book)
        _remember(book, 2, place=OTHER, said="bob")
        take = book.released("hold_3")
        before, count = book.ask(ops.forget_memory(book.tenant, "lee", [PLACE, "c" * 64]))
        assert count == 1
        assert _recalled(book) == {OTHER: "bob"}
        _, burning = book.minted(3, hold=take, memory=_memory(book))
        assert book.burn(burning).kind == "ok"
        assert book.outcome(3, "done") == "ok"
        assert _recalled(book) == {OTHER: "bob"}
        after, count = book.ask(ops.forget_memory(book.tenant, "lee"))
        assert (count, before != after) == (1, True)
        assert _recalled(book) == {}

    def test_it_ends_by_itself(self, book: Book) -> None:
        _remember(book, span_ms=300)
        time.sleep(0.35)
        assert _recalled(book) == {}

    @pytest.mark.parametrize("lifted", [False, True])
    @pytest.mark.parametrize("kind", ["user", "agent", "tool", "workflow", "run"])
    def test_a_revocation_ends_it_also_once_it_is_lifted(self, book: Book, kind: ops.RevokedKind, *, lifted: bool) -> None:
        _remember(book)
        name = book.run if kind == "run" else getattr(WHO, kind)
        assert book.revoke(kind, name).kind == "ok"
        if lifted:
            book.lift(kind, name)
        assert _recalled(book) == {}

    def test_a_mint_rests_on_what_still_stands(self, book: Book) -> None:
        _remember(book)
        rests = ops.Memory("lee", PLACE, f"{1:064x}")
        assert book.minted(2, memory=rests)
        assert book.refused(3, memory=rests._replace(rests_on=f"{9:064x}"))[0] == "stale"
        book.ask(ops.forget_memory(book.tenant, "lee"))
        assert book.refused(4, memory=rests)[0] == "stale"
