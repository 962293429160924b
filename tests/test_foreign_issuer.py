"""Credentials of an authorization server that nobody here wrote (`oidc-provider`, npm): they open runs and become call tokens, or not."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.abroad import node_in
from tests.served import JWT, Process
from tests.served_notes import GATE, LOGIN, WORKFLOW, Notes, Place, a_place, error_of
from tests.served_notes import gate as gate  # noqa: PLC0414 - a fixture
from tests.servers import free_port

SCRIPT = Path(__file__).with_name("provider.mjs")
SECRET = "s3cret-of-a-test-s3cret-of-a-test"
AGENT = "app: {is: notes}"


class Provider:
    """The process, and how its clients and people get tokens."""

    def __init__(self, folder: Path) -> None:
        node, script = node_in(folder), folder / SCRIPT.name
        script.write_text(SCRIPT.read_text())
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = folder / "provider.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([node, str(script), str(port), GATE], stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n", self.log.read_text()
        self.told: dict[str, str] = httpx.get(f"{self.url}/.well-known/openid-configuration", trust_env=False).json()

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)

    def _token(self, http: httpx.Client, **form: str) -> dict[str, Any]:
        answer = http.post(self.told["token_endpoint"], data={"client_secret": SECRET, **form})
        assert answer.status_code == 200, (answer.text, self.log.read_text())
        return dict(answer.json())

    def of_service(self) -> str:
        """By client credentials."""
        with httpx.Client(trust_env=False) as http:
            form = {"grant_type": "client_credentials", "client_id": "notes-service", "scope": "calls", "resource": GATE}
            return str(self._token(http, **form)["access_token"])

    def of_person(self, name: str) -> dict[str, Any]:
        """By authorization code with PKCE, as a browser goes through it: login, consent, back to the desk with a code."""
        verifier, back = secrets.token_urlsafe(48), f"{self.url}/callback"
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"client_id": "desk", "response_type": "code", "redirect_uri": back, "scope": "openid calls", "resource": GATE}
        with httpx.Client(trust_env=False, base_url=self.url) as http:
            answer = http.get(
                self.told["authorization_endpoint"], params={**asked, "code_challenge": challenge, "code_challenge_method": "S256"}
            )
            for _ in range(12):
                if answer.is_redirect and (to := answer.headers["Location"]).startswith(back):
                    break
                if answer.is_redirect:
                    answer = http.get(to)
                    continue
                page = re.search(
                    r'<form[^>]*action="([^"]+)" method="post">\s*<input type="hidden" name="prompt" value="(\w+)"', answer.text
                )
                assert page, answer.text
                answer = http.post(html.unescape(page[1]), data={"prompt": page[2], "login": name, "password": "x"})
            (code,) = parse_qs(urlsplit(to).query)["code"]
            form = {"grant_type": "authorization_code", "client_id": "desk", "redirect_uri": back, "code_verifier": verifier}
            return self._token(http, **form, code=code)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    made = Provider(tmp_path_factory.mktemp("provider"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def place(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    alone = WORKFLOW.replace("desk.notes", "desk.alone").replace(LOGIN, provider.url).replace(AGENT, "client_id: {is: notes-service}")
    leads = alone.replace("desk.alone", "desk.leads").replace("who: {", "who: {for_user: {groups: [leads]}, ")
    with a_place(tmp_path_factory.mktemp("notes"), more=[alone, leads]) as made:
        user = {"tenant": "tenant", "groups": "groups"}
        issuer = {
            "issuer": provider.url,
            "keys": provider.told["jwks_uri"],
            "private_addresses": True,
            "audience": GATE,
            "tenants": ["acme"],
        }
        made.settings["identity"]["issuers"]["provider"] = {
            **issuer,
            "agent": {"id": "client_id", "required": {"client_id": "notes-service"}},
            "user": user,
        }
        yield made


def exchanged(notes: Notes, workflow: str, token: str, **more: Any) -> httpx.Response:
    """An exchange by the client `notes`."""
    return notes.ask(subject_token=token, of={"workflow": {"id": workflow}, **more.pop("of", {})}, **more)


def test_a_service_exchanges_what_it_got_by_client_credentials(provider: Provider, place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    answer = exchanged(notes, "desk.alone", provider.of_service())
    assert answer.status_code == 200, (answer.text, gate.log()[-1])
    redeemed = notes.server.redeem(answer.json()["access_token"], "notes.write", {"text": "hello"}, notes.asking.key).json()
    assert (redeemed["client_id"], redeemed["identity"]["agent"]) == ("notes-service", "proven")


def opened(notes: Notes, provider: Provider, user: str) -> tuple[str, httpx.Response]:
    """The agent's token, and the host's run for it and this user's token."""
    agent = provider.of_service()
    proof = notes.asking.key.proof("POST", f"{GATE}/v1/runs", token=agent)
    body = {"workflow": "desk.leads", "prompt": "", "subject_token": user, "agent": {"client_id": "notes", "token": agent, "proof": proof}}
    return agent, notes.host.post("/v1/runs", body)


def test_an_agent_acts_for_a_person_who_logged_in(provider: Provider, place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    ana = provider.of_person("ana")
    agent, run = opened(notes, provider, ana["access_token"])
    assert run.status_code == 201, (run.text, gate.log()[-1])
    of = {"run": run.json()["run"]}
    answer = exchanged(notes, "desk.leads", ana["access_token"], of=of, actor_token=agent, actor_token_type=JWT)
    assert answer.status_code == 200, (answer.text, gate.log()[-1])
    redeemed = notes.server.redeem(answer.json()["access_token"], "notes.write", {"text": "hello"}, notes.asking.key).json()
    assert (redeemed["sub"], redeemed["act"]["sub"]) == ("ana", "notes-service")
    other = provider.of_person("eve")["access_token"]
    assert error_of(exchanged(notes, "desk.leads", other, of=of, actor_token=agent, actor_token_type=JWT)) == (400, "invalid_request")


def test_what_the_provider_gave_for_something_else_opens_nothing(provider: Provider, place: Place, gate: Process) -> None:
    notes = Notes(place, gate)
    for user, field in ((provider.of_person("ana")["id_token"], "user.oidc.aud"), (provider.of_person("eve")["access_token"], "user")):
        _, run = opened(notes, provider, user)
        assert error_of(run) == (400, "invalid_request")
        assert gate.log()[-1]["reasons"][0]["field"].startswith(field)
    assert error_of(exchanged(notes, "desk.alone", provider.of_person("ana")["access_token"])) == (400, "invalid_request")
