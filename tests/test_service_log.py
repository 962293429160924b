"""The log of the service: every refusal is a line in it, with the run it was in."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from agentgate.audit import read_records
from agentgate.stores import open_store, ops
from tests.served import Asking, Party, Process
from tests.served_notes import Notes, Place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import notes as notes  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture


def refused(gate: Process) -> dict[str, Any]:
    """The newest line."""
    line = gate.log()[-1]
    assert line["event"] == "refused"
    return line


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"resource": "https://evil.example"}, "invalid_target"),
        ({"scope": "notes:admin"}, "invalid_scope"),
        ({"of": {"identifier": "notes.local", "arguments": {}}}, "invalid_target"),
        ({"arguments": {"text": "x" * 41}}, "invalid_authorization_details"),
        ({"arguments": {"urgent": "yes"}}, "access_denied"),
        ({"app": "other"}, "invalid_request"),
        ({"sub": "somebody-else"}, "invalid_request"),
        ({"client": "other"}, "invalid_authorization_details"),
        ({"iss": "https://nobody.example"}, "invalid_request"),
    ],
    ids=str,
)
def test_a_refused_exchange_is_logged_with_its_run(notes: Notes, place: Place, change: dict[str, Any], error: str) -> None:
    token = place.token()
    assert notes.ask("first", subject_token=token).status_code == 200
    run = notes.gate.log()[-1]["run"]
    claims = {name: change.pop(name) for name in ("app", "sub", "iss") if name in change}
    more = {"subject_token": place.token(**claims) if claims else token, **change, "of": {**change.get("of", {}), "run": run}}
    if (name := more.pop("client", "")) != "":
        more |= Party(notes.gate, name, place.keys[name]).asserted()
    assert error_of(notes.ask("second", **more))[1] == error
    assert refused(notes.gate)["run"] == run


def test_a_refused_opening_is_logged_with_the_run_that_its_record_names(notes: Notes, place: Place) -> None:
    with closing(open_store(place.store.url)) as store:
        store.call(ops.revoke("acme", "tenant", "*"), time.monotonic() + 5)
        assert notes.ask().status_code == 400
        store.call(ops.lift("acme", "tenant", "*"), time.monotonic() + 5)
    run = refused(notes.gate)["run"]
    records = "".join(each.read_text() for each in (place.folder / "audit").rglob("*") if each.is_file())
    assert f'"run":"{run}"' in records
    token = place.token()
    assert notes.ask(subject_token=token).status_code == 200
    own, stranger = notes.gate.log()[-1]["run"], Asking(notes.gate)
    stranger.nonce = notes.asking.nonce
    assert error_of(stranger.ask(notes.form(subject_token=token))) == (400, "invalid_dpop_proof")
    assert refused(notes.gate)["run"] == own


def test_a_refused_redemption_is_logged_with_the_run_of_its_token(notes: Notes) -> None:
    token = notes.ask("redeemed").json()["access_token"]
    run, key = notes.gate.log()[-1]["run"], notes.asking.key
    for error, asked in (
        ("arguments", {"text": "another", "key": key}),
        ("arguments", {"text": "redeemed", "more": 2**60, "key": key}),
        ("proof_missing", {"text": "redeemed"}),
        ("", {"text": "redeemed", "key": key}),
        ("used", {"text": "redeemed", "key": key}),
    ):
        shown: Any = asked.pop("key", None)
        answer = notes.server.redeem(token, "notes.write", asked, shown)
        assert (answer.status_code == 200 or error_of(answer)[1], notes.gate.log()[-1]["run"]) == (error or True, run)
    head, payload, _ = token.split(".")
    assert error_of(notes.server.redeem(f"{head}.{payload}.{'A' * 86}", "notes.write", {"text": "redeemed"}, key)) == (401, "signature")
    assert "run" not in refused(notes.gate)  # nobody of ours said so


def test_a_refused_poll_and_turn_are_logged_with_their_run(notes: Notes) -> None:
    code = notes.ask("reported", arguments={"urgent": "yes"}, completion_mode="deferred").json()["deferral_code"]
    run = notes.gate.log()[-1]["run"]
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:deferred", "deferral_code": code, **notes.client.asserted()}
    stranger = Asking(notes.gate)
    stranger.nonce = notes.asking.nonce
    assert error_of(stranger.ask(form)) == (400, "invalid_dpop_proof")
    assert refused(notes.gate)["run"] == run
    assert error_of(notes.host.post(f"/v1/runs/{run}/turns", {"turn": "and?"})) == (404, "not_found")  # no host opened it
    assert refused(notes.gate)["run"] == run


def test_what_is_not_here_is_logged_and_counted_without_what_stood_there(gate: Process) -> None:
    for method, path, status, shown in (("GET", "/s3cret", 404, "(none)"), ("S3CRET", "/oauth2/token", 405, "/oauth2/token")):
        assert gate.http.request(method, path, headers={"X-Request-ID": "of-mine"}).status_code == status
        line = refused(gate)
        assert (line["status"], line["path"], line["reasons"]) == (status, shown, [])
    text = gate.stderr.read_text() + gate.http.get("/metrics").text
    assert 'agentgate_refusals_total{error="not_found",route="(none)"}' in text
    assert "s3cret" not in text.lower()


def test_records_of_an_agent_that_works_for_nobody_name_no_user(notes: Notes, place: Place) -> None:
    token = notes.ask("for nobody").json()["access_token"]
    redeemed = notes.server.redeem(token, "notes.write", {"text": "for nobody"}, notes.asking.key).json()
    notes.server.post(f"/v1/calls/{redeemed['txn']}/outcome", {"outcome": "done"})
    told = [each for each in read_records(place.folder / "audit") if each.get("txn") == redeemed["txn"]]
    assert [(each["type"], each["user"]) for each in told] == [("decision", None), ("redemption", None), ("outcome", None)]
