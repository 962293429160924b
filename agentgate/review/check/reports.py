"""What is found out about workflow files before a change is signed, each result as one report:
what is wrong with them, each at its line and column, and what is advised on those that load; the
cases beside them, decided by the real engine, and the conditions that no case would miss; what
CI asks of a pull request that changes them: lint, tests, changes since a base, approvals.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from agentgate.approvals import ApprovalRefusal, status
from agentgate.approvals._files import DEFINITION, INDEX, REVOKED
from agentgate.errors import ConfigError, Failures, WorkflowError
from agentgate.intents.lexical import derive
from agentgate.loading.catalog import APPROVALS, ROLES, Catalog, roles_of
from agentgate.loading.definition import load_text, read_file
from agentgate.loading.source import (
    WorkflowText,
    ask,
    below,
    blob,
    commit_of,
    files_of,
    in_git,
    prefix,
)
from agentgate.loading.yaml_nodes import dotted, read_yaml
from agentgate.review.check.advice import Advice, advise, gathered
from agentgate.review.draft.draft import undecided
from agentgate.review.draft.template import render, render_lines
from agentgate.review.mutation.mutation import Survey, head_yaml, propose, survey
from agentgate.review.report.changes import Changes, as_json, comment, page, plain
from agentgate.review.report.comparison import changes_between
from agentgate.review.report.report import ExitStatus, Line, Table, in_number
from agentgate.review.report.signers import in_words, makers
from agentgate.review.scenarios.scene import Scene
from agentgate.review.scenarios.testfile import (
    CaseResults,
    TestFile,
    cases_yaml,
    load_tests,
    passing,
    read_tests,
    run_tests,
    tests_of,
)
from agentgate.review.scenarios.unaided import Unaided, counted, unaided
from agentgate.values.canonical import digest
from agentgate.values.value_class import Json, Names, value_class
from agentgate.values.visible import code
from agentgate.workflow.model import Workflow

Acts = tuple[Unaided, ...]

Lines = Iterator[Line | Table]

_SUMMARY = "review/check/templates/lint.lines"


@value_class
class LintReport:
    """The findings about a file or folder.

    `acts`: what is known of the required arguments of tools that act.
    """

    loaded: int
    problems: Failures
    advice: tuple[Advice, ...] = ()
    acts: Acts = ()
    strict: bool = False

    @property
    def status(self) -> ExitStatus:
        """An error for problems, and if `strict` for warnings."""
        return (
            ExitStatus.ERROR
            if self.problems or (self.strict and self.advice)
            else ExitStatus.YES
        )

    def text(self, width: int) -> Lines:  # noqa: ARG002 - a table folds its cells itself
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
        kinds = Counter(each.kind for each in self.advice).most_common()
        return render_lines(
            _SUMMARY, report=self, acts=counted(self.acts), kinds=kinds, in_number=in_number
        )


def lint_path(path: Path, *, strict: bool = False) -> LintReport:
    """Check a workflow file, or a folder of them with its ``roles.yaml``.

    A file that does not load is in the report.
    """
    workflows: tuple[Workflow, ...] = ()
    problems: Failures = ()
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


def _judge_acts(workflow: Workflow) -> Acts:
    """What is known of the required arguments of its acts, with the cases beside it."""
    cases: tuple[Scene, ...] = ()
    if (tests := tests_of(workflow.file)).exists():
        with suppress(WorkflowError):  # `test` says what is wrong with them
            cases = tuple(scene for _, scene in passing(workflow, load_tests(tests)))
    return unaided(workflow, cases)


def _advise(workflow: Workflow, acts: Acts) -> tuple[Advice, ...]:
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


# --- the cases beside them --------------------------------------------------------------------
_CONDITIONS = "review/check/templates/conditions.lines"
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
    problems: Names = ()

    @property
    def ok(self) -> bool:
        """True when there are tests and all of them hold."""
        return self.results is not None and self.results.passed

    @property
    def failures(self) -> Names:
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

    def text(self, width: int) -> Lines:  # noqa: ARG002 - sentences are not broken
        """See `Report`."""
        for suite, surveyed in zip(self.suites, self.surveys, strict=True):
            if suite.results:
                yield from self._results(suite.results)
            yield from ((line, "red") for line in suite.failures)
            if surveyed:
                yield from render_lines(_CONDITIONS, survey=surveyed, verbose=self.verbose)

    def _results(self, results: CaseResults) -> Lines:
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

    def to_json(self) -> list[Json]:
        """See `Report`."""
        return [
            _to_json(suite, found)
            for suite, found in zip(self.suites, self.surveys, strict=True)
        ]


def _to_json(suite: CaseSuite, surveyed: Survey | None) -> Json:
    results = suite.results.results if suite.results else ()
    names = "name passed expected got why place".split()
    answer: Json = {
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


# --- what CI asks of a pull request -----------------------------------------------------------
LISTED = 20  # lines of one kind in a comment


@dataclass(slots=True)
class CheckReport:
    """The result of a check. `errors` fail it, `unapproved` need a person.

    `asked`: signatures were checked. `loads`: all files load. `index`: one is there and in its
    time.
    """

    directory: Path
    base: str
    commit: str
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suites: list[CaseSuite] = field(default_factory=list)
    changes: list[Changes] = field(default_factory=list)
    unapproved: list[str] = field(default_factory=list)
    # of the definitions at the base, by id
    digests: dict[str, str] = field(default_factory=dict)
    asked: bool = False
    loads: bool = True
    index: bool = True

    @property
    def status(self) -> ExitStatus:
        """See the command's help."""
        if self.errors:
            return ExitStatus.ERROR
        if self.unapproved:
            return ExitStatus.LOOK
        return (
            ExitStatus.WIDER if any(change.wider for change in self.changes) else ExitStatus.YES
        )

    def text(self, width: int) -> Iterator[Line]:
        """See `Report`."""
        return render_lines(
            "review/check/templates/check.lines",
            report=self,
            in_number=in_number,
            width=width,
            plain=plain,
        )

    def to_json(self) -> Json:
        """See `Report`."""
        return {
            "base": self.base,
            "commit": self.commit,
            "exit_code": self.status,
            "errors": self.errors,
            "warnings": self.warnings,
            "workflows": [suite.workflow.id for suite in self.suites if suite.workflow],
            "changes": [as_json(change) for change in self.changes],
            "unapproved": self.unapproved,
        }

    def to_markdown(self) -> Iterator[str]:
        """See `ReviewReport`."""
        shown = {"code": code, "in_number": in_number, "comment": comment}
        text = render("review/check/templates/check.md", report=self, most=LISTED, **shown)
        yield from text.rstrip("\n").split("\n")

    def to_html(self) -> str:
        """See `ReviewReport`."""
        return page(
            self.changes, subtitle=f"{self.base} → {self.directory}", errors=self.errors
        )


def check_directory(
    directory: Path,
    *,
    base: str | None,
    root: str | None,
    unsafe_unapproved: bool,
    require_index: bool,
) -> CheckReport:
    """Check the workflows of a directory against those at a revision.

    Args:
        directory: of the repository that this process is in.
        base: the revision; None: origin/main, or what there is.
        root: the pinned root's digest; None: the root at the base, so that a change cannot
            bring its own.
        unsafe_unapproved: ask for no signatures.
        require_index: no index, or one that has ended, needs a person.

    Raises:
        ConfigError: no such revision, or the directory is in no repository.
    """
    report = CheckReport(directory, *_base(base))
    _lint_and_test(report)
    if report.loads:
        _compare(report)
        if unsafe_unapproved:
            report.unapproved += [
                f"{c.id} {c.new}: {c.verdict}" for c in report.changes if c.looks
            ]
        else:
            _ask_signers(report, root, require_index=require_index)
    return report


def _base(named: str | None) -> tuple[str, str]:
    """The revision to compare with, and its commit; in a repository without any commit, its
    empty tree.
    """
    if named is not None:
        return named, commit_of(named)
    for usual in ("origin/main", "origin/HEAD", "HEAD"):
        with suppress(ConfigError):
            return usual, commit_of(usual)
    tree = ask("hash-object", "-t", "tree", "/dev/null")
    if tree is None:
        raise ConfigError("base", "nothing", "a git repository here, or --base REVISION")
    return "nothing (no commit yet)", tree.decode().strip()


def _lint_and_test(report: CheckReport) -> None:
    linted = lint_path(report.directory)
    report.errors += map(str, linted.problems)
    report.warnings += map(str, linted.advice)
    report.loads = not linted.problems
    if report.loads:
        report.suites += map(run_suite, below(report.directory))
        report.errors += [line for suite in report.suites for line in suite.failures]


def _compare(report: CheckReport) -> None:
    """Every workflow against the one of its path, or of its id, at the base."""
    directory = report.directory
    inside = _in_repository(directory)
    old: dict[str, WorkflowText] = {}
    by_id: dict[str, WorkflowText] = {}
    for path in files_of(report.commit, inside):
        source = in_git(report.commit, path)
        try:
            by_id[source.workflow().id] = old[path] = source
        except WorkflowError as error:
            report.warnings.append(
                f"{report.base}:{path} does not load there, so all of it is new ({error.problems[0].field})"
            )
    new = [
        (f"{inside}/{Path(s.path).relative_to(directory).as_posix()}".removeprefix("./"), s)
        for s in below(directory)
    ]
    for path, source in new:
        after = source.workflow()
        before = by_id.get(after.id) or old.get(path)
        was = before.workflow() if before else None
        if was:
            report.digests[after.id] = was.digest
        if before and was and was.digest == after.digest and before.roles == source.roles:
            continue
        report.changes.append(changes_between(_named(before, report.base), source))
        if was and was.version >= after.version and was.id == after.id:
            signed = blob(
                report.commit,
                f"{inside}/{APPROVALS}/{after.id}/{after.version}/{DEFINITION}".removeprefix(
                    "./"
                ),
            )
            if was.version > after.version or signed is not None:
                report.unapproved.append(
                    f"{path}: version {after.version}, expected above {was.version}, as "
                    f"{report.base} has it"
                )
    kept = {source.workflow().id for _, source in new}
    report.changes += [
        changes_between(_named(source, report.base), None)
        for id_, source in by_id.items()
        if id_ not in kept
    ]
    report.changes.sort(key=lambda c: (not c.wider, not c.read_yourself, c.id))


def _named(source: WorkflowText | None, base: str) -> WorkflowText | None:
    return replace(source, name=f"{base}:{source.path}") if source else None


def _in_repository(directory: Path) -> str:
    """The directory as git names it from the repository's root."""
    inside = PurePosixPath(
        os.path.normpath(prefix() + Path(os.path.relpath(directory)).as_posix())
    )
    if ".." in inside.parts:
        raise ConfigError(
            "directory", str(directory), "a folder of the repository that you are in"
        )
    return str(inside)


def _ask_signers(report: CheckReport, root: str | None, *, require_index: bool) -> None:
    """Who signed. The root is the base's unless given, so that a change cannot bring its
    own.
    """
    directory = report.directory
    _older_lists(report, directory)
    if not (directory / APPROVALS).is_dir():
        report.unapproved.append(
            "nobody signs here yet: next, agentgate root draft (a team) or agentgate init (you "
            f"alone) makes {directory / APPROVALS}"
        )
        return
    inside = _in_repository(directory)
    trusted = blob(report.commit, str(PurePosixPath(inside) / APPROVALS / "root.yaml"))
    pinned = root or ("sha256:" + digest(trusted.encode()) if trusted is not None else None)
    standing = status(directory, pinned)
    if pinned is None:
        report.unapproved.append(
            f"{report.base} has no {APPROVALS}/root.yaml: the root is new, and a gate trusts it "
            "only once its digest is pinned"
        )
    for each in standing:
        if not each.refused:
            continue
        at = (each.refused.reason, each.id)
        bare = each.refused.data.get("absent", False)
        if at == (ApprovalRefusal.STALE_INDEX, "") and (
            each.refused.field == "expires" or bare
        ):
            # a matter of the calendar, not of this change; gates do refuse it
            report.index = False
            (report.unapproved if require_index else report.warnings).append(str(each.refused))
        else:
            report.unapproved.append(str(each.refused))
    report.asked = True
    signers: dict[str, Names] = {}
    for each in standing:
        if (
            each.refused
        ):  # who must still sign, and who may: not the proposer, as far as git names one
            nobody = (
                ["nobody who has not signed yet may sign it"]
                if each.missing and not each.can
                else []
            )
            signers[each.id] = (
                *in_words(each.needs, _made_by(report, each.id, directory / each.path)),
                *nobody,
            )
    report.changes = [replace(c, signers=signers.get(c.id, ())) for c in report.changes]


def _made_by(report: CheckReport, id_: str, file: Path) -> Names:
    """Who made a workflow what it is since the base, as far as git tells."""
    try:
        return makers(file, report.digests.get(id_))
    except ConfigError as error:
        report.warnings.append(str(error))
        return ()


def _older_lists(report: CheckReport, directory: Path) -> None:
    """Lists older than the base's.

    What was revoked or replaced since would be in force for a gate that never saw those.
    """
    for name in (INDEX, REVOKED):
        path = str(PurePosixPath(_in_repository(directory)) / APPROVALS / name)
        there = directory / APPROVALS / name
        before = blob(report.commit, path)
        if before is None:
            continue
        if not there.is_file():
            report.unapproved.append(
                f"{APPROVALS}/{name}: got nothing, expected the file that {report.base} has"
            )
            continue
        serials = [
            _serial(text, name) for text in (before, there.read_text("utf-8", "replace"))
        ]
        if serials[1] < serials[0]:
            report.unapproved.append(
                f"{APPROVALS}/{name}: serial {serials[1]}, expected at least {serials[0]}, as "
                f"{report.base} has it"
            )


def _serial(text: str, name: str) -> int:
    """A list's serial; lower than all others where it cannot be read (which is refused
    elsewhere).
    """
    try:
        value = json.loads(text) if name == INDEX else read_yaml(text, name).value
    except (ValueError, WorkflowError, RecursionError):
        value = None
    serial = value.get("serial") if isinstance(value, dict) else None
    return serial if type(serial) is int else -1
