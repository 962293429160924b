"""What CI asks of a pull request that changes workflows: lint, tests, changes since a base,
approvals.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from agentgate.approvals import ApprovalRefusal, status
from agentgate.approvals._files import DEFINITION, INDEX, REVOKED
from agentgate.errors import ConfigError, WorkflowError
from agentgate.loading.catalog import APPROVALS
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
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.check.lint import lint_path
from agentgate.review.check.suite import CaseSuite, run_suite
from agentgate.review.draft.template import render
from agentgate.review.report.changes import Changes, as_json, comment, page, plain
from agentgate.review.report.comparison import changes_between
from agentgate.review.report.report import ExitStatus, Line, in_number
from agentgate.review.report.signers import in_words, makers
from agentgate.values.canonical import digest
from agentgate.values.visible import code

_TEMPLATE = Path(__file__).parent / "templates" / "check.md"
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
        cases = sum(len(suite.results.results) for suite in self.suites if suite.results)
        yield from ((line, "yellow") for line in self.warnings)
        yield from ((line, "red") for line in self.errors)
        errors = in_number(len(self.errors), "error")
        warnings = in_number(len(self.warnings), "warning")
        ran = f"{in_number(len(self.suites), 'workflow')}, {in_number(cases, 'case')}"
        yield f"lint and tests: {ran}, {errors}, {warnings}", ""
        if not self.loads:
            return
        yield (
            f"changes since {self.base} ({self.commit[:12]}): {len(self.changes) or 'none'}",
            "",
        )
        yield "", ""
        for change in self.changes:
            yield from plain(change, width)
            yield "", ""
        yield from ((line, "yellow") for line in self.unapproved)
        yield (f"{errors}, named at the top" if self.errors else self._verdict()), ""

    def _verdict(self) -> str:
        if self.unapproved:
            return "a person must look"
        force = (
            "in force"
            if self.index
            else "signed; gates load them with an index (agentgate workflow index)"
        )
        good = (
            f"approved: every workflow file is {force}"
            if self.asked
            else "nothing more is permitted"
        )
        return good + (
            " (more is permitted than before)" if self.status is ExitStatus.WIDER else ""
        )

    def to_json(self) -> dict[str, Any]:
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
        text = render(_TEMPLATE, report=self, most=LISTED, **shown)
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
    signers: dict[str, tuple[str, ...]] = {}
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


def _made_by(report: CheckReport, id_: str, file: Path) -> tuple[str, ...]:
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
