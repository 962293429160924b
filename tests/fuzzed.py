"""Schemathesis against a served gate, in a process of its own: `python -m tests.fuzzed FOLDER [ARGUMENTS OF schemathesis run]`.

It authenticates as the client whose role an operation needs. Many requests are made real in what no schema tells: credentials, tokens,
names of runs and calls. What was answered, by operation and status, is in FOLDER/seen.json.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from schemathesis.cli import schemathesis as command

from agentgate.service.metadata import read_document
from tests.authority import claims_of
from tests.served import ASSERTION, EXCHANGE, JWT, detail, served
from tests.served_notes import GATE, LOGIN, Notes, a_place, changing

CHECKS = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]  # a form is no credential: most of what has one is refused
# Not at once on a busy machine is no finding: 503 is documented.
CONFIG = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 503]\n'
OPERATIONS = {(method.upper(), path): told for path, methods in read_document()["paths"].items() for method, told in methods.items()}
ROLES = {named: told.get("description", "").removeprefix("Role: ").removesuffix(".") for named, told in OPERATIONS.items()}


def in_the_end(ask: Callable[[], httpx.Response]) -> dict[str, Any]:
    """What is answered when the machine has time."""
    for _ in range(50):
        if (answer := ask()).status_code != 503:
            break
        time.sleep(0.1)
    assert answer.is_success, answer.text
    return dict(answer.json())


class Real:
    """What a request needs in order to get further than its form."""

    def __init__(self, notes: Notes) -> None:
        self.notes, self.seen, self._turn = notes, Counter[str](), itertools.count()
        self.parties = {
            "agent": notes.client,
            "agent, host": notes.client,
            "host": notes.host,
            "tool_server": notes.server,
            "auditor": notes.auditor,
        }

    def _call(self) -> dict[str, Any]:
        return detail("notes.write", "desk.notes", {"text": f"hello {next(self._turn)}"})

    def _opening(self) -> dict[str, Any]:
        token = self.notes.place.token()
        proof = self.notes.asking.key.proof("POST", f"{GATE}/v1/runs", token=token)
        return {"workflow": "desk.notes", "prompt": "", "agent": {"client_id": "notes", "token": token, "proof": proof}}

    def _redeeming(self) -> dict[str, Any]:
        call = self._call()

        def ask() -> httpx.Response:
            form = {**self.notes.asking.form(self.notes.place.token(), call), **self.notes.client.asserted()}
            return self.notes.asking.ask(form, prove=False)

        token = in_the_end(ask)["access_token"]
        return {"token": token, "tool": call["identifier"], "arguments": call["arguments"]}

    def _changing(self) -> dict[str, Any]:
        """A new key of an account whose first token an old one got."""
        name, old = f"account-{next(self._turn)}", self.notes.asking.key
        self.notes.place.store.command("SET", f"ag:{{acme}}:lastkey:{name}", f'"1 {old.thumbprint}"')
        credential = self.notes.place.token(sub=name)
        return {"subject_token": credential, "subject_token_type": JWT, "statement": changing(old, old, name), "tenant": "acme"}

    def body(self, path: str) -> dict[str, Any]:
        """Members that make it real."""
        if path == "/oauth2/token":
            exchange = {"grant_type": EXCHANGE, "subject_token": self.notes.place.token(), "subject_token_type": JWT}
            return {**exchange, "authorization_details": json.dumps([self._call()])}
        if path == "/oauth2/key":
            return self._changing()
        if path.startswith("/oauth2"):
            return {"token": self._redeeming()["token"]}
        if path in {"/v1/runs", "/v1/redeem"}:
            return self._opening() if path == "/v1/runs" else self._redeeming()
        told: dict[str, dict[str, Any]] = {
            "turns": {"turn": "and then?"},
            "close": {"tenant": "acme"},
            "result": {"result": {}},
            "outcome": {"outcome": "done"},
        }
        return told.get(path.rpartition("/")[2], {})

    def parameters(self, path: str) -> dict[str, str]:
        """Of its path."""
        if "{run}" in path:
            return {"run": in_the_end(lambda: self.notes.host.post("/v1/runs", self._opening()))["run"]}
        if "{txn}" in path or "{call}" in path:
            txn = in_the_end(lambda: self.notes.server.post("/v1/redeem", self._redeeming()))["txn"]
            return {"txn" if "{txn}" in path else "call": txn}
        return {"tenant": "acme"} if "{tenant}" in path else {}

    def set(self, case: Any) -> None:
        """Authenticate; make every other request real: as a whole, or, where it breaks its schema, in the texts that do not."""
        party = self.parties.get(ROLES.get((case.method.upper(), case.path), ""))
        if next(self._turn) % 2:
            whole = case.meta is not None and case.meta.generation.mode.is_positive
            case.path_parameters = {**(case.path_parameters or {}), **self.parameters(case.path)}
            if isinstance(case.body, dict) and (real := self.body(case.path)):
                texts = {
                    name
                    for name, value in case.body.items()
                    if (type(value) is str and value) or (name, type(value)) == ("arguments", dict)
                }
                case.body = real if whole else {**case.body, **{name: real[name] for name in texts & real.keys()}}
            if whole and case.path in {"/v1/holds", "/v1/remembered"}:
                person = self.notes.place.login.sign({**claims_of(LOGIN, "kim", GATE), "tenant": "acme", "groups": ["leads"]})
                case.headers, case.query = {"Authorization": f"Bearer {person}"}, {"for": "me"}
            elif whole:
                case.headers = {name: value for name, value in (case.headers or {}).items() if name != "DPoP"}
                case.query = {}
        if party is not None and not case.path.startswith("/oauth2"):
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {party.assertion()}"}
        elif party is not None and isinstance(case.body, dict):
            case.body = {**case.body, "client_id": party.name, "client_assertion_type": ASSERTION, "client_assertion": party.assertion()}


def main(folder: Path, arguments: list[str]) -> int:
    """The exit code of schemathesis."""
    with a_place(folder) as place, served(folder, place.settings) as gate:
        real = Real(Notes(place, gate))

        class Asserted(schemathesis.AuthProvider[Real]):
            def get(self, *_: Any) -> Real:
                return real

            def set(self, case: Any, data: Real, _: Any) -> None:
                data.set(case)

        schemathesis.auth(refresh_interval=None)(Asserted)

        @schemathesis.hook
        def after_call(context: Any, case: Any, response: Any) -> None:
            real.seen[f"{case.method.upper()} {case.path} {response.status_code}"] += 1

        try:
            (config := folder / "schemathesis.toml").write_text(CONFIG)
            command.main(
                ["--config-file", str(config), "run", f"{gate.base}/openapi.json", "--url", gate.base, *CHECKS, *arguments],
                standalone_mode=False,
            )
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        (folder / "seen.json").write_text(json.dumps(dict(sorted(real.seen.items()))))
        return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
