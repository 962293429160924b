"""What a gate runs: for every workflow the newest version whose approval holds, never below
what was in force before.

Rules: trust files are never quarantined: one that is bad or absent loads nothing. A refused
workflow is named with its reason and stops no other. A refused new version leaves the approved
one running, from the canonical bytes that were signed; once a version was in force, no older
one runs. The workflow file must be where it was approved, and only tells whether it *is* what
was approved: then its lines are known, else the approved bytes run without it.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any

from agentgate.approvals._files import (
    APPROVALS,
    INDEX,
    REVOKED,
    ROLLBACK,
    ROOT,
    TAMPERED,
    UNAPPROVED,
    WRONG_PLACE,
    ApprovalRefusal,
    ApprovalRefused,
    Tree,
    file_digest,
    printable,
    refuse,
    refused,
    version_of,
)
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.index import (
    carry_on,
    check_not_ended,
    check_same,
    load_revoked,
    load_signed_index,
)
from agentgate.approvals.judge import OBSERVED, Approved, Judge, in_force
from agentgate.approvals.narrowing import Prover
from agentgate.approvals.root import Root, load_root
from agentgate.approvals.version import first_difference
from agentgate.errors import CanonicalError, ConfigError, Failure, WorkflowError
from agentgate.loading.blocks import written_out
from agentgate.loading.catalog import ROLES, collector_paused, roles_of, text_of, workflow_files
from agentgate.loading.definition import Derive, Roles
from agentgate.loading.yaml_nodes import Document, read_yaml, shown
from agentgate.values.canonical import canonical
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Workflow

# versions of a workflow, the newest revoked ones: a run lives for a week at most
_WITH_RUNS = 20
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
ROOT_MARK = "root:version"
INDEX_MARK = "index:serial"
REVOKED_MARK = "revoked:serial"


@value_class
class Loaded:
    """What was loaded at one moment.

    Attributes:
        workflows: by id.
        until: id -> POSIX seconds at which it is no longer in force: its approval, the index or
            the root ends.
        refused: what is not in force and why; those with a workflow that is also in `workflows`
            left an older version running.
        broken: path -> why a workflow file cannot be read (the approved bytes run without it).
        marks: what may never be lower again: versions by id, and the serials.
        root: the trusted root.
        allowed: its signers' keys.
        revoked: versions that would be in force were they not revoked: id, version and tenants.
        ends: POSIX seconds at which `index` and `root` end.
        observed: id -> the version that only observes, beside the one in force.
    """

    workflows: Mapping[str, Workflow]
    until: Mapping[str, float]
    refused: tuple[Failure, ...]
    broken: Mapping[str, WorkflowError]
    marks: Mapping[str, int]
    root: Root
    allowed: AllowedSigners
    revoked: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    ends: Mapping[str, float] = field(default_factory=dict)
    observed: Mapping[str, Workflow] = field(default_factory=dict)


def strict_judge(
    directory: Path | str,
    root: str,
    *,
    derive: Derive,
    now: float,
    known: Mapping[str, int] | None = None,
    prover: Prover | None = None,
) -> Judge:
    """The judge that a gate asks: every trust file must be right and current.

    Args:
        directory: the workflow directory.
        root: the pinned digest, ``sha256:...``.
        derive: the intent deriver.
        now: POSIX seconds.
        known: marks of before.
        prover: proves narrowings.

    Raises ApprovalRefused: a trust file is bad, absent or old. ConfigError: `root` is no
    digest.
    """
    if type(root) is not str or not _DIGEST.fullmatch(root):
        raise ConfigError(
            "root",
            root,
            "sha256: and 64 lower-case hex characters (agentgate workflow status prints it)",
        )
    judge, wrong = lenient_judge(
        directory, root, derive=derive, now=now, known=known, prover=prover
    )
    marks = _marks(judge, {}, ())
    before = judge.known
    for mark, file in ((ROOT_MARK, ROOT), (INDEX_MARK, INDEX), (REVOKED_MARK, REVOKED)):
        if mark in marks and marks[mark] < before.get(mark, 0):
            field = mark.partition(":")[2]
            expected = f"at least {before[mark]}, which was in force before"
            raise refuse(ROLLBACK, f"{APPROVALS}/{file}", field, marks[mark], expected)
    if wrong:
        raise ApprovalRefused.of(wrong[0])
    return judge


def lenient_judge(
    directory: Path | str,
    root: str | None,
    *,
    derive: Derive,
    now: float,
    known: Mapping[str, int] | None = None,
    prover: Prover | None = None,
) -> tuple[Judge, tuple[Failure, ...]]:
    """A judge for people: the root (None: the present one) must be right; what is wrong with
    index and revocations is returned.

    Raises ApprovalRefused: the root is not trusted.
    """
    tree = Tree(directory)
    wrong = []
    trusted = load_root(tree, root, now)
    index = revoked = None
    try:
        revoked = load_revoked(trusted)
    except ApprovalRefused as error:
        wrong.append(error.refused)
    try:
        signed = load_signed_index(trusted)
        index = signed[0]  # also under a bad renewal: who signs the next index goes on from it
        index = carry_on(signed, trusted)
        if revoked:
            check_same(index, revoked)
        check_not_ended(index, now)
    except ApprovalRefused as error:
        wrong.append(error.refused)
    return Judge(
        tree,
        trusted.root,
        trusted.allowed,
        index,
        revoked,
        known or {},
        now,
        derive,
        prover or Prover(),
    ), tuple(wrong)


@collector_paused()
def load_approved(
    directory: Path | str,
    root: str,
    *,
    derive: Derive,
    now: float,
    known: Mapping[str, int] | None = None,
    prover: Prover | None = None,
) -> Loaded:
    """Load what reviewers approved. Arguments as `strict_judge`.

    Raises as `strict_judge`, and WorkflowError: ``roles.yaml`` is wrong, or the directory
    cannot be read; nothing is loaded.
    """
    judge = strict_judge(directory, root, derive=derive, now=now, known=known, prover=prover)
    folder = Path(directory)
    return load_judged(judge, *read_workflow_files(folder, workflow_files(folder)))


def load_judged(
    judge: Judge,
    files: Mapping[str, WorkflowFile],
    broken: Mapping[str, WorkflowError],
    only: str | None = None,
) -> Loaded:
    """Load everything that a judge approves whose trust files are right and current; `files`,
    `broken`: of `read_workflow_files`.

    `only`: the workflow of this id.

    Raises WorkflowError: ``roles.yaml`` is wrong; nothing is loaded.
    """
    folder = judge.tree.directory
    roles = roles_of(folder)
    broken = dict(broken)
    judge.read.update({file.digest: file.value for file in files.values()})
    listed = (
        [*judge.tree.ids(), *(judge.index.workflows if judge.index else ())]
        if only is None
        else [only]
    )
    chosen, observing, refusals = _chosen(judge, listed)
    workflows = {}
    until = {}
    observed: dict[str, Workflow] = {}
    for approved in (*chosen.values(), *observing):
        id_ = approved.version.id
        file = files.get(approved.statement.path)
        if wrong := _misplaced(folder, approved, file, broken):
            refusals.append(wrong)
            continue
        document = file.document if file and file.digest == approved.version.digest else None
        try:
            workflow = judge.load(approved.version, approved.statement.roles, document)
        except WorkflowError as error:
            broken.setdefault(error.problems[0].data["file"], error)
            continue
        if approved.observes and id_ in chosen:
            observed[id_] = workflow
        elif harmful := _harmful(approved, workflow):
            refusals.append(harmful)
        else:
            workflows[id_], until[id_] = workflow, ends_at(judge, approved)
            refusals += _other_roles(approved, roles)
    seen = {version_of(each) for each in refusals}
    others = (
        unapproved(judge, file, chosen.get(str(file.value.get("id"))))
        for file in files.values()
    )
    refusals += [each for each in others if each and version_of(each) not in seen]
    judge.prover.save()
    ends = {"index": judge.index.until if judge.index else math.inf, "root": judge.root.until}
    return Loaded(
        workflows,
        until,
        tuple(refusals),
        broken,
        _marks(judge, chosen, observing),
        judge.root,
        judge.allowed,
        _revoked(judge, refusals),
        ends,
        observed,
    )


def ends_at(judge: Judge, approved: Approved) -> float:
    """POSIX seconds at which a version is no longer in force: its approval, the index or the
    root ends.
    """
    return min(approved.until, judge.index.until if judge.index else math.inf, judge.root.until)


@value_class
class WorkflowFile:
    """A workflow file that can be read: its path below the directory, the document, its
    definition written out, and the digest of that.
    """

    path: str
    document: Document
    value: dict[str, Any]
    digest: str


def read_workflow_file(path: Path, folder: Path) -> WorkflowFile:
    """Read one workflow file. Raises WorkflowError: it is no YAML that all parsers agree on."""
    document = read_yaml(text_of(path, folder), str(path))
    document.refuse()
    value = written_out(document.value)
    try:
        digest = file_digest(canonical(value, "definition"))
    except CanonicalError as error:
        document.report((), error.got, error.expected)
        document.refuse()
        raise
    return WorkflowFile(
        path.relative_to(folder).as_posix(),
        document,
        value if type(value) is dict else {},
        digest,
    )


def read_workflow_files(
    folder: Path, paths: Iterable[Path]
) -> tuple[dict[str, WorkflowFile], dict[str, WorkflowError]]:
    """Workflow files below a folder: those that can be read by their path below it, and why the
    others cannot, by path.
    """
    files = {}
    broken = {}
    for path in paths:
        try:
            file = read_workflow_file(path, folder)
        except WorkflowError as error:
            broken[str(path)] = error
        else:
            files[file.path] = file
    return files, broken


def _chosen(
    judge: Judge, ids: Iterable[str]
) -> tuple[dict[str, Approved], list[Approved], list[Failure]]:
    """Of each workflow what is enforced, and what only observes; and every refusal on the
    way.
    """
    chosen = {}
    observing = []
    refusals = []

    for id_ in dict.fromkeys(ids):
        try:
            versions = judge.tree.versions(id_)
            running = judge.running(id_)
        except ApprovalRefused as error:
            refusals.append(error.refused.with_data(workflow=id_))
            continue
        refusals += running.newer
        observing += [running.observed] if running.observed else []
        floor = judge.floor(id_)
        named = judge.newest(id_)
        if running.enforced:
            chosen[id_] = running.enforced
        elif not (named and named.removed and not versions) and not any(
            version >= floor for version in versions
        ):
            newest = versions[0] if versions else 0
            name, got = (
                (ROLLBACK, f"version {newest}") if newest else (UNAPPROVED, "no version")
            )
            expected = (
                f"version {floor} or later, which was in force before"
                if newest
                else f"version {max(floor, 1)} or later"
            )
            refusals.append(
                refused(
                    name,
                    f"{APPROVALS}/{id_}",
                    "version",
                    got,
                    expected,
                    workflow=id_,
                    version=newest,
                )
            )
    return chosen, observing, refusals


def _harmful(approved: Approved, workflow: Workflow) -> Failure | None:
    """The refusal of a version that only observes, with tools that do more than read or write:
    where nothing was ever enforced, a refused call runs its tool, without a token.
    """
    harmful = [
        tool.name
        for tool in workflow.tools.values()
        if tool.effect not in {"read", "write"}
        or tool.redeem != "wrapper"
        or tool.upstream is not None
    ]
    if not approved.observes or not harmful:
        return None
    expected = (
        "tools that read or write, without upstream and server: no version "
        "was enforced before this one, which only observes"
    )
    return refused(
        UNAPPROVED,
        approved.version.file,
        "tools",
        ", ".join(harmful),
        expected,
        workflow=workflow.id,
        version=workflow.version,
    )


def _misplaced(
    folder: Path,
    approved: Approved,
    file: WorkflowFile | None,
    broken: Mapping[str, WorkflowError],
) -> Failure | None:
    """The refusal of an approved workflow whose file is not where it was approved, or is
    another workflow's.
    """
    id_ = approved.version.id
    path = approved.statement.path
    if not file:
        try:
            there = stat.S_ISREG((folder / path).lstat().st_mode)
        except (OSError, ValueError):
            there = False
        if there and str(folder / path) in broken:
            return None  # it cannot be read: the approved bytes run, and the file is reported
        field = "file"
        got = "no workflow file"
        expected = f"{id_} in the file it was approved for"
    elif file.value.get("id") != id_:
        field = "id"
        got = shown(file.value.get("id"))
        expected = id_
    else:
        return None
    return refused(
        WRONG_PLACE, path, field, got, expected, workflow=id_, version=approved.version.version
    )


def _other_roles(approved: Approved, roles: Roles) -> Iterator[Failure]:
    """Roles whose scopes differ from those that were approved, which stay in force."""
    id_ = approved.version.id
    expected = "the approved scopes, which stay in force"
    for name, scopes in approved.statement.roles.items():
        if roles.get(name) != frozenset(scopes):
            got = "other scopes than were approved" if name in roles else "no such role"
            yield refused(
                TAMPERED,
                ROLES,
                f"roles.{name}",
                got,
                expected,
                workflow=id_,
                version=approved.version.version,
            )


def unapproved(judge: Judge, file: WorkflowFile, approved: Approved | None) -> Failure | None:
    """The refusal of a workflow file that is not what runs; `approved` is what does."""
    id_ = file.value.get("id")
    version = file.value.get("version")
    if type(id_) is not str or type(version) is not int:
        got = f"{shown(id_)} version {shown(version)}"
        return refused(
            UNAPPROVED, file.path, "id", got, "an id and a version", workflow=printable(id_)
        )
    observed = judge.running(id_).observed if file.value.get("mode") == "observe" else None
    if observed is not None and observed.version.digest == file.digest:
        return None
    floor = judge.floor(id_)
    name = UNAPPROVED
    field = "version"
    got = f"version {version} without approval"
    expected = f"signatures under {APPROVALS}/{id_}/{version} (agentgate workflow approve)"
    if not approved:
        if version < floor:
            name = ROLLBACK
            expected = f"at least {floor}, which was in force before"
    elif file.path != approved.statement.path:
        name = WRONG_PLACE
        field = "id"
        got = id_
        expected = f"only in {approved.statement.path}, where it was approved"
    elif file.digest == approved.version.digest:
        return None
    elif version == approved.version.version:
        field, got, expected = first_difference(file.value, approved.version.value)
        name = TAMPERED
        expected = f"{expected}, as approved, which stays in force"
    elif version < approved.version.version:
        name = ROLLBACK
        expected = f"at least {approved.version.version}, which stays in force"
    else:
        expected = f"{expected}; version {approved.version.version} stays in force"
    return refused(
        name, file.path, field, got, expected, workflow=printable(id_), version=version
    )


def _revoked(
    judge: Judge, refusals: list[Failure]
) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """What would run, or may have open runs, were it not revoked."""
    named = {version_of(each) for each in refusals if each.reason is ApprovalRefusal.REVOKED}
    for id_ in {
        *(judge.revoked.revoked if judge.revoked else ()),
        *(judge.index.revoked.up_to if judge.index else ()),
    }:
        with suppress(ApprovalRefused):  # it cannot be read: that is one of the refusals
            stored = [
                version
                for version in judge.tree.versions(id_)
                if version <= judge.revoked_up_to(id_)
            ]
            named |= {(id_, version) for version in stored[:_WITH_RUNS]}
    revoked = []
    for id_, number in sorted(named):
        version = judge.standing(id_, number).version
        if version:
            tenants = version.value.get("tenants")
            names = (
                tuple(tenant for tenant in tenants if type(tenant) is str)
                if type(tenants) is list
                else ()
            )
            revoked.append((version.id, version.version, names))
    return tuple(revoked)


def _marks(
    judge: Judge, chosen: Mapping[str, Approved], observing: Iterable[Approved]
) -> dict[str, int]:
    marks = {
        ROOT_MARK: judge.root.version,
        **{OBSERVED + each.version.id: each.version.version for each in observing},
    }
    if judge.index:
        marks[INDEX_MARK] = judge.index.serial
        marks |= {id_: newest.version for id_, newest in judge.index.workflows.items()}
        marks |= {
            f"revoked:{id_}": version for id_, version in judge.index.revoked.up_to.items()
        }
    if judge.revoked:
        marks[REVOKED_MARK] = judge.revoked.serial
        for id_, revocation in judge.revoked.revoked.items():
            marks[f"revoked:{id_}"] = max(revocation.up_to, marks.get(f"revoked:{id_}", 0))
    for id_, approved in chosen.items():
        version = approved.version
        marks[id_] = max(version.version, marks.get(id_, 0))
        marks |= {
            in_force(id_, version.version): 1,
            in_force(id_, version.version, version.digest): 1,
        }
    return marks
