"""``agentgate workflow lint``: everything that is wrong with workflow files, at its line and column, and what is advised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from agentgate.cli.advice import Advice, advise, gathered
from agentgate.cli.output import complain, say, terminal
from agentgate.errors import Problem, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import ROLES, Catalog, roles_of
from agentgate.loading.definition import load_text, read_file
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.draft.draft import undecided
from agentgate.values.visible import visible
from agentgate.workflow.model import Workflow


def lint(
    path: Annotated[Path, typer.Argument(help="A workflow file, or a folder of them with its roles.yaml.", show_default=True)] = Path(
        "workflows"
    ),
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
) -> None:
    """Check workflow files: every problem with file, line, column, what was expected and what was probably meant.

    Warnings name what loads and deserves a second look: arguments that the model writes and no step-up shows, arguments
    steered by reads that the model chooses, ids that are not tied to the values beside them, what is not pinned, and what a
    draft left to decide (# DECIDE:).
    """
    workflows, problems, advice = _linted(path)
    if not workflows and not problems:
        problems = (Problem(str(path), 1, 1, "workflows", "no workflow file", "at least one *.yaml below the folder"),)
    _print(problems, advice)
    kinds = Counter(each.kind for each in advice)
    by_kind = f" ({', '.join(f'{kind} {n}' for kind, n in kinds.most_common())})" if len(kinds) > 1 else ""
    summary = f"{_count(workflows, 'workflow')} loaded, {_count(len(problems), 'problem')}, {_count(len(advice), 'warning')}{by_kind}"
    complain(summary, colour="red" if problems else "yellow" if advice else "green")
    raise typer.Exit(1 if problems or (strict and advice) else 0)


def lint_text(path: Path) -> tuple[list[str], list[str]]:
    """Problems and warnings of a file or folder, each as one line."""
    _, problems, advice = _linted(path)
    return [*map(str, problems)], [*map(str, advice)]


def _advice(workflow: Workflow) -> tuple[Advice, ...]:
    """The undecided marks of a draft, one each, and what deserves a second look, each sentence once."""
    text = read_file(Path(workflow.file))
    open_ = tuple(Advice(workflow.file, line, column, "undecided", question) for line, column, question in undecided(text))
    return (*open_, *gathered(advise(workflow, read_yaml(text, workflow.file))))


def _linted(path: Path) -> tuple[int, tuple[Problem, ...], list[Advice]]:
    """How many workflows load, why the others do not, and what to say of those that do."""
    workflows: tuple[Workflow, ...] = ()
    problems: tuple[Problem, ...] = ()
    try:
        if path.is_dir():
            catalog = Catalog.load(path, derive)
            workflows, problems = tuple(catalog), tuple(p for error in catalog.quarantined.values() for p in error.problems)
        else:
            root = next((parent for parent in path.absolute().parents if (parent / ROLES).exists()), path.parent)
            workflows = (load_text(read_file(path), str(path), roles_of(root), derive),)
    except WorkflowError as error:
        problems = error.problems
    return len(workflows), problems, [a for w in workflows for a in _advice(w)]


def _print(problems: Iterable[Problem], advice: Iterable[Advice]) -> None:
    """A table for a person at a terminal, one line each for everything else."""
    console = terminal()
    if console is None:
        say(*problems, *advice)
        return
    table = Table("where", "what", "found", "expected", show_lines=True, border_style="dim")
    lines: list[tuple[Problem | Advice, Text, str, str]] = [(p, Text(visible(p.got), style="red"), p.expected, p.hint) for p in problems]
    lines += [(a, Text("warning", style="yellow"), a.text, "") for a in advice]
    for each, got, text, hint in lines:
        expected = Text(visible(text)).append(f"\n{visible(hint)}" if hint else "", style="bold green")
        place = Text(visible(f"{each.file}:{each.line}:{each.column}"), style="cyan")
        table.add_row(place, Text(visible(each.field), style="bold"), got, expected)
    if table.row_count:
        console.print(table)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
