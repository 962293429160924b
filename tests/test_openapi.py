"""The OpenAPI document and the service: Schemathesis, whose requests nobody here wrote, finds nothing that it does not say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentgate.errors import Refusal
from agentgate.service.app import ROUTES
from agentgate.service.authzen import MOST
from agentgate.service.metadata import read_document
from agentgate.token.mint import DETAIL_TYPE
from tests.deadlines import python_path

BOUNDS = ["--max-examples", "4", "--workers", "2", "--generation-deterministic", "--suppress-health-check", "all", "--continue-on-failure"]


@pytest.mark.thorough("a fuzzer's search; each answer has a test of its own")
def test_the_service_is_what_its_document_says(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": python_path(str(Path(__file__).parent.parent))}
    command = [sys.executable, "-m", "tests.fuzzed", str(tmp_path), *BOUNDS]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    succeeds = {
        f"{method.upper()} {path} {min(told['responses'])}"
        for path, methods in read_document()["paths"].items()
        for method, told in methods.items()
    }
    # so the answers were looked at, too, and not refusals alone; to forget takes a yes of before (tests/test_remembered_served.py)
    assert succeeds - seen.keys() == {"DELETE /v1/remembered/{id} 204"}


def test_what_the_document_says_of_the_code_is_so() -> None:
    document = read_document()
    schemas = document["components"]["schemas"]
    told_of = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert told_of == {(path, method) for path, method, *_ in ROUTES} - {("/openapi.json", "GET")}
    assert set(Refusal) <= set(schemas["Problem"]["properties"]["code"]["enum"])
    assert schemas["EvaluationsRequest"]["properties"]["evaluations"]["maxItems"] == MOST
    assert schemas["Details"]["items"]["properties"]["type"]["const"] == DETAIL_TYPE
    assert DETAIL_TYPE in schemas["ExchangeRequest"]["properties"]["authorization_details"]["description"]
    references = set(re.findall(r"#/components/(\w+)/(\w+)", str(document)))
    assert references == {(kind, name) for kind in ("parameters", "responses", "schemas") for name in document["components"][kind]}
