"""The notebooks: each runs from its first cell to its last, and what is saved in it is what a run gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.deadlines import python_path

pytestmark = pytest.mark.server  # a kernel listens
ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# what differs from run to run: random ids, digests over them, times
CHANGING = re.compile(r"(?:txn|run)_[\w-]+|[\w-]{20,}|\d{10}(?:\.\d+)?|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def shown(notebook: Any) -> dict[int, list[str]]:
    """The words each cell shows, without what changes and in no order (a stream may come in pieces); a picture is its type."""
    found: dict[int, list[str]] = {}
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = COLOUR.sub("", output.get("text") or data.get("text/plain", ""))
            found.setdefault(number, []).extend([*re.findall(r"[\w*./:'-]+", CHANGING.sub("*", text)), *data])
    return {number: sorted(words) for number, words in found.items()}


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.thorough("each computes what other tests check")
def test_a_notebook_runs_and_shows_what_is_saved_in_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(str(ROOT)))
    saved = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    NotebookClient(fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    assert shown(fresh) == shown(saved)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_saved_notebook_was_run_in_order_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert not re.search(r"/(?:home|Users|root|work|tmp)/", path.read_text("utf-8"))
