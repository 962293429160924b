"""The conformance suite: what is revoked, for how long, and what ends it."""

from __future__ import annotations

import time

from agentgate.stores import Store, ops
from agentgate_conformance._book import WHO, Book, Suite


def now_ms() -> int:
    return int(time.time() * 1000)


class Revocations(Suite):
    """What refuses mints and burns, listed and lifted."""

    def test_each_revocation_stops_mint_and_burn(self, store: Store) -> None:
        for kind in ops.REVOKED_KINDS:
            book = Book(store)
            request, burning = book.minted()
            book.revoke(kind, {"token": request.jti, "run": book.run, "tenant": "*"}.get(kind) or getattr(WHO, kind))
            assert book.burn(burning).kind == "revoked", kind
            assert book.mint(book.request(jti=request.jti)).kind == "revoked", kind

    def test_a_release_is_void_once_one_of_those_who_gave_it_is_revoked(self, book: Book) -> None:
        take = book.released()._replace(approvers=("ana", "Kim"))
        book.revoke("user", "@KIM")
        assert book.refused(1, hold=take)[0] == "revoked"
        assert [book.ask(ops.revoked(book.tenant, name, now_ms())) for name in ("ana", "kim")] == [False, True]
        book.revoke("user", "ana", before_ms=now_ms() - 5000)
        assert not book.ask(ops.revoked(book.tenant, "ana", now_ms()))
        assert book.ask(ops.revoked(book.tenant, "ana", now_ms() - 6000))
        assert book.mint(book.request(1, hold=take._replace(approvers=("ana",)))).kind == "ok"

    def test_a_revocation_of_another_subject_stops_nothing(self, book: Book) -> None:
        for kind in ops.REVOKED_KINDS:
            if kind != "tenant":
                book.revoke(kind, "another")
        assert book.burn(book.minted()[1]).kind == "ok"

    def test_every_spelling_of_a_person_is_revoked(self, store: Store) -> None:
        for kind in ("user", "agent"):
            book = Book(store)
            spelled = WHO._replace(**{kind: "@\uff2cEE@acme.example"})
            _, burning = book.minted(subjects=spelled)
            book.revoke(kind, "lee@acme.example")
            assert book.burn(burning).kind == "revoked"
            assert book.refused(2, subjects=spelled)[0] == "revoked"

    def test_a_revocation_by_time_stops_the_runs_that_were_open(self, store: Store) -> None:
        old = Book(store)
        _, early = old.minted(1)
        time.sleep(0.02)
        when = now_ms()
        time.sleep(0.02)
        _, late = old.minted(2)
        new = Book(store, old.tenant, "run_2")
        old.revoke("agent", WHO.agent, before_ms=when)
        assert (old.burn(early).kind, old.burn(late).kind, old.refused(3)[0]) == ("revoked", "revoked", "revoked")
        assert new.burn(new.minted(4)[1]).kind == "ok"

    def test_a_revocation_only_grows(self, book: Book) -> None:
        book.revoke("user", WHO.user)
        book.revoke("user", WHO.user, before_ms=1, life_ms=20)
        book.revoke("user", WHO.user, life_ms=20)
        time.sleep(0.05)
        assert book.mint(book.request()).kind == "revoked"
        book.revoke("agent", "x", before_ms=2, life_ms=600_000)
        book.revoke("agent", "x", before_ms=2, life_ms=20)
        book.revoke("agent", "x", before_ms=1, life_ms=20)
        time.sleep(0.05)
        assert book.revocations()["agent:x"].before_ms == 2

    def test_a_revocation_ends_after_its_life(self, book: Book) -> None:
        _, burning = book.minted()
        book.revoke("run", book.run, life_ms=200)
        assert book.burn(burning).kind == "revoked"
        time.sleep(0.25)
        assert book.burn(burning).kind == "ok"
        assert book.revocations() == {}

    def test_what_is_revoked_is_listed(self, book: Book) -> None:
        book.revoke("user", WHO.user, told=b'{"by":"ana"}')
        book.revoke("agent", WHO.agent, before_ms=7, life_ms=60_000)
        book.revoke("workflow", WHO.workflow, signed=True)
        book.revoke("tenant", book.tenant)
        found = book.revocations()
        user = ops.RevocationRecord(f"user:{WHO.user}", None, signed=False, told=b'{"by":"ana"}', life_ms=None)
        assert found[user.name] == user
        timed = found[f"agent:{WHO.agent}"]
        assert timed.before_ms == 7
        assert 0 < (timed.life_ms or 0) <= 60_000
        assert found[f"workflow:{WHO.workflow}"].signed
        assert set(found) == {user.name, timed.name, f"workflow:{WHO.workflow}", "tenant:*"}
        assert book.ask(ops.list_revocations(book.tenant, 3))[0] == 4
        assert len(book.ask(ops.list_revocations(book.tenant, 3))[1]) == 1

    def test_what_is_lifted_stops_nothing_and_is_not_listed(self, book: Book) -> None:
        book.revoke("user", WHO.user)
        book.revoke("agent", "another")
        assert book.lift("user", "LEE") == "lifted"
        assert book.lift("user", WHO.user) == "missing"
        assert book.burn(book.minted()[1]).kind == "ok"
        assert set(book.revocations()) == {"agent:another"}

    def test_what_reviewers_revoked_is_not_lifted(self, book: Book) -> None:
        book.revoke("workflow", WHO.workflow, signed=True)
        book.revoke("workflow", WHO.workflow)  # said again by an operator, whose word does not replace theirs
        assert book.lift("workflow", WHO.workflow) == "signed"
        assert book.mint(book.request()).kind == "revoked"

    def test_a_revocation_counts_once_in_the_history(self, book: Book) -> None:
        said, first = book.revoke("user", "another")
        assert (said, first[-2:]) == ("ok", " 1")
        assert book.revoke("user", "another", history=first) == ("known", first)
        assert book.revoke("user", "another", before_ms=5, history=first) == ("known", first)

    def test_a_revocation_that_notices_a_loss_is_written_and_says_so(self, book: Book) -> None:
        assert not book.revoke("user", WHO.user, history=f"{'a' * 40}.1 5").history
        assert book.mint(book.request(2)).kind == "revoked"
        assert book.lift("user", WHO.user) == "lifted"
        assert book.refused(3, limits=(ops.LimitTake("k", 1, 9),)) == ("outcome_unknown", "lost")
