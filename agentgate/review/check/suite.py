"""The cases beside workflows, decided by the real engine, and the conditions that no case would
miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentgate.errors import WorkflowError
from agentgate.loading.source import WorkflowText, below
from agentgate.review.mutation.mutation import Survey, head_yaml, propose, survey
from agentgate.review.report.report import ExitStatus, Line, Table
from agentgate.review.scenarios.case import cases_yaml
from agentgate.review.scenarios.testfile import (
    CaseResults,
    TestFile,
    read_tests,
    run_tests,
    tests_of,
)
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow

_READ = "proposed: read each, it says what the workflow does and not what it should do"


@value_class
class CaseSuite:
    """One workflow and the cases beside it.

    `results`: None where they could not be run, for these `problems`.
    """

    source: WorkflowText
    workflow: Workflow | None = None
    tests: TestFile | None = None
    results: CaseResults | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when there are tests and all of them hold."""
        return self.results is not None and self.results.passed

    @property
    def failures(self) -> tuple[str, ...]:
        """Why it is not ok: what is wrong with either file, or the cases that do not hold, one
        line each.
        """
        if not self.results:
            return self.problems
        return tuple(f"{r.place}: {r.name}: {r.why}" for r in self.results.failed)

    def survey(self) -> Survey | None:
        """Its conditions, each dropped or loosened; None where its cases do not hold."""
        return (
            survey(self.workflow, self.tests)
            if self.ok and self.workflow and self.tests
            else None
        )


@value_class
class SuiteReport:
    """The result of all tests.

    `surveys`: what was found out about conditions, one for each suite, if it was asked for.
    """

    suites: tuple[CaseSuite, ...]
    surveys: tuple[Survey | None, ...]
    verbose: bool = False

    @property
    def status(self) -> ExitStatus:
        """An error where a case does not hold; a person must look where no case would miss a
        condition.
        """
        if not all(each.ok for each in self.suites):
            return ExitStatus.ERROR
        return (
            ExitStatus.LOOK
            if any(each is not None and each.survivors for each in self.surveys)
            else ExitStatus.YES
        )

    def text(self, width: int) -> Iterator[Line | Table]:  # noqa: ARG002 - sentences are not broken
        """See `Report`."""
        for suite, surveyed in zip(self.suites, self.surveys, strict=True):
            if suite.results:
                yield from self._results(suite.results)
            yield from ((line, "red") for line in suite.failures)
            if surveyed:
                yield from self._conditions(surveyed)

    def _results(self, results: CaseResults) -> Iterator[Line | Table]:
        count = len(results.results)
        what = (
            f"{count} cases hold"
            if results.passed
            else f"{len(results.failed)} of {count} cases do not hold"
        )
        yield f"{results.workflow}: {what}  ({results.file})", ""
        if self.verbose:
            body = [
                ("ok" if r.passed else "FAILED", r.name, r.expected, r.got.partition(":")[0])
                for r in results.results
            ]
            yield Table(("", "case", "expected", "got"), body, ("green", "bold", "dim"))
            yield "filled in for the base:", ""
            yield from ((f"  {key}: {value}", "") for key, value in results.filled.items())
            yield "", ""

    def _conditions(self, surveyed: Survey) -> Iterator[Line]:
        all_ = len(surveyed.mutants)
        missed = surveyed.survivors
        yield (
            f"  {all_ - len(missed)} of {all_} conditions have a case that would miss them",
            "",
        )
        for mutant in sorted(
            missed, key=lambda mutant: not mutant.tries
        ):  # first, what a case can be written for
            yield f"  {mutant}, and every case still holds", "yellow"
        if missed:
            yield "  agentgate workflow test --propose writes cases that would", ""
        uncovered = surveyed.not_covered
        yield (
            f"  {len(uncovered)} things no case can show"
            + (":" if self.verbose else " (-v lists them)"),
            "",
        )
        if self.verbose:
            yield from ((f"    {each.path}: {each.why}", "") for each in uncovered)

    def to_json(self) -> list[dict[str, Any]]:
        """See `Report`."""
        return [
            _to_json(suite, found)
            for suite, found in zip(self.suites, self.surveys, strict=True)
        ]


def _to_json(suite: CaseSuite, surveyed: Survey | None) -> dict[str, Any]:
    results = suite.results.results if suite.results else ()
    names = ("name", "passed", "expected", "got", "why", "place")
    answer: dict[str, Any] = {
        "workflow": suite.workflow.id if suite.workflow else None,
        "file": suite.source.path,
        "ok": suite.ok,
        "problems": list(suite.problems),
        "cases": [{name: getattr(result, name) for name in names} for result in results],
    }
    if surveyed:
        answer["conditions"] = len(surveyed.mutants)
        answer["not_missed"] = [str(mutant) for mutant in surveyed.survivors]
        answer["not_covered"] = [
            {"field": each.path, "why": each.why} for each in surveyed.not_covered
        ]
    return answer


def run_suite(source: WorkflowText) -> CaseSuite:
    """Run the tests beside one workflow; problems with either file are in the result."""
    try:
        workflow = source.workflow()
        file = tests_of(source.path)
        if source.tests is None:
            missing = f"{file}: no such file (agentgate workflow test --propose {source.path} writes one)"
            return CaseSuite(source, workflow, problems=(missing,))
        tests = read_tests(source.tests, str(file))
        return CaseSuite(source, workflow, tests, run_tests(workflow, tests))
    except WorkflowError as error:
        return CaseSuite(source, problems=tuple(map(str, error.problems)))


def write_cases(suite: CaseSuite) -> tuple[CaseSuite, list[Line]]:
    """Write the cases that are missing, and run all again. Returns what was done, too, in
    words.
    """
    if not suite.workflow or suite.source.commit or (suite.tests and not suite.ok):
        return suite, []
    made = propose(suite.workflow, suite.tests)
    place = tests_of(suite.source.path)
    written = cases_yaml(p.case for p in made.found)
    if not suite.tests and not written:
        return suite, []
    if not suite.tests:
        with place.open("x", encoding="utf-8") as file:
            file.write(head_yaml(suite.workflow) + written)
    elif written:
        ending = "" if (suite.source.tests or "").endswith("\n") else "\n"
        with place.open("a", encoding="utf-8") as file:
            file.write(f"{ending}  # {_READ}\n{written}")
    read = (
        "; read each: it says what the workflow does, not what it should do"
        if made.found
        else ""
    )
    told = [(f"{place}: {len(made.found)} cases written{read}", "")]
    told += [
        (f"  {mutant}: no case was found that would miss it", "yellow") for mutant in made.left
    ]
    return run_suite(next(iter(below(Path(suite.source.path))))), told
