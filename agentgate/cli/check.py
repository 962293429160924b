"""``agentgate workflow check``: lint, tests, changes since a base, approvals. What CI runs on a pull request."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from agentgate.approvals import ApprovalRefusal, status
from agentgate.approvals._files import DEFINITION, INDEX, REVOKED
from agentgate.cli.commands import ERROR
from agentgate.cli.diff import save, tell
from agentgate.cli.lint import count, lint_text
from agentgate.cli.output import LOOK, WIDER, YES, note, refusing, say, say_json
from agentgate.cli.signing import Json, Root
from agentgate.cli.test import Tested, failures, tested
from agentgate.errors import ConfigError, WorkflowError
from agentgate.loading.catalog import APPROVALS
from agentgate.loading.source import WorkflowText, ask, below, blob, commit_of, files_of, in_git, prefix
from agentgate.loading.yaml_nodes import read_yaml
from agentgate.review.report.changes import Changes, as_json, comment
from agentgate.review.report.comparison import changes_between
from agentgate.review.report.signers import in_words, makers
from agentgate.values.canonical import digest
from agentgate.values.visible import code

LISTED = 20  # lines of one kind in a comment


@dataclass(slots=True)
class Findings:
    """The result of a check. `errors` fail it, `unapproved` need a person.

    `asked`: signatures were checked. `loads`: all files load. `index`: one is there and in its time.
    """

    base: str
    commit: str
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tests: list[Tested] = field(default_factory=list)
    changes: list[Changes] = field(default_factory=list)
    unapproved: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # of the definitions at the base, by id
    asked: bool = False
    loads: bool = True
    index: bool = True

    @property
    def exit_code(self) -> int:
        """See the command's help."""
        if self.errors:
            return ERROR
        return LOOK if self.unapproved else WIDER if any(c.wider for c in self.changes) else YES


def check(  # noqa: PLR0917 - a command's options, given by name
    directory: Annotated[Path, typer.Argument(help="The workflow directory.", file_okay=False, show_default=True)] = Path("workflows"),
    base: Annotated[
        str | None,
        typer.Option(help="The revision that the change is compared with; left out: origin/main, or what there is.", show_default=False),
    ] = None,
    root: Root = None,
    unsafe_unapproved: Annotated[
        bool, typer.Option("--unsafe-unapproved", help="Do not ask for signatures; what is wider still exits with 2.")
    ] = False,
    require_index: Annotated[
        bool, typer.Option("--require-index", help="For CI: no index, or one that has ended, is something for a person.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a comment for the pull request.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.", dir_okay=False)] = None,
    as_json_: Json = False,
) -> None:
    """Check everything a reviewer would ask: does it load, do its tests hold, what does it newly permit, who signed it."""
    with refusing():
        if as_json_ and markdown:
            raise ConfigError("output", "--json and --markdown", "one of them")
        findings = Findings(*_base(base))
        _files(findings, directory)
        if findings.loads:
            _compare(findings, directory)
            _approved(findings, directory, root, unsafe=unsafe_unapproved, require_index=require_index)
        if html is not None:
            save(html, findings.changes, f"{findings.base} → {directory}", findings.errors)
    if as_json_:
        say_json(_json(findings))
    elif markdown:
        say(*_comment(findings))
    else:
        _tell(findings)
    raise typer.Exit(findings.exit_code)


def _base(named: str | None) -> tuple[str, str]:
    """The revision to compare with, and its commit; in a repository without any commit, its empty tree."""
    if named is not None:
        return named, commit_of(named)
    for usual in ("origin/main", "origin/HEAD", "HEAD"):
        with suppress(ConfigError):
            return usual, commit_of(usual)
    tree = ask("hash-object", "-t", "tree", "/dev/null")
    if tree is None:
        raise ConfigError("base", "nothing", "a git repository here, or --base REVISION")
    return "nothing (no commit yet)", tree.decode().strip()


def _files(findings: Findings, directory: Path) -> None:
    """Lint, and the tests."""
    problems, warnings = lint_text(directory)
    findings.errors += problems
    findings.warnings += warnings
    findings.loads = not problems
    if problems:
        return
    for source in below(directory):
        result = tested(source)
        findings.tests.append(result)
        findings.errors += result.problems
        if result.report is not None:
            findings.errors += failures(result.report)


def _compare(findings: Findings, directory: Path) -> None:
    """Every workflow against the one of its path, or of its id, at the base."""
    inside = _in_repository(directory)
    old: dict[str, WorkflowText] = {}
    by_id: dict[str, WorkflowText] = {}
    for path in files_of(findings.commit, inside):
        source = in_git(findings.commit, path)
        try:
            by_id[source.workflow().id] = old[path] = source
        except WorkflowError as error:
            findings.warnings.append(f"{findings.base}:{path} does not load there, so all of it is new ({error.problems[0].field})")
    new = [(f"{inside}/{Path(s.path).relative_to(directory).as_posix()}".removeprefix("./"), s) for s in below(directory)]
    for path, source in new:
        after = source.workflow()
        before = by_id.get(after.id) or old.get(path)
        was = before.workflow() if before is not None else None
        if was is not None:
            findings.digests[after.id] = was.digest
        if before is not None and was is not None and was.digest == after.digest and before.roles == source.roles:
            continue
        findings.changes.append(changes_between(_named(before, findings.base), source))
        if was is not None and was.version >= after.version and was.id == after.id:
            signed = blob(findings.commit, f"{inside}/{APPROVALS}/{after.id}/{after.version}/{DEFINITION}".removeprefix("./"))
            if was.version > after.version or signed is not None:
                findings.unapproved.append(f"{path}: version {after.version}, expected above {was.version}, as {findings.base} has it")
    kept = {source.workflow().id for _, source in new}
    findings.changes += [changes_between(_named(source, findings.base), None) for id_, source in by_id.items() if id_ not in kept]
    findings.changes.sort(key=lambda c: (not c.wider, not c.read_yourself, c.id))


def _named(source: WorkflowText | None, base: str) -> WorkflowText | None:
    return replace(source, name=f"{base}:{source.path}") if source is not None else None


def _in_repository(directory: Path) -> str:
    """The directory as git names it from the repository's root."""
    inside = PurePosixPath(os.path.normpath(prefix() + Path(os.path.relpath(directory)).as_posix()))
    if ".." in inside.parts:
        raise ConfigError("directory", str(directory), "a folder of the repository that you are in")
    return str(inside)


def _approved(findings: Findings, directory: Path, root: str | None, *, unsafe: bool, require_index: bool) -> None:
    """Who signed. The root is the base's unless given, so that a change cannot bring its own."""
    if unsafe:
        findings.unapproved += [f"{c.id} {c.new}: {c.verdict}" for c in findings.changes if c.looks]
        return
    _older_lists(findings, directory)
    if not (directory / APPROVALS).is_dir():
        findings.unapproved.append(
            f"nobody signs here yet: next, agentgate root draft (a team) or agentgate init (you alone) makes {directory / APPROVALS}"
        )
        return
    inside = _in_repository(directory)
    trusted = blob(findings.commit, str(PurePosixPath(inside) / APPROVALS / "root.yaml"))
    pinned = root or ("sha256:" + digest(trusted.encode()) if trusted is not None else None)
    standing = status(directory, pinned)
    if pinned is None:
        findings.unapproved.append(
            f"{findings.base} has no {APPROVALS}/root.yaml: the root is new, and a gate trusts it only once its digest is pinned"
        )
    for each in standing:
        if each.refused is None:
            continue
        at, bare = (each.refused.reason, each.id), each.refused.data.get("absent", False)
        if at == (ApprovalRefusal.STALE_INDEX, "") and (each.refused.field == "expires" or bare):
            findings.index = False  # a matter of the calendar, not of this change; gates do refuse it
            (findings.unapproved if require_index else findings.warnings).append(str(each.refused))
        else:
            findings.unapproved.append(str(each.refused))
    findings.asked = True
    signers: dict[str, tuple[str, ...]] = {}
    for each in standing:
        if each.refused is not None:  # who must still sign, and who may: not the proposer, as far as git names one
            nobody = ["nobody who has not signed yet may sign it"] if each.missing and not each.can else []
            signers[each.id] = (*in_words(each.needs, _made_by(findings, each.id, directory / each.path)), *nobody)
    findings.changes = [replace(c, signers=signers.get(c.id, ())) for c in findings.changes]


def _made_by(findings: Findings, id_: str, file: Path) -> tuple[str, ...]:
    """Who made a workflow what it is since the base, as far as git tells."""
    try:
        return makers(file, findings.digests.get(id_))
    except ConfigError as error:
        findings.warnings.append(str(error))
        return ()


def _older_lists(findings: Findings, directory: Path) -> None:
    """Lists older than the base's: what was revoked or replaced since would be in force for a gate that never saw those."""
    for name in (INDEX, REVOKED):
        path, there = str(PurePosixPath(_in_repository(directory)) / APPROVALS / name), directory / APPROVALS / name
        before = blob(findings.commit, path)
        if before is None:
            continue
        if not there.is_file():
            findings.unapproved.append(f"{APPROVALS}/{name}: got nothing, expected the file that {findings.base} has")
            continue
        serials = [_serial(text, name) for text in (before, there.read_text("utf-8", "replace"))]
        if serials[1] < serials[0]:
            findings.unapproved.append(
                f"{APPROVALS}/{name}: serial {serials[1]}, expected at least {serials[0]}, as {findings.base} has it"
            )


def _serial(text: str, name: str) -> int:
    """A list's serial; lower than all others where it cannot be read (which is refused elsewhere)."""
    try:
        value = json.loads(text) if name == INDEX else read_yaml(text, name).value
    except (ValueError, WorkflowError, RecursionError):
        value = None
    serial = value.get("serial") if isinstance(value, dict) else None
    return serial if type(serial) is int else -1


def _tell(findings: Findings) -> None:
    cases = sum(len(t.report.results) for t in findings.tests if t.report is not None)
    note(*findings.warnings)
    note(*findings.errors, colour="red")
    found = f"{count(len(findings.errors), 'error')}, {count(len(findings.warnings), 'warning')}"
    say(f"lint and tests: {count(len(findings.tests), 'workflow')}, {count(cases, 'case')}, {found}")
    if not findings.loads:
        return
    say(f"changes since {findings.base} ({findings.commit[:12]}): {len(findings.changes) or 'none'}", "")
    for each in findings.changes:
        tell(each)
        say("")
    note(*findings.unapproved)
    if findings.errors:
        say(f"{count(len(findings.errors), 'error')}, named at the top")
        return
    force = "in force" if findings.index else "signed; gates load them with an index (agentgate workflow index)"
    good = f"approved: every workflow file is {force}" if findings.asked else "nothing more is permitted"
    more = " (more is permitted than before)" if findings.exit_code == WIDER else ""
    say("a person must look" if findings.unapproved else good + more)


def _comment(findings: Findings) -> list[str]:
    lines = ["## agentgate", ""]
    if findings.errors:
        lines += [f"**{count(len(findings.errors), 'error')}**" + ("" if findings.loads else "; nothing was compared."), ""]
        lines += [*_listed(findings.errors), ""]
    if not findings.loads:
        return lines
    if not findings.changes:
        lines += ["No workflow changed in what it decides.", ""]
    for each in findings.changes:
        lines += [*comment(each), ""]
    if findings.unapproved:
        lines += ["**Not approved yet**", "", *_listed(findings.unapproved)]
    elif findings.asked:
        lines += ["Every workflow file is approved."]
    return lines


def _listed(lines: list[str]) -> list[str]:
    more = [f"- and {len(lines) - LISTED} more"] * (len(lines) > LISTED)
    return [*(f"- {code(line, 240)}" for line in lines[:LISTED]), *more]


def _json(findings: Findings) -> dict[str, Any]:
    return {
        "base": findings.base,
        "commit": findings.commit,
        "exit_code": findings.exit_code,
        "errors": findings.errors,
        "warnings": findings.warnings,
        "workflows": [t.workflow.id for t in findings.tests if t.workflow is not None],
        "changes": [as_json(c) for c in findings.changes],
        "unapproved": findings.unapproved,
    }
