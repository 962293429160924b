"""AuthZEN's certification scenario (Basic, Batch, Discovery) on form: the requests of its text, to the endpoints of a served gate.

The scenario's users and records are none of a gate's, so the gate says no to all of them. What its decisions are about (several in
order, members that are ignored) is asked a second time in words of a run here: as many calls, one for each decision, allowed or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest

from agentgate import Gate
from agentgate.service.app import application
from agentgate.service.authzen import TOKEN_REQUEST
from agentgate.service.settings import ServiceSettings
from tests.authority import Key
from tests.served import Asking, Party, Process, in_thread, served
from tests.served_notes import GATE, WORKFLOW, Notes, Place, a_place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture

SCENARIO = (Path(__file__).parent / "vectors" / "authzen-certification-scenario.md").read_text(encoding="utf-8")
ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
OF_SECTION = {"c-2": ONE, "c-3": MANY}
CASE = re.compile(
    r"\*\*Request[^\n]*\n\n~~~ json\n(?P<asked>.*?)\n~~~\n\n\*\*Expected:\*\* (?:HTTP (?P<status>\d+))?(?P<rest>.*?)(?=\n\*\*|\n#|\Z)",
    re.DOTALL,
)


class Case(NamedTuple):
    """One request of the text. `decisions`: those that it expects (None: any)."""

    path: str
    asked: dict[str, Any]
    status: int
    decisions: list[bool | None]


def cases() -> Iterator[tuple[str, Case]]:
    """Each with the name of its section."""
    for part in re.split(r"\n(?=#+ )", SCENARIO):
        named = re.match(r"#+ .*\{#(c-[23])-(.*)\}", part)
        for number, found in enumerate(CASE.finditer(part) if named else ()):
            assert named
            block = re.search(r"~~~(.*?)~~~", found["rest"], re.DOTALL)
            said = re.findall(r'"decision": (true|false|<boolean>)', block[1] if block else found["rest"])
            decisions = [{"true": True, "false": False}.get(each) for each in said]
            case = Case(OF_SECTION[named[1]], json.loads(found["asked"]), int(found["status"] or 200), decisions)
            yield f"{named[1]}-{named[2]} {number}", case


CASES = dict(cases())
DECIDED = {name: case for name, case in CASES.items() if case.status == 200 and None not in case.decisions}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    asks = 'for: notes.write, when: {urgent: {in: ["yes"]}}'
    local = WORKFLOW.replace("id: desk.notes", "id: desk.local").replace(asks, "for: notes.local").replace(", show: [text]", "")
    with a_place(tmp_path_factory.mktemp("authzen"), more=[local]) as made:
        yield made


@pytest.fixture(scope="module")
def host(place: Place, gate: Process) -> Party:
    return Party(gate, "desk", place.keys["desk"])


def opened(place: Place, host: Party) -> str:
    """A run that the host opened."""
    proof = Key("agent").proof("POST", f"{GATE}/v1/runs", token=(token := place.token()))
    answer = host.post(
        "/v1/runs", {"workflow": "desk.notes", "prompt": "", "agent": {"client_id": "notes", "token": token, "proof": proof}}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run"])


@pytest.fixture(scope="module")
def run(place: Place, host: Party) -> str:
    return opened(place, host)


def decisions_of(answer: httpx.Response) -> list[bool]:
    """What a successful answer says, if it has the form of the standard."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json"), answer.text
    said = answer.json()
    items = said.get("evaluations", [said])
    assert all(type(item["decision"]) is bool and type(item.get("context", {})) is dict for item in items)
    return [item["decision"] for item in items]


def ours(asked: dict[str, Any], run: str, *, allowed: bool) -> dict[str, Any]:
    """An evaluation with all its further members, about a call of a run here."""
    properties = {**asked["resource"].get("properties", {}), "arguments": {"text": "hello" if allowed else "x" * 41}}
    return {
        **asked,
        "subject": {**asked["subject"], "id": "notes-service"},
        "action": {**asked["action"], "name": "tools/call"},
        "resource": {**asked["resource"], "type": "tool", "id": "notes.write", "properties": properties},
        "context": {**asked.get("context", {}), "run": run},
    }


def test_the_scenario_was_read() -> None:
    assert [sum(case.path == path for case in CASES.values()) for path in (ONE, MANY)] == [19, 10]
    assert sum(case.status == 400 for case in CASES.values()) == 10


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_has_the_form_it_must(host: Party, case: Case) -> None:
    answer, items = host.post(case.path, case.asked), case.asked.get("evaluations") or []
    if case.status == 200:
        assert (decisions_of(answer), "evaluations" in answer.json()) == ([False] * max(1, len(items)), bool(items))
    else:
        assert error_of(answer) == (case.status, "invalid_request")


@pytest.mark.parametrize("case", DECIDED.values(), ids=DECIDED)
def test_a_case_in_our_words_is_decided_as_it_says(host: Party, run: str, case: Case) -> None:
    common = {name: value for name, value in case.asked.items() if name not in {"evaluations", "options"}}
    items = [{**common, **item} for item in case.asked.get("evaluations") or [{}]]
    told = [ours(item, run, allowed=bool(said)) if "resource" in item else item for item, said in zip(items, case.decisions, strict=True)]
    changed: dict[str, Any] = {"evaluations": told} if case.asked.get("evaluations") else told[0]
    body = {**case.asked, **changed}
    for _ in range(2):
        assert decisions_of(host.post(case.path, body)) == case.decisions


def test_what_is_no_json_is_a_bad_request_and_its_id_comes_back(host: Party, gate: Process) -> None:
    for path in (ONE, MANY):
        for content, media in ((b"{}", "text/plain"), (b"{", "application/json"), (b"", "application/json"), (b"[]", "application/json")):
            headers = {"Authorization": f"Bearer {host.assertion()}", "Content-Type": media, "X-Request-ID": "r-1"}
            answer = gate.http.post(path, content=content, headers=headers)
            assert (answer.status_code, answer.headers["X-Request-ID"]) == (400, "r-1"), answer.text
    assert "X-Request-ID" not in host.post(ONE, {}).headers
    assert host.post(ONE, {}, **{"X-Request-ID": "r-2"}).headers["X-Request-ID"] == "r-2"


def test_a_batch_inherits_ends_and_is_bounded(host: Party, run: str) -> None:
    asked = {"subject": {"type": "user", "id": "x"}, "action": {"name": "x"}, "resource": {"type": "x", "id": "x"}}
    yes, no = (ours(asked, run, allowed=allowed) for allowed in (True, False))

    def decided(semantic: str, *items: dict[str, Any], **common: Any) -> list[bool]:
        return decisions_of(host.post(MANY, {"options": {"evaluations_semantic": semantic}, "evaluations": list(items), **common}))

    assert decided("execute_all", {}, {"resource": no["resource"]}, {"context": {}}, **yes) == [True, False, False]
    assert decided("deny_on_first_deny", yes, no, yes) == [True, False]
    assert decided("permit_on_first_permit", no, yes, no) == [False, True]
    refused: tuple[dict[str, Any], ...] = (
        {"evaluations": [yes], "options": {"evaluations_semantic": "first"}},
        {"evaluations": [], "options": {"evaluations_semantic": "first"}, **yes},
        {"evaluations": [{}] * 51, **yes},
        {"evaluations": [yes, "x"]},
        {"evaluations": {}},
        {"evaluations": [yes], "subject": "x"},
        {**yes, "context": {"run": 1}},
        {**yes, "resource": {"type": "tool", "id": "notes.write", "properties": {"arguments": []}}},
    )
    for body in refused:
        assert error_of(host.post(MANY, body)) == (400, "invalid_request"), body


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("subject", {"id": "kim"}),
        ("subject", {"properties": {"act": {"sub": "another-agent"}}}),
        ("subject", {"properties": {"act": "notes-service"}}),
        ("action", {"name": "tools/list"}),
        ("resource", {"type": "file"}),
        ("resource", {"properties": {"server": "https://evil.example", "arguments": {"text": "hello"}}}),
        ("context", {"workflow": "desk.local"}),
        ("context", {"requested_scope": "notes:write notes:admin"}),
    ],
)
def test_a_call_that_is_said_to_be_another_is_not_allowed(host: Party, run: str, member: str, change: dict[str, Any]) -> None:
    asked = ours(CASES["c-2-2-1 0"].asked, run, allowed=True)
    assert decisions_of(host.post(ONE, asked)) == [True]
    assert decisions_of(host.post(ONE, {**asked, member: {**asked[member], **change}})) == [False]


def test_an_agent_and_a_tool_server_are_told_nothing(place: Place, gate: Process, run: str) -> None:
    asked = ours(CASES["c-2-2-1 0"].asked, run, allowed=True)
    for name in ("notes", "server"):
        for path in (ONE, MANY):
            assert error_of(Party(gate, name, place.keys[name]).post(path, asked)) == (403, "wrong_role")


@pytest.mark.deadline
def test_a_run_that_ended_allows_nothing_and_a_store_that_is_away_decides_nothing(place: Place, host: Party, run: str) -> None:
    body = ours(CASES["c-2-2-1 0"].asked, run, allowed=True)
    other = opened(place, host)
    assert host.post(f"/v1/runs/{other}/close", {}).status_code == 204
    ended = {**body, "context": {"run": other}}
    assert decisions_of(host.post(ONE, ended)) == [False]
    assert decisions_of(host.post(MANY, {"evaluations": [ended, body]})) == [False, True]
    place.store.pause()
    try:
        assert {host.post(path, {**body, "evaluations": [body]}).status_code for path in (ONE, MANY)} == {503}
    finally:
        place.store.resume()


def test_a_batch_for_which_the_time_is_up_is_answered_as_a_whole(place: Place, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"evaluations": [{}] * 3, **ours(CASES["c-2-2-1 0"].asked, run, allowed=True)}
    settings = ServiceSettings(**{**place.settings, "audit": str(place.folder / "audit-in-thread")})
    with in_thread(application(settings)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        local: Any = SimpleNamespace(issuer=GATE, http=http)
        here = Party(local, "desk", place.keys["desk"])
        assert decisions_of(here.post(MANY, body)) == [True] * 3
        monkeypatch.setattr("agentgate.service.authzen.SECONDS", 0.0)
        assert error_of(here.post(MANY, body)) == (503, "temporarily_unavailable")
        assert decisions_of(here.post(MANY, {**body, "evaluations": [{}]})) == [True]


def test_metadata_names_the_endpoints(gate: Process) -> None:
    answer = gate.http.get("/.well-known/authzen-configuration")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json() == {
        "policy_decision_point": GATE,
        "access_evaluation_endpoint": GATE + ONE,
        "access_evaluations_endpoint": GATE + MANY,
    }


def test_a_no_that_a_person_can_change_says_how_to_ask_and_asks_nobody(place: Place, gate: Process, host: Party, tmp_path: Path) -> None:
    settings = {**place.settings, "access_request": True, "audit": str(tmp_path / "audit")}
    with served(place.folder, settings) as other:
        desk, key, token = Party(other, "desk", place.keys["desk"]), Key("agent"), place.token()
        agent = {"client_id": "notes", "token": token, "proof": key.proof("POST", f"{GATE}/v1/runs", token=token)}
        run, local = (
            desk.post("/v1/runs", {"workflow": workflow, "prompt": "", "agent": agent}).json() for workflow in ("desk.notes", "desk.local")
        )
        asked = ours(CASES["c-2-2-1 0"].asked, run["run"], allowed=True)
        arguments = {"text": "hello", "urgent": "yes"}
        urgent = {**asked, "resource": {**asked["resource"], "properties": {"arguments": arguments}}}

        def context(party: Party, body: dict[str, Any]) -> dict[str, Any]:
            answer = party.post(ONE, body)
            assert answer.status_code == 200, (body, party.gate.log()[-1])
            assert decisions_of(answer) == [answer.json()["context"]["reason"] == "allowed"]
            return dict(answer.json()["context"])

        assert context(host, urgent).keys() == {"evaluation_id", "reason"}  # the setting is off
        for body in (asked, ours(asked, run["run"], allowed=False)):
            assert "access_request" not in context(desk, body)
        no_server = {**asked["resource"], "id": "notes.local", "properties": {"arguments": {}}}  # no token is exchanged for it
        by_wrapper = context(desk, {**asked, "resource": no_server, "context": {"run": local["run"]}})
        assert (by_wrapper["reason"], "access_request" in by_wrapper) == ("needs_approval", False)
        said = context(desk, urgent)
        assert said["reason"] == "needs_approval"
        requestable = said["access_request"]
        assert datetime.fromisoformat(requestable.pop("expires_at")).timestamp() == int(run["expires_at"])
        ((name, how),) = requestable.items()
        assert (name, how.pop("token_endpoint")) == (TOKEN_REQUEST, f"{GATE}/oauth2/token")
        assert how.pop("run") == run["run"]
        assert held(place) is None
        notes = Notes(place, other)
        notes.asking = Asking(other, key)
        answer = notes.ask(arguments=arguments, of={"run": run["run"]}, **how)
        assert error_of(answer) == (400, "authorization_pending"), other.log()[-1]
        assert held(place) == answer.json()["hold"]["id"]
        assert other.http.get("/.well-known/oauth-authorization-server").json()["deferred_token_response_supported"] is True


def held(place: Place) -> str | None:
    """The one hold that waits; None: none does."""
    names = ("root", "issuer", "keys", "store", "identity")
    with Gate.open(place.workflows, audit=str(place.folder / "audit-held"), **{name: place.settings[name] for name in names}) as gate:
        found = [each.id for each in gate.holds("acme")]
    assert len(found) <= 1
    return found[0] if found else None


def test_asking_needs_what_answers() -> None:
    given: dict[str, Any] = {"issuer": GATE, "workflows": "w", "keys": "k", "store": "redis://x", "audit": "a", "root": "sha256:x"}
    given["clients"] = {"desk": {"role": "host", "keys": "x.json", "tenants": ["acme"]}}
    assert ServiceSettings(**given, access_request=True, deferred=True).access_request
    with pytest.raises(ValueError, match="access_request"):
        ServiceSettings(**given, access_request=True)
