"""Some of the faults of `make faults`, and that what counts there can count."""

from __future__ import annotations

import json

import pytest

from tests.faults.__main__ import lines, main, verdict
from tests.faults.ledger import Ledger
from tests.faults.measure import Row, measure, totals
from tests.faults.rows import BY_NAME
from tests.faults.shop import Shop
from tests.servers import redis_binary, valkey_binary

DONE, AGAIN, UNKNOWN, ELSEWHERE = "done", "already_done", "outcome_unknown", "run_elsewhere"


MORE = pytest.mark.thorough("the same store, lost in another way or asked by another host")


@pytest.mark.parametrize(
    ("name", "before", "since", "goes_on"),
    [
        ("kill -9, always", {AGAIN}, {AGAIN}, True),
        ("kill -9, older snapshot, asked elsewhere", {AGAIN}, {ELSEWHERE, UNKNOWN}, False),
        pytest.param("kill -9, older snapshot, other tool server", {AGAIN}, {ELSEWHERE, UNKNOWN}, False, marks=MORE),
        pytest.param("kill -9, older snapshot, shared runs, asked elsewhere", {AGAIN}, {ELSEWHERE, UNKNOWN}, False, marks=MORE),
        pytest.param("power cut, everysec, asked elsewhere", {AGAIN}, {ELSEWHERE, UNKNOWN}, False, marks=MORE),
        pytest.param("clean restart", {AGAIN}, {AGAIN}, True, marks=MORE),
        pytest.param("lagging failover, replicas=1, asked elsewhere", {AGAIN}, {DONE, AGAIN, ELSEWHERE}, True, marks=MORE),
        ("split brain, asked elsewhere", {AGAIN}, {ELSEWHERE}, False),
        ("writable replica, promoted", {AGAIN}, {AGAIN}, True),
        ("FLUSHALL", {"not_permitted", "run: run_missing"}, {"not_permitted", "run: run_missing"}, False),
        ("out of memory", {AGAIN}, {AGAIN}, True),
        ("gates' clocks -1 h", {AGAIN}, {AGAIN}, True),
        ("Sentinel: primary cut off", {AGAIN}, {AGAIN}, True),
        pytest.param("cluster: slots move", {AGAIN}, {AGAIN}, True, marks=pytest.mark.thorough("a slot moves under load in test_cluster")),
    ],
)
def test_nothing_happens_twice(name, before, since, goes_on):
    binary, server = (valkey_binary(), "valkey") if len(name) % 2 else (redis_binary(), "redis")
    row = measure(BY_NAME[name], binary, server)
    assert (row.tokens_twice, row.calls_twice) == ([], [])
    assert row.executed >= row.done > 0
    assert (set(row.then["done before"]), set(row.then["done since"])) == (before, since)
    assert (row.recovered is not None, row.remedy) == (goes_on, "" if goes_on else "reconcile")
    assert row.slowest < 1  # a refusal comes within 0.3 s; this machine may be busy


def test_what_happens_twice_is_counted_as_such(tmp_path):
    ledger = Ledger(tmp_path)
    for call in ("a", "b", "a"):
        ledger.execute(call)
    ledger.accept("jti")
    assert dict(ledger.counts("executed")) == {"a": 2, "b": 1}
    assert (ledger.twice("executed"), ledger.twice("accepted")) == (["a"], [])
    ledger.accept("jti")
    assert ledger.twice("accepted") == ["jti"]
    ledger.close()


def test_a_tool_that_really_runs_twice_is_found(tmp_path):
    shop = Shop(tmp_path, redis_binary())
    try:
        call = shop.wanted("before", "payments.send")
        assert (shop.ask(call, "a", "a"), shop.ledger.twice("executed")) == (DONE, [])
        known = shop.server.command("KEYS", f"ag:{{{call.tenant}}}:*").split()
        for key in known:  # the store and whoever is asked know nothing of it
            if key.split(":")[2:3] in (["mints"], ["burns"], ["history"]):
                shop.server.command("DEL", key)
        assert shop.ask(call, "b", "b") == "not_permitted"  # nor of the order that it needs
        shop._run(call, call.tokens[0].jti)
        assert (shop.ledger.twice("executed"), shop.ledger.twice("accepted")) == ([call.name], [call.tokens[0].jti])
    finally:
        shop.close()


def test_a_row_in_which_something_happened_twice_fails_the_run():
    good, call, token = (
        Row("clean restart", "redis"),
        Row("SIGSTOP", "redis", calls_twice=["a"]),
        Row("FLUSHALL", "redis", tokens_twice=["j"]),
    )
    assert verdict([good], {}) == 0
    assert verdict([good], {"redis: a row": "no disk"}) == 2
    assert [verdict([good, bad], {}) for bad in (call, token)] == [1, 1]
    counted = totals([good, call, token])
    assert (counted["calls executed twice"], counted["tokens accepted twice"]) == (1, 1)
    assert [cells[-4:-2] for cells in lines([good, call, token])] == [["0", "0"], ["0", "1"], ["1", "0"]]


def test_the_command_writes_what_it_measured(tmp_path, capsys):
    file = tmp_path / "faults.json"
    assert main(["--row", "clean restart", "--server", "redis", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [(row["name"], row["holds"]) for row in found["rows"]] == [("clean restart", True)]
    assert found["totals"]["calls executed twice"] == 0
    assert {"python", "redis", "valkey"} <= found["versions"].keys()
    assert "0 tokens accepted twice, 0 calls executed twice" in capsys.readouterr().out
