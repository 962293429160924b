"""``agentgate workflow lint``: everything that is wrong with workflow files, at its line and column, and what is advised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from agentgate.cli.advice import Advice, advise, gathered
from agentgate.cli.output import complain, rows, say, terminal
from agentgate.errors import Failure, WorkflowError, problem_at
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import ROLES, Catalog, roles_of
from agentgate.loading.definition import load_text, read_file
from agentgate.loading.yaml_nodes import dotted, read_yaml
from agentgate.review.draft.draft import undecided
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import load_tests, passing, tests_of
from agentgate.review.scenarios.unaided import Unaided, counted, unaided
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
    draft left to decide (# DECIDE:). Of each required argument of a tool that acts, they say where no prompt gives it its value
    without a person (impossible), or none could be made up or found in the tests (not shown).
    """
    workflows, problems, advice, acts = _linted(path)
    if not workflows and not problems:
        problems = (problem_at(str(path), 1, 1, "workflows", "no workflow file", "at least one *.yaml below the folder"),)
    _print(problems, advice)
    kinds = Counter(each.kind for each in advice)
    by_kind = f" ({', '.join(f'{kind} {n}' for kind, n in kinds.most_common())})" if len(kinds) > 1 else ""
    summary = f"{count(workflows, 'workflow')} loaded, {count(len(problems), 'problem')}, {count(len(advice), 'warning')}{by_kind}"
    if shown := counted(acts):
        complain(f"required arguments of acts that a prompt can fill without a person: {shown}", colour="dim")
    complain(summary, colour="red" if problems else "yellow" if advice else "green")
    raise typer.Exit(1 if problems or (strict and advice) else 0)


def lint_text(path: Path) -> tuple[list[str], list[str]]:
    """Problems and warnings of a file or folder, each as one line."""
    _, problems, advice, _ = _linted(path)
    return [*map(str, problems)], [*map(str, advice)]


def _advice(workflow: Workflow, acts: Iterable[Unaided]) -> tuple[Advice, ...]:
    """The undecided marks of a draft, one each, and what deserves a second look, each sentence once."""
    text = read_file(Path(workflow.file))
    document = read_yaml(text, workflow.file)
    open_ = tuple(Advice(workflow.file, line, column, "undecided", question) for line, column, question in undecided(text))
    places = ((("tools", each.tool, "args", each.argument), each) for each in acts if each.why)
    argued = (Advice(workflow.file, *document.place(at, key=True), dotted(at), f"{each.verdict}: {each.why}") for at, each in places)
    return (*open_, *gathered((*advise(workflow, document), *argued)))


def _acts(workflow: Workflow) -> tuple[Unaided, ...]:
    """What is known of the required arguments of its acts, with the cases beside it."""
    cases: tuple[Scene, ...] = ()
    if (tests := tests_of(workflow.file)).exists():
        with suppress(WorkflowError):  # `test` says what is wrong with them
            cases = tuple(scene for _, scene in passing(workflow, load_tests(tests)))
    return unaided(workflow, cases)


def _linted(path: Path) -> tuple[int, tuple[Failure, ...], list[Advice], list[Unaided]]:
    """How many workflows load, why the others do not, what to say of those that do, and what is known of their acts."""
    workflows: tuple[Workflow, ...] = ()
    problems: tuple[Failure, ...] = ()
    try:
        if path.is_dir():
            catalog = Catalog.load(path, derive)
            workflows, problems = tuple(catalog), tuple(p for error in catalog.quarantined.values() for p in error.problems)
        else:
            root = next((parent for parent in path.absolute().parents if (parent / ROLES).exists()), path.parent)
            workflows = (load_text(read_file(path), str(path), roles_of(root), derive),)
    except WorkflowError as error:
        problems = error.problems
    acts = [_acts(workflow) for workflow in workflows]
    advice = [each for workflow, found in zip(workflows, acts, strict=True) for each in _advice(workflow, found)]
    return len(workflows), problems, advice, [each for found in acts for each in found]


def _print(problems: Iterable[Failure], advice: Iterable[Advice]) -> None:
    """A table for a person at a terminal, one line each for everything else."""
    if terminal() is None:
        say(*problems, *advice)
        return
    body = [(p.place, p.field, p.got, f"{p.expected} ({p.hint})" if p.hint else p.expected) for p in problems]
    body += [(f"{a.file}:{a.line}:{a.column}", a.field, "warning", a.text) for a in advice]
    rows(("where", "what", "found", "expected"), body, styles=("cyan", "bold", "red" if problems else "yellow", "bold green"))


def count(number: int, noun: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
