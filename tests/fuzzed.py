"""Schemathesis against a served gate, in a process of its own: `python -m tests.fuzzed FOLDER [ARGUMENTS OF schemathesis run]`.

It authenticates as the client whose role an operation needs. Every other request is made a real one in what no schema tells:
credentials, tokens, names of runs and calls. What was answered, by operation and status, is in FOLDER/seen.json.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.cli import schemathesis as command

from agentgate.service.openapi import OPERATIONS
from tests.served import ASSERTION, EXCHANGE, JWT, detail, served
from tests.served_notes import GATE, Notes, a_place

CHECKS = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]  # a form is no credential: most of what has one is refused
ROLES = {(operation.method.upper(), operation.path): operation.role for operation in OPERATIONS}


class Real:
    """What a request needs in order to get further than its form."""

    def __init__(self, notes: Notes) -> None:
        self.notes, self.seen, self._turn = notes, Counter[str](), itertools.count()
        self.parties = {"agent": notes.client, "agent, host": notes.client, "host": notes.host, "tool_server": notes.server}

    def _call(self) -> dict[str, Any]:
        return detail("notes.write", "desk.notes", {"text": f"hello {next(self._turn)}"})

    def _opening(self) -> dict[str, Any]:
        token = self.notes.place.token()
        proof = self.notes.asking.key.proof("POST", f"{GATE}/v1/runs", token=token)
        return {"workflow": "desk.notes", "prompt": "", "agent": {"client_id": "notes", "token": token, "proof": proof}}

    def _redeeming(self) -> dict[str, Any]:
        call = self._call()
        form = {**self.notes.asking.form(self.notes.place.token(), call), **self.notes.client.asserted()}
        token = self.notes.asking.ask(form, prove=False).json()["access_token"]
        return {"token": token, "tool": call["identifier"], "arguments": call["arguments"]}

    def body(self, path: str) -> dict[str, Any]:
        """Members that make it real."""
        if path == "/oauth2/token":
            exchange = {"grant_type": EXCHANGE, "subject_token": self.notes.place.token(), "subject_token_type": JWT}
            return {**exchange, "authorization_details": json.dumps([self._call()])}
        if path.startswith("/oauth2"):
            return {"token": self._redeeming()["token"]}
        return {"/v1/runs": self._opening, "/v1/redeem": self._redeeming}.get(path, dict)()

    def parameters(self, path: str) -> dict[str, str]:
        """Of its path."""
        if "{run}" in path:
            return {"run": self.notes.host.post("/v1/runs", self._opening()).json()["run"]}
        if "{txn}" in path:
            return {"txn": self.notes.server.post("/v1/redeem", self._redeeming()).json()["txn"]}
        return {"tenant": "acme"} if "{tenant}" in path else {}

    def set(self, case: Any) -> None:
        """Authenticate, and make every other request real."""
        party = self.parties.get(ROLES.get((case.method.upper(), case.path), ""))
        if real := not next(self._turn) % 2:
            case.path_parameters = {**(case.path_parameters or {}), **self.parameters(case.path)}
        if isinstance(case.body, dict):
            case.body = {**case.body, **(self.body(case.path) if real else {})}
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
            command.main(["run", f"{gate.base}/openapi.json", "--url", gate.base, *CHECKS, *arguments], standalone_mode=False)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        (folder / "seen.json").write_text(json.dumps(dict(sorted(real.seen.items()))))
        return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
