"""The README's blocks run as they stand, and the commands it names exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentgate.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_blocks_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "smallest.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - the README is ours
    assert "{'order_id': 'ORD-10023344', 'status': 'shipped'}" in out.getvalue()
    assert names["run"].authorize("orders_get", {"order_id": "ORD-99999999"}).failures
    names["gate"].close()


def test_the_smallest_workflow_is_clean(tmp_path: Path) -> None:
    (tmp_path / "smallest.yaml").write_text(blocks("yaml")[0])
    done = CliRunner().invoke(app, ["workflow", "lint", str(tmp_path / "smallest.yaml")])
    assert done.exit_code == 0, done.output


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize(
    "words", [[], ["workflow"], ["workflow", "lint"], ["keys"], ["keys", "rotate"], ["keys", "jwks"], ["evaluate"], ["demo"]]
)
def test_every_command_explains_itself_with_examples(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    if words not in ([], ["workflow"]):
        assert "Examples" in done.output


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
