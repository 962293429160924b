"""What is wrong with workflow files, each at its line and column, and what is advised on those
that load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agentgate.errors import Failure, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import ROLES, Catalog, roles_of
from agentgate.loading.definition import load_text, read_file
from agentgate.loading.yaml_nodes import dotted, read_yaml
from agentgate.review.check.advice import Advice, advise, gathered
from agentgate.review.draft.draft import undecided
from agentgate.review.report.report import ExitStatus, Line, Table, in_number
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import load_tests, passing, tests_of
from agentgate.review.scenarios.unaided import Unaided, counted, unaided
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow


@value_class
class LintReport:
    """The findings about a file or folder.

    `acts`: what is known of the required arguments of tools that act.
    """

    loaded: int
    problems: tuple[Failure, ...]
    advice: tuple[Advice, ...] = ()
    acts: tuple[Unaided, ...] = ()
    strict: bool = False

    @property
    def status(self) -> ExitStatus:
        """An error for problems, and if `strict` for warnings."""
        return (
            ExitStatus.ERROR
            if self.problems or (self.strict and self.advice)
            else ExitStatus.YES
        )

    def text(self, width: int) -> Iterator[Line | Table]:  # noqa: ARG002 - a table folds its cells itself
        """A table at a terminal, one line for each finding elsewhere."""
        body = []
        for p in self.problems:
            expected = f"{p.expected} ({p.hint})" if p.hint else p.expected
            body.append((p.place, p.field, p.got, expected))
        body += [
            (f"{a.file}:{a.line}:{a.column}", a.field, "warning", a.text) for a in self.advice
        ]
        styles = ("cyan", "bold", "red" if self.problems else "yellow", "bold green")
        yield Table(
            ("where", "what", "found", "expected"),
            body,
            styles,
            lines=(*self.problems, *self.advice),
        )

    def summary(self) -> Iterator[Line]:
        """The findings in numbers."""
        if shown := counted(self.acts):
            yield (
                f"required arguments of acts that a prompt can fill without a person: {shown}",
                "dim",
            )
        kinds = Counter(each.kind for each in self.advice)
        of_kind = [f"{kind} {number}" for kind, number in kinds.most_common()]
        by_kind = f" ({', '.join(of_kind)})" if len(kinds) > 1 else ""
        loaded = in_number(self.loaded, "workflow")
        problems = in_number(len(self.problems), "problem")
        warnings = in_number(len(self.advice), "warning")
        colour = "red" if self.problems else "yellow" if self.advice else "green"
        yield f"{loaded} loaded, {problems}, {warnings}{by_kind}", colour


def lint_path(path: Path, *, strict: bool = False) -> LintReport:
    """Check a workflow file, or a folder of them with its ``roles.yaml``.

    A file that does not load is in the report.
    """
    workflows: tuple[Workflow, ...] = ()
    problems: tuple[Failure, ...] = ()
    try:
        if path.is_dir():
            catalog = Catalog.load(path, derive)
            workflows = tuple(catalog)
            problems = tuple(
                p for error in catalog.quarantined.values() for p in error.problems
            )
        else:
            root = next(
                (parent for parent in path.absolute().parents if (parent / ROLES).exists()),
                path.parent,
            )
            workflows = (load_text(read_file(path), str(path), roles_of(root), derive),)
    except WorkflowError as error:
        problems = error.problems
    acts = [_judge_acts(workflow) for workflow in workflows]
    advice = [
        each
        for workflow, found in zip(workflows, acts, strict=True)
        for each in _advise(workflow, found)
    ]
    return LintReport(len(workflows), problems, tuple(advice), sum(acts, ()), strict)


def _judge_acts(workflow: Workflow) -> tuple[Unaided, ...]:
    """What is known of the required arguments of its acts, with the cases beside it."""
    cases: tuple[Scene, ...] = ()
    if (tests := tests_of(workflow.file)).exists():
        with suppress(WorkflowError):  # `test` says what is wrong with them
            cases = tuple(scene for _, scene in passing(workflow, load_tests(tests)))
    return unaided(workflow, cases)


def _advise(workflow: Workflow, acts: tuple[Unaided, ...]) -> tuple[Advice, ...]:
    """The undecided marks of a draft, one each, and what deserves a second look, each sentence
    once.
    """
    file = workflow.file
    text = read_file(Path(workflow.file))
    document = read_yaml(text, file)
    marks = [
        Advice(file, line, column, "undecided", question)
        for line, column, question in undecided(text)
    ]
    found = [*advise(workflow, document)]
    for each in acts:
        if each.why:
            at = ("tools", each.tool, "args", each.argument)
            found.append(
                Advice(
                    file,
                    *document.place(at, key=True),
                    dotted(at),
                    f"{each.verdict}: {each.why}",
                )
            )
    return (*marks, *gathered(found))
