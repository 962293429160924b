"""A served gate with passkeys, and a host in this process whose calls wait in the same store for the people who have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from agentgate import Allow, Deny, Gate, StepUp
from agentgate.identity.proven import proven_agent, proven_user
from agentgate.token.jws import unb64url
from tests.authority import lasting
from tests.passkey import Passkey, written
from tests.served import NO_TLS, Process, served
from tests.servers import Server, free_port

WORKFLOW = """
agentgate: workflow/v1
id: desk.files
version: 1
title: Tidy up files that somebody names
owners: [lee]
risk: low
expires: "2099-05-31"
tenants: [acme, other, many, before, pushed]
who: {agent: {spiffe: ['spiffe://acme.example/bot']}, for_user: {same_tenant: true}}
intents:
  delete:
    asks_for: Delete a file.
    words: [delete, remove]
    examples: [Delete report.txt]
  share:
    asks_for: Share a file.
    words: [share, send]
    examples: [Share report.txt]
tools:
  files.delete:
    effect: destructive
    needs: [delete]
    redeem: wrapper
    args: {path: {text: 60, from: [prompt]}, why: {text: 400, from: [model], optional: true}}
  files.share:
    effect: egress
    needs: [share]
    redeem: wrapper
    args:
      path: {text: 60, from: [prompt]}
      note: {text: 400, from: [model], optional: true}
      password: {text: 60, from: [model], optional: true, sensitive: true}
limits: [{count: files.delete, max: 50, per: run}]
step_up:
  - {id: two, for: files.delete, when: {why: {in: ["two people"]}}, approvers: {group: leads, count: 2}, timeout: 10m}
  - {id: gone, for: files.delete, approvers: {group: leads, count: 1}, timeout: 10m}
  - {id: mine, for: files.share, approvers: {user: true}, timeout: 10m}
"""
SAID = "Delete report.txt, please, and share report.txt"


class Desk:
    """The gate over HTTP, and the host's own gate on its store.

    Attributes:
        file: the operator's file of passkeys.
        told: the events that the gate told, a line each.
    """

    def __init__(self, folder: Path, store: Server, *, workflow: str = WORKFLOW, **more: Any) -> None:
        self.folder, self.port = folder, free_port()
        self.origin = f"http://localhost:{self.port}"
        self.file, self.told = folder / "passkeys.toml", folder / "told"
        groups = {"mona": ["leads"], "kim": ["leads"], "lee": ["staff"], "idle": []}
        self.people = {name: Passkey(rp_id="localhost") for name in groups}
        zones: dict[str, Any] = {"kim": {"zone": "Pacific/Auckland"}}
        self.rows = [self.people[name].row(name, *groups[name], **zones.get(name, {})) for name in groups]
        written(self.file, *self.rows)
        (folder / "workflows").mkdir()
        (folder / "workflows" / "files.yaml").write_text(workflow)
        keys, store_url = str(folder / "keys"), store.url
        self.settings: dict[str, Any] = {
            "issuer": self.origin,
            "listen": f"127.0.0.1:{self.port}",
            "workflows": str(folder / "workflows"),
            "unsafe_unapproved": True,
            "store": store_url,
            "keys": keys,
            "audit": str(folder / "audit"),
            "rate": 10_000,
            "passkeys": {"file": str(self.file)},
            "tell": {"file": {"command": ["/bin/sh", "-c", f"cat >> {self.told}; echo >> {self.told}"]}},
            **more,
        }
        self.host = Gate.open_unsafe_unapproved(
            folder / "workflows",
            issuer=self.origin,
            store=store_url,
            keys=keys,
            audit=str(folder / "host"),
            passkeys={"file": self.file},
            open_holds_per_run=30,
            runs_per_hour=1000,  # of all tests on one server
        )

    def write(self) -> None:
        """The file of passkeys as it should be; the host knows it at once, the served gate within a second or so."""
        written(self.file, *self.rows)
        if (known := self.host._core.answerers.passkeys) is not None:
            known.read()

    def run(self, user: str = "lee", tenant: str = "acme", prompt: str = SAID) -> Any:
        agent = proven_agent("bot", spiffe="spiffe://acme.example/bot")
        lee = proven_user(user, tenant=tenant, groups=("staff",))
        return self.host.open_run("desk.files", tenant=tenant, user=lasting(lee), agent=lasting(agent), prompt=prompt)

    def asked(self, run: Any, tool: str = "files.delete", *, call: str = "call-1", **args: Any) -> StepUp | Allow | Deny:
        answer: StepUp | Allow | Deny = run.authorize(tool, {"path": "report.txt", **args}, tool_call_id=call)
        return answer

    def held(self, tool: str = "files.delete", *, run: Any = None, tenant: str = "acme", call: str = "call-1", **args: Any) -> Any:
        """A run, and the call in it that waits."""
        run = run or self.run(tenant=tenant)
        answer = self.asked(run, tool, call=call, **args)
        assert isinstance(answer, StepUp), answer
        return run, answer.hold


class Person:
    """Somebody with a passkey in software, and a browser that is only HTTP."""

    def __init__(self, desk: Desk, gate: Process, name: str) -> None:
        self.desk, self.passkey = desk, desk.people[name]
        self.http = httpx.Client(base_url=gate.base, timeout=10, trust_env=False, verify=NO_TLS)
        self.cookie = ""

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={**({"Cookie": self.cookie} if self.cookie else {}), **headers})

    def post(self, path: str, body: Any, **headers: str | None) -> httpx.Response:
        """As the page's script does."""
        usual = {"Origin": self.desk.origin, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json", "Cookie": self.cookie}
        sent = {name.replace("_", "-"): value for name, value in {**usual, **headers}.items() if value}
        return self.http.post(path, content=body if isinstance(body, bytes) else json.dumps(body), headers=sent)

    def challenge(self) -> str:
        found: str = self.post("/holds/challenge", {}).json()["challenge"]
        return found

    def assertion(self, challenge: bytes, **more: Any) -> Any:
        return self.passkey.get(challenge, **{"origin": self.desk.origin, **more})

    def sign_in(self, **more: Any) -> httpx.Response:
        challenge = self.challenge()
        answer = self.post("/holds/session", {"challenge": challenge, "assertion": self.assertion(challenge.encode(), **more)})
        self.cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        return answer

    def signed(self, answers: dict[str, str], **more: Any) -> dict[str, Any]:
        """What a page posts to give these answers."""
        told = self.post("/holds/nonce", {"answers": answers})
        assert told.status_code == 200, told.text
        asked = told.json()
        return {"answers": answers, "nonce": asked["nonce"], "assertion": self.assertion(unb64url(asked["challenge"].encode()), **more)}

    def say(self, answers: dict[str, str], **more: Any) -> httpx.Response:
        return self.post("/holds/answers", self.signed(answers, **more))


@contextmanager
def desk_of(folder: Path, store: Server, **more: Any) -> Iterator[tuple[Desk, Process]]:
    desk = Desk(folder, store, **more)
    try:
        with served(folder, desk.settings) as gate:
            yield desk, gate
    finally:
        desk.host.close()
