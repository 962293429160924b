"""``agentgate workflow test``: the cases beside workflows, decided by the real engine, and the conditions that no case would miss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from agentgate.cli.commands import ERROR
from agentgate.cli.output import LOOK, YES, note, refusing, rows, say, say_json
from agentgate.cli.signing import Json
from agentgate.errors import WorkflowError
from agentgate.loading.source import WorkflowText, below
from agentgate.review.mutation.mutation import Survey, cases_yaml, head_yaml, propose, survey
from agentgate.review.scenarios.testfile import Report, TestFile, read_tests, run_tests, tests_of
from agentgate.workflow.model import Workflow

_READ = "proposed: read each, it says what the workflow does and not what it should do"


@dataclass(frozen=True, slots=True)
class Tested:
    """The result of one workflow's tests. `problems`: why they could not be run."""

    source: WorkflowText
    workflow: Workflow | None = None
    tests: TestFile | None = None
    report: Report | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when there are tests and all of them hold."""
        return self.report is not None and self.report.passed


def tested(source: WorkflowText) -> Tested:
    """Run the tests beside one workflow; problems with either file are in the result."""
    try:
        workflow = source.workflow()
        if source.tests is None:
            missing = f"{tests_of(source.path)}: no such file (agentgate workflow test --propose {source.path} writes one)"
            return Tested(source, workflow, problems=(missing,))
        tests = read_tests(source.tests, str(tests_of(source.path)))
        return Tested(source, workflow, tests, run_tests(workflow, tests))
    except WorkflowError as error:
        return Tested(source, problems=tuple(map(str, error.problems)))


def run_cases(
    path: Annotated[Path, typer.Argument(help="A workflow file, or a folder of them.", show_default=True)] = Path("workflows"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every case, and what was filled in for it.")] = False,
    mutate: Annotated[bool, typer.Option("--mutate", help="Drop or loosen each condition; list those that no case would miss.")] = False,
    proposing: Annotated[bool, typer.Option("--propose", help="Write the missing cases into the test file.")] = False,
    as_json: Json = False,
) -> None:
    """Run the cases of NAME.test.yaml beside each workflow: the real engine decides, nothing in the files is executed."""
    with refusing():
        results = [tested(source) for source in below(path)]
        if proposing and not as_json:
            results = [_proposed(each) for each in results]
        surveys = {t.source.path: survey(t.workflow, t.tests) for t in results if mutate and t.ok and t.workflow and t.tests}
    if as_json:
        say_json([_json(each, surveys.get(each.source.path)) for each in results])
    else:
        for each in results:
            _tell(each, surveys.get(each.source.path), verbose=verbose)
    left = any(s.survivors for s in surveys.values())
    raise typer.Exit(ERROR if not all(each.ok for each in results) else LOOK if left else YES)


def _tell(each: Tested, surveyed: Survey | None, *, verbose: bool) -> None:
    """One workflow's results."""
    if each.report is None:
        note(*each.problems, colour="red")
        return
    report = each.report
    count = len(report.results)
    what = f"{count} cases hold" if report.passed else f"{len(report.failed)} of {count} cases do not hold"
    say(f"{report.workflow}: {what}  ({report.file})")
    if verbose:
        rows(
            ("", "case", "expected", "got"),
            [("ok" if r.passed else "FAILED", r.name, r.expected, r.got.partition(":")[0]) for r in report.results],
            styles=("green", "bold", "dim"),
        )
        say("filled in for the base:", *(f"  {key}: {value}" for key, value in report.filled.items()), "")
    note(*failures(report), colour="red")
    if surveyed is None:
        return
    covered = len(surveyed.mutants) - len(surveyed.survivors)
    say(f"  {covered} of {len(surveyed.mutants)} conditions have a case that would miss them")
    first = sorted(surveyed.survivors, key=lambda mutant: not mutant.tries)  # what a case can be written for
    note(*(f"  {mutant}, and every case still holds" for mutant in first))
    if surveyed.survivors:
        say("  agentgate workflow test --propose writes cases that would")
    say(f"  {len(surveyed.not_covered)} things no case can show" + (":" if verbose else " (-v lists them)"))
    if verbose:
        say(*(f"    {each.path}: {each.why}" for each in surveyed.not_covered))


def failures(report: Report) -> list[str]:
    """The cases that do not hold, one line each."""
    return [f"{r.place}: {r.name}: {r.why}" for r in report.failed]


def _proposed(each: Tested) -> Tested:
    """Write the cases that are missing, and run all again."""
    if each.workflow is None or each.source.commit or (each.tests is not None and not each.ok):
        return each
    made = propose(each.workflow, each.tests)
    place = tests_of(each.source.path)
    written = cases_yaml(p.case for p in made.found)
    if each.tests is None:
        if not written:
            return each
        with place.open("x", encoding="utf-8") as file:
            file.write(f"# What {each.workflow.id} lets through and what not.\n{head_yaml(each.workflow)}{written}")
    elif written:
        with place.open("a", encoding="utf-8") as file:
            file.write(("" if (each.source.tests or "").endswith("\n") else "\n") + f"  # {_READ}\n" + written)
    read = "; read each: it says what the workflow does, not what it should do" if made.found else ""
    say(f"{place}: {len(made.found)} cases written{read}")
    note(*(f"  {mutant}: no case was found that would miss it" for mutant in made.left))
    return tested(next(iter(below(Path(each.source.path)))))


def _json(each: Tested, result: Survey | None) -> dict[str, Any]:
    report = each.report
    out: dict[str, Any] = {
        "workflow": each.workflow.id if each.workflow else None,
        "file": each.source.path,
        "ok": each.ok,
        "problems": list(each.problems),
        "cases": [
            {"name": r.name, "passed": r.passed, "expected": r.expected, "got": r.got, "why": r.why, "place": r.place}
            for r in (report.results if report else ())
        ],
    }
    if result is not None:
        out["conditions"] = len(result.mutants)
        out["not_missed"] = [str(m) for m in result.survivors]
        out["not_covered"] = [{"field": each.path, "why": each.why} for each in result.not_covered]
    return out
