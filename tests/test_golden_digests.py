"""What reviewers signed stays signed: the digest of every shipped, example and test workflow is the one it had when it was pinned.

`vectors/workflow-digests.json` holds the digests of files and, with their texts, those of workflows in tests. The digest of a text
never changes. `PYTHONPATH=examples/_harness python -m tests.test_golden_digests` pins a file that was edited or added, and texts under
new names.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgate.errors import WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import roles_of, text_of, workflow_files
from agentgate.loading.definition import load_text
from tests.everything import ROLES

ROOT = Path(__file__).parent.parent
VECTORS = Path(__file__).parent / "vectors" / "workflow-digests.json"
FOLDERS = (
    *("workflows", "examples/payment-agent/workflows", "examples/mcp/workflows", "examples/chat-backend/workflows"),
    *("tests/benchmarks/agentdojo", "tests/benchmarks/unseen"),
)
KNOWN_ROLES = {**ROLES, **roles_of(ROOT / "workflows")}
FILES = {str(path.relative_to(ROOT)): folder for folder in FOLDERS for path in workflow_files(ROOT / folder)}
GOLDEN = json.loads(VECTORS.read_text(encoding="utf-8"))


def digest_of_file(name: str) -> str:
    """The digest of a workflow file under the roles beside it."""
    root = ROOT / FILES[name]
    return load_text(text_of(ROOT / name, root), name, roles_of(root), derive).digest


def digest_of(text: str) -> str:
    """The digest of a workflow of a test."""
    return load_text(text, "w", KNOWN_ROLES, derive).digest


@pytest.mark.parametrize("name", sorted(GOLDEN["files"]))
def test_a_shipped_workflow_keeps_the_digest_that_was_signed(name):
    assert digest_of_file(name) == GOLDEN["files"][name]


@pytest.mark.parametrize("name", sorted(GOLDEN["texts"]))
def test_a_workflow_of_the_tests_keeps_its_digest(name):
    pinned = GOLDEN["texts"][name]
    assert digest_of(pinned["text"]) == pinned["digest"]


def test_every_shipped_workflow_is_pinned():
    assert set(FILES) == set(GOLDEN["files"])


def pinned_texts() -> dict[str, Any]:
    """Every workflow that is a module's constant in the tests, by its name."""
    found: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.{path.stem}")
    for home, module in sorted(sys.modules.items()):
        for name, text in vars(module).items() if home.startswith("tests.") else ():
            if type(text) is str and "agentgate: workflow/v1" in text and all(text != each["text"] for each in found.values()):
                try:
                    found[f"{home}.{name}"] = {"digest": digest_of(text), "text": text}
                except WorkflowError:
                    continue  # a template, or one that is to be refused
    return found


if __name__ == "__main__":
    pins = {"files": {name: digest_of_file(name) for name in sorted(FILES)}, "texts": pinned_texts() | GOLDEN["texts"]}
    VECTORS.write_text(json.dumps(pins, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(pins['files'])} files, {len(pins['texts'])} texts\n")
