"""The audit log over HTTP: who may read it, whose records they read, and the pages on which they do."""

from __future__ import annotations

import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgate import Allow
from agentgate.audit import FileAudit, read_records
from agentgate.audit.questions import PAGE
from agentgate.loading.blocks import written_out
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.service.settings import ServiceSettings
from agentgate.values.canonical import canonical
from tests.approvers import Desk, Person, desk_of
from tests.authority import Key
from tests.served import Party, Process, publish
from tests.servers import Server
from tests.test_service_svid import thumbprint
from tests.tls import certificate

HEADER = "X-Client-Certificate"
PROXIES = {"addresses": ["127.0.0.1"], "certificate": "pem"}
HOSTILE = "<script>alert(1)<script>"
KEY, OTHERS = Key("auditor"), Key("others")


class Audited:
    """A desk whose log two auditors read: one of tenant acme, by key, certificate or passkey; one of tenant other, by key."""

    def __init__(self, folder: Path, desk: Desk, gate: Process) -> None:
        self.folder, self.desk, self.gate = folder, desk, gate
        self.auditor, self.other, self.host = Party(gate, "audit", KEY), Party(gate, "audit-other", OTHERS), Party(gate, "desk", KEY)
        self.header = {HEADER: urllib.parse.quote((folder / "auditor.crt").read_text())}

    def get(self, path: str, who: Party | None = None, **query: str) -> httpx.Response:
        party = who or self.auditor
        return self.gate.http.get(path, params=query, headers={"Authorization": f"Bearer {party.assertion()}"})

    def page(self, path: str, **query: str) -> httpx.Response:
        return self.gate.http.get(path, params=query, headers=self.header)

    def log(self) -> list[dict[str, Any]]:
        return sorted(read_records(self.folder / "host"), key=lambda record: record["time"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, redis_server: Server) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    pem = certificate(folder, "auditor").read_text()
    common = {"role": "auditor", "tenants": ["acme"]}
    clients = {
        "audit": {**common, "keys": publish(folder, KEY), "certificates": [thumbprint(pem)], "group": "leads"},
        "audit-other": {**common, "tenants": ["other"], "keys": publish(folder, OTHERS)},
        "desk": {"role": "host", "tenants": ["acme"], "keys": publish(folder, KEY)},
    }
    more = {"clients": clients, "certificate_header": HEADER, "identity": {"proxies": PROXIES}, "audit": str(folder / "host")}
    with desk_of(folder, redis_server, **more) as (desk, gate):
        run = desk.run()
        _, hold = desk.held(run=run, why="it is <b>old</b>")
        mona = Person(desk, gate, "mona")
        assert mona.sign_in().status_code == 204
        assert mona.say({hold.id: "release"}).status_code == 200
        answer = desk.asked(run, why="it is <b>old</b>")
        assert isinstance(answer, Allow)
        with run.redeem(answer.token, tool="files.delete", args={"path": "report.txt", "why": "it is <b>old</b>"}):
            pass
        desk.asked(run, why="it is <b>old</b>")
        desk.asked(run, "files.delete", call="call-2", path="/etc/passwd")
        desk.asked(desk.run(), "files.delete", call=HOSTILE, path="<img src=x onerror=alert(1)>")
        desk.held(tenant="other", why="of another tenant")
        (folder / "orjson.py").write_text("raise SystemExit('from the working directory')")  # whoever may write there changes no answer
        nobodys = FileAudit(folder / "host", keys=folder / "keys")
        nobodys.append({"type": "overloaded", "time": time.time(), "since": 1.0, "refused": 1, "at_once": 1}, time.monotonic() + 5)
        nobodys.close()
        desk.rows[0]["tenants"].append("other")  # mona's: an auditor's tenants are the client's, whatever theirs are
        desk.write()
        until = time.monotonic() + 20
        while "of acme, other" not in mona.get("/holds").text:
            assert time.monotonic() < until
            time.sleep(0.2)
        yield Audited(folder, desk, gate)
        mona.close()


def calls(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return [(each["tool_call_id"], each["decision"]) for each in answer.json()["records"]]


# --- whose records -----------------------------------------------------------------------------------------------------------
def test_an_auditor_reads_the_decisions_of_its_tenants_the_newest_first(place: Audited) -> None:
    answer = place.get("/v1/audit")
    assert calls(answer) == [(HOSTILE, "deny"), ("call-2", "deny"), ("call-1", "deny"), ("call-1", "allow"), ("call-1", "step_up")]
    assert {each["tenant"] for each in answer.json()["records"]} == {"acme"}
    assert answer.json()["findings"] == []
    assert answer.headers["cache-control"] == "no-store"
    assert calls(place.get("/v1/audit", place.other)) == [("call-1", "step_up")]
    assert place.get("/v1/audit", place.other).json()["records"][0]["tenant"] == "other"


def test_of_another_tenant_an_auditor_learns_nothing_not_even_that_there_is_a_call(place: Audited) -> None:
    (hidden,) = [record for record in place.log() if record.get("tenant") == "other" and record["type"] == "decision"]
    for name in (hidden["txn"], hidden["hold"], "nothing", "x" * 300, "%", "../keys"):
        told = place.get(f"/v1/audit/{urllib.parse.quote(name, safe='')}")
        assert (told.status_code, told.json()["code"]) == (404, "not_found"), name
    for name in (hidden["txn"], "../keys"):
        assert place.page(f"/audit/{urllib.parse.quote(name, safe='')}").status_code == 404
    assert place.get("/v1/audit", tenant="other").json()["records"] == []
    assert place.get("/v1/audit/call-1").json() == place.get("/v1/audit/call-1", tenant="acme").json()
    assert place.get("/v1/audit/call-1", tenant="other").status_code == 404
    assert "of another tenant" not in place.page("/audit").text
    assert {record.get("tenant") for record in place.log()} > {None, "acme"}  # what is of no tenant is on record, and not told
    assert place.get("/v1/audit", type="overloaded").json()["records"] == []


def test_only_an_auditors_credential_reads_the_log(place: Audited) -> None:
    assert place.get("/v1/audit", place.host).status_code == 403
    assert place.gate.http.get("/v1/audit").status_code == 401
    stolen = {"Authorization": f"Bearer {place.auditor.assertion()}"}
    assert place.gate.http.get("/v1/audit", headers=stolen).status_code == 200
    assert place.gate.http.get("/v1/audit", headers=stolen).status_code == 401  # an assertion counts once
    assert place.gate.http.post("/v1/audit", headers=stolen).status_code == 405
    body = {"workflow": "desk.files", "prompt": "x", "agent": {"client_id": "bot"}}
    assert place.auditor.post("/v1/runs", body).status_code == 403  # and it does nothing else
    asked = {"token": "x", **place.auditor.asserted()}
    assert place.gate.http.post("/oauth2/introspect", data=asked).status_code == 400


def test_a_call_has_its_story(place: Audited) -> None:
    told = place.get("/v1/audit/call-1").json()["records"]
    kinds = [each["type"] for each in told]
    assert kinds == ["run_opened", "decision", "hold_answer", "decision", "redemption", "outcome", "decision"]
    assert place.get(f"/v1/audit/{told[3]['txn']}").json()["records"] == told
    assert place.get(f"/v1/audit/{told[1]['hold']}", run=told[0]["run"]).json()["records"] == told
    assert place.get("/v1/audit/call-1", run="another").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "toll=x",
        "tool=a&tool=b",
        "since=yesterday",
        f"until={'9' * 250}d",
    ],
)
def test_a_query_of_another_form_is_refused_and_says_what_is_expected(place: Audited, query: str) -> None:
    told = place.gate.http.get(f"/v1/audit?{query}", headers={"Authorization": f"Bearer {place.auditor.assertion()}"})
    assert (told.status_code, "expected" in told.json()["detail"]) == (400, True)
    page = place.gate.http.get(f"/audit?{query}", headers=place.header)
    assert (page.status_code, "expected" in page.text) == (400, True)


def test_a_filter_finds(place: Audited) -> None:
    assert calls(place.get("/v1/audit", decision="allow", user="lee", workflow="desk.files", tool="files.delete", agent="bot")) == [
        ("call-1", "allow")
    ]
    for name, value in (("user", "nobody"), ("until", "2020-01-01"), ("decision", "'"), ("agent", "--help")):
        assert calls(place.get("/v1/audit", None, **{name: value})) == []
    assert len(calls(place.get("/v1/audit", since="1d", until=""))) == 5
    assert [each["type"] for each in place.get("/v1/audit", type="outcome").json()["records"]] == ["outcome"]
    assert {each["type"] for each in place.get("/v1/audit", type="").json()["records"]} > {"run_opened", "decision", "outcome"}
    for after in ("0", "x", "~~~"):  # a place that is none shows what comes after it in their order, of the same tenants
        assert {each["tenant"] for each in place.get("/v1/audit", after=after).json()["records"]} <= {"acme"}


# --- pages -------------------------------------------------------------------------------------------------------------------
def test_pages_are_for_auditors(place: Audited) -> None:
    for path in ("/audit", "/audit/call-1", "/audit/call-1/workflow"):
        told = place.gate.http.get(path)
        assert (told.status_code, "files.delete" in told.text, "Sign in" in told.text) == (200, False, True)
    people = {name: Person(place.desk, place.gate, name) for name in ("mona", "lee")}
    for name, person in people.items():
        assert person.sign_in().status_code == 204
        told = person.get("/audit")
        assert (told.status_code, "files.delete" in told.text) == (200, name == "mona"), name
        assert ("who is in no such group" in told.text) == (name == "lee")
        assert person.get("/v1/audit").status_code == 401  # no cookie counts there
        (hidden,) = [record["txn"] for record in place.log() if record.get("tenant") == "other" and record["type"] == "decision"]
        assert hidden not in person.get("/audit?type=").text
        assert person.get(f"/audit/{hidden}").status_code == (404 if name == "mona" else 200)
        assert "files.delete" not in person.get(f"/audit/{hidden}").text
        person.close()
    elsewhere = {HEADER: urllib.parse.quote((certificate(place.folder, "stranger")).read_text())}
    assert "files.delete" not in place.gate.http.get("/audit", headers=elsewhere).text


def test_a_page_tells_the_story_and_links_to_the_workflow_as_it_was(place: Audited) -> None:
    listed = place.page("/audit", decision="allow")
    (link,) = set(re.findall(r'href="(/audit/txn_[^"]+)"', listed.text))
    told = place.page(link)
    assert told.status_code == 200
    for words in ("decided: allow", "mona answered: release", "its token was redeemed", "ended: done", "conditions were met"):
        assert words in told.text, words
    (version,) = re.findall(r'href="(/audit/[^"]+/workflow[^"]*)"', told.text)
    shown = place.page(version)
    assert "Tidy up files that somebody names" in shown.text
    assert "counts files.delete" not in shown.text
    assert "the file has the same digest today" in shown.text
    refused = place.page("/audit/call-2")
    assert "Not met" in refused.text
    assert "args.path" in refused.text


def test_what_a_model_or_a_person_wrote_is_text_on_every_page(place: Audited) -> None:
    name = urllib.parse.quote(HOSTILE, safe="")
    for path in ("/audit", f"/audit/{name}", f"/audit/{name}/workflow", f"/audit?tool=%22%3E{name}"):
        told = place.gate.http.get(path, headers=place.header)
        assert told.status_code == 200, path
        assert not re.search(r"<script>|<img|onerror=alert\(1\)>", told.text), path
        assert "default-src 'none'" in told.headers["content-security-policy"]


def test_what_reviewers_signed_is_shown_where_the_file_went_on(place: Audited) -> None:
    file = place.desk.folder / "workflows" / "files.yaml"
    text = file.read_text()
    signed = file.parent / "approvals" / "desk.files" / "1" / "definition.json"
    signed.parent.mkdir(parents=True)
    signed.write_bytes(canonical(written_out(read_yaml(text, "x").value)))
    try:
        file.write_text(text.replace("version: 1", "version: 2"))
        told = place.page("/audit/call-2/workflow")
        assert (told.status_code, "what reviewers signed" in told.text) == (200, True)
        assert "Tidy up files that somebody names" in told.text
        signed.write_bytes(signed.read_bytes().replace(b"Tidy up", b"Mess up"))
        assert place.page("/audit/call-2/workflow").status_code == 404  # it is not what decided
    finally:
        file.write_text(text)
        shutil.rmtree(file.parent / "approvals")


def test_a_version_that_is_not_here_any_more_is_said(place: Audited) -> None:
    file = place.desk.folder / "workflows" / "files.yaml"
    text = file.read_text()
    try:
        file.write_text(text.replace("version: 1", "version: 2"))
        told = place.page("/audit/call-2/workflow")
        assert (told.status_code, "not here any more" in told.text) == (404, True)
    finally:
        file.write_text(text)


def test_a_log_that_is_not_whole_is_said_with_each_answer(place: Audited) -> None:
    path = next(each for each in (place.folder / "host").glob("*.jsonl") if b"call-2" in each.read_bytes())
    other = place.folder / "host" / "20200101T000000000000-0000000000000000.jsonl"
    try:
        other.write_bytes(path.read_bytes().replace(path.stem.encode(), other.stem.encode()))
        assert place.get("/v1/audit").json()["findings"] == ["edited"]
        assert "not whole (edited)" in place.page("/audit").text
    finally:
        other.unlink()
    assert place.get("/v1/audit").json()["findings"] == []


def test_a_page_after_another_has_every_record_once(tmp_path: Path, redis_server: Server) -> None:
    log = FileAudit(tmp_path / "audit", keys=keys_in(tmp_path))
    for number in range(2 * PAGE + 3):
        log.append({"type": "decision", "time": float(number // 7), "tenant": "acme", "user": f"u{number}"}, time.monotonic() + 5)
    log.close()
    clients = {"audit": {"role": "auditor", "tenants": ["acme"], "keys": publish(tmp_path, KEY)}}
    (tmp_path / "desk").mkdir()
    with desk_of(tmp_path / "desk", redis_server, clients=clients, audit=str(tmp_path / "audit"), keys=str(tmp_path / "keys")) as (_, gate):
        found, after, pages = list[str](), "", 0
        while pages == 0 or after:
            headers = {"Authorization": f"Bearer {Party(gate, 'audit', KEY).assertion()}"}
            told = gate.http.get("/v1/audit", params={"after": after, "until": "2000-01-01"}, headers=headers).json()
            found += [each["user"] for each in told["records"]]
            after, pages = told["next"] or "", pages + 1
    assert (pages, found) == (3, [f"u{number}" for number in reversed(range(2 * PAGE + 3))])


def keys_in(folder: Path) -> Path:
    (folder / "keys").mkdir(mode=0o700)
    return folder / "keys"


def test_a_gate_without_auditors_has_no_such_page(tmp_path: Path, redis_server: Server) -> None:
    with desk_of(tmp_path, redis_server) as (_, gate):
        assert gate.http.get("/audit").status_code == 404
        assert gate.http.get("/v1/audit").status_code == 401


def test_a_log_that_cannot_be_read_is_503_and_its_reason_is_in_the_gates_log(place: Audited) -> None:
    assert place.get("/v1/audit").status_code == 200
    seen = place.folder / "keys" / "audit-seen"
    seen.chmod(0o755)
    try:
        told = place.get("/v1/audit")
        assert (told.status_code, told.json()["code"]) == (503, "temporarily_unavailable")
        assert "mode 0700" in place.gate.stderr.read_text()
        assert place.page("/audit").status_code == 503
    finally:
        seen.chmod(0o700)
    assert place.get("/v1/audit").status_code == 200


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ({"role": "agent", "group": "leads"}, "only an auditor is known by a group"),
        ({"role": "auditor"}, "for an auditor, group"),
        ({"role": "auditor", "credential": "https://x.example"}, "only an agent is known"),
        ({"role": "auditors", "group": "leads"}, "auditor (reads the audit log)"),
    ],
)
def test_what_an_auditor_is_known_by_is_said(tmp_path: Path, client: dict[str, Any], expected: str) -> None:
    from agentgate.errors import ConfigError
    from tests.served import toml

    file = tmp_path / "gate.toml"
    settings = {"issuer": "https://gate.example", "workflows": "w", "keys": "k", "audit": "a", "store": "redis://x", "root": "sha256:x"}
    file.write_text(toml({**settings, "clients": {"one": {"tenants": ["acme"], **client}}}))
    with pytest.raises(ConfigError, match=re.escape(expected)):
        ServiceSettings.of(file)
