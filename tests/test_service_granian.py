"""The service under another server than its own: granian, by the command of docs/service.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentgate.errors import ConfigError
from agentgate.service.process import of_settings
from tests.served import Process, toml
from tests.served_notes import Notes, Place, error_of
from tests.served_notes import place as place  # noqa: PLC0414 - a fixture
from tests.servers import free_port

DOCS = (Path(__file__).parent.parent / "docs" / "service.md").read_text(encoding="utf-8")


class Granian(Process):
    """As `Process`, by granian."""

    def __init__(self, folder: Path, settings: dict[str, Any], *more: str) -> None:
        self.issuer, self.path, self.port = settings["issuer"], None, free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.file, self.stderr = folder / "granian.toml", folder / "granian.log"
        self.file.write_text(toml(settings))
        said = re.search(r"`AGENTGATE_SETTINGS=gate.toml granian (.*?)`", DOCS, re.DOTALL)
        assert said
        options = shlex.split(said[1].replace("8080", str(self.port)))
        with self.stderr.open("wb") as err:
            command = [sys.executable, "-m", "granian", *options, *more]
            env = {**os.environ, "AGENTGATE_SETTINGS": str(self.file)}
            self.process = subprocess.Popen(command, stderr=err, stdout=subprocess.DEVNULL, env=env, cwd=folder)
        self.http = httpx.Client(base_url=self.base, timeout=10, trust_env=False)
        self._wait()


ONE = pytest.param(1, id="one process", marks=pytest.mark.thorough("two do the same, and share runs"))


@pytest.fixture(params=[ONE, pytest.param(2, id="two")])
def gate(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Granian]:
    pytest.importorskip("granian")
    settings = {**place.settings, "audit": str(tmp_path / "audit"), "shared_runs": request.param > 1}
    process = Granian(tmp_path, settings, "--workers", str(request.param))
    yield process
    assert process.end() == 0


def test_it_mints_redeems_refuses_and_logs(place: Place, gate: Granian) -> None:
    notes, token = Notes(place, gate), place.token()
    for number in range(4):  # one run, at whichever process
        text = f"hello {number}"
        minted = notes.ask(text, subject_token=token).json()["access_token"]
        assert notes.server.redeem(minted, "notes.write", {"text": text}, notes.asking.key).status_code == 200
        assert error_of(notes.server.redeem(minted, "notes.write", {"text": text}, notes.asking.key)) == (401, "used")
    assert error_of(notes.ask(scope="notes:admin")) == (400, "invalid_scope")
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    assert error_of(gate.http.post("/oauth2/token", content="a=1&a=2", headers=sent)) == (400, "invalid_request")
    assert gate.http.post("/oauth2/token", content="a=" + "x" * 200_000, headers=sent).status_code == 413
    time.sleep(0.2)
    lines = [json.loads(line) for line in gate.stderr.read_text().splitlines()]
    assert [line["error"] for line in lines if line.get("error") in {"used", "invalid_scope"}] == [*["used"] * 4, "invalid_scope"]
    assert not [line for line in lines if line["level"] == "error"]


def test_without_settings_it_says_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTGATE_SETTINGS", raising=False)
    with pytest.raises(ConfigError, match="'AGENTGATE_SETTINGS'"):
        of_settings()


def test_workflows_that_nobody_signed_are_served_on_loopback_alone(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--host 0.0.0.0` of another server: `listen` says loopback all the same."""
    file = tmp_path / "gate.toml"
    file.write_text(toml({**place.settings, "root": None, "unsafe_unapproved": True}))
    monkeypatch.setenv("AGENTGATE_SETTINGS", str(file))
    with pytest.raises(ConfigError, match="unsafe_unapproved"):
        of_settings()
