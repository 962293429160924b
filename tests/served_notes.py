"""A service of notes behind a served gate over a real Redis, with signed workflows: issuer, clients, people, and how they ask."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgate.gate.account_key import STATEMENT
from agentgate.testing.demo_approvals import prepare, sign
from tests.authority import Key, Web, claims_of, web
from tests.served import Asking, Party, Process, Server, detail, publish, served
from tests.servers import Server as StoreServer
from tests.servers import redis_binary
from tests.workflows import workflow_text

GATE = "https://gate.acme.example"
LOGIN, NOTES = "https://login.acme.example", "https://notes.acme.example"
DEFINITION = "sha256:0a9b8c7d6e5f40312233445566778899aabbccddeeff00112233445566778899"
WORKFLOW = workflow_text(
    "desk.notes",
    who="{agent: {oidc: {issuer: https://login.acme.example, claims: {app: {is: notes}}}}}",
    intents='{none: "A service asks by itself."}',
    tools="""
  notes.write:
    effect: write
    needs: none
    audience: https://notes.acme.example
    scope: [notes:write]
    definition: sha256:0a9b8c7d6e5f40312233445566778899aabbccddeeff00112233445566778899
    redeem: server
    args: {text: {text: 40, from: [model]}, urgent: {in: ["yes", "no"], from: [model], optional: true}}
  notes.local:
    effect: read
    needs: any
    redeem: wrapper
    args: {}
""",
    step_up="""
  - {id: urgent, for: notes.write, when: {urgent: {in: ["yes"]}}, approvers: {group: leads, count: 1}, timeout: 10m, show: [text]}
""",
)


class Place:
    """A gate over a real Redis, with signed workflows; its issuer, clients and people."""

    def __init__(
        self,
        folder: Path,
        served_web: Web,
        store: StoreServer,
        *,
        issuer: str = GATE,
        notes: str = NOTES,
        definition: str = DEFINITION,
        more: Sequence[str] = (),
    ) -> None:
        self.folder, self.store, self.issuer = folder, store, issuer
        self.workflows = folder / "workflows"
        (self.workflows / "desk").mkdir(parents=True)
        (self.workflows / "desk" / "notes.yaml").write_text(WORKFLOW.replace(NOTES, notes).replace(DEFINITION, definition))
        for number, workflow in enumerate(more):
            (self.workflows / "desk" / f"more-{number}.yaml").write_text(workflow)
        sign(self.workflows)
        self.root = prepare(self.workflows)
        self.login = Key("login")
        self.keys = {name: Key(name) for name in ("notes", "server", "desk", "other", "auditor")}
        common = {"tenants": ["acme"]}
        own = {name: {"keys": publish(folder, key), **common} for name, key in self.keys.items()}
        user = {"tenant": "tenant", "groups": "groups"}
        login = {"issuer": LOGIN, "keys": served_web.publish("/login", self.login), "private_addresses": True, "audience": issuer, **common}
        self.settings: dict[str, Any] = {
            "issuer": issuer,
            "workflows": str(self.workflows),
            "root": self.root,
            "keys": str(folder / "keys"),
            "store": store.url,
            "audit": str(folder / "audit"),
            "rate": 10_000,
            "runs_per_hour": 10_000,
            "deferred": True,
            "metrics": True,
            "identity": {"issuers": {"login": {**login, "agent": {"required": {"app": "notes"}}, "user": user}}},
            "clients": {
                "notes": {"role": "agent", **own["notes"]},
                "job": {"role": "agent", "credential": LOGIN, **common},
                "other": {"role": "agent", **own["other"]},
                "server": {"role": "tool_server", "resources": [notes], "definitions": {"notes.write": definition}, **own["server"]},
                "desk": {"role": "host", **own["desk"]},
                "auditor": {"role": "auditor", **own["auditor"]},
            },
        }

    def token(self, **claims: Any) -> str:
        return self.login.sign({**claims_of(LOGIN, "notes-service", self.issuer), "app": "notes", **claims})


class Notes:
    """The agent `notes` at a gate, and its tool server."""

    def __init__(self, place: Place, gate: Process) -> None:
        self.place, self.gate = place, gate
        self.asking, self.client = Asking(gate), Party(gate, "notes", place.keys["notes"])
        self.server, self.host = Server(gate, "server", place.keys["server"]), Party(gate, "desk", place.keys["desk"])
        self.auditor = Party(gate, "auditor", place.keys["auditor"])

    def form(self, text: str = "hello", **more: Any) -> dict[str, Any]:
        arguments = {"text": text, **more.pop("arguments", {})}
        asked = more.pop("asked", detail("notes.write", "desk.notes", arguments, **more.pop("of", {})))
        form = {**self.asking.form(self.place.token(), asked), **self.client.asserted(), **more}
        return {name: value for name, value in form.items() if value is not None}

    def ask(self, *args: Any, **more: Any) -> httpx.Response:
        """An exchange with a fresh assertion for each try."""
        if not self.asking.nonce:
            self.asking.ask(self.form())
        return self.asking.ask(self.form(*args, **more))


def changing(old: Key, new: Key, account: str, **change: Any) -> str:
    """The statement by which an account's old key signs for its new one: newer than any record of this second, by a clock that is fast."""
    claims = {"aud": GATE, "tenant": "acme", "account": account, "key": new.thumbprint, "iat": int(time.time()) + 2, **change}
    public = {name: value for name, value in old.jwk.items() if name in {"kty", "crv", "x", "y"}}
    return old.sign_raw({"typ": STATEMENT, "alg": old.alg, "jwk": public}, json.dumps(claims))


def error_of(answer: httpx.Response) -> tuple[int, str]:
    assert "Traceback" not in answer.text
    body = answer.json()
    return answer.status_code, body.get("error") or body.get("code")


@contextmanager
def a_place(folder: Path, **more: Any) -> Iterator[Place]:
    store = StoreServer(redis_binary(), folder / "redis", durable=True)
    try:
        with web() as served_web:
            yield Place(folder, served_web, store, **more)
    finally:
        store.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("notes")) as made:
        yield made


@pytest.fixture(scope="module")
def gate(place: Place) -> Iterator[Process]:
    with served(place.folder, place.settings) as process:
        yield process


@pytest.fixture
def notes(place: Place, gate: Process) -> Notes:
    return Notes(place, gate)
