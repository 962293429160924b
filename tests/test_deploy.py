"""What ``examples/deploy`` has to copy: settings that load, a unit that systemd takes, a container file whose parts are there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agentgate.service.settings import ServiceSettings
from tests.preloaded import run

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "examples" / "deploy"
CONTAINER = (DEPLOY / "Containerfile").read_text()


def test_the_settings_to_start_from_load() -> None:
    settings = ServiceSettings.of(DEPLOY / "gate.toml")
    assert (settings.workers, settings.loopback, settings.unsafe_unapproved) == (2, False, False)
    assert not settings.clients["deploy"].private_addresses


def test_the_container_is_made_of_what_is_there_and_runs_no_root() -> None:
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", CONTAINER, re.MULTILINE) for word in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    (extras,) = re.findall(r'"\.\[(.+)\]"', CONTAINER)
    assert set(extras.split(",")) <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert CONTAINER.index("USER agentgate") < CONTAINER.index("ENTRYPOINT")


def test_its_command_and_the_units_are_commands_of_ours() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", CONTAINER, re.MULTILINE)
    started = re.findall(r"^ExecStart(?:Pre)?=/opt/agentgate/bin/(.+)$", (DEPLOY / "agentgate.service").read_text(), re.MULTILINE)
    assert json.loads(entry) == started[1].split() == started[0].split()[:-1]
    for name, *rest in (json.loads(entry), started[0].split()):
        assert name == "agentgate"
        done = run(*rest)
        assert (done.returncode, "'--settings'" in done.stderr) == (1, True), done.stderr  # the file is not there; all else is taken


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: systemd)")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "agentgate.service"
    unit.write_text((DEPLOY / "agentgate.service").read_text().replace("/opt/agentgate/bin/agentgate", sys.executable))
    # --user: the system's own manager wants /run/systemd, which an ordinary user cannot make where systemd does not run
    verify = ["systemd-analyze", "--user", "verify", str(unit)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
