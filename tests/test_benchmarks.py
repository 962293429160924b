"""The benchmarks run, and their JSON keeps its shape. Nothing here judges a time."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.row import QUICK
from tests.benchmarks.rows import GROUPS, rounds
from tests.benchmarks.sidebyside import Pair, compare

TARGETS = {
    "decide_mint": 2.8,
    "verify": 1.3,
    "startup": 2.0,
    "startup_version": 2.0,
    "flat": 1.3,
    "load": 1000.0,
    "memory": 8192.0,
    "read_prose": 2000.0,
    "read_dense": 2000.0,
    "turn_100": 1.5,
    "hold_open": 3000.0,
    "hold_answer": 3000.0,
    "http_exchange": 1 / 0.6,
    "http_tail": 3.0,
    "http_workers": 1 / 1.6,
    "langchain": 3.0,
    "langchain_durable": 6.5,
    "perform": 1.5,
}
NAMES = {
    "decide_mint",
    "decide",
    "verify",
    "decide_mint_verify",
    "decide_mint_verify_reused",
    "startup",
    "startup_version",
    "mint",
    "sign_verify",
    "read_prose",
    "read_dense",
    "cycle",
    "cycle_next",
    "cycle_servers",
    "cycle_dpop",
    "cycle_audit",
    "hold_open",
    "hold_answer",
    "http_exchange",
    "http_kept",
    "http_first",
    "http_tail",
    "http_workers",
    "flat",
    "load",
    "memory",
    "turn_100",
    "langchain",
    "chat_p50",
    "chat_p99",
    "chat_p50_8",
    "chat_p99_8",
    "langchain_durable",
    "langchain_embedded",
    "perform",
    "throughput_1",
    "throughput_8",
    "throughput_64",
    "throughput_64_tasks",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One quick run of everything."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    assert main(["--quick", "--json", str(file)]) == 0
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.thorough("nothing here judges a time")
def test_every_row_is_measured_against_its_baseline_and_target(result):
    rows = result["rows"]
    assert rows.keys() == (
        NAMES if find_spec("tenuo_core") else NAMES - {"sign_verify", "decide_mint_verify_reused"}
    )  # a bench-only dependency's own row
    assert {name: rows[name]["target"] for name in TARGETS} == TARGETS
    for name, row in rows.items():
        assert row["name"] == name
        assert row["unit"] in {"x", "us", "B"}
        assert row["met"] is (None if row["target"] is None else row["value"] <= row["target"])
        if row["unit"] == "x":
            assert row["median_us"] > 0
            assert row["baseline_us"] > 0
            assert row["ratio"] == pytest.approx(row["median_us"] / row["baseline_us"])
            assert row["baseline"]


@pytest.mark.thorough("nothing here judges a time")
def test_a_row_says_whether_its_audit_was_durable(result):
    assert [name for name, row in result["rows"].items() if row["durable"]] == [
        "cycle_audit",
        "hold_open",
        "hold_answer",
        "http_exchange",
        "http_kept",
        "http_first",
        "http_tail",
        "http_workers",
        "langchain_durable",
        "langchain_embedded",
        "chat_p50",
        "chat_p99",
        "chat_p50_8",
        "chat_p99_8",
    ]


@pytest.mark.thorough("nothing here judges a time")
def test_the_result_names_the_machine_and_what_was_measured(result):
    assert result["quick"] is True
    assert result["machine"]["cores"] > 0
    assert {"python", "cryptography", "redis"} <= result["versions"].keys()


def test_the_progress_bar_knows_how_many_steps_a_group_takes():
    assert rounds(QUICK).keys() == GROUPS.keys()


def test_both_sides_get_the_same_number_of_turns_and_take_turns():
    order: list[str] = []
    pair = Pair(lambda: order.append("m"), lambda: order.append("b"), rounds=4, prepare=lambda: order.append("p"))
    assert len(list(compare(pair))) == 4
    assert "".join(order) == "pmb" + "pmb" + "pbm" + "pmb" + "pbm"
