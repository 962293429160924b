"""Runs that were opened before tool servers' records had keys of their own: all of their calls are one hash, until they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentgate import Allow, Reason, TokenRefused
from agentgate.errors import Refusal
from agentgate.stores import open_store, ops
from agentgate_conformance._book import Book
from tests.servers import Server, as_tool_server, redis_binary, valkey_binary
from tests.shop import BOSS, ORDER, reasons
from tests.test_ownership import BIG, ORDERS, PAYMENTS, Shop

BEFORE = ("%RW~ag:{*}:jti:*", "%RW~ag:{*}:calls:*", "%RW~ag:{*}:history", "%R~ag:{*}:revoked:*")


@pytest.fixture(params=[redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param(), tmp_path / "server")
    yield server
    server.stop()


def as_before(server: Server, tenant: str, run: str) -> None:
    """What an earlier version would have written of a run that was just opened."""
    server.command("HDEL", f"ag:{{{tenant}}}:run:{run}", "form", "kept")
    server.command("DEL", f"ag:{{{tenant}}}:clock:{run}", f"ag:{{{tenant}}}:history")


class Earlier(Shop):
    """A shop whose run is of an earlier version, and whose tool servers' users still have the patterns for it."""

    def __init__(self, server: Server, folder: Path) -> None:
        super().__init__(server, folder)
        as_before(server, "acme", self.run.id)
        self.run = self.gate.resume_run("acme", self.run.id)

    def address(self, audience: str) -> str:
        return as_tool_server(self.server.url, audience, more=BEFORE)


def test_a_run_from_before_goes_on_to_its_end(server: Server, tmp_path: Path) -> None:
    shop = Earlier(server, tmp_path)
    assert not shop.run.state.owned
    shop.looked_up()
    held = shop.asked("payments.refund", BIG)
    shop.gate.release(held.hold.id, tenant="acme", by=BOSS)
    verifier, answer = shop.verifier(PAYMENTS), shop.asked("payments.refund", BIG)
    assert isinstance(answer, Allow)
    assert answer.token._claims.head_digest == ""
    shop.calls(verifier, answer, "payments.refund", BIG)
    assert reasons(shop.asked("payments.refund", BIG)) == {Reason.ALREADY_REDEEMED}
    kinds = {key.split(":")[2] for key in server.command("KEYS", "ag:{acme}:*").split() if key.startswith("ag:")}
    assert kinds == {"run", "runs", "calls", "history", "hold", "holds", "open", "reserved"}
    verifier.close()
    shop.gate.close()


def test_closing_a_run_from_before_voids_its_tokens(server: Server, tmp_path: Path) -> None:
    shop = Earlier(server, tmp_path)
    verifier, answer = shop.verifier(ORDERS), shop.asked("orders.get", ORDER)
    time.sleep(0.002)
    shop.run.close()
    with pytest.raises(TokenRefused) as refused:
        shop.calls(verifier, answer, "orders.get", ORDER)
    assert refused.value.code is Refusal.REVOKED
    verifier.close()
    shop.gate.close()


def test_without_the_old_patterns_its_token_is_refused(server: Server, tmp_path: Path) -> None:
    shop = Earlier(server, tmp_path)
    answer = shop.asked("orders.get", ORDER)
    shop.address = lambda audience: as_tool_server(server.url, audience)  # type: ignore[method-assign]  # the point of the test
    verifier = shop.verifier(ORDERS)
    with pytest.raises(TokenRefused) as refused:
        shop.calls(verifier, answer, "orders.get", ORDER)
    assert refused.value.code is Refusal.STORE
    verifier.close()
    shop.gate.close()


@pytest.mark.parametrize("every", [0, 3_600_000])
def test_limits_count_over_runs_of_both_forms(server: Server, every: int) -> None:
    store, limit = open_store(server.url), ops.LimitTake("sum", 1, 3, every)
    now, before = Book(store, "acme", "now"), Book(store, "acme", "before")
    as_before(server, "acme", "before")
    for number in (1, 2):
        before.minted(number, audience="", limits=(limit,), ttl_ms=500)
    now.minted(1, limits=(limit,), ttl_ms=500)
    assert now.refused(2, limits=(limit,)) == ("limit", "0")
    time.sleep(0.6)  # given back, of both
    for number in (3, 4, 5):
        now.minted(number, limits=(limit,))
    assert before.refused(6, audience="", limits=(limit,)) == ("limit", "0")
    store.close()


def test_a_mint_of_the_other_form_is_stale(server: Server) -> None:
    store = open_store(server.url)
    now, before = Book(store, "acme", "now"), Book(store, "acme", "before")
    as_before(server, "acme", "before")
    assert (now.refused(1, audience=""), before.refused(1)) == (("stale", ""), ("stale", ""))
    store.close()


def test_a_gate_of_an_earlier_version_finds_the_calls_of_a_new_run_missing(server: Server) -> None:
    """Its mint refuses a run that was `kept` and whose `calls:RUN` is not there (a run whose calls were evicted)."""
    store = open_store(server.url)
    book = Book(store, "acme", "now")
    book.minted(1)
    assert server.command("HGET", "ag:{acme}:run:now", "kept").startswith("$")
    assert not server.command("HGET", "ag:{acme}:run:now", "kept").startswith("$-1")
    assert server.command("EXISTS", "ag:{acme}:calls:now").startswith(":0")
    fresh = Book(store, "acme", "fresh")
    assert server.command("HGET", "ag:{acme}:run:fresh", "kept").startswith("$1\r\n0")
    assert fresh.mint(fresh.request(1)).kind == "ok"
    store.close()
