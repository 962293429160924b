"""docs/operations and the metrics of a served gate: what alerts, dashboard and runbook name is there, and says what is so."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.served import Process, served
from tests.served_notes import Notes, Place, a_place

FOLDER = Path(__file__).parents[1] / "docs" / "operations"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
RUNBOOK = (FOLDER / "runbook.md").read_text()
QUERIES = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("notes")) as made:
        yield made


@pytest.fixture(scope="module")
def gate(place: Place) -> Iterator[Process]:
    with served(place.folder, place.settings) as process:
        yield process


def samples(gate: Process) -> dict[str, float]:
    lines = [line for line in gate.http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_every_metric_that_is_named_exists_with_the_labels_that_are_asked_for(tmp_path: Path) -> None:
    with a_place(tmp_path) as place, served(place.folder, place.settings) as gate:
        check_metrics(place, gate)


def check_metrics(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    notes.ask("held", arguments={"urgent": "yes"}, completion_mode="deferred")
    place.store.command("CONFIG", "SET", "appendfsync", "everysec")
    wanted = {"agentgate_condition", *(name for query in QUERIES for name in re.findall(r"agentgate_\w+", query))}
    found: dict[str, set[str]] = {}
    for _ in range(100):
        found = {}
        for sample in samples(gate):
            name, _, labels = sample.partition("{")
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
        if wanted <= found.keys():
            break
        time.sleep(0.2)
    assert wanted - found.keys() == set()
    for query in QUERIES:
        for name, labels in re.findall(r"(agentgate_\w+)\{(\w+)=", query):
            assert labels in found[name], query
        for labels in re.findall(r"by \(([\w, ]+)\)", query):
            of = {label for name in re.findall(r"agentgate_\w+", query) for label in found[name]}
            assert set(labels.split(", ")) <= of | {"instance"}, query


def test_every_alert_has_its_section_and_every_code_its_row() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations/runbook.md#{rule['alert'].lower()}"
    health = (Path(__file__).parents[1] / "agentgate" / "service" / "health.py").read_text()
    codes = set(re.findall(r'(?<=HealthCondition\(")\w+|(?<=")audit(?!_free_bytes)\w*(?=")', re.sub(r"\(\s+", "(", health))) | {
        "stale_index",
        "store_may_lose",
        "replica_left",
    }
    assert codes == set(re.findall(r"^\| `(\w+)`", RUNBOOK, re.MULTILINE)) - {"NAME_expired"}


def test_what_waits_what_is_unknown_and_what_took_how_long_is_counted(place: Place, gate: Process) -> None:
    notes, before = Notes(place, gate), samples(gate)
    assert notes.ask("a held one", arguments={"urgent": "yes"}, completion_mode="deferred").json()["error"] == "authorization_pending"
    who = {"subject_token": place.token()}  # the same run
    token = notes.ask("nobody knows", **who).json()["access_token"]
    assert notes.server.redeem(token, "notes.write", {"text": "nobody knows"}, notes.asking.key).status_code == 200
    assert notes.ask("nobody knows", **who).json()["error_description"] == "outcome_unknown"
    after = samples(gate)
    assert after['agentgate_holds_open{tenant="acme"}'] == before['agentgate_holds_open{tenant="acme"}'] + 1
    assert after['agentgate_oldest_hold_seconds{tenant="acme"}'] > 0
    assert after["agentgate_outcomes_unknown_total"] == before["agentgate_outcomes_unknown_total"] + 1
    assert after['agentgate_store_seconds_count{operation="mint"}'] > before.get('agentgate_store_seconds_count{operation="mint"}', 0)
    assert after["agentgate_tenants_lost"] == 0
    assert after["agentgate_audit_free_bytes"] > 0
    assert after['agentgate_workflow_in_force{version="1",workflow="desk.notes"}'] == 1


def test_a_nonce_challenge_is_no_refusal(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    lines, before = len(gate.log()), samples(gate)
    challenged = gate.http.post("/oauth2/token", data=notes.form(), headers=notes.asking.proof())
    assert challenged.json()["error"] == "use_dpop_nonce"
    assert not [name for name in samples(gate) if "use_dpop_nonce" in name]
    refusals = {name: value for name, value in samples(gate).items() if name.startswith("agentgate_refusals_total")}
    assert refusals == {name: value for name, value in before.items() if name.startswith("agentgate_refusals_total")}
    assert [each["event"] for each in gate.log()[lines:] if each.get("path") == "/oauth2/token"] == ["answered"]
