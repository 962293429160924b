"""The conformance suite: a call that who asks redeems, in two scripts (mint, burn) and in one. Both answer the same, and leave the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from agentgate.stores import Store, ops, recovery
from agentgate.stores._op import split
from agentgate_conformance._book import AUDIENCE, Book, Suite
from agentgate_conformance._histories import beyond

ATTEMPT = "a" * 32
COUNT = ops.LimitTake("count", 1, 1)
SUM = ops.LimitTake("sum", 30, 50, 3_600_000)
OWN = ops.LimitTake("own", 1, 1, 0, True)


def in_two(book: Book, request: ops.MintRequest) -> tuple[str, str]:
    """Mint and burn: what refused it, or `ok`."""
    minted = book.mint(request)
    if minted.kind != "ok":
        return minted.kind, minted.detail
    burned = book.burn(book.burning(request, minted.lineage)._replace(attempt=ATTEMPT))
    return burned.kind, minted.detail


def in_one(book: Book, request: ops.MintRequest) -> tuple[str, str]:
    """The same in one script."""
    reply = book.mint(request._replace(attempt=ATTEMPT, binding=""))
    if reply.kind == "ok":
        book.burned[request.call_digest] = request.jti
    return reply.kind, reply.detail


Way = Callable[[Book, ops.MintRequest], tuple[str, str]]
WAYS: tuple[Way, ...] = (in_two, in_one)


def ran(book: Book, way: Way, outcome: ops.Outcome | None, **more: Any) -> None:
    """The call ran before, and ended so; None: nobody said how."""
    assert way(book, book.request(**more))[0] == "ok"
    if outcome is not None:
        assert book.outcome(1, outcome) == "ok"


def lost(book: Book, way: Way, **more: Any) -> dict[str, Any]:
    """Somebody saw a redemption that the store does not know."""
    assert way(book, book.request(9))[0] == "ok"
    return {**more, "redemptions": beyond(book.mint(book.request(8)).redemptions)}


def held(book: Book, state: ops.HoldState | None = "released") -> dict[str, Any]:
    """A hold, and the take of its release."""
    hold = book.hold()
    if state is not None:
        assert book.answer(hold.revision, state) == "ok"
    return {"hold": ops.HoldTake("hold_1", book.hold().revision)}


def spent(book: Book) -> dict[str, Any]:
    """A release that another call spent."""
    take = held(book)
    assert book.mint(book.request(2, **take)).kind == "ok"
    return take


Case = Callable[[Book, Way], dict[str, Any]]


def after(outcome: ops.Outcome | None, of: dict[str, Any], then: dict[str, Any] | None = None) -> Case:
    """The call ran before, and ended so (`ran`); it, or another, comes again."""

    def prepare(book: Book, way: Way) -> dict[str, Any]:
        ran(book, way, outcome, **of)
        return of if then is None else then

    return prepare


def keyed(book: Book, key: str) -> dict[str, Any]:
    """The account's first token was for a key; this one is for another, or the same."""
    assert book.mint(book.request(2, same_key=("ci", "k" * 43))).kind == "ok"
    return {"same_key": ("ci", key * 43)}


def closed(book: Book, _: Way) -> dict[str, Any]:
    """The run takes nothing more."""
    assert book.ask(ops.close_run(book.tenant, book.run)) == "ok"
    return {}


def stale(book: Book, way: Way) -> dict[str, Any]:
    """Another call ran since the run was read."""
    revision = book.read().revision
    ran(book, way, None, call=2)
    return {"revision": revision}


def lost_after_a_limit(book: Book, way: Way) -> dict[str, Any]:
    """A read took of a limit when it failed, and takes of none now."""
    ran(book, way, "failed", read=True, limits=(COUNT,))
    return lost(book, way, read=True)


def revoked(kind: ops.RevokedKind, name: str) -> Case:
    """What is named is revoked."""

    def prepare(book: Book, _: Way) -> dict[str, Any]:
        book.revoke(kind, name or book.tenant)
        return {}

    return prepare


CASES: dict[str, Case] = {
    "an act": lambda *_: {},
    "a read": lambda *_: {"read": True},
    "a read that takes of a limit": lambda *_: {"read": True, "limits": (COUNT,)},
    "limits of all kinds": lambda *_: {"limits": (COUNT, SUM, OWN)},
    "a limit that is reached": after("done", {"limits": (COUNT, SUM)}, {"call": 2, "limits": (SUM, COUNT)}),
    "a limit of the run that is reached": after("done", {"limits": (OWN,)}, {"call": 2, "limits": (OWN,)}),
    "a release": lambda book, _: held(book),
    "no release": lambda book, _: held(book, None),
    "a no": lambda book, _: held(book, "refused"),
    "a release that another call spent": lambda book, _: spent(book),
    "a missing hold": lambda *_: {"hold": ops.HoldTake("hold_1", "1")},
    "a closed run": closed,
    "a missing run": lambda *_: {"run": "another"},
    "a stale revision": stale,
    "another lineage": lambda book, _: {"revision": book.read().revision[:-40] + "0" * 40},
    "done": after("done", {}),
    "failed": after("failed", {}),
    "not run": after("not_run", {"limits": (COUNT,)}),
    "of an unknown outcome": after("unknown", {}),
    "nobody knows": after(None, {}),
    "a read again": after("done", {"read": True, "limits": (COUNT,)}),
    "a read that failed": after("failed", {"read": True}),
    "a lost act": lost,
    "a lost read": lambda book, way: lost(book, way, read=True),
    "a lost read with a limit": lambda book, way: lost(book, way, read=True, limits=(COUNT,)),
    "a lost read that took of a limit before": lost_after_a_limit,
    "the account's key": lambda book, _: keyed(book, "k"),
    "another key": lambda book, _: keyed(book, "z"),
    "a revoked agent": revoked("agent", "runtime-1"),
    "a revoked user": revoked("user", "lee"),
    "a revoked tool": revoked("tool", "payments.refund"),
    "a revoked run": revoked("run", "run_1"),
    "a revoked tenant": revoked("tenant", ""),
}


def left(book: Book) -> dict[str, Any]:
    """What a store knows afterwards, without its times, ids and lineages."""
    record = book.read()
    known = book.ask(recovery.read_history(book.tenant))
    calls = {(c.digest, c.head, c.status, c.facts, c.outcome, c.redeemed_at is not None) for c in record.calls}
    used = book.ask(ops.read_limits(book.tenant, book.run, (COUNT, SUM, OWN)))
    own, revisions, _ = record.revision.split(".")
    return {
        "calls": calls,
        "revision": (int(own) - book.began, revisions),
        "counts": sorted(known.ends.values()),
        "lost": sorted(known.lost),
        "used": used,
        "hold": book.hold().state,
    }


class Performances(Suite):
    """See the module."""

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_one_script_answers_and_leaves_what_two_do(self, store: Store, case: Case) -> None:
        answers, stands = [], []
        for way in WAYS:
            book = Book(store)
            request = book.request(**case(book, way))
            answers.append(way(book, request))
            stands.append(left(book))
        assert answers[0] == answers[1]
        assert stands[0] == stands[1]

    def test_what_is_told_of_a_performed_call_is_what_is_read(self, book: Book) -> None:
        for call in (1, 2):
            for audience in (AUDIENCE, "https://other.acme.example"):
                request = book.request(call, attempt=ATTEMPT, audience=audience, call_digest=f"{call}{len(audience):063x}")
                reply, read = book.mint(request), book.read()
                found = next(each for each in read.calls if each.digest == request.call_digest)
                assert (reply.revision, reply.redeemed_at) == (read.revision, found.redeemed_at)
                name = (book.tenant, book.run, request.call_digest)
                told = book.ask(ops.record_outcome(*name, "done", request.jti, audience=audience, facts=b'[{"a":1}]', tell=True))
                assert (told.kind, told.before) == ("ok", reply.revision[:-41])
                assert (told.after, read.lineage) == (book.read().revision[:-41], book.read().lineage)
                assert {each.facts for each in book.read().calls if each.digest == request.call_digest} == {b'[{"a":1}]'}

    def test_nothing_is_told_of_a_run_whose_other_calls_did_not_matter(self, book: Book) -> None:
        apart = ops.without_calls(book.read().revision)
        assert book.mint(book.request(2, attempt=ATTEMPT)).kind == "ok"
        reply = book.mint(book.request(read=True, attempt=ATTEMPT, revision=apart))
        assert (reply.kind, reply.revision) == ("ok", "")
        assert len(book.read().calls) == 2

    def test_facts_stand_with_their_outcome_and_only_once(self, book: Book) -> None:
        request = book.request(attempt=ATTEMPT)
        assert book.mint(request).kind == "ok"
        name = (book.tenant, book.run, request.call_digest)
        for jti, facts, kind in (
            ("b" * 32, b"[1]", "not_redeemed"),
            (request.jti, b"[2]", "ok"),
            (request.jti, b"[3]", "already_recorded"),
        ):
            assert book.ask(ops.record_outcome(*name, "done", jti, audience=AUDIENCE, facts=facts)).kind == kind
        assert [call.facts for call in book.read().calls] == [b"[2]"]

    def test_the_first_facts_of_a_read_stand(self, book: Book) -> None:
        outcomes: tuple[ops.Outcome, ...] = ("unknown", "done")
        for outcome in outcomes:
            request = book.request(read=True, attempt=ATTEMPT)
            assert book.mint(request).kind == "ok"
            op = ops.record_outcome(
                book.tenant, book.run, request.call_digest, outcome, request.jti, audience=AUDIENCE, facts=f'["{outcome}"]'.encode()
            )
            assert book.ask(op).kind == "ok"
        assert [call.facts for call in book.read().calls] == [b'["unknown"]']

    def test_a_performed_call_leaves_no_token_that_could_be_burned(self, book: Book) -> None:
        first, burning = book.minted(1, read=True)
        request = book.request(1, read=True, attempt=ATTEMPT)
        assert book.mint(request).kind == "ok"
        assert book.burn(burning).kind == "used"
        own = book.burning(request._replace(binding=first.binding), burning.gen)
        assert book.burn(own).kind == "used"
        assert len(book.read().calls) == 1

    def test_a_performed_call_keeps_what_it_took(self, book: Book) -> None:
        limits = (COUNT, OWN)
        assert book.mint(book.request(1, attempt=ATTEMPT, limits=limits, ttl_ms=30)).kind == "ok"
        time.sleep(0.1)
        assert book.refused(2, limits=(COUNT,)) == ("limit", "0")
        assert book.refused(2, limits=(OWN,)) == ("limit", "0")

    def test_what_a_token_of_the_call_reserved_it_takes(self, book: Book) -> None:
        limits = (COUNT, OWN)
        book.minted(1, limits=limits, ttl_ms=30)
        assert book.mint(book.request(1, attempt=ATTEMPT, limits=limits)).kind == "ok"
        time.sleep(0.1)
        assert book.refused(2, limits=limits) == ("limit", "0")

    def test_of_racers_one_performs_an_act(self, book: Book) -> None:
        request = book.request()

        def perform(number: int) -> str:
            way = in_one if number % 2 else in_two
            return way(book, request._replace(jti=f"{number:032x}"))[0]

        answers = self.race(perform)
        assert answers.count("ok") == 1
        assert split(book.mint(book.request(2)).redemptions)[1] == 1

    def test_only_the_attempt_that_performed_it_says_that_nothing_ran(self, book: Book) -> None:
        request = book.request(attempt=ATTEMPT)
        assert book.mint(request).kind == "ok"
        assert book.outcome(1, "not_run", request.jti, attempt="b" * 32) == "not_redeemed"
        assert book.outcome(1, "not_run", request.jti, attempt=ATTEMPT) == "ok"
        assert book.mint(book.request(attempt=ATTEMPT)).kind == "ok"
