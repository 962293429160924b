"""Recorded calls decided again under another version: what it says is what a real gate under it says, or that it cannot be told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate import Allow, Deny
from agentgate.audit import FileAudit
from agentgate.cli.main import app
from agentgate.intents.lexical import derive
from agentgate.loading.definition import load_text
from agentgate.review.report.past import decide_again, retrial_lines
from agentgate.values.refusal import RunRefused
from tests.shop import ORDER, REFUND, WORKFLOW, looked_up, opened, run_of
from tests.test_perform import Way, in_one, in_two

CALLS: tuple[dict[str, str], ...] = (
    {},
    {"amount": "120.00"},
    {"amount": "600.00"},
    {"amount": "0.00"},
    {"currency": "USD"},
    {"payee": "cus_evil"},
    {"order_id": "ORD-99999999"},
    {"note": "an argument that no version has"},
)
EDITS = {
    "nothing": ("title: Refund one named order", "title: Refund an order"),
    "a lower bound": ('max: "500.00"', 'max: "110.00"'),
    "a higher bound": ('max: "500.00"', 'max: "700.00"'),
    "no bound": ('min: "0.01", max: "500.00", ', ""),
    "another currency": ("{in: [EUR]", "{in: [EUR, USD]"),
    "fewer currencies": ("{in: [EUR]", "{in: [USD]"),
    "a pattern": ("order_id: {type: id, from: [orders", "order_id: {type: id, pattern: 'ORD-1.*', from: [orders"),
    "hours": ('to: "20:00"', 'to: "09:00"'),
    "tenants": ("tenants: [acme, other]", "tenants: [other]"),
    "expiry": ('"2099-05-31"', '"2026-01-31"'),
    "groups": ("groups: [support]", "groups: [leads]"),
    "words": ("words: [refund, reimburse]", "words: [reimburse]"),
    "an origin": ("from: [orders.get.customer]", "from: [orders.get.customer, model]"),
    "a threshold": ('above: "100.00"', 'above: "30.00"'),
    "approvers": ("group: leads", "group: chiefs"),
    "a limit": ("max: 2, per: run", "max: 1, per: run"),
    "order": ("within: 15m", "within: 1s"),
    "a sensitive rule": ("payee: {type: id, from", "payee: {type: id, pattern: 'cus_[0-9]', from"),
    "one tool less": ("  payments.refund:\n", "  payments.repay:\n"),
    "an argument": ("      currency: {in: [EUR]", "      note: {text: 100, from: [model], optional: true}\n      currency: {in: [EUR]"),
}


def text_of(name: str) -> str:
    old, new = EDITS[name]
    text = WORKFLOW.replace(old, new)
    if name == "words":
        text = text.replace("Please refund order", "Please reimburse order")
    return text.replace("payments.refund", "payments.repay") if name == "one tool less" else text


def decided(folder: Path, text: str) -> list[tuple[Any, dict[str, Any] | None]]:
    """The answers of a real gate, with the record of each; None where no run opens."""
    (folder / "w").mkdir(parents=True)
    (folder / "w" / "refund.yaml").write_text(text)
    found: list[tuple[Any, dict[str, Any] | None]] = []
    with opened(folder) as gate:
        log: Any = gate._audit
        for change in CALLS:
            try:
                run = run_of(gate)
            except RunRefused:
                found.append((None, None))
                continue
            look = run.authorize("orders.get", ORDER, tool_call_id="look")
            if isinstance(look, Allow):
                with run.redeem(look.token, tool="orders.get", args=ORDER) as call:
                    total, currency = change.get("amount", "150.00"), change.get("currency", "EUR")
                    call.record_result({"total": total, "currency": currency, "customer": "cus_1"})
            answer = run.authorize("payments.refund", {**REFUND, **change}, tool_call_id="pay")
            found.append((answer, [each for each in log.records if each["type"] == "decision"][-1]))
    return found


def kind(answer: Any) -> str:
    return "deny" if isinstance(answer, Deny) else "allow" if isinstance(answer, Allow) else "step_up"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, dict[str, Any] | None]]:
    return decided(tmp_path_factory.mktemp("old"), WORKFLOW)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_told_is_what_a_real_gate_says(recorded: list[Any], tmp_path: Path, name: str) -> None:
    text = text_of(name)
    assert text != WORKFLOW
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text))
    told = 0
    for (was, record), (would, _) in zip(recorded, decided(tmp_path, text), strict=True):
        if would is None:
            continue
        first, apart = retrial_lines(decide_again([record], old, new), "7d")
        if apart.startswith("of 1 of 1"):
            continue
        told += 1
        otherwise = kind(was) != kind(would)
        assert first.startswith(f"and {int(otherwise)} "), (record["args"], kind(was), kind(would), first, apart)
        assert not otherwise or f"{kind(was)} -> {kind(would)}" in first
    if name == "nothing":
        assert told == len(CALLS)
    if name in {"a lower bound", "another currency", "fewer currencies", "hours"}:
        assert told >= 6, "these are told by what is on record"


def test_what_no_record_has_is_counted_apart(recorded: list[Any]) -> None:
    record = recorded[0][1]
    for name, what in {
        "words": "intents.refund.words",
        "an origin": "args.payee.from",
        "a limit": "limits.count payments.refund per run",
        "approvers": "step_up.big.approvers",
        "groups": "who.for_user.groups",
        "a sensitive rule": "args.payee.pattern",
    }.items():
        old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text_of(name)))
        assert [*retrial_lines(decide_again([record], old, new), "7d")] == [
            "and 0 recorded calls of the last 7d would be decided otherwise: none",
            f"of 1 of 1 calls the log cannot tell: 1 for {what}",
        ]


@pytest.mark.parametrize(
    "change", [{"workflow": 7}, {"args": [1]}, {"at": "then"}, {"hidden": 3}, {"reasons": [None]}, {"tool": {}}, {"args": {"x": 1e400}}]
)
def test_a_record_that_no_gate_wrote_ends_nothing(recorded: list[Any], change: dict[str, Any]) -> None:
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text_of("a higher bound")))
    record = {**recorded[2][1], "tool_call_id": "another", **change}
    assert [*retrial_lines(decide_again([record, recorded[0][1]], old, new), "7d")][-1].startswith("of 1 of 2 calls the log cannot tell: ")


def test_what_another_version_decided_or_two_did_is_counted_apart(recorded: list[Any]) -> None:
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text_of("a lower bound")))
    record = recorded[1][1]
    other = {**record, "workflow": {**record["workflow"], "digest": "sha256:other"}}
    ended = {name: value for name, value in record.items() if name != "at"}  # its run had ended: no rule was asked
    for each in (other, ended, {**record, "in_force": {"version": 2, "digest": new.digest}}):
        assert "the log cannot tell: 1 that other versions decided" in [*retrial_lines(decide_again([each], old, new), "7d")][1]


@pytest.mark.parametrize("number", [0, 5], ids=["allowed", "refused for its origin"])
def test_a_difference_in_what_another_tool_returns_is_counted_apart(recorded: list[Any], number: int) -> None:
    text = WORKFLOW.replace("customer: {type: id}", "customer: {type: id, pattern: 'cus_[a-z]*'}")
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text))
    assert "1 for facts.customer.pattern" in [*retrial_lines(decide_again([recorded[number][1]], old, new), "7d")][1]


def test_what_a_version_said_of_a_call_goes_first_where_it_knew(recorded: list[Any]) -> None:
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text_of("words")))
    record = recorded[0][1]
    said = {**record, "type": "observation", "would": "deny", "reasons": [{"field": "intent"}], "observed": {"digest": new.digest}}
    assert "1 payments.refund allow -> deny (intent)" in next(retrial_lines(decide_again([record, said], old, new), "7d"))
    assert "1 for facts" in [*retrial_lines(decide_again([record, {**said, "unknown": "facts"}], old, new), "7d")][1]
    another = {**said, "observed": {"digest": "sha256:other"}}
    assert "1 for intents.refund.words" in [*retrial_lines(decide_again([record, another], old, new), "7d")][1]


@pytest.mark.parametrize("way", [in_two, in_one], ids=["authorised and redeemed", "performed"])
def test_a_log_is_replayed_under_a_version_that_never_ran(tmp_path: Path, way: Way) -> None:
    decided(tmp_path, WORKFLOW)  # a folder of workflows; and a log that lasts
    (tmp_path / "new.yaml").write_text(text_of("a lower bound").replace("version: 1", "version: 2"))
    with opened(tmp_path, audit=str(tmp_path / "audit"), keys=tmp_path / "keys") as gate:
        run = run_of(gate)
        with way(run, "orders.get", ORDER, "look") as call:
            call.record_result({"total": "120.00", "currency": "EUR", "customer": "cus_1"})
        run.authorize("payments.refund", {**REFUND, "amount": "120.00"}, tool_call_id="pay")
    common = "--audit", str(tmp_path / "audit"), "--keys", str(tmp_path / "keys"), "--workflows", str(tmp_path / "w")
    done = CliRunner().invoke(app, ["replay", "--since", "7d", str(tmp_path / "new.yaml"), *common], env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.exit_code == 0, done.output
    assert "and 1 recorded calls of the last 7d would be decided otherwise: 1 payments.refund step_up -> deny (args.amount)" in done.stdout
    assert "of 0 of 2 calls the log cannot tell: none" in done.stdout
    words = ["replay", str(tmp_path / "new.yaml"), *common, "--json", "--cache", str(tmp_path / "cache")]
    otherwise = {"payments.refund step_up -> deny (args.amount)": 1}
    for more, counted in (
        ([], {"calls": 2, "otherwise": otherwise, "untold": {}}),
        (["--tenant", "acme"], {"calls": 2, "otherwise": otherwise, "untold": {}}),
        (["--tenant", "other"], {"calls": 0, "otherwise": {}, "untold": {}}),
        (["--until", "2020-01-01"], {"calls": 0, "otherwise": {}, "untold": {}}),
    ):
        assert json.loads(CliRunner().invoke(app, [*words, *more]).stdout) == counted
    assert [*(tmp_path / "cache").iterdir()] != []
    assert "verified" in done.stderr
    (tmp_path / "other.yaml").write_text((tmp_path / "new.yaml").read_text().replace("shop.refund", "shop.other"))
    for words in (["--since", "2099-01-01", str(tmp_path / "new.yaml")], [str(tmp_path / "other.yaml")]):
        done = CliRunner().invoke(app, ["replay", *words, *common], env={"XDG_CACHE_HOME": str(tmp_path)})
        assert "of 0 of 0 calls the log cannot tell: none" in done.stdout


def test_of_several_gates_that_decided_on_a_call_the_last_counts(recorded: list[Any], tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(text_of("a lower bound"))
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "refund.yaml").write_text(WORKFLOW)
    later, earlier = recorded[1][1], recorded[2][1]  # asked about, and refused before; 120.00 is too much for the other version
    for name, told, ago in (("one", later, 0), ("two", earlier, 60)):
        log = FileAudit(tmp_path / name)
        record = {key: value for key, value in told.items() if key not in {"seq", "writer"}}
        log.append({**record, "run": "run_1", "time": later["time"] - ago}, time.monotonic() + 5)
        log.close()
    words = ["replay", "--since", "2026-01-01", str(tmp_path / "new.yaml"), "--workflows", str(tmp_path / "workflows")]
    words += ["--audit", str(tmp_path / "one"), "--audit", str(tmp_path / "two")]
    done = CliRunner().invoke(app, words, env={"XDG_CACHE_HOME": str(tmp_path)})
    assert "1 recorded calls of the last 2026-01-01 would be decided otherwise" in done.output, done.output


def test_what_is_recorded_in_full_changes_no_call(tmp_path: Path) -> None:
    note = "      note: {text: 100, from: [model], optional: true}\n      currency: {in: [EUR]"
    text = WORKFLOW.replace("      currency: {in: [EUR]", note)
    found = decided(tmp_path, text)
    old, new = (
        load_text(each, "refund.yaml", {}, derive) for each in (text, text.replace("optional: true}", "optional: true, record: full}"))
    )
    for _, record in found:
        assert record is not None
        assert [*retrial_lines(decide_again([record], old, new), "7d")][1] == "of 0 of 1 calls the log cannot tell: none"


def test_a_call_that_was_repeated_counts_as_it_was_allowed(tmp_path: Path) -> None:
    old, new = (load_text(each, "refund.yaml", {}, derive) for each in (WORKFLOW, text_of("fewer currencies")))
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "refund.yaml").write_text(WORKFLOW)
    with opened(tmp_path) as gate:
        log: Any = gate._audit
        run = run_of(gate)
        looked_up(run)
        answer = run.authorize("payments.refund", REFUND, tool_call_id="pay")
        assert isinstance(answer, Allow)
        with run.redeem(answer.token, tool="payments.refund", args=REFUND):
            pass
        assert isinstance(run.authorize("payments.refund", REFUND, tool_call_id="pay"), Deny)
        records = list(log.records)
    for each in (records, records[::-1]):
        assert decide_again(each, old, new)["otherwise"] == {"payments.refund allow -> deny (args.currency)": 1}
