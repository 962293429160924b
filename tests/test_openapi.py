"""The OpenAPI document and the service: Schemathesis, whose requests nobody here wrote, finds nothing that it does not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentgate.service.openapi import OPERATIONS
from tests.deadlines import python_path

BOUNDS = ["--max-examples", "4", "--workers", "2", "--generation-deterministic", "--suppress-health-check", "all", "--continue-on-failure"]


@pytest.mark.thorough("a fuzzer's search; each answer has a test of its own")
def test_the_service_is_what_its_document_says(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": python_path(str(Path(__file__).parent.parent))}
    command = [sys.executable, "-m", "tests.fuzzed", str(tmp_path), *BOUNDS]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    succeeds = {f"{operation.method.upper()} {operation.path} {operation.status}" for operation in OPERATIONS}
    assert succeeds - seen.keys() == set()  # so the answers were looked at, too, and not refusals alone
