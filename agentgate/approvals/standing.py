"""The status of every workflow: what runs, who signed what is in the file, how many are missing
and who still can.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentgate.approvals._files import TAMPERED, UNAPPROVED, ApprovalRefused, refused
from agentgate.approvals.allowed_signers import AllowedSigners
from agentgate.approvals.judge import Approved, Judge, Standing, uncounted
from agentgate.approvals.loading import (
    WorkflowFile,
    lenient_judge,
    load_judged,
    read_workflow_files,
    unapproved,
)
from agentgate.approvals.narrowing import Prover
from agentgate.approvals.root import Needs, Root
from agentgate.approvals.version import Version, first_difference
from agentgate.errors import Failure, WorkflowError, place_of
from agentgate.intents.lexical import derive as lexical
from agentgate.loading.catalog import Catalog, Ending, roles_of, workflow_files
from agentgate.loading.definition import Derive
from agentgate.values.value_class import value_class
from agentgate.workflow.model import Doubt, Workflow


@value_class
class WorkflowStatus:
    """One workflow, or (with an empty id) one trust file that is wrong.

    Attributes:
        id: the workflow's; empty for a trust file.
        path: its file, below the workflow directory.
        version: the version in the file; 0 when it cannot be read.
        in_force: the version a gate that starts here would run; None: none.
        until: POSIX seconds at which that approval ends.
        needs: what the root asks for the version in the file.
        signed: whose valid signatures it has.
        can: who else may sign it.
        refused: why the version in the file is not in force; None: it is.
        ignored: signatures that do not count, and why.
        in_doubt: why intents of the version in force are unclear at most under this deriver.
        ends: when it is no longer in force: that approval, the index or the root ends; None: it
            is not in force.
    """

    id: str
    path: str
    version: int
    in_force: int | None = None
    until: float = 0.0
    needs: Needs = ()
    signed: tuple[str, ...] = ()
    can: tuple[str, ...] = ()
    refused: Failure | None = None
    ignored: tuple[Failure, ...] = ()
    in_doubt: tuple[Doubt, ...] = ()
    ends: Ending | None = None

    @property
    def missing(self) -> int:
        """The most signatures that any rule still asks for."""
        return max((need.needed - need.have for need in self.needs if not need.met), default=0)


def status(
    directory: Path | str,
    root: str | None = None,
    *,
    only: Path | str | None = None,
    derive: Derive = lexical,
    now: float | None = None,
) -> tuple[WorkflowStatus, ...]:
    """The status of every workflow file (`only`: of this one), bad trust files first. Arguments
    as `agentgate.approvals.writing.write_index`.

    Raises ApprovalRefused: the root is not trusted.
    """
    folder = Path(directory)
    when = time.time() if now is None else now
    judge, wrong = lenient_judge(folder, root, derive=derive, now=when)
    paths = workflow_files(folder) if only is None else [Path(only)]
    files, broken = read_workflow_files(folder, paths)
    id_ = (
        next((file.value.get("id") for file in files.values()), None)
        if only is not None
        else None
    )
    loaded = dict[str, Workflow]()
    catalog = Catalog({}, {})
    harmful = dict[str, Failure]()
    if not wrong:  # else a gate loads nothing
        with suppress(WorkflowError):
            found = load_judged(judge, files, broken, id_ if type(id_) is str else None)
            loaded = dict(found.workflows)
            catalog = Catalog(found.workflows, {}, found.until, found.ends)
            harmful = {
                each.data["workflow"]: each for each in found.refused if each.field == "tools"
            }
    statuses = [WorkflowStatus("", each.place, 0, refused=each) for each in wrong]
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name in files:
            status_ = _status(judge, files[name], loaded)
            why_not = status_.refused or harmful.get(status_.id)
            statuses.append(replace(status_, ends=catalog.ending(status_.id), refused=why_not))
        else:
            problem = broken[str(path)].problems[0]
            unread = refused(
                UNAPPROVED,
                f"{name}:{place_of(problem)[0]}",
                problem.field,
                problem.got,
                problem.expected,
            )
            statuses.append(WorkflowStatus(name, name, 0, refused=unread))
    return tuple(statuses)


def forecast(
    directory: Path | str,
    *,
    root: str | None = None,
    under: tuple[Root, AllowedSigners] | None = None,
    revoking: tuple[str, int] | None = None,
) -> tuple[tuple[str, int | None, int | None], ...]:
    """What would be in force after a step that nobody took yet.

    Args:
        directory: the workflow directory.
        root: the pinned digest; None: the present root.
        under: another root, with the keys of its people.
        revoking: a workflow and the highest of its versions to revoke.

    Returns:
        For each workflow whose version would change: its id, the version in force now and then
            (None: none).

    Raises ApprovalRefused: the root is not trusted.
    """
    folder = Path(directory)
    when = time.time()
    judge, _ = lenient_judge(folder, root, derive=lexical, now=when)
    trusted, allowed = under or (judge.root, judge.allowed)
    known = {f"revoked:{revoking[0]}": revoking[1]} if revoking else {}
    then = Judge(
        judge.tree, trusted, allowed, judge.index, judge.revoked, known, when, lexical, Prover()
    )
    listed = set(judge.index.workflows if judge.index else ()) | {
        f.value.get("id")
        for f in read_workflow_files(folder, workflow_files(folder))[0].values()
    }
    found = [
        (id_, _running(judge, id_), _running(then, id_))
        for id_ in sorted(id_ for id_ in listed if type(id_) is str)
    ]
    return tuple((id_, before, after) for id_, before, after in found if before != after)


def _running(judge: Judge, id_: str) -> int | None:
    try:
        approved = judge.running(id_).enforced
    except ApprovalRefused:
        return None
    return approved.version.version if approved else None


def needs(judge: Judge, file: WorkflowFile) -> Needs:
    """What the root requires for this file's version, counting the present signatures over
    exactly this content.
    """
    id_ = file.value["id"]
    version = file.value["version"]
    if version in judge.tree.versions(id_):
        standing = judge.standing(id_, version)
        if (
            standing.version
            and standing.version.digest == file.digest
            and standing.version.signed
        ):
            return standing.needs
    try:
        static = roles_of(judge.tree.directory)
    except WorkflowError:  # a gate loads nothing then, and says why
        static = {}
    return judge.asked(
        _unsigned(file),
        file.path,
        {name: tuple(sorted(scopes)) for name, scopes in static.items()},
    )


def _unsigned(file: WorkflowFile) -> Version:
    """A file's version, as if nobody had signed it."""
    risk: Any = str(file.value.get("risk"))  # no rule of a root approves an unknown one
    return Version(
        file.value["id"], file.value["version"], file.digest, file.value, risk, (), ()
    )


def _status(judge: Judge, file: WorkflowFile, loaded: Mapping[str, Workflow]) -> WorkflowStatus:
    id_ = file.value.get("id")
    version = file.value.get("version")
    if type(id_) is not str or type(version) is not int:
        return WorkflowStatus(str(id_), file.path, 0, refused=unapproved(judge, file, None))
    try:
        running = judge.running(id_).enforced
        standing = judge.standing(id_, version) if version in judge.tree.versions(id_) else None
        asks = needs(judge, file)
        why_not = _refused(judge, file, running, standing)
    except ApprovalRefused as error:
        return WorkflowStatus(id_, file.path, 0, refused=error.refused)
    stored = standing.version if standing else None
    same = stored if stored and stored.digest == file.digest else _unsigned(file)
    before = judge.before(id_, version)
    base = before.digest if before else None
    current = {s.person for s in same.signed if s.statement.previous == base}
    can = {person for need in asks if not need.met for person in need.by}.difference(
        current, uncounted(judge.root, same.signed)
    )
    found = WorkflowStatus(
        id=id_,
        path=file.path,
        version=version,
        needs=asks,
        signed=tuple(s.person for s in same.signed),
        can=tuple(sorted(can)) if why_not else (),
        refused=why_not,
        ignored=same.ignored,
    )
    workflow = loaded.get(id_)
    if not workflow:
        return found
    until = running.until if running else 0.0
    return replace(found, in_force=workflow.version, until=until, in_doubt=workflow.in_doubt)


def _refused(
    judge: Judge, file: WorkflowFile, running: Approved | None, standing: Standing | None
) -> Failure | None:
    """Why the version in the file is not what runs: what is wrong with its record, else with
    the file.
    """
    if standing and not standing.approved and standing.refused:
        stored = standing.version
        if not stored or stored.digest == file.digest or standing.refused.reason is TAMPERED:
            return standing.refused
        field, got, expected = first_difference(file.value, stored.value)
        expected = f"{expected}, as signed before (sign again)"
        return refused(
            UNAPPROVED,
            file.path,
            field,
            got,
            expected,
            workflow=stored.id,
            version=stored.version,
        )
    found = unapproved(judge, file, running)
    if not found or found.reason is not TAMPERED:
        return found
    return replace(found, expected=f"{found.expected} (a change needs a higher version)")
