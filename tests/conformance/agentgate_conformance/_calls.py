"""The conformance suite: runs, mints and burns."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Literal

from agentgate.errors import StoreUnavailable
from agentgate.stores import Keeps, Store, ops
from agentgate_conformance._book import PATIENCE, WHO, Book, Suite, ask


class Calls(Suite):
    """Runs, mints, burns."""

    # runs

    def test_a_run_reads_back_as_it_was_written(self, store: Store) -> None:
        record = Book(store).read()
        assert (record.header, record.turns, record.closed, record.calls) == (b'{"id":"run_1"}', ("Please refund ORD-10023344",), False, ())
        assert len(record.lineage) == 40

    def test_a_missing_run_is_none(self, store: Store) -> None:
        assert ask(store, ops.read_run("nobody", "run_1")) is None

    def test_a_run_is_never_written_over(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.burn(burning).kind == "ok"
        again = ops.open_run(book.tenant, book.run, b"other", "other", 1000, whose="lee", most=9)
        assert book.ask(again) == ops.OpenReply("exists", book.read())
        assert book.read().header == b'{"id":"run_1"}'

    def test_who_opens_a_run_is_told_it_as_it_reads(self, book: Book) -> None:
        op = ops.open_run(book.tenant, "another", b"{}", "hi", 60_000, whose="lee", most=9)
        opened = book.ask(op)
        book.run = "another"
        assert opened == ops.OpenReply("ok", book.read())

    def test_a_run_says_who_mints_acts_in_it(self, book: Book) -> None:
        before: tuple[Literal["any", "opener", "nobody"], ...] = ("any", "opener", "nobody")
        rows: list[tuple[Keeps, Literal["any", "opener", "nobody"], set[ops.Acting]]] = [("no", acts, {acts}) for acts in before]
        rows += [("yes", acts, {"alone", "replicated"}) for acts in before]
        for number, (keeps, acts, expected) in enumerate(rows):
            book.run = f"acts_{number}"
            op = ops.open_run(book.tenant, book.run, b"{}", "hi", 60_000, whose="lee", most=1000, keeps=keeps, acts=acts)
            assert book.ask(op).kind == "ok"
            assert book.read().acts in expected

    def test_a_run_ends_with_its_life(self, book: Book) -> None:
        book.send(ops.open_run(book.tenant, "short", b"{}", "hi", 30, whose="lee", most=9))
        time.sleep(0.1)
        assert book.mint(book.request()._replace(run="short")).kind == "missing"

    def test_a_header_is_replaced_in_an_open_run_that_nobody_changed(self, book: Book) -> None:
        old = book.read().revision
        assert book.ask(ops.renew_run(book.tenant, book.run, b"fresh", old)) == "ok"
        assert (book.read().header, book.read().turns) == (b"fresh", ("Please refund ORD-10023344",))
        assert book.mint(book.request(revision=old)).kind == "stale"
        assert book.ask(ops.renew_run(book.tenant, book.run, b"older", old)) == "stale"
        assert book.ask(ops.renew_run(book.tenant, "other", b"x", old)) == "missing"
        book.ask(ops.close_run(book.tenant, book.run))
        assert book.ask(ops.renew_run(book.tenant, book.run, b"x", book.read().revision)) == "closed"
        assert book.read().header == b"fresh"

    def test_a_renewed_run_ends_when_it_would_have(self, book: Book) -> None:
        book.send(ops.open_run(book.tenant, "short", b"{}", "hi", 150, whose="lee", most=9))
        record = book.ask(ops.read_run(book.tenant, "short"))
        assert record is not None
        assert book.ask(ops.renew_run(book.tenant, "short", b"fresh", record.revision)) == "ok"
        time.sleep(0.2)
        assert book.ask(ops.read_run(book.tenant, "short")) is None

    def test_turns_are_kept_in_order_and_raise_the_revision(self, book: Book) -> None:
        old = book.read().revision
        for known, text in enumerate(("no, wait", "yes\r\n$5\r\ndo ✓"), 1):
            assert book.ask(ops.add_turn(book.tenant, book.run, text, harmless_after=known)) == "ok"
        assert book.read().turns[1:] == ("no, wait", "yes\r\n$5\r\ndo ✓")
        assert book.mint(book.request(revision=old)).kind == "stale"

    def test_a_closed_run_takes_no_turn_and_no_mint(self, book: Book) -> None:
        for expected in ("ok", "closed"):
            assert book.ask(ops.close_run(book.tenant, book.run)) == expected
        assert book.ask(ops.add_turn(book.tenant, book.run, "more", harmless_after=1)) == "closed"
        assert book.read().closed
        assert book.mint(book.request()).kind == "closed"

    # mint and burn

    def test_a_minted_token_is_burned_once(self, book: Book) -> None:
        _, burning = book.minted()
        burned = book.burn(burning)
        assert (burned.kind, burned.head) == ("ok", b'{"tool":"payments.refund"}')
        assert book.burn(burning).kind == "used"

    def test_the_revision_rises_with_redemption_and_result_but_not_with_a_mint_or_outcome(self, book: Book) -> None:
        opened = book.read().revision
        _, burning = book.minted()
        minted = book.read().revision
        book.burn(burning)
        redeemed = book.read().revision
        book.result(1)
        recorded = book.read().revision
        book.outcome(1, "done")
        assert (opened, recorded) == (minted, book.read().revision)
        assert len({minted, redeemed, recorded}) == 3

    def test_a_reader_that_knows_a_revision_gets_what_changed_since(self, book: Book) -> None:
        kept: dict[str, dict[str, ops.CallRecord]] = {book.read().revision: {}}
        steps = random.Random(5)  # noqa: S311 - an order, not a secret
        redeemed: list[int] = []
        for number in range(1, 30):
            _, burning = book.minted(number)
            if steps.random() < 0.8:
                assert book.burn(burning).kind == "ok"
                redeemed.append(number)
            for call in steps.sample(redeemed, min(len(redeemed), steps.choice((0, 1, 2)))):
                book.result(call, b'[{"n":%d}]' % number)  # only the first counts
            everything = book.read()
            whole = {call.digest: call for call in everything.calls if call.status == "redeemed"}
            assert not everything.since
            for revision, before in kept.items():
                news = book.read(revision)
                assert (news.since, news.revision, news.header, news.turns) == (True, everything.revision, b"", ())  # which it knows
                assert before | {call.digest: call for call in news.calls} == whole
            kept[everything.revision] = whole
        assert book.read(everything.revision).calls == ()

    def test_a_reader_whose_revision_says_nothing_here_gets_everything(self, book: Book) -> None:
        book.burn(book.minted()[1])
        run, calls, history = book.read().revision.split(".")
        for known in (f"{run}.{calls}.{'0' * 40}", f"{run}.{int(calls) + 1}.{history}", f"{run}.{calls}", "x"):
            record = book.read(known)
            assert not record.since
            assert len(record.calls) == 1

    def test_a_mint_to_which_no_other_call_matters_is_stale_where_anything_else_changed(self, book: Book) -> None:
        apart = ops.without_calls(book.read().revision)
        book.burn(book.minted(2)[1])
        book.result(2)
        assert book.mint(book.request(revision=apart)).kind == "ok"
        run, _, history = apart.split(".")
        others = (f"{run}.-.{'0' * 40}", f"{int(run) + 1}.-.{history}", f"{run}-.{history}", f"-.-.{history}", f"{run}.-")
        assert {book.mint(book.request(3, revision=other)).kind for other in others} == {"stale"}
        assert book.ask(ops.add_turn(book.tenant, book.run, "no, wait", harmless_after=1)) == "ok"
        assert book.mint(book.request(3, revision=apart)).kind == "stale"

    def test_a_mint_decided_in_another_history_is_stale(self, book: Book) -> None:
        run, calls, history = book.read().revision.split(".")
        other = f"{run}.{calls}.{history[::-1] if history != history[::-1] else '0' * 40}"
        assert book.mint(book.request(revision=other)).kind == "stale"

    def test_a_redeemed_call_carries_head_time_facts_and_outcome(self, book: Book) -> None:
        _, burning = book.minted()
        before = time.time()
        book.burn(burning)
        assert (book.result(1, b'[{"order":"A"}]'), book.outcome(1, "done")) == ("ok", "ok")
        (call,) = book.read().calls
        assert (call.digest, call.status, call.facts, call.outcome) == (f"{1:064x}", "redeemed", b'[{"order":"A"}]', "done")
        assert call.redeemed_at is not None
        assert abs(call.redeemed_at - before) < PATIENCE

    def test_a_token_of_another_lineage_is_refused_and_not_spent(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.burn(burning._replace(gen="0" * 40)).kind == "lineage"
        assert book.burn(burning).kind == "ok"

    def test_a_token_with_another_binding_is_refused(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.burn(burning._replace(binding="f" * 64)).kind == "binding"
        assert book.burn(burning).kind == "used"

    def test_a_token_that_was_never_minted_is_refused(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.burn(burning._replace(jti="f" * 32)).kind == "used"

    def test_a_token_is_not_redeemed_for_another_call(self, book: Book) -> None:
        _, burning = book.minted(1)
        book.minted(2)
        assert book.burn(burning._replace(call_digest=f"{2:064x}")).kind == "used"
        assert {call.status for call in book.read().calls} == {"minted"}

    def test_a_token_dies_with_its_time(self, book: Book) -> None:
        _, burning = book.minted(ttl_ms=30)
        time.sleep(0.1)
        assert book.burn(burning).kind == "used"

    def test_the_same_call_again_replaces_its_unburned_token(self, book: Book) -> None:
        _, first = book.minted()
        _, second = book.minted()
        assert book.burn(first).kind == "used"
        assert book.burn(second).kind == "ok"

    def test_the_same_act_after_redemption_answers_what_is_known(self, book: Book) -> None:
        book.burn(book.minted()[1])
        assert book.mint(book.request()).kind == "outcome_unknown"  # it may still be running
        book.outcome(1, "unknown")
        assert book.mint(book.request()).kind == "outcome_unknown"
        book.outcome(1, "done")
        assert book.mint(book.request()).kind == "already_redeemed"

    def test_an_act_runs_again_only_after_nothing_happened_and_each_token_once(self, store: Store) -> None:
        nothing_happened: tuple[ops.Outcome, ...] = ("failed", "not_run")
        for nothing in nothing_happened:
            book = Book(store)
            _, first = book.minted()
            book.burn(first)
            book.outcome(1, nothing)
            _, second = book.minted()
            assert book.burn(first).kind == "used"
            assert book.burn(second).kind == "ok"
            assert book.burn(second).kind == "used"
            assert book.outcome(1, nothing, first.jti) == "not_redeemed"
            assert book.mint(book.request()).kind == "outcome_unknown"
            assert book.outcome(1, "done") == "ok"
            assert book.mint(book.request()).kind == "already_redeemed"

    def test_of_two_redemptions_of_a_token_only_the_one_that_burned_it_says_that_nothing_ran(self, book: Book) -> None:
        _, burning = book.minted()
        assert book.burn(burning._replace(attempt="first")).kind == "ok"
        assert book.outcome(1, "not_run", attempt="second") == "not_redeemed"
        assert book.mint(book.request()).kind == "outcome_unknown"
        assert book.outcome(1, "not_run", attempt="first") == "ok"

    def test_a_call_that_asks_for_a_broker_nobody_here_has_is_not_burned(self, book: Book) -> None:
        _, burning = book.minted(head=b'{"upstream":{"broker":"va\\nult"}}')
        for brokers in ((), ("bank",), ("va",), ("bank", "nult")):
            burned = book.burn(burning._replace(brokers=brokers))
            assert (burned.kind, burned.head) == ("upstream", b"va\nult")
        assert book.burn(burning._replace(brokers=("bank", "va\nult"))).kind == "ok"
        _, other = book.minted(2, head=b'{"tool":"\\"upstream\\""}')
        assert book.burn(other._replace(brokers=())).kind == "ok"
        _, untold = book.minted(3, head=b'{"upstream":{"broker":"vault"}}')
        assert book.burn(untold).kind == "ok"

    def test_a_read_runs_again_three_times_whatever_came_of_it(self, store: Store) -> None:
        answers: dict[ops.Outcome, str] = {"done": "already_redeemed", "failed": "failed", "unknown": "outcome_unknown"}
        for outcome, answer in answers.items():
            book = Book(store)
            for _ in range(4):
                book.burn(book.minted(read=True)[1])
                book.outcome(1, outcome)
            assert book.mint(book.request(read=True)).kind == answer

    def test_the_first_facts_of_a_call_that_runs_again_stand_with_their_time(self, book: Book) -> None:
        seen = []
        for number in (1, 2):
            book.burn(book.minted(read=True, head=b'{"n":%d}' % number)[1])
            book.result(1, b"[%d]" % number)
            book.outcome(1, "done")
            seen.append(book.read().calls[0])
            time.sleep(0.01)
        first, second = seen
        assert (second.facts, second.redeemed_at, second.head, second.outcome) == (b"[1]", first.redeemed_at, b'{"n":1}', "done")
        book.burn(book.minted(read=True)[1])  # and nothing is reported of it
        assert book.read().calls[0].outcome == "done"

    def test_the_facts_of_a_call_stand_while_its_next_token_is_on_the_way(self, book: Book) -> None:
        book.burn(book.minted(read=True)[1])
        book.result(1, b"[1]")
        for _ in range(2):
            book.minted(read=True)
            assert [(call.status, call.facts) for call in book.read().calls] == [("redeemed", b"[1]")]

    def test_the_revision_tells_the_calls_of_each_audience_and_a_first_mint_for_one_raises_it_for_none(self, book: Book) -> None:
        other = "https://other.acme.example"
        book.burn(book.minted(1)[1])
        known = book.read().revision
        _, there = book.minted(2, audience=other, revision=known)
        assert book.read().revision == known
        assert book.mint(book.request(3, revision=known)).kind == "ok"
        book.burn(there)
        assert book.mint(book.request(4, revision=known)).kind == "stale"
        news = book.read(known)
        assert (news.since, [call.digest for call in news.calls]) == (True, [f"{2:064x}"])

    def test_nothing_happened_raises_the_revision(self, book: Book) -> None:
        book.burn(book.minted()[1])
        revision = book.read().revision
        book.outcome(1, "not_run")
        assert [call.outcome for call in book.read(revision).calls] == ["not_run"]

    def test_a_jti_is_never_minted_twice(self, book: Book) -> None:
        request, burning = book.minted(1)
        try:
            book.mint(book.request(2, jti=request.jti))
        except StoreUnavailable:
            assert [call.digest for call in book.read().calls] == [f"{1:064x}"]
            assert book.burn(burning).kind == "ok"
        else:
            raise AssertionError("a second mint of the same jti was answered")

    def test_tenants_do_not_meet(self, store: Store) -> None:
        one, other = Book(store), Book(store)
        _, burning = one.minted()
        assert other.burn(burning._replace(tenant=other.tenant)).kind == "used"
        one.revoke("agent", WHO.agent)
        assert other.mint(other.request()).kind == "ok"

    def test_racing_burns_accept_each_token_once(self, book: Book) -> None:
        revision = book.read().revision
        burnings = [book.minted(call, revision=revision)[1] for call in range(self.tokens)]
        rounds = self.race(lambda shift: [book.burn(b).kind for b in burnings[shift:] + burnings[:shift]])
        assert Counter(kind for kinds in rounds for kind in kinds) == {"ok": self.tokens, "used": self.tokens * (self.racers - 1)}
