"""The process: what it publishes and logs, a store that is away, reload, end, rates, certificates, settings."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

import tests.served
from agentgate.cli.main import app
from agentgate.service.app import ROUTES
from tests.preloaded import AGENTGATE, run
from tests.served import Party, Process, detail, served, toml
from tests.served_notes import GATE, Notes, Place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.served_notes import notes as notes  # noqa: PLC0414 - a fixture
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.servers import Server as StoreServer
from tests.servers import redis_binary
from tests.test_notify import Listener
from tests.test_service_wire import answered_by

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}\n"
# A file system that hangs: whoever opens PATH waits while there is a file PATH.INODE.hangs.
HANGING = """
import os, time
at_once = os.open
def hang(path, *more, **named):
    handle = at_once(path, *more, **named)
    while os.path.exists(f"{path}.{os.fstat(handle).st_ino}.hangs"):
        time.sleep(0.02)
    return handle
os.open = hang
"""
DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"


def test_what_is_published(notes: Notes, gate: Process) -> None:
    told = gate.http.get("/.well-known/oauth-authorization-server").json()
    assert (told["issuer"], told["token_endpoint"]) == (GATE, f"{GATE}/oauth2/token")
    assert DEFERRED in told["grant_types_supported"]
    assert gate.http.get("/.well-known/oauth-authorization-server/acme").json() == told
    assert gate.http.get("/.well-known/oauth-authorization-server/nobody").status_code == 404
    evaluation = gate.http.get("/.well-known/authzen-configuration").json()["access_evaluation_endpoint"]
    assert evaluation == f"{GATE}/access/v1/evaluation"
    (key,) = gate.http.get("/oauth2/jwks").json()["keys"]
    assert "d" not in key
    document = gate.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    told_of = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert told_of == {(path, method) for path, method, *_ in ROUTES} - {("/openapi.json", "GET")}
    notes.ask()
    assert "agentgate_requests_total{" in gate.http.get("/metrics").text


def test_nothing_secret_is_in_the_log_and_nothing_at_all_on_standard_output(notes: Notes, gate: Process) -> None:
    form = notes.form("canary-text-of-a-call")
    answer = notes.ask()
    secret = [answer.json()["access_token"], form["subject_token"], form["client_assertion"], "canary-text-of-a-call"]
    notes.asking.ask(form)
    notes.asking.ask({**form, "subject_token": "canary.credential.x"})
    gate.http.get("/healthz?token=canary-in-a-query", headers={"Authorization": "Bearer canary-header"})
    text = gate.stderr.read_text()
    assert not [each for each in [*secret, "canary"] if each in text]
    assert gate.stdout.read_bytes() == b""
    assert {"event", "level", "timestamp"} <= gate.log()[-1].keys()


@pytest.mark.deadline
def test_a_store_that_is_away_is_a_503_and_nothing_is_minted(place: Place) -> None:
    with served(place.folder, {**place.settings, "audit": str(place.folder / "audit-4")}) as gate:
        notes = Notes(place, gate)
        assert notes.ask("before").status_code == 200
        form = notes.form("while it is away")
        place.store.pause()
        try:
            began = time.monotonic()
            answer = notes.asking.ask(form)
            took = time.monotonic() - began
            time.sleep(1.1)  # it is looked at again
            assert gate.http.get("/readyz").status_code == 503
            assert gate.http.get("/healthz").status_code == 200
        finally:
            place.store.resume()
        assert (error_of(answer), answer.headers["Retry-After"]) == ((503, "temporarily_unavailable"), "2")
        assert took < 2
        assert notes.ask("after").status_code == 200


def test_a_reload_takes_up_what_reviewers_revoked_and_keeps_on_answering(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "workflows"
    shutil.copytree(place.workflows, folder)
    with served(place.folder, {**place.settings, "workflows": str(folder), "audit": str(tmp_path / "audit")}) as gate:
        notes = Notes(place, gate)
        assert notes.ask("before").status_code == 200
        os.kill(gate.process.pid, signal.SIGHUP)
        until(lambda: gate.log()[-1]["event"] == "reloaded", gate)
        assert notes.ask("reloaded").status_code == 200
        (folder / "approvals" / "root.yaml").write_text("broken")
        os.kill(gate.process.pid, signal.SIGHUP)
        until(lambda: gate.log()[-1]["event"] == "not_reloaded", gate)
        assert notes.ask("what was in force stays").status_code == 200
        assert gate.end() == 0


def test_clients_issuers_and_rates_are_read_again_and_what_needs_a_restart_is_named(place: Place) -> None:
    with served(place.folder, {**place.settings, "audit": str(place.folder / "audit-reread")}) as gate:
        notes = Notes(place, gate)
        before = notes.ask("before").json()["access_token"]
        assert notes.server.redeem(before, "notes.write", {"text": "before"}, notes.asking.key).status_code == 200
        listen = f"127.0.0.1:{gate.port}"

        def again(event: str, text: str = "", **change: Any) -> dict[str, Any]:
            seen = len(gate.log())
            gate.file.write_text(text or toml({**place.settings, "audit": str(place.folder / "audit-reread"), "listen": listen, **change}))
            os.kill(gate.process.pid, signal.SIGHUP)
            until(lambda: any(line["event"] == "reloaded" for line in gate.log()[seen:]), gate)
            (found,) = [line for line in gate.log()[seen:] if line["event"] == event]
            return found

        own = place.settings["clients"]
        fewer = {name: client for name, client in own.items() if name != "other"} | {"late": own["other"]}
        said = again("settings_reread", clients=fewer, rate=9_999, deferred=False, runs_per_hour=3)
        assert (sorted(said["changed"]), sorted(said["restart"])) == (["clients", "rate"], ["deferred", "runs_per_hour"])
        late, other = Party(gate, "late", place.keys["other"]), Party(gate, "other", place.keys["other"])
        assert notes.ask("by who is new", **late.asserted()).status_code == 200
        assert error_of(notes.ask("by who is gone", **other.asserted())) == (401, "invalid_client")
        assert notes.ask("before and after").status_code == 200
        wrong = again("settings_not_reread", clients={**fewer, "late": {"role": "agent", "tenants": ["acme"]}})
        assert "clients.late" in wrong["what"]
        again("settings_not_reread", text="not = [toml")
        assert notes.ask("what was in force stays", **late.asserted()).status_code == 200
        issuers = {"login": {**place.settings["identity"]["issuers"]["login"], "audience": "https://other.example"}}
        assert again("settings_reread", clients=fewer, rate=9_999, identity={"issuers": issuers})["changed"] == ["identity"]
        assert error_of(notes.ask("for another audience")) == (400, "invalid_request")
        server = {**fewer["server"], "tenants": ["other"]}

        def slowly() -> Iterator[bytes]:  # it began under the settings of before, and is looked at under the new ones
            yield b'{"token": "a.b.c", "tool": "x", '
            again("settings_reread", clients={**fewer, "server": server})
            yield b'"arguments": {}}'

        shown = {"Authorization": f"Bearer {notes.server.assertion()}", "Content-Type": "application/json"}
        assert gate.http.post("/v1/redeem", content=slowly(), headers=shown).status_code == 401
        assert notes.ask("back").status_code == 200
        token = notes.ask("moved").json()["access_token"]
        assert notes.server.redeem(token, "notes.write", {"text": "moved"}, notes.asking.key).status_code != 200


def test_settings_that_were_read_earlier_never_replace_those_read_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.served, "START", HANGING + tests.served.START)
    with served(place.folder, {**place.settings, "audit": str(place.folder / "audit-order")}) as gate:
        notes, own = Notes(place, gate), place.settings["clients"]
        fewer = {name: client for name, client in own.items() if name != "other"}
        hangs = gate.file.with_name(f"{gate.file.name}.{gate.file.stat().st_ino}.hangs")
        hangs.touch()
        os.kill(gate.process.pid, signal.SIGHUP)
        time.sleep(0.5)  # it is being read
        new = gate.file.with_suffix(".new")
        new.write_text(
            toml({**place.settings, "audit": str(place.folder / "audit-order"), "listen": f"127.0.0.1:{gate.port}", "clients": fewer})
        )
        new.rename(gate.file)
        os.kill(gate.process.pid, signal.SIGHUP)
        time.sleep(0.5)
        hangs.unlink()
        until(lambda: sum(line["event"] == "reloaded" for line in gate.log()) == 2, gate)
        gone = Party(gate, "other", place.keys["other"])
        assert error_of(notes.ask("by who is gone", **gone.asserted())) == (401, "invalid_client")


def test_no_collection_of_a_served_gate_looks_at_its_workflows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection takes longer than half of what a call may: what was loaded when the gate opened is out of its sight."""
    watching = """
import atexit, gc
from agentgate.workflow.model import Workflow
seen = lambda: sum(type(each) is Workflow for each in gc.get_objects())
atexit.register(lambda: print(seen(), gc.get_freeze_count() > 50_000))
"""
    monkeypatch.setattr(tests.served, "START", watching + tests.served.START)
    with served(place.folder, place.settings) as process:
        assert process.end() == 0
        assert process.stdout.read_text() == "0 True\n"


def test_a_request_in_flight_is_answered_when_the_process_ends(place: Place) -> None:
    with served(place.folder, {**place.settings, "audit": str(place.folder / "audit-5")}) as gate:
        body = b"grant_type=x"
        kind = "Host: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded"
        head = f"POST /oauth2/token HTTP/1.1\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", gate.port), timeout=10) as line:
            line.sendall(head.encode() + body[:-1])
            time.sleep(0.3)
            gate.process.terminate()
            time.sleep(0.3)
            line.sendall(body[-1:])
            found = b""
            while chunk := line.recv(65536):
                found += chunk
            assert b"unsupported_grant_type" in found
        assert gate.process.wait(timeout=15) == 0


def until(holds: Any, gate: Process) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, gate.log()[-3:]
        time.sleep(0.05)


def test_each_client_has_its_rate(place: Place) -> None:
    with served(place.folder, {**place.settings, "rate": 1, "audit": str(place.folder / "audit-6")}) as gate:
        notes = Notes(place, gate)
        codes = [notes.ask(f"{n}").status_code for n in range(14)]
        assert codes.count(429) >= 1
        last = notes.gate.http.post("/oauth2/token", data=notes.form())
        assert (last.status_code, int(last.headers["Retry-After"]) >= 1) == (429, True)
        assert Notes(place, gate).server.redeem("x.y.z", "notes.write", {}).status_code == 401  # another client
        batch: dict[str, Any] = {"evaluations": [{}] * 20}  # each of them counts
        assert Party(gate, "desk", place.keys["desk"]).post("/access/v1/evaluations", batch).status_code == 429


def test_an_address_that_guesses_clients_stops_nobody_and_is_in_the_log(place: Place) -> None:
    proxies = {"proxies": {"addresses": ["127.0.0.1"]}}
    settings = {**place.settings, "rate": 1, "audit": str(place.folder / "audit-8"), "identity": {**place.settings["identity"], **proxies}}
    with served(place.folder, settings) as gate:

        def guess(address: str) -> int:
            headers = {"Authorization": "Bearer x.y.z", "X-Forwarded-For": address}
            return gate.http.post("/v1/redeem", json={}, headers=headers).status_code

        assert {guess("203.0.113.1") for _ in range(20)} == {401}
        assert {guess("203.0.113.2"), guess("2001:db8:0:1::1"), guess("2001:db8:0:1::2"), guess("2001:db8:0:2::1")} == {401}
        callers = [line["from"] for line in gate.log() if line["event"] == "refused"]  # of one subscriber's addresses one
        assert callers == ["203.0.113.1"] * 20 + ["203.0.113.2", "2001:db8:0:1::/64", "2001:db8:0:1::/64", "2001:db8:0:2::/64"]


def certificate(name: str) -> tuple[str, str]:
    """A certificate as a proxy passes it on, and its thumbprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key()).serial_number(1)
    made = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1)).sign(key, SHA256())
    thumbprint = base64.urlsafe_b64encode(made.fingerprint(SHA256())).rstrip(b"=").decode()
    return quote(made.public_bytes(Encoding.PEM).decode()), thumbprint


def test_a_certificate_counts_from_a_configured_proxy_only(place: Place) -> None:
    pem, thumbprint = certificate("notes")
    stranger, _ = certificate("notes")
    clients = {**place.settings["clients"], "notes": {"role": "agent", "certificates": [thumbprint], "tenants": ["acme"]}}
    for address, expected in (("127.0.0.1", 200), ("10.0.0.0/8", 401)):
        identity = {**place.settings["identity"], "proxies": {"addresses": [address], "certificate": "pem"}}
        settings = {**place.settings, "clients": clients, "identity": identity, "certificate_header": "X-Client-Certificate"}
        with served(place.folder, {**settings, "audit": str(place.folder / f"audit-{expected}")}) as gate:
            notes = Notes(place, gate)
            form = {**notes.asking.form(place.token(), detail("notes.write", "desk.notes", {"text": "x"})), "client_id": "notes"}
            assert notes.asking.ask(form, {"X-Client-Certificate": pem}).status_code == expected
            assert notes.asking.ask(form, {"X-Client-Certificate": stranger}).status_code == 401
            assert notes.asking.ask(form).status_code == 401


def test_who_is_told_learns_of_held_calls_and_of_answers_given_elsewhere(place: Place) -> None:
    (place.folder / "secret.txt").write_text(SECRET)
    hooked = Listener()
    told = {"leads": {"url": hooked.url, "secret": str(place.folder / "secret.txt"), "private_addresses": True}}
    with served(place.folder, {**place.settings, "audit": str(place.folder / "audit-8"), "tell": told}) as gate:
        notes = Notes(place, gate)
        notes.ask("told", arguments={"urgent": "yes"}, completion_mode="deferred")
        hold = hooked.wait(1)[-1]["hold"]
        answered_by(place, hold, release=False)  # by another process, which tells nobody
        said = hooked.wait(2)[-1]
    hooked.close()
    assert (said["type"], said["hold"], said["by"], said["state"], said["channel"]) == ("answered", hold, "ana", "refused", "token")


# --- settings -----------------------------------------------------------------------------------------------------------------------
def check(place: Place, change: dict[str, Any], **environment: str) -> tuple[int, str]:
    """`agentgate serve --check`."""
    (place.folder / "secret.txt").write_text(SECRET)
    file = place.folder / "check.toml"
    values = {name: value for name, value in {**place.settings, **change}.items() if value is not None}
    file.write_text(toml(values))
    words = ["serve", "--settings", str(file), "--check"]
    if not environment:
        with chdir(place.folder):
            result = CliRunner().invoke(app, words)
        return result.exit_code, result.output
    env = {**os.environ, **environment}
    if "PYTHONPATH" in environment:
        command = [sys.executable, "-c", AGENTGATE, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=place.folder, check=False, timeout=60)
    else:
        done = run(*words, env=env, cwd=place.folder)
    return done.returncode, done.stdout + done.stderr


def test_a_check_says_that_settings_are_complete(place: Place) -> None:
    code, text = check(place, {"audit": str(place.folder / "audit-7")})
    assert (code, "complete: 1 workflows in force, 6 clients" in text) == (0, True), text
    assert [line for line in text.splitlines() if line.startswith("look:")] == [
        "look: identity.proxies: none, and TLS ends in front of the gate: all whom that proxy passes on count as one address",
        "look: desk.notes: notes.local: redeem: wrapper, and over HTTP only what a server redeems is exchanged",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, True),
        ({"issuer": "http://127.0.0.1:8080"}, False),
        ({"proxies": {"addresses": ["10.0.0.0/8"]}}, False),
        ({"listen": "unix:/tmp/g"}, False),
    ],
)
def test_a_check_tells_that_a_proxy_would_make_all_callers_one_address(place: Place, change: dict[str, Any], *, told: bool) -> None:
    identity = {**place.settings["identity"], **{name: change[name] for name in change.keys() & {"proxies"}}}
    more = {name: value for name, value in change.items() if name != "proxies"}
    code, text = check(place, {"identity": identity, "audit": str(place.folder / "audit-7"), **more})
    assert (code, "look: identity.proxies: none, and TLS ends in front" in text) == (0, told), text


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_that_is_taken_is_named(place: Place, tmp_path: Path, workers: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "gate.toml"
        file.write_text(toml({**place.settings, "listen": listen, "workers": workers, "audit": str(tmp_path / "audit")}))
        done = run("serve", "--settings", str(file))
    assert (done.returncode, f"setting 'listen': got '{listen}'" in done.stderr, "serving" in done.stderr) == (1, True, False)


@pytest.mark.parametrize("setting", ["audit", "keys", "workflows", "store", "listen"])
def test_a_start_that_fails_is_told_in_lines_that_name_the_setting(place: Place, tmp_path: Path, setting: str) -> None:
    (tmp_path / "file").touch()
    values = {**place.settings, "audit": str(tmp_path / "audit"), "keys": str(tmp_path / "keys")}
    values[setting] = {"store": "embedded://", "listen": "unix:"}.get(setting, "") + str(tmp_path / "file") + "/x" * (setting == "listen")
    (tmp_path / "gate.toml").write_text(toml(values))
    done = run("serve", "--settings", str(tmp_path / "gate.toml"))
    named = f"setting '{setting}': got '{values[setting]}'"
    assert (done.returncode > 0, named in done.stderr, "Traceback" in done.stderr, done.stdout) == (True, True, False, ""), done.stderr


def test_a_check_asks_for_the_extra_that_metrics_need(place: Place, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError(name='prometheus_client')")
    change = {"audit": str(tmp_path / "audit"), "metrics": True}
    code, text = check(place, change, PYTHONPATH=str(tmp_path))
    assert (code, "setting 'metrics': got True, expected pip install '.[prometheus]'" in text) == (1, True), text
    assert check(place, {**change, "metrics": False}, PYTHONPATH=str(tmp_path))[0] == 0


def test_a_check_tells_of_a_store_in_which_no_exchanged_call_would_act(place: Place, tmp_path: Path) -> None:
    store = StoreServer(redis_binary(), tmp_path / "redis", durable=False)
    try:
        code, text = check(place, {"audit": str(tmp_path / "audit"), "store": store.url})
    finally:
        store.stop()
    assert (code, "look: store: no append-only file: a crash loses what came after the last snapshot" in text) == (0, True), text
    assert "acts are minted only by the gate that opened their run" in text
    assert "to do: appendonly yes and appendfsync always" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"server": None}, "desk.notes: notes.write: its audience https://notes.acme.example is in the resources of no client"),
        ({"server": {"definitions": {}}}, "desk.notes: notes.write: clients.server.definitions has nothing, the workflow sha256:0a9b"),
        ({"notes": None, "job": None, "other": None}, "desk.notes: tenants: no client with the role agent has one of acme"),
        ({}, "desk.notes: who.agent.oidc.issuer https://login.acme.example is in no [identity.issuers.NAME]"),
        (
            {"job": {"credential": "https://other.example"}},
            "clients.job.credential: https://other.example is of no [identity",
        ),
        ({"job": {"credential": "spiffe://other.example/job"}}, "clients.job.credential: spiffe://other.example/job is of no"),
        ({}, "setting 'identity.issuers.login.keys': https://127.0.0.1:1/jwks gives no key set now"),
    ],
)
def test_a_check_tells_which_calls_would_always_be_refused(place: Place, change: dict[str, Any], told: str) -> None:
    clients = {name: {**each, **(change.get(name) or {})} for name, each in place.settings["clients"].items() if change.get(name, each)}
    login = {**place.settings["identity"]["issuers"]["login"], "keys": "https://127.0.0.1:1/jwks", "private_addresses": True}
    if "issuer " in told:
        login["issuer"] = "https://other.example"
    settings = {"clients": clients, "identity": {"issuers": {"login": login}}, "audit": str(place.folder / "audit-7")}
    code, text = check(place, settings)
    assert (code, f"look: {told}" in text) == (0, True), text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"issuer": None}, "'issuer': got None, expected the URL that callers know the gate by"),
        ({"keys": None}, "'keys': got None, expected the directory of the gate's keys"),
        ({"issuer": "https://gate.example/path"}, "'issuer': got 'https://gate.example/path'"),
        ({"root": None}, "'root'"),
        ({"rate": 0}, "'rate': got 0, expected greater than or equal to 1"),
        ({"listen": "8080"}, "'listen'"),
        ({"typo": 1}, "'typo': got 'an unknown setting', expected one of issuer, workflows"),
        ({"clients": {"a": {"rol": "host"}}}, "'clients.a.rol': got 'an unknown setting', expected one of role, tenants"),
        ({"unsafe_unapproved": True, "root": None, "listen": "0.0.0.0:8080"}, "'listen'"),
        ({"store": "memory://"}, "'store'"),
        ({"workers": 0}, "'workers'"),
        ({"workers": 2, "store": "embedded:///tmp/of-one-process"}, "'workers'"),
        ({"workers": 2, "store": "memory://", "unsafe_unapproved": True, "root": None}, "'workers'"),
        ({"clients": {}}, "'clients'"),
        ({"clients": {"a": {"role": "boss", "tenants": ["acme"], "keys": "k"}}}, "'clients.a.role'"),
        ({"clients": {"a": {"role": "host", "tenants": ["acme"], "credential": "x"}}}, "'clients.a'"),
        ({"clients": {"a": {"role": "agent", "tenants": ["acme"]}}}, "'clients.a'"),
        ({"clients": {"a": {"role": "host", "tenants": ["acme"], "keys": "/nowhere.json"}}}, "'clients.a.keys': got '/nowhere.json'"),
        ({"clients": {"a": {"role": "host", "tenants": ["acme"], "keys": "check.toml"}}}, "'clients.a.keys': got 'check.toml'"),
        ({"clients": {"a": {"role": "tool_server", "tenants": ["acme"], "keys": "k"}}}, "'clients.a'"),
        ({"identity": {"issuers": {"x": {"issuer": "y"}}}}, "'identity.issuers.x"),
        ({"certificate_header": "X-Cert"}, "'certificate_header'"),
        ({"answer_keys": {"acme": "/nowhere/keys.json"}}, "'answer_keys.acme'"),
        ({"passkeys": {"file": "/nowhere/passkeys.toml"}}, "'passkeys.file'"),
        ({"passkeys": {"file": "gate.toml", "origins": ["*"]}}, "'passkeys."),
        ({"passkeys": {"rp": "acme.example"}}, "'passkeys.rp'"),
        ({"tell": {"leads": {"url": "https://hooks.example/x"}}}, "'tell.leads'"),
        ({"tell": {"leads": {}}}, "'tell.leads'"),
        ({"tell": {"leads": {"url": "https://hooks.example/x", "secret": "/nowhere/at/all"}}}, "'tell.leads.secret'"),
        ({"tell": {"leads": {"url": "http://hooks.example/x", "secret": "secret.txt"}}}, "'tell.leads.url'"),
        ({"tell": {"leads": {"url": "https://hooks.example/x", "secret": "gate.toml"}}}, "'tell.leads.secret'"),
        ({"tell": {"leads": {"command": ["true"], "url": "https://hooks.example/x", "secret": "secret.txt"}}}, "'tell.leads'"),
        ({"root": "sha256:" + "0" * 64}, "ROOT"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_check_names_the_setting_that_is_wrong(place: Place, change: dict[str, Any], named: str) -> None:
    code, text = check(place, change)
    assert (code, named in text, "Traceback" in text) == (1, True, False), text


@pytest.mark.parametrize("brokers", [[], ["aws-sts", "provider"]])
def test_a_check_tells_of_a_broker_that_a_workflow_wants(place: Place, tmp_path: Path, brokers: list[str]) -> None:
    folder = Path(__file__).parent.parent / "workflows"
    change = {"workflows": str(folder), "root": None, "unsafe_unapproved": True, "brokers": brokers, "audit": str(tmp_path / "audit")}
    code, text = check(place, change)
    told = "look: ci.deploy: cloud.assume-deploy-role: its upstream broker aws-sts is not in the setting 'brokers'" in text
    assert (code, told) == (0, not brokers), text


def test_the_environment_stands_over_the_file_and_a_secret_is_not_shown(place: Place) -> None:
    code, text = check(place, {}, AGENTGATE_STORE="redis://user:s3cret-word@127.0.0.1:1")
    assert (code, "s3cret" in text) == (1, False), text


def test_a_key_ring_that_cannot_be_read_decides_and_denies_nothing(place: Place, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with served(place.folder, {**place.settings, "audit": str(tmp_path / "audit"), "keys": str(keys)}) as gate:
        notes = Notes(place, gate)
        token = notes.ask("before").json()["access_token"]
        keys.chmod(0o755)  # others may look into it
        until(lambda: gate.http.get("/oauth2/jwks").status_code != 200, gate)
        assert error_of(gate.http.get("/oauth2/jwks")) == (503, "temporarily_unavailable")
        for path, party in (("/oauth2/revoke", notes.client), ("/oauth2/introspect", notes.server)):
            answer = gate.http.post(path, data={"token": token, **party.asserted()})
            assert (error_of(answer), answer.headers["Retry-After"]) == ((503, "temporarily_unavailable"), "2"), path
        assert error_of(notes.ask("meanwhile"))[0] == 503
        assert not [line for line in gate.log() if line["event"] == "unexpected"]
        keys.chmod(0o700)
        until(lambda: gate.http.get("/oauth2/jwks").status_code == 200, gate)
        assert gate.http.post("/oauth2/introspect", data={"token": token, **notes.server.asserted()}).json()["active"] is True


def test_no_request_is_sent_on_to_another_path_with_its_credentials(place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    for method, path in (("POST", "/oauth2/token/"), ("GET", "/.well-known/oauth-authorization-server/"), ("POST", "//oauth2/token")):
        answer = gate.http.request(method, f"{gate.base}{path}", data=notes.form(), headers={"Host": "evil.example"})
        assert error_of(answer) == (404, "not_found"), answer.headers


def test_a_client_that_leaves_in_its_body_is_a_line_in_the_log_and_no_error_of_the_server(place: Place, gate: Process) -> None:
    lines = len(gate.log())
    head = "POST /oauth2/key HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\na=b"
    with socket.create_connection(("127.0.0.1", gate.port)) as line:
        line.sendall(head.encode())
        time.sleep(0.2)
    until(lambda: any(line.get("path") == "/oauth2/key" for line in gate.log()[lines:]), gate)
    (said,) = (line for line in gate.log()[lines:] if line.get("path") == "/oauth2/key")
    assert (said["event"], said["status"], said["error"]) == ("refused", 400, "invalid_request")
    assert not [line for line in gate.log()[lines:] if line["level"] == "error"]
