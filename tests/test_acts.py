"""Who mints acts in a run: any gate where the store keeps what it acknowledged, and elsewhere only who cannot have forgotten one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgate import Reason
from agentgate.errors import ConfigError
from agentgate.gate.runs import Issued
from agentgate.stores import _exchange
from tests.servers import redis_binary, valkey_binary
from tests.shop import looked_up, opened
from tests.test_history import BIG, Shop, asked, paid, started

ELSEWHERE = {Reason.RUN_ELSEWHERE}


@pytest.fixture(params=[redis_binary, valkey_binary], ids=["redis", "valkey"])
def shops(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Shop] = []

    def make(**settings: Any) -> Shop:
        made.append(Shop(tmp_path, request.param(), **settings))
        return made[-1]

    yield make
    for shop in made:
        shop.close()


def again(shop: Shop) -> None:
    """The server is killed and starts again, and has lost nothing."""
    shop.server.command("SAVE")
    shop.server.kill()
    shop.server.start()


def elsewhere(shop: Shop, run: Any, **settings: Any) -> Any:
    """The run at another gate."""
    return shop.opened("second", **settings).resume_run("acme", run.id)


def test_where_acts_may_be_lost_only_the_gate_that_opened_a_run_mints_them(shops: Any) -> None:
    shop = shops()
    run = started(shop.gate)
    paid(run)
    other = elsewhere(shop, run)
    looked_up(other, call="look again")
    assert (asked(other, "new"), asked(other)) == (ELSEWHERE, {Reason.ALREADY_REDEEMED})
    assert asked(other, "big", BIG) == ELSEWHERE
    assert shop.gate.holds("acme") == ()  # nobody was asked in vain
    again(shop)
    assert asked(other, "new") == ELSEWHERE
    paid(run, "new")


def test_any_gate_mints_acts_where_each_write_is_on_disk_first(shops: Any) -> None:
    shop = shops(durable=True)
    run = started(shop.gate)
    other = elsewhere(shop, run)
    paid(other)
    shop.server.kill()
    shop.server.start()
    assert asked(run) == {Reason.ALREADY_REDEEMED}
    paid(elsewhere(shop, run), "more")
    assert asked(other, "more") == {Reason.ALREADY_REDEEMED}


def test_no_gate_does_where_a_replica_may_take_the_servers_place(shops: Any) -> None:
    shop = shops(durable=True)
    run = started(shop.gate)
    paid(run)
    with shop.server.replica(shop.folder / "replica"):
        for handle in (run, elsewhere(shop, run)):
            assert asked(handle, "new") == ELSEWHERE
        paid(started(shop.gate), "in a run that is this gate's own")
    assert asked(run, "new") == ELSEWHERE  # the replica may come back as primary


def test_a_setting_that_changes_while_the_server_runs_is_noticed(shops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = shops(durable=True)
    run = started(shop.gate)
    monkeypatch.setattr(_exchange, "LOOK_AGAIN", 0.0)
    paid(run)
    shop.server.command("CONFIG", "SET", "appendfsync", "everysec")
    for handle in (run, elsewhere(shop, run)):
        assert asked(handle, "new") == ELSEWHERE
    paid(started(shop.gate))


def test_a_server_that_takes_over_the_address_is_looked_at_before_it_is_used(shops: Any) -> None:
    shop = shops(durable=True)
    run = started(shop.gate)
    other = elsewhere(shop, run)
    paid(run)
    shop.server.stop()
    shop.server._settings = (*shop.server._settings, "--appendfsync", "everysec")  # the same data behind the same address
    shop.server.start()
    for handle in (run, other):
        assert asked(handle, "new") == ELSEWHERE


def test_a_run_from_before_such_a_setting_stays_with_its_gate(shops: Any) -> None:
    shop = shops()
    run = started(shop.gate)
    paid(run)
    shop.server.command("CONFIG", "SET", "appendfsync", "always")
    shop.server.command("CONFIG", "SET", "appendonly", "yes")
    deadline = time.monotonic() + 10
    while not {"aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"} <= set(shop.server.command("INFO", "persistence").split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other = shop.opened("second")
    assert asked(other.resume_run("acme", run.id), "new") == ELSEWHERE
    paid(elsewhere(shop, started(other)))  # but one that was opened since does not
    paid(run, "new")


def test_shared_runs_are_any_gates_until_the_store_starts_anew(shops: Any) -> None:
    shop = shops()
    first = shop.opened("first", shared_runs=True)
    run = started(first)
    paid(elsewhere(shop, run))
    shop.lost(lambda: paid(elsewhere(shop, run), "lost"))
    for handle in (run, elsewhere(shop, run)):
        assert (asked(handle, "lost"), asked(handle)) == (ELSEWHERE, {Reason.ALREADY_REDEEMED})
    assert shop.reconcile("first", "second")[0] == 0
    assert asked(run, "more") == ELSEWHERE
    paid(started(first))


def test_a_gate_without_the_right_to_see_the_setting_takes_it_for_the_weakest(shops: Any) -> None:
    shop = shops(durable=True)
    shop.server.command("ACL", "SETUSER", "gate", "on", ">pw", "~ag:*", "+@all", "-config")
    limited = shop.opened("limited", store=shop.server.url.replace("redis://", "redis://gate:pw@"))
    run = started(limited)
    assert asked(elsewhere(shop, run)) == ELSEWHERE
    assert asked(limited.resume_run("acme", started(shop.gate).id)) == ELSEWHERE
    paid(run)


def test_a_process_that_was_forked_off_has_opened_nothing() -> None:
    issued = Issued()
    issued.opened("run_1")
    child = os.fork()
    if not child:
        os._exit(issued.knows("run_1"))
    assert (os.waitpid(child, 0)[1], issued.knows("run_1"), issued.knows("run_2")) == (0, True, False)


@pytest.mark.parametrize("value", [None, "yes", 1])
def test_who_mints_acts_is_said_plainly(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match="shared_runs"):
        opened(tmp_path, shared_runs=value)
