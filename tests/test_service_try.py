"""``agentgate serve --try`` and docs/service.md: a stranger's first five minutes, as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app
from tests.servers import free_port

DOCS = (Path(__file__).parent.parent / "docs" / "service.md").read_text(encoding="utf-8")
AGENTGATE = [sys.executable, "-c", "from agentgate.cli.main import app; app()"]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The directory in which `serve --try agentgate-try` runs, and where it listens."""
    folder, port = tmp_path_factory.mktemp("t"), free_port()
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "AGENTGATE_LISTEN": f"127.0.0.1:{port}"}
        process = subprocess.Popen([*AGENTGATE, "serve", "--try", "agentgate-try"], cwd=folder, stderr=log, env=environment)
    url, deadline = f"127.0.0.1:{port}", time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if httpx.get(f"http://{url}/readyz", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        yield folder, url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def commands(text: str, url: str) -> str:
    return text.replace("127.0.0.1:8080", url)


def test_the_commands_of_the_docs_work(trial: tuple[Path, str]) -> None:
    folder, url = trial
    before = len((folder / "log").read_text().splitlines())
    block = next(block for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) if "curl" in block)
    done = subprocess.run(["bash", "-ec", commands(block, url)], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    answers = [json.loads(each) for each in done.stdout.replace("}{", "}\n{").splitlines()]
    assert answers[0]["scope"] == "notes:write"
    assert (answers[1]["arguments"], answers[1]["sub"]) == ({"text": "hello"}, "nightly")
    again = subprocess.run(
        ["bash", "-ec", commands(block.partition("TOKEN=")[0], url)], cwd=folder, capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(again.stdout) == {"error": "access_denied", "error_description": "already_done"}
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()[before:] if line.startswith("{")]
    assert [line["client"] for line in lines if line["event"] == "answered" and line["method"] == "POST"] == ["job", "notes", "notes"]


def test_a_client_that_is_not_in_the_settings_is_named_in_the_log_and_nowhere_else(trial: tuple[Path, str]) -> None:
    folder, url = trial
    form = {"client_id": "jobb", "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}
    answer = httpx.post(f"http://{url}/oauth2/token", data=form, trust_env=False)
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})
    (said,) = json.loads((folder / "log").read_text().splitlines()[-1])["reasons"]
    assert (said["field"], said["got"]) == ("client", "'jobb'")


def test_the_commands_that_it_prints_are_those_of_the_docs(trial: tuple[Path, str]) -> None:
    printed = (trial[0] / "log").read_text()
    block = next(block for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) if "curl" in block)
    assert [line for line in commands(block, trial[1]).splitlines() if line not in printed] == []


def test_what_it_makes_is_the_users_own_and_is_made_once(trial: tuple[Path, str]) -> None:
    made = trial[0] / "agentgate-try"
    assert made.stat().st_mode & 0o077 == 0
    done = CliRunner().invoke(app, ["serve", "--try", str(made)], env={"AGENTGATE_LISTEN": f"127.0.0.1:{free_port()}"})
    assert done.exit_code == 1
    assert "agentgate serve --settings" in done.output
    taken = CliRunner().invoke(app, ["serve", "--try", str(trial[0] / "second")], env={"AGENTGATE_LISTEN": trial[1]})
    assert (taken.exit_code, "AGENTGATE_LISTEN=127.0.0.1:8081 agentgate serve --try" in taken.output) == (1, True)
    assert not (trial[0] / "second").exists()
    both = CliRunner().invoke(app, ["serve", "--try", "x", "--check"])
    assert (both.exit_code, "leave --settings and --check out" in both.output) == (1, True)


def test_a_probe_says_that_this_workflow_asks_for_no_proof(trial: tuple[Path, str]) -> None:
    folder, url = trial
    given = ["-w", "try.notes", "-t", "notes.write", "-a", '{"text": "probe"}', "--key", str(folder / "probe.pem")]
    subject = ["--client", "job", "--subject", f"file:{folder}/agentgate-try/job.jwt"]
    done = CliRunner().invoke(app, ["probe", f"http://{url}", *given, *subject])
    assert (done.exit_code, "does not say token: {bound_to: [call, agent_key]}" in done.output) == (1, True)
    assert [line for line in done.output.splitlines() if ": got " in line] == ["no proof: got 200, expected 400"]
