"""The README's blocks run as they stand, and the commands it names exist."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
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
            if "StepUpRequired" in block:  # with the workflow as the second YAML block has it
                kept = blocks("yaml")[0].splitlines(keepends=True)[:-1]
                (tmp_path / "workflows" / "smallest.yaml").write_text("".join(kept) + blocks("yaml")[1])
            exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - the README is ours
    assert "{'order_id': 'ORD-10023344', 'status': 'shipped'}" in out.getvalue()
    assert '"And my last order?"' in out.getvalue()
    assert "{'order_id': 'ORD-10023399', 'status': 'shipped'}" in out.getvalue()
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


COMMANDS: Any = get_command(app)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command by its words, groups too."""
    yield path
    for name in getattr(command, "commands", ()):
        yield from commands(command.get_command(None, name), (*path, name))


@pytest.mark.parametrize("words", list(commands(COMMANDS)), ids=" ".join)
def test_every_command_explains_itself_with_examples(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    found = COMMANDS
    for word in words:
        found = found.get_command(None, word)
    assert hasattr(found, "commands") or "Examples" in done.output
    assert "completion" not in done.output  # of the whole program, if at all
    assert not re.search(r"[^\n]\n[^\n]", found.help)  # a terminal breaks lines, the source does not


@pytest.mark.parametrize("words", [words for words in commands(COMMANDS) if words], ids=" ".join)
def test_the_line_in_a_list_of_commands_is_the_first_of_the_commands_own_help(words: tuple[str, ...]) -> None:
    group: Any = COMMANDS
    for word in words[:-1]:
        group = group.get_command(None, word)
    if words[-1] in getattr(group, "table", {}):
        own = group.get_command(None, words[-1]).help
        assert own.partition("\n\n")[0].replace("\n", " ") == group.table[words[-1]][1]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]


def shell_commands(page: Path) -> list[list[str]]:
    """The words of each command of ours that a page's blocks show, up to a pipe or the next command."""
    text = "\n".join(re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"^(?:\S+=\S* )?(?:\S*bin/)?(agentgate [a-z].*)", text, re.MULTILINE)
    return [re.split(r" (?:\||\|\||&&|>|;) ", shlex.join(shlex.split(line, comments=True)).replace("'", ""))[0].split() for line in lines]


@pytest.mark.parametrize("page", [page for page in PAGES if shell_commands(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_that_a_page_shows_exist_with_their_options_and_lack_none(page: Path) -> None:
    for line in shell_commands(page):
        command = COMMANDS
        for word in line[1:]:
            if not hasattr(command, "commands"):
                break
            command = command.get_command(None, word)
            assert command is not None, line
        options = [parameter for parameter in command.params if parameter.param_type_name == "option" and not parameter.envvar]
        given = {word.partition("=")[0] for word in line if word.startswith("-")}
        assert given <= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}, line
        lacks = [parameter.opts for parameter in options if parameter.required and not given & set(parameter.opts)]
        assert not lacks or "..." in line, line


def test_every_linked_file_exists() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), target


# --- docs/a-calls-way.md -------------------------------------------------------------------------------------------------
WAY = (ROOT / "docs" / "a-calls-way.md").read_text(encoding="utf-8")
READ = re.findall(r"`([\w/]+\.(?:py|lua))`(?:: ((?:`[\w.]+`(?:, )?)+))?", WAY)


def names(path: Path) -> set[str]:
    """What a module defines or imports, and the methods of its classes."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            named.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            named |= {alias.asname or alias.name for alias in node.names}
    return named


@pytest.mark.parametrize(("file", "functions"), READ)
def test_a_file_on_a_calls_way_exists_and_has_the_functions_to_read(file: str, functions: str) -> None:
    path = ROOT / "agentgate" / file
    assert path.exists()
    if path.suffix == ".py":
        assert {part for name in re.findall(r"[\w.]+", functions) for part in name.split(".")} <= names(path)


def test_a_calls_way_goes_through_nine_rooms_and_comes_back_to_none() -> None:
    rows = re.findall(r"^\| \d+ \| (\w+) \| (.*?) \|", WAY, re.MULTILINE)
    assert len(rows) == len({room for room, _ in rows}) == 9
    assert len(READ) > 30
    for room, files in rows:
        assert all(file.startswith(f"{room}/") for file, _ in re.findall(r"`([\w/]+\.(py|lua))`", files))


def test_what_the_stores_settings_buy_stands_in_one_place() -> None:
    place = "docs/state.md#what-each-setting-of-the-store-buys"
    for page in ("README.md", "SECURITY.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert (place in text, "| setting of the store |" in text) == (True, False), page
    state = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    assert "## What each setting of the store buys\n\n| setting of the store |" in state
